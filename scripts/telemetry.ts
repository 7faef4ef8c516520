/**
 * `npm run telemetry` writes the tables of `docs/observability.md` from `CodexTelemetry`, `CodexMetrics` and the names of the operations. A test
 * compares the page, and others compare the tables with the spans and the metrics of real turns.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { CodexMetrics, CodexTelemetry } from "effect-codex"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { fileURLToPath } from "node:url"
import { readFiles } from "./checks/source.ts"

export const page = "docs/observability.md"

type Name = keyof typeof CodexTelemetry.Attribute

/** What each attribute contains. */
const descriptions: Readonly<Record<Name, string>> = {
  AgentName: "`codex`",
  AgentVersion: "the version of the server",
  ApprovalBy: "where the decision came from: `turn`, `thread`, `layer`, `failure` of a handler, or `nobody`",
  ApprovalDecision:
    "the decision: `accept`, `acceptForSession`, `decline`, `cancel`, …; `withdrawn` without a decision",
  ConnectionKind: "`restart` of the process, or `reconnect` to a shared server",
  ConversationId: "the thread id",
  ErrorType:
    "why it failed: the reason of an `AppServerError`, the `codexErrorInfo` of a turn, the status of a tool, or a code",
  InputMessages: "the input of the turn as JSON; images and files by their type",
  ItemType: "`agentMessage`, `plan` or `reasoning`",
  McpMethod: "`tools/call`",
  McpServer: "the name of the MCP server",
  OperationName: "`invoke_agent` or `execute_tool`",
  OutputMessages: "the messages of the turn as JSON",
  OutputType: "`json` for a turn with an output schema",
  ProcessExitCode: "the exit code of a command",
  ProviderName: "`openai`, also with another model provider",
  RequestKind: "`command`, `file_change`, `permissions` or `mcp_tool_call`",
  RequestModel: "the model of the turn",
  RpcMethod: "the method of the request",
  RpcStatusCode: "the code of the error response",
  RpcSystem: "`jsonrpc`",
  TokenKind: "`input`, `cached_input`, `cache_write_input`, `output` or `reasoning_output`",
  TokenType: "`input` or `output`",
  ToolArguments: "the command, the changes or the arguments, as JSON",
  ToolCallId: "the item id",
  ToolName: "`exec_command`, `apply_patch`, `web_search`, …, or the name of an MCP tool or a tool of the program",
  ToolResult: "the output or the result, as JSON",
  ToolStatus: "`completed`, `failed`, `declined`, or `unfinished` when the turn ended first",
  ToolType: "`function`: the program runs the tool; `extension`: Codex does",
  TurnId: "the turn id",
  TurnIsJoined: "`true` if the input joined a running turn",
  TurnStatus: "`completed`, `interrupted` or `failed`",
  UsageCacheRead: "cached input tokens",
  UsageCacheWrite: "input tokens that were written to the cache",
  UsageInput: "input tokens, with the cached ones",
  UsageOutput: "output tokens, with those of reasoning",
  UsageReasoning: "output tokens of reasoning"
}

interface SpanReference {
  /** The name up to its first space. */
  readonly operation: string
  readonly name: string
  readonly kind: string
  readonly description: string
  readonly parent: string
  /** The attributes of every such span. */
  readonly always: ReadonlyArray<Name>
  readonly sometimes: ReadonlyArray<Name>
  /** The attributes with contents. */
  readonly captured: ReadonlyArray<Name>
}

const { Event, Operation } = CodexTelemetry

export const spans: ReadonlyArray<SpanReference> = [
  {
    operation: Operation.InvokeAgent,
    name: "invoke_agent codex",
    kind: "client",
    description: "a turn, from `turn/start` to its end",
    parent: "the caller's span; for a sub-agent, the span of the call that gave work to it",
    always: ["OperationName", "ProviderName", "AgentName", "AgentVersion", "ConversationId", "TurnStatus"],
    sometimes: [
      "RequestModel",
      "OutputType",
      "TurnId",
      "TurnIsJoined",
      "ErrorType",
      "UsageInput",
      "UsageOutput",
      "UsageCacheRead",
      "UsageCacheWrite",
      "UsageReasoning"
    ],
    captured: ["InputMessages", "OutputMessages"]
  },
  {
    operation: Operation.ExecuteTool,
    name: "execute_tool {tool}",
    kind: "internal",
    description: "a command, a file change, or a call of another tool",
    parent: "the turn",
    always: ["OperationName", "ToolName", "ToolType", "ToolCallId", "AgentName", "ConversationId", "TurnId"],
    sometimes: ["ToolStatus", "ErrorType", "ProcessExitCode", "McpMethod", "McpServer"],
    captured: ["ToolArguments", "ToolResult"]
  },
  {
    operation: Operation.RequestApproval,
    name: "request_approval {kind}",
    kind: "internal",
    description: "an approval, from its request to its decision",
    parent: "the item, or else the turn",
    always: ["RequestKind", "ConversationId", "ApprovalDecision"],
    sometimes: ["ApprovalBy", "TurnId", "ToolCallId"],
    captured: []
  },
  {
    operation: Operation.RequestInput,
    name: "request_input {kind}",
    kind: "internal",
    description: "a question: `user_input` of the model, or `elicitation` of an MCP server",
    parent: "the item, or else the turn",
    always: ["ConversationId"],
    sometimes: ["TurnId", "ToolCallId", "McpServer"],
    captured: []
  },
  {
    operation: "{method}",
    name: "{method}",
    kind: "client",
    description: "a request to the server, such as `turn/start`, with its retries",
    parent: "the operation or the turn that sends it",
    always: ["RpcSystem", "RpcMethod"],
    sometimes: ["ErrorType", "RpcStatusCode"],
    captured: []
  }
]

