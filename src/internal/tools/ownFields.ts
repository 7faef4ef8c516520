/**
 * Keeps schemas from reading inherited properties. A schema reads an optional field with `in`, so of an object without a field `toString` it
 * would read the method. JSON for a schema with such a field is therefore copied without prototypes.
 */
import { identity } from "effect/Function"

const inherited = new Set(Object.getOwnPropertyNames(Object.prototype))

const isContainer = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null

/** Whether a JSON Schema contains an inherited name at any depth. */
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

/** Copies JSON of any depth into objects without a prototype. */
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

/** Returns the function that prepares JSON for the schema that a JSON Schema describes. */
export const ownFields = (jsonSchema: unknown): (json: unknown) => unknown =>
  mentionsInherited(jsonSchema) ? withoutPrototypes : identity
