/** The `config` of threads: overrides of `config.toml`, as JSON whose keys may be dotted paths. */
import * as Predicate from "effect/Predicate"

export type Config = { readonly [key: string]: unknown }

const isTable = (value: unknown): value is Config => Predicate.isObject(value) && !Array.isArray(value)

const merge = (one: Config, other: Config): Config => {
  const merged = new Map(Object.entries(one))
  for (const [key, value] of Object.entries(other)) {
    const before = merged.get(key)
    merged.set(key, isTable(before) && isTable(value) ? merge(before, value) : value)
  }
  return Object.fromEntries(merged)
}

/** A config with tables in place of dotted keys, so that each key has one place. */
const expanded = (config: Config): Config =>
  Object.entries(config).map(([key, value]) =>
    key.split(".").reduceRight<unknown>((inner, name) => ({ [name]: inner }), value) as Config
  ).reduce(merge, {})

/** One config out of several; of two values for a key the later one holds. */
export const mergeConfig = (...configs: ReadonlyArray<Config | null | undefined>): Config | undefined => {
  const given = configs.filter(Predicate.isNotNullish).filter((config) => Object.keys(config).length > 0)
  return given.length <= 1 ? given[0] : given.map(expanded).reduce(merge)
}

/** Whether a config has a value for a key, given by its path. */
export const hasKey = (config: Config | null | undefined, ...path: ReadonlyArray<string>): boolean => {
  let value: unknown = Predicate.isNullish(config) ? undefined : expanded(config)
  for (const name of path) {
    if (!isTable(value) || !Object.hasOwn(value, name)) return false
    value = value[name]
  }
  return true
}
