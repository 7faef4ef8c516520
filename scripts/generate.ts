/**
 * Writes `src/internal/protocol/generated` from the JSON Schema that the pinned `codex` binary prints about its own protocol.
 *
 *     node scripts/generate.ts [--out DIR]
 *
 * What the client sends becomes strict schemas, what the server sends becomes open ones (see `openSchema.ts`); a
 * definition that travels both ways becomes two, `X` as received and `XParam` as sent. A schema keyword or a shape that
 * this script does not understand stops it.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import manifest from "@openai/codex/package.json" with { type: "json" }
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Util from "node:util"
import { codexBinary } from "../src/internal/stdio/codexBinary.ts"

// -----------------------------------------------------------------------------
// JSON Schema, as schemars writes it
// -----------------------------------------------------------------------------

interface JsonSchema {
  readonly $ref?: string
  readonly type?: string | ReadonlyArray<string>
  readonly format?: string
  readonly enum?: ReadonlyArray<string>
  readonly items?: JsonSchema | boolean
  readonly properties?: Readonly<Record<string, JsonSchema | boolean>>
  readonly required?: ReadonlyArray<string>
  readonly additionalProperties?: JsonSchema | boolean
  readonly oneOf?: ReadonlyArray<JsonSchema>
  readonly anyOf?: ReadonlyArray<JsonSchema>
  readonly allOf?: ReadonlyArray<JsonSchema>
  readonly minimum?: number
  readonly minLength?: number
  readonly description?: string
  readonly default?: unknown
}

type Definitions = ReadonlyMap<string, JsonSchema>

interface Bundle {
  readonly definitions: Readonly<Record<string, JsonSchema>> & {
    readonly v2: Readonly<Record<string, JsonSchema>>
  }
}

const fail = (message: string): never => {
  throw new Error(message)
}

/** Some definitions are written twice, once for each generation of the protocol; they must mean the same. */
const flatten = ({ definitions: { v2, ...v1 } }: Bundle): Definitions => {
  const all = new Map(Object.entries(v1 as Readonly<Record<string, JsonSchema>>))
  for (const [name, schema] of Object.entries(v2)) {
    const { $schema: _, title: __, ...other } = (all.get(name) ?? schema) as JsonSchema & Record<string, unknown>
    const { $schema: ___, title: ____, ...own } = schema as JsonSchema & Record<string, unknown>
    if (!Util.isDeepStrictEqual(other, own)) fail(`${name} has two meanings`)
    all.set(name, schema)
  }
  return all
}

const annotations = new Set(["$schema", "title", "description", "default"])

/** Fails on keywords that the caller is not going to read. */
const expectKeywords = (path: string, schema: JsonSchema, ...known: ReadonlyArray<keyof JsonSchema>): void => {
  for (const keyword of Object.keys(schema)) {
    if (!annotations.has(keyword) && !(known as ReadonlyArray<string>).includes(keyword)) {
      fail(`${path}: unexpected ${keyword} in ${JSON.stringify(schema)}`)
    }
  }
}

// -----------------------------------------------------------------------------
// The model
// -----------------------------------------------------------------------------

interface Doc {
  readonly description: string | undefined
  readonly experimental: boolean
}

interface Field extends Doc {
  readonly name: string
  readonly optional: boolean
  /** Whether a value is of use without it. */
  readonly detail: boolean
  readonly type: Type
}

interface Literal extends Doc {
  readonly value: string
}

interface Variant extends Doc {
  readonly fields: ReadonlyArray<Field>
}

type Type =
  | { readonly _tag: "Simple"; readonly name: "string" | "boolean" | "null" | "unknown" | "never" }
  | { readonly _tag: "NonEmptyString" }
  | { readonly _tag: "Constant"; readonly value: string }
  | { readonly _tag: "Number" }
  | { readonly _tag: "Int"; readonly minimum: number | undefined }
  | { readonly _tag: "Ref"; readonly name: string }
  | { readonly _tag: "Enum"; readonly members: ReadonlyArray<Literal> }
  | { readonly _tag: "Nullable"; readonly type: Type }
  | { readonly _tag: "Array"; readonly item: Type }
  | { readonly _tag: "Record"; readonly value: Type }
  | { readonly _tag: "Object"; readonly fields: ReadonlyArray<Field>; readonly rest: boolean }
  | { readonly _tag: "Tagged"; readonly tag: string; readonly variants: ReadonlyArray<Variant> }
  | {
    readonly _tag: "Keyed"
    readonly members: ReadonlyArray<Literal>
    readonly cases: ReadonlyArray<Field>
    readonly catchAll: boolean
  }
  | { readonly _tag: "Union"; readonly members: ReadonlyArray<Type> }

const refName = (ref: string): string => ref.slice(ref.lastIndexOf("/") + 1)

const isNull = (schema: JsonSchema): boolean => schema.type === "null"

const isStringEnum = (schema: JsonSchema): boolean => schema.enum !== undefined

const property = (schema: JsonSchema | undefined, name: string): JsonSchema | undefined => {
  const found = schema?.properties?.[name]
  return typeof found === "object" ? found : undefined
}

/** serde's `flatten`: properties next to a union belong to each of its variants. */
const expand = (schema: JsonSchema): ReadonlyArray<JsonSchema> => {
  const { anyOf, oneOf, ...shared } = schema
  const variants = oneOf ?? anyOf
  if (variants === undefined) return [schema]
  if (shared.properties === undefined) return variants.flatMap(expand)
  const withShared = (variant: JsonSchema): JsonSchema => ({
    ...shared,
    ...variant,
    properties: { ...variant.properties, ...shared.properties },
    required: [...variant.required ?? [], ...shared.required ?? []]
  })
  return variants.flatMap(expand).map(withShared)
}

/** The property that is required in each variant and has one constant value there. */
const findTag = (variants: ReadonlyArray<JsonSchema>): string | undefined =>
  Object.keys(variants[0]?.properties ?? {}).find((name) =>
    variants.every((variant) => variant.required?.includes(name) && property(variant, name)?.enum?.length === 1)
  )

