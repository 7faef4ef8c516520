/** Ends turns that take too long, or of which nothing is heard for too long. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AppServer } from "../../AppServer.ts"
import { type AppServerError, make as appServerError, RequestTimeout, TurnTimeout } from "../../AppServerError.ts"
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

/** Has an effect fail that is not done by a certain time. */
export type Limit = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | AppServerError, R>

/** The time limit, counted from now, of a request or of what must be done before it can be sent. */
const limitOf = (millis: number, reason: () => RequestTimeout | TurnTimeout): Effect.Effect<Limit> =>
  Effect.map(Clock.Clock, (clock) => {
    const end = clock.currentTimeMillisUnsafe() + millis
    return (effect) =>
      Effect.suspend(() =>
        Effect.timeoutOrElse(effect, {
          duration: end - clock.currentTimeMillisUnsafe(),
          orElse: () => Effect.fail(appServerError(reason()))
        })
      )
  })

export const requestLimit = (server: AppServer["Service"], method: string): Effect.Effect<Limit> => {
  const timeoutMillis = Duration.toMillis(server.requestTimeout)
  return limitOf(timeoutMillis, () => new RequestTimeout({ method, timeoutMillis }))
}

/** The time limit of the start of a turn, which has no name yet: that of the request, or of the turn if that is shorter. */
export const startLimit = (
  server: AppServer["Service"],
  threadId: string,
  timeouts: { readonly [Kind in TurnTimeout["kind"]]: Duration.Input | undefined }
): Effect.Effect<Limit> => {
  let timeoutMillis = Duration.toMillis(server.requestTimeout)
  let shortest: TurnTimeout["kind"] | undefined
  for (const kind of ["deadline", "idle"] as const) {
    const timeout = timeouts[kind]
    const millis = timeout === undefined ? Infinity : Duration.toMillis(timeout)
    if (millis >= timeoutMillis) continue
    timeoutMillis = millis
    shortest = kind
  }
  return limitOf(timeoutMillis, () =>
    shortest === undefined
      ? new RequestTimeout({ method: "turn/start", timeoutMillis })
      : new TurnTimeout({ threadId, turnId: "", kind: shortest, timeoutMillis }))
}

/** Interrupts a turn that has not ended by then, counted from `since`, or from now. */
export const startDeadline = (
  turn: RunningTurn,
  input: Duration.Input,
  since?: number
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const duration = Duration.fromInputUnsafe(input)
    const now = yield* Clock.currentTimeMillis
    const left = (since ?? now) + Duration.toMillis(duration) - now
    yield* Effect.forkScoped(Effect.delay(expire(turn, "deadline", duration), left))
  })

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
