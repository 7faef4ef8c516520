/**
 * A buffer of events in their order. From a certain length on, it coalesces the deltas of one text into one event, until another event
 * follows. No text is lost, and the texts bound the size of the buffer.
 */
import type * as Protocol from "../../Protocol.ts"
import { getOwn } from "../getOwn.ts"
import { Delta, type DeltaNotification, type DeltaTemplate, isDelta } from "./delta.ts"

/** Number of deltas whose texts are joined at once. A string that grows by one text at a time keeps every text in memory. */
const maxPending = 256

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
  /** The text of the event, then the texts in `joined`, then those in `pending`. */
  readonly first: string
  readonly joined: Array<string>
  readonly pending: Array<string>
  /** The last delta. */
  last: Delta | DeltaNotification
  template: DeltaTemplate | undefined
}

/** Maximum number of texts that grow at once: a turn streams few texts at a time. */
const maxOpenDeltas = 8

/**
 * Stands for an array that is not allocated yet. An empty array that survives into V8's old generation would keep later events alive until
 * a major garbage collection.
 */
const empty: ReadonlyArray<never> = []

const toEvent = (entry: Delta | DeltaNotification): DeltaNotification => entry instanceof Delta ? entry.event : entry

export class CoalescingBuffer<A extends Protocol.ServerNotification> {
  private readonly coalesceAfter: number
  /** The events, and the deltas whose events are made when they are read. */
  private entries: ReadonlyArray<A | Delta>
  private openDeltas: ReadonlyArray<OpenDelta> = empty
  /** Number of deltas that were coalesced with the one before. */
  coalesced = 0

  /** Coalesces deltas from the event with the number `coalesceAfter` on. */
  constructor(coalesceAfter: number, events: ReadonlyArray<A> = empty) {
    this.coalesceAfter = coalesceAfter
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
    const open = this.openDeltas.find(({ last }) => isSameText(toEvent(last), event))
    if (open === undefined) this.open(event, event.params.delta, undefined)
    else this.append(open, event.params.delta, event)
  }

  /** Pushes a delta without making its event. */
  pushDelta(delta: Delta): void {
    for (const open of this.openDeltas) {
      if (open.template === delta.template) return this.append(open, delta.text, delta)
    }
    const open = this.openDeltas.find(({ last }) => isSameText(toEvent(last), delta.template.event))
    if (open === undefined) return this.open(delta, delta.text, delta.template)
    open.template = delta.template
    this.append(open, delta.text, delta)
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
    this.openDeltas = [...this.openDeltas, { index, first, joined: [], pending: [], last: entry, template }]
  }

  private add(entry: A | Delta): number {
    if (this.entries === empty) this.entries = [entry]
    else (this.entries as Array<A | Delta>).push(entry)
    return this.entries.length - 1
  }

  /** Appends the text of a delta to its event. The event then has the time of the delta. */
  private append(open: OpenDelta, text: string, last: Delta | DeltaNotification): void {
    open.last = last
    this.coalesced++
    open.pending.push(text)
    if (open.pending.length >= maxPending) open.joined.push(open.pending.splice(0).join(""))
  }

  /** Ends the coalescing of all texts. */
  private seal(): void {
    if (this.openDeltas === empty) return
    const entries = this.entries as Array<A | Delta>
    for (const { first, index, joined, last, pending } of this.openDeltas) {
      if (joined.length === 0 && pending.length === 0) continue
      const event = toEvent(last)
      const delta = [first, ...joined, ...pending].join("")
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
