/** Requests to Codex as a language model: what the server receives, and what the response contains. */
import { assert, describe, layer } from "@effect/vitest"
import { it as plain } from "@effect/vitest"
import { Approvals, AppServer, Budget, Codex } from "effect-codex"
import { CodexLanguageModel } from "effect-codex/ai"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import { AiError, LanguageModel, Model, type Prompt } from "effect/ai"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { poll } from "../poll.ts"
import * as TestCodex from "../TestCodex.ts"

const { deltas, functionCall, message, reasoning, reply, text } = ModelServer

/** The sent params of a method. */
const sent = (method: string) =>
  Effect.map(
    Effect.flatMap(TestCodex.Wire, ({ sent }) => sent),
    (messages) => messages.filter((message) => message.method === method).map(({ params = {} }) => params)
  )

const lastRequest = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  const request = (yield* model.requests).at(-1)
  assert(request !== undefined)
  return request
})

const expectReason = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(AiError.isAiError(error), String(error))
    return error.reason
  })

const loadedThreads = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  return (yield* server.request("thread/loaded/list", {})).data
})

/** Waits until the server has no thread loaded. It unloads threads in the background. */
const noThreads = poll(loadedThreads, ({ length }) => length === 0, "the server to unload all threads")

const user = (...content: ReadonlyArray<Prompt.UserMessagePartEncoded>): Prompt.RawInput => [{ role: "user", content }]

const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

