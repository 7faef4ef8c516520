import * as Effect from "effect/Effect"

/** Number of consecutive checks that must find nothing new. A single check may run before the pipe is read. */
const idleChecks = 3

/** Waits until a counter of received items stops growing. The output that an exited process left in a pipe arrives at once. */
export const awaitIdle = (received: () => number): Effect.Effect<void> =>
  Effect.suspend(() => {
    let before = received()
    let unchanged = 0
    return Effect.sleep("5 millis").pipe(
      Effect.repeat({
        until: () => {
          unchanged = received() === before ? unchanged + 1 : 0
          before = received()
          return unchanged === idleChecks
        }
      }),
      Effect.asVoid
    )
  })
