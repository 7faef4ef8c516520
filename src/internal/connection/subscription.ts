/**
 * What a subscriber has not read yet. The reader puts events in and never waits; the subscriber takes all there is at
 * once.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { Step } from "../jsonrpc/messages.ts"
import { Handoff } from "../syncQueue.ts"
import { EventLog } from "./coalescingBuffer.ts"
import type { Delta } from "./deltaParser.ts"

/** A subscriber with so many events unread lags. */
export const lagThreshold = 1024

/**
 * So many events are not kept from a subscriber that waits for them. It takes as many in one go, without having to let others
 * have their turn, and so keeps up with a flood of its own.
 */
const hurryThreshold = 128

export class EventBuffer<A extends Protocol.ServerNotification> {
  private readonly unread: EventLog<A>
  private readonly handoff = new Handoff<A, AppServerError>(() => this.unread.take())
  private isWaking = false

  constructor(initial?: ReadonlyArray<A>) {
    this.unread = new EventLog(lagThreshold, initial)
  }

  offer(event: A, step: Step): void {
    if (this.handoff.isEnded) return
    this.unread.push(event)
    this.wakeIn(step)
    step.hurry()
  }

  /** As `offer`, for a piece of text whose event may not be needed. */
  offerDelta(delta: Delta, step: Step): void {
    if (this.handoff.isEnded) return
    this.unread.pushDelta(delta)
    this.wakeIn(step)
  }

  /** The end is seen after all that came before it. */
  close(error?: AppServerError, step?: Step): void {
    this.handoff.end(error)
    if (step === undefined) return
    this.wakeIn(step)
    step.hurry()
  }

  private wakeIn(step: Step): void {
    if (!this.handoff.isAwaited) return
    // Who waits does not lag, and is not to have its deltas joined.
    if (this.unread.length === hurryThreshold) step.hurry()
    if (this.isWaking) return
    this.isWaking = true
    step.delay(this.wake)
  }

  private readonly wake = (): void => {
    this.isWaking = false
    this.handoff.wake()
  }

  /** The events, for one run. */
  readonly stream: Stream.Stream<A, AppServerError> = this.handoff.stream
}

/** A stream each of whose runs has a buffer of its own. */
export const streamOf = <A extends Protocol.ServerNotification>(
  subscribe: () => EventBuffer<A>,
  unsubscribe: (buffer: EventBuffer<A>) => void
): Stream.Stream<A, AppServerError> =>
  Stream.unwrap(
    Effect.acquireRelease(Effect.sync(subscribe), (buffer) => Effect.sync(() => unsubscribe(buffer))).pipe(
      Effect.map((buffer) => buffer.stream)
    )
  )
