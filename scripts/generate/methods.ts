/** The methods of the protocol, from the four envelope schemas. */
import type { Definition, Doc } from "./model.ts"
import { getFields } from "./model.ts"
import { responseNames } from "./overrides.ts"
import { parse } from "./parse.ts"
import {
  type Definitions,
  expectKeywords,
  fail,
  getProperty,
  getTagValue,
  isRequired,
  type JsonSchema
} from "./schema.ts"

export interface Method extends Doc {
  readonly name: string
  /** The name of the definition of the params. */
  readonly params: string | undefined
  /** Whether the server rejects a message without `params`, even if each field is optional. */
  readonly paramsRequired: boolean
}

export interface RequestMethod extends Method {
  /** The name of the definition of the response. */
  readonly response: string
}

export interface NotificationMethod extends Method {
  readonly params: string
}

export interface Methods {
  readonly clientRequests: ReadonlyArray<RequestMethod>
  readonly clientNotifications: ReadonlyArray<Method>
  readonly serverRequests: ReadonlyArray<RequestMethod & NotificationMethod>
  readonly serverNotifications: ReadonlyArray<NotificationMethod>
}

export const readMethods = (definitions: Definitions, stable: Definitions): Methods => {
  const read = (envelope: string) => readEnvelope(definitions, stable, envelope)
  const addResponse = <M extends Method>(method: M) => ({ ...method, response: getResponse(definitions, method) })
  const requireParams = (method: Method) => ({
    ...method,
    params: method.params ?? fail(`${method.name} has no params`)
  })

  const clientNotifications = read("ClientNotification")
  if (clientNotifications.some((method) => method.params !== undefined)) fail("a client notification has params")
  const notification = definitions.get("ServerNotification")
  if (Object.keys(notification?.properties ?? {}).join() !== "emittedAtMs") fail("ServerNotification changed")
  return {
    clientRequests: read("ClientRequest").map(addResponse),
    clientNotifications,
    serverRequests: read("ServerRequest").map(requireParams).map(addResponse),
    serverNotifications: read("ServerNotification").map(requireParams)
  }
}

const readEnvelope = (definitions: Definitions, stable: Definitions, envelope: string): ReadonlyArray<Method> => {
  const stableNames = new Set(stable.get(envelope)?.oneOf?.map((variant) => getTagValue(variant, "method")))
  const variants = definitions.get(envelope)?.oneOf ?? fail(`${envelope} is no union`)
  return variants.map((variant) => {
    const name = getTagValue(variant, "method")
    expectKeywords(name, variant, "type", "properties", "required")
    const extra = Object.keys(variant.properties ?? {}).filter((key) => !["id", "method", "params"].includes(key))
    if (extra.length > 0) fail(`${name}: unexpected ${extra.join()} in ${envelope}`)
    const { params, paramsRequired } = readParams(name, variant)
    return {
      name,
      params,
      paramsRequired,
      // Some descriptions start with a heading of the source file, which belongs to a group of methods.
      description: variant.description?.replace(/^(NEW APIs|NEW NOTIFICATIONS|DEPRECATED APIs below)\s*/, ""),
      experimental: !stableNames.has(name)
    }
  })
}

const readParams = (name: string, variant: JsonSchema): Pick<Method, "params" | "paramsRequired"> => {
  const schema = getProperty(variant, "params")
  if (schema === undefined) return { params: undefined, paramsRequired: false }
  const type = parse(name, schema, undefined)
  if (type._tag === "Simple" && type.name === "null") return { params: undefined, paramsRequired: false }
  if (type._tag === "Ref") return { params: type.name, paramsRequired: isRequired(variant, "params") }
  return type._tag === "Nullable" && type.type._tag === "Ref"
    ? { params: type.type.name, paramsRequired: false }
    : fail(`${name}: params of type ${type._tag}`)
}

const getResponse = (definitions: Definitions, method: Method): string => {
  const name = responseNames[method.name] ?? method.params?.replace(/Params$/, "Response")
  return name !== undefined && name.endsWith("Response") && definitions.has(name)
    ? name
    : fail(`${method.name} has no response; found ${name}`)
}

interface Scope {
  readonly scope: "global" | "thread" | "turn"
  readonly threadId: "threadId" | "thread.id" | undefined
  readonly turnId: "turnId" | "turn.id" | undefined
}

/** Where the params of a notification name a thread and a turn. */
export const getScope = (params: Definition): Scope => {
  const names = new Set(getFields(params.type).map((field) => field.name))
  const threadId = names.has("threadId") ? "threadId" : names.has("thread") ? "thread.id" : undefined
  const turnId = names.has("turnId") ? "turnId" : names.has("turn") ? "turn.id" : undefined
  if (threadId !== undefined) return { scope: turnId === undefined ? "thread" : "turn", threadId, turnId }
  return turnId === undefined
    ? { scope: "global", threadId, turnId }
    : fail(`${params.name} names a turn without its thread`)
}
