/** JSON Schema as OpenAI's strict mode accepts it, in as few words as possible, and what strict mode refuses. */
import type * as JsonSchema from "effect/JsonSchema"
import * as Predicate from "effect/Predicate"

type Node = JsonSchema.JsonSchema

const isNode = (value: unknown): value is Node => Predicate.isObject(value)

const getNodes = (value: unknown): ReadonlyArray<Node> => Array.isArray(value) ? value.filter(isNode) : []

const getEntries = (value: unknown): ReadonlyArray<readonly [string, Node]> =>
  isNode(value) ? Object.entries(value).filter((entry): entry is [string, Node] => isNode(entry[1])) : []

/** Rebuilds a schema from the leaves up. `Object.fromEntries` also keeps a field that is named `__proto__`. */
const rewrite = (schema: Node, visit: (node: Node) => Node): Node =>
  visit(Object.fromEntries(
    Object.entries(schema).map(([keyword, value]) => {
      switch (keyword) {
        case "properties":
        case "$defs":
          return [keyword, Object.fromEntries(getEntries(value).map(([name, node]) => [name, rewrite(node, visit)]))]
        case "items":
          return [keyword, isNode(value) ? rewrite(value, visit) : value]
        case "anyOf":
          return [keyword, getNodes(value).map((node) => rewrite(node, visit))]
        default:
          return [keyword, value]
      }
    })
  ))

const hasOnly = (node: Node, ...keywords: ReadonlyArray<string>): boolean =>
  Object.keys(node).every((keyword) => keywords.includes(keyword))

/** The members of a union: nested unions are flat, equal members stand once, and literals of one type share an `enum`. */
const getMembers = (anyOf: ReadonlyArray<Node>): ReadonlyArray<Node> => {
  const members = new Map<string, Node>()
  const enums = new Map<unknown, Array<unknown>>()
  const add = (node: Node): void => {
    if (Array.isArray(node.anyOf) && hasOnly(node, "anyOf")) return getNodes(node.anyOf).forEach(add)
    if (!Array.isArray(node.enum) || !hasOnly(node, "type", "enum")) {
      members.set(JSON.stringify(node), node)
      return
    }
    const values = enums.get(node.type)
    if (values !== undefined) {
      values.push(...node.enum.filter((value) => !values.includes(value)))
      return
    }
    const first = [...node.enum]
    enums.set(node.type, first)
    members.set(`enum of ${String(node.type)}`, { ...node, enum: first })
  }
  anyOf.forEach(add)
  return [...members.values()]
}

