/** Emits the TypeScript type and the schema of a definition. */
import { type Definition, type Field, getFields, type Type } from "./model.ts"
import { fieldDocs, knownStrings, optionInterfaces } from "./overrides.ts"
import { block, call, comment, docComment, experimentalNote, indent, key, quoteAll, union } from "./print.ts"
import { fail } from "./schema.ts"

/** Emits the definitions of one direction: strict for messages of the client, open for messages of the server. */
export class Emitter {
  readonly isOpen: boolean
  readonly rename: (name: string) => string
  readonly mayBeMalformed: (type: Type) => boolean

  constructor(options: {
    readonly direction: "sent" | "received"
    readonly rename: (name: string) => string
    /** Whether a value of the type may contain a malformed variant. */
    readonly mayBeMalformed: (type: Type) => boolean
  }) {
    this.isOpen = options.direction === "received"
    this.rename = options.rename
    this.mayBeMalformed = options.mayBeMalformed
  }

  /** Some servers omit a field that others send as null. */
  private isOptional(field: Field): boolean {
    return field.optional || (this.isOpen && field.type._tag === "Nullable")
  }

  // ---------------------------------------------------------------------------
  // Types
  // ---------------------------------------------------------------------------

  type(type: Type): string {
    switch (type._tag) {
      case "Simple":
        return type.name
      case "NonEmptyString":
        return "string"
      case "Constant":
        return JSON.stringify(type.value)
      case "Number":
      case "Int":
        return "number"
      case "Ref":
        return this.rename(type.name)
      case "Enum":
        return union([...quoteAll(type.members), ...this.ifOpen("(string & {})")])
      case "Nullable":
        return `${this.type(type.type)} | null`
      case "Array":
        return `ReadonlyArray<${this.type(type.item)}>`
      case "Record":
        return `{ readonly [key: string]: ${this.type(type.value)} }`
      case "Object":
        return this.objectType(type.fields, type.rest)
      case "Tagged": {
        const tag = JSON.stringify(type.tag)
        return union([
          ...type.variants.map((variant) => docComment(variant) + block(this.fieldTypes(variant.fields), "")),
          ...this.ifOpen(`UnrecognizedVariant<${tag}>`, `MalformedVariant<${tag}>`)
        ])
      }
      case "Keyed":
        return union([
          ...quoteAll(type.members),
          ...this.ifOpen("(string & {})"),
          ...type.cases.map((field) =>
            docComment(field) + block(this.fieldTypes([{ ...field, description: undefined, experimental: false }]), "")
          ),
          ...this.ifOpen("UnrecognizedObject", "MalformedObject")
        ])
      case "Union":
        return union(type.members.map((member) => this.type(member)))
    }
  }

  private ifOpen(...members: ReadonlyArray<string>): ReadonlyArray<string> {
    return this.isOpen ? members : []
  }

  private objectType(fields: ReadonlyArray<Field>, rest: boolean): string {
    if (fields.length === 0) return `{ readonly [key: string]: ${this.isOpen || rest ? "unknown" : "never"} }`
    return block([...this.fieldTypes(fields), ...(rest ? ["readonly [key: string]: unknown"] : [])], "")
  }

  private fieldTypes(fields: ReadonlyArray<Field>, docs: Readonly<Record<string, string>> = {}): ReadonlyArray<string> {
    return fields.map((field) => {
      const type = this.type(field.type)
      const orUndefined = field.optional && !this.isOpen && type !== "unknown" ? " | undefined" : ""
      const doc = docComment({ ...field, description: docs[field.name] ?? field.description })
      return `${doc}readonly ${key(field.name)}${this.isOptional(field) ? "?" : ""}: ${type}${orUndefined}`
    })
  }

  // ---------------------------------------------------------------------------
  // Schemas
  // ---------------------------------------------------------------------------

  schema(type: Type): string {
    switch (type._tag) {
      case "Simple":
        return `Schema.${type.name[0]!.toUpperCase()}${type.name.slice(1)}`
      case "NonEmptyString":
        return this.isOpen ? "Schema.String" : "Schema.NonEmptyString"
      case "Constant":
        return `Schema.Literal(${JSON.stringify(type.value)})`
      case "Number":
        return this.isOpen ? "Schema.Number" : "Schema.Finite"
      case "Int":
        if (this.isOpen) return "Schema.Number"
        if (type.minimum === undefined) return "Schema.Int"
        return type.minimum === 0 ? "UnsignedInt" : `Schema.Int.check(Schema.isGreaterThanOrEqualTo(${type.minimum}))`
      case "Ref":
        return this.rename(type.name)
      case "Enum":
        return call(this.isOpen ? "openEnum([" : "Schema.Literals([", quoteAll(type.members), "])")
      case "Nullable":
        return `nullable(${this.schema(type.type)})`
      case "Array":
        return `Schema.Array(${this.schema(type.item)})`
      case "Record":
        return `Schema.Record(Schema.String, ${this.schema(type.value)})`
      case "Object":
        return this.objectSchema(type.fields, type.rest)
      case "Tagged":
        return this.isOpen
          ? call(`tagged(${JSON.stringify(type.tag)}, [`, type.variants.map((v) => this.fieldSchemas(v.fields)), "])")
          : unionSchema(type.variants.map((variant) => this.struct(variant.fields)))
      case "Keyed":
        return this.keyedSchema(type)
      case "Union":
        return unionSchema(type.members.map((member) => this.schema(member)))
    }
  }

