/** Prints the violations of a check and makes the process fail. */
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"

export const report = Effect.fnUntraced(function*(violations: ReadonlyArray<string>) {
  for (const violation of violations) yield* Console.error(violation)
  if (violations.length > 0) process.exitCode = 1
})
