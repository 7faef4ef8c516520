/** The state of one run of a budget. */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { type AppServerError, BudgetExceeded, make as appServerError, PriceMissing } from "../../../AppServerError.ts"
import * as Usage from "../../../Usage.ts"
import type { Limit, Reserve, Used } from "../../budget/used.ts"
import { getOwn } from "../../getOwn.ts"
import type { ReadBatch } from "../../jsonrpc/readBatch.ts"

export interface BudgetOptions {
  readonly limit: Limit
  readonly reserve: Reserve
  /** The price of each model. `undefined` if the cost is not computed. */
  readonly prices: Readonly<Record<string, Usage.Price>> | undefined
}

/** Interrupts a turn of a budget that is used up, and waits for its end. */
export type InterruptTurn = (error: AppServerError) => Effect.Effect<void>

interface Counts {
  usage: Usage.Tokens
  usd: number
  turns: number
}

/** Adds costs. Rounds to a trillionth of a dollar, so that costs of $0.1 add up to a limit of $0.3. */
const addUsd = (a: number, b: number): number => Math.round((a + b) * 1e12) / 1e12

const noCounts = (): Counts => ({ usage: Usage.zero, usd: 0, turns: 0 })

export class BudgetState {
  /** The budget around this one. Everything that this one uses counts in it, too. */
  readonly parent: BudgetState | undefined
  private readonly options: BudgetOptions
  private readonly runFork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  private readonly total = noCounts()
  private readonly threads = new Map<string, Counts>()
  private readonly running = new Set<InterruptTurn>()
  /** The interrupts that have not ended. */
  private readonly interrupts = new Set<Fiber.Fiber<void>>()
  private readonly pending = new Set<Deferred.Deferred<void>>()
  private readonly observers = new Set<(used: Used) => void>()
  private readonly interrupted = Deferred.makeUnsafe<never, AppServerError>()
  /** Why the budget starts no further turn. */
  error: AppServerError | undefined
  /** The threads whose turns count also if the server starts them by itself. */
  readonly enrolled = new Set<string>()
  /** Whether the effect or stream of the budget has ended. */
  hasEnded = false

  constructor(
    options: BudgetOptions,
    parent: BudgetState | undefined,
    runFork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  ) {
    this.options = options
    this.parent = parent
    this.runFork = runFork
  }

  get used(): Used {
    const hasPrices = this.options.prices !== undefined
    const toUsed = ({ turns, usage, usd }: Counts) => ({
      tokens: usage.totalTokens,
      usd: hasPrices ? usd : undefined,
      turns,
      usage
    })
    const threads = Array.from(this.threads, ([threadId, counts]) => ({ threadId, ...toUsed(counts) }))
    return { ...toUsed(this.total), threads }
  }

  /** Fails when the budget is exceeded, after its turns were interrupted. */
  get exceeded(): Effect.Effect<never, AppServerError> {
    return Deferred.await(this.interrupted)
  }

  /** Returns the error of a turn that cannot start, because too little is left or its model has no price. */
  refuse(threadId: string, model: string): AppServerError | undefined {
    if (this.error !== undefined) return this.error
    if (this.isPriceMissing(model)) return appServerError(new PriceMissing({ threadId, model }))
    return this.isWithin((used, limit) => used < limit) ? undefined : this.makeError()
  }

  /** Counts turns that start, or subtracts those that did not. */
  addTurns(threadId: string, turns: 1 | -1, batch: ReadBatch): void {
    this.change(threadId, (counts) => {
      counts.turns += turns
    }, batch)
  }

  /** Counts the tokens of a model request. They are negative if the server has counted too many before. */
  addTokens(threadId: string, model: string, tokens: Usage.Tokens, batch: ReadBatch): void {
    if (this.isPriceMissing(model)) this.interrupt(appServerError(new PriceMissing({ threadId, model })), batch)
    const price = this.getPrice(model)
    const usd = price === undefined ? 0 : Usage.cost(tokens, price)
    this.change(threadId, (counts) => {
      counts.usage = Usage.add(counts.usage, tokens)
      counts.usd = addUsd(counts.usd, usd)
    }, batch)
  }

