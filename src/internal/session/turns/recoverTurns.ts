/** Recovers turns whose `turn/completed` was missed, from what the server has stored. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
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
import type { ThreadRecord, ThreadRecords } from "../threads/threadRecords.ts"
import type { AwaitedTurn, TurnEntry, TurnRegistry } from "./turnRegistry.ts"
import type { TurnState } from "./turnState.ts"

/** Number of turns that are read, newest first. A missed turn is one of them, unless other clients have started many since. */
const lastTurns = 20

const decodeTurn = Schema.decodeUnknownOption(Protocol.Turn)

const decodeTurns = (turns: unknown): ReadonlyArray<Protocol.Turn> =>
  (Array.isArray(turns) ? turns : []).flatMap((turn) => Option.toArray(decodeTurn(turn)))

/** Reads the last stored turns of a thread, newest first. They have no items in progress. */
const readStoredTurns = (
  server: ServerClient,
  threadId: string
): Effect.Effect<ReadonlyArray<Protocol.Turn>, AppServerError> =>
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
    Effect.map(decodeTurns)
  )

/**
 * Reads the last turns of a thread that runs a turn, newest first. Only the response to `thread/resume` also contains the commands and calls
 * in progress. Returns no turns if the server has not stored the thread yet, or if the experimental API is off.
 */
export const readActiveTurns = (
  server: ServerClient,
  threadId: string
): Effect.Effect<ReadonlyArray<Protocol.Turn>, AppServerError> =>
  server.requestRaw("thread/resume", {
    threadId,
    excludeTurns: true,
    initialTurnsPage: { limit: lastTurns, itemsView: "full", sortDirection: "desc" }
  }).pipe(
    Effect.map((response) => decodeTurns(getOwn(getOwn(response, "initialTurnsPage"), "data"))),
    Effect.catchReasons("AppServerError", {
      RequestRejected: () => Effect.succeed([]),
      ThreadNotFound: () => Effect.succeed([])
    })
  )

/** Reads the last stored turn of a thread that satisfies a predicate. */
export const readStoredTurn = (
  server: ServerClient,
  threadId: string,
  predicate: (turn: Protocol.Turn) => boolean
): Effect.Effect<Option.Option<Protocol.Turn>, AppServerError> =>
  Effect.map(readStoredTurns(server, threadId), (turns) => Option.fromUndefinedOr(turns.find(predicate)))

/** The codes with which the server rejects to read turns while it stores the first one of a thread. */
const whileStoring: ReadonlySet<number> = new Set([-32601, -32603])

/** Reads a running turn: also its items in progress, if the server sends them. */
const readRunning = (
  server: ServerClient,
  threadId: string,
  turnId: string
): Effect.Effect<Option.Option<Protocol.Turn>, AppServerError> => {
  const isTurn = ({ id }: Protocol.Turn) => id === turnId
  return Effect.flatMap(readActiveTurns(server, threadId), (turns) => {
    const active = turns.find(isTurn)
    return active === undefined ? readStoredTurn(server, threadId, isTurn) : Effect.succeedSome(active)
  }).pipe(
    Effect.retry({
      while: ({ reason }) => reason._tag === "RequestRejected" && whileStoring.has(reason.code),
      schedule: Schedule.spaced("50 millis"),
      times: 100
    }),
    Effect.catchReasons("AppServerError", {
      RequestRejected: () => Effect.succeedNone,
      ThreadNotFound: () => Effect.succeedNone
    })
  )
}

/** Replays to a state what its turn has done before, and ends the gap of the state. The server may not have stored the turn yet. */
export const replayPast = (
  server: ServerClient,
  state: TurnState,
  turnId: string
): Effect.Effect<void, AppServerError> =>
  Effect.map(readRunning(server, state.threadId, turnId), (past) => {
    if (Option.isSome(past)) replayStoredTurn(state, past.value)
    else state.endGap()
  })

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

