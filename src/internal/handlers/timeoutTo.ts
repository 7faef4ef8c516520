/** Time limits for handlers. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"

/**
 * An effect in a fiber of its own, so that whoever gives up on it, interrupted or out of time, does not have to wait for it to
 * end: one that cannot be interrupted goes on for nobody.
 */
const disconnect = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(
      Effect.forkDetach(Effect.interruptible(effect)),
      (fiber) => Effect.onInterrupt(restore(Fiber.join(fiber)), () => Effect.sync(() => fiber.interruptUnsafe()))
    )
  )

/** What an effect gives, or what is given instead when it has not ended in time. */
export const timeoutTo = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  duration: Duration.Input,
  late: () => A
): Effect.Effect<A, E, R> => Effect.timeoutOrElse(disconnect(effect), { duration, orElse: () => Effect.sync(late) })
