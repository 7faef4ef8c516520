import { assert, layer } from "@effect/vitest"
import { AppServer, Codex, Input, type Thread, Turn } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as CodexEnvironment from "../src/testing/CodexEnvironment.ts"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as TestCodex from "./TestCodex.ts"

const startThread = Effect.flatMap(Codex.Codex, (codex) => codex.startThread())

/** Runs a turn, to which the model sends these replies. */
const runWith = Effect.fnUntraced(function*(thread: Thread.Thread, ...replies: ReadonlyArray<ModelServer.Reply>) {
  const model = yield* ModelServer.ModelServer
  yield* model.enqueue(...replies)
  return yield* thread.run("go")
})

/** Whether a message is the `turn/start` of this thread with this input. */
const isTurnStart = (thread: Thread.Thread, input: string) => ({ method, params }: TestCodex.Message) =>
  method === "turn/start" && params?.["threadId"] === thread.id && JSON.stringify(params["input"]).includes(input)

const getTypes = (items: ReadonlyArray<{ readonly type: unknown }>) => items.map(({ type }) => type)

const getDeltas = (events: ReadonlyArray<Turn.TurnEvent>) =>
  events.flatMap((event) => event.method === "item/agentMessage/delta" ? [event.params.delta] : [])

layer(TestCodex.layer(), { excludeTestServices: true })("Thread.run", (it) => {
  it.effect("returns the final text, the items, the usage and the times of the turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.enqueue(ModelServer.text("Hello!"))
      const result = yield* thread.run("Say hello")

      assert.strictEqual(result.threadId, thread.id)
      assert.strictEqual(result.status, "completed")
      assert.strictEqual(result.finalResponse, "Hello!")
      assert.deepStrictEqual(getTypes(result.items), ["userMessage", "agentMessage"])
      assert.deepInclude(result.items[1], { text: "Hello!" })
      assert.strictEqual(result.usage?.turn.totalTokens, 2)
      assert.isAtLeast(result.durationMs ?? -1, 0)
      assert.isAtLeast(result.startedAt ?? -1, 1_700_000_000)
      assert.isAtLeast(result.completedAt ?? -1, result.startedAt ?? 0)
      assert.deepStrictEqual((yield* TestCodex.readTurns(thread.id)).map(({ id }) => id), [result.id])

      const [request] = yield* TestCodex.getRequests(thread.id)
      assert.strictEqual(request?.lastUserText, "Say hello")
      assert.strictEqual(request?.body["model"], "mock-model")
      assert.strictEqual(request?.body["stream"], true)
    }))

  it.effect("counts cached, written and reasoning tokens of the turn and of the thread", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      const usage = {
        inputTokens: 100,
        cachedInputTokens: 40,
        cacheWriteInputTokens: 7,
        outputTokens: 20,
        reasoningTokens: 5
      }
      const used = {
        totalTokens: 120,
        inputTokens: 100,
        cachedInputTokens: 40,
        cacheWriteInputTokens: 7,
        outputTokens: 20,
        reasoningOutputTokens: 5
      }
      const first = yield* runWith(thread, ModelServer.text("one", { usage }))
      assert.deepInclude(first.usage, { turn: used, thread: used, lastRequest: used })
      const second = yield* runWith(thread, ModelServer.text("two", { usage }))
      assert.deepInclude(second.usage, {
        turn: used,
        lastRequest: used,
        thread: {
          totalTokens: 240,
          inputTokens: 200,
          cachedInputTokens: 80,
          cacheWriteInputTokens: 14,
          outputTokens: 40,
          reasoningOutputTokens: 10
        }
      })
    }))

  it.effect("returns the last message as the final response when the model marks none", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      const result = yield* runWith(
        thread,
        ModelServer.reply([ModelServer.message("first"), ModelServer.message("second")])
      )
      assert.strictEqual(result.finalResponse, "second")
      assert.deepStrictEqual(getTypes(result.items), ["userMessage", "agentMessage", "agentMessage"])
    }))

  it.effect("returns an empty last message as the final response", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      const result = yield* runWith(thread, ModelServer.reply([ModelServer.message("first"), ModelServer.message("")]))
      assert.strictEqual(result.finalResponse, "")
    }))

  it.effect("returns no final response when all messages are commentary", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      const result = yield* runWith(thread, ModelServer.text("thinking aloud", { phase: "commentary" }))
      assert.strictEqual(result.status, "completed")
      assert.isUndefined(result.finalResponse)
      assert.deepInclude(result.items[1], { text: "thinking aloud", phase: "commentary" })
    }))

  it.effect("returns the message with the phase final_answer as the final response, and all messages as items", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      const result = yield* runWith(
        thread,
        ModelServer.reply([
          ModelServer.reasoning("Considering"),
          ModelServer.message("the answer", { phase: "final_answer" }),
          ModelServer.message("unmarked"),
          ModelServer.message("by the way", { phase: "commentary" })
        ])
      )
      assert.strictEqual(result.finalResponse, "the answer")
      assert.deepStrictEqual(getTypes(result.items), [
        "userMessage",
        "reasoning",
        "agentMessage",
        "agentMessage",
        "agentMessage"
      ])
    }))

  it.effect("returns the calls of tools as items", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ sandbox: "danger-full-access" })
      const result = yield* runWith(
        thread,
        ModelServer.functionCall("exec_command", { cmd: "echo from the shell", login: false }, { callId: "call_echo" }),
        ModelServer.text("done")
      )
      assert.deepStrictEqual(getTypes(result.items), ["userMessage", "commandExecution", "agentMessage"])
      assert.deepInclude(result.items[1], { id: "call_echo", exitCode: 0, aggregatedOutput: "from the shell\n" })
    }))

  it.effect("sends model, effort, summary and schema to the model, the schema for one turn only", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      const schema = { type: "object", properties: { answer: { type: "string" } } }
      yield* model.enqueue(ModelServer.text("{}"), ModelServer.text("plain"))
      const options = { model: "other-model", effort: "high", summary: "concise", outputSchema: schema } as const
      yield* thread.run("answer in JSON", options)
      yield* thread.run("answer")

      const [first, second] = yield* TestCodex.getRequests(thread.id)
      for (const request of [first, second]) {
        assert.strictEqual(request?.body["model"], "other-model")
        assert.deepInclude(request?.body["reasoning"], { effort: "high", summary: "concise" })
      }
      assert.deepInclude(first?.body["text"], {
        format: { type: "json_schema", strict: true, name: "codex_output_schema", schema }
      })
      assert.notProperty(second?.body["text"] ?? {}, "format")
    }))

  it.effect("sends an unknown reasoning effort", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.enqueue(ModelServer.text("thought"))
      yield* thread.run("think", { effort: "ultra-mega" })
      const [request] = yield* TestCodex.getRequests(thread.id)
      assert.deepInclude(request?.body["reasoning"], { effort: "ultra-mega" })
    }))

  it.effect("sends a service tier and a trigger for one turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.enqueue(ModelServer.text("flexible"), ModelServer.text("as usual"))
      yield* thread.run("go", { serviceTierForTurn: "flex", turnTrigger: "a-test" })
      yield* thread.run("go on")
      const [first, second] = yield* TestCodex.getRequests(thread.id)
      assert.strictEqual(first?.body["service_tier"], "flex")
      assert.include(JSON.stringify(first?.body["client_metadata"]), "a-test")
      assert.isUndefined(second?.body["service_tier"])
      assert.notInclude(JSON.stringify(second?.body["client_metadata"]), "a-test")
    }))

  it.effect("runs this turn and later ones in the given working directory", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { home } = yield* CodexEnvironment.CodexEnvironment
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ sandbox: "danger-full-access" })
      const pwd = (callId: string) =>
        ModelServer.functionCall("exec_command", { cmd: "pwd -P", login: false }, { callId })
      yield* model.enqueue(pwd("first"), ModelServer.text("there"), pwd("second"), ModelServer.text("still there"))
      yield* thread.run("where?", { cwd: home })
      yield* thread.run("and now?")
      const request = (yield* TestCodex.getRequests(thread.id)).at(-1)
      assert.include(request?.functionCallOutput("first"), home)
      assert.include(request?.functionCallOutput("second"), home)
    }))

  it.effect("returns the result of its thread while several threads run", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => ModelServer.text(`${request.promptCacheKey}: ${request.lastUserText}`))
      const threads = yield* Effect.replicateEffect(startThread, 4)
      const results = yield* Effect.forEach(threads, (thread, index) => thread.run(`question ${index}`), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(
        results.map(({ finalResponse, threadId }) => ({ finalResponse, threadId })),
        threads.map(({ id }, index) => ({ finalResponse: `${id}: question ${index}`, threadId: id }))
      )
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Failed turn", (it) => {
  const failures: ReadonlyArray<readonly [name: string, reply: ModelServer.Reply, codexErrorInfo: unknown]> = [
    ["HTTP 500", ModelServer.httpError(500), "internalServerError"],
    [
      "HTTP 503, overloaded",
      ModelServer.httpError(503, { error: { code: "server_is_overloaded", message: "busy" } }),
      "serverOverloaded"
    ],
    ["HTTP 429", ModelServer.httpError(429), { responseTooManyFailedAttempts: { httpStatusCode: 429 } }],
    [
      "HTTP 429, usage limit",
      ModelServer.httpError(429, { error: { type: "usage_limit_reached", message: "enough" } }),
      "usageLimitExceeded"
    ],
    ["HTTP 400", ModelServer.httpError(400), "other"],
    ["HTTP 401", ModelServer.httpError(401), { httpConnectionFailed: { httpStatusCode: 401 } }],
    [
      "HTTP 404, unknown model",
      ModelServer.httpError(404, { error: { code: "model_not_found", message: "no such model" } }),
      "modelNotFound"
    ],
    [
      "context too long",
      ModelServer.failed({ code: "context_length_exceeded", message: "too long" }),
      "contextWindowExceeded"
    ],
    ["rate limit", ModelServer.failed({ code: "rate_limit_exceeded", message: "slow down" }), "rateLimitExceeded"],
    ["quota", ModelServer.failed({ code: "insufficient_quota", message: "pay" }), "usageLimitExceeded"],
    ["a server error in mid-stream", ModelServer.failed({ code: "server_error", message: "broken" }), "other"],
    ["the end of the stream", ModelServer.cut([ModelServer.message("half")]), "other"]
  ]

  it.effect("fails the run with the codexErrorInfo of the server", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      for (const [name, reply, codexErrorInfo] of failures) {
        const failed = yield* runWith(thread, reply).pipe(
          Effect.as(undefined),
          Effect.catchTag("TurnFailed", (error) => Effect.succeed(error))
        )
        assert.deepStrictEqual(failed?.codexErrorInfo, codexErrorInfo, name)
        assert.strictEqual(failed?.threadId, thread.id)
        assert.strictEqual(failed?.turnId, (yield* TestCodex.readTurns(thread.id)).at(-1)?.id)
        assert.include(failed?.message, failed?.detail)
      }
    }))

  it.effect("has the message, the items and the usage so far, and keeps the thread usable", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ sandbox: "danger-full-access" })
      const failed = yield* Effect.flip(runWith(
        thread,
        ModelServer.reply([
          ModelServer.message("let me look", { phase: "commentary" }),
          ModelServer.functionCall("exec_command", { cmd: "echo seen", login: false })
        ], { usage: { inputTokens: 30, outputTokens: 12 } }),
        ModelServer.failed({ code: "server_error", message: "the model broke" })
      ))
      assert.strictEqual(failed._tag, "TurnFailed")
      if (failed._tag !== "TurnFailed") return
      assert.include(failed.detail, "the model broke")
      assert.deepStrictEqual(getTypes(failed.items), ["userMessage", "agentMessage", "commandExecution"])
      assert.strictEqual(failed.usage?.turn.totalTokens, 42)

      assert.strictEqual((yield* runWith(thread, ModelServer.text("fine again"))).finalResponse, "fine again")
    }))

  it.effect("ends the stream with turn/completed", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.enqueue(ModelServer.failed({ code: "context_length_exceeded", message: "too long" }))
      const events = yield* Stream.runCollect(thread.stream("go"))
      const last = events.at(-1)
      assert.strictEqual(last?.method, "turn/completed")
      if (last?.method !== "turn/completed") return
      assert.strictEqual(last.params.turn.status, "failed")
      assert.strictEqual(last.params.turn.error?.codexErrorInfo, "contextWindowExceeded")
      assert.lengthOf(events.filter(({ method }) => method === "turn/completed"), 1)
      assert.lengthOf(events.filter(({ method }) => method === "error"), 1)
    }))
})

