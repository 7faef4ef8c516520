/**
 * A typed connection to `codex app-server`: requests, notifications, and the requests of the server.
 *
 * It knows every method of the protocol and nothing of what they are for; `Codex` is what most programs want. Use it for
 * the methods that `Codex` does not wrap, to watch all notifications, and to answer the server's requests.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as PubSub from "effect/PubSub"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  addVersions,
  type AppServerError,
  ConnectionClosed,
  DecodeFailed,
  InitializeFailed,
  InvalidRequest,
  make as appServerError,
  RequestTimeout,
  RestartsExhausted,
  UnsupportedServer
} from "./AppServerError.ts"
import { decoderFor, encodeParams, getSpec } from "./internal/connection/codec.ts"
import type { Delta } from "./internal/connection/deltaParser.ts"
import { fallbackResponse } from "./internal/connection/fallbackResponse.ts"
import { loginCheck } from "./internal/connection/loginCheck.ts"
import { cancellationOf, Router } from "./internal/connection/router.ts"
import { floor, getSupport } from "./internal/connection/serverVersion.ts"
import { logWarnings } from "./internal/connection/serverWarnings.ts"
import { fromSubscription } from "./internal/connection/subscription.ts"
import { handlerContext, provideHandlerContext } from "./internal/handlers/handlerContext.ts"
import { type IncomingRequest, type ReadBatch, syncBatch } from "./internal/jsonrpc/messages.ts"
import { Request } from "./internal/jsonrpc/outgoingRequests.ts"
import { makePeer, type Peer } from "./internal/jsonrpc/peer.ts"
import { connectionKinds, processNames } from "./internal/layerOptions.ts"
import { duration, func, type Kinds, optionIssue } from "./internal/options.ts"
import { isIdempotent } from "./internal/protocol/idempotent.ts"
import { withReason } from "./internal/protocol/rejections.ts"
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
  /**
   * Whether to connect to a server that is older than the oldest supported version, 0.166.0, which otherwise fails with
   * `UnsupportedServer`. Such a server may lose a thread's permissions, and leave out what the types of `Protocol` say it
   * sends. A version that cannot be told is always accepted.
   *
   * @default false
   */
  readonly allowUnsupportedServer?: boolean | undefined
  /** Methods of notifications that the server shall not send. Turns do not end without `turn/completed`. */
  readonly optOutNotificationMethods?: ReadonlyArray<string> | undefined
  /** How long a request may wait for its answer, retries included. Default: 60 seconds. */
  readonly requestTimeout?: Duration.Input | undefined
  /**
   * How many requests may be unanswered at once; more wait their turn. From about 200 the server refuses requests, and
   * from about 250 it drops answers. One that waits for longer than `requestTimeout`, as its own timeout may allow, does not
   * count any more. Default: 128.
   */
  readonly maxInFlight?: number | undefined
  /**
   * Whether to connect again when the connection has ended, and when: `true` for up to five times in a row, soon at first and
   * then ever later, or a schedule of one's own. It begins anew when a connection has lasted a minute.
   *
   * Meanwhile the state is `Starting`, and requests wait, within their timeout. Those that were under way are sent again if
   * that is safe; others fail with `ConnectionClosed`. `Codex` resumes its threads, with the settings that they had, and finds out
   * what became of their turns: one that the server had finished has its result, any other fails with `TurnLost`. When the
   * schedule has ended everything fails with `RestartsExhausted`. Default: `false`.
   */
  readonly restart?: boolean | Schedule.Schedule<unknown, AppServerError> | undefined
}

/**
 * How a connection is: it is being opened (again, after `cause`), it is in use, or it has ended for good.
 *
 * @category models
 * @since 0.1.0
 */