const variantTag = (variant: JsonSchema, tag: string): string => property(variant, tag)?.enum?.[0] ?? ""

/**
 * Reads a schema. `stable` is the same schema without the experimental parts of the protocol, where there is one: what
 * it lacks is experimental.
 */
const parse = (path: string, schema: JsonSchema | boolean, stable: JsonSchema | boolean | undefined): Type => {
  if (typeof schema === "boolean") return { _tag: "Simple", name: schema ? "unknown" : "never" }
  const before = typeof stable === "object" ? stable : undefined
  const { type } = schema

  if (schema.$ref !== undefined) {
    expectKeywords(path, schema, "$ref")
    return { _tag: "Ref", name: refName(schema.$ref) }
  }
  if (schema.allOf !== undefined) {
    expectKeywords(path, schema, "allOf")
    const [only, ...others] = schema.allOf
    return only === undefined || others.length > 0
      ? fail(`${path}: allOf of several schemas`)
      : parse(path, only, before?.allOf?.[0])
  }
  if (schema.oneOf !== undefined || schema.anyOf !== undefined) return parseUnion(path, schema, before)
  if (schema.enum !== undefined) {
    expectKeywords(path, schema, "enum", "type")
    if (type !== "string") fail(`${path}: enum of ${JSON.stringify(type)}`)
    return { _tag: "Enum", members: literals(schema, before) }
  }
  if (Array.isArray(type)) {
    const [only, ...others] = type.filter((name) => name !== "null")
    if (only === undefined || others.length > 0 || type.length !== 2) fail(`${path}: type ${JSON.stringify(type)}`)
    const without = (nullable: JsonSchema | undefined) => nullable && { ...nullable, type: only! }
    return { _tag: "Nullable", type: parse(path, without(schema)!, without(before)) }
  }
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
      if (schema.minLength === undefined) return { _tag: "Simple", name: "string" }
      return schema.minLength === 1 ? { _tag: "NonEmptyString" } : fail(`${path}: minLength ${schema.minLength}`)
    case "number":
      expectKeywords(path, schema, "type", "format")
      return ["double", "float", undefined].includes(schema.format)
        ? { _tag: "Number" }
        : fail(`${path}: number of format ${schema.format}`)
    case "integer": {
      expectKeywords(path, schema, "type", "format", "minimum")
      const { format, minimum } = schema
      return /^u?int(8|16|32|64)?$/.test(format ?? "int")
        ? { _tag: "Int", minimum }
        : fail(`${path}: integer of format ${format}`)
    }
    case "array":
      expectKeywords(path, schema, "type", "items")
      return { _tag: "Array", item: parse(`${path}[]`, schema.items ?? true, before?.items) }
    case "object":
      return parseObject(path, schema, before)
    default:
      return fail(`${path}: type ${type}`)
  }
}

const parseObject = (path: string, schema: JsonSchema, before: JsonSchema | undefined): Type => {
  expectKeywords(path, schema, "type", "properties", "required", "additionalProperties")
  const { additionalProperties, properties } = schema
  if (properties !== undefined) {
    if (typeof additionalProperties === "object") fail(`${path}: properties and additionalProperties`)
    return { _tag: "Object", fields: parseFields(path, schema, before), rest: additionalProperties === true }
  }
  return additionalProperties === undefined || additionalProperties === false
    ? { _tag: "Object", fields: [], rest: false }
    : { _tag: "Record", value: parse(`${path}{}`, additionalProperties, before?.additionalProperties) }
}

/** What a value that has an id is not of use without, besides that: what it is asked for by, and what this package reads. */
const needed: Readonly<Record<string, ReadonlyArray<string>>> = {
  Model: ["model"],
  ToolRequestUserInputQuestion: ["question"],
  Turn: ["items", "status"]
}

/** What is only for people to look at. */
const shown: ReadonlySet<string> = new Set(["description", "displayName", "parsedCmd"])

/** Whether a value is known by its id, as the entries of lists are. */
const isIdentified = (path: string, schema: JsonSchema): boolean =>
  property(schema, "id")?.type === "string" && (schema.required?.includes("id") ?? false) &&
  !/\W|(Params|Notification)$/.test(path)

/**
 * Whether a value is of use without a field. Such a value is not lost when a server that is not supported leaves the field out.
 * That holds for times, flags (one that is left out is not set), texts that describe, and what a value that is known by its id has
 * besides. It does not hold for counts, which are added up, for what an approval is decided by, and for what was asked for.
 */
const isDetail = (path: string, schema: JsonSchema, name: string): boolean => {
  if (path.endsWith("Response")) return false
  const type = property(schema, name)?.type
  const isTime = (type === "integer" || type === "number") && /At(Ms)?$/.test(name)
  return isTime || type === "boolean" || shown.has(name) ||
    (isIdentified(path, schema) && name !== "id" && !(needed[path]?.includes(name) ?? false))
}

const parseFields = (path: string, schema: JsonSchema, before: JsonSchema | undefined): ReadonlyArray<Field> =>
  Object.entries(schema.properties ?? {}).map(([name, value]) => {
    const stable = before?.properties?.[name]
    return {
      name,
      optional: !(schema.required?.includes(name) ?? false),
      detail: isDetail(path, schema, name),
      type: parse(`${path}.${name}`, value, stable),
      description: typeof value === "object" ? describe(value) : undefined,
      experimental: before !== undefined && stable === undefined
    }
  })

const describe = (schema: JsonSchema): string | undefined => {
  const standard = schema.default === undefined || schema.default === null
    ? undefined
    : `Default: \`${JSON.stringify(schema.default)}\`.`
  return schema.description === undefined ? standard : standard === undefined
    ? schema.description
    : `${schema.description}\n\n${standard}`
}

/** The strings of an enum, or of a union of enums with a description each. */
const literals = (schema: JsonSchema, before: JsonSchema | undefined): ReadonlyArray<Literal> => {
  const known = before && new Set(literals(before, undefined).map((literal) => literal.value))
  return expand(schema).flatMap((variant) =>
    (variant.enum ?? []).map((value) => ({
      value,
      description: variant === schema ? undefined : variant.description,
      experimental: known !== undefined && !known.has(value)
    }))
  )
}

