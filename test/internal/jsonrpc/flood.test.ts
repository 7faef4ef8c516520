import { assert, describe, it } from "@effect/vitest"
import { AppServer } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Fake from "../../FakeTransport.ts"
import { emit, layer, openThread, respond } from "../../scenario.ts"

/** Starts a turn on a new thread. */
const openTurn = Effect.fnUntraced(function*(threadId: string) {
  const thread = yield* openThread(threadId)
  const starting = yield* Effect.forkChild(thread.turn("go"))
  yield* respond("turn/start", { turn: Fake.turn(`turn-${threadId}`) })
  return yield* Fiber.join(starting)
})

/** Sends batches of interleaved deltas. Each batch has the lines of a full read of a pipe. */
const flood = Effect.fnUntraced(function*(threadIds: ReadonlyArray<string>, batches: number) {
  const fake = yield* Fake.FakeTransport
  const lines = Array.from({ length: 268 }, (_, i) => {
    const threadId = threadIds[i % threadIds.length]!
    return JSON.stringify(Fake.delta(threadId, `turn-${threadId}`, "i", "text"))
  })
  for (let batch = 0; batch < batches; batch++) {
    yield* fake.emitLines(...lines)
    yield* Effect.yieldNow
  }
  yield* emit(...threadIds.map((threadId) => Fake.turnCompleted(threadId, `turn-${threadId}`)))
})

describe("Flood", () => {
  it.live("delivers each delta separately to a subscriber that reads one event at a time", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn("t")
      let deltas = 0
      const subscriber = yield* Effect.forkChild(
        Stream.runForEach(turn.events, ({ method }) =>
          Effect.sync(() => {
            if (method === "item/agentMessage/delta") deltas++
          }))
      )
      yield* Effect.yieldNow
      yield* flood(["t"], 200)
      yield* Fiber.join(subscriber)
      assert.strictEqual(deltas, 200 * 268)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.live("delivers all events of its turn to each of many subscribers", () =>
    Effect.gen(function*() {
      const threadIds = Array.from({ length: 67 }, (_, i) => `t${i}`)
      const turns = yield* Effect.forEach(threadIds, openTurn)
      const subscribers = yield* Effect.forEach(turns, (turn) => Effect.forkChild(Stream.runCollect(turn.events)))
      yield* Effect.yieldNow
      yield* flood(threadIds, 100)
      for (const [i, turn] of turns.entries()) {
        const events = yield* Fiber.join(subscribers[i]!)
        assert.strictEqual(events.filter(({ method }) => method === "item/agentMessage/delta").length, 400)
        assert.strictEqual((yield* turn.result).status, "completed")
      }
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.live("does not delay the response to a request", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      yield* openTurn("t")
      const flooding = yield* Effect.forkChild(flood(["t"], 2000))
      const requesting = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* respond("thread/loaded/list", { data: ["t"] })
      assert.deepStrictEqual((yield* Fiber.join(requesting)).data, ["t"])
      assert.isUndefined(flooding.pollUnsafe())
      yield* Fiber.join(flooding)
    }).pipe(Effect.scoped, Effect.provide(layer())))
})
