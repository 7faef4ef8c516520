/** Compares a message of the program with a recorded one, up to the renaming of paths and ids. */
import * as Predicate from "effect/Predicate"
import { escape } from "effect/RegExp"
import type * as Schema from "effect/Schema"
import { redacted } from "../../redact.ts"
import { isJsonObject, mapEntries } from "./redact.ts"

/** A name in the recording, and its counterpart in this run. */
export interface Renaming {
  readonly recorded: string
  readonly actual: string
  /** The first line of the recording that has the renaming. */
  readonly from: number
}

interface Difference {
  readonly path: string
  readonly expected: Schema.Json | undefined
  readonly actual: Schema.Json | undefined
}

export interface Comparison {
  readonly differences: ReadonlyArray<Difference>
  /** The renamings that make the messages equal. */
  readonly renamings: ReadonlyArray<Renaming>
  /** How unlikely the renamings are. The match with the lowest cost wins. */
  readonly cost: number
}

const isAbsolute = (text: string): boolean => /^(?:\/|[A-Za-z]:[\\/])[^\\/]/.test(text)

/** Matches whole names: `/tmp/a` in `/tmp/a/b` and at the end of a sentence, but not in `/tmp/ab` or `/tmp/a.old`. */
const wholeName = (name: string): string =>
  `(?<!\\w)${escape(name)}${isAbsolute(name) ? "(?![\\w-]|\\.\\w)" : "(?!\\w)"}`

const makeReplacer = (pairs: ReadonlyArray<readonly [string, string]>): (text: string) => string => {
  const changes = pairs.filter(([from, to]) => from !== to)
  if (changes.length === 0) return (text) => text
  // One pattern renames nothing twice. It has unchanged names, too, because a longer one takes precedence over its part.
  const names = new Map(pairs)
  const pattern = new RegExp(
    [...names.keys()].sort((a, b) => b.length - a.length).map(wholeName).join("|"),
    "g"
  )
  return (text) => text.replace(pattern, (name) => names.get(name) ?? name)
}

const mapStrings = (value: Schema.Json, f: (text: string) => string): Schema.Json => {
  if (Predicate.isString(value)) return f(value)
  if (Array.isArray(value)) return value.map((item: Schema.Json) => mapStrings(item, f))
  return isJsonObject(value) ? mapEntries(value, (key, item) => [f(key), mapStrings(item, f)]) : value
}

/** A one-to-one mapping between names in the recording and names in this run. */
export class Renamings {
  private readonly renamings: ReadonlyArray<Renaming>
  readonly toRecorded: (text: string) => string
  private cache: { readonly active: number; readonly replace: (text: string) => string } | undefined

  constructor(renamings: ReadonlyArray<Renaming> = []) {
    this.renamings = renamings
    this.toRecorded = makeReplacer(renamings.map(({ actual, recorded }) => [actual, recorded]))
  }

  /** Adds renamings, except those that contradict existing ones. */
  with(renamings: ReadonlyArray<Renaming>): Renamings {
    const all = this.renamings.slice()
    for (const renaming of renamings) {
      if (all.every(({ actual, recorded }) => recorded !== renaming.recorded && actual !== renaming.actual)) {
        all.push(renaming)
      }
    }
    return all.length === this.renamings.length ? this : new Renamings(all)
  }

  /** Renames a message on a line of the recording for this run. */
  toActual(message: Schema.Json, line: number): Schema.Json {
    const active = this.renamings.filter(({ from }) => from <= line)
    if (active.length === 0) return message
    if (this.cache?.active !== active.length) {
      this.cache = {
        active: active.length,
        replace: makeReplacer(active.map(({ actual, recorded }) => [recorded, actual]))
      }
    }
    return mapStrings(message, this.cache.replace)
  }
}

const isPathName = (name: string): boolean => /(?:cwd|path|root|dir|directory|home|folder|file)s?$/i.test(name)

const segments = (path: string): ReadonlyArray<string> => path.split(/[\\/]/)

