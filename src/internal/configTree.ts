/** Converts configuration with nested and dotted keys into one tree. */
import * as Predicate from "effect/Predicate"
import { describe } from "./options.ts"

/** A value of Codex's configuration. TOML has no null; `undefined` leaves an entry out. */
export type TomlValue =
  | string
  | number
  | boolean
  | ReadonlyArray<TomlValue>
  | { readonly [key: string]: TomlValue | undefined }

/** A table without a prototype, so that `__proto__` is a key like any other. */
export interface ConfigTable {
  [key: string]: ConfigTable | string | number | boolean | ReadonlyArray<unknown> | undefined
}

type Node = ConfigTable[string]

const emptyTable = (): ConfigTable => Object.create(null) as ConfigTable

export const isTable = (node: unknown): node is ConfigTable => typeof node === "object" && !Array.isArray(node)

/** Whether an object is plain. An instance of a class, such as a `Date`, a `Map` or a `Redacted`, would become an empty table. */
const isRecord = (value: object): value is Record<string, unknown> => {
  const prototype = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}

const show = (path: ReadonlyArray<string>): string => `\`${path.join(".")}\``

const describeKind = (value: unknown): string =>
  value === null ? "null" : typeof value === "object" ? value.constructor?.name ?? "object" : typeof value

const checkKey = (key: string, path: ReadonlyArray<string>): string => {
  if (/[\p{Cc}\p{Cs}]/u.test(key)) {
    throw new TypeError(
      `a key of ${JSON.stringify(path.join("."))} contains a control character or a lone surrogate; remove it`
    )
  }
  return key
}

const read = (value: unknown, path: ReadonlyArray<string>, seen: ReadonlyArray<object>): Node => {
  switch (typeof value) {
    case "string":
    case "number":
    case "boolean":
    case "undefined":
      return value
  }
  if (typeof value !== "object" || value === null || !(Array.isArray(value) || isRecord(value))) {
    throw new TypeError(
      `${show(path)} cannot be written, because TOML has no ${
        describeKind(value)
      }; give a string, a number, a boolean, ` +
        "an array or a plain object, or leave the key out"
    )
  }
  if (seen.includes(value)) throw new TypeError(`${show(path)} contains itself; remove the cycle`)
  const inside = [...seen, value]
  if (Array.isArray(value)) {
    // `Array.from` also visits the holes of a sparse array.
    return Array.from(value, (element: unknown, index) => {
      const at = [...path, String(index)]
      if (element === undefined) {
        throw new TypeError(`${show(at)} cannot be written, because TOML has no undefined; remove the element`)
      }
      return read(element, at, inside)
    })
  }
  const table = emptyTable()
  for (const [key, inner] of Object.entries(value)) {
    const at = [...path, key]
    table[checkKey(key, at)] = read(inner, at, inside)
  }
  return table
}

/** Matches a segment of a dotted path: quoted as in TOML, or everything up to the next dot. */
const segment = /"(?:[^"\\]|\\.)*"(?=\.|$)|'[^']*'(?=\.|$)|[^."'][^.]*/y

/** Splits a dotted path into its segments. A segment with a dot or `=` must be quoted as in TOML. */
const parsePath = (path: string): ReadonlyArray<string> => {
  const segments: Array<string> = []
  const invalid = (problem: string) => new TypeError(`the key ${JSON.stringify(path)} ${problem}`)
  let from = 0
  do {
    segment.lastIndex = from
    const [text] = segment.exec(path) ?? []
    if (text === undefined) {
      throw invalid(
        path[from] === "\"" || path[from] === "'"
          ? "has a quoted segment that does not end before a dot; close the quote"
          : "has an empty segment; write \"\" for an empty name, and one dot between two segments"
      )
    }
    if (text.startsWith("'")) segments.push(text.slice(1, -1))
    else if (text.startsWith("\"")) {
      try {
        segments.push(JSON.parse(text) as string)
      } catch {
        throw invalid("has a quoted segment with an unknown escape")
      }
    } else {
      if (text.includes("=")) {
        throw invalid("contains `=`; quote that segment, as in `table.\"a=b\"`, or nest it in an object")
      }
      segments.push(text)
    }
    from += text.length
  } while (path[from++] === ".")
  return segments
}

const merge = (table: ConfigTable, key: string, node: Node, path: ReadonlyArray<string>): void => {
  const before = table[key]
  if (before === undefined) table[key] = node
  else if (isTable(before) && isTable(node)) {
    for (const [inner, value] of Object.entries(node)) merge(before, inner, value, [...path, inner])
  } else if (node !== undefined) throw new TypeError(`${show(path)} is given twice; give it once`)
}

/**
 * Merges all entries into one tree. The keys of the entries are dotted paths; the keys of nested objects are names.
 *
 * The server does not merge a dotted key with a table. On the command line, the later override replaces the earlier one, and the server
 * applies the overrides of a thread in random order.
 *
 * @throws TypeError that names the key
 */
export const configTree = (config: { readonly [key: string]: unknown }): ConfigTable => {
  if (!Predicate.isObject(config) || !isRecord(config)) {
    throw new TypeError(`it is ${describe(config)}; expected a plain object`)
  }
  const tree = emptyTable()
  for (const [path, value] of Object.entries(config)) {
    const segments = parsePath(path)
    for (const name of segments) checkKey(name, segments)
    const [first = "", ...rest] = segments
    // On the command line, a leading `-` would start another option.
    if (first === "" || /^-|[.=]/.test(first) || first.trim() !== first) {
      throw new TypeError(
        `the key ${
          JSON.stringify(path)
        } cannot be sent: the name of a top-level entry may not be empty, begin with \`-\`, or have ` +
          "a dot, `=` or surrounding white space"
      )
    }
    const leaf = rest.reduceRight<Node>(
      (inner, name) => Object.assign(emptyTable(), { [name]: inner }),
      read(value, segments, [])
    )
    merge(tree, first, leaf, [first])
  }
  return tree
}