const parseUnion = (path: string, schema: JsonSchema, before: JsonSchema | undefined): Type => {
  if (schema.properties === undefined) expectKeywords(path, schema, "oneOf", "anyOf")
  else expectKeywords(path, schema, "oneOf", "anyOf", "properties", "required", "type")

  const choices = schema.oneOf ?? schema.anyOf ?? []
  if (choices.some(isNull)) {
    const nonNull = (nullable: JsonSchema): JsonSchema => {
      const others = (nullable.oneOf ?? nullable.anyOf ?? []).filter((choice) => !isNull(choice))
      return others.length === 1 ? others[0]! : { anyOf: others }
    }
    const type = parse(path, nonNull(schema), before && nonNull(before))
    return type._tag === "Nullable" ? type : { _tag: "Nullable", type }
  }

  const variants = expand(schema)
  if (variants.every(isStringEnum)) {
    variants.forEach((variant) => expectKeywords(path, variant, "enum", "type"))
    return { _tag: "Enum", members: literals(schema, before) }
  }

  const tag = findTag(variants)
  if (tag !== undefined) return parseTagged(path, tag, variants, before && expand(before))

  // serde's external tags: strings, and objects with one key.
  const isCase = (variant: JsonSchema) =>
    variant.additionalProperties === false && variant.required?.length === 1 &&
    Object.keys(variant.properties ?? {}).length === 1
  const isCatchAll = (variant: JsonSchema) => Util.isDeepStrictEqual(variant, { type: ["string", "object"] })
  if (variants.some(isCase)) {
    const cases = variants.filter(isCase)
    const stableCases = before && expand(before).filter(isCase)
    for (const variant of variants) {
      if (!isCase(variant) && !isStringEnum(variant) && !isCatchAll(variant)) {
        fail(`${path}: ${JSON.stringify(variant)} among strings and single-key objects`)
      }
    }
    return {
      _tag: "Keyed",
      members: literals({ oneOf: variants.filter(isStringEnum) }, before),
      cases: cases.flatMap((variant) => {
        const key = variant.required![0]!
        const stable = stableCases?.find((other) => other.required?.[0] === key)
        const documented = (field: Field): Field => ({
          ...field,
          description: variant.description ?? field.description,
          experimental: stableCases !== undefined && stable === undefined
        })
        return parseFields(path, variant, stable).map(documented)
      }),
      catchAll: variants.some(isCatchAll)
    }
  }

  return {
    _tag: "Union",
    members: variants.map((variant, index) => parse(`${path}|${index}`, variant, before && expand(before)[index]))
  }
}

const parseTagged = (
  path: string,
  tag: string,
  variants: ReadonlyArray<JsonSchema>,
  before: ReadonlyArray<JsonSchema> | undefined
): Type => ({
  _tag: "Tagged",
  tag,
  variants: variants.map((variant) => {
    const value = variantTag(variant, tag)
    if (value === "malformed") fail(`${path}: a variant has the tag that stands for malformed ones`)
    const stable = before?.find((other) => variantTag(other, tag) === value)
    const parsed = parseObject(`${path}(${value})`, variant, stable)
    if (parsed._tag !== "Object") return fail(`${path}(${value}): ${parsed._tag}`)
    const fields = parsed.fields.filter((field) => field.name !== tag)
    return {
      fields: [
        {
          name: tag,
          optional: false,
          detail: false,
          type: { _tag: "Constant", value },
          description: undefined,
          experimental: false
        },
        ...fields
      ],
      description: variant.description,
      experimental: before !== undefined && stable === undefined
    }
  })
})

const children = (type: Type): ReadonlyArray<Type> => {
  switch (type._tag) {
    case "Nullable":
      return [type.type]
    case "Array":
      return [type.item]
    case "Record":
      return [type.value]
    case "Object":
      return type.fields.map((field) => field.type)
    case "Tagged":
      return type.variants.flatMap((variant) => variant.fields.map((field) => field.type))
    case "Keyed":
      return type.cases.map((field) => field.type)
    case "Union":
      return type.members
    default:
      return []
  }
}

const refs = (type: Type): ReadonlyArray<string> => type._tag === "Ref" ? [type.name] : children(type).flatMap(refs)

interface Definition extends Doc {
  readonly name: string
  readonly type: Type
}

// -----------------------------------------------------------------------------
// Methods
// -----------------------------------------------------------------------------

interface Method extends Doc {
  readonly name: string
  readonly params: string | undefined
  /** Whether the wire wants `params`, if only `{}`. */
  readonly paramsRequired: boolean
}

/** Methods whose response is not named after their params. */
const responses: Readonly<Record<string, string>> = {
  "account/gatewayOAuth/cancel": "GatewayOAuthCancelResponse",
  "account/logout": "LogoutAccountResponse",
  "account/securitySetup/read": "GetAccountSecuritySetupResponse",
  "account/workspaceMessages/read": "GetWorkspaceMessagesResponse",
  "accountSession/list": "AccountSessionsResponse",
  "config/batchWrite": "ConfigWriteResponse",
  "config/mcpServer/reload": "McpServerRefreshResponse",
  "config/value/write": "ConfigWriteResponse",
  "configRequirements/read": "ConfigRequirementsReadResponse",
  "externalAgentConfig/import/readHistories": "ExternalAgentConfigImportHistoriesReadResponse",
  "memory/reset": "MemoryResetResponse",
  "remoteControl/status/read": "RemoteControlStatusReadResponse",
  "rollout/compress": "RolloutCompressResponse",
  "windowsSandbox/readiness": "WindowsSandboxReadinessResponse"
}

/**
 * Strings of which the schema says nothing, with the values that are known: those that the models of the catalogue advertise, and
 * `none` and `minimal`, which providers of the Responses API have. Any other string is a value too.
 */
