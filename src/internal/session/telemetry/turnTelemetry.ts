/**
 * The span and the metrics of one turn, folded from its events within the read batch.
 *
 * The span begins where the turn is started, as a child of the caller's span, and ends with the turn. Each call of a tool has a span below
 * it. Without a tracer there are no spans. Metrics are updated when a tool or the turn ends.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Exit from "effect/Exit"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as References from "effect/References"
import * as Result from "effect/Result"
import * as Tracer from "effect/Tracer"
import type { AppServerError } from "../../../AppServerError.ts"
import * as CodexMetrics from "../../../CodexMetrics.ts"
import { agentName, Attribute, Event, Operation, providerName } from "../../../CodexTelemetry.ts"
import type * as Protocol from "../../../Protocol.ts"
import type * as Usage from "../../../Usage.ts"
import { redactInJson } from "../../redact.ts"
import { type ToolCall, toToolCall } from "./toolCall.ts"

type Attributes = Readonly<Record<string, unknown>>

/** Ends the span of a tool or a turn that failed. Its message has no contents. */
class Failed extends Data.TaggedError("Failed")<{ readonly message: string }> {}

const failed = (message: string) => Exit.fail(new Failed({ message }))

/** What a turn is, when its span begins. */
export interface Options {
  readonly threadId: string
  /** The context of the fiber that starts the turn. */
  readonly context: Context.Context<never>
  /** The span of the turn. `undefined` without a tracer. */
  readonly span: Tracer.Span | undefined
  readonly model: string | undefined
  /** Whether the spans have contents. */
  readonly capture: boolean
  /** Removes secrets from contents. */
  readonly redact: (text: string) => string
}

/** A call of a tool in progress. */
interface OpenCall {
  readonly call: ToolCall
  readonly startedAt: bigint
  readonly span: Tracer.Span | undefined
}

/** How a turn ended. */
export interface End {
  readonly usage: Usage.TurnUsage | undefined
  /** Number of deltas that were coalesced for its subscribers. */
  readonly coalesced: number
  /** Whether the turn was running before, so that its usage is not that of this call. */
  readonly isJoined: boolean
}

/** The text deltas that are tokens of the model, with the type of their item. */
const tokenEvents: ReadonlyMap<string, string> = new Map([
  ["item/agentMessage/delta", "agentMessage"],
  ["item/plan/delta", "plan"],
  ["item/reasoning/summaryTextDelta", "reasoning"],
  ["item/reasoning/textDelta", "reasoning"]
])

/** The length of a millisecond. A handler may end within the millisecond in which its item completes. */
const millisecond = 1_000_000n

/** The types of items that are text of the model. A model may send a text without deltas. */
const textTypes: ReadonlySet<unknown> = new Set(tokenEvents.values())

const toNanos = (millis: number): bigint => BigInt(Math.round(millis)) * millisecond

const toSeconds = (nanos: bigint): number => Number(nanos) / 1e9

/** Returns the name of the reason why a turn failed. */
const errorName = (info: Protocol.CodexErrorInfo | null | undefined): string =>
  Predicate.isString(info) ? info : Predicate.isObject(info) ? Object.keys(info)[0] ?? "TurnFailed" : "TurnFailed"

/** Runs code of the program's tracer. If the tracer throws, the turn continues without this part of its trace. */
const ignoreThrow = (run: () => void): void => {
  try {
    run()
  } catch {
    // The read batch has no fiber that could fail.
  }
}

export class TurnTelemetry {
  readonly threadId: string
  readonly span: Tracer.Span | undefined
  readonly context: Context.Context<never>
  private readonly model: string | undefined
  private readonly capture: boolean
  private readonly redact: (text: string) => string
  /** The turn id, once the server has named the turn. */
  turnId: string | undefined
  private readonly clock: Clock.Clock
  private readonly startedAt: bigint
  private firstTokenAt: bigint | undefined
  /** The calls of tools in progress, by item id. */
  private readonly open = new Map<string, OpenCall>()
  /** The ids of the items that have ended. The server or a replay may report an end again. */
  private readonly ended = new Set<string>()
  /** The span of the call that last gave work to each sub-agent, by thread id. */
  private readonly agents = new Map<string, Tracer.Span>()
  private readonly messages: Array<string> = []
  private hasEnded = false

  constructor({ capture, context, model, redact, span, threadId }: Options) {
    this.threadId = threadId
    this.context = context
    this.span = span
    this.model = model
    this.capture = capture && span !== undefined
    this.redact = redact
    this.clock = Context.get(context, Clock.Clock)
    this.startedAt = this.now()
  }

