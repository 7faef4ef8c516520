import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, Codex, type Thread, Tool } from "effect-codex"
import { CodexToolkit } from "effect-codex/ai"
import { ModelServer } from "effect-codex/testing"
import { Tool as AiTool, Toolkit } from "effect/ai"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import * as Fake from "./FakeTransport.ts"
import { layer as layerFake, openThread } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"

class Stock extends Context.Service<Stock, { readonly of: (item: string) => number | undefined }>()("test/Stock") {}

class Unknown extends Schema.TaggedError<Unknown>()("Unknown", { item: Schema.String }) {}

const stock = Tool.make("stock", {
  description: "How many there are",
  parameters: Schema.Struct({ item: Schema.String, since: Schema.optionalKey(Schema.Date) }),
  success: Schema.Struct({ count: Schema.Number, asOf: Schema.Date }),
  failure: Unknown,
  handler: Effect.fn(function*({ item, since }) {
    const count = (yield* Stock).of(item)
    if (count === undefined) return yield* new Unknown({ item })
    return { count, asOf: since ?? new Date(0) }
  })
})

const countStock = (item: string) => item === "nails" ? 400 : undefined

const call = (name: string, args: object, callId: string) => ModelServer.functionCall(name, args, { callId })

/** The tools in a request to the model. */
const OfferedTools = Schema.Array(Schema.Struct({
  name: Schema.optional(Schema.String),
  description: Schema.optional(Schema.String),
  parameters: Schema.optional(Schema.Struct({ required: Schema.optional(Schema.Array(Schema.String)) }))
}))

let callCount = 0

/** Runs a turn in which the model makes these calls concurrently, and returns the output and the success of each. */
const runCalls = Effect.fnUntraced(function*(thread: Thread.Thread, ...calls: ReadonlyArray<[string, object]>) {
  const ids = calls.map(() => `call${callCount++}`)
  yield* TestCodex.script(
    thread,
    ModelServer.reply(calls.map(([name, args], i) => call(name, args, ids[i]!))),
    ModelServer.text("done")
  )
  const { items } = yield* thread.run("go")
  const last = (yield* TestCodex.getRequests(thread.id)).at(-1)
  return {
    texts: ids.map((id) => last?.functionCallOutput(id)),
    success: ids.map((id) => {
      const item = items.find((item) => item.type === "dynamicToolCall" && item.id === id)
      return item?.type === "dynamicToolCall" ? item.success : undefined
    })
  }
})

