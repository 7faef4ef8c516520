/** Recovers turns whose `turn/completed` was missed, from what the server has stored. */
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
import { type AppServerError, DecodeFailed, make as appServerError, TurnLost } from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import type { ServerClient } from "../../connection/client.ts"
import { getThreadId, getTurnId } from "../../connection/codec.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn } from "../../getOwn.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import { ensureOpen } from "../threads/openThread.ts"
import type { ThreadOpened } from "../threads/responses.ts"
import type { ThreadRecords } from "../threads/threadRecords.ts"
import type { AwaitedTurn, TurnEntry, TurnRegistry } from "./turnRegistry.ts"
import type { TurnState } from "./turnState.ts"

/** Number of turns that are read, newest first. A missed turn is one of them, unless other clients have started many since. */
const lastTurns = 20

const decodeTurn = Schema.decodeUnknownOption(Protocol.Turn)

export const readStoredTurn = (
  server: ServerClient,
  threadId: string,
  turnId: string
): Effect.Effect<Option.Option<Protocol.Turn>, AppServerError> =>
  server.requestRaw("thread/turns/list", { threadId, limit: lastTurns, itemsView: "full" }).pipe(
    Effect.map((response) => getOwn(response, "data")),
    // An older server sends the whole thread, but no pages.
    Effect.catchReason(
      "AppServerError",
      "RequestRejected",
      () =>
        Effect.map(
          server.requestRaw("thread/read", { threadId, includeTurns: true }),
          (response) => getOwn(getOwn(response, "thread"), "turns")
        )
    ),
    Effect.map((turns) =>
      Option.fromUndefinedOr(
        (Array.isArray(turns) ? turns : []).flatMap((turn) => Option.toArray(decodeTurn(turn)))
          .find(({ id }) => id === turnId)
      )
    )
  )

/** Finds the turn that a thread was running when it was resumed. */
export const findActive = (
  server: ServerClient,
  turns: TurnRegistry,
  { thread: { id, status } }: ThreadOpened
): Effect.Effect<void> =>
  getOwn(status, "type") !== "active" || turns.getActive(id) !== undefined
    ? Effect.void
    : server.requestRaw("thread/turns/list", { threadId: id, limit: 1, itemsView: "notLoaded" }).pipe(
      Effect.map((response) => {
        const data = getOwn(response, "data")
        const turn: unknown = Array.isArray(data) ? data[0] : undefined
        const turnId = getOwn(turn, "id")
        if (getOwn(turn, "status") === "inProgress" && Predicate.isString(turnId)) turns.setActive(id, turnId)
      }),
      Effect.ignore
    )

/** Replays the items and the completion of a stored turn to the state that missed them. */
const replayStoredTurn = (state: TurnState, turn: Protocol.Turn): void => {
  const { threadId } = state
  const known = new Set(state.items.map((item) => getOwn(item, "id")))
  const completedAtMs = (turn.completedAt ?? 0) * 1000
  for (const item of turn.items) {
    if (known.has(getOwn(item, "id"))) continue
    const params = { threadId, turnId: turn.id, item, completedAtMs }
    state.onNotification({ method: "item/completed", params }, turn.id, syncBatch)
  }
  state.onNotification({ method: "turn/completed", params: { threadId, turn } }, turn.id, syncBatch)
}

/** Replays a turn that the server has completed. Any other turn fails with `TurnLost`. */
const recoverTurn = (server: ServerClient) =>
  Effect.fnUntraced(function*({ id: turnId, refCount, state, thread }: TurnEntry) {
    const { threadId } = state
    const lost = (resumable: boolean, description: string) =>
      Effect.sync(() =>
        state.onClose(
          appServerError(new TurnLost({ threadId, turnId, resumable, description, lastError: state.lastError })),
          syncBatch
        )
      )
    // No caller waits for the turn, so its state on the server does not matter.
    if (refCount === 0) return yield* lost(true, "the server was restarted before the turn was completed")
    if (thread === undefined) return yield* lost(false, "the server was restarted, and does not continue sub-agents")
    let resumable = false
    const found = yield* thread.ensureOpen(server).pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          resumable = true
        })
      ),
      Effect.andThen(readStoredTurn(server, threadId, turnId)),
      Effect.result
    )
    if (Result.isFailure(found)) {
      // If the connection has ended again, the turn is recovered after the next restart.
      if (found.failure.reason._tag === "ConnectionClosed") return
      return yield* lost(resumable, found.failure.message)
    }
    const turn = Option.getOrUndefined(found.success)
    if (turn?.status === "completed" || turn?.status === "failed") return replayStoredTurn(state, turn)
    return yield* lost(
      true,
      turn === undefined
        ? "the server was restarted and has not stored the turn"
        : "the server was restarted before the turn was completed"
    )
  })

/** Time, in milliseconds, from the first sign that a turn has ended to the first poll. `turn/completed` mostly follows the sign at once. */
const missedCompletionDelay = 5000

/** The first pause between two polls, in milliseconds. Each pause is twice as long as the one before. */
const firstPause = 1000

