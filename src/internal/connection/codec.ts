/** Converts between the JSON of the wire and the types of the protocol. */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"
import * as Protocol from "../../Protocol.ts"
import { getOwn } from "../getOwn.ts"
import type { IncomingNotification } from "../jsonrpc/messages.ts"
import type { ReadBatch } from "../jsonrpc/readBatch.ts"
import { stringify } from "../jsonrpc/stringify.ts"
import { describeIssue } from "../schemaIssue.ts"

const firstString = (...candidates: ReadonlyArray<unknown>): string | undefined => candidates.find(Predicate.isString)

/** Returns the id of the thread that a message is about. Legacy requests call it a conversation. */
export const getThreadId = (params: unknown): string | undefined =>
  firstString(getOwn(params, "threadId"), getOwn(getOwn(params, "thread"), "id"), getOwn(params, "conversationId"))

/** Returns the id of the turn that a message is about. */
export const getTurnId = (params: unknown): string | undefined =>
  firstString(getOwn(params, "turnId"), getOwn(getOwn(params, "turn"), "id"))

/** Returns the entry of a method in a table of the protocol. `undefined` if the protocol does not have the method. */
export const getSpec = <A extends object>(table: A, method: string): A[keyof A] | undefined =>
  Object.hasOwn(table, method) ? table[method as keyof A] : undefined

type Decoder = (value: unknown) => Result.Result<unknown, Schema.SchemaError>

const decoders = new WeakMap<object, Decoder>()

/**
 * Returns the decoder of a schema. The decoder returns a value that fits unchanged, with its additional fields, and decodes any other value. A
 * decoder is made when it is first used.
 */
export const decoderFor = (schema: Schema.ConstraintDecoder<unknown>): Decoder => {
  const existing = decoders.get(schema)
  if (existing !== undefined) return existing
  const is = Schema.is(schema)
  const decode = Schema.decodeUnknownResult(schema)
  const decoder: Decoder = (value) => is(value) ? Result.succeed(value) : decode(value)
  decoders.set(schema, decoder)
  return decoder
}

/** Decodes a notification. Returns one of a newer protocol unchanged, and one that does not decode as `malformed`. */
export const decodeNotification = (message: IncomingNotification, batch: ReadBatch): Protocol.ServerNotification => {
  const spec = getSpec(Protocol.serverNotifications, message.method)
  if (spec === undefined) return message as Protocol.UnrecognizedNotification
  const params = decoderFor(spec.params)(message.params)
  if (Result.isFailure(params)) {
    batch.warn(`Cannot decode a \`${message.method}\` notification: ${params.failure.message}`)
    return { method: "malformed", raw: message }
  }
  return (params.success === message.params ? message : { ...message, params: params.success }) as Protocol.Notification
}

type Encoder = (value: unknown) => Result.Result<unknown, Schema.SchemaError>

const encoders = new WeakMap<object, Encoder>()

/** Whether the encoded value has all properties of the value. */
const hasNoExcess = (value: unknown, encoded: unknown): boolean => {
  if (value === encoded) return true
  if (!Predicate.isObjectOrArray(value) || !Predicate.isObjectOrArray(encoded)) return false
  for (const key in value) {
    if (!hasNoExcess((value as Record<string, unknown>)[key], (encoded as Record<string, unknown>)[key])) return false
  }
  return true
}

const encoderFor = (schema: Schema.Codec<unknown>): Encoder => {
  const existing = encoders.get(schema)
  if (existing !== undefined) return existing
  const encode = Schema.encodeUnknownResult(schema)
  // The strict encoder names the excess property, and takes twice as long.
  const encodeStrictly = Schema.encodeUnknownResult(schema, { onExcessProperty: "error" })
  const encoder: Encoder = (value) => {
    const encoded = encode(value)
    return Result.isSuccess(encoded) && hasNoExcess(value, encoded.success) ? encoded : encodeStrictly(value)
  }
  encoders.set(schema, encoder)
  return encoder
}

/** Encodes the params of a request as JSON. Fails for fields that the protocol does not have. */
export const encodeParams = (method: string, params: unknown): Result.Result<string | undefined, AppServerError> => {
  const spec = getSpec(Protocol.clientRequests, method)
  if (spec?.params === undefined) return stringify(params, method)
  const given = params ?? spec.defaultParams
  const encoded = encoderFor(spec.params as Schema.Codec<unknown>)(given)
  return Result.isSuccess(encoded)
    ? stringify(encoded.success, method)
    : Result.fail(appServerError(new InvalidRequest({ method, description: describeIssue(encoded.failure, given) })))
}
