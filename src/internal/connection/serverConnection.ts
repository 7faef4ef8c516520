/**
 * The connection to a server, across restarts. `AppServer` is the part of it that programs use; the sessions of `Codex` also
 * use the rest.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"
import type { Metadata } from "../../Metadata.ts"
import type * as Protocol from "../../Protocol.ts"
import { Transport } from "../../Transport.ts"
import { handlerContext, provideHandlerContext } from "../handlers/handlerContext.ts"
import { scopeClosed } from "../jsonrpc/connectionClosed.ts"
import type { IncomingRequest } from "../jsonrpc/messages.ts"
import { Request } from "../jsonrpc/outgoingRequests.ts"
import type { Options as PeerOptions, Peer } from "../jsonrpc/peer.ts"
import { type ReadBatch, syncBatch } from "../jsonrpc/readBatch.ts"
import { connectionKinds, transportNames } from "../layerOptions.ts"
import { type Kinds, optionIssue } from "../options.ts"
import { countRestart } from "../telemetry/connectionMetrics.ts"
import { type Client, makeClient, type ServerClient } from "./client.ts"
import { type ConnectionState, ConnectionStates } from "./connectionState.ts"
import type { NotificationListener } from "./delta.ts"
import { fallbackResponse } from "./fallbackResponse.ts"
import { makeHandshake } from "./handshake.ts"
import { KnownServer } from "./knownServer.ts"
import { loginCheck } from "./loginCheck.ts"
import { type OpenConnection, openConnection } from "./openConnection.ts"
import type { Options } from "./options.ts"
import { Router } from "./router.ts"
import { cancellation } from "./serverRequestEnd.ts"
import { logWarnings } from "./serverWarnings.ts"
import { SharedRequests } from "./sharedRequests.ts"
import { fromSubscription } from "./subscription.ts"
import { supervise } from "./supervisor.ts"

/** What a program uses of a connection. */
export interface PublicConnection extends Client {
  /** The name, version and platform of the server. */
  readonly metadata: Metadata
  /** The state of the connection. */
  readonly state: Effect.Effect<ConnectionState>
  /** The state of the connection, and then each change, up to `Closed`. */
  readonly states: Stream.Stream<ConnectionState>
  /**
   * All notifications of all threads, from the moment the stream is run.
   *
   * **Details**
   *
   * Each run is a subscription of its own. A slow subscriber never applies backpressure. Its unread deltas of one text are coalesced, until
   * another event follows.
   *
   * With `restart` the stream continues on the next connection. The notifications in between are lost. In their place the stream contains a
   * notification of this package, `effect-codex/restarted`.
   */
  readonly notifications: Stream.Stream<Protocol.ServerNotification, AppServerError>
  /**
   * Handles the server's requests of one method, until the scope closes. The handler that was registered last is called first. A handler that
   * fails with `NotHandled` passes the request to the previous one.
   *
   * **When to use**
   *
   * For methods such as `account/chatgptAuthTokens/refresh`, `attestation/generate` and `currentTime/read`. Approvals, questions and
   * tools have modules of their own: `Approvals`, `Questions` and `Tool`.
   *
   * **Details**
   *
   * Each request is handled in a fiber of its own, which may use this service. The fiber is interrupted when another client responds to
   * the request, when its turn ends, and when the connection ends.
   *
   * A request is declined if its method has no handler, or if the handler fails or dies. A request that cannot be declined gets a JSON-RPC
   * error.
   */
  readonly handle: <M extends keyof Protocol.ServerRequests, E, R>(
    method: M,
    handler: (
      params: Protocol.ServerRequests[M]["params"]
    ) => Effect.Effect<Protocol.ServerRequests[M]["result"], E, R>
  ) => Effect.Effect<void, never, R | Scope.Scope>
}

/** Runs after a restart, with the client of the new connection. `isShared` is whether the server outlived the last connection. */
export type RestartHandler = (client: ServerClient, isShared: boolean) => Effect.Effect<void>

