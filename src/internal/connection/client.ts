/** Sends typed requests, and retries them if that is safe. */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Tracer from "effect/Tracer"
import {
  type AppServerError,
  DecodeFailed,
  InvalidRequest,
  make as appServerError,
  RequestTimeout
} from "../../AppServerError.ts"
import { Attribute } from "../../CodexTelemetry.ts"
import * as Protocol from "../../Protocol.ts"
import { Request } from "../jsonrpc/outgoingRequests.ts"
import type { Peer } from "../jsonrpc/peer.ts"
import { duration, func, type Kinds, optionIssue } from "../options.ts"
import { isIdempotent } from "../protocol/idempotent.ts"
import { withReason } from "../protocol/rejections.ts"
import { isTraced, toTraceContext } from "../telemetry/tracing.ts"
import { decoderFor, encodeParams, getSpec } from "./codec.ts"
import type { RequestOptions } from "./options.ts"

/**
 * The arguments of a request after its method: params, which are optional if the protocol allows that, and options.
 *
 * @category models
 * @since 0.1.0
 */
export type RequestArgs<M extends keyof Protocol.ClientRequests> = undefined extends
  Protocol.ClientRequests[M]["params"] ? [params?: Protocol.ClientRequests[M]["params"], options?: RequestOptions]
  : [params: Protocol.ClientRequests[M]["params"], options?: RequestOptions]

/** Sends requests to a server. */
export interface Client {
  /**
   * Sends a request and waits for its response.
   *
   * **Details**
   *
   * Params are checked before they are sent: params that the protocol does not have fail with `InvalidRequest`. If the server is
   * overloaded, idempotent requests are retried, such as those that only read.
   */
  readonly request: <M extends keyof Protocol.ClientRequests>(
    method: M,
    ...args: RequestArgs<M>
  ) => Effect.Effect<Protocol.ClientRequests[M]["result"], AppServerError>
  /**
   * Sends a request and returns the JSON of its response.
   *
   * **When to use**
   *
   * For methods that only a newer server has. Their params are sent unchecked. The params of a known method are checked as
   * `request` does.
   */
  readonly requestRaw: (
    method: string,
    params?: unknown,
    options?: RequestOptions
  ) => Effect.Effect<unknown, AppServerError>
}

/** A client that also explains its errors. */
export interface ServerClient extends Client {
  /** Adds the versions of server and protocol to an error whose reason has them. */
  readonly withVersions: (error: AppServerError) => AppServerError
}

const overloadSchedule = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 6 }))

const requestKinds: Kinds<RequestOptions> = { timeout: duration, onSend: func }

const annotateFailure = (span: Tracer.Span, { reason }: AppServerError): void => {
  if (reason._tag !== "RequestRejected") return span.attribute(Attribute.ErrorType, reason._tag)
  span.attribute(Attribute.ErrorType, String(reason.code))
  span.attribute(Attribute.RpcStatusCode, String(reason.code))
}

/** Runs a request in a span only if there is a tracer, because a span costs more than the request itself. */
const withRequestSpan = <A>(
  method: string,
  request: (trace: string | undefined) => Effect.Effect<A, AppServerError>
): Effect.Effect<A, AppServerError> =>
  Effect.withFiber((fiber) =>
    !isTraced(fiber) ? request(undefined) : Effect.useSpan(
      method,
      { kind: "client", attributes: { [Attribute.RpcSystem]: "jsonrpc", [Attribute.RpcMethod]: method } },
      (span) =>
        // The line is sent by another fiber, so the context is read here.
        Effect.suspend(() => request(toTraceContext(span))).pipe(
          Effect.tapError((error) => Effect.sync(() => annotateFailure(span, error))),
          Effect.withParentSpan(span, { captureStackTrace: false })
        )
    )
  )

/** The connection of a client, and its behavior when requests fail. */
interface Target {
  /** Returns the current peer, if there is one. */
  readonly peer: () => Peer | undefined
  /** Waits until there is a peer. */
  readonly acquirePeer: Effect.Effect<Peer, AppServerError>
  /** Returns `true` if there will be another peer after the connection is lost. */
  readonly reconnects: () => boolean
  readonly defaultTimeoutMillis: number
  readonly withVersions: (error: AppServerError) => AppServerError
}

