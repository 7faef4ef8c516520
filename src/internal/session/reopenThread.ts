/** Resumes and forks threads, with the settings, handlers and tools that the program passed before. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { SandboxConflictError } from "../../ApprovalMode.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import { contextHandlers, type Handlers } from "./handlers/handlers.ts"
import type { ThreadHandlers } from "./handlers/threadHandlers.ts"
import { copyForThread, mergeForReopen, type ThreadTools } from "./handlers/threadTools.ts"
import { type Options, type Resolved, resolveOpenOptions } from "./openOptions.ts"
import type { SessionState } from "./sessionState.ts"
import type { ReopenMethod } from "./settings/resolveOptions.ts"
import { mergeConfig } from "./settings/threadConfig.ts"
import { fromOpened, getInstructions } from "./settings/threadSettings.ts"
import { openKept, refuseIgnored, verifyKept } from "./threads/keptSettings.ts"
import { OpenThread } from "./threads/openThread.ts"
import type { ThreadOpened } from "./threads/responses.ts"
import { canonicalId } from "./threads/threadId.ts"
import { orNotStored } from "./threads/threadNotFound.ts"
import type { ThreadRecord } from "./threads/threadRecords.ts"
import { findActive } from "./turns/recoverTurns.ts"

type ReopenOptions = Options<"thread/resume"> & Options<"thread/fork">

type Fields = Protocol.ThreadResumeOptions & Protocol.ThreadForkOptions

interface Reopen extends Resolved<Fields> {
  readonly method: ReopenMethod
  readonly id: string
  /** The record of the thread. `undefined` if the options name another thread. */
  readonly known: ThreadRecord | undefined
  /** Whether the options name another thread to open, with a `path` or a `history`. */
  readonly isOther: boolean
}

/** Sends the request. Fails if the thread does not have the requested settings afterwards. */
const open = Effect.fnUntraced(function*(
  { records, server }: SessionState,
  { fields, id, isOther, known, method }: Reopen
): Effect.fn.Return<{ readonly response: ThreadOpened; readonly record: ThreadRecord | undefined }, AppServerError> {
  const response = yield* Effect.catch(
    openKept(server, { method, id, record: known, options: fields }),
    (error) => {
      // The server has loaded the thread with other settings.
      if (method === "thread/resume" && error.reason._tag === "SettingsNotApplied") known?.unload()
      return orNotStored(server, error)
    }
  )
  const { forkedFromId, id: openedId } = response.thread
  const otherId = method === "thread/fork" ? forkedFromId : openedId
  const other = isOther && Predicate.isString(otherId) ? records.get(otherId) : undefined
  if (other !== undefined) {
    yield* Effect.onError(
      verifyKept(fromOpened(response), { method, threadId: openedId, record: other, options: fields }),
      () => Effect.sync(() => records.get(openedId)?.unload())
    )
  }
  return { response, record: known ?? other }
})

/** Returns the tools of the opened thread: those of the options, or those that the program passed before. */
const openedTools = (
  { server }: SessionState,
  { id, method, tools }: Reopen,
  before: ThreadTools | undefined,
  response: ThreadOpened
): Effect.Effect<ThreadTools | undefined, AppServerError> =>
  tools !== undefined
    ? mergeForReopen(server, { method, id, given: tools, before, opened: response })
    : Effect.succeed(method === "thread/fork" ? before && copyForThread(before) : before)

/** Opens the thread, and records its settings, handlers and tools. */
const openRecorded = (
  session: SessionState,
  reopen: Reopen,
  now: ThreadHandlers,
  before: ThreadHandlers | undefined
): Effect.Effect<OpenThread, AppServerError> => {
  const { handlers: registry, records, server, turns } = session
  const { fields, id, isOther, method } = reopen
  const opened = records.collect(Effect.fnUntraced(function*(updates) {
    const { record: previous, response } = yield* open(session, reopen)
    const instructions = isOther ? {} : records.get(id)?.instructions
    const record = records.note(response, updates, mergeConfig(previous?.config, fields.config))
    record.instructions = { ...instructions, ...getInstructions(fields) }
    if (method === "thread/resume") yield* findActive(server, turns, response)
    else turns.usages.forgetTotals(record.id)
    const tools = yield* openedTools(session, reopen, before?.tools, response)
    const { parentThreadId } = response.thread
    const handlers: ThreadHandlers = {
      ...now,
      tools,
      parentId: Predicate.isString(parentThreadId) ? parentThreadId : now.parentId
    }
    registry.setThread(record.id, handlers)
    return new OpenThread(record, records, handlers)
  }))
  // Only the response names the thread of a fork or a path, and the server may send a question before.
  return method === "thread/fork" || isOther ? registry.whileStarting(now, opened) : opened
}

/** Resumes or forks a thread. `layer` are the handlers of the context in which the `Codex` layer was built. */
export const reopenThread = Effect.fnUntraced(function*(
  session: SessionState,
  layer: Handlers,
  method: ReopenMethod,
  threadId: string,
  options: ReopenOptions = {}
): Effect.fn.Return<OpenThread, AppServerError | SandboxConflictError> {
  const { handlers: registry, records, server, subAgents } = session
  const resolved: Resolved<Fields> = yield* resolveOpenOptions(server, method, options)
  const { fields, handlers, tools } = resolved
  const id = canonicalId(threadId)
  const isOther = Predicate.isNotNullish(fields.path) || Predicate.isNotNullish(fields.history)
  const known = isOther ? undefined : records.get(id)
  const before = registry.getThread(id)
  const now: ThreadHandlers = {
    options: {
      approvals: handlers.approvals ?? before?.options.approvals,
      questions: handlers.questions ?? before?.options.questions
    },
    context: yield* contextHandlers,
    layer,
    tools: tools ?? before?.tools,
    parentId: method === "thread/fork" ? undefined : before?.parentId ?? subAgents.getParent(id)
  }
  const reopen: Reopen = { ...resolved, method, id, known, isOther }
  if (method === "thread/fork") return yield* openRecorded(session, reopen, now, before)

  yield* refuseIgnored(server, id, fields, { config: known?.config, instructions: records.get(id)?.instructions })
  // Before its response, the server replays the pending requests of the thread, so the handlers must be set.
  registry.setThread(id, now)
  return yield* openRecorded(session, reopen, now, before).pipe(
    Effect.onError(() =>
      Effect.sync(() => {
        // Another fiber that resumes the thread may have set other handlers meanwhile.
        if (registry.getThread(id) !== now) return
        registry.setThread(id, before)
      })
    )
  )
})
