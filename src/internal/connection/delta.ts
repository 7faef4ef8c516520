/** Deltas, and the listeners that receive them. */
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { ReadBatch } from "../jsonrpc/readBatch.ts"

/** The methods of the notifications with a delta, in `params.delta`. */
const methods = [
  "item/agentMessage/delta",
  "item/plan/delta",
  "item/commandExecution/outputDelta",
  "item/fileChange/outputDelta",
  "item/reasoning/summaryTextDelta",
  "item/reasoning/textDelta"
] as const

const deltaMethods: ReadonlySet<string> = new Set(methods)

/** A notification with a delta. */
export type DeltaNotification = Protocol.Notification<typeof methods[number]>

export const isDelta = (event: Protocol.ServerNotification): event is DeltaNotification =>
  deltaMethods.has(event.method)

/** Listens to the notifications of one thread. Its functions run within the read batch, so they must be quick. */
export interface NotificationListener {
  readonly onNotification: (event: Protocol.ServerNotification, turnId: string | undefined, batch: ReadBatch) => void
  /** Called with a delta in place of its notification. */
  readonly onDelta?: ((delta: Delta, batch: ReadBatch) => void) | undefined
  /** Called last, when the connection has ended without a restart. */
  readonly onClose: (error: AppServerError, batch: ReadBatch) => void
}

/** The listeners of one thread. */
export interface Listeners {
  all: ReadonlyArray<NotificationListener>
}

/** The end of a delta line, after the text. Many templates share a suffix, because the time in it seldom changes in a flood. */
export interface Suffix {
  /** The text up to the digits of the time; `undefined` if the line does not end with its time. */
  readonly beforeTimestamp: string | undefined
  /** The whole text of the last line, and the time in it. */
  text: string
  emittedAtMs: number | undefined
}

/** What the delta lines of one text have in common. */
export interface DeltaTemplate {
  /** The beginning of the line, before the text. */
  readonly prefix: string
  readonly suffix: Suffix
  /** The notification of the first line. */
  readonly event: DeltaNotification
  /** The next template with the same key. */
  next: DeltaTemplate | undefined
  /** Listeners cached by the router. Removing a listener updates this object, so the cache never keeps one alive. */
  listeners: Listeners | undefined
}

/** A delta. For speed, its notification is made only when a subscriber reads it. */
export class Delta {
  readonly template: DeltaTemplate
  readonly text: string
  private readonly emittedAtMs: number | undefined
  private decoded: DeltaNotification | undefined

  constructor(template: DeltaTemplate, text: string, emittedAtMs: number | undefined) {
    this.template = template
    this.text = text
    this.emittedAtMs = emittedAtMs
    this.decoded = undefined
  }

  get event(): DeltaNotification {
    if (this.decoded !== undefined) return this.decoded
    const { event } = this.template
    const params = { ...event.params, delta: this.text }
    return this.decoded = (this.emittedAtMs === undefined
      ? { ...event, params }
      : { ...event, params, emittedAtMs: this.emittedAtMs }) as DeltaNotification
  }
}

/**
 * The deltas of texts that the item contains when it completes. Without one delta, the next ones would be appended to the wrong text.
 */
export const isTextDelta = (event: { readonly method: unknown }): event is DeltaNotification =>
  isDelta(event as Protocol.ServerNotification) && event.method !== "item/commandExecution/outputDelta" &&
  event.method !== "item/fileChange/outputDelta"
