import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it, layer } from "@effect/vitest"
import { ApprovalPolicy, Approvals, AppServer, Codex, Questions } from "effect-codex"
import { CodexMcpServer } from "effect-codex/ai"
import { CodexEnvironment, FakeAppServer, ModelServer } from "effect-codex/testing"
import { McpClient, McpProtocol, type McpSchema, McpTest } from "effect/ai"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/testing/TestClock"
import { createServer } from "node:http"
import { converse, openSession, send, type ServerMessage, toolCall } from "./mcpClient.ts"
import * as TestCodex from "./TestCodex.ts"

const protocols = [McpProtocol.v2025_11_25] as const

const connect = (options?: CodexMcpServer.Options) => McpTest.makeClient(CodexMcpServer.layer(options), { protocols })

const textOf = ({ content: [block] }: McpSchema.CallToolResult) => block?.type === "text" ? block.text : undefined

const threadIdOf = ({ structuredContent }: McpSchema.CallToolResult) =>
  (structuredContent as { readonly threadId: string }).threadId

/** Serves Codex over HTTP until the scope closes. */
const serve = Effect.fnUntraced(function*(options?: CodexMcpServer.Options) {
  const context = yield* Layer.build(Layer.fresh(
    HttpRouter.serve(CodexMcpServer.layerHttp({ path: "/mcp", ...options }), {
      disableLogger: true,
      disableListenLog: true
    }).pipe(Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })))
  ))
  const { address } = Context.get(context, HttpServer.HttpServer)
  return { url: `${HttpServer.formatAddress(address)}/mcp`, token: Redacted.make("none") }
})

const escalated = (command: string, callId: string) =>
  ModelServer.functionCall("exec_command", {
    cmd: command,
    login: false,
    sandbox_permissions: "require_escalated",
    justification: "The test wants it."
  }, { callId })

const isElicitation = ({ method }: ServerMessage) => method === "elicitation/create"

/** The result of a call, which is the last message of the server. */
const resultOf = (messages: ReadonlyArray<ServerMessage>) => messages.at(-1)?.result