  private objectSchema(fields: ReadonlyArray<Field>, rest: boolean): string {
    if (fields.length === 0) {
      return `Schema.Record(Schema.String, Schema.${this.isOpen || rest ? "Unknown" : "Never"})`
    }
    const struct = this.struct(fields)
    return rest && !this.isOpen
      ? `Schema.StructWithRest(${struct}, [Schema.Record(Schema.String, Schema.Unknown)])`
      : struct
  }

  private struct(fields: ReadonlyArray<Field>): string {
    const constructor = !this.isOpen
      ? "Schema.Struct"
      : fields.some((field) => this.mayBeMalformed(field.type))
      ? "openCodec"
      : "open"
    return `${constructor}(${this.fieldSchemas(fields)})`
  }

  private fieldSchemas(fields: ReadonlyArray<Field>): string {
    const entries = fields.map((field) => {
      const schema = this.schema(field.type)
      const optional = this.isOpen || schema === "Schema.Unknown" ? "Schema.optionalKey" : "Schema.optional"
      const required = this.isOpen && field.detail ? `detail(${schema})` : schema
      return `${key(field.name)}: ${this.isOptional(field) ? `${optional}(${schema})` : required}`
    })
    return block(entries, ",")
  }

  private keyedSchema(type: Extract<Type, { readonly _tag: "Keyed" }>): string {
    const members = quoteAll(type.members)
    if (this.isOpen) {
      const cases = block(type.cases.map((field) => `${key(field.name)}: ${this.schema(field.type)}`), ",")
      const list = call("[", members, "]")
      return list.includes("\n") ? call("keyed(", [list, cases], ")") : `keyed(${list}, ${cases})`
    }
    if (type.catchAll) fail("a catch-all variant is sent by the client")
    return unionSchema([
      ...(members.length === 0 ? [] : [call("Schema.Literals([", members, "])")]),
      ...type.cases.map((field) => this.struct([field]))
    ])
  }

  // ---------------------------------------------------------------------------
  // Definitions
  // ---------------------------------------------------------------------------

  /** The declarations of a definition: the type, and the constant with its schema. */
  definition(definition: Definition): string {
    checkOverrides(definition)
    const name = this.rename(definition.name)
    const doc = docComment(
      definition,
      listMembers(definition.type),
      name !== definition.name && `As the client sends it; {@link ${definition.name}} is what the server sends.`
    )
    // Engines defer parsing the body of a `function` until its first call. They parse the body of an arrow immediately.
    const annotated = `export const ${name}: Schema.Codec<${name}> =`
    const body = indent(`return ${this.schema(definition.type)}`)
    return `${this.optionsInterface(definition)}${doc}${this.typeDeclaration(definition)}\n` +
      `${annotated}${annotated.length > 100 ? "\n  " : " "}lazy(function() {\n${body}\n})\n`
  }

  private typeDeclaration(definition: Definition): string {
    const name = this.rename(definition.name)
    const body = this.declaredType(definition)
    if (definition.type._tag !== "Object" && definition.type._tag !== "Record") {
      return `export type ${name} =${body.startsWith("\n") ? "" : " "}${body}`
    }
    const options = optionInterfaces[definition.name]
    const base = options === undefined ? "" : `extends ${options.name} `
    return `export interface ${name} ${base}${body.startsWith("{\n") ? body : `{\n${indent(body.slice(2, -2))}\n}`}`
  }

  private declaredType({ name, type }: Definition): string {
    const known = knownStrings[name]
    if (known !== undefined) return union([...known.map((value) => JSON.stringify(value)), "(string & {})"])
    const fields = getFields(type)
    if (fields.length === 0 || (type._tag === "Object" && type.rest)) return this.type(type)
    const own = fields.filter((field) => !isOption(name, field))
    return block(this.fieldTypes(own, fieldDocs[name]), "")
  }

  private optionsInterface({ name, type }: Definition): string {
    const options = optionInterfaces[name]
    if (options === undefined) return ""
    const doc = comment(`The fields of {@link ${this.rename(name)}} that an operation has as options.`)
    const fields = getFields(type).filter((field) => isOption(name, field))
    return `${doc}export interface ${options.name} ${block(this.fieldTypes(fields, fieldDocs[name]), "")}\n\n`
  }
}

const unionSchema = (members: ReadonlyArray<string>): string =>
  members.length === 1 ? members[0]! : call("Schema.Union([", members, "])")

const isOption = (definition: string, field: Field): boolean => {
  const options = optionInterfaces[definition]
  return options !== undefined && !options.without.includes(field.name)
}

/** Fails for an override of something that the schema no longer contains, or now describes itself. */
const checkOverrides = ({ name, type }: Definition): void => {
  if (knownStrings[name] !== undefined && type._tag !== "NonEmptyString") fail(`${name} has its values in the schema`)
  const overridden = [...Object.keys(fieldDocs[name] ?? {}), ...optionInterfaces[name]?.without ?? []]
  const fields = new Set(getFields(type).map((field) => field.name))
  const missing = overridden.find((field) => !fields.has(field))
  if (missing !== undefined) fail(`${name} has no field ${missing}`)
}

/** A list of the strings of a type that have a description, for its comment. */
const listMembers = (type: Type): string => {
  const members = type._tag === "Enum" || type._tag === "Keyed" ? type.members : []
  return members.filter((member) => member.description !== undefined || member.experimental)
    .map((member) =>
      [
        `- \`"${member.value}"\`:`,
        member.description?.replaceAll(/\s*\n\s*/g, " "),
        member.experimental && experimentalNote
      ].filter(Boolean).join(" ")
    ).join("\n")
}
