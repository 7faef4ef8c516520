/** A tracer in memory, and the trees of its spans. */
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"

export interface Traces {
  readonly tracer: Tracer.Tracer
  readonly spans: Array<Tracer.NativeSpan>
}

export const makeTraces = (): Traces => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { tracer, spans }
}

export const attributesOf = (span: Tracer.Span): Record<string, unknown> => Object.fromEntries(span.attributes)

/** Returns the ends of a span: `ok`, `interrupted`, `error` or `open`. */
export const endOf = ({ status }: Tracer.Span): string =>
  status._tag === "Started"
    ? "open"
    : Exit.isSuccess(status.exit)
    ? "ok"
    : Exit.hasInterrupts(status.exit)
    ? "interrupted"
    : "error"

export const parentOf = ({ parent }: Tracer.Span): Tracer.AnySpan | undefined => Option.getOrUndefined(parent)

/** Returns the start and the end of a span. */
export const times = ({ name, status }: Tracer.Span): readonly [start: bigint, end: bigint] => {
  if (status._tag === "Started") throw new Error(`The span \`${name}\` has not ended`)
  return [status.startTime, status.endTime]
}

/** Returns the lines of the trees below the spans with a name. The children of a span without a line are in its place. */
export const toTree = (
  spans: ReadonlyArray<Tracer.NativeSpan>,
  show: (span: Tracer.NativeSpan) => string | undefined,
  root: string
): ReadonlyArray<string> => {
  const lines = (span: Tracer.NativeSpan, depth: number): ReadonlyArray<string> => {
    const text = show(span)
    const children = spans.filter((child) => parentOf(child)?.spanId === span.spanId)
    const inner = children.flatMap((child) => lines(child, text === undefined ? depth : depth + 1))
    return text === undefined ? inner : [`${"  ".repeat(depth)}${text}`, ...inner]
  }
  return spans.filter(({ name }) => name === root).flatMap((span) => lines(span, 0))
}
