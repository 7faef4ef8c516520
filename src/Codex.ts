/**
 * The front door: open threads, find stored ones, list models.
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
import * as RcRef from "effect/RcRef"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { SandboxConflictError } from "./ApprovalMode.ts"
import * as AppServer from "./AppServer.ts"
import { type AppServerError, isAppServerError, make as appServerError, ThreadNotFound } from "./AppServerError.ts"
import type * as Approvals from "./internal/approvals/model.ts"
import type * as Questions from "./internal/questions/model.ts"
import { contextHandlers } from "./internal/session/handlers/handlers.ts"
import type { OpenOptions } from "./internal/session/openOptions.ts"
import { reopenThread } from "./internal/session/reopenThread.ts"
import { Session } from "./internal/session/session.ts"
import { requireOptions } from "./internal/session/settings/resolveOptions.ts"
import { startThread } from "./internal/session/startThread.ts"
import { pages } from "./internal/session/threads/pages.ts"
import { canonicalId } from "./internal/session/threads/threadId.ts"
import type { Metadata } from "./Metadata.ts"
import * as Protocol from "./Protocol.ts"
import * as StdioTransport from "./StdioTransport.ts"
import * as Thread from "./Thread.ts"
import type * as Tool from "./Tool.ts"

export type { OpenOptions } from "./internal/session/openOptions.ts"

/**
 * What a new thread may be given: the protocol's own fields, and `approvalMode` for its approval fields. Without any of
 * those a thread has `auto_review`.
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
 * What may be changed of a thread as it is resumed. A thread that is loaded already keeps its settings, and asking for
 * others fails with `SettingsNotApplied`. `tools` says again who runs the tools that the thread was started with; others
 * fail with `ToolsNotApplied`. What is left out of `approvals`, `questions` and `tools` stays as this program gave it.
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
 * What may differ in the copy of a thread. It has the tools of the original; `tools` says who runs them, and others fail with
 * `ToolsNotApplied`. What is left out of `approvals`, `questions` and `tools` is as this program gave it to the original.
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
 * Which threads to list, and in what order. `limit` is how many are asked for at once.
 *
 * **Details**
 *
 * Without `modelProviders` the threads of every model provider are listed, and without `sourceKinds` those of every source but
 * sub-agents: of the terminal, of editors, of `codex exec` and of app-server clients. `archived: true` lists archived threads instead.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListOptions extends Protocol.ThreadListOptions {}

/**
 * Which models to list. `limit` is how many are asked for at once.
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
 * Codex, as a service.
 *
 * @category services
 * @since 0.1.0
 */
