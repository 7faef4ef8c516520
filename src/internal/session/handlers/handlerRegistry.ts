/**
 * Resolves which handlers respond to a request of the server, in this order:
 *
 * 1. the option of the turn
 * 2. the option of the thread
 * 3. the context in which the turn was started
 * 4. the context in which the thread was opened
 * 5. the context in which the `Codex` layer of the thread was built
 *
 * A sub-agent has a thread of its own, for which the program has no handlers. It has those of the turn and the thread that it works for.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { getThreadId, getTurnId } from "../../connection/codec.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn } from "../../getOwn.ts"
import type { IncomingRequest } from "../../jsonrpc/messages.ts"
import type { SubAgents } from "../threads/subAgents.ts"
import type { TurnEntry, TurnRegistry } from "../turns/turnRegistry.ts"
import { declineAll, type Handlers, isEmpty, isSame } from "./handlers.ts"
import { closedThread, hasSameHandlers, type ThreadHandlers } from "./threadHandlers.ts"
import type { ThreadTools } from "./threadTools.ts"
import { toDeclining, TurnHandlers, type TurnSource } from "./turnHandlers.ts"

export interface HandlerSource {
  readonly by: "turn" | "thread" | "layer"
  readonly handlers: Handlers
}

const mergeSources = (a: TurnSource, b: TurnSource): TurnSource => ({
  options: isEmpty(a.options) ? b.options : a.options,
  context: isEmpty(a.context) ? b.context : a.context,
  thread: undefined
})

const toSources = (by: HandlerSource["by"], all: ReadonlyArray<Handlers>): ReadonlyArray<HandlerSource> =>
  all.filter((handlers) => !isEmpty(handlers)).map((handlers) => ({ by, handlers }))

/**
 * Returns the sources of a thread and its turns, in the order of their precedence. A turn has the handlers of the handle that started it.
 * The parent of a sub-agent's thread comes before the layer of that thread.
 */
const levelSources = (
  turns: ReadonlyArray<TurnSource>,
  opened: ThreadHandlers | undefined
): ReadonlyArray<HandlerSource> => {
  const ofTurns = turns.flatMap(({ thread }) => thread ?? [])
  const threads = ofTurns.length > 0 ? ofTurns : opened === undefined ? [] : [opened]
  return [
    ...toSources("turn", turns.map(({ options }) => options)),
    ...toSources("thread", threads.map(({ options }) => options)),
    ...toSources("layer", [
      ...turns.map(({ context }) => context),
      ...threads.map(({ context }) => context),
      ...threads.flatMap(({ layer, parentId }) => parentId === undefined ? [layer] : [])
    ])
  ]
}

export class HandlerRegistry {
  private readonly server: ServerConnection
  private readonly turnRegistry: TurnRegistry
  private readonly subAgents: SubAgents
  /** The handlers of the contexts in which `Codex` layers were built. */
  private readonly layers: Array<Handlers> = []
  /** The threads that this program has opened. */
  private readonly threads = new Map<string, ThreadHandlers>()
  /** The threads whose `thread/start` has no response yet. */
  private readonly starting = new Set<ThreadHandlers>()
  private readonly turns = new Map<string, Set<TurnHandlers>>()
  /**
   * The handlers in place of those of ended turns, by thread. They decline where the turn had handlers of its own: a sub-agent that worked for
   * the turn may still run.
   */
  private readonly ended = new Map<string, TurnSource>()
  constructor(server: ServerConnection, turnRegistry: TurnRegistry, subAgents: SubAgents) {
    this.server = server
    this.turnRegistry = turnRegistry
    this.subAgents = subAgents
  }