  /** Sets the turn id, when the server has named the turn. */
  setTurnId(turnId: string): void {
    this.turnId = turnId
    ignoreThrow(() => this.span?.attribute(Attribute.TurnId, turnId))
  }

  /** Returns the span below which the work for an item belongs: that of the item, or that of the turn. */
  spanOf(itemId: string | undefined): Tracer.Span | undefined {
    return (itemId === undefined ? undefined : this.open.get(itemId)?.span) ?? this.span
  }

  /** The tracer of the turn. */
  get tracer(): Tracer.Tracer {
    return Context.get(this.context, Tracer.Tracer)
  }

  /** Starts the telemetry of a turn of a sub-agent, below the call that gave work to the sub-agent. */
  startAgent(
    name: string,
    { attributes, model, threadId }: Pick<Options, "model" | "threadId"> & { readonly attributes: Attributes }
  ): TurnTelemetry {
    const parent = this.agentSpan(threadId) ?? this.span
    const span = parent && this.makeSpan(name, parent, "client", this.now(), attributes)
    const { capture, context, redact } = this
    return new TurnTelemetry({ capture, context, model, redact, span, threadId })
  }

  /** Returns the item id of the last call in progress of an MCP server. Its forms do not name their call. */
  findMcpCall(server: string): string | undefined {
    const calls = [...this.open.values()].filter(({ call }) => call.attributes[Attribute.McpServer] === server)
    return calls.at(-1)?.call.id
  }

  /** Returns the span of an item in progress. */
  itemSpan(itemId: string): Tracer.Span | undefined {
    return this.open.get(itemId)?.span
  }

  /** Returns the span of the call that gave work to a sub-agent. */
  private agentSpan(threadId: string): Tracer.Span | undefined {
    const known = this.agents.get(threadId)
    if (known !== undefined) return known
    // A sub-agent may start before the call that spawns it names its thread.
    const spawning = [...this.open.values()].filter(({ call }) => call.name === "spawnAgent")
    return spawning.at(-1)?.span
  }

  /** Makes a span below another one, with the tracer of the turn. */
  private makeSpan(
    name: string,
    parent: Tracer.Span,
    kind: Tracer.SpanKind,
    at: bigint,
    attributes: Attributes
  ): Tracer.Span {
    const span = this.tracer.span({
      name,
      parent: Option.some(parent),
      annotations: Context.empty(),
      links: [],
      startTime: this.time(at),
      kind,
      root: false,
      sampled: parent.sampled
    })
    const annotations = Context.get(this.context, References.TracerSpanAnnotations)
    for (const [key, value] of Object.entries({ ...annotations, ...attributes })) {
      if (value !== undefined) span.attribute(key, value)
    }
    return span
  }

  /** Called with each event of the turn, and with the first delta of each text. */
  onEvent(event: Protocol.TurnNotification): void {
    if (!this.hasEnded) ignoreThrow(() => this.fold(event))
  }

  private fold(event: Protocol.TurnNotification): void {
    switch (event.method) {
      case "item/started":
        this.start(toToolCall(event.params.item, false), event.params.startedAtMs)
        return
      case "item/completed":
        return this.complete(event.params.item, event.params.completedAtMs)
      case "error":
        if (event.params.willRetry) {
          this.event(Event.Retry, { [Attribute.ErrorType]: errorName(event.params.error.codexErrorInfo) })
        }
        return
      case "malformed":
        return
      default: {
        const itemType = tokenEvents.get(event.method)
        if (itemType !== undefined) this.addToken(itemType)
        else if ((event.method as string) === "effect-codex/restarted") this.event(Event.Reconnected)
      }
    }
  }

  /** Ends the span, and updates the metrics. Calls of tools in progress end unfinished. */
  end(exit: Result.Result<Protocol.Turn, AppServerError>, end: End): void {
    ignoreThrow(() => this.endWith(exit, end))
  }

  private endWith(exit: Result.Result<Protocol.Turn, AppServerError>, end: End): void {
    const usage = end.isJoined ? undefined : end.usage
    if (usage !== undefined) this.annotateUsage(usage.turn)
    if (Result.isFailure(exit)) {
      return this.close("failed", exit.failure.reason._tag, Exit.fail(exit.failure), end, usage)
    }
    const { error, status } = exit.success
    if (status === "completed") return this.close(status, undefined, Exit.void, end, usage)
    if (status === "interrupted") return this.close(status, undefined, Exit.interrupt(), end, usage)
    const type = errorName(error?.codexErrorInfo)
    const detail = this.capture && error != null ? `: ${this.redact(error.message)}` : ""
    return this.close(status, type, failed(`The turn ended as ${status} (${type})${detail}`), end, usage)
  }

