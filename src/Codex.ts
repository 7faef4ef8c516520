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
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { ApprovalOptions, SandboxConflictError, ThreadFields, ThreadInput } from "./ApprovalMode.ts"
import * as AppServer from "./AppServer.ts"
import { type AppServerError, DecodeFailed, make as appServerError } from "./AppServerError.ts"
import { requestThread } from "./internal/threads/answers.ts"
import { resolveThreadOptions, verifyApplied } from "./internal/threads/approvalOptions.ts"
import { OpenTurns } from "./internal/threads/startTurn.ts"
import type { Metadata } from "./Metadata.ts"
import * as Protocol from "./Protocol.ts"
import * as StdioTransport from "./StdioTransport.ts"
import * as Thread from "./Thread.ts"

/**
 * What a new thread may be given: the protocol's own fields, and `approvalMode` for its approval fields. Without any of
 * those a thread has `auto_review`.
 *
 * @category models
 * @since 0.1.0
 */
export type StartOptions =
  & Omit<Protocol.ThreadStartParams, keyof ThreadFields>
  & ApprovalOptions
  & Pick<ThreadInput, "sandbox">

/**
 * What may be changed of a thread as it is resumed. A thread that is loaded already keeps its settings, and asking for
 * others fails with `SettingsNotApplied`.
 *
 * @category models
 * @since 0.1.0
 */
export type ResumeOptions =
  & Omit<Protocol.ThreadResumeParams, "threadId" | "excludeTurns" | "initialTurnsPage" | keyof ThreadFields>
  & ApprovalOptions
  & Pick<ThreadInput, "sandbox">

/**
 * What may differ in the copy of a thread.
 *
 * @category models
 * @since 0.1.0
 */
export type ForkOptions =
  & Omit<Protocol.ThreadForkParams, "threadId" | "excludeTurns" | keyof ThreadFields>
  & ApprovalOptions
  & Pick<ThreadInput, "sandbox">

/**
 * Which threads to list, and in what order. `limit` is how many are asked for at once.
 *
 * @category models
 * @since 0.1.0
 */
export type ListOptions = Omit<Protocol.ThreadListParams, "cursor">

/**
 * Which models to list. `limit` is how many are asked for at once.
 *
 * @category models
 * @since 0.1.0
 */
export type ModelOptions = Omit<Protocol.ModelListParams, "cursor">

/**
 * Codex, as a service.
 *
 * @category services
 * @since 0.1.0
 */
