/** Tools that the program runs for a suspended turn, and tools that Codex runs itself. */
import { assert, layer } from "@effect/vitest"
import { AppServer } from "effect-codex"
import { CodexLanguageModel, CodexTool } from "effect-codex/ai"
import { ModelServer } from "effect-codex/testing"
import { AiError, Chat, LanguageModel, Prompt, type Response, Tool, Toolkit } from "effect/ai"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { poll } from "../poll.ts"
import * as TestCodex from "../TestCodex.ts"

const { functionCall, message, reply, text } = ModelServer

const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const add = Tool.make("add", {
  description: "Adds two numbers",
  parameters: Schema.Struct({ a: Schema.Finite, b: Schema.Finite }),
  success: Schema.Finite
})

const fail = Tool.make("fail", {
  parameters: Schema.Struct({ with: Schema.String }),
  failure: Schema.Struct({ reason: Schema.String })
})

const toolkit = Toolkit.make(add, fail)

const handlers = toolkit.toLayer({
  add: ({ a, b }) => Effect.succeed(a + b),
  fail: (params) => Effect.fail({ reason: params.with })
})

const loadedThreads = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  return (yield* server.request("thread/loaded/list", {})).data
})

const noThreads = poll(loadedThreads, ({ length }) => length === 0, "the server to unload all threads")

const calls = (content: ReadonlyArray<Response.AnyPart>) =>
  content.flatMap((part) => part.type === "tool-call" ? [part.id] : [])

const callAdd = (callId: string, a = 1, b = 2) => functionCall("add", { a, b }, { callId })

/** The ids of the threads of all requests to the model, in order. */
const threadsOf = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  return (yield* model.requests).map(({ promptCacheKey }) => promptCacheKey)
})

