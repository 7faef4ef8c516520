/** Folds the reports of token usage into the usage of a turn. */
import * as Struct from "effect/Struct"
import * as Protocol from "../../Protocol.ts"
import * as Usage from "../../Usage.ts"
import type { TurnView, UsageView } from "./model.ts"
import { decoder, getOwnNumber } from "./readEvent.ts"

const decodeUsage = decoder(Protocol.ThreadTokenUsage)

const kinds = Struct.keys(Usage.zero)

const toTokens = (tokens: Protocol.TokenUsageBreakdown): Usage.Tokens => ({
  inputTokens: tokens.inputTokens,
  cachedInputTokens: tokens.cachedInputTokens,
  cacheWriteInputTokens: tokens.cacheWriteInputTokens ?? 0,
  outputTokens: tokens.outputTokens,
  reasoningOutputTokens: tokens.reasoningOutputTokens,
  totalTokens: tokens.totalTokens
})

const isEqual = (a: Usage.Tokens, b: Usage.Tokens): boolean => kinds.every((kind) => a[kind] === b[kind])

/** Whether tokens were counted. An estimate of the context, and the size of a full context, have a total only. */
const isCounted = ({ inputTokens, outputTokens }: Usage.Tokens): boolean => inputTokens > 0 || outputTokens > 0

/** The types of items that are not output of the model. */
const inputTypes: ReadonlySet<unknown> = new Set(["userMessage", "hookPrompt", "contextCompaction"])

const hasOutput = (view: TurnView): boolean =>
  view.plan !== null || view.items.some(({ item, state }) => state === "completed" && !inputTypes.has(item.type))

/** The usage after the first report, when the totals before the turn are unknown. The server may repeat a report of an earlier turn. */
const first = (view: TurnView, thread: Usage.Tokens, request: Usage.Tokens): Usage.Tokens =>
  isCounted(request) && (isEqual(request, thread) || hasOutput(view)) ? request : Usage.zero

/** Whether a view with these tokens is JSON: `1e999` is a number in JSON, and infinite. */
const isFinite = (tokens: Usage.Tokens): boolean => kinds.every((kind) => Number.isFinite(tokens[kind]))

/** Whether a report is late or repeated. The server repeats totals in reports of their own, which are later. */
const isRepeated = (usage: UsageView, thread: Usage.Tokens, emittedAtMs: number | null): boolean =>
  emittedAtMs !== null && usage.reportedAtMs !== null &&
  (emittedAtMs < usage.reportedAtMs || emittedAtMs === usage.reportedAtMs && isEqual(usage.thread, thread))

/** Folds `thread/tokenUsage/updated`. */
export const addUsage = (view: TurnView, received: unknown, emittedAtMs: number | null): TurnView => {
  const report = decodeUsage(received)
  if (report === undefined) return view
  const thread = toTokens(report.total)
  const request = toTokens(report.last)
  if (!isFinite(thread) || !isFinite(request)) return view
  const known = view.usage
  if (known !== null && isRepeated(known, thread, emittedAtMs)) return view
  const contextWindow = getOwnNumber(report, "modelContextWindow")
  const set = (usage: Partial<UsageView>): TurnView => ({
    ...view,
    usage: {
      turn: known?.turn ?? Usage.zero,
      thread: known?.thread ?? Usage.zero,
      lastRequest: isCounted(request) ? request : known?.lastRequest ?? Usage.zero,
      contextWindow,
      reports: (known?.reports ?? 0) + 1,
      reportedAtMs: emittedAtMs ?? known?.reportedAtMs ?? null,
      ...usage
    }
  })
  // The context is full.
  if (!isCounted(thread)) return set({ contextWindow })
  if (known === null || !isCounted(known.thread)) return set({ thread, turn: first(view, thread, request) })
  const difference = Usage.subtract(thread, known.thread)
  if (kinds.every((kind) => difference[kind] >= 0)) return set({ thread, turn: Usage.add(known.turn, difference) })
  // Smaller totals at the beginning are those of another history. Later on, the report is late.
  return isEqual(known.turn, Usage.zero) ? set({ thread, turn: first(view, thread, request) }) : view
}

/** Removes the first request from the usage: the server retries it, so its report was one of an earlier turn. */
export const retryUsage = (usage: UsageView | null): UsageView | null =>
  usage === null || usage.reports !== 1 || isEqual(usage.turn, Usage.zero) ? usage : { ...usage, turn: Usage.zero }
