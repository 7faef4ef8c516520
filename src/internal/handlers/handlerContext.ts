/** Runs handlers with the services of the fiber that registered them. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

/** Returns the context of the current fiber without its span: the span of a handler belongs to its request. */
export const handlerContext = <R>(): Effect.Effect<Context.Context<R>, never, R> =>
  Effect.map(Effect.context<R>(), Context.omit(Tracer.ParentSpan)) as Effect.Effect<Context.Context<R>, never, R>

/** Checks the effect that a handler returned. Another value, such as a promise in plain JavaScript, is a defect. */
export const asEffect = <A, E, R>(returned: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.isEffect(returned)
    ? returned
    : Effect.die(
      new TypeError(
        "The handler returned no Effect. Wrap a value in `Effect.succeed`, or a promise in `Effect.promise`."
      )
    )

/** Calls a handler with a context. Dies if the handler throws or returns no Effect. */
export const provideHandlerContext = <A, E, R>(
  context: Context.Context<R>,
  call: () => Effect.Effect<A, E, R>
): Effect.Effect<A, E> => Effect.suspend(() => Effect.provideContext(asEffect(call()), context))
