/**
 * The metrics of turns, tools, approvals and connections.
 *
 * **When to use**
 *
 * Read a metric with `Metric.value`, or export all metrics of a program, as with `Otlp.layerJson` or `PrometheusMetrics`.
 *
 * **Details**
 *
 * Each metric has its unit in the attribute `unit`, where Effect's exporters look for it. Metrics of a turn are updated in the context of the
 * fiber that starts it, so `Metric.CurrentMetricAttributes` of that fiber apply. They are updated when a turn, a tool or an approval ends,
 * and never for a delta. `docs/observability.md` lists the attributes.
 *
 * **Example** (Counting the turns of a program)
 *
 * ```ts
 * import { Effect, Metric } from "effect"
 * import { CodexMetrics, CodexTelemetry } from "effect-codex"
 *
 * const completed = Metric.withAttributes(CodexMetrics.turns, { [CodexTelemetry.Attribute.TurnStatus]: "completed" })
 *
 * export const completedTurns = Effect.map(Metric.value(completed), ({ count }) => count)
 * ```
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/** Boundaries of `gen_ai.invoke_agent.duration`, in seconds, as the conventions advise. */
const invocationBoundaries = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6]

/** Boundaries of the durations of single operations, in seconds, as the conventions advise. */
const operationBoundaries = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]

/** Boundaries of `gen_ai.client.token.usage`, in tokens, as the conventions advise. */
const tokenBoundaries = [
  1,
  4,
  16,
  64,
  256,
  1024,
  4096,
  16_384,
  65_536,
  262_144,
  1_048_576,
  4_194_304,
  16_777_216,
  67_108_864
]

/** Boundaries of waits for a person, in seconds: up to a day. */
const waitBoundaries = [0.01, 0.1, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400]

/**
 * Number of turns that ended, by outcome.
 *
 * @category metrics
 * @since 0.1.0
 */
export const turns: Metric.Counter<number> = Metric.counter("codex.turns", {
  description: "Number of turns that ended",
  attributes: { unit: "{turn}" },
  incremental: true
})

/**
 * Duration of turns, from `turn/start` to the end of the turn.
 *
 * @category metrics
 * @since 0.1.0
 */
export const turnDuration: Metric.Histogram<number> = Metric.histogram("gen_ai.invoke_agent.duration", {
  description: "Duration of a turn",
  attributes: { unit: "s" },
  boundaries: invocationBoundaries
})

/**
 * Time from `turn/start` to the first text of the model: of a message, a plan or a reasoning.
 *
 * @category metrics
 * @since 0.1.0
 */
export const timeToFirstToken: Metric.Histogram<number> = Metric.histogram("codex.turn.time_to_first_token", {
  description: "Time from the start of a turn to the first text of the model",
  attributes: { unit: "s" },
  boundaries: operationBoundaries
})

/**
 * Input and output tokens of turns. Cached tokens are input tokens, and reasoning tokens are output tokens.
 *
 * @category metrics
 * @since 0.1.0
 */
export const tokenUsage: Metric.Histogram<number> = Metric.histogram("gen_ai.client.token.usage", {
  description: "Number of input and output tokens of a turn",
  attributes: { unit: "{token}" },
  boundaries: tokenBoundaries
})

/**
 * Number of tokens that turns have used, by kind.
 *
 * **Gotchas**
 *
 * The kinds overlap: `input` includes `cached_input` and `cache_write_input`, and `output` includes `reasoning_output`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const tokens: Metric.Counter<number> = Metric.counter("codex.tokens", {
  description: "Number of tokens that turns have used",
  attributes: { unit: "{token}" },
  incremental: true
})

/**
 * Duration of tools: commands, file changes, and calls of MCP tools, dynamic tools and built-in tools.
 *
 * @category metrics
 * @since 0.1.0
 */
export const toolDuration: Metric.Histogram<number> = Metric.histogram("gen_ai.execute_tool.duration", {
  description: "Duration of a tool",
  attributes: { unit: "s" },
  boundaries: operationBoundaries
})

/**
 * Time that approvals wait for their decision, by decision.
 *
 * @category metrics
 * @since 0.1.0
 */
export const approvalWait: Metric.Histogram<number> = Metric.histogram("codex.approval.wait", {
  description: "Time that an approval waits for its decision",
  attributes: { unit: "s" },
  boundaries: waitBoundaries
})

/**
 * Number of connections that were replaced: by a restart of the process, or by a new connection to a shared server.
 *
 * @category metrics
 * @since 0.1.0
 */
export const restarts: Metric.Counter<number> = Metric.counter("codex.connection.restarts", {
  description: "Number of connections that were replaced",
  attributes: { unit: "{restart}" },
  incremental: true
})

/**
 * Number of requests without a response, of all connections of the program.
 *
 * @category metrics
 * @since 0.1.0
 */
export const requestsInFlight: Metric.Gauge<number> = Metric.gauge("codex.requests.in_flight", {
  description: "Number of requests without a response",
  attributes: { unit: "{request}" }
})

/**
 * Number of deltas that were coalesced with the one before, because a subscriber of a turn had not read that one.
 *
 * @category metrics
 * @since 0.1.0
 */
export const coalescedDeltas: Metric.Counter<number> = Metric.counter("codex.deltas.coalesced", {
  description: "Number of deltas that were coalesced for slow subscribers of turns",
  attributes: { unit: "{delta}" },
  incremental: true
})
