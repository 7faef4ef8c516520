/** Converts the parameters of a tool to a JSON codec, and to the JSON Schema that the model receives. */
import { memoize } from "effect/Function"
import type * as JsonSchema from "effect/JsonSchema"
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"

/** The strings that stand for `NaN` and the infinities in JSON. They are part of the encoding of each `Schema.Number`. */
const nonFinite: unknown = (SchemaAST.toEncoded(Schema.toCodecJson(Schema.Number).ast) as SchemaAST.Union).types[1]

/** Removes these strings: a model would send them as numbers, and a decode error would mention only them. */
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

/** Returns the codec of the JSON that a codec decodes, with finite numbers only. */
export const toJsonCodec = (codec: Schema.Constraint): Schema.Codec<unknown> =>
  Schema.make<Schema.Codec<unknown>>(withoutNonFinite(SchemaAST.toEncoded(Schema.toCodecJson(codec).ast)))

/** Returns the JSON Schema of such a codec. */
export const toInputSchema = (json: Schema.Constraint): JsonSchema.JsonSchema => {
  const { definitions, schema } = Schema.toJsonSchemaDocument(json)
  return Object.keys(definitions).length === 0 ? schema : { ...schema, $defs: definitions }
}
