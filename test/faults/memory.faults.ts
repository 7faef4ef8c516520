import { assert, describe, it } from "@effect/vitest"
import { Approvals, AppServer, type Thread, type Turn } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Fake from "../FakeTransport.ts"
import { layer, openThread } from "../scenario.ts"

const fakeLayer = layer()

/** Collects garbage, and returns the size of the heap in MB. */
const collectGarbage = Effect.gen(function*() {
  for (let i = 0; i < 4; i++) {
    // A collection clears weak references only between tasks of the event loop.
    yield* Effect.sleep("20 millis")
    globalThis.gc!()
  }
  return process.memoryUsage().heapUsed / 1e6
})

/** Runs an effect, and returns the growth of the heap in MB. */
const measureGrowth = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = yield* collectGarbage
    yield* effect
    return (yield* collectGarbage) - before
  })

const startTurn = Effect.fnUntraced(function*(thread: Thread.Thread, turnId: string) {
  const fake = yield* Fake.FakeTransport
  const starting = yield* Effect.forkChild(thread.turn("go"))
  yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(turnId) })
  return yield* Fiber.join(starting)
})

/** Removes the messages that the fake keeps, which are not memory of the client. */
const clearSent = ({ sent }: { readonly sent: ReadonlyArray<Fake.Message> }) => {
  ;(sent as Array<unknown>).length = 0
}

/** Sends batches of a thousand deltas of eight characters, and ends the turn. */
const flood = Effect.fnUntraced(function*(threadId: string, turnId: string, batches = 1000) {
  const fake = yield* Fake.FakeTransport
  const lines = Array.from({ length: 1000 }, () => JSON.stringify(Fake.delta(threadId, turnId, "i", "12345678")))
  for (let batch = 0; batch < batches; batch++) {
    yield* fake.emitLines(...lines)
    yield* Effect.yieldNow
  }
  yield* fake.emit(Fake.turnCompleted(threadId, turnId))
})

describe("Memory", () => {
  it.live("does not grow by a million deltas without a subscriber", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const grown = yield* measureGrowth(Effect.scoped(Effect.gen(function*() {
        const turn = yield* startTurn(thread, "u")
        yield* flood("t", "u")
        yield* turn.result
      })))
      console.log(`a million deltas without a subscriber: ${grown.toFixed(1)} MB`)
      assert.isBelow(grown, 5)
    }).pipe(Effect.provide(fakeLayer)))

  it.live("grows at most by the text while one subscriber of a hundred is stuck", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* Effect.scoped(Effect.gen(function*() {
        const turn = yield* startTurn(thread, "u")
        const subscribers = yield* Effect.forEach(
          Array.from({ length: 99 }),
          () => Effect.forkChild(Stream.runDrain(turn.events))
        )
        yield* Effect.forkScoped(Stream.runForEach(turn.events, () => Effect.never))
        yield* Effect.yieldNow
        const grown = yield* measureGrowth(flood("t", "u", 250))
        for (const subscriber of subscribers) yield* Fiber.join(subscriber)
        console.log(`250,000 deltas of 2 MB of text, one subscriber of a hundred stuck: ${grown.toFixed(1)} MB`)
        assert.isBelow(grown, 10)
      }))
    }).pipe(Effect.provide(fakeLayer)))

  it.live("does not grow by 24,000 turns with handlers of their own, and keeps no handle", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t", { approvals: { command: () => Effect.succeed(Approvals.accept) } })
      const handles: Array<WeakRef<object>> = []
      const turn = Effect.fnUntraced(function*(id: string) {
        const run = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
          const turn: Turn.Turn = yield* thread.turn("go", {
            approvals: { command: () => Effect.succeed(Approvals.decline) },
            idleTimeout: "1 hour"
          })
          if (id.endsWith("7")) handles.push(new WeakRef(turn))
          return yield* turn.result
        })))
        yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(id) })
        yield* fake.emit(
          Fake.turnStarted("t", id),
          Fake.delta("t", id, "i", "text"),
          Fake.messageCompleted("t", id, "i", "text"),
          Fake.turnCompleted("t", id)
        )
        assert.strictEqual((yield* Fiber.join(run)).finalResponse, "text")
      })
      const turns = Effect.fnUntraced(function*(from: number, to: number) {
        for (let i = from; i < to; i++) yield* turn(`u${i}`)
        clearSent(fake)
      })
      yield* turns(0, 2000)
      const grown = yield* measureGrowth(turns(2000, 24_000))
      const left = handles.filter((handle) => handle.deref() !== undefined).length
      console.log(`22,000 turns: ${grown.toFixed(1)} MB, ${left} of ${handles.length} handles left`)
      assert.isBelow(grown, 3)
      assert.isBelow(left, 3)
    }).pipe(Effect.provide(fakeLayer)))

  it.live("does not grow by 2,000 threads that were opened and dropped, and keeps no handle", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handles: Array<WeakRef<object>> = []
      const threads = Effect.fnUntraced(function*(from: number, to: number) {
        for (let i = from; i < to; i++) {
          const thread = yield* openThread(`thread-${i}`)
          handles.push(new WeakRef(thread))
          yield* Effect.scoped(
            startTurn(thread, `u${i}`).pipe(
              Effect.tap(() => fake.emit(Fake.turnCompleted(`thread-${i}`, `u${i}`))),
              Effect.flatMap((turn) => turn.result)
            )
          )
        }
        clearSent(fake)
      })
      yield* threads(0, 500)
      const grown = yield* measureGrowth(threads(500, 2500))
      const left = handles.filter((handle) => handle.deref() !== undefined).length
      console.log(`2,000 threads: ${grown.toFixed(1)} MB, ${left} of ${handles.length} handles left`)
      assert.isBelow(grown, 3)
      assert.isBelow(left, 3)
    }).pipe(Effect.provide(fakeLayer)))

  it.live("does not grow by streams and requests that were interrupted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const fake = yield* Fake.FakeTransport
      const interruptAll = Effect.fnUntraced(function*(times: number) {
        for (let i = 0; i < times; i++) {
          const stream = yield* Effect.forkChild(Stream.runDrain(server.notifications))
          const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
          yield* fake.take
          yield* Fiber.interrupt(stream)
          yield* Fiber.interrupt(request)
        }
        clearSent(fake)
      })
      yield* interruptAll(500)
      const grown = yield* measureGrowth(interruptAll(10_000))
      console.log(`10,000 interrupted streams and requests: ${grown.toFixed(1)} MB`)
      assert.isBelow(grown, 3)
    }).pipe(Effect.provide(fakeLayer)))
})
