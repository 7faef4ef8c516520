/** Who answers the server's requests: the handlers of turns, of threads, and of the program. */
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type * as Approvals from "../../Approvals.ts"
import type { AppServer } from "../../AppServer.ts"
import type * as Questions from "../../Questions.ts"
import { toPolicy } from "../approvals/toPolicy.ts"
import { field } from "../connection/codec.ts"
import { capturedServices, withServices } from "../connection/services.ts"
import type { OpenThread } from "./openThread.ts"
import type { ThreadTools } from "./threadTools.ts"

/** Handlers that need nothing any more. */
export interface Handlers {
  readonly approvals?: Approvals.Policy | undefined
  readonly questions?: Questions.Handlers | undefined
}

/** The options that say who answers, as a thread and a turn take them. */
export interface HandlerOptions<A, Q> {
  /** Who decides about what this thread or turn asks for; see `Approvals`. */
  readonly approvals?: A | undefined
  /** Who answers what this thread or turn asks; see `Questions`. */
  readonly questions?: Q | undefined
}

/** Handlers of questions, with the services that they need. */
export const providedQuestions = <R>(
  handlers: Questions.Handlers<R>,
  services: Context.Context<R>
): Questions.Handlers => {
  const { elicitation, userInput } = handlers
  return {
    userInput: userInput && ((request) => withServices(services, () => userInput(request))),
    elicitation: elicitation && ((request) => withServices(services, () => elicitation(request)))
  }
}

/** Handlers as options have them, with the services that they need. */
export const provided = (
  { approvals, questions }: HandlerOptions<Approvals.Approver, Questions.Handlers>
): Effect.Effect<Handlers> =>
  Effect.map(capturedServices, (services) => {
    const policy = approvals && toPolicy(approvals)
    return {
      approvals: policy && ((request) => withServices(services, () => policy(request))),
      questions: questions && providedQuestions(questions, services)
    }
  })

export const isEmpty = ({ approvals, questions }: Handlers): boolean =>
  approvals === undefined && questions === undefined

interface TurnHandlers {
  /** The turn, once the server has named it. */
  readonly turnId: Deferred.Deferred<string | undefined>
  readonly handlers: Handlers
}

/** What a thread was opened with. */
export interface ThreadHandlers {
  readonly handlers: Handlers
  readonly tools: ThreadTools | undefined
}

export interface Answerer {
  readonly by: "turn" | "thread" | "layer"
  readonly handlers: Handlers
}

export class HandlerRegistry {
  private readonly server: AppServer["Service"]
  private readonly everywhere: Array<Handlers> = []
  /** The threads that the program has opened itself, and still holds. */
  private readonly opened = new Map<string, WeakRef<OpenThread>>()
  private readonly dropped = new FinalizationRegistry<string>((threadId) => {
    if (this.opened.get(threadId)?.deref() === undefined) this.opened.delete(threadId)
  })
  private readonly threads = new Map<string, ThreadHandlers>()
  private readonly turns = new Map<string, Set<TurnHandlers>>()

  constructor(server: AppServer["Service"]) {
    this.server = server
  }

  /** Adds handlers for all threads, until the scope closes. */
  add(handlers: Handlers): Effect.Effect<void, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => void this.everywhere.push(handlers)),
      () => Effect.sync(() => void this.everywhere.splice(this.everywhere.indexOf(handlers), 1))
    )
  }

  ofThread(threadId: string): ThreadHandlers | undefined {
    return this.threads.get(threadId)
  }

  /** Says what a thread has from now on, until it is closed. */
  setThread(threadId: string, thread: ThreadHandlers): void {
    if (isEmpty(thread.handlers) && thread.tools === undefined) this.threads.delete(threadId)
    else this.threads.set(threadId, thread)
  }

  /** The program holds a thread. */
  hold(thread: OpenThread): void {
    this.opened.set(thread.id, new WeakRef(thread))
    this.dropped.register(thread, thread.id)
  }

  removeThread(threadId: string): void {
    this.opened.delete(threadId)
    this.threads.delete(threadId)
  }

  /** Adds the handlers of a turn that is about to be started, until the scope closes, and returns what names the turn. */
  addTurn(
    threadId: string,
    handlers: Handlers
  ): Effect.Effect<(turnId: string | undefined) => Effect.Effect<void>, never, Scope.Scope> {
    const entry: TurnHandlers = { turnId: Deferred.makeUnsafe(), handlers }
    const name = (turnId: string | undefined) => Effect.asVoid(Deferred.succeed(entry.turnId, turnId))
    return Effect.as(
      Effect.acquireRelease(
        Effect.sync(() => {
          const turns = this.turns.get(threadId) ?? new Set()
          this.turns.set(threadId, turns.add(entry))
        }),
        () =>
          Effect.suspend(() => {
            const turns = this.turns.get(threadId)
            turns?.delete(entry)
            if (turns?.size === 0) this.turns.delete(threadId)
            return name(undefined)
          })
      ),
      name
    )
  }

  /**
   * Who is to be asked, in order. A sub-agent has a thread of its own, which nobody has given handlers; it is answered by
   * those of the thread, and the turn, that it works for.
   */
  readonly answerers = Effect.fnUntraced(function*(
    this: HandlerRegistry,
    threadId: string,
    turnId: string | undefined
  ): Effect.fn.Return<ReadonlyArray<Answerer>> {
    const found: Array<Answerer> = []
    const seen = new Set<string>()
    let id: string | undefined = threadId
    while (id !== undefined && !seen.has(id)) {
      seen.add(id)
      for (const turn of [...this.turns.get(id) ?? []].reverse()) {
        // A turn may ask before the answer to `turn/start` has named it.
        const named = yield* Deferred.await(turn.turnId)
        const isAsking = id !== threadId || turnId === undefined || named === turnId
        if (named !== undefined && isAsking) found.push({ by: "turn", handlers: turn.handlers })
      }
      const thread = this.threads.get(id)
      if (thread !== undefined) found.push({ by: "thread", handlers: thread.handlers })
      const isSubAgent: boolean = !this.opened.has(id) && (this.threads.size > 0 || this.turns.size > 0)
      id = isSubAgent ? yield* this.parentOf(id) : undefined
    }
    return [
      ...found,
      ...[...this.everywhere].reverse().map((handlers): Answerer => ({ by: "layer", handlers }))
    ]
  })

  private parentOf(threadId: string): Effect.Effect<string | undefined> {
    return this.server.requestRaw("thread/read", { threadId }, { timeout: "5 seconds" }).pipe(
      Effect.map((answer) => {
        const parent = field(field(answer, "thread"), "parentThreadId")
        return Predicate.isString(parent) ? parent : undefined
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
