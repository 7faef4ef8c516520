import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { assert, layer } from "@effect/vitest"
import { Approvals, Codex, type Thread } from "effect-codex"
import { McpToolkit } from "effect-codex/ai"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import { Prompt, Tool, Toolkit } from "effect/ai"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import type * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { createServer } from "node:http"
import { inspect } from "node:util"
import { callTool, openSession, send, toolCall } from "./mcpClient.ts"
import * as TestCodex from "./TestCodex.ts"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

class Titles extends Context.Service<Titles, { readonly of: (id: string) => string }>()("test/Titles") {}

class NoTicket extends Schema.TaggedError<NoTicket>()("NoTicket", { id: Schema.String }) {}

const Id = Schema.Struct({ id: Schema.String })

const Find = Tool.make("find", {
  description: "Finds a ticket",
  parameters: Id,
  success: Schema.Struct({ title: Schema.String }),
  failure: NoTicket,
  dependencies: [Titles]
}).annotate(Tool.Readonly, true).annotate(Tool.Title, "Find a ticket")

const Erase = Tool.make("erase", {
  description: "Erases a ticket",
  parameters: Id,
  success: Schema.String
})

const Guarded = Tool.make("guarded", { success: Schema.String, needsApproval: true })
  .annotate(Tool.Readonly, true)
  .annotate(Tool.Title, "Guarded tool")
  .annotate(Tool.Destructive, false)
  .annotate(Tool.OpenWorld, false)

const Returning = Tool.make("returning", { failure: NoTicket, failureMode: "return" }).annotate(Tool.Readonly, true)

const Photo = Tool.make("photo", {
  success: Schema.Struct({ of: Schema.String }),
  toModelOutput: ({ of }) => [
    Prompt.textPart({ text: `A photo of ${of}` }),
    Prompt.filePart({ mediaType: "image/png", data: png }),
    Prompt.filePart({ mediaType: "audio/wav", data: new Uint8Array([1, 2, 3]) }),
    Prompt.filePart({ mediaType: "image/jpeg", data: new URL("https://example.com/a.jpg"), fileName: "a.jpg" }),
    Prompt.filePart({ mediaType: "application/pdf", data: png, fileName: "b.pdf" })
  ]
}).annotate(Tool.Readonly, true)

const Wait = Tool.make("wait", { success: Schema.String }).annotate(Tool.Readonly, true)

const Add = Tool.make("add", { success: Schema.String })
  .annotate(Tool.Destructive, false)
  .annotate(Tool.OpenWorld, false)

const Act = Tool.make("act", { success: Schema.String })

const toolkit = Toolkit.make(Find, Erase, Guarded, Returning, Photo, Wait, Act, Add)

/** The calls of the tool `wait`: each announces that it runs, and its end. */
class Calls extends Context.Service<Calls, {
  readonly started: Queue.Queue<string>
  readonly ended: Queue.Queue<string>
  readonly go: Deferred.Deferred<void>
}>()("test/Calls") {
  static readonly layer = Layer.effect(
    this,
    Effect.all({ started: Queue.unbounded<string>(), ended: Queue.unbounded<string>(), go: Deferred.make<void>() })
  )
}

const handlers = toolkit.toLayer(Effect.gen(function*() {
  const { ended, go, started } = yield* Calls
  return {
    add: () => Effect.succeed("added"),
    act: Effect.fnUntraced(function*(_, { toolCallId }) {
      yield* Queue.offer(started, toolCallId ?? "")
      yield* Deferred.await(go)
      return "acted"
    }),
    find: Effect.fnUntraced(function*({ id }) {
      if (id === "die") return yield* Effect.die(new Error("a bug with details"))
      if (id === "none") return yield* new NoTicket({ id })
      return { title: (yield* Titles).of(id) }
    }),
    erase: ({ id }) => Effect.succeed(`erased ${id}`),
    guarded: () => Effect.succeed("ran"),
    returning: () => Effect.fail(new NoTicket({ id: "any" })),
    photo: () => Effect.succeed({ of: "a door" }),
    wait: Effect.fnUntraced(function*(_, { preliminary, toolCallId }) {
      const id = toolCallId ?? ""
      yield* preliminary("half")
      yield* Queue.offer(started, id)
      yield* Deferred.await(go).pipe(Effect.onExit((exit) => Queue.offer(ended, `${id} ${exit._tag}`)))
      return "waited"
    })
  }
}))

