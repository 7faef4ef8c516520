/**
 * The JSON of a schema from the JSON that the model writes. Strict mode has no tuples, records or optional fields: the model
 * writes a tuple as an object with the keys "0", "1", …, a record as an array of pairs, and `null` for a missing field.
 *
 * Unlike the codec, this never fails, so it also reads JSON that is incomplete or wrong. It leaves what it does not know.
 */
import * as Predicate from "effect/Predicate"
import * as SchemaAST from "effect/SchemaAST"

type Fields = Readonly<Record<string, unknown>>

const isFields = (json: unknown): json is Fields => Predicate.isObject(json)

const isTuple = (ast: SchemaAST.Arrays): boolean => ast.elements.length > 0 || ast.rest.length > 1

const resolve = (ast: SchemaAST.AST): SchemaAST.AST => ast._tag === "Suspend" ? resolve(ast.thunk()) : ast

/** Whether the fields that have come so far may be those of the struct. */
const mayBeStruct = (ast: SchemaAST.Objects, json: Fields): boolean => {
  const properties = new Map(ast.propertySignatures.map(({ name, type }) => [name, resolve(type)]))
  return Object.keys(json).every((name) => {
    const type = properties.get(name)
    return type !== undefined && (type._tag !== "Literal" || type.literal === json[name])
  })
}

/** Whether the JSON may be that of the schema, by its first level. */
const mayBe = (type: SchemaAST.AST, json: unknown): boolean => {
  const ast = resolve(type)
  switch (ast._tag) {
    case "Arrays":
      return isTuple(ast) ? isFields(json) : Array.isArray(json)
    case "Objects":
      return ast.indexSignatures.length > 0
        ? Array.isArray(json) && json.every((pair) => isFields(pair))
        : isFields(json) && mayBeStruct(ast, json)
    case "Union":
      return ast.types.some((member) => mayBe(member, json))
    default:
      return !Predicate.isObjectOrArray(json)
  }
}

/** One conversion of one JSON container, kept because the next snapshot of a stream shares most containers. */
type Known = WeakMap<object, { readonly ast: SchemaAST.AST; readonly value: unknown }>

const tuple = (ast: SchemaAST.Arrays, json: Fields, convert: Convert): ReadonlyArray<unknown> => {
  const out: Array<unknown> = []
  for (const [index, type] of ast.elements.entries()) {
    if (!Object.hasOwn(json, index)) return out
    if (SchemaAST.isOptional(type) && json[index] === null) continue
    out.push(convert(type, json[index]))
  }
  const [rest, ...tail] = ast.rest
  if (rest === undefined || !Array.isArray(json.__rest__)) return out
  out.push(...json.__rest__.map((item) => convert(rest, item)))
  for (const [index, type] of tail.entries()) {
    const name = `__tail_${index}__`
    if (!Object.hasOwn(json, name)) return out
    out.push(convert(type, json[name]))
  }
  return out
}

const fieldType = (ast: SchemaAST.Objects, name: string): SchemaAST.AST | undefined =>
  ast.propertySignatures.find((property) => property.name === name)?.type ?? ast.indexSignatures[0]?.type

const record = (ast: SchemaAST.Objects, pairs: ReadonlyArray<unknown>, convert: Convert): unknown =>
  pairs.every(isFields)
    ? Object.fromEntries(pairs.flatMap((pair) => {
      const name = pair[0]
      if (!Predicate.isString(name) || !Object.hasOwn(pair, 1)) return []
      const type = fieldType(ast, name)
      return [[name, type === undefined ? pair[1] : convert(type, pair[1])]]
    }))
    : pairs

const struct = (ast: SchemaAST.Objects, json: Fields, convert: Convert): unknown =>
  Object.fromEntries(
    Object.entries(json).flatMap(([name, value]) => {
      const type = fieldType(ast, name)
      if (type === undefined) return [[name, value]]
      return value === null && SchemaAST.isOptional(type) ? [] : [[name, convert(type, value)]]
    })
  )

type Convert = (ast: SchemaAST.AST, json: unknown) => unknown

/** The maximum number of containers inside each other. Schemas are read by recursion, which more could overflow. */
export const maxNesting = 200

/** Converts the JSON of one schema, as a model writes it, to the JSON that the schema's codec decodes. */
export const makeFromWire = (root: SchemaAST.AST): (json: unknown) => unknown => {
  const known: Known = new WeakMap()
  let nesting = 0
  const container = (ast: SchemaAST.AST, json: object): unknown => {
    switch (ast._tag) {
      case "Arrays":
        if (Array.isArray(json)) {
          return json.map((item, index) => {
            const type = ast.elements[index] ?? ast.rest[0]
            return type === undefined ? item : convert(type, item)
          })
        }
        return isTuple(ast) && isFields(json) ? tuple(ast, json, convert) : json
      case "Objects":
        if (!Array.isArray(json)) return isFields(json) ? struct(ast, json, convert) : json
        return ast.indexSignatures.length > 0 ? record(ast, json, convert) : json
      case "Union": {
        const member = ast.types.find((type) => mayBe(type, json))
        return member === undefined ? json : convert(member, json)
      }
      default:
        return json
    }
  }
  const convert: Convert = (type, json) => {
    if (!Predicate.isObjectOrArray(json) || nesting >= maxNesting) return json
    const ast = resolve(type)
    const before = known.get(json)
    if (before?.ast === ast) return before.value
    nesting++
    const value = container(ast, json)
    nesting--
    if (ast._tag !== "Union") known.set(json, { ast, value })
    return value
  }
  return (json) => convert(root, json)
}
