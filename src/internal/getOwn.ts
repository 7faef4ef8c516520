/** Reads JSON of unknown shape. */
import * as Predicate from "effect/Predicate"

/** Returns an own property of a value, or `undefined` if the value is not an object or does not have it. */
export const getOwn = (value: unknown, name: string): unknown =>
  Predicate.isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined

/** Returns an own property of a value if it is a string. */
export const getOwnString = (value: unknown, name: string): string | undefined => {
  const property = getOwn(value, name)
  return Predicate.isString(property) ? property : undefined
}