layer(TestCodex.layer(), { excludeTestServices: true })("CodexMcpServer", (it) => {
  it.effect("starts and continues threads", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const client = yield* connect({ sandbox: "workspace-write" })
      const { tools } = yield* client.listTools()
      assert.deepStrictEqual(tools.map(({ name }) => name), ["codex", "codex_reply"])
      assert.sameMembers(Object.keys(tools[0]!.inputSchema.properties ?? {}), [
        "prompt",
        "cwd",
        "model",
        "sandbox",
        "approval-policy",
        "base-instructions",
        "developer-instructions"
      ])
      assert.deepStrictEqual(tools[0]!.inputSchema.required, ["prompt"])
      assert.sameMembers(Object.keys(tools[1]!.outputSchema?.["properties"] as object), ["threadId", "content"])

      yield* model.enqueue(ModelServer.text("one"), ModelServer.text("two"))
      const first = yield* client.callTool({
        name: "codex",
        arguments: { prompt: "hi", "developer-instructions": "Be terse", "approval-policy": "never" }
      })
      const threadId = threadIdOf(first)
      assert.deepStrictEqual(first.structuredContent, { threadId, content: "one" })
      assert.isFalse(first.isError)
      const second = yield* client.callTool({ name: "codex_reply", arguments: { threadId, prompt: "again" } })
      assert.strictEqual(textOf(second), "two")
      const requests = yield* TestCodex.getRequests(threadId)
      assert.strictEqual(requests.at(-1)?.lastUserText, "again")
      assert.include(requests.at(-1)?.messageTexts("developer").join("\n"), "Be terse")
      const permissions = yield* TestCodex.readPermissions(threadId)
      assert.deepStrictEqual(permissions, {
        approvalPolicy: "never",
        approvalsReviewer: "user",
        sandbox: "workspaceWrite"
      })
    }).pipe(Effect.scoped))

  it.effect("never widens what its options allow", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const codex = yield* Codex.Codex
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      yield* fs.makeDirectory(`${workspace}/inside/deep`, { recursive: true })
      yield* fs.symlink("/", `${workspace}/link`)
      const model = yield* ModelServer.ModelServer
      const before = (yield* model.requests).length
      const own = yield* codex.startThread()
      const cases: ReadonlyArray<[CodexMcpServer.Options, object, RegExp]> = [
        [
          {},
          { sandbox: "workspace-write" },
          /sandbox `workspace-write` is wider than this server allows\. Choose `read-only`/
        ],
        [{}, { sandbox: "danger-full-access" }, /is wider than this server allows/],
        [{ sandbox: "workspace-write" }, { sandbox: "danger-full-access", "approval-policy": "never" }, /is wider/],
        [{}, { cwd: "/" }, /The directory `\/` is not in .*Choose a directory in it/],
        [{}, { cwd: ".." }, /is not in/],
        [{}, { cwd: `${workspace}/inside/../..` }, /is not in/],
        [{}, { cwd: `${workspace}-other` }, /is not in/],
        [{}, { cwd: "link" }, /is not in/],
        [{}, { cwd: "link/etc" }, /is not in/],
        [{}, { config: { sandbox_mode: "danger-full-access" } }, /no excess property\n {2}at \["config"\]/],
        [{}, { "approval-policy": "on-failure" }, /Expected/],
        [{}, { sandbox: 1, cwd: 2 }, /sandbox[^]*cwd|cwd[^]*sandbox/]
      ]
      for (const [options, args, expected] of cases) {
        const client = yield* connect({ cwd: workspace, ...options })
        const refused = yield* client.callTool({ name: "codex", arguments: { prompt: "hi", ...args } })
        assert.isTrue(refused.isError)
        assert.match(textOf(refused) ?? "", expected)
        const reply = yield* client.callTool({ name: "codex_reply", arguments: { prompt: "hi", threadId: own.id } })
        assert.match(textOf(reply) ?? "", /This session has no thread `.*`\. Start one with `codex`/)
      }
      assert.lengthOf(yield* model.requests, before)
      const client = yield* connect({ cwd: workspace, sandbox: "danger-full-access" })
      for (const [cwd, expected] of [["inside/deep", "/inside/deep"], [`${workspace}/inside`, "/inside"], [".", ""]]) {
        yield* model.enqueue(ModelServer.text("done"))
        const result = yield* client.callTool({ name: "codex", arguments: { prompt: "hi", cwd, sandbox: "read-only" } })
        const request = (yield* TestCodex.getRequests(threadIdOf(result))).at(-1)
        assert.include(request?.userTexts.join("\n"), `<cwd>${workspace}${expected}</cwd>`)
        assert.strictEqual((yield* TestCodex.readPermissions(threadIdOf(result))).sandbox, "readOnly")
      }
    }).pipe(Effect.scoped))

  it.effect("returns the failure of a turn with its thread", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const client = yield* connect()
      yield* model.enqueue(
        ModelServer.failed({ code: "insufficient_quota", message: "no money" }),
        ModelServer.text("ok")
      )
      const failed = yield* client.callTool({ name: "codex", arguments: { prompt: "hi" } })
      assert.isTrue(failed.isError)
      assert.include(textOf(failed), "usageLimitExceeded")
      const threadId = threadIdOf(failed)
      const reply = yield* client.callTool({ name: "codex_reply", arguments: { threadId, prompt: "again" } })
      assert.deepStrictEqual(reply.structuredContent, { threadId, content: "ok" })
    }).pipe(Effect.scoped))

  it.effect("sends approvals to the user of the client", () =>
    Effect.gen(function*() {
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const fs = yield* FileSystem.FileSystem
      const model = yield* ModelServer.ModelServer
      const served = yield* serve({ cwd: workspace })
      const headers = yield* openSession(served, { elicitation: {} })
      const run = Effect.fnUntraced(function*(answer: object, ...files: ReadonlyArray<string>) {
        const elicitations: Array<ServerMessage> = []
        yield* model.enqueue(
          ...files.map((file, index) => escalated(`touch ${file}`, `${file}${index}`)),
          ModelServer.text("done")
        )
        const messages = yield* converse(served, headers, toolCall(1, "codex", { prompt: "go" }), (request) => {
          elicitations.push(request)
          return Effect.succeed(answer)
        })
        yield* model.reset
        return { elicitations, result: resultOf(messages) }
      })
      const accepted = yield* run({ action: "accept", content: {} }, "accepted")
      assert.isTrue(accepted.elicitations.every(isElicitation))
      assert.lengthOf(accepted.elicitations, 1)
      const { message, requestedSchema } = accepted.elicitations[0]!.params
      assert.include(message, "The test wants it.")
      assert.include(message, "Codex wants to run this command outside of its sandbox:")
      assert.include(message, "touch accepted")
      assert.deepStrictEqual(Object.keys(requestedSchema.properties), ["remember"])
      assert.isUndefined(requestedSchema.required)
      assert.strictEqual(accepted.result.structuredContent.content, "done")
      assert.isTrue(yield* fs.exists(`${workspace}/accepted`))

      const declined = yield* run({ action: "decline" }, "declined")
      assert.strictEqual(declined.result.structuredContent.content, "done")
      assert.isFalse(yield* fs.exists(`${workspace}/declined`))

      const cancelled = yield* run({ action: "cancel" }, "cancelled")
      assert.isTrue(cancelled.result.isError)
      assert.strictEqual(cancelled.result.structuredContent.content, "The turn was interrupted")
      assert.isFalse(yield* fs.exists(`${workspace}/cancelled`))

      const remembered = yield* run({ action: "accept", content: { remember: true } }, "twice", "twice")
      assert.lengthOf(remembered.elicitations, 1)
      const each = yield* run({ action: "accept", content: { remember: false } }, "each", "each")
      assert.lengthOf(each.elicitations, 2)
    }).pipe(Effect.scoped), 30_000)

  it.effect(
    "declines approvals of a client without elicitations, unless the context decides",
    () =>
      Effect.gen(function*() {
        const { workspace } = yield* CodexEnvironment.CodexEnvironment
        const fs = yield* FileSystem.FileSystem
        const model = yield* ModelServer.ModelServer
        const run = Effect.fnUntraced(function*(capabilities: object, file: string) {
          const served = yield* serve({ cwd: workspace })
          const headers = yield* openSession(served, capabilities)
          yield* model.enqueue(escalated(`touch ${file}`, file), ModelServer.text("done"))
          const messages = yield* converse(
            served,
            headers,
            toolCall(1, "codex", { prompt: "go" }),
            () => Effect.succeed({ action: "accept", content: {} })
          )
          return messages.filter(isElicitation).length
        })
        assert.strictEqual(yield* run({}, "none"), 0)
        assert.isFalse(yield* fs.exists(`${workspace}/none`))
        // A client that shows only pages gets no forms.
        assert.strictEqual(yield* run({ elicitation: { url: {} } }, "pages"), 0)
        assert.isFalse(yield* fs.exists(`${workspace}/pages`))
        const acceptTouch = ApprovalPolicy.acceptCommands((argv) => argv[0] === "touch")
        assert.strictEqual(yield* run({}, "context").pipe(Effect.provide(Approvals.layer(acceptTouch))), 0)
        assert.isTrue(yield* fs.exists(`${workspace}/context`))
        assert.strictEqual(
          yield* run({ elicitation: {} }, "first").pipe(Effect.provide(Approvals.layer(ApprovalPolicy.declineAll))),
          0
        )
        assert.isFalse(yield* fs.exists(`${workspace}/first`))
        assert.strictEqual(
          yield* run({ elicitation: {} }, "open").pipe(Effect.provide(Approvals.layer(() => Effect.succeedNone))),
          1
        )
        assert.isTrue(yield* fs.exists(`${workspace}/open`))
      }).pipe(Effect.scoped),
    30_000
  )

  it.effect("passes elicitations of MCP servers on", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const served = yield* serve({ config: TestCodex.mcpConfig })
      const call = (name: string) => ModelServer.functionCall(name, {}, { callId: name, namespace: "mcp__people" })
      const run = Effect.fnUntraced(function*(capabilities: object, tool: string, answer: object) {
        const headers = yield* openSession(served, capabilities)
        yield* model.enqueue(call(tool), ModelServer.text("done"))
        const messages = yield* converse(served, headers, toolCall(1, "codex", { prompt: "go" }), () =>
          Effect.succeed(answer))
        const request = (yield* TestCodex.getRequests(resultOf(messages).structuredContent.threadId)).at(-1)
        return { request: messages.find(isElicitation)?.params, output: request?.functionCallOutput(tool) }
      })
      const form = yield* run({ elicitation: {} }, "introduce", { action: "accept", content: { name: "Ada", age: 36 } })
      assert.strictEqual(form.request.message, "people: Who are you?")
      assert.deepStrictEqual(form.request.requestedSchema.required, ["name"])
      assert.deepStrictEqual(form.request.requestedSchema.properties.color, { type: "string", enum: ["red", "green"] })
      assert.include(form.output, `{"action":"accept","content":{"name":"Ada","age":36}}`)
      // Content that does not fit the form is not sent.
      const wrong = yield* run({ elicitation: {} }, "introduce", { action: "accept", content: { name: "A" } })
      assert.include(wrong.output, `"action":"decline"`)
      const cancelled = yield* run({ elicitation: {} }, "introduce", { action: "cancel" })
      assert.include(cancelled.output, `"action":"cancel"`)
      const page = yield* run({ elicitation: { form: {}, url: {} } }, "login", { action: "accept" })
      assert.deepInclude(page.request, {
        mode: "url",
        url: "https://example.com/login",
        message: "people: Log in there"
      })
      assert.include(page.output, `"action":"accept"`)
      const noPage = yield* run({ elicitation: {} }, "login", { action: "accept" })
      assert.isUndefined(noPage.request)
      assert.include(noPage.output, `"action":"decline"`)
    }).pipe(Effect.scoped), 30_000)

  it.effect("reports the steps of the turn, without its final response", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const served = yield* serve()
      const headers = yield* openSession(served)
      yield* model.enqueue(
        ModelServer.reply([
          ModelServer.message("I look around.", { phase: "commentary" }),
          ModelServer.functionCall("exec_command", { cmd: "echo a && echo b", login: false }, { callId: "c" })
        ]),
        ModelServer.text("Nothing here", { phase: "final_answer" })
      )
      const messages = yield* converse(served, headers, toolCall(1, "codex", { prompt: "go" }, { progressToken: "t" }))
      assert.deepStrictEqual(
        messages.filter(({ method }) => method === "notifications/progress").map(({ params }) => params),
        [
          { progressToken: "t", progress: 1, message: "I look around." },
          { progressToken: "t", progress: 2, message: "$ echo a && echo b" }
        ]
      )
      assert.strictEqual(resultOf(messages).structuredContent.content, "Nothing here")
    }).pipe(Effect.scoped))

  it.effect(
    "interrupts the turn when the client cancels the call, leaves, or ends its session",
    () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const served = yield* serve()
        const start = Effect.fnUntraced(function*() {
          const headers = yield* openSession(served)
          const requested = yield* TestCodex.nextRequest
          yield* model.respond(() => TestCodex.halfMessage)
          const call = yield* Effect.forkChild(converse(served, headers, toolCall(1, "codex", { prompt: "go" })))
          const threadId = (yield* requested).promptCacheKey!
          const wire = yield* TestCodex.Wire
          const ended = yield* Effect.forkChild(
            wire.awaitReceived(({ method, params }) => method === "turn/completed" && params?.["threadId"] === threadId)
          )
          return { call, ended: Fiber.join(ended), headers, threadId }
        })
        const cancelled = yield* start()
        yield* send(served, { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 1 } }, cancelled)
        assert.include(JSON.stringify(yield* cancelled.ended), `"status":"interrupted"`)
        assert.deepStrictEqual(yield* Fiber.join(cancelled.call), [])

        const left = yield* start()
        yield* Fiber.interrupt(left.call)
        assert.include(JSON.stringify(yield* left.ended), `"status":"interrupted"`)

        const over = yield* start()
        const wire = yield* TestCodex.Wire
        const closed = yield* Effect.forkChild(
          wire.awaitSent(({ method, params }) =>
            method === "thread/unsubscribe" && params?.["threadId"] === over.threadId
          )
        )
        assert.strictEqual((yield* send(served, undefined, { method: "DELETE", headers: over.headers })).status, 204)
        assert.include(JSON.stringify(yield* over.ended), `"status":"interrupted"`)
        yield* Fiber.join(closed)
      }).pipe(Effect.scoped),
    30_000
  )

  it.effect("keeps the threads of a session from other sessions", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const served = yield* serve()
      const one = yield* openSession(served)
      const two = yield* openSession(served)
      yield* model.enqueue(ModelServer.text("one"), ModelServer.text("two"))
      const { threadId } =
        resultOf(yield* converse(served, one, toolCall(1, "codex", { prompt: "go" }))).structuredContent
      const reply = toolCall(2, "codex_reply", { threadId, prompt: "again" })
      const refused = resultOf(yield* converse(served, two, reply))
      assert.isTrue(refused.isError)
      assert.include(refused.content[0].text, `This session has no thread \`${threadId}\``)
      assert.strictEqual(resultOf(yield* converse(served, one, reply)).structuredContent.content, "two")
    }).pipe(Effect.scoped))

  it.effect(
    "runs the calls of one session at the same time, and one turn at a time on a thread",
    () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const served = yield* serve()
        const headers = yield* openSession(served)
        yield* model.respond((request) => ModelServer.text(`to ${request.lastUserText}`))
        const results = yield* Effect.forEach(
          Array.from({ length: 12 }, (_, id) => id + 1),
          (id) => Effect.map(converse(served, headers, toolCall(id, "codex", { prompt: `call ${id}` })), resultOf),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          results.map(({ structuredContent }) => structuredContent.content),
          results.map((_, index) => `to call ${index + 1}`)
        )
        const { threadId } = results[0].structuredContent
        const requested = yield* TestCodex.nextRequest
        const held = yield* TestCodex.heldMessage
        yield* model.respond(() => held.reply)
        const running = yield* Effect.forkChild(
          converse(served, headers, toolCall(50, "codex_reply", { threadId, prompt: "slow" }))
        )
        yield* requested
        const next = yield* Effect.forkChild(
          converse(served, headers, toolCall(51, "codex_reply", { threadId, prompt: "next" })),
          { startImmediately: true }
        )
        yield* send(served, { jsonrpc: "2.0", id: 52, method: "ping" }, { headers })
        yield* model.respond((request) => ModelServer.text(`to ${request.lastUserText}`))
        yield* held.say("slow done")
        yield* held.finish
        assert.strictEqual(resultOf(yield* Fiber.join(running)).structuredContent.content, "slow done")
        assert.strictEqual(resultOf(yield* Fiber.join(next)).structuredContent.content, "to next")
      }).pipe(Effect.scoped),
    30_000
  )

  it.effect("serves a client that starts it as a process", () =>
    Effect.gen(function*() {
      const { env } = yield* CodexEnvironment.CodexEnvironment
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => ModelServer.text(`to ${request.lastUserText}`))
      const context = yield* Layer.build(McpClient.layerStdio({
        name: "test",
        version: "1",
        protocol: McpProtocol.v2025_11_25,
        command: ChildProcess.make(
          process.execPath,
          ["--conditions=@effect-codex/source", `${import.meta.dirname}/fixtures/codex-mcp-server.ts`],
          { env, extendEnv: true }
        )
      }))
      const client = Context.get(context, McpClient.McpClient)
      const [codex, reply] = yield* client.listTools()
      const first = yield* client.callTool({ tool: codex!, arguments: { prompt: "one" } })
      assert.strictEqual(textOf(first), "to one")
      const second = yield* client.callTool({
        tool: reply!,
        arguments: { prompt: "two", threadId: threadIdOf(first) }
      })
      assert.strictEqual(textOf(second), "to two")
    }).pipe(Effect.scoped), 30_000)

  it.effect("resumes a closed thread with its options", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const wire = yield* TestCodex.Wire
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const client = yield* connect({ cwd: workspace, sandbox: "workspace-write" })
      yield* model.respond(() => ModelServer.text("done"))
      const args = { prompt: "hi", sandbox: "read-only", "developer-instructions": "Be terse" }
      const threadId = threadIdOf(yield* client.callTool({ name: "codex", arguments: args }))
      const closed = yield* Effect.forkChild(
        wire.awaitReceived(({ method, params }) => method === "thread/closed" && params?.["threadId"] === threadId)
      )
      yield* TestClock.adjust("10 minutes")
      yield* Fiber.join(closed)
      const reply = yield* client.callTool({ name: "codex_reply", arguments: { threadId, prompt: "again" } })
      assert.strictEqual(textOf(reply), "done")
      const request = (yield* TestCodex.getRequests(threadId)).at(-1)
      assert.include(request?.messageTexts("developer").join("\n"), "Be terse")
      assert.deepStrictEqual(yield* TestCodex.readPermissions(threadId), {
        approvalPolicy: "on-request",
        approvalsReviewer: "user",
        sandbox: "readOnly"
      })
    }).pipe(Effect.scoped, Effect.provide(TestClock.layer())))

  it.effect("serves a thread of another Codex", () =>
    Effect.gen(function*() {
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const fs = yield* FileSystem.FileSystem
      const model = yield* ModelServer.ModelServer
      const served = yield* serve({ cwd: workspace })
      const isInner = (request: ModelServer.ModelRequest) =>
        request.userTexts.some((text) => text.includes("inner prompt"))
      yield* model.respond((request) => {
        if (isInner(request)) {
          return request.functionCallOutput("touch") === undefined
            ? escalated("touch delegated", "touch")
            : ModelServer.text(`inner result of ${request.lastUserText}`)
        }
        const [first, second] = [request.functionCallOutput("first"), request.functionCallOutput("second")]
        if (first === undefined) {
          return ModelServer.functionCall("codex", { prompt: "inner prompt" }, {
            callId: "first",
            namespace: "mcp__codex"
          })
        }
        const threadId = /"threadId":"([^"]+)"/.exec(first)?.[1]
        return second === undefined
          ? ModelServer.functionCall("codex_reply", { prompt: "inner prompt again", threadId }, {
            callId: "second",
            namespace: "mcp__codex"
          })
          : ModelServer.text(`outer saw ${second}`)
      })
      const forms: Array<string> = []
      const finalResponse = yield* Effect.gen(function*() {
        const outer = yield* Codex.Codex
        const thread = yield* outer.startThread({
          config: { "mcp_servers.codex": { url: served.url } },
          approvalPolicy: "on-request",
          approvalsReviewer: "user",
          approvals: { mcpToolCall: () => Effect.succeed(Approvals.accept) },
          questions: {
            elicitation: (request) =>
              Effect.sync(() => {
                forms.push(request._tag === "Form" ? request.message : request._tag)
                return Questions.accept({})
              })
          }
        })
        return (yield* thread.run("delegate")).finalResponse
      }).pipe(Effect.provide(TestCodex.layerProcess()))
      assert.match(finalResponse ?? "", /^outer saw .*inner result of inner prompt again/s)
      assert.lengthOf(forms, 1)
      assert.include(forms[0], "touch delegated")
      assert.isTrue(yield* fs.exists(`${workspace}/delegated`))
    }).pipe(Effect.scoped), 30_000)

  it.effect("interrupts the turn when another Codex that delegated it is killed", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const wire = yield* TestCodex.Wire
      const served = yield* serve()
      const delegated = yield* Deferred.make<string>()
      yield* model.respond((request) => {
        if (request.lastUserText !== "inner prompt") {
          return ModelServer.functionCall("codex", { prompt: "inner prompt" }, { namespace: "mcp__codex" })
        }
        Deferred.doneUnsafe(delegated, Exit.succeed(request.promptCacheKey ?? ""))
        return TestCodex.halfMessage
      })
      yield* Effect.gen(function*() {
        const outer = yield* Codex.Codex
        const thread = yield* outer.startThread({
          config: { "mcp_servers.codex": { url: served.url } },
          approvalPolicy: "on-request",
          approvalsReviewer: "user",
          approvals: { mcpToolCall: () => Effect.succeed(Approvals.accept) }
        })
        const turn = yield* Effect.forkChild(Effect.exit(thread.run("delegate")))
        const threadId = yield* Deferred.await(delegated)
        yield* TestCodex.killServer
        const ended = yield* wire.awaitReceived(({ method, params }) =>
          method === "turn/completed" && params?.["threadId"] === threadId
        )
        assert.include(JSON.stringify(ended), `"status":"interrupted"`)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(turn)))
      }).pipe(Effect.provide(TestCodex.layerProcess()))
    }).pipe(Effect.scoped), 30_000)
})