const layerHttp = NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })

const layerToolkit = Layer.mergeAll(
  Layer.provideMerge(handlers, Calls.layer),
  layerHttp,
  Layer.succeed(Titles, { of: (id) => `Title of ${id}` })
)

const userDecides = { approvalPolicy: "on-request", approvalsReviewer: "user" } as const

type Calling = readonly [name: string, args: object]

let nextCall = 0

/** Runs a turn in which the model makes these calls, and returns what the model receives of each. */
const runCalls = Effect.fnUntraced(function*(
  thread: Thread.Thread,
  calls: ReadonlyArray<Calling>,
  options?: { readonly namespace?: string }
) {
  const ids = calls.map(() => `mcp${nextCall++}`)
  const namespace = options?.namespace ?? "mcp__tickets"
  yield* TestCodex.script(
    thread,
    ModelServer.reply(
      calls.map(([name, args], i) => ModelServer.functionCall(name, args, { callId: ids[i]!, namespace }))
    ),
    ModelServer.text("done")
  )
  const { items } = yield* thread.run("go")
  const last = (yield* TestCodex.getRequests(thread.id)).at(-1)
  return {
    ids,
    outputs: ids.map((id) => last?.functionCallOutput(id)),
    items: items.filter((item) => item.type === "mcpToolCall")
  }
})

