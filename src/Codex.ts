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
import * as Predicate from "effect/Predicate"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ApprovalOptions, SandboxConflictError } from "./ApprovalMode.ts"
import type * as Approvals from "./Approvals.ts"
import * as AppServer from "./AppServer.ts"
import { type AppServerError, isAppServerError, make as appServerError, ThreadNotFound } from "./AppServerError.ts"
import { type HandlerOptions, provideHandlers } from "./internal/session/handlers/handlerRegistry.ts"
import {
  copyForThread,
  mergeForReopen,
  provideTools,
  toDynamicToolSpecs,
  type ToolOptions,
  withRegisteredTools
} from "./internal/session/handlers/threadTools.ts"
import { sharedBy } from "./internal/session/session.ts"
import { withoutTrust } from "./internal/session/settings/projectTrust.ts"
import { requireOptions, resolveThreadOptions } from "./internal/session/settings/resolveOptions.ts"
import { requireCwd } from "./internal/session/settings/serverPaths.ts"
import { mergeConfig } from "./internal/session/settings/threadConfig.ts"
import { fromOpened, getInstructions } from "./internal/session/settings/threadSettings.ts"
import { openKept, refuseIgnored, verifyKept, verifySettings } from "./internal/session/threads/keptSettings.ts"
import { OpenThread } from "./internal/session/threads/openThread.ts"
import { pages } from "./internal/session/threads/pages.ts"
import { requestThread } from "./internal/session/threads/responses.ts"
import { canonicalId } from "./internal/session/threads/threadId.ts"
import { orNotStored } from "./internal/session/threads/threadNotFound.ts"
import { findActive } from "./internal/session/turns/recoverTurns.ts"
import type { Metadata } from "./Metadata.ts"
import * as Protocol from "./Protocol.ts"
import type * as Questions from "./Questions.ts"
import type * as Sandbox from "./Sandbox.ts"
import * as StdioTransport from "./StdioTransport.ts"
import * as Thread from "./Thread.ts"
import type * as Tool from "./Tool.ts"

/**
 * What a thread may be given however it is opened: permissions, handlers and tools.
 *
 * @category models
 * @since 0.1.0
 */
export type OpenOptions<A, Q, T> =
  & ApprovalOptions
  & Sandbox.ThreadOptions
  & HandlerOptions<A, Q>
  & ToolOptions<T>

/**
 * What a new thread may be given: the protocol's own fields, and `approvalMode` for its approval fields. Without any of
 * those a thread has `auto_review`.
 *
 * @category models
 * @since 0.1.0
 */
