/** The turns for which this program has handles, the turns that it is about to start, and the turns that its threads run. */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import type { OpenThread } from "../threads/openThread.ts"
import type { SubAgents } from "../threads/subAgents.ts"
import { ThreadUsages } from "../threads/threadUsage.ts"
import type { TurnState } from "./turnState.ts"

/** A turn with handles. Without a handle it stays until it has ended on the server. */
export interface TurnEntry {
  readonly id: string
  readonly key: string
  /** `undefined` for the thread of a sub-agent, which this program has not opened. */
  readonly thread: OpenThread | undefined
  readonly state: TurnState
  /** Whether this program started it. A turn that a goal or another client started continues without this program. */
  isOurs: boolean
  /** Whether its background terminals continue when it is interrupted. */
  readonly keepBackgroundTerminals: boolean
  refCount: number
}

/** A turn or a compaction that the program waits for. */
export interface AwaitedTurn {
  readonly state: TurnState
  /** Returns the turn id, or `undefined` before it is known. */
  readonly id: () => string | undefined
  readonly isAwaited: () => boolean
}

export const toKey = (threadId: string, turnId: string): string => JSON.stringify([threadId, turnId])

/** A `turn/start` request that has no response yet. */
interface PendingStart {
  readonly thread: OpenThread
  readonly state: TurnState
  readonly keepBackgroundTerminals: boolean
  /** The turn that the thread was running when the request was sent, according to its events. */
  readonly activeBefore: string | undefined
}

export class TurnRegistry {
  /** The token usage of the threads and their turns. */
  readonly usages: ThreadUsages
  readonly entries = new Map<string, TurnEntry>()
  /** The turns that this program only watches. */
  readonly watched = new Set<TurnEntry>()
  /** The states of compactions, whose turns have no handle. */
  readonly compacting = new Set<TurnState>()
  /** The turns whose `turn/start` has no response yet. */
  readonly unassigned = new Set<TurnState>()
  /** Called with each turn and compaction that the program waits for. */
  onAwait: (awaited: AwaitedTurn) => void = () => {}
  /** Called with the id of each turn that the program acquires. */
  readonly onAcquire = new Set<(turnId: string) => void>()
  /** Called with each running turn whose start the program did not receive. */
  readonly onFound = new Set<(threadId: string, turnId: string) => void>()
  /** The `turn/start` requests that have no response yet, by thread. */
  private readonly starts = new Map<string, Set<Fiber.Fiber<unknown, unknown>>>()
  /** The running turn of each thread, whether this program started it or not. */
  private readonly active = new Map<string, string>()

  constructor(subAgents: SubAgents) {
    this.usages = new ThreadUsages(subAgents)
  }

  /** Follows which turns the threads of a server run, until the scope closes. */
  listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      this.usages.listen(server),
      server.addNotificationHandler("turn/started", (params) => {
        this.active.set(params.threadId, params.turn.id)
      }),
      server.addNotificationHandler("turn/completed", (params) => {
        this.end(params.threadId, params.turn.id)
      }),
      server.addNotificationHandler("thread/status/changed", (params) => {
        if (params.status.type !== "active") this.active.delete(params.threadId)
      })
    ], { discard: true })
  }

  /** Returns the running turn of a thread according to its events, whether this program started it or not. */
  getActive(threadId: string): string | undefined {
    return this.active.get(threadId)
  }

  /** Returns the ids of the threads that were running a turn, and notes that none runs one: the server was restarted. */
  takeActiveThreads(): ReadonlyArray<string> {
    const threadIds = [...this.active.keys()]
    this.active.clear()
    return threadIds
  }

  /** Notes the turn that a thread was running when it was opened. */
  setActive(threadId: string, turnId: string): void {
    this.active.set(threadId, turnId)
    for (const callback of this.onFound) callback(threadId, turnId)
  }

  /**
   * Acquires the turn in the response to `turn/start`. The server may have joined the request to a running turn, which may have an entry, or
   * which another client may have started.
   */
  acquire(turnId: string, { activeBefore, keepBackgroundTerminals, state, thread }: PendingStart): TurnEntry {
    for (const callback of this.onAcquire) callback(turnId)
    const key = toKey(state.threadId, turnId)
    const existing = this.entries.get(key)
    if (existing !== undefined && !existing.state.isReleased) {
      state.unsubscribeThread()
      existing.refCount++
      return existing
    }
    state.setTurnId(turnId, syncBatch)
    const isOurs = activeBefore !== turnId
    const turn: TurnEntry = { id: turnId, key, thread, state, isOurs, keepBackgroundTerminals, refCount: 1 }
    this.entries.set(key, turn)
    state.onComplete(() => this.end(state.threadId, turnId))
    this.onAwait({ state, id: () => turnId, isAwaited: () => this.isCurrent(turn) })
    return turn
  }

  private end(threadId: string, turnId: string): void {
    this.usages.end(threadId, turnId)
    if (this.active.get(threadId) === turnId) this.active.delete(threadId)
  }

  /** Whether an entry is current. A request that joins a released turn replaces its entry. */
  isCurrent(turn: TurnEntry): boolean {
    return this.entries.get(turn.key) === turn
  }

  /** Removes a turn that has ended, or that no caller waits for. */
  remove(turn: TurnEntry): void {
    if (this.isCurrent(turn)) this.entries.delete(turn.key)
  }

  /** Tracks the fiber of a `turn/start` request until it ends. */
  trackStart(threadId: string, request: Fiber.Fiber<unknown, unknown>): void {
    const starting = this.starts.get(threadId) ?? new Set()
    this.starts.set(threadId, starting.add(request))
    request.addObserver(() => {
      starting.delete(request)
      if (starting.size === 0 && this.starts.get(threadId) === starting) this.starts.delete(threadId)
    })
  }

  /** Returns the fibers of the `turn/start` requests that have no response yet. */
  pendingStarts(threadId: string): ReadonlySet<Fiber.Fiber<unknown, unknown>> {
    return this.starts.get(threadId) ?? new Set()
  }

  /** Returns the entries of a thread whose turns have not ended. */
  getRunning(threadId: string): ReadonlyArray<TurnEntry> {
    return [...this.entries.values()].filter(({ state }) => state.threadId === threadId && state.exit === undefined)
  }

  /** Whether a turn has an entry and has not ended. */
  isRunning(threadId: string, turnId: string): boolean {
    const turn = this.entries.get(toKey(threadId, turnId))
    return turn !== undefined && turn.state.exit === undefined
  }

  /** Whether this program interrupts a turn: with an error, or because no caller waits for it. */
  isEnding(threadId: string, turnId: string): boolean {
    const turn = this.entries.get(toKey(threadId, turnId))
    return turn !== undefined && (turn.state.isExpired || (turn.isOurs && turn.refCount === 0))
  }

  /** Whether this program starts a turn or a compaction on a thread, whose turn id is not known yet. */
  isStarting(threadId: string): boolean {
    return this.pendingStarts(threadId).size > 0 ||
      [...this.compacting].some((state) => state.threadId === threadId && state.id === undefined)
  }

  /** Whether this program has started a turn or a compaction. */
  isOurs(threadId: string, turnId: string): boolean {
    return this.entries.get(toKey(threadId, turnId))?.isOurs === true ||
      [...this.compacting].some((state) => state.threadId === threadId && state.id === turnId)
  }

  /** Whether a thread has a running turn with an entry, or a `turn/start` without a response. */
  isBusy(threadId: string): boolean {
    return this.pendingStarts(threadId).size > 0 || this.getRunning(threadId).length > 0
  }
}
