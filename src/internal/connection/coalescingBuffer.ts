/**
 * Events in their order. A log that has become long keeps the deltas of one text as one event until something else happens, so
 * what it holds is bounded by the texts themselves, and nothing is lost.
 */
import type * as Protocol from "../../Protocol.ts"
import { field } from "./codec.ts"
import { Delta, type DeltaNotification, type Family, isDelta } from "./deltaParser.ts"

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

/** The last event of a text, while it grows. */
interface Tail {
  readonly index: number
  /** The text of the event, and the pieces that came after it, those in `joined` before those in `pieces`. */
  readonly first: string
  readonly joined: Array<string>
  readonly pieces: Array<string>
  /** What brought the last piece. */
  last: Delta | DeltaNotification
  family: Family | undefined
}

/** So many texts grow at once. */
const maxTails = 8

/**
 * An array that is filled seldom is not made before it is needed: one that has become old by then would have the garbage
 * collector take what it holds for alive, long after it was read.
 */
const none: ReadonlyArray<never> = []

const eventOf = (entry: Delta | DeltaNotification): DeltaNotification => entry instanceof Delta ? entry.event : entry

export class EventLog<A extends Protocol.ServerNotification> {
  private readonly joinFrom: number
  /** A delta becomes an event when it is read. */
  private entries: ReadonlyArray<A | Delta>
  private tails: ReadonlyArray<Tail> = none

  /** A log that has so many events joins deltas. */
  constructor(joinFrom: number, events: ReadonlyArray<A> = none) {
    this.joinFrom = joinFrom
    this.entries = events
  }

  /** How many events there are. */
  get length(): number {
    return this.entries.length
  }

  push(event: A): void {
    if (!isDelta(event)) {
      this.settle()
      this.add(event)
      return
    }
    const tail = this.tails.find(({ last }) => isSameText(eventOf(last), event))
    if (tail === undefined) this.append(event, event.params.delta, undefined)
    else this.grow(tail, event.params.delta, event)
  }

  /** As `push`, for a piece of text whose event may not be needed. */
  pushDelta(delta: Delta): void {
    for (const tail of this.tails) {
      if (tail.family === delta.family) return this.grow(tail, delta.text, delta)
    }
    const tail = this.tails.find(({ last }) => isSameText(eventOf(last), delta.family.event))
    if (tail === undefined) return this.append(delta, delta.text, delta.family)
    tail.family = delta.family
    this.grow(tail, delta.text, delta)
  }

  /** Takes all events out. */
  take(): ReadonlyArray<A> {
    const events = this.read()
    this.entries = none
    return events
  }

  /** All events, which stay. */
  copy(): ReadonlyArray<A> {
    return this.read().slice()
  }

  private append(entry: (A & DeltaNotification) | Delta, first: string, family: Family | undefined): void {
    const index = this.add(entry)
    if (index + 1 < this.joinFrom) return
    if (this.tails.length === maxTails) this.settle()
    this.tails = [...this.tails, { index, first, joined: [], pieces: [], last: entry, family }]
  }

  private add(entry: A | Delta): number {
    if (this.entries === none) this.entries = [entry]
    else (this.entries as Array<A | Delta>).push(entry)
    return this.entries.length - 1
  }

  /** Joins a piece with the last event of its text. The joined one has the time of the later. */
  private grow(tail: Tail, piece: string, last: Delta | DeltaNotification): void {
    tail.last = last
    tail.pieces.push(piece)
    if (tail.pieces.length >= piecesAtOnce) tail.joined.push(tail.pieces.splice(0).join(""))
  }

  private settle(): void {
    if (this.tails === none) return
    const entries = this.entries as Array<A | Delta>
    for (const { first, index, joined, last, pieces } of this.tails) {
      if (joined.length === 0 && pieces.length === 0) continue
      const event = eventOf(last)
      const delta = [first, ...joined, ...pieces].join("")
      entries[index] = { ...event, params: { ...event.params, delta } } as unknown as A
    }
    this.tails = none
  }

  private read(): ReadonlyArray<A> {
    this.settle()
    const entries = this.entries as Array<A | Delta>
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]
      if (entry instanceof Delta) entries[i] = entry.event as unknown as A
    }
    return entries as Array<A>
  }
}
