/** What a request leaves behind that ends early: no turn runs, and no thread stays loaded. */
import { assert, layer } from "@effect/vitest"
import { AppServer } from "effect-codex"
import { CodexLanguageModel, CodexTool } from "effect-codex/ai"
import { ModelServer } from "effect-codex/testing"
import { Chat, LanguageModel, type Response, Tool, Toolkit } from "effect/ai"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { poll } from "../poll.ts"
import * as TestCodex from "../TestCodex.ts"
import { isThorough } from "../thorough.ts"

const { deltas, functionCall, message, reasoning, reply, text } = ModelServer

const toolkit = Toolkit.make(
  Tool.make("add", { parameters: Schema.Struct({ a: Schema.Finite, b: Schema.Finite }), success: Schema.Finite })
)

const handlers = toolkit.toLayer({ add: ({ a, b }) => Effect.succeed(a + b) })

const everything = Toolkit.merge(toolkit, CodexTool.toolkit)

const noThreads = poll(
  Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    return (yield* server.request("thread/loaded/list", {})).data
  }),
  ({ length }) => length === 0,
  "the server to unload all threads"
)

/** Waits until no model request runs, and no thread is loaded. */
const nothingLeft = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  yield* model.awaitIdle
  yield* noThreads
})

const script = [
  reply([
    reasoning(["hm", "so"]),
    deltas(["I ", "look."], { phase: "commentary" }),
    functionCall("exec_command", { cmd: "echo hello; sleep 0.3" }, { callId: "c1" })
  ]),
  reply([
    deltas(["Then ", "I add."]),
    functionCall("add", { a: 1, b: 2 }, { callId: "c2" }),
    functionCall("add", { a: 3, b: 4 }, { callId: "c3" })
  ])
]

layer(TestCodex.layer(), { excludeTestServices: true })("A request that ends early", (it) => {
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: CodexLanguageModel.Options) =>
    Effect.andThen(Effect.flatMap(ModelServer.ModelServer, ({ reset }) => reset), effect).pipe(
      Effect.provide(handlers),
      Effect.provide(CodexLanguageModel.layer(options))
    )

  it.effect("interrupts the turn after any part of a stream", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(...script)
      const all: Array<Response.AnyPart> = []
      const collect = Stream.runForEach(
        LanguageModel.streamText({ prompt: "Go", toolkit: everything }),
        (part) => Effect.sync(() => all.push(part))
      )
      yield* collect
      const types = new Set(all.map(({ type }) => type))
      assert.includeMembers([...types], ["reasoning-delta", "text-delta", "tool-call", "tool-result", "finish"])
      for (let count = 1; count < all.length; count += isThorough ? 1 : 5) {
        yield* model.reset
        yield* model.enqueue(...script)
        const parts = yield* Stream.runCollect(
          Stream.take(LanguageModel.streamText({ prompt: "Go", toolkit: everything }), count)
        )
        assert.lengthOf(parts, count)
        const last = parts.at(-1)
        // A response that is over leaves a suspended turn, which ends with its time to live.
        const isOver = parts.some((part) => part.type === "tool-result" && part.name === "add") ||
          last?.type === "finish"
        if (!isOver) yield* model.awaitIdle
      }
    }).pipe((effect) => run(effect, { idleTimeToLive: "100 millis" }), Effect.andThen(nothingLeft)), 60_000)

  it.effect("interrupts the turn at any time", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      for (let millis = 0; millis < 120; millis += isThorough ? 4 : 24) {
        yield* model.enqueue(ModelServer.hang([deltas(["half"], { unfinished: true })]))
        const fiber = yield* Effect.forkChild(LanguageModel.generateText({ prompt: "Hang" }), {
          startImmediately: true
        })
        yield* Effect.sleep(millis)
        yield* Fiber.interrupt(fiber)
        yield* model.awaitIdle
        yield* model.reset
      }
      yield* nothingLeft
    }).pipe(run), 60_000)

  it.effect("keeps the part of a streamed text in a chat, which continues without the interrupted turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("one"), ModelServer.hang([deltas(["ha", "lf"], { unfinished: true })]), text("three"))
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      yield* chat.streamText({ prompt: "2" }).pipe(
        Stream.takeUntil((part) => part.type === "text-delta"),
        Stream.runDrain
      )
      assert.strictEqual((yield* chat.generateText({ prompt: "3" })).text, "three")
      const request = (yield* model.requests).at(-1)
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["one", "ha"])
      assert.deepStrictEqual(request?.userTexts.slice(-3), ["1", "2", "3"])
    }).pipe(run, Effect.andThen(nothingLeft)))

  it.effect("interrupts the handlers of its tools, and then the turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      yield* model.enqueue(functionCall("add", { a: 1, b: 2 }, { callId: "c1" }))
      const fiber = yield* LanguageModel.generateText({ prompt: "Add", toolkit }).pipe(
        Effect.provide(toolkit.toLayer({
          add: () =>
            Deferred.succeed(started, undefined).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
            )
        })),
        Effect.forkChild
      )
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      yield* Deferred.await(interrupted)
      yield* nothingLeft
    }).pipe((effect) => run(effect, { idleTimeToLive: "50 millis" })))

  it.effect("interrupts suspended turns when the layer ends", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(reply([message("I add."), functionCall("add", { a: 1, b: 2 }, { callId: "c1" })]))
      const response = yield* LanguageModel.generateText({ prompt: "Add", toolkit })
      assert.strictEqual(response.finishReason, "tool-calls")
    }).pipe(run, Effect.andThen(nothingLeft)))

  it.effect("serves concurrent requests with tools independently", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => {
        const question = request.userTexts.at(-1) ?? ""
        return request.functionCallOutput(`call-${question}`) === undefined
          ? functionCall("add", { a: Number(question), b: 1 }, { callId: `call-${question}` })
          : text(`${question}+1=${request.functionCallOutput(`call-${question}`)}`)
      })
      const ask = Effect.fnUntraced(function*(number: number) {
        const chat = yield* Chat.empty
        yield* chat.generateText({ prompt: String(number), toolkit })
        return (yield* chat.generateText({ prompt: [], toolkit })).text
      })
      const numbers = Array.from({ length: 12 }, (_, index) => index)
      const texts = yield* Effect.forEach(numbers, ask, { concurrency: "unbounded" })
      assert.deepStrictEqual(texts, numbers.map((number) => `${number}+1=${number + 1}`))
    }).pipe(run, Effect.andThen(nothingLeft)))
})
