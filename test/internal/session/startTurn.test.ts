import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as AppServer from "../../../src/AppServer.ts"
import { syncBatch } from "../../../src/internal/jsonrpc/readBatch.ts"
import { Session } from "../../../src/internal/session/session.ts"
import { OpenThread } from "../../../src/internal/session/threads/openThread.ts"
import * as StartTurn from "../../../src/internal/session/turns/startTurn.ts"
import { TurnState } from "../../../src/internal/session/turns/turnState.ts"
import { requestTimeout } from "../../../src/internal/session/turns/turnTimeouts.ts"
import * as Fake from "../../FakeTransport.ts"
import {
  emit,
  end,
  expectReason,
  getSent,
  interruptTurn,
  killed,
  layer,
  openThread,
  receive,
  reject,
  respond,
  settle,
  startTurn
} from "../../scenario.ts"

/** The default of `maxInFlight`. */
const maxInFlight = 128

const getMethods = (events: ReadonlyArray<{ readonly method: unknown }>) => events.map(({ method }) => method)

const statusChanged = (status: object) => ({ method: "thread/status/changed", params: { threadId: "t", status } })

const active = statusChanged({ type: "active", activeFlags: [] })

const idle = statusChanged({ type: "idle" })

describe("Turn", () => {
  it.effect("has the result that the server has stored when its thread is idle and its end does not arrive", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const runUntilIdle = Effect.fnUntraced(function*(stored: object) {
        const run = yield* startTurn(thread.run("hi"), "u")
        // A thread that is idle before the turn starts says nothing about the turn.
        yield* emit(idle, active, Fake.turnStarted("t", "u"))
        yield* TestClock.adjust("1 minute")
        yield* emit(Fake.messageCompleted("t", "u", "i", "received"), idle)
        yield* TestClock.adjust("5 seconds")
        yield* respond("thread/turns/list", { data: [stored] })
        return run
      })
      const items = [{ type: "agentMessage", id: "j", text: "stored", phase: "final_answer" }]
      const result = yield* Fiber.join(yield* runUntilIdle(Fake.turn("u", "completed", { items })))
      assert.strictEqual(result.finalResponse, "stored")
      assert.deepStrictEqual(result.items.map((item) => "id" in item && item.id), ["i", "j"])

      const running = yield* runUntilIdle(Fake.turn("u", "inProgress"))
      yield* TestClock.adjust("500 millis")
      assert.isUndefined(running.pollUnsafe())
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(running)
      yield* TestClock.adjust("1 hour")
      assert.lengthOf(yield* getSent("thread/turns/list"), 2)
    }).pipe(Effect.provide(layer())))

  it.effect("has the stored failure after the server has rejected requests for it", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(Effect.flip(thread.run("hi")), "u")
      yield* emit(active, Fake.turnStarted("t", "u"), statusChanged({ type: "systemError" }))
      yield* TestClock.adjust("5 seconds")
      yield* respond("thread/turns/list", { data: [Fake.turn("u")] })
      yield* TestClock.adjust("1 second")
      yield* reject("thread/turns/list", { code: -32603, message: "no pages" })
      yield* reject("thread/read", { code: -32603, message: "not now" })
      yield* TestClock.adjust("10 seconds")
      yield* reject("thread/turns/list", { code: -32601, message: "none" })
      const error = { message: "it broke", codexErrorInfo: "other" }
      yield* respond("thread/read", { thread: { id: "t", turns: [Fake.turn("u", "failed", { error })] } })
      const failure = yield* Fiber.join(run)
      assert(failure._tag === "TurnFailed")
      assert.strictEqual(failure.codexErrorInfo, "other")
    }).pipe(Effect.provide(layer())))

  it.effect("does not buffer later turns after turn/start has timed out", () =>
    Effect.gen(function*() {
      const listeners: Array<TurnState> = []
      const session = yield* Effect.flatMap(Session, ({ acquire }) => acquire)
      const server: typeof session.server = {
        ...session.server,
        addThreadListener: (_, listener) => {
          assert(listener instanceof TurnState)
          listeners.push(listener)
          return () => {}
        }
      }
      const thread = yield* openThread("t")
      const record = session.records.get(thread.id)
      const handlers = session.handlers.getThread(thread.id)
      assert(record !== undefined && handlers !== undefined)
      const opened = new OpenThread(record, session.records, handlers)
      const starting = yield* StartTurn.startTurn({ ...session, server }, opened, {
        params: { threadId: thread.id, input: [] },
        handlers: {},
        context: {},
        budget: undefined,
        keepBackgroundTerminals: false,
        exclusive: [],
        timeout: yield* requestTimeout(server, "turn/start")
      }).pipe(Effect.scoped, Effect.flip, Effect.forkChild)
      const start = yield* receive("turn/start")
      yield* TestClock.adjust("60 seconds")
      yield* Fiber.join(starting)
      const [state] = listeners
      assert(state !== undefined)
      for (let turn = 0; turn < 1000; turn++) {
        state.onNotification(Fake.delta("t", `u${turn}`, "i", "text"), `u${turn}`, syncBatch)
        state.onNotification(Fake.turnCompleted("t", `u${turn}`), `u${turn}`, syncBatch)
      }
      assert.isBelow(JSON.stringify(state["unassigned"]).length, 20_000)
      yield* respond(start, { turn: Fake.turn("u999") })
      yield* TestClock.adjust("1 second")
      assert.isTrue(state.exit !== undefined && Result.isSuccess(state.exit))
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))

  it.effect("receives every event when all of them arrive before the response to turn/start", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const events = yield* Effect.forkChild(Stream.runCollect(thread.stream("hi")))
      const start = yield* receive("turn/start")
      yield* emit(
        Fake.turnStarted("t", "u"),
        Fake.delta("t", "u", "i", "he"),
        Fake.delta("t", "u", "i", "llo"),
        Fake.messageCompleted("t", "u", "i", "hello"),
        Fake.turnCompleted("t", "u")
      )
      yield* respond(start, { turn: Fake.turn("u") })
      assert.deepStrictEqual(getMethods(yield* Fiber.join(events)), [
        "turn/started",
        "item/agentMessage/delta",
        "item/agentMessage/delta",
        "item/completed",
        "turn/completed"
      ])
    }).pipe(Effect.provide(layer())))

  it.effect("receives every event that arrives in one batch with the response to turn/start", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      const { id } = yield* receive("turn/start")
      yield* emit(
        { id, result: { turn: Fake.turn("u") } },
        Fake.turnStarted("t", "u"),
        Fake.messageCompleted("t", "u", "i", "hello"),
        Fake.turnCompleted("t", "u")
      )
      assert.strictEqual((yield* Fiber.join(run)).finalResponse, "hello")
    }).pipe(Effect.provide(layer())))

  it.effect("receives no events of other threads, of other turns, or after its end", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const starting = yield* Effect.forkChild(thread.turn("hi"))
      const start = yield* receive("turn/start")
      yield* emit(Fake.messageCompleted("t", "before", "old", "late item of an earlier turn"))
      yield* respond(start, { turn: Fake.turn("u") })
      const { events, result } = yield* Fiber.join(starting)
      yield* emit(
        Fake.turnStarted("t", "u"),
        Fake.turnStarted("sub-agent", "w"),
        Fake.messageCompleted("sub-agent", "w", "x", "sub-agent"),
        Fake.turnCompleted("sub-agent", "w"),
        Fake.messageCompleted("other", "u", "y", "same turn id, other thread"),
        Fake.messageCompleted("t", "before", "old", "late"),
        Fake.turnCompleted("t", "before"),
        idle,
        Fake.messageCompleted("t", "u", "i", "mine"),
        Fake.turnCompleted("t", "u"),
        Fake.messageCompleted("t", "u", "j", "after the end")
      )
      assert.deepStrictEqual(getMethods(yield* Stream.runCollect(events)), [
        "turn/started",
        "item/completed",
        "turn/completed"
      ])
      const { finalResponse, items } = yield* result
      assert.strictEqual(finalResponse, "mine")
      assert.strictEqual(items.length, 1)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("has its own events while a hundred turns interleave theirs", () =>
    Effect.gen(function*() {
      const ids = Array.from({ length: 100 }, (_, index) => `t${index}`)
      const threads = yield* Effect.forEach(ids, (id) => openThread(id))
      const results = yield* Effect.forkChild(
        Effect.forEach(threads, (thread) => thread.run("hi"), { concurrency: "unbounded" })
      )
      for (let started = 0; started < 100; started++) {
        const start = yield* receive("turn/start")
        yield* respond(start, { turn: Fake.turn(`turn of ${start.params.threadId}`) })
      }
      for (let round = 0; round < 20; round++) {
        yield* emit(...ids.map((id) => Fake.delta(id, `turn of ${id}`, "i", `${round} `)))
      }
      yield* emit(...ids.map((id) => Fake.messageCompleted(id, `turn of ${id}`, "i", `response of ${id}`)))
      yield* emit(...ids.map((id) => Fake.turnCompleted(id, `turn of ${id}`)))
      assert.deepStrictEqual(
        (yield* Fiber.join(results)).map((result) => result.finalResponse),
        ids.map((id) => `response of ${id}`)
      )
      assert.lengthOf(yield* getSent("turn/start"), 100)
    }).pipe(Effect.provide(layer())))

  it.effect("delivers its buffered events and then fails when the connection ends", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const turn = yield* Fiber.join(yield* startTurn(thread.turn("hi"), "u"))
      const seen: Array<unknown> = []
      yield* emit(Fake.turnStarted("t", "u"), Fake.delta("t", "u", "i", "half"))
      yield* end(killed)
      const failure = yield* Effect.flip(
        Stream.runForEach(turn.events, (event) => Effect.sync(() => seen.push(event.method)))
      )
      assert.deepStrictEqual(failure, killed)
      assert.deepStrictEqual(seen, ["turn/started", "item/agentMessage/delta"])
      assert.deepStrictEqual(yield* Effect.flip(turn.result), killed)
      assert.deepStrictEqual(yield* Effect.flip(turn.steer("more")), killed)
      assert.deepStrictEqual(yield* Effect.flip(thread.run("again")), killed)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("ends when its turn/completed cannot be decoded", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const endWith = Effect.fnUntraced(function*(turn: object) {
        const run = yield* startTurn(Effect.result(thread.run("hi")), "u")
        yield* emit(Fake.messageCompleted("t", "u", "i", "hello"), {
          method: "turn/completed",
          params: { threadId: "t", turn }
        })
        return yield* Fiber.join(run)
      })

      const completed = yield* endWith({ id: "u", status: "completed", items: "none" })
      assert(Result.isSuccess(completed))
      assert.deepInclude(completed.success, { status: "completed", finalResponse: "hello" })

      const error = { message: "no", codexErrorInfo: "other" }
      const failed = yield* endWith({ id: "u", status: "failed", error, items: 0 })
      assert(Result.isFailure(failed) && failed.failure._tag === "TurnFailed")
      assert.strictEqual(failed.failure.codexErrorInfo, "other")

      const invalid = yield* endWith({ id: "u", status: 7 })
      assert(Result.isFailure(invalid) && invalid.failure._tag === "AppServerError")
      assert.strictEqual(invalid.failure.reason._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer())))

  it.effect("has a message whose item/completed cannot be decoded or does not arrive", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const item = { type: "agentMessage", id: "i", text: "the response" }
      const itemCompleted = { method: "item/completed", params: { threadId: "t", turnId: "u", item } }
      const completedWithItem = Fake.turnCompleted("t", "u", "completed", { items: [item] })
      const scenarios = [
        [itemCompleted, Fake.turnCompleted("t", "u")],
        [itemCompleted, completedWithItem],
        [Fake.messageCompleted("t", "u", "i", "the response"), completedWithItem],
        [completedWithItem]
      ]
      for (const messages of scenarios) {
        const run = yield* startTurn(thread.run("hi"), "u")
        yield* emit(...messages)
        const { finalResponse, items } = yield* Fiber.join(run)
        assert.strictEqual(finalResponse, "the response")
        assert.strictEqual(items.length, 1)
      }
    }).pipe(Effect.provide(layer())))

  it.effect("differs from a turn of another thread with the same id", () =>
    Effect.gen(function*() {
      const threads = [yield* openThread("a"), yield* openThread("b")]
      const results = yield* Effect.forkChild(
        Effect.forEach(threads, (thread) => thread.run("hi"), { concurrency: "unbounded" })
      )
      yield* respond("turn/start", { turn: { id: "u" } })
      yield* respond("turn/start", { turn: { id: "u" } })
      for (const id of ["a", "b"]) {
        yield* emit(Fake.messageCompleted(id, "u", "i", `of ${id}`), Fake.turnCompleted(id, "u"))
      }
      assert.deepStrictEqual((yield* Fiber.join(results)).map(({ finalResponse }) => finalResponse), ["of a", "of b"])
    }).pipe(Effect.provide(layer())))

  it.effect("passes on events of a newer server", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const events = yield* startTurn(Stream.runCollect(thread.stream("hi")), "u")
      const unknown = { method: "turn/dreamt", params: { threadId: "t", turnId: "u", of: "sheep" }, emittedAtMs: 5 }
      const odd = {
        method: "item/completed",
        params: { threadId: "t", turnId: "u", completedAtMs: 1, item: { type: "dream", id: "d", of: ["sheep"] } }
      }
      yield* emit(unknown, odd, Fake.turnCompleted("t", "u"))
      assert.deepStrictEqual<unknown>((yield* Fiber.join(events)).slice(0, 2), [unknown, odd])
    }).pipe(Effect.provide(layer())))
})

