/** The threads of the sessions of an MCP server. */
import type { McpServerClient } from "effect/ai/McpSchema"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Option from "effect/Option"
import * as RcMap from "effect/RcMap"
import type * as Scope from "effect/Scope"
import type { SandboxConflictError } from "../../ApprovalMode.ts"
import type { AppServerError } from "../../AppServerError.ts"
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

/** The threads of all sessions. */
export interface Threads {
  /** Starts a thread of the session. The scope holds it open. */
  readonly start: (session: string, options: ThreadOptions) => Effect.Effect<Thread.Thread, Failure, Scope.Scope>
  /** Returns a thread of the session, or none if the session has not started it. The scope holds it open. */
  readonly get: (session: string, id: string) => Effect.Effect<Option.Option<Thread.Thread>, Failure, Scope.Scope>
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

/** Makes the threads. They are closed with the scope. */
export const makeThreads = Effect.fnUntraced(function*(
  codex: Codex.Codex["Service"]
): Effect.fn.Return<Threads, never, Scope.Scope> {
  const sessions = new Map<string, Map<string, ThreadOptions>>()
  const started = new Map<string, Thread.Thread>()
  const optionsOf = (id: string) => [...sessions.values()].find((threads) => threads.has(id))?.get(id)
  const open = yield* RcMap.make({
    idleTimeToLive,
    lookup: (id: string) =>
      Effect.acquireRelease(
        Effect.suspend(() => {
          const thread = started.get(id)
          started.delete(id)
          return thread === undefined ? codex.resumeThread(id, optionsOf(id)) : Effect.succeed(thread)
        }),
        (thread) => Effect.ignore(thread.close)
      )
  })
  return {
    start: (session, options) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(restore(codex.startThread(options)), (thread) => {
          const threads = sessions.get(session) ?? new Map()
          sessions.set(session, threads.set(thread.id, options))
          started.set(thread.id, thread)
          return RcMap.get(open, thread.id)
        })
      ),
    get: (session, id) =>
      sessions.get(session)?.has(id) === true ? Effect.asSome(RcMap.get(open, id)) : Effect.succeedNone,
    end: (session) =>
      Effect.suspend(() => {
        const ids = [...sessions.get(session)?.keys() ?? []]
        sessions.delete(session)
        return Effect.forEach(ids, (id) => RcMap.invalidate(open, id), { discard: true })
      })
  }
})
