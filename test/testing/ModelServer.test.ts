import { assert, describe, it, layer } from "@effect/vitest"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as CodexEnvironment from "../../src/testing/CodexEnvironment.ts"
import * as ModelServer from "../../src/testing/ModelServer.ts"
import * as TestCodex from "../../src/testing/TestCodex.ts"
import type { Message } from "./jsonClient.ts"
import * as RawAppServer from "./RawAppServer.ts"

const isDelta = (text: string) => (message: Message) => message.params?.delta === text

const addFile = (name: string) => `*** Begin Patch\n*** Add File: ${name}\n+patched\n*** End Patch`

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("ModelServer with codex app-server", (it) => {
  it.effect("fails a turn without a reply, and names the remedy", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.reset
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()
      yield* model.enqueue(ModelServer.functionCall("exec_command", { cmd: "ls", login: false }))
      const { error, status } = yield* app.runTurn(threadId, "list")
      assert.strictEqual(status, "failed")
      assert.include(String(error?.["message"]), "no reply to request 2")
      assert.include(String(error?.["message"]), "ModelServer.enqueue")
    }).pipe(Effect.scoped))

  it.effect("fails a turn with the error of a function that throws or whose Effect dies", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()
      const messageFor = Effect.fnUntraced(function*(respond: () => Effect.Effect<ModelServer.Reply>) {
        yield* model.respond(respond)
        return String((yield* app.runTurn(threadId, "hi")).error?.["message"])
      })
      const thrown = yield* messageFor(() => {
        throw new Error("a bug in the function")
      })
      assert.include(thrown, "ModelServer.respond")
      assert.include(thrown, "a bug in the function")
      assert.include(yield* messageFor(() => Effect.die(new Error("a bug in the Effect"))), "a bug in the Effect")
      yield* model.reset
    }).pipe(Effect.scoped))

  it.effect("sends a message to the turn, and keeps the request", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()
      const before = (yield* model.requests).length

      yield* model.enqueue(ModelServer.text("hello", {
        usage: {
          inputTokens: 100,
          cachedInputTokens: 40,
          cacheWriteInputTokens: 7,
          outputTokens: 20,
          reasoningTokens: 5
        }
      }))
      const turn = yield* app.runTurn(threadId, "say hello")
      assert.strictEqual(turn.status, "completed")
      assert.strictEqual((yield* app.items).at(-1)?.["text"], "hello")

      const [usage] = yield* app.getParams("thread/tokenUsage/updated")
      assert.deepInclude(usage?.["tokenUsage"], {
        last: {
          totalTokens: 120,
          inputTokens: 100,
          cachedInputTokens: 40,
          cacheWriteInputTokens: 7,
          outputTokens: 20,
          reasoningOutputTokens: 5
        }
      })

      const request = (yield* model.awaitRequests(before + 1))[before]
      assert.strictEqual(request?.method, "POST")
      assert.strictEqual(request?.path, "/v1/responses")
      assert.strictEqual(request?.promptCacheKey, threadId)
      assert.strictEqual(request?.header("Thread-Id"), threadId)
      assert.strictEqual(request?.lastUserText, "say hello")
      assert.strictEqual(request?.messageTexts("developer")[0], "You are a scripted model.")
      assert.strictEqual(request?.body["model"], "mock-model")
    }))

  it.effect("sends reasoning, commentary and a final answer in one reply", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()

      yield* model.enqueue(ModelServer.reply([
        ModelServer.reasoning(["first", "second"], { content: "raw" }),
        ModelServer.message("working", { phase: "commentary" }),
        ModelServer.deltas(["he", "llo"], { phase: "final_answer", pace: "1 millis" })
      ]))
      yield* app.runTurn(threadId, "go")

      const [, reasoning, commentary, answer] = yield* app.items
      assert.deepInclude(reasoning, { type: "reasoning", summary: ["first", "second"], content: ["raw"] })
      assert.deepInclude(commentary, { type: "agentMessage", text: "working", phase: "commentary" })
      assert.deepInclude(answer, { type: "agentMessage", text: "hello", phase: "final_answer" })
      assert.deepStrictEqual(
        (yield* app.getParams("item/agentMessage/delta")).filter((params) => params["itemId"] === answer?.["id"])
          .map((params) => params["delta"]),
        ["he", "llo"]
      )
      assert.deepStrictEqual(
        (yield* app.getParams("item/reasoning/summaryTextDelta")).map((params) => params["delta"]),
        ["first", "second"]
      )
    }))

  it.effect("sends the parts of a stream as the test offers them", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()
      const pieces = yield* Queue.unbounded<string, Cause.Done>()

      yield* model.enqueue(ModelServer.deltas(Stream.fromQueue(pieces)))
      const turn = yield* Effect.forkChild(app.runTurn(threadId, "go"))
      yield* Queue.offer(pieces, "one")
      yield* app.awaitMessage(isDelta("one"))
      yield* Queue.offer(pieces, "two")
      yield* app.awaitMessage(isDelta("two"))
      yield* Queue.end(pieces)

      assert.strictEqual((yield* Fiber.join(turn)).status, "completed")
      assert.strictEqual((yield* app.items).at(-1)?.["text"], "onetwo")
    }))

  it.effect("returns the outputs of function calls and custom tool calls", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread({ sandbox: "danger-full-access" })

      yield* model.enqueue(
        ModelServer.functionCall("exec_command", { cmd: "echo from the shell" }, { callId: "call_echo" }),
        ModelServer.customToolCall("apply_patch", addFile("tool.txt"), { callId: "call_patch" }),
        ModelServer.functionCall("exec_command", { cmd: `apply_patch <<'EOF'\n${addFile("shell.txt")}\nEOF` }),
        ModelServer.text("done")
      )
      const before = (yield* model.requests).length
      yield* app.runTurn(threadId, "go")

      const items = yield* app.items
      assert.deepStrictEqual(items.map((item) => item["type"]), [
        "userMessage",
        "commandExecution",
        "fileChange",
        "fileChange",
        "agentMessage"
      ])
      assert.deepInclude(items[1], { id: "call_echo", status: "completed", aggregatedOutput: "from the shell\n" })
      for (const file of ["tool.txt", "shell.txt"]) {
        assert.strictEqual(yield* fs.readFileString(path.join(workspace, file)), "patched\n")
      }
      const last = (yield* model.requests)[before + 3]
      assert.match(last?.functionCallOutput("call_echo") ?? "", /from the shell/)
      assert.match(last?.functionCallOutput("call_patch") ?? "", /Success/)
      assert.isUndefined(last?.functionCallOutput("call_unknown"))
    }))

  it.effect("fails a turn with the error info of each kind of failure", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()
      const errorOf = Effect.fnUntraced(function*(...replies: ReadonlyArray<ModelServer.Reply>) {
        yield* model.enqueue(...replies)
        const turn = yield* app.runTurn(threadId, "go")
        assert.strictEqual(turn.status, "failed")
        return turn.error?.["codexErrorInfo"]
      })

      assert.strictEqual(yield* errorOf(), "other")
      assert.deepStrictEqual(yield* errorOf(ModelServer.httpError(401)), {
        httpConnectionFailed: { httpStatusCode: 401 }
      })
      assert.strictEqual(
        yield* errorOf(ModelServer.httpError(429, { error: { type: "usage_limit_reached", message: "enough" } })),
        "usageLimitExceeded"
      )
      assert.strictEqual(
        yield* errorOf(ModelServer.failed({ code: "context_length_exceeded", message: "too long" })),
        "contextWindowExceeded"
      )
      assert.strictEqual(yield* errorOf(ModelServer.cut([ModelServer.message("half")])), "other")
    }))

  it.effect("ends the response of a turn that is interrupted", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const threadId = yield* app.startThread()

      yield* model.enqueue(ModelServer.hang([ModelServer.deltas(["half"], { unfinished: true })]))
      const turn = yield* Effect.forkChild(app.runTurn(threadId, "go"))
      yield* app.awaitMessage(isDelta("half"))
      assert.isTrue(Option.isNone(yield* Effect.timeoutOption(model.awaitIdle, "20 millis")))
      yield* app.request("turn/interrupt", { threadId, turnId: "" })
      assert.strictEqual((yield* Fiber.join(turn)).status, "interrupted")
      yield* model.awaitIdle

      yield* model.enqueue(ModelServer.text("back"))
      assert.strictEqual((yield* app.runTurn(threadId, "go on")).status, "completed")
    }))

  it.effect("computes replies for concurrent threads, and reads their images", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const app = yield* RawAppServer.make
      const [first, second] = yield* Effect.all([app.startThread(), app.startThread()])
      const image = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"

      yield* model.respond((request) => {
        const reply = ModelServer.text(`${request.promptCacheKey}: ${request.lastUserText}`)
        return request.promptCacheKey === first ? Effect.delay(Effect.succeed(reply), "20 millis") : reply
      })
      yield* Effect.all([app.runTurn(first, "one"), app.runTurn(second, "two")], { concurrency: "unbounded" })
      const answers = (yield* app.items).filter((item) => item["type"] === "agentMessage")
      assert.sameMembers(answers.map((item) => item["text"]), [`${first}: one`, `${second}: two`])

      const before = (yield* model.requests).length
      yield* app.request("turn/start", { threadId: first, input: [{ type: "image", url: image }] })
      const request = (yield* model.awaitRequests(before + 1))[before]
      assert.strictEqual(request?.imageUrls("user").length, 1)
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("CodexEnvironment", (it) => {
  it.effect("serves two processes in sequence", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.text("one"), ModelServer.text("two"))
      const threadId = yield* Effect.scoped(Effect.gen(function*() {
        const app = yield* RawAppServer.make
        const threadId = yield* app.startThread()
        yield* app.runTurn(threadId, "first question")
        return threadId
      }))
      const app = yield* RawAppServer.make
      yield* app.request("thread/resume", { threadId })
      yield* app.runTurn(threadId, "second question")
      const request = (yield* model.requests)[1]
      assert.deepStrictEqual(request?.userTexts.slice(-2), ["first question", "second question"])
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["one"])
    }))

  it.effect("overrides its default configuration, and has the model in its catalog", () =>
    Effect.gen(function*() {
      const notify = ["say", "a \"quoted\" \\ word"]
      const environment = yield* CodexEnvironment.make({
        config: { approval_policy: "on-request", developer_instructions: "to be removed", notify }
      })
      yield* environment.writeConfig({ features: { shell_snapshot: true }, developer_instructions: undefined })
      const app = yield* Effect.provideService(RawAppServer.make, CodexEnvironment.CodexEnvironment, environment)
      const { config } = yield* app.request("config/read", {})
      assert.deepInclude(config, {
        approval_policy: "on-request",
        sandbox_mode: "read-only",
        developer_instructions: null,
        notify
      })
      const { features } = config as { readonly features: object }
      assert.deepInclude(features, { shell_snapshot: true, plugins: false })
      yield* app.startThread()
      assert.deepStrictEqual(yield* app.getParams("warning"), [])
    }))

  it.effect("creates its directories in the given one, and removes them with the scope", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const directory = yield* fs.makeTempDirectoryScoped()
      const root = yield* Effect.scoped(Effect.gen(function*() {
        const environment = yield* CodexEnvironment.make({ directory })
        assert.sameMembers(yield* fs.readDirectory(environment.root), ["codex-home", "home", "workspace"])
        return environment.root
      }))
      assert.strictEqual(path.dirname(root), yield* fs.realPath(directory))
      assert.isFalse(yield* fs.exists(root))
    }))
})