layer(TestCodex.layer(), { excludeTestServices: true })("Tool", (it) => {
  it.effect("runs with decoded arguments and services, and sends the encoded result or failure to the model", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ tools: [stock] }).pipe(Effect.provideService(Stock, { of: countStock }))
      const { success, texts } = yield* runCalls(
        thread,
        ["stock", { item: "nails", since: "2026-11-24T00:00:00.000Z" }],
        ["stock", { item: "unicorns" }]
      )
      assert.deepStrictEqual(texts, [
        `{"count":400,"asOf":"2026-11-24T00:00:00.000Z"}`,
        `{"_tag":"Unknown","item":"unicorns"}`
      ])
      assert.deepStrictEqual(success, [true, false])
      const request = (yield* TestCodex.getRequests(thread.id))[0]!
      const tools = yield* Schema.decodeUnknownEffect(OfferedTools)(request.body["tools"])
      const offered = tools.find(({ name }) => name === "stock")
      assert.strictEqual(offered?.description, "How many there are")
      assert.deepStrictEqual(offered?.parameters?.required, ["item"])
    }))

  it.effect("does not run with invalid arguments, and sends the reason to the model", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      let calls = 0
      const thread = yield* codex.startThread({
        tools: [Tool.make("count", {
          description: "Counts",
          parameters: Schema.Struct({ to: Schema.Int }),
          handler: ({ to }) => Effect.sync(() => `${++calls} ${to}`)
        })]
      })
      const { success, texts } = yield* runCalls(thread, ["count", { to: "ten" }], ["count", {}], ["count", { to: 3 }])
      assert.match(texts[0]!, /^Invalid arguments for tool `count`: .*\n\s+at \["to"\]$/)
      assert.match(texts[1]!, /^Invalid arguments for tool `count`: Missing key\n\s+at \["to"\]$/)
      assert.strictEqual(texts[2], "1 3")
      assert.deepStrictEqual(success, [false, false, true])
    }))

  it.effect("fails without details when the handler breaks, returns an invalid result or takes too long", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const make = (name: string, handler: () => Effect.Effect<any>) =>
        Tool.make(name, { description: name, success: Schema.Number, timeout: "200 millis", handler })
      const thread = yield* codex.startThread({
        tools: [
          make("dies", () => Effect.die(new Error("the password is 1234"))),
          make("throws", () => {
            throw new Error("the password is 1234")
          }),
          make("lies", () => Effect.succeed("not a number")),
          make("returns", () => "no effect" as never),
          make("interrupts", () => Effect.interrupt),
          make("sleeps", () => Effect.never),
          make("works", () => Effect.succeed(1))
        ]
      })
      const names = ["dies", "throws", "lies", "returns", "interrupts", "sleeps", "works"]
      const { success, texts } = yield* runCalls(thread, ...names.map((name): [string, object] => [name, {}]))
      assert.deepStrictEqual(texts, [
        "dies failed unexpectedly",
        "throws failed unexpectedly",
        "lies failed unexpectedly",
        "returns failed unexpectedly",
        "interrupts failed unexpectedly",
        "sleeps did not finish within 200ms",
        "1"
      ])
      assert.deepStrictEqual(success, [false, false, false, false, false, false, true])
    }))

  it.effect("sends text unchanged, images, and several parts", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const pixel =
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
      const thread = yield* codex.startThread({
        tools: [
          Tool.make("text", { description: "Says", handler: () => Effect.succeed("just text") }),
          Tool.make("name", { description: "Says", success: Schema.String, handler: () => Effect.succeed("Ada") }),
          Tool.make("picture", {
            description: "Shows",
            handler: () => Effect.succeed([Tool.text("look:"), Tool.image(pixel)])
          })
        ]
      })
      const { texts } = yield* runCalls(thread, ["text", {}], ["name", {}], ["picture", {}])
      assert.deepStrictEqual(texts, ["just text", "Ada", "look:"])
      const last = (yield* TestCodex.getRequests(thread.id)).at(-1)!
      assert.include(JSON.stringify(last.input), "input_image")
    }))

  it.effect("runs as many calls concurrently as `toolConcurrency` allows", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const wire = yield* TestCodex.Wire
      const calls = Array.from({ length: 6 }, (): [string, object] => ["meet", {}])
      /** Runs six calls, and returns how many ran concurrently. The calls wait until the expected number runs. */
      const countConcurrent = Effect.fnUntraced(
        function*(expected: number, options: { readonly toolConcurrency?: number }) {
          const reached = yield* Deferred.make<void>()
          const released = yield* Deferred.make<void>()
          let running = 0
          let most = 0
          const meet = Tool.make("meet", {
            description: "Waits for the others",
            handler: () =>
              Effect.gen(function*() {
                most = Math.max(most, ++running)
                if (running === expected) yield* Deferred.succeed(reached, undefined)
                yield* Deferred.await(released)
                running--
                return "done"
              })
          })
          const thread = yield* codex.startThread({ ...options, tools: [meet] })
          const results = yield* Effect.forkChild(runCalls(thread, ...calls))
          const received = new Set<unknown>()
          yield* wire.awaitReceived(({ method, params }) => {
            if (method === "item/tool/call" && params?.["threadId"] === thread.id) received.add(params["callId"])
            return received.size === calls.length
          })
          yield* Deferred.await(reached)
          // The client processes the response to this request after all calls.
          yield* server.request("thread/loaded/list")
          yield* Deferred.succeed(released, undefined)
          const { texts } = yield* Fiber.join(results)
          assert.deepStrictEqual(texts, calls.map(() => "done"))
          return most
        }
      )
      assert.strictEqual(yield* countConcurrent(6, {}), 6)
      assert.strictEqual(yield* countConcurrent(2, { toolConcurrency: 2 }), 2)
    }))

  it.effect("interrupts the handler when the turn is interrupted", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const began = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const thread = yield* codex.startThread({
        tools: [Tool.make("hang", {
          description: "Never ends",
          handler: () =>
            Deferred.succeed(began, undefined).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
            )
        })]
      })
      yield* TestCodex.script(thread, call("hang", {}, "hang"))
      const run = yield* Effect.forkChild(thread.run("go"))
      yield* Deferred.await(began)
      yield* Fiber.interrupt(run)
      yield* Deferred.await(interrupted)
    }))

  it.effect("runs a handler that uses Codex itself", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({
        tools: [Tool.make("ask", {
          description: "Asks another agent",
          handler: Effect.fn(function*() {
            const inner = yield* (yield* Codex.Codex).startThread()
            return (yield* Effect.orDie(inner.run("inner"))).finalResponse ?? ""
          }, Effect.orDie)
        })]
      })
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) =>
        request.promptCacheKey !== thread.id
          ? ModelServer.text("from within")
          : request.functionCallOutput("ask") === undefined
          ? call("ask", {}, "ask")
          : ModelServer.text(`received ${request.functionCallOutput("ask")}`)
      )
      assert.strictEqual((yield* thread.run("go")).finalResponse, "received from within")
    }))

  it.effect("runs a handler that waits for a fork of its own thread, also at the limit of concurrent calls", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* codex.startThread({
        toolConcurrency: 1,
        tools: [
          Tool.make("answer", { description: "Answers", handler: () => Effect.succeed("42") }),
          Tool.make("delegate", {
            description: "Has a fork do it",
            timeout: "4 seconds",
            handler: Effect.fn(function*(_, { threadId }) {
              const fork = yield* codex.forkThread(threadId)
              return (yield* fork.run("inner")).finalResponse ?? ""
            }, Effect.orDie)
          })
        ]
      })
      yield* model.respond((request) => {
        const [name, callId] = request.promptCacheKey === thread.id ? ["delegate", "outer"] : ["answer", "inner"]
        const output = request.functionCallOutput(callId)
        return output === undefined ? call(name, {}, callId) : ModelServer.text(`${callId} received ${output}`)
      })
      assert.strictEqual((yield* thread.run("go")).finalResponse, "outer received inner received 42")
    }))

  it.effect("decodes parameters of a class and of a recursive struct", () =>
    Effect.gen(function*() {
      class Place extends Schema.Class<Place>("Place")({ name: Schema.String }) {}
      interface Folder {
        readonly folders: ReadonlyArray<Folder>
      }
      const Folder: Schema.Codec<Folder> = Schema.Struct({
        folders: Schema.Array(Schema.suspend((): Schema.Codec<Folder> => Folder))
      }).annotate({ identifier: "Folder" })
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({
        tools: [
          Tool.make("place", {
            description: "A place",
            parameters: Place,
            handler: (place) => Effect.succeed(`${place instanceof Place} ${place.name}`)
          }),
          Tool.make("folder", {
            description: "A folder",
            parameters: Folder,
            handler: ({ folders }) => Effect.succeed(`${folders.length}`)
          })
        ]
      })
      const { texts } = yield* runCalls(thread, ["place", { name: "Oslo" }], ["folder", { folders: [{ folders: [] }] }])
      assert.deepStrictEqual(texts, ["true Oslo", "1"])
    }))

  it.effect("stays on a resumed or forked thread, unless the thread gets a new handler", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const who = (name: string) => Tool.make("who", { description: "Who", handler: () => Effect.succeed(name) })
      const thread = yield* codex.startThread({ tools: [who("first")] })
      assert.deepStrictEqual((yield* runCalls(thread, ["who", {}])).texts, ["first"])
      assert.deepStrictEqual((yield* runCalls(yield* codex.resumeThread(thread.id), ["who", {}])).texts, ["first"])
      assert.deepStrictEqual((yield* runCalls(yield* codex.forkThread(thread.id), ["who", {}])).texts, ["first"])
      const fork = yield* codex.forkThread(thread.id, { tools: [who("second")] })
      assert.deepStrictEqual((yield* runCalls(fork, ["who", {}])).texts, ["second"])
      assert.deepStrictEqual((yield* runCalls(thread, ["who", {}])).texts, ["first"])
    }))

  it.effect("replaces one handler and keeps the other tools of the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const replyWith = (name: string, text: string) =>
        Tool.make(name, { description: name, handler: () => Effect.succeed(text) })
      const thread = yield* codex.startThread({
        tools: [replyWith("one", "1"), replyWith("two", "2")],
        dynamicTools: [{
          type: "function",
          name: "three",
          description: "three",
          inputSchema: { type: "object", properties: {}, additionalProperties: false }
        }]
      })
      yield* runCalls(thread, ["one", {}])
      const resumed = yield* codex.resumeThread(thread.id, { tools: [replyWith("one", "I")] })
      assert.deepStrictEqual((yield* runCalls(resumed, ["one", {}], ["two", {}])).texts, ["I", "2"])
      yield* codex.resumeThread(thread.id, { tools: [replyWith("one", "I"), replyWith("two", "II")] })
      const fork = yield* codex.forkThread(thread.id, { tools: [replyWith("three", "III")] })
      assert.deepStrictEqual((yield* runCalls(fork, ["one", {}], ["two", {}], ["three", {}])).texts, ["I", "II", "III"])
    }))

  it.effect("runs for the sub-agents of its thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* codex.startThread({
        tools: [Tool.make("who", { description: "Who", handler: () => Effect.succeed("the parent's") })]
      })
      let output: string | undefined
      yield* model.respond((request) => {
        if (request.header("thread-id") === thread.id) {
          return TestCodex.delegate(request, { message: "ask who", fork_context: true })
        }
        output = request.functionCallOutput("sub")
        return output === undefined ? call("who", {}, "sub") : ModelServer.text("done")
      })
      yield* thread.run("go")
      assert.strictEqual(output, "the parent's")
    }))

  it.effect("fails without a handler, and the turn continues", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({
        dynamicTools: [{ type: "function", name: "raw", description: "Raw", inputSchema: { type: "object" } }]
      })
      const { success, texts } = yield* runCalls(thread, ["raw", {}])
      assert.deepStrictEqual(success, [false])
      assert.deepStrictEqual(texts, ["The client could not run this tool."])
    }))
})

