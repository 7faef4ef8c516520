/** The view of a thread: the stored thread, and the events that follow. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import * as ThreadView from "../../../ThreadView.ts"
import * as TurnView from "../../../TurnView.ts"
import { getThreadId, getTurnId } from "../../connection/codec.ts"
import { isTextDelta } from "../../connection/delta.ts"
import { getOwn } from "../../getOwn.ts"
import { type ReadBatch, syncBatch } from "../../jsonrpc/readBatch.ts"
import { withoutUndefined } from "../../withoutUndefined.ts"
import type { SessionState } from "../sessionState.ts"
import { pages } from "../threads/pages.ts"
import { readActiveTurns } from "../turns/recoverTurns.ts"
import { onThreadEnd, type WatchedThread } from "../turns/watchTurns.ts"
import { correctUsage, isWithoutBeginning } from "./correctView.ts"
import { fromViewSubscription, LiveView } from "./liveView.ts"
import { isPendingRequest, pendingRequests, toResolved } from "./pendingRequests.ts"
import { makeRedactThreadView } from "./redactView.ts"

/** Number of turns in a page. */
const pageSize = 100

/** Reads the stored turns, oldest first. A thread that the server does not store has none. */
const readTurns = ({ server }: SessionState, threadId: string) => {
  const params = { threadId, limit: pageSize, itemsView: "full", sortDirection: "asc" }
  return Stream.runCollect(pages(server, "thread/turns/list", params, Protocol.Turn)).pipe(
    Effect.catchReasons("AppServerError", {
      ThreadNotFound: () => Effect.succeed([]),
      RequestRejected: () => Effect.succeed([])
    })
  )
}

/** Reads the goal. A server without goals rejects the request. */
const readGoal = ({ server }: SessionState, threadId: string) =>
  server.request("thread/goal/get", { threadId }).pipe(
    Effect.map(({ goal = null }) => goal),
    Effect.catchReasons("AppServerError", {
      ThreadNotFound: () => Effect.succeed(null),
      RequestRejected: () => Effect.succeed(null)
    })
  )

/** Replaces a turn by what was read of it later. */
const replaceTurn = (turns: ReadonlyArray<Protocol.Turn>, turn: Protocol.Turn): ReadonlyArray<Protocol.Turn> => {
  const index = turns.findLastIndex(({ id }) => id === turn.id)
  return index === -1 ? [...turns, turn] : turns.with(index, turn)
}

/** While the server stores the first turn of a thread, it does not read the thread or its turns. */
const whileStoring = { schedule: Schedule.spaced("50 millis"), times: 100 }

/** Reads the turns of an active thread, with the running one. */
const readRunning = ({ server }: SessionState, threadId: string) =>
  Effect.flatMap(
    readActiveTurns(server, threadId),
    (turns) => turns.length === 0 ? Effect.fail("none" as const) : Effect.succeed(turns)
  ).pipe(
    Effect.retry({ ...whileStoring, while: (error) => error === "none" }),
    Effect.catchIf((error) => error === "none", () => Effect.succeed([]))
  )

const read = Effect.fnUntraced(function*(session: SessionState, { id, opened }: WatchedThread) {
  const { server } = session
  // The server sends the events of an open thread only.
  if (opened !== undefined) yield* opened.request(server, "thread/resume", () => Effect.void)
  const { thread } = yield* Effect.retry(server.request("thread/read", { threadId: id }), {
    ...whileStoring,
    while: ({ reason }) => reason._tag === "RequestRejected" && reason.code === -32603
  })
  const [turns, goal] = yield* Effect.all([readTurns(session, id), readGoal(session, id)], { concurrency: 2 })
  const active = thread.status.type === "active" && !thread.ephemeral ? yield* readRunning(session, id) : []
  const view = ThreadView.fromThread({ ...thread, turns: active.reduceRight(replaceTurn, turns) })
  const withSettings = {
    ...view,
    goal,
    settings: opened === undefined ? view.settings : withoutUndefined(opened.record.settings)
  }
  return pendingRequests(server, id).reduce<ThreadView.ThreadView>(ThreadView.reduce, withSettings)
})

const getEventTurnId = (event: ThreadView.Event): string | undefined =>
  getTurnId(getOwn(event.method === "malformed" ? event.raw : event, "params"))

const setTurn = (view: ThreadView.ThreadView, turn: TurnView.TurnView): ThreadView.ThreadView => {
  const index = view.turns.findLastIndex(({ turnId }) => turnId === turn.turnId)
  return { ...view, turns: index === -1 ? [...view.turns, turn] : view.turns.with(index, turn) }
}

/** Returns the views of the running turns whose events this program has from the first one on. */
const getRunning = ({ server, turns }: SessionState, threadId: string): ReadonlyArray<TurnView.TurnView> =>
  [...turns.entries.values(), ...turns.watched]
    .filter(({ state }) => state.threadId === threadId && state.exit === undefined && state.isWhole)
    .map(({ id, state }) => state.getLive(pendingRequests(server, threadId, id)).view)

/** Corrects the usage of the turns in progress, which the server does not store. */
const withUsages = ({ turns: { usages } }: SessionState, view: ThreadView.ThreadView): ThreadView.ThreadView => ({
  ...view,
  turns: view.turns.map((turn) =>
    TurnView.isEnded(turn) ? turn : correctUsage(turn, usages.get(view.threadId, turn.turnId))
  )
})

/**
 * Ends the turns before the last one whose ends were lost: a thread runs one turn at a time. While it runs one, the server lists a turn that a
 * killed server was running as in progress. A review starts with another turn than it ends with.
 */
