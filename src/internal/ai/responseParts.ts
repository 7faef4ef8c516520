/** Folds the events of a turn to the parts of its responses. A turn has several responses if the program runs tools for it. */
import type * as Response from "effect/ai/Response"
import * as AiTool from "effect/ai/Tool"
import type * as Protocol from "../../Protocol.ts"
import { type MessageEvent, Messages, type TurnEvent, type TurnResult } from "../../Turn.ts"
import * as Usage from "../../Usage.ts"
import { ownFields } from "../tools/ownFields.ts"
import { type ProviderCall, toProviderCall } from "./providerTools.ts"
import { type RawEvent, readRawEvent } from "./rawEvents.ts"

type Part = Response.StreamPartEncoded

type Parts = ReadonlyArray<Part>

type Kind = "text" | "reasoning"

/** What a request offers to the model. */
export interface Offer {
  /** The tools of the toolkit. */
  readonly tools: ReadonlyArray<AiTool.Any>
  /** The names of the tools that the model may call. */
  readonly allowed: ReadonlySet<string>
}

/**
 * Whether a response ends with its tool calls: `"no"` while the model may still write, `"now"` if all its calls have arrived, and `"quiet"`
 * if more may arrive, because not all servers report the end of a model's response.
 */
export type CallsEnd = "no" | "now" | "quiet"

const toUsage = (tokens: Usage.Tokens | undefined): Response.FinishPartEncoded["usage"] =>
  tokens === undefined ? { inputTokens: {}, outputTokens: {} } : {
    inputTokens: {
      total: tokens.inputTokens,
      cacheRead: tokens.cachedInputTokens,
      cacheWrite: tokens.cacheWriteInputTokens,
      uncached: tokens.inputTokens - tokens.cachedInputTokens - tokens.cacheWriteInputTokens
    },
    outputTokens: {
      total: tokens.outputTokens,
      reasoning: tokens.reasoningOutputTokens,
      text: tokens.outputTokens - tokens.reasoningOutputTokens
    }
  }

const finish = (reason: Response.FinishReason, usage: Usage.Tokens | undefined): Part => ({
  type: "finish",
  reason,
  usage: toUsage(usage)
})

export class ResponseParts {
  private readonly messages = new Messages()
  /** The open texts, by the id of their part. */
  private readonly texts = new Map<string, Kind>()
  /** The part of each open message, by the id of its item. */
  private readonly partOf = new Map<string, string>()
  /** The text part of a retracted message, which the next message replaces. */
  private retracted: string | undefined
  /** Calls of provider-defined tools without a result, by the id of their item. */
  private readonly running = new Map<string, ProviderCall>()
  /** The ids of all calls of the program's tools in this turn. */
  private readonly seen = new Set<string>()
  /** The calls of this response, and all that the model has made, in its order and as far as they are known. */
  private readonly calls = new Set<string>()
  private readonly expected = new Set<string>()
  /** Calls that wait for earlier ones, because the server starts parallel calls in any order. */
  private readonly early = new Map<string, Part>()
  private hasRawEvents = false
  private isRequestComplete = false
  private tokens: Usage.Tokens | undefined
  private reported = Usage.zero
  private offer: Offer = { tools: [], allowed: new Set() }
  /** Called for a call of a tool that the current request does not offer. */
  private readonly refuse: (callId: string) => void

  constructor(refuse: (callId: string) => void) {
    this.refuse = refuse
  }

  /** Starts the next response. */
  begin(offer: Offer): void {
    this.offer = offer
  }

  on(event: TurnEvent): Parts {
    const raw = readRawEvent(event)
    if (raw !== undefined) {
      this.onRaw(raw)
      return []
    }
    const parts = this.messages.on(event).flatMap((message) => this.onMessage(message))
    switch (event.method) {
      case "item/started":
        return [...parts, ...this.onItem(event.params.item, false)]
      case "item/completed":
        return [...parts, ...this.onItem(event.params.item, true)]
      case "item/reasoning/summaryTextDelta":
        return this.onText("reasoning", `${event.params.itemId}:${event.params.summaryIndex}`, event.params.delta)
      case "item/reasoning/textDelta":
        return this.onText(
          "reasoning",
          `${event.params.itemId}:content:${event.params.contentIndex}`,
          event.params.delta
        )
      default:
        return parts
    }
  }

  /** Whether the response ends with its tool calls. */
  get callsEnd(): CallsEnd {
    if (this.calls.size === 0) return "no"
    if (!this.hasRawEvents) return "quiet"
    if (!this.isRequestComplete) return "no"
    // Code of the model may also call tools, which no raw event announces.
    const isComplete = [...this.expected].every((id) => this.seen.has(id)) &&
      [...this.calls].every((id) => this.expected.has(id))
    return isComplete ? "now" : "quiet"
  }

  /** Ends a response whose tool calls the program runs. */
  finishWithCalls(): Parts {
    const { tokens } = this
    const early = [...this.early.values()]
    if (tokens !== undefined) this.reported = Usage.add(this.reported, tokens)
    this.tokens = undefined
    this.calls.clear()
    this.early.clear()
    this.expected.clear()
    this.isRequestComplete = false
    return [...this.closeTexts(), ...early, finish("tool-calls", tokens)]
  }

  /** Ends the last response of the turn. */
  finishTurn(reason: Response.FinishReason, usage: TurnResult["usage"]): Parts {
    const used = usage && Usage.subtract(Usage.add(usage.turn, usage.subAgents), this.reported)
    const results = [...this.running.values()].flatMap((call) => this.toResult(call))
    return [...this.closeTexts(), ...results, finish(reason, used)]
  }

