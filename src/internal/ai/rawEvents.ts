/** The events of the model's own responses. A thread that was started with `experimentalRawEvents` has them, and no schema declares them. */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { TurnEvent } from "../../Turn.ts"
import * as Usage from "../../Usage.ts"
import { getOwn, getOwnString } from "../getOwn.ts"

/** What a raw event says about the current response of the model. */
export type RawEvent =
  | { readonly type: "call"; readonly id: string; readonly name: string }
  | { readonly type: "output"; readonly id: string }
  | { readonly type: "completed"; readonly usage: Usage.Tokens | undefined }
  | { readonly type: "other" }

const isTokens = Schema.is(Usage.Tokens)

const other: RawEvent = { type: "other" }

/** Reads a raw event. Returns `undefined` for all other events. */
export const readRawEvent = (event: TurnEvent): RawEvent | undefined => {
  // No literal type has these methods.
  const method: string = event.method
  const params: unknown = getOwn(event, "params")
  if (method === "rawResponse/completed") {
    const usage = getOwn(params, "usage")
    return { type: "completed", usage: isTokens(usage) ? usage : undefined }
  }
  if (method !== "rawResponseItem/completed") return undefined
  const item = getOwn(params, "item")
  const id = getOwnString(item, "call_id")
  const name = getOwnString(item, "name")
  if (id === undefined) return other
  switch (getOwnString(item, "type")) {
    case "function_call":
      return Predicate.isString(name) ? { type: "call", id, name } : other
    case "function_call_output":
      return { type: "output", id }
    default:
      return other
  }
}
