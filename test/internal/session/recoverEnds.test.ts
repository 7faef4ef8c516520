import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Fake from "../../FakeTransport.ts"
import { emit, expectReason, getSent, layer, openThread, receive, respond, settle, startTurn } from "../../scenario.ts"

const turnCompleted = (params: unknown) => ({ method: "turn/completed", ...(params === undefined ? {} : { params }) })

const statusChanged = (status: object) => ({ method: "thread/status/changed", params: { threadId: "t", status } })

const active = statusChanged({ type: "active", activeFlags: [] })

const idle = statusChanged({ type: "idle" })

const stored = (turnId: string, status = "completed") =>
  Fake.turn(turnId, status, { items: [{ type: "agentMessage", id: "i", text: "stored", phase: "final_answer" }] })

/** A server that rejects each request for stored turns, and responds to each `turn/interrupt`. */
const rejectAll = Effect.gen(function*() {
  const fake = yield* Fake.FakeTransport
  const respondToNext = Effect.flatMap(
    fake.take,
    ({ id, method }) =>
      emit(method === "turn/interrupt" ? { id, result: {} } : { id, error: { code: -32600, message: `no ${method}` } })
  )
  yield* Effect.forkChild(Effect.forever(respondToNext))
})

/** Params of `turn/completed` that do not name turn `u` of thread `t`. */
const unknownEnds: ReadonlyArray<readonly [name: string, params: unknown]> = [
  ["has no turn", { threadId: "t" }],
  ["has null as its turn", { threadId: "t", turn: null }],
  ["has a turn without an id", { threadId: "t", turn: { status: "completed", items: [] } }],
  ["has a turn whose id is not a string", { threadId: "t", turn: { ...Fake.turn("u", "completed"), id: 1 } }],
  ["has a turn that never started", { threadId: "t", turn: Fake.turn("x", "completed") }],
  ["has a turn id but no turn", { threadId: "t", turnId: "u" }],
  ["has a turn but no thread", { turn: Fake.turn("u", "completed") }],
  ["is empty", {}],
  ["has no params", undefined]
]

