/** Writes configuration as TOML, and as `-c key=value` overrides. */
import { type ConfigTable, configTree, isTable, type TomlValue } from "../configTree.ts"

export type { TomlValue }

// JSON strings are TOML basic strings, but for DEL, which TOML wants escaped.
const string = (value: string): string => JSON.stringify(value.toWellFormed()).replaceAll("\u007f", "\\u007f")

const number = (value: number): string =>
  Number.isNaN(value) ? "nan" : Number.isFinite(value) ? String(value) : value > 0 ? "inf" : "-inf"

const isBare = (name: string): boolean => /^[\w-]+$/.test(name)

const key = (name: string): string => isBare(name) ? name : string(name)

const entriesOf = (table: object): ReadonlyArray<[string, unknown]> =>
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
      if (typeof value !== "object" || value === null) {
        throw new TypeError(`TOML has no ${value === null ? "null" : typeof value}`)
      }
      return Array.isArray(value)
        ? `[${value.map(encodeToml).join(", ")}]`
        : `{ ${entriesOf(value).map(([name, inner]) => `${key(name)} = ${encodeToml(inner)}`).join(", ")} }`
  }
}

/** A whole document, one line a top-level entry. */
export const encodeTomlDocument = (table: object): string =>
  entriesOf(table).map(([name, value]) => `${key(name)} = ${encodeToml(value)}\n`).join("")

/**
 * `key=value` for each entry of a tree. The server cuts such a key at every dot and knows no quotes, so a table with a key that
 * needs them is written as a value.
 */
const overrides = (path: string, node: ConfigTable[string]): ReadonlyArray<string> => {
  if (!isTable(node)) return [`${path}=${encodeToml(node)}`]
  const entries = entriesOf(node) as ReadonlyArray<[string, ConfigTable[string]]>
  return entries.length > 0 && entries.every(([name]) => isBare(name))
    ? entries.flatMap(([name, inner]) => overrides(`${path}.${name}`, inner))
    : [`${path}=${encodeToml(node)}`]
}

/**
 * The overrides to pass as `-c`, of a configuration whose keys may be dotted paths.
 *
 * @throws TypeError which names the key that cannot be written
 */
export const tomlOverrides = (config: { readonly [key: string]: unknown }): ReadonlyArray<string> =>
  entriesOf(configTree(config)).flatMap(([name, node]) => overrides(name, node as ConfigTable[string]))
