/** Removes secrets from messages, before a cassette records them and before a replay compares them. */
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import { escape } from "effect/RegExp"
import type * as Schema from "effect/Schema"
import { ansiColors, makeRedact, redacted } from "../../redact.ts"

export interface Redact {
  readonly text: (text: string) => string
  readonly json: (value: Schema.Json) => Schema.Json
}

/** Pattern of property names whose values are always secrets. Token counts do not match, because they have plural names. */
const secretNames =
  "[\\w-]*(?:api[_-]?key|access[_-]?key|private[_-]?key|token|secret|password|passwd)|authorization|(?:set-)?cookie"

/** The pattern of a name, also in snake case, which configuration uses. */
const toNamePattern = (name: string): string => escape(name).replace(/([a-z0-9])([A-Z])/g, "$1[_-]?$2")

export const isJsonObject = (value: Schema.Json | undefined): value is Schema.JsonObject =>
  Predicate.isObject(value) && !Array.isArray(value)

export const mapEntries = (
  object: Schema.JsonObject,
  f: (key: string, value: Schema.Json) => readonly [string, Schema.Json]
): Schema.JsonObject => Object.fromEntries(Object.entries(object).map(([key, value]) => f(key, value)))

/** Maximum length of a cached text, in characters. Names, ids and methods are short and repeat. */
const maxCachedLength = 64

/** Maximum number of cached texts. A full cache is cleared. */
const maxCachedTexts = 1000

/** Makes a redaction of fields and secrets. `removeSecrets` removes those that only the transport knows. */
export const makeJsonRedact = (
  fields: ReadonlyArray<string>,
  secrets: ReadonlyArray<string>,
  removeSecrets: (text: string) => string = identity
): Redact => {
  const names = [secretNames, ...fields.map(toNamePattern)].join("|")
  const isSecret = new RegExp(`^(?:${names})$`, "i")
  // A member of JSON within a string, such as tool arguments or a partial line. Its quotes may be escaped.
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
    // Keep colors, unless they interrupt a secret.
    return result === text.replace(ansiColors, "") ? text : result
  }

  const cache = new Map<string, string>()
  const text = (text: string): string => {
    if (text.length > maxCachedLength) return clean(text)
    let result = cache.get(text)
    if (result === undefined) {
      result = clean(text)
      if (cache.size >= maxCachedTexts) cache.clear()
      cache.set(text, result)
    }
    return result
  }

  /** Keeps the types of the values, so that a message still decodes. */
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
