/** The types of the protocol, between the parser and the emitter. */

export interface Doc {
  readonly description: string | undefined
  readonly experimental: boolean
}

export interface Field extends Doc {
  readonly name: string
  readonly optional: boolean
  /** Whether a value is usable without the field. */
  readonly detail: boolean
  readonly type: Type
}

export interface Literal extends Doc {
  readonly value: string
}

interface Variant extends Doc {
  readonly fields: ReadonlyArray<Field>
}

export interface Definition extends Doc {
  readonly name: string
  readonly type: Type
}

/** `Tagged` is a union that serde tags internally, `Keyed` one that it tags externally: strings and single-key objects. */
export type Type =
  | { readonly _tag: "Simple"; readonly name: "string" | "boolean" | "null" | "unknown" | "never" }
  | { readonly _tag: "NonEmptyString" }
  | { readonly _tag: "Constant"; readonly value: string }
  | { readonly _tag: "Number" }
  | { readonly _tag: "Int"; readonly minimum: number | undefined }
  | { readonly _tag: "Ref"; readonly name: string }
  | { readonly _tag: "Enum"; readonly members: ReadonlyArray<Literal> }
  | { readonly _tag: "Nullable"; readonly type: Type }
  | { readonly _tag: "Array"; readonly item: Type }
  | { readonly _tag: "Record"; readonly value: Type }
  | { readonly _tag: "Object"; readonly fields: ReadonlyArray<Field>; readonly rest: boolean }
  | { readonly _tag: "Tagged"; readonly tag: string; readonly variants: ReadonlyArray<Variant> }
  | {
    readonly _tag: "Keyed"
    readonly members: ReadonlyArray<Literal>
    readonly cases: ReadonlyArray<Field>
    readonly catchAll: boolean
  }
  | { readonly _tag: "Union"; readonly members: ReadonlyArray<Type> }

export const getChildren = (type: Type): ReadonlyArray<Type> => {
  switch (type._tag) {
    case "Nullable":
      return [type.type]
    case "Array":
      return [type.item]
    case "Record":
      return [type.value]
    case "Object":
      return type.fields.map((field) => field.type)
    case "Tagged":
      return type.variants.flatMap((variant) => variant.fields.map((field) => field.type))
    case "Keyed":
      return type.cases.map((field) => field.type)
    case "Union":
      return type.members
    default:
      return []
  }
}

/** The names of the definitions that a type mentions. */
export const getRefs = (type: Type): ReadonlyArray<string> =>
  type._tag === "Ref" ? [type.name] : getChildren(type).flatMap(getRefs)

/** The fields of an object, none for another type. */
export const getFields = (type: Type): ReadonlyArray<Field> => type._tag === "Object" ? type.fields : []
