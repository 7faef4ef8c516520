/** Writes configuration as TOML, and as `-c key=value` overrides. */
import * as Predicate from "effect/Predicate"
import { type ConfigTable, configTree, isTable } from "../configTree.ts"

// A JSON string is a TOML basic string, except for DEL, which TOML requires to be escaped.
const string = (value: string): string => JSON.stringify(value.toWellFormed()).replaceAll("\u007f", "\\u007f")

const number = (value: number): string =>
  Number.isNaN(value) ? "nan" : Number.isFinite(value) ? String(value) : value > 0 ? "inf" : "-inf"

const isBare = (name: string): boolean => /^[\w-]+$/.test(name)

const key = (name: string): string => isBare(name) ? name : string(name)

const definedEntries = <A>(table: { readonly [name: string]: A }): ReadonlyArray<[string, A]> =>
  Object.entries(table).filter(([, value]) => value !== undefined)

export const encodeToml = (value: unknown): string => {
  switch (typeof value) {
    case "string":
      return string(value)
    case "number":
      return number(value)
    case "boolean":
      return String(value)
    default:
      if (Array.isArray(value)) return `[${value.map(encodeToml).join(", ")}]`
      if (Predicate.isObject(value)) {
        return `{ ${definedEntries(value).map(([name, inner]) => `${key(name)} = ${encodeToml(inner)}`).join(", ")} }`
      }
      throw new TypeError(`TOML has no ${value === null ? "null" : typeof value}`)
  }
}

/** Encodes a whole document, with one line for each top-level entry. */
export const encodeTomlDocument = (table: { readonly [name: string]: unknown }): string =>
  definedEntries(table).map(([name, value]) => `${key(name)} = ${encodeToml(value)}\n`).join("")

/**
 * Writes `key=value` for each entry of a tree. The server splits such a key at every dot and does not read quotes. So a table with a key
 * that needs quotes is written as a value.
 */
const overrides = (path: string, node: ConfigTable[string]): ReadonlyArray<string> => {
  if (!isTable(node)) return [`${path}=${encodeToml(node)}`]
  const entries = definedEntries(node)
  return entries.length > 0 && entries.every(([name]) => isBare(name))
    ? entries.flatMap(([name, inner]) => overrides(`${path}.${name}`, inner))
    : [`${path}=${encodeToml(node)}`]
}

/**
 * Returns the overrides to pass as `-c` for a configuration whose keys may be dotted paths.
 *
 * @throws TypeError that names the key that cannot be written
 */
export const tomlOverrides = (config: { readonly [key: string]: unknown }): ReadonlyArray<string> =>
  definedEntries(configTree(config)).flatMap(([name, node]) => overrides(name, node))
