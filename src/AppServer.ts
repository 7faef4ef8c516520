/**
 * A typed connection to `codex app-server`: requests, notifications, and the requests of the server.
 *
 * It knows every method of the protocol and nothing of what they are for; `Codex` is what most programs want. Use it for
 * the methods that `Codex` does not wrap, to watch all notifications, and to answer the server's requests.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
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
  type Step,
  type Withdrawal
} from "./internal/connection/jsonRpcPeer.ts"
import { capturedServices, withServices } from "./internal/connection/services.ts"
import { isRepeatable } from "./internal/protocol/repeatable.ts"
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
  /**
   * Whether the server may ask this client to vouch for itself with `attestation/generate`, which then needs a handler
   * ({@link AppServer} `handle`). Default: `false`.
   */
  readonly requestAttestation?: boolean | undefined
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
 * A handler that fails with this passes a request on to the handler that was there before it, and if there is none, the
 * request is declined with `why` in the log.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotHandled extends Data.TaggedError("NotHandled")<{ readonly why: string }> {}

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
  /** Whether experimental methods and fields may be used. */
  readonly experimentalApi: boolean
  /**
   * Sends a request and waits for its answer.
   *
   * Params are checked before they are sent: what the protocol does not have fails with `InvalidRequest`. A method that is
   * safe to repeat, because it only reads for example, is repeated when the server is overloaded; any other is not.
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
   * Answers the server's requests of one method, for as long as the scope lives. Of several handlers the latest answers,
   * unless it fails with {@link NotHandled}.
   *
   * Each request is handled in a fiber of its own, which may take its time and may use this service. It is interrupted when
   * the request is resolved elsewhere, when its turn ends, and when the connection does. A handler that fails or dies
   * declines, and so does a method without a handler; where there is nothing to decline, that is a JSON-RPC error.
   *
   * Approvals, questions and tools have modules of their own, `Approvals`, `Questions` and `Tool`. This is for the others,
   * such as `account/chatgptAuthTokens/refresh`, `attestation/generate` and `currentTime/read`.
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
  /** Whether a thread waits for the answer of a handler. */
  readonly isAsking: (threadId: string) => boolean
  /**
   * Calls a function with each notification of one method, of any thread, for as long as the scope lives. It is called in the
   * reader's own step, so it must be quick.
   */
  readonly observe: (
    method: string,
    observer: (event: Protocol.ServerNotification) => void
  ) => Effect.Effect<void, never, Scope.Scope>
}>()("effect-codex/AppServer") {}

const overloadSchedule = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 6 }))

