/** Converts parts of `effect/ai` to contents that a model of Codex receives. */
import type * as Prompt from "effect/ai/Prompt"
import * as Base64 from "effect/encoding/Base64"
import * as Tool from "../../Tool.ts"

/** The JSON of a value, or the string itself. */
export const toText = (encoded: unknown): string =>
  typeof encoded === "string" ? encoded : JSON.stringify(encoded) ?? "null"

const isUrl = (data: string): boolean => /^[a-z][a-z0-9+.-]*:/i.test(data)

/** The URL of a file: its own, or a `data:` URL with its content. */
export const toUrl = ({ data, mediaType }: Pick<Prompt.FilePart, "data" | "mediaType">): string =>
  data instanceof URL
    ? data.href
    : typeof data === "string" && isUrl(data)
    ? data
    : `data:${mediaType};base64,${typeof data === "string" ? data : Base64.encode(data)}`

/** The text that stands for a file which the model cannot receive. */
export const omitted = ({ fileName, mediaType }: Pick<Prompt.FilePart, "fileName" | "mediaType">): string =>
  `[${mediaType}${fileName === undefined ? "" : ` ${fileName}`} omitted]`

/** The content of a part for a model. A file that is neither an image nor a sound is omitted. */
export const toContent = (part: Prompt.ToolModelOutputPart): Tool.Content => {
  if (part.type === "text") return Tool.text(part.text)
  if (part.mediaType.startsWith("image/")) return Tool.image(toUrl(part))
  if (part.mediaType.startsWith("audio/")) return Tool.audio(toUrl(part))
  return Tool.text(omitted(part))
}

/** The content of a result: what its tool makes for the model, or its JSON. */
export const toContents = (
  result: unknown,
  modelOutput: ReadonlyArray<Prompt.ToolModelOutputPart> | undefined
): ReadonlyArray<Tool.Content> => modelOutput === undefined ? [Tool.text(toText(result))] : modelOutput.map(toContent)
