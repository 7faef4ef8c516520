/** Turns of a server that outlives its connections, for each order of the messages after a reconnect. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Approvals from "../../../src/Approvals.ts"
import * as AppServer from "../../../src/AppServer.ts"
import * as Codex from "../../../src/Codex.ts"
import * as Transport from "../../../src/Transport.ts"
import * as Fake from "../../FakeTransport.ts"
import {
  commandRequest,
  emit,
  expectReason,
  getResponses,
  getSent,
  heldApprovals,
  openThread,
  receive,
  reject,
  respond,
  restart,
  settle,
  startTurn
} from "../../scenario.ts"

/** Codex on a fake server that outlives its connections, and connects again after a second. */
const layerShared = Codex.layer.pipe(
  Layer.provideMerge(AppServer.layer({ restart: Schedule.spaced("1 second") })),
  Layer.provide(Layer.effect(
    Transport.Transport,
    Effect.map(Transport.Transport, ({ connect }) => ({
      connect: Effect.map(connect, (connection) => ({ ...connection, isShared: true }))
    }))
  )),
  Layer.provideMerge(Fake.layer)
)

const message = (id: string, text: string, completedAtMs: number | null = 1) => ({
  type: "agentMessage",
  id,
  text,
  phase: null,
  startedAtMs: 1,
  completedAtMs
})

const messageStarted = (id: string) => ({
  method: "item/started",
  params: { threadId: "t", turnId: "u", item: message(id, ""), startedAtMs: 1 },
  emittedAtMs: 1
})

const stored = (items: ReadonlyArray<object>, status = "inProgress", more: object = {}) => ({
  data: [Fake.turn("u", status, { items, ...more })]
})

const activeThread = (status = "active") => {
  const response = Fake.threadResponse("t")
  return { ...response, thread: { ...response.thread, status: { type: status, activeFlags: [] } } }
}

/** Responds to the requests that open the thread again and report its token usage. */
const reopen = Effect.fnUntraced(function*(status?: string) {
  yield* respond("thread/resume", activeThread(status))
  yield* respond("thread/resume", activeThread(status))
  yield* respond("thread/read", { thread: activeThread(status).thread })
})

/** Starts a turn whose message has one delta. */
const startMessage = Effect.gen(function*() {
  const thread = yield* openThread("t")
  const turn = yield* Effect.flatMap(startTurn(thread.turn("go"), "u"), Fiber.join)
  const text = yield* Effect.forkChild(Stream.mkString(turn.text), { startImmediately: true })
  const events = yield* Effect.forkChild(Stream.runCollect(turn.events), { startImmediately: true })
  yield* emit(Fake.turnStarted("t", "u"), messageStarted("i"), Fake.delta("t", "u", "i", "one "))
  yield* settle
  return {
    thread,
    turn,
    text: Fiber.join(text),
    methods: Effect.map(Fiber.join(events), (events) => events.map(({ method }) => String(method)))
  }
})