/** A connection with the members that only sessions use. */
export interface ServerConnection extends PublicConnection, ServerClient {
  readonly requestTimeout: Duration.Duration
  readonly experimentalApi: boolean
  /** Whether the server outlives the connection, and other clients may use it. */
  readonly isShared: boolean
  /**
   * Waits for a connection, and returns its client. When that connection ends, requests of the client fail with `ConnectionClosed`: the
   * state that they rely on may not exist on the next connection.
   */
  readonly acquireClient: Effect.Effect<ServerClient, AppServerError>
  /** Runs a request that the server calls deprecated, without a log of its notice. */
  readonly withoutDeprecation: <A, E>(request: Effect.Effect<A, E>) => Effect.Effect<A, E>
  /** Removes the secrets of the transport from text of the server. */
  readonly redact: (text: string) => string
  /** Checks the login. The request needs no permit, and recordings leave it out. */
  readonly checkLogin: Effect.Effect<unknown, AppServerError>
  /** The requests of the server whose handlers can still respond. */
  readonly pendingServerRequests: () => ReadonlyArray<IncomingRequest>
  /** Adds a listener to the notifications of a thread and returns the function that removes it. */
  readonly addThreadListener: (threadId: string, listener: NotificationListener) => () => void
  /** Calls a handler within the read batch with the params of each well-formed notification of a method, until the scope closes. */
  readonly addNotificationHandler: <M extends keyof Protocol.ServerNotifications>(
    method: M,
    handler: (params: Protocol.ServerNotifications[M], batch: ReadBatch) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Calls a handler within the read batch with each notification of a method, malformed or not, until the scope closes. */
  readonly addRawNotificationHandler: (
    method: string,
    handler: (event: Protocol.ServerNotification) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Calls a handler within the read batch with each request of the server, until the scope closes. */
  readonly addReceivedHandler: (
    handler: (request: IncomingRequest, batch: ReadBatch) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Calls a handler with each request of the server that this or another client has responded to, until the scope closes. */
  readonly addSettledHandler: (
    handler: (request: IncomingRequest) => void
  ) => Effect.Effect<void, never, Scope.Scope>
  /** Runs a handler after each restart, before other requests are sent, until the scope closes. */
  readonly addRestartHandler: (handler: RestartHandler) => Effect.Effect<void, never, Scope.Scope>
}

/** Makes the notification that stands for those that were lost in a restart. */
const restartedNotification = (restarts: number, cause: AppServerError): Protocol.UnrecognizedNotification => ({
  method: "effect-codex/restarted" as Protocol.Unrecognized,
  params: { restarts, cause: cause.message }
})

/** Adds a value to a set, until the scope closes. */
const addScoped = <A>(set: Set<A>, value: A): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => set.add(value)),
    () => Effect.sync(() => set.delete(value))
  )

/** Calls a function, and the function that it returns when the scope closes. */
const registerScoped = (add: () => () => void): Effect.Effect<void, never, Scope.Scope> =>
  Effect.acquireRelease(Effect.sync(add), (remove) => Effect.sync(remove))

const makeHandle = (router: Router): PublicConnection["handle"] => (method, handler) =>
  Effect.flatMap(
    handlerContext<never>(),
    (context) =>
      registerScoped(() =>
        router.addRequestHandler(
          method,
          (params) => provideHandlerContext(context, () => handler(params as never) as Effect.Effect<unknown, unknown>)
        )
      )
  )

/** Makes the members of a connection that register handlers, and the sets of the handlers that the router does not store. */
const makeRegistrations = (router: Router) => {
  const restartHandlers = new Set<RestartHandler>()
  const receivedHandlers = new Set<(request: IncomingRequest, batch: ReadBatch) => void>()
  const settledHandlers = new Set<(request: IncomingRequest) => void>()
  const members = {
    handle: makeHandle(router),
    addThreadListener: (threadId, listener) => router.addThreadListener(threadId, listener),
    addNotificationHandler: (method, handler) =>
      registerScoped(() =>
        router.addNotificationHandler(method, (event, batch) => {
          if (event.method === method) handler((event as Protocol.Notification<typeof method>).params, batch)
        })
      ),
    addRawNotificationHandler: (method, handler) =>
      registerScoped(() => router.addNotificationHandler(method, handler)),
    addReceivedHandler: (handler) => addScoped(receivedHandlers, handler),
    addSettledHandler: (handler) => addScoped(settledHandlers, handler),
    addRestartHandler: (handler) => addScoped(restartHandlers, handler)
  } satisfies Partial<ServerConnection>
  return { restartHandlers, receivedHandlers, settledHandlers, members }
}

/** Sends the messages of a peer to the router. */
const routeMessages = (
  router: Router,
  { receivedHandlers, settledHandlers }: Pick<
    ReturnType<typeof makeRegistrations>,
    "receivedHandlers" | "settledHandlers"
  >
): Omit<PeerOptions, "maxInFlight" | "maxPermitHold" | "onClose" | "onRequest"> => ({
  tryLine: router.tryLine,
  onNotification: router.onNotification,
  onReceived: (request, batch) => {
    for (const handler of receivedHandlers) handler(request, batch)
  },
  onSettled: (request) => {
    for (const handler of settledHandlers) handler(request)
  },
  cancellation,
  canceledResponse: ({ method }) => fallbackResponse(method, "canceled").response,
  replayMethod: "thread/resume"
})

/** Runs the restart handlers on a new connection. Fails, and closes the connection, if it ends meanwhile. */
const recover = (
  connection: OpenConnection,
  client: ServerClient,
  handlers: ReadonlySet<RestartHandler>,
  sharedRequests: SharedRequests
): Effect.Effect<void, AppServerError> =>
  Effect.raceFirst(
    Effect.forEach(handlers, (handler) => handler(client, connection.isShared), {
      concurrency: "unbounded",
      discard: true
    }),
    Effect.flatMap(connection.awaitClosed, Effect.fail)
  ).pipe(
    Effect.andThen(Effect.suspend(() => sharedRequests.retain(connection.peer.pendingServerRequests()))),
    Effect.onError(() => connection.close)
  )

const loginCheckRequest = (now: number, timeoutMillis: number): Request =>
  new Request({
    method: loginCheck.method,
    params: "{}",
    deadline: now + timeoutMillis,
    timeoutMillis,
    bypassLimit: true,
    reservedId: loginCheck.id,
    onSend: undefined
  })

const requireOptions = (options: Options): Effect.Effect<void, AppServerError> => {
  const issue = optionIssue(connectionKinds satisfies Kinds<Options>, options, transportNames)
  return issue === undefined
    ? Effect.void
    : Effect.fail(appServerError(new InvalidRequest({ method: "initialize", description: issue })))
}

/** Makes the function that ends all listeners, subscriptions and waits, because the connection has ended without another one. */
const makeClose = (router: Router, states: ConnectionStates) => (cause: AppServerError, batch: ReadBatch): void => {
  if (states.current._tag === "Closed") return
  router.close(cause, batch)
  states.close(cause, batch)
}

/** Makes the function that counts and publishes a restart. */
const makeOnRestart = (router: Router, known: KnownServer) =>
  Effect.map(Effect.context<never>(), (context) => (restarts: number, cause: AppServerError): void => {
    countRestart(known.isShared, context)
    router.publish(restartedNotification(restarts, cause), syncBatch)
  })

/** Makes the effect that checks the login on the current connection. */
const makeCheckLogin = (states: ConnectionStates, clock: Clock.Clock, timeoutMillis: number) =>
  Effect.flatMap(
    states.acquirePeer,
    (peer) => peer.request(loginCheckRequest(clock.currentTimeMillisUnsafe(), timeoutMillis))
  )

/** Connects over the transport and initializes the server. */
export const makeServerConnection = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<
  ServerConnection,
  AppServerError,
  Transport | Scope.Scope
> {
  yield* requireOptions(options)
  const { experimentalApi = true, maxInFlight = 128, restart = false } = options
  const clock = yield* Clock.Clock
  // The parent of the scope of each connection. It closes after the finalizers below have run.
  const scope = yield* Scope.fork(yield* Effect.scope)
  const states = yield* ConnectionStates.make
  const requestTimeout = Duration.fromInputUnsafe(options.requestTimeout ?? Duration.seconds(60))
  const defaultTimeoutMillis = Duration.toMillis(requestTimeout)
  const known = new KnownServer()
  const router = new Router()
  const sharedRequests = yield* SharedRequests.make
  const { members, restartHandlers, ...requestHandlers } = makeRegistrations(router)
  logWarnings(router, known.redact, known.isExpected)

  const target = { defaultTimeoutMillis, withVersions: known.withVersions }
  const clientFor = (peer: Peer) =>
    makeClient(clock, { ...target, peer: () => peer, acquirePeer: Effect.succeed(peer), reconnects: () => false })

  const close = makeClose(router, states)

  const peerOptions: PeerOptions = {
    ...routeMessages(router, requestHandlers),
    maxInFlight,
    maxPermitHold: defaultTimeoutMillis,
    onRequest: (request) =>
      known.isShared && restart !== false
        ? sharedRequests.handle(request, router.onRequest(request), () => states.peer !== undefined)
        : router.onRequest(request),
    onClose: (error, batch) => {
      if (restart === false) close(error, batch)
      else if (states.peer !== undefined) states.restart(error, batch)
    }
  }

  const handshake = makeHandshake(options)
  const open = openConnection(yield* Transport, scope, peerOptions, (peer, connection) => {
    known.connected(connection)
    return Effect.tap(
      handshake(peer, clientFor(peer), known.redact),
      (metadata) => Effect.sync(() => known.initialized(metadata))
    )
  })

  const first = yield* Effect.tap(open, (connection) => states.use(connection) ?? Effect.void)

  if (restart !== false) {
    yield* Effect.forkScoped(
      supervise(first, {
        schedule: restart,
        states,
        reopen: Effect.tap(
          open,
          (connection) => recover(connection, clientFor(connection.peer), restartHandlers, sharedRequests)
        ),
        onRestart: yield* makeOnRestart(router, known),
        onExhausted: (error) => close(error, syncBatch)
      }).pipe(Effect.andThen(sharedRequests.retain([])))
    )
    // Pending requests fail at once, and not after the process has ended.
    yield* Effect.addFinalizer(() => Effect.sync(() => close(scopeClosed(), syncBatch)))
  }

  return {
    metadata: first.metadata,
    requestTimeout,
    experimentalApi,
    isShared: known.isShared,
    ...makeClient(clock, {
      ...target,
      peer: () => states.peer,
      acquirePeer: states.acquirePeer,
      reconnects: () => restart !== false && states.current._tag !== "Closed"
    }),
    acquireClient: Effect.map(states.acquirePeer, clientFor),
    state: Effect.sync(() => states.current),
    states: states.stream,
    notifications: fromSubscription(() => router.subscribe(), (subscription) => router.unsubscribe(subscription)),
    ...members,
    redact: known.redact,
    withoutDeprecation: known.withoutDeprecation,
    checkLogin: makeCheckLogin(states, clock, defaultTimeoutMillis),
    pendingServerRequests: () => states.peer?.pendingServerRequests() ?? []
  }
})