describe("Interruption of a turn", () => {
  it.effect("waits for the response to turn/start, and interrupts the turn that it names", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      const start = yield* receive("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* settle
      yield* respond(start, { turn: Fake.turn("u") })
      const interrupt = yield* respond("turn/interrupt", {})
      // The server does not know the turn by its id before `turn/started`.
      assert.deepStrictEqual(interrupt.params, { threadId: "t", turnId: "" })
      yield* settle
      assert.isUndefined(interrupting.pollUnsafe())
      yield* emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* Fiber.join(interrupting)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(run)))
    }).pipe(Effect.provide(layer())))

  it.effect("interrupts a started turn by its id, once, and waits for its end", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(thread.run("hi"), "u")
      yield* emit(Fake.turnStarted("t", "u"))
      yield* settle
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      const interrupt = yield* respond("turn/interrupt", {})
      assert.deepStrictEqual(interrupt.params, { threadId: "t", turnId: "u" })
      yield* settle
      assert.isUndefined(interrupting.pollUnsafe())
      yield* emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* Fiber.join(interrupting)
      assert.lengthOf(yield* getSent("turn/interrupt"), 1)
    }).pipe(Effect.provide(layer())))

  it.effect("stops waiting after five seconds for a server that does not respond", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* receive("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(interrupting)

      const second = yield* startTurn(thread.run("hi"), "v")
      const again = yield* Effect.forkChild(Fiber.interrupt(second))
      // The first start may still join this turn, so its response is awaited before the turn is interrupted.
      yield* TestClock.adjust("5 seconds")
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(again)
    }).pipe(Effect.provide(layer())))

  it.effect("ends when the connection ends", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* receive("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* settle
      yield* end(killed)
      yield* Fiber.join(interrupting)
    }).pipe(Effect.provide(layer())))

  it.effect("does not happen when the scope of an ended turn closes", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const scope = yield* Scope.make()
      yield* Fiber.join(yield* startTurn(Scope.provide(thread.turn("hi"), scope), "u"))
      yield* emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
      yield* settle
      yield* Scope.close(scope, Exit.void)
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))

  it.effect("happens when a subscriber ends the stream early", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const first = yield* startTurn(Stream.runCollect(Stream.take(thread.stream("hi"), 1)), "u")
      yield* emit(Fake.turnStarted("t", "u"))
      yield* interruptTurn("t", "u")
      assert.lengthOf(yield* Fiber.join(first), 1)
    }).pipe(Effect.provide(layer())))

  it.effect("happens when the last of two runs that share a turn is interrupted", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const first = yield* startTurn(thread.run("one"), "u")
      yield* emit(Fake.turnStarted("t", "u"))
      const second = yield* startTurn(thread.run("two"), "u")
      yield* Fiber.interrupt(first)
      assert.isEmpty(yield* getSent("turn/interrupt"))
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(second))
      yield* interruptTurn("t", "u")
      yield* Fiber.join(interrupting)
    }).pipe(Effect.provide(layer())))

  it.effect("happens when the response to turn/start arrives after its caller timed out or was interrupted", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const timedOut = yield* Effect.forkChild(expectReason(thread.run("hi")))
      const first = yield* receive("turn/start")
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual((yield* Fiber.join(timedOut))._tag, "RequestTimeout")

      const run = yield* Effect.forkChild(thread.run("hi"))
      const second = yield* receive("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(interrupting)

      for (const [start, id] of [[first, "u"], [second, "v"]] as const) {
        yield* emit(Fake.turnStarted("t", id))
        yield* respond(start, { turn: Fake.turn(id) })
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(yield* interruptTurn("t", id), { threadId: "t", turnId: id })
      }
    }).pipe(Effect.provide(layer())))

  it.effect("does not happen after a timeout when another caller has joined the turn", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* Effect.forkChild(Effect.exit(thread.run("one")))
      const first = yield* receive("turn/start")
      yield* TestClock.adjust("59 seconds")
      const run = yield* Effect.forkChild(thread.run("two"))
      const second = yield* receive("turn/start")
      yield* TestClock.adjust("1 second")
      yield* emit(Fake.turnStarted("t", "u"), Fake.messageCompleted("t", "u", "i", "kept"))
      yield* respond(first, { turn: Fake.turn("u") })
      yield* TestClock.adjust("1 second")
      yield* respond(second, { turn: Fake.turn("u") })
      yield* TestClock.adjust("10 seconds")
      yield* emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* Fiber.join(run)).finalResponse, "kept")
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))

  it.effect("cancels a turn/start that waits for a permit, and sends nothing", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      const blocking = yield* Effect.forkChild(
        Effect.replicateEffect(server.request("model/list"), maxInFlight, { concurrency: "unbounded" })
      )
      yield* Effect.replicateEffect(receive("model/list"), maxInFlight)
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* settle
      yield* Fiber.interrupt(run)
      yield* Fiber.interrupt(blocking)
      assert.isEmpty(yield* getSent("turn/start"))
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))

  it.effect("does not affect another start on the thread", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const first = yield* Effect.forkChild(thread.run("one"))
      const firstStart = yield* receive("turn/start")
      const second = yield* Effect.forkChild(thread.run("two"))
      yield* receive("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(first))
      yield* settle
      yield* emit(Fake.turnStarted("t", "u"))
      yield* respond(firstStart, { turn: Fake.turn("u") })
      // The second start has no response yet and may join the turn, so its response is awaited for five seconds.
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* interruptTurn("t", "u"), { threadId: "t", turnId: "u" })
      yield* Fiber.join(interrupting)
      assert.isUndefined(second.pollUnsafe())
    }).pipe(Effect.provide(layer())))

  it.effect("retries turn/interrupt when the server is overloaded", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(thread.run("hi"), "u")
      yield* emit(Fake.turnStarted("t", "u"))
      yield* settle
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* reject("turn/interrupt", { code: -32001, message: "Server overloaded; retry later." })
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* interruptTurn("t", "u")
      yield* Fiber.join(interrupting)
    }).pipe(Effect.provide(layer())))

  it.effect("fails a turn without an end when the connection ends", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const scope = yield* Scope.make()
      const turn = yield* Fiber.join(yield* startTurn(Scope.provide(thread.turn("hi"), scope), "u"))
      yield* emit(Fake.turnStarted("t", "u"))
      const result = yield* Effect.forkChild(Effect.flip(turn.result))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(closing)
      yield* end(killed)
      assert.deepStrictEqual(yield* Fiber.join(result), killed)
      assert.deepStrictEqual(yield* Effect.flip(Stream.runDrain(turn.events)), killed)
    }).pipe(Effect.provide(layer())))
})

