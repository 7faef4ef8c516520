/** Schemas in the form that the serializations of a cluster can encode. */
import * as Schema from "effect/Schema"

/**
 * Encodes a value as JSON as a whole. The binary serialization, the default of a cluster, cannot tell the open variants of the protocol
 * apart, nor literals from other strings.
 */
export const asJson = <A, E>(schema: Schema.Codec<A, E>): Schema.Codec<A, Schema.Json> =>
  Schema.Json.pipe(Schema.decodeTo(Schema.toCodecJson(schema)))
