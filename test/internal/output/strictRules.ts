/**
 * The rules that a JSON Schema must satisfy for OpenAI's strict mode, written from the guide "Structured model outputs", section
 * "Supported schemas" (https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas), and from messages
 * of the API where the guide is silent:
 *
 * - The root is an object and no `anyOf`.
 * - Every object sets `additionalProperties: false`, and requires all its properties.
 * - Types: string, number, boolean, integer, object, array, null; `enum`, `anyOf`, definitions, recursion by `$ref`.
 * - Strings: `pattern`, `format`. Numbers: `multipleOf`, `minimum`, `maximum`, `exclusiveMinimum`, `exclusiveMaximum`. Arrays:
 *   `minItems`, `maxItems`. Not: `allOf`, `not`, `dependentRequired`, `dependentSchemas`, `if`, `then`, `else`.
 * - At most 5,000 properties, 10 levels of nesting, 1,000 enum values; at most 120,000 characters in names of properties and
 *   definitions, enum and const values; at most 15,000 in one enum of more than 250 strings.
 * - API: "$ref cannot have keywords {'description'}"; "regex lookaround is not supported"; "enum values must be of the same
 *   type"; "schema must have a 'type' key"; "N levels of nesting exceeds limit of 10", where arrays count as objects do.
 */

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json => typeof value === "object" && value !== null && !Array.isArray(value)

const keywords: Readonly<Record<string, ReadonlyArray<string>>> = {
  string: ["pattern", "format", "enum"],
  number: ["multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"],
  integer: ["multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum"],
  boolean: ["enum"],
  null: [],
  array: ["items", "minItems", "maxItems"],
  object: ["properties", "required", "additionalProperties"]
}

const formats = new Set(["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"])

const isOfType = (type: unknown, value: unknown): boolean =>
  type === "integer" ? Number.isInteger(value) : typeof value === type

/** Lists each broken rule with its place. An empty list means that the schema is strict. */
export const brokenRules = (root: Json): ReadonlyArray<string> => {
  const broken: Array<string> = []
  const definitions = isObject(root.$defs) ? root.$defs : {}
  const used = new Set<string>()
  const total = { properties: 0, enums: 0, chars: Object.keys(definitions).join("").length }

  const visitObject = (node: Json, place: string): void => {
    if (node.additionalProperties !== false) broken.push(`${place}: additionalProperties is not false`)
    if (!isObject(node.properties)) return void broken.push(`${place}: an object without properties`)
    const names = Object.keys(node.properties)
    total.properties += names.length
    total.chars += names.join("").length
    const required = Array.isArray(node.required) ? node.required : []
    if (new Set(required).size !== required.length || [...required].sort().join() !== [...names].sort().join()) {
      broken.push(`${place}: required is not all properties`)
    }
    for (const name of names) visit(node.properties[name], `${place}/${name}`)
  }

  const visitEnum = (node: Json, place: string): void => {
    const values = Array.isArray(node.enum) ? node.enum : []
    const chars = values.filter((value) => typeof value === "string").join("").length
    if (values.length === 0) broken.push(`${place}: an empty enum`)
    if (new Set(values).size !== values.length) broken.push(`${place}: an enum with equal values`)
    if (!values.every((value) => isOfType(node.type, value))) broken.push(`${place}: an enum of another type`)
    if (values.length > 250 && chars > 15_000) broken.push(`${place}: a large enum of long strings`)
    total.enums += values.length
    total.chars += chars
  }

  const visit = (node: unknown, place: string): void => {
    if (!isObject(node)) return void broken.push(`${place}: not a schema`)
    if (typeof node.$ref === "string") {
      const name = node.$ref.replace(/^#\/\$defs\//, "").replaceAll("~1", "/").replaceAll("~0", "~")
      if (!Object.hasOwn(definitions, name)) broken.push(`${place}: an unknown reference ${node.$ref}`)
      if (Object.keys(node).length > 1) broken.push(`${place}: a reference with other keywords`)
      used.add(name)
      return
    }
    const annotations = place === "#" ? ["title", "description", "$defs"] : ["title", "description"]
    const known = Array.isArray(node.anyOf) ? ["anyOf"] : ["type", ...(keywords[String(node.type)] ?? [])]
    for (const keyword of Object.keys(node)) {
      if (!known.includes(keyword) && !annotations.includes(keyword)) {
        broken.push(`${place}: ${keyword} is not supported`)
      }
    }
    if (Array.isArray(node.anyOf)) {
      if (node.anyOf.length === 0) broken.push(`${place}: an empty anyOf`)
      return node.anyOf.forEach((member, index) => visit(member, `${place}|${index}`))
    }
    if (keywords[String(node.type)] === undefined) return void broken.push(`${place}: no type`)
    if (node.type === "object") visitObject(node, place)
    if (node.type === "array") visit(node.items, `${place}[]`)
    if (node.enum !== undefined) visitEnum(node, place)
    if (node.format !== undefined && !formats.has(String(node.format))) broken.push(`${place}: unknown format`)
    if (typeof node.pattern === "string" && /\(\?<?[=!]/.test(node.pattern)) broken.push(`${place}: lookaround`)
  }

  /** The deepest nesting of objects and arrays. A definition inside itself adds none. */
  const nesting = (node: unknown, open: ReadonlyArray<string>): number => {
    if (!isObject(node)) return 0
    if (typeof node.$ref === "string") {
      return open.includes(node.$ref)
        ? 0
        : nesting(definitions[node.$ref.replace(/^#\/\$defs\//, "")], [...open, node.$ref])
    }
    const inner = [
      ...Object.values(isObject(node.properties) ? node.properties : {}),
      node.items,
      ...(Array.isArray(node.anyOf) ? node.anyOf : [])
    ]
    return (node.type === "object" || node.type === "array" ? 1 : 0) +
      Math.max(0, ...inner.map((schema) => nesting(schema, open)))
  }

  if (root.type !== "object" || root.anyOf !== undefined) broken.push("#: the root is not an object")
  visit(root, "#")
  for (const [name, definition] of Object.entries(definitions)) visit(definition, `#/$defs/${name}`)
  for (const name of Object.keys(definitions)) if (!used.has(name)) broken.push(`#/$defs/${name}: not used`)
  if (nesting(root, []) > 10) broken.push("#: more than 10 levels of nesting")
  if (total.properties > 5000) broken.push("#: more than 5,000 properties")
  if (total.enums > 1000) broken.push("#: more than 1,000 enum values")
  if (total.chars > 120_000) broken.push("#: more than 120,000 characters in names")
  return broken
}