const knownStrings: Readonly<Record<string, ReadonlyArray<string>>> = {
  ReasoningEffort: ["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
}

/** Fields that the schema does not describe, or only together with those that follow. */
const threadFields = {
  approvalPolicy:
    "When Codex asks for approval: with `untrusted` before each command, with `on-request` when the model wants more than the sandbox " +
    "allows, with `never` not at all, so that what the sandbox forbids fails.",
  baseInstructions: "Replaces the instructions that Codex gives to the model.",
  config:
    "Overrides of the configuration, for this thread, such as `{ model_verbosity: \"low\", \"features.goals\": true }`. Values may be " +
    "nested.",
  cwd:
    "The working directory, an absolute path on the server's machine. A new thread has that of the server's process by default, any " +
    "other thread keeps its own.",
  developerInstructions: "Instructions of the program, which the model gets in addition to those of Codex.",
  model:
    "The id of the model, as `model/list` gives it. A new thread has the configured one by default, any other thread keeps its own.",
  modelProvider:
    "The id of the model's provider: a key of `model_providers` in the configuration, or one that Codex has.",
  sandbox:
    "What commands may do: `read-only` reads everything and writes nothing, `workspace-write` also writes in the working directory " +
    "and in temporary directories, `danger-full-access` has no sandbox.",
  serviceTier: "The service tier of requests to the model, by its id: one of the model's `serviceTiers`."
}

const fieldDocs: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  ThreadForkParams: {
    ...threadFields,
    ephemeral: "Whether the fork is kept in memory only, and so cannot be resumed."
  },
  ThreadResumeParams: threadFields,
  ThreadStartParams: {
    ...threadFields,
    dynamicTools: "Tools that the client runs when the server asks it to with `item/tool/call`.",
    ephemeral: "Whether the thread is kept in memory only, and so can be neither resumed nor forked.",
    serviceName: "A name for the service that starts the thread.",
    sessionStartSource: "Why the thread is started: `startup`, or `clear` for one that replaces another."
  },
  TurnStartParams: {
    clientUserMessageId: "An id of the client's own for the input, which its item has as `clientId`.",
    toolOutput: "The output of a tool that the turn is started with."
  }
}

const approvalFields = ["approvalPolicy", "approvalsReviewer"]

/**
 * The params whose fields an operation takes as options, but for those that it sets, or has in a form of its own. They are
 * interfaces, because editors show no documentation of what `Omit` leaves.
 */
const optionInterfaces: Readonly<Record<string, { readonly name: string; readonly without: ReadonlyArray<string> }>> = {
  ModelListParams: { name: "ModelListOptions", without: ["cursor"] },
  ThreadForkParams: {
    name: "ThreadForkOptions",
    without: [...approvalFields, "excludeTurns", "sandbox", "threadId"]
  },
  ThreadListParams: { name: "ThreadListOptions", without: ["cursor"] },
  ThreadReadParams: { name: "ThreadReadOptions", without: ["threadId"] },
  ThreadResumeParams: {
    name: "ThreadResumeOptions",
    without: [...approvalFields, "excludeTurns", "initialTurnsPage", "sandbox", "threadId"]
  },
  ThreadStartParams: { name: "ThreadStartOptions", without: [...approvalFields, "sandbox"] },
  TurnStartParams: {
    name: "TurnStartOptions",
    without: [...approvalFields, "input", "outputSchema", "sandboxPolicy", "threadId"]
  }
}

const responseOf = (definitions: Definitions, method: Method): string => {
  const name = responses[method.name] ?? method.params?.replace(/Params$/, "Response")
  return name !== undefined && name.endsWith("Response") && definitions.has(name)
    ? name
    : fail(`${method.name} has no response; found ${name}`)
}

const methodsOf = (definitions: Definitions, envelope: string, stable: Definitions): ReadonlyArray<Method> => {
  const known = new Set(stable.get(envelope)?.oneOf?.map((variant) => variantTag(variant, "method")))
  return (definitions.get(envelope)?.oneOf ?? fail(`${envelope} is no union`)).map((variant) => {
    const name = variantTag(variant, "method")
    expectKeywords(name, variant, "type", "properties", "required")
    const extra = Object.keys(variant.properties ?? {}).filter((key) => !["id", "method", "params"].includes(key))
    if (extra.length > 0) fail(`${name}: unexpected ${extra.join()} in ${envelope}`)
    const schema = property(variant, "params")
    const type = schema && parse(name, schema, undefined)
    const params = type === undefined || (type._tag === "Simple" && type.name === "null")
      ? undefined
      : type._tag === "Ref"
      ? type.name
      : type._tag === "Nullable" && type.type._tag === "Ref"
      ? type.type.name
      : fail(`${name}: params of type ${type._tag}`)
    return {
      name,
      params,
      paramsRequired: type !== undefined && type._tag === "Ref" && (variant.required?.includes("params") ?? false),
      // Headings of the source that reach the first method below them.
      description: variant.description?.replace(/^(NEW APIs|NEW NOTIFICATIONS|DEPRECATED APIs below)\s*/, ""),
      experimental: !known.has(name)
    }
  })
}

// -----------------------------------------------------------------------------
// Text
// -----------------------------------------------------------------------------

const experimentalNote = "Experimental: needs the `experimentalApi` capability."

const indent = (text: string): string => text.replace(/^(?=.)/gm, "  ")

const wrap = (line: string, width: number): ReadonlyArray<string> => {
  const hanging = /^\s*(- )?/.exec(line)![0].replace("-", " ")
  const lines: Array<string> = []
  let current = ""
  for (const word of line.trimEnd().split(" ")) {
    if (current.trim() !== "" && current.length + 1 + word.length > width) {
      lines.push(current)
      current = hanging + word
    } else {
      current = current === "" && lines.length === 0 && word !== "" ? word : `${current} ${word}`
    }
  }
  return [...lines, current.trimEnd()]
}

const comment = (...paragraphs: ReadonlyArray<string | undefined | false>): string => {
  const text = paragraphs.filter((paragraph) => typeof paragraph === "string").join("\n\n").trim()
    .replaceAll("*/", "*\\/")
  if (text === "") return ""
  if (!text.includes("\n") && text.length <= 105) return `/** ${text} */\n`
  const lines = text.split("\n").flatMap((line) => wrap(line, 105))
  return `/**\n${lines.map((line) => ` * ${line}`.trimEnd()).join("\n")}\n */\n`
}