export type ConnectionState =
  | { readonly _tag: "Starting"; readonly cause: AppServerError | undefined }
  | { readonly _tag: "Ready"; readonly metadata: Metadata.Metadata }
  | { readonly _tag: "Closed"; readonly cause: AppServerError }

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
 * Hears the notifications of one thread, in the reader's own batch, so it must be quick.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotificationListener {
  readonly onNotification: (event: Protocol.ServerNotification, turnId: string | undefined, batch: ReadBatch) => void
  /** Hears a piece of text, in place of its notification. */
  readonly onDelta?: ((delta: Delta, batch: ReadBatch) => void) | undefined
  /** The connection has ended; nothing follows. */
  readonly onClose: (error: AppServerError, batch: ReadBatch) => void
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
 * How requests are sent to a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Client {
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
  /** Adds the versions of the server and of the protocol to an error that has a place for them. */
  readonly withVersions: (error: AppServerError) => AppServerError
}

/**
 * The connection to an app-server.
 *
 * @category services
 * @since 0.1.0
 */
export class AppServer extends Context.Service<
  AppServer,
  Client & {
    /** Who the server is. */
    readonly metadata: Metadata.Metadata
    /** How long a request may wait for its answer, unless it says otherwise. */
    readonly requestTimeout: Duration.Duration
    /** Whether experimental methods and fields may be used. */
    readonly experimentalApi: boolean
    /**
     * What sends requests on the connection that is in use, once one is. When that ends they fail with `ConnectionClosed`, and none
     * is sent on the next connection, where what a request relies on may not hold any more.
     */
    readonly connected: Effect.Effect<Client, AppServerError>
    /** How the connection is. */
    readonly state: Effect.Effect<ConnectionState>
    /** How the connection is, and then each change, up to `Closed`. */
    readonly states: Stream.Stream<ConnectionState>
    /**
     * All notifications from the moment the stream is run, of every thread. Each run is a subscription of its own, and a
     * slow one holds up nobody: when it lags, deltas of the same text arrive as one, until something else happens.
     *
     * With `restart` it goes on with the next connection. What the server would have said in between is lost; where that is, the
     * stream has a notification of this package's own, `effect-codex/restarted`.
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
      handler: (
        params: Protocol.ServerRequests[M]["params"]
      ) => Effect.Effect<Protocol.ServerRequests[M]["result"], E, R>
    ) => Effect.Effect<void, never, R | Scope.Scope>
    /**
     * Adds a listener to a thread's notifications and returns what removes it. This is what turns are made of; a program
     * wants `notifications`.
     */
    readonly listen: (threadId: string, listener: NotificationListener) => () => void
    /** Removes from what the server says the secrets that its transport knows of; see `Connection` of `Transport`. */
    readonly redact: (text: string) => string
    /**
     * Checks the login: the response to an `account/read` of this package's own, which does not count as one of the requests in flight,
     * and which recordings leave out.
     */
    readonly checkLogin: Effect.Effect<unknown, AppServerError>
    /** The server's requests that wait for the response of a handler. */
    readonly asked: () => Iterable<IncomingRequest>
    /**
     * Calls a function with each request of the server that is answered, or was resolved elsewhere, for as long as the scope lives. It
     * must be quick.
     */
    readonly onAnswered: (observer: (request: IncomingRequest) => void) => Effect.Effect<void, never, Scope.Scope>
    /**
     * Calls a function with each notification of one method, of any thread, for as long as the scope lives. It is called in the
     * reader's own batch, so it must be quick.
     */
    readonly observe: (
      method: string,
      observer: (event: Protocol.ServerNotification) => void
    ) => Effect.Effect<void, never, Scope.Scope>
    /**
     * Runs an effect each time the server has been restarted, before anybody else's requests are sent, for as long as the scope
     * lives. It is given what sends requests to the new server.
     */
    readonly onRestart: (
      recover: (server: Client) => Effect.Effect<void>
    ) => Effect.Effect<void, never, Scope.Scope>
  }
>()("effect-codex/AppServer") {}

const overloadSchedule = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 6 }))