/** Removes the common end of two paths, which leaves the directories that differ. */
const renameRoot = (recorded: string, actual: string): Renaming => {
  const expectedSegments = segments(recorded)
  const actualSegments = segments(actual)
  // Keep two segments, because a renaming of /tmp would affect unrelated paths.
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

/** Whether a text fits a recorded one, in which a redaction stands for any text. */
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

interface Rules {
  readonly renamings: Renamings
  /** Names of properties that may differ. */
  readonly ignore: ReadonlySet<string>
  /** Returns the renaming of one thread to another, if the two are interchangeable. */
  readonly swapThreads: (recorded: string, actual: string) => Renaming | undefined
}

/** Minimum length of a string that is renamed everywhere. Shorter strings occur in unrelated text. */
const minNameLength = 8

/** Compares two messages, and collects differences and renamings. */
class TreeComparison {
  readonly differences: Array<Difference> = []
  readonly renamings: Array<Renaming> = []
  cost = 0
  private readonly method: string
  private readonly rules: Rules
  private readonly mayRename: boolean

  constructor(method: string, rules: Rules, mayRename: boolean) {
    this.method = method
    this.rules = rules
    this.mayRename = mayRename
  }

  compare(
    expected: Schema.Json | undefined,
    actual: Schema.Json | undefined,
    path: string,
    name: string
  ): void {
    if (Predicate.isString(expected) && Predicate.isString(actual)) {
      if (!this.stringsMatch(expected, actual, name)) this.differences.push({ path, expected, actual })
    } else if (Array.isArray(expected) && Array.isArray(actual)) {
      for (let index = 0; index < Math.max(expected.length, actual.length); index++) {
        this.compare(expected[index], actual[index], `${path}[${index}]`, name)
      }
    } else if (isJsonObject(expected) && isJsonObject(actual)) {
      this.compareMembers(expected, actual, path)
    } else if (expected !== actual) {
      this.differences.push({ path, expected, actual })
    }
  }

  private compareMembers(expected: Schema.JsonObject, actual: Schema.JsonObject, path: string): void {
    const { ignore, renamings } = this.rules
    const renamed = mapEntries(actual, (key, value) => [renamings.toRecorded(key), value])
    for (const key of new Set([...Object.keys(expected), ...Object.keys(renamed)])) {
      const before = Object.hasOwn(expected, key) ? expected[key] : undefined
      const now = Object.hasOwn(renamed, key) ? renamed[key] : undefined
      if (!ignore.has(key)) {
        this.compare(before, now, path === "" ? key : `${path}.${key}`, key)
      } else if (Predicate.isString(before) && Predicate.isString(now) && before.length >= minNameLength) {
        this.renamings.push({ recorded: before, actual: now, from: 0 })
      }
    }
  }

  private stringsMatch(expected: string, actual: string, name: string): boolean {
    const { renamings, swapThreads } = this.rules
    const isPath = isPathName(name) && isAbsolute(expected) && isAbsolute(actual)
    const recorded = renamings.toRecorded(actual)
    if (expected === recorded) {
      // A path that is equal in both runs cannot be renamed later.
      if (isPath && expected === actual) this.renamings.push({ recorded: expected, actual, from: 0 })
      return true
    }
    if (matchesRedacted(expected, recorded)) return true
    // The client knows the turn id once it has received `turn/started`, and `turn/started` may arrive at any time.
    if (this.method === "turn/interrupt" && name === "turnId" && (expected === "" || actual === "")) return true
    if (!this.mayRename) return false
    if (isPath) {
      this.renamings.push(renameRoot(expected, actual))
      this.cost += segments(expected).at(-1) === segments(actual).at(-1) ? 1 : 2
      return true
    }
    const swapped = swapThreads(expected, actual)
    if (swapped === undefined) return false
    this.renamings.push(swapped)
    this.cost += 4
    return true
  }
}

const compareTree = (
  expected: Schema.Json,
  actual: Schema.Json,
  method: string,
  rules: Rules,
  mayRename: boolean
): Comparison => {
  const comparison = new TreeComparison(method, rules, mayRename)
  comparison.compare(expected, actual, "", "")
  return comparison
}

/**
 * Compares a recorded message with one of the program. A renaming in one part of a message applies to all of it, because a prompt
 * may contain the path in `cwd`.
 */
export const compareMessages = (
  expected: Schema.Json,
  actual: Schema.Json,
  method: string,
  rules: Rules
): Comparison => {
  const first = compareTree(expected, actual, method, rules, true)
  if (first.renamings.length === 0) return first
  const renamings = rules.renamings.with(first.renamings)
  const { cost, renamings: found } = first
  const { differences } = compareTree(expected, actual, method, { ...rules, renamings }, false)
  return { cost, renamings: found, differences }
}

const show = (value: Schema.Json | undefined, from: number): string => {
  if (value === undefined) return "(absent)"
  const json = JSON.stringify(value)
  const start = Math.max(0, from - 40)
  return `${start === 0 ? "" : "…"}${json.slice(start, from + 160)}${json.length > from + 160 ? "…" : ""}`
}

/** Number of differences that a message shows. */
const maxShown = 10

/** Formats differences for a person: the path, the recorded value and the value that the program sent. */
export const describeDifferences = (differences: ReadonlyArray<Difference>): string =>
  [
    ...differences.slice(0, maxShown).flatMap(({ actual, expected, path }) => {
      const before = JSON.stringify(expected) ?? ""
      const now = JSON.stringify(actual) ?? ""
      let common = 0
      while (common < before.length && before[common] === now[common]) common++
      return [`  ${path}`, `    - ${show(expected, common)}`, `    + ${show(actual, common)}`]
    }),
    ...(differences.length > maxShown ? [`  and ${differences.length - maxShown} more`] : [])
  ].join("\n")
