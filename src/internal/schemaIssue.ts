/** Explains why a value does not fit a schema of the protocol, in a line. */
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import { describe, suggestion } from "./options.ts"

const show = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((key, index) => typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${String(key)}`).join("")

const valueAt = (value: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce<unknown>(
    (inner, key) =>
      Predicate.isObjectOrArray(inner) && Object.hasOwn(inner, key)
        ? (inner as Record<PropertyKey, unknown>)[key]
        : undefined,
    value
  )

/** The names that an object may have. */
const namesOf = (ast: SchemaAST.AST): ReadonlyArray<string> =>
  ast._tag === "Suspend"
    ? namesOf(ast.thunk())
    : ast._tag === "Objects"
    ? ast.propertySignatures.map(({ name }) => String(name))
    : []

/** The fields of a struct. */
export const fieldNames = (schema: Schema.Constraint): ReadonlyArray<string> => namesOf(schema.ast)

/** A variant of a tagged union, as the name of its type shows it. */
const variant = /\{ readonly "(\w+)": ("[^"]*"), \.\.\. \}/g

/** What is expected, and where: of a tagged union that is one of its tags. */
const expectation = (
  expected: string,
  path: ReadonlyArray<PropertyKey>,
  value: unknown
): readonly [path: ReadonlyArray<PropertyKey>, expected: string, value: unknown] => {
  const variants = [...expected.matchAll(variant)]
  const tag = variants[0]?.[1]
  if (tag === undefined) {
    const alternatives = expected.split(" | ").filter((name) => name !== "null" && name !== "undefined")
    return [path, alternatives.join(" | ") || expected, value]
  }
  const tags = variants.map(([, , literal]) => literal).join(" | ")
  const given = valueAt(value, [tag])
  return Predicate.isString(given) && !tags.includes(JSON.stringify(given))
    ? [[...path, tag], tags, given]
    : [path, `an object whose \`${tag}\` is ${tags}, with its fields`, value]
}

/** A string is shown where one of a few was expected. Any other may be a prompt or a secret. */
const given = (value: unknown, expected: string): string =>
  Predicate.isString(value) && value.length <= 40 && expected.startsWith("\"") ? JSON.stringify(value) : describe(value)

/** The first thing that is wrong, by the name of the field, with the value if that may be shown, and with what is expected. */
export const describeIssue = (error: Schema.SchemaError, root: unknown): string => {
  let names: ReadonlyArray<string> | undefined
  const format = SchemaIssue.makeFormatterStandardSchemaV1({
    leafHook: (issue) => {
      if (issue._tag === "UnexpectedKey") names ??= namesOf(issue.ast)
      return issue._tag === "UnexpectedKey" ? "unexpected" : SchemaIssue.defaultLeafHook(issue)
    }
  })
  const [first] = format(error.issue).issues
  if (first === undefined) return error.message
  const path = (first.path ?? []).map((key) => typeof key === "object" ? key.key : key)
  if (first.message === "unexpected") {
    return `unknown field \`${show(path)}\`${suggestion(String(path.at(-1)), names ?? [])}`
  }
  if (first.message === "Missing key") return `\`${show(path)}\` is missing`
  if (!first.message.startsWith("Expected ")) return first.message
  const [at, expected, value] = expectation(first.message.slice("Expected ".length), path, valueAt(root, path))
  return `${at.length === 0 ? "the params are" : `\`${show(at)}\` is`} ${given(value, expected)}; expected ${expected}`
}