const retrying = { model_providers: { mock_provider: { stream_max_retries: 2 } } }

layer(TestCodex.layer({ home: { config: retrying } }), { excludeTestServices: true })(
  "Retried turn",
  (it) => {
    it.effect("completes after an error that the server retries, and has the message once", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const thread = yield* startThread
        yield* model.enqueue(
          ModelServer.cut([ModelServer.deltas(["lost"], { unfinished: true })]),
          ModelServer.reply([ModelServer.deltas(["found"])])
        )
        const events = yield* Stream.runCollect(thread.stream("go"))
        const retries = events.flatMap((event) => event.method === "error" ? [event.params.willRetry] : [])
        assert.deepStrictEqual(retries, [true])
        assert.deepStrictEqual(getDeltas(events), ["lost", "found"])

        yield* model.enqueue(ModelServer.cut(), ModelServer.text("recovered"))
        const result = yield* thread.run("once more")
        assert.strictEqual(result.status, "completed")
        assert.strictEqual(result.finalResponse, "recovered")
        assert.deepStrictEqual(getTypes(result.items), ["userMessage", "agentMessage"])
      }))
  }
)

layer(TestCodex.layer({ config: { tool_output_token_limit: 32 } }), { excludeTestServices: true })("Input", (it) => {
  /** The smallest PNG, of one pixel. */
  const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="

  const sent = Effect.fnUntraced(function*(input: Input.Input, options?: Thread.TurnOptions) {
    const model = yield* ModelServer.ModelServer
    const thread = yield* startThread
    yield* model.enqueue(ModelServer.text("received"))
    const result = yield* thread.run(input, options)
    assert.strictEqual(result.finalResponse, "received")
    const [request] = yield* TestCodex.getRequests(thread.id)
    assert.isDefined(request)
    return { request: request!, items: result.items, thread }
  })

  it.effect("sends a string, an item or several items as one message", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* sent("a string")).request.lastUserText, "a string")
      assert.strictEqual((yield* sent(Input.text("an item"))).request.lastUserText, "an item")
      const { items, request } = yield* sent([Input.text("first"), Input.text("second")])
      assert.deepStrictEqual(request.userTexts.slice(-2), ["first", "second"])
      assert.deepStrictEqual(getTypes(items), ["userMessage", "agentMessage"])
      assert.strictEqual((yield* sent("")).request.lastUserText, "")
    }))

  it.effect("keeps every character, such as line ends, zeros and emoji", () =>
    Effect.gen(function*() {
      const text = "a\nb\r\nc\u2028d\u2029e\u0000f\u0085g 👩‍🚀 \uFEFFh"
      assert.strictEqual((yield* sent(text)).request.lastUserText, text)
    }))

  it.effect("sends an image in a data URL", () =>
    Effect.gen(function*() {
      const url = `data:image/png;base64,${png}`
      const { request } = yield* sent([Input.text("look"), Input.image(url)])
      assert.deepStrictEqual(request.imageUrls("user"), [url])
      assert.include(request.userTexts, "look")
    }))

  it.effect("sends an image file as a data URL", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const file = path.join(root, "pixel.png")
      yield* fs.writeFile(file, yield* Effect.fromResult(Base64.decode(png)))
      const { request } = yield* sent(Input.localImage(file))
      const [url, ...more] = request.imageUrls("user")
      assert.match(url ?? "", /^data:image\/png;base64,/)
      assert.deepStrictEqual(more, [])
    }))

  it.effect("sends the body of a skill", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const directory = path.join(workspace, ".agents", "skills", "demo")
      const file = path.join(directory, "SKILL.md")
      yield* fs.makeDirectory(directory, { recursive: true })
      yield* fs.writeFileString(file, "---\nname: demo\ndescription: A demo.\n---\n\nUse the word cobalt.\n")
      const { request } = yield* sent([Input.text("use the skill"), Input.skill("demo", file)])
      const injected = request.userTexts.find((text) => text.startsWith("<skill>"))
      for (const part of ["<name>demo</name>", `<path>${file}</path>`, "Use the word cobalt."]) {
        assert.include(injected, part)
      }
      assert.include(request.userTexts, "use the skill")
    }))

  it.effect("keeps the mention of an app in the user message", () =>
    Effect.gen(function*() {
      const { items, request } = yield* sent([Input.text("ask it"), Input.mention("Calendar", "app://calendar")])
      const [message] = items
      assert.strictEqual(message?.type, "userMessage")
      if (message?.type !== "userMessage") return
      assert.deepInclude(message.content, { type: "mention", name: "Calendar", path: "app://calendar" })
      assert.strictEqual(request.lastUserText, "ask it")
    }))

  const toolOutputs = (request: ModelServer.ModelRequest | undefined) =>
    request?.input.filter((item) => JSON.stringify(item).includes("\"function_call_output\"")) ?? []

  it.effect("sends the output of a tool as such, also after a fork", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const toolOutput = { name: "mailbox", namespace: "external", output: "one new message" }
      const { items, request, thread } = yield* sent([], { toolOutput })
      const expected = { type: "function_call_output", ...toolOutput }
      assert.deepInclude(toolOutputs(request)[0], expected)
      assert.notInclude(request.userTexts, "one new message")
      assert.deepStrictEqual(getTypes(items), ["functionCallOutput", "agentMessage"])

      const forked = yield* codex.forkThread(thread.id)
      yield* model.enqueue(ModelServer.text("still a tool's"))
      yield* forked.run("what was it?")
      const [later] = yield* TestCodex.getRequests(forked.id)
      assert.deepInclude(toolOutputs(later)[0], expected)
    }))

  it.effect("truncates the output of a tool at the configured limit", () =>
    Effect.gen(function*() {
      const output = `begin ${"word ".repeat(1_000)}end`
      const { request } = yield* sent([], { toolOutput: { name: "mailbox", output } })
      const seen = JSON.stringify(toolOutputs(request)[0])
      assert.include(seen, "begin")
      assert.include(seen, "truncated")
      assert.isBelow(seen.length, 1_000)
    }))

  it.effect("fails above 1,048,576 characters before a request is sent", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const wire = yield* TestCodex.Wire
      const thread = yield* startThread
      const before = yield* wire.sent
      const requests = (yield* model.requests).length
      for (
        const input of ["x".repeat(1_048_577), [Input.text("x"), Input.text("é".repeat(1_048_576))]]
      ) {
        for (
          const effect of [
            Effect.asVoid(thread.run(input)),
            Effect.asVoid(Effect.scoped(thread.turn(input))),
            Stream.runDrain(thread.stream(input))
          ]
        ) {
          const reason = yield* TestCodex.expectReason(effect)
          assert.strictEqual(reason._tag, "InvalidRequest")
          assert.match(reason.message, /`turn\/start` .*1048577 characters.*1048576/)
        }
      }
      assert.deepStrictEqual(yield* wire.sent, before)
      assert.lengthOf(yield* model.requests, requests)
    }))

  it.effect("accepts 1,048,576 characters of any width", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      const input = "😀".repeat(1_000) + "x".repeat(1_047_576)
      yield* model.enqueue(ModelServer.text("long"))
      assert.strictEqual((yield* thread.run(input)).finalResponse, "long")
      assert.strictEqual((yield* TestCodex.getRequests(thread.id))[0]?.lastUserText?.length, input.length)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Thread", (it) => {
  it.effect("has the name that the program sets", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      yield* runWith(thread, ModelServer.text("named"))
      yield* thread.setName("A thread with a name")
      const read = yield* thread.read()
      assert.strictEqual(read.id, thread.id)
      assert.strictEqual(read.name, "A thread with a name")
      assert.strictEqual(read.preview, "go")
      assert.deepStrictEqual(read.turns, [])
    }))

  it.effect("reads its turns", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* model.enqueue(ModelServer.text("first answer"), ModelServer.text("second answer"))
      const first = yield* thread.run("first question")
      const second = yield* thread.run("second question")
      const { turns } = yield* thread.read({ includeTurns: true })
      assert.deepStrictEqual(turns.map(({ id, status }) => ({ id, status })), [
        { id: first.id, status: "completed" },
        { id: second.id, status: "completed" }
      ])
      assert.deepStrictEqual(turns.map(({ items }) => getTypes(items)), [
        ["userMessage", "agentMessage"],
        ["userMessage", "agentMessage"]
      ])
      assert.deepInclude(turns[1]?.items[1], { text: "second answer" })
    }))

  it.effect("has no turns before its first turn", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      assert.deepStrictEqual((yield* thread.read()).turns, [])
      const reason = yield* TestCodex.expectReason(thread.read({ includeTurns: true }))
      assert.deepInclude(reason, { _tag: "RequestRejected", code: -32601 })
    }))

  it.effect("completes a compaction when the model has summarized it", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* runWith(thread, ModelServer.text("a long answer"))
      const summary = yield* TestCodex.heldMessage
      yield* model.enqueue(summary.reply)
      const asked = yield* TestCodex.nextRequest
      const compacting = yield* Effect.forkChild(thread.compact)
      const request = yield* asked
      assert.strictEqual(request.promptCacheKey, thread.id)
      yield* summary.say("a summary")
      // The server responds to other requests during the compaction.
      assert.strictEqual((yield* thread.read()).status.type, "active")
      assert.isUndefined(compacting.pollUnsafe())

      yield* summary.finish
      yield* Fiber.join(compacting)
      assert.strictEqual((yield* thread.read()).status.type, "idle")
      assert.deepStrictEqual(getTypes((yield* TestCodex.readTurns(thread.id)).at(-1)?.items ?? []), [
        "contextCompaction"
      ])
      yield* runWith(thread, ModelServer.text("short"))
      const [, , afterwards] = yield* TestCodex.getRequests(thread.id)
      assert.isTrue(afterwards?.userTexts.some((text) => text.includes("a summary")))
      assert.deepStrictEqual(afterwards?.messageTexts("assistant"), [])
    }))

  it.effect("fails a compaction when the model fails, and stays usable", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* runWith(thread, ModelServer.text("an answer"))
      yield* model.enqueue(ModelServer.httpError(401))
      const failed = yield* thread.compact.pipe(
        Effect.as(undefined),
        Effect.catchTag("TurnFailed", (error) => Effect.succeed(error))
      )
      assert.deepStrictEqual(failed?.codexErrorInfo, { httpConnectionFailed: { httpStatusCode: 401 } })
      assert.strictEqual((yield* runWith(thread, ModelServer.text("fine"))).finalResponse, "fine")
    }))

  it.effect("interrupts a compaction whose caller is interrupted", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      yield* runWith(thread, ModelServer.text("an answer"))
      yield* model.enqueue(TestCodex.halfMessage)
      const asked = yield* TestCodex.nextRequest
      const compacting = yield* Effect.forkChild(thread.compact)
      yield* asked
      yield* Fiber.interrupt(compacting)
      yield* model.awaitIdle
      assert.strictEqual((yield* thread.read()).status.type, "idle")
      assert.strictEqual((yield* TestCodex.readTurns(thread.id)).at(-1)?.status, "interrupted")
    }))

  it.effect("fails with ThreadNotFound while it is archived", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* startThread
      yield* runWith(thread, ModelServer.text("stored"))
      yield* codex.archiveThread(thread.id)
      for (
        const effect of [
          Effect.asVoid(thread.run("go")),
          Effect.asVoid(Effect.scoped(thread.turn("go"))),
          Stream.runDrain(thread.stream("go")),
          thread.compact
        ]
      ) {
        assert.deepInclude(yield* TestCodex.expectReason(effect), { _tag: "ThreadNotFound", state: "archived" })
      }
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Thread.stream", (it) => {
  it.effect("emits the events of one turn, from turn/started to turn/completed, with each delta", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      const message = yield* TestCodex.heldMessage
      yield* model.enqueue(message.reply)
      yield* message.say("he")
      // The model sends the second delta after the subscriber has the first, so that they are not coalesced.
      const events = yield* Stream.runCollect(
        thread.stream("go").pipe(
          Stream.tap((event) =>
            event.method === "item/agentMessage/delta" && event.params.delta === "he"
              ? Effect.andThen(message.say("llo"), message.finish)
              : Effect.void
          )
        )
      )
      assert.deepStrictEqual(getDeltas(events), ["he", "llo"])
      const methods = events.map(({ method }) => method)
      assert.strictEqual(methods[0], "turn/started")
      assert.strictEqual(methods.at(-1), "turn/completed")
      assert.lengthOf(methods.filter((method) => method === "turn/completed"), 1)
      const items = events.flatMap((event) => event.method === "item/completed" ? [event.params.item] : [])
      assert.deepStrictEqual(getTypes(items), ["userMessage", "agentMessage"])
      assert.deepInclude(items[1], { text: "hello" })
      assert.include(methods, "thread/tokenUsage/updated")
    }))

  it.effect("starts a turn each time it runs, and none before", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      const stream = thread.stream("go")
      assert.deepStrictEqual(yield* TestCodex.getRequests(thread.id), [])
      yield* model.enqueue(ModelServer.text("one"), ModelServer.text("two"))
      const turnIds = Stream.runCollect(stream).pipe(
        Effect.map((events) =>
          new Set(events.flatMap((event) => event.method === "turn/completed" ? [event.params.turn.id] : []))
        )
      )
      const ids = [...yield* turnIds, ...yield* turnIds]
      assert.deepStrictEqual((yield* TestCodex.readTurns(thread.id)).map(({ id }) => id), ids)
      assert.lengthOf(ids, 2)
    }))

  it.effect("does not delay other requests", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* startThread
      const message = yield* TestCodex.heldMessage
      yield* model.enqueue(message.reply)
      yield* message.say("one")
      const events = yield* Stream.runCollect(
        thread.stream("go").pipe(
          Stream.tap(Effect.fnUntraced(function*(event) {
            if (event.method !== "item/agentMessage/delta" || event.params.delta !== "one") return
            const models = yield* Stream.runCollect(codex.models())
            yield* message.say(models[0]?.id ?? "no model")
            yield* message.finish
          }))
        )
      )
      assert.deepStrictEqual(getDeltas(events), ["one", "mock-model"])
    }))

  it.effect("emits only the events of its thread while another stream runs", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const [a, b] = yield* Effect.all([startThread, startThread])
      const messages = { a: yield* TestCodex.heldMessage, b: yield* TestCodex.heldMessage }
      yield* model.respond((request) => request.promptCacheKey === a.id ? messages.a.reply : messages.b.reply)
      const textOf = (thread: Thread.Thread) =>
        thread.stream("go").pipe(Stream.flatMap((event) => {
          if (event.method === "item/agentMessage/delta") {
            assert.strictEqual(event.params.threadId, thread.id)
            return Stream.make(event.params.delta)
          }
          return event.method === "turn/completed" ? Stream.make(event.method) : Stream.empty
        }))
      const pullA = yield* Stream.toPull(textOf(a))
      const pullB = yield* Stream.toPull(textOf(b))
      for (const round of ["1", "2", "3"]) {
        yield* messages.a.say(`a${round}`)
        yield* messages.b.say(`b${round}`)
        assert.deepStrictEqual(yield* pullB, [`b${round}`])
        assert.deepStrictEqual(yield* pullA, [`a${round}`])
      }
      yield* messages.b.finish
      assert.deepStrictEqual(yield* pullB, ["turn/completed"])
      yield* messages.a.say("a4")
      assert.deepStrictEqual(yield* pullA, ["a4"])
      yield* messages.a.finish
      assert.deepStrictEqual(yield* pullA, ["turn/completed"])
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Interruption", (it) => {
  /** A stored thread, whose turns take the server longest to begin. */
  const storedThread = Effect.gen(function*() {
    const model = yield* ModelServer.ModelServer
    yield* model.respond((request) =>
      request.lastUserText?.startsWith("hang") === true ? TestCodex.halfMessage : ModelServer.text("ok")
    )
    const thread = yield* startThread
    yield* thread.run("store")
    return thread
  })

  const getInterrupts = Effect.fnUntraced(function*(threadId: string) {
    const wire = yield* TestCodex.Wire
    return (yield* wire.sent).filter(({ method, params }) =>
      method === "turn/interrupt" && params?.["threadId"] === threadId
    )
  })

  /** Expects that the last turn is interrupted, that the model has no request, and that the thread is usable. */
  const expectInterrupted = Effect.fnUntraced(function*(thread: Thread.Thread) {
    const model = yield* ModelServer.ModelServer
    assert.strictEqual((yield* thread.read()).status.type, "idle")
    assert.strictEqual((yield* TestCodex.readTurns(thread.id)).at(-1)?.status, "interrupted")
    yield* model.awaitIdle
    assert.strictEqual((yield* thread.run("go on")).finalResponse, "ok")
  })

  it.effect("interrupts the turn on the server when a run times out, and waits for its end", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      const result = yield* Effect.timeoutOption(thread.run("hang"), "150 millis")
      assert.strictEqual(result._tag, "None")
      yield* expectInterrupted(thread)
      assert.lengthOf(yield* getInterrupts(thread.id), 1)
    }))

  it.effect("interrupts the turn on the server when a run loses a race", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      const asked = yield* TestCodex.nextRequest
      const winner = yield* Effect.raceFirst(thread.run("hang"), Effect.as(asked, "the other"))
      assert.strictEqual(winner, "the other")
      yield* expectInterrupted(thread)
    }))

  it.effect("interrupts the turn on the server when a subscriber takes some events of a stream", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      const [event] = yield* Stream.runCollect(Stream.take(thread.stream("hang"), 1))
      assert.strictEqual(event?.method, "turn/started")
      yield* expectInterrupted(thread)

      const text = yield* Stream.runCollect(
        thread.stream("hang again").pipe(
          Stream.filter(({ method }) => method === "item/agentMessage/delta"),
          Stream.take(1)
        )
      )
      assert.deepStrictEqual(getDeltas(text), ["half"])
      yield* expectInterrupted(thread)
    }))

  it.effect("interrupts the turn on the server when a subscriber fails", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      const failure = yield* Effect.flip(
        Stream.runForEach(thread.stream("hang"), (event) =>
          event.method === "item/agentMessage/delta" ? Effect.fail("enough") : Effect.void)
      )
      assert.strictEqual(failure, "enough")
      yield* expectInterrupted(thread)
    }))

  it.effect("interrupts the turn on the server when its scope closes, also before it has begun", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      const id = yield* Effect.scoped(Effect.map(thread.turn("hang"), (turn) => turn.id))
      assert.strictEqual((yield* TestCodex.readTurns(thread.id)).at(-1)?.id, id)
      yield* expectInterrupted(thread)

      yield* Effect.scoped(Effect.gen(function*() {
        const asked = yield* TestCodex.nextRequest
        yield* thread.turn("hang on")
        yield* asked
      }))
      yield* expectInterrupted(thread)
    }))

  it.effect("leaves no turn running when a run is interrupted before the response to turn/start", () =>
    Effect.gen(function*() {
      const wire = yield* TestCodex.Wire
      const thread = yield* storedThread
      for (const input of ["hang 1", "hang 2", "hang 3", "hang 4"]) {
        const running = yield* Effect.forkChild(thread.run(input))
        yield* wire.awaitSent(isTurnStart(thread, input))
        yield* Fiber.interrupt(running)
        yield* expectInterrupted(thread)
      }
    }))

  it.effect("leaves no turn running when a run is interrupted just after the response to turn/start", () =>
    Effect.gen(function*() {
      const wire = yield* TestCodex.Wire
      const thread = yield* storedThread
      for (const input of ["hang 1", "hang 2", "hang 3", "hang 4"]) {
        const running = yield* Effect.forkChild(thread.run(input))
        const { id } = yield* wire.awaitSent(isTurnStart(thread, input))
        yield* wire.awaitReceived((message) => message.id === id && message.result !== undefined)
        yield* Fiber.interrupt(running)
        yield* expectInterrupted(thread)
      }
    }))

  it.effect("leaves no turn running when a run is interrupted before turn/start is sent", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      const running = yield* Effect.forkChild(thread.run("hang"), { startImmediately: true })
      yield* Fiber.interrupt(running)
      assert.strictEqual((yield* thread.read()).status.type, "idle")
      const fresh = yield* startThread
      const first = yield* Effect.forkChild(fresh.run("hang"), { startImmediately: true })
      yield* Fiber.interrupt(first)
      assert.strictEqual((yield* fresh.read()).status.type, "idle")
      for (const one of [thread, fresh]) assert.strictEqual((yield* one.run("go on")).finalResponse, "ok")
      assert.notInclude((yield* TestCodex.readTurns(thread.id)).map(({ status }) => status), "inProgress")
    }))

  it.effect("leaves no turn running when runs on several threads time out together", () =>
    Effect.gen(function*() {
      const threads = yield* Effect.replicateEffect(storedThread, 4)
      const results = yield* Effect.forEach(
        threads,
        (thread) => Effect.timeoutOption(thread.run("hang"), "100 millis"),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(results.map(({ _tag }) => _tag), ["None", "None", "None", "None"])
      for (const thread of threads) yield* expectInterrupted(thread)
    }))

  it.effect("sends no turn/interrupt for a turn that has ended", () =>
    Effect.gen(function*() {
      const thread = yield* storedThread
      yield* thread.run("done")
      yield* Stream.runDrain(thread.stream("done"))
      yield* Effect.scoped(Effect.flatMap(thread.turn("done"), (turn) => turn.result))
      assert.deepStrictEqual(yield* getInterrupts(thread.id), [])
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Thread.backgroundTerminals", (it) => {
  const sleeping = ModelServer.functionCall("exec_command", { cmd: "sleep 3600", yield_time_ms: 250 }, { callId: "c" })

  const listTerminals = (thread: Thread.Thread) => Stream.runCollect(thread.backgroundTerminals.list)

  /** Waits for an empty list. The server still lists a command for a moment after its end. */
  const awaitNone = (thread: Thread.Thread) =>
    Effect.repeat(listTerminals(thread), {
      until: ({ length }) => length === 0,
      schedule: Schedule.spaced("10 millis")
    })

  /** Uses a turn that has started a command, and then closes its scope. */
  const withTerminal = Effect.fnUntraced(function*<A, E>(
    options: Thread.TurnOptions,
    use: (turn: Turn.Turn, thread: Thread.Thread) => Effect.Effect<A, E, Scope.Scope>,
    replies: ReadonlyArray<ModelServer.Reply> = [sleeping, TestCodex.halfMessage]
  ) {
    const thread = yield* startThread
    yield* TestCodex.script(thread, ...replies)
    yield* Effect.scoped(Effect.gen(function*() {
      const turn = yield* thread.turn("go", options)
      yield* Effect.repeat(TestCodex.getRequests(thread.id), {
        until: ({ length }) => length === 2,
        schedule: Schedule.spaced("10 millis")
      })
      assert.lengthOf(yield* listTerminals(thread), 1)
      yield* use(turn, thread)
    }))
    return thread
  })

  const timesOut = (turn: Turn.Turn) =>
    Effect.andThen(Turn.withDeadline(turn, "10 millis"), TestCodex.expectReason(turn.result))

  it.effect("end with a turn that its fiber, its scope or a deadline interrupts", () =>
    Effect.gen(function*() {
      yield* awaitNone(yield* withTerminal({}, () => Effect.void))
      yield* awaitNone(yield* withTerminal({}, timesOut))
      const interrupted = yield* withTerminal({}, (_, thread) =>
        Effect.gen(function*() {
          const joined = yield* Effect.forkChild(thread.run("and this"))
          yield* Fiber.interrupt(joined)
          // Another caller holds the turn.
          assert.lengthOf(yield* listTerminals(thread), 1)
        }))
      yield* awaitNone(interrupted)
    }))

  it.effect("outlive a turn that completes, that Turn.interrupt ends, or whose option keeps them", () =>
    Effect.gen(function*() {
      const ended = yield* withTerminal({}, ({ result }) => result, [sleeping, ModelServer.text("done")])
      const [terminal] = yield* listTerminals(ended)
      assert.include(terminal?.command, "sleep 3600")
      assert.isTrue(yield* ended.backgroundTerminals.terminate(terminal!.processId))
      assert.isFalse(yield* ended.backgroundTerminals.terminate("1"))
      yield* awaitNone(ended)

      const interrupted = yield* withTerminal({}, ({ interrupt, result }) => Effect.andThen(interrupt, result))
      assert.lengthOf(yield* listTerminals(interrupted), 1)
      yield* interrupted.backgroundTerminals.clean
      yield* awaitNone(interrupted)

      const kept = yield* withTerminal({ keepBackgroundTerminals: true }, timesOut)
      assert.lengthOf(yield* listTerminals(kept), 1)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Thread.close", (it) => {
  it.effect("unloads the thread on the server, and ends its MCP servers", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const pidFile = path.join(root, "mcp.pid")
      const thread = yield* codex.startThread({
        config: {
          mcp_servers: {
            people: {
              command: process.execPath,
              args: [path.join(import.meta.dirname, "fixtures", "mcp-server.mjs")],
              env: { PID_FILE: pidFile }
            }
          }
        }
      })
      yield* TestCodex.script(thread, ModelServer.text("one"), ModelServer.text("two"))
      yield* thread.run("one")
      // The server starts it in the background.
      yield* Effect.repeat(fs.exists(pidFile), { until: (exists) => exists, schedule: Schedule.spaced("10 millis") })
      const pid = Number(yield* fs.readFileString(pidFile))
      const isRunning = Effect.sync(() => {
        try {
          return process.kill(pid, 0)
        } catch {
          return false
        }
      })
      assert.isTrue(yield* isRunning)
      yield* thread.close
      yield* Effect.repeat(isRunning, { until: (running) => !running, schedule: Schedule.spaced("10 millis") })
      assert.notInclude((yield* server.request("thread/loaded/list", {})).data, thread.id)
      const again = yield* codex.resumeThread(thread.id)
      assert.strictEqual((yield* again.run("two")).finalResponse, "two")
    }))

  it.effect("is complete before a following resume, which waits until the server has unloaded the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      let thread = yield* startThread
      yield* TestCodex.script(thread, ModelServer.text("one"))
      yield* thread.run("one")
      for (let i = 0; i < 20; i++) {
        yield* thread.close
        thread = yield* codex.resumeThread(thread.id)
      }
      assert.strictEqual((yield* thread.read()).status.type, "idle")
    }))

  it.effect("interrupts the turn, and closes all handles of the thread until a resume", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      const thread = yield* codex.startThread({ sandbox: "workspace-write" })
      yield* TestCodex.script(thread, ModelServer.text("one"), TestCodex.halfMessage, ModelServer.text("three"))
      yield* thread.run("one")
      const other = yield* codex.resumeThread(thread.id)
      const before = yield* thread.settings
      yield* Effect.scoped(Effect.gen(function*() {
        const turn = yield* thread.turn("two")
        yield* Stream.runHead(turn.text)
        yield* thread.close
        assert.strictEqual((yield* turn.result).status, "interrupted")
      }))
      yield* thread.close
      const sent = (yield* wire.sent).filter(({ params }) => params?.["threadId"] === thread.id)
      assert.lengthOf(sent.filter(({ method }) => method === "thread/unsubscribe"), 1)
      for (const closed of [thread, other]) {
        for (
          const operation of [closed.run("no"), Stream.runDrain(closed.stream("no")), closed.compact, closed.settings]
        ) {
          const reason = yield* TestCodex.expectReason(operation)
          assert(reason._tag === "InvalidRequest")
          assert.include(reason.description, "closed")
        }
      }
      const again = yield* codex.resumeThread(thread.id)
      assert.deepStrictEqual(yield* again.settings, before)
      assert.strictEqual((yield* again.run("three")).finalResponse, "three")
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Run on a busy thread", (it) => {
  /** Two runs of one turn: the second joins while the first waits for the model, which then sends `message`. */
  const joined = Effect.gen(function*() {
    const thread = yield* startThread
    const message = yield* TestCodex.heldMessage
    yield* TestCodex.script(thread, TestCodex.halfMessage, message.reply)
    const askedFirst = yield* TestCodex.nextRequest
    const first = yield* Effect.forkChild(thread.run("one"))
    yield* askedFirst
    const askedSecond = yield* TestCodex.nextRequest
    const second = yield* Effect.forkChild(thread.run("two"))
    const request = yield* askedSecond
    assert.deepStrictEqual(request.userTexts.slice(-2), ["one", "two"])
    return { first, message, second, thread }
  })

  it.effect("joins the running turn, and returns its result to both callers", () =>
    Effect.gen(function*() {
      const { first, message, second, thread } = yield* joined
      yield* message.say("to both")
      yield* message.finish
      const [one, two] = yield* Effect.all([Fiber.join(first), Fiber.join(second)])
      assert.deepStrictEqual(one, two)
      assert.strictEqual(one.finalResponse, "to both")
      assert.deepStrictEqual(getTypes(one.items), ["userMessage", "userMessage", "agentMessage"])
      assert.lengthOf(yield* TestCodex.readTurns(thread.id), 1)
    }))

  it.effect("fails both callers when the turn fails", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      yield* TestCodex.script(thread, TestCodex.halfMessage, ModelServer.httpError(401))
      const asked = yield* TestCodex.nextRequest
      const first = yield* Effect.forkChild(thread.run("one"))
      yield* asked
      const second = yield* Effect.result(thread.run("two"))
      const both = [yield* Effect.result(Fiber.join(first)), second]
      const tags = both.map((result) => Result.isFailure(result) ? result.failure._tag : "Success")
      assert.deepStrictEqual(tags, ["TurnFailed", "TurnFailed"])
    }))

  it.effect("continues when one of two callers is interrupted", () =>
    Effect.gen(function*() {
      for (const interrupted of ["first", "second"] as const) {
        const { message, thread, ...runs } = yield* joined
        yield* Fiber.interrupt(runs[interrupted])
        assert.strictEqual((yield* thread.read()).status.type, "active")
        yield* message.say("to the other")
        yield* message.finish
        const other = yield* Fiber.join(interrupted === "first" ? runs.second : runs.first)
        assert.strictEqual(other.status, "completed")
        assert.strictEqual(other.finalResponse, "to the other")
      }
    }))

  it.effect("continues when the first caller is interrupted before the response to the second", () =>
    Effect.gen(function*() {
      const wire = yield* TestCodex.Wire
      const thread = yield* startThread
      yield* TestCodex.script(thread, TestCodex.halfMessage, ModelServer.text("to the second"))
      const asked = yield* TestCodex.nextRequest
      const first = yield* Effect.forkChild(thread.run("the first"))
      yield* asked
      const second = yield* Effect.forkChild(thread.run("the second"))
      yield* wire.awaitSent(isTurnStart(thread, "the second"))
      yield* Fiber.interrupt(first)
      const result = yield* Fiber.join(second)
      assert.strictEqual(result.status, "completed")
      assert.strictEqual(result.finalResponse, "to the second")
    }))

  it.effect("is interrupted on the server when both callers are interrupted", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { first, message, second, thread } = yield* joined
      yield* message.say("to neither")
      yield* Fiber.interruptAll([first, second])
      yield* model.awaitIdle
      assert.strictEqual((yield* thread.read()).status.type, "idle")
      assert.deepStrictEqual((yield* TestCodex.readTurns(thread.id)).map(({ status }) => status), ["interrupted"])
    }))

  it.effect("sends the output of a tool", () =>
    Effect.gen(function*() {
      const thread = yield* startThread
      const message = yield* TestCodex.heldMessage
      yield* TestCodex.script(thread, message.reply, ModelServer.text("seen"))
      const asked = yield* TestCodex.nextRequest
      const first = yield* Effect.forkChild(thread.run("wait for the tool"))
      yield* asked
      yield* message.say("waiting")
      const toolOutput = { name: "mailbox", output: "one new message" }
      yield* Effect.scoped(Effect.gen(function*() {
        const turn = yield* thread.turn([], { toolOutput })
        // Unlike the input of a user, it does not end the message that the model is sending.
        yield* message.finish
        assert.deepStrictEqual(yield* Fiber.join(first), yield* turn.result)
      }))
      const [, request] = yield* TestCodex.getRequests(thread.id)
      assert.deepInclude(request?.input.at(-1), { type: "function_call_output", ...toolOutput })
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["waiting"])
    }))

  it.effect("emits the events of the joined turn from its start", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* startThread
      yield* TestCodex.script(thread, TestCodex.halfMessage, ModelServer.reply([ModelServer.deltas(["whole"])]))
      const asked = yield* TestCodex.nextRequest
      const first = yield* Effect.forkChild(thread.run("one"))
      yield* asked
      const events = yield* Stream.runCollect(thread.stream("two"))
      const { id } = yield* Fiber.join(first)
      const [started] = events
      assert.strictEqual(started?.method, "turn/started")
      assert.include(getDeltas(events).join(""), "whole")
      const inputs = events.filter((event) =>
        event.method === "item/completed" && event.params.item.type === "userMessage"
      )
      assert.lengthOf(inputs, 2)
      const { thread: stored } = yield* server.request("thread/read", { threadId: thread.id, includeTurns: true })
      assert.deepStrictEqual(stored.turns.map((turn) => turn.id), [id])
    }))
})