const inNewProcess = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, TestCodex.layerProcess())

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Tools of a stored thread", (it) => {
  const nails = Tool.make("nails", {
    description: "Nails",
    parameters: Schema.Struct({ length: Schema.Number }),
    handler: () => Effect.succeed("nails")
  })
  const screws = Tool.make("screws", { description: "Screws", handler: () => Effect.succeed("screws") })
  const longNails = Tool.make("nails", {
    description: "Nails",
    parameters: Schema.Struct({ length: Schema.String }),
    handler: () => Effect.succeed("long nails")
  })

  it.effect("run in another process, where other tools fail with ToolsNotApplied", () =>
    Effect.gen(function*() {
      const id = yield* inNewProcess(Effect.gen(function*() {
        const codex = yield* Codex.Codex
        // Long instructions lengthen the stored line that contains the tools.
        const thread = yield* codex.startThread({ tools: [nails], baseInstructions: "Be kind. ".repeat(150_000) })
        yield* runCalls(thread, ["nails", { length: 3 }])
        return thread.id
      }))
      for (const open of ["resumeThread", "forkThread"] as const) {
        yield* inNewProcess(Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const reason = yield* TestCodex.expectReason(codex[open](id, { tools: [longNails, screws] }))
          assert.deepInclude(reason, { _tag: "ToolsNotApplied", missing: ["screws"], changed: ["nails"] })
          assert.match(reason!.message, /was started without `screws` and with other parameters of `nails`/)
        }))
        yield* inNewProcess(Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const thread = yield* codex[open](id, { tools: [nails] })
          assert.deepStrictEqual((yield* runCalls(thread, ["nails", { length: 3 }])).texts, ["nails"])
          // The client now knows the tools without reading the stored thread.
          const reason = yield* TestCodex.expectReason(codex.forkThread(thread.id, { tools: [screws] }))
          assert.deepInclude(reason, { _tag: "ToolsNotApplied", missing: ["screws"], changed: [] })
        }))
      }
      // An ephemeral fork has no file of its own.
      yield* inNewProcess(Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const reason = yield* TestCodex.expectReason(codex.forkThread(id, { tools: [screws], ephemeral: true }))
        assert.deepInclude(reason, { _tag: "ToolsNotApplied", missing: ["screws"], changed: [] })
        yield* codex.forkThread(id, { tools: [nails], ephemeral: true })
      }))
    }))
})

