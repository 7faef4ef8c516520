/** Errors of a turn after which a later attempt may succeed. With a key, it continues the turn. */
import * as Schedule from "effect/Schedule"
import type { AppServerError } from "../../AppServerError.ts"

const reasons: ReadonlySet<string> = new Set([
  "TurnLost",
  "ConnectionClosed",
  "ThreadLocked",
  "Overloaded",
  "RequestTimeout"
])

/** Whether another process has the thread open, or the server was restarted or busy. */
const isTransient = (error: AppServerError | { readonly _tag: string }): boolean =>
  "reason" in error && error._tag === "AppServerError" && reasons.has(error.reason._tag)

/** How long an attempt is repeated. */
export const whileTransient = {
  while: isTransient,
  schedule: Schedule.exponential("200 millis").pipe(Schedule.upTo({ duration: "1 minute" }))
}
