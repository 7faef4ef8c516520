import { assert, describe, it } from "@effect/vitest"
import { Approvals, AppServer, Codex, type Thread, type Turn } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Fake from "../FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

/** The heap after everything that nobody holds was collected, in MB. */
const heap = Effect.gen(function*() {
  for (let i = 0; i < 4; i++) {
    yield* Effect.sleep("20 millis")
    globalThis.gc!()
  }
  return process.memoryUsage().heapUsed / 1e6
})

/** How much more is held after an effect than before it, in MB. */
const growth = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = yield* heap
    yield* effect
    return (yield* heap) - before
  })

const openThread = Effect.fnUntraced(function*(id: string, options?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const opening = yield* Effect.forkChild(codex.startThread(options))
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(id))
  return yield* Fiber.join(opening)
})

const startTurn = Effect.fnUntraced(function*(thread: Thread.Thread, turnId: string) {
  const fake = yield* Fake.FakeTransport
  const starting = yield* Effect.forkChild(thread.turn("go"))
  yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(turnId) })
  return yield* Fiber.join(starting)
})

/** A million deltas of eight characters, or fewer, in batches as a pipe brings them. */
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
      const grown = yield* growth(Effect.scoped(Effect.gen(function*() {
        const turn = yield* startTurn(thread, "u")
        yield* flood("t", "u")
        yield* turn.result
      })))
      console.log(`a million deltas, nobody reads: ${grown.toFixed(1)} MB`)
      assert.isBelow(grown, 5)
    }).pipe(Effect.provide(layer)))

  it.live("grows at most by the text while one subscriber of a hundred is stuck", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* Effect.scoped(Effect.gen(function*() {
        const turn = yield* startTurn(thread, "u")
        const readers = yield* Effect.forEach(
          Array.from({ length: 99 }),
          () => Effect.forkChild(Stream.runDrain(turn.events))
        )
        yield* Effect.forkScoped(Stream.runForEach(turn.events, () => Effect.never))
        yield* Effect.yieldNow
        const grown = yield* growth(flood("t", "u", 250))
        for (const reader of readers) yield* Fiber.join(reader)
        console.log(`250,000 deltas of 2 MB of text, one reader of a hundred stuck: ${grown.toFixed(1)} MB`)
        assert.isBelow(grown, 10)
      }))
    }).pipe(Effect.provide(layer)))

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
        for (let i = from; i < to; i++) yield* turn(`u${i}`) // What the fake remembers is its own.
        ;(fake.sent as Array<unknown>).length = 0
      })
      yield* turns(0, 2000)
      const grown = yield* growth(turns(2000, 24_000))
      const left = handles.filter((handle) => handle.deref() !== undefined).length
      console.log(`22,000 turns: ${grown.toFixed(1)} MB, ${left} of ${handles.length} handles left`)
      assert.isBelow(grown, 3)
      assert.isBelow(left, 3)
    }).pipe(Effect.provide(layer)))

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
        ;(fake.sent as Array<unknown>).length = 0
      })
      yield* threads(0, 500)
      const grown = yield* growth(threads(500, 2500))
      const left = handles.filter((handle) => handle.deref() !== undefined).length
      console.log(`2,000 threads: ${grown.toFixed(1)} MB, ${left} of ${handles.length} handles left`)
      assert.isBelow(grown, 3)
      assert.isBelow(left, 3)
    }).pipe(Effect.provide(layer)))

  it.live("does not grow by streams and requests that were interrupted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const fake = yield* Fake.FakeTransport
      const giveUp = Effect.fnUntraced(function*(times: number) {
        for (let i = 0; i < times; i++) {
          const stream = yield* Effect.forkChild(Stream.runDrain(server.notifications))
          const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
          yield* fake.take
          yield* Fiber.interrupt(stream)
          yield* Fiber.interrupt(request)
        }
        ;(fake.sent as Array<unknown>).length = 0
      })
      yield* giveUp(500)
      const grown = yield* growth(giveUp(10_000))
      console.log(`10,000 streams and requests given up: ${grown.toFixed(1)} MB`)
      assert.isBelow(grown, 3)
    }).pipe(Effect.provide(layer)))
})