layer(TestCodex.layer(), { excludeTestServices: true })("McpToolkit", (it) => {
  it.effect("sends values, failures, images and issues of arguments to the model", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const tickets = yield* McpToolkit.serve("tickets", toolkit)
      const thread = yield* codex.startThread({ config: tickets.config, ...userDecides })
      const { items, outputs } = yield* runCalls(thread, [
        ["find", { id: "A-1" }],
        ["find", { id: "none" }],
        ["find", { id: "die" }],
        ["find", { id: 7 }],
        ["returning", {}],
        ["photo", {}]
      ])
      assert.include(outputs[0], `{"title":"Title of A-1"}`)
      assert.include(outputs[1], `{"_tag":"NoTicket","id":"none"}`)
      assert.include(outputs[2], "find failed unexpectedly")
      assert.notInclude(JSON.stringify(outputs), "a bug with details")
      assert.include(outputs[3], "Invalid arguments for tool `find`: ")
      assert.include(outputs[4], `{"_tag":"NoTicket","id":"any"}`)
      assert.deepStrictEqual(items.map(({ server, tool }) => `${server}.${tool}`).slice(0, 2), [
        "tickets.find",
        "tickets.find"
      ])
      assert.deepStrictEqual(items.find(({ tool }) => tool === "photo")?.result?.content.slice(0, 2), [
        { type: "text", text: "A photo of a door" },
        { type: "image", data: png, mimeType: "image/png" }
      ])
      const request = (yield* TestCodex.getRequests(thread.id)).at(-1)
      assert.include(JSON.stringify(request?.body), `"image_url":"data:image/png;base64,${png}"`)
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("requests approval for tools that are not read-only or that need approval, by their name", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const tickets = yield* McpToolkit.serve("tickets", toolkit)
      const requests: Array<string> = []
      const approvals = Approvals.layer({
        mcpToolCall: ({ server, tool }) =>
          Effect.sync(() => {
            requests.push(`${server}.${tool}`)
            return tool === "erase" ? Approvals.accept : Approvals.decline
          })
      })
      const thread = yield* codex.startThread({ config: tickets.config, ...userDecides })
      const { outputs } = yield* Effect.provide(
        runCalls(thread, [["find", { id: "A-1" }], ["erase", { id: "A-2" }], ["guarded", {}], ["add", {}]]),
        approvals
      )
      assert.deepStrictEqual(requests.toSorted(), ["tickets.erase", "tickets.guarded"])
      assert.include(outputs[0], "Title of A-1")
      assert.include(outputs[1], "erased A-2")
      assert.include(outputs[2], "rejected")
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("refuses what needs approval with deny_all, and runs it with bypass", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const tickets = yield* McpToolkit.serve("tickets", toolkit)
      const calls: ReadonlyArray<Calling> = [["find", { id: "A-1" }], ["erase", { id: "A-2" }], ["guarded", {}]]
      const denied = yield* codex.startThread({ config: tickets.config, approvalMode: "deny_all" })
      const { outputs } = yield* runCalls(denied, calls)
      assert.include(outputs[0], "Title of A-1")
      assert.include(outputs[1], "requires approval")
      assert.include(outputs[2], "requires approval")
      const bypass = yield* codex.startThread({
        config: tickets.config,
        approvalMode: "dangerously_bypass_approvals_and_sandbox"
      })
      const ran = yield* runCalls(bypass, calls)
      assert.include(ran.outputs[1], "erased A-2")
      assert.include(ran.outputs[2], "ran")
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("runs 50 calls at once, and tells each handler the id of its call", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const { go, started } = yield* Calls
      const tickets = yield* McpToolkit.serve("tickets", toolkit)
      const thread = yield* codex.startThread({
        config: tickets.config,
        ...userDecides,
        approvals: { mcpToolCall: () => Effect.succeed(Approvals.accept) }
      })
      // Codex runs at most 16 calls at once that are not read-only.
      const calls = Array.from({ length: 50 }, (_, index): Calling => [index < 10 ? "act" : "wait", {}])
      const turn = yield* Effect.forkChild(runCalls(thread, calls))
      const ids = yield* Queue.takeN(started, 50)
      yield* Deferred.succeed(go, undefined)
      const ended = yield* Fiber.join(turn)
      assert.sameMembers([...ids], ended.ids)
      for (const output of ended.outputs) assert.match(output ?? "", /waited|acted/)
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("interrupts the handlers when the turn, the app-server or the scope ends", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const { ended, started } = yield* Calls
      const scope = yield* Scope.fork(yield* Effect.scope)
      const tickets = yield* Scope.provide(McpToolkit.serve("tickets", toolkit), scope)
      const thread = yield* codex.startThread({ config: tickets.config, ...userDecides })
      const start = Effect.forkChild(runCalls(thread, [["wait", {}]]))

      const interrupted = yield* start
      const first = yield* Queue.take(started)
      yield* Fiber.interrupt(interrupted)
      assert.strictEqual(yield* Queue.take(ended), `${first} Failure`)

      const closed = yield* start
      const second = yield* Queue.take(started)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Queue.clear(ended), [`${second} Failure`])
      const { items } = yield* Fiber.join(closed)
      assert.strictEqual(items[0]?.status, "failed")
      assert.strictEqual((yield* send(tickets, {})).status, 404)
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("interrupts the handlers when the app-server is killed", () =>
    Effect.gen(function*() {
      const { ended, started } = yield* Calls
      const tickets = yield* McpToolkit.serve("tickets", toolkit)
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ config: tickets.config, ...userDecides })
        const turn = yield* Effect.forkChild(Effect.exit(runCalls(thread, [["wait", {}]])))
        const id = yield* Queue.take(started)
        yield* TestCodex.killServer
        assert.strictEqual(yield* Queue.take(ended), `${id} Failure`)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(turn)))
      }).pipe(Effect.provide(TestCodex.layerProcess()))
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect(
    "keeps the tools of a thread that is resumed or forked, also after a restart",
    () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const tickets = yield* McpToolkit.serve("tickets", toolkit)
        const thread = yield* codex.startThread({ config: tickets.config, ...userDecides })
        const find: ReadonlyArray<Calling> = [["find", { id: "A-1" }]]
        yield* runCalls(thread, find)
        const fork = yield* codex.forkThread(thread.id)
        assert.include((yield* runCalls(fork, find)).outputs[0], "Title of A-1")
        yield* TestCodex.restartServer
        assert.include((yield* runCalls(thread, find)).outputs[0], "Title of A-1")
        yield* thread.close
        // Until the server has unloaded the thread, it keeps its configuration.
        const wire = yield* TestCodex.Wire
        yield* wire.awaitReceived(({ method, params }) =>
          method === "thread/closed" && params?.["threadId"] === thread.id
        )
        const people = yield* McpToolkit.serve("people", toolkit)
        const resumed = yield* codex.resumeThread(thread.id, { config: { ...tickets.config, ...people.config } })
        assert.include((yield* runCalls(resumed, find)).outputs[0], "Title of A-1")
        assert.include((yield* runCalls(resumed, find, { namespace: "mcp__people" })).outputs[0], "Title of A-1")
      }).pipe(
        Effect.scoped,
        Effect.provide(layerToolkit),
        Effect.provide(TestCodex.layerProcess({ restart: TestCodex.quickRestart }))
      ),
    30_000
  )

  it.effect("fails to start a thread whose tools it cannot reach", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const tickets = yield* Effect.scoped(McpToolkit.serve("tickets", toolkit))
      const error = yield* Effect.flip(codex.startThread({ config: tickets.config }))
      assert.include(error.message, "required MCP servers failed to initialize: tickets")
      assert.notInclude(error.message, Redacted.value(tickets.token))
    }).pipe(Effect.provide(layerToolkit)))

  it.effect("keeps the token out of errors, logs, spans and the home of Codex", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.NativeSpan> = []
      const logs: Array<string> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const logger = Logger.map(Logger.formatJson, (line) => {
        logs.push(line)
      })
      const { errors, thread, tickets } = yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const tickets = yield* McpToolkit.serve("tickets", toolkit)
        yield* Effect.log(tickets, { tickets })
        const thread = yield* codex.startThread({ config: tickets.config, ...userDecides })
        yield* runCalls(thread, [["find", { id: "sesame" }], ["find", { id: "die" }]])
        const errors = yield* Effect.all([
          Effect.flip(codex.startThread({ config: { ...tickets.config, model: 7n } })),
          Effect.flip(codex.resumeThread(thread.id, { config: { ...tickets.config, model: "other" } })),
          Effect.flip(
            codex.startThread({
              config: { "mcp_servers.tickets": { ...tickets.config["mcp_servers.tickets"], url: 7 } }
            })
          )
        ])
        return { errors, thread, tickets }
      }).pipe(
        Effect.scoped,
        Effect.provide(layerToolkit),
        Effect.withTracer(tracer),
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      const token = Redacted.value(tickets.token)
      const fs = yield* FileSystem.FileSystem
      const { codexHome } = yield* CodexEnvironment.CodexEnvironment
      const stored: Array<string> = []
      for (const name of yield* fs.readDirectory(codexHome, { recursive: true })) {
        const text = yield* Effect.option(fs.readFileString(`${codexHome}/${name}`))
        if (text._tag === "Some") stored.push(text.value)
      }
      const shown = spans.map(({ attributes, events, name, status }) => [
        name,
        [...attributes],
        events,
        status._tag === "Ended" && Exit.isFailure(status.exit) ? Cause.pretty(status.exit.cause) : ""
      ])
      assert.isTrue(stored.some((text) => text.includes(thread.id)))
      assert.isTrue(spans.some(({ name }) => name === "Tool.find"))
      assert.lengthOf(errors, 3)
      const places = {
        errors: errors.map((error) => `${String(error)} ${Cause.pretty(Cause.fail(error))} ${JSON.stringify(error)}`)
          .join("\n"),
        logs: logs.join("\n"),
        spans: inspect(shown, { depth: 10, maxArrayLength: null, maxStringLength: null }),
        stored: stored.join("\n"),
        served: `${inspect(tickets, { depth: 9 })} ${JSON.stringify(tickets)} ${String(tickets.token)}`
      }
      for (const [place, text] of Object.entries(places)) assert.notInclude(text, token, place)
      assert.notInclude(places.spans, "sesame")
      assert.notInclude(places.logs, "sesame")
    }))
})

