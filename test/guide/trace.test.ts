import { assert, it } from "@effect/vitest"
import { Effect, Layer, Metric, Schema, Tracer } from "effect"
import { AppServer, Codex, CodexMetrics, CodexTelemetry, Tool } from "effect-codex"
import { FakeAppServer } from "effect-codex/testing"

const { Attribute } = CodexTelemetry

const weather = Tool.make("weather", {
  description: "The weather at a place",
  parameters: Schema.Struct({ place: Schema.String }),
  handler: () => Effect.succeed("sunny").pipe(Effect.withSpan("read-weather"))
})

/** The program to test. */
const forecast = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ tools: [weather] })
  return yield* thread.run("Is it sunny in Oslo?")
}).pipe(Effect.withSpan("forecast"))

const layer = Codex.layer.pipe(
  Layer.provide(AppServer.layer()),
  Layer.provide(FakeAppServer.layer(() => FakeAppServer.toolCall("weather", { place: "Oslo" })))
)

/** A tracer that keeps its spans. */
const makeTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

/** Returns the name of a span and those of the spans above it. */
const path = (span: Tracer.Span): ReadonlyArray<string> => {
  const parent = span.parent._tag === "Some" ? span.parent.value : undefined
  return parent?._tag === "Span" ? [span.name, ...path(parent)] : [span.name]
}

it.effect("traces the tool below its turn, and counts the turn", () =>
  Effect.gen(function*() {
    const { spans, tracer } = makeTracer()
    const { threadId } = yield* forecast.pipe(Effect.provide(layer), Effect.withTracer(tracer))

    const read = spans.find(({ name }) => name === "read-weather")!
    assert.deepStrictEqual(path(read), [
      "read-weather",
      "execute_tool weather",
      "invoke_agent codex",
      "Thread.run",
      "forecast"
    ])
    const turn = spans.find(({ name }) => name === "invoke_agent codex")!
    assert.strictEqual(turn.attributes.get(Attribute.ConversationId), threadId)

    const completed = Metric.withAttributes(CodexMetrics.turns, { [Attribute.TurnStatus]: "completed" })
    assert.strictEqual((yield* Metric.value(completed)).count, 1)
    // Tests share the default registry.
  }).pipe(Effect.provideService(Metric.MetricRegistry, new Map())))