  /** Adds a turn that is interrupted when the budget is exceeded. Returns the function that removes it. */
  addRunning(interruptTurn: InterruptTurn): () => void {
    if (this.error !== undefined) {
      this.startInterrupt(interruptTurn, this.error)
      return () => {}
    }
    this.running.add(interruptTurn)
    return () => this.running.delete(interruptTurn)
  }

  /** Adds a count that is not known yet. Returns the function that marks it as known. */
  addPending(): () => void {
    const counted = Deferred.makeUnsafe<void>()
    this.pending.add(counted)
    return () => {
      this.pending.delete(counted)
      Deferred.doneUnsafe(counted, Effect.void)
    }
  }

  /** Waits until all counts are known. */
  readonly settled: Effect.Effect<void> = Effect.suspend(() =>
    this.pending.size === 0 ? Effect.void : Effect.forEach(this.pending, Deferred.await, { discard: true })
  )

  /** Calls a function with each change, and returns the function that removes it. */
  observe(observer: (used: Used) => void): () => void {
    this.observers.add(observer)
    return () => this.observers.delete(observer)
  }

  private getPrice(model: string): Usage.Price | undefined {
    return getOwn(this.options.prices, model) as Usage.Price | undefined
  }

  private isPriceMissing(model: string): boolean {
    return this.options.prices !== undefined && this.getPrice(model) === undefined
  }

  /** Compares what is used, and the reserve, with each limit. A number that is not comparable is never within a limit. */
  private isWithin(compare: (used: number, limit: number) => boolean): boolean {
    const { options: { limit, reserve }, total: { turns, usage, usd } } = this
    return (limit.turns === undefined || compare(turns, limit.turns)) &&
      (limit.tokens === undefined || compare(usage.totalTokens + reserve.tokens, limit.tokens)) &&
      (limit.usd === undefined || compare(addUsd(usd, reserve.usd), limit.usd))
  }

  private change(threadId: string, update: (counts: Counts) => void, batch: ReadBatch): void {
    const thread = this.threads.get(threadId) ?? noCounts()
    this.threads.set(threadId, thread)
    update(thread)
    update(this.total)
    if (!this.isWithin((used, limit) => used <= limit)) this.interrupt(this.makeError(), batch)
    if (this.observers.size === 0) return
    const { used } = this
    for (const observer of this.observers) observer(used)
  }

  private makeError(): AppServerError {
    const { limit, reserve } = this.options
    return appServerError(new BudgetExceeded({ limit, reserve, used: this.used }))
  }

  private interrupt(error: AppServerError, batch: ReadBatch): void {
    if (this.error !== undefined) return
    this.error = error
    // The server may start a turn meanwhile, as for a goal that is not paused yet.
    const awaitInterrupts = Effect.suspend(() => Fiber.awaitAll(this.interrupts)).pipe(
      Effect.repeat({ while: () => this.interrupts.size > 0 })
    )
    batch.afterBatch(() => {
      for (const interruptTurn of this.running) this.startInterrupt(interruptTurn, error)
      this.runFork(Effect.andThen(awaitInterrupts, Deferred.fail(this.interrupted, error)))
    })
  }

  private startInterrupt(interruptTurn: InterruptTurn, error: AppServerError): void {
    const fiber = this.runFork(interruptTurn(error))
    this.interrupts.add(fiber)
    fiber.addObserver(() => this.interrupts.delete(fiber))
  }
}

/** Returns a budget and the budgets around it, the innermost first. */
export const toAll = (budget: BudgetState | undefined): ReadonlyArray<BudgetState> =>
  budget === undefined ? [] : [budget, ...toAll(budget.parent)]

/** The innermost budget of the current fiber. */
export const CurrentBudget: Context.Reference<BudgetState | undefined> = Context.Reference<BudgetState | undefined>(
  "effect-codex/Budget",
  { defaultValue: () => undefined }
)
