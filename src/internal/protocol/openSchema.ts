/**
 * Schemas of what the server sends, which also work if the server is newer than this package.
 *
 * An unknown field, enum member or variant passes through as raw JSON. A known variant of the wrong shape becomes a malformed variant, and
 * does not fail the value around it.
 *
 * Each schema checks a value and returns the same object. So `Schema.is` on the parsed JSON and a full decode agree, and unknown fields
 * cost nothing.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import * as SchemaTransformation from "effect/SchemaTransformation"

/**
 * A tag that this version of the protocol does not know. At run time it is a string. To the compiler it differs from all known tags, so
 * that `switch` on a tag still narrows to the known variants.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
// Not a branded string: the compiler can compare one with every literal, and narrows nothing.
export declare enum Unrecognized {
  Tag = "(unknown to this version)"
}

/**
 * The member of a tagged union for variants of newer servers: the raw JSON object, with its tag.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export type UnrecognizedVariant<Tag extends string> =
  & { readonly [K in Tag]: Unrecognized }
  & { readonly [key: string]: unknown }

/**
 * The member of a tagged union for an object with a known tag whose content does not decode. `raw` is the received JSON object, which is
 * also its encoding.
 *
 * It has no other fields. To the compiler they are `unknown`, so that a field of the other members is accessible without narrowing the
 * union, such as `params` of a notification.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export type MalformedVariant<Tag extends string> =
  & { readonly [K in Tag | "raw"]: K extends "raw" ? unknown : "malformed" }
  & { readonly [key: string]: unknown }

/**
 * The member of a union of strings and single-key objects for objects with an unknown key: the raw JSON object.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export interface UnrecognizedObject {
  /** Does not exist at run time. It distinguishes the type from the types of the known objects. */
  readonly "~effect-codex/Protocol/Unrecognized": never
}

/**
 * The member of a union of strings and single-key objects for an object with a known key whose content does not decode. `raw` is the
 * received JSON object, which is also its encoding.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export interface MalformedObject {
  readonly malformed: true
  readonly raw: unknown
}

type JsonObject = { readonly [key: string]: unknown }

const isJsonObject = (u: unknown): u is JsonObject => typeof u === "object" && u !== null && !Array.isArray(u)

const unknownFields = [Schema.Record(Schema.String, Schema.Unknown)] as const

const passthrough = (to: Schema.Constraint): SchemaAST.Link =>
  Schema.link<unknown>()(to, SchemaTransformation.passthrough<unknown>())

/** Allows unknown fields, also where the caller forbids them for its own schemas. */
const keepUnknown = (options: SchemaAST.ParseOptions): SchemaAST.ParseOptions =>
  options.onExcessProperty === "error" ? { ...options, onExcessProperty: "ignore" } : options

/** Builds a schema when it is first used, so that the import of hundreds of definitions stays fast. */
export const lazy = <T>(thunk: () => Schema.Codec<T>): Schema.Codec<T> => Schema.suspend(thunk)

/** Non-negative integers. */
export const UnsignedInt = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** As `Schema.NullOr`, but `null` comes first: a lazy schema would have to be built to reject `null`. */
export const nullable = <S extends Schema.Constraint>(schema: S) => Schema.Union([Schema.Null, schema])

/**
 * A field that every supported server sends, and without which a value is still useful. The type requires the field. A value of an older
 * server without it still decodes.
 */
export const detail = <S extends Schema.Constraint>(schema: S): S => Schema.optionalKey(schema) as unknown as S

/** Accepts the values that `inner` accepts, and returns them unchanged. */
const same = <T>(inner: Schema.Codec<T>): Schema.Codec<T> =>
  Schema.declareConstructor<T>()(
    [inner],
    ([inner]) => {
      const is = Schema.is(inner)
      const explain = SchemaParser.decodeUnknownEffect(inner)
      return (input, _, options) => is(input) ? Effect.succeed(input) : explain(input, keepUnknown(options))
    },
    {
      expected: "object",
      toCodecJson: ([inner]) => passthrough(Schema.StructWithRest(inner as never, unknownFields))
    }
  )

/** Restores the unknown fields that `Struct` removes. */
const merge = (original: unknown, parsed: unknown): unknown =>
  isJsonObject(original) && isJsonObject(parsed) ? { ...original, ...parsed } : parsed

