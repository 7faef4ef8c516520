/**
 * Handles of turns that this program watches. It did not start them, or another caller of the program did. A watcher keeps no turn running,
 * and interrupts none.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type AppServerError, make as appServerError, TurnLost } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import { type ReadBatch, syncBatch } from "../../jsonrpc/readBatch.ts"
import type { SessionState } from "../sessionState.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { replayPast } from "./recoverTurns.ts"
import { TurnHandle } from "./turnHandle.ts"
import { toKey, type TurnEntry } from "./turnRegistry.ts"
import { TurnState } from "./turnState.ts"

/** A thread to watch. This program has not opened the thread of a sub-agent. */
export interface WatchedThread {
  readonly id: string
  readonly opened: OpenThread | undefined
}

/**
 * Calls a function when the server sends no more events of a thread: the program has closed it, or it was deleted. The thread of a sub-agent is
 * not opened again when the server has unloaded it. Returns a function that stops to listen.
 */
export const onThreadEnd = (
  { server }: SessionState,
  { id, opened }: WatchedThread,
  onEnd: () => void
): () => void => {
  if (opened !== undefined) {
    const { record } = opened
    record.onEnd.add(onEnd)
    return () => record.onEnd.delete(onEnd)
  }
  return server.addThreadListener(id, {
    onNotification(event, _, batch) {
      const isUnloaded = event.method === "thread/closed" || event.method === "thread/deleted" ||
        event.method === "thread/status/changed" && event.params.status.type === "notLoaded"
      if (isUnloaded) batch.afterBatch(onEnd)
    },
    onClose: () => {}
  })
}

const watchEnded = ({ threadId, lastError }: TurnState, turnId: string): AppServerError => {
  const description = "the scope of its handle was closed, and the turn continues"
  return appServerError(new TurnLost({ threadId, turnId, resumable: true, description, lastError }))
}

/** Listens to a turn from now on, until it ends or `stop` is called. */
const watch = ({ server, turns }: SessionState, thread: WatchedThread, turnId: string, batch: ReadBatch) => {
  const state = new TurnState(server, turns.usages, thread.id)
  state.setTurnId(turnId, batch)
  const turn: TurnEntry = {
    id: turnId,
    key: toKey(thread.id, turnId),
    thread: thread.opened,
    state,
    isOurs: false,
    keepBackgroundTerminals: true,
    refCount: 1
  }
  turns.watched.add(turn)
  const stop = () => {
    turns.watched.delete(turn)
    state.onClose(watchEnded(state, turnId), syncBatch)
  }
  state.onComplete(() => turns.watched.delete(turn))
  turns.onAwait({ state, id: () => turnId, isAwaited: () => turns.watched.has(turn) })
  return { turn, stop }
}

/** Listens to a turn from its first event on. */
const start = (
  session: SessionState,
  thread: WatchedThread,
  turnId: string,
  event: Protocol.ServerNotification,
  batch: ReadBatch
): TurnHandle => {
  const { turn } = watch(session, thread, turnId, batch)
  turn.state.onNotification(event, turnId, batch)
  return new TurnHandle(session, turn)
}

/** Returns the id with which the running turn of a thread ends. A review has started with another one. */
const activeTurnId = ({ subAgents, turns }: SessionState, threadId: string): string | undefined => {
  const id = turns.getRunning(threadId)[0]?.id ?? turns.getActive(threadId)
  if (id === undefined || subAgents.getParent(threadId) !== undefined) return id
  return subAgents.getRoot(id) ?? id
}

interface Current {
  readonly handle: TurnHandle
  readonly stop: () => void
  /** Reads what the turn has done before. */
  readonly readPast: Effect.Effect<void, AppServerError>
}

/** Listens to the running turn of a thread. A turn that this program started already has a state. */
const watchCurrent = (session: SessionState, thread: WatchedThread): Current | undefined => {
  const { server, turns } = session
  const turnId = activeTurnId(session, thread.id)
  if (turnId === undefined) return undefined
  const own = turns.entries.get(toKey(thread.id, turnId))
  if (own !== undefined) {
    const handle = new TurnHandle(session, own, true)
    return { handle, stop: () => handle.fail(watchEnded(own.state, turnId)), readPast: Effect.void }
  }
  const { stop, turn } = watch(session, thread, turnId, syncBatch)
  turn.state.startedAs = turns.getActive(thread.id)
  // Events wait until the past of the turn is known.
  turn.state.startGap()
  return {
    handle: new TurnHandle(session, turn),
    stop,
    readPast: replayPast(server, turn.state, turnId)
  }
}

