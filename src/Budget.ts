/**
 * Budgets that limit the tokens, the cost and the number of the turns of a program.
 *
 * **When to use**
 *
 * Wrap a program, or a part of it, with {@link limit} or {@link limitStream}. To print what one turn has used, see `usage` of its result.
 *
 * **Details**
 *
 * Everything that the wrapped effect starts counts: turns, compactions, typed repairs, reviews, the continuations of goals, turns of forks
 * and of sub-agents, on all threads and servers, also after a restart. Budgets nest: a turn counts in the innermost budget and in all
 * budgets around it.
 *
 * **Example** (Limiting a program to 200,000 tokens and 20 turns)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Budget, Codex } from "effect-codex"
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ sandbox: "workspace-write" })
 *   yield* thread.run("Fix the failing tests")
 *   yield* thread.run("Now update the documentation")
 *   const { tokens, turns } = yield* Budget.used
 *   yield* Console.log(`${tokens} tokens in ${turns} turns`)
 * }).pipe(
 *   Budget.limit({ tokens: 200_000, turns: 20 }),
 *   Effect.catchReason("AppServerError", "BudgetExceeded", ({ used }) => Console.error(`Stopped after ${used.tokens} tokens`))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { type AppServerError, InvalidRequest, make as appServerError } from "./AppServerError.ts"
import * as BudgetUsed from "./internal/budget/used.ts"
import { count, type Kinds, optionIssue, recordOf } from "./internal/options.ts"
import { type BudgetOptions, BudgetState, CurrentBudget } from "./internal/session/budget/budgetState.ts"
import * as Usage from "./Usage.ts"

/**
 * What a budget has used, in total and by thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface Used extends BudgetUsed.Used {}

/**
 * The schema of {@link Used}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Used = BudgetUsed.Used

/**
 * The prices of models, by the name of the model.
 *
 * @category models
 * @since 0.1.0
 */
export interface Prices extends Readonly<Record<string, Usage.Price>> {}

/**
 * The options of a budget that do not depend on prices.
 *
 * @category models
 * @since 0.1.0
 */
export interface LimitOptions {
  /**
   * Maximum number of tokens, as the provider totals them: input and output, cached ones included.
   *
   * @default no limit
   */
  readonly tokens?: number | undefined
  /**
   * Maximum number of turns. Input that joins a running turn starts none.
   *
   * @default no limit
   */
  readonly turns?: number | undefined
  /**
   * The part of the limits that stays unused. If less is left, turns are interrupted and no further turn starts. A reserve of the size of
   * the largest model request keeps the usage within the limits. Each reserve needs the limit of the same name.
   *
   * @default no reserve
   */
  readonly reserve?: {
    readonly tokens?: number | undefined
    readonly usd?: number | undefined
  } | undefined
}

/**
 * The options of a budget with a limit of the cost.
 *
 * @category models
 * @since 0.1.0
 */
export interface CostOptions {
  /** Maximum cost in US dollars. */
  readonly usd: number
  /** The price of each model that the budget may use. A turn on another model fails with `PriceMissing`. */
  readonly prices: Prices
}

/**
 * The options of a budget without a limit of the cost.
 *
 * @category models
 * @since 0.1.0
 */
export interface NoCostOptions {
  /** Maximum cost in US dollars, see {@link CostOptions}. Needs `prices`. */
  readonly usd?: undefined
  /**
   * The price of each model that the budget may use, to compute the cost without a limit. A turn on another model fails with
   * `PriceMissing`.
   *
   * @default the cost is not computed
   */
  readonly prices?: Prices | undefined
}

/**
 * The limits of a budget. At least one is set, and `usd` needs `prices`.
 *
 * @category models
 * @since 0.1.0
 */
export type Options = LimitOptions & (CostOptions | NoCostOptions)

const amount = {
  expected: "a number of at least 0",
  is: (value: unknown) => Predicate.isNumber(value) && value >= 0
}

const priceKinds: Kinds<Usage.Price> = { input: amount, cachedInput: amount, cacheWrite: amount, output: amount }

const reserveKinds: Kinds<NonNullable<Options["reserve"]>> = { tokens: amount, usd: amount }

const kinds: Kinds<Options> = {
  tokens: amount,
  usd: amount,
  prices: recordOf({
    expected:
      "a price with numbers `input` and `output`, and maybe `cachedInput` and `cacheWrite`, in US dollars per million tokens",
    is: (value) =>
      Predicate.isObject(value) && optionIssue(priceKinds, value) === undefined && value["input"] !== undefined &&
      value["output"] !== undefined
  }),
  turns: count,
  reserve: {
    expected: "an object with the numbers `tokens` or `usd`",
    is: (value) => optionIssue(reserveKinds, value) === undefined
  }
}

/** In plain JavaScript, the options may be missing. */
const findIssue = (options: Options | undefined): string | undefined => {
  const issue = optionIssue(kinds, options)
  if (issue !== undefined) return issue
  const { prices, reserve, tokens, turns, usd } = options ?? {}
  if (tokens === undefined && usd === undefined && turns === undefined) return "set `tokens`, `usd` or `turns`"
  if (usd !== undefined && prices === undefined) return "`usd` needs `prices`, the price of each model"
  if (reserve?.tokens !== undefined && tokens === undefined) return "`reserve.tokens` needs `tokens`, the limit"
  return reserve?.usd !== undefined && usd === undefined ? "`reserve.usd` needs `usd`, the limit" : undefined
}

