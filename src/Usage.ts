/**
 * The token counts of turns and threads.
 *
 * @since 0.1.0
 */
import type * as Equivalence_ from "effect/Equivalence"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"

/**
 * Token counts, with the names of the protocol.
 *
 * **Details**
 *
 * `inputTokens` include `cachedInputTokens` and `cacheWriteInputTokens`, and `outputTokens` include `reasoningOutputTokens`. The model
 * provider reports all counts.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tokens {
  /** Tokens that the model read, cached ones included. */
  readonly inputTokens: number
  /** Input tokens that the provider read from its cache. */
  readonly cachedInputTokens: number
  /** Input tokens that the provider wrote to its cache. */
  readonly cacheWriteInputTokens: number
  /** Tokens that the model wrote, reasoning included. */
  readonly outputTokens: number
  /** Output tokens that the model used for reasoning. */
  readonly reasoningOutputTokens: number
  /** The total that the provider reports, usually the sum of input and output. */
  readonly totalTokens: number
}

/**
 * The schema of {@link Tokens}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Tokens: Schema.Codec<Tokens> = Schema.Struct({
  inputTokens: Schema.Number,
  cachedInputTokens: Schema.Number,
  cacheWriteInputTokens: Schema.Number,
  outputTokens: Schema.Number,
  reasoningOutputTokens: Schema.Number,
  totalTokens: Schema.Number
})

/**
 * The usage of a turn and of its thread, and the context window of the model.
 *
 * **When to use**
 *
 * Print or charge the sum of `turn` and `subAgents`, and price it with {@link cost}. Compare `lastRequest.totalTokens` with
 * `contextWindow` to see how full the context is.
 *
 * **Details**
 *
 * A turn makes one model request at its start, one after each round of tool calls, and one for each compaction. The server reports usage
 * when a model request completes. A request that is cut off or interrupted is therefore not counted, although the provider may
 * charge it.
 *
 * **Gotchas**
 *
 * All callers that joined a turn get the usage of the whole turn.
 *
 * A sub-agent may continue after the end of the turn. What it uses then is in no result; a `Budget` counts it.
 *
 * When the context is full, the server resets the totals of the thread. This program continues to count; a program that resumes the
 * thread later sees the smaller totals.
 *
 * @category models
 * @since 0.1.0
 */
export interface TurnUsage {
  /** The usage of this turn: the sum of its model requests, without those of its sub-agents. */
  readonly turn: Tokens
  /**
   * The usage of the sub-agents that worked for this turn until its end, also of those that failed. {@link zero} if there were none. A
   * sub-agent has its own thread.
   */
  readonly subAgents: Tokens
  /**
   * The total usage of the thread at the end of the turn, as the server counts it. A fork starts with the totals of the history that it
   * copies, and a revert restores the totals of the remaining history.
   */
  readonly thread: Tokens
  /**
   * The last model request that the server reported for the thread. If no model request of this turn has completed, it belongs to an
   * earlier turn; {@link zero} if the thread has none.
   */
  readonly lastRequest: Tokens
  /** The size of the model's context window in tokens, if the server knows it. */
  readonly contextWindow: number | undefined
}

/**
 * The schema of {@link TurnUsage}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TurnUsage: Schema.Codec<TurnUsage> = Schema.Struct({
  turn: Tokens,
  subAgents: Tokens,
  thread: Tokens,
  lastRequest: Tokens,
  contextWindow: Schema.UndefinedOr(Schema.Number)
})

/**
 * Token counts that are all zero.
 *
 * @category constructors
 * @since 0.1.0
 */
export const zero: Tokens = {
  inputTokens: 0,
  cachedInputTokens: 0,
  cacheWriteInputTokens: 0,
  outputTokens: 0,
  reasoningOutputTokens: 0,
  totalTokens: 0
}

