/** Explains in one line why a value does not fit a schema of the protocol. */
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import type * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import { describe, suggestion } from "./options.ts"

const show = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((key, index) => typeof key === "number" ? `[${key}]` : `${index === 0 ? "" : "."}${String(key)}`).join("")

const getAt = (value: unknown, path: ReadonlyArray<PropertyKey>): unknown =>
  path.reduce<unknown>(
    (inner, key) =>
      Predicate.isObjectOrArray(inner) && Object.hasOwn(inner, key)
        ? (inner as Record<PropertyKey, unknown>)[key]
        : undefined,
    value
  )

/** Returns the names of the fields of a struct. */
const getFieldNames = (ast: SchemaAST.AST): ReadonlyArray<string> =>
  ast._tag === "Suspend"
    ? getFieldNames(ast.thunk())
    : ast._tag === "Objects"
    ? ast.propertySignatures.map(({ name }) => String(name))
    : []

/** Returns the names of the fields of a struct schema. */
export const fieldNames = (schema: Schema.Constraint): ReadonlyArray<string> => getFieldNames(schema.ast)

/** Matches a variant of a tagged union in the text that Effect shows for its type. */
const variant = /\{ readonly "(\w+)": ("[^"]*"), \.\.\. \}/g

/** Returns what was expected, and where. A tagged union with an unknown tag expects a tag. */
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
  const given = getAt(value, [tag])
  return Predicate.isString(given) && !tags.includes(JSON.stringify(given))
    ? [[...path, tag], tags, given]
    : [path, `an object whose \`${tag}\` is ${tags}, with its fields`, value]
}

/** Shows a string where a literal was expected. Any other string may be a prompt or a secret. */
const given = (value: unknown, expected: string): string =>
  Predicate.isString(value) && value.length <= 40 && expected.startsWith("\"") ? JSON.stringify(value) : describe(value)

/** Describes the first issue: the field, its value if that may be shown, and what was expected. */
export const describeIssue = (error: Schema.SchemaError, root: unknown): string => {
  let names: ReadonlyArray<string> | undefined
  const format = SchemaIssue.makeFormatterStandardSchemaV1({
    leafHook: (issue) => {
      if (issue._tag === "UnexpectedKey") names ??= getFieldNames(issue.ast)
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
  const [at, expected, value] = expectation(first.message.slice("Expected ".length), path, getAt(root, path))
  return `${at.length === 0 ? "the params are" : `\`${show(at)}\` is`} ${given(value, expected)}; expected ${expected}`
}
