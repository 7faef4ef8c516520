/** JSON Schema as OpenAI's strict mode accepts it, in as few words as possible, and what strict mode refuses. */
import type * as JsonSchema from "effect/JsonSchema"
import * as Predicate from "effect/Predicate"

type Node = JsonSchema.JsonSchema

const isNode = (value: unknown): value is Node => Predicate.isObject(value)

const nodesOf = (value: unknown): ReadonlyArray<Node> => Array.isArray(value) ? value.filter(isNode) : []

const entriesOf = (value: unknown): ReadonlyArray<readonly [string, Node]> =>
  isNode(value) ? Object.entries(value).filter((entry): entry is [string, Node] => isNode(entry[1])) : []

/** Rebuilds a schema from the leaves up. `Object.fromEntries` also keeps a field that is named `__proto__`. */
const rewrite = (schema: Node, visit: (node: Node) => Node): Node =>
  visit(Object.fromEntries(
    Object.entries(schema).map(([keyword, value]) => {
      switch (keyword) {
        case "properties":
        case "$defs":
          return [keyword, Object.fromEntries(entriesOf(value).map(([name, node]) => [name, rewrite(node, visit)]))]
        case "items":
          return [keyword, isNode(value) ? rewrite(value, visit) : value]
        case "anyOf":
          return [keyword, nodesOf(value).map((node) => rewrite(node, visit))]
        default:
          return [keyword, value]
      }
    })
  ))

const hasOnly = (node: Node, ...keywords: ReadonlyArray<string>): boolean =>
  Object.keys(node).every((keyword) => keywords.includes(keyword))

/** The members of a union: nested unions are flat, equal members stand once, and literals of one type share an `enum`. */
const membersOf = (anyOf: ReadonlyArray<Node>): ReadonlyArray<Node> => {
  const members = new Map<string, Node>()
  const enums = new Map<unknown, Array<unknown>>()
  const add = (node: Node): void => {
    if (Array.isArray(node.anyOf) && hasOnly(node, "anyOf")) return nodesOf(node.anyOf).forEach(add)
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
  if (node.type === "object" && node.required === undefined && entriesOf(node.properties).length === 0) {
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
    const members = membersOf(nodesOf(anyOf))
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

const replaceRefs = (schema: Node, name: (name: string) => string | undefined): Node =>
  rewrite(schema, (node) => {
    const ref = fromRef(node.$ref)
    const other = ref === undefined ? undefined : name(ref)
    return other === undefined ? node : { ...node, $ref: toRef(other) }
  })

const countRefs = (schema: Node, counts: Map<string, number>): void => {
  rewrite(schema, (node) => {
    const name = fromRef(node.$ref)
    if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1)
    return node
  })
}

/** Definitions that are only another name of one, and definitions that are equal, become one. */
const mergeEqual = (root: Node, definitions: Map<string, Node>): Node => {
  for (;;) {
    const names = new Map<string, string>()
    const renamed = new Map<string, string>()
    for (const [name, definition] of definitions) {
      const alias = hasOnly(definition, "$ref") ? fromRef(definition.$ref) : undefined
      const content = JSON.stringify(replaceRefs(definition, (ref) => ref === name ? "" : undefined))
      const equal = alias !== undefined && alias !== name ? alias : names.get(content)
      if (equal === undefined) names.set(content, name)
      else renamed.set(name, equal)
    }
    const [first] = renamed
    if (first === undefined) return root
    const [old, name] = first
    definitions.delete(old)
    const rename = (ref: string) => ref === old ? name : undefined
    for (const [key, definition] of definitions) definitions.set(key, replaceRefs(definition, rename))
    root = replaceRefs(root, rename)
  }
}

/** A definition that is used once, and not by itself, stands where it is used. One that is not used goes. */
const inlineSingle = (root: Node, definitions: Map<string, Node>): Node => {
  for (;;) {
    const counts = new Map<string, number>()
    countRefs(root, counts)
    for (const definition of definitions.values()) countRefs(definition, counts)
    const found = [...definitions].find(([name, definition]) => {
      const own = new Map<string, number>()
      countRefs(definition, own)
      return counts.get(name) === own.get(name) || (counts.get(name) === 1 && !own.has(name))
    })
    if (found === undefined) return root
    const [name, definition] = found
    definitions.delete(name)
    const inline = (node: Node): Node => fromRef(node.$ref) === name ? { ...definition } : node
    for (const [key, other] of definitions) definitions.set(key, rewrite(other, inline))
    root = rewrite(root, inline)
  }
}

/** The same JSON Schema by the rules of strict mode, without repetitions and definitions that are not used. */
export const strictSchema = (jsonSchema: Node): Node => {
  const { $defs, ...rest } = rewrite(jsonSchema, normalize)
  const definitions = new Map(entriesOf($defs))
  const root = inlineSingle(mergeEqual(rest, definitions), definitions)
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

const charsOf = (values: ReadonlyArray<unknown>): number =>
  values.reduce<number>((chars, value) => chars + (typeof value === "string" ? value.length : 0), 0)

const exceeds = (amount: number, unit: string, limit: number): Refused | undefined =>
  amount <= limit
    ? undefined
    : { path: [], problem: `it has \`${amount}\` ${unit}, and \`${limit}\` are allowed. Split the schema` }

/** Finds the first part of a JSON Schema that strict mode refuses, if there is one. */
export const findRefused = (jsonSchema: Node): Refused | undefined => {
  const definitions = new Map(entriesOf(jsonSchema.$defs))
  let properties = 0
  let enumValues = 0
  let names = charsOf([...definitions.keys()])
  /** The depth at which each definition was visited: it is not visited again where it is less deep. */
  const deepest = new Map<string, number>()

  const nested = (
    node: Node,
    path: ReadonlyArray<PropertyKey>,
    depth: number,
    open: ReadonlyArray<string>
  ): Refused | undefined => {
    for (const [name, property] of entriesOf(node.properties)) {
      const refused = visit(property, [...path, name], depth, open)
      if (refused !== undefined) return refused
    }
    if (isNode(node.items)) return visit(node.items, [...path, "*"], depth, open)
    for (const member of nodesOf(node.anyOf)) {
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
    const fields = entriesOf(node.properties)
    const values = Array.isArray(node.enum) ? node.enum : []
    properties += fields.length
    enumValues += values.length
    names += charsOf(fields.map(([name]) => name)) + charsOf(values)
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
    if (values.length > limits.largeEnum && charsOf(values) > limits.largeEnumChars) {
      return {
        path,
        problem: `its \`${values.length}\` literals have \`${charsOf(values)}\` characters, and ` +
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
