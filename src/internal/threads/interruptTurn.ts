/** Makes interruption real: of a fiber here, of the turn on the server. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { AppServer } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type { TurnState } from "./turnState.ts"

/** How long an abandoned turn is waited for, so that nobody waits forever for a server that does not answer. */
export const settleTimeout = Duration.seconds(5)

/**
 * Asks the server to interrupt a turn. A turn that has ended needs no interrupt.
 *
 * Between the answer to `turn/start` and `turn/started` the server does not know the turn by its id yet, but it accepts
 * an empty id for whatever the thread is doing, and that can only be this turn.
 */
export const requestInterrupt = (
  server: AppServer["Service"],
  state: TurnState,
  turnId: string
): Effect.Effect<void, AppServerError> =>
  Effect.suspend(() =>
    state.outcome !== undefined
      ? Effect.void
      : server.request("turn/interrupt", { threadId: state.threadId, turnId: state.started ? turnId : "" }).pipe(
        Effect.asVoid,
        // Refused because the turn ended while the request was on its way.
        Effect.catch((error) => state.outcome !== undefined ? Effect.void : Effect.fail(error))
      )
  )

/**
 * Waits for an effect to end, but not longer than the time limit, and tells whether it has. It has a fiber of its own: in
 * the finalizer of an interrupted fiber nothing that is to be timed out can run.
 */
export const bounded = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<boolean> =>
  effect.pipe(
    Effect.exit,
    Effect.timeoutOption(settleTimeout),
    Effect.map(Option.isSome),
    Effect.interruptible,
    Effect.forkDetach,
    Effect.flatMap(Fiber.join)
  )

/** Interrupts a turn that nobody wants any more, and waits for the server to have ended it. */
export const interruptAndSettle = (
  server: AppServer["Service"],
  state: TurnState,
  turnId: string
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (state.outcome !== undefined) return Effect.void
    const settled = Effect.andThen(
      Effect.ignore(requestInterrupt(server, state, turnId)),
      Deferred.await(state.completion)
    )
    return Effect.flatMap(bounded(settled), (isSettled) =>
      isSettled
        ? Effect.void
        : Effect.logWarning(
          `Turn ${turnId} of thread ${state.threadId} was interrupted, but the server has not ended it within ${
            Duration.format(settleTimeout)
          }`
        ))
  })