layer(Layer.empty, { excludeTestServices: true })("McpToolkit over HTTP", (it) => {
  it.effect("refuses requests without the token, to other paths, and with a large body", () =>
    Effect.gen(function*() {
      const served = yield* McpToolkit.serve("tickets", toolkit)
      const headers = yield* openSession(served)
      const token = Redacted.value(served.token)
      const list = { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} }
      const status = (
        options: Parameters<typeof send>[2],
        body: string | object | undefined = options?.method === undefined ? list : undefined
      ) =>
        Effect.map(send(served, body, { ...options, headers: { ...headers, ...options?.headers } }), ({ status }) =>
          status)
      assert.strictEqual(yield* status({}), 200)
      for (
        const authorization of [
          "",
          "Bearer",
          "Bearer ",
          `Bearer ${token}x`,
          `Bearer ${token.slice(1)}`,
          token,
          "Basic x"
        ]
      ) {
        assert.strictEqual(yield* status({ headers: { authorization } }), 401, authorization)
      }
      const { origin } = new URL(served.url)
      for (const url of [`${served.url}/`, `${served.url}x`, `${origin}/`, `${origin}/mcp`, served.url.toLowerCase()]) {
        assert.strictEqual(yield* status({ url }), 404, url)
      }
      assert.strictEqual(yield* status({ url: `${served.url}?a=1` }), 200)
      assert.strictEqual(yield* status({ headers: { origin: "https://example.com" } }), 403)
      assert.strictEqual(yield* status({ method: "GET" }), 405)
      const large = toolCall(2, "erase", { id: "x".repeat(17 * 1024 * 1024) })
      assert.strictEqual(yield* status({}, large), 413)
      assert.strictEqual(yield* status({ headers: { authorization: "Bearer x" } }, large), 401)
      assert.strictEqual(yield* status({ headers: { "mcp-session-id": "other" } }), 404)
      // The server still works, and a client ends its session.
      assert.include(yield* callTool(served, headers, 3, "erase", { id: "A-1" }), "erased A-1")
      // An unused connection of a client would delay the end of the HTTP server.
      for (const url of [served.url, origin]) {
        assert.strictEqual((yield* send(served, list, { url, headers })).headers.get("connection"), "close")
      }
      assert.strictEqual(yield* status({ method: "DELETE" }), 204)
      assert.strictEqual(yield* status({}), 404)
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("describes the tools with their annotations", () =>
    Effect.gen(function*() {
      const served = yield* McpToolkit.serve("tickets", toolkit)
      const headers = yield* openSession(served)
      const response = yield* send(served, { jsonrpc: "2.0", id: 1, method: "tools/list", params: {} }, { headers })
      const { result: { tools } } = JSON.parse(yield* Effect.promise(() => response.text()))
      const named = Object.fromEntries(tools.map((tool: { readonly name: string }) => [tool.name, tool]))
      assert.deepInclude(named.find, { title: "Find a ticket", description: "Finds a ticket" })
      assert.deepInclude(named.find.annotations, { title: "Find a ticket", readOnlyHint: true, destructiveHint: false })
      assert.deepInclude(named.find.outputSchema, { type: "object", required: ["title"] })
      assert.deepInclude(named.erase.annotations, { readOnlyHint: false, destructiveHint: true })
      assert.strictEqual(named.guarded.annotations.readOnlyHint, false)
      assert.strictEqual(named.guarded.description, "Guarded tool")
      assert.isUndefined(named.photo.outputSchema)
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("converts text, images, sounds, links and other files", () =>
    Effect.gen(function*() {
      const served = yield* McpToolkit.serve("tickets", toolkit)
      const { result } = JSON.parse(yield* callTool(served, yield* openSession(served), 1, "photo", {}))
      assert.deepStrictEqual(result.content, [
        { type: "text", text: "A photo of a door" },
        { type: "image", data: png, mimeType: "image/png" },
        { type: "audio", data: "AQID", mimeType: "audio/wav" },
        { type: "resource_link", uri: "https://example.com/a.jpg", name: "a.jpg", mimeType: "image/jpeg" },
        { type: "text", text: "[application/pdf b.pdf omitted]" }
      ])
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("reports preliminary results as progress, and interrupts a call that its client cancels", () =>
    Effect.gen(function*() {
      const { ended, go, started } = yield* Calls
      const served = yield* McpToolkit.serve("tickets", toolkit)
      const headers = yield* openSession(served)
      const call = yield* Effect.forkChild(
        callTool(served, headers, 1, "wait", {}, { progressToken: "p", callId: "first" })
      )
      assert.strictEqual(yield* Queue.take(started), "first")
      yield* send(served, { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 1 } }, { headers })
      assert.strictEqual(yield* Queue.take(ended), "first Failure")
      assert.notInclude(yield* Fiber.join(call), `"id":1`)
      // A client whose connection ends cancels its calls.
      const lost = yield* Effect.forkChild(callTool(served, headers, 2, "wait", {}, { callId: "second" }))
      yield* Queue.take(started)
      yield* Fiber.interrupt(lost)
      assert.strictEqual(yield* Queue.take(ended), "second Failure")
      yield* Deferred.succeed(go, undefined)
      const body = yield* callTool(served, headers, 3, "wait", {}, { progressToken: "p" })
      assert.include(body, `"params":{"progressToken":"p","progress":1,"message":"half"}`)
      assert.include(body, `"text":"waited"`)
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("ends a call after its timeout, and logs a defect", () =>
    Effect.gen(function*() {
      const logs: Array<string> = []
      const logger = Logger.map(Logger.formatLogFmt, (line) => {
        logs.push(line)
      })
      const { ended } = yield* Calls
      const served = yield* McpToolkit.serve("tickets", toolkit, { timeout: "50 millis" }).pipe(
        Effect.provide(Logger.layer([logger]))
      )
      const headers = yield* openSession(served)
      assert.include(
        yield* callTool(served, headers, 1, "wait", {}, { callId: "slow" }),
        "wait did not finish within 50ms"
      )
      assert.strictEqual(yield* Queue.take(ended), "slow Failure")
      const died = yield* callTool(served, headers, 2, "find", { id: "die" })
      assert.include(died, `{"content":[{"type":"text","text":"find failed unexpectedly"}],"isError":true}`)
      assert.include(logs.join("\n"), "a bug with details")
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("serves several Toolkits on one HTTP server, each until its scope closes", () =>
    Effect.gen(function*() {
      const first = yield* Scope.fork(yield* Effect.scope)
      const one = yield* Scope.provide(McpToolkit.serve("one", toolkit), first)
      const two = yield* McpToolkit.serve("two", toolkit)
      assert.strictEqual(new URL(one.url).origin, new URL(two.url).origin)
      const headers = yield* openSession(two)
      assert.strictEqual(
        (yield* send(two, {}, { headers: { authorization: `Bearer ${Redacted.value(one.token)}` } })).status,
        401
      )
      yield* Scope.close(first, Exit.void)
      assert.strictEqual((yield* send(one, {})).status, 404)
      const three = yield* McpToolkit.serve("three", toolkit)
      assert.include(yield* callTool(two, headers, 1, "erase", { id: "A" }), "erased A")
      assert.include(yield* callTool(three, yield* openSession(three), 1, "erase", { id: "B" }), "erased B")
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("frees the port at once when the HTTP server ends in the middle of a call", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.fork(yield* Effect.scope)
      const context = yield* Layer.buildWithScope(Layer.fresh(layerHttp), scope)
      const { ended, started } = yield* Calls
      const served = yield* McpToolkit.serve("tickets", toolkit).pipe(
        Effect.provideContext(context as Context.Context<HttpServer.HttpServer>),
        Scope.provide(scope)
      )
      const headers = yield* openSession(served)
      const calls = [{}, { progressToken: "p" }].map((meta, id) => callTool(served, headers, id + 1, "wait", {}, meta))
      const bodies = yield* Effect.forkChild(Effect.all(calls, { concurrency: "unbounded" }))
      yield* Queue.takeN(started, 2)
      yield* Effect.timeout(Scope.close(scope, Exit.void), "5 seconds")
      assert.deepStrictEqual(yield* Queue.clear(ended), [" Failure", " Failure"])
      for (const body of yield* Fiber.join(bodies)) assert.include(body, `"error":{"code":-32603`)
      const refused = yield* Effect.exit(Effect.tryPromise(() => fetch(served.url)))
      assert.isTrue(Exit.isFailure(refused))
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))

  it.effect("rejects an HTTP server that other machines reach, invalid names, and tools of a provider", () =>
    Effect.gen(function*() {
      const message = <E extends { readonly message: string }, R>(effect: Effect.Effect<unknown, E, R>) =>
        Effect.map(Effect.flip(effect), ({ message }) => message)
      const open = yield* message(Effect.provide(
        McpToolkit.serve("tickets", toolkit),
        NodeHttpServer.layer(createServer, { host: "0.0.0.0", port: 0 })
      ))
      assert.match(open, /the HTTP server listens on `http:\/\/0\.0\.0\.0:\d+`.*Listen on `127\.0\.0\.1`/)
      assert.match(
        yield* message(McpToolkit.serve("my tickets", toolkit)),
        /the server name "my tickets" is not valid\. Use/
      )
      const Search = Tool.providerDefined({
        id: "test.search",
        customName: "Search",
        providerName: "search",
        args: Schema.Struct({})
      })
      assert.match(
        yield* message(McpToolkit.serve("tickets", Toolkit.make(Search({})))),
        /only a provider can run tool `Search`\. Remove it from the Toolkit/
      )
      assert.match(
        // @ts-expect-error a misspelled option
        String(yield* Effect.flip(Effect.sandbox(McpToolkit.serve("tickets", toolkit, { timeouts: 1 })))),
        /unknown option `timeouts`; did you mean `timeout`\?/
      )
    }).pipe(Effect.scoped, Effect.provide(layerToolkit)))
})
