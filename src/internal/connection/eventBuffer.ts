/**
 * What a subscriber has not read yet. The reader puts events in and never waits; the subscriber takes all there is at
 * once. A subscriber that lags gets consecutive deltas of one item as one event, so what is kept for it is bounded by the
 * text itself, and nothing is lost.
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type { Step } from "./jsonRpcPeer.ts"

/** Joins an event with the one before it, where they are deltas of the same text. */
export type Merge<A> = (previous: A, next: A) => A | undefined

/** A subscriber with this many events unread is lagging. */
export const lagThreshold = 1024

/** Adds an event to a log, joined with the last one if the log has become long. */
export const append = <A>(events: Array<A>, event: A, merge: Merge<A>): void => {
  if (events.length >= lagThreshold) {
    const merged = merge(events[events.length - 1]!, event)
    if (merged !== undefined) {
      events[events.length - 1] = merged
      return
    }
  }
  events.push(event)
}

export class EventBuffer<A> {
  private events: Array<A>
  private end: Exit.Exit<never, AppServerError | Cause.Done> | undefined
  private waiting: (() => void) | undefined
  private readonly merge: Merge<A>

  constructor(merge: Merge<A>, initial: ReadonlyArray<A> = []) {
    this.merge = merge
    this.events = initial.slice()
  }

  offer(event: A, step: Step): void {
    if (this.end !== undefined) return
    append(this.events, event, this.merge)
    if (this.waiting !== undefined) step.defer(this.wake)
  }

  /** The end is seen after all that came before it. */
  close(error?: AppServerError, step?: Step): void {
    if (this.end !== undefined) return
    this.end = Exit.fail(error ?? Cause.Done())
    if (this.waiting !== undefined) step?.defer(this.wake)
  }

  private readonly wake = (): void => {
    const waiting = this.waiting
    this.waiting = undefined
    waiting?.()
  }

  private readonly take: Pull.Pull<Arr.NonEmptyReadonlyArray<A>, AppServerError> = Effect.suspend(() => {
    if (this.events.length > 0) {
      const events = this.events
      this.events = []
      return Effect.succeed(events as unknown as Arr.NonEmptyReadonlyArray<A>)
    }
    if (this.end !== undefined) return this.end
    return Effect.callback<Arr.NonEmptyReadonlyArray<A>, AppServerError | Cause.Done>((resume) => {
      this.waiting = () => resume(this.take)
      return Effect.sync(() => {
        this.waiting = undefined
      })
    })
  })

  /** The events, for one run. */
  readonly stream: Stream.Stream<A, AppServerError> = Stream.fromPull(Effect.succeed(this.take))
}
