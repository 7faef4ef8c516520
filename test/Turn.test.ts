import { assert, layer } from "@effect/vitest"
import { Codex, type Thread, type Turn } from "effect-codex"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as TestCodex from "./TestCodex.ts"

const startThread = Effect.flatMap(Codex.Codex, (codex) => codex.startThread())

/** Starts a turn on a new thread, to which the model sends these replies. */
const startTurn = Effect.fnUntraced(function*(...replies: ReadonlyArray<ModelServer.Reply>) {
  const model = yield* ModelServer.ModelServer
  const thread = yield* startThread
  yield* model.enqueue(...replies)
  return { thread, turn: yield* thread.turn("go") }
})

/** Starts a turn whose model sends half a message and then nothing. */
const startHangingTurn = Effect.gen(function*() {
  const asked = yield* TestCodex.nextRequest
  const started = yield* startTurn(TestCodex.halfMessage)
  yield* asked
  return started
})

const getMethods = (events: ReadonlyArray<Turn.TurnEvent>) => events.map(({ method }) => method)

const collectText = (turn: Turn.Turn) => Effect.map(Stream.runCollect(turn.text), (pieces) => pieces.join(""))

const followUp = Effect.fnUntraced(function*(thread: Thread.Thread) {
  const model = yield* ModelServer.ModelServer
  yield* model.enqueue(ModelServer.text("back again"))
  assert.strictEqual((yield* thread.run("go on")).finalResponse, "back again")
})

layer(TestCodex.layer(), { excludeTestServices: true })("Turn.events", (it) => {
  it.effect("emits the same events to early subscribers, late ones, and those after the end", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const { turn } = yield* startTurn(message.reply)
      const early = yield* Effect.forkChild(Stream.runCollect(turn.events))
      yield* message.say("one")
      const first = yield* Stream.runHead(Stream.filter(turn.events, isDelta))
      assert.strictEqual(first._tag, "Some")

      const late = yield* Effect.forkChild(Stream.runCollect(turn.events))
      yield* message.finish
      const events = yield* Fiber.join(early)
      assert.deepStrictEqual(yield* Fiber.join(late), events)
      assert.deepStrictEqual(yield* Stream.runCollect(turn.events), events)
      assert.deepStrictEqual(yield* Stream.runCollect(turn.events), events)

      const methods = getMethods(events)
      assert.strictEqual(methods[0], "turn/started")
      assert.strictEqual(methods.at(-1), "turn/completed")
      assert.lengthOf(methods.filter((method) => method === "turn/completed"), 1)
      for (const event of events) assert.include(JSON.stringify(event), `"${turn.threadId}"`)
    }))

  it.effect("emits events to the other subscribers after one has unsubscribed", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const { turn } = yield* startTurn(message.reply)
      const all = yield* Effect.forkChild(Stream.runCollect(turn.events))
      const [first] = yield* Stream.runCollect(Stream.take(turn.events, 1))
      assert.strictEqual(first?.method, "turn/started")
      const leaving = yield* Effect.forkChild(Stream.runDrain(turn.events))
      yield* Fiber.interrupt(leaving)
      yield* message.say("for the others")
      yield* message.finish
      assert.strictEqual((yield* Fiber.join(all)).at(-1)?.method, "turn/completed")
      const result = yield* turn.result
      assert.strictEqual(result.status, "completed")
      assert.strictEqual(result.finalResponse, "for the others")
    }))

  it.effect("emits only events of its turn when the thread has others", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { thread, turn: first } = yield* startTurn(ModelServer.text("first"))
      yield* first.result
      yield* model.enqueue(ModelServer.text("second"))
      const second = yield* thread.turn("again")
      yield* second.result
      assert.notStrictEqual(first.id, second.id)
      for (const [turn, other] of [[first, second], [second, first]] as const) {
        const events = JSON.stringify(yield* Stream.runCollect(turn.events))
        assert.include(events, turn.id)
        assert.notInclude(events, other.id)
      }
    }))

  it.effect("emits events in order, and longer deltas to a slow subscriber", () =>
    Effect.gen(function*() {
      const parts = Array.from({ length: 2_000 }, (_, index) => `${index} `)
      const { turn } = yield* startTurn(ModelServer.reply([
        ModelServer.deltas(parts, { phase: "commentary" }),
        ModelServer.deltas(parts, { phase: "final_answer" })
      ]))
      const slow = yield* Effect.forkChild(Stream.runCollect(
        Stream.tap(turn.events, (event) => isDelta(event) ? Effect.asVoid(turn.result) : Effect.void)
      ))
      const result = yield* turn.result
      const events = yield* Fiber.join(slow)
      const texts = new Map<string, string>()
      for (const { params } of events.filter(isDelta)) {
        texts.set(params.itemId, (texts.get(params.itemId) ?? "") + params.delta)
      }
      assert.deepStrictEqual([...texts.values()], [parts.join(""), parts.join("")])
      assert.strictEqual(result.finalResponse, parts.join(""))
      assert.isBelow(events.length, 2_000)
      assert.strictEqual(events.at(-1)?.method, "turn/completed")
    }))

  const isDelta = (event: Turn.TurnEvent): event is Extract<Turn.TurnEvent, { method: "item/agentMessage/delta" }> =>
    event.method === "item/agentMessage/delta"
})