/** Replays a stored turn to the state that missed its events, and its end if it has ended. */
export const replayStoredTurn = (state: TurnState, turn: Protocol.Turn): void => {
  state.replay(turn)
  if (turn.status === "inProgress") return
  state.onNotification(
    { method: "turn/completed", params: { threadId: state.threadId, turn } },
    turn.id,
    syncBatch
  )
}

/** Whether a turn has ended by itself. A server that starts marks the turns of a killed server as interrupted, without a time. */
export const hasEnded = ({ completedAt, status }: Protocol.Turn): boolean =>
  status === "completed" || status === "failed" || status === "interrupted" && Predicate.isNotNullish(completedAt)

/** Whether the server runs a turn on a thread. */
export const isActive = (server: ServerClient, threadId: string): Effect.Effect<boolean> =>
  server.requestRaw("thread/read", { threadId }).pipe(
    Effect.map((response) => getOwn(getOwn(getOwn(response, "thread"), "status"), "type") === "active"),
    Effect.orElseSucceed(() => false)
  )

/**
 * Makes the server report the token usage of a thread again, because the last report of a turn may be lost. It does so only with the whole
 * history. It sends the report before the response to the next request.
 *
 * Returns a turn of that history, which also has its items in progress.
 */
export const reportUsage = (
  { withoutDeprecation }: ServerConnection,
  client: ServerClient,
  threadId: string,
  turnId: string
): Effect.Effect<Option.Option<Protocol.Turn>> =>
  withoutDeprecation(client.requestRaw("thread/resume", { threadId, excludeTurns: false })).pipe(
    Effect.tap(client.requestRaw("thread/read", { threadId })),
    Effect.map((response) => {
      const turns = getOwn(getOwn(response, "thread"), "turns")
      return decodeTurn(Array.isArray(turns) ? turns.findLast((turn) => getOwn(turn, "id") === turnId) : undefined)
    }),
    Effect.orElseSucceed(() => Option.none())
  )

/** Adds an event to a turn in place of those that were lost with a connection. Later events wait. */
export const markGap = (state: TurnState, turnId: string): void => {
  const { threadId } = state
  const method = "effect-codex/restarted" as Protocol.Unrecognized
  state.onNotification({ method, params: { threadId, turnId } }, turnId, syncBatch)
  state.startGap()
}

const restartedBefore = "the server was restarted before the turn was completed"

/** Fails a turn that this program can no longer follow. `turnId` is empty for a compaction whose turn is unknown. */
const failLost = (state: TurnState, turnId: string, description: string, resumable = true): void => {
  const { lastError, threadId } = state
  state.onClose(appServerError(new TurnLost({ threadId, turnId, resumable, description, lastError })), syncBatch)
}

/**
 * Replays a turn that has ended meanwhile. A turn that a shared server still runs is joined again: its thread is open, so its next events
 * arrive. Any other turn fails with `TurnLost`.
 */
