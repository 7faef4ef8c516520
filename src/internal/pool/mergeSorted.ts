/** Merges streams that are each sorted. */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Order from "effect/Order"
import * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"

/** The first element of a stream that is not emitted yet, and the rest. */
interface Head<A, E> {
  readonly value: A
  readonly rest: ReadonlyArray<A>
  readonly pull: Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E>
}

const pullHead = <A, E>(pull: Head<A, E>["pull"]): Effect.Effect<ReadonlyArray<Head<A, E>>, E> =>
  pull.pipe(
    Effect.map(([value, ...rest]) => [{ value, rest, pull }]),
    Pull.catchDone(() => Effect.succeed([]))
  )

/** Merges streams that are each sorted by an order. Pulls the next chunk of a stream when its last one is emitted. */
export const mergeSorted = <A, E>(
  streams: ReadonlyArray<Stream.Stream<A, E>>,
  order: Order.Order<A>
): Stream.Stream<A, E> =>
  Stream.unwrap(Effect.gen(function*() {
    const pulls = yield* Effect.forEach(streams, (stream) => Stream.toPull(stream))
    const heads = yield* Effect.forEach(pulls, pullHead, { concurrency: "unbounded" })
    return Stream.unfold(heads.flat(), (heads: ReadonlyArray<Head<A, E>>) => {
      if (!Arr.isReadonlyArrayNonEmpty(heads)) return Effect.undefined
      const first = Arr.min(heads, Order.mapInput(order, ({ value }: Head<A, E>) => value))
      const others = heads.filter((head) => head !== first)
      const [value, ...rest] = first.rest
      const following = value === undefined ? pullHead(first.pull) : Effect.succeed([{ value, rest, pull: first.pull }])
      return Effect.map(following, (following) => [first.value, [...others, ...following]] as const)
    })
  }))