layer(TestCodex.layer(), { excludeTestServices: true })("Tools of the program", (it) => {
  const model = ModelServer.ModelServer
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: CodexLanguageModel.Options) =>
    Effect.andThen(Effect.flatMap(model, ({ reset }) => reset), effect).pipe(
      Effect.provide(handlers),
      Effect.provide(CodexLanguageModel.layer(options))
    )

  it.effect("run 20 parallel calls of one response", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      const ids = Array.from({ length: 20 }, (_, index) => `c${index}`)
      yield* enqueue(reply(ids.map((id, index) => callAdd(id, index, index))), text("done"))
      const chat = yield* Chat.empty
      const first = yield* chat.generateText({ prompt: "Add", toolkit })
      assert.deepStrictEqual(calls(first.content), ids)
      assert.strictEqual(first.finishReason, "tool-calls")
      assert.strictEqual((yield* chat.generateText({ prompt: [], toolkit })).text, "done")
      const request = (yield* requests).at(-1)
      for (const [index, id] of ids.entries()) {
        assert.strictEqual(request?.functionCallOutput(id), String(2 * index))
      }
      assert.lengthOf(yield* requests, 2)
    }).pipe(run))

  it.effect("run in 30 rounds of one turn", () =>
    Effect.gen(function*() {
      const { enqueue } = yield* model
      const rounds = Array.from({ length: 30 }, (_, index) => callAdd(`c${index}`, index, 1))
      yield* enqueue(
        ...rounds.map((call) => reply([call], { usage: { inputTokens: 2, outputTokens: 1 } })),
        text("done")
      )
      const chat = yield* Chat.empty
      let response = yield* chat.generateText({ prompt: "Add", toolkit })
      let round = 0
      for (; response.finishReason === "tool-calls"; round++) {
        assert.strictEqual(response.usage.inputTokens.total, 2)
        response = yield* chat.generateText({ prompt: [], toolkit })
      }
      assert.strictEqual(round, 30)
      assert.strictEqual(response.text, "done")
      assert.lengthOf(new Set(yield* threadsOf), 1)
      const { sent } = yield* TestCodex.Wire
      const turns = (yield* sent).filter(({ method }) => method === "turn/start")
      assert.lengthOf(turns.filter(({ params }) => params?.["threadId"] === turns.at(-1)?.params?.["threadId"]), 1)
    }).pipe(run))

  it.effect("run with an input of the user that follows their results", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      yield* enqueue(callAdd("c1"), text("done"))
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "Add", toolkit })
      assert.strictEqual((yield* chat.generateText({ prompt: "And be brief", toolkit })).text, "done")
      const request = (yield* requests).at(-1)
      assert.strictEqual(request?.functionCallOutput("c1"), "3")
      assert.strictEqual(request?.lastUserText, "And be brief")
      assert.lengthOf(yield* requests, 2)
    }).pipe(run))

  it.effect("return an image", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      const draw = Toolkit.make(Tool.make("draw", {
        success: Schema.String,
        toModelOutput: (data) => [
          Prompt.textPart({ text: "a picture" }),
          Prompt.filePart({ mediaType: "image/png", data })
        ]
      }))
      yield* enqueue(functionCall("draw", {}, { callId: "c1" }), text("nice"))
      yield* Effect.gen(function*() {
        const chat = yield* Chat.empty
        yield* chat.generateText({ prompt: "Draw", toolkit: draw })
        yield* chat.generateText({ prompt: [], toolkit: draw })
      }).pipe(Effect.provide(draw.toLayer({ draw: () => Effect.succeed(pixel) })))
      const output = JSON.stringify((yield* requests).at(-1)?.input)
      assert.include(output, "a picture")
      assert.include(output, `data:image/png;base64,${pixel}`)
    }).pipe(run))

  it.effect("end a suspended turn when its time to live ends after a handler failed", () =>
    Effect.gen(function*() {
      const { enqueue } = yield* model
      const { awaitSent } = yield* TestCodex.Wire
      yield* enqueue(functionCall("fail", { with: "it" }, { callId: "c1" }))
      const chat = yield* Chat.empty
      const error = yield* Effect.flip(chat.generateText({ prompt: "Fail", toolkit }))
      assert.deepStrictEqual(error, { reason: "it" })
      const [thread] = yield* threadsOf
      yield* awaitSent(({ method, params }) => method === "turn/interrupt" && params?.["threadId"] === thread)
      yield* noThreads
    }).pipe((effect) => run(effect, { idleTimeToLive: "200 millis" })))

  it.effect("continue with their results after the suspended turn has ended", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      yield* enqueue(text("hello"), callAdd("c1"), text("three"))
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "Hi", toolkit })
      const response = yield* chat.generateText({ prompt: "Add", toolkit })
      assert.lengthOf(response.toolResults, 1)
      yield* noThreads
      assert.strictEqual((yield* chat.generateText({ prompt: [], toolkit })).text, "three")
      const request = (yield* requests).at(-1)
      assert.strictEqual(request?.functionCallOutput("c1"), "3")
      // The user's message appears once: the fork ends before the turn that was interrupted.
      assert.deepStrictEqual(request?.userTexts.filter((text) => text === "Add" || text === "Hi"), ["Hi", "Add"])
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["hello"])
    }).pipe((effect) => run(effect, { idleTimeToLive: "200 millis" })))

  it.effect("receive that a call has no result, if the program returns none", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      yield* enqueue(reply([callAdd("c1"), callAdd("c2")]), text("done"))
      const first = yield* LanguageModel.generateText({ prompt: "Add", toolkit, disableToolCallResolution: true })
      const history = Prompt.concat(Prompt.make("Add"), Prompt.fromResponseParts(first.content))
      const result = Prompt.toolResultPart({
        id: "c1",
        name: "add",
        result: 3,
        isFailure: false,
        providerExecuted: false
      })
      yield* LanguageModel.generateText({
        prompt: Prompt.concat(history, Prompt.fromMessages([Prompt.toolMessage({ content: [result] })])),
        toolkit
      })
      const request = (yield* requests).at(-1)
      assert.strictEqual(request?.functionCallOutput("c1"), "3")
      assert.strictEqual(request?.functionCallOutput("c2"), "The program returned no result for this call")
    }).pipe(run))

  it.effect("are refused if the request does not offer them", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      yield* enqueue(text("hello"), callAdd("c1"), text("one"), callAdd("c2"), text("two"))
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "Hi", toolkit })
      const none = yield* chat.generateText({ prompt: "Add", toolkit, toolChoice: "none" })
      assert.deepStrictEqual([none.text, none.toolCalls.length], ["one", 0])
      const without = yield* chat.generateText({ prompt: "Add" })
      assert.strictEqual(without.text, "two")
      const request = (yield* requests).at(-1)
      const refusal = "This tool is not available now. Continue without it"
      assert.deepStrictEqual([request?.functionCallOutput("c1"), request?.functionCallOutput("c2")], [refusal, refusal])
      assert.lengthOf(new Set(yield* threadsOf), 1)
    }).pipe(run))

  it.effect("are required by an instruction, and the response fails without a call", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      yield* enqueue(callAdd("c1"), text("I would rather not"))
      const response = yield* LanguageModel.generateText({ prompt: "Add", toolkit, toolChoice: { tool: "add" } })
      assert.deepStrictEqual(calls(response.content), ["c1"])
      const texts = (yield* requests).at(-1)?.messageTexts("developer") ?? []
      assert.include([...texts], "Call the tool `add` before you respond.")
      const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Add", toolkit, toolChoice: "required" }))
      assert(AiError.isAiError(error))
      assert.strictEqual(error.reason._tag, "InvalidOutputError")
      assert.include(error.message, "The model called none of the tools that `toolChoice` requires: add, fail")
      assert.isTrue(error.isRetryable)
    }).pipe(run))

  it.effect("fail with a message that names a tool of another provider", () =>
    Effect.gen(function*() {
      const Search = Tool.providerDefined({ id: "other.search", customName: "OtherSearch", providerName: "search" })
      const error = yield* Effect.flip(
        LanguageModel.generateText({ prompt: "Search", toolkit: Toolkit.make(Search(undefined)) })
      )
      assert.include(error.message, "must not contain the provider-defined tool `OtherSearch`")
    }).pipe(run))

  it.effect("may be dynamic", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      const dynamic = Toolkit.make(
        Tool.dynamic("lookup", {
          description: "Looks up",
          parameters: { type: "object", properties: { key: { type: "string" } }, required: ["key"] }
        }),
        Tool.dynamic("free")
      )
      yield* enqueue(
        reply([
          functionCall("lookup", { key: "k" }, { callId: "c1" }),
          functionCall("free", { x: 1 }, { callId: "c2" })
        ]),
        text("done")
      )
      yield* Effect.gen(function*() {
        const chat = yield* Chat.empty
        yield* chat.generateText({ prompt: "Look up", toolkit: dynamic })
        yield* chat.generateText({ prompt: [], toolkit: dynamic })
      }).pipe(Effect.provide(dynamic.toLayer({
        lookup: (params) => Effect.succeed({ params }),
        free: (params) => Effect.succeed({ params })
      })))
      const request = (yield* requests).at(-1)
      assert.strictEqual(request?.functionCallOutput("c1"), "{\"params\":{\"key\":\"k\"}}")
      assert.strictEqual(request?.functionCallOutput("c2"), "{\"params\":{\"x\":1}}")
    }).pipe(run))

  it.effect("are refused to a sub-agent, whose calls no response contains", () =>
    Effect.gen(function*() {
      const { requests, respond } = yield* model
      let main: string | undefined
      yield* respond((request) => {
        main ??= request.header("thread-id")
        if (request.header("thread-id") === main) {
          return TestCodex.delegate(request, { message: "Add", fork_context: true })
        }
        return request.functionCallOutput("c1") === undefined ? callAdd("c1") : text("I cannot")
      })
      const response = yield* LanguageModel.generateText({ prompt: "Delegate", toolkit })
      assert.strictEqual(response.text, "done")
      const outputs = (yield* requests).flatMap((request) => request.functionCallOutput("c1") ?? [])
      assert.deepStrictEqual(outputs, ["A sub-agent cannot call this tool. Continue without it"])
    }).pipe(run))

  it.effect("work beside a call whose arguments are not JSON", () =>
    Effect.gen(function*() {
      const { enqueue, requests } = yield* model
      yield* enqueue(reply([functionCall("add", "{", { callId: "bad" }), callAdd("good")]), text("done"))
      const chat = yield* Chat.empty
      const first = yield* chat.generateText({ prompt: "Add", toolkit })
      assert.deepStrictEqual(calls(first.content), ["good"])
      assert.strictEqual((yield* chat.generateText({ prompt: [], toolkit })).text, "done")
      assert.strictEqual((yield* requests).at(-1)?.functionCallOutput("good"), "3")
    }).pipe(run))
})

