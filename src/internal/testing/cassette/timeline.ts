/** One connection of a recording as a timeline: the steps to replay, and the messages that the program is expected to send. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import { compareMessages, Renamings } from "./compare.ts"
import type { Entry } from "./format.ts"
import { isJsonObject } from "./redact.ts"

/** A message that the program sent in the recording. */
export interface ExpectedMessage {
  readonly line: number
  /** Only messages of the same kind match. */
  readonly kind: string
  /** The method of the message. For a response, the method of the server's request. */
  readonly method: string
  readonly message: Schema.Json
  /** Completed when the program has sent its counterpart. */
  readonly arrived: Deferred.Deferred<void>
  /** The line of the response in the recording. */
  respondedAt: number | undefined
  /** The program's counterpart, with its own request id. */
  matched: { readonly id: Schema.Json | undefined } | undefined
}

/** A thread, the request that opened it, and the line of the response. */
interface OpenedThread {
  readonly by: ExpectedMessage
  readonly line: number
  readonly step: Step
}

export type Step =
  & { readonly line: number; readonly at: number }
  & (
    | { readonly type: "await"; readonly expected: ExpectedMessage }
    | { readonly type: "send"; readonly message: Schema.Json; readonly respondsTo: ExpectedMessage | undefined }
    | { readonly type: "sendText"; readonly text: string }
    | { readonly type: "end"; readonly error: Extract<Entry, { direction: "end" }>["error"] }
  )

export interface Timeline {
  readonly steps: ReadonlyArray<Step>
  readonly expected: ReadonlyArray<ExpectedMessage>
  readonly threads: ReadonlyMap<string, OpenedThread>
}

export const getMethod = (message: Schema.Json): string | undefined =>
  isJsonObject(message) && Predicate.isString(message["method"]) ? message["method"] : undefined

export const getId = (message: Schema.Json): Schema.Json | undefined =>
  isJsonObject(message) ? message["id"] : undefined

/** The kind of a message. Only a request with the same method is the counterpart of a request, and so on. */
export const getKind = (message: Schema.Json): string => {
  const method = getMethod(message)
  const id = getId(message)
  if (method !== undefined) return `${id === undefined ? "notification" : "request"} \`${method}\``
  if (id !== undefined) return `the response to server request \`${JSON.stringify(id)}\``
  return isJsonObject(message) ? "an object" : "a value"
}

const isRequest = ({ message }: ExpectedMessage): boolean =>
  getMethod(message) !== undefined && getId(message) !== undefined

/** Names a recorded message for a person. */
export const describe = ({ kind, line }: ExpectedMessage): string => `${kind} (line ${line})`

/** The part of a message that is compared: without request ids, trace contexts and the client's name. */
export const toComparable = (message: Schema.Json): Schema.Json => {
  if (!isJsonObject(message) || message["method"] === undefined) return message
  const { id: _id, trace: _trace, ...rest } = message
  if (message["method"] !== "initialize" || !isJsonObject(message["params"])) return rest
  const { clientInfo: _clientInfo, ...params } = message["params"]
  return { ...rest, params }
}

export const isSameRequest = (one: ExpectedMessage, other: ExpectedMessage): boolean => {
  if (one.kind !== other.kind) return false
  const { cost, differences } = compareMessages(toComparable(one.message), toComparable(other.message), one.method, {
    renamings: new Renamings(),
    ignore: new Set(),
    swapThreads: () => undefined
  })
  return differences.length === 0 && cost === 0
}

/** The id of the thread that a response opens. */
const getOpenedThread = (message: Schema.Json): string | undefined => {
  const result = isJsonObject(message) ? message["result"] : undefined
  const thread = isJsonObject(result) ? result["thread"] : undefined
  const id = isJsonObject(thread) ? thread["id"] : undefined
  return Predicate.isString(id) ? id : undefined
}

/** Reads the entries of one connection. */
export const toTimeline = Effect.fnUntraced(function*(entries: ReadonlyArray<Entry>, connection: number) {
  const steps: Array<Step> = []
  const expected: Array<ExpectedMessage> = []
  const threads = new Map<string, OpenedThread>()
  const serverRequests = new Map<Schema.Json, string>()

  /** Adds the response that opens a thread next to the responses of equal requests. */
  const addOpening = (step: Step, threadId: string, by: ExpectedMessage) => {
    // Equal requests that were in flight together get their responses together, so that either fiber may get either thread.
    const equivalentOpen = [...threads.values()].findLast((opened) =>
      opened.line > by.line && isSameRequest(opened.by, by)
    )
    steps.splice(equivalentOpen === undefined ? steps.length : steps.indexOf(equivalentOpen.step) + 1, 0, step)
    threads.set(threadId, { by, line: equivalentOpen?.line ?? step.line, step })
  }

  const addServerMessage = (position: { readonly line: number; readonly at: number }, message: Schema.Json) => {
    const id = getId(message)
    const method = getMethod(message)
    if (method !== undefined && id !== undefined) serverRequests.set(id, method)
    // An id may be used again after its response.
    const respondsTo = method === undefined && id !== undefined
      ? expected.findLast((sent) => getId(sent.message) === id && isRequest(sent))
      : undefined
    if (respondsTo !== undefined) respondsTo.respondedAt ??= position.line
    const step: Step = { ...position, type: "send", message, respondsTo }
    const threadId = getOpenedThread(message)
    if (respondsTo === undefined || threadId === undefined || threads.has(threadId)) steps.push(step)
    else addOpening(step, threadId, respondsTo)
  }

  for (const [index, entry] of entries.entries()) {
    if ((entry.connection ?? 0) !== connection) continue
    const position = { line: index + 2, at: entry.at }
    if (entry.direction === "end") {
      if (entry.by === "server") steps.push({ ...position, type: "end", error: entry.error })
    } else if (entry.direction === "client") {
      const message = "message" in entry ? entry.message : entry.text
      const id = getId(message)
      const sent: ExpectedMessage = {
        line: position.line,
        kind: "message" in entry ? getKind(message) : "text",
        method: getMethod(message) ?? (id === undefined ? undefined : serverRequests.get(id)) ?? "",
        message,
        arrived: yield* Deferred.make<void>(),
        respondedAt: undefined,
        matched: undefined
      }
      expected.push(sent)
      steps.push({ ...position, type: "await", expected: sent })
    } else if ("text" in entry) {
      steps.push({ ...position, type: "sendText", text: entry.text })
    } else {
      addServerMessage(position, entry.message)
    }
  }
  return { steps, expected, threads } satisfies Timeline
})
