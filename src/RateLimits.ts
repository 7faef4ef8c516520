/**
 * The rate limits of an account, and a schedule that retries a turn after an exceeded limit resets.
 *
 * **Example** (Waiting for the reset of a limit)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codex, RateLimits } from "effect-codex"
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread()
 *   return yield* thread.run("Review the last commit").pipe(
 *     Effect.retry(RateLimits.afterReset(codex))
 *   )
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Tuple from "effect/Tuple"
import { getOwn } from "./internal/getOwn.ts"
import { assertOptions, count, duration, type Kinds } from "./internal/options.ts"
import type * as Protocol from "./Protocol.ts"

/**
 * The rate limits of an account, by the id of the limit.
 *
 * **Details**
 *
 * It is the response of `account/rateLimits/read` with the later updates of the server. `limits` stands for its fields `rateLimits` and
 * `rateLimitsByLimitId`; the other fields are those of the response.
 *
 * A limit has up to two windows, `primary` and `secondary`, usually of five hours and of a week. The percentages are whole numbers, and
 * `resetsAt` is Unix time in seconds.
 *
 * **Gotchas**
 *
 * Updates contain limits only. The other fields, such as `ordinaryUsageAllowed`, are those of the last read.
 *
 * @category models
 * @since 0.1.0
 */
export interface RateLimits extends Omit<Protocol.GetAccountRateLimitsResponse, "rateLimits" | "rateLimitsByLimitId"> {
  /** The limits by their id. The general limit is `codex`; some models have limits of their own. */
  readonly limits: { readonly [limitId: string]: Protocol.RateLimitSnapshot }
}

/**
 * A window of a limit that is used up.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExceededWindow {
  readonly limitId: string
  /** `individual` is the spend limit of a member of a workspace. */
  readonly window: "primary" | "secondary" | "individual"
  /** The time of the reset, if the server reports it. */
  readonly resetsAt: DateTime.Utc | undefined
}

/** The id of a snapshot without one, which older servers send. */
const defaultLimitId = "codex"

/**
 * Converts the response of `account/rateLimits/read`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromResponse = (response: Protocol.GetAccountRateLimitsResponse): RateLimits => {
  const { rateLimits, rateLimitsByLimitId, ...account } = response
  return { ...account, limits: { [rateLimits.limitId ?? defaultLimitId]: rateLimits, ...rateLimitsByLimitId } }
}

/** Returns the members of an object that have a value. */
const available = <A extends object>(object: A): Partial<A> =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => Predicate.isNotNullish(value))) as Partial<A>

const mergeWindow = (
  before: Protocol.RateLimitWindow | null | undefined,
  update: Protocol.RateLimitWindow
): Protocol.RateLimitWindow => ({ ...update, ...before, ...available(update) })

const mergeLimit = (
  before: Protocol.RateLimitSnapshot,
  update: Partial<Protocol.RateLimitSnapshot>
): Protocol.RateLimitSnapshot => {
  const { primary, secondary, ...others } = update
  return {
    ...before,
    ...others,
    ...(Predicate.isNullish(primary) ? {} : { primary: mergeWindow(before.primary, primary) }),
    ...(Predicate.isNullish(secondary) ? {} : { secondary: mergeWindow(before.secondary, secondary) })
  }
}

/**
 * Merges an update of the server, as `account/rateLimits/updated` contains it.
 *
 * **Details**
 *
 * An update contains one limit, and only the values that the server has. A value replaces the previous one. A value that is missing or
 * `null` is not available, and does not clear the previous one; this also holds for each field of a window. Other limits are unchanged.
 *
 * @category combinators
 * @since 0.1.0
 */
export const merge: {
  (update: Protocol.RateLimitSnapshot): (self: RateLimits) => RateLimits
  (self: RateLimits, update: Protocol.RateLimitSnapshot): RateLimits
} = dual(2, (self: RateLimits, update: Protocol.RateLimitSnapshot): RateLimits => {
  const { limitId, ...values } = available(update)
  if (Object.keys(values).length === 0) return self
  const id = limitId ?? defaultLimitId
  const before = Object.hasOwn(self.limits, id) ? self.limits[id]! : { limitId: id }
  return { ...self, limits: { ...self.limits, [id]: mergeLimit(before, values) } }
})

const fromSeconds = (seconds: number | null | undefined): DateTime.Utc | undefined =>
  Option.fromNullishOr(seconds).pipe(
    Option.flatMap((seconds) => DateTime.make(seconds * 1000)),
    Option.getOrUndefined
  )

const isUsedUp = (window: Protocol.RateLimitWindow | null | undefined): boolean =>
  Predicate.isNotNullish(window) && window.usedPercent >= 100

const exceededWindows = (
  limitId: string,
  { individualLimit, primary, secondary }: Protocol.RateLimitSnapshot
): ReadonlyArray<ExceededWindow> => {
  const windows: Array<ExceededWindow> = []
  if (isUsedUp(primary)) windows.push({ limitId, window: "primary", resetsAt: fromSeconds(primary?.resetsAt) })
  if (isUsedUp(secondary)) windows.push({ limitId, window: "secondary", resetsAt: fromSeconds(secondary?.resetsAt) })
  if (Predicate.isNotNullish(individualLimit) && individualLimit.remainingPercent <= 0) {
    windows.push({ limitId, window: "individual", resetsAt: fromSeconds(individualLimit.resetsAt) })
  }
  return windows
}

/**
 * Lists the windows that are used up: those at 100 percent, and the spend limit of a member with nothing remaining.
 *
 * **Gotchas**
 *
 * The server reports a window when a model request ends. Until then, a window whose reset has passed is still in the list.
 *
 * A turn can succeed although a window is used up: the account may have credits, or the limit is that of another model.
 *
 * @category getters
 * @since 0.1.0
 */
