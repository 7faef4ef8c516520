/**
 * Attributes turns to the budgets that they count in.
 *
 * A turn that this program starts counts in the budgets of its caller. A turn of a sub-agent counts in those of the turn that it works for.
 * Any other turn, as that of a goal or a review, counts in the budgets that have enrolled its thread.
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { AppServerError } from "../../../AppServerError.ts"
import * as Usage from "../../../Usage.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { type ReadBatch, syncBatch } from "../../jsonrpc/readBatch.ts"
import type { SubAgents } from "../threads/subAgents.ts"
import type { ThreadRecords } from "../threads/threadRecords.ts"
import { toTokens } from "../threads/threadUsage.ts"
import { awaitWithTimeout } from "../turns/interruptTurn.ts"
import type { TurnRegistry } from "../turns/turnRegistry.ts"
import { type BudgetState, toAll } from "./budgetState.ts"
import { readReviewUsage } from "./reviewUsage.ts"

/** A turn that counts in budgets. */
class BudgetedTurn {
  readonly threadId: string
  readonly turnId: string
  /** The id of the turn that this one works for. A review starts with another id, and works for the id that it ends with. */
  readonly rootId: string | undefined
  /** The model of the turn, once it is known. A later change of the thread's model holds for the next turn. */
  model: string | undefined
  readonly budgets = new Set<BudgetState>()
  /** Whether a budget interrupts the turn. */
  isInterrupted = false
  /** Called when the turn ends. */
  readonly onEnd: Array<() => void> = []

  constructor(threadId: string, turnId: string, rootId: string | undefined) {
    this.threadId = threadId
    this.turnId = turnId
    this.rootId = rootId
  }
}

/** A turn that counts in budgets before it is started, so that no other turn starts in its place. */
export class Reservation {
  readonly budgets: ReadonlyArray<BudgetState>
  private readonly threadId: string
  private isCanceled = false

  constructor(budgets: ReadonlyArray<BudgetState>, threadId: string) {
    this.budgets = budgets
    this.threadId = threadId
    for (const budget of budgets) budget.addTurns(threadId, 1, syncBatch)
  }

  /** Subtracts the turn again: it was not started. */
  cancel(): void {
    if (this.isCanceled) return
    this.isCanceled = true
    for (const budget of this.budgets) budget.addTurns(this.threadId, -1, syncBatch)
  }
}

interface Session {
  readonly records: ThreadRecords
  readonly subAgents: SubAgents
  readonly turns: TurnRegistry
}

export class TurnBudgets {
  private readonly server: ServerConnection
  private readonly session: Session
  private readonly turns = new Map<string, BudgetedTurn>()
  /** The last turn of each thread that has ended. Reports of it may follow, and sub-agents may start turns for it. */
  private readonly ended = new Map<string, BudgetedTurn>()
  /** The budgets that have enrolled threads. */
  private enrolling: ReadonlyArray<BudgetState> = []

  constructor(server: ServerConnection, session: Session) {
    this.server = server
    this.session = session
  }

  /** Follows the turns of the server, until the scope closes. */
  readonly listen: Effect.Effect<void, never, Scope.Scope> = Effect.gen({ self: this }, function*() {
    const { server, session: { turns } } = this
    const scope = yield* Effect.scope
    const runFork = Effect.runForkWith(yield* Effect.context<never>())
    turns.usages.onUsed = (threadId, turnId, used, batch) => this.addUsed(threadId, turnId, used, batch)
    yield* Effect.all([
      server.addNotificationHandler("turn/started", ({ threadId, turn }, batch) => {
        this.addServerTurn(threadId, turn.id, batch)
      }),
      server.addNotificationHandler("turn/completed", ({ threadId, turn: { id } }, batch) => {
        for (const turn of this.turns.values()) {
          if (turn.threadId === threadId && turn.rootId === id) {
            const count = this.countReview(turn)
            batch.afterBatch(() => Fiber.runIn(runFork(count), scope))
          }
        }
        // The response to `turn/start` may have named the next turn of the thread.
        this.endAll((turn) =>
          turn.threadId === threadId && (turn.turnId === id || !turns.isRunning(threadId, turn.turnId))
        )
      }),
      server.addNotificationHandler("thread/closed", ({ threadId }) => {
        this.ended.delete(threadId)
      }),
      server.addNotificationHandler("model/rerouted", ({ toModel, turnId }) => {
        const turn = this.turns.get(turnId)
        if (turn !== undefined) turn.model = toModel
      }),
      server.addRestartHandler(() =>
        Effect.sync(() => this.endAll(({ threadId, turnId }) => !turns.isRunning(threadId, turnId)))
      )
    ], { discard: true })
  })

