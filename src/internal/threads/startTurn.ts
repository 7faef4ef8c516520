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

interface OpenTurn {
  readonly state: TurnState
  readonly close: () => void
  handles: number
}

/** The turns of a connection that a program holds a handle of. */
export type OpenTurns = Map<string, OpenTurn>

/** For steps taken outside the reader, which may wake fibers at once. */
const now: Step = { defer: (action) => action(), report: () => {} }

/** Listens to a thread, before a request that makes a turn is sent. */
export const listen = (server: AppServer["Service"], threadId: string, options: { readonly keepLog: boolean }) => {
  const state = new TurnState(threadId, options)
  return { state, close: server.listen(threadId, state) }
}

/**
 * Holds a turn for as long as the scope lives. The server lets `turn/start` join a turn that runs, so several handles may
 * hold one turn; when the last is gone and the turn still runs, it is interrupted.
 */
const hold = Effect.fnUntraced(function*(
  server: AppServer["Service"],
  open: OpenTurns,
  listening: ReturnType<typeof listen>,
  turnId: string
): Effect.fn.Return<TurnState, never, Scope.Scope> {
  let turn = open.get(turnId)
  if (turn === undefined) {
    listening.state.bind(turnId, now)
    turn = { ...listening, handles: 0 }
    open.set(turnId, turn)
  } else {
    listening.close()
  }
  const held = turn
  held.handles++
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      held.handles--
      if (held.handles > 0) return Effect.void
      open.delete(turnId)
      return Effect.ensuring(interruptAndSettle(server, held.state, turnId), Effect.sync(held.close))
    })
  )
  return held.state
})

/**
 * Sends `turn/start` and holds the turn.
 *
 * The request has a fiber of its own. If ours is interrupted while it waits, the answer is still awaited, because only it
 * names the turn, and the turn is then interrupted.
 */
export const startTurn = (
  server: AppServer["Service"],
  open: OpenTurns,
  params: Protocol.TurnStartParams,
  options: { readonly keepLog: boolean }
): Effect.Effect<{ readonly state: TurnState; readonly turnId: string }, AppServerError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const listening = listen(server, params.threadId, options)
      const request = yield* requestTurn(server, "turn/start", params).pipe(Effect.interruptible, Effect.forkDetach)
      const started = yield* Effect.exit(restore(Fiber.join(request)))
      if (Exit.isSuccess(started)) {
        const turnId = started.value.turn.id
        return { state: yield* hold(server, open, listening, turnId), turnId }
      }
      yield* bounded(
        Fiber.join(request).pipe(
          Effect.flatMap(({ turn }) => Effect.scoped(hold(server, open, listening, turn.id)))
        )
      )
      yield* Fiber.interrupt(request)
      listening.close()
      if (isUnanswered(started) && !isBusy(open, params.threadId)) {
        // The server may still act on it. Nobody would hear of that turn, so whatever the thread starts is interrupted.
        yield* Effect.forkDetach(Effect.ignore(requestInterrupt(server, listening.state, "")))
      }
      return yield* Effect.failCause(started.cause)
    })
  )

const isUnanswered = (exit: Exit.Exit<unknown, AppServerError>): boolean =>
  Exit.isFailure(exit) &&
  exit.cause.reasons.some((reason) => reason._tag === "Fail" && reason.error.reason._tag === "RequestTimeout")

const isBusy = (open: OpenTurns, threadId: string): boolean =>
  [...open.values()].some(({ state }) => state.threadId === threadId && state.outcome === undefined)
