/** Starts turns and ends them: the one way from a thread to a running turn. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { AppServer } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import { immediately } from "../connection/messages.ts"
import { requestTurn } from "./answers.ts"
import type { TurnHandlers } from "./handlers.ts"
import { bounded, interruptAndSettle } from "./interruptTurn.ts"
import type { OpenThread } from "./openThread.ts"
import { TurnState } from "./turnState.ts"
import type { Limit } from "./turnTimeouts.ts"

/** A turn that is held by one handle or more. */
export interface HeldTurn {
  readonly id: string
  readonly key: string
  readonly thread: OpenThread
  readonly state: TurnState
  handles: number
}

const keyOf = (threadId: string, turnId: string): string => JSON.stringify([threadId, turnId])

/** The turns that a program holds, and those it is about to hold. */
export class OpenTurns {
  readonly held = new Map<string, HeldTurn>()
  /** What waits for compactions, whose turns have no handle. */
  readonly compacting = new Set<TurnState>()
  /** How often the server was restarted. */
  restarts = 0
  /** Told of each turn that turns out to be the program's. */
  readonly onClaim = new Set<(turnId: string) => void>()
  /** The `turn/start` requests that are not answered yet, by thread. */
  private readonly starting = new Map<string, Set<Fiber.Fiber<unknown, unknown>>>()

  /** The server lets `turn/start` join a turn that runs, so a turn that is answered with may be held already. */
  claim(turnId: string, thread: OpenThread, state: TurnState): HeldTurn {
    for (const told of this.onClaim) told(turnId)
    const key = keyOf(state.threadId, turnId)
    const held = this.held.get(key)
    if (held !== undefined && !held.state.isForsaken) {
      state.stop()
      held.handles++
      return held
    }
    state.bind(turnId, immediately)
    const turn: HeldTurn = { id: turnId, key, thread, state, handles: 1 }
    this.held.set(key, turn)
    return turn
  }

  addStarting(threadId: string, request: Fiber.Fiber<unknown, unknown>): void {
    const starting = this.starting.get(threadId) ?? new Set()
    this.starting.set(threadId, starting.add(request))
    request.addObserver(() => {
      starting.delete(request)
      if (starting.size === 0 && this.starting.get(threadId) === starting) this.starting.delete(threadId)
    })
  }

  startingOf(threadId: string): ReadonlySet<Fiber.Fiber<unknown, unknown>> {
    return this.starting.get(threadId) ?? new Set()
  }

  /** Whether a turn is one that the program holds, and has not ended. */
  isRunning(threadId: string, turnId: string): boolean {
    const turn = this.held.get(keyOf(threadId, turnId))
    return turn !== undefined && turn.state.outcome === undefined
  }

  /** Whether the thread is busy with a turn that the program holds, or is about to. */
  isBusy(threadId: string): boolean {
    return this.startingOf(threadId).size > 0 ||
      [...this.held.values()].some(({ state }) => state.threadId === threadId && state.outcome === undefined)
  }
}

/** Gives up one handle. When the last is gone and the turn still runs, it is interrupted. */
const release = (server: AppServer["Service"], open: OpenTurns, turn: HeldTurn): Effect.Effect<void> =>
  Effect.gen(function*() {
    turn.handles--
    const starting = open.startingOf(turn.state.threadId)
    // A start that is on its way may be about to join this turn.
    if (turn.handles === 0 && turn.state.outcome === undefined && starting.size > 0) {
      yield* bounded(Fiber.awaitAll(starting))
    }
    if (turn.handles > 0 || open.held.get(turn.key) !== turn) return
    open.held.delete(turn.key)
    yield* interruptAndSettle(server, turn.state, turn.id)
  })

/** The server has answered `turn/start`, but in a way that does not name the turn. */
const mayHaveStarted = (cause: Cause.Cause<AppServerError>): boolean =>
  Option.exists(Cause.findErrorOption(cause), ({ reason }) => reason._tag === "DecodeFailed")

/**
 * Sends `turn/start` and holds the turn for as long as the scope lives.
 *
 * The request has a fiber of its own, which outlives ours: if ours gives up waiting, interrupted or out of time, the answer
 * is still awaited, because only it names the turn, and the turn is then interrupted, however late that is.
 */
export const startTurn = (
  server: AppServer["Service"],
  open: OpenTurns,
  thread: OpenThread,
  params: Protocol.TurnStartParams,
  limit: Limit,
  addHandlers?: () => TurnHandlers
): Effect.Effect<HeldTurn, AppServerError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const { threadId } = params
      const state = new TurnState(server, threadId)
      const handlers = addHandlers?.()
      let isSent = false
      if (handlers !== undefined) yield* Effect.addFinalizer(() => Effect.sync(() => handlers.retire()))
      const request = yield* thread.request(server, open, (server, { onSend }) =>
        requestTurn(server, "turn/start", params, {
          timeout: Duration.infinity,
          onSend: () => {
            isSent = true
            onSend?.()
          }
        })).pipe(
          Effect.map(({ turn }) => {
            thread.change(params)
            handlers?.name(turn.id)
            const held = open.claim(turn.id, thread, state)
            held.state.whenFinished(() =>
              handlers?.end()
            )
            return held
          }),
          Effect.interruptible,
          Effect.forkDetach
        )
      open.addStarting(threadId, request)
      // An observer, because a fiber that is interrupted before it has begun runs no finalizer.
      request.addObserver((exit) => {
        if (Exit.isFailure(exit) && !mayHaveStarted(exit.cause)) {
          handlers?.end()
        }
      })

      const started = yield* Effect.exit(restore(limit(Fiber.join(request))))
      if (Exit.isSuccess(started)) {
        const turn = started.value
        yield* Effect.addFinalizer(() =>
          release(server, open, turn)
        )
        return turn
      }

      yield* Effect.sync(() => {
        if (!isSent) request.interruptUnsafe()
        state.forsake()
      })
      const abandoned = yield* Fiber.await(request).pipe(
        Effect.flatMap((exit) =>
          Exit.isSuccess(exit) ? release(server, open, exit.value) : Effect.sync(() => state.stop())
        ),
        Effect.interruptible,
        Effect.forkDetach
      )
      if (Exit.hasInterrupts(started)) yield* bounded(Fiber.await(abandoned))
      return yield* Effect.failCause(started.cause)
    })
  )