export class Codex extends Context.Service<Codex, {
  /** Who the server is. */
  readonly metadata: Metadata
  /** Opens a new thread. Until its first turn it exists in this process only. */
  readonly startThread: (
    options?: StartOptions
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError>
  /** Opens a stored thread to go on with it. */
  readonly resumeThread: (
    id: string,
    options?: ResumeOptions
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError>
  /** Opens a copy of a stored thread, which from then on goes its own way. */
  readonly forkThread: (
    id: string,
    options?: ForkOptions
  ) => Effect.Effect<Thread.Thread, SandboxConflictError | AppServerError>
  /** The stored threads, newest first unless told otherwise. Pages are fetched as the stream is pulled. */
  readonly listThreads: (options?: ListOptions) => Stream.Stream<Protocol.Thread, AppServerError>
  /** Takes a thread out of the list and unloads it. */
  readonly archiveThread: (id: string) => Effect.Effect<void, AppServerError>
  /** Puts an archived thread back into the list; resume it to go on with it. */
  readonly unarchiveThread: (id: string) => Effect.Effect<void, AppServerError>
  /** The models that can be asked for. Pages are fetched as the stream is pulled. */
  readonly models: (options?: ModelOptions) => Stream.Stream<Protocol.Model, AppServerError>
}>()("effect-codex/Codex") {}

const Page = Schema.Struct({
  data: Schema.Array(Schema.Unknown),
  nextCursor: Schema.optionalKey(Schema.NullOr(Schema.String))
})

const decodePage = Schema.decodeUnknownEffect(Page)

/** The entries of a list that comes in pages. One odd entry does not cost the others. */
const pages = <A>(
  server: AppServer.AppServer["Service"],
  method: "thread/list" | "model/list",
  params: object,
  schema: Schema.Codec<A>
): Stream.Stream<A, AppServerError> => {
  const isEntry = Schema.is(schema)
  const decodeEntry = Schema.decodeUnknownResult(schema)
  const read = Effect.fnUntraced(function*(entry: unknown) {
    if (isEntry(entry)) return [entry]
    const decoded = decodeEntry(entry)
    if (Result.isSuccess(decoded)) return [decoded.success]
    yield* Effect.logWarning(`Left out an entry of ${method} that cannot be read: ${decoded.failure.message}`)
    return []
  })
  return Stream.paginate(
    null as string | null,
    Effect.fnUntraced(function*(cursor: string | null) {
      const page = yield* Effect.mapError(
        decodePage(yield* server.requestRaw(method, { ...params, cursor })),
        (error) => appServerError(new DecodeFailed({ method, issue: error.message }))
      )
      const entries = yield* Effect.forEach(page.data, read)
      // A cursor that leads nowhere new would lead there forever.
      const next = page.nextCursor === cursor ? null : page.nextCursor
      return [entries.flat(), Option.fromNullishOr(next)] as const
    })
  )
}

const make = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const open = new OpenTurns()

  return Codex.of({
    metadata: server.metadata,
    startThread: Effect.fn("Codex.startThread")(function*(options = {}) {
      const params = yield* resolveThreadOptions("thread/start", withDefaultMode(options))
      const response = yield* requestThread(server, "thread/start", params)
      yield* verifyApplied("thread/start", params, response)
      return Thread.make(server, open, response.thread.id)
    }),
    resumeThread: Effect.fn("Codex.resumeThread")(function*(id, options = {}) {
      const fields = yield* resolveThreadOptions("thread/resume", options)
      const response = yield* requestThread(server, "thread/resume", { ...fields, threadId: id, excludeTurns: true })
      yield* verifyApplied("thread/resume", fields, response)
      return Thread.make(server, open, response.thread.id)
    }),
    forkThread: Effect.fn("Codex.forkThread")(function*(id, options = {}) {
      const fields = yield* resolveThreadOptions("thread/fork", options)
      const response = yield* requestThread(server, "thread/fork", { ...fields, threadId: id, excludeTurns: true })
      yield* verifyApplied("thread/fork", fields, response)
      return Thread.make(server, open, response.thread.id)
    }),
    listThreads: (options = {}) => pages(server, "thread/list", options, Protocol.Thread),
    archiveThread: Effect.fn("Codex.archiveThread")(function*(id) {
      yield* server.request("thread/archive", { threadId: id })
    }),
    unarchiveThread: Effect.fn("Codex.unarchiveThread")(function*(id) {
      yield* server.request("thread/unarchive", { threadId: id })
    }),
    models: (options = {}) => pages(server, "model/list", options, Protocol.Model)
  })
})

const withDefaultMode = (options: StartOptions): StartOptions =>
  options.approvalMode === undefined && options.approvalPolicy === undefined && options.approvalsReviewer === undefined
    ? { ...options, approvalMode: "auto_review", approvalPolicy: undefined, approvalsReviewer: undefined }
    : options

/**
 * Codex on any {@link AppServer.AppServer}, and so on any transport.
 *
 * It is built anew for each `AppServer` that it is provided with, also where programs with different servers are nested.
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
 * `ChildProcessSpawner`, on Node.js with `NodeServices.layer`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStdio = (
  options?: StdioOptions
): Layer.Layer<Codex | AppServer.AppServer, AppServerError, ChildProcessSpawner> =>
  layer.pipe(
    Layer.provideMerge(AppServer.layer(options)),
    Layer.provide(StdioTransport.layer(options))
  )
