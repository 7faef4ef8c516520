/** Types that compute which services handlers need. */
import type * as Effect from "effect/Effect"

/** The services `R` if they are known. An option that is left out infers unknown services, and needs none. */
export type KnownServices<R> = unknown extends R ? never : R

/** The services of the handlers in a record. */
export type HandlerServices<H> = {
  [K in keyof H]-?: H[K] extends ((request: never) => Effect.Effect<infer _A, infer _E, infer R>) | undefined ? R
    : never
}[keyof H]

/** Forbids properties that a shape does not have: a misspelled handler would never be called. */
export type NoExcessProperties<H, Shape> = { readonly [K in Exclude<keyof H, keyof Shape>]: never }
