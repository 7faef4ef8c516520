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
import type { ReadBatch } from "../../jsonrpc/readBatch.ts"
import type { SubAgents } from "./subAgents.ts"

/** Maximum number of turns of a thread whose usage is kept, until the response to `turn/start` names one of them. */
const maxTurns = 4

const kinds = Struct.keys(Usage.zero)

/** Called within the read batch with the tokens that a turn has used. They are negative if it was given too many before. */
export type OnUsed = (threadId: string, turnId: string, used: Usage.Tokens, batch: ReadBatch) => void

/** Returns the counts of a report. Older servers omit the tokens that were written to the cache. */
export const toTokens = ({ cacheWriteInputTokens = 0, ...tokens }: Protocol.TokenUsageBreakdown): Usage.Tokens => ({
  inputTokens: tokens.inputTokens,
  cachedInputTokens: tokens.cachedInputTokens,
  cacheWriteInputTokens,
  outputTokens: tokens.outputTokens,
  reasoningOutputTokens: tokens.reasoningOutputTokens,
  totalTokens: tokens.totalTokens
})

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

  get total(): Usage.Tokens {
    return this.thread
  }

  /** Returns the usage of a turn, with that of its sub-agents. */
  get(turnId: string, subAgents: Usage.Tokens | undefined): Usage.TurnUsage | undefined {
    const usage = this.turns.get(turnId)
    if (subAgents === undefined) return usage
    const { lastRequest, thread } = this
    return { ...(usage ?? { turn: Usage.zero, thread, lastRequest, contextWindow: undefined }), subAgents }
  }

  /** Updates the usage of a turn, and returns what was added. A turn that is not running may be that of a replayed report. */
  update(
    turnId: string,
    { last, modelContextWindow, total }: Protocol.ThreadTokenUsage,
    isRunning: boolean
  ): Usage.Tokens {
    const request = toTokens(last)
    const used = this.usedSince(turnId, request, toTokens(total), isRunning)
    if (isCounted(request)) this.lastRequest = request
    const turn = this.turns.get(turnId)?.turn ?? Usage.zero
    this.turns.delete(turnId)
    this.turns.set(turnId, {
      turn: Usage.add(turn, used),
      subAgents: Usage.zero,
      thread: this.thread,
      lastRequest: this.lastRequest,
      contextWindow: modelContextWindow ?? undefined
    })
    for (const oldest of this.turns.keys()) {
      if (this.turns.size <= maxTurns) break
      this.turns.delete(oldest)
    }
    return used
  }

  /** Updates the totals, and returns the usage since the last report. */
  private usedSince(
    turnId: string,
    request: Usage.Tokens,
    total: Usage.Tokens,
    isRunning: boolean
  ): Usage.Tokens {
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
        : Usage.Equivalence(request, total) || this.outputTurn === turnId
      if (!isRequest || !isCounted(request)) return Usage.zero
      this.guessedTurn = turnId
      return request
    }
    const difference = Usage.subtract(total, reported)
    if (Usage.Equivalence(total, reported)) return Usage.zero
    // A killed server may have lost a part of the history, or all of it.
    const isFirst = Usage.Equivalence(reported, Usage.zero)
    if (isNegative(difference) || !isFirst && Usage.Equivalence(request, total)) {
      this.thread = total
      return isRunning ? request : Usage.zero
    }
    this.thread = Usage.add(this.thread, difference)
    return difference
  }

  /** Notes that the model completed an output. */
  addOutput(turnId: string): void {
    if (this.reported === undefined) this.outputTurn = turnId
  }

  /** Removes the guess for a turn, and returns it: the server retries a stream, so its last report was a repetition. */
  retry(turnId: string): Usage.Tokens {
    const usage = this.turns.get(turnId)
    const isGuessed = this.guessedTurn === turnId && usage !== undefined
    this.guessedTurn = undefined
    if (!isGuessed) return Usage.zero
    this.turns.set(turnId, { ...usage, turn: Usage.zero })
    return usage.turn
  }

  /** Notes that the thread has no history. */
  start(): void {
    this.reported ??= Usage.zero
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
  /** The running turn of each thread. */
  private readonly running = new Map<string, string>()
  /** What the sub-agents of each running turn have used. */
  private readonly subAgentUsages = new Map<string, Usage.Tokens>()
  private readonly subAgents: SubAgents
  /** Called with what each turn uses. */
  onUsed: OnUsed = () => {}

  constructor(subAgents: SubAgents) {
    this.subAgents = subAgents
  }

  /** Follows the threads of a server, until the scope closes. */
  listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.addNotificationHandler("thread/tokenUsage/updated", ({ threadId, tokenUsage, turnId }, batch) => {
        const isRunning = this.running.get(threadId) === turnId
        this.add(threadId, turnId, this.thread(threadId).update(turnId, tokenUsage, isRunning), batch)
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
      server.addNotificationHandler("error", ({ threadId, turnId, willRetry }, batch) => {
        const thread = this.threads.get(threadId)
        if (!willRetry || thread === undefined) return
        this.add(threadId, turnId, Usage.subtract(Usage.zero, thread.retry(turnId)), batch)
      }),
      server.addNotificationHandler("turn/started", ({ threadId, turn }) => {
        this.running.set(threadId, turn.id)
      }),
      server.addNotificationHandler("turn/completed", ({ threadId, turn }, batch) => {
        // Also a review, which starts with another turn id than it ends with.
        this.running.delete(threadId)
        // The state of the turn reads it within the batch.
        batch.afterBatch(() => this.subAgentUsages.delete(turn.id))
      }),
      server.addNotificationHandler("thread/reverted", (params) => {
        this.forgetTotals(params.threadId)
      }),
      server.addNotificationHandler("thread/closed", (params) => {
        this.threads.delete(params.threadId)
      }),
      server.addNotificationHandler("thread/deleted", (params) => {
        this.threads.delete(params.threadId)
      }),
      server.addRestartHandler((_, isShared) =>
        Effect.sync(() => {
          // A shared server continues them.
          if (!isShared) this.running.clear()
        })
      )
    ], { discard: true })
  }

  get(threadId: string, turnId: string): Usage.TurnUsage | undefined {
    const subAgents = this.subAgentUsages.get(turnId)
    const thread = this.threads.get(threadId) ?? (subAgents === undefined ? undefined : new ThreadUsage())
    return thread?.get(turnId, subAgents)
  }

  /** Notes the end of a turn, whose `turn/completed` may be lost with a connection. */
  end(threadId: string, turnId: string): void {
    if (this.running.get(threadId) === turnId) this.running.delete(threadId)
  }

  /** Returns the totals of a thread, as far as the server has reported them. */
  getThread(threadId: string): Usage.Tokens {
    return this.threads.get(threadId)?.total ?? Usage.zero
  }

  /** Notes that a thread is new, so its totals begin at zero. Its first report may be lost with a connection. */
  start(threadId: string): void {
    this.thread(threadId).start()
  }

  /** Notes that the totals of a thread may change without a report: its history changed, or other clients may use it. */
  forgetTotals(threadId: string): void {
    this.thread(threadId).forgetTotals()
  }

  private add(threadId: string, turnId: string, used: Usage.Tokens, batch: ReadBatch): void {
    if (Usage.Equivalence(used, Usage.zero)) return
    const root = this.subAgents.getRoot(turnId)
    if (root !== undefined && this.isRunning(root)) {
      this.subAgentUsages.set(root, Usage.add(this.subAgentUsages.get(root) ?? Usage.zero, used))
    }
    this.onUsed(threadId, turnId, used, batch)
  }

  private isRunning(turnId: string): boolean {
    for (const id of this.running.values()) {
      if (id === turnId) return true
    }
    return false
  }

  private thread(threadId: string): ThreadUsage {
    const known = this.threads.get(threadId)
    if (known !== undefined) return known
    const thread = new ThreadUsage()
    this.threads.set(threadId, thread)
    return thread
  }
}
