/** The JSON Schema that the `codex` binary prints about its protocol, and access to its parts. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import * as ChildProcessSpawner from "effect/process/ChildProcessSpawner"
import * as Util from "node:util"

/** A schema as schemars writes it. The parser rejects every other keyword. */
export interface JsonSchema {
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

/** The schemas of the protocol by name. */
export type Definitions = ReadonlyMap<string, JsonSchema>

interface Bundle {
  readonly definitions: Readonly<Record<string, JsonSchema>> & {
    readonly v2: Readonly<Record<string, JsonSchema>>
  }
}

/** Stops the generator: the schema contains something that it does not understand. */
export const fail = (message: string): never => {
  throw new Error(message)
}

/** Merges both generations of the protocol. A definition that exists in both must be the same in both. */
const mergeGenerations = ({ definitions: { v2, ...v1 } }: Bundle): Definitions => {
  const withoutTitle = (schema: JsonSchema): object => {
    const { $schema: _, title: __, ...rest } = schema as JsonSchema & Record<string, unknown>
    return rest
  }
  const all = new Map(Object.entries(v1 as Readonly<Record<string, JsonSchema>>))
  for (const [name, schema] of Object.entries(v2)) {
    const other = all.get(name) ?? schema
    if (!Util.isDeepStrictEqual(withoutTitle(other), withoutTitle(schema))) fail(`${name} has two meanings`)
    all.set(name, schema)
  }
  return all
}

/** Runs `codex app-server generate-json-schema` and reads the file that it writes. */
export const readDefinitions = Effect.fn("schema.readDefinitions")(
  function*(binary: string, flags: ReadonlyArray<string>) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const dir = yield* fs.makeTempDirectoryScoped()
    yield* spawner.string(ChildProcess.make(binary, ["app-server", "generate-json-schema", ...flags, "--out", dir]))
    const text = yield* fs.readFileString(path.join(dir, "codex_app_server_protocol.schemas.json"))
    return mergeGenerations(JSON.parse(text) as Bundle)
  }
)

const annotations = new Set(["$schema", "title", "description", "default"])

/** Fails for keywords that the caller does not read. */
export const expectKeywords = (path: string, schema: JsonSchema, ...known: ReadonlyArray<keyof JsonSchema>): void => {
  for (const keyword of Object.keys(schema)) {
    if (!annotations.has(keyword) && !(known as ReadonlyArray<string>).includes(keyword)) {
      fail(`${path}: unexpected ${keyword} in ${JSON.stringify(schema)}`)
    }
  }
}

export const getRefName = (ref: string): string => ref.slice(ref.lastIndexOf("/") + 1)

export const isNull = (schema: JsonSchema): boolean => schema.type === "null"

export const isStringEnum = (schema: JsonSchema): boolean => schema.enum !== undefined

export const getProperty = (schema: JsonSchema | undefined, name: string): JsonSchema | undefined => {
  const found = schema?.properties?.[name]
  return typeof found === "object" ? found : undefined
}

export const isRequired = (schema: JsonSchema, name: string): boolean => schema.required?.includes(name) ?? false

/** The variants of a union, nested ones included. Properties next to a union (serde's `flatten`) belong to each variant. */
export const getVariants = (schema: JsonSchema): ReadonlyArray<JsonSchema> => {
  const { anyOf, oneOf, ...shared } = schema
  const variants = oneOf ?? anyOf
  if (variants === undefined) return [schema]
  if (shared.properties === undefined) return variants.flatMap(getVariants)
  const withShared = (variant: JsonSchema): JsonSchema => ({
    ...shared,
    ...variant,
    properties: { ...variant.properties, ...shared.properties },
    required: [...variant.required ?? [], ...shared.required ?? []]
  })
  return variants.flatMap(getVariants).map(withShared)
}

/** The property that every variant requires and restricts to one constant. */
export const findTag = (variants: ReadonlyArray<JsonSchema>): string | undefined =>
  Object.keys(variants[0]?.properties ?? {}).find((name) =>
    variants.every((variant) => isRequired(variant, name) && getProperty(variant, name)?.enum?.length === 1)
  )

export const getTagValue = (variant: JsonSchema, tag: string): string => getProperty(variant, tag)?.enum?.[0] ?? ""
