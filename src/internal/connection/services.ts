/** Services that a handler is given when it is registered, for when it is called. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/** The services at hand, without the span at hand: a handler belongs to whatever calls it. */
export const capturedServices = Effect.map(Effect.context<never>(), Context.omit(Tracer.ParentSpan))

/** Calls a handler with captured services. One that throws, or that returns no Effect, dies. */
export const withServices = <A, E, R>(
  services: Context.Context<R>,
  call: () => Effect.Effect<A, E, R>
): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const called = call()
    return Effect.isEffect(called)
      ? Effect.provideContext(called, services)
      : Effect.die(new TypeError("the handler returned no Effect"))
  })
