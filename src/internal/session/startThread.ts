/** Starts a thread with its settings, handlers and tools. */
import * as Effect from "effect/Effect"
import type { SandboxConflictError } from "../../ApprovalMode.ts"
import type { AppServerError } from "../../AppServerError.ts"
import { contextHandlers, type Handlers } from "./handlers/handlers.ts"
import { toDynamicToolSpecs, withRegisteredTools } from "./handlers/threadTools.ts"
import { type Options, resolveOpenOptions } from "./openOptions.ts"
import type { SessionState } from "./sessionState.ts"
import { withoutTrust } from "./settings/projectTrust.ts"
import { mergeConfig } from "./settings/threadConfig.ts"
import { fromOpened, getInstructions } from "./settings/threadSettings.ts"
import { verifySettings } from "./threads/keptSettings.ts"
import { OpenThread } from "./threads/openThread.ts"
import { requestThread } from "./threads/responses.ts"

const method = "thread/start"

/** Starts a thread. `layer` are the handlers of the context in which the `Codex` layer was built. */
export const startThread = Effect.fnUntraced(function*(
  { handlers: registry, records, server, turns }: SessionState,
  layer: Handlers,
  options: Options<typeof method> = {}
): Effect.fn.Return<OpenThread, AppServerError | SandboxConflictError> {
  const { fields: given, handlers, tools } = yield* resolveOpenOptions(server, method, options)
  const fields = yield* withoutTrust(server, given)
  const dynamicTools = tools && [...fields.dynamicTools ?? [], ...toDynamicToolSpecs(tools)]
  const thread = {
    options: handlers,
    context: yield* contextHandlers,
    layer,
    tools: tools && withRegisteredTools(tools, fields.dynamicTools ?? [])
  }
  return yield* records.collect(Effect.fnUntraced(function*(updates) {
    const response = yield* registry.whileStarting(
      thread,
      requestThread(server, method, dynamicTools === undefined ? fields : { ...fields, dynamicTools })
    )
    const { id } = response.thread
    yield* verifySettings(method, id, fields, fromOpened(response))
    registry.setThread(id, thread)
    turns.usages.start(id)
    const record = records.note(response, updates, mergeConfig(fields.config))
    record.instructions = getInstructions(fields)
    return new OpenThread(record, records, thread)
  }))
})
