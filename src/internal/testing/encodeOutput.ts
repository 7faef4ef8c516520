/** The text of a typed output, as a model writes it. */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import { loadOutputCodec } from "../output/loadOutputCodec.ts"

/** Encodes a value in parts of a few characters. Dies if the value does not satisfy the schema, which is a mistake of the test. */
export const encodeOutput = <A, E, R>(
  schema: Schema.ConstraintCodec<A, E, R>,
  value: NoInfer<A>
): Effect.Effect<ReadonlyArray<string>> =>
  loadOutputCodec.pipe(
    Effect.flatMap(({ makeOutputCodec }) => makeOutputCodec(schema)),
    Effect.flatMap((codec) => codec.encode(value)),
    Effect.map((text) => text.match(/.{1,16}/gsu) ?? []),
    Effect.orDie
  )
