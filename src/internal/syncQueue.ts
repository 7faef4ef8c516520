/**
 * A single-consumer queue with synchronous producers. `notify` never blocks, and the consumer drains all buffered elements in one pull. It
 * is simpler and faster than a `Queue`, and resumes the consumer synchronously.
 */
import * as Arr from "effect/Array"
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

  /** `flush` removes and returns the buffered elements, which the producer keeps. */
  constructor(flush: () => ReadonlyArray<A>) {
    this.flush = flush
  }

  /** Whether the consumer waits for elements. */
  get hasTaker(): boolean {
    return this.taker !== undefined
  }

  get isEnded(): boolean {
    return this.ended !== undefined
  }

  /** Ends the queue after the buffered elements. */
  end(error?: E): void {
    this.ended ??= Exit.fail(error === undefined ? Cause.Done() : error)
  }

  /** Resumes the waiting consumer synchronously. */
  readonly notify = (): void => {
    const { taker } = this
    this.taker = undefined
    taker?.(this.next())
  }

  private next(): Pull.Pull<Batch<A>, E> {
    const all = this.flush()
    return Arr.isReadonlyArrayNonEmpty(all) ? Effect.succeed(all) : this.ended ?? this.wait
  }

  private readonly wait: Pull.Pull<Batch<A>, E> = Effect.callback((resume) => {
    this.taker = resume
    return this.stopWaiting
  })

  private readonly stopWaiting = Effect.sync(() => {
    this.taker = undefined
  })

  /** The elements. The stream can be run once. */
  readonly stream: Stream.Stream<A, E> = Stream.fromPull(Effect.succeed(Effect.suspend(() => this.next())))
}