describe("Invalid tools", () => {
  const named = (name: string) => Tool.make(name, { description: "d", handler: () => Effect.succeed("") })

  it.effect("fail with InvalidRequest before a message is sent", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const transport = yield* Fake.FakeTransport
      const before = transport.sent.length
      const assertInvalid = Effect.fnUntraced(function*(options: Codex.StartOptions, words: RegExp) {
        const reason = yield* TestCodex.expectReason(codex.startThread(options))
        assert.strictEqual(reason?._tag, "InvalidRequest")
        assert.match(reason!.message, words)
      })
      yield* assertInvalid({ tools: [named("has space")] }, /the tool name "has space" is not valid/)
      yield* assertInvalid({ tools: [named("")] }, /the tool name "" is not valid/)
      yield* assertInvalid({ tools: [named("a"), named("a")] }, /two tools have the name `a`/)
      yield* assertInvalid({ tools: [named("a")], toolConcurrency: 0 }, /`toolConcurrency` is 0/)
      yield* assertInvalid({ toolConcurrency: 3 }, /`toolConcurrency` requires `tools`/)
      for (
        const name of ["exec_command", "list_mcp_resources", "list_mcp_resource_templates", "read_mcp_resource"]
      ) {
        yield* assertInvalid({ tools: [named(name)] }, new RegExp(`Codex has a built-in tool \`${name}\``))
      }
      const text = Tool.make("text", {
        description: "d",
        parameters: Schema.String,
        handler: () => Effect.succeed("")
      })
      yield* assertInvalid({ tools: [text] }, /parameters of tool `text` are not an object/)
      assert.strictEqual(transport.sent.length, before)
    }).pipe(Effect.provide(layerFake())))

  it.effect("fail without the experimental API, with the option that turns it on", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const reason = yield* TestCodex.expectReason(codex.startThread({ tools: [named("a")] }))
      assert.match(reason!.message, /experimentalApi/)
    }).pipe(
      Effect.provide(layerFake({ experimentalApi: false }))
    ))
})

