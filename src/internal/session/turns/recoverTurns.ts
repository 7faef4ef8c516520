/** What becomes of turns whose end was not heard: those that the server had finished have their result. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { AppServer, Client } from "../../../AppServer.ts"
import { type AppServerError, DecodeFailed, make as appServerError, TurnLost } from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import { getOwn, getThreadId, getTurnId } from "../../connection/codec.ts"
import { syncBatch } from "../../jsonrpc/messages.ts"
import type { OpenThreads } from "../threads/openThread.ts"
import type { ThreadOpened } from "../threads/responses.ts"
import type { AwaitedTurn, TurnEntry, TurnRegistry } from "./turnRegistry.ts"
import type { TurnState } from "./turnState.ts"

/** The turn is one of the last, unless others have driven the thread on meanwhile. */
const lastTurns = 20

const decodeTurn = Schema.decodeUnknownOption(Protocol.Turn)

const readStoredTurn = (
  server: Client,
  threadId: string,
  turnId: string
): Effect.Effect<Option.Option<Protocol.Turn>, AppServerError> =>
  server.requestRaw("thread/turns/list", { threadId, limit: lastTurns, itemsView: "full" }).pipe(
    Effect.map((answer) => getOwn(answer, "data")),
    // The whole thread may be had where its pages are not.
    Effect.catchReason(
      "AppServerError",
      "RequestRejected",
      () =>
        Effect.map(
          server.requestRaw("thread/read", { threadId, includeTurns: true }),
          (answer) => getOwn(getOwn(answer, "thread"), "turns")
        )
    ),
    Effect.map((turns) =>
      Option.fromUndefinedOr(
        (Array.isArray(turns) ? turns : []).flatMap((turn) => Option.toArray(decodeTurn(turn)))
          .find(({ id }) => id === turnId)
      )
    )
  )

/** Finds the turn that a thread was running already when it was resumed. */
export const findActive = (
  server: Client,
  open: TurnRegistry,
  { thread: { id, status } }: ThreadOpened
): Effect.Effect<void> =>
  getOwn(status, "type") !== "active" || open.getActive(id) !== undefined
    ? Effect.void
    : server.requestRaw("thread/turns/list", { threadId: id, limit: 1, itemsView: "notLoaded" }).pipe(
      Effect.map((response) => {
        const turns = getOwn(response, "data")
        const turn: unknown = Array.isArray(turns) ? turns[0] : undefined
        const turnId = getOwn(turn, "id")
        if (getOwn(turn, "status") === "inProgress" && Predicate.isString(turnId)) open.setActive(id, turnId)
      }),
      Effect.ignore
    )

/** Tells a turn what it has not heard: the items that were completed, and its end. */
const replayStoredTurn = (state: TurnState, turn: Protocol.Turn): void => {
  const { threadId } = state
  const known = new Set(state.items.map((item) => (item as { readonly id?: unknown }).id))
  const completedAtMs = (turn.completedAt ?? 0) * 1000
  for (const item of turn.items) {
    if (known.has((item as { readonly id?: unknown }).id)) continue
    const params = { threadId, turnId: turn.id, item, completedAtMs }
    state.onNotification({ method: "item/completed", params }, turn.id, syncBatch)
  }
  state.onNotification({ method: "turn/completed", params: { threadId, turn } }, turn.id, syncBatch)
}

const recoverTurn = (server: Client) =>
  Effect.fnUntraced(function*(held: TurnEntry) {
    const { id: turnId, state, thread } = held
    const { threadId } = state
    const lost = (resumable: boolean, description: string) =>
      Effect.sync(() =>
        state.onClose(
          appServerError(new TurnLost({ threadId, turnId, resumable, description, lastError: state.lastError })),
          syncBatch
        )
      )
    // No caller waits for it, so it need not be found out how far it has come.
    if (held.refCount === 0) return yield* lost(true, "the server was restarted, and had not finished it")
    let resumable = false
    const found = yield* thread.reopen(server).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          resumable = true
        })
      ),
      Effect.andThen(readStoredTurn(server, threadId, turnId)),
      Effect.result
    )
    if (Result.isFailure(found)) {
      // When the server has ended once more, this is done after the next restart.
      const isOver = found.failure.reason._tag !== "ConnectionClosed"
      return isOver ? yield* lost(resumable, found.failure.message) : undefined
    }
    const turn = Option.getOrUndefined(found.success)
    if (turn?.status === "completed" || turn?.status === "failed") return replayStoredTurn(state, turn)
    return yield* lost(
      true,
      turn === undefined
        ? "the server was restarted, and does not know it"
        : "the server was restarted, and had not finished it"
    )
  })

/** How long the end of a turn is waited for when something says that it has ended. It follows at once, if it does. */
const missedCompletionDelay = 5000

/** The first pause between two questions about a turn, in milliseconds. It doubles each time. */
const firstPause = 1000

/**
 * Asks what became of a turn that has probably ended and whose end does not come, or cannot be read: again and again, ever later,
 * for what the server cannot tell now it may tell soon. If it cannot within the time that a request may take, the turn fails.
 */
