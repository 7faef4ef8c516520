/** Interrupts turns on the server and waits for them to end, within a grace period. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type { AppServerError } from "../../../AppServerError.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { TurnState } from "./turnState.ts"

/** Maximum time for which a finalizer waits for the server to end an interrupted turn. */
const interruptGracePeriod = Duration.seconds(5)

/**
 * Sends `turn/interrupt`, unless the turn has ended.
 *
 * Between the response to `turn/start` and `turn/started`, the server refuses the turn id. It accepts an empty id for the running turn of the
 * thread, which can only be this turn.
 */
export const requestInterrupt = (
  server: ServerConnection,
  state: TurnState,
  turnId: string
): Effect.Effect<void, AppServerError> =>
  Effect.suspend(() =>
    state.exit !== undefined
      ? Effect.void
      : server.request("turn/interrupt", {
        threadId: state.threadId,
        turnId: state.startedAs ?? (state.started ? turnId : "")
      }).pipe(
        Effect.asVoid,
        // The server refuses the request if the turn ended while it was in flight.
        Effect.catchIf(({ reason }) => state.exit !== undefined || reason._tag === "TurnEnded", () => Effect.void)
      )
  )

/**
 * Runs an effect for at most the grace period, and returns whether it has ended. It runs in a child fiber, because a timeout does not work in
 * the finalizer of an interrupted fiber.
 */
export const awaitWithTimeout = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<boolean> =>
  effect.pipe(
    Effect.exit,
    Effect.timeoutOption(interruptGracePeriod),
    Effect.map(Option.isSome),
    Effect.interruptible,
    Effect.forkChild,
    Effect.flatMap(Fiber.join)
  )

/** Interrupts a turn and waits for its end, on the server or with its connection. */
export const interruptAndAwait = (
  server: ServerConnection,
  state: TurnState,
  turnId: string
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (state.exit !== undefined) return Effect.void
    const ended = Effect.exit(Deferred.await(state.exitDeferred))
    // While the server restarts, the request waits for a connection, and the turn may end meanwhile.
    const settled = Effect.raceFirst(
      ended,
      Effect.andThen(Effect.ignore(requestInterrupt(server, state, turnId)), ended)
    )
    return Effect.flatMap(awaitWithTimeout(settled), (isSettled) =>
      isSettled
        ? Effect.void
        : Effect.logWarning(
          `Interrupted turn \`${turnId}\` of thread \`${state.threadId}\`, but the server did not end it within ${
            Duration.format(interruptGracePeriod)
          }`
        ))
  })