const recoverTurn = (connection: ServerConnection, server: ServerClient, isShared: boolean) =>
  Effect.fnUntraced(function*({ id: turnId, refCount, state, thread }: TurnEntry) {
    const { threadId } = state
    // No caller waits for the turn, and a server that was restarted does not run it.
    if (refCount === 0 && !isShared) return failLost(state, turnId, restartedBefore)
    if (thread === undefined && !isShared) {
      return failLost(state, turnId, "the server was restarted, and does not continue sub-agents", false)
    }
    if (isShared) markGap(state, turnId)
    let resumable = false
    const opened = thread === undefined ? Effect.void : thread.ensureOpen(server)
    const found = yield* opened.pipe(
      Effect.tap(() =>
        Effect.sync(() => {
          resumable = true
        })
      ),
      Effect.andThen(isShared ? reportUsage(connection, server, threadId, turnId) : Effect.succeedNone),
      Effect.flatMap((turn) =>
        Option.isSome(turn) ? Effect.succeed(turn) : readStoredTurn(server, threadId, ({ id }) => id === turnId)
      ),
      Effect.result
    )
    if (Result.isFailure(found)) {
      // If the connection has ended again, the turn is recovered after the next restart.
      if (found.failure.reason._tag === "ConnectionClosed") return
      if (resumable && isShared && (yield* isActive(server, threadId))) return state.endGap()
      return failLost(state, turnId, found.failure.message, resumable)
    }
    const turn = Option.getOrUndefined(found.success)
    if (turn !== undefined && hasEnded(turn)) return replayStoredTurn(state, turn)
    if (isShared && turn?.status === "inProgress") return replayStoredTurn(state, turn)
    // A server stores a turn a moment after it has started it.
    if (isShared && turn === undefined && (yield* isActive(server, threadId))) return state.endGap()
    return failLost(
      state,
      turnId,
      turn === undefined ? "the server was restarted and has not stored the turn" : restartedBefore
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
      const stored = turnId === undefined ?
        Option.none() :
        yield* readStoredTurn(server, threadId, ({ id }) => id === turnId).pipe(
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
        return failLost(state, turnId ?? "", "the server unloaded the thread before the turn was completed")
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

/** Fails a compaction whose end was lost. The server does not report it, but a shared server may still run it. */
const recoverCompaction = Effect.fnUntraced(
  function*(server: ServerClient, records: ThreadRecords, state: TurnState, isShared: boolean) {
    const { threadId } = state
    const record = records.get(threadId)
    if (isShared && record !== undefined) {
      const isOpen = yield* Effect.isSuccess(ensureOpen(server, record, records))
      if (isOpen && (yield* isActive(server, threadId))) return
    }
    failLost(state, "", "the server was restarted and does not report whether the thread was compacted")
  }
)

/** Opens a thread again, and notes the turn that it runs. */
const reopenThread = (
  server: ServerClient,
  record: ThreadRecord,
  records: ThreadRecords,
  turns: TurnRegistry
): Effect.Effect<void, AppServerError> =>
  Effect.flatMap(
    ensureOpen(server, record, records),
    (opened) => opened === undefined ? Effect.void : findActive(server, turns, opened)
  )

const concurrently = { concurrency: 8, discard: true } as const

/**
 * Recovers all running turns after a restart, before other requests are sent. Their threads are opened again, and so are threads whose turn
 * another client or a goal has started: the goal then continues. Other threads are opened again when they are used.
 *
 * Another client of a shared server may start a turn on any thread, so all threads are opened again, in the background.
 */
export const recoverTurns = Effect.fnUntraced(
  function*(
    server: ServerClient,
    { connection, isShared, records, scope, turns }: {
      readonly connection: ServerConnection
      readonly isShared: boolean
      readonly records: ThreadRecords
      readonly scope: Scope.Scope
      readonly turns: TurnRegistry
    }
  ): Effect.fn.Return<void> {
    records.generation++
    const active = turns.takeActiveThreads()
    if (isShared) {
      for (const state of turns.unassigned) state.startGap()
    }
    yield* Effect.forEach(
      [...turns.compacting],
      (state) => recoverCompaction(server, records, state, isShared),
      concurrently
    )
    const running = [...turns.entries.values(), ...turns.watched].filter(({ state }) => state.exit === undefined)
    yield* Effect.forEach(running, recoverTurn(connection, server, isShared), concurrently)
    const reopen = (ids: ReadonlyArray<string>) =>
      Effect.forEach(
        ids.flatMap((id) => records.get(id) ?? []).filter(({ gone, isClosed }) => !isClosed && gone === undefined),
        (record) => Effect.ignore(reopenThread(server, record, records, turns)),
        concurrently
      )
    yield* reopen(active)
    if (isShared) yield* Effect.forkIn(reopen(records.ids()), scope)
  }
)