layer(TestCodex.layer(), { excludeTestServices: true })("A request", (it) => {
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: CodexLanguageModel.Options) =>
    Effect.provide(effect, CodexLanguageModel.layer(options))

  it.effect("has commentary as reasoning, and usage with cache and reasoning", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(
        reply([message("I look.", { phase: "commentary" }), message("42", { phase: "final_answer" })], {
          usage: {
            inputTokens: 20,
            cachedInputTokens: 4,
            cacheWriteInputTokens: 3,
            outputTokens: 5,
            reasoningTokens: 2
          }
        })
      )
      const response = yield* LanguageModel.generateText({ prompt: "6 * 7?" })
      assert.strictEqual(response.text, "42")
      assert.strictEqual(response.reasoningText, "I look.")
      assert.strictEqual(response.finishReason, "stop")
      assert.deepStrictEqual(JSON.parse(JSON.stringify(response.usage)), {
        inputTokens: { uncached: 13, total: 20, cacheRead: 4, cacheWrite: 3 },
        outputTokens: { total: 5, text: 3, reasoning: 2 }
      })
      const metadata = response.content.find(({ type }) => type === "response-metadata")
      assert(metadata?.type === "response-metadata")
      assert.strictEqual(metadata.modelId, "mock-model")
      assert.isDefined(metadata.timestamp)
    }).pipe(run))

  it.effect("may read files and nothing more, without options", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const fs = yield* FileSystem.FileSystem
      yield* model.enqueue(
        reply([functionCall("exec_command", { cmd: "echo x > written; cat config; echo done" }, { callId: "write" })]),
        reply([
          functionCall("exec_command", {
            cmd: "touch escalated",
            sandbox_permissions: "require_escalated",
            justification: "please"
          }, { callId: "escalated" })
        ]),
        text("done")
      )
      yield* run(LanguageModel.generateText({ prompt: "Write" }))
      const request = yield* lastRequest
      assert.include(request.functionCallOutput("write") ?? "", "Read-only file system")
      assert.include(request.functionCallOutput("write") ?? "", "done")
      assert.include(request.functionCallOutput("escalated") ?? "", "reject")
      assert.isFalse(yield* fs.exists(`${workspace}/written`))
      assert.isFalse(yield* fs.exists(`${workspace}/escalated`))
      const [params] = (yield* sent("thread/start")).slice(-1)
      assert.deepInclude(params, { approvalPolicy: "never", sandbox: "read-only" })
    }))

  it.effect("has the options of its layer, and those of an override", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("one"), text("two"))
      yield* Effect.gen(function*() {
        yield* LanguageModel.generateText({ prompt: "one" })
        yield* LanguageModel.generateText({ prompt: "two" }).pipe(
          CodexLanguageModel.withConfigOverride({ effort: "high" }),
          CodexLanguageModel.withConfigOverride({ effort: "low", approvalPolicy: "on-request", sandbox: "read-only" })
        )
      }).pipe((effect) =>
        run(effect, {
          approvalMode: "auto_review",
          effort: "medium",
          sandbox: "workspace-write",
          developerInstructions: "Be kind."
        })
      )
      const [one, two] = (yield* sent("thread/start")).slice(-2)
      assert.deepInclude(one, {
        approvalPolicy: "on-request",
        approvalsReviewer: "auto_review",
        sandbox: "workspace-write",
        developerInstructions: "Be kind."
      })
      assert.deepInclude(two, { approvalPolicy: "on-request", sandbox: "read-only" })
      assert.notProperty(two, "approvalsReviewer")
      const turns = (yield* sent("turn/start")).slice(-2)
      assert.deepStrictEqual(turns.map(({ effort }) => effort), ["medium", "high"])
    }))

  it.effect("has the system messages of the prompt as instructions", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("ok"))
      yield* LanguageModel.generateText({
        prompt: [
          { role: "system", content: "First." },
          { role: "system", content: "Second." },
          { role: "user", content: "Hi" },
          { role: "assistant", content: "Hello" },
          { role: "system", content: "Third." },
          { role: "user", content: "Bye" }
        ]
      })
      const [params] = (yield* sent("thread/start")).slice(-1)
      assert.strictEqual(params?.["developerInstructions"], "Zeroth.\n\nFirst.\n\nSecond.")
      const request = yield* lastRequest
      const messages = request.input.map((item) => JSON.stringify(item)).filter((item) =>
        /"(Hi|Hello|Third\.|Bye)"/.test(item)
      )
      assert.deepStrictEqual(messages.map((item) => (JSON.parse(item) as { role: string }).role), [
        "user",
        "assistant",
        "developer",
        "user"
      ])
      assert.isTrue(yield* (yield* LanguageModel.LanguageModel).supportsSystemMessagesInHistory!)
    }).pipe((effect) => run(effect, { developerInstructions: "Zeroth." })))

  it.effect("has images, and files with text", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("ok"), text("ok"))
      const bytes = Buffer.from(pixel, "base64")
      const prompt = user(
        { type: "text", text: "Look" },
        { type: "file", mediaType: "image/png", data: pixel },
        { type: "file", mediaType: "image/png", data: bytes },
        { type: "file", mediaType: "text/csv", fileName: "a.csv", data: new TextEncoder().encode("a,b") },
        { type: "file", mediaType: "application/json", data: btoa("{}") }
      )
      const check = (request: ModelServer.ModelRequest) => {
        assert.lengthOf(request.imageUrls("user"), 2)
        for (const url of request.imageUrls("user")) assert.match(url, /^data:image\/png;base64,/)
        assert.includeMembers([...request.userTexts], [
          "Look",
          "<file name=\"a.csv\">\na,b\n</file>",
          "<file>\n{}\n</file>"
        ])
      }
      yield* LanguageModel.generateText({ prompt })
      check(yield* lastRequest)
      // Also in a history, which is injected.
      yield* LanguageModel.generateText({
        prompt: [...prompt as Iterable<Prompt.MessageEncoded>, { role: "assistant", content: "I see" }, {
          role: "user",
          content: "Go on"
        }]
      })
      check(yield* lastRequest)
    }).pipe(run))

  it.effect("reads an image of a file URL on the server", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const fs = yield* FileSystem.FileSystem
      yield* fs.writeFile(`${workspace}/a b.png`, Buffer.from(pixel, "base64"))
      yield* model.enqueue(text("ok"))
      const data = new URL(`file://${workspace}/a%20b.png`)
      yield* LanguageModel.generateText({ prompt: user({ type: "file", mediaType: "image/png", data }) })
      assert.lengthOf((yield* lastRequest).imageUrls("user"), 1)
    }).pipe(run))

  it.effect("fails for a file that Codex cannot receive, without a thread", () =>
    Effect.gen(function*() {
      const before = yield* sent("thread/start")
      const reason = yield* expectReason(LanguageModel.generateText({
        prompt: user({ type: "file", mediaType: "application/pdf", data: "JVBERi0=" })
      }))
      assert.strictEqual(
        reason.message,
        "Invalid request: parameter 'prompt' must not contain a file of type `application/pdf`. Codex receives images, sounds, " +
          "and files with text. Pass the text of the file, or an image of it"
      )
      assert.lengthOf(yield* sent("thread/start"), before.length)
    }).pipe(run))

  it.effect("fails without a message", () =>
    Effect.gen(function*() {
      const reason = yield* expectReason(LanguageModel.generateText({ prompt: [] }))
      assert.strictEqual(reason._tag, "InvalidUserInputError")
    }).pipe(run))

  it.effect("runs a prompt that ends with a result of a tool", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("cold"))
      const { text: response } = yield* LanguageModel.generateText({
        prompt: [
          { role: "user", content: "Oslo?" },
          {
            role: "assistant",
            content: [{ type: "tool-call", id: "c1", name: "weather", params: { place: "Oslo" } }, {
              type: "tool-call",
              id: "c2",
              name: "weather",
              params: {}
            }]
          },
          { role: "tool", content: [{ type: "tool-result", id: "c1", name: "weather", result: -3, isFailure: false }] }
        ]
      })
      assert.strictEqual(response, "cold")
      const request = yield* lastRequest
      assert.strictEqual(request.functionCallOutput("c1"), "-3")
      assert.strictEqual(request.functionCallOutput("c2"), "The call was not completed")
    }).pipe(run))

  it.effect("uses the approvals of the caller", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const fs = yield* FileSystem.FileSystem
      const script = [
        functionCall("exec_command", {
          cmd: "echo yes > approved; echo done",
          sandbox_permissions: "require_escalated",
          justification: "please"
        }, { callId: "write" }),
        text("done")
      ]
      const ask = LanguageModel.generateText({ prompt: "Write" })
      yield* model.enqueue(...script, ...script)
      yield* ask
      assert.isFalse(yield* fs.exists(`${workspace}/approved`))
      yield* Effect.provide(ask, Approvals.layer({ command: () => Effect.succeed("accept") }))
      assert.isTrue(yield* fs.exists(`${workspace}/approved`))
    }).pipe((effect) => run(effect, { approvalPolicy: "on-request", approvalsReviewer: "user" })))

  it.effect("counts in the budget of the caller", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("one"))
      const reason = yield* expectReason(
        Effect.andThen(LanguageModel.generateText({ prompt: "one" }), LanguageModel.generateText({ prompt: "two" }))
          .pipe(
            Budget.limit({ turns: 1 })
          )
      )
      assert.strictEqual(reason._tag, "QuotaExhaustedError")
    }).pipe(run))

  it.effect("adds the attributes of the GenAI conventions to its span", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(reply([message("ok")], { usage: { inputTokens: 3, outputTokens: 2, reasoningTokens: 1 } }))
      const spans: Array<Tracer.Span> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      yield* Effect.withTracer(LanguageModel.generateText({ prompt: "secret" }), tracer)
      const [span, ...others] = spans.filter(({ name }) => name.startsWith("LanguageModel."))
      assert.lengthOf(others, 0)
      const attributes = Object.fromEntries(span!.attributes)
      assert.deepInclude(attributes, {
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.response.model": "gpt-x",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1
      })
      assert.isString(attributes["gen_ai.conversation.id"])
      for (const { attributes } of spans) assert.notInclude(JSON.stringify([...attributes]), "secret")
    }).pipe((effect) => run(effect, { model: "gpt-x" })))

  it.effect("has the name of its model and provider", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("ok"))
      yield* LanguageModel.generateText({ prompt: "Hi" })
      assert.strictEqual((yield* lastRequest).body["model"], "gpt-y")
      assert.strictEqual(yield* Model.ModelName, "gpt-y")
      assert.strictEqual(yield* Model.ProviderName, "codex")
    }).pipe(Effect.provide(CodexLanguageModel.model("gpt-y", { effort: "low" }))))

  it.effect("leaves no thread open when its layer ends", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(...Array.from({ length: 40 }, () => text("ok")))
      yield* noThreads
      yield* Effect.gen(function*() {
        yield* Effect.replicateEffect(LanguageModel.generateText({ prompt: "Hi" }), 40, { concurrency: 4 })
        // The most recent threads stay open, because they may be continued.
        yield* poll(loadedThreads, ({ length }) => length === 32, "32 threads")
      }).pipe(run)
      yield* noThreads
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("An object", (it) => {
  it.effect("may have a root that is not a struct", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const Shape = Schema.Union([
        Schema.Struct({ kind: Schema.Literal("circle"), radius: Schema.Finite }),
        Schema.Struct({ kind: Schema.Literal("square"), side: Schema.Finite })
      ])
      const shapes = [{ kind: "circle", radius: 1 }, { kind: "square", side: 2 }] as const
      yield* model.enqueue(reply([ModelServer.object(Shape, shapes[1])]))
      const union = yield* LanguageModel.generateObject({ prompt: "A shape", schema: Shape })
      assert.deepStrictEqual(union.value, shapes[1])
      yield* model.enqueue(reply([ModelServer.object(Schema.Array(Shape), shapes)]))
      const array = yield* LanguageModel.generateObject({ prompt: "Shapes", schema: Schema.Array(Shape) })
      assert.deepStrictEqual(array.value, shapes)
      const When = Schema.Struct({ at: Schema.DateTimeUtcFromString, tags: Schema.Record(Schema.String, Schema.Int) })
      const when = Schema.decodeSync(When)({ at: "2026-11-26T00:00:00.000Z", tags: { a: 1 } })
      yield* model.enqueue(reply([
        message("I think", { phase: "commentary" }),
        message("first"),
        ModelServer.object(When, when)
      ]))
      const struct = yield* LanguageModel.generateObject({ prompt: "When?", schema: When })
      assert.deepStrictEqual(struct.value, when)
      assert.strictEqual(struct.reasoningText, "I thinkfirst")
    }).pipe(Effect.provide(CodexLanguageModel.layer())))

  it.effect("fails before a request for a schema without strict JSON Schema", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const before = (yield* model.requests).length
      const reason = yield* expectReason(LanguageModel.generateObject({
        prompt: "Anything",
        schema: Schema.Struct({ any: Schema.Struct({ thing: Schema.Unknown }) })
      }))
      assert.strictEqual(reason._tag, "UnsupportedSchemaError")
      assert.include(reason.message, "`any.thing` of `schema` has no strict JSON Schema")
      assert.lengthOf(yield* model.requests, before)
    }).pipe(Effect.provide(CodexLanguageModel.layer())))

  it.effect("fails with the text and every issue if the response does not decode", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(text("{\"a\":\"x\",\"b\":1}"), text("no"))
      const schema = Schema.Struct({ a: Schema.Finite, b: Schema.String })
      const reason = yield* expectReason(LanguageModel.generateObject({ prompt: "Go", schema }))
      assert(reason._tag === "StructuredOutputError")
      assert.strictEqual(reason.responseText, "{\"a\":\"x\",\"b\":1}")
      assert.strictEqual(reason.description, "`a`: Expected number\n`b`: Expected string")
      const notJson = yield* expectReason(LanguageModel.generateObject({ prompt: "Go", schema }))
      assert.strictEqual(notJson._tag, "StructuredOutputError")
    }).pipe(Effect.provide(CodexLanguageModel.layer())))
})

