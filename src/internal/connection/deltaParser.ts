/**
 * Reads the lines of texts that arrive in pieces, which are most of what a server sends.
 *
 * Such a line is the one before it with another piece of text in it, and maybe another time. Once a line was parsed and found
 * right, one that is equal to it but for these two has the same meaning but for these two, so they are all that is read of
 * it. Whatever differs in any other way is left to `JSON.parse`: a line is read as that would read it, or not at all.
 */
import * as Predicate from "effect/Predicate"
import type { NotificationListener } from "../../AppServer.ts"
import type * as Protocol from "../../Protocol.ts"

/** The notifications that bring a piece of text, in `params.delta`. */
const methods = [
  "item/agentMessage/delta",
  "item/plan/delta",
  "item/commandExecution/outputDelta",
  "item/fileChange/outputDelta",
  "item/reasoning/summaryTextDelta",
  "item/reasoning/textDelta"
] as const

const deltaMethods: ReadonlySet<string> = new Set(methods)

/** A notification that brings a piece of text. */
export type DeltaNotification = Protocol.Notification<typeof methods[number]>

/** Whether a notification brings a piece of text. */
export const isDelta = (event: Protocol.ServerNotification): event is DeltaNotification =>
  deltaMethods.has(event.method)

/** What comes after the piece. Many lines have the same, and the time in it changes seldom when they come quickly. */
interface Suffix {
  /** What comes before the digits of the time; `undefined` if the line does not end with its time. */
  readonly beforeTimestamp: string | undefined
  /** All of it, as it was the last time, and the time in it. */
  text: string
  emittedAtMs: number | undefined
}

/** Those who hear the notifications of one thread. */
export interface Listeners {
  listeners: ReadonlyArray<NotificationListener>
}

/** What the lines of one text have in common. */
export interface DeltaTemplate {
  /** What comes before the piece. */
  readonly prefix: string
  readonly suffix: Suffix
  /** The notification that the first line was. */
  readonly event: DeltaNotification
  /** Another template with the same key. */
  next: DeltaTemplate | undefined
  /** Who hears it, for the router to remember. It holds nobody: who has gone is not in it any more. */
  listeners: Listeners | undefined
}

/** A piece of text. Its notification is made when somebody wants it. */
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

/** Where a line has what tells it from others: lines of one method, whose ids are as long, have it in the same place. */
interface TemplateIndex {
  readonly keyStart: number
  readonly keyEnd: number
  readonly textStart: number
  readonly templates: Map<string, DeltaTemplate>
}

const textMark = "\"delta\":\""
const timeMark = ",\"emittedAtMs\":"

/** So much of the end of a turn's id is looked up; then all is compared. */
const keyLength = 12

/** So many texts of one turn may take turns. */
const maxTemplatesPerTurn = 8

/** So many kinds of lines, and so many templates, are remembered. When there are more, all are forgotten and learned anew. */
const maxIndexes = 8
const maxTemplates = 4096

/** A piece so short is copied when it is cut out of a text; a longer one keeps all of that in memory. */
const maxFlatLength = 12

const unsliced = (text: string): string => text.length <= maxFlatLength ? text : (" " + text).slice(1)

/** So many short pieces with escapes are remembered. */
const maxEscaped = 256

/** Where the string that begins at `start` ends. */
const endOfString = (json: string, start: number): number => {
  let end = start
  while (end < json.length && json.charCodeAt(end) !== 0x22) end += json.charCodeAt(end) === 0x5c ? 2 : 1
  return end
}

/** From this length on `JSON.parse` is quicker than a look at each character. */
const longPiece = 256

/** Whether a string of JSON has this as it is. */
const isPlain = (piece: string): boolean => {
  if (piece.length > longPiece) return false
  for (let i = 0; i < piece.length; i++) {
    const code = piece.charCodeAt(i)
    if (code < 0x20 || code === 0x22 || code === 0x5c) return false
  }
  return true
}

/** A whole number that a double holds exactly, and the brace that ends its line. */
const timePattern = /^(?:0|[1-9]\d{0,14})\}$/

/** Whether an suffix is of this kind. If it is, it is the last one. */
const matchesSuffix = (suffix: Suffix, text: string): boolean => {
  if (text === suffix.text) return true
  if (suffix.beforeTimestamp === undefined || !text.startsWith(suffix.beforeTimestamp)) return false
  const time = text.slice(suffix.beforeTimestamp.length)
  if (!timePattern.test(time)) return false
  suffix.text = unsliced(text)
  suffix.emittedAtMs = Number(time.slice(0, -1))
  return true
}

const parse = (json: string): unknown => {
  try {
    return JSON.parse(json)
  } catch {
    return undefined
  }
}

