/** Encodes messages as JSON. */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"
import { describe } from "../options.ts"

/**
 * Replaces lone surrogates, as `toWellFormed` does: the server drops a message with one and sends no response. `JSON.stringify` writes a
 * lone surrogate as an escape. After an escaped backslash the same characters are text.
 */
const wellFormed = (json: string | undefined): string | undefined =>
  json?.includes("\\ud")
    ? json.replace(/\\(?:ud[89a-f][0-9a-f]{2}|.)/g, (escape) =>
      escape.length === 6 && escape[2] === "d" ? "\ufffd" : escape)
    : json

/** Describes the first value that `JSON.stringify` leaves out without an error. The value must not be circular. */
const findOmitted = (value: unknown, path: string): string | undefined => {
  if (typeof value === "function" || typeof value === "symbol" || Schema.isSchema(value)) {
    return `\`${path}\` is ${describe(value)}; expected JSON`
  }
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const issue = findOmitted(value[index], `${path}[${index}]`)
      if (issue !== undefined) return issue
    }
    return undefined
  }
  if (!Predicate.isObject(value) || "toJSON" in value) return undefined
  for (const key of Object.keys(value)) {
    const inner = value[key]
    if (typeof inner === "string") continue
    const issue = findOmitted(inner, path === "" ? key : `${path}.${key}`)
    if (issue !== undefined) return issue
  }
  return undefined
}

/** Encodes a value as JSON. `undefined` has no JSON. */
export const stringify = (value: unknown, method: string): Result.Result<string | undefined, AppServerError> => {
  try {
    const json = JSON.stringify(value)
    const issue = findOmitted(value, "")
    return issue === undefined
      ? Result.succeed(wellFormed(json))
      : Result.fail(appServerError(new InvalidRequest({ method, description: issue })))
  } catch (cause) {
    return Result.fail(
      appServerError(
        new InvalidRequest({ method, description: `the params cannot be encoded as JSON: ${String(cause)}` })
      )
    )
  }
}