/** Tests if a failed request can be retried: it is idempotent, or the connection closed before it was sent. */
const isRetryable = ({ reason }: AppServerError, { isSent, method }: Request, reconnects: () => boolean): boolean =>
  reason._tag === "Overloaded"
    ? isIdempotent(method)
    : reason._tag === "ConnectionClosed" && reconnects() && (isIdempotent(method) || !isSent)

const invalid = (method: string, description: string) =>
  Effect.fail(appServerError(new InvalidRequest({ method, description })))

/** Sends and retries a request until its deadline. `firstFailure` is the failure of an attempt that was made before. */
const retryRequest = (
  { acquirePeer, reconnects, withVersions }: Target,
  clock: Clock.Clock,
  request: Request,
  firstFailure?: AppServerError
): Effect.Effect<unknown, AppServerError> => {
  const { deadline, method, options: { timeoutMillis } } = request
  let failure = firstFailure
  let last = request
  const attempt = Effect.suspend(() => {
    const error = failure
    failure = undefined
    if (error !== undefined) return Effect.fail(error)
    return Effect.flatMap(acquirePeer, (peer) => {
      last = last.isSettled ? last.retry() : last
      return peer.request(last)
    })
  })
  return attempt.pipe(
    Effect.retry({
      schedule: overloadSchedule,
      while: (error) => error.reason._tag === "Overloaded" && isRetryable(error, last, reconnects)
    }),
    Effect.retry({
      while: (error) => error.reason._tag === "ConnectionClosed" && isRetryable(error, last, reconnects)
    }),
    Effect.mapError(withVersions),
    Effect.timeoutOrElse({
      duration: deadline - clock.currentTimeMillisUnsafe(),
      orElse: () => Effect.fail(appServerError(new RequestTimeout({ method, timeoutMillis })))
    })
  )
}

/** Makes a client. A request that succeeds needs no schedule, timer or additional fiber, because these cost more than the request. */
export const makeClient = (clock: Clock.Clock, target: Target): ServerClient => {
  const { defaultTimeoutMillis, peer, reconnects, withVersions } = target

  const requestRaw: Client["requestRaw"] = (method, params, options) =>
    withRequestSpan(method, (trace) => {
      const encoded = encodeParams(method, params)
      if (Result.isFailure(encoded)) return Effect.fail(encoded.failure)
      const issue = optionIssue(requestKinds, options)
      if (issue !== undefined) return invalid(method, issue)
      const timeoutMillis = options?.timeout === undefined
        ? defaultTimeoutMillis
        : Duration.toMillis(options.timeout)
      const request = new Request({
        method,
        params: encoded.success,
        deadline: clock.currentTimeMillisUnsafe() + timeoutMillis,
        timeoutMillis,
        bypassLimit: method === "turn/interrupt",
        trace,
        onSend: options?.onSend
      })
      const explain = (error: AppServerError) => withReason(error, params)
      const current = peer()
      return current === undefined
        ? Effect.mapError(retryRequest(target, clock, request), explain)
        : current.request(
          request,
          (error) =>
            isRetryable(error, request, reconnects)
              ? Effect.mapError(retryRequest(target, clock, request, error), explain)
              : Effect.fail(explain(withVersions(error)))
        )
    })

  const request = ((method: keyof Protocol.ClientRequests, params?: unknown, options?: RequestOptions) => {
    const spec = getSpec(Protocol.clientRequests, method)
    if (spec === undefined) {
      return invalid(
        method,
        `the protocol of Codex \`${Protocol.version}\` does not have this method. Use \`requestRaw\` for a method of a newer server`
      )
    }
    return Effect.flatMap(requestRaw(method, params, options), (result) => {
      const decoded = decoderFor(spec.result)(result)
      return Result.isSuccess(decoded)
        ? Effect.succeed(decoded.success)
        : Effect.fail(withVersions(appServerError(new DecodeFailed({ method, issue: decoded.failure.message }))))
    })
  }) as Client["request"]

  return { request, requestRaw, withVersions }
}
