/** The `config` of threads: overrides of `config.toml`, as a tree of tables. */
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import { isTable } from "../../configTree.ts"

export type Config = { readonly [key: string]: unknown }

const merge = (one: Config, other: Config): Config => {
  const merged = new Map(Object.entries(one))
  for (const [key, value] of Object.entries(other)) {
    const before = merged.get(key)
    merged.set(key, isTable(before) && isTable(value) ? merge(before, value) : value)
  }
  return Object.fromEntries(merged)
}

/** Merges configs. The later value of a key replaces the earlier one. */
export const mergeConfig = (...configs: ReadonlyArray<Config | null | undefined>): Config | undefined => {
  const given = configs.filter(Predicate.isNotNullish).filter((config) => Object.keys(config).length > 0)
  return given.length === 0 ? undefined : given.reduce(merge, {})
}

/** Whether a config contains all values of another one. */
export const includesConfig = (config: Config | null | undefined, other: Config | null | undefined): boolean =>
  Equal.equals(mergeConfig(config, other), mergeConfig(config))

/** Whether a config has a value for a top-level key. */
export const hasKey = (config: Config | null | undefined, key: string): boolean =>
  Predicate.isNotNullish(config) && Object.hasOwn(config, key)