const combine = (a: Tokens, b: Tokens, f: (a: number, b: number) => number): Tokens => ({
  inputTokens: f(a.inputTokens, b.inputTokens),
  cachedInputTokens: f(a.cachedInputTokens, b.cachedInputTokens),
  cacheWriteInputTokens: f(a.cacheWriteInputTokens, b.cacheWriteInputTokens),
  outputTokens: f(a.outputTokens, b.outputTokens),
  reasoningOutputTokens: f(a.reasoningOutputTokens, b.reasoningOutputTokens),
  totalTokens: f(a.totalTokens, b.totalTokens)
})

/**
 * Adds two counts, kind by kind.
 *
 * **Example** (Summing the usage of several turns)
 *
 * ```ts
 * import { type Turn, Usage } from "effect-codex"
 *
 * export const totalUsage = (results: ReadonlyArray<Turn.TurnResult>): Usage.Tokens =>
 *   results.reduce((sum, { usage }) => Usage.add(sum, usage?.turn ?? Usage.zero), Usage.zero)
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const add: {
  (that: Tokens): (self: Tokens) => Tokens
  (self: Tokens, that: Tokens): Tokens
} = dual(2, (self: Tokens, that: Tokens): Tokens => combine(self, that, (a, b) => a + b))

/**
 * Subtracts the second count from the first, kind by kind.
 *
 * **When to use**
 *
 * Subtract two totals of a thread to get the usage between them.
 *
 * **Gotchas**
 *
 * A kind is negative if the second count is larger.
 *
 * @category combinators
 * @since 0.1.0
 */
export const subtract: {
  (that: Tokens): (self: Tokens) => Tokens
  (self: Tokens, that: Tokens): Tokens
} = dual(2, (self: Tokens, that: Tokens): Tokens => combine(self, that, (a, b) => a - b))

/**
 * Compares two counts, kind by kind.
 *
 * @category instances
 * @since 0.1.0
 */
export const Equivalence: Equivalence_.Equivalence<Tokens> = Schema.toEquivalence(Tokens)

/**
 * The price of a model, in US dollars per million tokens.
 *
 * **Details**
 *
 * The prices are yours: this package has no table of prices, which would become outdated.
 *
 * @category models
 * @since 0.1.0
 */
export interface Price {
  /** The price of input tokens that are neither read from the cache nor written to it. */
  readonly input: number
  /**
   * The price of input tokens that the provider reads from its cache.
   *
   * @default the price of `input`
   */
  readonly cachedInput?: number | undefined
  /**
   * The price of input tokens that the provider writes to its cache.
   *
   * @default the price of `input`
   */
  readonly cacheWrite?: number | undefined
  /** The price of output tokens, reasoning included. */
  readonly output: number
}

/**
 * Returns the cost of tokens in US dollars.
 *
 * **Details**
 *
 * `inputTokens` include both kinds of cached tokens, so these are subtracted before the price of `input` is applied.
 *
 * **Example** (Pricing a turn)
 *
 * ```ts
 * import { type Turn, Usage } from "effect-codex"
 *
 * const price: Usage.Price = { input: 1.25, cachedInput: 0.125, output: 10 }
 *
 * export const dollars = ({ usage }: Turn.TurnResult): number =>
 *   usage === undefined ? 0 : Usage.cost(Usage.add(usage.turn, usage.subAgents), price)
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const cost: {
  (price: Price): (tokens: Tokens) => number
  (tokens: Tokens, price: Price): number
} = dual(2, (tokens: Tokens, { cachedInput, cacheWrite, input, output }: Price): number => {
  const { cachedInputTokens, cacheWriteInputTokens, inputTokens, outputTokens } = tokens
  const uncached = inputTokens - cachedInputTokens - cacheWriteInputTokens
  return (
    uncached * input + cachedInputTokens * (cachedInput ?? input) + cacheWriteInputTokens * (cacheWrite ?? input) +
    outputTokens * output
  ) / 1_000_000
})
