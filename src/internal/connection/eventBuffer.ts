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
import { EventLog } from "./eventLog.ts"
import type { Step } from "./jsonRpcPeer.ts"

export class EventBuffer<A extends Protocol.ServerNotification> {
  private readonly unread: EventLog<A>
  private end: Exit.Exit<never, AppServerError | Cause.Done> | undefined
  private waiting: (() => void) | undefined

  constructor(initial?: Array<A>) {
    this.unread = new EventLog(initial)
  }

  offer(event: A, step: Step): void {
    if (this.end !== undefined) return
    this.unread.push(event)
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
    if (!this.unread.isEmpty) {
      return Effect.succeed(this.unread.take() as unknown as Arr.NonEmptyReadonlyArray<A>)
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
