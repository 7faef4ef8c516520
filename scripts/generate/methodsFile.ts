/** Writes `methods.ts`: types and tables of the requests and notifications. */
import type { NameSent } from "./definitionsFile.ts"
import { getScope, type Method, type NotificationMethod, type RequestMethod } from "./methods.ts"
import { block, braces, comment, docComment, header, key, union } from "./print.ts"
import { getDefinition, type Protocol } from "./protocol.ts"
import { fail } from "./schema.ts"

export const methodsFile = (version: string, protocol: Protocol, nameSent: NameSent): string =>
  [
    `${header(version)}import type { NotificationSpec, RequestSpec } from "../methodSpec.ts"
import * as D from "./definitions.ts"
`,
    section("The version of `@openai/codex` that this protocol was generated from.", `const version = "${version}"`),
    ...clientRequestSections(protocol, nameSent),
    ...serverRequestSections(protocol.serverRequests, nameSent),
    section(
      "The notifications of the client: params by method.",
      `interface ClientNotifications ${
        block(protocol.clientNotifications.map((method) => typed(method, "undefined")), "")
      }`
    ),
    ...serverNotificationSections(protocol)
  ].join("\n")

const section = (doc: string, declaration: string): string =>
  `${comment(doc, "@category methods\n@since 0.1.0")}export ${declaration}\n`

/** A property of an interface of methods. */
const typed = (method: Method, type: string): string => `${docComment(method)}readonly ${key(method.name)}: ${type}`

const requestType = (method: Method, params: string, result: string): string =>
  typed(method, braces([`readonly params: ${params}`, `readonly result: ${result}`], "", 100 - method.name.length))

/** A property of a table of methods. */
const entry = (method: Method, items: ReadonlyArray<string>): string =>
  `${key(method.name)}: ${braces(items, ",", 106 - method.name.length)}`

/** A table of requests that are typed by an interface. */
const requestTable = (name: string, interfaceName: string, entries: ReadonlyArray<string>): string =>
  `const ${name}: {
  readonly [M in keyof ${interfaceName}]: RequestSpec<${interfaceName}[M]["params"], ${interfaceName}[M]["result"]>
} = ${block(entries, ",")}`

const clientRequestSections = (protocol: Protocol, nameSent: NameSent): ReadonlyArray<string> => {
  const { clientRequests } = protocol
  const params = (method: Method) => method.params === undefined ? "undefined" : `D.${nameSent(method.params)}`
  const types = clientRequests.map((method) =>
    requestType(
      method,
      `${params(method)}${canOmitParams(protocol, method) ? " | undefined" : ""}`,
      `D.${method.response}`
    )
  )
  const entries = clientRequests.map((method) =>
    entry(method, [
      `params: ${params(method)}`,
      `result: D.${method.response}`,
      `experimental: ${method.experimental}`,
      `defaultParams: ${canOmitParams(protocol, method) ? "{}" : "undefined"}`
    ])
  )
  return [
    section(
      "The requests of the client: params and result by method. Params that include `undefined` may be left out.",
      `interface ClientRequests ${block(types, "")}`
    ),
    section("The requests of the client, at run time.", requestTable("clientRequests", "ClientRequests", entries))
  ]
}

/** Whether a caller may omit the params. The client then sends an empty object, also where the schema allows none. */
const canOmitParams = (protocol: Protocol, method: Method): boolean => {
  if (method.params === undefined) return false
  const { type } = getDefinition(protocol, method.params)
  const isOptional = type._tag === "Record" || (type._tag === "Object" && type.fields.every((field) => field.optional))
  if (!isOptional && !method.paramsRequired) fail(`the nullable params of ${method.name} have required fields`)
  return isOptional
}

const serverRequestSections = (
  serverRequests: ReadonlyArray<RequestMethod & NotificationMethod>,
  nameSent: NameSent
): ReadonlyArray<string> => {
  const types = serverRequests.map((method) =>
    requestType(method, `D.${method.params}`, `D.${nameSent(method.response)}`)
  )
  const entries = serverRequests.map((method) =>
    entry(method, [
      `params: D.${method.params}`,
      `result: D.${nameSent(method.response)}`,
      `experimental: ${method.experimental}`,
      "defaultParams: undefined"
    ])
  )
  return [
    section(
      "The requests of the server, to which the client responds: params and result by method.",
      `interface ServerRequests ${block(types, "")}`
    ),
    section("The requests of the server, at run time.", requestTable("serverRequests", "ServerRequests", entries))
  ]
}

const serverNotificationSections = (protocol: Protocol): ReadonlyArray<string> => {
  const notifications = protocol.serverNotifications.map((method) => ({
    ...method,
    ...getScope(getDefinition(protocol, method.params))
  }))
  const types = notifications.map((method) => typed(method, `D.${method.params}`))
  const entries = notifications.map((method) =>
    entry(method, [
      `params: D.${method.params}`,
      `scope: "${method.scope}"`,
      `threadId: ${JSON.stringify(method.threadId)}`,
      `turnId: ${JSON.stringify(method.turnId)}`,
      `experimental: ${method.experimental}`
    ])
  )
  const methodsInScope = (scope: "thread" | "turn") =>
    union(notifications.filter((method) => method.scope === scope).map((method) => JSON.stringify(method.name)))
  return [
    section(
      "The notifications of the server: params by method.",
      `interface ServerNotifications ${block(types, "")}`
    ),
    section(
      "The notifications of the server, at run time.",
      `const serverNotifications: {
  readonly [M in keyof ServerNotifications]: NotificationSpec<ServerNotifications[M]>
} = ${block(entries, ",")}`
    ),
    section(
      "The methods of notifications whose params can name a thread and a turn.",
      `type TurnNotificationMethod =${methodsInScope("turn")}`
    ),
    section(
      "The methods of notifications whose params can name a thread, those of its turns included.",
      `type ThreadNotificationMethod =\n  | TurnNotificationMethod${methodsInScope("thread")}`
    )
  ]
}