describe("Tool call", () => {
  const run = (tool: Tool.Tool, params: object) =>
    Effect.gen(function*() {
      const transport = yield* Fake.FakeTransport
      yield* openThread("t", { tools: [tool] })
      yield* transport.emit({
        method: "item/tool/call",
        id: 0,
        params: { threadId: "t", turnId: "u", callId: "c", namespace: null, tool: tool.name, ...params }
      })
      return (yield* transport.take).result
    }).pipe(Effect.provide(layerFake()))

  it.effect("has a span with the spans of its handler and without private data", () =>
    Effect.gen(function*() {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const tool = Tool.make("secretive", {
        description: "d",
        parameters: Schema.Struct({ key: Schema.String }),
        handler: ({ key }) => Effect.withSpan(Effect.succeed(`${key} it is`), "inner")
      })
      const toolkit = Toolkit.make(
        AiTool.make("ai", {
          description: "d",
          parameters: Schema.Struct({ key: Schema.String }),
          success: Schema.String
        })
      )
      const [ai] = yield* CodexToolkit.make(toolkit).pipe(
        Effect.provide(toolkit.toLayer({ ai: ({ key }) => Effect.withSpan(Effect.succeed(`${key} it is`), "inner") }))
      )
      for (const each of [tool, ai!]) {
        spans.length = 0
        const result = yield* Effect.withTracer(run(each, { arguments: { key: "sesame" } }), tracer)
        assert.deepStrictEqual(result, { success: true, contentItems: [{ type: "inputText", text: "sesame it is" }] })
        const outer = spans.find(({ name }) => name === `execute_tool ${each.name}`)!
        const inner = spans.find(({ name }) => name === "inner")!
        assert.deepInclude(Object.fromEntries(outer.attributes), {
          "gen_ai.conversation.id": "t",
          "codex.turn.id": "u",
          "gen_ai.tool.call.id": "c"
        })
        assert.strictEqual(inner.parent._tag === "Some" ? inner.parent.value.spanId : undefined, outer.spanId)
        const everything = JSON.stringify(spans.map(({ attributes, events }) => [[...attributes], events]))
        assert.notInclude(everything, "sesame")
      }
    }))

  it.effect("accepts only numbers of JSON, also in the schema that the model receives", () =>
    Effect.gen(function*() {
      interface Sum {
        readonly of: ReadonlyArray<number | Sum>
      }
      const Sum: Schema.Codec<Sum> = Schema.Struct({
        of: Schema.Array(Schema.Union([Schema.Number, Schema.suspend((): Schema.Codec<Sum> => Sum)]))
      })
      const add = Tool.make("add", {
        description: "Adds",
        parameters: Schema.Struct({
          a: Schema.Number,
          b: Schema.optionalKey(Schema.Number),
          more: Schema.optionalKey(Schema.Record(Schema.String, Schema.Number)),
          name: Schema.optionalKey(Schema.String),
          sum: Schema.optionalKey(Sum)
        }),
        success: Schema.Unknown,
        handler: Effect.succeed
      })
      const offered = JSON.stringify(add.inputSchema)
      assert.deepInclude(add.inputSchema, { type: "object", required: ["a"] })
      assert.deepInclude(add.inputSchema["properties"], { a: { type: "number" }, b: { type: "number" } })
      assert.notMatch(offered, /NaN|Infinity/)
      const run = (args: object) =>
        Effect.map(
          add.run(args, { threadId: "t", turnId: "u", callId: "c" }),
          ({ content: [said] }) => said?.type === "inputText" ? said.text : ""
        )
      for (
        const [args, path] of [
          [{ a: "ten" }, `["a"]`],
          [{ a: "Infinity" }, `["a"]`],
          [{ a: 1, b: "NaN" }, `["b"]`],
          [{ a: 1, more: { c: "-Infinity" } }, `["more"]["c"]`]
        ] as const
      ) {
        assert.strictEqual(yield* run(args), `Invalid arguments for tool \`add\`: Expected number\n  at ${path}`)
      }
      assert.match(yield* run({ a: 1, sum: { of: [{ of: ["NaN"] }] } }), /^Invalid arguments for tool `add`: /)
      const fine = { a: 1.5, b: -2, more: { c: 3 }, name: "Infinity", sum: { of: [1, { of: [2] }] } }
      assert.deepStrictEqual(JSON.parse(yield* run(fine)), fine)
    }))

  it.effect("fails after its timeout, also if the handler is uninterruptible", () =>
    Effect.gen(function*() {
      const began = yield* Deferred.make<void>()
      const stubborn = Tool.make("stubborn", {
        description: "d",
        timeout: "1 minute",
        handler: () => Effect.uninterruptible(Effect.andThen(Deferred.succeed(began, undefined), Effect.never))
      })
      const result = yield* Effect.forkChild(run(stubborn, { arguments: {} }))
      yield* Deferred.await(began)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Fiber.join(result), {
        success: false,
        contentItems: [{ type: "inputText", text: "stubborn did not finish within 1m" }]
      })
    }))

  it.effect("logs the cause when the handler breaks", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ cause, message }) => void lines.push(`${String(message)} ${String(cause)}`))
    const tool = Tool.make("breaks", { description: "d", handler: () => Effect.die(new Error("the bug")) })
    return Effect.gen(function*() {
      const { contentItems } = yield* run(tool, { arguments: {} })
      assert.deepStrictEqual(contentItems, [{ type: "inputText", text: "breaks failed unexpectedly" }])
      assert.lengthOf(lines, 1)
      assert.match(lines[0]!, /Tool `breaks` failed \(thread `t`, turn `u`, call `c`\)[^]*the bug/)
    }).pipe(Effect.provide(Logger.layer([logger])))
  })

  it("requires the services of its handler where the thread is opened", () => {
    // @ts-expect-error: Stock is missing
    const missing: Effect.Effect<unknown, unknown, Codex.Codex> = Effect.flatMap(
      Codex.Codex,
      (codex) => codex.startThread({ tools: [stock] })
    )
    const given: Effect.Effect<unknown, unknown, Codex.Codex | Stock> = Effect.flatMap(
      Codex.Codex,
      (codex) => codex.startThread({ tools: [stock] })
    )
    assert.isTrue(Effect.isEffect(missing) && Effect.isEffect(given))
  })

  it.effect("responds to arguments of each JSON type", () =>
    Effect.gen(function*() {
      const tool = Tool.make("any", {
        description: "d",
        parameters: Schema.Struct({ a: Schema.optionalKey(Schema.Number) }),
        handler: () => Effect.succeed("fine")
      })
      for (const args of [null, {}, { a: 1 }]) assert.isTrue((yield* run(tool, { arguments: args })).success)
      for (const args of [[], "text", 7, true, { a: "1" }]) {
        const { contentItems, success } = yield* run(tool, { arguments: args })
        assert.isFalse(success, JSON.stringify(args))
        assert.match(contentItems[0].text, /^Invalid arguments for tool `any`: /)
      }
    }))
})