/** Polls with exponential backoff until the final state of a turn is known. The turn fails if it is not known within `requestTimeout`. */
const pollMissedCompletion = Effect.fnUntraced(
  function*(server: ServerConnection, scope: Scope.Scope, { id, isAwaited, state }: AwaitedTurn) {
    const { threadId } = state
    const maxUnknown = Duration.toMillis(server.requestTimeout)
    const isSettled = () => state.exit !== undefined || state.endedBecause === undefined || !isAwaited()
    let knownAt = yield* Clock.currentTimeMillis
    yield* Effect.sleep(Math.min(missedCompletionDelay, maxUnknown))
    for (let pause = firstPause; !isSettled(); pause *= 2) {
      const turnId = id()
      const left = knownAt + maxUnknown - (yield* Clock.currentTimeMillis)
      const stored = turnId === undefined ? Option.none() : yield* readStoredTurn(server, threadId, turnId).pipe(
        Effect.timeoutOption(Math.max(left, firstPause)),
        Effect.map(Option.flatten),
        Effect.catch((error) =>
          Effect.as(
            Effect.logWarning(
              `Cannot read the state of turn \`${turnId}\` of thread \`${threadId}\`: ${error.message}`
            ),
            Option.none()
          )
        )
      )
      if (isSettled()) return
      const now = yield* Clock.currentTimeMillis
      if (Option.isSome(stored) && stored.value.status !== "inProgress") return replayStoredTurn(state, stored.value)
      if (state.isUnloaded) {
        const description = "the server unloaded the thread before the turn was completed"
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
        knownAt = now
      } else if (now - knownAt >= maxUnknown) {
        const subject = turnId === undefined ? "a compaction" : `turn \`${turnId}\``
        const issue = `${subject} of thread \`${threadId}\` has probably ended, because ${state.endedBecause}, ` +
          "but the server does not report its end"
        // The turn may still run, and no handle can interrupt it any more.
        if (turnId !== undefined) {
          yield* Effect.forkIn(
            Effect.ignore(server.requestRaw("turn/interrupt", { threadId, turnId })),
            scope
          )
        }
        return state.onClose(appServerError(new DecodeFailed({ method: "turn/completed", issue })), syncBatch)
      }
      yield* Effect.sleep(Math.min(pause, Math.max(knownAt + maxUnknown - now, firstPause)))
    }
  }
)

/** Recovers turns whose `turn/completed` does not arrive, or names no turn, until the scope closes. */
export const recoverMissedCompletions = Effect.fnUntraced(
  function*(server: ServerConnection, turns: TurnRegistry): Effect.fn.Return<void, never, Scope.Scope> {
    const scope = yield* Effect.scope
    const run = yield* FiberMap.makeRuntime<never, TurnState>()
    turns.onAwait = (awaited) => {
      const { state } = awaited
      state.whenInDoubt(() => {
        // The thread becomes idle just before the turn is completed.
        if (state.exit !== undefined) return
        const ended = Effect.exit(Deferred.await(state.exitDeferred))
        run(state, Effect.raceFirst(pollMissedCompletion(server, scope, awaited), ended), { onlyIfMissing: true })
      })
    }
    yield* server.addRawNotificationHandler("turn/completed", (event) => {
      const params = getOwn(event.method === "malformed" ? event.raw : event, "params")
      const threadId = getThreadId(params)
      const turnId = getTurnId(params)
      const mayConcern = ({ exit, threadId: id }: TurnState) =>
        exit === undefined && (threadId === undefined || id === threadId)
      const because = `a \`turn/completed\` names ${turnId === undefined ? "no turn" : `turn \`${turnId}\``}`
      // A thread runs one turn at a time, so the end of any turn is a sign that this one has ended.
      for (const { id, state } of [...turns.entries.values(), ...turns.watched]) {
        const isDecoded = threadId !== undefined && turnId === id
        if (mayConcern(state) && !isDecoded) state.doubt(because, syncBatch)
      }
      for (const state of turns.unassigned) {
        if (mayConcern(state)) state.doubt(because, syncBatch)
      }
      // A compaction identifies its turn by its items.
      for (const state of turns.compacting) {
        if (mayConcern(state) && turnId === undefined) state.doubt(because, syncBatch)
      }
    })
  }
)

/**
 * Recovers all running turns after a restart, before other requests are sent. Their threads are opened again, and so are threads whose turn
 * another client or a goal has started: the goal then continues. Other threads are opened again when they are used.
 */
export const recoverTurns = Effect.fnUntraced(
  function*(server: ServerClient, turns: TurnRegistry, records: ThreadRecords): Effect.fn.Return<void> {
    records.generation++
    const active = turns.takeActiveThreads()
    for (const state of turns.compacting) {
      state.onClose(
        appServerError(
          new TurnLost({
            threadId: state.threadId,
            turnId: "",
            resumable: true,
            description: "the server was restarted and does not report whether the thread was compacted",
            lastError: state.lastError
          })
        ),
        syncBatch
      )
    }
    const running = [...turns.entries.values(), ...turns.watched].filter(({ state }) => state.exit === undefined)
    yield* Effect.forEach(running, recoverTurn(server), { concurrency: 8, discard: true })
    yield* Effect.forEach(
      active.flatMap((id) => records.get(id) ?? []).filter(({ isClosed }) => !isClosed),
      (record) => Effect.ignore(ensureOpen(server, record, records)),
      { concurrency: 8, discard: true }
    )
  }
)
