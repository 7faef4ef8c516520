/**
 * The entry point of this package: opens threads, lists stored threads, and lists models.
 *
 * **Example** (Running one turn)
 *
 * ```ts
 * import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import { Console, Effect } from "effect"
 * import { Codex } from "effect-codex"
 *
 * const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ sandbox: "read-only" })
 *   const result = yield* thread.run("What does this project do?")
 *   yield* Console.log(result.finalResponse)
 * })
 *
 * program.pipe(
 *   Effect.provide(Codex.layerStdio()),
 *   Effect.provide(NodeServices.layer),
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as Schema from "effect/Schema"
import type { WebSocketConstructor } from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import type { SandboxConflictError } from "./ApprovalMode.ts"
import * as AppServer from "./AppServer.ts"
import { type AppServerError, isAppServerError, make as appServerError, ThreadNotFound } from "./AppServerError.ts"
import type * as Approvals from "./internal/approvals/model.ts"
import type * as Questions from "./internal/questions/model.ts"
import { CurrentBudget } from "./internal/session/budget/budgetState.ts"
import { contextHandlers } from "./internal/session/handlers/handlers.ts"
import type { OpenOptions } from "./internal/session/openOptions.ts"
import { watchRateLimits } from "./internal/session/rateLimits.ts"
import { reopenThread } from "./internal/session/reopenThread.ts"
import { Session } from "./internal/session/session.ts"
import { requireOptions } from "./internal/session/settings/resolveOptions.ts"
import { startThread } from "./internal/session/startThread.ts"
import type { OpenThread } from "./internal/session/threads/openThread.ts"
import { pages } from "./internal/session/threads/pages.ts"
import { canonicalId } from "./internal/session/threads/threadId.ts"
import type { Metadata } from "./Metadata.ts"
import * as Protocol from "./Protocol.ts"
import type { RateLimits } from "./RateLimits.ts"
import * as SocketTransport from "./SocketTransport.ts"
import * as StdioTransport from "./StdioTransport.ts"
import * as Thread from "./Thread.ts"
import type * as Tool from "./Tool.ts"
import type { Transport } from "./Transport.ts"

export type { OpenOptions } from "./internal/session/openOptions.ts"

/**
 * The options of a new thread: fields of the protocol, permissions, handlers and tools.
 *
 * **Details**
 *
 * Without `approvalMode`, `approvalPolicy` and `approvalsReviewer` a thread has the mode `auto_review`.
 *
 * @category models
 * @since 0.1.0
 */
export type StartOptions<
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers,
  T extends ReadonlyArray<Tool.Any> = ReadonlyArray<Tool.Tool>
> =
  & Protocol.ThreadStartOptions
  & OpenOptions<A, Q, T>

/**
 * The options of a thread that is resumed: fields of the protocol, permissions, handlers and tools.
 *
 * **Details**
 *
 * `tools` provides the handlers of the tools that the thread was started with. Omitted `approvals`, `questions` and `tools` stay as this
 * program passed them before.
 *
 * **Gotchas**
 *
 * A thread that the server has loaded keeps its settings, and other settings fail with `SettingsNotApplied`. Tools that the thread
 * does not have fail with `ToolsNotApplied`.
 *
 * @category models
 * @since 0.1.0
 */
export type ResumeOptions<
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers,
  T extends ReadonlyArray<Tool.Any> = ReadonlyArray<Tool.Tool>
> =
  & Protocol.ThreadResumeOptions
  & OpenOptions<A, Q, T>

/**
 * The options of a copy of a thread: fields of the protocol, permissions, handlers and tools.
 *
 * **Details**
 *
 * `tools` provides the handlers of the tools of the original. Omitted `approvals`, `questions` and `tools` are those that this program
 * passed to the original.
 *
 * **Gotchas**
 *
 * Tools that the original does not have fail with `ToolsNotApplied`.
 *
 * @category models
 * @since 0.1.0
 */
export type ForkOptions<
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers,
  T extends ReadonlyArray<Tool.Any> = ReadonlyArray<Tool.Tool>
> =
  & Protocol.ThreadForkOptions
  & OpenOptions<A, Q, T>

