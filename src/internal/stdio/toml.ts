/** Writes the values of `-c key=value` overrides. */

/**
 * A value of Codex's configuration, as TOML knows it (TOML has no null).
 */
export type TomlValue = string | number | boolean | ReadonlyArray<TomlValue> | { readonly [key: string]: TomlValue }

// JSON strings are TOML basic strings, but for DEL, which TOML wants escaped.
const string = (value: string): string => JSON.stringify(value.toWellFormed()).replaceAll("\u007f", "\\u007f")

const number = (value: number): string =>
  Number.isNaN(value) ? "nan" : Number.isFinite(value) ? String(value) : value > 0 ? "inf" : "-inf"

const key = (name: string): string => /^[\w-]+$/.test(name) ? name : string(name)

export const encodeToml = (value: TomlValue): string => {
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
        : `{ ${Object.entries(value).map(([name, inner]) => `${key(name)} = ${encodeToml(inner)}`).join(", ")} }`
  }
}
