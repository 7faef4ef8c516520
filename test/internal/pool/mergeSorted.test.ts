import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Order from "effect/Order"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { mergeSorted } from "../../../src/internal/pool/mergeSorted.ts"

const Lists = Schema.Array(Schema.Array(Schema.Int))

describe("mergeSorted", () => {
  it.effect.prop("emits the elements of all streams in order", { lists: Lists }, ({ lists }) =>
    Effect.gen(function*() {
      const streams = lists.map((list) => Stream.fromIterable(list.toSorted((a, b) => a - b)).pipe(Stream.rechunk(3)))
      const merged = yield* Stream.runCollect(mergeSorted(streams, Order.Number))
      assert.deepStrictEqual(merged, lists.flat().toSorted((a, b) => a - b))
    }))

  it.effect("pulls only what it emits, and fails with the failure of a stream", () =>
    Effect.gen(function*() {
      const pulled: Array<number> = []
      const stream = (start: number) =>
        Stream.iterate(start, (n) => n + 2).pipe(
          Stream.rechunk(1),
          Stream.tap((n) => Effect.sync(() => pulled.push(n)))
        )
      const merged = mergeSorted([stream(0), stream(1)], Order.Number)
      assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(merged, 4)), [0, 1, 2, 3])
      assert.isAtMost(pulled.length, 6)
      const failing = mergeSorted([stream(0), Stream.concat(Stream.make(1), Stream.fail("gone"))], Order.Number)
      assert.strictEqual(yield* Effect.flip(Stream.runDrain(failing)), "gone")
    }))
})