describe("Turn of a shared server", () => {
  it.effect("replays what was lost before what has arrived since", () =>
    Effect.gen(function*() {
      const { methods, text, turn } = yield* startMessage
      yield* restart
      yield* reopen()
      const list = yield* receive("thread/turns/list")
      yield* emit(
        Fake.delta("t", "u", "j", "lost start "),
        Fake.messageCompleted("t", "u", "j", "two"),
        Fake.turnCompleted("t", "u")
      )
      yield* settle
      yield* respond(list, stored([message("i", "one and more")]))
      const { items } = yield* turn.result
      assert.deepStrictEqual(items.map(({ id }: any) => id), ["i", "j"])
      assert.strictEqual(yield* text, "one and more\n\ntwo")
      assert.deepStrictEqual(yield* methods, [
        "turn/started",
        "item/started",
        "item/agentMessage/delta",
        "effect-codex/restarted",
        "item/completed",
        "item/completed",
        "turn/completed"
      ])
    }).pipe(Effect.scoped, Effect.provide(layerShared)))

  it.effect("emits an item once that the server has stored before it reports the item", () =>
    Effect.gen(function*() {
      const { text, turn } = yield* startMessage
      yield* restart
      yield* reopen()
      yield* respond("thread/turns/list", stored([message("i", "one "), message("j", "two")]))
      yield* emit(
        Fake.turnStarted("t", "u"),
        Fake.messageCompleted("t", "u", "i", "one "),
        messageStarted("j"),
        Fake.delta("t", "u", "j", "two"),
        Fake.messageCompleted("t", "u", "j", "two"),
        messageStarted("k"),
        Fake.delta("t", "u", "k", "three"),
        Fake.messageCompleted("t", "u", "k", "three"),
        Fake.turnCompleted("t", "u")
      )
      assert.deepStrictEqual((yield* turn.result).items.map(({ id }: any) => id), ["i", "j", "k"])
      assert.strictEqual(yield* text, "one \n\ntwo\n\nthree")
    }).pipe(Effect.scoped, Effect.provide(layerShared)))

  it.effect("is joined when the server runs it and has not stored it yet", () =>
    Effect.gen(function*() {
      const { turn } = yield* startMessage
      yield* restart
      yield* reopen()
      yield* respond("thread/turns/list", { data: [] })
      yield* respond("thread/read", { thread: activeThread().thread })
      yield* emit(Fake.messageCompleted("t", "u", "i", "one two"), Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* turn.result).finalResponse, "one two")
    }).pipe(Effect.scoped, Effect.provide(layerShared)))

  it.effect("fails with TurnLost when the server neither runs nor stores it", () =>
    Effect.gen(function*() {
      const { turn } = yield* startMessage
      yield* restart
      yield* reopen("idle")
      yield* respond("thread/turns/list", { data: [] })
      yield* respond("thread/read", { thread: activeThread("idle").thread })
      assert.strictEqual((yield* expectReason(turn.result))._tag, "TurnLost")
    }).pipe(Effect.scoped, Effect.provide(layerShared)))

  it.effect("is joined after a second lost connection", () =>
    Effect.gen(function*() {
      const { text, turn } = yield* startMessage
      yield* restart
      yield* reopen()
      yield* receive("thread/turns/list")
      yield* emit(Fake.messageCompleted("t", "u", "i", "one two"))
      yield* settle
      yield* restart
      yield* reopen()
      yield* respond("thread/turns/list", stored([message("i", "one two")]))
      yield* emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* turn.result).finalResponse, "one two")
      assert.strictEqual(yield* text, "one two")
    }).pipe(Effect.scoped, Effect.provide(layerShared)))
})

describe("turn/start whose response was lost", () => {
  const lose = Effect.gen(function*() {
    const thread = yield* openThread("t")
    const running = yield* Effect.forkChild(thread.run("go"))
    const { params } = yield* receive("turn/start")
    yield* restart
    yield* respond("thread/resume", activeThread())
    return { running, input: { type: "userMessage", id: "m", clientId: params.clientUserMessageId, content: [] } }
  })

  it.effect("is found by the id of its input", () =>
    Effect.gen(function*() {
      const { input, running } = yield* lose
      yield* respond("thread/read", { thread: activeThread().thread })
      yield* respond("thread/turns/list", { data: [] })
      yield* TestClock.adjust("50 millis")
      yield* respond("thread/read", { thread: activeThread().thread })
      yield* respond("thread/turns/list", stored([{ ...input, completedAtMs: 1 }]))
      yield* respond("thread/resume", activeThread())
      yield* respond("thread/read", { thread: activeThread().thread })
      yield* settle
      yield* emit(Fake.messageCompleted("t", "u", "i", "found"), Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* Fiber.join(running)).finalResponse, "found")
      assert.lengthOf(yield* getSent("turn/start"), 1)
    }).pipe(Effect.provide(layerShared)))

  it.effect("fails with ConnectionClosed when the server has no such input", () =>
    Effect.gen(function*() {
      const { running } = yield* lose
      yield* respond("thread/read", { thread: activeThread("idle").thread })
      yield* respond("thread/turns/list", stored([], "completed"))
      assert.strictEqual((yield* expectReason(Fiber.join(running)))._tag, "ConnectionClosed")
      assert.lengthOf(yield* getSent("turn/start"), 1)
    }).pipe(Effect.provide(layerShared)))

  it.effect("keeps the id that the caller gave to the input", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* Effect.forkChild(thread.run("go", { clientUserMessageId: "mine" }))
      assert.strictEqual((yield* receive("turn/start")).params.clientUserMessageId, "mine")
    }).pipe(Effect.provide(layerShared)))
})

