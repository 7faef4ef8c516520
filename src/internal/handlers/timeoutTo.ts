/** Time limits of handlers. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/** Runs an effect in a fiber of its own, so that a caller which is interrupted does not wait for an effect that cannot be. */
const disconnect = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDetach(Effect.interruptible(effect)),
      (fiber) => Effect.onInterrupt(restore(Fiber.join(fiber)), () => Effect.sync(() => fiber.interruptUnsafe()))
    )
  )

/** Returns the value of an effect, or the value of `onTimeout` if the effect has not ended in time. */
export const timeoutTo = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  onTimeout: () => A
): Effect.Effect<A, E, R> =>
  Effect.timeoutOrElse(disconnect(effect), { duration, orElse: () => Effect.sync(onTimeout) })
