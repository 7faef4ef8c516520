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

/** Returns the lines of the trees of spans, without those that a predicate excludes, which have the place of their children. */
export const toTree = (
  spans: ReadonlyArray<Tracer.NativeSpan>,
  show: (span: Tracer.NativeSpan) => string | undefined = ({ name }) => name
): ReadonlyArray<string> => {
  const childrenOf = (parentId: string | undefined) =>
    spans.filter((span) => {
      const parent = Option.getOrUndefined(span.parent)
      const known = parent !== undefined && spans.some(({ spanId }) => spanId === parent.spanId)
        ? parent.spanId
        : undefined
      return known === parentId
    })
  const lines = (span: Tracer.NativeSpan, depth: number): ReadonlyArray<string> => {
    const text = show(span)
    const inner = childrenOf(span.spanId).flatMap((child) => lines(child, text === undefined ? depth : depth + 1))
    return text === undefined ? inner : [`${"  ".repeat(depth)}${text}`, ...inner]
  }
  return childrenOf(undefined).flatMap((root) => lines(root, 0))
}
