import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"

/** Repeats an effect until its value satisfies a predicate. Dies with the last value after ten seconds. */
export const poll = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  predicate: (value: A) => boolean,
  expected: string
): Effect.Effect<A, E, R> =>
  Effect.suspend(() => {
    let last: A | undefined
    return effect.pipe(
      Effect.tap((value) => Effect.sync(() => last = value)),
      Effect.repeat({ until: predicate, schedule: Schedule.spaced("10 millis") }),
      Effect.timeoutOrElse({
        duration: "10 seconds",
        orElse: () => Effect.die(new Error(`Timed out waiting for ${expected}. Last value: ${JSON.stringify(last)}`))
      })
    )
  })
