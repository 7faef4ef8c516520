/**
 * Parses JSON Schema into the model.
 *
 * Every parser takes the same schema twice: complete, and `stable`, without the experimental parts of the protocol. A part
 * that only the complete one has is experimental.
 */
import * as Util from "node:util"
import type { Field, Literal, Type } from "./model.ts"
import { displayFields, requiredFields } from "./overrides.ts"
import {
  expectKeywords,
  fail,
  findTag,
  getProperty,
  getRefName,
  getTagValue,
  getVariants,
  isNull,
  isRequired,
  isStringEnum,
  type JsonSchema
} from "./schema.ts"

type Schema = JsonSchema | boolean

export const parse = (path: string, schema: Schema, stableSchema: Schema | undefined): Type => {
  if (typeof schema === "boolean") return { _tag: "Simple", name: schema ? "unknown" : "never" }
  const stable = typeof stableSchema === "object" ? stableSchema : undefined
  const { type } = schema

  if (schema.$ref !== undefined) {
    expectKeywords(path, schema, "$ref")
    return { _tag: "Ref", name: getRefName(schema.$ref) }
  }
  if (schema.allOf !== undefined) {
    expectKeywords(path, schema, "allOf")
    const [only, ...others] = schema.allOf
    return only === undefined || others.length > 0
      ? fail(`${path}: allOf of several schemas`)
      : parse(path, only, stable?.allOf?.[0])
  }
  if (schema.oneOf !== undefined || schema.anyOf !== undefined) return parseUnion(path, schema, stable)
  if (schema.enum !== undefined) {
    expectKeywords(path, schema, "enum", "type")
    if (type !== "string") fail(`${path}: enum of ${JSON.stringify(type)}`)
    return { _tag: "Enum", members: parseLiterals([{ enum: schema.enum }], stable && getVariants(stable)) }
  }
  if (Array.isArray(type)) {
    const [only, ...others] = type.filter((name) => name !== "null")
    if (only === undefined || others.length > 0 || type.length !== 2) fail(`${path}: type ${JSON.stringify(type)}`)
    const withoutNull = (nullable: JsonSchema): JsonSchema => ({ ...nullable, type: only! })
    return { _tag: "Nullable", type: parse(path, withoutNull(schema), stable && withoutNull(stable)) }
  }
  switch (type) {
    case "array":
      expectKeywords(path, schema, "type", "items")
      return { _tag: "Array", item: parse(`${path}[]`, schema.items ?? true, stable?.items) }
    case "object":
      return parseObject(path, schema, stable)
    default:
      return parseScalar(path, schema)
  }
}

const parseScalar = (path: string, schema: JsonSchema): Type => {
  const { format, minimum, minLength, type } = schema
  switch (type) {
    case undefined:
      expectKeywords(path, schema)
      return { _tag: "Simple", name: "unknown" }
    case "null":
    case "boolean":
      expectKeywords(path, schema, "type")
      return { _tag: "Simple", name: type }
    case "string":
      expectKeywords(path, schema, "type", "minLength")
      if (minLength === undefined) return { _tag: "Simple", name: "string" }
      return minLength === 1 ? { _tag: "NonEmptyString" } : fail(`${path}: minLength ${minLength}`)
    case "number":
      expectKeywords(path, schema, "type", "format")
      return ["double", "float", undefined].includes(format)
        ? { _tag: "Number" }
        : fail(`${path}: number of format ${format}`)
    case "integer":
      expectKeywords(path, schema, "type", "format", "minimum")
      return /^u?int(8|16|32|64)?$/.test(format ?? "int")
        ? { _tag: "Int", minimum }
        : fail(`${path}: integer of format ${format}`)
    default:
      return fail(`${path}: type ${JSON.stringify(type)}`)
  }
}

// -----------------------------------------------------------------------------
// Objects
// -----------------------------------------------------------------------------

const parseObject = (path: string, schema: JsonSchema, stable: JsonSchema | undefined): Type => {
  expectKeywords(path, schema, "type", "properties", "required", "additionalProperties")
  const { additionalProperties, properties } = schema
  if (properties !== undefined) {
    if (typeof additionalProperties === "object") fail(`${path}: properties and additionalProperties`)
    return { _tag: "Object", fields: parseFields(path, schema, stable), rest: additionalProperties === true }
  }
  return additionalProperties === undefined || additionalProperties === false
    ? { _tag: "Object", fields: [], rest: false }
    : { _tag: "Record", value: parse(`${path}{}`, additionalProperties, stable?.additionalProperties) }
}

const parseFields = (path: string, schema: JsonSchema, stable: JsonSchema | undefined): ReadonlyArray<Field> =>
  Object.entries(schema.properties ?? {}).map(([name, value]) => {
    const stableField = stable?.properties?.[name]
    return {
      name,
      optional: !isRequired(schema, name),
      detail: isDetail(path, schema, name),
      type: parse(`${path}.${name}`, value, stableField),
      description: typeof value === "object" ? getDescription(value) : undefined,
      experimental: stable !== undefined && stableField === undefined
    }
  })

/** Whether an id identifies the value, as in the entries of lists. */
const isIdentified = (path: string, schema: JsonSchema): boolean =>
  getProperty(schema, "id")?.type === "string" && isRequired(schema, "id") &&
  !/\W|(Params|Notification)$/.test(path)

