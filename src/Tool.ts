/**
 * Tools of the program's own that the model can call: a name, a schema for each direction, and an Effect.
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Codex, Tool } from "effect-codex"
 *
 * const weather = Tool.make("weather", {
 *   description: "The weather at a place, now",
 *   parameters: Schema.Struct({ place: Schema.String }),
 *   success: Schema.Struct({ celsius: Schema.Number }),
 *   failure: Schema.Literal("no such place"),
 *   handler: ({ place }) => place === "Oslo" ? Effect.succeed({ celsius: -3 }) : Effect.fail("no such place" as const)
 * })
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ tools: [weather] })
 *   return yield* thread.run("Is it cold in Oslo?")
 * })
 * ```
 *
 * - Arguments are decoded with `parameters`. What does not fit is not passed on: the model is told what is wrong.
 * - A failure is told to the model as one. A defect is told to the log, and the model learns only that the tool failed.
 * - Calls run at once, up to the thread's `toolConcurrency`, each in a span. They are interrupted with their turn.
 *
 * The services that handlers need are taken from where the thread is opened. A Toolkit of `effect/ai` becomes such tools with
 * `effect-codex/ai`.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as JsonSchema from "effect/JsonSchema"
import * as Schema from "effect/Schema"
import type { KnownServices } from "./internal/handlers/handlerServices.ts"
import { assertOptions, duration, func, type Kinds, schema, string } from "./internal/options.ts"
import { ownFields } from "./internal/tools/ownFields.ts"
import { toInputSchema, toJsonCodec } from "./internal/tools/toolParameters.ts"
import type * as Protocol from "./Protocol.ts"

/**
 * A piece of a result.
 *
 * @category models
 * @since 0.1.0
 */
export type Content = Protocol.DynamicToolCallOutputContentItemParam

/**
 * @category content
 * @since 0.1.0
 */
export const text = (text: string): Content => ({ type: "inputText", text })

/**
 * An image, by its URL. `data:` URLs carry the image itself.
 *
 * @category content
 * @since 0.1.0
 */
export const image = (imageUrl: string): Content => ({ type: "inputImage", imageUrl })

/**
 * A sound, by its URL. `data:` URLs carry the sound itself.
 *
 * @category content
 * @since 0.1.0
 */
export const audio = (audioUrl: string): Content => ({ type: "inputAudio", audioUrl })

/**
 * What a tool without a schema for its success returns: a text, or pieces of content.
 *
 * @category models
 * @since 0.1.0
 */
export type Output = string | Content | ReadonlyArray<Content>

/**
 * Which call it is.
 *
 * @category models
 * @since 0.1.0
 */
export interface Call {
  readonly threadId: string
  readonly turnId: string
  readonly callId: string
}

/**
 * What the model is told.
 *
 * @category models
 * @since 0.1.0
 */
export interface Result {
  readonly success: boolean
  readonly content: ReadonlyArray<Content>
}

/**
 * A tool that the model can call. {@link make} makes one of schemas and an Effect; `run` gets the arguments as the model
 * gave them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tool<out R = never> {
  /** Letters, digits, `_` and `-`. */
  readonly name: string
  readonly description: string
  /** The JSON Schema of the arguments, an object. */
  readonly inputSchema: JsonSchema.JsonSchema
  /** How long a call may take. Default: as long as its turn. */
  readonly timeout?: Duration.Input | undefined
  readonly run: (args: unknown, call: Call) => Effect.Effect<Result, never, R>
}

/**
 * Any tool.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Tool<any>

/**
 * The services that a tool, or each of several, needs.
 *
 * @category models
 * @since 0.1.0
 */
export type Services<T> = KnownServices<T extends Tool<infer R> ? R : never>

/** A schema as the tool needs it. */
type Codec<RD, RE> = Schema.Codec<any, any, RD, RE>

