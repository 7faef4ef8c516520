/** The goals of threads: what they have used, and how they end. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../../Protocol.ts"
import { reject, type Rejection } from "./methods.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import { type StoredGoal, type StoredThread, type ThreadStore, toSeconds } from "./threadStore.ts"

export const isPursued = ({ goal }: StoredThread): boolean => goal?.status === "active"

const limitTokens = (goal: StoredGoal): void => {
  if (goal.status === "active" && goal.tokensUsed >= (goal.tokenBudget ?? Infinity)) goal.status = "budgetLimited"
}

export const toGoalJson = ({ id }: StoredThread, goal: StoredGoal): Protocol.ThreadGoal => ({
  threadId: id,
  objective: goal.objective,
  status: goal.status,
  tokenBudget: goal.tokenBudget,
  tokensUsed: goal.tokensUsed,
  timeUsedSeconds: toSeconds(goal.timeUsed),
  createdAt: goal.createdAt,
  updatedAt: goal.updatedAt
})

export const makeGoals = ({ events, store }: { readonly events: ThreadEvents; readonly store: ThreadStore }) => {
  /** Reports the goal of a thread. */
  const updated = (thread: StoredThread, turnId: string | null) =>
    Effect.suspend(() =>
      thread.goal === undefined
        ? Effect.void
        : events.notify(thread, "thread/goal/updated", { turnId, goal: toGoalJson(thread, thread.goal) })
    )

  /** Counts what the turn in progress has used since the last count, and reports a change. */
  const count = Effect.fnUntraced(function*(thread: StoredThread, tokens: number) {
    const { active, goal } = thread
    if (active === undefined || goal?.status !== "active") return
    const now = yield* Clock.currentTimeMillis
    const { timeUsed } = goal
    goal.tokensUsed += tokens
    goal.timeUsed += now - Math.max(goal.countedAt, active.stored.startedAt)
    goal.countedAt = now
    limitTokens(goal)
    if (tokens > 0 || toSeconds(goal.timeUsed) > toSeconds(timeUsed)) yield* updated(thread, active.stored.id)
  })

  return {
    updated,
    count,
    /** Changes the status of a goal that is pursued, as the turn in progress does. */
    end: Effect.fnUntraced(function*(thread: StoredThread, turnId: string, status: Protocol.ThreadGoalStatus) {
      if (thread.goal?.status !== "active") return
      yield* count(thread, 0)
      thread.goal.status = status
      yield* updated(thread, turnId)
    }),
    /** Finds a thread that can have a goal. */
    getThread: Effect.fnUntraced(function*(params: { readonly threadId: string }) {
      const thread = yield* store.getLoaded(params)
      if (thread.ephemeral) return yield* reject(`ephemeral thread does not support goals: ${thread.id}`)
      return thread
    }),
    /** Sets or changes the goal of a thread. */
    set: Effect.fnUntraced(function*(thread: StoredThread, params: Protocol.ThreadGoalSetParams) {
      const { objective, status, tokenBudget } = params
      if (objective?.trim() === "") return yield* reject("goal objective must not be empty")
      if (Predicate.isNotNullish(tokenBudget) && tokenBudget <= 0) {
        return yield* reject("goal budgets must be positive when provided")
      }
      yield* count(thread, 0)
      const now = yield* Clock.currentTimeMillis
      const goal = thread.goal ?? (yield* newGoal(thread, objective, now))
      goal.objective = objective ?? goal.objective
      goal.status = status ?? goal.status
      if (tokenBudget !== undefined) goal.tokenBudget = tokenBudget
      goal.updatedAt = toSeconds(now)
      goal.countedAt = now
      limitTokens(goal)
      thread.goal = goal
      thread.stored = true
      if (thread.preview === "") thread.preview = goal.objective
      return goal
    })
  }
}

const newGoal = (
  { id }: StoredThread,
  objective: string | null | undefined,
  now: number
): Effect.Effect<StoredGoal, Rejection> =>
  Predicate.isNullish(objective)
    ? reject(`cannot update goal for thread ${id}: no goal exists`)
    : Effect.succeed({
      objective,
      status: "active",
      tokenBudget: null,
      tokensUsed: 0,
      timeUsed: 0,
      countedAt: now,
      createdAt: toSeconds(now),
      updatedAt: toSeconds(now)
    })

export type Goals = ReturnType<typeof makeGoals>
