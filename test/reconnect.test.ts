/** Sockets that are lost while the server and its turns continue. */
import { assert, layer } from "@effect/vitest"
import { Approvals, Codex, Tool } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as SocketServer from "./SocketServer.ts"
import * as TestCodex from "./TestCodex.ts"

/** A server with a proxy in front of it. */
const start = Effect.gen(function*() {
  const server = yield* SocketServer.listen("ws://127.0.0.1:0")
  const proxy = yield* SocketServer.proxy(server.url)
  return { ...server, proxy }
})

/** Waits until the socket was lost and connected again, after an effect that loses it. */
const reconnectAfter = <A, E, R>(lose: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const restarted = yield* TestCodex.nextRestart
    yield* lose
    yield* restarted
  })

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Socket that is lost", (it) => {
  it.effect("joins the running turn again, with its whole text", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        yield* TestCodex.script(thread, message.reply)
        const turn = yield* thread.turn("go")
        const texts = yield* Queue.unbounded<string>()
        const text = yield* turn.text.pipe(
          Stream.tap((part) => Queue.offer(texts, part)),
          Stream.mkString,
          Effect.forkChild({ startImmediately: true })
        )
        const events = yield* Effect.forkChild(Stream.runCollect(turn.events), { startImmediately: true })
        yield* message.say("one ")
        assert.strictEqual(yield* Queue.take(texts), "one ")
        yield* proxy.stall
        yield* message.say("two ")
        yield* proxy.heal
        yield* reconnectAfter(proxy.cut)
        yield* message.say("three")
        yield* message.finish
        const { finalResponse, items, status } = yield* turn.result
        assert.strictEqual(status, "completed")
        assert.strictEqual(finalResponse, "one two three")
        assert.strictEqual(yield* Fiber.join(text), "one two three")
        assert.deepStrictEqual(items.map(({ type }) => type), ["userMessage", "agentMessage"])
        const methods = (yield* Fiber.join(events)).map(({ method }) => String(method))
        assert.strictEqual(methods.filter((method) => method === "turn/completed").length, 1)
        assert.strictEqual(methods.filter((method) => method === "effect-codex/restarted").length, 1)
        assert.strictEqual(proxy.connections(), 2)
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))
})

/** A turn with an approved command, a call of a tool and a message. */
const richTurn = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const model = yield* ModelServer.ModelServer
  const calls: Array<string> = []
  const before = (yield* model.requests).length
  yield* model.respond((request) =>
    request.functionCallOutput("command") === undefined
      ? ModelServer.functionCall("exec_command", { cmd: "echo x", login: false }, { callId: "command" })
      : request.functionCallOutput("tool") === undefined
      ? ModelServer.functionCall("greet", {}, { callId: "tool" })
      : ModelServer.deltas(["all ", "is ", "done"])
  )
  const note = (call: string) => Effect.sync(() => calls.push(call))
  // A thread whose start has no response was never used.
  const thread = yield* Effect.retry(
    codex.startThread({
      approvalPolicy: "untrusted",
      approvalsReviewer: "user",
      approvals: { command: () => Effect.as(note("approve"), Approvals.accept) },
      tools: [Tool.make("greet", { description: "Greets", handler: () => Effect.as(note("greet"), "hello") })]
    }),
    { times: 3 }
  )
  return yield* Effect.scoped(Effect.gen(function*() {
    // The server has no such turn if the request did not arrive.
    const turn = yield* Effect.retry(thread.turn("go"), { times: 3 })
    const text = yield* Effect.forkChild(Stream.mkString(turn.text), { startImmediately: true })
    const events = yield* Stream.runCollect(turn.events)
    const { finalResponse, items, status, usage } = yield* turn.result
    return {
      calls,
      finalResponse,
      status,
      items: items.map(({ type }) => type),
      ends: events.filter(({ method }) => method === "turn/completed").length,
      starts: events.filter(({ method }) => method === "turn/started").length,
      completed: new Set(events.flatMap((event) =>
        event.method === "item/completed" ? [event.params.item.id] : []
      )).size,
      completions: events.filter(({ method }) => method === "item/completed").length,
      text: yield* Fiber.join(text),
      tokens: usage?.turn.totalTokens,
      requests: (yield* model.requests).length - before
    }
  }))
})

const wholeTurn = {
  calls: ["approve", "greet"],
  finalResponse: "all is done",
  status: "completed",
  items: ["userMessage", "commandExecution", "dynamicToolCall", "agentMessage"],
  ends: 1,
  starts: 1,
  completed: 4,
  completions: 4,
  text: "all is done",
  tokens: 6,
  requests: 3
}

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Socket that is cut after any message", (it) => {
  /** Runs the turn on connections that are each cut after a number of messages, and returns the number of messages. */
  const runCut = Effect.fnUntraced(function*(url: string, ...cuts: ReadonlyArray<number>) {
    const proxy = yield* SocketServer.proxy(url)
    proxy.cutAfter(...cuts)
    const result = yield* richTurn.pipe(
      Effect.provide(SocketServer.layerWebSocket(proxy.url)),
      Effect.timeout("20 seconds"),
      Effect.exit
    )
    return { result, messages: proxy.received() }
  }, Effect.scoped)

  for (const connections of [1, 2]) {
    it.effect(`runs each turn once when ${connections} connection(s) are cut`, () =>
      Effect.gen(function*() {
        const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
        const { messages, result } = yield* runCut(url)
        assert.deepStrictEqual<unknown>(result, Exit.succeed(wholeTurn))
        assert.isAbove(messages, 30)
        // The first message is the response to `initialize`. A cut before it fails the layer.
        for (let after = 1; after <= messages; after += connections) {
          const cut = yield* runCut(url, ...Array.from({ length: connections }, () => after))
          assert.deepStrictEqual<unknown>(cut.result, Exit.succeed(wholeTurn), `cut after ${after} messages`)
        }
      }), 120_000)
  }
})
