/** What a budget allows, and what it has used. */
import * as Schema from "effect/Schema"
import * as Usage from "../../Usage.ts"

const counts = {
  /** The tokens of all model requests, as the provider totals them: input and output, cached ones included. */
  tokens: Schema.Number,
  /** The cost in US dollars. `undefined` if the budget has no prices. */
  usd: Schema.UndefinedOr(Schema.Number),
  /** The number of turns that were started. */
  turns: Schema.Number,
  /** The tokens of each kind. */
  usage: Usage.Tokens
}

/** What one thread has used within a budget. */
export const ThreadUsed = Schema.Struct({ threadId: Schema.String, ...counts })

export interface ThreadUsed extends Schema.Schema.Type<typeof ThreadUsed> {}

/** What a budget has used, in total and by thread. */
export const Used = Schema.Struct({ ...counts, threads: Schema.Array(ThreadUsed) })

export interface Used extends Schema.Schema.Type<typeof Used> {}

/** The limits of a budget. */
export const Limit = Schema.Struct({
  tokens: Schema.UndefinedOr(Schema.Number),
  usd: Schema.UndefinedOr(Schema.Number),
  turns: Schema.UndefinedOr(Schema.Number)
})

export interface Limit extends Schema.Schema.Type<typeof Limit> {}

/** The parts of the limits that stay unused: a turn is interrupted, or not started, when less is left. */
export const Reserve = Schema.Struct({ tokens: Schema.Number, usd: Schema.Number })

export interface Reserve extends Schema.Schema.Type<typeof Reserve> {}

/** Maximum number of threads that a description names. */
const maxThreads = 5

const showUsd = (usd: number): string => `$${Number(usd.toFixed(6))}`

const describeReserve = (amount: number, shown: string): string => amount === 0 ? "" : ` with ${shown} reserved`

/** Describes what was used, of each limit and by thread. */
export const describeUsed = (limit: Limit, reserve: Reserve, { threads, ...used }: Used): string => {
  const parts = [
    ...limit.tokens === undefined
      ? []
      : [`${used.tokens} of ${limit.tokens} tokens${describeReserve(reserve.tokens, String(reserve.tokens))}`],
    ...limit.usd === undefined || used.usd === undefined
      ? []
      : [`${showUsd(used.usd)} of ${showUsd(limit.usd)}${describeReserve(reserve.usd, showUsd(reserve.usd))}`],
    ...limit.turns === undefined ? [] : [`${used.turns} of ${limit.turns} turns`]
  ]
  const named = threads.toSorted((a, b) => b.tokens - a.tokens).slice(0, maxThreads).map(({ threadId, tokens }) =>
    `\`${threadId}\` ${tokens} tokens`
  )
  const omitted = threads.length - named.length
  const byThread = named.length === 0
    ? ""
    : ` (by thread: ${named.join(", ")}${omitted === 0 ? "" : `, and ${omitted} more`})`
  return `${parts.join(", ")}${byThread}`
}
