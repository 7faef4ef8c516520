/** Writes `definitions.ts`: a type and a schema for each definition and direction. */
import { Emitter } from "./emit.ts"
import { getChildren, getRefs, type Type } from "./model.ts"
import { optionInterfaces } from "./overrides.ts"
import { call, header } from "./print.ts"
import { getDefinition, isTaken, type Protocol } from "./protocol.ts"
import { fail } from "./schema.ts"

/** Names the definitions that the client sends: `XParam` where the server sends another `X`. */
export type NameSent = (name: string) => string

const unchanged = (name: string): string => name

export const makeNameSent = (protocol: Protocol): NameSent => {
  const dual = findDual(protocol)
  for (const name of dual) {
    if (optionInterfaces[name] !== undefined) fail(`${name} is received too`)
    if (isTaken(protocol, `${name}Param`)) fail(`${name}Param is taken`)
  }
  return (name) => dual.has(name) ? `${name}Param` : name
}

/** The definitions that travel in both directions and need a schema for each. */
const findDual = (protocol: Protocol): ReadonlySet<string> => {
  const mayBeMalformed = makeMayBeMalformed(protocol)
  const receiver = new Emitter({ direction: "received", rename: unchanged, mayBeMalformed })
  const sender = new Emitter({ direction: "sent", rename: unchanged, mayBeMalformed })
  const candidates = [...protocol.sent].filter((name) => protocol.received.has(name))
    .map((name) => getDefinition(protocol, name))
  const dual = new Set(
    candidates.filter(({ type }) =>
      receiver.type(type) !== sender.type(type) || receiver.schema(type) !== sender.schema(type)
    ).map(({ name }) => name)
  )
  // A definition that mentions a dual one is dual too.
  for (let size = -1; size < dual.size;) {
    size = dual.size
    for (const { name, type } of candidates) if (getRefs(type).some((ref) => dual.has(ref))) dual.add(name)
  }
  return dual
}

/** Whether a value of a type may contain a malformed variant. A recursive reference alone adds none. */
const makeMayBeMalformed = (protocol: Protocol): (type: Type) => boolean => {
  const results = new Map<string, boolean>()
  const mayBeMalformed = (type: Type): boolean => {
    if (type._tag === "Tagged" || type._tag === "Keyed") return true
    if (type._tag !== "Ref") return getChildren(type).some(mayBeMalformed)
    const known = results.get(type.name)
    if (known !== undefined) return known
    results.set(type.name, false)
    const result = mayBeMalformed(getDefinition(protocol, type.name).type)
    results.set(type.name, result)
    return result
  }
  return mayBeMalformed
}

const helpers = ["detail", "keyed", "lazy", "nullable", "open", "openCodec", "openEnum", "tagged", "UnsignedInt"]
const helperTypes = ["MalformedObject", "MalformedVariant", "UnrecognizedObject", "UnrecognizedVariant"]

export const definitionsFile = (version: string, protocol: Protocol, nameSent: NameSent): string => {
  const mayBeMalformed = makeMayBeMalformed(protocol)
  const receiver = new Emitter({ direction: "received", rename: unchanged, mayBeMalformed })
  const sender = new Emitter({ direction: "sent", rename: nameSent, mayBeMalformed })
  const definitions = [...protocol.definitions.values()].sort((a, b) => a.name < b.name ? -1 : 1)
  const texts: Array<string> = []
  for (const definition of definitions) {
    const isReceived = protocol.received.has(definition.name)
    if (isReceived) texts.push(receiver.definition(definition))
    if (!isReceived || nameSent(definition.name) !== definition.name) texts.push(sender.definition(definition))
  }
  const body = texts.join("\n")

  const used = helpers.filter((helper) => new RegExp(`\\b${helper}\\b`).test(body))
  const names = [...used, ...helperTypes.map((name) => `type ${name}`)]
  return `${header(version)}import * as Schema from "effect/Schema"
${call("import {", names, `} from "../openSchema.ts"`)}

${body}`
}
