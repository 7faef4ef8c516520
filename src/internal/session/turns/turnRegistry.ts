/** The turns that a program holds, those that it is about to start, and those that its threads run for others. */
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { ThreadUsages } from "../threads/threadUsage.ts"
import type { TurnState } from "./turnState.ts"

/** A turn that is held by one handle or more. With no handle left it stays until it is settled. */
export interface TurnEntry {
  readonly id: string
  readonly key: string
  readonly thread: OpenThread
  readonly state: TurnState
  /** Whether this program has started it. One that a goal or another client has started goes on without this program. */
  isOurs: boolean
  /** Whether its background terminals live on when it is interrupted. */
  readonly keepBackgroundTerminals: boolean
  refCount: number
}

/** A turn, or a compaction, whose end the program waits for. */
export interface AwaitedTurn {
  readonly state: TurnState
  /** Its id, once that is known. */
  readonly id: () => string | undefined
  readonly isAwaited: () => boolean
}

const toKey = (threadId: string, turnId: string): string => JSON.stringify([threadId, turnId])

/** A `turn/start` request that has no response yet. */
export interface PendingStart {
  readonly thread: OpenThread
  readonly state: TurnState
  readonly keepBackgroundTerminals: boolean
  /** The turn that the thread was running when the request was made, as far as the events of the thread say. */
  readonly activeBefore: string | undefined
}

export class TurnRegistry {
  /** What the threads and their turns use. */
  readonly usages = new ThreadUsages()
  readonly entries = new Map<string, TurnEntry>()
  /** The states of compactions, whose turns have no handle. */
  readonly compacting = new Set<TurnState>()
  /** The turns whose `turn/start` has no response yet. */
  readonly unassigned = new Set<TurnState>()
  /** Called with each turn and compaction whose end is waited for. */
  onAwait: (awaited: AwaitedTurn) => void = () => {}
  /** Called with the id of each turn that turns out to be the program's. */
  readonly onAcquire = new Set<(turnId: string) => void>()
  /** The `turn/start` requests that have no response yet, by thread. */
  private readonly starts = new Map<string, Set<Fiber.Fiber<unknown, unknown>>>()
  /** The turn that each thread is running, started by this program or not. */
  private readonly active = new Map<string, string>()

  /** Follows which turns the threads of a server run, for as long as the scope lives. */
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
      }),
      server.addRestartHandler(() => Effect.sync(() => this.active.clear()))
    ], { discard: true })
  }

  /** The turn that a thread is running, started by this program or not, as far as the events of the thread say. */
  getActive(threadId: string): string | undefined {
    return this.active.get(threadId)
  }

  /** Notes the turn that a thread was running already when it was opened. */
  setActive(threadId: string, turnId: string): void {
    this.active.set(threadId, turnId)
  }

  /**
   * Takes a handle of the turn in the response to `turn/start`. The server lets a `turn/start` join a turn that is running, so the turn
   * may be held already, or may be one that this program has not started.
   */
  acquire(turnId: string, { activeBefore, keepBackgroundTerminals, state, thread }: PendingStart): TurnEntry {
    for (const claimed of this.onAcquire) claimed(turnId)
    const key = toKey(state.threadId, turnId)
    const held = this.entries.get(key)
    if (held !== undefined && !held.state.isReleased) {
      state.unsubscribeThread()
      held.refCount++
      return held
    }
    state.setTurnId(turnId, syncBatch)
    const isOurs = activeBefore !== turnId
    const turn: TurnEntry = { id: turnId, key, thread, state, isOurs, keepBackgroundTerminals, refCount: 1 }
    this.entries.set(key, turn)
    state.onComplete(() => this.end(state.threadId, turnId))
    this.onAwait({ state, id: () => turnId, isAwaited: () => this.isHeld(turn) })
    return turn
  }

  private end(threadId: string, turnId: string): void {
    if (this.active.get(threadId) === turnId) this.active.delete(threadId)
  }

  /** Whether a turn has not been replaced, which a request that has joined it does when no caller had waited for it. */
  isHeld(turn: TurnEntry): boolean {
    return this.entries.get(turn.key) === turn
  }

  /** Removes a turn that is settled, or that is not waited for any more. */
  remove(turn: TurnEntry): void {
    if (this.isHeld(turn)) this.entries.delete(turn.key)
  }

  trackStart(threadId: string, request: Fiber.Fiber<unknown, unknown>): void {
    const starting = this.starts.get(threadId) ?? new Set()
    this.starts.set(threadId, starting.add(request))
    request.addObserver(() => {
      starting.delete(request)
      if (starting.size === 0 && this.starts.get(threadId) === starting) this.starts.delete(threadId)
    })
  }

  pendingStarts(threadId: string): ReadonlySet<Fiber.Fiber<unknown, unknown>> {
    return this.starts.get(threadId) ?? new Set()
  }

  /** The turns of a thread that the program holds, and that have not ended. */
  getRunning(threadId: string): ReadonlyArray<TurnEntry> {
    return [...this.entries.values()].filter(({ state }) => state.threadId === threadId && state.exit === undefined)
  }

  /** Whether a turn is one that the program holds, and has not ended. */
  isRunning(threadId: string, turnId: string): boolean {
    const turn = this.entries.get(toKey(threadId, turnId))
    return turn !== undefined && turn.state.exit === undefined
  }

  /** Whether the thread is busy with a turn that the program holds, or is about to start. */
  isBusy(threadId: string): boolean {
    return this.pendingStarts(threadId).size > 0 || this.getRunning(threadId).length > 0
  }
}
