/** Writes values as the JSON that is sent. */
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"
import { describe } from "../options.ts"

/**
 * A lone surrogate makes the server drop the whole message without a response, so it is replaced, as `toWellFormed` does.
 * `JSON.stringify` writes one as an escape; an escaped backslash before it is text, not an escape.
 */
const wellFormed = (json: string | undefined): string | undefined =>
  json?.includes("\\ud")
    ? json.replace(/\\(?:ud[89a-f][0-9a-f]{2}|.)/g, (escape) =>
      escape.length === 6 && escape[2] === "d" ? "\ufffd" : escape)
    : json

/** The path of a value that JSON silently leaves out. The value must not be circular. */
const notJson = (value: unknown, path: string): string | undefined => {
  if (typeof value === "function" || typeof value === "symbol" || Schema.isSchema(value)) {
    return `\`${path}\` is ${describe(value)}; expected JSON`
  }
  if (typeof value !== "object" || value === null) return undefined
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      const odd = notJson(value[index], `${path}[${index}]`)
      if (odd !== undefined) return odd
    }
    return undefined
  }
  if ("toJSON" in value) return undefined
  for (const key of Object.keys(value)) {
    const inner = (value as Record<string, unknown>)[key]
    if (typeof inner === "string") continue
    const odd = notJson(inner, path === "" ? key : `${path}.${key}`)
    if (odd !== undefined) return odd
  }
  return undefined
}

/** Writes a value as JSON that the server reads. `undefined` has no JSON. */
export const stringify = (value: unknown, method: string): Result.Result<string | undefined, AppServerError> => {
  try {
    const json = JSON.stringify(value)
    const odd = notJson(value, "")
    return odd === undefined
      ? Result.succeed(wellFormed(json))
      : Result.fail(appServerError(new InvalidRequest({ method, description: odd })))
  } catch (cause) {
    return Result.fail(
      appServerError(
        new InvalidRequest({ method, description: `the params cannot be written as JSON: ${String(cause)}` })
      )
    )
  }
}
