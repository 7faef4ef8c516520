/** Removes secrets from messages before they are written down, and from those that are compared with what was. */
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import { escape } from "effect/RegExp"
import type * as Schema from "effect/Schema"
import { makeRedact } from "../stdio/redact.ts"

/** What stands where a secret was. */
export const redacted = "<redacted>"

export interface Redact {
  readonly text: (text: string) => string
  readonly json: (value: Schema.Json) => Schema.Json
}

/** Names of properties whose value is a secret whatever it looks like. Counts of tokens end in a plural. */
const secretNames =
  "[\\w-]*(?:api[_-]?key|access[_-]?key|private[_-]?key|token|secret|password|passwd)|authorization|(?:set-)?cookie"

/** In snake case, too: a configuration has its names that way. */
const namePattern = (name: string): string => escape(name).replace(/([a-z0-9])([A-Z])/g, "$1[_-]?$2")

// oxlint-disable-next-line no-control-regex
const colours = /\u001b\[[0-9;]*m/g

export const isJsonObject = (value: Schema.Json | undefined): value is Schema.JsonObject =>
  Predicate.isObject(value) && !Array.isArray(value)

export const mapEntries = (
  object: Schema.JsonObject,
  f: (key: string, value: Schema.Json) => readonly [string, Schema.Json]
): Schema.JsonObject => Object.fromEntries(Object.entries(object).map(([key, value]) => f(key, value)))

/** `removeSecrets` knows more secrets than those that are given. */
export const makeJsonRedact = (
  fields: ReadonlyArray<string>,
  secrets: ReadonlyArray<string>,
  removeSecrets: (text: string) => string = identity
): Redact => {
  const names = [secretNames, ...fields.map(namePattern)].join("|")
  const isSecret = new RegExp(`^(?:${names})$`, "i")
  // JSON within a string, such as the arguments of a tool or a line that was cut, with quotes escaped or not.
  const member = new RegExp(
    `(\\\\*["'])(${names})\\1(\\s*:\\s*)(\\1(?:(?!\\1)(?:\\\\.|[^]))*|-?\\d[^\\s,}\\]]*)`,
    "gi"
  )
  const credentials = makeRedact(secrets)

  const clean = (original: string): string => {
    const text = removeSecrets(original)
    let result = ""
    let last = 0
    for (const match of text.matchAll(member)) {
      const [all, quote = "", name, colon, value = ""] = match
      // The quote at the end of a string is not part of the match.
      const closing = value.startsWith(quote) ? "" : quote
      result += `${
        credentials(text.slice(last, match.index))
      }${quote}${name}${quote}${colon}${quote}${redacted}${closing}`
      last = match.index + all.length
    }
    result += credentials(text.slice(last))
    // Colours are no secrets, unless they were in the middle of one.
    return result === text.replace(colours, "") ? text : result
  }

  // Names, ids and methods come again and again.
  const known = new Map<string, string>()
  const text = (text: string): string => {
    if (text.length > 64) return clean(text)
    let result = known.get(text)
    if (result === undefined) {
      result = clean(text)
      if (known.size >= 1000) known.clear()
      known.set(text, result)
    }
    return result
  }

  /** Keeps the shape, so that what reads a message can still read it. */
  const blank = (value: Schema.Json): Schema.Json => {
    if (Predicate.isString(value)) return redacted
    if (Predicate.isNumber(value)) return 0
    if (Array.isArray(value)) return value.map(blank)
    return isJsonObject(value) ? mapEntries(value, (key, item) => [text(key), blank(item)]) : value
  }

  const json = (value: Schema.Json): Schema.Json => {
    if (Predicate.isString(value)) return text(value)
    if (Array.isArray(value)) return value.map(json)
    return isJsonObject(value)
      ? mapEntries(value, (key, item) => [text(key), isSecret.test(key) ? blank(item) : json(item)])
      : value
  }

  return { text, json }
}
