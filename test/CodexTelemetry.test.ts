import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Approvals, AppServer, Codex, CodexMetrics, CodexTelemetry, Questions, Tool } from "effect-codex"
import { CodexEnvironment, FakeAppServer, ModelServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Tracer from "effect/Tracer"
import * as Http from "node:http"
import { inspect } from "node:util"
import { readFiles } from "../scripts/checks/source.ts"
import { metricAttributes, page, render, sections, spans as documented, toKeys } from "../scripts/telemetry.ts"
import * as Fake from "./FakeTransport.ts"
import { findExamples, makeFolder } from "./repository.ts"
import {
  commandRequest,
  emit,
  end,
  interruptTurn,
  killed,
  layer as layerFake,
  openThread,
  receive,
  receiveDecision,
  reject,
  respond,
  settle,
  startTurn
} from "./scenario.ts"
import * as SocketServer from "./SocketServer.ts"
import * as TestCodex from "./TestCodex.ts"
import { attributesOf, endOf, makeTraces, parentOf, times, toTree, type Traces } from "./Traces.ts"

const { Attribute } = CodexTelemetry

const call = (name: string, args: object, callId: string) => ModelServer.functionCall(name, args, { callId })

const lookup = Tool.make("lookup", {
  description: "Looks a word up",
  parameters: Schema.Struct({ word: Schema.String }),
  handler: ({ word }) => Effect.withSpan(Effect.succeed(word), "my-lookup")
})

/** The handlers of a thread that asks before each command. */
const asking = {
  approvalPolicy: "untrusted" as const,
  approvalsReviewer: "user" as const,
  approvals: { command: () => Effect.withSpan(Effect.succeed(Approvals.accept), "my-approval") }
}

/** The span with a name. Fails unless there is exactly one. */
const only = ({ spans }: Traces, name: string): Tracer.NativeSpan => {
  const found = spans.filter((span) => span.name === name)
  assert.lengthOf(found, 1, name)
  return found[0]!
}

/** Returns the tree below the span with a name, without the spans of operations of `effect-codex`. */
const treeBelow = ({ spans }: Traces, name: string, show = ({ name }: Tracer.NativeSpan): string => name) =>
  toTree(spans, (span) => /^(?:Thread|Turn|Codex)\./.test(span.name) ? undefined : show(span), name)

/** Fails unless each span has the documented attributes, has ended, and lies within its parent. */
const assertDocumented = ({ spans }: Traces, captures = false) => {
  for (const span of spans) {
    const reference = documented.find(({ operation }) =>
      attributesOf(span)[Attribute.RpcSystem] !== undefined
        ? operation === "{method}"
        : operation === span.name.split(" ")[0]
    )
    if (reference === undefined) continue
    const keys = Object.keys(attributesOf(span))
    assert.includeMembers(keys, [...toKeys(reference.always)], span.name)
    const allowed = [...reference.always, ...reference.sometimes, ...(captures ? reference.captured : [])]
    assert.deepStrictEqual(keys.filter((key) => !toKeys(allowed).includes(key)), [], span.name)
    assert.strictEqual(span.kind, reference.kind)
    assert.notStrictEqual(endOf(span), "open", span.name)
  }
}

const assertNested = ({ spans }: Traces, names: ReadonlyArray<string>) => {
  for (const span of spans.filter(({ name }) => names.includes(name))) {
    const parent = spans.find(({ spanId }) => spanId === parentOf(span)?.spanId)!
    const [start, end] = times(span)
    const [outerStart, outerEnd] = times(parent)
    assert.isTrue(outerStart <= start && start <= end && end <= outerEnd, `${span.name} in ${parent.name}`)
  }
}

/** Runs a program on the real binary with a tracer in memory. */
const traced = <A, E>(
  program: (traces: Traces) => Effect.Effect<A, E, Layer.Success<ReturnType<typeof TestCodex.layer>>>,
  options?: Parameters<typeof TestCodex.layer>[0]
) =>
  Effect.suspend(() => {
    const traces = makeTraces()
    return program(traces).pipe(Effect.provide(TestCodex.layer(options)), Effect.withTracer(traces.tracer))
  })

describe("Trace of a turn", () => {
  it.live("has tools below the turn, and handlers with the spans of the program below their items", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ ...asking, tools: [lookup] })
        yield* TestCodex.script(
          thread,
          call("exec_command", { cmd: "touch x; exit 3", login: false }, "command"),
          call("lookup", { word: "a" }, "lookup"),
          ModelServer.customToolCall("apply_patch", "*** Begin Patch\n*** Add File: x\n+hello\n*** End Patch", {
            callId: "patch"
          }),
          ModelServer.reply([ModelServer.deltas(["do", "ne"])], {
            usage: { inputTokens: 20, cachedInputTokens: 8, outputTokens: 4, reasoningTokens: 1 }
          })
        )
        const { id } = yield* Effect.withSpan(thread.run("go"), "task")

        assert.deepStrictEqual(treeBelow(traces, "task", (span) => `${span.name} ${endOf(span)}`), [
          "task ok",
          "  invoke_agent codex ok",
          "    turn/start ok",
          "    execute_tool exec_command error",
          "      request_approval command ok",
          "        my-approval ok",
          "    execute_tool lookup ok",
          "      my-lookup ok",
          "    execute_tool apply_patch error",
          "      request_approval file_change error"
        ])
        const turn = only(traces, "invoke_agent codex")
        assert.deepInclude(attributesOf(turn), {
          [Attribute.ConversationId]: thread.id,
          [Attribute.TurnId]: id,
          [Attribute.TurnStatus]: "completed",
          [Attribute.RequestModel]: "mock-model",
          [Attribute.UsageInput]: 23,
          [Attribute.UsageCacheRead]: 8,
          [Attribute.UsageOutput]: 7,
          [Attribute.UsageReasoning]: 1
        })
        assert.deepStrictEqual(turn.events.map(([name, , attributes]) => [name, attributes]), [
          ["codex.first_token", { [Attribute.ItemType]: "agentMessage" }]
        ])
        assert.deepInclude(attributesOf(only(traces, "execute_tool exec_command")), {
          [Attribute.ToolCallId]: "command",
          [Attribute.ToolStatus]: "failed",
          [Attribute.ErrorType]: "failed",
          [Attribute.ProcessExitCode]: 3
        })
        assert.deepInclude(attributesOf(only(traces, "request_approval command")), {
          [Attribute.ApprovalDecision]: "accept",
          [Attribute.ApprovalBy]: "thread",
          [Attribute.ToolCallId]: "command",
          [Attribute.TurnId]: id
        })
        assert.strictEqual(attributesOf(only(traces, "execute_tool apply_patch"))[Attribute.ToolStatus], "declined")
        assertDocumented(traces)
        assertNested(traces, [
          "execute_tool exec_command",
          "execute_tool lookup",
          "execute_tool apply_patch",
          "request_approval command",
          "my-approval",
          "my-lookup"
        ])
      })
    ))

  it.live("has the calls of MCP tools, their approvals, and questions", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({
          ...asking,
          approvals: { mcpToolCall: () => Effect.succeed(Approvals.accept) },
          questions: {
            elicitation: () => Effect.withSpan(Effect.succeed(Questions.decline), "my-form")
          }
        })
        const mcp = (name: string, args: object, callId: string) =>
          ModelServer.functionCall(name, args, { callId, namespace: "mcp__people" })
        yield* TestCodex.script(
          thread,
          mcp("erase", { what: "it" }, "erase"),
          mcp("introduce", {}, "introduce"),
          ModelServer.text("done")
        )
        yield* Effect.withSpan(thread.run("go"), "task")
        assert.deepStrictEqual(treeBelow(traces, "task"), [
          "task",
          "  invoke_agent codex",
          "    turn/start",
          "    execute_tool erase",
          "      request_approval mcp_tool_call",
          "    execute_tool introduce",
          "      request_input elicitation",
          "        my-form"
        ])
        assert.deepInclude(attributesOf(only(traces, "execute_tool erase")), {
          [Attribute.McpServer]: "people",
          [Attribute.McpMethod]: "tools/call",
          [Attribute.ToolType]: "extension"
        })
        assertDocumented(traces)
      }), { home: { config: TestCodex.mcpConfig } }))

  it.live("has the turns of sub-agents below the calls that spawned them, with their own tools and approvals", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const thread = yield* codex.startThread(asking)
        yield* model.respond((request) => {
          if (request.header("thread-id") === thread.id) return TestCodex.delegate(request, { message: "go" })
          return request.functionCallOutput("sub") === undefined
            ? call("exec_command", { cmd: "touch x", login: false }, "sub")
            : ModelServer.text("sub done")
        })
        yield* Effect.withSpan(thread.run("go"), "task")
        yield* Effect.sync(() => traces.spans.filter(({ name }) => name === "invoke_agent codex").map(endOf)).pipe(
          Effect.repeat({ until: (ends) => !ends.includes("open"), schedule: Schedule.spaced("10 millis") })
        )
        assert.deepStrictEqual(treeBelow(traces, "task"), [
          "task",
          "  invoke_agent codex",
          "    turn/start",
          "    execute_tool spawnAgent",
          "      invoke_agent codex",
          "        execute_tool exec_command",
          "          request_approval command",
          // It reads which thread the sub-agent works for, to find the handler.
          "            thread/read",
          "            my-approval",
          "    execute_tool wait"
        ])
        const [outer, inner] = traces.spans.filter(({ name }) => name === "invoke_agent codex").map(attributesOf)
        assert.strictEqual(outer![Attribute.ConversationId], thread.id)
        assert.notStrictEqual(inner![Attribute.ConversationId], thread.id)
        assert.deepInclude(inner, { [Attribute.TurnStatus]: "completed", [Attribute.UsageInput]: 2 })
        assertDocumented(traces)
      })
    ))

  it.live("ends as failed with the name of the error, and counts retries", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(
          thread,
          ModelServer.httpError(500, { error: { message: "PLANTED" } }),
          ModelServer.failed({ code: "context_length_exceeded", message: "too long" })
        )
        yield* Effect.flip(thread.run("go"))
        const turn = only(traces, "invoke_agent codex")
        assert.strictEqual(endOf(turn), "error")
        assert.deepInclude(attributesOf(turn), {
          [Attribute.TurnStatus]: "failed",
          [Attribute.ErrorType]: "contextWindowExceeded"
        })
        assert.deepStrictEqual(turn.events.map(([name]) => name), ["codex.retry"])
        assertDocumented(traces)
      }), {
      home: { config: { model_providers: { mock_provider: { request_max_retries: 0, stream_max_retries: 2 } } } }
    }))

  it.live("ends as interrupted when the scope of its handle closes, with its tool unfinished", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const started = yield* Deferred.make<void>()
        const wait = Tool.make("wait_long", {
          description: "Waits",
          parameters: Schema.Struct({}),
          handler: () => Effect.andThen(Deferred.succeed(started, undefined), Effect.never)
        })
        const thread = yield* codex.startThread({ tools: [wait] })
        yield* TestCodex.script(thread, call("wait_long", {}, "wait"))
        yield* Effect.scoped(Effect.andThen(thread.turn("go"), Deferred.await(started)))
        const turn = only(traces, "invoke_agent codex")
        assert.strictEqual(endOf(turn), "interrupted")
        assert.strictEqual(attributesOf(turn)[Attribute.TurnStatus], "interrupted")
        assert.isUndefined(attributesOf(turn)[Attribute.ErrorType])
        assert.include(
          ["unfinished", "failed"],
          attributesOf(only(traces, "execute_tool wait_long"))[Attribute.ToolStatus]
        )
        assertDocumented(traces)
      })
    ))

  it.live("has a span for each attempt of a turn with typed output", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, ModelServer.text("{}"), ModelServer.text("{\"count\":1}"))
        yield* Effect.withSpan(thread.run("go", { output: Schema.Struct({ count: Schema.Int }) }), "task")
        assert.deepStrictEqual(treeBelow(traces, "task"), [
          "task",
          "  invoke_agent codex",
          "    turn/start",
          "  invoke_agent codex",
          "    turn/start"
        ])
        const turns = traces.spans.filter(({ name }) => name === "invoke_agent codex").map(attributesOf)
        assert.deepStrictEqual(turns.map((attributes) => attributes[Attribute.OutputType]), ["json", "json"])
        assertDocumented(traces)
      })
    ))

  it.live("links a call that joins the turn, without its usage", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        yield* TestCodex.script(thread, message.reply, ModelServer.text("both"))
        const first = yield* Effect.withSpan(thread.turn("one"), "first")
        yield* message.say("...")
        yield* Stream.runHead(first.text)
        const second = yield* Effect.withSpan(thread.turn("two"), "second")
        assert.strictEqual(second.id, first.id)
        yield* message.finish
        yield* second.result
        const [own, joined] = traces.spans.filter(({ name }) => name === "invoke_agent codex")
        assert.deepStrictEqual(joined!.links.map(({ span }) => span.spanId), [own!.spanId])
        assert.strictEqual(attributesOf(joined!)[Attribute.TurnIsJoined], true)
        assert.isUndefined(attributesOf(joined!)[Attribute.UsageInput])
        assert.isNumber(attributesOf(own!)[Attribute.UsageInput])
        assertDocumented(traces)
      }).pipe(Effect.scoped)
    ))

  it.live("ends as failed when the server is restarted", () =>
    traced((traces) =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, TestCodex.halfMessage)
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(turn.text)
        yield* TestCodex.restartServer
        yield* Effect.flip(turn.result)
        const span = only(traces, "invoke_agent codex")
        assert.deepInclude(attributesOf(span), {
          [Attribute.TurnStatus]: "failed",
          [Attribute.ErrorType]: "TurnLost"
        })
        assertDocumented(traces)
        const restarts = Metric.withAttributes(CodexMetrics.restarts, { [Attribute.ConnectionKind]: "restart" })
        assert.strictEqual((yield* Metric.value(restarts)).count, 1)
      }).pipe(Effect.scoped), { restart: TestCodex.quickRestart }).pipe(
        Effect.provideService(Metric.MetricRegistry, new Map())
      ))

  it.live("continues when a socket is lost and connected again", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const server = yield* SocketServer.listen("ws://127.0.0.1:0")
        const proxy = yield* SocketServer.proxy(server.url)
        yield* Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const thread = yield* codex.startThread()
          const message = yield* TestCodex.heldMessage
          yield* TestCodex.script(thread, message.reply)
          const turn = yield* thread.turn("go")
          yield* message.say("one ")
          yield* Stream.runHead(turn.text)
          const restarted = yield* TestCodex.nextRestart
          yield* proxy.cut
          yield* restarted
          yield* message.say("two")
          yield* message.finish
          yield* turn.result
          const span = only(traces, "invoke_agent codex")
          assert.strictEqual(endOf(span), "ok")
          assert.deepStrictEqual(span.events.map(([name]) => name), ["codex.first_token", "codex.reconnected"])
          const reconnects = Metric.withAttributes(CodexMetrics.restarts, { [Attribute.ConnectionKind]: "reconnect" })
          assert.strictEqual((yield* Metric.value(reconnects)).count, 1)
        }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
      }).pipe(
        Effect.scoped,
        Effect.provide(TestCodex.layerEnvironment()),
        Effect.withTracer(traces.tracer),
        Effect.provideService(Metric.MetricRegistry, new Map())
      )
    }))
})