describe("CodexToolkit", () => {
  class Broken extends Schema.TaggedError<Broken>()("Broken", { why: Schema.String }) {}

  const Find = AiTool.make("find", {
    description: "Finds",
    parameters: Schema.Struct({ name: Schema.String, on: Schema.optionalKey(Schema.DateTimeUtcFromString) }),
    success: Schema.Struct({ found: Schema.Boolean }),
    failure: Broken
  })
  const Returning = AiTool.make("returning", {
    description: "Returns its failure",
    failure: Broken,
    failureMode: "return"
  })
  const Guarded = AiTool.make("guarded", { description: "Needs approval", success: Schema.String, needsApproval: true })
  const Sometimes = AiTool.make("sometimes", {
    description: "Needs approval at times",
    parameters: Schema.Struct({ amount: Schema.Number }),
    success: Schema.String,
    needsApproval: ({ amount }) => amount > 10
  })
  const toolkit = Toolkit.make(Find, Returning, Guarded, Sometimes)
  const handlers = toolkit.toLayer({
    find: ({ name }) =>
      name === "die" ? Effect.die("bug") : name === "fail"
        ? Effect.fail(new Broken({ why: "it is" }))
        : Effect.succeed({ found: name === "it" }),
    returning: () => Effect.fail(new Broken({ why: "as always" })),
    guarded: () => Effect.succeed("ran"),
    sometimes: () => Effect.succeed("ran")
  })
  const callId = { threadId: "t", turnId: "u", callId: "c" }

  const make = (options?: CodexToolkit.Options<never>) =>
    Effect.map(
      CodexToolkit.make(toolkit, options),
      (tools) => (name: string, args: unknown) =>
        Effect.map(Effect.exit(tools.find((tool) => tool.name === name)!.run(args, callId)), (exit) =>
          exit._tag === "Success" ? exit.value : "defect")
    )

  const toResult = (success: boolean, text: string): Tool.Result => ({ success, content: [Tool.text(text)] })

  it.effect("converts each tool, which sends results and failures to the model", () =>
    Effect.gen(function*() {
      const run = yield* make()
      assert.deepStrictEqual(yield* run("find", { name: "it" }), toResult(true, `{"found":true}`))
      assert.deepStrictEqual(yield* run("find", { name: "fail" }), toResult(false, `{"_tag":"Broken","why":"it is"}`))
      assert.deepStrictEqual(yield* run("returning", {}), toResult(false, `{"_tag":"Broken","why":"as always"}`))
      assert.strictEqual(yield* run("find", { name: "die" }), "defect")
      const invalid = yield* run("find", { name: 7 })
      assert.isTrue(invalid !== "defect" && !invalid.success)
      assert.match(JSON.stringify(invalid), /Invalid arguments for tool `find`: /)
    }).pipe(Effect.provide(handlers)))

  it.effect("runs a tool that needs approval only if it is approved", () =>
    Effect.gen(function*() {
      const run = yield* make()
      assert.deepStrictEqual(
        yield* run("guarded", {}),
        toResult(false, "Tool `guarded` needs approval and was not approved")
      )
      assert.deepStrictEqual(yield* run("sometimes", { amount: 1 }), toResult(true, "ran"))
      assert.deepInclude(yield* run("sometimes", { amount: 100 }), { success: false })
      const approving = yield* make({ approve: (tool) => Effect.succeed(tool === "guarded") })
      assert.deepStrictEqual(yield* approving("guarded", {}), toResult(true, "ran"))
      assert.deepInclude(yield* approving("sometimes", { amount: 100 }), { success: false })
    }).pipe(Effect.provide(handlers)))

  it.effect("describes a tool by its title, if it has no description", () =>
    Effect.gen(function*() {
      const toolkit = Toolkit.make(
        AiTool.make("both", { description: "Described" }).annotate(AiTool.Title, "Title"),
        AiTool.make("title").annotate(AiTool.Title, "Title"),
        AiTool.make("none")
      )
      const nothing = () => Effect.void
      const tools = yield* CodexToolkit.make(toolkit).pipe(
        Effect.provide(toolkit.toLayer({ both: nothing, title: nothing, none: nothing }))
      )
      assert.deepStrictEqual(tools.map(({ description }) => description), ["Described", "Title", ""])
    }))

  it.effect("rejects tools that only their provider can run", () =>
    Effect.gen(function*() {
      const Search = AiTool.providerDefined({
        id: "test.search",
        customName: "Search",
        providerName: "search",
        args: Schema.Struct({})
      })
      const made = yield* Effect.result(CodexToolkit.make(Toolkit.make(Search({}))))
      assert.isTrue(Result.isFailure(made))
      if (Result.isFailure(made)) assert.strictEqual(made.failure.reason._tag, "InvalidRequest")
    }))
})