const docComment = (doc: Doc, ...more: ReadonlyArray<string | undefined | false>): string =>
  comment(doc.description, ...more, doc.experimental && experimentalNote)

const key = (name: string): string => /^[A-Za-z_$][\w$]*$/.test(name) ? name : JSON.stringify(name)

const quoted = (members: ReadonlyArray<Literal>): ReadonlyArray<string> =>
  members.map((member) => JSON.stringify(member.value))

/** `a(b, c)`, over several lines if it is long. */
const call = (open: string, items: ReadonlyArray<string>, close: string): string => {
  const flat = `${open}${items.join(", ")}${close}`
  return flat.length <= 90 && !flat.includes("\n") ? flat : `${open}\n${indent(items.join(",\n"))}\n${close}`
}

const block = (items: ReadonlyArray<string>, separator: string): string =>
  items.length === 0 ? "{}" : `{\n${indent(items.join(`${separator}\n`))}\n}`

/** `{ a, b }`, over several lines if it is long. */
const braces = (items: ReadonlyArray<string>, separator: string, width = 90): string => {
  const flat = `{ ${items.join(`${separator || ";"} `)} }`
  return flat.length <= width && !flat.includes("\n") ? flat : block(items, separator)
}

const alternatives = (items: ReadonlyArray<string>): string => {
  const flat = items.join(" | ")
  return flat.length <= 80 && !flat.includes("\n") ? flat : `\n${items.map((item) => indent(pipe(item))).join("\n")}`
}

/** A union member, behind its comment. */
const pipe = (item: string): string => {
  const [, doc = "", rest = ""] = /^(\/\*\*[^]*?\*\/\n)?([^]*)$/.exec(item) ?? []
  return `${doc}| ${rest}`
}

/** How the definitions of one direction are written. */
class Emitter {
  readonly direction: "sent" | "received"
  readonly nameOf: (name: string) => string
  readonly isSoft: (type: Type) => boolean
  constructor(
    direction: "sent" | "received",
    nameOf: (name: string) => string,
    /** Whether a malformed variant may be inside. */
    isSoft: (type: Type) => boolean
  ) {
    this.direction = direction
    this.nameOf = nameOf
    this.isSoft = isSoft
  }

  get open(): boolean {
    return this.direction === "received"
  }

  /** A server that leaves out what it would send as null, as older and newer ones do, means the same. */
  isOptional(field: Field): boolean {
    return field.optional || (this.open && field.type._tag === "Nullable")
  }

  fieldTypes(fields: ReadonlyArray<Field>, docs: Readonly<Record<string, string>> = {}): ReadonlyArray<string> {
    return fields.map((given) => {
      const description = docs[given.name] ?? given.description
      const field = { ...given, description }
      const type = this.type(field.type)
      const orUndefined = field.optional && !this.open && type !== "unknown" ? " | undefined" : ""
      return `${docComment(field)}readonly ${key(field.name)}${
        this.isOptional(field) ? "?" : ""
      }: ${type}${orUndefined}`
    })
  }

  /** The TypeScript type. */
  type(type: Type): string {
    switch (type._tag) {
      case "Simple":
        return type.name
      case "NonEmptyString":
        return "string"
      case "Constant":
        return JSON.stringify(type.value)
      case "Number":
      case "Int":
        return "number"
      case "Ref":
        return this.nameOf(type.name)
      case "Enum":
        return alternatives([...quoted(type.members), ...(this.open ? ["(string & {})"] : [])])
      case "Nullable":
        return `${this.type(type.type)} | null`
      case "Array":
        return `ReadonlyArray<${this.type(type.item)}>`
      case "Record":
        return `{ readonly [key: string]: ${this.type(type.value)} }`
      case "Object":
        if (type.fields.length === 0) {
          return `{ readonly [key: string]: ${this.open || type.rest ? "unknown" : "never"} }`
        }
        return block([
          ...this.fieldTypes(type.fields),
          ...(type.rest ? ["readonly [key: string]: unknown"] : [])
        ], "")
      case "Tagged":
        return alternatives([
          ...type.variants.map((variant) => docComment(variant) + block(this.fieldTypes(variant.fields), "")),
          ...(this.open
            ? [`UnrecognizedVariant<${JSON.stringify(type.tag)}>`, `MalformedVariant<${JSON.stringify(type.tag)}>`]
            : [])
        ])
      case "Keyed":
        return alternatives([
          ...quoted(type.members),
          ...(this.open ? ["(string & {})"] : []),
          ...type.cases.map((field) =>
            docComment(field) + block(this.fieldTypes([{ ...field, description: undefined, experimental: false }]), "")
          ),
          ...(this.open ? ["UnrecognizedObject", "MalformedObject"] : [])
        ])
      case "Union":
        return alternatives(type.members.map((member) => this.type(member)))
    }
  }

  fields(fields: ReadonlyArray<Field>): string {
    return block(
      fields.map((field) => {
        const schema = this.schema(field.type)
        const optional = this.open || schema === "Schema.Unknown" ? "Schema.optionalKey" : "Schema.optional"
        const required = this.open && field.detail ? `detail(${schema})` : schema
        return `${key(field.name)}: ${this.isOptional(field) ? `${optional}(${schema})` : required}`
      }),
      ","
    )
  }

  object(fields: ReadonlyArray<Field>): string {
    const struct = !this.open
      ? "Schema.Struct"
      : fields.some((field) => this.isSoft(field.type))
      ? "openCodec"
      : "open"
    return `${struct}(${this.fields(fields)})`
  }

