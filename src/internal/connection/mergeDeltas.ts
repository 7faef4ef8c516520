/** Which notifications are pieces of one growing text, and how two neighbours become one. */
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../Protocol.ts"

const deltaMethods = new Set([
  "item/agentMessage/delta",
  "item/plan/delta",
  "item/commandExecution/outputDelta",
  "item/fileChange/outputDelta",
  "item/reasoning/summaryTextDelta",
  "item/reasoning/textDelta"
])

/** The fields that tell which text a delta belongs to. A reasoning item has several. */
const textKeys = ["threadId", "turnId", "itemId", "summaryIndex", "contentIndex"] as const

interface Delta {
  readonly params: Readonly<Record<string, unknown>>
}

/** Joins two deltas of the same text into one event, which has the time of the later one. */
export const mergeDeltas = <A extends Protocol.ServerNotification>(previous: A, next: A): A | undefined => {
  if (previous.method !== next.method || !deltaMethods.has(next.method as string)) return undefined
  const before = (previous as Delta).params
  const after = (next as Delta).params
  if (!Predicate.isString(before["delta"]) || !Predicate.isString(after["delta"])) return undefined
  for (const key of textKeys) {
    if (before[key] !== after[key]) return undefined
  }
  return { ...next, params: { ...after, delta: before["delta"] + after["delta"] } }
}