/**
 * Whether a value is usable without a field. The client keeps such a value when an unsupported server omits the field.
 *
 * Details are times, flags (an omitted flag is not set), descriptions, and most fields of a value that an id identifies.
 * No details are counts, which the client adds up, fields that decide an approval, and fields of a response.
 */
const isDetail = (path: string, schema: JsonSchema, name: string): boolean => {
  if (path.endsWith("Response")) return false
  const type = getProperty(schema, name)?.type
  const isTime = (type === "integer" || type === "number") && /At(Ms)?$/.test(name)
  return isTime || type === "boolean" || displayFields.has(name) ||
    (isIdentified(path, schema) && name !== "id" && !(requiredFields[path]?.includes(name) ?? false))
}

const getDescription = (schema: JsonSchema): string | undefined => {
  const defaultValue = schema.default === undefined || schema.default === null
    ? undefined
    : `Default: \`${JSON.stringify(schema.default)}\`.`
  if (schema.description === undefined) return defaultValue
  return defaultValue === undefined ? schema.description : `${schema.description}\n\n${defaultValue}`
}

// -----------------------------------------------------------------------------
// Unions
// -----------------------------------------------------------------------------

type Variants = ReadonlyArray<JsonSchema>

const parseUnion = (path: string, schema: JsonSchema, stable: JsonSchema | undefined): Type => {
  if (schema.properties === undefined) expectKeywords(path, schema, "oneOf", "anyOf")
  else expectKeywords(path, schema, "oneOf", "anyOf", "properties", "required", "type")

  if (getChoices(schema).some(isNull)) {
    const type = parse(path, withoutNullChoice(schema), stable && withoutNullChoice(stable))
    return type._tag === "Nullable" ? type : { _tag: "Nullable", type }
  }

  const variants = getVariants(schema)
  const stableVariants = stable && getVariants(stable)
  if (variants.every(isStringEnum)) {
    variants.forEach((variant) => expectKeywords(path, variant, "enum", "type"))
    return { _tag: "Enum", members: parseLiterals(variants, stableVariants) }
  }
  const tag = findTag(variants)
  if (tag !== undefined) return parseTagged(path, tag, variants, stableVariants)
  if (variants.some(isCase)) return parseKeyed(path, variants, stableVariants)
  return {
    _tag: "Union",
    members: variants.map((variant, index) => parse(`${path}|${index}`, variant, stableVariants?.[index]))
  }
}

const getChoices = (schema: JsonSchema): Variants => schema.oneOf ?? schema.anyOf ?? []

const withoutNullChoice = (schema: JsonSchema): JsonSchema => {
  const others = getChoices(schema).filter((choice) => !isNull(choice))
  return others.length === 1 ? others[0]! : { anyOf: others }
}

/** The strings of enums. Each enum of a union describes its strings. */
const parseLiterals = (enums: Variants, stable: Variants | undefined): ReadonlyArray<Literal> => {
  const stableValues = stable && new Set(stable.flatMap((variant) => variant.enum ?? []))
  return enums.flatMap((variant) =>
    (variant.enum ?? []).map((value) => ({
      value,
      description: variant.description,
      experimental: stableValues !== undefined && !stableValues.has(value)
    }))
  )
}

const parseTagged = (path: string, tag: string, variants: Variants, stableVariants: Variants | undefined): Type => ({
  _tag: "Tagged",
  tag,
  variants: variants.map((variant) => {
    const value = getTagValue(variant, tag)
    if (value === "malformed") fail(`${path}: a variant has the tag of malformed variants`)
    const stable = stableVariants?.find((other) => getTagValue(other, tag) === value)
    const parsed = parseObject(`${path}(${value})`, variant, stable)
    if (parsed._tag !== "Object") return fail(`${path}(${value}): ${parsed._tag}`)
    const tagField: Field = {
      name: tag,
      optional: false,
      detail: false,
      type: { _tag: "Constant", value },
      description: undefined,
      experimental: false
    }
    return {
      fields: [tagField, ...parsed.fields.filter((field) => field.name !== tag)],
      description: variant.description,
      experimental: stableVariants !== undefined && stable === undefined
    }
  })
})

/** A case of a `Keyed` union: an object with exactly one key. */
const isCase = (variant: JsonSchema): boolean =>
  variant.additionalProperties === false && variant.required?.length === 1 &&
  Object.keys(variant.properties ?? {}).length === 1

const isCatchAll = (variant: JsonSchema): boolean => Util.isDeepStrictEqual(variant, { type: ["string", "object"] })

const parseKeyed = (path: string, variants: Variants, stableVariants: Variants | undefined): Type => {
  for (const variant of variants) {
    if (!isCase(variant) && !isStringEnum(variant) && !isCatchAll(variant)) {
      fail(`${path}: ${JSON.stringify(variant)} among strings and single-key objects`)
    }
  }
  const stableCases = stableVariants?.filter(isCase)
  const cases = variants.filter(isCase).flatMap((variant) => {
    const stable = stableCases?.find((other) => other.required?.[0] === variant.required?.[0])
    const describe = (field: Field): Field => ({
      ...field,
      description: variant.description ?? field.description,
      experimental: stableCases !== undefined && stable === undefined
    })
    return parseFields(path, variant, stable).map(describe)
  })
  return {
    _tag: "Keyed",
    members: parseLiterals(variants.filter(isStringEnum), stableVariants),
    cases,
    catchAll: variants.some(isCatchAll)
  }
}
