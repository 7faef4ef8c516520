/** How the types of handlers tell which services they need. */
import type * as Effect from "effect/Effect"

/** Services that have names. An option that is left out has the type of any handlers, whose services are unknown; it needs none. */
export type KnownServices<R> = unknown extends R ? never : R

/** The services of the handlers in a record. */
export type HandlerServices<H> = {
  [K in keyof H]-?: H[K] extends ((request: never) => Effect.Effect<infer _A, infer _E, infer R>) | undefined ? R
    : never
}[keyof H]

/** Nothing but what a shape has: a misspelt handler would never be asked. */
export type NoExcessProperties<H, Shape> = { readonly [K in Exclude<keyof H, keyof Shape>]: never }
