/** Services that a handler is given when it is registered, for when it is called. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/** The services at hand, without the span at hand: a handler belongs to whatever calls it. */
export const handlerContext = Effect.map(Effect.context<never>(), Context.omit(Tracer.ParentSpan))

/** The effect that a handler returned. One of plain JavaScript may return something else, such as a promise, and dies. */
export const asEffect = <A, E, R>(returned: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.isEffect(returned)
    ? returned
    : Effect.die(
      new TypeError("The handler returned no Effect. Wrap a value in Effect.succeed, a promise in Effect.promise")
    )

/** Calls a handler with captured services. One that throws, or that returns no Effect, dies. */
export const provideHandlerContext = <A, E, R>(
  services: Context.Context<R>,
  call: () => Effect.Effect<A, E, R>
): Effect.Effect<A, E> => Effect.suspend(() => Effect.provideContext(asEffect(call()), services))
