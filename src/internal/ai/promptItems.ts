/** Converts messages of a prompt to the input of a turn, and to the items that are injected into a thread. */
import * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Input from "../../Input.ts"
import { isClientCall, toResults } from "./history.ts"
import { omitted, toText, toUrl } from "./toolContent.ts"

const decoder = new TextDecoder()

/** The media types of files that a model reads as text. */
const isTextType = (mediaType: string): boolean =>
  /^(?:text\/.*|application\/(?:.*\+)?(?:json|xml|yaml|toml|javascript|typescript|sql|x-sh))$/i.test(mediaType)

/** The text of a file, unless the prompt has only its address. */
const readText = ({ data }: Prompt.FilePart): Option.Option<string> => {
  if (data instanceof Uint8Array) return Option.some(decoder.decode(data))
  const href = data instanceof URL ? data.href : data
  const base64 = /^data:[^,]*;base64,(.*)$/s.exec(href)?.[1] ?? (data instanceof URL ? undefined : data)
  return base64 === undefined ? Option.none() : Result.getSuccess(Base64.decodeString(base64))
}

const textOfFile = (part: Prompt.FilePart): string | undefined => {
  if (!isTextType(part.mediaType)) return undefined
  const text = Option.getOrUndefined(readText(part))
  if (text === undefined) return undefined
  const name = part.fileName === undefined ? "" : ` name=${JSON.stringify(part.fileName)}`
  return `<file${name}>\n${text}\n</file>`
}

const toFile = (part: Prompt.FilePart): Input.Item | undefined => {
  const [kind] = part.mediaType.split("/", 1)
  if (kind !== "image" && kind !== "audio") {
    const text = textOfFile(part)
    return text === undefined ? undefined : Input.text(text)
  }
  if (part.data instanceof URL && part.data.protocol === "file:") {
    const path = decodeURIComponent(part.data.pathname)
    return kind === "image" ? Input.localImage(path) : { type: "localAudio", path }
  }
  // A data URL needs one type.
  const url = toUrl(part.mediaType === "image/*" ? { ...part, mediaType: "image/jpeg" } : part)
  return kind === "image" ? Input.image(url) : { type: "audio", url }
}

const unsupported = ({ mediaType }: Prompt.FilePart): AiError.AiErrorReason =>
  new AiError.InvalidRequestError({
    parameter: "prompt",
    constraint: `must not contain a file of type \`${mediaType}\``,
    description: "Codex receives images, sounds, and files with text. Pass the text of the file, or an image of it"
  })

const toItem = (part: Prompt.UserMessagePart): Effect.Effect<Input.Item, AiError.AiErrorReason> => {
  if (part.type === "text") return Effect.succeed(Input.text(part.text))
  const content = toFile(part)
  return content === undefined ? Effect.fail(unsupported(part)) : Effect.succeed(content)
}

/** Converts user messages to the input of a turn. */
export const toInput = (
  messages: ReadonlyArray<Prompt.UserMessage>
): Effect.Effect<ReadonlyArray<Input.Item>, AiError.AiErrorReason> =>
  Effect.forEach(messages.flatMap(({ content }) => content), toItem)

/** An item of the Responses API. */
export type ResponseItem = { readonly type: string; readonly [key: string]: unknown }

const message = (role: string, content: ReadonlyArray<object>): ResponseItem => ({ type: "message", role, content })

/** A message with instructions for the model. */
export const developerMessage = (text: string): ResponseItem => message("developer", [{ type: "input_text", text }])

const toContentItem = (item: Input.Item): object => {
  if (item.type === "text") return { type: "input_text", text: item.text }
  if (item.type === "image" && "url" in item) return { type: "input_image", image_url: item.url }
  return { type: "input_text", text: `[${item.type === "localImage" ? "image" : "sound"} omitted]` }
}

const toOutput = (result: Prompt.ToolResultPart): unknown =>
  result.modelOutput === undefined
    ? toText(result.result)
    : result.modelOutput.map((part) => {
      if (part.type === "text") return { type: "input_text", text: part.text }
      return part.mediaType.startsWith("image/")
        ? { type: "input_image", image_url: toUrl(part) }
        : { type: "input_text", text: omitted(part) }
    })

const fromAssistant = (
  part: Prompt.AssistantMessagePart,
  results: ReadonlyMap<string, Prompt.ToolResultPart>
): ReadonlyArray<ResponseItem> => {
  if (part.type === "text") return [message("assistant", [{ type: "output_text", text: part.text }])]
  if (part.type === "file") return [message("assistant", [{ type: "output_text", text: omitted(part) }])]
  if (!isClientCall(part)) return []
  const result = results.get(part.id)
  return [
    { type: "function_call", call_id: part.id, name: part.name, arguments: JSON.stringify(part.params ?? {}) },
    {
      type: "function_call_output",
      call_id: part.id,
      output: result === undefined ? "The call was not completed" : toOutput(result)
    }
  ]
}

/**
 * Converts messages to items. The output of a call follows it, because a provider accepts no call without an output, and `LanguageModel`
 * moves those of approved calls.
 */
export const toItems = Effect.fnUntraced(function*(
  messages: ReadonlyArray<Prompt.Message>
): Effect.fn.Return<ReadonlyArray<ResponseItem>, AiError.AiErrorReason> {
  const results = toResults(messages)
  const items: Array<ResponseItem> = []
  for (const { content, role } of messages) {
    switch (role) {
      case "system":
        items.push(developerMessage(content))
        break
      case "user":
        items.push(message("user", (yield* Effect.forEach(content, toItem)).map(toContentItem)))
        break
      case "assistant":
        for (const part of content) items.push(...fromAssistant(part, results))
        break
      case "tool":
        break
    }
  }
  return items
})

/** The text of the system messages at the start of a prompt, which become instructions of the thread. */
export const leadingSystem = (messages: ReadonlyArray<Prompt.Message>): ReadonlyArray<Prompt.SystemMessage> => {
  const leading: Array<Prompt.SystemMessage> = []
  for (const message of messages) {
    if (message.role !== "system") break
    leading.push(message)
  }
  return leading
}

/** Splits messages into those to inject, and the user messages at the end, which are the input of a turn. */
export const splitInput = (messages: ReadonlyArray<Prompt.Message>) => {
  const input: Array<Prompt.UserMessage> = []
  let end = messages.length
  for (; end > 0; end--) {
    const message = messages[end - 1]
    if (message?.role !== "user") break
    input.unshift(message)
  }
  return { before: messages.slice(0, end), input }
}