describe("CodexMcpServer on the scripted app-server", () => {
  const layerFake = (script?: FakeAppServer.Script) =>
    Codex.layer.pipe(
      Layer.provide(AppServer.layer()),
      Layer.provideMerge(FakeAppServer.layer(script)),
      Layer.provideMerge(NodeServices.layer)
    )

  /** Asks two questions, and responds with the answers. */
  const ask = () =>
    FakeAppServer.userInput([
      { id: "color", header: "Color", question: "Which color?", options: ["red", "green"] },
      { id: "name", question: "Your name" }
    ]).pipe(
      Effect.map((answers) => JSON.stringify(answers)),
      Effect.catchTag("RequestFailed", ({ message }) => Effect.succeed(message)),
      Effect.flatMap((text) => FakeAppServer.deltas([text]))
    )

  const question = { header: "", isOther: true, options: null }

  /** Asks an open question and a secret one. */
  const askSecret = () =>
    Effect.flatMap(FakeAppServer.FakeTurn, (turn) =>
      turn.request("item/tool/requestUserInput", {
        itemId: "question",
        isBlocking: true,
        autoResolutionMs: null,
        questions: [
          { ...question, isSecret: false, id: "open", question: "An open question" },
          { ...question, isSecret: true, id: "secret", question: "A password" }
        ]
      })).pipe(Effect.flatMap(({ answers }) => FakeAppServer.deltas([JSON.stringify(answers)])))

  it.effect("closes a thread ten minutes after its last call, and resumes it", () =>
    Effect.gen(function*() {
      const fake = yield* FakeAppServer.FakeAppServer
      const client = yield* connect({ cwd: "/", sandbox: "workspace-write", config: { model_verbosity: "low" } })
      const first = yield* client.callTool({
        name: "codex",
        arguments: { prompt: "hi", model: "small", "developer-instructions": "Be terse", sandbox: "read-only" }
      })
      yield* TestClock.adjust("9 minutes")
      assert.notInclude((yield* fake.sent).map(({ method }) => method), "thread/unsubscribe")
      yield* TestClock.adjust("1 minute")
      yield* fake.awaitSent("thread/unsubscribe")
      const threadId = threadIdOf(first)
      const reply = yield* client.callTool({ name: "codex_reply", arguments: { threadId, prompt: "again" } })
      assert.isFalse(reply.isError, textOf(reply))
      assert.strictEqual((yield* fake.awaitSent("thread/resume")).params?.["threadId"], threadId)
    }).pipe(Effect.scoped, Effect.provide(layerFake())))

  it.effect("closes its threads with the layer", () =>
    Effect.gen(function*() {
      const fake = yield* FakeAppServer.FakeAppServer
      yield* Effect.scoped(Effect.gen(function*() {
        const client = yield* connect()
        yield* client.callTool({ name: "codex", arguments: { prompt: "one" } })
        yield* client.callTool({ name: "codex", arguments: { prompt: "two" } })
      }))
      yield* fake.awaitSent("thread/unsubscribe", 2)
    }).pipe(Effect.provide(layerFake())))

  it.live("sends questions of the model to the user of the client, except secret ones", () =>
    Effect.gen(function*() {
      const served = yield* serve()
      const headers = yield* openSession(served, { elicitation: {} })
      const messages = yield* converse(served, headers, toolCall(1, "codex", { prompt: "go" }), () =>
        Effect.succeed({ action: "accept", content: { color: "red", name: "Ada" } }))
      const { message, requestedSchema } = messages.find(isElicitation)?.params ?? {}
      assert.strictEqual(message, "Codex asks:")
      assert.deepStrictEqual(requestedSchema.properties, {
        color: { type: "string", title: "Color", description: "Which color?\nred: red\ngreen: green" },
        name: { type: "string", title: "Your name", description: "Your name" }
      })
      assert.strictEqual(resultOf(messages).structuredContent.content, `{"color":["red"],"name":["Ada"]}`)

      const fake = yield* FakeAppServer.FakeAppServer
      yield* fake.onTurn(askSecret)
      const secret = yield* converse(served, headers, toolCall(2, "codex", { prompt: "go" }), () =>
        Effect.succeed({ action: "accept", content: { open: "yes", secret: "no" } }))
      assert.deepStrictEqual(Object.keys(secret.find(isElicitation)?.params.requestedSchema.properties), ["open"])
      assert.strictEqual(resultOf(secret).structuredContent.content, `{"open":{"answers":["yes"]}}`)

      yield* fake.onTurn(ask)
      const silent = yield* openSession(served)
      const failed = resultOf(yield* converse(served, silent, toolCall(3, "codex", { prompt: "go" })))
      assert.include(failed.content[0].text, "The client rejected")
    }).pipe(
      Effect.scoped,
      Effect.provide(layerFake(ask))
    ))

  it.effect("rejects invalid options", () =>
    Effect.sync(() => {
      // @ts-expect-error a misspelled option
      const misspelled: CodexMcpServer.Options = { sandboxes: "read-only" }
      assert.throws(() => CodexMcpServer.layer(misspelled), /unknown option `sandboxes`; did you mean `sandbox`\?/)
      // @ts-expect-error an unknown sandbox
      const unknown: CodexMcpServer.Options = { sandbox: "none" }
      assert.throws(
        () => CodexMcpServer.layerStdio(unknown),
        /the option `sandbox` is a string; expected "read-only" or/
      )
      // @ts-expect-error a misspelled option
      const http: CodexMcpServer.HttpOptions = { path: "/mcp", cdw: "/" }
      assert.throws(() => CodexMcpServer.layerHttp(http), /unknown option `cdw`/)
    }))
})
