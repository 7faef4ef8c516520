import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as AppServer from "../../../src/AppServer.ts"
import * as AppServerError from "../../../src/AppServerError.ts"
import * as Codex from "../../../src/Codex.ts"
import type * as Thread from "../../../src/Thread.ts"
import * as Fake from "../../FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

const openThread = Effect.fnUntraced(function*(id: string) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const thread = yield* Effect.forkChild(codex.startThread())
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(id))
  return yield* Fiber.join(thread)
})

const startRun = Effect.fnUntraced(function*(thread: Thread.Thread, turnId: string, options?: Thread.TurnOptions) {
  const fake = yield* Fake.FakeTransport
  const run = yield* Effect.forkChild(Effect.exit(thread.run("go", options)))
  yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(turnId) })
  yield* TestClock.adjust("1 millis")
  return run
})

const ended = (params: unknown) => ({ method: "turn/completed", ...(params === undefined ? {} : { params }) })

const stored = (turnId: string, status = "completed") =>
  Fake.turn(turnId, status, { items: [{ type: "agentMessage", id: "i", text: "stored", phase: "final_answer" }] })

/** Answers each request for stored turns with an error, and each turn/interrupt. */
const knowsNothing = Effect.gen(function*() {
  const fake = yield* Fake.FakeTransport
  const answer = Effect.flatMap(fake.take, ({ id, method }) =>
    fake.emit(
      method === "turn/interrupt" ? { id, result: {} } : { id, error: { code: -32600, message: `no ${method}` } }
    ))
  yield* Effect.forkChild(Effect.forever(answer))
})

const reasonOf = (exit: Exit.Exit<unknown, unknown>) => {
  assert(Exit.isFailure(exit))
  const [failure] = exit.cause.reasons
  assert(failure?._tag === "Fail" && AppServerError.isAppServerError(failure.error))
  return failure.error.reason
}

/** Ends that cannot be told to be of turn u. */
const unreadable: ReadonlyArray<readonly [name: string, params: unknown]> = [
  ["has no turn", { threadId: "t" }],
  ["has null for its turn", { threadId: "t", turn: null }],
  ["has a turn without an id", { threadId: "t", turn: { status: "completed", items: [] } }],
  ["has a turn whose id is no string", { threadId: "t", turn: { ...Fake.turn("u", "completed"), id: 1 } }],
  ["has a turn that was never started", { threadId: "t", turn: Fake.turn("x", "completed") }],
  ["names its turn but has none", { threadId: "t", turnId: "u" }],
  ["names its turn but no thread", { turn: Fake.turn("u", "completed") }],
  ["names nothing", {}],
  ["has no params", undefined]
]