  /** The schema. */
  schema(type: Type): string {
    switch (type._tag) {
      case "Simple":
        return `Schema.${type.name[0]!.toUpperCase()}${type.name.slice(1)}`
      case "NonEmptyString":
        return this.open ? "Schema.String" : "Schema.NonEmptyString"
      case "Constant":
        return `Schema.Literal(${JSON.stringify(type.value)})`
      case "Number":
        return this.open ? "Schema.Number" : "Schema.Finite"
      case "Int":
        if (this.open) return "Schema.Number"
        if (type.minimum === undefined) return "Schema.Int"
        return type.minimum === 0 ? "UnsignedInt" : `Schema.Int.check(Schema.isGreaterThanOrEqualTo(${type.minimum}))`
      case "Ref":
        return this.nameOf(type.name)
      case "Enum":
        return call(this.open ? "openEnum([" : "Schema.Literals([", quoted(type.members), "])")
      case "Nullable":
        return `nullable(${this.schema(type.type)})`
      case "Array":
        return `Schema.Array(${this.schema(type.item)})`
      case "Record":
        return `Schema.Record(Schema.String, ${this.schema(type.value)})`
      case "Object": {
        if (type.fields.length === 0) {
          return `Schema.Record(Schema.String, Schema.${this.open || type.rest ? "Unknown" : "Never"})`
        }
        const struct = this.object(type.fields)
        return type.rest && !this.open
          ? `Schema.StructWithRest(${struct}, [Schema.Record(Schema.String, Schema.Unknown)])`
          : struct
      }
      case "Tagged":
        return this.open
          ? call(`tagged(${JSON.stringify(type.tag)}, [`, type.variants.map((v) => this.fields(v.fields)), "])")
          : this.union(type.variants.map((variant) => this.object(variant.fields)))
      case "Keyed": {
        if (this.open) {
          const cases = type.cases.map((field) => `${key(field.name)}: ${this.schema(field.type)}`)
          const members = call("[", quoted(type.members), "]")
          return members.includes("\n")
            ? call("keyed(", [members, block(cases, ",")], ")")
            : `keyed(${members}, ${block(cases, ",")})`
        }
        if (type.catchAll) fail("a catch-all variant is sent by the client")
        return this.union([
          ...(type.members.length === 0 ? [] : [call("Schema.Literals([", quoted(type.members), "])")]),
          ...type.cases.map((field) => this.object([field]))
        ])
      }
      case "Union":
        return this.union(type.members.map((member) => this.schema(member)))
    }
  }

  union(members: ReadonlyArray<string>): string {
    return members.length === 1 ? members[0]! : call("Schema.Union([", members, "])")
  }

  definition(definition: Definition): string {
    const name = this.nameOf(definition.name)
    const { type } = definition
    const members = type._tag === "Enum" || type._tag === "Keyed" ? type.members : []
    const list = members.filter((member) => member.description !== undefined || member.experimental)
      .map((member) =>
        [
          `- \`"${member.value}"\`:`,
          member.description?.replaceAll(/\s*\n\s*/g, " "),
          member.experimental && experimentalNote
        ].filter(Boolean).join(" ")
      ).join("\n")
    const doc = docComment(
      definition,
      list,
      name !== definition.name && `As the client sends it; {@link ${definition.name}} is what the server sends.`
    )
    const known = knownStrings[definition.name]
    if (known !== undefined && type._tag !== "NonEmptyString") fail(`${definition.name} has its values in the schema`)
    const docs = fieldDocs[definition.name] ?? {}
    const options = optionInterfaces[definition.name]
    const fields = type._tag === "Object" ? type.fields : []
    const missing = [...Object.keys(docs), ...options?.without ?? []]
      .find((name) => !fields.some((field) => field.name === name))
    if (missing !== undefined) fail(`${definition.name} has no field ${missing}`)
    const isOwn = (field: Field) => options === undefined || options.without.includes(field.name)
    const rhs = known === undefined
      ? fields.length > 0 && !(type._tag === "Object" && type.rest)
        ? block(this.fieldTypes(fields.filter(isOwn), docs), "")
        : this.type(type)
      : alternatives([...known.map((value) => JSON.stringify(value)), "(string & {})"])
    const isInterface = type._tag === "Object" || (type._tag === "Record")
    const base = options === undefined
      ? ""
      : `${
        comment(`The fields of {@link ${name}} that an operation has as options.`)
      }export interface ${options.name} ${
        block(this.fieldTypes(fields.filter((field) => !isOwn(field)), docs), "")
      }\n\n`
    const declaration = isInterface
      ? `export interface ${name} ${options === undefined ? "" : `extends ${options.name} `}${
        rhs.startsWith("{\n") ? rhs : `{\n${indent(rhs.slice(2, -2))}\n}`
      }`
      : `export type ${name} =${rhs.startsWith("\n") ? "" : " "}${rhs}`
    // Engines skip over the body of a `function` until it is called, but parse that of an arrow at once.
    const annotated = `export const ${name}: Schema.Codec<${name}> =`
    return `${base}${doc}${declaration}\n${annotated}${annotated.length > 100 ? "\n  " : " "}lazy(function() {\n${
      indent(`return ${this.schema(type)}`)
    }\n})\n`
  }
}

// -----------------------------------------------------------------------------
// The two files
// -----------------------------------------------------------------------------

const header = (version: string): string =>
  `// Generated by \`npm run generate\` from @openai/codex ${version}; do not edit.\n`

/** Only the shape of a message around its params: those are made from the tables. */
const envelopes = new Set([
  "ClientNotification",
  "ClientRequest",
  "JSONRPCError",
  "JSONRPCErrorError",
  "JSONRPCMessage",
  "JSONRPCNotification",
  "JSONRPCRequest",
  "ServerNotification",
  "ServerRequest",
  "W3cTraceContext"
])

const reservedNames = new Set([
  "Array",
  "ClientNotifications",
  "ClientRequests",
  "MalformedObject",
  "MalformedVariant",
  "Notification",
  "NotificationSpec",
  "ReadonlyArray",
  "RequestSpec",
  "Schema",
  "ServerNotificationMethod",
  "ServerNotifications",
  "ServerRequests",
  "ThreadNotification",
  "ThreadNotificationMethod",
  "TurnNotification",
  "TurnNotificationMethod",
  "Unrecognized",
  "UnrecognizedNotification",
  "UnrecognizedObject",
  "UnrecognizedVariant",
  ...envelopes
])

