import { assert, describe, it } from "@effect/vitest"
import { Budget, Usage } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Fake from "./FakeTransport.ts"
import { emit, layer, openThread, startTurn } from "./scenario.ts"

const tokens = (total: number): Usage.Tokens => ({ ...Usage.zero, inputTokens: total, totalTokens: total })

/** The server reports the total of a thread, and its last model request. */
const usage = (threadId: string, turnId: string, total: number, last = total) => ({
  method: "thread/tokenUsage/updated",
  params: { threadId, turnId, tokenUsage: { total: tokens(total), last: tokens(last), modelContextWindow: 1000 } }
})

describe("Budget", () => {
  it.effect("counts a turn whose response precedes the end of the turn before", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const used = yield* Effect.gen(function*() {
        const first = yield* startTurn(thread.run("one"), "u1")
        yield* emit(Fake.turnStarted("t", "u1"), usage("t", "u1", 10))
        // The server accepts the next turn before it reports the end of the last one.
        const second = yield* startTurn(thread.run("two"), "u2")
        yield* emit(Fake.turnCompleted("t", "u1"), Fake.turnStarted("t", "u2"), usage("t", "u2", 30, 20))
        yield* emit(Fake.turnCompleted("t", "u2"))
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        return yield* Budget.used
      }).pipe(Budget.limit({ tokens: 1000 }))
      assert.strictEqual(used.tokens, 30)
      assert.strictEqual(used.turns, 2)
    }).pipe(Effect.provide(layer())))
})