  /** Follows the turns and threads of the server, until the scope closes. */
  readonly listen: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.all([
      this.server.addNotificationHandler("thread/deleted", ({ threadId }) => this.closeThread(threadId)),
      this.server.addSettledHandler((request) => {
        for (const { id, state } of this.turnRegistry.entries.values()) {
          if (state.now !== undefined && this.worksFor(request, state.threadId, id)) state.lastEventAt = state.now()
        }
      })
    ], { discard: true })
  )

  /** Adds the handlers of the context in which a `Codex` layer was built, until the scope closes. */
  addLayer(handlers: Handlers): Effect.Effect<void, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => this.layers.push(handlers)),
      () => Effect.sync(() => this.layers.splice(this.layers.indexOf(handlers), 1))
    )
  }

  getThread(threadId: string): ThreadHandlers | undefined {
    const thread = this.threads.get(threadId)
    return thread === closedThread ? undefined : thread
  }

  /**
   * Sets the handlers and tools of a thread, until it is closed. `undefined` if this program has not opened it.
   *
   * Sub-agents of earlier turns may still run, and are declined if their thread has other handlers now.
   */
  setThread(threadId: string, thread: ThreadHandlers | undefined): void {
    const before = this.threads.get(threadId)
    if (thread === undefined) this.threads.delete(threadId)
    else this.threads.set(threadId, thread)
    if (before !== undefined && thread !== undefined && !hasSameHandlers(before, thread)) this.endAll(threadId)
  }

  /** Replaces the handlers and tools of a thread that was closed or deleted. Its sub-agents may still run, and are declined. */
  closeThread(threadId: string): void {
    if (this.threads.has(threadId)) {
      this.threads.set(threadId, closedThread)
      this.endAll(threadId)
    }
    this.subAgents.forget(threadId)
  }

  private endAll(threadId: string): void {
    this.addEnded(threadId, { options: declineAll, context: {}, thread: undefined })
  }

  private addEnded(threadId: string, source: TurnSource): void {
    const ended = this.ended.get(threadId)
    this.ended.set(threadId, ended === undefined ? { ...source, thread: undefined } : mergeSources(ended, source))
  }

  /** Runs an effect that starts a thread with handlers. The server may send a question before the response names the thread. */
  whileStarting<A, E, R>(thread: ThreadHandlers, start: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      this.starting.add(thread)
      return Effect.ensuring(start, Effect.sync(() => this.starting.delete(thread)))
    })
  }

  /** Adds the handlers of a turn that is about to start. `thread` are those of the handle that starts it. */
  addTurn(
    threadId: string,
    { context, options, thread }: TurnSource
  ): TurnHandlers {
    const inherited = thread === undefined ? {} : isEmpty(thread.context) ? thread.layer : thread.context
    const isInherited = isEmpty(context) || isSame(context, inherited)
    const source = { options, context: isInherited ? {} : context, thread }
    const turns = this.turns.get(threadId) ?? new Set()
    const entry = new TurnHandlers(source, (turn) => {
      turns.delete(turn)
      if (turns.size === 0 && this.turns.get(threadId) === turns) this.turns.delete(threadId)
      if (turn.turnId !== undefined && turn.hasOwn) this.addEnded(threadId, toDeclining(source))
    })
    this.turns.set(threadId, turns.add(entry))
    return entry
  }

  /** Whether a turn, or a sub-agent that works for it, waits for a handler. */
  hasPendingServerRequest({ id, state: { threadId } }: TurnEntry): boolean {
    return this.server.pendingServerRequests().some((request) => this.worksFor(request, threadId, id))
  }

  /** Returns the tools of a thread, or of the thread that it works for. */
  getTools(threadId: string): Effect.Effect<ThreadTools | undefined> {
    const thread = this.threads.get(threadId)
    const isOwn = thread !== undefined && (thread.tools !== undefined || thread.parentId === undefined)
    return isOwn ? Effect.succeed(thread.tools) : Effect.flatMap(
      thread?.parentId === undefined ? this.getParent(threadId) : Effect.succeed(thread.parentId),
      (parent) => Predicate.isString(parent) ? this.getTools(parent) : Effect.succeed(undefined)
    )
  }

  /**
   * Resolves the handlers for a question that names no turn. An MCP server can send a question before the response to `thread/start` names
   * its thread. The handlers are those of that thread. If several threads are being started, the question is declined.
   */
  resolveStarting(threadId: string): Effect.Effect<ReadonlyArray<HandlerSource>> {
    const [thread] = this.starting
    const isKnown = this.threads.has(threadId) || this.subAgents.getParent(threadId) !== undefined
    if (isKnown || thread === undefined) return this.resolve(threadId, undefined)
    return Effect.succeed(
      this.starting.size === 1 ? levelSources([], thread) : [{ by: "thread", handlers: declineAll }]
    )
  }

  /** Resolves the handlers that respond to a request, in the order of their precedence. */
  readonly resolve = Effect.fnUntraced(function*(
    this: HandlerRegistry,
    threadId: string,
    turnId: string | undefined
  ): Effect.fn.Return<ReadonlyArray<HandlerSource>> {
    const found: Array<HandlerSource> = []
    const seen = new Set<string>()
    let id: string | null = threadId
    while (id !== null && !seen.has(id)) {
      seen.add(id)
      const thread = this.threads.get(id)
      found.push(...levelSources(yield* this.resolveTurns(id, threadId, turnId), thread))
      if (thread !== undefined && thread.parentId === undefined) return found
      const isUnused = this.threads.size === 0 && this.turns.size === 0 && this.ended.size === 0
      const parent: string | null | undefined = thread?.parentId ?? (isUnused ? null : yield* this.getParent(id))
      if (parent === undefined) return [...found, { by: "thread", handlers: declineAll }]
      id = parent
    }
    return [...found, ...toSources("layer", this.layers.toReversed())]
  })

  /** Resolves the turns of a thread whose handlers respond: the turn of the request, or the turn that a sub-agent works for. */
  private readonly resolveTurns = Effect.fnUntraced(function*(
    this: HandlerRegistry,
    id: string,
    requestThreadId: string,
    turnId: string | undefined
  ): Effect.fn.Return<ReadonlyArray<TurnSource>> {
    const running = [...this.turns.get(id) ?? []].reverse()
    const isOwn = id === requestThreadId
    const expectedTurnId = isOwn || turnId === undefined ? turnId : this.subAgents.getRoot(turnId)
    // A sub-agent without a root turn may work for any turn of the thread.
    if (!isOwn && expectedTurnId === undefined) {
      return [...running.map(({ source }) => toDeclining(source)), ...this.endedSources(id)]
    }
    // A `turn/start` without a response can only join a turn that is named already.
    const named = running.filter(({ turnId }) => turnId !== undefined && turnId === expectedTurnId)
    if (named.length > 0) return named.map(({ source }) => source)
    const found: Array<TurnSource> = []
    for (const turn of running) {
      // A request may arrive before the response to `turn/start` names its turn. If the turn has the handlers of its thread, the turn id makes
      // no difference, and the server may send the response only after the request is settled.
      if (turn.hasOwn || !this.hasHandlersOfThread(id, turn)) yield* Deferred.await(turn.resolved)
      const matches = expectedTurnId === undefined || turn.turnId === undefined || turn.turnId === expectedTurnId
      if (!turn.hasEnded && matches) found.push(turn.source)
    }
    if (isOwn || expectedTurnId === undefined || found.length > 0 || this.turnRegistry.isRunning(id, expectedTurnId)) {
      return found
    }
    // The turn that the sub-agent works for has ended, and may have had handlers of its own.
    return this.endedSources(id)
  })

  private hasHandlersOfThread(threadId: string, { source: { thread } }: TurnHandlers): boolean {
    const opened = this.threads.get(threadId)
    return thread !== undefined && opened !== undefined && hasSameHandlers(thread, opened)
  }

  private endedSources(threadId: string): ReadonlyArray<TurnSource> {
    const ended = this.ended.get(threadId)
    return ended === undefined ? [] : [ended]
  }

  /** Whether a request comes from a turn, or from a sub-agent that works for it. */
  private worksFor({ params }: IncomingRequest, threadId: string, turnId: string): boolean {
    const requestTurnId = getTurnId(params)
    if (getThreadId(params) === threadId) return requestTurnId === undefined || requestTurnId === turnId
    const root = requestTurnId === undefined ? undefined : this.subAgents.getRoot(requestTurnId)
    // A sub-agent without a root turn may work for any turn of its parent thread.
    return root === undefined ? this.subAgents.getParent(getThreadId(params) ?? "") === threadId : root === turnId
  }

  /** Reads the thread that a thread works for: `null` if there is none, `undefined` if the server does not respond with it. */
  private getParent(threadId: string): Effect.Effect<string | null | undefined> {
    return this.server.requestRaw("thread/read", { threadId }, { timeout: "5 seconds" }).pipe(
      Effect.map((response) => {
        const parent = getOwn(getOwn(response, "thread"), "parentThreadId")
        return Predicate.isString(parent) ? parent : null
      }),
      Effect.catch((error) =>
        Effect.as(
          Effect.logWarning(`Cannot read which thread started thread \`${threadId}\`: ${error.message}`),
          undefined
        )
      )
    )
  }
}