/**
 * A codec between received JSON and `self`, for schemas that contain a malformed variant. Only such a variant differs from its JSON.
 */
const received = <T>(
  self: Schema.Codec<T>,
  slow: {
    readonly decode: (input: unknown, options: SchemaAST.ParseOptions) => Effect.Effect<unknown, SchemaIssue.Issue>
    readonly encode: (value: T, options: SchemaAST.ParseOptions) => Effect.Effect<unknown, SchemaIssue.Issue>
  }
): Schema.Codec<T> => {
  const is = Schema.is(self)
  const codec: Schema.Constraint = Schema.Unknown.pipe(Schema.decodeTo(
    self as Schema.Codec<T, unknown>,
    SchemaTransformation.transformEffect({
      decode: (input: unknown, options) => is(input) ? Effect.succeed(input) : slow.decode(input, keepUnknown(options)),
      encode: (value: unknown, options) => slow.encode(value as T, keepUnknown(options))
    })
  ))
  return codec as Schema.Codec<T>
}

/** An object with known fields, whose values equal their JSON, and any other fields. */
export const open = <const Fields extends Schema.Struct.Fields>(
  fields: Fields
): Schema.Codec<Schema.Struct.Type<Fields>> =>
  same(Schema.Struct(fields) as unknown as Schema.Codec<Schema.Struct.Type<Fields>>)

/** As `open`, for objects with a field whose schema may contain a malformed variant. */
export const openCodec = <const Fields extends Schema.Struct.Fields>(
  fields: Fields
): Schema.Codec<Schema.Struct.Type<Fields>> => {
  const struct = Schema.Struct(fields) as unknown as Schema.Codec<Schema.Struct.Type<Fields>>
  const decode = SchemaParser.decodeUnknownEffect(struct)
  const encode = SchemaParser.encodeEffect(struct)
  return received(same(Schema.toType(struct) as typeof struct), {
    decode: (input, options) => Effect.map(decode(input, options), (parsed) => merge(input, parsed)),
    encode: (value, options) => Effect.map(encode(value, options), (parsed) => merge(value, parsed))
  })
}

/** One of the known strings, or an unknown string. */
export const openEnum = <const Members extends ReadonlyArray<string>>(
  members: Members
): Schema.Codec<Members[number] | (string & {})> =>
  Schema.declareConstructor<Members[number] | (string & {})>()(
    [Schema.Literals(members)],
    () => (input, ast, options) =>
      typeof input === "string" ? Effect.succeed(input) : Effect.fail(new SchemaIssue.InvalidType(ast, input, options)),
    {
      expected: "string",
      toCodecJson: ([known]) => passthrough(Schema.Union([known, Schema.String]))
    }
  )

/** Makes the decoders and encoders of a known variant, when the first one arrives. */
const makeVariant = (alternatives: ReadonlyArray<Schema.Struct.Fields>) => {
  const make = () => {
    const structs: ReadonlyArray<Schema.Constraint> = alternatives.map((fields) => Schema.Struct(fields))
    const codec = (structs.length === 1 ? structs[0] : Schema.Union(structs)) as Schema.Codec<unknown>
    const type = Schema.toType(codec)
    return {
      is: Schema.is(type),
      explain: SchemaParser.decodeUnknownEffect(type),
      decode: SchemaParser.decodeUnknownEffect(codec),
      encode: SchemaParser.encodeEffect(codec)
    }
  }
  let made: ReturnType<typeof make> | undefined
  return () => made ??= make()
}

