/**
 * Parses delta lines without `JSON.parse`. Most lines of a server are delta lines, so this saves most of the time of a flood.
 *
 * Consecutive delta lines of one text differ only in `delta` and `emittedAtMs`. The first line becomes a template. Of a line that matches a
 * template, the parser reads these two values only. Every other line is left to `JSON.parse`. The results of both are equal.
 */
import * as Predicate from "effect/Predicate"
import { Delta, type DeltaNotification, type DeltaTemplate, type Suffix } from "./delta.ts"

/** The templates whose lines have the turn id at the same index: those of one method, with ids of the same length. */
interface TemplateIndex {
  readonly keyStart: number
  readonly keyEnd: number
  readonly textStart: number
  readonly templates: Map<string, DeltaTemplate>
}

const textMark = "\"delta\":\""
const timeMark = ",\"emittedAtMs\":"

/** Number of characters at the end of a turn id that are the key of a template. After the lookup, the whole prefix is compared. */
const keyLength = 12

/** Maximum number of templates of one turn: its texts alternate, and more of them are rare. */
const maxTemplatesPerTurn = 8

/** Maximum numbers of indexes and of suffixes, and of templates, which bound the memory. The parser drops all of them at the limit. */
const maxIndexes = 8
const maxTemplates = 4096

/** Maximum length of a slice that V8 copies. A longer slice keeps the whole string in memory. */
const maxFlatLength = 12

/** Copies a slice, so that it does not keep the whole string in memory. */
const unsliced = (text: string): string => text.length <= maxFlatLength ? text : (" " + text).slice(1)

/** Maximum number of short texts with escapes that are cached. Few different ones recur. */
const maxEscaped = 256

/** Returns the index of the quotation mark that ends the JSON string from `start` on. */
const endOfString = (json: string, start: number): number => {
  let end = start
  while (end < json.length && json.charCodeAt(end) !== 0x22) end += json.charCodeAt(end) === 0x5c ? 2 : 1
  return end
}

/** Maximum length, in characters, up to which a loop over the characters is faster than `JSON.parse`. */
const maxScanLength = 256

/** Whether a part of a JSON string has no escapes and nothing that needs one. */
const isPlain = (json: string): boolean => {
  if (json.length > maxScanLength) return false
  for (let i = 0; i < json.length; i++) {
    const code = json.charCodeAt(i)
    if (code < 0x20 || code === 0x22 || code === 0x5c) return false
  }
  return true
}

/** Matches an integer that a double represents exactly, and the brace that ends its line. */
const timePattern = /^(?:0|[1-9]\d{0,14})\}$/

/** Whether a text matches a suffix, which then stores it as its last text. */
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
  private suffixes: Array<Suffix> = []
  private size = 0
  private last: DeltaTemplate | undefined
  /** The decoded texts of short JSON strings with escapes, by JSON string. Most are line ends and quotation marks, which recur. */
  private readonly escaped = new Map<string, string>()

  /** Parses a line that matches a registered template. */
  tryParse(line: string): Delta | undefined {
    const { last } = this
    if (last !== undefined) {
      const delta = this.parseAs(last, line)
      if (delta !== undefined) return delta
    }
    for (const { templates, keyEnd, keyStart } of this.indexes) {
      let template = templates.get(line.slice(keyStart, keyEnd))
      for (; template !== undefined; template = template.next) {
        const delta = template === last ? undefined : this.parseAs(template, line)
        if (delta === undefined) continue
        this.last = template
        return delta
      }
    }
    return undefined
  }

  private parseAs(template: DeltaTemplate, line: string): Delta | undefined {
    const { prefix, suffix } = template
    const textStart = prefix.length
    const textEnd = line.length - suffix.text.length
    if (textEnd < textStart || line.slice(0, textStart) !== prefix) return undefined
    if (!matchesSuffix(suffix, line.slice(textEnd))) return undefined
    const json = line.slice(textStart, textEnd)
    const text = isPlain(json) ? unsliced(json) : this.decodeEscaped(json)
    return text === undefined ? undefined : new Delta(template, text, suffix.emittedAtMs)
  }

  /** Decodes a JSON string with escapes. Returns `undefined` if it is not valid. */
  private decodeEscaped(json: string): string | undefined {
    const isShort = json.length <= maxFlatLength
    const known = isShort ? this.escaped.get(json) : undefined
    if (known !== undefined) return known
    const text = parse(`"${json}"`)
    if (!Predicate.isString(text)) return undefined
    if (isShort) {
      if (this.escaped.size >= maxEscaped) this.escaped.clear()
      this.escaped.set(json, text)
    }
    return text
  }

  /** Makes a template from a line that was parsed as `event`, unless the line has another form. */
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

    // Parsing the line with two other values proves that the indexes of the values are correct.
    const delta = "another text"
    const probe = parse(`${before}${delta}${beforeTime === undefined ? after : `${beforeTime}1}`}`)
    const expected = { ...event, params: { ...event.params, delta }, ...(isTimed ? { emittedAtMs: 1 } : {}) }
    if (JSON.stringify(probe) !== JSON.stringify(expected)) return

    if (this.size >= maxTemplates || this.indexes.length > maxIndexes || this.suffixes.length > maxIndexes) this.clear()
    this.add({ keyStart, keyEnd, textStart }, unsliced(line.slice(keyStart, keyEnd)), {
      prefix: unsliced(before),
      suffix: this.getSuffix(after, beforeTime, event.emittedAtMs),
      event,
      next: undefined,
      listeners: undefined
    })
  }

  private clear(): void {
    this.indexes = []
    this.suffixes = []
    this.size = 0
    this.last = undefined
  }

  private getSuffix(after: string, beforeTime: string | undefined, emittedAtMs: number | undefined): Suffix {
    const known = this.suffixes.find((suffix) =>
      suffix.beforeTimestamp === beforeTime && (beforeTime !== undefined || suffix.text === after)
    )
    if (known !== undefined) return known
    const suffix: Suffix = {
      beforeTimestamp: beforeTime === undefined ? undefined : unsliced(beforeTime),
      text: unsliced(after),
      emittedAtMs
    }
    this.suffixes.push(suffix)
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