export type StartOptions<
  A extends Approvals.Approver<any> = Approvals.Approver,
  Q extends Questions.Handlers<any> = Questions.Handlers,
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
  A extends Approvals.Approver<any> = Approvals.Approver,
  Q extends Questions.Handlers<any> = Questions.Handlers,
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
  A extends Approvals.Approver<any> = Approvals.Approver,
  Q extends Questions.Handlers<any> = Questions.Handlers,
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
    const A extends Approvals.Approver<any>,
    const Q extends Questions.Handlers<any>,
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
    const A extends Approvals.Approver<any>,
    const Q extends Questions.Handlers<any>,
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
    const A extends Approvals.Approver<any>,
    const Q extends Questions.Handlers<any>,
    const T extends ReadonlyArray<Tool.Any>
  >(
    id: string,
    options?: ForkOptions<A, Q, T>
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError, HandlerServices<A, Q, T>>
  /**
   * Has handlers answer for all threads that have none of their own, for as long as the scope lives. Of several the latest
   * are asked first. `Approvals.layer` and `Questions.layer` do this as layers.
   */
  readonly handle: (handlers: {
    readonly approvals?: Approvals.Policy | undefined
    readonly questions?: Questions.Handlers | undefined
  }) => Effect.Effect<void, never, Scope.Scope>
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

const make = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const { audit, open, registry, threads } = yield* sharedBy(server)
  const { records } = threads

  const handleOf = (thread: OpenThread): Thread.Thread => {
    threads.hold(thread)
    return Thread.make({ session: { server, open, registry }, threads, thread })
  }

  const withVersions = <A, E, R>(effect: Effect.Effect<A, E | AppServerError, R>) =>
    Effect.mapError(effect, (error) => isAppServerError(error) ? server.withVersions(error) : error)

  /** Resumes or forks a thread. What the program had given to it holds on, where it is not given anew. */
  const reopen = (method: "thread/resume" | "thread/fork") =>
    Effect.fnUntraced(function*(threadId: string, options: ResumeOptions & ForkOptions = {}) {
      yield* requireOptions(method, options)
      const id = canonicalId(threadId)
      const { approvals, questions, toolConcurrency, tools: given, ...rest } = options
      const handlers = yield* provideHandlers({ approvals, questions }, method)
      const tools = yield* provideTools(server, method, { toolConcurrency, tools: given })
      const fields = yield* resolveThreadOptions(method, rest)
      // A path or a history is opened instead of the thread with the id.
      const isOther = Predicate.isNotNullish(rest.path) || Predicate.isNotNullish(rest.history)
      const known = isOther ? undefined : records.get(id)
      yield* requireCwd(server, method, fields.cwd)
      if (method === "thread/resume") {
        yield* refuseIgnored(server, id, known?.config, threads.get(id)?.instructions, fields)
      }
      const before = registry.getThread(id)
      const now = {
        handlers: {
          approvals: handlers.approvals ?? before?.handlers.approvals,
          questions: handlers.questions ?? before?.handlers.questions
        },
        tools: tools ?? before?.tools
      }
      // The server replays what a resumed thread still waits for.
      if (method === "thread/resume") registry.setThread(id, now)
      return yield* records.collect(Effect.fnUntraced(function*(updates) {
        const response = yield* Effect.catch(
          openKept(server, method, id, known, fields),
          (error) => {
            // The server has loaded the thread with other settings.
            if (method === "thread/resume" && error.reason._tag === "SettingsNotApplied") known?.unload()
            return orNotStored(server, error)
          }
        )
        const { forkedFromId, id: openedId } = response.thread
        const otherId = method === "thread/fork" ? forkedFromId : openedId
        const other = isOther && Predicate.isString(otherId) ? records.get(otherId) : undefined
        if (other !== undefined) {
          yield* Effect.onError(
            verifyKept(method, openedId, other, fields, fromOpened(response)),
            () => Effect.sync(() => records.get(openedId)?.unload())
          )
        }
        const record = records.note(response, updates, mergeConfig((known ?? other)?.config, fields.config))
        const instructions = { ...threads.get(id)?.instructions, ...getInstructions(fields) }
        const thread = new OpenThread(openedId, record, records, instructions)
        if (method === "thread/resume") yield* findActive(server, open, response)
        else open.usages.forgetTotals(response.thread.id)
        registry.setThread(response.thread.id, {
          ...now,
          tools: tools !== undefined
            ? yield* mergeForReopen(server, method, id, tools, before?.tools, response)
            : method === "thread/fork"
            ? before?.tools && copyForThread(before.tools)
            : before?.tools
        })
        return handleOf(thread)
      })).pipe(
        Effect.onError(() =>
          Effect.sync(() => {
            // Whoever resumes it at the same time may have set others meanwhile.
            if (method === "thread/resume" && registry.getThread(id) === now) {
              registry.setThread(id, before ?? { handlers: {}, tools: undefined })
            }
          })
        )
      )
    }, withVersions)

  const listOf = <Options extends object, A>(
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
    handle: (handlers) => registry.add(handlers),
    approvals: audit,
    startThread: Effect.fn("Codex.startThread")(function*(options: StartOptions = {}) {
      yield* requireOptions("thread/start", options)
      const { approvals, questions, toolConcurrency, tools: given, ...rest } = options
      const handlers = yield* provideHandlers({ approvals, questions }, "thread/start")
      const tools = yield* provideTools(server, "thread/start", { toolConcurrency, tools: given })
      const resolved = yield* resolveThreadOptions("thread/start", withDefaultMode(rest))
      yield* requireCwd(server, "thread/start", resolved.cwd)
      const fields = yield* withoutTrust(server, resolved)
      return yield* records.collect(Effect.fnUntraced(function*(updates) {
        const response = yield* requestThread(
          server,
          "thread/start",
          tools === undefined
            ? fields
            : { ...fields, dynamicTools: [...fields.dynamicTools ?? [], ...toDynamicToolSpecs(tools)] }
        )
        const { id } = response.thread
        yield* verifySettings("thread/start", id, fields, fromOpened(response))
        registry.setThread(id, {
          handlers,
          tools: tools && withRegisteredTools(tools, fields.dynamicTools ?? [])
        })
        const record = records.note(response, updates, mergeConfig(fields.config))
        return handleOf(new OpenThread(id, record, records, getInstructions(fields)))
      }))
    }, withVersions) as Codex["Service"]["startThread"],
    resumeThread: Effect.fn("Codex.resumeThread")(reopen("thread/resume")) as Codex["Service"]["resumeThread"],
    forkThread: Effect.fn("Codex.forkThread")(reopen("thread/fork")) as Codex["Service"]["forkThread"],
    listThreads: (options = {}) =>
      listOf("thread/list", options, (options) => ({
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
        // The writer is this server.
        return reason._tag === "ThreadLocked" && records.get(threadId)?.isOpen(records.restarts) === true
          ? appServerError(
            new ThreadNotFound({ method: reason.method, threadId, state: "notArchived", cause: reason.cause })
          )
          : error
      })
    }),
    models: (options = {}) => listOf("model/list", options, identity, Protocol.Model)
  })
})

/** The sources of threads that are not those of sub-agents. The server lists only interactive ones by itself. */
const listedSources: ReadonlyArray<Protocol.ThreadSourceKind> = ["cli", "vscode", "exec", "appServer", "unknown"]

const withDefaultMode = (options: StartOptions): StartOptions =>
  options.approvalMode === undefined && options.approvalPolicy === undefined && options.approvalsReviewer === undefined
    ? { ...options, approvalMode: "auto_review", approvalPolicy: undefined, approvalsReviewer: undefined }
    : options

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
export const layer: Layer.Layer<Codex, never, AppServer.AppServer> = Layer.fresh(Layer.effect(Codex, make))

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
  Codex | AppServer.AppServer,
  AppServerError,
  ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> =>
  layer.pipe(
    Layer.provideMerge(AppServer.layer(options)),
    Layer.provide(StdioTransport.layer(options))
  )
