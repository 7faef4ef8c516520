/** What synchronous code brings to the one fiber that reads it. Who brings never waits; the fiber takes all there is at once. */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"

type Batch<A> = Arr.NonEmptyReadonlyArray<A>

export class Handoff<A, E = never> {
  private readonly takeAll: () => ReadonlyArray<A>
  private ended: Exit.Exit<never, E | Cause.Done> | undefined
  private waiting: ((next: Pull.Pull<Batch<A>, E>) => void) | undefined

  /** `takeAll` takes what was brought, wherever that is kept. */
  constructor(takeAll: () => ReadonlyArray<A>) {
    this.takeAll = takeAll
  }

  /** Whether the fiber waits for something to be brought. */
  get isAwaited(): boolean {
    return this.waiting !== undefined
  }

  get isEnded(): boolean {
    return this.ended !== undefined
  }

  /** Nothing follows. The fiber sees it after all that was brought. */
  end(error?: E): void {
    this.ended ??= Exit.fail(error === undefined ? Cause.Done() : error)
  }

  /** Has the fiber go on, here and now. */
  readonly wake = (): void => {
    const { waiting } = this
    this.waiting = undefined
    waiting?.(this.next())
  }

  private next(): Pull.Pull<Batch<A>, E> {
    const all = this.takeAll()
    return all.length > 0 ? Effect.succeed(all as Batch<A>) : this.ended ?? this.wait
  }

  private readonly wait: Pull.Pull<Batch<A>, E> = Effect.callback((resume) => {
    this.waiting = resume
    return this.stopWaiting
  })

  private readonly stopWaiting = Effect.sync(() => {
    this.waiting = undefined
  })

  /** What is brought, for one run. */
  readonly stream: Stream.Stream<A, E> = Stream.fromPull(Effect.succeed(Effect.suspend(() => this.next())))
}
