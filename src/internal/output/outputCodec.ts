/** Typed output: the JSON Schema that is sent for an Effect Schema, and the way back from the text of a response. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as JsonSchema from "effect/JsonSchema"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import { AppServerError, InvalidRequest } from "../../AppServerError.ts"
import { ownFields } from "../tools/ownFields.ts"
import { encodedSchema } from "./encodedSchema.ts"
import { makeFromWire, maxNesting } from "./fromWire.ts"
import { type Issue, showIssues, showPath } from "./issue.ts"
import { findRefused, strictSchema } from "./strictSchema.ts"

/** A response that is not JSON, or not JSON of the schema. */
export class OutputIssue extends Data.TaggedError("OutputIssue")<{
  readonly reason: "notJson" | "invalid"
  readonly issues: ReadonlyArray<Issue>
}> {
  override get message(): string {
    return showIssues(this.issues)
  }
}

/** What a turn with typed output needs of its schema. */
export interface OutputCodec<out A, out RD = never, out RE = never> {
  /** The JSON Schema of the response, by the rules of OpenAI's strict mode. */
  readonly jsonSchema: JsonSchema.JsonSchema
  /** Decodes the text of a response. Fails with all issues. */
  readonly decode: (text: string) => Effect.Effect<A, OutputIssue, RD>
  /** Decodes the JSON of a response, as `decode` does. */
  readonly decodeJson: (json: unknown) => Effect.Effect<A, OutputIssue, RD>
  /** Encodes a value as the text that a model would write. */
  readonly encode: (value: unknown) => Effect.Effect<string, Schema.SchemaError, RE>
  /** Converts JSON that is still incomplete to the JSON of the caller's schema. Never throws. */
  readonly fromPartial: (json: unknown) => unknown
}

/** The field that holds the output on the wire, where the schema itself is not a struct. */
const wrapperField = "value"

const isStruct = (ast: SchemaAST.AST): boolean =>
  ast._tag === "Suspend" ? isStruct(ast.thunk()) : ast._tag === "Objects" && ast.indexSignatures.length === 0

/** A schema that strict JSON Schema cannot express. */
export class Refusal extends Data.TaggedError("Refusal")<{
  readonly path: ReadonlyArray<PropertyKey>
  readonly problem: string
}> {
  /** Describes the problem, with the name of the option that has the schema. */
  describe(option: string): string {
    const part = this.path.length === 0 ? `\`${option}\`` : `\`${showPath(this.path)}\` of \`${option}\``
    return `${part} has no strict JSON Schema: ${this.problem}`
  }
}

const refuse = (path: ReadonlyArray<PropertyKey>, problem: string): Refusal => new Refusal({ path, problem })

const allErrors: SchemaAST.ParseOptions = { errors: "all" }

const formatIssue = SchemaIssue.makeFormatterStandardSchemaV1()

const toIssues = (error: Schema.SchemaError): ReadonlyArray<Issue> =>
  formatIssue(error.issue).issues.map(({ message, path = [] }) => ({
    path: path.map((key) => typeof key === "object" ? key.key : key),
    message
  }))

const startsWith = (path: ReadonlyArray<PropertyKey>, start: ReadonlyArray<PropertyKey>): boolean =>
  start.every((key, index) => String(path[index]) === String(key))

/** Joins the issues of both decoders. An issue of the second is omitted if the first has one about the same part of the JSON. */
const merge = (json: ReadonlyArray<Issue>, decoding: ReadonlyArray<Issue>): ReadonlyArray<Issue> => [
  ...json,
  ...decoding.filter(({ path }) => !json.some((issue) => startsWith(path, issue.path) || startsWith(issue.path, path)))
]

/** Whether JSON is nested deeper than a schema can be read. */
const isTooDeep = (json: unknown): boolean => {
  let level: ReadonlyArray<unknown> = [json]
  for (let depth = 0; depth <= maxNesting; depth++) {
    level = level.flatMap((value) => Predicate.isObjectOrArray(value) ? Object.values(value) : [])
    if (level.length === 0) return false
  }
  return true
}

const rootIssue = (reason: OutputIssue["reason"], message: string): OutputIssue =>
  new OutputIssue({ reason, issues: [{ path: [], message }] })

const parse = (text: string): Result.Result<unknown, OutputIssue> =>
  Result.try({
    try: (): unknown => JSON.parse(text),
    catch: () => rootIssue("notJson", text.trim() === "" ? "The response is empty" : "The response is not JSON")
  })

/** Only typed output needs this module of Effect. */
const loadStructuredOutput = Effect.promise(() => import("effect/ai/OpenAiStructuredOutput"))

/** `toCodecOpenAI` of `effect/ai`. */
export type ToCodec = Effect.Success<typeof loadStructuredOutput>["toCodecOpenAI"]

interface Compiled {
  /** Decodes what travels to JSON of the schema. */
  readonly wireCodec: Schema.Codec<unknown>
  /** The JSON of the schema. */
  readonly json: Schema.Codec<unknown>
  readonly isWrapped: boolean
  readonly jsonSchema: JsonSchema.JsonSchema
}

const notEncodable = (cause: unknown): Refusal => refuse([], `${String(cause)}. Use a schema that JSON can encode`)

