/**
 * Whether a message of the program is the counterpart of a recorded one, and under which renaming of paths and ids.
 */
import * as Predicate from "effect/Predicate"
import { escape } from "effect/RegExp"
import type * as Schema from "effect/Schema"
import { isJsonObject, mapEntries, redacted } from "./cassetteRedact.ts"

/** A name in the recording and what it is called in this run. */
export interface Renaming {
  readonly recorded: string
  readonly actual: string
  /** The line of the recording from which on it holds. */
  readonly from: number
}

export interface Difference {
  readonly path: string
  readonly expected: Schema.Json | undefined
  readonly actual: Schema.Json | undefined
}

export interface Comparison {
  readonly differences: ReadonlyArray<Difference>
  /** What has to be renamed for the messages to be equal. */
  readonly renamings: ReadonlyArray<Renaming>
  /** How far-fetched the renamings are. */
  readonly cost: number
}

const isAbsolute = (text: string): boolean => /^(?:\/|[A-Za-z]:[\\/])[^\\/]/.test(text)

/** `/tmp/a` is neither in `/tmp/ab` nor in `/tmp/a.old`, but in `/tmp/a/b` and at the end of a sentence. */
const boundary = (name: string): string =>
  `(?<!\\w)${escape(name)}${isAbsolute(name) ? "(?![\\w-]|\\.\\w)" : "(?!\\w)"}`

const replacer = (pairs: ReadonlyArray<readonly [string, string]>): (text: string) => string => {
  const changes = pairs.filter(([from, to]) => from !== to)
  if (changes.length === 0) return (text) => text
  // All at once, so that nothing is renamed twice. Names that stay take part, since they may be longer.
  const names = new Map(pairs)
  const pattern = new RegExp(
    [...names.keys()].sort((a, b) => b.length - a.length).map(boundary).join("|"),
    "g"
  )
  return (text) => text.replace(pattern, (name) => names.get(name) ?? name)
}

const mapStrings = (value: Schema.Json, f: (text: string) => string): Schema.Json => {
  if (Predicate.isString(value)) return f(value)
  if (Array.isArray(value)) return value.map((item: Schema.Json) => mapStrings(item, f))
  return isJsonObject(value) ? mapEntries(value, (key, item) => [f(key), mapStrings(item, f)]) : value
}

/** What this run calls the things in the recording: one to one. */
export class Names {
  private readonly renamings: ReadonlyArray<Renaming>
  readonly toRecorded: (text: string) => string
  private cache: { readonly active: number; readonly replace: (text: string) => string } | undefined

  constructor(renamings: ReadonlyArray<Renaming> = []) {
    this.renamings = renamings
    this.toRecorded = replacer(renamings.map(({ actual, recorded }) => [actual, recorded]))
  }

  /** With more names, but for those that contradict the ones there are. */
  with(renamings: ReadonlyArray<Renaming>): Names {
    const all = this.renamings.slice()
    for (const renaming of renamings) {
      if (all.every(({ actual, recorded }) => recorded !== renaming.recorded && actual !== renaming.actual)) {
        all.push(renaming)
      }
    }
    return all.length === this.renamings.length ? this : new Names(all)
  }

  /** A message of this line of the recording, as this run has it. */
  toActual(message: Schema.Json, line: number): Schema.Json {
    const active = this.renamings.filter(({ from }) => from <= line)
    if (active.length === 0) return message
    if (this.cache?.active !== active.length) {
      this.cache = {
        active: active.length,
        replace: replacer(active.map(({ actual, recorded }) => [recorded, actual]))
      }
    }
    return mapStrings(message, this.cache.replace)
  }
}

const isPathName = (name: string): boolean => /(?:cwd|path|root|dir|directory|home|folder|file)s?$/i.test(name)

const segments = (path: string): ReadonlyArray<string> => path.split(/[\\/]/)

/** The directories that two runs differ in: without what their paths have in common at the end. */
const renamedRoot = (recorded: string, actual: string): Renaming => {
  const expectedSegments = segments(recorded)
  const actualSegments = segments(actual)
  // At least two segments stay: nothing good comes of renaming all of /tmp.
  const most = Math.min(expectedSegments.length, actualSegments.length) - 3
  let common = 0
  let length = 0
  while (common < most && expectedSegments.at(-1 - common) === actualSegments.at(-1 - common)) {
    length += expectedSegments.at(-1 - common)!.length + 1
    common++
  }
  return {
    recorded: recorded.slice(0, recorded.length - length),
    actual: actual.slice(0, actual.length - length),
    from: 0
  }
}

/** What was redacted can have been anything. */
const matchesRedacted = (expected: string, actual: string): boolean => {
  const [first = "", ...rest] = expected.split(redacted)
  const last = rest.pop()
  if (last === undefined || !actual.startsWith(first)) return false
  let position = first.length
  for (const part of rest) {
    const found = actual.indexOf(part, position)
    if (found === -1) return false
    position = found + part.length
  }
  return actual.length - last.length >= position && actual.endsWith(last)
}

