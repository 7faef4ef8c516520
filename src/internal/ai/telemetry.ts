/** Attributes of the span that `LanguageModel` makes for a request. */
import type * as Response from "effect/ai/Response"
import * as Telemetry from "effect/ai/Telemetry"
import type { Span } from "effect/Tracer"
import type { Settings } from "./config.ts"

export const annotateRequest = (span: Span, { thread: { model } }: Settings): void =>
  Telemetry.addGenAIAnnotations(span, {
    provider: { name: "openai" },
    operation: { name: "chat" },
    request: { model: model ?? undefined }
  })

export const annotateResponse = (span: Span, threadId: string, part: Response.StreamPartEncoded): void => {
  span.attribute("gen_ai.conversation.id", threadId)
  if (part.type !== "response-metadata") return
  Telemetry.addGenAIAnnotations(span, { response: { id: part.id, model: part.modelId } })
}

export const annotateFinish = (span: Span, { reason, usage }: Response.FinishPartEncoded): void => {
  Telemetry.addGenAIAnnotations(span, {
    response: { finishReasons: [reason] },
    usage: { inputTokens: usage.inputTokens.total, outputTokens: usage.outputTokens.total }
  })
  const more = {
    "gen_ai.usage.cache_read.input_tokens": usage.inputTokens.cacheRead,
    "gen_ai.usage.cache_write.input_tokens": usage.inputTokens.cacheWrite,
    "gen_ai.usage.reasoning.output_tokens": usage.outputTokens.reasoning
  }
  for (const [name, value] of Object.entries(more)) if (value !== undefined) span.attribute(name, value)
}