describe("Tool with a parameter named like an inherited property", () => {
  const names = Object.getOwnPropertyNames(Object.prototype).filter((name) => name !== "__proto__")
  const parameters = Schema.Struct(
    Object.fromEntries(names.map((name) => [name, Schema.optionalKey(Schema.String)] as const))
  )
  const about = { threadId: "t", turnId: "u", callId: "c" }
  const keys = (args: object) => Effect.succeed(JSON.stringify(args))

  it.effect("runs with and without the parameter", () =>
    Effect.gen(function*() {
      const echo = Tool.make("echo", { description: "", parameters, handler: keys })
      for (const args of [{}, { toString: "x" }, { constructor: "y", valueOf: "z" }]) {
        assert.deepStrictEqual(yield* echo.run(args, about), {
          success: true,
          content: [Tool.text(JSON.stringify(args))]
        })
      }
      assert.isFalse((yield* echo.run({ toString: 1 }, about)).success)
    }))

  it.effect("runs with and without the parameter as a tool of a Toolkit", () =>
    Effect.gen(function*() {
      const toolkit = Toolkit.make(AiTool.make("echo", { parameters, success: Schema.String }))
      const [echo] = yield* CodexToolkit.make(toolkit).pipe(Effect.provide(toolkit.toLayer({ echo: keys })))
      for (const args of [{}, { toString: "x" }]) {
        assert.deepStrictEqual(yield* echo!.run(args, about), {
          success: true,
          content: [Tool.text(JSON.stringify(args))]
        })
      }
    }))
})