export const exceeded = (self: RateLimits): ReadonlyArray<ExceededWindow> =>
  Object.entries(self.limits).flatMap(([limitId, limit]) => exceededWindows(limitId, limit))

/**
 * Returns the time at which the next exceeded limit resets, or `undefined` if no reset after `now` is known.
 *
 * **Details**
 *
 * A limit resets when the last of its exceeded windows does. Of several exceeded limits, the one that resets first counts: the failure of a
 * turn does not contain its limit.
 *
 * @category getters
 * @since 0.1.0
 */
export const nextReset: {
  (now: DateTime.DateTime): (self: RateLimits) => DateTime.Utc | undefined
  (self: RateLimits, now: DateTime.DateTime): DateTime.Utc | undefined
} = dual(2, (self: RateLimits, now: DateTime.DateTime): DateTime.Utc | undefined => {
  const resets = new Map<string, DateTime.Utc>()
  for (const { limitId, resetsAt } of exceeded(self)) {
    if (resetsAt === undefined || DateTime.isLessThanOrEqualTo(resetsAt, now)) continue
    resets.set(limitId, DateTime.max(resetsAt, resets.get(limitId) ?? resetsAt))
  }
  return [...resets.values()].reduce<DateTime.Utc | undefined>(
    (first, reset) => DateTime.min(reset, first ?? reset),
    undefined
  )
})

/**
 * Tests if an error is a `TurnFailed` of an exceeded limit: `usageLimitExceeded`, `rateLimitExceeded`, or HTTP status 429.
 *
 * @category guards
 * @since 0.1.0
 */
export const isLimitExceeded = (error: unknown): boolean => {
  if (!Predicate.isTagged(error, "TurnFailed")) return false
  const info = getOwn(error, "codexErrorInfo")
  return info === "usageLimitExceeded" || info === "rateLimitExceeded" ||
    getOwn(getOwn(info, "responseTooManyFailedAttempts"), "httpStatusCode") === 429
}

/**
 * The bounds of {@link afterReset}.
 *
 * @category models
 * @since 0.1.0
 */
export interface AfterResetOptions {
  /**
   * The maximum time until a retry. If the limit resets later, the failure is not retried.
   *
   * @default "6 hours", which is enough for a window of five hours, and not for a weekly one
   */
  readonly maxWait?: Duration.Input | undefined
  /**
   * The maximum number of retries.
   *
   * @default 5
   */
  readonly times?: number | undefined
}

const kinds: Kinds<AfterResetOptions> = { maxWait: duration, times: count }

/** The wait before the first retry if no reset is known. It doubles with each retry. */
const firstFallback = Duration.minutes(1)

/**
 * A schedule for `Effect.retry` that waits until the exceeded limit of a failed turn resets.
 *
 * **When to use**
 *
 * Retry `thread.run`, or any effect that fails with `TurnFailed`. The output of the schedule is the wait.
 *
 * **Details**
 *
 * - Only failures that satisfy {@link isLimitExceeded} are retried. Any other failure ends the schedule, and `Effect.retry` fails with it.
 * - After each failure the schedule reads the limits and waits for {@link nextReset}.
 * - If no reset is known, it waits for 1 minute, then for 2, 4, 8 and 16 minutes. That is so without a ChatGPT login, for short-term
 *   rate limits of an API, and if the reset of all exceeded windows has passed.
 * - `maxWait` limits each wait, and `times` the number of waits.
 * - Each wait is logged at the level `Warn`.
 *
 * **Gotchas**
 *
 * A failed turn stays in the history of its thread, with its input and all that it did before the limit. A retry sends the input again.
 *
 * A usage limit that does not reset, such as an exhausted balance of credits, fails only after all retries. Pass `times` to fail earlier.
 *
 * **Example** (Waiting for a weekly limit)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codex, RateLimits } from "effect-codex"
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread()
 *   return yield* thread.run("Review the last commit").pipe(
 *     Effect.retry(RateLimits.afterReset(codex, { maxWait: "8 days", times: 2 }))
 *   )
 * })
 * ```
 *
 * @category schedules
 * @since 0.1.0
 */
export const afterReset = (
  codex: { readonly rateLimits: Stream.Stream<RateLimits, unknown> },
  options?: AfterResetOptions
): Schedule.Schedule<Duration.Duration, unknown> => {
  assertOptions("RateLimits.afterReset", kinds, options)
  const { times = 5 } = options ?? {}
  const maxWait = Duration.fromInputUnsafe(options?.maxWait ?? Duration.hours(6))
  const current = Effect.orElseSucceed(Stream.runHead(codex.rateLimits), Option.none)
  return Schedule.fromStepWithMetadata(Effect.succeed(Effect.fnUntraced(function*(
    { attempt, input }: Schedule.InputMetadata<unknown>
  ) {
    if (!isLimitExceeded(input) || attempt > times) return yield* Cause.done(Duration.zero)
    const limits = yield* current
    const now = yield* DateTime.now
    const reset = Option.isSome(limits) ? nextReset(limits.value, now) : undefined
    const wait = reset === undefined
      ? Duration.min(Duration.times(firstFallback, 2 ** (attempt - 1)), maxWait)
      : DateTime.distance(now, reset)
    if (Duration.isGreaterThan(wait, maxWait)) return yield* Cause.done(wait)
    yield* Effect.logWarning(
      `A turn exceeded a limit${reset === undefined ? " whose reset is unknown" : ""}. ` +
        `The retry waits until \`${DateTime.formatIso(DateTime.addDuration(now, wait))}\`.`
    )
    return Tuple.make(wait, wait)
  })))
}
