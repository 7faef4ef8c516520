/**
 * The names of spans, attributes and events, and the option to capture contents.
 *
 * **Details**
 *
 * Names follow the OpenTelemetry semantic conventions for generative AI, which are in development, and for JSON-RPC; see
 * {@link conventions}. Names of this package begin with `codex.`. `docs/observability.md` lists which span has which attribute.
 *
 * **Gotchas**
 *
 * Spans for turns, tools and requests exist only with a tracer, such as that of `Otlp.layerJson`. The default tracer of Effect exports
 * nothing.
 *
 * **Example** (Capturing contents in traces)
 *
 * ```ts
 * import { Codex, CodexTelemetry } from "effect-codex"
 * import { Effect } from "effect"
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread()
 *   return yield* thread.run("What is in the test data?")
 * }).pipe(Effect.provideService(CodexTelemetry.CaptureContent, true))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"

/**
 * The conventions that the names follow, with their versions.
 *
 * @category constants
 * @since 0.1.0
 */
export const conventions = {
  /** `open-telemetry/semantic-conventions-genai`: agents, tools, tokens. */
  genAi: "0.1.0",
  /** `open-telemetry/semantic-conventions`: JSON-RPC, errors, processes. */
  general: "1.41.0"
} as const

/**
 * Whether spans contain prompts, messages, and the arguments and results of tools.
 *
 * **When to use**
 *
 * Set it to `true` where traces may contain private data, for the turns that a program starts.
 *
 * **Details**
 *
 * It is read where a turn starts, and holds for the turn, its tools and its sub-agents. Secrets that the connection knows, as those of its
 * environment, are removed. Metrics never contain contents.
 *
 * **Gotchas**
 *
 * The model and the tools may repeat any file that they read. Exporters may limit the size of an attribute.
 *
 * @default false
 * @category references
 * @since 0.1.0
 */
export const CaptureContent: Context.Reference<boolean> = Context.Reference<boolean>(
  "effect-codex/CodexTelemetry/CaptureContent",
  { defaultValue: () => false }
)

/**
 * The names of the attributes of spans, events and metrics.
 *
 * **When to use**
 *
 * Find attributes in tests of traces, and in queries that a program makes.
 *
 * @category constants
 * @since 0.1.0
 */
export const Attribute = {
  AgentName: "gen_ai.agent.name",
  AgentVersion: "gen_ai.agent.version",
  ApprovalBy: "codex.approval.by",
  ApprovalDecision: "codex.approval.decision",
  ConnectionKind: "codex.connection.kind",
  ConversationId: "gen_ai.conversation.id",
  ErrorType: "error.type",
  InputMessages: "gen_ai.input.messages",
  ItemType: "codex.item.type",
  McpMethod: "mcp.method.name",
  McpServer: "codex.mcp.server",
  OperationName: "gen_ai.operation.name",
  OutputMessages: "gen_ai.output.messages",
  OutputType: "gen_ai.output.type",
  ProcessExitCode: "process.exit.code",
  ProviderName: "gen_ai.provider.name",
  RequestKind: "codex.request.kind",
  RequestModel: "gen_ai.request.model",
  RpcMethod: "rpc.method",
  RpcStatusCode: "rpc.response.status_code",
  RpcSystem: "rpc.system.name",
  TokenKind: "codex.token.kind",
  TokenType: "gen_ai.token.type",
  ToolArguments: "gen_ai.tool.call.arguments",
  ToolCallId: "gen_ai.tool.call.id",
  ToolName: "gen_ai.tool.name",
  ToolResult: "gen_ai.tool.call.result",
  ToolStatus: "codex.tool.status",
  ToolType: "gen_ai.tool.type",
  TurnId: "codex.turn.id",
  TurnIsJoined: "codex.turn.is_joined",
  TurnStatus: "codex.turn.status",
  UsageCacheRead: "gen_ai.usage.cache_read.input_tokens",
  UsageCacheWrite: "gen_ai.usage.cache_write.input_tokens",
  UsageInput: "gen_ai.usage.input_tokens",
  UsageOutput: "gen_ai.usage.output_tokens",
  UsageReasoning: "gen_ai.usage.reasoning.output_tokens"
} as const

/**
 * The name of an attribute.
 *
 * @category models
 * @since 0.1.0
 */
export type Attribute = typeof Attribute[keyof typeof Attribute]

/**
 * The names of the events of a turn's span.
 *
 * @category constants
 * @since 0.1.0
 */
export const Event = {
  /** The first text of the model has arrived. */
  FirstToken: "codex.first_token",
  /** The connection was lost and opened again, so events are missing. */
  Reconnected: "codex.reconnected",
  /** The server retries a model request. */
  Retry: "codex.retry"
} as const

/**
 * The name of an event.
 *
 * @category models
 * @since 0.1.0
 */
export type Event = typeof Event[keyof typeof Event]

/**
 * The names of the operations. The name of a span is its operation, a space, and the agent, the tool or the kind of the request.
 *
 * @category constants
 * @since 0.1.0
 */
export const Operation = {
  /** A turn. */
  InvokeAgent: "invoke_agent",
  /** A command, a file change, or a call of another tool. */
  ExecuteTool: "execute_tool",
  /** An approval that a handler decides about. */
  RequestApproval: "request_approval",
  /** A question that a handler responds to. */
  RequestInput: "request_input"
} as const

/**
 * The value of `gen_ai.agent.name`.
 *
 * @category constants
 * @since 0.1.0
 */
export const agentName = "codex"

/**
 * The value of `gen_ai.provider.name`. It names the format of the telemetry, also if a thread uses another model provider.
 *
 * @category constants
 * @since 0.1.0
 */
export const providerName = "openai"