layer(TestCodex.layer(), { excludeTestServices: true })("A failure of the model", (it) => {
  const cut = (reason: string): ModelServer.Reply => ({
    ...ModelServer.cut([
      deltas(["half"], { unfinished: true }),
      ModelServer.events({ type: "response.incomplete", response: { id: "r", incomplete_details: { reason } } })
    ])
  })
  const cases: ReadonlyArray<readonly [string, ModelServer.Reply, AiError.AiErrorReason["_tag"]]> = [
    ["a rate limit", ModelServer.failed({ code: "rate_limit_exceeded", message: "slow" }), "RateLimitError"],
    ["HTTP 429", ModelServer.httpError(429), "RateLimitError"],
    [
      "an exceeded quota",
      ModelServer.failed({ code: "insufficient_quota", message: "no more" }),
      "QuotaExhaustedError"
    ],
    [
      "a full context",
      ModelServer.failed({ code: "context_length_exceeded", message: "too long" }),
      "InvalidRequestError"
    ],
    ["a refused content", ModelServer.failed({ code: "cyber_policy", message: "no" }), "ContentPolicyError"],
    ["a wrong key", ModelServer.httpError(401), "AuthenticationError"],
    ["a missing permission", ModelServer.httpError(403), "AuthenticationError"],
    [
      "an invalid request",
      ModelServer.httpError(400, { error: { type: "invalid_request_error", code: "x", message: "no" } }),
      "InvalidRequestError"
    ],
    ["an error of the provider", ModelServer.httpError(500), "InternalProviderError"],
    ["a lost stream", ModelServer.cut([deltas(["half"], { unfinished: true })]), "NetworkError"]
  ]
  for (const [name, failure, tag] of cases) {
    it.effect(`is ${tag} for ${name}`, () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(failure, failure)
        const reason = yield* expectReason(LanguageModel.generateText({ prompt: "Hi" }))
        assert.strictEqual(reason._tag, tag)
        const streamed = yield* expectReason(Stream.runDrain(LanguageModel.streamText({ prompt: "Hi" })))
        assert.strictEqual(streamed._tag, tag)
        yield* noThreads
      }).pipe(Effect.provide(CodexLanguageModel.layer())))
  }

  it.effect("is the finish reason of a response that is cut short", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(cut("max_output_tokens"), cut("content_filter"))
      const length = yield* LanguageModel.generateText({ prompt: "Hi" })
      assert.deepStrictEqual([length.text, length.finishReason], ["half", "length"])
      const filter = yield* LanguageModel.generateText({ prompt: "Hi" })
      assert.deepStrictEqual([filter.text, filter.finishReason], ["half", "content-filter"])
    }).pipe(Effect.provide(CodexLanguageModel.layer())))

  it.effect("names the operation, and is the cause", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.httpError(500))
      const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Hi" }))
      assert.match(error.message, /^CodexLanguageModel\.generateText: Internal provider error: /)
      assert.isTrue(error.isRetryable)
    }).pipe(Effect.provide(CodexLanguageModel.layer())))
})

