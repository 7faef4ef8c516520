/** Ends turns that take too long, or of which nothing is heard for too long. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AppServer } from "../../AppServer.ts"
import { make as appServerError, TurnTimeout } from "../../AppServerError.ts"
import { interruptAndSettle } from "./interruptTurn.ts"
import type { TurnState } from "./turnState.ts"

/** What a handle of a turn stands for. */
export interface RunningTurn {
  readonly server: AppServer["Service"]
  readonly state: TurnState
  readonly turnId: string
}

const expire = (
  { server, state, turnId }: RunningTurn,
  kind: TurnTimeout["kind"],
  duration: Duration.Duration
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (state.outcome !== undefined) return Effect.void
    const timeoutMillis = Duration.toMillis(duration)
    state.expire(appServerError(new TurnTimeout({ threadId: state.threadId, turnId, kind, timeoutMillis })))
    return Effect.andThen(interruptAndSettle(server, state, turnId), Effect.sync(() => state.abandon()))
  })

/** Interrupts a turn that has not ended by then. */
export const startDeadline = (turn: RunningTurn, input: Duration.Input): Effect.Effect<void, never, Scope.Scope> => {
  const duration = Duration.fromInputUnsafe(input)
  return expire(turn, "deadline", duration).pipe(Effect.delay(duration), Effect.forkScoped, Effect.asVoid)
}

/** Interrupts a turn of which nothing is heard for so long. While it waits for a handler of the program, it is not silent. */
export const startIdleTimeout = (turn: RunningTurn, input: Duration.Input): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const duration = Duration.fromInputUnsafe(input)
    const millis = Duration.toMillis(duration)
    const clock = yield* Clock.Clock
    const { server, state } = turn
    state.now = () => clock.currentTimeMillisUnsafe()
    state.lastEventAt = state.now()
    const watch: Effect.Effect<void> = Effect.suspend(() => {
      if (state.outcome !== undefined) return Effect.void
      const now = clock.currentTimeMillisUnsafe()
      if (server.isAsking(state.threadId)) state.lastEventAt = now
      const left = state.lastEventAt + millis - now
      return left > 0 ? Effect.andThen(Effect.sleep(left), watch) : expire(turn, "idle", duration)
    })
    yield* Effect.forkScoped(watch)
  })