describe("Turn", () => {
  for (const [name, params] of unknownEnds) {
    it.effect(`has the stored result when turn/completed ${name}`, () =>
      Effect.gen(function*() {
        const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
        yield* emit(Fake.turnStarted("t", "u"), turnCompleted(params))
        yield* TestClock.adjust("5 seconds")
        yield* respond("thread/turns/list", { data: [stored("u")] })
        assert.strictEqual((yield* Fiber.join(run)).finalResponse, "stored")
      }).pipe(Effect.provide(layer())))

    it.effect(`has the stored result when turn/completed ${name} and arrives with the response to turn/start`, () =>
      Effect.gen(function*() {
        const thread = yield* openThread("t")
        for (const isBefore of [false, true]) {
          const run = yield* Effect.forkChild(thread.run("go"))
          const { id } = yield* receive("turn/start")
          const response = { id, result: { turn: Fake.turn("u") } }
          const events = [Fake.turnStarted("t", "u"), turnCompleted(params)]
          yield* emit(...isBefore ? [...events, response] : [response, ...events])
          yield* TestClock.adjust("6 seconds")
          yield* respond("thread/turns/list", { data: [stored("u")] })
          assert.strictEqual((yield* Fiber.join(run)).finalResponse, "stored")
        }
      }).pipe(Effect.provide(layer())))

    it.effect(`fails within the request timeout when turn/completed ${name} and no result is stored`, () =>
      Effect.gen(function*() {
        const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
        yield* emit(Fake.turnStarted("t", "u"), turnCompleted(params))
        yield* rejectAll
        yield* TestClock.adjust("55 seconds")
        assert.isUndefined(run.pollUnsafe())
        yield* TestClock.adjust("5 seconds")
        const reason = yield* expectReason(Fiber.join(run))
        assert(reason._tag === "DecodeFailed")
        assert.strictEqual(reason.method, "turn/completed")
        for (const part of ["turn `u`", "thread `t`", "turn/completed"]) assert.include(reason.issue, part)
        yield* TestClock.adjust("1 second")
        const [interrupt] = yield* getSent("turn/interrupt")
        assert.deepStrictEqual(interrupt?.params, { threadId: "t", turnId: "u" })
      }).pipe(Effect.provide(layer())))
  }

  it.effect("fails its events when its end is unknown and the server does not respond", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const events = yield* startTurn(expectReason(Stream.runDrain(thread.stream("go"))), "u")
      yield* emit(turnCompleted({ threadId: "t" }))
      yield* TestClock.adjust("62 seconds")
      assert.strictEqual((yield* Fiber.join(events))._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer())))

  it.effect("polls with growing intervals for its end while the server reports it as running", () =>
    Effect.gen(function*() {
      const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
      yield* emit(turnCompleted({ threadId: "t" }))
      yield* TestClock.adjust("5 seconds")
      for (let i = 0; i < 10; i++) {
        yield* respond("thread/turns/list", { data: [stored("u", "inProgress")] })
        yield* TestClock.adjust(`${Math.min(2 ** i, 60)} seconds`)
      }
      yield* respond("thread/turns/list", { data: [stored("u")] })
      assert.strictEqual((yield* Fiber.join(run)).finalResponse, "stored")
    }).pipe(Effect.provide(layer())))

  it.effect("is not affected by the unknown end of an earlier turn or of another thread", () =>
    Effect.gen(function*() {
      const other = yield* startTurn((yield* openThread("other")).run("go"), "v")
      const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
      yield* emit(turnCompleted({ threadId: "t", turn: Fake.turn("before", "completed") }), Fake.turnStarted("t", "u"))
      yield* rejectAll
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(run.pollUnsafe())
      assert.isUndefined(other.pollUnsafe())
      assert.isEmpty(yield* getSent("thread/turns/list"))
      yield* emit(Fake.turnCompleted("t", "u"), Fake.turnCompleted("other", "v"))
      assert.strictEqual((yield* Fiber.join(run)).status, "completed")
      assert.strictEqual((yield* Fiber.join(other)).status, "completed")
    }).pipe(Effect.provide(layer())))

  it.effect("is not affected by the end of the turn before, which arrives while it starts", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const first = yield* startTurn(thread.run("go"), "a")
      const second = yield* Effect.forkChild(thread.run("go"))
      const { id } = yield* receive("turn/start")
      yield* emit(
        Fake.turnCompleted("t", "a"),
        Fake.turnStarted("t", "b"),
        { id, result: { turn: Fake.turn("b") } }
      )
      assert.strictEqual((yield* Fiber.join(first)).status, "completed")
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(second.pollUnsafe())
      assert.isEmpty(yield* getSent("thread/turns/list"))
      yield* emit(Fake.turnCompleted("t", "b"))
      assert.strictEqual((yield* Fiber.join(second)).status, "completed")
    }).pipe(Effect.provide(layer())))

  it.effect("fails when only the turn that it joined ends", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const first = yield* startTurn(thread.run("go"), "a")
      const second = yield* startTurn(thread.run("go"), "b")
      yield* rejectAll
      yield* emit(Fake.turnCompleted("t", "a"))
      assert.strictEqual((yield* Fiber.join(first)).status, "completed")
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual((yield* expectReason(Fiber.join(second)))._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer())))

  it.effect("times out after its idle timeout when its end is unknown", () =>
    Effect.gen(function*() {
      const run = yield* startTurn((yield* openThread("t")).run("go", { idleTimeout: "20 seconds" }), "u")
      yield* emit(turnCompleted({ threadId: "t" }))
      yield* rejectAll
      yield* TestClock.adjust("25 seconds")
      assert.strictEqual((yield* expectReason(Fiber.join(run)))._tag, "TurnTimeout")
    }).pipe(Effect.provide(layer())))

  it.effect("has the stored result after one of two callers that share it was interrupted", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit(active)
      const first = yield* startTurn(thread.run("go"), "u")
      const second = yield* startTurn(thread.run("go"), "u")
      yield* Fiber.interrupt(second)
      yield* emit(active, idle)
      yield* TestClock.adjust("5 seconds")
      yield* respond("thread/turns/list", { data: [stored("u")] })
      assert.strictEqual((yield* Fiber.join(first)).finalResponse, "stored")
    }).pipe(Effect.provide(layer())))

  it.effect("sends no request when it ends just after its thread is idle", () =>
    Effect.gen(function*() {
      const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
      yield* emit(active, Fake.turnStarted("t", "u"), idle)
      yield* TestClock.adjust("1 millis")
      yield* emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* Fiber.join(run)).status, "completed")
      yield* TestClock.adjust("1 hour")
      assert.isEmpty(yield* getSent("thread/turns/list"))
    }).pipe(Effect.provide(layer())))

  it.effect("fails sooner with a shorter request timeout when its end is unknown", () =>
    Effect.gen(function*() {
      const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
      yield* emit(turnCompleted({ threadId: "t" }))
      yield* rejectAll
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* expectReason(Fiber.join(run)))._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer({ requestTimeout: "2 seconds" }))))
})

describe("Thread.compact", () => {
  it.effect("fails when the end of its turn is unknown", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(expectReason(thread.compact))
      yield* respond("thread/compact/start", {})
      yield* settle
      yield* emit(turnCompleted({ threadId: "t" }))
      yield* TestClock.adjust("60 seconds")
      const reason = yield* Fiber.join(compacting)
      assert(reason._tag === "DecodeFailed")
      assert.include(reason.issue, "a compaction of thread `t`")
    }).pipe(Effect.provide(layer())))
})
