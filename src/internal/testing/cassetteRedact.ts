/** Removes secrets from messages before they are written down, and from those that are compared with what was. */
import * as Predicate from "effect/Predicate"
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
const namePattern = (name: string): string =>
  name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&").replace(/([a-z0-9])([A-Z])/g, "$1[_-]?$2")

// oxlint-disable-next-line no-control-regex
const colours = /\u001b\[[0-9;]*m/g

/** Keeps the shape, so that what reads a message can still read it. */
const blank = (value: Schema.Json): Schema.Json => {
  if (Predicate.isString(value)) return redacted
  if (Predicate.isNumber(value)) return 0
  if (Array.isArray(value)) return value.map(blank)
  if (Predicate.isObject(value)) return mapEntries(value as Schema.JsonObject, (key, item) => [key, blank(item)])
  return value
}

export const mapEntries = (
  object: Schema.JsonObject,
  f: (key: string, value: Schema.Json) => readonly [string, Schema.Json]
): Schema.JsonObject => Object.fromEntries(Object.entries(object).map(([key, value]) => f(key, value)))

export const makeJsonRedact = (
  fields: ReadonlyArray<string>,
  secrets: ReadonlyArray<string>
): Redact => {
  const names = [secretNames, ...fields.map(namePattern)].join("|")
  const isSecret = new RegExp(`^(?:${names})$`, "i")
  // JSON within a string, such as the arguments of a tool or a line that was cut, with quotes escaped or not.
  const member = new RegExp(
    `(\\\\*["'])(${names})\\1(\\s*:\\s*)(\\1(?:(?!\\1)(?:\\\\.|[^]))*|-?\\d[^\\s,}\\]]*)`,
    "gi"
  )
  const credentials = makeRedact(
    secrets
      // A secret with a quote in it looks different within JSON within a string.
      .flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1)])
      // One may be a part of another.
      .sort((a, b) => b.length - a.length)
  )

  const text = (text: string): string => {
    const clean = credentials(text.replace(
      member,
      (_, quote: string, name: string, colon: string, value: string) =>
        // The quote at the end of a string is not part of the match.
        `${quote}${name}${quote}${colon}${quote}${redacted}${value.startsWith(quote) ? "" : quote}`
    ))
    // Colours are no secrets, unless they were in the middle of one.
    return clean === text.replace(colours, "") ? text : clean
  }

  const json = (value: Schema.Json): Schema.Json => {
    if (Predicate.isString(value)) return text(value)
    if (Array.isArray(value)) return value.map(json)
    if (Predicate.isObject(value)) {
      return mapEntries(
        value as Schema.JsonObject,
        (key, item) => [text(key), isSecret.test(key) ? blank(item) : json(item)]
      )
    }
    return value
  }

  return { text, json }
}