describe("Request", () => {
  const receiveLine = (method: string) =>
    Effect.map(receive(method), (message) => message as { readonly trace?: unknown })

  it.effect("carries the trace context of its span, sampled or not", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const send = (name: string, options?: Tracer.SpanOptions) =>
          Effect.forkChild(
            Effect.withSpan(server.request("model/list", {}), name, options),
            { startImmediately: true }
          )
        for (const sampled of [true, false]) {
          const name = `sampled ${sampled}`
          yield* send(name, { sampled })
          const { trace } = yield* receiveLine("model/list")
          const span = traces.spans.find((span) =>
            span.name === "model/list" && parentOf(span)?.spanId === only(traces, name).spanId
          )!
          assert.deepStrictEqual(trace, {
            traceparent: `00-${span.traceId}-${span.spanId}-0${sampled ? 1 : 0}`
          })
        }
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.effect("has no span and no trace context without a tracer, and where propagation is disabled", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const send = Effect.forkChild(Effect.withSpan(server.request("model/list", {}), "outer"), {
          startImmediately: true
        })
        yield* send
        assert.notProperty(yield* receive("model/list"), "trace")
        yield* Effect.withTracer(Effect.provideService(send, Tracer.DisablePropagation, true), traces.tracer)
        assert.notProperty(yield* receive("model/list"), "trace")
        assert.deepStrictEqual(traces.spans.map(({ name }) => name), ["outer"])
      }).pipe(Effect.provide(layerFake()))
    }))

  it.effect("ends with the code of its rejection, or with the reason of its failure", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const rejected = yield* Effect.forkChild(server.request("model/list", {}), { startImmediately: true })
        yield* reject("model/list", { code: -32601, message: "PLANTED" })
        yield* Fiber.await(rejected)
        yield* Effect.exit(server.requestRaw("turn/start", { nonsense: true }))
        assert.deepInclude(attributesOf(only(traces, "model/list")), {
          [Attribute.ErrorType]: "-32601",
          [Attribute.RpcStatusCode]: "-32601"
        })
        assert.deepInclude(attributesOf(only(traces, "turn/start")), { [Attribute.ErrorType]: "InvalidRequest" })
        assertDocumented(traces)
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.live("joins the spans of Codex and its model requests to the trace, if Codex exports spans", () =>
    Effect.gen(function*() {
      const { writeConfig } = yield* CodexEnvironment.CodexEnvironment
      const model = yield* ModelServer.ModelServer
      const collector = yield* collect
      yield* writeConfig({
        otel: { environment: "test", trace_exporter: { "otlp-http": { endpoint: collector.url, protocol: "json" } } }
      })
      yield* model.enqueue(ModelServer.text("done"))
      const traces = makeTraces()
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* thread.run("go")
      }).pipe(Effect.provide(TestCodex.layerProcess()), Effect.withTracer(traces.tracer))
      const { spanId, traceId } = only(traces, "turn/start")
      const [request] = yield* model.requests
      assert.match(request!.header("traceparent")!, new RegExp(`^00-${traceId}-[0-9a-f]{16}-01$`))
      assert.isTrue(collector.spans.some((span) => span.traceId === traceId && span.parentSpanId === spanId))
    }).pipe(Effect.scoped, Effect.provide(TestCodex.layerEnvironment())))
})