layer(TestCodex.layer(), { excludeTestServices: true })("Turn.text", (it) => {
  it.effect("emits text as the model sends it", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const { turn } = yield* startTurn(message.reply)
      const pull = yield* Stream.toPull(turn.text)
      yield* message.say("he")
      assert.deepStrictEqual(yield* pull, ["he"])
      yield* message.say("llo")
      assert.deepStrictEqual(yield* pull, ["llo"])
      yield* message.finish
      assert.strictEqual((yield* Effect.flip(pull))._tag, "Done")
      assert.strictEqual(yield* collectText(turn), "hello")
      assert.strictEqual((yield* turn.result).finalResponse, "hello")
    }))

  it.effect("separates two messages with a blank line, also if one has no deltas", () =>
    Effect.gen(function*() {
      const { turn } = yield* startTurn(ModelServer.reply([
        ModelServer.message("Working.", { phase: "commentary" }),
        ModelServer.deltas(["Do", "ne."], { phase: "final_answer" })
      ]))
      assert.strictEqual(yield* collectText(turn), "Working.\n\nDone.")
    }))

  it.effect("emits only the text of its turn while another turn runs", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const messages = { a: yield* TestCodex.heldMessage, b: yield* TestCodex.heldMessage }
      const threads = { a: yield* startThread, b: yield* startThread }
      yield* model.respond((request) => request.promptCacheKey === threads.a.id ? messages.a.reply : messages.b.reply)
      const turns = { a: yield* threads.a.turn("go"), b: yield* threads.b.turn("go") }
      const pulls = { a: yield* Stream.toPull(turns.a.text), b: yield* Stream.toPull(turns.b.text) }
      for (const round of ["1", "2", "3"]) {
        for (const name of ["a", "b"] as const) {
          yield* messages[name].say(name + round)
          assert.deepStrictEqual(yield* pulls[name], [name + round])
        }
      }
      yield* Effect.andThen(messages.a.finish, messages.b.finish)
      assert.strictEqual((yield* turns.b.result).finalResponse, "b1b2b3")
      assert.strictEqual((yield* turns.a.result).finalResponse, "a1a2a3")
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Turn.result", (it) => {
  it.effect("returns the same result to callers before the end and after", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const { thread, turn } = yield* startTurn(message.reply)
      assert.strictEqual(turn.threadId, thread.id)
      const waiting = yield* Effect.forkChild(Effect.replicateEffect(turn.result, 3, { concurrency: "unbounded" }))
      yield* message.say("the one result")
      yield* message.finish
      const after = yield* turn.result
      assert.strictEqual(after.id, turn.id)
      assert.strictEqual(after.finalResponse, "the one result")
      assert.deepStrictEqual(yield* Fiber.join(waiting), [after, after, after])
      assert.deepStrictEqual(yield* turn.result, after)
    }))

  it.effect("does not interrupt the turn when a caller times out", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const { turn } = yield* startTurn(message.reply)
      assert.strictEqual((yield* Effect.timeoutOption(turn.result, "20 millis"))._tag, "None")
      yield* message.say("in time")
      yield* message.finish
      assert.strictEqual((yield* turn.result).finalResponse, "in time")
    }))

  it.effect("fails for each caller when the turn fails, while the events end without a failure", () =>
    Effect.gen(function*() {
      const { turn } = yield* startTurn(ModelServer.failed(
        { code: "rate_limit_exceeded", message: "slow down" },
        [ModelServer.message("so far")]
      ))
      const failure = yield* Effect.flip(turn.result)
      assert.strictEqual(failure._tag, "TurnFailed")
      assert.deepInclude(failure, { turnId: turn.id, threadId: turn.threadId, codexErrorInfo: "rateLimitExceeded" })
      assert.deepStrictEqual(yield* Effect.flip(turn.result), failure)
      assert.strictEqual((yield* Stream.runCollect(turn.events)).at(-1)?.method, "turn/completed")
      assert.strictEqual(yield* collectText(turn), "so far")
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Turn.steer", (it) => {
  it.effect("adds input to the same turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { thread, turn } = yield* startHangingTurn
      yield* model.enqueue(ModelServer.text("steered"))
      yield* turn.steer("the other way")
      const result = yield* turn.result
      assert.strictEqual(result.id, turn.id)
      assert.strictEqual(result.finalResponse, "steered")
      const requests = yield* TestCodex.getRequests(thread.id)
      assert.lengthOf(requests, 2)
      assert.deepStrictEqual(requests[1]?.userTexts.slice(-2), ["go", "the other way"])
      assert.lengthOf(yield* TestCodex.readTurns(thread.id), 1)
    }))

  it.effect("adds input to a turn that the server has not begun", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.respond((request) =>
        request.lastUserText === "stop hanging" ? ModelServer.text("steered") : TestCodex.halfMessage
      )
      yield* model.enqueue(ModelServer.text("stored"))
      yield* thread.run("store")
      const turn = yield* thread.turn("hang")
      yield* turn.steer("stop hanging")
      assert.strictEqual((yield* turn.result).finalResponse, "steered")
    }))

  it.effect("fails with TurnEnded after the end, and with InvalidRequest for too long input", () =>
    Effect.gen(function*() {
      const { turn } = yield* startTurn(ModelServer.text("done"))
      yield* turn.result
      const late = yield* Effect.flip(turn.steer("too late"))
      assert.deepInclude(late.reason, { _tag: "TurnEnded", turnId: turn.id })

      const wire = yield* TestCodex.Wire
      const before = yield* wire.sent
      const long = yield* Effect.flip(turn.steer("x".repeat(1_048_577)))
      assert.strictEqual(long.reason._tag, "InvalidRequest")
      assert.deepStrictEqual(yield* wire.sent, before)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Turn.interrupt", (it) => {
  it.effect("ends the turn with the status interrupted, and keeps the thread usable", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { thread, turn } = yield* startHangingTurn
      yield* turn.interrupt
      const result = yield* turn.result
      assert.strictEqual(result.status, "interrupted")
      assert.isUndefined(result.finalResponse)
      assert.strictEqual(result.items[0]?.type, "userMessage")
      yield* model.awaitIdle
      assert.strictEqual((yield* Stream.runCollect(turn.events)).at(-1)?.method, "turn/completed")
      assert.deepStrictEqual((yield* TestCodex.readTurns(thread.id)).map(({ id, status }) => ({ id, status })), [
        { id: turn.id, status: "interrupted" }
      ])
      yield* followUp(thread)
    }))

  it.effect("interrupts a turn that the server has not begun", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.respond((request) =>
        request.lastUserText === "hang" ? TestCodex.halfMessage : ModelServer.text("fine")
      )
      yield* thread.run("store")
      for (let round = 0; round < 5; round++) {
        const turn = yield* thread.turn("hang")
        yield* turn.interrupt
        assert.strictEqual((yield* turn.result).status, "interrupted")
        yield* model.awaitIdle
      }
      assert.strictEqual((yield* thread.run("go on")).finalResponse, "fine")
    }))

  it.effect("sends nothing for a turn that has ended", () =>
    Effect.gen(function*() {
      const wire = yield* TestCodex.Wire
      const { thread, turn } = yield* startHangingTurn
      yield* Effect.all([turn.interrupt, turn.interrupt], { concurrency: "unbounded" })
      const result = yield* turn.result
      assert.strictEqual(result.status, "interrupted")
      yield* followUp(thread)

      const before = yield* wire.sent
      yield* turn.interrupt
      assert.deepStrictEqual(yield* wire.sent, before)
      assert.deepStrictEqual(yield* turn.result, result)
    }))

  it.effect("does not interrupt the turns of other threads", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const asked = yield* TestCodex.nextRequest
      const other = yield* startTurn(message.reply)
      yield* asked
      const { turn } = yield* startHangingTurn
      yield* turn.interrupt
      assert.strictEqual((yield* turn.result).status, "interrupted")
      yield* message.say("undisturbed")
      yield* message.finish
      assert.strictEqual((yield* other.turn.result).finalResponse, "undisturbed")
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Scope of a turn", (it) => {
  it.effect("interrupts the turn when it closes, and keeps its events readable", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { thread, turn } = yield* Effect.scoped(startHangingTurn)
      yield* model.awaitIdle
      assert.strictEqual((yield* turn.result).status, "interrupted")
      const methods = getMethods(yield* Stream.runCollect(turn.events))
      assert.strictEqual(methods[0], "turn/started")
      assert.strictEqual(methods.at(-1), "turn/completed")
      yield* followUp(thread)
    }))

  it.effect("does not interrupt a turn that another handle holds", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { thread, turn } = yield* startHangingTurn
      const message = yield* TestCodex.heldMessage
      yield* model.enqueue(message.reply)
      const asked = yield* TestCodex.nextRequest
      yield* Effect.scoped(Effect.gen(function*() {
        const joined = yield* thread.turn("join")
        assert.strictEqual(joined.id, turn.id)
        yield* asked
      }))
      yield* message.say("still running")
      yield* message.finish
      const result = yield* turn.result
      assert.strictEqual(result.status, "completed")
      assert.strictEqual(result.finalResponse, "still running")
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("End of the server of a turn", (it) => {
  it.effect("fails the turn and every later call with ConnectionClosed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const services = yield* Layer.buildWithScope(TestCodex.layerProcess(), scope)
      const { thread, turn } = yield* Effect.provide(startHangingTurn, services)
      const waiting = yield* Effect.forkChild(Effect.all([
        TestCodex.expectReason(turn.result),
        TestCodex.expectReason(Stream.runDrain(turn.events)),
        TestCodex.expectReason(Stream.runDrain(turn.text))
      ], { concurrency: "unbounded" }))
      yield* Scope.close(scope, Exit.void)

      for (const reason of yield* Fiber.join(waiting)) assert.strictEqual(reason._tag, "ConnectionClosed")
      for (
        const effect of [
          Effect.asVoid(turn.result),
          Stream.runDrain(turn.events),
          turn.steer("hello?"),
          Effect.asVoid(thread.run("hello?")),
          Effect.asVoid(thread.read())
        ]
      ) {
        assert.strictEqual((yield* TestCodex.expectReason(effect))._tag, "ConnectionClosed")
      }
      assert.isDefined(Context.get(services, Codex.Codex).metadata)
    }))

  it.effect("stores the turn as interrupted, for the next server", () =>
    Effect.gen(function*() {
      const inProcess = Effect.provide(TestCodex.layerProcess(), { local: true })
      const scope = yield* Scope.make()
      const { thread, turn } = yield* startHangingTurn.pipe(Scope.provide(scope), inProcess)
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const resumed = yield* codex.resumeThread(thread.id)
        const { turns } = yield* resumed.read({ includeTurns: true })
        assert.deepStrictEqual(turns.map(({ id, status }) => ({ id, status })), [
          { id: turn.id, status: "interrupted" }
        ])
        yield* followUp(resumed)
      }).pipe(inProcess)
      yield* Scope.close(scope, Exit.void)
    }))
})