const restartSchedule = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 5 }))

/** A connection that has lasted so long, in milliseconds, is not part of a storm. */
const stableMillis = 60_000

const requestKinds: Kinds<RequestOptions> = { timeout: duration, onSend: func }

/** One connection, with an initialized server at its other end. */
interface Live {
  readonly peer: Peer
  readonly metadata: Metadata.Metadata
  /** Waits for its end. */
  readonly lost: Effect.Effect<AppServerError>
  readonly close: Effect.Effect<void>
}

/** What stands among the notifications for those that were lost. */
const restartedEvent = (restarts: number, cause: AppServerError): Protocol.UnrecognizedNotification => ({
  method: "effect-codex/restarted" as Protocol.Unrecognized,
  params: { restarts, cause: cause.message }
})

const scopeClosed = (): AppServerError =>
  appServerError(
    new ConnectionClosed({
      description: "the scope of the connection was closed",
      exitCode: undefined,
      signal: undefined,
      stderrTail: ""
    })
  )

/** A request has a span if a tracer is there to see it, as that costs more than the request itself. */
const traced = <A, E>(method: string, request: () => Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) =>
    fiber.cache.tracer === undefined
      ? request()
      : Effect.withSpan(Effect.suspend(request), "AppServer.request", {
        attributes: { "rpc.system": "jsonrpc", "rpc.method": method }
      })
  )

const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<
  AppServer["Service"],
  AppServerError,
  Transport | Scope.Scope
