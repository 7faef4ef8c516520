/**
 * Events in their order. A log that has become long keeps the deltas of one text as one event until something else happens, so
 * what it holds is bounded by the texts themselves, and nothing is lost.
 */
import type * as Protocol from "../../Protocol.ts"
import { getOwn } from "./codec.ts"
import { Delta, type DeltaNotification, type DeltaTemplate, isDelta } from "./deltaParser.ts"

/** So many pieces are joined at a time. One string that grew by each piece would hold every piece in memory. */
const maxPendingPieces = 256

/** The fields that tell which text a delta belongs to. A reasoning item has several. */
const textKeys = ["threadId", "turnId", "itemId", "summaryIndex", "contentIndex"] as const

const isSameText = (previous: Protocol.ServerNotification, next: DeltaNotification): boolean => {
  if (previous.method !== next.method) return false
  const before: object = (previous as DeltaNotification).params
  const after: object = next.params
  return textKeys.every((key) => getOwn(before, key) === getOwn(after, key))
}

/** The last event of a text, while it grows. */
interface OpenDelta {
  readonly index: number
  /** The text of the event, and the pieces that came after it, those in `joined` before those in `pieces`. */
  readonly first: string
  readonly joined: Array<string>
  readonly pieces: Array<string>
  /** What brought the last piece. */
  last: Delta | DeltaNotification
  template: DeltaTemplate | undefined
}

/** So many texts grow at once. */
const maxOpenDeltas = 8

/**
 * An array that is filled seldom is not made before it is needed: one that has become old by then would have the garbage
 * collector take what it holds for alive, long after it was read.
 */
const empty: ReadonlyArray<never> = []

const toEvent = (entry: Delta | DeltaNotification): DeltaNotification => entry instanceof Delta ? entry.event : entry

export class CoalescingBuffer<A extends Protocol.ServerNotification> {
  private readonly coalesceAfter: number
  /** A delta becomes an event when it is read. */
  private entries: ReadonlyArray<A | Delta>
  private openDeltas: ReadonlyArray<OpenDelta> = empty

  /** A log that has so many events joins deltas. */
  constructor(joinFrom: number, events: ReadonlyArray<A> = empty) {
    this.coalesceAfter = joinFrom
    this.entries = events
  }

  /** How many events there are. */
  get length(): number {
    return this.entries.length
  }

  push(event: A): void {
    if (!isDelta(event)) {
      this.seal()
      this.add(event)
      return
    }
    const tail = this.openDeltas.find(({ last }) => isSameText(toEvent(last), event))
    if (tail === undefined) this.open(event, event.params.delta, undefined)
    else this.append(tail, event.params.delta, event)
  }

  /** As `push`, for a piece of text whose event may not be needed. */
  pushDelta(delta: Delta): void {
    for (const tail of this.openDeltas) {
      if (tail.template === delta.template) return this.append(tail, delta.text, delta)
    }
    const tail = this.openDeltas.find(({ last }) => isSameText(toEvent(last), delta.template.event))
    if (tail === undefined) return this.open(delta, delta.text, delta.template)
    tail.template = delta.template
    this.append(tail, delta.text, delta)
  }

  /** Takes all events out. */
  take(): ReadonlyArray<A> {
    const events = this.read()
    this.entries = empty
    return events
  }

  /** All events, which stay. */
  copy(): ReadonlyArray<A> {
    return this.read().slice()
  }

  private open(entry: (A & DeltaNotification) | Delta, first: string, template: DeltaTemplate | undefined): void {
    const index = this.add(entry)
    if (index + 1 < this.coalesceAfter) return
    if (this.openDeltas.length === maxOpenDeltas) this.seal()
    this.openDeltas = [...this.openDeltas, { index, first, joined: [], pieces: [], last: entry, template }]
  }

  private add(entry: A | Delta): number {
    if (this.entries === empty) this.entries = [entry]
    else (this.entries as Array<A | Delta>).push(entry)
    return this.entries.length - 1
  }

  /** Joins a piece with the last event of its text. The joined one has the time of the later. */
  private append(tail: OpenDelta, piece: string, last: Delta | DeltaNotification): void {
    tail.last = last
    tail.pieces.push(piece)
    if (tail.pieces.length >= maxPendingPieces) tail.joined.push(tail.pieces.splice(0).join(""))
  }

  private seal(): void {
    if (this.openDeltas === empty) return
    const entries = this.entries as Array<A | Delta>
    for (const { first, index, joined, last, pieces } of this.openDeltas) {
      if (joined.length === 0 && pieces.length === 0) continue
      const event = toEvent(last)
      const delta = [first, ...joined, ...pieces].join("")
      entries[index] = { ...event, params: { ...event.params, delta } } as unknown as A
    }
    this.openDeltas = empty
  }

  private read(): ReadonlyArray<A> {
    this.seal()
    const entries = this.entries as Array<A | Delta>
    for (let i = 0; i < entries.length; i++) {
      const entry = entries[i]
      if (entry instanceof Delta) entries[i] = entry.event as unknown as A
    }
    return entries as Array<A>
  }
}
