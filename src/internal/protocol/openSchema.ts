/**
 * Schemas that keep working when the server is newer than this package.
 *
 * What the server sends is decoded by these: an unknown field, enum member or variant passes through as the raw JSON it
 * is, and a known variant of the wrong shape becomes a value that says so, instead of failing all that surrounds it.
 *
 * Each schema accepts a value by checking it and handing out the very same object, so `Schema.is` followed by use of
 * the parsed JSON and a full decode agree, and unknown fields cost nothing.
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
 * A tag that this version of the protocol does not know: some string at run time, and to the compiler a string that
 * equals none of the known tags, so that `switch` on a tag still narrows to the known variants.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
// A branded string will not do: the compiler takes it for comparable with every literal, and narrows nothing.
export declare enum Unrecognized {
  Tag = "(unknown to this version)"
}

/**
 * The member of a tagged union that stands for variants of newer servers: the raw JSON object, tag included.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export type UnrecognizedVariant<Tag extends string> =
  & { readonly [K in Tag]: Unrecognized }
  & { readonly [key: string]: unknown }

/**
 * The member of a tagged union that stands for an object whose tag is known and whose content is not that variant's.
 * `raw` is the JSON object as it was received, and is what encoding gives back.
 *
 * It has no other fields. To the compiler they are `unknown`, so that a field of the other members, such as `params` of a
 * notification, can be read from the union without narrowing it first.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export type MalformedVariant<Tag extends string> =
  & { readonly [K in Tag | "raw"]: K extends "raw" ? unknown : "malformed" }
  & { readonly [key: string]: unknown }

/**
 * The member of a union of strings and single-key objects that stands for objects with a key that this version does
 * not know: the raw JSON object.
 *
 * @category forward compatibility
 * @since 0.1.0
 */
export interface UnrecognizedObject {
  /** Never there: it keeps the type apart from those of the known objects. */
  readonly "~effect-codex/Protocol/Unrecognized": never
}

/**
 * The member of a union of strings and single-key objects that stands for an object with a known key and another
 * content. `raw` is the JSON object as it was received, and is what encoding gives back.
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
  Schema.link<any>()(to, SchemaTransformation.passthrough<any>())

/** Unknown fields are never an error here, whatever the caller wants of schemas of its own. */
const keepUnknown = (options: SchemaAST.ParseOptions): SchemaAST.ParseOptions =>
  options.onExcessProperty === "error" ? { ...options, onExcessProperty: "ignore" } : options

/** A schema that is built when it is first used: importing hundreds of definitions must cost next to nothing. */
export const lazy = <T>(thunk: () => Schema.Codec<T>): Schema.Codec<T> => Schema.suspend(thunk)

/** Integers of the protocol that cannot be negative. */
export const UnsignedInt = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** As `Schema.NullOr`, but `null` comes first: of a lazy schema nobody knows that it is not for `null` until it failed. */
export const nullable = <S extends Schema.Constraint>(schema: S) => Schema.Union([Schema.Null, schema])

/**
 * A field that every supported server sends, and that a value is of use without: the type says that it is there, and a value from
 * which an older server has left it out is not lost.
 */
export const detail = <S extends Schema.Constraint>(schema: S): S => Schema.optionalKey(schema) as unknown as S

/** Accepts what `inner` accepts, as the very same value. */
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

/** Restores what `Struct` strips. */
const merge = (original: unknown, parsed: unknown): unknown =>
  isJsonObject(original) && isJsonObject(parsed) ? { ...original, ...parsed } : parsed

/**
 * A codec between JSON as received and `self`, for schemas with a malformed variant somewhere inside: the only thing
 * whose decoded form differs from its JSON.
 */
const received = <T>(
  self: Schema.Codec<T>,
  slow: {
    readonly decode: (input: unknown, options: SchemaAST.ParseOptions) => Effect.Effect<unknown, SchemaIssue.Issue>
    readonly encode: (value: T, options: SchemaAST.ParseOptions) => Effect.Effect<unknown, SchemaIssue.Issue>
  }
): Schema.Codec<T> => {
  const is = Schema.is(self)
  const codec = Schema.Unknown.pipe(Schema.decodeTo(
    self as Schema.Codec<T, unknown>,
    SchemaTransformation.transformEffect({
      decode: (input: unknown, options) => is(input) ? Effect.succeed(input) : slow.decode(input, keepUnknown(options)),
      encode: (value: unknown, options) => slow.encode(value as T, keepUnknown(options))
    })
  ))
  return codec as Schema.Codec<any>
}

/** An object of which only the listed fields are known, all of them validated as they are. */
export const open = <const Fields extends Schema.Struct.Fields>(
  fields: Fields
): Schema.Codec<Schema.Struct.Type<Fields>> =>
  same(Schema.Struct(fields) as unknown as Schema.Codec<Schema.Struct.Type<Fields>>)

/** As `open`, for objects with a field whose schema may hold a malformed variant. */
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

/** One of the known strings, or a string that this version does not know. */
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

/** What there is to do with a known variant, made when the first one arrives. */
const variantOf = (alternatives: ReadonlyArray<Schema.Struct.Fields>) => {
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
  /** The variant that the input claims to be, `undefined` if it is an unknown one, `null` if it is none at all. */
  readonly find: (input: unknown) => ReturnType<ReturnType<typeof variantOf>> | undefined | null
  readonly malformed: Readonly<Record<string, string | true>>
  /** For tools that read schemas: this one reads none of them. */
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
 * A union of objects that a constant property tells apart. Unknown tags pass through; a known tag with another content
 * becomes a `MalformedVariant`.
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
  const known = new Map([...byTag].map(([literal, alternatives]) => [literal, variantOf(alternatives)]))
  return variants({
    expected: `object with a string ${JSON.stringify(tag)}`,
    find: (input) => !isJsonObject(input) || typeof input[tag] !== "string" ? null : known.get(input[tag])?.(),
    malformed: { [tag]: "malformed" },
    known: () => members.map((fields) => Schema.toType(Schema.Struct(fields))),
    unknown: Schema.Struct({ [tag]: Schema.String })
  })
}

/**
 * A union of strings and of objects with one key that tells them apart. Unknown strings and unknown keys pass through;
 * a known key with another content becomes a `MalformedObject`.
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
  const known = new Map(Object.entries(cases).map(([key, schema]) => [key, variantOf([{ [key]: schema }])]))
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