export interface Rules {
  readonly names: Names
  /** Names of properties that may differ. */
  readonly ignore: ReadonlySet<string>
  /** How a recorded id becomes another one, if this run may have that one for it. */
  readonly exchange: (recorded: string, actual: string) => Renaming | undefined
}

/** Strings this short are too likely to be part of something else to be renamed everywhere. */
const shortestName = 8

const walk = (
  expectedMessage: Schema.Json,
  actualMessage: Schema.Json,
  method: string,
  rules: Rules,
  mayRename: boolean
): Comparison => {
  const { ignore, names } = rules
  const differences: Array<Difference> = []
  const renamings: Array<Renaming> = []
  let cost = 0

  const strings = (expected: string, actual: string, name: string): boolean => {
    const isPath = isPathName(name) && isAbsolute(expected) && isAbsolute(actual)
    if (expected === names.toRecorded(actual)) {
      // A path that is the same in both runs cannot later be another.
      if (isPath && expected === actual) renamings.push({ recorded: expected, actual, from: 0 })
      return true
    }
    if (matchesRedacted(expected, names.toRecorded(actual))) return true
    // The client names the turn once it has heard of its start, which is a matter of time.
    if (method === "turn/interrupt" && name === "turnId" && (expected === "" || actual === "")) return true
    if (!mayRename) return false
    if (isPath) {
      renamings.push(renamedRoot(expected, actual))
      cost += segments(expected).at(-1) === segments(actual).at(-1) ? 1 : 2
      return true
    }
    const exchanged = rules.exchange(expected, actual)
    if (exchanged === undefined) return false
    renamings.push(exchanged)
    cost += 4
    return true
  }

  const compare = (
    expected: Schema.Json | undefined,
    actual: Schema.Json | undefined,
    path: string,
    name: string
  ): void => {
    if (Predicate.isString(expected) && Predicate.isString(actual)) {
      if (!strings(expected, actual, name)) differences.push({ path, expected, actual })
    } else if (Array.isArray(expected) && Array.isArray(actual)) {
      for (let index = 0; index < Math.max(expected.length, actual.length); index++) {
        compare(expected[index], actual[index], `${path}[${index}]`, name)
      }
    } else if (isJsonObject(expected) && isJsonObject(actual)) {
      const renamed = mapEntries(actual, (key, value) => [names.toRecorded(key), value])
      for (const key of new Set([...Object.keys(expected), ...Object.keys(renamed)])) {
        const before = Object.hasOwn(expected, key) ? expected[key] : undefined
        const now = Object.hasOwn(renamed, key) ? renamed[key] : undefined
        if (ignore.has(key)) {
          if (Predicate.isString(before) && Predicate.isString(now) && before.length >= shortestName) {
            renamings.push({ recorded: before, actual: now, from: 0 })
          }
        } else {
          compare(before, now, path === "" ? key : `${path}.${key}`, key)
        }
      }
    } else if (expected !== actual) {
      differences.push({ path, expected, actual })
    }
  }

  compare(expectedMessage, actualMessage, "", "")
  return { differences, renamings, cost }
}

/**
 * Compares a recorded message with one of the program. What one part of a message says about names holds for all of it: a
 * prompt may have the path in it that is the `cwd`.
 */
export const compareMessages = (
  expected: Schema.Json,
  actual: Schema.Json,
  method: string,
  rules: Rules
): Comparison => {
  const first = walk(expected, actual, method, rules, true)
  if (first.renamings.length === 0) return first
  const names = rules.names.with(first.renamings)
  return { ...first, differences: walk(expected, actual, method, { ...rules, names }, false).differences }
}

const show = (value: Schema.Json | undefined, from: number): string => {
  if (value === undefined) return "(absent)"
  const json = JSON.stringify(value)
  const start = Math.max(0, from - 40)
  return `${start === 0 ? "" : "…"}${json.slice(start, from + 160)}${json.length > from + 160 ? "…" : ""}`
}

const mostShown = 10

/** The differences, as lines to read: where, what was recorded, and what the program sent. */
export const describeDifferences = (differences: ReadonlyArray<Difference>): string =>
  [
    ...differences.slice(0, mostShown).flatMap(({ actual, expected, path }) => {
      const before = JSON.stringify(expected) ?? ""
      const now = JSON.stringify(actual) ?? ""
      let common = 0
      while (common < before.length && before[common] === now[common]) common++
      return [`  ${path}`, `    - ${show(expected, common)}`, `    + ${show(actual, common)}`]
    }),
    ...(differences.length > mostShown ? [`  and ${differences.length - mostShown} more`] : [])
  ].join("\n")
