/** What synchronous code brings to the one fiber that reads it. Who brings never waits; the fiber takes all there is at once. */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"

type Batch<A> = Arr.NonEmptyReadonlyArray<A>

export class SyncQueue<A, E = never> {
  private readonly flush: () => ReadonlyArray<A>
  private ended: Exit.Exit<never, E | Cause.Done> | undefined
  private taker: ((next: Pull.Pull<Batch<A>, E>) => void) | undefined

  /** `takeAll` takes what was brought, wherever that is kept. */
  constructor(takeAll: () => ReadonlyArray<A>) {
    this.flush = takeAll
  }

  /** Whether the fiber waits for something to be brought. */
  get hasTaker(): boolean {
    return this.taker !== undefined
  }

  get isEnded(): boolean {
    return this.ended !== undefined
  }

  /** Nothing follows. The fiber sees it after all that was brought. */
  end(error?: E): void {
    this.ended ??= Exit.fail(error === undefined ? Cause.Done() : error)
  }

  /** Has the fiber go on, here and now. */
  readonly notify = (): void => {
    const { taker } = this
    this.taker = undefined
    taker?.(this.next())
  }

  private next(): Pull.Pull<Batch<A>, E> {
    const all = this.flush()
    return all.length > 0 ? Effect.succeed(all as Batch<A>) : this.ended ?? this.wait
  }

  private readonly wait: Pull.Pull<Batch<A>, E> = Effect.callback((resume) => {
    this.taker = resume
    return this.stopWaiting
  })

  private readonly stopWaiting = Effect.sync(() => {
    this.taker = undefined
  })

  /** What is brought, for one run. */
  readonly stream: Stream.Stream<A, E> = Stream.fromPull(Effect.succeed(Effect.suspend(() => this.next())))
}