  /** Ends the span of a turn that was not started, or whose options do not hold. */
  fail(cause: Cause.Cause<AppServerError>): void {
    ignoreThrow(() => this.failWith(cause))
  }

  private failWith(cause: Cause.Cause<AppServerError>): void {
    const end: End = { usage: undefined, coalesced: 0, isJoined: false }
    const error = Option.getOrUndefined(Cause.findErrorOption(cause))
    if (error === undefined && Cause.hasInterrupts(cause)) {
      return this.close("interrupted", undefined, Exit.failCause(cause), end, undefined)
    }
    return this.close("failed", error?.reason._tag ?? "defect", Exit.failCause(cause), end, undefined)
  }

  private close(
    status: string,
    errorType: string | undefined,
    exit: Exit.Exit<unknown, unknown>,
    { coalesced, isJoined }: End,
    usage: Usage.TurnUsage | undefined
  ): void {
    if (this.hasEnded) return
    this.hasEnded = true
    const endedAt = this.now()
    for (const open of this.open.values()) this.endCall(open, open.call, endedAt, "unfinished")
    this.open.clear()
    const error = errorType === undefined ? {} : { [Attribute.ErrorType]: errorType }
    const { span } = this
    if (span !== undefined) {
      span.attribute(Attribute.TurnStatus, status)
      if (isJoined) span.attribute(Attribute.TurnIsJoined, true)
      if (errorType !== undefined) span.attribute(Attribute.ErrorType, errorType)
      if (this.messages.length > 0) span.attribute(Attribute.OutputMessages, this.outputMessages(status))
      span.end(this.time(endedAt), exit)
    }
    // The call that started the turn counts it.
    if (isJoined) return
    this.update(CodexMetrics.turns, 1, { [Attribute.TurnStatus]: status, ...error })
    this.update(CodexMetrics.turnDuration, toSeconds(endedAt - this.startedAt), {
      [Attribute.AgentName]: agentName,
      ...error
    })
    if (this.firstTokenAt !== undefined) {
      this.update(CodexMetrics.timeToFirstToken, toSeconds(this.firstTokenAt - this.startedAt), {})
    }
    if (usage !== undefined) this.updateTokens(usage.turn)
    if (coalesced > 0) this.update(CodexMetrics.coalescedDeltas, coalesced, {})
  }

  private start(call: ToolCall | undefined, startedAtMs: number | null | undefined): OpenCall | undefined {
    if (call === undefined || this.open.has(call.id) || this.ended.has(call.id)) return undefined
    const startedAt = this.serverTime(startedAtMs, this.startedAt)
    const attributes = {
      [Attribute.OperationName]: Operation.ExecuteTool,
      [Attribute.ToolName]: call.name,
      [Attribute.ToolType]: call.type,
      [Attribute.ToolCallId]: call.id,
      [Attribute.AgentName]: agentName,
      [Attribute.ConversationId]: this.threadId,
      [Attribute.TurnId]: this.turnId,
      [Attribute.ToolArguments]: this.capture ? this.content(call.arguments()) : undefined
    }
    const name = `${Operation.ExecuteTool} ${call.name}`
    const span = this.span && this.makeSpan(name, this.span, "internal", startedAt, attributes)
    const open = { call, startedAt, span }
    this.open.set(call.id, open)
    return open
  }

  private complete(item: Protocol.ThreadItem, completedAtMs: number | undefined): void {
    if (textTypes.has(item.type)) this.addToken(item.type as string)
    if (this.capture && item.type === "agentMessage") this.messages.push(item.text)
    const call = toToolCall(item, true)
    if (call === undefined || this.ended.has(call.id)) return
    // A turn that this program joined has earlier calls, which are replayed.
    if (!this.open.has(call.id) && this.isBefore(completedAtMs)) return
    // The start may be lost with a connection.
    const startedAtMs = "startedAtMs" in item ? item.startedAtMs as number | null | undefined : undefined
    const open = this.open.get(call.id) ?? this.start(call, startedAtMs ?? completedAtMs)
    if (open === undefined) return
    this.open.delete(call.id)
    this.ended.add(call.id)
    if (item.type === "collabAgentToolCall" && open.span !== undefined && item.tool !== "wait") {
      for (const agentId of item.receiverThreadIds) this.agents.set(agentId, open.span)
    }
    this.endCall(open, call, this.serverTime(completedAtMs, open.startedAt, millisecond), call.status)
  }