/** The union of known variants, unknown ones and malformed ones. */
const variants = <T>(options: {
  readonly expected: string
  /** Returns the variant of an input by its tag: `undefined` for an unknown tag, `null` for a value without a tag. */
  readonly find: (input: unknown) => ReturnType<ReturnType<typeof makeVariant>> | undefined | null
  readonly malformed: Readonly<Record<string, string | true>>
  /** The variants, for tools that inspect schemas. Decoding does not use them. */
  readonly known: () => ReadonlyArray<Schema.Constraint>
  readonly unknown: Schema.Constraint
}): Schema.Codec<T> => {
  const { expected, find, malformed } = options
  const isMalformed = (value: unknown): value is { readonly raw: unknown } =>
    isJsonObject(value) && "raw" in value && Object.entries(malformed).every(([key, mark]) => value[key] === mark)
  const self = Schema.declareConstructor<unknown>()(
    [Schema.suspend(() => Schema.Union(options.known()))],
    () => (input, ast, parseOptions) => {
      const variant = find(input)
      if (variant === undefined) return Effect.succeed(input)
      if (variant === null) return Effect.fail(new SchemaIssue.InvalidType(ast, input, parseOptions))
      return variant.is(input) ? Effect.succeed(input) : variant.explain(input, keepUnknown(parseOptions))
    },
    {
      expected,
      toCodecArbitrary: ({ typeParameters: [known] }) => {
        const marks = Object.entries(malformed).map(([key, mark]) => [key, Schema.Literal(mark)])
        const placeholder = Schema.Struct({ ...Object.fromEntries(marks), raw: Schema.Unknown })
        return passthrough(Schema.Union([known, options.unknown, placeholder]))
      }
    }
  )
  return received(self as unknown as Schema.Codec<T>, {
    decode: (input, parseOptions) =>
      Effect.matchEager(find(input)?.decode(input, parseOptions) ?? Effect.succeed(input), {
        onFailure: () => ({ ...malformed, raw: input }),
        onSuccess: (parsed) => merge(input, parsed)
      }),
    encode: (value, parseOptions) => {
      if (isMalformed(value)) return Effect.succeed(value.raw)
      const encoded = find(value)?.encode(value, parseOptions) ?? Effect.succeed(value)
      return Effect.map(encoded, (parsed) => merge(value, parsed))
    }
  })
}

type Tagged<Tag extends string> = Schema.Struct.Fields & { readonly [K in Tag]: Schema.Literal<string> }

/**
 * A union of objects with a tag, a constant property. Unknown tags pass through. A known tag with another content becomes a
 * `MalformedVariant`.
 */
export const tagged = <const Tag extends string, const Variants extends ReadonlyArray<Tagged<Tag>>>(
  tag: Tag,
  members: Variants
): Schema.Codec<
  { [I in keyof Variants]: Schema.Struct.Type<Variants[I]> }[number] | UnrecognizedVariant<Tag> | MalformedVariant<Tag>
> => {
  const byTag = new Map<string, ReadonlyArray<Schema.Struct.Fields>>()
  for (const fields of members) {
    const { literal } = fields[tag]
    byTag.set(literal, [...byTag.get(literal) ?? [], fields])
  }
  const known = new Map([...byTag].map(([literal, alternatives]) => [literal, makeVariant(alternatives)]))
  return variants({
    expected: `object with a string ${JSON.stringify(tag)}`,
    find: (input) => !isJsonObject(input) || typeof input[tag] !== "string" ? null : known.get(input[tag])?.(),
    malformed: { [tag]: "malformed" },
    known: () => members.map((fields) => Schema.toType(Schema.Struct(fields))),
    unknown: Schema.Struct({ [tag]: Schema.String })
  })
}

/**
 * A union of strings and of objects with one key, their tag. Unknown strings and unknown keys pass through. A known key with another
 * content becomes a `MalformedObject`.
 */
export const keyed = <
  const Members extends ReadonlyArray<string>,
  const Cases extends { readonly [key: string]: Schema.Codec<unknown> }
>(
  members: Members,
  cases: Cases
): Schema.Codec<
  | Members[number]
  | (string & {})
  | { readonly [K in keyof Cases]: { readonly [P in K]: Cases[K]["Type"] } }[keyof Cases]
  | UnrecognizedObject
  | MalformedObject
> => {
  const known = new Map(Object.entries(cases).map(([key, schema]) => [key, makeVariant([{ [key]: schema }])]))
  return variants({
    expected: "string | object",
    find: (input) => {
      if (typeof input === "string") return undefined
      if (!isJsonObject(input)) return null
      const key = Object.keys(input).find((key) => known.has(key))
      return key === undefined ? undefined : known.get(key)?.()
    },
    malformed: { malformed: true },
    known: () => [
      Schema.Literals(members),
      ...Object.entries(cases).map(([key, schema]) => Schema.toType(Schema.Struct({ [key]: schema })))
    ],
    unknown: Schema.String
  })
}
