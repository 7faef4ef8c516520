/**
 * Tools of a Codex thread that run a Toolkit of `effect/ai`.
 *
 * **Example** (Passing a Toolkit to a thread)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Tool, Toolkit } from "effect/ai"
 * import { Codex } from "effect-codex"
 * import { CodexToolkit } from "effect-codex/ai"
 *
 * const toolkit = Toolkit.make(
 *   Tool.make("weather", {
 *     description: "The weather at a place, now",
 *     parameters: Schema.Struct({ place: Schema.String }),
 *     success: Schema.Struct({ celsius: Schema.Number })
 *   })
 * )
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ tools: yield* CodexToolkit.make(toolkit) })
 *   return yield* thread.run("Is it cold in Oslo?")
 * }).pipe(
 *   Effect.provide(toolkit.toLayer({ weather: () => Effect.succeed({ celsius: -3 }) }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as AiTool from "effect/ai/Tool"
import type * as AiToolkit from "effect/ai/Toolkit"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { type AppServerError, InvalidRequest, make as appServerError } from "../AppServerError.ts"
import { callTool, failed, type Toolkit, type ToolOutput } from "../internal/ai/callTool.ts"
import { toContent } from "../internal/ai/toolContent.ts"
import { handlerContext, provideHandlerContext } from "../internal/handlers/handlerContext.ts"
import { assertOptions, duration, func, type Kinds } from "../internal/options.ts"
import { ownFields } from "../internal/tools/ownFields.ts"
import type * as Tool from "../Tool.ts"

/**
 * The options of {@link make}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<R> {
  /**
   * Maximum duration of a call.
   *
   * @default the duration of its turn
   */
  readonly timeout?: Duration.Input | undefined
  /**
   * Decides about calls of tools that need approval.
   *
   * @default none: such a call fails, and the model receives the reason
   */
  readonly approve?: ((tool: string, args: unknown, call: Tool.Call) => Effect.Effect<boolean, never, R>) | undefined
}

const kinds: Kinds<Options<unknown>> = { timeout: duration, approve: func }

const toResult = ({ content, success }: ToolOutput): Tool.Result => ({ success, content: content.map(toContent) })

/** Decides if a call may run. The Toolkit refuses arguments that do not decode. */
const isApproved = Effect.fnUntraced(function*<R>(
  tool: AiTool.Any,
  approve: Options<R>["approve"],
  args: unknown,
  call: Tool.Call
): Effect.fn.Return<boolean, never, R> {
  const { needsApproval } = tool
  if (needsApproval === undefined || needsApproval === false) return true
  if (typeof needsApproval === "function") {
    const decoded = yield* Effect.option(
      Schema.decodeUnknownEffect(tool.parametersSchema as Schema.Codec<unknown>)(args)
    )
    if (Option.isNone(decoded)) return true
    const needed = needsApproval(decoded.value, { toolCallId: call.callId, messages: [] })
    if (!(Effect.isEffect(needed) ? yield* needed : needed)) return true
  }
  return approve === undefined ? false : yield* approve(tool.name, args, call)
})

/**
 * Makes tools of a Toolkit, with its handlers in the current context, for the option `tools` of a thread.
 *
 * **Details**
 *
 * The model receives an issue of arguments that do not decode, and a failure of a handler, with either `failureMode`. The result is the
 * last value that a handler emits.
 *
 * The model sees the name, the description and the parameters of a tool. Without a description it sees the annotation `Tool.Title`. Codex
 * requests no approval for these tools, so the annotations `Readonly`, `Destructive`, `Idempotent` and `OpenWorld` have no effect; the
 * option `approve` decides about tools with `needsApproval`. With `McpToolkit.serve`, Codex requests approval by the annotations.
 *
 * **Gotchas**
 *
 * Tools that only a provider can run fail with `InvalidRequest`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*<Tools extends Record<string, AiTool.Any>, R = never>(
  toolkit: AiToolkit.Toolkit<Tools>,
  options: Options<R> = {}
): Effect.fn.Return<
  ReadonlyArray<Tool.Tool>,
  AppServerError,
  AiTool.HandlersFor<Tools> | AiTool.HandlerServices<Tools[keyof Tools]> | R
> {
  assertOptions("CodexToolkit.make", kinds, options)
  const context = yield* handlerContext<any>()
  const withHandlers = (yield* toolkit) as unknown as Toolkit
  const tools: Array<Tool.Tool> = []
  for (const tool of Object.values<AiTool.Any>(withHandlers.tools)) {
    if (AiTool.isProviderDefined(tool)) {
      return yield* appServerError(
        new InvalidRequest({
          method: "thread/start",
          description: `only a provider can run tool \`${tool.name}\`. Remove it from the Toolkit`
        })
      )
    }
    const inputSchema = AiTool.getJsonSchema(tool)
    const prepare = ownFields(inputSchema)
    const runApproved = (args: unknown, call: Tool.Call) =>
      Effect.flatMap(isApproved(tool, options.approve, args, call), (approved) =>
        approved
          ? callTool(withHandlers, tool, { args, callId: call.callId })
          : Effect.succeed(failed(`Tool \`${tool.name}\` needs approval and was not approved`)))
    tools.push({
      name: tool.name,
      description: AiTool.getDescription(tool) ?? Context.getOrUndefined(tool.annotations, AiTool.Title) ?? "",
      inputSchema,
      timeout: options.timeout,
      run: (args, call) => Effect.map(provideHandlerContext(context, () => runApproved(prepare(args), call)), toResult)
    })
  }
  return tools
})
