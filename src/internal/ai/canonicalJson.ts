/** JSON that does not depend on the order of properties, which stores such as PostgreSQL change. */
import * as Predicate from "effect/Predicate"

const sort = (_: string, value: unknown): unknown =>
  Predicate.isObject(value)
    ? Object.fromEntries(Object.entries(value).toSorted(([one], [other]) => one < other ? -1 : 1))
    : value

export const canonicalJson = (value: unknown): string => JSON.stringify(value, sort) ?? "null"
