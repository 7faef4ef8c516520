/**
 * Tools of your program that the model can call: a name, schemas of arguments and results, and an Effect.
 *
 * **When to use**
 *
 * Pass the tools to a thread with the option `tools`. `CodexToolkit` of `effect-codex/ai` makes such tools of a Toolkit of `effect/ai`.
 *
 * **Details**
 *
 * - Arguments are decoded with `parameters`. If they do not decode, the handler does not run and the model receives the issue.
 * - The model receives a failure of the handler as a failed call. A defect is logged, and the model receives only that the tool failed.
 * - Calls run concurrently, up to the thread's `toolConcurrency`, each in a span. They are interrupted with their turn.
 * - Handlers use the services of the fiber that opens the thread.
 *
 * **Example** (Passing a tool to a thread)
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
 * A part of a result: a text, an image or a sound.
 *
 * @category models
 * @since 0.1.0
 */
export type Content = Protocol.DynamicToolCallOutputContentItemParam

/**
 * Makes a text.
 *
 * @category content
 * @since 0.1.0
 */
export const text = (text: string): Content => ({ type: "inputText", text })

/**
 * Makes an image from its URL. A `data:` URL contains the image itself.
 *
 * @category content
 * @since 0.1.0
 */
export const image = (imageUrl: string): Content => ({ type: "inputImage", imageUrl })

/**
 * Makes a sound from its URL. A `data:` URL contains the sound itself.
 *
 * @category content
 * @since 0.1.0
 */
export const audio = (audioUrl: string): Content => ({ type: "inputAudio", audioUrl })

/**
 * The value that a handler returns if its tool has no `success` schema: a text, or content.
 *
 * @category models
 * @since 0.1.0
 */
export type Output = string | Content | ReadonlyArray<Content>

/**
 * The ids of a call of a tool.
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
 * The result of a call, as the model receives it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Result {
  /** Whether the call succeeded. */
  readonly success: boolean
  readonly content: ReadonlyArray<Content>
}

/**
 * A tool that the model can call.
 *
 * **When to use**
 *
 * Make one of schemas and an Effect with {@link make}. Implement the interface yourself if `run` must receive arguments that were not
 * decoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tool<out R = never> {
  /** The name, of letters, digits, `_` and `-`. */
  readonly name: string
  /** The purpose of the tool, for the model. */
  readonly description: string
  /** The JSON Schema of the arguments, an object. */
  readonly inputSchema: JsonSchema.JsonSchema
  /**
   * Maximum duration of a call.
   *
   * @default the duration of its turn
   */
  readonly timeout?: Duration.Input | undefined
  /** Runs a call with the arguments as the model sent them. */
  readonly run: (args: unknown, call: Call) => Effect.Effect<Result, never, R>
}

/**
 * A tool with any services.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Tool<unknown>

/**
 * The services that a tool, or a union of tools, needs.
 *
 * @category models
 * @since 0.1.0
 */
export type Services<T> = KnownServices<T extends Tool<infer R> ? R : never>

/** A schema of any type. */
type Codec<RD, RE> = Schema.Codec<unknown, unknown, RD, RE>

/**
 * The options of {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<
  Parameters extends Codec<unknown, unknown>,
  Success extends Codec<unknown, unknown> | undefined,
  Failure extends Codec<unknown, unknown>,
  R
> {
  /** The purpose of the tool, for the model. */
  readonly description: string
  /**
   * The schema of the arguments, a struct.
   *
   * @default a struct without fields
   */
  readonly parameters?: Parameters | undefined
  /**
   * The schema of the result. The model receives its JSON, or the string itself if it encodes to a string.
   *
   * @default none: the handler returns {@link Output}
   */
  readonly success?: Success | undefined
  /**
   * The schema of the failure, which the model receives in the same form as the result.
   *
   * @default `Schema.Never`: the handler cannot fail
   */
  readonly failure?: Failure | undefined
  /**
   * Maximum duration of a call. A longer call fails, and the model receives a message about it.
   *
   * @default the duration of its turn
   */
  readonly timeout?: Duration.Input | undefined
  /** Handles a call with the decoded arguments. */
  readonly handler: (
    args: Parameters["Type"],
    call: Call
  ) => Effect.Effect<Success extends Codec<unknown, unknown> ? Success["Type"] : Output, Failure["Type"], R>
}

const kinds: Kinds<Options<Codec<unknown, unknown>, Codec<unknown, unknown>, Codec<unknown, unknown>, unknown>> = {
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
 * Makes a tool from schemas and a handler.
 *
 * **Details**
 *
 * `parameters`, `success` and `failure` may be any schemas. The model sends and receives their JSON form, which is that of
 * `Schema.toCodecJson`. Numbers in arguments are those of JSON, so they are finite.
 *
 * **Gotchas**
 *
 * Throws a `TypeError` for an option that is unknown or missing, or whose value is of the wrong kind.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  Parameters extends Codec<unknown, unknown> = Schema.Struct<{}>,
  Success extends Codec<unknown, unknown> | undefined = undefined,
  Failure extends Codec<unknown, unknown> = typeof Schema.Never,
  R = never
>(
  name: string,
  options: Options<Parameters, Success, Failure, R>
): Tool<
  | R
  | Parameters["DecodingServices"]
  | Failure["EncodingServices"]
  | (Success extends Codec<unknown, unknown> ? Success["EncodingServices"] : never)
> => {
  const owner = `Tool.make(${JSON.stringify(name)})`
  assertOptions(owner, kinds, options)
  const missing = (["description", "handler"] as const).find((required) => options?.[required] === undefined)
  if (missing !== undefined) throw new TypeError(`${owner}: the option \`${missing}\` is missing`)
  const parameters: Codec<unknown, unknown> = options.parameters ?? Schema.Struct({})
  const json = toJsonCodec(parameters)
  const inputSchema = toInputSchema(json)
  const prepare = ownFields(inputSchema)
  const check = Schema.decodeUnknownEffect(json)
  const decode = Schema.decodeUnknownEffect(Schema.toCodecJson(parameters))
  const encodeSuccess = options.success === undefined
    ? undefined
    : Schema.encodeUnknownEffect(Schema.toCodecJson(options.success))
  const encodeFailure = Schema.encodeUnknownEffect(Schema.toCodecJson(options.failure ?? Schema.Never))

  // The compiler cannot infer the services of the schemas from these generic types.
  const run = (args: unknown, call: Call): Effect.Effect<Result, never, any> => {
    const fields = prepare(args ?? {})
    return Effect.matchEffect(Effect.andThen(check(fields), decode(fields)), {
      onFailure: (error) => Effect.succeed(failed(`Invalid arguments for tool \`${name}\`: ${error.message}`)),
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
