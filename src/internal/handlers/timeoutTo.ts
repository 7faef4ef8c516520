/** Time limits of handlers. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/**
 * Runs an effect in a fiber of its own. An interrupted caller does not wait for the effect, which may be uninterruptible. The fiber is
 * detached, because the end of its parent or scope would wait for it.
 */
const disconnect = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDetach(Effect.interruptible(effect)),
      (fiber) => Effect.onInterrupt(restore(Fiber.join(fiber)), () => Effect.sync(() => fiber.interruptUnsafe()))
    )
  )

/** Returns the value of an effect, or of `onTimeout` if the effect has not ended within the duration. */
export const timeoutTo = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  onTimeout: () => A
): Effect.Effect<A, E, R> =>
  Effect.timeoutOrElse(disconnect(effect), { duration, orElse: () => Effect.sync(onTimeout) })