describe("Approval of a shared server", () => {
  const asking = Effect.gen(function*() {
    const held = yield* heldApprovals
    const thread = yield* openThread("t", { approvals: held.approvals })
    const running = yield* startTurn(thread.run("go"), "u")
    yield* emit(Fake.turnStarted("t", "u"), commandRequest(7))
    yield* held.started
    return { held, running }
  })

  const join = Effect.gen(function*() {
    yield* reopen()
    yield* respond("thread/turns/list", stored([]))
  })

  it.effect("has one response when the server repeats it", () =>
    Effect.gen(function*() {
      const { held } = yield* asking
      yield* restart
      yield* reopen()
      yield* emit(commandRequest(7))
      yield* respond("thread/turns/list", stored([]))
      yield* settle
      yield* held.accept
      yield* settle
      assert.deepStrictEqual((yield* getResponses(7)).map(({ result }) => result.decision), ["accept"])
    }).pipe(Effect.provide(layerShared)))

  it.effect("has its response again when the server has not received it", () =>
    Effect.gen(function*() {
      const { held } = yield* asking
      yield* held.accept
      yield* settle
      yield* restart
      yield* reopen()
      yield* emit(commandRequest(7))
      yield* respond("thread/turns/list", stored([]))
      yield* settle
      assert.deepStrictEqual((yield* getResponses(7)).map(({ result }) => result.decision), ["accept", "accept"])
    }).pipe(Effect.provide(layerShared)))

  it.effect("interrupts its handler when the server does not repeat it", () =>
    Effect.gen(function*() {
      const { held } = yield* asking
      yield* restart
      yield* join
      yield* held.interrupted
      assert.deepStrictEqual(yield* getResponses(7), [])
    }).pipe(Effect.provide(layerShared)))

  it.effect("runs the handler for each request, also if another server repeats the id", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const thread = yield* openThread("t", {
        approvals: { command: ({ itemId }) => Effect.sync(() => seen.push(itemId)).pipe(Effect.as(Approvals.accept)) }
      })
      yield* startTurn(thread.run("go"), "u")
      yield* emit(Fake.turnStarted("t", "u"), commandRequest(7))
      yield* settle
      yield* restart
      yield* reopen()
      yield* emit(commandRequest(7, { itemId: "other" }))
      yield* respond("thread/turns/list", stored([]))
      yield* settle
      assert.deepStrictEqual(seen, ["item7", "other"])
    }).pipe(Effect.provide(layerShared)))

  it.effect("interrupts its handler when another client responds", () =>
    Effect.gen(function*() {
      const { held } = yield* asking
      yield* restart
      yield* reopen()
      yield* emit(commandRequest(7))
      yield* respond("thread/turns/list", stored([]))
      yield* settle
      yield* emit(Fake.requestResolved("t", 7))
      yield* held.interrupted
      assert.deepStrictEqual(yield* getResponses(7), [])
    }).pipe(Effect.provide(layerShared)))
})

describe("Compaction of a shared server", () => {
  const compact = Effect.gen(function*() {
    const thread = yield* openThread("t")
    const compacting = yield* Effect.forkChild(thread.compact)
    yield* respond("thread/compact/start", {})
    yield* settle
    yield* restart
    return compacting
  })

  it.effect("continues when the server still runs it", () =>
    Effect.gen(function*() {
      const compacting = yield* compact
      yield* respond("thread/resume", activeThread())
      yield* respond("thread/read", { thread: activeThread().thread })
      const item = { type: "contextCompaction", id: "c" }
      yield* emit(
        { method: "item/completed", params: { threadId: "t", turnId: "u", item, completedAtMs: 1 }, emittedAtMs: 1 },
        Fake.turnCompleted("t", "u")
      )
      yield* Fiber.join(compacting)
    }).pipe(Effect.provide(layerShared)))

  it.effect("fails with TurnLost when it has ended", () =>
    Effect.gen(function*() {
      const compacting = yield* compact
      yield* respond("thread/resume", activeThread("idle"))
      yield* respond("thread/read", { thread: activeThread("idle").thread })
      assert.strictEqual((yield* expectReason(Fiber.join(compacting)))._tag, "TurnLost")
    }).pipe(Effect.provide(layerShared)))
})

describe("Thread of a shared server", () => {
  it.effect("is stored before it is opened again when it has had no turn", () =>
    Effect.gen(function*() {
      yield* openThread("t")
      yield* restart
      yield* reject("thread/resume", { code: -32600, message: "no rollout found for thread id t" })
      const { params } = yield* respond("thread/inject_items", {})
      assert.deepStrictEqual(params.items, [{ type: "effect_codex_stored" }])
      yield* receive("thread/resume")
    }).pipe(Effect.provide(layerShared)))
})
