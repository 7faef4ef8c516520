/** Interrupts turns on the server, and waits for them to end, but not forever. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { AppServer } from "../../../AppServer.ts"
import type { AppServerError } from "../../../AppServerError.ts"
import type { TurnState } from "./turnState.ts"

/** How long a finalizer waits for the server to end an interrupted turn. */
export const interruptGracePeriod = Duration.seconds(5)

/**
 * Asks the server to interrupt a turn. A turn that has ended needs no interrupt.
 *
 * Between the response to `turn/start` and `turn/started` the server does not know the turn by its id yet, but it accepts
 * an empty id for the turn that the thread is running, and that can only be this turn.
 */
export const requestInterrupt = (
  server: AppServer["Service"],
  state: TurnState,
  turnId: string
): Effect.Effect<void, AppServerError> =>
  Effect.suspend(() =>
    state.exit !== undefined
      ? Effect.void
      : server.request("turn/interrupt", { threadId: state.threadId, turnId: state.started ? turnId : "" }).pipe(
        Effect.asVoid,
        // Refused because the turn ended while the request was on its way.
        Effect.catch((error) =>
          state.exit !== undefined || error.reason._tag === "TurnEnded" ? Effect.void : Effect.fail(error)
        )
      )
  )

/**
 * Waits for an effect to end, but not longer than the time limit, and returns whether it has. The effect has a fiber of its own,
 * because a timeout does not run in the finalizer of an interrupted fiber.
 */
export const awaitWithTimeout = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<boolean> =>
  effect.pipe(
    Effect.exit,
    Effect.timeoutOption(interruptGracePeriod),
    Effect.map(Option.isSome),
    Effect.interruptible,
    Effect.forkDetach,
    Effect.flatMap(Fiber.join)
  )

/** Interrupts a turn that no caller wants any more, and waits for it to end: on the server, or with its connection. */
export const interruptAndAwait = (
  server: AppServer["Service"],
  state: TurnState,
  turnId: string
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (state.exit !== undefined) return Effect.void
    const ended = Effect.exit(Deferred.await(state.exitDeferred))
    // The request waits for a connection while the server is restarted. The turn may have ended by then.
    const settled = Effect.raceFirst(
      ended,
      Effect.andThen(Effect.ignore(requestInterrupt(server, state, turnId)), ended)
    )
    return Effect.flatMap(awaitWithTimeout(settled), (isSettled) =>
      isSettled
        ? Effect.void
        : Effect.logWarning(
          `Turn ${turnId} of thread ${state.threadId} was interrupted, but the server has not ended it within ${
            Duration.format(interruptGracePeriod)
          }`
        ))
  })