const generate = (version: string, experimental: Bundle, stable: Bundle): ReadonlyMap<string, string> => {
  const schemas = flatten(experimental)
  const stableSchemas = flatten(stable)

  const definitions = new Map<string, Definition>()
  for (const [name, schema] of schemas) {
    if (envelopes.has(name)) continue
    if (reservedNames.has(name) || Object.values(optionInterfaces).some((options) => options.name === name)) {
      fail(`${name} is a name of ours`)
    }
    const before = stableSchemas.get(name)
    definitions.set(name, {
      name,
      type: parse(name, schema, before),
      description: schema.description,
      experimental: before === undefined
    })
  }
  const definition = (name: string): Definition => definitions.get(name) ?? fail(`${name} is not defined`)

  const clientRequests = methodsOf(schemas, "ClientRequest", stableSchemas)
  const clientNotifications = methodsOf(schemas, "ClientNotification", stableSchemas)
  if (clientNotifications.some((method) => method.params !== undefined)) fail("a client notification has params")
  const serverRequests = methodsOf(schemas, "ServerRequest", stableSchemas)
  const notificationsEnvelope = schemas.get("ServerNotification") ?? fail("no ServerNotification")
  if (Object.keys(notificationsEnvelope.properties ?? {}).join() !== "emittedAtMs") fail("ServerNotification changed")
  const serverNotifications = methodsOf(schemas, "ServerNotification", stableSchemas)

  const reach = (roots: ReadonlyArray<string | undefined>): ReadonlySet<string> => {
    const seen = new Set<string>()
    const visit = (name: string): void => {
      if (seen.has(name)) return
      seen.add(name)
      refs(definition(name).type).forEach(visit)
    }
    roots.forEach((root) => root === undefined || visit(root))
    return seen
  }
  const sent = reach([
    ...clientRequests.map((method) => method.params),
    ...serverRequests.map((method) => responseOf(schemas, method))
  ])
  const answered = reach([
    ...clientRequests.map((method) => responseOf(schemas, method)),
    ...serverRequests.map((method) => method.params),
    ...serverNotifications.map((method) => method.params)
  ])
  // What no method mentions, such as the data of errors, comes from the server.
  const received = new Set([...definitions.keys()].filter((name) => answered.has(name) || !sent.has(name)))

  const softness = new Map<string, boolean>()
  const isSoft = (type: Type): boolean => {
    if (type._tag === "Tagged" || type._tag === "Keyed") return true
    if (type._tag !== "Ref") return children(type).some(isSoft)
    const known = softness.get(type.name)
    if (known !== undefined) return known
    softness.set(type.name, false)
    const soft = isSoft(definition(type.name).type)
    softness.set(type.name, soft)
    return soft
  }

  // A definition that travels both ways needs two schemas, unless both would be the same.
  const plain = new Emitter("received", (name) => name, isSoft)
  const plainSent = new Emitter("sent", (name) => name, isSoft)
  const both = [...definitions.keys()].filter((name) => sent.has(name) && received.has(name))
  const dual = new Set<string>()
  for (let size = -1; size < dual.size;) {
    size = dual.size
    for (const name of both) {
      const { type } = definition(name)
      if (
        plain.type(type) !== plainSent.type(type) || plain.schema(type) !== plainSent.schema(type) ||
        refs(type).some((ref) => dual.has(ref))
      ) dual.add(name)
    }
  }
  const sentName = (name: string): string => dual.has(name) ? `${name}Param` : name
  for (const name of dual) {
    if (optionInterfaces[name] !== undefined) fail(`${name} is received too`)
    if (definitions.has(`${name}Param`) || reservedNames.has(`${name}Param`)) fail(`${name}Param is taken`)
  }
  const receiver = new Emitter("received", (name) => name, isSoft)
  const sender = new Emitter("sent", sentName, isSoft)

  const texts: Array<string> = []
  for (const definition of [...definitions.values()].sort((a, b) => a.name < b.name ? -1 : 1)) {
    const isReceived = received.has(definition.name)
    if (isReceived) texts.push(receiver.definition(definition))
    if (dual.has(definition.name) || !isReceived) texts.push(sender.definition(definition))
  }
  const body = texts.join("\n")

  const helpers = ["detail", "keyed", "lazy", "nullable", "open", "openCodec", "openEnum", "tagged", "UnsignedInt"]
    .filter((helper) => new RegExp(`\\b${helper}\\b`).test(body))
  const helperTypes = ["MalformedObject", "MalformedVariant", "UnrecognizedObject", "UnrecognizedVariant"]
  const imports = [...helpers, ...helperTypes.map((name) => `type ${name}`)]
  const definitionsFile = `${header(version)}import * as Schema from "effect/Schema"
${call("import { ", imports, ` } from "../openSchema.ts"`).replace("{ \n", "{\n").replace(/\n } from/, "\n} from")}

${body}`

  return new Map([
    ["definitions.ts", definitionsFile],
    [
      "methods.ts",
      methodsFile({
        version,
        definition,
        schemas,
        clientRequests,
        clientNotifications,
        serverRequests,
        serverNotifications,
        sentName
      })
    ]
  ])
}

const section = (doc: string, declaration: string): string =>
  `${comment(doc, "@category methods\n@since 0.1.0")}export ${declaration}\n`

const scopeOf = (definition: Definition) => {
  const names = definition.type._tag === "Object" ? definition.type.fields.map((field) => field.name) : []
  const path = (what: string) =>
    names.includes(`${what}Id`) ? `"${what}Id"` : names.includes(what) ? `"${what}.id"` : "undefined"
  const [threadId, turnId] = [path("thread"), path("turn")]
  const scope = threadId === "undefined" ? "global" : turnId === "undefined" ? "thread" : "turn"
  if (scope === "global" && turnId !== "undefined") fail(`${definition.name} names a turn without its thread`)
  return { scope, threadId, turnId }
}

