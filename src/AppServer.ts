/**
 * A typed connection to `codex app-server`: requests, notifications, and the requests of the server.
 *
 * It knows every method of the protocol and nothing of what they are for; `Codex` is what most programs want. Use it for
 * the methods that `Codex` does not wrap, to watch all notifications, and to answer the server's requests.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Stream from "effect/Stream"
import {
  type AppServerError,
  DecodeFailed,
  InitializeFailed,
  InvalidRequest,
  make as appServerError,
  RequestTimeout
} from "./AppServerError.ts"
import {
  decodeNotification,
  decoderOf,
  encodeParams,
  field,
  specOf,
  threadIdOf,
  turnIdOf
} from "./internal/connection/codec.ts"
import { declineOf } from "./internal/connection/decline.ts"
import { EventBuffer, streamOf } from "./internal/connection/eventBuffer.ts"
import {
  type Answer,
  immediately,
  type IncomingNotification,
  type IncomingRequest,
  makePeer,
  type RequestId,
  type Step
} from "./internal/connection/jsonRpcPeer.ts"
import { packageVersion } from "./internal/version.ts"
import * as Metadata from "./Metadata.ts"
import * as Protocol from "./Protocol.ts"
import { Transport } from "./Transport.ts"

/**
 * How a connection behaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Who is connecting. The server adds it to the user agent it sends to models. Default: this package's name and version.
   */
  readonly clientInfo?: Protocol.ClientInfo | undefined
  /** Whether experimental methods and fields may be used. Default: `true`. */
  readonly experimentalApi?: boolean | undefined
  /** Methods of notifications that the server shall not send. Turns do not end without `turn/completed`. */
  readonly optOutNotificationMethods?: ReadonlyArray<string> | undefined
  /** How long a request may wait for its answer, retries included. Default: 60 seconds. */
  readonly requestTimeout?: Duration.Input | undefined
  /**
   * How many requests may be unanswered at once; more wait their turn. From about 200 the server refuses requests, and
   * from about 250 it drops answers. Default: 64.
   */
  readonly maxInFlight?: number | undefined
}

/**
 * How one request behaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestOptions {
  /** How long this request may wait for its answer. Default: the connection's `requestTimeout`. */
  readonly timeout?: Duration.Input | undefined
  /** Called just before the request is handed to the transport. A request that never was can be repeated safely. */
  readonly onSend?: (() => void) | undefined
}

/**
 * The arguments of a request after its method: params, which may be left out where the protocol allows it, and options.
 *
 * @category models
 * @since 0.1.0
 */
export type RequestArgs<M extends keyof Protocol.ClientRequests> = undefined extends
  Protocol.ClientRequests[M]["params"] ? [params?: Protocol.ClientRequests[M]["params"], options?: RequestOptions]
  : [params: Protocol.ClientRequests[M]["params"], options?: RequestOptions]

/**
 * Hears the notifications of one thread, in the reader's own step, so it must be quick.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotificationListener {
  readonly onNotification: (event: Protocol.ServerNotification, turnId: string | undefined, step: Step) => void
  /** The connection has ended; nothing follows. */
  readonly onEnd: (error: AppServerError, step: Step) => void
}

/**
 * The connection to an app-server.
 *
 * @category services
 * @since 0.1.0
 */
export class AppServer extends Context.Service<AppServer, {
  /** Who the server is. */
  readonly metadata: Metadata.Metadata
  /** How long a request may wait for its answer, unless it says otherwise. */
  readonly requestTimeout: Duration.Duration
  /**
   * Sends a request and waits for its answer.
   *
   * Params are checked before they are sent: what the protocol does not have fails with `InvalidRequest`. A method that
   * only reads is repeated when the server is overloaded, any other is not.
   */
  readonly request: <M extends keyof Protocol.ClientRequests>(
    method: M,
    ...args: RequestArgs<M>
  ) => Effect.Effect<Protocol.ClientRequests[M]["result"], AppServerError>
  /**
   * Sends a request and waits for its answer, which is handed out as the JSON it is. The params of a known method are
   * checked as {@link AppServer} `request` does; those of a method that only a newer server has are sent as they are.
   */
  readonly requestRaw: (
    method: string,
    params?: unknown,
    options?: RequestOptions
  ) => Effect.Effect<unknown, AppServerError>
  /**
   * All notifications from the moment the stream is run, of every thread. Each run is a subscription of its own, and a
   * slow one holds up nobody: when it lags, consecutive deltas of the same text arrive as one.
   */
  readonly notifications: Stream.Stream<Protocol.ServerNotification, AppServerError>
  /**
   * Answers the server's requests of one method, for as long as the scope lives. Of several handlers the latest answers.
   *
   * Each request is handled in a fiber of its own, which may take its time and may use this service. A handler that fails
   * or dies declines. So does a method without a handler.
   */
  readonly handle: <M extends keyof Protocol.ServerRequests, E, R>(
    method: M,
    handler: (params: Protocol.ServerRequests[M]["params"]) => Effect.Effect<Protocol.ServerRequests[M]["result"], E, R>
  ) => Effect.Effect<void, never, R | Scope.Scope>
  /**
   * Adds a listener to a thread's notifications and returns what removes it. This is what turns are made of; a program
   * wants `notifications`.
   */
  readonly listen: (threadId: string, listener: NotificationListener) => () => void
}>()("effect-codex/AppServer") {}

