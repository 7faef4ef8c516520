/** Orders of messages that the server sends rarely, about turns that the program watches. */
import { assert, describe, it } from "@effect/vitest"
import { Codex, type Thread, type ThreadView, Turn, type TurnView } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Fake from "../../FakeTransport.ts"
import {
  emit,
  expectReason,
  getSent,
  layer,
  openThread,
  receive,
  reject,
  respond,
  settle,
  startTurn
} from "../../scenario.ts"

/** Turn `u` of a thread, which runs until the test ends it. */
const runningTurn = Effect.fnUntraced(function*(thread: Thread.Thread) {
  const turn = yield* Fiber.join(yield* startTurn(thread.turn("go"), "u"))
  yield* emit(Fake.turnStarted(thread.id, "u"))
  yield* settle
  return turn
})

/** The call of turn `turnId` that spawned the sub-agent `agentId` has completed. */
const spawned = (threadId: string, turnId: string, agentId: string) => ({
  method: "item/completed",
  params: {
    threadId,
    turnId,
    item: {
      type: "collabAgentToolCall",
      id: `spawn ${agentId}`,
      tool: "spawnAgent",
      status: "completed",
      senderThreadId: threadId,
      receiverThreadIds: [agentId],
      prompt: "help",
      model: "m",
      agentsStates: {}
    },
    completedAtMs: 1
  },
  emittedAtMs: 1
})

/** The server reports the total tokens of a thread, and those of the last model request. */
const usageReported = (threadId: string, turnId: string, total: number, last: number) => {
  const count = (inputTokens: number) => ({
    totalTokens: inputTokens,
    inputTokens,
    cachedInputTokens: 0,
    outputTokens: 0,
    reasoningOutputTokens: 0
  })
  const tokenUsage = { total: count(total), last: count(last), modelContextWindow: null }
  return { method: "thread/tokenUsage/updated", params: { threadId, turnId, tokenUsage }, emittedAtMs: total }
}

const storedMessage = (id: string, text: string) => ({ type: "agentMessage", id, text, phase: null })

const command = (id: string) => ({
  type: "commandExecution",
  id,
  command: "make",
  cwd: "/repo",
  commandActions: [],
  status: "inProgress",
  aggregatedOutput: null,
  startedAtMs: 1,
  completedAtMs: null
})

const commandStarted = (threadId: string, turnId: string, id: string) => ({
  method: "item/started",
  params: { threadId, turnId, item: command(id), startedAtMs: 1 },
  emittedAtMs: 1
})

const messageStarted = (threadId: string, turnId: string, id: string) => ({
  method: "item/started",
  params: { threadId, turnId, item: storedMessage(id, ""), startedAtMs: 1 },
  emittedAtMs: 1
})

const texts = ({ items }: TurnView.TurnView) =>
  items.flatMap(({ item }) => item.type === "agentMessage" ? [item.text] : [])

/** Follows the view of a thread, whose stored turns are these. */
const followView = Effect.fnUntraced(function*(thread: Thread.Thread, ...turns: ReadonlyArray<object>) {
  const views: Array<ThreadView.ThreadView> = []
  yield* Effect.forkScoped(Stream.runForEach(thread.view, (view) => Effect.sync(() => views.push(view))), {
    startImmediately: true
  })
  yield* respond("thread/read", { thread: Fake.threadResponse(thread.id).thread })
  const [list, goal] = [yield* receive("thread/turns/list"), yield* receive("thread/goal/get")]
  const load = Effect.gen(function*() {
    yield* respond(list, { data: turns, nextCursor: null })
    yield* respond(goal, { goal: null })
    yield* settle
  })
  return { load, views }
})

