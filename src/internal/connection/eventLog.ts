/**
 * Events in their order. A log that has become long keeps consecutive deltas of one text as one event, so what it holds is
 * bounded by the text itself, and nothing is lost.
 */
import type * as Protocol from "../../Protocol.ts"
import { field } from "./codec.ts"
import { type Delta, type DeltaNotification, type Family, isDelta } from "./deltaLines.ts"

/** So many pieces are joined at a time. One string that grew by each piece would hold every piece in memory. */
const piecesAtOnce = 256

/** The fields that tell which text a delta belongs to. A reasoning item has several. */
const textKeys = ["threadId", "turnId", "itemId", "summaryIndex", "contentIndex"] as const

const isSameText = (previous: Protocol.ServerNotification, next: DeltaNotification): boolean => {
  if (previous.method !== next.method) return false
  const before: object = (previous as DeltaNotification).params
  const after: object = next.params
  return textKeys.every((key) => field(before, key) === field(after, key))
}

export class EventLog<A extends Protocol.ServerNotification> {
  private readonly joinFrom: number
  private events: Array<A>
  /** The text of the last event, while it grows. */
  private text: Array<string> | undefined
  private pieces: Array<string> = []
  /** What brought the last event, and the family of that, if it was a piece of a text. */
  private last: Delta | undefined
  private family: Family | undefined

  /** A log that has so many events joins deltas. */
  constructor(joinFrom: number, events: Array<A> = []) {
    this.joinFrom = joinFrom
    this.events = events
  }

  /** How many events there are. */
  get length(): number {
    return this.events.length
  }

  push(event: A): void {
    this.family = undefined
    if (this.events.length >= this.joinFrom && isDelta(event) && this.isOfLast(event)) {
      this.grow(event.params.delta)
      this.last = undefined
      this.events[this.events.length - 1] = event
      return
    }
    this.settle()
    this.events.push(event)
  }

  /** As `push`, for a piece of text whose event may not be needed. */
  pushDelta(delta: Delta): void {
    if (this.family === delta.family && this.events.length >= this.joinFrom) {
      this.grow(delta.text)
      this.last = delta
      return
    }
    this.push(delta.event as A)
    this.family = delta.family
  }

  /** Takes all events out. */
  take(): Array<A> {
    this.settle()
    const events = this.events
    this.events = []
    this.family = undefined
    return events
  }

  /** All events, which stay. */
  copy(): Array<A> {
    this.settle()
    return this.events.slice()
  }

  private isOfLast(event: DeltaNotification): boolean {
    return isSameText(this.events[this.events.length - 1]!, event)
  }

  /** Joins a piece with the last event. The joined one has the time of the later. */
  private grow(piece: string): void {
    this.text ??= [(this.events[this.events.length - 1] as unknown as DeltaNotification).params.delta]
    this.pieces.push(piece)
    if (this.pieces.length >= piecesAtOnce) this.text.push(this.pieces.splice(0).join(""))
  }

  private settle(): void {
    if (this.text === undefined) return
    const index = this.events.length - 1
    const last = this.last?.event ?? this.events[index] as unknown as DeltaNotification
    const delta = [...this.text, ...this.pieces].join("")
    this.events[index] = { ...last, params: { ...last.params, delta } } as unknown as A
    this.text = undefined
    this.pieces = []
    this.last = undefined
  }
}
