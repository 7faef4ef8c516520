/**
 * Events in their order. A log that has become long keeps consecutive deltas of one text as one event, so what it holds is
 * bounded by the text itself, and nothing is lost.
 */
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../Protocol.ts"

/** From this many events on deltas are joined: whoever is to read them lags. */
export const lagThreshold = 1024

/** So many pieces are joined at a time. One string that grew by each piece would hold every piece in memory. */
const piecesAtOnce = 1024

const deltaMethods: ReadonlySet<unknown> = new Set([
  "item/agentMessage/delta",
  "item/plan/delta",
  "item/commandExecution/outputDelta",
  "item/fileChange/outputDelta",
  "item/reasoning/summaryTextDelta",
  "item/reasoning/textDelta"
])

/** The fields that tell which text a delta belongs to. A reasoning item has several. */
const textKeys = ["threadId", "turnId", "itemId", "summaryIndex", "contentIndex"] as const

type Params = Readonly<Record<string, unknown>>

const deltaOf = (event: Protocol.ServerNotification): string | undefined => {
  if (!deltaMethods.has(event.method)) return undefined
  const { delta } = (event as { readonly params: Params }).params
  return Predicate.isString(delta) ? delta : undefined
}

const isSameText = (previous: Protocol.ServerNotification, next: Protocol.ServerNotification): boolean => {
  if (previous.method !== next.method) return false
  const before = (previous as { readonly params: Params }).params
  const after = (next as { readonly params: Params }).params
  return textKeys.every((key) => before[key] === after[key])
}

export class EventLog<A extends Protocol.ServerNotification> {
  private events: Array<A>
  /** The text of the last event, while it grows. */
  private text: Array<string> | undefined
  private pieces: Array<string> = []

  constructor(events: Array<A> = []) {
    this.events = events
  }

  get isEmpty(): boolean {
    return this.events.length === 0
  }

  push(event: A): void {
    if (this.events.length >= lagThreshold && this.grow(event)) return
    this.settle()
    this.events.push(event)
  }

  /** Takes all events out. */
  take(): Array<A> {
    this.settle()
    const events = this.events
    this.events = []
    return events
  }

  /** All events, which stay. */
  copy(): Array<A> {
    this.settle()
    return this.events.slice()
  }

  /** Joins an event with the last one, if both are of one text. The joined one has the time of the later. */
  private grow(event: A): boolean {
    const delta = deltaOf(event)
    if (delta === undefined) return false
    const index = this.events.length - 1
    const last = this.events[index]!
    if (!isSameText(last, event)) return false
    this.text ??= [deltaOf(last)!]
    this.pieces.push(delta)
    if (this.pieces.length >= piecesAtOnce) this.text.push(this.pieces.splice(0).join(""))
    this.events[index] = event
    return true
  }

  private settle(): void {
    if (this.text === undefined) return
    const index = this.events.length - 1
    const last = this.events[index] as A & { readonly params: Params }
    const delta = [...this.text, ...this.pieces].join("")
    this.events[index] = { ...last, params: { ...last.params, delta } }
    this.text = undefined
    this.pieces = []
  }
}