const endLost = (view: ThreadView.ThreadView): ThreadView.ThreadView => {
  const last = view.turns.at(-1)
  const isLost = (turn: TurnView.TurnView) =>
    turn !== last && turn.turnId !== last?.rootTurnId && !TurnView.isEnded(turn)
  if (!view.turns.some(isLost)) return view
  const end = (turn: TurnView.TurnView) =>
    TurnView.reduce(turn, {
      method: "turn/completed",
      params: { threadId: view.threadId, turn: { id: turn.turnId, status: "interrupted", items: [] } }
    })
  return { ...view, turns: view.turns.map((turn) => isLost(turn) ? end(turn) : turn) }
}

/** Makes the function that folds the events which follow a stored thread. */
const makeReduce =
  ({ turns: { usages } }: SessionState) =>
  (view: ThreadView.ThreadView, event: ThreadView.Event): ThreadView.ThreadView => {
    const turnId = getEventTurnId(event)
    const find = ({ turns }: ThreadView.ThreadView) => turns.findLast((turn) => turn.turnId === turnId)
    if (isTextDelta(event)) return isWithoutBeginning(find(view), event) ? view : ThreadView.reduce(view, event)
    const folded = ThreadView.reduce(view, event)
    const next = event.method === "turn/started" && find(view) === undefined ? endLost(folded) : folded
    const turn = turnId === undefined || next === view ? undefined : find(next)
    if (turn === undefined || turn.usage === find(view)?.usage) return next
    return setTurn(next, correctUsage(turn, usages.get(view.threadId, turn.turnId)))
  }

/** A view that is read again after a restart of the server, and after a revert, whose event does not say which turns remain. */
class ThreadWatch {
  readonly live: LiveView<ThreadView.ThreadView, ThreadView.Event>
  /** The events that arrive while the stored thread is read. */
  private missed: Array<ThreadView.Event> | undefined

  private readonly session: SessionState
  private readonly reduce: (view: ThreadView.ThreadView, event: ThreadView.Event) => ThreadView.ThreadView

  constructor(session: SessionState, threadId: string) {
    this.session = session
    this.reduce = makeReduce(session)
    this.live = new LiveView(ThreadView.empty(threadId), this.reduce)
  }

  /** Notes that the view is stale: the next events follow the thread that is read next. */
  expectLoad(): void {
    this.missed = []
  }

  onEvent(event: ThreadView.Event, batch: ReadBatch): void {
    if (this.missed === undefined) this.live.fold(event, batch)
    else this.missed.push(event)
  }

  /** Reads the view. The server has not stored all of a running turn, so its view is that of its handles. */
  load(read: Effect.Effect<ThreadView.ThreadView, AppServerError>): Effect.Effect<void, AppServerError> {
    return Effect.suspend(() => {
      this.expectLoad()
      return Effect.map(read, (stored) => {
        const { missed = [], session } = this
        this.missed = undefined
        const running = getRunning(session, stored.threadId)
        const isFolded = (event: ThreadView.Event) => running.some(({ turnId }) => turnId === getEventTurnId(event))
        const folded = missed.filter((event) => !isFolded(event)).reduce(this.reduce, withUsages(session, stored))
        this.live.set(endLost(running.reduce(setTurn, folded)), syncBatch)
      })
    })
  }
}

/** Folds the events of a thread, until the scope closes. `reload` is called when the view must be read again. */
const listen = (
  session: SessionState,
  thread: WatchedThread,
  watch: ThreadWatch,
  reload: () => void
): Effect.Effect<void, never, Scope.Scope> => {
  const { server } = session
  const threadId = thread.id
  return Effect.all([
    Effect.acquireRelease(
      Effect.sync(() => onThreadEnd(session, thread, () => watch.live.end(undefined, syncBatch))),
      (stop) => Effect.sync(stop)
    ),
    Effect.acquireRelease(
      Effect.sync(() =>
        server.addThreadListener(threadId, {
          onNotification: (event, _, batch) => {
            if (event.method === "thread/reverted") reload()
            else watch.onEvent(event, batch)
          },
          onClose: (error, batch) => watch.live.end(error, batch)
        })
      ),
      (stop) => Effect.sync(stop)
    ),
    server.addReceivedHandler((request, batch) => {
      if (getThreadId(request.params) === threadId && isPendingRequest(request)) watch.onEvent(request, batch)
    }),
    server.addSettledHandler((request) => {
      if (getThreadId(request.params) === threadId) watch.onEvent(toResolved(request), syncBatch)
    }),
    server.addRestartHandler(() => Effect.sync(reload))
  ], { discard: true })
}

/** The view of a thread, and then each change. */
export const watchThread = (
  session: SessionState,
  thread: WatchedThread
): Stream.Stream<ThreadView.ThreadView, AppServerError> =>
  Stream.unwrap(Effect.gen(function*() {
    const stale = yield* Queue.sliding<void>(1)
    const watch = new ThreadWatch(session, thread.id)
    const load = watch.load(read(session, thread))
    yield* listen(session, thread, watch, () => {
      watch.expectLoad()
      Queue.offerUnsafe(stale, undefined)
    })
    yield* load
    yield* Queue.take(stale).pipe(
      Effect.andThen(load),
      Effect.forever,
      Effect.catch((error) => Effect.sync(() => watch.live.end(error, syncBatch))),
      Effect.forkScoped
    )
    const { live } = watch
    return fromViewSubscription(() => live.subscribe(), (subscription) => live.unsubscribe(subscription)).pipe(
      Stream.map(makeRedactThreadView(session.server.redact))
    )
  }))
