/** Whether there is a tracer, and the W3C trace context of a span. */
import * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import * as Tracer from "effect/Tracer"

/** Whether a program traces a fiber. The default tracer exports nothing, so spans for it would be wasted. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  const { tracer, tracerEnabled } = fiber.cache
  return tracer !== undefined && tracer !== Tracer.nativeTracer && tracerEnabled &&
    !fiber.getRef(Tracer.DisablePropagation)
}

const isId = (id: string, length: number): boolean => id.length === length && /^[0-9a-f]+$/.test(id) && !/^0+$/.test(id)

/**
 * Returns the trace context of a span as JSON, for the envelope of a request. A span that is not sampled propagates too, so that the server
 * does not sample its own spans. A span of Effect has no `tracestate`.
 */
export const toTraceContext = ({ annotations, sampled, spanId, traceId }: Tracer.Span): string | undefined => {
  const paddedId = traceId.padStart(32, "0")
  if (Context.get(annotations, Tracer.DisablePropagation) || !isId(paddedId, 32) || !isId(spanId, 16)) return undefined
  return `{"traceparent":"00-${paddedId}-${spanId}-${sampled ? "01" : "00"}"}`
}