/**
 * The filters and the order of a list of threads. `limit` is the size of a page.
 *
 * **Details**
 *
 * Without `modelProviders` the list contains the threads of every model provider. Without `sourceKinds` it contains the threads of every
 * source except sub-agents: the terminal, editors, `codex exec` and app-server clients. `archived: true` lists archived threads instead.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions extends Protocol.ThreadListOptions {}

/**
 * The filters of a list of models. `limit` is the size of a page.
 *
 * @category models
 * @since 0.1.0
 */
export interface ModelOptions extends Protocol.ModelListOptions {}

/**
 * The services that the handlers and tools of a thread need.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerServices<A, Q, T extends ReadonlyArray<Tool.Any>> =
  | Approvals.Services<A>
  | Questions.Services<Q>
  | Tool.Services<T[number]>

/**
 * The service that opens threads and lists threads and models.
 *
 * @category services
 * @since 0.1.0
 */
export class Codex extends Context.Service<Codex, {
  /** The name, version and platform of the server. */
  readonly metadata: Metadata
  /**
   * Starts a thread.
   *
   * **Details**
   *
   * `approvals`, `questions` and `tools` use the services of the current context until the thread or the connection closes.
   *
   * **Gotchas**
   *
   * The server stores a thread with its first turn. Until then the thread exists in the server process only.
   */
  readonly startThread: <
    const A extends Approvals.Approver<unknown>,
    const Q extends Questions.Handlers<unknown>,
    const T extends ReadonlyArray<Tool.Any>
  >(
    options?: StartOptions<A, Q, T>
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError, HandlerServices<A, Q, T>>
  /**
   * Opens a stored thread to continue it.
   *
   * **Details**
   *
   * A thread that this `AppServer` opened before keeps its permissions and its `config`, unless the options set others.
   *
   * **Gotchas**
   *
   * Any other thread has the permissions that the server applies, usually those of `config.toml`. Pass `sandbox` and `approvalMode`, or
   * check `thread.settings` before the first turn.
   *
   * Fails with `SettingsNotApplied` if the thread has other settings than the options, because the server has loaded it already.
   */
  readonly resumeThread: <
    const A extends Approvals.Approver<unknown>,
    const Q extends Questions.Handlers<unknown>,
    const T extends ReadonlyArray<Tool.Any>
  >(
    id: string,
    options?: ResumeOptions<A, Q, T>
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError, HandlerServices<A, Q, T>>
  /**
   * Copies a stored thread and opens the copy. Later turns of one do not affect the other.
   *
   * **Details**
   *
   * If this `AppServer` opened the original, the copy has its permissions, model, effort, service tier and `config`, unless the options set
   * others. Any other copy has those of `config.toml`.
   *
   * **Gotchas**
   *
   * Fails with `SettingsNotApplied` if the copy has other settings. The copy then stays open on the server; archive it by its id.
   */
  readonly forkThread: <
    const A extends Approvals.Approver<unknown>,
    const Q extends Questions.Handlers<unknown>,
    const T extends ReadonlyArray<Tool.Any>
  >(
    id: string,
    options?: ForkOptions<A, Q, T>
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError, HandlerServices<A, Q, T>>
  /** Emits every request for approval and its outcome, from the moment the stream is run; see `Approvals.audit`. */
  readonly approvals: Stream.Stream<Approvals.AuditEntry>
  /**
   * Lists the stored threads of all programs, newest first by default. Pages are requested as the stream is pulled.
   *
   * **Gotchas**
   *
   * Threads without a turn and ephemeral threads are not stored. The options `archived` and `sourceKinds` list archived threads and the
   * threads of sub-agents, which are omitted by default.
   */
  readonly listThreads: (options?: ListOptions) => Stream.Stream<Protocol.Thread, AppServerError>
  /** Archives a thread, which removes it from the list, and unloads it. */
  readonly archiveThread: (id: string) => Effect.Effect<void, AppServerError>
  /** Restores an archived thread to the list. Resume it to continue it. */
  readonly unarchiveThread: (id: string) => Effect.Effect<void, AppServerError>
  /** Lists the available models. Pages are requested as the stream is pulled. */
  readonly models: (options?: ModelOptions) => Stream.Stream<Protocol.Model, AppServerError>
  /**
   * The rate limits of the account: the current ones, and then each change.
   *
   * **When to use**
   *
   * Show how much of a limit is used. To retry a turn after an exceeded limit resets, pass `RateLimits.afterReset(codex)` to
   * `Effect.retry`.
   *
   * **Details**
   *
   * Each run reads the limits, and merges the updates that the server sends with its model requests. It reads them again when the login
   * changes, and with `restart` when the server was restarted. A slow subscriber skips to the newest limits.
   *
   * **Gotchas**
   *
   * Only a ChatGPT login has rate limits. Without one, the stream fails with `LoginRequired`. It fails in the same way when the account
   * logs out.
   *
   * The server reports only the usage of its own turns. Run the stream again to see what other programs have used.
   */
  readonly rateLimits: Stream.Stream<RateLimits, AppServerError>
}>()("effect-codex/Codex") {}

type AnyApprover = Approvals.Approver<unknown>
type AnyQuestions = Questions.Handlers<unknown>
type AnyTools = ReadonlyArray<Tool.Any>

/** The sources of all threads except sub-agents. By default the server lists only threads of interactive sources. */
const listedSources: ReadonlyArray<Protocol.ThreadSourceKind> = ["cli", "vscode", "exec", "appServer", "unknown"]

const make = Effect.gen(function*() {
  const session = yield* Effect.flatMap(Session, ({ acquire }) => acquire)
  const layerHandlers = yield* contextHandlers
  yield* session.handlers.addLayer(layerHandlers)
  const { records, server } = session

  const withVersions = <A, E, R>(effect: Effect.Effect<A, E | AppServerError, R>) =>
    Effect.mapError(effect, (error) => isAppServerError(error) ? server.withVersions(error) : error)

  const open = <E, R>(opening: Effect.Effect<OpenThread, E, R>) =>
    Effect.zipWith(CurrentBudget, opening, (budget, thread) => {
      // The server may continue a goal of the thread.
      session.budgets.enroll(budget, thread.id)
      return Thread.make(session, thread)
    })

  const list = <Options extends object, A>(
    method: string,
    options: Options,
    params: (options: Options) => object,
    schema: Schema.Codec<A>
  ) =>
    Stream.unwrap(
      Effect.map(requireOptions(method, options), () => pages(server, method, params(options), schema))
    )

  return Codex.of({
    metadata: server.metadata,
    approvals: session.audit,
    startThread: Effect.fn("Codex.startThread")(
      function*(options?: StartOptions<AnyApprover, AnyQuestions, AnyTools>) {
        return yield* open(startThread(session, layerHandlers, options))
      },
      withVersions
    ),
    resumeThread: Effect.fn("Codex.resumeThread")(
      function*(id: string, options?: ResumeOptions<AnyApprover, AnyQuestions, AnyTools>) {
        return yield* open(reopenThread(session, layerHandlers, "thread/resume", id, options))
      },
      withVersions
    ),
    forkThread: Effect.fn("Codex.forkThread")(
      function*(id: string, options?: ForkOptions<AnyApprover, AnyQuestions, AnyTools>) {
        return yield* open(reopenThread(session, layerHandlers, "thread/fork", id, options))
      },
      withVersions
    ),
    listThreads: (options = {}) =>
      list("thread/list", options, (options) => ({
        ...options,
        modelProviders: options.modelProviders ?? [],
        sourceKinds: options.sourceKinds ?? listedSources
      }), Protocol.Thread),
    archiveThread: Effect.fn("Codex.archiveThread")(function*(id) {
      yield* server.request("thread/archive", { threadId: canonicalId(id) })
    }),
    unarchiveThread: Effect.fn("Codex.unarchiveThread")(function*(id) {
      const threadId = canonicalId(id)
      yield* Effect.mapError(server.request("thread/unarchive", { threadId }), (error) => {
        const { reason } = error
        // If this server has the thread open, the thread is not locked by another process.
        return reason._tag === "ThreadLocked" && records.get(threadId)?.isOpen(records.generation) === true
          ? appServerError(
            new ThreadNotFound({ method: reason.method, threadId, state: "notArchived", cause: reason.cause })
          )
          : error
      })
    }),
    models: (options = {}) => list("model/list", options, identity, Protocol.Model),
    rateLimits: watchRateLimits(server)
  })
})

/**
 * Provides Codex on any {@link AppServer.AppServer}, and so on any transport.
 *
 * **Details**
 *
 * The layer is not memoized: each `AppServer` has its own `Codex`, also in nested programs.
 *
 * It checks the login once for each `AppServer`, in the background. If the model provider needs an OpenAI login that is missing, a
 * warning in the log contains the remedy.
 *
 * **Gotchas**
 *
 * A program that logs in itself, with `account/login/start`, does so on an `AppServer` before it builds this layer, or ignores the
 * warning.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Codex, never, AppServer.Session> = Layer.fresh(Layer.effect(Codex, make))

/**
 * The options of {@link layerStdio}: those of the process and those of the connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface StdioOptions extends StdioTransport.Options, AppServer.Options {}

/**
 * Provides Codex on a `codex app-server` process that it starts. The process exits when the scope of the layer closes.
 *
 * **Details**
 *
 * Provide the services of the platform: on Node.js, Bun and Deno with `NodeServices.layer`.
 *
 * An option with an unknown name, or with a value of the wrong kind, fails with `InvalidRequest` before the process starts.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStdio = (
  options?: StdioOptions
): Layer.Layer<
  Codex | AppServer.AppServer | AppServer.Session,
  AppServerError,
  ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> =>
  layer.pipe(
    Layer.provideMerge(AppServer.layer(options)),
    Layer.provide(StdioTransport.layer(options))
  )

/**
 * The options of {@link layerWebSocket} and {@link layerUnixSocket}: those of the socket and those of the connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface SocketOptions extends SocketTransport.Options, AppServer.Options {
  /**
   * Whether to connect again after the socket was lost. `true` connects up to five times in a row with exponential backoff; pass a
   * schedule for other delays. The schedule starts over after a connection has lasted a minute.
   *
   * **Details**
   *
   * The server continues meanwhile. After the reconnect, turns that still run are joined again, and turns that have ended have their
   * result. All threads are opened again, with the settings that they had, and the server repeats the requests that wait for a response.
   *
   * During a reconnect the state is `Starting`, and requests wait within their timeout. Requests that were in flight are retried if they
   * are idempotent; others fail with `ConnectionClosed`. When the schedule has ended, every operation fails with `RestartsExhausted`.
   *
   * @default true
   */
  readonly restart?: AppServer.Options["restart"]
}

const layerSocket = (
  transport: Layer.Layer<Transport, never, WebSocketConstructor>,
  options: SocketOptions | undefined
) =>
  layer.pipe(
    Layer.provideMerge(AppServer.layer({ ...options, restart: options?.restart ?? true })),
    Layer.provide(transport)
  )

/**
 * Provides Codex on a server that already runs and listens on a WebSocket. The server and its turns continue when the layer ends.
 *
 * **When to use**
 *
 * For a server that several programs share, or a server on another machine. Start it with `codex app-server --listen ws://IP:PORT`.
 *
 * **Details**
 *
 * Provide the WebSocket of the platform: on Node.js, Bun and Deno with `NodeWS.layerWebSocketConstructor` of `@effect/platform-node`.
 *
 * A lost socket is connected again; see the option `restart`. Several programs may use one thread: the server sends its requests for
 * approval to each, and the first response counts. The handlers of the others are interrupted.
 *
 * **Gotchas**
 *
 * The first connect is not retried: the layer fails with `ConnectFailed` if the server does not listen or refuses the token.
 *
 * A turn that this program started, and whose handle it releases, is interrupted. A program that must not end its turns does not close
 * their scope before they end.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWebSocket = (
  url: string,
  options?: SocketOptions
): Layer.Layer<Codex | AppServer.AppServer | AppServer.Session, AppServerError, WebSocketConstructor> =>
  layerSocket(SocketTransport.layerWebSocket(url, options), options)

/**
 * Provides Codex on a server that already runs and listens on a Unix socket of this machine. Without a path it is the default one of the
 * server, in `CODEX_HOME`.
 *
 * **Details**
 *
 * Start the server with `codex app-server --listen unix://`, or with `unix://PATH`. Everything else is as in {@link layerWebSocket}.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerUnixSocket = (
  path?: string,
  options?: SocketOptions
): Layer.Layer<Codex | AppServer.AppServer | AppServer.Session, AppServerError, WebSocketConstructor> =>
  layerSocket(SocketTransport.layerUnixSocket(path, options), options)
