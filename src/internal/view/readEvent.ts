/** Reads the parts of an event, which may have any shape. */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Protocol from "../../Protocol.ts"
import { getOwn, getOwnString } from "../getOwn.ts"

const isItem = Schema.is(Protocol.ThreadItem)
const isTurnError = Schema.is(Protocol.TurnError)
const isCodexErrorInfo = Schema.is(Protocol.CodexErrorInfo)

/** Returns the notification or request itself, also if it did not decode. */
export const unwrap = (event: unknown): unknown =>
  getOwn(event, "method") === "malformed" ? getOwn(event, "raw") : event

/** Returns an own property of a value if it is a finite number. */
export const getOwnNumber = (value: unknown, name: string): number | null => {
  const property = getOwn(value, name)
  return typeof property === "number" && Number.isFinite(property) ? property : null
}

/** Reads an item with an id. An item of the wrong shape becomes a malformed variant. */
export const readItem = (value: unknown): { readonly id: string; readonly item: Protocol.ThreadItem } | undefined => {
  const isMalformed = getOwn(value, "type") === "malformed"
  const id = getOwnString(isMalformed ? getOwn(value, "raw") : value, "id")
  if (id === undefined) return undefined
  if (isMalformed || isItem(value)) return { id, item: value as Protocol.ThreadItem }
  return { id, item: { type: "malformed", raw: value } as Protocol.ThreadItem }
}

/** Reads an error, as far as it has the shape of one. */
export const readError = (error: unknown): Protocol.TurnError | null => {
  if (!Predicate.isObject(error)) return null
  if (isTurnError(error)) return error
  const codexErrorInfo = getOwn(error, "codexErrorInfo")
  return {
    message: getOwnString(error, "message") ?? "the server gave no reason",
    codexErrorInfo: isCodexErrorInfo(codexErrorInfo) ? codexErrorInfo : null,
    additionalDetails: getOwnString(error, "additionalDetails") ?? null
  }
}