describe("a turn whose end", () => {
  for (const [name, params] of unreadable) {
    it.effect(`${name} has the result that the server has stored`, () =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const run = yield* startRun(yield* openThread("t"), "u")
        yield* fake.emit(Fake.turnStarted("t", "u"), ended(params))
        yield* TestClock.adjust("5 seconds")
        yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [stored("u")] })
        const exit = yield* Fiber.join(run)
        assert(Exit.isSuccess(exit))
        assert.strictEqual(exit.value.finalResponse, "stored")
      }).pipe(Effect.provide(layer)))

    it.effect(`${name} has it also when the end comes with the answer to turn/start, or before that`, () =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const thread = yield* openThread("t")
        for (const isBefore of [false, true]) {
          const run = yield* Effect.forkChild(Effect.exit(thread.run("go")))
          const { id } = yield* fake.takeMethod("turn/start")
          const answer = { id, result: { turn: Fake.turn("u") } }
          const said = [Fake.turnStarted("t", "u"), ended(params)]
          yield* fake.emit(...isBefore ? [...said, answer] : [answer, ...said])
          yield* TestClock.adjust("6 seconds")
          yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [stored("u")] })
          assert.isTrue(Exit.isSuccess(yield* Fiber.join(run)))
        }
      }).pipe(Effect.provide(layer)))

    it.effect(`${name} fails when the server does not know it within the time of a request`, () =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const run = yield* startRun(yield* openThread("t"), "u")
        yield* fake.emit(Fake.turnStarted("t", "u"), ended(params))
        yield* knowsNothing
        yield* TestClock.adjust("55 seconds")
        assert.isUndefined(run.pollUnsafe())
        yield* TestClock.adjust("5 seconds")
        const reason = reasonOf(yield* Fiber.join(run))
        assert(reason._tag === "DecodeFailed")
        assert.strictEqual(reason.method, "turn/completed")
        for (const part of ["turn `u`", "thread `t`", "turn/completed"]) assert.include(reason.issue, part)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(fake.sent.find(({ method }) => method === "turn/interrupt")?.params, {
          threadId: "t",
          turnId: "u"
        })
      }).pipe(Effect.provide(layer)))
  }

  it.effect("cannot be read fails its events and text too, also when the server does not answer at all", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const events = yield* Effect.forkChild(Effect.exit(Stream.runDrain(thread.stream("go"))))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* TestClock.adjust("1 millis")
      yield* fake.emit(ended({ threadId: "t" }))
      yield* TestClock.adjust("62 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.join(events))._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer)))

  it.effect("cannot be read is asked for ever later while the server says that the turn runs", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const run = yield* startRun(yield* openThread("t"), "u")
      yield* fake.emit(ended({ threadId: "t" }))
      yield* TestClock.adjust("5 seconds")
      for (let i = 0; i < 10; i++) {
        yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [stored("u", "inProgress")] })
        yield* TestClock.adjust(`${Math.min(2 ** i, 60)} seconds`)
      }
      yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [stored("u")] })
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(run)))
    }).pipe(Effect.provide(layer)))

  it.effect("cannot be read ends no turn of another thread, and none that is started afterwards", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const other = yield* startRun(yield* openThread("other"), "v")
      const thread = yield* openThread("t")
      const run = yield* startRun(thread, "u")
      yield* fake.emit(ended({ threadId: "t", turn: Fake.turn("before", "completed") }), Fake.turnStarted("t", "u"))
      yield* knowsNothing
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(run.pollUnsafe())
      assert.isUndefined(other.pollUnsafe())
      assert.isFalse(fake.sent.some(({ method }) => method === "thread/turns/list"))
      yield* fake.emit(Fake.turnCompleted("t", "u"), Fake.turnCompleted("other", "v"))
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(run)))
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(other)))
    }).pipe(Effect.provide(layer)))

  it.effect("is that of the turn before ends none that is started at that time", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const first = yield* startRun(thread, "a")
      const second = yield* Effect.forkChild(Effect.exit(thread.run("go")))
      const { id } = yield* fake.takeMethod("turn/start")
      yield* fake.emit(
        Fake.turnCompleted("t", "a"),
        Fake.turnStarted("t", "b"),
        { id, result: { turn: Fake.turn("b") } }
      )
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(first)))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(second.pollUnsafe())
      assert.isFalse(fake.sent.some(({ method }) => method === "thread/turns/list"))
      yield* fake.emit(Fake.turnCompleted("t", "b"))
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(second)))
    }).pipe(Effect.provide(layer)))

  it.effect("is only told under the id of the turn that it has joined does not hang", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const first = yield* startRun(thread, "a")
      const second = yield* startRun(thread, "b")
      yield* knowsNothing
      yield* fake.emit(Fake.turnCompleted("t", "a"))
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(first)))
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.join(second))._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer)))

  it.effect("cannot be read times out when it is silent for as long as its idle timeout", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const run = yield* startRun(yield* openThread("t"), "u", { idleTimeout: "20 seconds" })
      yield* fake.emit(ended({ threadId: "t" }))
      yield* knowsNothing
      yield* TestClock.adjust("25 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.join(run))._tag, "TurnTimeout")
    }).pipe(Effect.provide(layer)))

  it.effect("is left out is still found when one of two calls that share the turn is gone", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const status = (status: object) => ({ method: "thread/status/changed", params: { threadId: "t", status } })
      yield* fake.emit(status({ type: "active", activeFlags: [] }))
      const first = yield* startRun(thread, "u")
      const second = yield* startRun(thread, "u")
      yield* Fiber.interrupt(second)
      yield* fake.emit(status({ type: "active", activeFlags: [] }), status({ type: "idle" }))
      yield* TestClock.adjust("5 seconds")
      yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [stored("u")] })
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(first)))
    }).pipe(Effect.provide(layer)))

  it.effect("names no turn fails a compaction that waits for it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const compact = yield* Effect.forkChild(Effect.exit(thread.compact))
      yield* fake.reply(yield* fake.takeMethod("thread/compact/start"), {})
      yield* TestClock.adjust("1 millis")
      yield* fake.emit(ended({ threadId: "t" }))
      yield* TestClock.adjust("60 seconds")
      const reason = reasonOf(yield* Fiber.join(compact))
      assert(reason._tag === "DecodeFailed")
      assert.include(reason.issue, "a compaction of thread `t`")
    }).pipe(Effect.provide(layer)))
})

it.effect("a turn that ends just after its thread is idle is not looked up", () =>
  Effect.gen(function*() {
    const fake = yield* Fake.FakeTransport
    const status = (status: object) => ({ method: "thread/status/changed", params: { threadId: "t", status } })
    const run = yield* startRun(yield* openThread("t"), "u")
    yield* fake.emit(status({ type: "active", activeFlags: [] }), Fake.turnStarted("t", "u"), status({ type: "idle" }))
    yield* TestClock.adjust("1 millis")
    yield* fake.emit(Fake.turnCompleted("t", "u"))
    assert.isTrue(Exit.isSuccess(yield* Fiber.join(run)))
    yield* TestClock.adjust("1 hour")
    assert.isFalse(fake.sent.some(({ method }) => method === "thread/turns/list"))
  }).pipe(Effect.provide(layer)))

describe("with a shorter time for requests", () => {
  it.effect("a turn whose end names no turn fails sooner", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const run = yield* startRun(yield* openThread("t"), "u")
      yield* fake.emit(ended({ threadId: "t" }))
      yield* knowsNothing
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(reasonOf(yield* Fiber.join(run))._tag, "DecodeFailed")
    }).pipe(
      Effect.provide(
        Codex.layer.pipe(
          Layer.provideMerge(AppServer.layer({ requestTimeout: "2 seconds" })),
          Layer.provideMerge(Fake.layer)
        )
      )
    ))
})
