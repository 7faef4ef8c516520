/** The notifications that the fake sends about its threads. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Protocol from "../../../Protocol.ts"
import { noLimits } from "./accountLimits.ts"
import type { Clients } from "./clients.ts"
import { type OverrideParams, overrideSettings, toSettingsJson } from "./settings.ts"
import type { StoredThread } from "./threadStore.ts"

/** The context window that the real server reports for a model of 272,000 tokens, because it reserves a part of them. */
const modelContextWindow = 258_400

const addUsage = (
  one: Protocol.TokenUsageBreakdown,
  other: Protocol.TokenUsageBreakdown
): Protocol.TokenUsageBreakdown => ({
  cachedInputTokens: one.cachedInputTokens + other.cachedInputTokens,
  cacheWriteInputTokens: (one.cacheWriteInputTokens ?? 0) + (other.cacheWriteInputTokens ?? 0),
  inputTokens: one.inputTokens + other.inputTokens,
  outputTokens: one.outputTokens + other.outputTokens,
  reasoningOutputTokens: one.reasoningOutputTokens + other.reasoningOutputTokens,
  totalTokens: one.totalTokens + other.totalTokens
})

/** Adds the tokens of a request to the model to those of the thread, and does not report them. */
export const recordUsage = (thread: StoredThread, turnId: string, last: Protocol.TokenUsageBreakdown): void => {
  thread.usage = { last, total: thread.usage === undefined ? last : addUsage(thread.usage.total, last) }
  thread.usageTurnId = turnId
}

export const makeThreadEvents = (clients: Clients) => {
  /** Notifies the subscribers of a thread. */
  const notify = (thread: StoredThread, method: string, params: object) =>
    clients.notify(method, { threadId: thread.id, ...params }, thread.id)

  const usage = (thread: StoredThread, turnId: string | undefined) =>
    thread.usage === undefined || turnId === undefined
      ? Effect.void
      : notify(thread, "thread/tokenUsage/updated", { turnId, tokenUsage: { ...thread.usage, modelContextWindow } })

  const modelRequest = (thread: StoredThread, turnId: string) =>
    Effect.suspend(() => {
      if (thread.usage !== undefined) thread.usageTurnId = turnId
      return Effect.andThen(
        usage(thread, turnId),
        clients.notify("account/rateLimits/updated", { rateLimits: noLimits }, thread.id)
      )
    })

  return {
    notify,
    usage,
    /** Reports the usage and the rate limits, as the real server does when a request to the model ends. */
    modelRequest,
    /** Adds the tokens of a request to the model to those of the thread, and reports them. */
    addUsage: (thread: StoredThread, turnId: string, last: Protocol.TokenUsageBreakdown) =>
      Effect.suspend(() => {
        recordUsage(thread, turnId, last)
        return modelRequest(thread, turnId)
      }),
    status: (thread: StoredThread, status: Protocol.ThreadStatus) =>
      clients.notify("thread/status/changed", { threadId: thread.id, status }),
    historyDeprecated: (instead: string) =>
      clients.notify("deprecationNotice", {
        summary: `Full-history hydration is deprecated for paginated threads; ${instead}, then page with ` +
          "`thread/turns/list` and `thread/items/list`.",
        details: null
      }),
    /** Overrides settings, and returns the notification of the change. */
    override: (thread: StoredThread, params: OverrideParams) =>
      Effect.sync(() => {
        const before = toSettingsJson(thread.settings)
        thread.settings = overrideSettings(thread.settings, params)
        const threadSettings = toSettingsJson(thread.settings)
        return Equal.equals(before, threadSettings)
          ? Effect.void
          : notify(thread, "thread/settings/updated", { threadSettings })
      }),
    /** Ends a background command of the thread's last turn. */
    terminate: (thread: StoredThread, processId: string) =>
      Effect.suspend(() => {
        const item = thread.processes.get(processId)
        const turn = thread.turns.at(-1)
        if (item === undefined || turn === undefined) return Effect.void
        thread.processes.delete(processId)
        return Effect.flatMap(Clock.currentTimeMillis, (completedAtMs) =>
          notify(thread, "item/completed", { turnId: turn.id, item: { ...item, status: "failed" }, completedAtMs }))
      })
  }
}

export type ThreadEvents = ReturnType<typeof makeThreadEvents>
