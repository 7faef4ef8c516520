/** Reads the parts of an event, which may have any shape. */
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Protocol from "../../Protocol.ts"
import { getOwn, getOwnString } from "../getOwn.ts"

/**
 * Decodes what a part of an event should be. A part that the connection has decoded remains the same object. The decoder is made when it is
 * first used, for a cheap import.
 */
export const decoder = <A>(schema: Schema.Codec<A>): (value: unknown) => A | undefined => {
  let decode: ((value: unknown) => Option.Option<A>) | undefined
  return (value) => {
    decode ??= Schema.decodeUnknownOption(schema)
    return Option.getOrUndefined(decode(value))
  }
}

const decodeItem = decoder(Protocol.ThreadItem)
const decodeError = decoder(Protocol.TurnError)
const decodeErrorInfo = decoder(Protocol.CodexErrorInfo)

/** The JSON of an event, or of its params. Only own properties matter, and `Object.prototype` has none of the names that are read. */
export interface JsonObject {
  readonly [name: string]: unknown
}

const noFields: JsonObject = {}

export const toObject = (value: unknown): JsonObject => Predicate.isObject(value) ? value as JsonObject : noFields

/** Returns the notification or request itself, also if it did not decode. */
export const unwrap = (event: unknown): JsonObject => {
  const message = toObject(event)
  return message["method"] === "malformed" ? toObject(message["raw"]) : message
}

/** Returns an own property of a value if it is a finite number. */
export const getOwnNumber = (value: unknown, name: string): number | null => {
  const property = getOwn(value, name)
  return typeof property === "number" && Number.isFinite(property) ? property : null
}

/** An item, and its JSON. */
export interface ReadItem {
  readonly id: string
  readonly item: Protocol.ThreadItem
  readonly raw: unknown
}

/** Reads an item with an id and a type. An item of the wrong shape becomes a malformed variant. */
export const readItem = (value: unknown): ReadItem | undefined => {
  const raw = getOwn(value, "type") === "malformed" ? getOwn(value, "raw") : value
  const id = getOwnString(raw, "id")
  const type = getOwnString(raw, "type")
  if (id === undefined || type === undefined || type === "malformed") return undefined
  const item = decodeItem(raw)
  return item && { id, item, raw }
}

/** Reads an error, as far as it has the shape of one. */
export const readError = (error: unknown): Protocol.TurnError | null => {
  if (!Predicate.isObject(error)) return null
  return decodeError(error) ?? {
    message: getOwnString(error, "message") ?? "the server gave no reason",
    codexErrorInfo: decodeErrorInfo(getOwn(error, "codexErrorInfo")) ?? null,
    additionalDetails: getOwnString(error, "additionalDetails") ?? null
  }
}