  private endCall({ span, startedAt }: OpenCall, call: ToolCall, endedAt: bigint, status: string): void {
    const isError = status !== "completed" && status !== "unfinished"
    const error = isError ? { [Attribute.ErrorType]: status } : {}
    if (span !== undefined) {
      const attributes: Attributes = {
        ...call.attributes,
        ...error,
        [Attribute.ToolStatus]: status,
        [Attribute.ToolResult]: this.capture ? this.content(call.result()) : undefined
      }
      for (const [key, value] of Object.entries(attributes)) if (value !== undefined) span.attribute(key, value)
      span.end(
        this.time(endedAt),
        isError ? failed(`The tool \`${call.name}\` ended as ${status}`) : Exit.void
      )
    }
    this.update(CodexMetrics.toolDuration, toSeconds(endedAt - startedAt), {
      [Attribute.ToolName]: call.name,
      [Attribute.ToolType]: call.type,
      [Attribute.AgentName]: agentName,
      ...error
    })
  }

  private addToken(itemType: string): void {
    if (this.firstTokenAt !== undefined) return
    this.firstTokenAt = this.now()
    this.event(Event.FirstToken, { [Attribute.ItemType]: itemType })
  }

  private event(name: Event, attributes?: Record<string, unknown>): void {
    this.span?.event(name, this.time(this.now()), attributes)
  }

  private annotateUsage(used: Usage.Tokens): void {
    const { span } = this
    if (span === undefined) return
    span.attribute(Attribute.UsageInput, used.inputTokens)
    span.attribute(Attribute.UsageOutput, used.outputTokens)
    span.attribute(Attribute.UsageCacheRead, used.cachedInputTokens)
    span.attribute(Attribute.UsageCacheWrite, used.cacheWriteInputTokens)
    span.attribute(Attribute.UsageReasoning, used.reasoningOutputTokens)
  }

  private updateTokens(used: Usage.Tokens): void {
    const model = this.model === undefined ? {} : { [Attribute.RequestModel]: this.model }
    for (const [type, count] of [["input", used.inputTokens], ["output", used.outputTokens]] as const) {
      this.update(CodexMetrics.tokenUsage, count, {
        [Attribute.OperationName]: Operation.InvokeAgent,
        [Attribute.ProviderName]: providerName,
        [Attribute.TokenType]: type,
        ...model
      })
    }
    const kinds = {
      input: used.inputTokens,
      cached_input: used.cachedInputTokens,
      cache_write_input: used.cacheWriteInputTokens,
      output: used.outputTokens,
      reasoning_output: used.reasoningOutputTokens
    }
    for (const [kind, count] of Object.entries(kinds)) {
      if (count > 0) this.update(CodexMetrics.tokens, count, { [Attribute.TokenKind]: kind, ...model })
    }
  }

  private update<State>(metric: Metric.Metric<number, State>, value: number, attributes: Record<string, string>): void {
    Metric.withAttributes(metric, attributes).updateUnsafe(value, this.context)
  }

  private outputMessages(status: string): string {
    return JSON.stringify(this.messages.map((text) => ({
      role: "assistant",
      parts: [{ type: "text", content: this.redact(text) }],
      finish_reason: status === "completed" ? "stop" : "error"
    })))
  }

  private content(value: unknown): string | undefined {
    // JSON that is nested too deep cannot be encoded. The turn continues without it.
    try {
      const json = JSON.stringify(value)
      return json === undefined ? undefined : JSON.stringify(redactInJson(JSON.parse(json), this.redact))
    } catch {
      return undefined
    }
  }

  private now(): bigint {
    return this.clock.currentTimeNanosUnsafe()
  }

  private time(at: bigint): bigint {
    return Context.get(this.context, References.TracerTimingEnabled) ? at : 0n
  }

  /** Whether a time of the server is before the start of the telemetry. */
  private isBefore(millis: number | null | undefined): boolean {
    return Predicate.isNumber(millis) && Number.isFinite(millis) && toNanos(millis) + millisecond < this.startedAt
  }

  /** Converts a time of the server. Its clock may differ, so the time is at least `least`, and not in the future. */
  private serverTime(millis: number | null | undefined, least: bigint, added = 0n): bigint {
    const now = this.now()
    if (!Predicate.isNumber(millis) || !Number.isFinite(millis)) return now
    const at = toNanos(millis) + added
    return at > now ? now : at < least ? least : at
  }
}
