/**
 * What a subscriber has not read yet. The reader puts events in and never waits; the subscriber takes all there is at
 * once.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { ReadBatch } from "../jsonrpc/messages.ts"
import { SyncQueue } from "../syncQueue.ts"
import { CoalescingBuffer } from "./coalescingBuffer.ts"
import type { Delta } from "./deltaParser.ts"

/** A subscriber with so many events unread lags. */
export const lagThreshold = 1024

/**
 * So many events are not kept from a subscriber that waits for them. It takes as many in one go, without having to let others
 * have their turn, and so keeps up with a flood of its own.
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

  /** As `offer`, for a piece of text whose event may not be needed. */
  offerDelta(delta: Delta, batch: ReadBatch): void {
    if (this.queue.isEnded) return
    this.unread.pushDelta(delta)
    this.notifyIn(batch)
  }

  /** The end is seen after all that came before it. */
  close(error?: AppServerError, batch?: ReadBatch): void {
    this.queue.end(error)
    if (batch === undefined) return
    this.notifyIn(batch)
    batch.flush()
  }

  private notifyIn(batch: ReadBatch): void {
    if (!this.queue.hasTaker) return
    // Who waits does not lag, and is not to have its deltas joined.
    if (this.unread.length === flushThreshold) batch.flush()
    if (this.isNotifying) return
    this.isNotifying = true
    batch.whenIdle(this.notify)
  }

  private readonly notify = (): void => {
    this.isNotifying = false
    this.queue.notify()
  }

  /** The events, for one run. */
  readonly stream: Stream.Stream<A, AppServerError> = this.queue.stream
}

/** A stream each of whose runs has a buffer of its own. */
export const fromSubscription = <A extends Protocol.ServerNotification>(
  subscribe: () => Subscription<A>,
  unsubscribe: (buffer: Subscription<A>) => void
): Stream.Stream<A, AppServerError> =>
  Stream.unwrap(
    Effect.acquireRelease(Effect.sync(subscribe), (buffer) => Effect.sync(() => unsubscribe(buffer))).pipe(
      Effect.map((buffer) => buffer.stream)
    )
  )
