/**
 * Follows what threads and their turns use.
 *
 * The server reports the totals of the thread and, as `last`, its last model request. `last` cannot be summed up: the server repeats a
 * report before a stream is retried, before a compaction and when a request is interrupted, replays one when a thread is resumed, and
 * puts an estimate there after a compaction. What a turn has used is the difference of the totals, but for two cases. When the context
 * is full, the server replaces the totals by the size of the context window. And the totals before a turn are not known after a fork, a
 * revert or a close, where the server starts from the totals of another history and does not report them.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Protocol from "../../../Protocol.ts"
import * as Usage from "../../../Usage.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"

/** Maximum number of turns of a thread whose usage is kept: one is running, or its `turn/start` has no response yet. */
const maxTurns = 4

const kinds = Object.keys(Usage.zero) as ReadonlyArray<keyof Usage.Tokens>

const tokensOf = ({ cacheWriteInputTokens = 0, ...tokens }: Protocol.TokenUsageBreakdown): Usage.Tokens => ({
  inputTokens: tokens.inputTokens,
  cachedInputTokens: tokens.cachedInputTokens,
  cacheWriteInputTokens,
  outputTokens: tokens.outputTokens,
  reasoningOutputTokens: tokens.reasoningOutputTokens,
  totalTokens: tokens.totalTokens
})

const isEqual = (a: Usage.Tokens, b: Usage.Tokens): boolean => kinds.every((kind) => a[kind] === b[kind])

const isNegative = (tokens: Usage.Tokens): boolean => kinds.some((kind) => tokens[kind] < 0)

/** An estimate of the context, and the size of the context window, have a total only. */
const isCounted = ({ inputTokens, outputTokens }: Usage.Tokens): boolean => inputTokens > 0 || outputTokens > 0

class ThreadUsage {
  /** The totals that the server has reported last, if the next ones continue them. */
  private reported: Usage.Tokens | undefined
  /** Whether the thread has a history with totals that the server does not report. */
  private hasHistory = false
  private thread = Usage.zero
  private lastRequest = Usage.zero
  private readonly turns = new Map<string, Usage.TurnUsage>()
  /** The turn in which the model has completed an output since the totals became unknown. */
  private outputOf: string | undefined
  /** The turn whose only report was taken for a model request without knowing the totals before. */
  private guessedFor: string | undefined

  of(turnId: string): Usage.TurnUsage | undefined {
    return this.turns.get(turnId)
  }

  update(turnId: string, { last, modelContextWindow, total }: Protocol.ThreadTokenUsage): void {
    const request = tokensOf(last)
    const used = this.usedSince(turnId, request, tokensOf(total))
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

  /** What was used since the last report. Brings the totals up to date. */
  private usedSince(turnId: string, request: Usage.Tokens, total: Usage.Tokens): Usage.Tokens {
    const { reported } = this
    this.reported = total
    this.guessedFor = undefined
    // The context is full.
    if (!isCounted(total)) return Usage.zero
    if (reported === undefined) {
      this.thread = total
      // Before the model has completed an output, the server repeats the last request of the history.
      const isRequest = this.hasHistory ? this.outputOf === turnId : isEqual(request, total) || this.outputOf === turnId
      if (!isRequest || !isCounted(request)) return Usage.zero
      this.guessedFor = turnId
      return request
    }
    const difference = Usage.subtract(total, reported)
    if (isEqual(total, reported)) return Usage.zero
    // The server has lost a part of the history, or all of it, when it was killed.
    if (isNegative(difference) || isEqual(request, total)) {
      this.thread = total
      return request
    }
    this.thread = Usage.add(this.thread, difference)
    return difference
  }

  /** Notes that the model has completed an output. */
  addOutput(turnId: string): void {
    if (this.reported === undefined) this.outputOf = turnId
  }

  /** The server retries a stream, so that its last report was a repetition. */
  retry(turnId: string): void {
    const usage = this.turns.get(turnId)
    if (this.guessedFor === turnId && usage !== undefined) this.turns.set(turnId, { ...usage, turn: Usage.zero })
    this.guessedFor = undefined
  }

  /** The next totals do not continue these. */
  forgetTotals(): void {
    this.reported = undefined
    this.hasHistory = true
    this.outputOf = undefined
    this.guessedFor = undefined
  }
}

/** Items that are no output of the model. */
const isInput: ReadonlySet<unknown> = new Set(["userMessage", "hookPrompt", "contextCompaction"])

/** Items that the server starts before the model has completed them. */
const isStreamed: ReadonlySet<unknown> = new Set(["agentMessage", "reasoning", "plan"])

export class ThreadUsages {
  private readonly threads = new Map<string, ThreadUsage>()

  /** Follows the threads of a server, for as long as the scope lives. */
  listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.addNotificationHandler("thread/tokenUsage/updated", (params) => {
        this.thread(params.threadId).update(params.turnId, params.tokenUsage)
      }),
      server.addNotificationHandler("item/started", (params) => {
        const { item: { type }, threadId, turnId } = params
        if (!isInput.has(type) && !isStreamed.has(type)) this.thread(threadId).addOutput(turnId)
      }),
      server.addNotificationHandler("item/completed", (params) => {
        const { item: { type }, threadId, turnId } = params
        if (!isInput.has(type)) this.thread(threadId).addOutput(turnId)
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

  of(threadId: string, turnId: string): Usage.TurnUsage | undefined {
    return this.threads.get(threadId)?.of(turnId)
  }

  /** The totals of a thread may change without a report: its history has changed, or other clients may use it. */
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