layer(TestCodex.layer({ home: { config: TestCodex.retryConfig(2) } }), { excludeTestServices: true })(
  "A response that the server retries",
  (it) => {
    it.effect("replaces the text of the first attempt", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const lost = ModelServer.cut([reasoning("hm"), deltas(["ha", "lf"], { unfinished: true })])
        yield* model.enqueue(lost, reply([deltas(["who", "le"])]), lost, reply([deltas(["who", "le"])]))
        const response = yield* LanguageModel.generateText({ prompt: "Hi" })
        assert.strictEqual(response.text, "whole")
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hi" }))
        const starts = parts.filter((part) => part.type === "text-start").map(({ id }) => id)
        assert.lengthOf(starts, 2)
        assert.lengthOf(new Set(starts), 1)
        assert.lengthOf(parts.filter(({ type }) => type === "text-end"), 1)
      }).pipe(Effect.provide(CodexLanguageModel.layer())))
  }
)

describe("CodexLanguageModel", () => {
  plain.effect("throws for options of plain JavaScript that are wrong", () =>
    Effect.gen(function*() {
      // Wrong options fail before the services are used.
      const services = Layer.mergeAll(
        Layer.succeed(Codex.Codex, {} as Codex.Codex["Service"]),
        Layer.succeed(AppServer.AppServer, {} as AppServer.AppServer["Service"])
      )
      const build = (options: object) =>
        Effect.provide(LanguageModel.LanguageModel, CodexLanguageModel.layer(options)).pipe(
          Effect.provide(services),
          Effect.catchDefect((defect) => Effect.succeed(String(defect)))
        )
      assert.strictEqual(
        yield* build({ sandbx: "read-only" }),
        "TypeError: CodexLanguageModel: unknown option `sandbx`; did you mean `sandbox`?"
      )
      assert.include(String(yield* build({ idleTimeToLive: "soon" })), "the option `idleTimeToLive` is a string")
    }))
})
