/**
 * Follows the token usage of threads and their turns.
 *
 * The server reports the totals of the thread and, as `last`, its last model request. The sum of `last` is wrong. The server repeats a report
 * before a stream is retried, before a compaction and when a request is interrupted. It replays a report when a thread is resumed, and
 * estimates `last` after a compaction.
 *
 * So the usage of a turn is the difference of the totals, with two exceptions:
 *
 * - When the context is full, the server replaces the totals by the size of the context window.
 * - After a fork, a revert or a close, the totals before the turn are unknown: the server starts from those of another history and does not
 *   report them.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Struct from "effect/Struct"
import type * as Protocol from "../../../Protocol.ts"
import * as Usage from "../../../Usage.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"

/** Maximum number of turns of a thread whose usage is kept, until the response to `turn/start` names one of them. */
const maxTurns = 4

const kinds = Struct.keys(Usage.zero)

const toTokens = ({ cacheWriteInputTokens = 0, ...tokens }: Protocol.TokenUsageBreakdown): Usage.Tokens => ({
  inputTokens: tokens.inputTokens,
  cachedInputTokens: tokens.cachedInputTokens,
  cacheWriteInputTokens,
  outputTokens: tokens.outputTokens,
  reasoningOutputTokens: tokens.reasoningOutputTokens,
  totalTokens: tokens.totalTokens
})

const isEqual = (a: Usage.Tokens, b: Usage.Tokens): boolean => kinds.every((kind) => a[kind] === b[kind])

const isNegative = (tokens: Usage.Tokens): boolean => kinds.some((kind) => tokens[kind] < 0)

/** Whether tokens were counted. An estimate of the context, and the size of the context window, have a total only. */
const isCounted = ({ inputTokens, outputTokens }: Usage.Tokens): boolean => inputTokens > 0 || outputTokens > 0

class ThreadUsage {
  /** The last totals that the server reported, if the next totals continue them. */
  private reported: Usage.Tokens | undefined
  /** Whether the thread has a history whose totals the server does not report. */
  private hasHistory = false
  private thread = Usage.zero
  private lastRequest = Usage.zero
  private readonly turns = new Map<string, Usage.TurnUsage>()
  /** The turn in which the model completed an output since the totals became unknown. */
  private outputTurn: string | undefined
  /** The turn whose only report counts as a model request, although the totals before are unknown. */
  private guessedTurn: string | undefined

  get(turnId: string): Usage.TurnUsage | undefined {
    return this.turns.get(turnId)
  }

  update(turnId: string, { last, modelContextWindow, total }: Protocol.ThreadTokenUsage): void {
    const request = toTokens(last)
    const used = this.usedSince(turnId, request, toTokens(total))
    if (isCounted(request)) this.lastRequest = request
    const turn = this.turns.get(turnId)?.turn ?? Usage.zero
    this.turns.delete(turnId)
    this.turns.set(turnId, {
      turn: Usage.add(turn, used),
      thread: this.thread,
      lastRequest: this.lastRequest,
      contextWindow: modelContextWindow ?? undefined
    })
    for (const oldest of this.turns.keys()) {
      if (this.turns.size <= maxTurns) break
      this.turns.delete(oldest)
    }
  }

  /** Updates the totals, and returns the usage since the last report. */
  private usedSince(turnId: string, request: Usage.Tokens, total: Usage.Tokens): Usage.Tokens {
    const { reported } = this
    this.reported = total
    this.guessedTurn = undefined
    // The context is full.
    if (!isCounted(total)) return Usage.zero
    if (reported === undefined) {
      this.thread = total
      // Before the model completes an output, the server repeats the last request of the history.
      const isRequest = this.hasHistory
        ? this.outputTurn === turnId
        : isEqual(request, total) || this.outputTurn === turnId
      if (!isRequest || !isCounted(request)) return Usage.zero
      this.guessedTurn = turnId
      return request
    }
    const difference = Usage.subtract(total, reported)
    if (isEqual(total, reported)) return Usage.zero
    // A killed server may have lost a part of the history, or all of it.
    if (isNegative(difference) || isEqual(request, total)) {
      this.thread = total
      return request
    }
    this.thread = Usage.add(this.thread, difference)
    return difference
  }

  /** Notes that the model completed an output. */
  addOutput(turnId: string): void {
    if (this.reported === undefined) this.outputTurn = turnId
  }

  /** Removes the guess for a turn: the server retries a stream, so its last report was a repetition. */
  retry(turnId: string): void {
    const usage = this.turns.get(turnId)
    if (this.guessedTurn === turnId && usage !== undefined) this.turns.set(turnId, { ...usage, turn: Usage.zero })
    this.guessedTurn = undefined
  }

  /** Notes that the next totals do not continue the last ones. */
  forgetTotals(): void {
    this.reported = undefined
    this.hasHistory = true
    this.outputTurn = undefined
    this.guessedTurn = undefined
  }
}

/** The types of items that are not output of the model. */
const inputTypes: ReadonlySet<unknown> = new Set(["userMessage", "hookPrompt", "contextCompaction"])

/** The types of items that the server starts before the model completes them. */
const streamedTypes: ReadonlySet<unknown> = new Set(["agentMessage", "reasoning", "plan"])

export class ThreadUsages {
  private readonly threads = new Map<string, ThreadUsage>()

  /** Follows the threads of a server, until the scope closes. */
  listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.addNotificationHandler("thread/tokenUsage/updated", (params) => {
        this.thread(params.threadId).update(params.turnId, params.tokenUsage)
      }),
      server.addNotificationHandler("item/started", (params) => {
        const { item: { type }, threadId, turnId } = params
        if (!inputTypes.has(type) && !streamedTypes.has(type)) this.thread(threadId).addOutput(turnId)
      }),
      server.addNotificationHandler("item/completed", (params) => {
        const { item: { type }, threadId, turnId } = params
        if (!inputTypes.has(type)) this.thread(threadId).addOutput(turnId)
      }),
      server.addNotificationHandler("turn/plan/updated", (params) => {
        this.thread(params.threadId).addOutput(params.turnId)
      }),
      server.addNotificationHandler("error", (params) => {
        if (!params.willRetry) return
        this.threads.get(params.threadId)?.retry(params.turnId)
      }),
      server.addNotificationHandler("thread/reverted", (params) => {
        this.forgetTotals(params.threadId)
      }),
      server.addNotificationHandler("thread/closed", (params) => {
        this.threads.delete(params.threadId)
      }),
      server.addNotificationHandler("thread/deleted", (params) => {
        this.threads.delete(params.threadId)
      })
    ], { discard: true })
  }

  get(threadId: string, turnId: string): Usage.TurnUsage | undefined {
    return this.threads.get(threadId)?.get(turnId)
  }

  /** Notes that the totals of a thread may change without a report: its history changed, or other clients may use it. */
  forgetTotals(threadId: string): void {
    this.thread(threadId).forgetTotals()
  }

  private thread(threadId: string): ThreadUsage {
    const known = this.threads.get(threadId)
    if (known !== undefined) return known
    const thread = new ThreadUsage()
    this.threads.set(threadId, thread)
    return thread
  }
}
