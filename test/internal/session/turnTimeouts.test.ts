import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as AppServer from "../../../src/AppServer.ts"
import * as Codex from "../../../src/Codex.ts"
import type * as Thread from "../../../src/Thread.ts"
import * as Turn from "../../../src/Turn.ts"
import * as Fake from "../../FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

const startTurn = Effect.fnUntraced(function*(options?: Thread.TurnOptions, thread?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const opening = yield* Effect.forkChild(codex.startThread(thread))
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t"))
  const starting = yield* Effect.forkChild((yield* Fiber.join(opening)).turn("go", options))
  yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
  const turn = yield* Fiber.join(starting)
  yield* fake.emit(Fake.turnStarted("t", "u"))
  yield* Stream.runHead(turn.events)
  return { fake, turn }
})

/** What a server does that is asked to interrupt. */
const interrupted = Effect.fnUntraced(function*(fake: Fake.FakeTransport["Service"]) {
  yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
  yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
})

const reasonOf = <A, E extends object>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) => "reason" in error ? error.reason : undefined)

describe("a turn with a deadline", () => {
  it.effect("is interrupted when it has not ended by then, and fails with what is needed to go on", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn({ deadline: "1 minute" })
      const events = yield* Effect.forkChild(Effect.flip(Stream.runDrain(turn.events)))
      yield* TestClock.adjust("30 seconds")
      yield* fake.emit(Fake.delta("t", "u", "i", "still here"))
      yield* TestClock.adjust("30 seconds")
      yield* interrupted(fake)
      const expected = {
        _tag: "TurnTimeout",
        threadId: "t",
        turnId: "u",
        kind: "deadline",
        timeoutMillis: 60_000
      } as const
      assert.deepInclude(yield* reasonOf(turn.result), expected)
      assert.deepInclude((yield* Fiber.join(events)).reason, expected)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("that ends in time, or just while it is being interrupted, has its result", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn({ deadline: "1 minute" })
      yield* TestClock.adjust("1 minute")
      yield* fake.takeMethod("turn/interrupt")
      yield* fake.emit(Fake.messageCompleted("t", "u", "i", "just in time"), Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* turn.result).finalResponse, "just in time")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("fails also when the server does not end it", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn()
      yield* Turn.withDeadline(turn, "1 second")
      yield* TestClock.adjust("1 second")
      yield* fake.takeMethod("turn/interrupt")
      yield* TestClock.adjust("5 seconds")
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "deadline", timeoutMillis: 1000 })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("ends by then also when the server does not answer turn/start, and is interrupted if that starts it later", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const opening = yield* Effect.forkChild(codex.startThread())
      yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t"))
      const thread = yield* Fiber.join(opening)
      for (
        const [options, kind] of [[{ deadline: "1 second" }, "deadline"], [
          { idleTimeout: "1 second" },
          "idle"
        ]] as const
      ) {
        const running = yield* Effect.forkChild(reasonOf(thread.run("go", options)))
        const start = yield* fake.takeMethod("turn/start")
        yield* TestClock.adjust("1 second")
        const expected = { _tag: "TurnTimeout", threadId: "t", turnId: "", kind, timeoutMillis: 1000 }
        assert.deepInclude(yield* Fiber.join(running), expected)
        yield* fake.emit(Fake.turnStarted("t", "u"))
        yield* fake.reply(start, { turn: Fake.turn("u") })
        yield* interrupted(fake)
      }
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("has it from the moment it is asked for, not from when it was started", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const opening = yield* Effect.forkChild(codex.startThread())
      yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t"))
      const running = yield* Effect.forkChild(
        reasonOf((yield* Fiber.join(opening)).run("go", { deadline: "10 seconds" }))
      )
      const start = yield* fake.takeMethod("turn/start")
      yield* TestClock.adjust("9 seconds")
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      yield* TestClock.adjust("1 second")
      yield* interrupted(fake)
      assert.deepInclude(yield* Fiber.join(running), { _tag: "TurnTimeout", turnId: "u", timeoutMillis: 10_000 })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("that the program interrupts itself is a result", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn({ deadline: "1 minute" })
      const interrupt = yield* Effect.forkChild(turn.interrupt)
      yield* interrupted(fake)
      yield* Fiber.join(interrupt)
      assert.strictEqual((yield* turn.result).status, "interrupted")
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

describe("a turn with an idle timeout", () => {
  it.effect("is interrupted when nothing is heard for so long, and not before", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn({ idleTimeout: "10 seconds" })
      for (let i = 0; i < 10; i++) {
        yield* TestClock.adjust("9 seconds")
        yield* fake.emit(Fake.delta("t", "u", "i", "more"), Fake.delta("other", "v", "j", "not about it"))
        yield* Effect.yieldNow
      }
      yield* TestClock.adjust("9 seconds")
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
      yield* TestClock.adjust("1 second")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle", timeoutMillis: 10_000 })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("is not silent while a person makes up their mind", () =>
    Effect.gen(function*() {
      const answer = yield* Deferred.make<"accept">()
      const { fake, turn } = yield* startTurn({ idleTimeout: "10 seconds" }, {
        approvals: { command: () => Deferred.await(answer) }
      })
      yield* fake.emit({
        method: "item/commandExecution/requestApproval",
        id: 0,
        params: { threadId: "t", turnId: "u", itemId: "i", startedAtMs: 1, command: "ls" }
      })
      yield* TestClock.adjust("1 hour")
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
      yield* Deferred.succeed(answer, "accept")
      yield* fake.take
      yield* TestClock.adjust("20 seconds")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle" })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  const approvalRequest = (id: number, threadId: string, turnId: string) => ({
    method: "item/commandExecution/requestApproval",
    id,
    params: { threadId, turnId, itemId: "i", startedAtMs: 1, command: "ls" }
  })

  const interruptsOf = (fake: Fake.FakeTransport["Service"]) =>
    fake.sent.filter(({ method }) => method === "turn/interrupt").length

  it.effect("counts from the response of a handler, not from the time before it", () =>
    Effect.gen(function*() {
      const response = yield* Deferred.make<"accept">()
      const { fake, turn } = yield* startTurn({ idleTimeout: "2 seconds" }, {
        approvals: { command: () => Deferred.await(response) }
      })
      yield* TestClock.adjust("500 millis")
      yield* fake.emit(approvalRequest(0, "t", "u"))
      yield* TestClock.adjust("3 seconds")
      yield* Deferred.succeed(response, "accept")
      yield* fake.take
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(interruptsOf(fake), 0)
      yield* TestClock.adjust("1 millis")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle" })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("counts from the moment a request is resolved elsewhere", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn({ idleTimeout: "2 seconds" }, {
        approvals: { command: () => Effect.never }
      })
      yield* fake.emit(approvalRequest(0, "t", "u"))
      yield* TestClock.adjust("3500 millis")
      yield* fake.emit({ method: "serverRequest/resolved", params: { threadId: "t", requestId: 0 } })
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(interruptsOf(fake), 0)
      yield* TestClock.adjust("1 millis")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle" })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("stops while a sub-agent that works for the turn waits for a handler", () =>
    Effect.gen(function*() {
      const response = yield* Deferred.make<"accept">()
      const { fake, turn } = yield* startTurn({ idleTimeout: "2 seconds" }, {
        approvals: { command: () => Deferred.await(response) }
      })
      yield* fake.emit({
        method: "turn/started",
        params: { threadId: "sub", turn: { ...Fake.turn("v"), rootTurnId: "u" } },
        emittedAtMs: 1
      })
      yield* fake.emit(approvalRequest(0, "sub", "v"))
      yield* fake.reply(yield* fake.takeMethod("thread/read"), { thread: { id: "sub", parentThreadId: "t" } })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(interruptsOf(fake), 0)
      yield* Deferred.succeed(response, "accept")
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(interruptsOf(fake), 0)
      yield* TestClock.adjust("1 millis")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle" })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("does not stop for a handler of another thread, of an ended sub-agent, or of no thread", () =>
    Effect.gen(function*() {
      const late = yield* Deferred.make<void>()
      const server = yield* AppServer.AppServer
      yield* server.handle(
        "account/chatgptAuthTokens/refresh",
        () => Effect.andThen(Effect.uninterruptible(Deferred.await(late)), Effect.fail("late"))
      )
      yield* server.handle(
        "item/commandExecution/requestApproval",
        () => Effect.as(Effect.uninterruptible(Deferred.await(late)), { decision: "decline" } as const)
      )
      const { fake, turn } = yield* startTurn({ idleTimeout: "2 seconds" })
      yield* fake.emit(
        {
          method: "account/chatgptAuthTokens/refresh",
          id: 3,
          params: { reason: "unauthorized", previousAccountId: null }
        },
        approvalRequest(4, "stranger", "x"),
        { method: "turn/started", params: { threadId: "sub", turn: { ...Fake.turn("v"), rootTurnId: "u" } } },
        approvalRequest(5, "sub", "v")
      )
      yield* TestClock.adjust("1 second")
      yield* fake.emit(Fake.turnCompleted("sub", "v"))
      yield* TestClock.adjust("2 seconds")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle" })
      yield* Deferred.succeed(late, undefined)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("does not stop for a handler of an earlier turn, or of a sub-agent of one, that is still at work", () =>
    Effect.gen(function*() {
      const late = yield* Deferred.make<"accept">()
      const { fake, turn } = yield* startTurn({ idleTimeout: "2 seconds" }, {
        approvals: { command: () => Effect.uninterruptible(Deferred.await(late)) }
      })
      yield* fake.emit(
        { method: "turn/started", params: { threadId: "sub", turn: { ...Fake.turn("v"), rootTurnId: "before" } } },
        approvalRequest(0, "t", "before"),
        approvalRequest(1, "sub", "v")
      )
      yield* fake.emit(Fake.turnCompleted("t", "before"))
      yield* TestClock.adjust("2 seconds")
      yield* interrupted(fake)
      assert.deepInclude(yield* reasonOf(turn.result), { _tag: "TurnTimeout", kind: "idle" })
      yield* Deferred.succeed(late, "accept")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("may be given to a turn that runs, and leaves one alone that has ended", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn()
      yield* pipe(turn, Turn.withIdleTimeout("10 seconds"))
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      yield* turn.result
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* turn.result).status, "completed")
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
