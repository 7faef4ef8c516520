/** What a tool takes, as the model is told and as it is checked: JSON. */
import { memoize } from "effect/Function"
import type * as JsonSchema from "effect/JsonSchema"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"

/** The words that stand in JSON for numbers which it does not have. They are part of each `Schema.Number`. */
const nonFinite: unknown = (SchemaAST.toEncoded(Schema.toCodecJson(Schema.Number).ast) as SchemaAST.Union).types[1]

/** The same without those words: a model that is offered them takes them for numbers, or is told of nothing else when it errs. */
const withoutNonFinite = memoize((ast: SchemaAST.AST): SchemaAST.AST => {
  switch (ast._tag) {
    case "Union": {
      const types = ast.types.filter((type) => type !== nonFinite).map(withoutNonFinite)
      const [first] = types
      if (types.length === 1 && first?._tag === "Number") {
        return new SchemaAST.Number(ast.annotations, first.checks, undefined, ast.context)
      }
      return new SchemaAST.Union(types, ast.options, ast.annotations, ast.checks, ast.encoding, ast.context)
    }
    case "Objects":
      return new SchemaAST.Objects(
        ast.propertySignatures.map(({ name, type }) => new SchemaAST.PropertySignature(name, withoutNonFinite(type))),
        ast.indexSignatures.map(({ parameter, type }) =>
          new SchemaAST.IndexSignature(parameter, withoutNonFinite(type))
        ),
        ast.annotations,
        ast.checks,
        ast.encoding,
        ast.context
      )
    case "Arrays":
      return new SchemaAST.Arrays(
        ast.isMutable,
        ast.elements.map(withoutNonFinite),
        ast.rest.map(withoutNonFinite),
        ast.annotations,
        ast.checks,
        ast.encoding,
        ast.context
      )
    case "Suspend":
      return new SchemaAST.Suspend(
        () => withoutNonFinite(ast.thunk()),
        ast.annotations,
        ast.checks,
        ast.encoding,
        ast.context
      )
    default:
      return ast
  }
})

/** The JSON that a codec decodes, with all numbers as JSON has them. */
export const jsonOf = (codec: Schema.Constraint): Schema.Codec<unknown> =>
  Schema.make<Schema.Codec<unknown>>(withoutNonFinite(SchemaAST.toEncoded(Schema.toCodecJson(codec).ast)))

/** The same as JSON Schema. */
export const inputSchemaOf = (json: Schema.Constraint): JsonSchema.JsonSchema => {
  const { definitions, schema } = Schema.toJsonSchemaDocument(json)
  return Object.keys(definitions).length === 0 ? schema : { ...schema, $defs: definitions }
}
