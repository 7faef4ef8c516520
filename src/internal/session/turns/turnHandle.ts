/** The handles of turns. Several callers may have a handle of the same turn. The timeout of one does not end the wait of another. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type AppServerError, make as appServerError, TurnLost } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { TurnView } from "../../../TurnView.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { Subscription } from "../../connection/subscription.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import type { SessionState } from "../sessionState.ts"
import type { ViewSubscription } from "../views/liveView.ts"
import { pendingRequests } from "../views/pendingRequests.ts"
import { endTerminals } from "./backgroundTerminals.ts"
import { awaitWithTimeout, interruptAndAwait } from "./interruptTurn.ts"
import type { TurnEntry } from "./turnRegistry.ts"

/**
 * Interrupts a turn, waits for the server to end it, and ends its background terminals. It is uninterruptible, because the end of the turn
 * may close the scope that it runs in.
 */
export const endTurn = (server: ServerConnection, turn: TurnEntry): Effect.Effect<void> =>
  Effect.suspend(() =>
    turn.state.exit !== undefined
      ? Effect.void
      : Effect.andThen(
        interruptAndAwait(server, turn.state, turn.id),
        turn.keepBackgroundTerminals ? Effect.void : awaitWithTimeout(endTerminals(server, turn.state))
      )
  ).pipe(Effect.uninterruptible)

/**
 * Ends all turns of a thread that is about to close, because no event of them arrives afterwards. The turns that this program started end on
 * the server. For the others, also for those that it only watches, only the waits of this program end.
 */
export const closeTurns = Effect.fnUntraced(function*({ turns, server }: SessionState, threadId: string) {
  yield* awaitWithTimeout(Fiber.awaitAll(turns.pendingStarts(threadId)))
  const running = turns.getRunning(threadId)
  yield* Effect.forEach(running.filter(({ isOurs }) => isOurs), (turn) => endTurn(server, turn), {
    concurrency: "unbounded",
    discard: true
  })
  const watched = [...turns.watched].filter(({ state }) => state.threadId === threadId)
  for (const { id: turnId, state } of [...running, ...watched]) {
    const description = "the thread was closed, so the server does not report the end of the turn to this program"
    const { lastError } = state
    state.onClose(
      appServerError(new TurnLost({ threadId, turnId, resumable: true, description, lastError })),
      syncBatch
    )
  }
})

export class TurnHandle {
  readonly session: SessionState
  readonly turn: TurnEntry
  private readonly exitDeferred = Deferred.makeUnsafe<Protocol.Turn, AppServerError>()
  private readonly subscriptions = new Set<Subscription<Protocol.TurnNotification>>()
  private readonly viewSubscriptions = new Set<ViewSubscription<TurnView>>()
  private error: AppServerError | undefined
  private isReleased = false
  /** Whether this handle does not keep the turn running. */
  private readonly isWatcher: boolean

  constructor(session: SessionState, turn: TurnEntry, isWatcher = false) {
    this.session = session
    this.turn = turn
    this.isWatcher = isWatcher
    turn.state.completeWith(this.exitDeferred)
  }

  /** Waits for the end of the turn, or of the wait of this handle alone. */
  get ended(): Effect.Effect<Protocol.Turn, AppServerError> {
    return Deferred.await(this.exitDeferred)
  }

  subscribe(): Subscription<Protocol.TurnNotification> {
    const subscription = this.turn.state.subscribe()
    if (this.error === undefined) this.subscriptions.add(subscription)
    else this.close(subscription, this.error)
    return subscription
  }

  subscribeView(): ViewSubscription<TurnView> {
    const { id, state } = this.turn
    const pending = pendingRequests(this.session.server, state.threadId, id)
    const subscription = state.getLive(pending).subscribe()
    if (this.error === undefined) this.viewSubscriptions.add(subscription)
    else subscription.end(this.error, syncBatch)
    return subscription
  }

  unsubscribeView(subscription: ViewSubscription<TurnView>): void {
    this.viewSubscriptions.delete(subscription)
    this.turn.state.getLive([]).unsubscribe(subscription)
  }

  unsubscribe(subscription: Subscription<Protocol.TurnNotification>): void {
    this.subscriptions.delete(subscription)
    this.turn.state.unsubscribe(subscription)
  }

  /** Whether the turn continues without this handle: it has another handle, or this program did not start it. */
  get isShared(): boolean {
    return this.isWatcher || !this.turn.isOurs || this.turn.refCount > (this.isReleased ? 0 : 1)
  }

  /** Ends the wait of this handle alone, with an error. */
  fail(error: AppServerError): void {
    if (this.error !== undefined || this.turn.state.exit !== undefined) return
    this.error = error
    for (const subscription of this.subscriptions) this.close(subscription, error)
    this.subscriptions.clear()
    for (const subscription of this.viewSubscriptions) subscription.end(error, syncBatch)
    this.viewSubscriptions.clear()
    Deferred.doneUnsafe(this.exitDeferred, Effect.fail(error))
  }

  /** Ends the wait of this handle with an error. Interrupts the turn, unless it continues without this handle. */
  expire(toError: (isInterrupted: boolean) => AppServerError): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { isShared, session: { server }, turn, turn: { state } } = this
      if (state.exit !== undefined) return Effect.void
      const error = toError(!isShared)
      if (isShared) {
        this.fail(error)
        return this.release
      }
      state.expire(error)
      return Effect.andThen(endTurn(server, turn), Effect.sync(() => state.failIfExpired()))
    })
  }

  /** Releases this handle. Interrupts the turn if this was the last handle and this program started the turn. */
  readonly release: Effect.Effect<void> = Effect.suspend(() => {
    if (this.isReleased || this.isWatcher) return Effect.void
    this.isReleased = true
    this.turn.refCount--
    return releaseTurn(this.session, this.turn)
  })

  private close(subscription: Subscription<Protocol.TurnNotification>, error: AppServerError): void {
    this.turn.state.unsubscribe(subscription)
    subscription.close(error, syncBatch)
  }
}

/** Interrupts a turn without handles and removes it, also if the server does not end it. */
const releaseTurn = Effect.fnUntraced(function*({ turns, server }: SessionState, turn: TurnEntry) {
  const { state } = turn
  const starting = turns.pendingStarts(state.threadId)
  // A `turn/start` without a response may join this turn.
  if (turn.refCount === 0 && state.exit === undefined && starting.size > 0) {
    yield* awaitWithTimeout(Fiber.awaitAll(starting))
  }
  if (turn.refCount > 0 || !turns.isCurrent(turn)) return
  if (turn.isOurs) yield* endTurn(server, turn)
  if (turn.refCount > 0) return
  turns.remove(turn)
  if (state.exit === undefined) state.release()
})
