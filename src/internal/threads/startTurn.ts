/** Starts turns and ends them: the one way from a thread to a running turn. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { AppServer } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { Step } from "../connection/jsonRpcPeer.ts"
import { requestTurn } from "./answers.ts"
import { bounded, interruptAndSettle, requestInterrupt } from "./interruptTurn.ts"
import { TurnState } from "./turnState.ts"

/** A turn that is held by one handle or more. */
interface HeldTurn {
  readonly id: string
  readonly state: TurnState
  readonly stopListening: () => void
  handles: number
}

/** What a connection's program holds and what it is about to hold. */
interface OpenTurns {
  readonly held: Map<string, HeldTurn>
  /** The `turn/start` requests that are not answered yet, by thread. */
  readonly starting: Map<string, Set<Fiber.Fiber<unknown, unknown>>>
}

const openTurns = new WeakMap<AppServer["Service"], OpenTurns>()

const openTurnsOf = (server: AppServer["Service"]): OpenTurns => {
  let open = openTurns.get(server)
  if (open === undefined) {
    open = { held: new Map(), starting: new Map() }
    openTurns.set(server, open)
  }
  return open
}

/** For steps taken outside the reader, which may wake fibers at once. */
const now: Step = { defer: (action) => action(), report: () => {} }

/** The server lets `turn/start` join a turn that runs, so a turn that is answered with may be held already. */
const claim = (open: OpenTurns, turnId: string, state: TurnState, stopListening: () => void): HeldTurn => {
  const held = open.held.get(turnId)
  if (held !== undefined) {
    stopListening()
    held.handles++
    return held
  }
  state.bind(turnId, now)
  const turn: HeldTurn = { id: turnId, state, stopListening, handles: 1 }
  open.held.set(turnId, turn)
  return turn
}

/** Gives up one handle. When the last is gone and the turn still runs, it is interrupted. */
const release = (server: AppServer["Service"], open: OpenTurns, turn: HeldTurn): Effect.Effect<void> =>
  Effect.gen(function*() {
    turn.handles--
    const starting = open.starting.get(turn.state.threadId)
    // A start that is on its way may be about to join this turn.
    if (turn.handles === 0 && turn.state.outcome === undefined && starting !== undefined) {
      yield* bounded(Fiber.awaitAll(starting))
    }
    if (turn.handles > 0 || open.held.get(turn.id) !== turn) return
    open.held.delete(turn.id)
    yield* interruptAndSettle(server, turn.state, turn.id)
    turn.stopListening()
  })

/**
 * Sends `turn/start` and holds the turn for as long as the scope lives.
 *
 * The request has a fiber of its own. If ours is interrupted while it waits, the answer is still awaited, because only it
 * names the turn, and the turn is then interrupted.
 */
export const startTurn = (
  server: AppServer["Service"],
  params: Protocol.TurnStartParams
): Effect.Effect<{ readonly state: TurnState; readonly turnId: string }, AppServerError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const { threadId } = params
      const open = openTurnsOf(server)
      const state = new TurnState(threadId)
      const stopListening = server.listen(threadId, state)
      const request = yield* requestTurn(server, "turn/start", params).pipe(
        Effect.map(({ turn }) => claim(open, turn.id, state, stopListening)),
        Effect.interruptible,
        Effect.forkDetach
      )
      const starting = open.starting.get(threadId) ?? new Set()
      open.starting.set(threadId, starting.add(request))
      request.addObserver(() => {
        starting.delete(request)
        if (starting.size === 0 && open.starting.get(threadId) === starting) open.starting.delete(threadId)
      })

      const started = yield* Effect.exit(restore(Fiber.join(request)))
      if (Exit.isSuccess(started)) {
        const turn = started.value
        yield* Effect.addFinalizer(() => release(server, open, turn))
        return { state: turn.state, turnId: turn.id }
      }

      yield* bounded(Effect.flatMap(Fiber.join(request), (turn) => release(server, open, turn)))
      yield* Fiber.interrupt(request)
      stopListening()
      if (isUnanswered(started) && !isBusy(open, threadId)) {
        // The server may still act on it. Nobody would hear of that turn, so whatever the thread starts is interrupted.
        yield* Effect.forkDetach(Effect.ignore(requestInterrupt(server, state, "")))
      }
      return yield* Effect.failCause(started.cause)
    })
  )

const isUnanswered = (exit: Exit.Exit<unknown, AppServerError>): boolean =>
  Exit.isFailure(exit) &&
  exit.cause.reasons.some((reason) => reason._tag === "Fail" && reason.error.reason._tag === "RequestTimeout")

const isBusy = (open: OpenTurns, threadId: string): boolean =>
  [...open.held.values()].some(({ state }) => state.threadId === threadId && state.outcome === undefined)
