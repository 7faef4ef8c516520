/** The whole protocol: its definitions, its methods, and in which direction each definition travels. */
import { type Method, type Methods, readMethods } from "./methods.ts"
import { type Definition, getRefs } from "./model.ts"
import { optionInterfaces } from "./overrides.ts"
import { parse } from "./parse.ts"
import { type Definitions, fail } from "./schema.ts"

export interface Protocol extends Methods {
  readonly definitions: ReadonlyMap<string, Definition>
  /** The definitions that the client sends. */
  readonly sent: ReadonlySet<string>
  /** The definitions that the server sends. */
  readonly received: ReadonlySet<string>
}

/** Definitions of a message around its params. The method tables replace them. */
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

/** Names that the generated modules import or declare themselves. */
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
  ...envelopes,
  ...Object.values(optionInterfaces).map((options) => options.name)
])

/** Whether a generated name would collide with another one. */
export const isTaken = (protocol: Protocol, name: string): boolean =>
  protocol.definitions.has(name) || reservedNames.has(name)

export const getDefinition = (protocol: Protocol, name: string): Definition =>
  protocol.definitions.get(name) ?? fail(`${name} is not defined`)

/** Reads the protocol. `stable` are the schemas without the experimental parts. */
export const readProtocol = (schemas: Definitions, stable: Definitions): Protocol => {
  const definitions = parseDefinitions(schemas, stable)
  const methods = readMethods(schemas, stable)
  const { clientRequests, serverNotifications, serverRequests } = methods
  const getParams = (method: Method) => method.params === undefined ? [] : [method.params]
  const sent = findReachable(definitions, [
    ...clientRequests.flatMap(getParams),
    ...serverRequests.map((method) => method.response)
  ])
  const received = findReachable(definitions, [
    ...clientRequests.map((method) => method.response),
    ...serverRequests.flatMap(getParams),
    ...serverNotifications.flatMap(getParams)
  ])
  // The server sends the definitions that no method mentions, such as the data of errors.
  const unmentioned = [...definitions.keys()].filter((name) => !sent.has(name))
  return { ...methods, definitions, sent, received: new Set([...received, ...unmentioned]) }
}

const parseDefinitions = (schemas: Definitions, stable: Definitions): ReadonlyMap<string, Definition> => {
  const definitions = new Map<string, Definition>()
  for (const [name, schema] of schemas) {
    if (envelopes.has(name)) continue
    if (reservedNames.has(name)) fail(`${name} is a reserved name`)
    const stableSchema = stable.get(name)
    definitions.set(name, {
      name,
      type: parse(name, schema, stableSchema),
      description: schema.description,
      experimental: stableSchema === undefined
    })
  }
  return definitions
}

const findReachable = (
  definitions: ReadonlyMap<string, Definition>,
  roots: ReadonlyArray<string>
): ReadonlySet<string> => {
  const seen = new Set<string>()
  const visit = (name: string): void => {
    if (seen.has(name)) return
    seen.add(name)
    const definition = definitions.get(name) ?? fail(`${name} is not defined`)
    getRefs(definition.type).forEach(visit)
  }
  roots.forEach(visit)
  return seen
}
