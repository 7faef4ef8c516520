/** Runs the tools that the model calls. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Protocol from "../../../Protocol.ts"
import { NotHandled } from "../../connection/notHandled.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { timeoutTo } from "../../handlers/timeoutTo.ts"
import type { SessionTelemetry } from "../telemetry/sessionTelemetry.ts"
import type { HandlerRegistry } from "./handlerRegistry.ts"
import type { ThreadTools } from "./threadTools.ts"

const failed = (text: string): Protocol.DynamicToolCallResponse => ({
  success: false,
  contentItems: [{ type: "inputText", text }]
})

const notRegistered = (name: string): NotHandled =>
  new NotHandled({
    why: `no handler is registered for tool \`${name}\`. Pass it in the option \`tools\` of the thread.`
  })

const runTool = (
  telemetry: SessionTelemetry,
  { tools, semaphore }: ThreadTools,
  { arguments: args, callId, threadId, tool: name, turnId }: Protocol.DynamicToolCallParams
): Effect.Effect<Protocol.DynamicToolCallResponse, NotHandled> => {
  const tool = tools.get(name)
  if (tool === undefined) return Effect.fail(notRegistered(name))
  const { timeout } = tool
  const run = Effect.map(tool.run(args, { threadId, turnId, callId }), ({ content, success }) => ({
    success,
    contentItems: content
  }))
  const withTimeout = timeout === undefined ? run : timeoutTo(
    run,
    timeout,
    () => failed(`${name} did not finish within ${Duration.format(Duration.fromInputUnsafe(timeout))}`)
  )
  const response = Effect.catchCause(withTimeout, (cause) =>
    Effect.as(
      Effect.logError(
        `Tool \`${name}\` failed (thread \`${threadId}\`, turn \`${turnId}\`, call \`${callId}\`)`,
        cause
      ),
      failed(`${name} failed unexpectedly`)
    ))
  return semaphore.withPermit(telemetry.withToolSpan({ threadId, turnId, itemId: callId }, name, response))
}

/** Handles the tool calls of the server, until the scope closes. */
export const handleToolCalls = (
  server: ServerConnection,
  registry: HandlerRegistry,
  telemetry: SessionTelemetry
): Effect.Effect<void, never, Scope.Scope> =>
  server.handle(
    "item/tool/call",
    (params) =>
      Effect.flatMap(registry.getTools(params.threadId), (tools) =>
        tools === undefined
          ? Effect.fail(notRegistered(params.tool))
          : runTool(telemetry, tools, params))
  )
