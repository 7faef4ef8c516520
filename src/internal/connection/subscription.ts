/** The events that a subscriber has not read yet. The reader adds events and never waits. The subscriber drains all of them in one pull. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { ReadBatch } from "../jsonrpc/readBatch.ts"
import { SyncQueue } from "../syncQueue.ts"
import { CoalescingBuffer } from "./coalescingBuffer.ts"
import type { Delta } from "./delta.ts"

/** Number of unread events from which a subscriber lags: further deltas are coalesced. */
const lagThreshold = 1024

/**
 * Number of unread events at which a waiting subscriber is resumed, also in a flood. A subscriber reads this many without yielding, and so
 * keeps up with the flood.
 */
const flushThreshold = 128

export class Subscription<A extends Protocol.ServerNotification> {
  private readonly unread: CoalescingBuffer<A>
  private readonly queue = new SyncQueue<A, AppServerError>(() => this.unread.take())
  private isNotifying = false

  constructor(initial?: ReadonlyArray<A>) {
    this.unread = new CoalescingBuffer(lagThreshold, initial)
  }

  /** Number of deltas that were coalesced because the subscriber had not read the one before. */
  get coalesced(): number {
    return this.unread.coalesced
  }

  offer(event: A, batch: ReadBatch): void {
    if (this.queue.isEnded) return
    this.unread.push(event)
    this.notifyIn(batch)
    batch.flush()
  }

  /** Offers a delta without making its event. */
  offerDelta(delta: Delta, batch: ReadBatch): void {
    if (this.queue.isEnded) return
    this.unread.pushDelta(delta)
    this.notifyIn(batch)
  }

  /** Ends the subscription after the unread events. */
  close(error?: AppServerError, batch?: ReadBatch): void {
    this.queue.end(error)
    if (batch === undefined) return
    this.notifyIn(batch)
    batch.flush()
  }

  private notifyIn(batch: ReadBatch): void {
    if (!this.queue.hasTaker) return
    // Resumes a waiting subscriber before it lags, so that its deltas are not coalesced.
    if (this.unread.length === flushThreshold) batch.flush()
    if (this.isNotifying) return
    this.isNotifying = true
    batch.whenIdle(this.notify)
  }

  private readonly notify = (): void => {
    this.isNotifying = false
    this.queue.notify()
  }

  /** The events. The stream can be run once. */
  readonly stream: Stream.Stream<A, AppServerError> = this.queue.stream
}

/** Makes a stream that subscribes for each run. */
export const fromSubscription = <A extends Protocol.ServerNotification>(
  subscribe: () => Subscription<A>,
  unsubscribe: (subscription: Subscription<A>) => void
): Stream.Stream<A, AppServerError> =>
  Stream.unwrap(
    Effect.acquireRelease(Effect.sync(subscribe), (subscription) => Effect.sync(() => unsubscribe(subscription))).pipe(
      Effect.map((subscription) => subscription.stream)
    )
  )