> {
  const issue = optionIssue(connectionKinds satisfies Kinds<Options>, options, processNames)
  if (issue !== undefined) {
    return yield* appServerError(new InvalidRequest({ method: "initialize", description: issue }))
  }
  const { experimentalApi = true, maxInFlight = 128, restart = false } = options
  const transport = yield* Transport
  const clock = yield* Clock.Clock
  // Closed after the finalizers below, however often a connection is opened in it.
  const scope = yield* Scope.fork(yield* Effect.scope)
  const router = new Router()
  const requestTimeout = Duration.fromInputUnsafe(options.requestTimeout ?? Duration.seconds(60))
  const defaultTimeoutMillis = Duration.toMillis(requestTimeout)

  const changes = yield* PubSub.unbounded<ConnectionState>()
  let state: ConnectionState = { _tag: "Starting", cause: undefined }
  /** Completed when a connection is in use again, or none will be. */
  let settled = Deferred.makeUnsafe<void>()
  let live: Live | undefined
  const recoveries = new Set<(server: Client) => Effect.Effect<void>>()
  const answered = new Set<(request: IncomingRequest) => void>()

  const become = (next: ConnectionState, batch: ReadBatch): void => {
    state = next
    const waiting = settled
    if (next._tag !== "Starting") settled = Deferred.makeUnsafe()
    batch.afterBatch(() => {
      PubSub.publishUnsafe(changes, next)
      if (next._tag !== "Starting") Deferred.doneUnsafe(waiting, Exit.void)
    })
  }

  const end = (cause: AppServerError, batch: ReadBatch): void => {
    if (state._tag === "Closed") return
    live = undefined
    router.end(cause, batch)
    become({ _tag: "Closed", cause }, batch)
  }

  const current: Effect.Effect<Peer, AppServerError> = Effect.suspend(() => {
    if (state._tag === "Closed") return Effect.fail(state.cause)
    return live === undefined
      ? Effect.flatMap(Deferred.await(settled), () => current)
      : Effect.succeed(live.peer)
  })

  /** That of the server that was initialized last, if it is one. */
  let serverVersion: string | undefined

  const withVersions = (error: AppServerError): AppServerError =>
    serverVersion === undefined ? error : addVersions(error, { serverVersion, protocolVersion: Protocol.version })

  /** How requests are made: of a peer that is there, or that is waited for. */
  const requestsOf = (peer: () => Peer | undefined, opened: Effect.Effect<Peer, AppServerError>): Client => {
    const mayRepeat = ({ reason }: AppServerError, { isSent, method }: Request): boolean =>
      reason._tag === "Overloaded"
        ? isIdempotent(method)
        : reason._tag === "ConnectionClosed" && restart !== false && opened === current && state._tag !== "Closed" &&
          (isIdempotent(method) || !isSent)

    /** Makes a request again for as long as it may be, after a first failure if there was one, until its deadline. */
    const repeat = (request: Request, first?: AppServerError): Effect.Effect<unknown, AppServerError> => {
      const { deadline, method, timeoutMillis } = request
      let failure = first
      let last = request
      const attempt = Effect.suspend(() => {
        const error = failure
        failure = undefined
        if (error !== undefined) return Effect.fail(error)
        return Effect.flatMap(opened, (peer) => {
          last = last.isSettled ? last.retry() : last
          return peer.request(last)
        })
      })
      return attempt.pipe(
        Effect.retry({
          schedule: overloadSchedule,
          while: (error) => error.reason._tag === "Overloaded" && mayRepeat(error, last)
        }),
        Effect.retry({ while: (error) => error.reason._tag === "ConnectionClosed" && mayRepeat(error, last) }),
        Effect.mapError(withVersions),
        Effect.timeoutOrElse({
          duration: deadline - clock.currentTimeMillisUnsafe(),
          orElse: () => Effect.fail(appServerError(new RequestTimeout({ method, timeoutMillis })))
        })
      )
    }

    const requestRaw = (method: string, params?: unknown, requestOptions?: RequestOptions) =>
      traced(method, () => {
        const encoded = encodeParams(method, params)
        if (Result.isFailure(encoded)) return Effect.fail(encoded.failure)
        const issue = optionIssue(requestKinds, requestOptions)
        if (issue !== undefined) {
          return Effect.fail(appServerError(new InvalidRequest({ method, description: issue })))
        }
        const timeout = requestOptions?.timeout
        const timeoutMillis = timeout === undefined ? defaultTimeoutMillis : Duration.toMillis(timeout)
        const deadline = clock.currentTimeMillisUnsafe() + timeoutMillis
        const isUrgent = method === "turn/interrupt"
        const request = new Request(method, encoded.success, deadline, timeoutMillis, isUrgent, requestOptions?.onSend)
        const explain = (error: AppServerError) => withReason(error, params)
        const live = peer()
        return live === undefined
          ? Effect.mapError(repeat(request), explain)
          : live.request(
            request,
            (error) =>
              mayRepeat(error, request)
                ? Effect.mapError(repeat(request, error), explain)
                : Effect.fail(explain(withVersions(error)))
          )
      })
    const request = ((method: keyof Protocol.ClientRequests, params?: unknown, requestOptions?: RequestOptions) => {
      const spec = getSpec(Protocol.clientRequests, method)
      if (spec === undefined) {
        return Effect.fail(appServerError(
          new InvalidRequest({ method, description: `the protocol of Codex ${Protocol.version} has no such method` })
        ))
      }
      return Effect.flatMap(requestRaw(method, params, requestOptions), (result) => {
        const decoded = decoderFor(spec.result)(result)
        return Result.isSuccess(decoded)
          ? Effect.succeed(decoded.success)
          : Effect.fail(withVersions(appServerError(new DecodeFailed({ method, issue: decoded.failure.message }))))
      })
    }) as Client["request"]
    return { request, requestRaw, withVersions }
  }

  const requestsTo = (peer: Peer) => requestsOf(() => peer, Effect.succeed(peer))

  let redact: (text: string) => string = identity
  logWarnings(router, (text) => redact(text))

  let isDifferenceLogged = false

  /** Refuses a server that is too old. One that the protocol was not generated from is logged, once. */
  const checkVersion = Effect.fnUntraced(function*({ serverVersion }: Metadata.Metadata) {
    const support = getSupport(serverVersion)
    if (support === "unsupported" && options.allowUnsupportedServer !== true) {
      return yield* appServerError(new UnsupportedServer({ serverVersion, floor }))
    }
    if (support === "same" || support === "unknown" || isDifferenceLogged) return
    isDifferenceLogged = true
    yield* Effect.logWarning(
      `Connected to codex app-server ${serverVersion}, but this version of effect-codex was generated from ` +
        `${Protocol.version}: what has changed between them may not work` +
        (support === "unsupported" ? `. Before ${floor} threads lose their permissions when resumed or forked` : "")
    )
  })

  const initialize = Effect.fnUntraced(function*(peer: Peer) {
    const initialized = yield* requestsTo(peer).requestRaw("initialize", {
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
      ({ description, serverName, serverVersion, userAgent }) =>
        appServerError(
          new InitializeFailed({
            description,
            userAgent: userAgent && redact(userAgent),
            serverName: serverName && redact(serverName),
            serverVersion: serverVersion && redact(serverVersion)
          })
        )
    )
    yield* checkVersion(metadata)
    serverVersion = getSupport(metadata.serverVersion) === "unknown" ? undefined : metadata.serverVersion
    yield* peer.notify("initialized")
    return metadata
  })

  const open: Effect.Effect<Live, AppServerError> = Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const connectionScope = yield* Scope.fork(scope)
      const close = Scope.close(connectionScope, Exit.void)
      const lost = Deferred.makeUnsafe<AppServerError>()
      const opening = Effect.gen(function*() {
        const connection = yield* transport.connect
        redact = connection.redact ?? identity
        const peer = yield* makePeer(connection, {
          maxInFlight,
          placeMillis: defaultTimeoutMillis,
          takeLine: router.takeLine,
          onNotification: router.onNotification,
          onRequest: router.onRequest,
          onAnswered: (request) => {
            for (const observer of answered) observer(request)
          },
          withdraw: cancellationOf,
          withdrawn: ({ method }) => fallbackResponse(method, "withdrawn").answer,
          replayedBy: "thread/resume",
          onEnd: (error, batch) => {
            if (restart === false) end(error, batch)
            else if (live !== undefined) become({ _tag: "Starting", cause: error }, batch)
            live = undefined
            batch.afterBatch(() => Deferred.doneUnsafe(lost, Exit.succeed(error)))
          }
        })
        return { peer, metadata: yield* initialize(peer), lost: Deferred.await(lost), close }
      })
      return yield* restore(Scope.provide(opening, connectionScope)).pipe(Effect.onError(() => close))
    })
  )

  /** Takes a connection into use, unless it has ended meanwhile: those who wait would ask it again and again. */
  const use = (opened: Live): AppServerError | undefined => {
    const ended = opened.peer.ended()
    if (ended !== undefined) return ended
    live = opened
    become({ _tag: "Ready", metadata: opened.metadata }, syncBatch)
    return undefined
  }

  const first = yield* open
  const endedAlready = use(first)
  if (endedAlready !== undefined) return yield* endedAlready

  const service = AppServer.of({
    metadata: first.metadata,
    requestTimeout,
    experimentalApi,
    ...requestsOf(() => live?.peer, current),
    connected: Effect.map(current, requestsTo),
    state: Effect.sync(() => state),
    states: Stream.unwrap(
      Effect.map(
        PubSub.subscribe(changes),
        (subscription) =>
          Stream.concat(Stream.sync(() => state), Stream.fromSubscription(subscription)).pipe(
            Stream.changesWith((before, after) => before === after),
            Stream.takeUntil(({ _tag }) => _tag === "Closed")
          )
      )
    ),
    notifications: fromSubscription(() => router.subscribe(), (buffer) => router.unsubscribe(buffer)),
    handle: (method, handler) =>
      Effect.flatMap(handlerContext, (services) =>
        Effect.acquireRelease(
          Effect.sync(() =>
            router.addRequestHandler(
              method,
              (params) => provideHandlerContext(services as Context.Context<any>, () => handler(params as never))
            )
          ),
          (remove) => Effect.sync(remove)
        )),
    redact: (text) => redact(text),
    checkLogin: Effect.flatMap(current, (peer) => {
      const deadline = clock.currentTimeMillisUnsafe() + defaultTimeoutMillis
      return peer.request(new Request(loginCheck.method, "{}", deadline, defaultTimeoutMillis, true, undefined))
    }),
    listen: (threadId, listener) => router.addThreadListener(threadId, listener),
    asked: () => live?.peer.asked() ?? [],
    onAnswered: (observer) =>
      Effect.acquireRelease(
        Effect.sync(() => answered.add(observer)),
        () => Effect.sync(() => answered.delete(observer))
      ),
    observe: (method, observer) =>
      Effect.acquireRelease(
        Effect.sync(() => router.addNotificationHandler(method, observer)),
        (remove) => Effect.sync(remove)
      ),
    onRestart: (recover) =>
      Effect.acquireRelease(
        Effect.sync(() => recoveries.add(recover)),
        () => Effect.sync(() => recoveries.delete(recover))
      )
  })
  if (restart === false) return service

  /** Opens a connection, and has everybody find their way in it. */
  const reopen = Effect.gen(function*() {
    const opened = yield* open
    const requests = requestsTo(opened.peer)
    yield* Effect.raceFirst(
      Effect.forEach(recoveries, (recover) => recover(requests), { concurrency: "unbounded", discard: true }),
      Effect.flatMap(opened.lost, Effect.fail)
    ).pipe(Effect.onError(() => opened.close))
    return opened
  })

  const supervise = Effect.gen(function*() {
    const schedule = restart === true ? restartSchedule : restart
    let next = yield* Schedule.toStepWithSleep(schedule)
    let connection = first
    let since = clock.currentTimeMillisUnsafe()
    let restarts = 0
    while (true) {
      let cause = yield* connection.lost
      yield* connection.close
      if (clock.currentTimeMillisUnsafe() - since >= stableMillis) {
        next = yield* Schedule.toStepWithSleep(schedule)
        restarts = 0
      }
      while (true) {
        if (Exit.isFailure(yield* Effect.exit(next(cause)))) {
          return end(appServerError(new RestartsExhausted({ restarts, cause })), syncBatch)
        }
        restarts++
        const reopened = yield* Effect.result(reopen)
        if (Result.isSuccess(reopened)) {
          connection = reopened.success
          break
        }
        cause = reopened.failure
        become({ _tag: "Starting", cause }, syncBatch)
      }
      since = clock.currentTimeMillisUnsafe()
      router.publish(restartedEvent(restarts, cause), syncBatch)
      const ended = use(connection)
      if (ended !== undefined) become({ _tag: "Starting", cause: ended }, syncBatch)
    }
  })
  yield* Effect.forkScoped(supervise)
  // What waits is told at once, not when the process has gone.
  yield* Effect.addFinalizer(() => Effect.sync(() => end(scopeClosed(), syncBatch)))
  return service
})

/**
 * Connects over the given {@link Transport} and initializes the server.
 *
 * Building the layer fails if the connection cannot be opened or the server does not initialize. When the layer's scope
 * closes, everything that still waits for the server fails with `ConnectionClosed`.
 *
 * **Details**
 *
 * The warnings of the server are logged at the level `Warn`, with the id of their thread and without secrets: those about the
 * configuration, deprecations, retries of model requests, and what fails to start or to log in. Each text is logged once, also if the
 * server sends it before the program can subscribe to `notifications`. Provide `References.MinimumLogLevel` around the layer to
 * silence them.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<AppServer, AppServerError, Transport> =>
  Layer.effect(AppServer, make(options))