/** Strict mode refuses a pattern with lookaround. A reference to what has matched is as little a regular language. */
const isIrregular = (pattern: string): boolean => /\(\?(?:=|!|<=|<!)|\\[1-9]|\\k</.test(pattern.replaceAll("\\\\", ""))

const withDescription = (node: Node, description: string): Node => ({
  ...node,
  description: typeof node.description === "string" ? `${node.description} and ${description}` : description
})

const normalize = (node: Node): Node => {
  if (node.items === false) return { ...node, items: { type: "null" }, maxItems: 0 }
  if (node.type === "object" && node.required === undefined && getEntries(node.properties).length === 0) {
    return { ...node, properties: {}, required: [] }
  }
  if (typeof node.pattern === "string" && isIrregular(node.pattern)) {
    const { pattern, ...rest } = node
    return withDescription(rest, `a string matching the RegExp ${pattern}`)
  }
  if (typeof node.$ref === "string" && Object.keys(node).length > 1) {
    const { $ref, ...rest } = node
    return { ...rest, anyOf: [{ $ref }] }
  }
  if (Array.isArray(node.anyOf)) {
    const { anyOf, ...rest } = node
    const members = getMembers(getNodes(anyOf))
    const [first] = members
    return members.length === 1 && first !== undefined && (first.$ref === undefined || Object.keys(rest).length === 0)
      ? { ...first, ...rest }
      : { ...rest, anyOf: members }
  }
  return node
}

const prefix = "#/$defs/"

const toRef = (name: string): string => prefix + name.replaceAll("~", "~0").replaceAll("/", "~1")

const fromRef = (ref: unknown): string | undefined =>
  typeof ref === "string" && ref.startsWith(prefix)
    ? ref.slice(prefix.length).replaceAll("~1", "/").replaceAll("~0", "~")
    : undefined

type Definitions = ReadonlyMap<string, Node>

const replaceRefs = (schema: Node, name: (name: string) => string | undefined): Node =>
  rewrite(schema, (node) => {
    const ref = fromRef(node.$ref)
    const other = ref === undefined ? undefined : name(ref)
    return other === undefined ? node : { ...node, $ref: toRef(other) }
  })

const getRefs = (schema: Node): ReadonlyArray<string> => {
  const refs: Array<string> = []
  rewrite(schema, (node) => {
    const name = fromRef(node.$ref)
    if (name !== undefined) refs.push(name)
    return node
  })
  return refs
}

/** The definitions that are only another name of one, or equal to one, with that one. */
const findEqual = (definitions: Definitions): (name: string) => string => {
  const equal = new Map<string, string>()
  const byContent = new Map<string, string>()
  const resolve = (name: string): string => {
    const other = equal.get(name)
    return other === undefined ? name : resolve(other)
  }
  for (const [name, definition] of definitions) {
    const alias = hasOnly(definition, "$ref") ? fromRef(definition.$ref) : undefined
    const content = JSON.stringify(replaceRefs(definition, (ref) => ref === name ? "" : undefined))
    const other = alias === undefined ? byContent.get(content) : resolve(alias)
    if (other === undefined) byContent.set(content, name)
    else if (other !== name) equal.set(name, other)
  }
  return resolve
}

/** Merges equal definitions, until the references that this changes make no others equal. */
const mergeEqual = (root: Node, definitions: Definitions): readonly [root: Node, definitions: Definitions] => {
  const resolve = findEqual(definitions)
  const kept = [...definitions].filter(([name]) => resolve(name) === name)
  return kept.length === definitions.size
    ? [root, definitions]
    : mergeEqual(replaceRefs(root, resolve), new Map(kept.map(([name, node]) => [name, replaceRefs(node, resolve)])))
}

/** Drops definitions that are not used. One that is used once stands where it is used. */
const inlineSingle = (root: Node, definitions: Definitions): readonly [root: Node, definitions: Definitions] => {
  const counts = new Map<string, number>()
  const count = (node: Node): void => {
    for (const name of getRefs(node)) {
      const definition = definitions.get(name)
      const before = counts.get(name) ?? 0
      counts.set(name, before + 1)
      if (before === 0 && definition !== undefined) count(definition)
    }
  }
  count(root)
  // A recursive definition is used by itself as well, so this ends.
  const inline = (schema: Node): Node =>
    rewrite(schema, (node) => {
      const name = fromRef(node.$ref)
      const definition = name !== undefined && counts.get(name) === 1 ? definitions.get(name) : undefined
      return definition === undefined ? node : inline(definition)
    })
  const kept = [...definitions].filter(([name]) => (counts.get(name) ?? 0) > 1)
  return [inline(root), new Map(kept.map(([name, definition]) => [name, inline(definition)]))]
}

/** The same JSON Schema by the rules of strict mode, without repetitions and definitions that are not used. */
export const strictSchema = (jsonSchema: Node): Node => {
  const { $defs, ...rest } = rewrite(jsonSchema, normalize)
  const [root, definitions] = inlineSingle(...mergeEqual(rest, new Map(getEntries($defs))))
  const small = definitions.size === 0 ? root : { ...root, $defs: Object.fromEntries(definitions) }
  return rewrite(small, normalize)
}

/** Limits of strict mode, as OpenAI documents them. */
const limits = {
  properties: 5000,
  nesting: 10,
  enumValues: 1000,
  /** Characters in the names of properties and definitions, and in enum values. */
  names: 120_000,
  /** An enum of strings with more values than this may have at most `largeEnumChars` characters. */
  largeEnum: 250,
  largeEnumChars: 15_000
} as const

/** A part of a JSON Schema that strict mode refuses. */
export interface Refused {
  readonly path: ReadonlyArray<PropertyKey>
  readonly problem: string
}

const countChars = (values: ReadonlyArray<unknown>): number =>
  values.reduce<number>((chars, value) => chars + (typeof value === "string" ? value.length : 0), 0)

const exceeds = (amount: number, unit: string, limit: number): Refused | undefined =>
  amount <= limit
    ? undefined
    : { path: [], problem: `it has \`${amount}\` ${unit}, and \`${limit}\` are allowed. Split the schema` }

/** Finds the first part of a JSON Schema that strict mode refuses, if there is one. */
export const findRefused = (jsonSchema: Node): Refused | undefined => {
  const definitions = new Map(getEntries(jsonSchema.$defs))
  let properties = 0
  let enumValues = 0
  let names = countChars([...definitions.keys()])
  /** The depth at which each definition was visited: it is not visited again where it is less deep. */
  const deepest = new Map<string, number>()

  const nested = (
    node: Node,
    path: ReadonlyArray<PropertyKey>,
    depth: number,
    open: ReadonlyArray<string>
  ): Refused | undefined => {
    for (const [name, property] of getEntries(node.properties)) {
      const refused = visit(property, [...path, name], depth, open)
      if (refused !== undefined) return refused
    }
    if (isNode(node.items)) return visit(node.items, [...path, "*"], depth, open)
    for (const member of getNodes(node.anyOf)) {
      const refused = visit(member, path, depth, open)
      if (refused !== undefined) return refused
    }
    const name = fromRef(node.$ref)
    const definition = name === undefined ? undefined : definitions.get(name)
    if (name === undefined || definition === undefined || open.includes(name)) return undefined
    if (depth <= (deepest.get(name) ?? -1)) return undefined
    deepest.set(name, depth)
    return visit(definition, path, depth, [...open, name])
  }

  const counted = new Set<Node>()
  const count = (node: Node): void => {
    if (counted.has(node)) return
    counted.add(node)
    const fields = getEntries(node.properties)
    const values = Array.isArray(node.enum) ? node.enum : []
    properties += fields.length
    enumValues += values.length
    names += countChars(fields.map(([name]) => name)) + countChars(values)
  }

  const visit = (
    node: Node,
    path: ReadonlyArray<PropertyKey>,
    depth: number,
    open: ReadonlyArray<string>
  ): Refused | undefined => {
    count(node)
    if (node.type === undefined && node.$ref === undefined && node.anyOf === undefined) {
      return { path, problem: "it has no JSON type. Give it a schema with fields, or encode it as a string" }
    }
    const inner = node.type === "object" || node.type === "array" ? depth + 1 : depth
    if (inner > limits.nesting) {
      return {
        path,
        problem: `it is nested \`${inner}\` levels deep, and \`${limits.nesting}\` are allowed. Flatten the schema`
      }
    }
    const values = Array.isArray(node.enum) ? node.enum : []
    if (values.length > limits.largeEnum && countChars(values) > limits.largeEnumChars) {
      return {
        path,
        problem: `its \`${values.length}\` literals have \`${countChars(values)}\` characters, and ` +
          `\`${limits.largeEnumChars}\` are allowed. Use shorter or fewer literals`
      }
    }
    return nested(node, path, inner, open)
  }

  const refused = visit(jsonSchema, [], 0, [])
  if (refused !== undefined) return refused
  return exceeds(properties, "fields", limits.properties) ??
    exceeds(enumValues, "literals", limits.enumValues) ??
    exceeds(names, "characters in names and literals", limits.names)
}