describe("Thread.compact", () => {
  it.effect("succeeds when the turn of the compaction completes", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* respond("thread/compact/start", {})
      yield* emit(Fake.turnStarted("t", "c"))
      yield* settle
      assert.isUndefined(compacting.pollUnsafe())
      yield* emit(Fake.turnCompleted("t", "c"))
      yield* Fiber.join(compacting)
    }).pipe(Effect.provide(layer())))

  it.effect("does not succeed when another turn completes at the same time", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      const start = yield* receive("turn/start")
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* respond("thread/compact/start", {})
      yield* emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u", "interrupted"))
      yield* respond(start, { turn: Fake.turn("u") })
      assert.strictEqual((yield* Fiber.join(run)).status, "interrupted")
      yield* settle
      assert.isUndefined(compacting.pollUnsafe())
      yield* emit(
        Fake.turnStarted("t", "c"),
        {
          method: "item/started",
          params: { threadId: "t", turnId: "c", startedAtMs: 1, item: { type: "contextCompaction", id: "i" } }
        },
        Fake.turnCompleted("t", "c")
      )
      yield* Fiber.join(compacting)
    }).pipe(Effect.provide(layer())))

  it.effect("fails with TurnFailed when its turn is interrupted", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(Effect.flip(thread.compact))
      yield* respond("thread/compact/start", {})
      yield* emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c", "interrupted"))
      assert.strictEqual((yield* Fiber.join(compacting))._tag, "TurnFailed")
    }).pipe(Effect.provide(layer())))

  it.effect("does not interrupt another turn when it is interrupted before its turn is known", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* startTurn(thread.run("hi"), "u")
      yield* emit(Fake.turnStarted("t", "u"))
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* receive("thread/compact/start")
      yield* Fiber.interrupt(compacting)
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))

  it.effect("interrupts no turn when it is interrupted before it is sent", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      yield* Effect.replicateEffect(Effect.forkChild(server.request("thread/loaded/list")), maxInFlight)
      yield* Effect.replicateEffect(receive("thread/loaded/list"), maxInFlight)
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* settle
      yield* Effect.forkChild(Fiber.interrupt(compacting))
      yield* TestClock.adjust("5 seconds")
      assert.isDefined(compacting.pollUnsafe())
      assert.isEmpty(yield* getSent("thread/compact/start"))
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))

  it.effect("fails with TurnFailed when its turn fails", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(Effect.flip(thread.compact))
      const { id } = yield* receive("thread/compact/start")
      const error = { message: "too much", codexErrorInfo: "contextWindowExceeded" }
      yield* emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c", "failed", { error }), { id, result: {} })
      const failure = yield* Fiber.join(compacting)
      assert(failure._tag === "TurnFailed")
      assert.strictEqual(failure.codexErrorInfo, "contextWindowExceeded")
    }).pipe(Effect.provide(layer())))
})

