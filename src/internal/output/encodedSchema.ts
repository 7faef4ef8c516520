/** The JSON that a schema decodes, as a schema of its own: with JSON numbers, and with the descriptions of what is decoded. */
import * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"

/** A part of a schema that strict JSON Schema cannot express. */
export interface Inexpressible {
  readonly path: ReadonlyArray<PropertyKey>
  readonly problem: string
}

/** An array's elements and a record's values have no name of their own. */
const anyElement = "*"

/** The strings that `Schema.Number` decodes besides numbers. */
const nonFinite: unknown = (SchemaAST.toEncoded(Schema.toCodecJson(Schema.Number).ast) as SchemaAST.Union).types[1]

const hasNonFinite = (ast: SchemaAST.AST): boolean =>
  ast._tag === "Union" && ast.types.some((type) => type === nonFinite)

/** A struct without fields, as JSON Schema can express it: `Schema.Struct({})` itself accepts any value but null. */
const emptyObject = (ast: SchemaAST.Objects): SchemaAST.AST =>
  new SchemaAST.Objects(
    [],
    [new SchemaAST.IndexSignature(SchemaAST.string, SchemaAST.never)],
    ast.annotations,
    undefined,
    undefined,
    ast.context
  )

const findProblem = (ast: SchemaAST.AST): string | undefined => {
  switch (ast._tag) {
    case "Never":
      return "no value satisfies it. Remove it, or make it an optional field"
    case "Any":
    case "Unknown":
    case "ObjectKeyword":
    case "Declaration":
      return "it accepts any JSON. Give it a schema with fields, or use `Schema.fromJsonString(Schema.Unknown)`"
    default:
      return undefined
  }
}

/** The annotations of the decoded side: a description of `Schema.Date` belongs to the string that encodes it. */
const describe = (
  ast: SchemaAST.AST,
  title: string | undefined,
  description: string | undefined
): SchemaAST.AST => {
  const own = SchemaAST.resolveDescription(ast)
  const annotations = {
    ...(title === undefined ? {} : { title }),
    ...(description === undefined || description === own
      ? {}
      : { description: own === undefined ? description : `${description} (${own})` })
  }
  return Object.keys(annotations).length === 0 ? ast : Schema.make<Schema.Codec<unknown>>(ast).annotate(annotations).ast
}

type Walk = (ast: SchemaAST.AST, key?: PropertyKey) => SchemaAST.AST

const objects = (ast: SchemaAST.Objects, decoded: SchemaAST.Objects, walk: Walk): SchemaAST.AST => {
  const properties = ast.propertySignatures.flatMap(({ name, type }, index) =>
    SchemaAST.isNever(type) && SchemaAST.isOptional(type)
      ? []
      : [new SchemaAST.PropertySignature(name, walk(decoded.propertySignatures[index]!.type, name))]
  )
  if (properties.length === 0 && ast.indexSignatures.length === 0) return emptyObject(ast)
  const indexSignatures = ast.indexSignatures.map(({ parameter }, index) =>
    new SchemaAST.IndexSignature(parameter, walk(decoded.indexSignatures[index]!.type, anyElement))
  )
  return new SchemaAST.Objects(properties, indexSignatures, ast.annotations, ast.checks, undefined, ast.context)
}

const union = (ast: SchemaAST.Union, decoded: SchemaAST.Union, walk: Walk): SchemaAST.AST => {
  const kept = decoded.types.filter((_, index) => {
    const type = ast.types[index]!
    return type !== nonFinite && !SchemaAST.isNever(type)
  })
  if (kept.length === 0) return SchemaAST.never
  const types = kept.map((type) => walk(type))
  const [first] = types
  return types.length === 1 && first?._tag === "Number" && hasNonFinite(ast)
    ? new SchemaAST.Number({ ...ast.annotations, ...first.annotations }, first.checks, undefined, ast.context)
    : new SchemaAST.Union(types, ast.options, ast.annotations, ast.checks, undefined, ast.context)
}

