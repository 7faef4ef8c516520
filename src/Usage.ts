/**
 * Tokens that turns and threads use.
 *
 * @since 0.1.0
 */
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"

/**
 * Token counts, as the protocol names them.
 *
 * **Details**
 *
 * `inputTokens` include `cachedInputTokens` and `cacheWriteInputTokens`, and `outputTokens` include `reasoningOutputTokens`. All
 * counts are those that the model provider reports.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tokens {
  /** Tokens that the model has read, cached ones included. */
  readonly inputTokens: number
  /** Input tokens that the provider has read from its cache. */
  readonly cachedInputTokens: number
  /** Input tokens that the provider has written to its cache. */
  readonly cacheWriteInputTokens: number
  /** Tokens that the model has written, reasoning included. */
  readonly outputTokens: number
  /** Output tokens that the model has used for reasoning. */
  readonly reasoningOutputTokens: number
  /** The total that the provider reports, as a rule the sum of input and output. */
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
 * What a turn has used, and how that stands to its thread and to the context window of the model.
 *
 * **When to use**
 *
 * Print or charge `turn`. Compare `lastRequest.totalTokens` with `contextWindow` to see how full the context is.
 *
 * **Details**
 *
 * A turn makes one model request or many, one after each round of tool calls, and one for each compaction. The server reports usage
 * when a model request completes. A request that is cut off or interrupted therefore counts for nothing, though the provider may
 * charge it.
 *
 * **Gotchas**
 *
 * All callers that joined a turn get the usage of the whole turn. A sub-agent has a thread of its own, whose usage is not included.
 * When the context is full, the server forgets the totals of the thread. This program goes on counting; a program that resumes the thread
 * later sees the smaller counts.
 *
 * @category models
 * @since 0.1.0
 */
export interface TurnUsage {
  /** What this turn has used: the sum of its model requests. */
  readonly turn: Tokens
  /**
   * What the thread has used in all at the end of the turn, as the server counts it. A fork starts with the totals of the history that
   * it was made with, and a revert goes back to those of the history that is left.
   */
  readonly thread: Tokens
  /**
   * The last model request that the server has reported for the thread. It is one of an earlier turn if no model request of this turn
   * has completed, and zero if the thread has none.
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
  thread: Tokens,
  lastRequest: Tokens,
  contextWindow: Schema.UndefinedOr(Schema.Number)
})

/**
 * No tokens at all.
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
 * Adds two counts, each kind of token by itself.
 *
 * **Example**
 *
 * ```ts
 * import { type Turn, Usage } from "effect-codex"
 *
 * export const usageOf = (results: ReadonlyArray<Turn.TurnResult>): Usage.Tokens =>
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
 * Subtracts the second count from the first, each kind of token by itself. What was used between two totals of a thread is their
 * difference.
 *
 * **Gotchas**
 *
 * A kind is negative where the second count is larger.
 *
 * @category combinators
 * @since 0.1.0
 */
export const subtract: {
  (that: Tokens): (self: Tokens) => Tokens
  (self: Tokens, that: Tokens): Tokens
} = dual(2, (self: Tokens, that: Tokens): Tokens => combine(self, that, (a, b) => a - b))
