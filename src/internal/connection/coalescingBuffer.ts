/**
 * A buffer of events in their order. When it has become long it coalesces the deltas of one text into one event, until another event
 * follows. Its size is then bounded by the texts themselves, and no text is lost.
 */
import type * as Protocol from "../../Protocol.ts"
import { getOwn } from "../getOwn.ts"
import { Delta, type DeltaNotification, type DeltaTemplate, isDelta } from "./delta.ts"

/** Number of pieces that are joined at once. A string that grows by one piece at a time keeps every piece in memory. */
const maxPendingPieces = 256

/** The fields that identify the text of a delta. A reasoning item has several texts. */
const textKeys = ["threadId", "turnId", "itemId", "summaryIndex", "contentIndex"] as const

const isSameText = (previous: Protocol.ServerNotification, next: DeltaNotification): boolean => {
  if (previous.method !== next.method) return false
  const before: object = (previous as DeltaNotification).params
  const after: object = next.params
  return textKeys.every((key) => getOwn(before, key) === getOwn(after, key))
}

/** The last event of a text that can still grow. */
interface OpenDelta {
  readonly index: number
  /** The text of the event, then the pieces in `joined`, then those in `pieces`. */
  readonly first: string
  readonly joined: Array<string>
  readonly pieces: Array<string>
  /** The delta with the last piece. */
  last: Delta | DeltaNotification
  template: DeltaTemplate | undefined
}

/** Maximum number of texts that grow at once. */
const maxOpenDeltas = 8

/**
 * Stands for an array that is not allocated yet. An empty array that survives into V8's old generation would keep the events that are pushed
 * to it later alive until a major garbage collection.
 */
const empty: ReadonlyArray<never> = []

const toEvent = (entry: Delta | DeltaNotification): DeltaNotification => entry instanceof Delta ? entry.event : entry

export class CoalescingBuffer<A extends Protocol.ServerNotification> {
  private readonly coalesceAfter: number
  /** A `Delta` becomes an event when it is read. */
  private entries: ReadonlyArray<A | Delta>
  private openDeltas: ReadonlyArray<OpenDelta> = empty

  /** Coalesces deltas from the event with the number `coalesceAfter` on. */
  constructor(joinFrom: number, events: ReadonlyArray<A> = empty) {
    this.coalesceAfter = joinFrom
    this.entries = events
  }

  /** Number of buffered events. */
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

  /** As `push`, for a delta whose event need not be made. */
  pushDelta(delta: Delta): void {
    for (const tail of this.openDeltas) {
      if (tail.template === delta.template) return this.append(tail, delta.text, delta)
    }
    const tail = this.openDeltas.find(({ last }) => isSameText(toEvent(last), delta.template.event))
    if (tail === undefined) return this.open(delta, delta.text, delta.template)
    tail.template = delta.template
    this.append(tail, delta.text, delta)
  }

  /** Removes and returns all events. */
  take(): ReadonlyArray<A> {
    const events = this.read()
    this.entries = empty
    return events
  }

  /** Returns all events without removing them. */
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

  /** Appends a piece to the last event of its text, which then has the time of the piece. */
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
