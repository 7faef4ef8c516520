/** Who answers the server's requests: the handlers of turns, of threads, and of the program. */
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Approvals from "../../../Approvals.ts"
import type { AppServer } from "../../../AppServer.ts"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../../AppServerError.ts"
import type * as Questions from "../../../Questions.ts"
import { approverIssue, toPolicy } from "../../approvals/toPolicy.ts"
import { getOwn, getThreadId, getTurnId } from "../../connection/codec.ts"
import { handlerContext, provideHandlerContext } from "../../handlers/handlerContext.ts"
import type { NoExcessProperties } from "../../handlers/handlerServices.ts"
import type { IncomingRequest } from "../../jsonrpc/messages.ts"
import { assertOptions, func, type Kinds, optionIssue } from "../../options.ts"
import type { OpenThreads } from "../threads/openThread.ts"
import type { TurnEntry, TurnRegistry } from "../turns/turnRegistry.ts"
import type { ThreadTools } from "./threadTools.ts"

/** Handlers that need nothing any more. */
export interface Handlers {
  readonly approvals?: Approvals.Policy | undefined
  readonly questions?: Questions.Handlers | undefined
}

/**
 * The options that say who answers, as a thread and a turn take them. An alias, because editors find no documentation of a generic
 * interface within the two alternatives of `ApprovalOptions`.
 */
export type HandlerOptions<A, Q> = {
  /** Who decides about what this thread or turn asks for; see `Approvals`. */
  readonly approvals?: A & NoExcessProperties<A, Approvals.Handlers> | undefined
  /** Who answers what this thread or turn asks; see `Questions`. */
  readonly questions?: Q & NoExcessProperties<Q, Questions.Handlers> | undefined
}

/** Handlers that are called in a way of our own. */
const mapHandlers = <R>(
  { approvals, questions }: {
    readonly approvals?: Approvals.Policy<R> | undefined
    readonly questions?: Questions.Handlers<R> | undefined
  },
  call: <A>(handler: () => Effect.Effect<A, unknown, R>) => Effect.Effect<A, unknown>
): Handlers => {
  const { elicitation, userInput } = questions ?? {}
  return {
    approvals: approvals && ((request) => call(() => approvals(request))),
    questions: questions && {
      userInput: userInput && ((request) => call(() => userInput(request))),
      elicitation: elicitation && ((request) => call(() => elicitation(request)))
    }
  }
}

/** Handlers of questions, with the services that they need. */
export const provideQuestions = <R>(
  questions: Questions.Handlers<R>,
  services: Context.Context<R>
): Questions.Handlers => mapHandlers({ questions }, (handler) => provideHandlerContext(services, handler)).questions!

const questionKinds: Kinds<Questions.Handlers> = { userInput: func, elicitation: func }

/** Throws for what are no handlers of questions: they would never be asked. */
export const assertQuestions = (questions: unknown): void =>
  assertOptions("questions", questionKinds, questions ?? null)

/** Handlers as options have them, with the services that they need. */
export const provideHandlers = (
  { approvals, questions }: HandlerOptions<Approvals.Approver, Questions.Handlers>,
  method: string
): Effect.Effect<Handlers, AppServerError> =>
  Effect.flatMap(
    handlerContext,
    (services) => {
      for (
        const [name, issue] of [
          ["approvals", approverIssue(approvals)],
          ["questions", optionIssue(questionKinds, questions)]
        ] as const
      ) {
        if (issue !== undefined) {
          return Effect.fail(appServerError(new InvalidRequest({ method, description: `\`${name}\`: ${issue}` })))
        }
      }
      return Effect.succeed(mapHandlers(
        { approvals: approvals && toPolicy(approvals), questions },
        (handler) => provideHandlerContext(services, handler)
      ))
    }
  )

export const isEmpty = ({ approvals, questions }: Handlers): boolean =>
  approvals === undefined && questions === undefined

/** Whoever has given handlers to a thread or a turn is not to be overruled by others when these cannot be asked. */
const declineAll: Handlers = {
  approvals: () => Effect.succeedSome("decline"),
  questions: {
    userInput: () => Effect.fail(new Error("whoever was to answer is not there any more")),
    elicitation: () => Effect.succeed({ action: "decline", content: null })
  }
}

const declineAllSource: HandlerSource = { by: "turn", handlers: declineAll }

/** The handlers of a turn, from before it is started until it has ended. */
export class TurnHandlers implements HandlerSource {
  readonly by = "turn"
  handlers: Handlers
  /** The turn, once the server has named it. */
  turnId: string | undefined
  hasEnded = false
  /** Done when whoever asks need not wait for the name: it is known, or it makes no difference any more. */
  readonly resolved = Deferred.makeUnsafe<void>()
  private readonly remove: (turn: TurnHandlers) => void

