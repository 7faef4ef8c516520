/** Reads JSON of which the shape is not known. */
import * as Predicate from "effect/Predicate"

/** An own property of a value, or `undefined` if the value is no object or does not have it. */
export const getOwn = (value: unknown, name: string): unknown =>
  Predicate.isObject(value) && Object.hasOwn(value, name) ? (value as Record<string, unknown>)[name] : undefined