export class Codex extends Context.Service<Codex, {
  /** Who the server is. */
  readonly metadata: Metadata
  /**
   * Opens a new thread. Until its first turn it exists in this process only. The services that `approvals`, `questions` and
   * `tools` need are taken from here, and are used for as long as the connection lives.
   */
  readonly startThread: <
    const A extends Approvals.Approver<unknown>,
    const Q extends Questions.Handlers<unknown>,
    const T extends ReadonlyArray<Tool.Any>
  >(
    options?: StartOptions<A, Q, T>
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError, HandlerServices<A, Q, T>>
  /**
   * Opens a stored thread to go on with it.
   *
   * **Details**
   *
   * A thread that this `AppServer` has opened before keeps its permissions and its `config`, unless the options give others. Any other
   * thread has what the server gives it, mostly the permissions of `config.toml`: give `sandbox` and `approvalMode`, or read
   * `thread.settings` before the first turn.
   *
   * **Gotchas**
   *
   * Fails with `SettingsNotApplied` if the thread has other settings than the options ask for, as one has that is loaded already.
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
   * Opens a copy of a stored thread, which from then on goes its own way.
   *
   * **Details**
   *
   * The copy of a thread that this `AppServer` has opened has the permissions, the model, effort, service tier and `config` of the original,
   * unless the options give others. Any other copy has those of `config.toml`.
   *
   * **Gotchas**
   *
   * Fails with `SettingsNotApplied` if the copy has other settings. It stays open on the server then; archive it by its id.
   */
  readonly forkThread: <
    const A extends Approvals.Approver<unknown>,
    const Q extends Questions.Handlers<unknown>,
    const T extends ReadonlyArray<Tool.Any>
  >(
    id: string,
    options?: ForkOptions<A, Q, T>
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError, HandlerServices<A, Q, T>>
  /** What Codex has asked for and what became of it, from the moment the stream is run; see `Approvals.audit`. */
  readonly approvals: Stream.Stream<Approvals.AuditEntry>
  /**
   * The stored threads, whichever program started them, newest first by default. Pages are fetched as the stream is pulled.
   *
   * **Gotchas**
   *
   * Threads without a turn and ephemeral threads are not stored. Archived threads and the threads of sub-agents are left out; the
   * options `archived` and `sourceKinds` list those.
   */
  readonly listThreads: (options?: ListOptions) => Stream.Stream<Protocol.Thread, AppServerError>
  /** Takes a thread out of the list and unloads it. */
  readonly archiveThread: (id: string) => Effect.Effect<void, AppServerError>
  /** Puts an archived thread back into the list; resume it to go on with it. */
  readonly unarchiveThread: (id: string) => Effect.Effect<void, AppServerError>
  /** The models that can be asked for. Pages are fetched as the stream is pulled. */
  readonly models: (options?: ModelOptions) => Stream.Stream<Protocol.Model, AppServerError>
}>()("effect-codex/Codex") {}

/** The sources of all threads but those of sub-agents. By itself the server lists only interactive ones. */
const listedSources: ReadonlyArray<Protocol.ThreadSourceKind> = ["cli", "vscode", "exec", "appServer", "unknown"]

const make = Effect.gen(function*() {
  const session = yield* RcRef.get(yield* Session)
  const layerHandlers = yield* contextHandlers
  yield* session.handlers.addLayer(layerHandlers)
  const { records, server } = session

  const withVersions = <A, E, R>(effect: Effect.Effect<A, E | AppServerError, R>) =>
    Effect.mapError(effect, (error) => isAppServerError(error) ? server.withVersions(error) : error)

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
      function*(options?: StartOptions) {
        return Thread.make(session, yield* startThread(session, layerHandlers, options))
      },
      withVersions
    ) as Codex["Service"]["startThread"],
    resumeThread: Effect.fn("Codex.resumeThread")(
      function*(id: string, options?: ResumeOptions) {
        return Thread.make(session, yield* reopenThread(session, layerHandlers, "thread/resume", id, options))
      },
      withVersions
    ) as Codex["Service"]["resumeThread"],
    forkThread: Effect.fn("Codex.forkThread")(
      function*(id: string, options?: ForkOptions) {
        return Thread.make(session, yield* reopenThread(session, layerHandlers, "thread/fork", id, options))
      },
      withVersions
    ) as Codex["Service"]["forkThread"],
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
        // This server itself is the writer of a thread that is open.
        return reason._tag === "ThreadLocked" && records.get(threadId)?.isOpen(records.generation) === true
          ? appServerError(
            new ThreadNotFound({ method: reason.method, threadId, state: "notArchived", cause: reason.cause })
          )
          : error
      })
    }),
    models: (options = {}) => list("model/list", options, identity, Protocol.Model)
  })
})

/**
 * Codex on any {@link AppServer.AppServer}, and so on any transport.
 *
 * It is built anew for each `AppServer` that it is provided with, also where programs with different servers are nested.
 *
 * **Details**
 *
 * It checks the login once for each `AppServer`, in the background: if the model provider needs an OpenAI login and there is none, a
 * warning in the log says what to do. A program that logs in itself, with `account/login/start`, does so on an `AppServer` before it
 * builds this layer, or ignores the warning.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Codex, never, AppServer.Session> = Layer.fresh(Layer.effect(Codex, make))

/**
 * How `layerStdio` starts the process and connects to it.
 *
 * @category models
 * @since 0.1.0
 */
export interface StdioOptions extends StdioTransport.Options, AppServer.Options {}

/**
 * Codex on a `codex app-server` process of its own, which lives as long as the layer. Provide the platform's
 * services, on Node.js, Bun and Deno with `NodeServices.layer`.
 *
 * **Gotchas**
 *
 * An option under an unknown name, or with a value of another kind, fails with `InvalidRequest` before anything is started.
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