  /** Waits until all counts of a budget, and of those around it, are known. */
  settle(budget: BudgetState | undefined): Effect.Effect<void> {
    return Effect.forEach(toAll(budget), ({ settled }) => settled, { discard: true })
  }

  /**
   * Fails if a turn cannot start, and otherwise counts it. Does not wait between the two, so two turns cannot both be the last one. Callers
   * wait for {@link settle} before.
   */
  reserve(
    budget: BudgetState | undefined,
    threadId: string,
    model?: string
  ): Effect.Effect<Reservation, AppServerError> {
    return Effect.map(this.requireWithin(budget, threadId, model), () => new Reservation(toAll(budget), threadId))
  }

  /** Fails if a turn cannot start: a budget is used up, or has no price for the model. */
  check(budget: BudgetState | undefined, threadId: string, model?: string): Effect.Effect<void, AppServerError> {
    return Effect.andThen(this.settle(budget), this.requireWithin(budget, threadId, model))
  }

  private requireWithin(
    budget: BudgetState | undefined,
    threadId: string,
    model: string | undefined
  ): Effect.Effect<void, AppServerError> {
    return Effect.suspend(() => {
      for (const each of toAll(budget)) {
        const error = each.refuse(threadId, model ?? this.getModel(threadId))
        if (error !== undefined) return Effect.fail(error)
      }
      return Effect.void
    })
  }

  /** Counts the turns that the server starts on a thread by itself, until the budget ends. */
  enroll(budget: BudgetState | undefined, threadId: string): void {
    for (const each of toAll(budget)) each.enrolled.add(threadId)
    this.enrolling = [...new Set([...this.enrolling, ...toAll(budget)])].filter(({ hasEnded }) => !hasEnded)
  }

  /** Adds a turn of the program, once a response or an event has named it. */
  add(
    reservation: Reservation,
    threadId: string,
    turnId: string,
    isJoined: boolean,
    batch: ReadBatch
  ): void {
    if (isJoined) {
      reservation.cancel()
      // Until now it was unknown whether the program starts the turn.
      this.addServerTurn(threadId, turnId, batch)
    }
    if (reservation.budgets.length === 0) return
    const turn = this.getTurn(threadId, turnId)
    for (const budget of reservation.budgets) {
      if (turn.budgets.has(budget)) continue
      turn.budgets.add(budget)
      if (!isJoined) this.addUsedSoFar(budget, turn, batch)
    }
  }

  /** Removes a turn that has ended. */
  end(turnId: string): void {
    const turn = this.turns.get(turnId)
    if (turn === undefined) return
    this.turns.delete(turnId)
    if (turn.rootId === undefined) this.ended.set(turn.threadId, turn)
    for (const callback of turn.onEnd) callback()
  }

  private endAll(predicate: (turn: BudgetedTurn) => boolean): void {
    for (const turn of this.turns.values()) {
      if (predicate(turn)) this.end(turn.turnId)
    }
  }

  private getTurn(threadId: string, turnId: string): BudgetedTurn {
    const turn = this.turns.get(turnId) ??
      new BudgetedTurn(threadId, turnId, this.session.subAgents.getRoot(turnId))
    turn.model ??= this.findModel(threadId)
    this.turns.set(turnId, turn)
    return turn
  }

  /** Counts the tokens of a review that has ended. */
  private countReview({ budgets, threadId }: BudgetedTurn): Effect.Effect<void> {
    const counted = Array.from(budgets, (budget) => budget.addPending())
    return readReviewUsage(this.server, threadId).pipe(
      Effect.map((usage) => {
        if (usage === undefined) return
        const { model = this.getModel(threadId), tokens } = usage
        for (const budget of budgets) budget.addTokens(threadId, model, toTokens(tokens), syncBatch)
      }),
      Effect.catch((error) =>
        Effect.logWarning(`Cannot count the tokens of a review of thread \`${threadId}\`: ${error.message}`)
      ),
      Effect.ensuring(Effect.sync(() => counted.forEach((done) => done())))
    )
  }