describe("Thread.turns", () => {
  it.effect("fails the handles of a thread that is closed", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const next = yield* Effect.forkChild(Stream.runHead(thread.turns), { startImmediately: true })
      yield* settle
      yield* emit(Fake.turnStarted("t", "x"))
      const turn = Option.getOrThrow(yield* Fiber.join(next))
      const closing = yield* Effect.forkChild(thread.close)
      yield* respond("thread/unsubscribe", { status: "unsubscribed" })
      yield* Fiber.join(closing)
      const reason = yield* expectReason(turn.result)
      assert(reason._tag === "TurnLost")
      assert.include(reason.description, "closed")
    }).pipe(Effect.provide(layer())))

  it.effect("emits one handle of a turn whose start the server repeats", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const taking = yield* Effect.forkChild(Stream.runCollect(Stream.take(thread.turns, 2)), {
        startImmediately: true
      })
      yield* settle
      yield* emit(Fake.turnStarted("t", "x"), Fake.turnStarted("t", "x"), Fake.turnCompleted("t", "x"))
      yield* emit(Fake.turnStarted("t", "y"))
      assert.deepStrictEqual((yield* Fiber.join(taking)).map(({ id }) => id), ["x", "y"])
    }).pipe(Effect.provide(layer())))
})

describe("Thread.currentTurn", () => {
  it.effect("ends only its watch of a turn of this program when its scope is closed", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const turn = yield* runningTurn(thread)
      const watched = yield* Effect.scoped(Effect.flatMap(thread.currentTurn, Effect.fromOption))
      const reason = yield* expectReason(watched.result)
      assert.strictEqual(reason._tag, "TurnLost")
      yield* emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* turn.result).status, "completed")
    }).pipe(Effect.scoped, Effect.provide(layer())))
})

