import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as AppServer from "../../../src/AppServer.ts"
import * as AppServerError from "../../../src/AppServerError.ts"
import * as Codex from "../../../src/Codex.ts"
import { syncBatch } from "../../../src/internal/jsonrpc/readBatch.ts"
import { Session } from "../../../src/internal/session/session.ts"
import { OpenThread } from "../../../src/internal/session/threads/openThread.ts"
import { startTurn } from "../../../src/internal/session/turns/startTurn.ts"
import type { TurnState } from "../../../src/internal/session/turns/turnState.ts"
import { requestTimeout } from "../../../src/internal/session/turns/turnTimeouts.ts"
import type * as Protocol from "../../../src/Protocol.ts"
import * as Fake from "../../FakeTransport.ts"

/** So many requests may be unanswered at once. */
const places = 128

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

const openThread = Effect.fnUntraced(function*(id: string) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const thread = yield* Effect.forkChild(codex.startThread())
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(id))
  return yield* Fiber.join(thread)
})

const killed = AppServerError.make(
  new AppServerError.ConnectionClosed({ description: "gone", exitCode: 1, signal: undefined, stderrTail: "boom" })
)

const methods = (events: ReadonlyArray<{ readonly method: unknown }>) => events.map((event) => event.method)

describe("a turn", () => {
  it.effect("whose end is never told has the result that the server has stored, once its thread is idle", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const status = (type: string) => ({
        method: "thread/status/changed",
        params: { threadId: "t", status: type === "active" ? { type, activeFlags: [] } : { type } }
      })
      const run = Effect.fnUntraced(function*(stored: object) {
        const result = yield* Effect.forkChild(Effect.exit(thread.run("hi")))
        yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
        // Idle before the turn has begun says nothing about it.
        yield* fake.emit(status("idle"), status("active"), Fake.turnStarted("t", "u"))
        yield* TestClock.adjust("1 minute")
        yield* fake.emit(Fake.messageCompleted("t", "u", "i", "heard"), status("idle"))
        yield* TestClock.adjust("5 seconds")
        yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [stored] })
        return result
      })
      const items = [{ type: "agentMessage", id: "j", text: "stored", phase: "final_answer" }]
      const exit = yield* Fiber.join(yield* run(Fake.turn("u", "completed", { items })))
      assert(Exit.isSuccess(exit))
      assert.strictEqual(exit.value.finalResponse, "stored")
      assert.deepStrictEqual(exit.value.items.map((item) => (item as { id: string }).id), ["i", "j"])

      const running = yield* run(Fake.turn("u", "inProgress"))
      yield* TestClock.adjust("500 millis")
      assert.isUndefined(running.pollUnsafe())
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      assert(Exit.isSuccess(yield* Fiber.join(running)))
      yield* TestClock.adjust("1 hour")
      assert.lengthOf(fake.sent.filter(({ method }) => method === "thread/turns/list"), 2)
    }).pipe(Effect.provide(layer)))

  it.effect("whose end is never told has it also when it failed, and when the server cannot tell at once", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const status = (status: object) => ({ method: "thread/status/changed", params: { threadId: "t", status } })
      const run = yield* Effect.forkChild(Effect.flip(thread.run("hi")))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(status({ type: "active", activeFlags: [] }), Fake.turnStarted("t", "u"))
      yield* fake.emit(status({ type: "systemError" }))
      yield* TestClock.adjust("5 seconds")
      yield* fake.reply(yield* fake.takeMethod("thread/turns/list"), { data: [Fake.turn("u")] })
      yield* TestClock.adjust("1 second")
      const refused = yield* fake.takeMethod("thread/turns/list")
      yield* fake.emit({ id: refused.id, error: { code: -32603, message: "no pages" } })
      const read = yield* fake.takeMethod("thread/read")
      yield* fake.emit({ id: read.id, error: { code: -32603, message: "not now" } })
      yield* TestClock.adjust("10 seconds")
      yield* fake.emit({
        id: (yield* fake.takeMethod("thread/turns/list")).id,
        error: { code: -32601, message: "none" }
      })
      yield* fake.reply(yield* fake.takeMethod("thread/read"), {
        thread: {
          id: "t",
          turns: [Fake.turn("u", "failed", { error: { message: "it broke", codexErrorInfo: "other" } })]
        }
      })
      const failure = yield* Fiber.join(run)
      assert(failure._tag === "TurnFailed")
      assert.strictEqual(failure.codexErrorInfo, "other")
    }).pipe(Effect.provide(layer)))

  it.effect("of which turn/start was never answered keeps nothing of the turns that come after it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const listeners: Array<TurnState> = []
      const session = yield* Effect.flatMap(Session, ({ acquire }) => acquire)
      const server: typeof session.server = {
        ...session.server,
        addThreadListener: (_, state) => {
          listeners.push(state as TurnState)
          return () => {}
        }
      }
      const thread = yield* openThread("t")
      const starting = yield* startTurn(
        { ...session, server },
        new OpenThread(session.records.get(thread.id)!, session.records),
        {
          params: { threadId: thread.id, input: [] },
          handlers: {},
          context: {},
          keepBackgroundTerminals: false,
          exclusive: [],
          timeout: yield* requestTimeout(server, "turn/start")
        }
      ).pipe(Effect.scoped, Effect.flip, Effect.forkChild)
      const start = yield* fake.takeMethod("turn/start")
      yield* TestClock.adjust("60 seconds")
      yield* Fiber.join(starting)
      const [state] = listeners
      assert(state !== undefined)
      for (let turn = 0; turn < 1000; turn++) {
        const event = Fake.delta("t", `u${turn}`, "i", "text") as unknown as Protocol.ServerNotification
        state.onNotification(event, `u${turn}`, syncBatch)
        const end = Fake.turnCompleted("t", `u${turn}`) as unknown as Protocol.ServerNotification
        state.onNotification(end, `u${turn}`, syncBatch)
      }
      assert.isBelow(JSON.stringify(state["unassigned"]).length, 20_000)
      yield* fake.reply(start, { turn: Fake.turn("u999") })
      yield* TestClock.adjust("1 second")
      assert.isTrue(state.exit !== undefined && Result.isSuccess(state.exit))
      assert.isFalse(fake.sent.some(({ method }) => method === "turn/interrupt"))
    }).pipe(Effect.provide(layer)))

  it.effect("is heard whole when all of it, its end included, comes before the answer to turn/start", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const events = yield* Effect.forkChild(Stream.runCollect(thread.stream("hi")))
      const { id } = yield* fake.takeMethod("turn/start")
      yield* fake.emit(
        Fake.turnStarted("t", "u"),
        Fake.delta("t", "u", "i", "he"),
        Fake.delta("t", "u", "i", "llo"),
        Fake.messageCompleted("t", "u", "i", "hello"),
        Fake.turnCompleted("t", "u")
      )
      yield* fake.emit({ id, result: { turn: Fake.turn("u") } })
      assert.deepStrictEqual(methods(yield* Fiber.join(events)), [
        "turn/started",
        "item/agentMessage/delta",
        "item/agentMessage/delta",
        "item/completed",
        "turn/completed"
      ])
    }).pipe(Effect.provide(layer)))

  it.effect("is heard whole when the answer and all of it come in one batch", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const result = yield* Effect.forkChild(thread.run("hi"))
      const { id } = yield* fake.takeMethod("turn/start")
      yield* fake.emit(
        { id, result: { turn: Fake.turn("u") } },
        Fake.turnStarted("t", "u"),
        Fake.messageCompleted("t", "u", "i", "hello"),
        Fake.turnCompleted("t", "u")
      )
      assert.strictEqual((yield* Fiber.join(result)).finalResponse, "hello")
    }).pipe(Effect.provide(layer)))

  it.effect("hears nothing of other threads, other turns and what comes after its end", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const turn = yield* Effect.forkChild(thread.turn("hi"))
      const { id } = yield* fake.takeMethod("turn/start")
      yield* fake.emit(Fake.messageCompleted("t", "before", "old", "late item of an earlier turn"))
      yield* fake.emit({ id, result: { turn: Fake.turn("u") } })
      const { events, result } = yield* Fiber.join(turn)
      yield* fake.emit(
        Fake.turnStarted("t", "u"),
        Fake.turnStarted("sub-agent", "w"),
        Fake.messageCompleted("sub-agent", "w", "x", "sub-agent"),
        Fake.turnCompleted("sub-agent", "w"),
        Fake.messageCompleted("other", "u", "y", "same turn id, other thread"),
        Fake.messageCompleted("t", "before", "old", "late"),
        Fake.turnCompleted("t", "before"),
        { method: "thread/status/changed", params: { threadId: "t", status: { type: "idle" } } },
        Fake.messageCompleted("t", "u", "i", "mine"),
        Fake.turnCompleted("t", "u"),
        Fake.messageCompleted("t", "u", "j", "after the end")
      )
      assert.deepStrictEqual(methods(yield* Stream.runCollect(events)), [
        "turn/started",
        "item/completed",
        "turn/completed"
      ])
      const { finalResponse, items } = yield* result
      assert.strictEqual(finalResponse, "mine")
      assert.strictEqual(items.length, 1)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("keeps apart a hundred turns whose events come message by message", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const ids = Array.from({ length: 100 }, (_, index) => `t${index}`)
      const threads = yield* Effect.forEach(ids, openThread)
      const results = yield* Effect.forkChild(
        Effect.forEach(threads, (thread) => thread.run("hi"), { concurrency: "unbounded" })
      )
      let started = 0
      yield* Effect.forEach(ids, () =>
        Effect.flatMap(fake.takeMethod("turn/start"), (request) => {
          started++
          return fake.reply(request, { turn: Fake.turn(`turn of ${request.params.threadId}`) })
        }))
      for (let round = 0; round < 20; round++) {
        yield* fake.emit(...ids.map((id) => Fake.delta(id, `turn of ${id}`, "i", `${round} `)))
      }
      yield* fake.emit(...ids.map((id) => Fake.messageCompleted(id, `turn of ${id}`, "i", `answer of ${id}`)))
      yield* fake.emit(...ids.map((id) => Fake.turnCompleted(id, `turn of ${id}`)))
      assert.strictEqual(started, 100)
      assert.deepStrictEqual(
        (yield* Fiber.join(results)).map((result) => result.finalResponse),
        ids.map((id) => `answer of ${id}`)
      )
    }).pipe(Effect.provide(layer)))

  it.effect("fails, with all that was buffered delivered first, when the connection ends", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const starting = yield* Effect.forkChild(thread.turn("hi"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      const turn = yield* Fiber.join(starting)
      const seen: Array<unknown> = []
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.delta("t", "u", "i", "half"))
      yield* fake.end(killed)
      const failure = yield* Effect.flip(
        Stream.runForEach(turn.events, (event) => Effect.sync(() => seen.push(event.method)))
      )
      assert.deepStrictEqual(failure, killed)
      assert.deepStrictEqual(seen, ["turn/started", "item/agentMessage/delta"])
      assert.deepStrictEqual(yield* Effect.flip(turn.result), killed)
      assert.deepStrictEqual(yield* Effect.flip(turn.steer("more")), killed)
      assert.deepStrictEqual(yield* Effect.flip(thread.run("again")), killed)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("ends also when its end cannot be read whole", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const end = (turn: object) =>
        Effect.gen(function*() {
          const result = yield* Effect.forkChild(Effect.result(thread.run("hi")))
          yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: { id: "u" } })
          yield* fake.emit(Fake.messageCompleted("t", "u", "i", "hello"), {
            method: "turn/completed",
            params: { threadId: "t", turn }
          })
          return yield* Fiber.join(result)
        })

      const completed = yield* end({ id: "u", status: "completed", items: "none" })
      assert(Result.isSuccess(completed))
      assert.deepInclude(completed.success, { status: "completed", finalResponse: "hello" })

      const failed = yield* end({
        id: "u",
        status: "failed",
        error: { message: "no", codexErrorInfo: "other" },
        items: 0
      })
      assert(Result.isFailure(failed) && failed.failure._tag === "TurnFailed")
      assert.strictEqual(failed.failure.codexErrorInfo, "other")

      const silent = yield* end({ id: "u", status: 7 })
      assert(Result.isFailure(silent) && silent.failure._tag === "AppServerError")
      assert.strictEqual(silent.failure.reason._tag, "DecodeFailed")
    }).pipe(Effect.provide(layer)))

  it.effect("keeps a message whose notification cannot be read whole, or never came", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const item = { type: "agentMessage", id: "i", text: "the answer" }
      const run = (...messages: ReadonlyArray<object>) =>
        Effect.gen(function*() {
          const result = yield* Effect.forkChild(thread.run("hi"))
          yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: { id: "u" } })
          yield* fake.emit(...messages)
          const { finalResponse, items } = yield* Fiber.join(result)
          assert.strictEqual(finalResponse, "the answer")
          assert.strictEqual(items.length, 1)
        })
      const end = Fake.turnCompleted("t", "u", "completed", { items: [item] })
      yield* run(
        { method: "item/completed", params: { threadId: "t", turnId: "u", item } },
        Fake.turnCompleted("t", "u")
      )
      yield* run({ method: "item/completed", params: { threadId: "t", turnId: "u", item } }, end)
      yield* run(Fake.messageCompleted("t", "u", "i", "the answer"), end)
      yield* run(end)
    }).pipe(Effect.provide(layer)))

  it.effect("is not taken for one of another thread that has the same id", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const threads = [yield* openThread("a"), yield* openThread("b")]
      const results = yield* Effect.forkChild(
        Effect.forEach(threads, (thread) => thread.run("hi"), { concurrency: "unbounded" })
      )
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: { id: "u" } })
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: { id: "u" } })
      for (const id of ["a", "b"]) {
        yield* fake.emit(Fake.messageCompleted(id, "u", "i", `of ${id}`), Fake.turnCompleted(id, "u"))
      }
      assert.deepStrictEqual((yield* Fiber.join(results)).map(({ finalResponse }) => finalResponse), ["of a", "of b"])
    }).pipe(Effect.provide(layer)))

  it.effect("passes on events that a newer server sends of it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const events = yield* Effect.forkChild(Stream.runCollect(thread.stream("hi")))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      const unknown = { method: "turn/dreamt", params: { threadId: "t", turnId: "u", of: "sheep" }, emittedAtMs: 5 }
      const odd = {
        method: "item/completed",
        params: { threadId: "t", turnId: "u", completedAtMs: 1, item: { type: "dream", id: "d", of: ["sheep"] } }
      }
      yield* fake.emit(unknown, odd, Fake.turnCompleted("t", "u"))
      assert.deepStrictEqual<unknown>((yield* Fiber.join(events)).slice(0, 2), [unknown, odd])
    }).pipe(Effect.provide(layer)))
})

