/**
 * What a subscriber has not read yet. The reader puts events in and never waits; the subscriber takes all there is at
 * once.
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { Delta } from "./deltaLines.ts"
import { EventLog } from "./eventLog.ts"
import type { Step } from "./jsonRpcPeer.ts"

/** A subscriber with so many events unread lags. */
export const lagThreshold = 1024

/** So many events are not kept from a subscriber that waits for them. */
const hurryThreshold = lagThreshold / 2

export class EventBuffer<A extends Protocol.ServerNotification> {
  private readonly unread: EventLog<A>
  private end: Exit.Exit<never, AppServerError | Cause.Done> | undefined
  private waiting: (() => void) | undefined
  private isWaking = false

  constructor(initial?: Array<A>) {
    this.unread = new EventLog(lagThreshold, initial)
  }

  offer(event: A, step: Step): void {
    if (this.end !== undefined) return
    this.unread.push(event)
    this.wakeIn(step)
  }

  /** As `offer`, for a piece of text whose event may not be needed. */
  offerDelta(delta: Delta, step: Step): void {
    if (this.end !== undefined) return
    this.unread.pushDelta(delta)
    this.wakeIn(step)
  }

  /** The end is seen after all that came before it. */
  close(error?: AppServerError, step?: Step): void {
    if (this.end !== undefined) return
    this.end = Exit.fail(error ?? Cause.Done())
    if (step !== undefined) this.wakeIn(step)
  }

  private wakeIn(step: Step): void {
    if (this.waiting === undefined) return
    // Who waits does not lag, and is not to have its deltas joined.
    if (this.unread.length === hurryThreshold) step.hurry()
    if (this.isWaking) return
    this.isWaking = true
    step.defer(this.wake)
  }

  private readonly wake = (): void => {
    const waiting = this.waiting
    this.waiting = undefined
    this.isWaking = false
    waiting?.()
  }

  private readonly take: Pull.Pull<Arr.NonEmptyReadonlyArray<A>, AppServerError> = Effect.suspend(() =>
    this.next() ?? this.wait
  )

  /** What there is to read, if there is any. */
  private next(): Pull.Pull<Arr.NonEmptyReadonlyArray<A>, AppServerError> | undefined {
    return this.unread.length > 0
      ? Effect.succeed(this.unread.take() as unknown as Arr.NonEmptyReadonlyArray<A>)
      : this.end
  }

  private readonly wait: Pull.Pull<Arr.NonEmptyReadonlyArray<A>, AppServerError> = Effect.callback((resume) => {
    this.waiting = () => resume(this.next() ?? this.wait)
    return this.stopWaiting
  })

  private readonly stopWaiting = Effect.sync(() => {
    this.waiting = undefined
  })

  /** The events, for one run. */
  readonly stream: Stream.Stream<A, AppServerError> = Stream.fromPull(Effect.succeed(this.take))
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
