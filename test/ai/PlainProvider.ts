/** A plain provider of `effect/ai` on the Responses API of the scripted model, to compare the parts of Codex with. */
import { ModelServer } from "effect-codex/testing"
import { LanguageModel, type Response } from "effect/ai"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as AiTool from "effect/ai/Tool"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

type Part = Response.StreamPartEncoded

/** The fields of the server-sent events that the provider reads. */
interface Event {
  readonly type: string
  readonly item_id?: string
  readonly summary_index?: number
  readonly delta?: string
  readonly item?: {
    readonly type: string
    readonly id: string
    readonly call_id: string
    readonly name: string
    readonly arguments: string
    readonly content?: ReadonlyArray<{ readonly text: string }>
  }
  readonly response?: {
    readonly id: string
    readonly usage?: {
      readonly input_tokens: number
      readonly input_tokens_details: { readonly cached_tokens: number }
      readonly output_tokens: number
      readonly output_tokens_details: { readonly reasoning_tokens: number }
    }
  }
}

const toFinish = (usage: NonNullable<NonNullable<Event["response"]>["usage"]>, hasCalls: boolean): Part => {
  const { input_tokens: input, output_tokens: output } = usage
  const cached = usage.input_tokens_details.cached_tokens
  const reasoning = usage.output_tokens_details.reasoning_tokens
  return {
    type: "finish",
    reason: hasCalls ? "tool-calls" : "stop",
    usage: {
      inputTokens: { total: input, cacheRead: cached, cacheWrite: 0, uncached: input - cached },
      outputTokens: { total: output, reasoning, text: output - reasoning }
    }
  }
}

const toParts = () => {
  const open = new Set<string>()
  let hasCalls = false
  return (event: Event): ReadonlyArray<Part> => {
    const { item, response } = event
    switch (event.type) {
      case "response.created":
        return [{ type: "response-metadata", id: response!.id }]
      case "response.output_item.added":
        if (item!.type !== "message") return []
        open.add(item!.id)
        return [{ type: "text-start", id: item!.id }]
      case "response.output_text.delta":
        return [{ type: "text-delta", id: event.item_id!, delta: event.delta! }]
      case "response.reasoning_summary_part.added":
        return [{ type: "reasoning-start", id: `${event.item_id}:${event.summary_index}` }]
      case "response.reasoning_summary_text.delta": {
        const id = `${event.item_id}:${event.summary_index}`
        return [{ type: "reasoning-delta", id, delta: event.delta! }, { type: "reasoning-end", id }]
      }
      case "response.output_item.done": {
        if (item!.type === "function_call") {
          hasCalls = true
          return [{ type: "tool-call", id: item!.call_id, name: item!.name, params: JSON.parse(item!.arguments) }]
        }
        if (item!.type !== "message") return []
        const { id } = item!
        const text = (item!.content ?? []).map(({ text }) => text).join("")
        return open.has(id)
          ? [{ type: "text-end", id }]
          : [{ type: "text-start", id }, { type: "text-delta", id, delta: text }, { type: "text-end", id }]
      }
      case "response.completed":
        return [toFinish(response!.usage!, hasCalls)]
      default:
        return []
    }
  }
}

const toInput = (options: LanguageModel.ProviderOptions): ReadonlyArray<object> =>
  options.prompt.content.flatMap((message): ReadonlyArray<object> => {
    switch (message.role) {
      case "system":
        return [{ type: "message", role: "developer", content: [{ type: "input_text", text: message.content }] }]
      case "user":
        return [{
          type: "message",
          role: "user",
          content: message.content.flatMap((part) =>
            part.type === "text" ? [{ type: "input_text", text: part.text }] : []
          )
        }]
      case "assistant":
        return message.content.flatMap((part): ReadonlyArray<object> =>
          part.type === "tool-call"
            ? [{ type: "function_call", call_id: part.id, name: part.name, arguments: JSON.stringify(part.params) }]
            : part.type === "text"
            ? [{ type: "message", role: "assistant", content: [{ type: "output_text", text: part.text }] }]
            : []
        )
      case "tool":
        return message.content.flatMap((part) =>
          part.type === "tool-result"
            ? [{ type: "function_call_output", call_id: part.id, output: JSON.stringify(part.result) }]
            : []
        )
    }
  })

const make = Effect.gen(function*() {
  const { url } = yield* ModelServer.ModelServer
  const client = yield* HttpClient.HttpClient
  const stream = (options: LanguageModel.ProviderOptions): Stream.Stream<Part> =>
    Stream.unwrap(Effect.gen(function*() {
      const request = HttpClientRequest.bodyJsonUnsafe(HttpClientRequest.post(`${url}/responses`), {
        model: "plain",
        stream: true,
        input: toInput(options),
        tools: options.tools.map((tool) => ({
          type: "function",
          name: tool.name,
          parameters: AiTool.getJsonSchema(tool)
        })),
        text: options.responseFormat.type === "json"
          ? {
            format: { type: "json_schema", schema: toCodecOpenAI(options.responseFormat.schema as never).jsonSchema }
          }
          : undefined
      })
      const response = yield* client.execute(request)
      const convert = toParts()
      return response.stream.pipe(
        Stream.decodeText(),
        Stream.splitLines,
        Stream.filter((line) => line.startsWith("data: ")),
        Stream.map((line) => convert(JSON.parse(line.slice("data: ".length)))),
        Stream.flattenIterable
      )
    })).pipe(Stream.orDie)
  return yield* LanguageModel.make({
    codecTransformer: toCodecOpenAI,
    streamText: stream,
    generateText: (options) =>
      Effect.map(Stream.runCollect(stream(options)), (parts) => {
        const out: Array<Response.PartEncoded> = []
        for (const part of parts) {
          const last = out.at(-1)
          if (part.type === "text-start") out.push({ type: "text", text: "" })
          else if (part.type === "reasoning-start") out.push({ type: "reasoning", text: "" })
          else if (part.type === "text-delta" || part.type === "reasoning-delta") {
            Object.assign(last!, { text: (last as Response.TextPartEncoded).text + part.delta })
          } else if (part.type === "tool-call" || part.type === "finish") out.push(part)
        }
        return out
      })
  })
})

/** A language model that sends its requests to the scripted model. */
export const layer = Layer.effect(LanguageModel.LanguageModel, make).pipe(Layer.provide(FetchHttpClient.layer))
