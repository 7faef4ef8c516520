/** From values to the JSON that is sent. */
import * as Result from "effect/Result"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"

/**
 * A lone surrogate makes the server drop the whole message without a word, so it is replaced, as `toWellFormed` does.
 * `JSON.stringify` writes one as an escape; an escaped backslash before it is text, not an escape.
 */
const wellFormed = (json: string | undefined): string | undefined =>
  json?.includes("\\ud")
    ? json.replace(/\\(?:ud[89a-f][0-9a-f]{2}|.)/g, (escape) =>
      escape.length === 6 && escape[2] === "d" ? "\ufffd" : escape)
    : json

/** A value as JSON that the server reads. `undefined` has none. */
export const stringify = (value: unknown, method: string): Result.Result<string | undefined, AppServerError> => {
  try {
    return Result.succeed(wellFormed(JSON.stringify(value)))
  } catch (cause) {
    return Result.fail(
      appServerError(new InvalidRequest({ method, description: `it cannot be written as JSON: ${String(cause)}` }))
    )
  }
}