/** What changes nothing, or no more when it is repeated, can be repeated. */
const isRepeatable = (method: string): boolean =>
  method === "turn/interrupt" || /(?:\/list|\/read|^fs\/(?:read|getMetadata).*)$/i.test(method)

const overloadSchedule = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 6 }))

/** Grants nothing, and says so in the log. */
const decline = (request: IncomingRequest, why: string): Effect.Effect<Answer> => {
  const threadId = threadIdOf(request.params)
  const { answer, effect } = declineOf(request.method)
  return Effect.as(
    Effect.logWarning(`${effect} ${request.method}${threadId === undefined ? "" : ` of thread ${threadId}`}: ${why}`),
    answer
  )
}

/** A listener that throws must not be felt by the others. */
const guarded = (tell: () => void, step: Step): void => {
  try {
    tell()
  } catch (error) {
    step.report(`A listener to notifications has thrown: ${String(error)}`)
  }
}

type Handler = (params: unknown) => Effect.Effect<unknown, unknown>

const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<
  AppServer["Service"],
  AppServerError,
  Transport | Scope.Scope
> {
  const { maxInFlight = 64 } = options
  if (!(maxInFlight >= 1)) {
    return yield* appServerError(
      new InvalidRequest({ method: "initialize", description: `maxInFlight is ${maxInFlight}; it must be at least 1` })
    )
  }
  const transport = yield* Transport
  const connection = yield* transport.connect

  const listeners = new Map<string, Set<NotificationListener>>()
  const subscribers = new Set<EventBuffer<Protocol.ServerNotification>>()
  const handlers = new Map<string, Array<Handler>>()

  const onNotification = (message: IncomingNotification, step: Step): void => {
    const threadId = threadIdOf(message.params)
    const listening = threadId === undefined ? undefined : listeners.get(threadId)
    if (listening === undefined && subscribers.size === 0) return
    const event = decodeNotification(message, step)
    for (const subscriber of subscribers) subscriber.offer(event, step)
    if (listening === undefined) return
    const turnId = turnIdOf(message.params)
    for (const listener of listening) guarded(() => listener.onNotification(event, turnId, step), step)
  }

  const onRequest = (request: IncomingRequest): Effect.Effect<Answer> => {
    const handler = handlers.get(request.method)?.at(-1)
    const spec = specOf(Protocol.serverRequests, request.method)
    if (handler === undefined || spec?.params === undefined) {
      return decline(request, "nobody handles it; answer it with AppServer.handle")
    }
    const params = decoderOf(spec.params)(request.params)
    if (Result.isFailure(params)) return decline(request, `it cannot be read: ${params.failure.message}`)
    return Effect.suspend(() => handler(params.success)).pipe(
      Effect.flatMap((result) => Schema.encodeUnknownEffect(spec.result as Schema.Codec<unknown>)(result)),
      Effect.map((result): Answer => ({ result })),
      Effect.catchCause((cause) =>
        Effect.andThen(
          Effect.logError(`The handler of ${request.method} failed`, cause),
          decline(request, "its handler failed")
        )
      )
    )
  }

  const peer = yield* makePeer(connection, {
    onNotification,
    onRequest,
    withdraw: (message) =>
      message.method === "serverRequest/resolved"
        ? field(message.params, "requestId") as RequestId | undefined
        : undefined,
    onEnd: (error, step) => {
      for (const subscriber of subscribers) subscriber.close(error, step)
      for (const listening of listeners.values()) {
        for (const listener of listening) guarded(() => listener.onEnd(error, step), step)
      }
      subscribers.clear()
      listeners.clear()
    }
  })

  const window = yield* Semaphore.make(maxInFlight)
  const requestTimeout = Duration.fromInputUnsafe(options.requestTimeout ?? Duration.seconds(60))

  const send = (method: string, params: unknown, onSend?: () => void): Effect.Effect<unknown, AppServerError> => {
    const sent = peer.request(method, params, onSend)
    // An interrupt must not wait behind what it interrupts.
    const bounded = method === "turn/interrupt" ? sent : window.withPermit(sent)
    return isRepeatable(method)
      ? Effect.retry(bounded, { schedule: overloadSchedule, while: (error) => error.reason._tag === "Overloaded" })
      : bounded
  }

  const requestRaw = Effect.fn("AppServer.request")(
    function*(method: string, params?: unknown, requestOptions?: RequestOptions) {
      yield* Effect.annotateCurrentSpan({ "rpc.system": "jsonrpc", "rpc.method": method })
      const timeout = requestOptions?.timeout ?? requestTimeout
      return yield* Effect.timeoutOrElse(send(method, yield* encodeParams(method, params), requestOptions?.onSend), {
        duration: timeout,
        orElse: () =>
          Effect.fail(appServerError(new RequestTimeout({ method, timeoutMillis: Duration.toMillis(timeout) })))
      })
    }
  )

  const request = Effect.fnUntraced(
    function*(method: keyof Protocol.ClientRequests, params?: unknown, requestOptions?: RequestOptions) {
      const spec = specOf(Protocol.clientRequests, method)
      if (spec === undefined) {
        return yield* appServerError(
          new InvalidRequest({ method, description: `the protocol of Codex ${Protocol.version} has no such method` })
        )
      }
      const result = yield* requestRaw(method, params, requestOptions)
      return yield* Effect.mapError(
        Effect.fromResult(decoderOf(spec.result)(result)),
        (error) => appServerError(new DecodeFailed({ method, issue: error.message }))
      )
    }
  ) as AppServer["Service"]["request"]

  const listen = (threadId: string, listener: NotificationListener) => {
    const ended = peer.ended()
    if (ended !== undefined) {
      listener.onEnd(ended, immediately)
      return () => {}
    }
    let listening = listeners.get(threadId)
    if (listening === undefined) {
      listening = new Set()
      listeners.set(threadId, listening)
    }
    listening.add(listener)
    return () => {
      const current = listeners.get(threadId)
      current?.delete(listener)
      if (current?.size === 0) listeners.delete(threadId)
    }
  }

  const notifications = streamOf(
    () => {
      const buffer = new EventBuffer<Protocol.ServerNotification>()
      const ended = peer.ended()
      if (ended === undefined) subscribers.add(buffer)
      else buffer.close(ended)
      return buffer
    },
    (buffer) => subscribers.delete(buffer)
  )

  const handle: AppServer["Service"]["handle"] = (method, handler) =>
    Effect.gen(function*() {
      const context = yield* Effect.context<never>()
      const provided: Handler = (params) => {
        const handled: unknown = handler(params as never)
        return Effect.isEffect(handled)
          ? Effect.provideContext(handled as Effect.Effect<unknown, unknown>, context as never)
          : Effect.die(new TypeError("the handler returned no Effect"))
      }
      const registered = handlers.get(method) ?? []
      handlers.set(method, [...registered, provided])
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => handlers.set(method, (handlers.get(method) ?? []).filter((other) => other !== provided)))
      )
    })

  const initialized = yield* requestRaw("initialize", {
    clientInfo: options.clientInfo ?? { name: "effect-codex", title: "effect-codex", version: packageVersion },
    capabilities: {
      experimentalApi: options.experimentalApi ?? true,
      requestAttestation: false,
      ...(options.optOutNotificationMethods === undefined
        ? {}
        : { optOutNotificationMethods: options.optOutNotificationMethods })
    }
  }).pipe(
    Effect.catchReason("AppServerError", "RequestRejected", (reason) =>
      Effect.fail(appServerError(
        new InitializeFailed({
          description: `the server refused this client: ${reason.detail}`,
          userAgent: undefined,
          serverName: undefined,
          serverVersion: undefined
        })
      )))
  )
  const metadata = yield* Effect.mapError(
    Effect.fromResult(Metadata.fromInitialize(initialized)),
    (reason) => appServerError(reason)
  )
  yield* peer.notify("initialized")

  return AppServer.of({ metadata, requestTimeout, request, requestRaw, notifications, handle, listen })
})

/**
 * Connects over the given {@link Transport} and initializes the server.
 *
 * Building the layer fails if the connection cannot be opened or the server does not initialize. When the layer's scope
 * closes, everything that still waits for the server fails with `ConnectionClosed`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<AppServer, AppServerError, Transport> =>
  Layer.effect(AppServer, make(options))