/** The schema of what travels, or the refusal of a schema that strict JSON Schema cannot express. */
const compile = (jsonCodec: Schema.Constraint, toCodec: ToCodec): Result.Result<Compiled, Refusal> =>
  Result.gen(function*() {
    const { ast, inexpressible: [inexpressible] } = yield* Result.try({
      try: () => encodedSchema(jsonCodec.ast),
      catch: notEncodable
    })
    if (inexpressible !== undefined) return yield* Result.fail(refuse(inexpressible.path, inexpressible.problem))
    const isWrapped = !isStruct(ast)
    const json = Schema.make<Schema.Codec<unknown>>(ast)
    const { codec, jsonSchema } = yield* Result.try({
      try: () => {
        const { codec, jsonSchema } = toCodec(isWrapped ? Schema.Struct({ [wrapperField]: json }) : json)
        return { codec, jsonSchema: strictSchema(jsonSchema) }
      },
      catch: notEncodable
    })
    const refused = findRefused(jsonSchema)
    return refused === undefined
      ? { wireCodec: codec as Schema.Codec<unknown>, json, isWrapped, jsonSchema }
      : yield* Result.fail(refuse(isWrapped ? refused.path.slice(1) : refused.path, refused.problem))
  })

const makeCodec = <A, E, RD, RE>(
  jsonCodec: Schema.ConstraintCodec<A, E, RD, RE>,
  { isWrapped, json, jsonSchema, wireCodec }: Compiled
): OutputCodec<A, RD, RE> => {
  const unwrap = (value: unknown): unknown =>
    isWrapped ? (value as { readonly [wrapperField]?: unknown } | null | undefined)?.[wrapperField] : value
  // On the wire, the names of fields may be values.
  const withOwnFields = ownFields(Schema.toJsonSchemaDocument(json))
  const decodeWire = Schema.decodeUnknownResult(wireCodec, allErrors)
  const checkJson = Schema.decodeUnknownResult(json, allErrors)
  const decodeJson = Schema.decodeUnknownEffect(jsonCodec, allErrors)
  const encodeJson = Schema.encodeUnknownEffect(jsonCodec)
  const encodeWire = Schema.encodeUnknownEffect(wireCodec)
  const fromWire = makeFromWire(json.ast)

  const decodeSent = Effect.fnUntraced(function*(json: unknown) {
    if (isTooDeep(json)) {
      return yield* rootIssue("invalid", `The response is nested deeper than \`${maxNesting}\` levels`)
    }
    const sent = withOwnFields(json)
    const strict = decodeWire(sent)
    if (Result.isSuccess(strict)) {
      return yield* decodeJson(unwrap(strict.success)).pipe(
        Effect.mapError((error) => new OutputIssue({ reason: "invalid", issues: toIssues(error) }))
      )
    }
    // A provider without strict mode may write a tuple as an array, or leave out a field. The conversion also reports
    // each issue at its path in the caller's schema, those of the JSON and of decoding at once, and it knows inherited
    // names, which the codec of a record reads as fields.
    const plain = withOwnFields(fromWire(unwrap(sent)))
    const checked = checkJson(plain)
    const decoded = yield* Effect.result(decodeJson(plain))
    if (Result.isSuccess(decoded) && Result.isSuccess(checked)) return decoded.success
    return yield* new OutputIssue({
      reason: "invalid",
      issues: merge(
        Result.isFailure(checked) ? toIssues(checked.failure) : [],
        Result.isFailure(decoded) ? toIssues(decoded.failure) : []
      )
    })
  })

  return {
    jsonSchema,
    decode: (text) => Effect.flatMap(Effect.fromResult(parse(text)), decodeSent),
    decodeJson: decodeSent,
    encode: (value) =>
      encodeJson(value).pipe(
        Effect.flatMap((encoded) => encodeWire(isWrapped ? { [wrapperField]: encoded } : encoded)),
        Effect.map((encoded) => JSON.stringify(encoded))
      ),
    fromPartial: (value) => fromWire(unwrap(value))
  }
}

/** A program asks for the same schema again and again, and to compile one takes milliseconds. */
const codecs = new WeakMap<SchemaAST.AST, unknown>()

/**
 * Makes the codec of a schema's output, or refuses the schema, before anything is sent, with the path of the part that strict
 * JSON Schema cannot express.
 *
 * A schema that is not a struct travels in a field of an object. The field shows neither in values nor in paths.
 */
export const compileOutput = <A, E, RD, RE>(
  schema: Schema.ConstraintCodec<A, E, RD, RE>,
  toCodec: ToCodec
): Result.Result<OutputCodec<A, RD, RE>, Refusal> => {
  const known = codecs.get(schema.ast)
  if (known !== undefined) return Result.succeed(known as OutputCodec<A, RD, RE>)
  return Result.try({ try: () => Schema.toCodecJson(schema), catch: notEncodable }).pipe(
    Result.flatMap((jsonCodec) =>
      Result.map(compile(jsonCodec, toCodec), (compiled) => {
        const codec = makeCodec(jsonCodec, compiled)
        codecs.set(schema.ast, codec)
        return codec
      })
    )
  )
}

/** Loads the module of Effect that {@link compileOutput} needs, and makes the codec. */
export const makeOutputCodec = Effect.fnUntraced(function*<A, E, RD, RE>(
  schema: Schema.ConstraintCodec<A, E, RD, RE>
): Effect.fn.Return<OutputCodec<A, RD, RE>, AppServerError> {
  const { toCodecOpenAI } = yield* loadStructuredOutput
  return yield* Effect.mapError(
    Effect.fromResult(compileOutput(schema, toCodecOpenAI)),
    (refusal) =>
      new AppServerError({
        reason: new InvalidRequest({ method: "turn/start", description: refusal.describe("output") })
      })
  )
})
