/**
 * Finds the response of a prompt from which a thread can continue. The parts of a response have its thread and turn as metadata, and a
 * digest of the messages before it.
 */
import type * as Prompt from "effect/ai/Prompt"
import * as Digest from "effect/crypto/Digest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { canonicalJson } from "./canonicalJson.ts"
import { toUrl } from "./toolContent.ts"

/** The thread and the turn of a response, in the metadata of its parts. */
export interface Origin {
  readonly threadId: string
  readonly turnId: string
  /** The digest of the messages before the response. */
  readonly history: string
  /** The digest of the tools that the thread was started with. */
  readonly tools: string
}

const Metadata = Schema.Struct({
  threadId: Schema.String,
  turnId: Schema.String,
  history: Schema.String,
  tools: Schema.String,
  text: Schema.optionalKey(Schema.String)
})

const isMetadata = Schema.is(Metadata)

const encoder = new TextEncoder()

/** The first 128 bits of SHA-256, so that metadata stays short. */
const hash = (text: string): Effect.Effect<string, never, Digest.Digest> =>
  Effect.map(
    Effect.flatMap(Digest.Digest, ({ digestHex }) => digestHex(Digest.sha256, encoder.encode(text))),
    (hex) => hex.slice(0, 32)
  )

export const digest = (text: string): Effect.Effect<string> => Effect.provide(hash(text), Digest.layerWebCrypto)

/**
 * The content of a message that decides about its continuation. Results of tools are not part of it, because `LanguageModel` moves those
 * of approved calls. Reasoning and what the provider executed are not either, because a caller may remove them.
 */
const toContent = (message: Prompt.Message): ReadonlyArray<unknown> => {
  switch (message.role) {
    case "system":
      return [message.content]
    case "user":
      return message.content.map((part) =>
        part.type === "text" ? part.text : { mediaType: part.mediaType, url: toUrl(part) }
      )
    case "assistant":
      return message.content.flatMap((part): ReadonlyArray<unknown> => {
        if (part.type === "text") return [part.text]
        return isClientCall(part) ? [{ id: part.id, name: part.name, params: part.params }] : []
      })
    case "tool":
      return []
  }
}

/** The digests before and after a message. A chat sends the same messages again and again. */
const known = new WeakMap<Prompt.Message, { readonly before: string; readonly after: string }>()

/** Returns the digest of the messages before each message, and at last that of all messages. */
export const toDigests = Effect.fnUntraced(function*(messages: ReadonlyArray<Prompt.Message>) {
  const digests = [""]
  for (const message of messages) {
    const before = digests.at(-1) ?? ""
    const cached = known.get(message)
    if (cached?.before === before) {
      digests.push(cached.after)
      continue
    }
    const content = toContent(message)
    const after = content.length === 0 ? before : yield* hash(before + canonicalJson([message.role, content]))
    known.set(message, { before, after })
    digests.push(after)
  }
  return digests
}, Effect.provide(Digest.layerWebCrypto))

/** Whether a part is a call of a tool that the program runs. */
export const isClientCall = (part: Prompt.AssistantMessagePart): part is Prompt.ToolCallPart =>
  part.type === "tool-call" && !part.providerExecuted

/** A response of Codex in a prompt. */
export interface Candidate {
  /** The index of its message. */
  readonly index: number
  readonly origin: Origin
  /** Whether the response ended its turn. Otherwise the turn waited for results of tools. */
  readonly isEnd: boolean
}

/** Returns the origin of a response that is in the prompt as Codex gave it, after the same messages. */
const toOrigin = Effect.fnUntraced(function*(content: Prompt.AssistantMessage["content"], before: string) {
  let origin: Origin | undefined
  for (const part of content) {
    if (part.type === "tool-approval-request") continue
    const metadata = part.options["codex"]
    // The turn of a text without a digest was interrupted.
    if (!isMetadata(metadata) || metadata.history !== before) {
      if (part.type === "text" || isClientCall(part)) return undefined
      continue
    }
    if (origin !== undefined && origin.turnId !== metadata.turnId) return undefined
    if (part.type === "text" && metadata.text !== (yield* digest(part.text))) return undefined
    const { history, threadId, tools, turnId } = metadata
    origin = { threadId, turnId, history, tools }
  }
  return origin
})

/** Finds the last response before an index from which a thread can continue. */
export const findCandidate = Effect.fnUntraced(function*(
  messages: ReadonlyArray<Prompt.Message>,
  digests: ReadonlyArray<string>,
  accept: (candidate: Pick<Candidate, "index" | "isEnd">) => boolean
): Effect.fn.Return<Candidate | undefined> {
  for (let index = messages.length - 1; index >= 0; index--) {
    const message = messages[index]
    if (message?.role !== "assistant") continue
    const isEnd = !message.content.some(isClientCall)
    if (!accept({ index, isEnd })) continue
    const origin = yield* toOrigin(message.content, digests[index] ?? "")
    if (origin !== undefined) return { index, origin, isEnd }
  }
  return undefined
})

/** Finds the results of tools in messages, by the id of their calls. */
export const toResults = (
  messages: ReadonlyArray<Prompt.Message>
): ReadonlyMap<string, Prompt.ToolResultPart> =>
  new Map(
    messages.flatMap((message) =>
      message.role === "tool"
        ? message.content.flatMap((part): ReadonlyArray<[string, Prompt.ToolResultPart]> =>
          part.type === "tool-result" ? [[part.id, part]] : []
        )
        : []
    )
  )