/** Grants nothing, and says so in the log. */
const decline = (request: IncomingRequest, because: "unhandled" | "failed", why: string): Effect.Effect<Answer> => {
  const threadId = threadIdOf(request.params)
  const { answer, effect } = declineOf(request.method, because)
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

const isNotHandled = (error: unknown): error is NotHandled => error instanceof NotHandled

const endsOfThreads: ReadonlySet<string> = new Set(["thread/closed", "thread/archived", "thread/deleted"])

/** A request ends when it is resolved elsewhere, and with its turn or thread; then nobody else will answer it. */
const withdraw = ({ method, params }: IncomingNotification): Withdrawal | undefined => {
  if (method === "serverRequest/resolved") {
    const id = field(params, "requestId")
    return { concerns: (request) => request.id === id, isAnswered: true }
  }
  const threadId = threadIdOf(params)
  if (method === "turn/completed") {
    const turnId = turnIdOf(params)
    return {
      concerns: (request) => threadIdOf(request.params) === threadId && turnIdOf(request.params) === turnId,
      isAnswered: false
    }
  }
  return endsOfThreads.has(method)
    ? { concerns: (request) => threadIdOf(request.params) === threadId, isAnswered: false }
    : undefined
}

const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<
  AppServer["Service"],
  AppServerError,
  Transport | Scope.Scope
> {
  const { experimentalApi = true, maxInFlight = 64 } = options
  if (!(maxInFlight >= 1)) {
    return yield* appServerError(
      new InvalidRequest({ method: "initialize", description: `maxInFlight is ${maxInFlight}; it must be at least 1` })
    )
  }
  const transport = yield* Transport
  const connection = yield* transport.connect

  const listeners = new Map<string, Set<NotificationListener>>()
  const subscribers = new Set<EventBuffer<Protocol.ServerNotification>>()
  const observers = new Map<string, Set<(event: Protocol.ServerNotification) => void>>()
  const handlers = new Map<string, ReadonlyArray<Handler>>()

  const onNotification = (message: IncomingNotification, step: Step): void => {
    const threadId = threadIdOf(message.params)
    const listening = threadId === undefined ? undefined : listeners.get(threadId)
    const observing = observers.get(message.method)
    if (listening === undefined && observing === undefined && subscribers.size === 0) return
    const event = decodeNotification(message, step)
    for (const observer of observing ?? []) guarded(() => observer(event), step)
    for (const subscriber of subscribers) subscriber.offer(event, step)
    if (listening === undefined) return
    const turnId = turnIdOf(message.params)
    for (const listener of listening) guarded(() => listener.onNotification(event, turnId, step), step)
  }

  const onRequest = (request: IncomingRequest): Effect.Effect<Answer> => {
    const registered = handlers.get(request.method) ?? []
    const spec = specOf(Protocol.serverRequests, request.method)
    const unhandled = "nobody handles it; answer it with AppServer.handle"
    if (registered.length === 0 || spec?.params === undefined) return decline(request, "unhandled", unhandled)
    const params = decoderOf(spec.params)(request.params)
    if (Result.isFailure(params)) {
      return decline(request, "failed", `it cannot be read: ${params.failure.message}`)
    }
    const encode = Schema.encodeUnknownEffect(spec.result as Schema.Codec<unknown>)
    const ask = (remaining: ReadonlyArray<Handler>, why: string): Effect.Effect<Answer> => {
      const handler = remaining.at(-1)
      if (handler === undefined) return decline(request, "unhandled", why)
      return Effect.suspend(() => handler(params.success)).pipe(
        Effect.flatMap((result) => encode(result)),
        Effect.map((result): Answer => ({ result })),
        Effect.catchIf(isNotHandled, ({ why }) => ask(remaining.slice(0, -1), why)),
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logError(`The handler of ${request.method} failed`, cause),
            decline(request, "failed", "its handler failed")
          )
        )
      )
    }
    return ask(registered, unhandled)
  }

  const peer = yield* makePeer(connection, {
    onNotification,
    onRequest,
    withdraw,
    withdrawn: ({ method }) => declineOf(method, "withdrawn").answer,
    replayedBy: "thread/resume",
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
      const services = (yield* capturedServices) as Context.Context<any>
      const provided: Handler = (params) => withServices(services, () => handler(params as never))
      yield* Effect.acquireRelease(
        Effect.sync(() => handlers.set(method, [...handlers.get(method) ?? [], provided])),
        () => Effect.sync(() => handlers.set(method, (handlers.get(method) ?? []).filter((it) => it !== provided)))
      )
    })

  const observe: AppServer["Service"]["observe"] = (method, observer) =>
    Effect.acquireRelease(
      Effect.sync(() => observers.set(method, new Set(observers.get(method)).add(observer))),
      () => Effect.sync(() => observers.get(method)?.delete(observer))
    )

  const initialized = yield* requestRaw("initialize", {
    clientInfo: options.clientInfo ?? { name: "effect-codex", title: "effect-codex", version: packageVersion },
    capabilities: {
      experimentalApi,
      requestAttestation: options.requestAttestation ?? false,
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

  return AppServer.of({
    metadata,
    requestTimeout,
    experimentalApi,
    request,
    requestRaw,
    notifications,
    handle,
    listen,
    isAsking: (threadId) => [...peer.asked()].some(({ params }) => threadIdOf(params) === threadId),
    observe
  })
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
