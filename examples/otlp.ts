/**
 * Exports the trace and the metrics of a turn with OTLP, to a collector that this program starts. Then prints both: the turn with its command,
 * approval and tool below the program's own span, and Codex's spans in the same trace.
 *
 * In production `baseUrl` is the address of your collector.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { ApprovalPolicy, Codex, CodexTelemetry, Tool } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Otlp from "effect/observability/Otlp"
import * as Schema from "effect/Schema"
import { CodexOptions, functionCall, layerOptions, text } from "./support/codex.ts"
import { type CollectedSpan, startCollector } from "./support/collector.ts"

const findTicket = Tool.make("find_ticket", {
  description: "Finds a support ticket by its id",
  parameters: Schema.Struct({ id: Schema.String }),
  handler: ({ id }) => Effect.succeed(`Ticket ${id}: the door does not close`).pipe(Effect.withSpan("select-ticket"))
})

const task = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({
    approvalPolicy: "on-request",
    approvalsReviewer: "user",
    approvals: (request) => ApprovalPolicy.readOnlyCommands(request).pipe(Effect.withSpan("decide")),
    tools: [findTicket]
  })
  const { finalResponse } = yield* thread.run("Which files belong to ticket A-1?")
  yield* Console.log(`${finalResponse}\n`)
}).pipe(Effect.withSpan("answer-ticket"))

/** Codex, which exports its own spans too. */
const layerCodex = (baseUrl: string) =>
  Layer.unwrap(Effect.map(CodexOptions, (options) =>
    Codex.layerStdio({
      ...options,
      config: {
        otel: { trace_exporter: { "otlp-http": { endpoint: `${baseUrl}/v1/traces`, protocol: "json" } } }
      }
    }))).pipe(Layer.provide(NodeServices.layer))

const { Attribute } = CodexTelemetry

/** The attributes to print. A trace has more. */
const shown: ReadonlyArray<string> = [
  Attribute.RequestModel,
  Attribute.TurnStatus,
  Attribute.UsageInput,
  Attribute.UsageOutput,
  Attribute.ToolStatus,
  Attribute.ApprovalDecision
]

const printTree = (spans: ReadonlyArray<CollectedSpan>, parent: CollectedSpan, depth: number): Effect.Effect<void> =>
  Effect.gen(function*() {
    const attributes = shown.flatMap((name) =>
      parent.attributes.has(name) ? [`${name}=${parent.attributes.get(name)}`] : []
    )
    yield* Console.log(
      `${"  ".repeat(depth)}${parent.name} (${parent.millis.toFixed(1)} ms) ${attributes.join(" ")}`.trimEnd()
    )
    const children = spans.filter(({ parentId }) => parentId === parent.id)
    for (const child of children.sort((a, b) => Number(a.start - b.start))) yield* printTree(spans, child, depth + 1)
  })

const program = Effect.gen(function*() {
  const { metrics, spans, url } = yield* startCollector
  const layerOtlp = Otlp.layerJson({
    baseUrl: url,
    resource: { serviceName: "ticket-agent" },
    loggerMergeWithExisting: true
  }).pipe(Layer.provide(NodeHttpClient.layerUndici))
  // The layers export what is left when they are released.
  yield* task.pipe(Effect.provide(layerCodex(url)), Effect.provide(layerOtlp))

  const own = spans.filter(({ service }) => service === "ticket-agent")
  const root = yield* Effect.fromNullishOr(own.find(({ name }) => name === "answer-ticket"))
  yield* printTree(own, root, 0)
  const codexSpans = spans.filter(({ service, traceId }) => service !== "ticket-agent" && traceId === root.traceId)
  yield* Console.log(
    codexSpans.length > 0 ? "Codex's own spans are in the same trace.\n" : "Codex exported no spans.\n"
  )

  for (const { attributes, name, unit, value } of metrics.values()) {
    const labels = [...attributes].flatMap(([key, value]) => key === "unit" ? [] : [`${key}=${value}`])
    yield* Console.log(`${name}: ${value} ${unit} ${labels.join(" ")}`.trimEnd())
  }
}).pipe(Effect.scoped)

const model = layerOptions((request) =>
  request.functionCallOutput("ticket") === undefined
    ? functionCall("find_ticket", { id: "A-1" }, { callId: "ticket" })
    : request.functionCallOutput("list") === undefined
    ? functionCall("exec_command", {
      cmd: "ls",
      login: false,
      sandbox_permissions: "require_escalated",
      justification: "List the files"
    }, { callId: "list" })
    : text("None: the directory is empty.", { usage: { inputTokens: 120, outputTokens: 9 } })
)

program.pipe(Effect.provide(model), NodeRuntime.runMain)