/** A `Schema.Number` has its bounds on the decoded side, and on the JSON side the check that it is finite. */
const withBounds = (ast: SchemaAST.AST, { checks }: SchemaAST.Number): SchemaAST.AST =>
  ast._tag === "Number" && ast.checks !== undefined && checks !== undefined
    ? new SchemaAST.Number(ast.annotations, [...ast.checks, ...checks], undefined, ast.context)
    : ast

/** A tuple that repeats the type of its rest, such as `Schema.NonEmptyArray`, is an array with a minimum length. */
const arrays = (ast: SchemaAST.Arrays, decoded: SchemaAST.Arrays, walk: Walk): SchemaAST.AST => {
  const elements = decoded.elements.map((type, index) => walk(type, index))
  const rest = decoded.rest.map((type) => walk(type, anyElement))
  const isNonEmpty = elements.length > 0 && rest.length === 1 && elements.every((type) => type === rest[0])
  return isNonEmpty
    ? new SchemaAST.Arrays(
      ast.isMutable,
      [],
      rest,
      ast.annotations,
      [Schema.isMinLength(elements.length), ...(ast.checks ?? [])],
      undefined,
      ast.context
    )
    : new SchemaAST.Arrays(ast.isMutable, elements, rest, ast.annotations, ast.checks, undefined, ast.context)
}

const children = (ast: SchemaAST.AST, decoded: SchemaAST.AST, walk: Walk): SchemaAST.AST => {
  if (ast._tag === "Objects" && decoded._tag === "Objects") return objects(ast, decoded, walk)
  if (ast._tag === "Union" && decoded._tag === "Union") return union(ast, decoded, walk)
  if (ast._tag === "Arrays" && decoded._tag === "Arrays") {
    return arrays(ast, decoded, walk)
  }
  return ast
}

/**
 * The JSON side of a codec to JSON, ready for strict JSON Schema: JSON numbers only, no impossible members, the titles and
 * descriptions of the decoded side. Also lists what has no strict JSON Schema.
 */
export const encodedSchema = (codec: SchemaAST.AST): {
  readonly ast: SchemaAST.AST
  readonly inexpressible: ReadonlyArray<Inexpressible>
} => {
  const known = new Map<SchemaAST.AST, SchemaAST.AST>()
  const suspended: Array<() => void> = []
  const inexpressible: Array<Inexpressible> = []
  const at = (path: ReadonlyArray<PropertyKey>) => (ast: SchemaAST.AST, key?: PropertyKey): SchemaAST.AST => {
    const before = known.get(ast)
    if (before !== undefined) return before
    const here = key === undefined ? path : [...path, key]
    const walk = at(here)
    let decoded = ast
    let title = SchemaAST.resolveTitle(ast)
    let description = SchemaAST.resolveDescription(ast)
    let numeric: SchemaAST.Number | undefined
    while (decoded.encoding !== undefined) {
      if (decoded._tag === "Number") numeric = decoded
      decoded = decoded.encoding[decoded.encoding.length - 1]!.to
      title ??= SchemaAST.resolveTitle(decoded)
      description ??= SchemaAST.resolveDescription(decoded)
    }
    const encoded = SchemaAST.toEncoded(decoded)
    if (decoded._tag === "Suspend") {
      const { thunk } = decoded
      const out = new SchemaAST.Suspend(() => walk(thunk()), encoded.annotations, undefined, undefined, encoded.context)
      known.set(ast, out)
      suspended.push(() => walk(thunk()))
      return out
    }
    const problem = findProblem(encoded)
    if (problem !== undefined) inexpressible.push({ path: here, problem })
    const json = numeric !== undefined && hasNonFinite(encoded)
      ? withBounds(children(encoded, decoded, walk), numeric)
      : children(encoded, decoded, walk)
    const out = describe(json, title, description)
    known.set(ast, out)
    return out
  }
  const ast = at([])(codec)
  for (const visit of suspended) visit()
  return { ast, inexpressible }
}