  private onRaw(event: RawEvent): void {
    this.hasRawEvents = true
    switch (event.type) {
      case "call":
        this.isRequestComplete = false
        if (this.offer.tools.some(({ name }) => name === event.name)) this.expected.add(event.id)
        break
      case "output":
        this.expected.delete(event.id)
        break
      case "completed":
        this.isRequestComplete = true
        if (event.usage !== undefined) this.tokens = Usage.add(this.tokens ?? Usage.zero, event.usage)
        break
    }
  }

  private onMessage(event: MessageEvent): Parts {
    switch (event._tag) {
      case "Started": {
        const kind: Kind = event.phase === "commentary" ? "reasoning" : "text"
        const id = kind === "text" && this.retracted !== undefined ? this.retracted : event.itemId
        if (kind === "text") this.retracted = undefined
        this.partOf.set(event.itemId, id)
        this.texts.set(id, kind)
        return [{ type: `${kind}-start`, id }]
      }
      case "Delta": {
        const id = this.partOf.get(event.itemId) ?? event.itemId
        return [{ type: `${this.texts.get(id) ?? "text"}-delta`, id, delta: event.delta }]
      }
      case "Completed":
        return this.close(this.partOf.get(event.itemId) ?? event.itemId)
      case "Retracted": {
        const id = this.partOf.get(event.itemId) ?? event.itemId
        if (this.texts.get(id) !== "text") return this.close(id)
        // A part that starts again with the same id replaces the text before.
        this.retracted = id
        return []
      }
    }
  }

  private onText(kind: Kind, id: string, delta: string): Array<Part> {
    if (this.texts.has(id)) return [{ type: `${kind}-delta`, id, delta }]
    this.texts.set(id, kind)
    return [{ type: `${kind}-start`, id }, { type: `${kind}-delta`, id, delta }]
  }

  private close(id: string, isComplete = true): Parts {
    const kind = this.texts.get(id)
    this.texts.delete(id)
    if (kind === undefined) return []
    return [isComplete ? { type: `${kind}-end`, id } : { type: `${kind}-end`, id, metadata: { codex: null } }]
  }

  /** Ends the texts that the turn leaves incomplete. The thread does not have them, so it cannot continue from them. */
  private closeTexts(): Parts {
    return [...this.texts.keys()].flatMap((id) => this.close(id, false))
  }

  private onItem(item: Protocol.ThreadItem, isCompleted: boolean): Parts {
    if (item.type === "reasoning") return isCompleted ? this.onReasoning(item) : []
    if (item.type === "dynamicToolCall") return isCompleted ? [] : this.onCall(item)
    const call = toProviderCall(item)
    return call === undefined ? [] : this.onProviderCall(call, isCompleted)
  }

  /** Ends the texts of a reasoning item. A server may send a text whole. */
  private onReasoning(item: Extract<Protocol.ThreadItem, { readonly type: "reasoning" }>): Parts {
    const whole = [
      ...(item.summary ?? []).map((text, index) => ({ id: `${item.id}:${index}`, text })),
      ...(item.content ?? []).map((text, index) => ({ id: `${item.id}:content:${index}`, text }))
    ]
    return whole.flatMap(({ id, text }) => {
      const missing = this.texts.has(id) || text === "" ? [] : this.onText("reasoning", id, text)
      return missing.concat(this.close(id))
    })
  }

  private onCall(item: Extract<Protocol.ThreadItem, { readonly type: "dynamicToolCall" }>): Parts {
    const { id } = item
    const tool = this.offer.tools.find(({ name }) => name === item.tool)
    if (this.seen.has(id)) return []
    this.seen.add(id)
    if (tool === undefined || !this.offer.allowed.has(tool.name)) {
      this.refuse(id)
      return this.takeEarly()
    }
    this.calls.add(id)
    const params = ownFields(AiTool.getJsonSchema(tool))(item.arguments)
    const part: Part = { type: "tool-call", id, name: tool.name, params }
    if (!this.expected.has(id)) return [part]
    this.early.set(id, part)
    return this.takeEarly()
  }

  /** Returns the calls before which no other one is expected. */
  private takeEarly(): Parts {
    const parts: Array<Part> = []
    for (const id of this.expected) {
      if (!this.seen.has(id)) break
      const part = this.early.get(id)
      this.early.delete(id)
      if (part !== undefined) parts.push(part)
    }
    return parts
  }

  private onProviderCall(call: ProviderCall, isCompleted: boolean): Parts {
    const { id } = call
    const isNew = !this.running.has(id)
    if (!isCompleted) {
      if (call.isLate || !isNew) return []
      this.running.set(id, call)
      return this.toCall(call)
    }
    this.running.delete(id)
    return [...(isNew ? this.toCall(call) : []), ...this.toResult(call)]
  }

  private getName(call: ProviderCall): string | undefined {
    return this.offer.tools.find((tool) => AiTool.isProviderDefined(tool) && tool.id === call.tool)?.name
  }

  private toCall(call: ProviderCall): Parts {
    const name = this.getName(call)
    return name === undefined
      ? []
      : [{ type: "tool-call", id: call.id, name, params: call.params, providerExecuted: true }]
  }

  private toResult(call: ProviderCall): Parts {
    const name = this.getName(call)
    return name === undefined
      ? []
      : [{ type: "tool-result", id: call.id, name, result: call.result, isFailure: false, providerExecuted: true }]
  }
}
