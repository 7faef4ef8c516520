/** The threads of the sessions of an MCP server. */
import type { McpServerClient } from "effect/ai/McpSchema"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Option from "effect/Option"
import * as RcMap from "effect/RcMap"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { SandboxConflictError } from "../../ApprovalMode.ts"
import { type AppServerError, isAppServerError } from "../../AppServerError.ts"
import type * as Codex from "../../Codex.ts"
import type * as Thread from "../../Thread.ts"

type Failure = AppServerError | SandboxConflictError

/** The duration after which a thread without a call is closed. The next call resumes it. */
const idleTimeToLive = "10 minutes"

/** The options with which a thread was started, and is resumed. */
export type ThreadOptions =
  & Pick<
    Codex.StartOptions,
    | "cwd"
    | "model"
    | "sandbox"
    | "approvalPolicy"
    | "approvalsReviewer"
    | "baseInstructions"
    | "developerInstructions"
    | "config"
  >
  & { readonly approvalMode?: undefined }

/** A thread of a session. */
export interface SessionThread {
  readonly thread: Thread.Thread
  /** Runs one call after another, because a call on a running turn would join the turn. */
  readonly withPermit: <A, E, R>(call: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** The threads of all sessions. */
export interface Threads {
  /** Starts a thread of the session. The scope holds it open. */
  readonly start: (session: string, options: ThreadOptions) => Effect.Effect<SessionThread, Failure, Scope.Scope>
  /** Returns a thread of the session, or none if the session has not started it. The scope holds it open. */
  readonly get: (session: string, id: string) => Effect.Effect<Option.Option<SessionThread>, Failure, Scope.Scope>
  /** Closes the threads of a session. */
  readonly end: (session: string) => Effect.Effect<void>
}

/** The header with the id of a session over HTTP. */
export const sessionHeader = "mcp-session-id"

/** Returns the session of the current request: that of its HTTP header, or its connection. */
export const getSession = ({ clientId }: McpServerClient["Service"]): Effect.Effect<string> =>
  Effect.map(
    Effect.serviceOption(HttpServerRequest.HttpServerRequest),
    (request) => Option.getOrUndefined(request)?.headers[sessionHeader] ?? `connection ${clientId}`
  )

/** What is known of a thread, also while it is closed. */
interface Entry {
  readonly session: string
  readonly options: ThreadOptions
  readonly semaphore: Semaphore.Semaphore
}

/** Makes the threads. They are closed with the scope. */
export const makeThreads = Effect.fnUntraced(function*(
  codex: Codex.Codex["Service"]
): Effect.fn.Return<Threads, never, Scope.Scope> {
  const entries = new Map<string, Entry>()
  /** Threads that were started, and that `open` does not have yet. */
  const started = new Map<string, Thread.Thread>()
  // A server that still has the thread loaded has its options, and would ignore others.
  const resume = (id: string) =>
    Effect.catchIf(
      codex.resumeThread(id, entries.get(id)?.options),
      (error) => isAppServerError(error) && error.reason._tag === "SettingsNotApplied",
      () => codex.resumeThread(id)
    )
  const open = yield* RcMap.make({
    idleTimeToLive,
    lookup: (id: string) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const thread = started.get(id)
          started.delete(id)
          return thread === undefined ? resume(id) : Effect.succeed(thread)
        }),
        (thread) => Effect.ignore(thread.close)
      )
  })
  const hold = (id: string, { semaphore: { withPermit } }: Entry) =>
    Effect.map(RcMap.get(open, id), (thread): SessionThread => ({ thread, withPermit }))
  return {
    start: (session, options) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(restore(codex.startThread(options)), (thread) => {
          const entry = { session, options, semaphore: Semaphore.makeUnsafe(1) }
          entries.set(thread.id, entry)
          started.set(thread.id, thread)
          return hold(thread.id, entry)
        })
      ),
    get: (session, id) => {
      const entry = entries.get(id)
      return entry?.session === session ? Effect.asSome(hold(id, entry)) : Effect.succeedNone
    },
    end: (session) =>
      Effect.suspend(() => {
        const ids = [...entries].filter(([, entry]) => entry.session === session).map(([id]) => id)
        for (const id of ids) entries.delete(id)
        return Effect.forEach(ids, (id) => RcMap.invalidate(open, id), { discard: true })
      })
  }
})
