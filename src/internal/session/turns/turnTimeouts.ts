/** Timeouts of turns: from start to end, and from one event to the next. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, RequestTimeout, TurnTimeout } from "../../../AppServerError.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { TurnHandle } from "./turnHandle.ts"

/** Ends the wait of a handle with `TurnTimeout`, and interrupts the turn unless it has other handles. */
const expire = (
  handle: TurnHandle,
  kind: TurnTimeout["kind"],
  duration: Duration.Duration
): Effect.Effect<void> =>
  handle.expire((isInterrupted) => {
    const { id: turnId, state: { lastError, threadId } } = handle.turn
    const timeoutMillis = Duration.toMillis(duration)
    return appServerError(new TurnTimeout({ threadId, turnId, kind, timeoutMillis, isInterrupted, lastError }))
  })

/** Fails an effect that has not ended by a certain time. */
export type Timeout = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | AppServerError, R>

/** Makes a timeout that counts from now, so that several effects share it: a request, and the work before it is sent. */
const timeoutAfter = (millis: number, reason: () => RequestTimeout | TurnTimeout): Effect.Effect<Timeout> =>
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

/** Makes the timeout of the work before a turn starts, for which the turn has only a deadline, counted from `since`. */
export const deadlineTimeout = Effect.fnUntraced(function*(
  threadId: string,
  deadline: Duration.Input | undefined,
  since: number
): Effect.fn.Return<Timeout> {
  if (deadline === undefined) return (effect) => effect
  const timeoutMillis = Duration.toMillis(deadline)
  const left = since + timeoutMillis - (yield* Clock.currentTimeMillis)
  return yield* timeoutAfter(
    left,
    () => new TurnTimeout({ threadId, turnId: "", kind: "deadline", timeoutMillis, isInterrupted: true })
  )
})

/** Makes the timeout of a request, with the work before it is sent. */
export const requestTimeout = (server: ServerConnection, method: string): Effect.Effect<Timeout> => {
  const timeoutMillis = Duration.toMillis(server.requestTimeout)
  return timeoutAfter(timeoutMillis, () => new RequestTimeout({ method, timeoutMillis }))
}

/**
 * Makes the timeout of the start of a turn, which has no id yet: that of the request, or a shorter one of the turn. Its deadline counts from
 * `since`. Fails if that has passed.
 */
export const startTimeout = Effect.fnUntraced(function*(
  server: ServerConnection,
  threadId: string,
  timeouts: { readonly [Kind in TurnTimeout["kind"]]: Duration.Input | undefined },
  since: number
): Effect.fn.Return<Timeout, AppServerError> {
  const elapsed = (yield* Clock.currentTimeMillis) - since
  const requestMillis = Duration.toMillis(server.requestTimeout)
  let left = requestMillis
  let toReason = (): RequestTimeout | TurnTimeout =>
    new RequestTimeout({ method: "turn/start", timeoutMillis: requestMillis })
  for (const kind of ["deadline", "idle"] as const) {
    const timeout = timeouts[kind]
    const timeoutMillis = timeout === undefined ? Infinity : Duration.toMillis(timeout)
    const millis = kind === "deadline" ? timeoutMillis - elapsed : timeoutMillis
    if (millis >= left) continue
    left = millis
    toReason = () => new TurnTimeout({ threadId, turnId: "", kind, timeoutMillis, isInterrupted: true })
  }
  if (left < 0) return yield* appServerError(toReason())
  return yield* timeoutAfter(left, toReason)
})

/** Expires a handle whose turn has not ended within a duration from `since`, by default from now. */
export const startDeadline = Effect.fnUntraced(function*(
  handle: TurnHandle,
  input: Duration.Input,
  since?: number
): Effect.fn.Return<void, never, Scope.Scope> {
  const duration = Duration.fromInputUnsafe(input)
  const now = yield* Clock.currentTimeMillis
  const left = (since ?? now) + Duration.toMillis(duration) - now
  yield* Effect.forkScoped(Effect.delay(expire(handle, "deadline", duration), left))
})

/**
 * Expires a handle whose turn emits no event but retries for a duration. The time in which the turn or its sub-agents wait for a handler of
 * the program does not count.
 */
export const startIdleTimeout = Effect.fnUntraced(
  function*(handle: TurnHandle, input: Duration.Input): Effect.fn.Return<void, never, Scope.Scope> {
    const duration = Duration.fromInputUnsafe(input)
    const millis = Duration.toMillis(duration)
    const clock = yield* Clock.Clock
    const { session: { handlers }, turn } = handle
    const { state } = turn
    state.now = () => clock.currentTimeMillisUnsafe()
    state.lastEventAt = state.now()
    const watch: Effect.Effect<void> = Effect.suspend(() => {
      if (state.exit !== undefined) return Effect.void
      const now = clock.currentTimeMillisUnsafe()
      const left = handlers.hasPendingServerRequest(turn) ? millis : state.lastEventAt + millis - now
      return left > 0 ? Effect.andThen(Effect.sleep(left), watch) : expire(handle, "idle", duration)
    })
    yield* Effect.forkScoped(watch)
  }
)