  constructor(handlers: Handlers, remove: (turn: TurnHandlers) => void) {
    this.handlers = handlers
    this.remove = remove
  }

  setTurnId(turnId: string): void {
    this.turnId = turnId
    this.markResolved()
  }

  /** The program has let go of the turn, which may not have ended, and may never be named. */
  detach(): void {
    this.handlers = declineAll
    this.markResolved()
  }

  /** The turn has ended, or was never started. */
  end(): void {
    this.hasEnded = true
    this.remove(this)
    this.markResolved()
  }

  private markResolved(): void {
    Deferred.doneUnsafe(this.resolved, Effect.void)
  }
}

/** What a thread was opened with. */
export interface ThreadHandlers {
  readonly handlers: Handlers
  readonly tools: ThreadTools | undefined
}

export interface HandlerSource {
  readonly by: "turn" | "thread" | "layer"
  readonly handlers: Handlers
}

export class HandlerRegistry {
  private readonly server: AppServer["Service"]
  private readonly open: TurnRegistry
  private readonly globalHandlers: Array<Handlers> = []
  private readonly opened: OpenThreads
  private readonly threads = new Map<string, ThreadHandlers>()
  private readonly turns = new Map<string, Set<TurnHandlers>>()
  /** The threads of which a turn with handlers of its own has ended. What works for that may go on. */
  private readonly ended = new Set<string>()
  /** The threads of sub-agents, with the thread that has started each. */
  private readonly parents = new Map<string, string>()
  /** The first turn in the chain of work that led to a turn, for those that work for another. */
  private readonly roots = new Map<string, string>()

  constructor(server: AppServer["Service"], open: TurnRegistry, opened: OpenThreads) {
    this.server = server
    this.open = open
    this.opened = opened
  }