const events: Readonly<
  Record<CodexTelemetry.Event, { readonly description: string; readonly has: ReadonlyArray<Name> }>
> = {
  [Event.FirstToken]: { description: "the first text of the model has arrived", has: ["ItemType"] },
  [Event.Retry]: { description: "the server retries a model request", has: ["ErrorType"] },
  [Event.Reconnected]: { description: "the connection was lost and opened again, so events are missing", has: [] }
}

type MetricName = keyof typeof CodexMetrics

/** The attributes of each metric besides `unit`. */
export const metricAttributes: Readonly<Record<MetricName, ReadonlyArray<Name>>> = {
  turns: ["TurnStatus", "ErrorType"],
  turnDuration: ["AgentName", "ErrorType"],
  timeToFirstToken: [],
  tokenUsage: ["OperationName", "ProviderName", "TokenType", "RequestModel"],
  tokens: ["TokenKind", "RequestModel"],
  toolDuration: ["ToolName", "ToolType", "AgentName", "ErrorType"],
  approvalWait: ["RequestKind", "ApprovalDecision"],
  restarts: ["ConnectionKind"],
  requestsInFlight: [],
  coalescedDeltas: []
}

/** Returns the names of attributes, as exporters show them. */
export const toKeys = (names: ReadonlyArray<Name>): ReadonlyArray<string> =>
  names.map((name) => CodexTelemetry.Attribute[name])

const code = (text: string): string => `\`${text}\``

const list = (names: ReadonlyArray<Name>): string => toKeys(names).map(code).join(", ") || "none"

const table = (header: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [header, header.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n")

/** Finds the names of the operations in the sources: those of `Effect.fn`, without those of examples. */
const operations = Effect.map(
  readFiles(["src"], (file) => file.endsWith(".ts") && !/testing|generated|\/ai\//.test(file)),
  (files) =>
    [...files.values()].flatMap((text) =>
      [...text.matchAll(/Effect\.fn\(\s*"([A-Za-z]+\.[A-Za-z.]+)"\s*\)/g)].map(([, name]) => name!)
    )
      .sort()
)

/** Makes the tables, by the name of their section. */
export const sections = Effect.map(operations, (operations): ReadonlyMap<string, string> => {
  const entries = Object.entries(CodexMetrics) as Array<[MetricName, typeof CodexMetrics[MetricName]]>
  const metrics = entries.sort(([, a], [, b]) => a.id < b.id ? -1 : 1)
  return new Map([
    [
      "spans",
      [
        table(
          ["span", "kind", "what it is", "below"],
          spans.map(({ description, kind, name, parent }) => [code(name), kind, description, parent])
        ),
        ...spans.map(({ always, captured, name, sometimes }) =>
          `${code(name)}: always ${list(always)}. Where they apply: ${list(sometimes)}.` +
          (captured.length === 0 ? "" : ` With contents only: ${list(captured)}.`)
        )
      ].join("\n\n")
    ],
    [
      "events",
      table(
        ["event", "when", "attributes"],
        Object.entries(events).map(([name, { description, has }]) => [code(name), description, list(has)])
      )
    ],
    ["operations", `${operations.map(code).join(", ")}.`],
    [
      "attributes",
      table(
        ["attribute", "value"],
        (Object.entries(descriptions) as ReadonlyArray<[Name, string]>)
          .map(([name, description]) => [code(CodexTelemetry.Attribute[name]), description])
          .sort(([a], [b]) => a! < b! ? -1 : 1)
      )
    ],
    [
      "metrics",
      table(
        ["metric", "`CodexMetrics`", "type", "unit", "what it measures", "attributes"],
        metrics.map(([name, { attributes, description = "", id, type }]) => [
          code(id),
          code(name),
          type.toLowerCase(),
          code(attributes?.["unit"] ?? ""),
          `${description.charAt(0).toLowerCase()}${description.slice(1)}`,
          list(metricAttributes[name])
        ])
      )
    ]
  ])
})

/** Replaces the sections of the page. */
export const render = (text: string, sections: ReadonlyMap<string, string>): string =>
  [...sections].reduce(
    (text, [name, content]) =>
      text.replace(
        new RegExp(`(<!-- ${name} -->)[\\s\\S]*?(<!-- /${name} -->)`),
        (_, start: string, end: string) => `${start}\n\n${content}\n\n${end}`
      ),
    text
  )

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const file = path.join(fileURLToPath(new URL("..", import.meta.url)), page)
    yield* fs.writeFileString(file, render(yield* fs.readFileString(file), yield* sections))
  }).pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
}