describe("ModelServer over plain HTTP", () => {
  it.effect("serves on the HttpServer of its environment", () =>
    Effect.gen(function*() {
      const served = yield* Deferred.make<(request: Request) => Effect.Effect<number, unknown, Scope.Scope>>()
      const server = HttpServer.make({
        address: NetAddress.inetAddressFromIpStringUnsafe("127.0.0.1", 4100),
        serve: (app) =>
          Effect.asVoid(Deferred.succeed(served, (request) =>
            Effect.map(
              Effect.provideService(app, HttpServerRequest.HttpServerRequest, HttpServerRequest.fromWeb(request)),
              ({ status }) => status
            )))
      })
      const context = yield* Layer.build(
        Layer.provide(ModelServer.layer, Layer.succeed(HttpServer.HttpServer, server))
      )
      const model = Context.get(context, ModelServer.ModelServer)
      assert.strictEqual(model.url, "http://127.0.0.1:4100/v1")
      yield* model.enqueue(ModelServer.httpError(418))
      const getStatus = yield* Deferred.await(served)
      const headers = { host: "127.0.0.1:4100" }
      const request = new Request(`${model.url}/responses`, { method: "POST", headers, body: "{}" })
      assert.strictEqual(yield* getStatus(request), 418)
      assert.lengthOf(yield* model.requests, 1)
    }).pipe(Effect.scoped))

  it.effect("responds to models with an empty list, and rejects other paths", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const client = yield* HttpClient.HttpClient
      const models = yield* client.get(`${model.url}/models`)
      assert.deepStrictEqual(yield* models.json, { object: "list", data: [] })
      assert.strictEqual((yield* client.get(`${model.url}/responses`)).status, 404)
      assert.strictEqual((yield* client.post(`${model.url}/elsewhere`)).status, 404)
      assert.strictEqual((yield* client.execute(post(model.url, "no object"))).status, 400)
      assert.deepStrictEqual(yield* model.requests, [])
    }).pipe(Effect.provide(HttpLayer)))

  it.effect("takes queued replies in order, with new ids for each use of a value", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const client = yield* HttpClient.HttpClient
      const call = ModelServer.functionCall("f", {})
      yield* model.enqueue(ModelServer.text("first"), call, call)
      const bodies = yield* Effect.forEach(
        [1, 2, 3],
        () => Effect.flatMap(client.execute(post(model.url, {})), (response) => response.text)
      )
      assert.match(bodies[0] ?? "", /^event: response.created\ndata: {.*}\n\n.*"first"/s)
      const callIds = bodies.map((body) => /"call_id":"(.*?)"/.exec(body)?.[1])
      assert.isUndefined(callIds[0])
      assert.isDefined(callIds[1])
      assert.notStrictEqual(callIds[1], callIds[2])
      assert.strictEqual((yield* client.execute(post(model.url, {}))).status, 400)

      yield* model.enqueue(ModelServer.text("left over"))
      yield* model.reset
      assert.strictEqual((yield* client.execute(post(model.url, {}))).status, 400)
      assert.strictEqual((yield* model.requests).length, 1)
    }).pipe(Effect.provide(HttpLayer)))

  it.effect("waits for a number of requests", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const client = yield* HttpClient.HttpClient
      const two = yield* Effect.forkChild(model.awaitRequests(2), { startImmediately: true })
      yield* client.execute(post(model.url, { n: 1 }))
      assert.isUndefined(two.pollUnsafe())
      yield* client.execute(post(model.url, { n: 2 }))
      assert.deepStrictEqual((yield* Fiber.join(two)).map((request) => request.body), [{ n: 1 }, { n: 2 }])
    }).pipe(Effect.provide(HttpLayer)))

  it.effect("is idle after clients disconnect during a response", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const client = yield* HttpClient.HttpClient
      yield* model.respond(() => ModelServer.deltas(Stream.forever(Stream.succeed("word "))))
      const readSome = client.execute(post(model.url, {})).pipe(
        Effect.flatMap((response) => Stream.runDrain(Stream.take(response.stream, 3)))
      )
      yield* Effect.all(Array.from({ length: 8 }, () => readSome), { concurrency: "unbounded" })
      yield* model.awaitIdle
      assert.strictEqual((yield* client.get(`${model.url}/models`)).status, 200)
    }).pipe(Effect.provide(HttpLayer)))

  it.live("drops open connections at once when it closes", () =>
    Effect.gen(function*() {
      const client = yield* HttpClient.HttpClient
      const scope = yield* Scope.make()
      const model = Context.get(
        yield* Layer.buildWithScope(TestCodex.layerModelServer, scope),
        ModelServer.ModelServer
      )
      yield* Effect.flatMap(client.get(`${model.url}/models`), (response) => response.text)
      yield* model.enqueue(ModelServer.hang(), ModelServer.deltas(Stream.never))
      const unfinished = HttpClientRequest.post(`${model.url}/responses`).pipe(
        HttpClientRequest.bodyStream(Stream.concat(Stream.encodeText(Stream.make("{")), Stream.never))
      )
      const hanging = yield* Effect.forkChild(Effect.all(
        [post(model.url, {}), post(model.url, {}), unfinished].map((request) =>
          Effect.flatMap(client.execute(request), (response) => response.text)
        ),
        { concurrency: "unbounded", mode: "result" }
      ))
      yield* model.awaitRequests(2)
      const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
      assert.isBelow(Duration.toMillis(duration), 250)
      yield* model.awaitIdle
      assert.isTrue((yield* Fiber.join(hanging)).every(Result.isFailure))
      assert.isTrue(Exit.isFailure(yield* Effect.exit(client.get(`${model.url}/models`))))
    }).pipe(Effect.provide(FetchHttpClient.layer)))
})

const HttpLayer = Layer.mergeAll(TestCodex.layerModelServer, FetchHttpClient.layer)

const post = (url: string, body: unknown) =>
  HttpClientRequest.bodyJsonUnsafe(HttpClientRequest.post(`${url}/responses`), body)