/** A collector of the spans that Codex exports as JSON. */
const collect = Effect.gen(function*() {
  const spans: Array<{ readonly traceId: string; readonly parentSpanId?: string }> = []
  const server = Http.createServer((request, response) => {
    let body = ""
    request.on("data", (chunk) => {
      body += chunk
    })
    request.on("end", () => {
      for (const { scopeSpans } of JSON.parse(body).resourceSpans ?? []) {
        for (const scope of scopeSpans) spans.push(...scope.spans)
      }
      response.setHeader("content-type", "application/json").end("{}")
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.void))
    }),
    () => Effect.sync(() => server.close())
  )
  const address = server.address()
  return { spans, url: `http://127.0.0.1:${typeof address === "object" ? address?.port : 0}/v1/traces` }
})

describe("Turn without events of its tools", () => {
  it.effect("fails with the reason if the server refuses it, and is interrupted with its caller", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const thread = yield* openThread("t")
        const refused = yield* Effect.forkChild(thread.run("go"), { startImmediately: true })
        yield* reject("turn/start")
        yield* Fiber.await(refused)
        const turn = only(traces, "invoke_agent codex")
        assert.deepInclude(attributesOf(turn), {
          [Attribute.TurnStatus]: "failed",
          [Attribute.ErrorType]: "RequestRejected"
        })
        assert.isUndefined(attributesOf(turn)[Attribute.TurnId])

        const interrupted = yield* Effect.forkChild(thread.run("go"), { startImmediately: true })
        const request = yield* receive("turn/start")
        const ended = yield* Effect.forkChild(Fiber.interrupt(interrupted), { startImmediately: true })
        yield* respond(request, { turn: Fake.turn("u2") })
        yield* emit(Fake.turnStarted("t", "u2"))
        yield* interruptTurn("t", "u2")
        yield* Fiber.join(ended)
        assert.strictEqual(endOf(traces.spans.filter(({ name }) => name === "invoke_agent codex")[1]!), "interrupted")
        assertDocumented(traces)
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.effect("has the spans of tools whose start was lost, and does not trust the clock of the server", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const thread = yield* openThread("t")
        const fiber = yield* startTurn(thread.run("go"), "u")
        const item = { type: "sleep", id: "s", durationMs: 5 }
        yield* emit(
          Fake.turnStarted("t", "u"),
          { method: "item/completed", params: { threadId: "t", turnId: "u", item, completedAtMs: 9e15 } },
          { method: "item/completed", params: { threadId: "t", turnId: "u", item, completedAtMs: 9e15 } },
          Fake.turnCompleted("t", "u")
        )
        yield* Fiber.join(fiber)
        assertNested(traces, ["execute_tool sleep"])
        assertDocumented(traces)
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.effect("has approvals of a turn that this program did not start as roots, and no span of the turn", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        yield* openThread("t", { approvals: asking.approvals })
        yield* emit(Fake.turnStarted("t", "other"), commandRequest(7, { threadId: "t", turnId: "other" }))
        yield* receiveDecision(7)
        assert.deepStrictEqual(treeBelow(traces, "request_approval command"), [
          "request_approval command",
          "  my-approval"
        ])
        assert.isUndefined(parentOf(only(traces, "request_approval command")))
        assert.isFalse(traces.spans.some(({ name }) => name === "invoke_agent codex"))
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.effect("has sub-agents of sub-agents below their calls, and ends their turns with the connection", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      const spawn = (
        method: "item/started" | "item/completed",
        threadId: string,
        turnId: string,
        agentId?: string
      ) => ({
        method,
        params: {
          threadId,
          turnId,
          item: {
            type: "collabAgentToolCall",
            id: `spawn in ${threadId}`,
            tool: "spawnAgent",
            status: method === "item/started" ? "inProgress" : "completed",
            senderThreadId: threadId,
            receiverThreadIds: agentId === undefined ? [] : [agentId],
            prompt: "PLANTED",
            agentsStates: {}
          }
        }
      })
      return Effect.gen(function*() {
        const thread = yield* openThread("t")
        const fiber = yield* startTurn(thread.run("go"), "u")
        yield* emit(
          Fake.turnStarted("t", "u"),
          spawn("item/started", "t", "u"),
          // The sub-agent starts before its call names it.
          Fake.subAgentStarted("a", "u-a", "u"),
          spawn("item/completed", "t", "u", "a"),
          spawn("item/started", "a", "u-a"),
          spawn("item/completed", "a", "u-a", "b"),
          Fake.subAgentStarted("b", "u-b", "u"),
          Fake.turnCompleted("b", "u-b", "failed", { error: { message: "PLANTED", codexErrorInfo: "other" } })
        )
        yield* end(killed)
        yield* Fiber.await(fiber)
        assert.deepStrictEqual(
          treeBelow(traces, "invoke_agent codex", (span) => `${span.name} ${endOf(span)}`).slice(0, 6),
          [
            "invoke_agent codex error",
            "  turn/start ok",
            "  execute_tool spawnAgent ok",
            "    invoke_agent codex error",
            "      execute_tool spawnAgent ok",
            "        invoke_agent codex error"
          ]
        )
        const turns = traces.spans.filter(({ name }) => name === "invoke_agent codex").map(attributesOf)
        assert.deepStrictEqual(turns.map((attributes) => attributes[Attribute.ErrorType]), [
          "ConnectionClosed",
          "ConnectionClosed",
          "other"
        ])
        assertDocumented(traces)
        assert.notInclude(inspect(traces.spans, { depth: 12 }), "PLANTED")
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.effect("has no spans of tools that ended before the program joined the turn", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      const completed = (id: string, completedAtMs: number) => ({
        method: "item/completed" as const,
        params: { threadId: "t", turnId: "u", item: { type: "sleep", id, durationMs: 5 }, completedAtMs }
      })
      return Effect.gen(function*() {
        yield* TestClock.setTime(10_000)
        const thread = yield* openThread("t")
        const fiber = yield* startTurn(thread.run("go"), "u")
        yield* emit(
          Fake.turnStarted("t", "u"),
          completed("before", 9000),
          completed("after", 10_000),
          Fake.turnCompleted("t", "u")
        )
        yield* Fiber.join(fiber)
        const tools = traces.spans.filter(({ name }) => name === "execute_tool sleep").map(attributesOf)
        assert.deepStrictEqual(tools.map((attributes) => attributes[Attribute.ToolCallId]), ["after"])
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(traces.tracer))
    }))

  it.effect("completes also with a tracer whose spans throw", () =>
    Effect.suspend(() => {
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          if (options.name !== "invoke_agent codex") return span
          return Object.assign(span, {
            attribute: (key: string) => {
              if (key.startsWith("codex.")) throw new Error("no attribute")
            },
            end: () => {
              throw new Error("no end")
            },
            event: () => {
              throw new Error("no event")
            }
          })
        }
      })
      return Effect.gen(function*() {
        const thread = yield* openThread("t")
        const fiber = yield* startTurn(thread.run("go"), "u")
        yield* emit(Fake.turnStarted("t", "u"), Fake.delta("t", "u", "m", "Hi"), Fake.turnCompleted("t", "u"))
        assert.strictEqual((yield* Fiber.join(fiber)).status, "completed")
      }).pipe(Effect.provide(layerFake()), Effect.withTracer(tracer))
    }))

  it.effect("uses the tracer of the caller, if the connection has none", () =>
    Effect.suspend(() => {
      const traces = makeTraces()
      return Effect.gen(function*() {
        const codex = yield* Codex.Codex
        yield* Effect.gen(function*() {
          const thread = yield* codex.startThread({ tools: [lookup] })
          yield* thread.run("go")
        }).pipe(Effect.withSpan("task"), Effect.withTracer(traces.tracer))
        assert.deepStrictEqual(treeBelow(traces, "task"), [
          "task",
          "  thread/start",
          "  invoke_agent codex",
          "    turn/start",
          "    execute_tool lookup",
          "      my-lookup"
        ])
      }).pipe(Effect.provide(
        Codex.layer.pipe(
          Layer.provide(AppServer.layer()),
          Layer.provide(FakeAppServer.layer(() => FakeAppServer.toolCall("lookup", { word: "a" })))
        )
      ))
    }))
})

describe("Metrics", () => {
  const snapshot = Effect.map(Metric.snapshot, (all) => all.filter(({ id }) => /^(?:codex|gen_ai)\./.test(id)))

  it.live("count turns, tokens, tools and approvals, in the context of the caller", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ ...asking, tools: [lookup] })
      yield* TestCodex.script(
        thread,
        call("exec_command", { cmd: "touch x", login: false }, "command"),
        call("lookup", { word: "a" }, "lookup"),
        ModelServer.reply([ModelServer.deltas(["do", "ne"])], {
          usage: { inputTokens: 20, cachedInputTokens: 8, outputTokens: 4, reasoningTokens: 1 }
        }),
        ModelServer.failed({ code: "context_length_exceeded", message: "too long" })
      )
      yield* Effect.provideService(thread.run("go"), Metric.CurrentMetricAttributes, { team: "a" })
      yield* Effect.flip(thread.run("again"))

      const value = <State>(metric: Metric.Metric<number, State>, attributes: Record<string, string>) =>
        Metric.value(Metric.withAttributes(metric, attributes))
      const count = (metric: Metric.Counter<number>, attributes: Record<string, string>) =>
        Effect.map(value(metric, attributes), ({ count }) => count)
      const team = { team: "a" }
      assert.strictEqual(yield* count(CodexMetrics.turns, { [Attribute.TurnStatus]: "completed", ...team }), 1)
      assert.strictEqual(
        yield* count(CodexMetrics.turns, {
          [Attribute.TurnStatus]: "failed",
          [Attribute.ErrorType]: "contextWindowExceeded"
        }),
        1
      )
      const model = { [Attribute.RequestModel]: "mock-model", ...team }
      const kinds = { input: 22, cached_input: 8, output: 6, reasoning_output: 1 }
      for (const [kind, used] of Object.entries(kinds)) {
        assert.strictEqual(yield* count(CodexMetrics.tokens, { [Attribute.TokenKind]: kind, ...model }), used)
      }
      const all = yield* snapshot
      const counts = all.map(({ attributes = {}, id, state }) =>
        [
          id,
          attributes["unit"],
          attributes[Attribute.ToolName] ?? attributes[Attribute.ApprovalDecision] ?? attributes[Attribute.TokenType],
          "count" in state ? state.count : "value" in state ? state.value : undefined
        ].join(" ")
      )
      assert.includeMembers(counts, [
        "gen_ai.execute_tool.duration s exec_command 1",
        "gen_ai.execute_tool.duration s lookup 1",
        "codex.approval.wait s accept 1",
        "gen_ai.client.token.usage {token} input 1",
        "gen_ai.client.token.usage {token} output 1",
        "codex.requests.in_flight {request}  0"
      ])
      assert.strictEqual(counts.filter((line) => line.startsWith("gen_ai.invoke_agent.duration s")).length, 2)
      assert.strictEqual(counts.filter((line) => line.startsWith("codex.turn.time_to_first_token s")).length, 1)

      // Each metric has the documented attributes only, and none with a content.
      for (const { attributes = {}, id } of all) {
        const [name] = Object.entries(CodexMetrics).find(([, metric]) => metric.id === id)!
        const allowed = new Set(["unit", "team", ...toKeys(metricAttributes[name as keyof typeof metricAttributes])])
        assert.deepStrictEqual(Object.keys(attributes).filter((key) => !allowed.has(key)), [], id)
      }
    }).pipe(Effect.provide(TestCodex.layer()), Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("count requests in flight, of all connections, and coalesced deltas", () =>
    Effect.gen(function*() {
      const inFlight = Effect.map(Metric.value(CodexMetrics.requestsInFlight), ({ value }) => value)
      const coalesced = Effect.map(Metric.value(CodexMetrics.coalescedDeltas), ({ count }) => count)
      const other = yield* Layer.build(Layer.fresh(layerFake()))
      const send = Effect.flatMap(AppServer.AppServer, (server) =>
        Effect.forkScoped(server.request("model/list", {}), { startImmediately: true }))
      // The layer checks the login.
      yield* settle
      assert.strictEqual(yield* inFlight, 0)
      const request = yield* Effect.andThen(send, receive("model/list"))
      yield* Effect.provideContext(Effect.andThen(send, receive("model/list")), other as never)
      assert.strictEqual(yield* inFlight, 2)
      yield* respond(request, { data: [], nextCursor: null })
      yield* settle
      assert.strictEqual(yield* inFlight, 1)

      const thread = yield* openThread("t")
      const fiber = yield* startTurn(
        Effect.flatMap(thread.turn("go"), (turn) =>
          Effect.andThen(
            // A subscriber that reads one event and then none.
            Effect.forkScoped(
              Stream.runForEach(turn.events, () =>
                Effect.never),
              { startImmediately: true }
            ),
            turn.result
          )),
        "u"
      )
      yield* emit(Fake.turnStarted("t", "u"))
      yield* settle
      const delta = (i: number) => ({
        method: "item/agentMessage/delta",
        params: { threadId: "t", turnId: "u", itemId: "m", delta: `${i} ` }
      })
      yield* emit(...Array.from({ length: 3000 }, (_, i) => delta(i)))
      yield* settle
      assert.strictEqual(yield* coalesced, 0)
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(fiber)
      assert.isAbove(yield* coalesced, 1000)
      assert.isBelow(yield* coalesced, 3000)
    }).pipe(
      Effect.scoped,
      Effect.provide(layerFake()),
      Effect.provideService(Metric.MetricRegistry, new Map())
    ))
})