describe("interrupting", () => {
  const interrupted = (id: string) => Fake.turnCompleted("t", id, "interrupted")

  it.effect("a fiber that waits for the answer to turn/start waits for it, and interrupts the turn that it names", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      const start = yield* fake.takeMethod("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* Effect.yieldNow
      yield* fake.reply(start, { turn: Fake.turn("u") })
      const interrupt = yield* fake.takeMethod("turn/interrupt")
      // The server does not know the turn by its id before `turn/started`.
      assert.deepStrictEqual(interrupt.params, { threadId: "t", turnId: "" })
      yield* fake.reply(interrupt, {})
      assert.strictEqual(interrupting.pollUnsafe(), undefined)
      yield* fake.emit(interrupted("u"))
      yield* Fiber.join(interrupting)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(run)))
    }).pipe(Effect.provide(layer)))

  it.effect("a fiber whose turn has started interrupts it by its id, once, and waits for its end", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      yield* Effect.yieldNow
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      const interrupt = yield* fake.takeMethod("turn/interrupt")
      assert.deepStrictEqual(interrupt.params, { threadId: "t", turnId: "u" })
      yield* fake.reply(interrupt, {})
      assert.strictEqual(interrupting.pollUnsafe(), undefined)
      yield* fake.emit(interrupted("u"))
      yield* Fiber.join(interrupting)
      assert.strictEqual(fake.sent.filter((message) => message.method === "turn/interrupt").length, 1)
    }).pipe(Effect.provide(layer)))

  it.effect("does not wait forever for a server that does not answer", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* fake.takeMethod("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(interrupting)

      const second = yield* Effect.forkChild(thread.run("hi"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("v") })
      yield* Effect.yieldNow
      const again = yield* Effect.forkChild(Fiber.interrupt(second))
      // The first start might still join this turn, so that is waited for before the turn is interrupted.
      yield* TestClock.adjust("5 seconds")
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(again)
    }).pipe(Effect.provide(layer)))

  it.effect("ends at once when the connection ends", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* fake.takeMethod("turn/start")
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* Effect.yieldNow
      yield* fake.end(killed)
      yield* Fiber.join(interrupting)
    }).pipe(Effect.provide(layer)))

  it.effect("happens when the scope of a turn closes, not when the turn has ended", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const scope = yield* Scope.make()
      const starting = yield* Effect.forkChild(Scope.provide(thread.turn("hi"), scope))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* Fiber.join(starting)
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
      yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      assert.isFalse(fake.sent.some((message) => message.method === "turn/interrupt"))
    }).pipe(Effect.provide(layer)))

  it.effect("happens when a stream is left early", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const first = yield* Effect.forkChild(Stream.runCollect(Stream.take(thread.stream("hi"), 1)))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      const interrupt = yield* fake.takeMethod("turn/interrupt")
      yield* fake.reply(interrupt, {})
      yield* fake.emit(interrupted("u"))
      assert.strictEqual((yield* Fiber.join(first)).length, 1)
    }).pipe(Effect.provide(layer)))

  it.effect("one of two runs that share a turn leaves it running, the last one ends it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const first = yield* Effect.forkChild(thread.run("one"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      const second = yield* Effect.forkChild(thread.run("two"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* Fiber.interrupt(first)
      assert.isFalse(fake.sent.some((message) => message.method === "turn/interrupt"))
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(second))
      yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
      yield* fake.emit(interrupted("u"))
      yield* Fiber.join(interrupting)
    }).pipe(Effect.provide(layer)))

  it.effect("happens also when the answer to turn/start comes long after it was given up on", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const timedOut = yield* Effect.forkChild(Effect.flip(thread.run("hi")))
      const first = yield* fake.takeMethod("turn/start")
      yield* TestClock.adjust("60 seconds")
      const failure = yield* Fiber.join(timedOut)
      assert(failure._tag === "AppServerError" && failure.reason._tag === "RequestTimeout")

      const left = yield* Effect.forkChild(thread.run("hi"))
      const second = yield* fake.takeMethod("turn/start")
      const leaving = yield* Effect.forkChild(Fiber.interrupt(left))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(leaving)

      for (const [request, id] of [[first, "u"], [second, "v"]] as const) {
        yield* fake.emit(Fake.turnStarted("t", id))
        yield* fake.reply(request, { turn: Fake.turn(id) })
        yield* TestClock.adjust("5 seconds")
        const interrupt = yield* fake.takeMethod("turn/interrupt")
        assert.deepStrictEqual(interrupt.params, { threadId: "t", turnId: id })
        yield* fake.reply(interrupt, {})
        yield* fake.emit(interrupted(id))
      }
    }).pipe(Effect.provide(layer)))

  it.effect("of a start that was given up on leaves the turn to another start that has joined it, whole", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      yield* Effect.forkChild(Effect.exit(thread.run("one")))
      const first = yield* fake.takeMethod("turn/start")
      yield* TestClock.adjust("59 seconds")
      const run = yield* Effect.forkChild(thread.run("two"))
      const second = yield* fake.takeMethod("turn/start")
      yield* TestClock.adjust("1 second")
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.messageCompleted("t", "u", "i", "kept"))
      yield* fake.reply(first, { turn: Fake.turn("u") })
      yield* TestClock.adjust("1 second")
      yield* fake.reply(second, { turn: Fake.turn("u") })
      yield* TestClock.adjust("10 seconds")
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* Fiber.join(run)).finalResponse, "kept")
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
    }).pipe(Effect.provide(layer)))

  it.effect("takes back a start that was never sent, at once, and sends nothing for it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      const blocking = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: places }), () => server.request("model/list"), { concurrency: "unbounded" })
      )
      yield* Effect.forEach(Array.from({ length: places }), () => fake.takeMethod("model/list"))
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(run)
      yield* Fiber.interrupt(blocking)
      assert.isFalse(fake.sent.some(({ method }) => method === "turn/start" || method === "turn/interrupt"))
    }).pipe(Effect.provide(layer)))

  it.effect("of one start does not touch another start of the thread", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const first = yield* Effect.forkChild(thread.run("one"))
      const firstStart = yield* fake.takeMethod("turn/start")
      const second = yield* Effect.forkChild(thread.run("two"))
      yield* fake.takeMethod("turn/start")
      const leaving = yield* Effect.forkChild(Fiber.interrupt(first))
      yield* Effect.yieldNow
      yield* fake.emit(Fake.turnStarted("t", "u"))
      yield* fake.reply(firstStart, { turn: Fake.turn("u") })
      // The second start has not been answered: it may join the turn, so that is waited for, but not forever.
      yield* TestClock.adjust("5 seconds")
      const interrupt = yield* fake.takeMethod("turn/interrupt")
      assert.deepStrictEqual(interrupt.params, { threadId: "t", turnId: "u" })
      yield* fake.reply(interrupt, {})
      yield* fake.emit(interrupted("u"))
      yield* Fiber.join(leaving)
      assert.strictEqual(second.pollUnsafe(), undefined)
    }).pipe(Effect.provide(layer)))

  it.effect("is tried again when the server is too busy for it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      yield* Effect.yieldNow
      const leaving = yield* Effect.forkChild(Fiber.interrupt(run))
      const { id } = yield* fake.takeMethod("turn/interrupt")
      yield* fake.emit({ id, error: { code: -32001, message: "Server overloaded; retry later." } })
      yield* Effect.yieldNow
      yield* TestClock.adjust("1 second")
      yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
      yield* fake.emit(interrupted("u"))
      yield* Fiber.join(leaving)
    }).pipe(Effect.provide(layer)))

  it.effect("without an end leaves nobody waiting once the connection has ended", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const scope = yield* Scope.make()
      const starting = yield* Effect.forkChild(Scope.provide(thread.turn("hi"), scope))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      const turn = yield* Fiber.join(starting)
      yield* fake.emit(Fake.turnStarted("t", "u"))
      const result = yield* Effect.forkChild(Effect.flip(turn.result))
      const closing = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.join(closing)
      yield* fake.end(killed)
      assert.deepStrictEqual(yield* Fiber.join(result), killed)
      assert.deepStrictEqual(yield* Effect.flip(Stream.runDrain(turn.events)), killed)
    }).pipe(Effect.provide(layer)))
})

