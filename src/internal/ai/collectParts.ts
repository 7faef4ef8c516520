/** Collects the parts of a stream to those of a whole response. */
import type * as Response from "effect/ai/Response"

type Text = { -readonly [K in keyof Response.TextPartEncoded]: Response.TextPartEncoded[K] }
type Reasoning = { -readonly [K in keyof Response.ReasoningPartEncoded]: Response.ReasoningPartEncoded[K] }

export const collectParts = (parts: ReadonlyArray<Response.StreamPartEncoded>): Array<Response.PartEncoded> => {
  const out: Array<Response.PartEncoded> = []
  const open = new Map<string, Text | Reasoning>()
  for (const part of parts) {
    switch (part.type) {
      case "text-start":
      case "reasoning-start": {
        const known = open.get(part.id)
        if (known !== undefined) {
          // The text starts again.
          known.text = ""
          break
        }
        const text: Text | Reasoning = {
          type: part.type === "text-start" ? "text" : "reasoning",
          text: "",
          metadata: part.metadata
        }
        open.set(part.id, text)
        out.push(text)
        break
      }
      case "text-delta":
      case "reasoning-delta": {
        const text = open.get(part.id)
        if (text !== undefined) text.text += part.delta
        break
      }
      case "text-end":
      case "reasoning-end": {
        const text = open.get(part.id)
        if (text !== undefined && part.metadata !== undefined) text.metadata = part.metadata
        break
      }
      case "response-metadata":
      case "tool-call":
      case "tool-result":
      case "finish":
        out.push(part)
        break
    }
  }
  return out
}

/** Keeps only the last text. `LanguageModel` decodes the texts of a response together, and earlier ones are not the object. */
export const onlyLastText = (parts: Array<Response.PartEncoded>): Array<Response.PartEncoded> => {
  const last = parts.findLastIndex(({ type }) => type === "text")
  return parts.map((part, index) => part.type === "text" && index !== last ? { ...part, type: "reasoning" } : part)
}