/**
 * Calls a function with each turn of a thread that starts from now on: with a handle from its first event on, or without one if a lost
 * socket has lost the event.
 */
const listen = (
  session: SessionState,
  thread: WatchedThread,
  onStart: (handle: TurnHandle | undefined) => void,
  onClose: (error: AppServerError, batch: ReadBatch) => void
): () => void => {
  const { server, turns } = session
  // A review has its first event before `turn/started`, which names another turn. It can be interrupted from then on.
  let review: TurnHandle | undefined
  let last = turns.getActive(thread.id)
  const onFound = (threadId: string, turnId: string) => {
    if (threadId !== thread.id || turnId === last || turnId === review?.turn.id) return
    last = turnId
    onStart(undefined)
  }
  turns.onFound.add(onFound)
  const stop = server.addThreadListener(thread.id, {
    onNotification(event, _, batch) {
      if (event.method === "item/started" && event.params.item.type === "enteredReviewMode") {
        review = start(session, thread, event.params.turnId, event, batch)
      }
      if (event.method !== "turn/started") return
      const { id, rootTurnId } = event.params.turn
      // A server may repeat the event.
      if (id === last) return
      last = id
      if (review === undefined || review.turn.id !== rootTurnId) {
        return onStart(start(session, thread, id, event, batch))
      }
      review.turn.state.startedAs = id
      onStart(review)
    },
    onClose
  })
  return () => {
    turns.onFound.delete(onFound)
    stop()
  }
}

/**
 * Emits a handle of each turn of a thread that starts from now on, with `"current"` also of the running one. The handles work until their
 * turns end, also when the stream has ended.
 */
export const watchTurns = (
  session: SessionState,
  thread: WatchedThread,
  from: "current" | "next"
): Stream.Stream<TurnHandle, AppServerError> =>
  Stream.callback<TurnHandle, AppServerError>(Effect.fnUntraced(function*(queue) {
    // One after the other, so that the running turn precedes those that start while its past is read.
    const found = yield* Queue.unbounded<Current>()
    const attach = () => {
      const current = watchCurrent(session, thread)
      if (current !== undefined) Queue.offerUnsafe(found, current)
    }
    const offer = (handle: TurnHandle) => Queue.offerUnsafe(found, { handle, stop: () => {}, readPast: Effect.void })
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        const stop = listen(
          session,
          thread,
          (handle) => handle === undefined ? attach() : offer(handle),
          (error, batch) => batch.afterBatch(() => Queue.failCauseUnsafe(queue, Cause.fail(error)))
        )
        const stopEnd = onThreadEnd(session, thread, () => Queue.endUnsafe(queue))
        // Together, so that a turn that starts meanwhile is emitted once.
        if (from === "current") attach()
        return () => {
          stopEnd()
          stop()
        }
      }),
      (stop) => Effect.sync(stop)
    )
    yield* Queue.take(found).pipe(
      Effect.flatMap(({ handle, readPast, stop }) =>
        readPast.pipe(
          // Without its past, no caller has the handle.
          Effect.onError(() => Effect.sync(stop)),
          Effect.andThen(Effect.sync(() => Queue.offerUnsafe(queue, handle)))
        )
      ),
      Effect.forever
    )
  }))

/** Returns a handle of the running turn of a thread, which works until the scope closes. */
export const watchCurrentTurn = Effect.fnUntraced(function*(
  session: SessionState,
  thread: WatchedThread
): Effect.fn.Return<Option.Option<TurnHandle>, AppServerError, Scope.Scope> {
  const current = yield* Effect.acquireRelease(
    Effect.sync(() => watchCurrent(session, thread)),
    (current) => Effect.sync(() => current?.stop())
  )
  if (current === undefined) return Option.none()
  yield* current.readPast
  return Option.some(current.handle)
})
