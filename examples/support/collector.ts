/** A small OpenTelemetry collector: it receives OTLP over HTTP as JSON, and keeps spans and metrics in memory. */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Effect from "effect/Effect"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Schema from "effect/Schema"
import { createServer } from "node:http"

const Value = Schema.Record(Schema.String, Schema.Unknown)
const Attributes = Schema.optional(Schema.Array(Schema.Struct({ key: Schema.String, value: Value })))

const Span = Schema.Struct({
  traceId: Schema.String,
  spanId: Schema.String,
  parentSpanId: Schema.optional(Schema.String),
  name: Schema.String,
  startTimeUnixNano: Schema.Union([Schema.String, Schema.Number]),
  endTimeUnixNano: Schema.Union([Schema.String, Schema.Number]),
  attributes: Attributes
})

const Point = Schema.Struct({
  attributes: Attributes,
  asDouble: Schema.optional(Schema.Number),
  asInt: Schema.optional(Schema.Union([Schema.String, Schema.Number])),
  count: Schema.optional(Schema.Union([Schema.String, Schema.Number])),
  sum: Schema.optional(Schema.Number)
})

const Points = Schema.optional(Schema.Struct({ dataPoints: Schema.Array(Point) }))

const Metric = Schema.Struct({
  name: Schema.String,
  unit: Schema.optional(Schema.String),
  sum: Points,
  gauge: Points,
  histogram: Points
})

const Body = Schema.Struct({
  resourceSpans: Schema.optional(Schema.Array(Schema.Struct({
    resource: Schema.optional(Schema.Struct({ attributes: Attributes })),
    scopeSpans: Schema.Array(Schema.Struct({ spans: Schema.Array(Span) }))
  }))),
  resourceMetrics: Schema.optional(Schema.Array(Schema.Struct({
    scopeMetrics: Schema.Array(Schema.Struct({ metrics: Schema.Array(Metric) }))
  })))
})

export interface CollectedSpan {
  readonly service: string
  readonly traceId: string
  readonly id: string
  readonly parentId: string | undefined
  readonly name: string
  readonly start: bigint
  readonly millis: number
  readonly attributes: ReadonlyMap<string, unknown>
}

export interface CollectedMetric {
  readonly name: string
  readonly unit: string
  readonly attributes: ReadonlyMap<string, unknown>
  /** The sum of a counter, the value of a gauge, or the number and the sum of a histogram. */
  readonly value: string
}

const toMap = (attributes: typeof Attributes.Type): ReadonlyMap<string, unknown> =>
  new Map((attributes ?? []).map(({ key, value }) => [key, Object.values(value)[0]]))

const toSpan = (service: string, span: typeof Span.Type): CollectedSpan => {
  const start = BigInt(span.startTimeUnixNano)
  return {
    service,
    traceId: span.traceId,
    id: span.spanId,
    parentId: span.parentSpanId === "" ? undefined : span.parentSpanId,
    name: span.name,
    start,
    millis: Number(BigInt(span.endTimeUnixNano) - start) / 1e6,
    attributes: toMap(span.attributes)
  }
}

const toMetrics = ({ gauge, histogram, name, sum, unit = "" }: typeof Metric.Type): ReadonlyArray<CollectedMetric> =>
  [sum, gauge, histogram].flatMap((data) => data?.dataPoints ?? []).map((point) => ({
    name,
    unit,
    attributes: toMap(point.attributes),
    value: point.count === undefined ? String(point.asDouble ?? point.asInt) : `${point.count} × sum ${point.sum}`
  }))

/** Starts a collector on a free port of the loopback interface, until the scope closes. */
export const startCollector = Effect.gen(function*() {
  const spans: Array<CollectedSpan> = []
  const metrics = new Map<string, CollectedMetric>()
  const receive = ({ resourceMetrics = [], resourceSpans = [] }: typeof Body.Type) => {
    for (const { resource, scopeSpans } of resourceSpans) {
      const service = String(toMap(resource?.attributes).get("service.name") ?? "unknown")
      for (const { spans: received } of scopeSpans) spans.push(...received.map((span) => toSpan(service, span)))
    }
    // The last report of a series replaces the one before, because its sums are cumulative.
    for (
      const metric of resourceMetrics.flatMap(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
    ) {
      for (const series of toMetrics(metric)) {
        metrics.set(JSON.stringify([series.name, ...series.attributes]), series)
      }
    }
  }
  const server = yield* NodeHttpServer.make(createServer, { host: "127.0.0.1", port: 0 })
  yield* server.serve(
    HttpServerRequest.schemaBodyJson(Body).pipe(
      Effect.map((body) => {
        receive(body)
        return HttpServerResponse.jsonUnsafe({})
      }),
      // Logs, for example.
      Effect.orElseSucceed(() => HttpServerResponse.jsonUnsafe({}))
    )
  )
  return { url: HttpServer.formatAddress(server.address), spans, metrics }
})
