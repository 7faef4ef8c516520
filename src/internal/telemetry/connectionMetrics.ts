/** The metrics of connections. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { constVoid } from "effect/Function"
import * as Metric from "effect/Metric"
import type * as Scope from "effect/Scope"
import * as CodexMetrics from "../../CodexMetrics.ts"
import { Attribute } from "../../CodexTelemetry.ts"

/** The connections of a program, which share one gauge. */
interface Observed {
  readonly counts: Set<() => number>
  readonly registration: Metric.Registration
}

const observed = new WeakMap<Metric.MetricRegistry, Observed>()

const getOrRegister = (context: Context.Context<never>): Observed => {
  const registry = Context.get(context, Metric.MetricRegistry)
  const known = observed.get(registry)
  if (known !== undefined) return known
  const counts = new Set<() => number>()
  const get = () => ({ value: [...counts].reduce((sum, count) => sum + count(), 0) })
  const registration = Metric.registerUnsafe(CodexMetrics.requestsInFlight, context, {
    get,
    update: constVoid,
    modify: constVoid
  })
  const added = { counts, registration }
  observed.set(registry, added)
  return added
}

/** Observes the number of requests in flight of a connection, until the scope closes. The gauge counts when it is read. */
export const observeRequests = (count: () => number): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(Effect.context<never>(), (context) => {
      const { counts } = getOrRegister(context)
      counts.add(count)
      return context
    }),
    (context) =>
      Effect.sync(() => {
        const { counts, registration } = getOrRegister(context)
        counts.delete(count)
        if (counts.size > 0) return
        registration.remove()
        observed.delete(Context.get(context, Metric.MetricRegistry))
      })
  ).pipe(Effect.asVoid)

/** Counts the replacement of a connection, in the context of the connection. */
export const countRestart = (isShared: boolean, context: Context.Context<never>): void =>
  Metric.withAttributes(CodexMetrics.restarts, { [Attribute.ConnectionKind]: isShared ? "reconnect" : "restart" })
    .updateUnsafe(1, context)
