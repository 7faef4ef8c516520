/** Checks options at run time, for programs in plain JavaScript. */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

/** The values that an option can have. */
export interface Kind {
  /** The noun after "expected" in an error, such as "a string". */
  readonly expected: string
  readonly is: (value: unknown) => boolean
  /** Returns the name of the first invalid entry, where a value has entries. */
  readonly entry?: (value: unknown) => string | undefined
}

/** The kind of every option. */
export type Kinds<Options> = { readonly [K in keyof Options]-?: Kind }

export const string: Kind = { expected: "a string", is: Predicate.isString }
export const nonEmpty: Kind = {
  expected: "a string that is not empty",
  is: (value) => Predicate.isString(value) && value !== ""
}
export const boolean: Kind = { expected: "a boolean", is: Predicate.isBoolean }
export const number: Kind = { expected: "a number", is: Predicate.isNumber }
export const positive: Kind = {
  expected: "a number of at least 1",
  is: (value) => Predicate.isNumber(value) && value >= 1
}
export const count: Kind = {
  expected: "a whole number of at least 0",
  is: (value) => Number.isSafeInteger(value) && Number(value) >= 0
}
export const duration: Kind = {
  expected: "a duration, such as \"5 seconds\" or a number of milliseconds",
  is: (value) =>
    !Number.isNaN(value) &&
    Option.exists(Duration.fromInput(value as Duration.Input), (duration) => !Duration.isNegative(duration))
}
export const strings: Kind = {
  expected: "an array of strings",
  is: (value) => Array.isArray(value) && value.every(Predicate.isString)
}
export const object: Kind = { expected: "an object", is: Predicate.isObject }
export const func: Kind = { expected: "a function", is: Predicate.isFunction }
export const schema: Kind = { expected: "an Effect Schema", is: Schema.isSchema }
export const jsonSchema: Kind = {
  expected: "a JSON Schema. Pass an Effect Schema as `output`",
  // A `dialect` marks the result of `Schema.toJsonSchemaDocument`, which only contains a JSON Schema.
  is: (value) =>
    value === null || (Predicate.isObject(value) && !Schema.isSchema(value) && !Object.hasOwn(value, "dialect"))
}

export const anything: Kind = { expected: "anything", is: () => true }

export const oneOf = (...values: ReadonlyArray<string>): Kind => ({
  expected: values.map((value) => JSON.stringify(value)).join(" or "),
  is: (value) => values.includes(value as string)
})

/** A record whose values are of a kind, or `undefined`. */
export const recordOf = (kind: Kind): Kind => {
  const entry = (value: unknown) =>
    Predicate.isObject(value)
      ? Object.keys(value).find((name) => value[name] !== undefined && !kind.is(value[name]))
      : undefined
  return {
    expected: `an object whose values are each ${kind.expected}`,
    is: (value) => Predicate.isObject(value) && entry(value) === undefined,
    entry
  }
}

/** Describes a value of the wrong kind. The content of a string is left out: it may be a prompt or a secret. */
export const describe = (value: unknown): string => {
  if (Predicate.isNullish(value) || Predicate.isNumber(value) || Predicate.isBoolean(value)) return String(value)
  if (Array.isArray(value)) return "an array"
  if (Schema.isSchema(value)) return "an Effect Schema"
  return /^[aeiou]/.test(typeof value) ? `an ${typeof value}` : `a ${typeof value}`
}

/** Returns the number of edits between two names. The exchange of two adjacent characters is one edit. */
const distance = (from: string, to: string): number => {
  let before: Array<number> = []
  let last = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const row = [i]
    for (let j = 1; j <= to.length; j++) {
      const same = from[i - 1] === to[j - 1]
      row[j] = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1))
      if (i > 1 && j > 1 && from[i - 1] === to[j - 2] && from[i - 2] === to[j - 1]) {
        row[j] = Math.min(row[j]!, before[j - 2]! + 1)
      }
    }
    before = last
    last = row
  }
  return last[to.length]!
}

/** Suggests the closest known name, or all known names if there are at most 12. */
export const suggestion = (name: string, known: ReadonlyArray<string>): string => {
  const [closest] = known
    .map((other) => ({ other, edits: distance(name.toLowerCase(), other.toLowerCase()) }))
    .filter(({ edits, other }) => edits <= Math.max(2, other.length / 3))
    .toSorted((a, b) => a.edits - b.edits)
  if (closest !== undefined) return `; did you mean \`${closest.other}\`?`
  return known.length > 0 && known.length <= 12 ? `; there are ${known.map((other) => `\`${other}\``).join(", ")}` : ""
}

/** Describes the first unknown name in a record. */
export const unknownName = (what: string, options: object, known: ReadonlyArray<string>): string | undefined => {
  const name = Object.keys(options).find((name) => !known.includes(name))
  return name === undefined ? undefined : `unknown ${what} \`${name}\`${suggestion(name, known)}`
}

/** Describes options that are not an object. */
export const objectIssue = (options: unknown): string | undefined =>
  Predicate.isObject(options) ? undefined : `the options are ${describe(options)}; expected an object`

/**
 * Describes the first invalid option: an unknown name, or a value of the wrong kind. An option that is `undefined` is valid. `others` are
 * names that other code checks.
 */
export const optionIssue = (
  kinds: Readonly<Record<string, Kind>>,
  options: unknown,
  others: ReadonlyArray<string> = []
): string | undefined => {
  if (options === undefined) return undefined
  if (!Predicate.isObject(options)) return objectIssue(options)
  const unknown = unknownName("option", options, [...Object.keys(kinds), ...others])
  if (unknown !== undefined) return unknown
  for (const [name, { entry, expected, is }] of Object.entries(kinds)) {
    const value = options[name]
    if (!Object.hasOwn(options, name) || value === undefined || is(value)) continue
    const inner = entry?.(value)
    return `the option \`${name}\` is ${
      inner === undefined ? describe(value) : `wrong at \`${inner}\``
    }; expected ${expected}`
  }
  return undefined
}

/** Throws for invalid options of a function that returns no Effect. */
export const assertOptions = (
  owner: string,
  kinds: Readonly<Record<string, Kind>>,
  options: unknown,
  others?: ReadonlyArray<string>
): void => {
  const issue = optionIssue(kinds, options, others)
  if (issue !== undefined) throw new TypeError(`${owner}: ${issue}`)
}