describe("compaction", () => {
  it.effect("is done when its turn is", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* fake.reply(yield* fake.takeMethod("thread/compact/start"), {})
      yield* fake.emit(Fake.turnStarted("t", "c"))
      yield* Effect.yieldNow
      assert.strictEqual(compacting.pollUnsafe(), undefined)
      yield* fake.emit(Fake.turnCompleted("t", "c"))
      yield* Fiber.join(compacting)
    }).pipe(Effect.provide(layer)))

  it.effect("is not taken for a turn that runs at the same time", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(thread.run("hi"))
      const start = yield* fake.takeMethod("turn/start")
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* fake.reply(yield* fake.takeMethod("thread/compact/start"), {})
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u", "interrupted"))
      yield* fake.reply(start, { turn: Fake.turn("u") })
      assert.strictEqual((yield* Fiber.join(run)).status, "interrupted")
      assert.strictEqual(compacting.pollUnsafe(), undefined)
      yield* fake.emit(
        Fake.turnStarted("t", "c"),
        {
          method: "item/started",
          params: { threadId: "t", turnId: "c", startedAtMs: 1, item: { type: "contextCompaction", id: "i" } }
        },
        Fake.turnCompleted("t", "c")
      )
      yield* Fiber.join(compacting)
    }).pipe(Effect.provide(layer)))

  it.effect("that is interrupted has not been done", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(Effect.flip(thread.compact))
      yield* fake.reply(yield* fake.takeMethod("thread/compact/start"), {})
      yield* fake.emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c", "interrupted"))
      assert.strictEqual((yield* Fiber.join(compacting))._tag, "TurnFailed")
    }).pipe(Effect.provide(layer)))

  it.effect("that is left before its turn is known does not interrupt another turn of the program", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      yield* Effect.forkChild(thread.run("hi"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"))
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* fake.takeMethod("thread/compact/start")
      yield* Fiber.interrupt(compacting)
      assert.isFalse(fake.sent.some(({ method }) => method === "turn/interrupt"))
    }).pipe(Effect.provide(layer)))

  it.effect("that is left before it was sent interrupts nothing", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      const read = Effect.forkChild(server.request("thread/loaded/list"))
      yield* Effect.forEach(Array.from({ length: places }), () => read)
      yield* Effect.forEach(Array.from({ length: places }), () => fake.take)
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* Effect.yieldNow
      yield* Fiber.interrupt(compacting).pipe(Effect.forkChild)
      yield* TestClock.adjust("5 seconds")
      assert.isTrue(compacting.pollUnsafe() !== undefined)
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
    }).pipe(Effect.provide(layer)))

  it.effect("that fails is a TurnFailed", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const compacting = yield* Effect.forkChild(Effect.flip(thread.compact))
      const { id } = yield* fake.takeMethod("thread/compact/start")
      yield* fake.emit(
        Fake.turnStarted("t", "c"),
        Fake.turnCompleted("t", "c", "failed", {
          error: { message: "too much", codexErrorInfo: "contextWindowExceeded" }
        }),
        { id, result: {} }
      )
      const failure = yield* Fiber.join(compacting)
      assert(failure._tag === "TurnFailed")
      assert.strictEqual(failure.codexErrorInfo, "contextWindowExceeded")
    }).pipe(Effect.provide(layer)))
})