/**
 * What makes a tool.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<
  Parameters extends Codec<any, any>,
  Success extends Codec<any, any> | undefined,
  Failure extends Codec<any, any>,
  R
> {
  /** What the tool does, for the model. */
  readonly description: string
  /** The arguments, a struct. Default: none. */
  readonly parameters?: Parameters | undefined
  /** What is told to the model as JSON, or as it is if it encodes to a string. Default: {@link Output}. */
  readonly success?: Success | undefined
  /** What a failure tells the model, as `success` does. Default: the handler cannot fail. */
  readonly failure?: Failure | undefined
  /** How long a call may take; then the model is told that it took too long. Default: as long as its turn. */
  readonly timeout?: Duration.Input | undefined
  readonly handler: (
    args: Parameters["Type"],
    call: Call
  ) => Effect.Effect<Success extends Codec<any, any> ? Success["Type"] : Output, Failure["Type"], R>
}

const kinds: Kinds<Options<Codec<any, any>, Codec<any, any>, Codec<any, any>, any>> = {
  description: string,
  parameters: schema,
  success: schema,
  failure: schema,
  timeout: duration,
  handler: func
}

const toText = (encoded: unknown): string => typeof encoded === "string" ? encoded : JSON.stringify(encoded) ?? "null"

const toContent = (output: Output): ReadonlyArray<Content> =>
  typeof output === "string" ? [text(output)] : Array.isArray(output) ? output : [output as Content]

const failed = (message: string): Result => ({ success: false, content: [text(message)] })

/**
 * Makes a tool. Throws a `TypeError` for an option that there is not, that is missing, or whose value is of another kind.
 *
 * Parameters, success and failure may be any schemas; what goes to the model and comes from it is their JSON form, as
 * `Schema.toCodecJson` makes it. The numbers among the arguments are those of JSON, so they are finite.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  Parameters extends Codec<any, any> = Schema.Struct<{}>,
  Success extends Codec<any, any> | undefined = undefined,
  Failure extends Codec<any, any> = typeof Schema.Never,
  R = never
>(
  name: string,
  options: Options<Parameters, Success, Failure, R>
): Tool<
  | R
  | Parameters["DecodingServices"]
  | Failure["EncodingServices"]
  | (Success extends Codec<any, any> ? Success["EncodingServices"] : never)
> => {
  const owner = `Tool.make(${JSON.stringify(name)})`
  assertOptions(owner, kinds, options)
  const missing = (["description", "handler"] as const).find((required) => options?.[required] === undefined)
  if (missing !== undefined) throw new TypeError(`${owner}: the option \`${missing}\` is missing`)
  const parameters: Codec<any, any> = options.parameters ?? Schema.Struct({})
  const json = toJsonCodec(parameters)
  const inputSchema = toInputSchema(json)
  const prepare = ownFields(inputSchema)
  const check = Schema.decodeUnknownEffect(json)
  const decode = Schema.decodeUnknownEffect(Schema.toCodecJson(parameters))
  const encodeSuccess = options.success === undefined
    ? undefined
    : Schema.encodeUnknownEffect(Schema.toCodecJson(options.success))
  const encodeFailure = Schema.encodeUnknownEffect(Schema.toCodecJson(options.failure ?? Schema.Never))

  const run = (args: unknown, call: Call): Effect.Effect<Result, never, any> => {
    const fields = prepare(args ?? {})
    return Effect.matchEffect(Effect.andThen(check(fields), decode(fields)), {
      onFailure: (error) => Effect.succeed(failed(`Invalid arguments for ${name}: ${error.message}`)),
      onSuccess: (decoded) =>
        Effect.matchEffect(options.handler(decoded, call), {
          onFailure: (failure) => Effect.map(Effect.orDie(encodeFailure(failure)), (json) => failed(toText(json))),
          onSuccess: (success) =>
            encodeSuccess === undefined
              ? Effect.succeed({ success: true, content: toContent(success as Output) })
              : Effect.map(
                Effect.orDie(encodeSuccess(success)),
                (json) => ({ success: true, content: [text(toText(json))] })
              )
        })
    })
  }

  return {
    name,
    description: options.description,
    inputSchema,
    timeout: options.timeout,
    run
  }
}