export class DeltaParser {
  private indexes: Array<TemplateIndex> = []
  private endings: Array<Suffix> = []
  private size = 0
  private last: DeltaTemplate | undefined
  /** What short pieces with escapes say. Most are line ends and quotation marks, which come again and again. */
  private readonly escaped = new Map<string, string>()

  /** Reads a line that is one of a text that it has learned. */
  tryParse(line: string): Delta | undefined {
    const { last } = this
    if (last !== undefined) {
      const delta = this.readAs(last, line)
      if (delta !== undefined) return delta
    }
    for (const { templates, keyEnd, keyStart } of this.indexes) {
      let template = templates.get(line.slice(keyStart, keyEnd))
      for (; template !== undefined; template = template.next) {
        const delta = template === last ? undefined : this.readAs(template, line)
        if (delta === undefined) continue
        this.last = template
        return delta
      }
    }
    return undefined
  }

  private readAs(template: DeltaTemplate, line: string): Delta | undefined {
    const { prefix, suffix } = template
    const textStart = prefix.length
    const textEnd = line.length - suffix.text.length
    if (textEnd < textStart || line.slice(0, textStart) !== prefix) return undefined
    if (!matchesSuffix(suffix, line.slice(textEnd))) return undefined
    const piece = line.slice(textStart, textEnd)
    const text = isPlain(piece) ? unsliced(piece) : this.textOf(piece)
    return text === undefined ? undefined : new Delta(template, text, suffix.emittedAtMs)
  }

  /** What a piece says that has escapes, unless it is no string of JSON at all. */
  private textOf(piece: string): string | undefined {
    const isShort = piece.length <= maxFlatLength
    const known = isShort ? this.escaped.get(piece) : undefined
    if (known !== undefined) return known
    const text = parse(`"${piece}"`)
    if (!Predicate.isString(text)) return undefined
    if (isShort) {
      if (this.escaped.size >= maxEscaped) this.escaped.clear()
      this.escaped.set(piece, text)
    }
    return text
  }

  /** Makes a line the first of its template, if it can have one: `event` is what was read of it, as it was parsed. */
  register(line: string, event: DeltaNotification): void {
    const { turnId } = event.params
    const textStart = line.indexOf(textMark) + textMark.length
    const textEnd = endOfString(line, textStart)
    const before = line.slice(0, textStart)
    const after = line.slice(textEnd)
    const timeStart = after.lastIndexOf(timeMark) + timeMark.length
    const isTimed = timeStart > timeMark.length && timePattern.test(after.slice(timeStart))
    const beforeTime = isTimed ? after.slice(0, timeStart) : undefined
    const keyEnd = before.lastIndexOf(`"${turnId}"`) + 1 + turnId.length
    const keyStart = Math.max(keyEnd - keyLength, 0)
    if (keyEnd > textStart) return

    // One that differs in both says whether these two are where they seem to be: what is true of it is true of all.
    const delta = "another text"
    const probe = parse(`${before}${delta}${beforeTime === undefined ? after : `${beforeTime}1}`}`)
    const expected = { ...event, params: { ...event.params, delta }, ...(isTimed ? { emittedAtMs: 1 } : {}) }
    if (JSON.stringify(probe) !== JSON.stringify(expected)) return

    if (this.size >= maxTemplates || this.indexes.length > maxIndexes || this.endings.length > maxIndexes) this.forget()
    this.add({ keyStart, keyEnd, textStart }, unsliced(line.slice(keyStart, keyEnd)), {
      prefix: unsliced(before),
      suffix: this.endingOf(after, beforeTime, event.emittedAtMs),
      event,
      next: undefined,
      listeners: undefined
    })
  }

  private forget(): void {
    this.indexes = []
    this.endings = []
    this.size = 0
    this.last = undefined
  }

  private endingOf(after: string, beforeTime: string | undefined, emittedAtMs: number | undefined): Suffix {
    const known = this.endings.find((suffix) =>
      suffix.beforeTimestamp === beforeTime && (beforeTime !== undefined || suffix.text === after)
    )
    if (known !== undefined) return known
    const suffix: Suffix = {
      beforeTimestamp: beforeTime === undefined ? undefined : unsliced(beforeTime),
      text: unsliced(after),
      emittedAtMs
    }
    this.endings.push(suffix)
    return suffix
  }

  private add(place: Omit<TemplateIndex, "templates">, key: string, template: DeltaTemplate): void {
    let index = this.indexes.find(({ keyEnd, textStart }) => keyEnd === place.keyEnd && textStart === place.textStart)
    if (index === undefined) {
      index = { ...place, templates: new Map() }
      this.indexes.push(index)
    }
    template.next = index.templates.get(key)
    let oldest = template
    for (let texts = 1; oldest.next !== undefined; texts++) {
      if (texts === maxTemplatesPerTurn) oldest.next = undefined
      else oldest = oldest.next
    }
    index.templates.set(key, template)
    this.size++
    this.last = template
  }
}