layer(TestCodex.layer({ home: { config: TestCodex.mcpConfig } }), { excludeTestServices: true })(
  "Tools of Codex",
  (it) => {
    const script = [
      reply([
        message("I look.", { phase: "commentary" }),
        functionCall("exec_command", { cmd: "echo hello; sleep 0.3; exit 3" }, { callId: "c1" })
      ]),
      reply([functionCall("introduce", {}, { callId: "c2", namespace: "mcp__people" })]),
      text("done")
    ]

    it.effect("are parts of a response whose toolkit has them", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(...script)
        const toolkit = CodexTool.toolkit
        const response = yield* LanguageModel.generateText({ prompt: "Go", toolkit })
        assert.strictEqual(response.text, "done")
        const [command] = response.toolCalls
        assert(command?.name === "CodexCommand")
        assert.isTrue(command.providerExecuted)
        const [result] = response.toolResults
        assert(result?.name === "CodexCommand" && !result.isFailure)
        const { command: line, ...outcome } = result.result
        assert.include(line, "exit 3")
        assert.deepStrictEqual(outcome, { status: "failed", exitCode: 3, output: "hello\n" })
        assert.strictEqual(result.id, command.id)
        const call = response.toolCalls[1]
        assert(call?.name === "CodexMcpCall")
        assert.deepStrictEqual(call.params, { server: "people", tool: "introduce", arguments: {} })
        const answer = response.toolResults[1]
        assert(answer?.name === "CodexMcpCall" && !answer.isFailure)
        assert.strictEqual(answer.result.status, "completed")
        assert.include(JSON.stringify(answer.result.content), "decline")
      }).pipe(Effect.provide(CodexLanguageModel.layer())))

    it.effect("are no parts of a response without a toolkit, or with another", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(...script, ...script)
        const response = yield* LanguageModel.generateText({ prompt: "Go" })
        assert.deepStrictEqual(response.content.map(({ type }) => type), [
          "response-metadata",
          "reasoning",
          "text",
          "finish"
        ])
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Go", toolkit }))
        assert.notInclude(parts.map(({ type }) => type), "tool-call")
      }).pipe(Effect.provide(handlers), Effect.provide(CodexLanguageModel.layer())))

    it.effect("mix with tools of the program, also when a command outlives a response", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(
          reply([
            functionCall("exec_command", { cmd: "sleep 0.5; echo slow", yield_time_ms: 5000 }, { callId: "c1" }),
            callAdd("c2")
          ]),
          text("done")
        )
        const both = Toolkit.merge(toolkit, CodexTool.toolkit)
        const chat = yield* Chat.empty
        const first = yield* chat.generateText({ prompt: "Go", toolkit: both })
        assert.strictEqual(first.finishReason, "tool-calls")
        const second = yield* chat.generateText({ prompt: [], toolkit: both })
        assert.strictEqual(second.text, "done")
        const parts = [...first.content, ...second.content]
        const command = parts.find((part) => part.type === "tool-call" && part.name === "CodexCommand")
        const result = parts.find((part) => part.type === "tool-result" && part.name === "CodexCommand")
        assert(command?.type === "tool-call" && result?.type === "tool-result")
        assert.strictEqual(command.id, result.id)
        // The chat continues with them in its history.
        yield* model.enqueue(text("bye"))
        assert.strictEqual((yield* chat.generateText({ prompt: "Bye", toolkit: both })).text, "bye")
        assert.lengthOf(new Set((yield* threadsOf).slice(-3)), 1)
      }).pipe(Effect.provide(handlers), Effect.provide(CodexLanguageModel.layer())))

    it.effect("are parts for file changes", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(
          ModelServer.customToolCall("apply_patch", "*** Begin Patch\n*** Add File: made.txt\n+hello\n*** End Patch"),
          text("done")
        )
        const response = yield* LanguageModel.generateText({ prompt: "Go", toolkit: CodexTool.toolkit })
        const [change] = response.toolCalls
        assert(change?.name === "CodexFileChange")
        assert.include(JSON.stringify(change.params), "hello")
        const [result] = response.toolResults
        assert(result?.name === "CodexFileChange" && !result.isFailure)
        const { changes, status } = result.result
        assert.deepStrictEqual([status, changes.length, changes[0]?.kind], ["completed", 1, "add"])
        assert.match(changes[0]?.path ?? "", /made\.txt$/)
      }).pipe(Effect.provide(CodexLanguageModel.layer({ sandbox: "workspace-write" }))))
  }
)