const methodsFile = (
  { clientNotifications, clientRequests, definition, schemas, sentName, serverNotifications, serverRequests, version }:
    {
      readonly version: string
      readonly definition: (name: string) => Definition
      readonly schemas: Definitions
      readonly clientRequests: ReadonlyArray<Method>
      readonly clientNotifications: ReadonlyArray<Method>
      readonly serverRequests: ReadonlyArray<Method>
      readonly serverNotifications: ReadonlyArray<Method>
      readonly sentName: (name: string) => string
    }
): string => {
  const entry = (method: Method, items: ReadonlyArray<string>) =>
    `${key(method.name)}: ${braces(items, ",", 106 - method.name.length)}`
  const typed = (method: Method, items: ReadonlyArray<string>) =>
    docComment(method) + `readonly ${key(method.name)}: ${braces(items, "", 100 - method.name.length)}`

  const allOptional = (name: string): boolean => {
    const { type } = definition(name)
    return (type._tag === "Object" && type.fields.every((field) => field.optional)) || type._tag === "Record"
  }
  // Params that the schema does not require are nullable, and are sent as an empty object all the same.
  const omittable = (method: Method) => {
    if (method.params === undefined) return false
    if (allOptional(method.params)) return true
    return method.paramsRequired ? false : fail(`the nullable params of ${method.name} have required fields`)
  }

  const requestTypes = clientRequests.map((method) => {
    const params = method.params === undefined
      ? "undefined"
      : `D.${sentName(method.params)}${omittable(method) ? " | undefined" : ""}`
    return typed(method, [`readonly params: ${params}`, `readonly result: D.${responseOf(schemas, method)}`])
  })
  const requests = clientRequests.map((method) =>
    entry(method, [
      `params: ${method.params === undefined ? "undefined" : `D.${sentName(method.params)}`}`,
      `result: D.${responseOf(schemas, method)}`,
      `experimental: ${method.experimental}`,
      `defaultParams: ${omittable(method) ? "{}" : "undefined"}`
    ])
  )
  const serverTypes = serverRequests.map((method) =>
    typed(method, [
      `readonly params: D.${method.params}`,
      `readonly result: D.${sentName(responseOf(schemas, method))}`
    ])
  )
  const server = serverRequests.map((method) =>
    entry(method, [
      `params: D.${method.params ?? fail(`${method.name} has no params`)}`,
      `result: D.${sentName(responseOf(schemas, method))}`,
      `experimental: ${method.experimental}`,
      "defaultParams: undefined"
    ])
  )

  const scoped = serverNotifications.map((method) => ({
    method,
    scope: scopeOf(definition(method.params ?? fail(`${method.name} has no params`)))
  }))
  const notificationTypes = serverNotifications.map((method) =>
    `${docComment(method)}readonly ${key(method.name)}: D.${method.params}`
  )
  const notifications = scoped.map(({ method, scope: { scope, threadId, turnId } }) =>
    entry(method, [
      `params: D.${method.params}`,
      `scope: "${scope}"`,
      `threadId: ${threadId}`,
      `turnId: ${turnId}`,
      `experimental: ${method.experimental}`
    ])
  )
  const inScope = (name: string) =>
    alternatives(scoped.filter(({ scope }) => scope.scope === name).map(({ method }) => JSON.stringify(method.name)))

  return [
    `${
      header(version)
    }import type { NotificationSpec, RequestSpec } from "../methodSpec.ts"\nimport * as D from "./definitions.ts"\n`,
    section("The version of `@openai/codex` that this protocol was generated from.", `const version = "${version}"`),
    section(
      "The requests of the client: params and result by method. Params that include `undefined` may be left out.",
      `interface ClientRequests ${block(requestTypes, "")}`
    ),
    section(
      "The requests of the client, at run time.",
      `const clientRequests: {
  readonly [M in keyof ClientRequests]: RequestSpec<ClientRequests[M]["params"], ClientRequests[M]["result"]>
} = ${block(requests, ",")}`
    ),
    section(
      "The requests of the server, which the client answers: params and result by method.",
      `interface ServerRequests ${block(serverTypes, "")}`
    ),
    section(
      "The requests of the server, at run time.",
      `const serverRequests: {
  readonly [M in keyof ServerRequests]: RequestSpec<ServerRequests[M]["params"], ServerRequests[M]["result"]>
} = ${block(server, ",")}`
    ),
    section(
      "The notifications of the client: params by method.",
      `interface ClientNotifications ${
        block(clientNotifications.map((method) => `${docComment(method)}readonly ${key(method.name)}: undefined`), "")
      }`
    ),
    section(
      "The notifications of the server: params by method.",
      `interface ServerNotifications ${block(notificationTypes, "")}`
    ),
    section(
      "The notifications of the server, at run time.",
      `const serverNotifications: {
  readonly [M in keyof ServerNotifications]: NotificationSpec<ServerNotifications[M]>
} = ${block(notifications, ",")}`
    ),
    section(
      "The methods of notifications whose params can name a thread and a turn.",
      `type TurnNotificationMethod =${inScope("turn")}`
    ),
    section(
      "The methods of notifications whose params can name a thread, those of its turns included.",
      `type ThreadNotificationMethod =\n  | TurnNotificationMethod${inScope("thread")}`
    )
  ].join("\n")
}

// -----------------------------------------------------------------------------
// Running
// -----------------------------------------------------------------------------

const program = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const { values } = Util.parseArgs({ options: { out: { type: "string" } } })
  const out = values.out ?? path.join(import.meta.dirname, "..", "src", "internal", "protocol", "generated")
  const command = yield* codexBinary
  const { version } = manifest

  const bundle = Effect.fnUntraced(function*(...flags: ReadonlyArray<string>) {
    const dir = yield* fs.makeTempDirectoryScoped()
    yield* spawner.string(
      ChildProcess.make(command, ["app-server", "generate-json-schema", ...flags, "--out", dir])
    )
    return JSON.parse(yield* fs.readFileString(path.join(dir, "codex_app_server_protocol.schemas.json"))) as Bundle
  })
  const files = generate(version, yield* bundle("--experimental"), yield* bundle())
  yield* fs.makeDirectory(out, { recursive: true })
  yield* Effect.forEach(files, ([name, text]) => fs.writeFileString(path.join(out, name), text), { discard: true })
  yield* Console.log(`Wrote ${[...files.keys()].join(" and ")} of @openai/codex ${version} to ${out}`)
})

program.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