const pollMissedCompletion = Effect.fnUntraced(
  function*(server: AppServer["Service"], { id, isAwaited, state }: AwaitedTurn) {
    const { threadId } = state
    const limit = Duration.toMillis(server.requestTimeout)
    const isSettled = () => state.exit !== undefined || state.endedBecause === undefined || !isAwaited()
    let known = yield* Clock.currentTimeMillis
    yield* Effect.sleep(Math.min(missedCompletionDelay, limit))
    for (let pause = firstPause; !isSettled(); pause *= 2) {
      const turnId = id()
      const left = known + limit - (yield* Clock.currentTimeMillis)
      const stored = turnId === undefined ? Option.none() : yield* readStoredTurn(server, threadId, turnId).pipe(
        Effect.timeoutOption(Math.max(left, firstPause)),
        Effect.map(Option.flatten),
        Effect.catch((error) =>
          Effect.as(
            Effect.logWarning(`Cannot tell what became of turn ${turnId} of thread ${threadId}: ${error.message}`),
            Option.none()
          )
        )
      )
      if (isSettled()) return
      const now = yield* Clock.currentTimeMillis
      if (Option.isSome(stored) && stored.value.status !== "inProgress") return replayStoredTurn(state, stored.value)
      if (state.isUnloaded) {
        const description = "the server has unloaded its thread, and had not finished it"
        const lost = new TurnLost({
          threadId,
          turnId: turnId ?? "",
          resumable: true,
          description,
          lastError: state.lastError
        })
        return state.onClose(appServerError(lost), syncBatch)
      }
      if (Option.isSome(stored)) {
        known = now
      } else if (now - known >= limit) {
        const what = turnId === undefined ? "a compaction" : `turn ${turnId}`
        const issue = `${what} of thread ${threadId} has probably ended, because ${state.endedBecause}, ` +
          "but the server does not say how"
        // It may run all the same, and no handle could interrupt it any more.
        if (turnId !== undefined) {
          yield* Effect.forkDetach(Effect.ignore(server.requestRaw("turn/interrupt", { threadId, turnId })))
        }
        return state.onClose(appServerError(new DecodeFailed({ method: "turn/completed", issue })), syncBatch)
      }
      yield* Effect.sleep(Math.min(pause, Math.max(known + limit - now, firstPause)))
    }
  }
)

/** Recovers the ends of turns that the server leaves out, or that name no turn, for as long as the scope lives. */
export const recoverMissedCompletions = (
  server: AppServer["Service"],
  open: TurnRegistry
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const run = yield* FiberMap.makeRuntime<never, TurnState>()
    open.onAwait = (awaited) => {
      const { state } = awaited
      state.whenInDoubt(() => {
        // Its thread is idle just before it ends.
        if (state.exit !== undefined) return
        const ended = Effect.exit(Deferred.await(state.exitDeferred))
        run(state, Effect.raceFirst(pollMissedCompletion(server, awaited), ended), { onlyIfMissing: true })
      })
    }
    yield* server.observe("turn/completed", (event) => {
      const params = getOwn(event.method === "malformed" ? event.raw : event, "params")
      const threadId = getThreadId(params)
      const turnId = getTurnId(params)
      const isOf = ({ exit, threadId: id }: TurnState) =>
        exit === undefined && (threadId === undefined || id === threadId)
      const because = `a turn/completed names ${turnId === undefined ? "no turn" : `turn ${turnId}`}`
      // A thread runs one turn at a time.
      for (const { id, state } of open.entries.values()) {
        const isRead = threadId !== undefined && turnId === id
        if (isOf(state) && !isRead) state.doubt(because, syncBatch)
      }
      for (const state of open.unassigned) {
        if (isOf(state)) state.doubt(because, syncBatch)
      }
      // A compaction finds its turn by what happens in it.
      for (const state of open.compacting) {
        if (isOf(state) && turnId === undefined) state.doubt(because, syncBatch)
      }
    })
  })

/**
 * Recovers all turns that run, and opens the other threads again, before anybody can use them: the server knows no thread that is
 * not open. One that cannot be opened is tried again when it is used, which tells why it cannot.
 */
export const recoverTurns = (
  server: Client,
  open: TurnRegistry,
  threads: OpenThreads
): Effect.Effect<void> =>
  Effect.gen(function*() {
    threads.records.restart(server)
    for (const state of open.compacting) {
      state.onClose(
        appServerError(
          new TurnLost({
            threadId: state.threadId,
            turnId: "",
            resumable: true,
            description: "the server was restarted, and does not report whether the thread was compacted",
            lastError: state.lastError
          })
        ),
        syncBatch
      )
    }
    const running = [...open.entries.values()].filter(({ state }) => state.exit === undefined)
    yield* Effect.forEach(running, recoverTurn(server), { concurrency: 8, discard: true })
    const done = new Set(running.map(({ thread }) => thread.id))
    yield* Effect.forEach(
      threads.all().filter(({ id }) => !done.has(id)),
      (thread) => Effect.ignore(thread.reopen(server)),
      { concurrency: 8, discard: true }
    )
  })
