/** The events that a subscriber has not read yet. The reader adds events and never waits; the subscriber drains all of them in one pull. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { ReadBatch } from "../jsonrpc/readBatch.ts"
import { SyncQueue } from "../syncQueue.ts"
import { CoalescingBuffer } from "./coalescingBuffer.ts"
import type { Delta } from "./delta.ts"

/** Number of unread events from which a subscriber lags, and its deltas are coalesced. */
export const lagThreshold = 1024

/**
 * Number of unread events at which a waiting subscriber is resumed, also in a flood. The subscriber can read this many without yielding, and
 * so keeps up with a flood of its own.
 */
const flushThreshold = 128

export class Subscription<A extends Protocol.ServerNotification> {
  private readonly unread: CoalescingBuffer<A>
  private readonly queue = new SyncQueue<A, AppServerError>(() => this.unread.take())
  private isNotifying = false

  constructor(initial?: ReadonlyArray<A>) {
    this.unread = new CoalescingBuffer(lagThreshold, initial)
  }

  offer(event: A, batch: ReadBatch): void {
    if (this.queue.isEnded) return
    this.unread.push(event)
    this.notifyIn(batch)
    batch.flush()
  }

  /** As `offer`, for a delta whose event need not be made. */
  offerDelta(delta: Delta, batch: ReadBatch): void {
    if (this.queue.isEnded) return
    this.unread.pushDelta(delta)
    this.notifyIn(batch)
  }

  /** Ends the subscription after the events that are unread. */
  close(error?: AppServerError, batch?: ReadBatch): void {
    this.queue.end(error)
    if (batch === undefined) return
    this.notifyIn(batch)
    batch.flush()
  }

  private notifyIn(batch: ReadBatch): void {
    if (!this.queue.hasTaker) return
    // A subscriber that waits does not lag, so its deltas are not coalesced.
    if (this.unread.length === flushThreshold) batch.flush()
    if (this.isNotifying) return
    this.isNotifying = true
    batch.whenIdle(this.notify)
  }

  private readonly notify = (): void => {
    this.isNotifying = false
    this.queue.notify()
  }

  /** The events. It can be run once. */
  readonly stream: Stream.Stream<A, AppServerError> = this.queue.stream
}

/** A stream that subscribes for each run. */
export const fromSubscription = <A extends Protocol.ServerNotification>(
  subscribe: () => Subscription<A>,
  unsubscribe: (subscription: Subscription<A>) => void
): Stream.Stream<A, AppServerError> =>
  Stream.unwrap(
    Effect.acquireRelease(Effect.sync(subscribe), (subscription) => Effect.sync(() => unsubscribe(subscription))).pipe(
      Effect.map((subscription) => subscription.stream)
    )
  )
