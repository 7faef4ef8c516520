import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { pipe } from "effect/Function"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as AppServer from "../../../src/AppServer.ts"
import type * as Codex from "../../../src/Codex.ts"
import type * as Thread from "../../../src/Thread.ts"
import * as Turn from "../../../src/Turn.ts"
import * as Fake from "../../FakeTransport.ts"
import {
  commandRequest,
  emit,
  expectReason,
  getSent,
  heldApprovals,
  interruptTurn,
  layer,
  openThread,
  receive,
  receiveDecision,
  respond,
  settle,
  startTurn
} from "../../scenario.ts"

/** A turn that has started on a new thread. */
const openTurn = Effect.fnUntraced(function*(options?: Thread.TurnOptions, thread?: Codex.StartOptions) {
  const turn = yield* Fiber.join(yield* startTurn((yield* openThread("t", thread)).turn("go", options), "u"))
  yield* emit(Fake.turnStarted("t", "u"))
  yield* Stream.runHead(turn.events)
  return turn
})

const idleTimeout = { _tag: "TurnTimeout", kind: "idle" } as const

describe("Deadline of a turn", () => {
  it.effect("interrupts the turn, which fails with its ids and the limit", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn({ deadline: "1 minute" })
      const events = yield* Effect.forkChild(expectReason(Stream.runDrain(turn.events)))
      yield* TestClock.adjust("30 seconds")
      yield* emit(Fake.delta("t", "u", "i", "still here"))
      yield* TestClock.adjust("30 seconds")
      yield* interruptTurn("t", "u")
      const expected = {
        _tag: "TurnTimeout",
        threadId: "t",
        turnId: "u",
        kind: "deadline",
        timeoutMillis: 60_000
      } as const
      assert.deepInclude(yield* expectReason(turn.result), expected)
      assert.deepInclude(yield* Fiber.join(events), expected)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("does not fail a turn that ends while it is being interrupted", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn({ deadline: "1 minute" })
      yield* TestClock.adjust("1 minute")
      yield* receive("turn/interrupt")
      yield* emit(Fake.messageCompleted("t", "u", "i", "just in time"), Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* turn.result).finalResponse, "just in time")
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("fails the turn when the server does not end it", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn()
      yield* Turn.withDeadline(turn, "1 second")
      yield* TestClock.adjust("1 second")
      yield* receive("turn/interrupt")
      yield* TestClock.adjust("5 seconds")
      assert.deepInclude(yield* expectReason(turn.result), {
        _tag: "TurnTimeout",
        kind: "deadline",
        timeoutMillis: 1000
      })
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("fails a run without a response to turn/start, and interrupts the turn that starts later", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const limits = [[{ deadline: "1 second" }, "deadline"], [{ idleTimeout: "1 second" }, "idle"]] as const
      for (const [options, kind] of limits) {
        const running = yield* Effect.forkChild(expectReason(thread.run("go", options)))
        const start = yield* receive("turn/start")
        yield* TestClock.adjust("1 second")
        const expected = { _tag: "TurnTimeout", threadId: "t", turnId: "", kind, timeoutMillis: 1000 } as const
        assert.deepInclude(yield* Fiber.join(running), expected)
        yield* emit(Fake.turnStarted("t", "u"))
        yield* respond(start, { turn: Fake.turn("u") })
        yield* interruptTurn("t", "u")
      }
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("counts from the call, not from the response to turn/start", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const running = yield* Effect.forkChild(expectReason(thread.run("go", { deadline: "10 seconds" })))
      const start = yield* receive("turn/start")
      yield* TestClock.adjust("9 seconds")
      yield* respond(start, { turn: Fake.turn("u") })
      yield* emit(Fake.turnStarted("t", "u"))
      yield* TestClock.adjust("1 second")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* Fiber.join(running), { _tag: "TurnTimeout", turnId: "u", timeoutMillis: 10_000 })
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("does not fail a turn that the program interrupts", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn({ deadline: "1 minute" })
      const interrupt = yield* Effect.forkChild(turn.interrupt)
      yield* interruptTurn("t", "u")
      yield* Fiber.join(interrupt)
      assert.strictEqual((yield* turn.result).status, "interrupted")
    }).pipe(Effect.scoped, Effect.provide(layer())))
})

describe("Idle timeout of a turn", () => {
  it.effect("interrupts a turn without events for the time limit, and not before", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn({ idleTimeout: "10 seconds" })
      for (let i = 0; i < 10; i++) {
        yield* TestClock.adjust("9 seconds")
        yield* emit(Fake.delta("t", "u", "i", "more"), Fake.delta("other", "v", "j", "another turn"))
        yield* settle
      }
      yield* TestClock.adjust("9 seconds")
      assert.isEmpty(yield* getSent("turn/interrupt"))
      yield* TestClock.adjust("1 second")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), { _tag: "TurnTimeout", kind: "idle", timeoutMillis: 10_000 })
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("stops while the turn waits for a handler", () =>
    Effect.gen(function*() {
      const { accept, approvals } = yield* heldApprovals
      const turn = yield* openTurn({ idleTimeout: "10 seconds" }, { approvals })
      yield* emit(commandRequest(0))
      yield* TestClock.adjust("1 hour")
      assert.isEmpty(yield* getSent("turn/interrupt"))
      yield* accept
      yield* receiveDecision(0)
      yield* TestClock.adjust("20 seconds")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), idleTimeout)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("restarts with the response of a handler", () =>
    Effect.gen(function*() {
      const { accept, approvals } = yield* heldApprovals
      const turn = yield* openTurn({ idleTimeout: "2 seconds" }, { approvals })
      yield* TestClock.adjust("500 millis")
      yield* emit(commandRequest(0))
      yield* TestClock.adjust("3 seconds")
      yield* accept
      yield* receiveDecision(0)
      yield* TestClock.adjust("1999 millis")
      assert.isEmpty(yield* getSent("turn/interrupt"))
      yield* TestClock.adjust("1 millis")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), idleTimeout)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("restarts when another client responds to a request", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn({ idleTimeout: "2 seconds" }, {
        approvals: { command: () => Effect.never }
      })
      yield* emit(commandRequest(0))
      yield* TestClock.adjust("3500 millis")
      yield* emit(Fake.requestResolved("t", 0))
      yield* TestClock.adjust("1999 millis")
      assert.isEmpty(yield* getSent("turn/interrupt"))
      yield* TestClock.adjust("1 millis")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), idleTimeout)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("stops while a sub-agent of the turn waits for a handler", () =>
    Effect.gen(function*() {
      const { accept, approvals } = yield* heldApprovals
      const turn = yield* openTurn({ idleTimeout: "2 seconds" }, { approvals })
      yield* emit(Fake.subAgentStarted("sub", "v", "u"))
      yield* emit(commandRequest(0, { threadId: "sub", turnId: "v" }))
      yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
      yield* TestClock.adjust("1 hour")
      assert.isEmpty(yield* getSent("turn/interrupt"))
      yield* accept
      yield* TestClock.adjust("1999 millis")
      assert.isEmpty(yield* getSent("turn/interrupt"))
      yield* TestClock.adjust("1 millis")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), idleTimeout)
    }).pipe(Effect.scoped, Effect.provide(layer())))

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
      const turn = yield* openTurn({ idleTimeout: "2 seconds" })
      yield* emit(
        {
          method: "account/chatgptAuthTokens/refresh",
          id: 3,
          params: { reason: "unauthorized", previousAccountId: null }
        },
        commandRequest(4, { threadId: "other", turnId: "x" }),
        Fake.subAgentStarted("sub", "v", "u"),
        commandRequest(5, { threadId: "sub", turnId: "v" })
      )
      yield* TestClock.adjust("1 second")
      yield* emit(Fake.turnCompleted("sub", "v"))
      yield* TestClock.adjust("2 seconds")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), idleTimeout)
      yield* Deferred.succeed(late, undefined)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("does not stop for a handler of an earlier turn or of its sub-agent", () =>
    Effect.gen(function*() {
      const late = yield* Deferred.make<"accept">()
      const turn = yield* openTurn({ idleTimeout: "2 seconds" }, {
        approvals: { command: () => Effect.uninterruptible(Deferred.await(late)) }
      })
      yield* emit(
        Fake.subAgentStarted("sub", "v", "before"),
        commandRequest(0, { threadId: "t", turnId: "before" }),
        commandRequest(1, { threadId: "sub", turnId: "v" })
      )
      yield* emit(Fake.turnCompleted("t", "before"))
      yield* TestClock.adjust("2 seconds")
      yield* interruptTurn("t", "u")
      assert.deepInclude(yield* expectReason(turn.result), idleTimeout)
      yield* Deferred.succeed(late, "accept")
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("applies to a running turn, and not after its end", () =>
    Effect.gen(function*() {
      const turn = yield* openTurn()
      yield* pipe(turn, Turn.withIdleTimeout("10 seconds"))
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* turn.result
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* turn.result).status, "completed")
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.scoped, Effect.provide(layer())))
})