describe("Slow subscriber of a turn", () => {
  it.effect("does not delay another turn, and gets its text in fewer deltas", () =>
    Effect.gen(function*() {
      const slow = yield* openThread("slow")
      const fast = yield* openThread("fast")
      const gate = yield* Deferred.make<void>()
      let events = 0
      const slowText = yield* startTurn(
        slow.stream("hi").pipe(
          Stream.tap((event) => event.method === "turn/started" ? Deferred.await(gate) : Effect.sync(() => events++)),
          Stream.filter((event) => event.method === "item/agentMessage/delta"),
          Stream.runFold(() => "", (text, event) => text + event.params.delta)
        ),
        "s"
      )
      const fastResult = yield* startTurn(fast.run("hi"), "f")
      yield* emit(Fake.turnStarted("slow", "s"), Fake.turnStarted("fast", "f"))
      const count = 50_000
      for (let at = 0; at < count; at += 1000) {
        yield* emit(...Array.from({ length: 1000 }, (_, index) => Fake.delta("slow", "s", "i", `${at + index} `)))
      }
      yield* emit(Fake.turnCompleted("slow", "s"))
      yield* emit(Fake.messageCompleted("fast", "f", "j", "quick"), Fake.turnCompleted("fast", "f"))
      assert.strictEqual((yield* Fiber.join(fastResult)).finalResponse, "quick")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(slowText), Array.from({ length: count }, (_, index) => `${index} `).join(""))
      assert.isBelow(events, 3_000)
    }).pipe(Effect.provide(layer())))
})