const toBudgetOptions = ({ prices, reserve, tokens, turns, usd }: Options): BudgetOptions => ({
  limit: { tokens, usd, turns },
  prices,
  reserve: { tokens: reserve?.tokens ?? 0, usd: reserve?.usd ?? 0 }
})

/** Makes a budget inside the current one. */
const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<BudgetState, AppServerError> {
  const issue = findIssue(options)
  if (issue !== undefined) {
    return yield* appServerError(new InvalidRequest({ method: "Budget.limit", description: issue }))
  }
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  return new BudgetState(toBudgetOptions(options), yield* CurrentBudget, runFork)
})

/** Fails if a budget was exceeded. */
const requireWithin = (budget: BudgetState): Effect.Effect<void, AppServerError> =>
  Effect.flatMap(budget.settled, () => budget.error === undefined ? Effect.void : budget.exceeded)

/** Marks the end of the effect or stream of a budget. */
const end = (budget: BudgetState): Effect.Effect<void> =>
  Effect.sync(() => {
    budget.hasEnded = true
  })

/**
 * Limits what an effect may use.
 *
 * **Details**
 *
 * If the budget is exceeded, its running turns are interrupted on the server, those of its sub-agents included. Then the effect is
 * interrupted and fails with the reason `BudgetExceeded`, with the limit and what was used by each thread. This also holds if the effect
 * handles the error itself.
 *
 * A turn that would start although the budget is used up fails with `BudgetExceeded` before anything is sent. Running turns continue then.
 *
 * A turn that other callers use continues for them, and only the wait of the caller in the budget ends.
 *
 * **Gotchas**
 *
 * The server reports the tokens of a model request when it completes and its tools have ended. So a turn can exceed a budget by one model
 * request for each thread that runs; see `reserve`.
 *
 * The server does not report the requests of the reviewer of `auto_review`, so no budget counts them.
 *
 * @category combinators
 * @since 0.1.0
 */
export const limit: {
  (options: Options): <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | AppServerError, R>
  <A, E, R>(effect: Effect.Effect<A, E, R>, options: Options): Effect.Effect<A, E | AppServerError, R>
} = dual(
  2,
  <A, E, R>(effect: Effect.Effect<A, E, R>, options: Options): Effect.Effect<A, E | AppServerError, R> =>
    Effect.flatMap(make(options), (budget) =>
      Effect.provideService(effect, CurrentBudget, budget).pipe(
        Effect.raceFirst(budget.exceeded),
        Effect.tap(() => requireWithin(budget)),
        Effect.tapError(() => requireWithin(budget)),
        Effect.ensuring(end(budget))
      ))
)

/**
 * Limits what a stream may use, as {@link limit} limits an effect.
 *
 * **Details**
 *
 * Each run of the stream has a budget of its own.
 *
 * **Example** (Limiting the stream of a turn)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Budget, Codex } from "effect-codex"
 *
 * export const events = Stream.unwrap(Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ sandbox: "read-only" })
 *   return thread.stream("Explain the build")
 * })).pipe(Budget.limitStream({ tokens: 50_000 }))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const limitStream: {
  (options: Options): <A, E, R>(stream: Stream.Stream<A, E, R>) => Stream.Stream<A, E | AppServerError, R>
  <A, E, R>(stream: Stream.Stream<A, E, R>, options: Options): Stream.Stream<A, E | AppServerError, R>
} = dual(
  2,
  <A, E, R>(stream: Stream.Stream<A, E, R>, options: Options): Stream.Stream<A, E | AppServerError, R> =>
    Stream.unwrap(Effect.map(make(options), (budget) =>
      Stream.provideService(stream, CurrentBudget, budget).pipe(
        Stream.interruptWhen(budget.exceeded),
        Stream.onEnd(requireWithin(budget)),
        Stream.tapError(() => requireWithin(budget)),
        Stream.ensuring(end(budget))
      )))
)

const nothing: Used = { tokens: 0, usd: undefined, turns: 0, usage: Usage.zero, threads: [] }

/**
 * Returns what the innermost budget has used. Outside a budget nothing is counted, so all counts are zero.
 *
 * @category accessors
 * @since 0.1.0
 */
export const used: Effect.Effect<Used> = Effect.flatMap(
  CurrentBudget,
  (budget) =>
    budget === undefined
      ? Effect.succeed(nothing)
      : Effect.map(budget.settled, () => budget.used)
)

/**
 * Emits what the innermost budget has used, and then each change. A slow subscriber skips to the newest. Outside a budget the stream
 * emits zero, and ends.
 *
 * **Example** (Logging the cost of a program while it runs)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Budget } from "effect-codex"
 *
 * export const withCost = <A, E, R>(program: Effect.Effect<A, E, R>, prices: Budget.Prices) =>
 *   Budget.changes.pipe(
 *     Stream.runForEach(({ usd }) => Effect.logInfo(`$${usd}`)),
 *     Effect.forkChild,
 *     Effect.andThen(program),
 *     Budget.limit({ usd: 5, prices })
 *   )
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const changes: Stream.Stream<Used> = Stream.unwrap(
  Effect.map(CurrentBudget, (budget) =>
    budget === undefined ? Stream.succeed(nothing) : Stream.callback<Used>(
      (queue) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            Queue.offerUnsafe(queue, budget.used)
            return budget.observe((used) => Queue.offerUnsafe(queue, used))
          }),
          (remove) => Effect.sync(remove)
        ),
      { bufferSize: 1, strategy: "sliding" }
    ))
)
