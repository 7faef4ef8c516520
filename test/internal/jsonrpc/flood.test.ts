import { assert, describe, it } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Fake from "../../FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

/** Starts a turn on a thread of its own. */
const startTurn = Effect.fnUntraced(function*(threadId: string) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const opening = yield* Effect.forkChild(codex.startThread())
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(threadId))
  const thread = yield* Fiber.join(opening)
  const starting = yield* Effect.forkChild(thread.turn("go"))
  yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(`turn-${threadId}`) })
  return yield* Fiber.join(starting)
})

/** Batches of as many lines as a full read of a pipe brings, of turns that take turns. */
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
  yield* fake.emit(...threadIds.map((threadId) => Fake.turnCompleted(threadId, `turn-${threadId}`)))
})

describe("in a flood", () => {
  it.live("a reader that takes one event at a time gets each delta by itself", () =>
    Effect.gen(function*() {
      const turn = yield* startTurn("t")
      let deltas = 0
      const reader = yield* Effect.forkChild(
        Stream.runForEach(turn.events, ({ method }) =>
          Effect.sync(() => {
            if (method === "item/agentMessage/delta") deltas++
          }))
      )
      yield* Effect.yieldNow
      yield* flood(["t"], 200)
      yield* Fiber.join(reader)
      assert.strictEqual(deltas, 200 * 268)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.live("readers of many turns get all that is theirs, and hear of the end at once", () =>
    Effect.gen(function*() {
      const threadIds = Array.from({ length: 67 }, (_, i) => `t${i}`)
      const turns = yield* Effect.forEach(threadIds, startTurn)
      const readers = yield* Effect.forEach(turns, (turn) => Effect.forkChild(Stream.runCollect(turn.events)))
      yield* Effect.yieldNow
      yield* flood(threadIds, 100)
      for (const [i, turn] of turns.entries()) {
        const events = yield* Fiber.join(readers[i]!)
        assert.strictEqual(events.filter(({ method }) => method === "item/agentMessage/delta").length, 400)
        assert.strictEqual((yield* turn.result).status, "completed")
      }
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.live("who asks is answered while it lasts", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const fake = yield* Fake.FakeTransport
      yield* startTurn("t")
      const flooding = yield* Effect.forkChild(flood(["t"], 2000))
      const asking = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* fake.reply(yield* fake.takeMethod("thread/loaded/list"), { data: ["t"] })
      assert.deepStrictEqual((yield* Fiber.join(asking)).data, ["t"])
      assert.isUndefined(flooding.pollUnsafe())
      yield* Fiber.join(flooding)
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
