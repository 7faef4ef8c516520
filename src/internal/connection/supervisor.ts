/** Replaces connections that have ended, on a schedule. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import { type AppServerError, make as appServerError, RestartsExhausted } from "../../AppServerError.ts"
import { syncBatch } from "../jsonrpc/readBatch.ts"
import type { ConnectionStates } from "./connectionState.ts"
import type { OpenConnection } from "./openConnection.ts"

const defaultSchedule = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 5 }))

/** Minimum life of a connection, in milliseconds, after which its end restarts the schedule. */
const stableMillis = 60_000

interface Options {
  readonly schedule: true | Schedule.Schedule<unknown, AppServerError>
  readonly states: ConnectionStates
  /** Opens a connection and recovers the threads and turns on it. */
  readonly reopen: Effect.Effect<OpenConnection, AppServerError>
  /** Called before the next connection is used. */
  readonly onRestart: (restarts: number, cause: AppServerError) => void
  /** Called when the schedule has ended. */
  readonly onExhausted: (error: AppServerError) => void
}

/** Replaces each connection that ends with the next one, until the schedule has ended. */
export const supervise = Effect.fnUntraced(function*(
  first: OpenConnection,
  { onExhausted, onRestart, reopen, schedule, states }: Options
): Effect.fn.Return<void> {
  const clock = yield* Clock.Clock
  const makeStep = Schedule.toStepWithSleep(schedule === true ? defaultSchedule : schedule)
  let step = yield* makeStep
  let connection = first
  let since = clock.currentTimeMillisUnsafe()
  let restarts = 0
  while (true) {
    let cause = yield* connection.awaitClosed
    yield* connection.close
    if (clock.currentTimeMillisUnsafe() - since >= stableMillis) {
      step = yield* makeStep
      restarts = 0
    }
    while (true) {
      if (Exit.isFailure(yield* Effect.exit(step(cause)))) {
        return onExhausted(appServerError(new RestartsExhausted({ restarts, cause })))
      }
      restarts++
      const reopened = yield* Effect.result(reopen)
      if (Result.isSuccess(reopened)) {
        connection = reopened.success
        break
      }
      cause = reopened.failure
      states.restart(cause, syncBatch)
    }
    since = clock.currentTimeMillisUnsafe()
    onRestart(restarts, cause)
    const closed = states.use(connection)
    if (closed !== undefined) states.restart(closed, syncBatch)
  }
})