describe("Page on observability", () => {
  it.effect("has the tables that the code generates", () =>
    Effect.gen(function*() {
      const text = (yield* readFiles([page], () => true)).get(page)!
      const normalize = (text: string) => text.replace(/-{3,}/g, "---").replace(/\s+/g, " ")
      assert.strictEqual(normalize(text), normalize(render(text, yield* sections)))
      for (const name of (yield* sections).keys()) assert.include(text, `<!-- ${name} -->`)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("has programs that run", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const folder = yield* makeFolder
      const text = (yield* readFiles([page], () => true)).get(page)!
      const programs: Record<string, Effect.Effect<unknown, unknown, Codex.Codex>> = {}
      for (const [index, code] of findExamples(text).entries()) {
        const file = `${folder}/observability-${index}.ts`
        yield* fs.writeFileString(file, code)
        Object.assign(programs, yield* Effect.promise(() => import(file)))
      }
      const layer = Codex.layer.pipe(
        Layer.provide(AppServer.layer()),
        Layer.provide(FakeAppServer.layer(() => FakeAppServer.text("Hi")))
      )
      const run = (name: string) => Effect.provide(programs[name]!, layer)
      assert.strictEqual(yield* run("traced"), "Hi")
      assert.strictEqual(yield* run("countedForTeam"), 1)
      const traces = makeTraces()
      yield* Effect.withTracer(run("withContents"), traces.tracer)
      const attributes = attributesOf(only(traces, "invoke_agent codex"))
      assert.deepStrictEqual(JSON.parse(String(attributes[Attribute.InputMessages])), [
        { role: "user", parts: [{ type: "text", content: "Hello" }] }
      ])
      assert.deepStrictEqual(JSON.parse(String(attributes[Attribute.OutputMessages])), [
        { role: "assistant", parts: [{ type: "text", content: "Hi" }], finish_reason: "stop" }
      ])
      assertDocumented(traces, true)
    }).pipe(
      Effect.scoped,
      Effect.provide(NodeServices.layer),
      Effect.provideService(Metric.MetricRegistry, new Map())
    ))
})
