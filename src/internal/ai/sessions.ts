/** The threads that a language model has open: each serves one request at a time, and is closed when it is idle for too long. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberMap from "effect/FiberMap"
import type * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Thread from "../../Thread.ts"
import type * as Turn from "../../Turn.ts"
import type { ResponseParts } from "./responseParts.ts"
import type { Definition, ToolCalls } from "./toolCalls.ts"

/** An event of a turn, or its end. */
export type Signal =
  | { readonly _tag: "Event"; readonly event: Turn.TurnEvent }
  | { readonly _tag: "Ended"; readonly exit: Exit.Exit<Turn.TurnResult, Turn.TurnFailed | AppServerError> }

/** A turn that one or more requests read. */
export interface Run {
  readonly turn: Turn.Turn
  readonly signals: Queue.Dequeue<Signal>
  readonly parts: ResponseParts
  /** Closing it interrupts the turn. */
  readonly scope: Scope.Closeable
  isEnded: boolean
}

/** An open thread. */
export interface Session {
  readonly thread: Thread.Thread
  /** The model, as the server reports it. */
  readonly model: string | undefined
  /** The tools that the thread was started with. */
  readonly tools: ReadonlyArray<Definition>
  readonly toolsDigest: string
  /** The identity of the settings that the thread was opened with. */
  readonly settings: string
  readonly isEphemeral: boolean
  readonly calls: ToolCalls
  isBusy: boolean
  /** The id of the last turn, if it was completed. */
  head: string | undefined
  /** The turn that waits for results of tools, and the digest of the messages before its last response. */
  suspended: { readonly run: Run; readonly history: string } | undefined
}

/** Maximum number of idle threads that stay open without a suspended turn. Programs that never continue a thread leave one each. */
const maxIdle = 32

export const makeSessions = Effect.gen(function*() {
  const sessions = new Map<string, Session>()
  const expiries = yield* FiberMap.make<string>()

  /** Closes a thread, which interrupts its turn. */
  const close = Effect.fnUntraced(function*(session: Session) {
    session.isBusy = true
    if (sessions.get(session.thread.id) === session) sessions.delete(session.thread.id)
    if (session.suspended !== undefined) yield* Scope.close(session.suspended.run.scope, Exit.void)
    // A connection that has ended has no thread to close.
    yield* Effect.ignore(session.thread.close)
  }, Effect.uninterruptible)

  yield* Effect.addFinalizer(() =>
    Effect.forEach([...sessions.values()], close, { concurrency: "unbounded", discard: true })
  )

  const closeIdle = (session: Session) => Effect.suspend(() => session.isBusy ? Effect.void : close(session))

  const oldestIdle = () => {
    const idle = [...sessions.values()].filter(({ isBusy, suspended }) => !isBusy && suspended === undefined)
    return idle.length > maxIdle ? idle[0] : undefined
  }

  return {
    get: (threadId: string) => sessions.get(threadId),
    /** Reserves a thread for a request. Returns `false` if another request uses it. */
    take: Effect.fnUntraced(function*(session: Session) {
      if (session.isBusy) return false
      session.isBusy = true
      yield* FiberMap.remove(expiries, session.thread.id)
      return true
    }),
    add: (session: Session) => {
      sessions.set(session.thread.id, session)
    },
    close,
    /** Ends the use of a thread by a request. The thread stays open for a time. */
    release: Effect.fnUntraced(function*(session: Session, timeToLive: Duration.Input) {
      const { id } = session.thread
      session.isBusy = false
      // The most recently used is the last.
      sessions.delete(id)
      sessions.set(id, session)
      yield* FiberMap.run(expiries, id, Effect.delay(closeIdle(session), timeToLive))
      const oldest = oldestIdle()
      if (oldest === undefined) return
      yield* FiberMap.remove(expiries, oldest.thread.id)
      yield* closeIdle(oldest)
    }, Effect.uninterruptible)
  }
})

export type Sessions = Effect.Success<typeof makeSessions>