  private addUsed(threadId: string, turnId: string, used: Usage.Tokens, batch: ReadBatch): void {
    const ended = this.ended.get(threadId)
    // A restarted server replays the last report of a thread, which may be new.
    const turn = this.turns.get(turnId) ?? (ended?.turnId === turnId ? ended : undefined)
    if (turn === undefined) {
      if (this.session.turns.getActive(threadId) === turnId) this.addServerTurn(threadId, turnId, batch)
      return
    }
    for (const budget of turn.budgets) budget.addTokens(threadId, this.getTurnModel(turn), used, batch)
  }

  private addUsedSoFar(budget: BudgetState, turn: BudgetedTurn, batch: ReadBatch): void {
    const usage = this.session.turns.usages.get(turn.threadId, turn.turnId)?.turn
    if (usage === undefined || Usage.Equivalence(usage, Usage.zero)) return
    budget.addTokens(turn.threadId, this.getTurnModel(turn), usage, batch)
  }

  /** Adds a turn that the server has started by itself. */
  private addServerTurn(threadId: string, turnId: string, batch: ReadBatch): void {
    const budgets = this.findBudgets(threadId, turnId)
    if (budgets.length === 0) return
    const turn = this.getTurn(threadId, turnId)
    for (const budget of budgets) {
      if (turn.budgets.has(budget)) continue
      turn.budgets.add(budget)
      turn.onEnd.push(budget.addRunning(() => this.interrupt(turn)))
      budget.addTurns(threadId, 1, batch)
      this.addUsedSoFar(budget, turn, batch)
    }
  }

  private findBudgets(threadId: string, turnId: string): ReadonlyArray<BudgetState> {
    const { subAgents, turns } = this.session
    const root = subAgents.getRoot(turnId)
    if (root !== undefined) {
      const parentId = subAgents.getParent(threadId)
      const parent = this.turns.get(root) ??
        [...this.ended.values()].find((turn) => turn.turnId === root) ??
        [...this.turns.values()].find((turn) => turn.threadId === parentId)
      if (parent !== undefined) return [...parent.budgets]
    }
    // Only the response to a request says whether the program has started the turn.
    if (turns.isStarting(threadId) || turns.isOurs(threadId, turnId)) return []
    return this.enrolling.filter(({ enrolled, hasEnded }) => !hasEnded && enrolled.has(threadId))
  }

  /** Returns the model of a thread, if the server has named it. */
  private findModel(threadId: string): string | undefined {
    const { records, subAgents } = this.session
    return records.get(threadId)?.settings.model ?? subAgents.getModel(threadId)
  }

  private getModel(threadId: string): string {
    return this.findModel(threadId) ?? ""
  }

  private getTurnModel({ model, threadId }: BudgetedTurn): string {
    return model ?? this.getModel(threadId)
  }

  /** Interrupts a turn, unless it works for a turn that continues for other callers. */
  private interrupt(turn: BudgetedTurn): Effect.Effect<void> {
    const { rootId, threadId, turnId } = turn
    turn.isInterrupted = true
    // Meanwhile the budget starts its other interrupts, so `continues` sees which turns end.
    return Effect.andThen(
      Effect.yieldNow,
      Effect.suspend(() =>
        rootId !== undefined && this.continues(rootId) ? Effect.void : Effect.asVoid(awaitWithTimeout(
          // Otherwise the goal of a turn that ends before the interrupt starts another one.
          Effect.andThen(
            rootId === undefined ? Effect.ignore(this.pauseGoal(threadId)) : Effect.void,
            this.server.request("turn/interrupt", { threadId, turnId })
          )
        ))
      )
    )
  }

  private pauseGoal(threadId: string): Effect.Effect<void, AppServerError> {
    return Effect.flatMap(this.server.request("thread/goal/get", { threadId }), ({ goal }) =>
      goal?.status === "active"
        ? Effect.asVoid(this.server.request("thread/goal/set", { threadId, status: "paused" }))
        : Effect.void)
  }

  /** Whether a turn is running, and no budget or caller interrupts it. */
  private continues(turnId: string): boolean {
    const turn = this.turns.get(turnId)
    return turn !== undefined && !turn.isInterrupted && !this.session.turns.isEnding(turn.threadId, turnId)
  }
}
