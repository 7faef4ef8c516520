/** Errors of turns without secrets. */
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../../Protocol.ts"

/** Removes the secrets from the error of a turn. */
export const redactError = (
  { additionalDetails, codexErrorInfo, message }: Protocol.TurnError,
  redact: (text: string) => string
): Protocol.TurnError => ({
  message: redact(message),
  codexErrorInfo: codexErrorInfo ?? null,
  additionalDetails: Predicate.isNullish(additionalDetails) ? null : redact(additionalDetails)
})