describe("Turn.subAgents", () => {
  it.effect("keeps no turn whose past a caller stops to read", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const turn = yield* runningTurn(thread)
      const spawning = yield* Effect.forkChild(Stream.runHead(turn.subAgents), { startImmediately: true })
      yield* emit(spawned("t", "u", "s"), Fake.subAgentStarted("s", "v", "u"))
      const agent = Option.getOrThrow(yield* Fiber.join(spawning))
      const attaching = yield* Effect.forkChild(Stream.runHead(agent.turns), { startImmediately: true })
      yield* receive("thread/resume")
      const { watched } = turn["~effect-codex/Turn"]!.session.turns
      assert.strictEqual(watched.size, 1)
      yield* Fiber.interrupt(attaching)
      assert.strictEqual(watched.size, 0)
      yield* emit(Fake.turnCompleted("t", "u"))
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("emit their running turn before the next one", () =>
    Effect.gen(function*() {
      const turn = yield* runningTurn(yield* openThread("t"))
      const spawning = yield* Effect.forkChild(Stream.runHead(turn.subAgents), { startImmediately: true })
      yield* emit(spawned("t", "u", "s"), Fake.subAgentStarted("s", "v", "u"))
      const agent = Option.getOrThrow(yield* Fiber.join(spawning))
      const turns = yield* Effect.forkChild(Stream.runCollect(Stream.take(agent.turns, 2)), { startImmediately: true })
      const request = yield* receive("thread/resume")
      yield* emit(Fake.turnCompleted("s", "v"), Fake.subAgentStarted("s", "w", "u"))
      yield* respond(request, { initialTurnsPage: { data: [Fake.turn("v")] } })
      assert.deepStrictEqual((yield* Fiber.join(turns)).map(({ id }) => id), ["v", "w"])
      yield* emit(Fake.turnCompleted("s", "w"), Fake.turnCompleted("t", "u"))
    }).pipe(Effect.scoped, Effect.provide(layer())))
})

describe("Turn.interruptWithSubAgents", () => {
  /** Interrupts turn `u`, and ends it. */
  const interrupt = Effect.fnUntraced(function*(turn: Turn.Turn) {
    const interrupting = yield* Effect.forkChild(Turn.interruptWithSubAgents(turn))
    yield* respond("turn/interrupt", {})
    yield* emit(Fake.turnCompleted("t", "u", "interrupted"))
    return interrupting
  })

  const interrupted = Effect.map(
    getSent("turn/interrupt"),
    (sent) => sent.map(({ params }) => [params.threadId, params.turnId])
  )

  it.effect("interrupts a sub-agent whose spawning call did not complete", () =>
    Effect.gen(function*() {
      const turn = yield* runningTurn(yield* openThread("t"))
      yield* emit(Fake.subAgentStarted("s", "v", "u"))
      yield* settle
      const interrupting = yield* interrupt(turn)
      yield* respond("turn/interrupt", {})
      yield* Fiber.join(interrupting)
      assert.deepStrictEqual(yield* interrupted, [["t", "u"], ["s", "v"]])
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("interrupts a sub-agent that another one spawns meanwhile", () =>
    Effect.gen(function*() {
      const turn = yield* runningTurn(yield* openThread("t"))
      yield* emit(spawned("t", "u", "s"), Fake.subAgentStarted("s", "v", "u"))
      yield* settle
      const interrupting = yield* interrupt(turn)
      const request = yield* receive("turn/interrupt")
      yield* emit(spawned("s", "v", "g"), Fake.subAgentStarted("g", "w", "u"))
      yield* respond(request, {})
      yield* respond("turn/interrupt", {})
      yield* Fiber.join(interrupting)
      assert.deepStrictEqual(yield* interrupted, [["t", "u"], ["s", "v"], ["g", "w"]])
    }).pipe(Effect.scoped, Effect.provide(layer())))
})

describe("Turn.view", () => {
  it.effect("has the usage of a turn that ended long before", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const turn = yield* runningTurn(thread)
      // The first of two reports was lost.
      yield* emit(usageReported("t", "u", 100, 40), Fake.turnCompleted("t", "u"))
      const { usage } = yield* turn.result
      assert.strictEqual(usage?.turn.totalTokens, 100)
      for (let i = 1; i <= 5; i++) {
        yield* emit(
          Fake.turnStarted("t", `x${i}`),
          usageReported("t", `x${i}`, 100 + i, 1),
          Fake.turnCompleted("t", `x${i}`)
        )
      }
      yield* settle
      const view = Option.getOrThrow(yield* Stream.runLast(turn.view))
      assert.deepStrictEqual(view.usage?.turn, usage?.turn)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("begins with what a turn has done before it is joined", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit(
        Fake.turnStarted("t", "x"),
        Fake.messageCompleted("t", "x", "a", "one"),
        commandStarted("t", "x", "c"),
        messageStarted("t", "x", "b"),
        Fake.delta("t", "x", "b", "tw")
      )
      const joining = yield* startTurn(thread.turn("go"), "x")
      const stored = Fake.turn("x", "inProgress", {
        items: [{ ...storedMessage("a", "one"), completedAtMs: 1 }, command("c")]
      })
      yield* emit(Fake.delta("t", "x", "b", "o"), commandStarted("t", "x", "d"), commandStarted("t", "x", "c"))
      yield* respond("thread/resume", { initialTurnsPage: { data: [stored] } })
      const turn = yield* Fiber.join(joining)
      const views: Array<TurnView.TurnView> = []
      const following = yield* Effect.forkChild(
        Stream.runForEach(turn.view, (view) => Effect.sync(() => views.push(view))),
        { startImmediately: true }
      )
      yield* settle
      assert.deepStrictEqual(views.map(texts), [["one"]])
      assert.deepStrictEqual(views[0]?.items.map(({ id, state }) => [id, state]), [
        ["a", "completed"],
        ["c", "inProgress"],
        ["d", "inProgress"]
      ])
      yield* emit(Fake.messageCompleted("t", "x", "b", "two"), Fake.turnCompleted("t", "x"))
      yield* Fiber.join(following)
      assert.deepStrictEqual(texts(views.at(-1)!), ["one", "two"])
      assert.strictEqual(views.at(-1)?.status, "completed")
      const { items } = yield* turn.result
      assert.deepStrictEqual(items.map((item) => (item as { id: string }).id), ["a", "b"])
      const events = yield* Stream.runCollect(turn.events)
      const starts = events.flatMap((event) =>
        event.method === "item/started" ? [(event.params.item as { id: string }).id] : []
      )
      assert.deepStrictEqual(starts, ["c", "d"])
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("begins with the join if the past of the turn cannot be read", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit(Fake.turnStarted("t", "x"), Fake.messageCompleted("t", "x", "a", "one"))
      const joining = yield* startTurn(thread.turn("go"), "x")
      yield* emit(Fake.messageCompleted("t", "x", "b", "two"))
      yield* reject("thread/resume")
      yield* reject("thread/turns/list")
      yield* reject("thread/read")
      const turn = yield* Fiber.join(joining)
      yield* emit(Fake.turnCompleted("t", "x"))
      assert.deepStrictEqual((yield* turn.result).items.map((item) => (item as { id: string }).id), ["b"])
    }).pipe(Effect.scoped, Effect.provide(layer())))
})

describe("Thread.view", () => {
  it.effect("begins with the whole of a running turn whose events this program has", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const turn = yield* runningTurn(thread)
      yield* emit(messageStarted("t", "u", "a"), Fake.delta("t", "u", "a", "Hel"))
      yield* settle
      const { load, views } = yield* followView(thread, Fake.turn("u"))
      yield* emit(Fake.delta("t", "u", "a", "lo"))
      yield* settle
      yield* load
      assert.deepStrictEqual(views.map(({ turns }) => turns.map(texts)), [[["Hello"]]])
      yield* emit(Fake.delta("t", "u", "a", " world"))
      yield* settle
      assert.deepStrictEqual(views.at(-1)?.turns, [Option.getOrThrow(yield* Stream.runHead(turn.view))])
      yield* emit(Fake.turnCompleted("t", "u"))
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("has no end of a text whose beginning it missed", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit(Fake.turnStarted("t", "x"), messageStarted("t", "x", "a"), Fake.delta("t", "x", "a", "Hel"))
      yield* settle
      const { load, views } = yield* followView(thread, Fake.turn("x"))
      yield* emit(Fake.delta("t", "x", "a", "l"))
      yield* load
      yield* emit(Fake.delta("t", "x", "a", "o"), messageStarted("t", "x", "b"), Fake.delta("t", "x", "b", "wor"))
      yield* settle
      assert.deepStrictEqual(views.at(-1)?.turns.map(texts), [["wor"]])
      yield* emit(Fake.messageCompleted("t", "x", "a", "Hello"))
      yield* settle
      assert.sameMembers(texts(views.at(-1)!.turns[0]!), ["Hello", "wor"])
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("has the usage of the turn, also if the server repeats an old report first", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const opening = yield* Effect.forkChild(codex.resumeThread("t"))
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* emit(usageReported("t", "old", 1001, 1001))
      const thread = yield* Fiber.join(opening)
      const { load, views } = yield* followView(thread, Fake.turn("old", "completed"))
      yield* load
      const turn = yield* runningTurn(thread)
      // As before a compaction.
      yield* emit(usageReported("t", "u", 1001, 1001), usageReported("t", "u", 1502, 501))
      yield* emit(Fake.turnCompleted("t", "u"))
      const { usage } = yield* turn.result
      assert.strictEqual(usage?.turn.totalTokens, 501)
      assert.deepStrictEqual(views.at(-1)?.turns.at(-1)?.usage?.turn, usage?.turn)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("has the usage of a running turn that was reported before", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit(Fake.turnStarted("t", "x"), usageReported("t", "x", 30, 10))
      const { load, views } = yield* followView(thread, Fake.turn("x"))
      yield* load
      assert.strictEqual(views.at(-1)?.turns[0]?.usage?.turn.totalTokens, 30)
    }).pipe(Effect.scoped, Effect.provide(layer())))
})
