/**
 * Schemas read an optional field with `in`, which finds inherited properties: of an object without a field `toString` they would
 * read the method. JSON for a schema that has a field of such a name is therefore read without prototypes.
 */
import { identity } from "effect/Function"

const inherited = new Set(Object.getOwnPropertyNames(Object.prototype))

const isContainer = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

/** Whether a JSON Schema, or anything that it is made of, mentions an inherited name. */
const mentionsInherited = (schema: unknown): boolean => {
  const todo = [schema]
  for (const value of todo) {
    if (!isContainer(value)) continue
    for (const [name, inner] of Object.entries(value)) {
      if (inherited.has(name)) return true
      todo.push(inner)
    }
  }
  return false
}

const shallow = (value: unknown): unknown =>
  Array.isArray(value) ? value.slice() : isContainer(value) ? Object.assign(Object.create(null), value) : value

/** A copy of JSON of any depth, whose objects have no prototype. */
const withoutPrototypes = (json: unknown): unknown => {
  const copy = shallow(json)
  const todo = [copy]
  for (const value of todo) {
    if (!isContainer(value)) continue
    for (const [name, inner] of Object.entries(value)) {
      if (isContainer(inner)) todo.push(value[name] = shallow(inner))
    }
  }
  return copy
}

/** Prepares JSON to be decoded by the schema that this JSON Schema describes. */
export const ownFields = (jsonSchema: unknown): (json: unknown) => unknown =>
  mentionsInherited(jsonSchema) ? withoutPrototypes : identity