  /** Hears of the turns and threads of the server, for as long as the scope lives. */
  readonly listen: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.all([
      this.server.observe("turn/started", (event) => {
        if (event.method !== "turn/started") return
        const { id, rootTurnId } = event.params.turn
        if (Predicate.isString(rootTurnId) && rootTurnId !== id) this.roots.set(id, rootTurnId)
      }),
      this.server.observe("turn/completed", (event) => {
        if (event.method === "turn/completed") this.roots.delete(event.params.turn.id)
      }),
      this.server.observe("thread/started", (event) => {
        if (event.method !== "thread/started") return
        const { id, parentThreadId } = event.params.thread
        if (Predicate.isString(parentThreadId)) this.parents.set(id, parentThreadId)
      }),
      this.server.observe("thread/closed", (event) => {
        if (event.method === "thread/closed") this.parents.delete(event.params.threadId)
      }),
      this.server.observe("thread/deleted", (event) => {
        if (event.method === "thread/deleted") this.removeThread(event.params.threadId)
      }),
      this.server.onRestart(() =>
        Effect.sync(() => {
          this.roots.clear()
          this.parents.clear()
        })
      ),
      this.server.onAnswered((request) => {
        for (const { id, state } of this.open.entries.values()) {
          if (state.now !== undefined && this.worksFor(request, state.threadId, id)) state.lastEventAt = state.now()
        }
      })
    ], { discard: true })
  )

  /** Whether a turn, or a sub-agent that works for it, waits for the response of a handler. */
  isAsking({ id, state: { threadId } }: TurnEntry): boolean {
    for (const request of this.server.asked()) {
      if (this.worksFor(request, threadId, id)) return true
    }
    return false
  }

  /** Whether a request comes from a turn, or from a sub-agent that works for it. */
  private worksFor({ params }: IncomingRequest, threadId: string, turnId: string): boolean {
    const asking = getTurnId(params)
    if (getThreadId(params) === threadId) return asking === undefined || asking === turnId
    const root = asking === undefined ? undefined : this.roots.get(asking)
    // A sub-agent that does not say for which turn it works may work for any of the thread that it was started by.
    return root === undefined ? this.parents.get(getThreadId(params) ?? "") === threadId : root === turnId
  }

  /** Adds handlers for all threads, until the scope closes. */
  add(handlers: Handlers): Effect.Effect<void, never, Scope.Scope> {
    return Effect.suspend(() => {
      const closed = Deferred.makeUnsafe<never, Error>()
      // What a handler uses may be closed with the scope, so one that is still at work then does not decide.
      const open = mapHandlers(handlers, (handler) => Effect.raceFirst(Deferred.await(closed), Effect.suspend(handler)))
      return Effect.acquireRelease(
        Effect.sync(() => void this.globalHandlers.push(open)),
        () =>
          Effect.sync(() => {
            this.globalHandlers.splice(this.globalHandlers.indexOf(open), 1)
            Deferred.doneUnsafe(closed, Effect.fail(new Error("the scope of the handler was closed")))
          })
      )
    })
  }

  getThread(threadId: string): ThreadHandlers | undefined {
    return this.threads.get(threadId)
  }

  /** Says what a thread has from now on, until it is closed. */
  setThread(threadId: string, thread: ThreadHandlers): void {
    if (isEmpty(thread.handlers) && thread.tools === undefined) this.threads.delete(threadId)
    else this.threads.set(threadId, thread)
  }

  /** Forgets the handlers and tools of a thread. */
  removeThread(threadId: string): void {
    this.threads.delete(threadId)
    this.ended.delete(threadId)
    this.parents.delete(threadId)
  }

  /** Adds the handlers of a turn that is about to be started. */
  addTurn(threadId: string, handlers: Handlers): TurnHandlers {
    const turns = this.turns.get(threadId) ?? new Set()
    const entry = new TurnHandlers(handlers, (turn) => {
      turns.delete(turn)
      if (turns.size === 0 && this.turns.get(threadId) === turns) this.turns.delete(threadId)
      if (turn.turnId !== undefined) this.ended.add(threadId)
    })
    this.turns.set(threadId, turns.add(entry))
    return entry
  }

  /** The tools of a thread, or of the one that it works for. */
  getTools(threadId: string): Effect.Effect<ThreadTools | undefined> {
    const own = this.threads.get(threadId)?.tools
    return own !== undefined || this.opened.has(threadId) ? Effect.succeed(own) : Effect.flatMap(
      this.getParent(threadId),
      (parent) => Predicate.isString(parent) ? this.getTools(parent) : Effect.succeed(undefined)
    )
  }

  /**
   * Who is to be asked, in order. A sub-agent has a thread of its own, which nobody has given handlers; it is answered by
   * those of the thread, and the turn, that it works for.
   */
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
      found.push(...yield* this.resolveTurns(id, threadId, turnId))
      const thread = this.threads.get(id)
      if (thread !== undefined) found.push({ by: "thread", handlers: thread.handlers })
      const isSubAgent: boolean = !this.opened.has(id) &&
        (this.threads.size > 0 || this.turns.size > 0 || this.ended.size > 0)
      const parent: string | null | undefined = isSubAgent ? yield* this.getParent(id) : null
      if (parent === undefined) return [...found, { ...declineAllSource, by: "thread" }]
      id = parent
    }
    return [
      ...found,
      ...[...this.globalHandlers].reverse().map((handlers): HandlerSource => ({ by: "layer", handlers }))
    ]
  })

  /** The turns of a thread that are to be asked: the one that asks, or the one that a sub-agent works for. */
  private readonly resolveTurns = Effect.fnUntraced(function*(
    this: HandlerRegistry,
    id: string,
    asking: string,
    turnId: string | undefined
  ): Effect.fn.Return<ReadonlyArray<HandlerSource>> {
    const running = [...this.turns.get(id) ?? []].reverse()
    const isOwn = id === asking
    const wanted = isOwn || turnId === undefined ? turnId : this.roots.get(turnId)
    // A sub-agent that does not say for which turn it works may work for any.
    if (!isOwn && wanted === undefined) return running.length > 0 || this.ended.has(id) ? [declineAllSource] : []
    const found: Array<HandlerSource> = []
    for (const turn of running) {
      // A turn may ask before the answer to `turn/start` has named it, and one without a name may be the one that asks.
      yield* Deferred.await(turn.resolved)
      const isAsked = wanted === undefined || turn.turnId === undefined || turn.turnId === wanted
      if (!turn.hasEnded && isAsked) found.push(turn)
    }
    if (isOwn || wanted === undefined || found.length > 0 || this.open.isRunning(id, wanted)) return found
    // The turn that it works for has ended. It is not remembered whether it was one of those with handlers.
    return this.ended.has(id) ? [declineAllSource] : []
  })

  /** The thread that a thread works for: `null` if that is none, `undefined` if it cannot be told. */
  private getParent(threadId: string): Effect.Effect<string | null | undefined> {
    return this.server.requestRaw("thread/read", { threadId }, { timeout: "5 seconds" }).pipe(
      Effect.map((answer) => {
        const parent = getOwn(getOwn(answer, "thread"), "parentThreadId")
        return Predicate.isString(parent) ? parent : null
      }),
      Effect.catch((error) =>
        Effect.as(
          Effect.logWarning(`Cannot tell for whom thread ${threadId} works: ${error.message}`),
          undefined
        )
      )
    )
  }
}