describe("a slow reader of one turn", () => {
  it.effect("holds up no other turn and gets the whole text in fewer pieces", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const slow = yield* openThread("slow")
      const fast = yield* openThread("fast")
      const gate = yield* Deferred.make<void>()
      let pieces = 0
      const slowText = yield* Effect.forkChild(
        slow.stream("hi").pipe(
          Stream.tap((event) => event.method === "turn/started" ? Deferred.await(gate) : Effect.sync(() => pieces++)),
          Stream.filter((event) => event.method === "item/agentMessage/delta"),
          Stream.runFold(() => "", (text, event) => text + event.params.delta)
        )
      )
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("s") })
      const fastResult = yield* Effect.forkChild(fast.run("hi"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("f") })
      yield* fake.emit(Fake.turnStarted("slow", "s"), Fake.turnStarted("fast", "f"))
      const count = 50_000
      for (let at = 0; at < count; at += 1000) {
        yield* fake.emit(...Array.from({ length: 1000 }, (_, index) => Fake.delta("slow", "s", "i", `${at + index} `)))
      }
      yield* fake.emit(Fake.turnCompleted("slow", "s"))
      yield* fake.emit(Fake.messageCompleted("fast", "f", "j", "quick"), Fake.turnCompleted("fast", "f"))
      assert.strictEqual((yield* Fiber.join(fastResult)).finalResponse, "quick")
      yield* Deferred.succeed(gate, undefined)
      assert.strictEqual(yield* Fiber.join(slowText), Array.from({ length: count }, (_, index) => `${index} `).join(""))
      assert.isBelow(pieces, 3_000)
    }).pipe(Effect.provide(layer)))
})
