/** Runs the tools of a Toolkit of `effect/ai`. */
import * as AiError from "effect/ai/AiError"
import * as Prompt from "effect/ai/Prompt"
import type * as AiTool from "effect/ai/Tool"
import type * as AiToolkit from "effect/ai/Toolkit"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"

/** A Toolkit with its handlers. */
export type Toolkit = AiToolkit.WithHandler<Record<string, AiTool.Any>>

/** One call of a tool. */
export interface ToolCall {
  readonly args: unknown
  /** The id of the call, if the caller knows it. */
  readonly callId: string | undefined
  /** Receives each preliminary result, as text. */
  readonly onPreliminary?: ((text: string) => Effect.Effect<void>) | undefined
}

/** What the model receives. */
export interface ToolOutput {
  readonly success: boolean
  readonly content: ReadonlyArray<Prompt.ToolModelOutputPart>
  /** The encoded success, unless the tool maps it to other content. */
  readonly value: Option.Option<unknown>
}

const toText = (encoded: unknown): string => typeof encoded === "string" ? encoded : JSON.stringify(encoded) ?? "null"

const textOutput = (success: boolean, text: string, value: Option.Option<unknown> = Option.none()): ToolOutput => ({
  success,
  content: [Prompt.textPart({ text })],
  value
})

/** The output of a call that fails with this text. */
export const failed = (text: string): ToolOutput => textOutput(false, text)

/** A proxy of a span that ignores the attribute `parameters`. */
const withoutParameters = (span: Tracer.Span): Tracer.Span =>
  new Proxy(span, {
    get: (target, key) =>
      key === "attribute"
        ? (name: string, value: unknown) => {
          if (name !== "parameters") target.attribute(name, value)
        }
        : Reflect.get(target, key, target)
  })

/** Prevents that the Toolkit adds the arguments of a call to the current span, because they are private. */
const withPrivateArguments = Effect.updateContext(<R>(context: Context.Context<R>) =>
  Option.match(Context.getOption(context, Tracer.ParentSpan), {
    onNone: () => context,
    onSome: (span) => span._tag === "Span" ? Context.add(context, Tracer.ParentSpan, withoutParameters(span)) : context
  })
)

const toOutput = ({ encodedResult, isFailure, modelOutput }: AiTool.HandlerResult<AiTool.Any>): ToolOutput =>
  modelOutput === undefined
    ? textOutput(!isFailure, toText(encodedResult), isFailure ? Option.none() : Option.some(encodedResult))
    : { success: !isFailure, content: modelOutput, value: Option.none() }

/**
 * Calls a tool. A failure of its handler, and arguments that do not decode, are outputs with either `failureMode`. The output is the last
 * value that the handler emits.
 */
export const callTool = (
  toolkit: Toolkit,
  tool: AiTool.Any,
  { args, callId, onPreliminary }: ToolCall
): Effect.Effect<ToolOutput, never, any> => {
  const encodeFailure = Schema.encodeUnknownEffect(Schema.toCodecJson(tool.failureSchema as Schema.Codec<unknown>))
  return toolkit.handle(tool.name, args as never, callId).pipe(
    withPrivateArguments,
    Effect.flatMap((results) =>
      Stream.runLast(
        onPreliminary === undefined
          ? results
          : Stream.tap(results, ({ encodedResult, preliminary }) =>
            preliminary ? onPreliminary(toText(encodedResult)) : Effect.void)
      )
    ),
    Effect.flatMap(Option.match({
      onNone: () => Effect.die(new Error("The handler of a tool emitted no result")),
      onSome: (result) => Effect.succeed(toOutput(result))
    })),
    Effect.catch((error: unknown) =>
      AiError.isAiError(error)
        ? error.reason._tag === "ToolParameterValidationError"
          ? Effect.succeed(failed(`Invalid arguments for tool \`${tool.name}\`: ${error.reason.description}`))
          : Effect.die(error)
        : Effect.map(Effect.orDie(encodeFailure(error)), (json) => failed(toText(json)))
    )
  ) as Effect.Effect<ToolOutput, never, any>
}
