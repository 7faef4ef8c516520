/**
 * Several app-servers as one {@link Codex}. A program does not change: its threads are distributed over the servers.
 *
 * ```ts
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import { Effect, Layer } from "effect"
 * import { Codex, CodexPool } from "effect-codex"
 *
 * const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const review = Effect.fn(function*(folder: string) {
 *     const thread = yield* codex.startThread({ cwd: folder, sandbox: "read-only" })
 *     const { finalResponse } = yield* Effect.ensuring(thread.run("Review this project"), Effect.ignore(thread.close))
 *     return finalResponse
 *   })
 *   return yield* Effect.forEach(["/srv/a", "/srv/b", "/srv/c"], review, { concurrency: "unbounded" })
 * })
 *
 * const layer = CodexPool.layer({ size: 3, codex: () => Codex.layerStdio({ restart: true }) })
 *
 * export const reviews = program.pipe(Effect.provide(layer), Effect.provide(NodeServices.layer))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as LayerMap from "effect/LayerMap"
import * as Order from "effect/Order"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Approvals from "./Approvals.ts"
import * as AppServer from "./AppServer.ts"
import { type AppServerError, InvalidRequest, isAppServerError, make as appServerError } from "./AppServerError.ts"
import * as Codex from "./Codex.ts"
import { duration, func, type Kinds, oneOf, optionIssue, positive } from "./internal/options.ts"
import { layerMember, Members } from "./internal/pool/members.ts"
import { mergeSorted } from "./internal/pool/mergeSorted.ts"
import type * as Protocol from "./Protocol.ts"

/**
 * The options of {@link layer}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<R = never> {
  /** The maximum number of app-servers. */
  readonly size: number
  /**
   * Makes the layer of a member, from 0 to `size - 1`.
   *
   * **Details**
   *
   * A member starts when a thread needs it. With `Codex.layerStdio({ restart: true })`, a member that crashes is restarted, and its threads
   * keep working. Without `restart`, its open handles fail with `ConnectionClosed`, and the next thread starts it again. The other members
   * continue in both cases.
   */
  readonly codex: (member: number) => Layer.Layer<Codex.Codex | AppServer.AppServer, AppServerError, R>
  /**
   * Whether the members share one `CODEX_HOME`, or each has one of its own, with its own threads, login and configuration.
   *
   * **Details**
   *
   * With `"shared"`, any member can open any thread. With `"separate"`, a thread that the pool has not opened is searched on the members,
   * those that run first.
   *
   * @default "shared"
   */
  readonly home?: "shared" | "separate" | undefined
  /**
   * Returns the key of a new thread. Threads with the same key start on the same member.
   *
   * **When to use**
   *
   * For threads that share what a server caches, or a tenant: `(options) => options.cwd ?? ""`.
   *
   * @default each thread starts on the member with the fewest open threads
   */
  readonly hashBy?: ((options: Protocol.ThreadStartOptions) => string) | undefined
  /**
   * The maximum number of open threads of a member. A further thread waits until another one is closed.
   *
   * @default no limit
   */
  readonly threadsPerMember?: number | undefined
  /**
   * How long a member runs on without an open thread.
   *
   * @default "1 minute"
   */
  readonly idleTimeToLive?: Duration.Input | undefined
}

/**
 * The state of a member.
 *
 * @category models
 * @since 0.1.0
 */
export interface Member {
  /** From 0 to `size - 1`. */
  readonly member: number
  /** The state of its connection, or `"Stopped"` if it does not run. */
  readonly state: AppServer.ConnectionState["_tag"] | "Stopped"
  /** The number of its open threads. */
  readonly threads: number
}

/**
 * The members of a pool.
 *
 * @category services
 * @since 0.1.0
 */
export class CodexPool extends Context.Service<CodexPool, {
  /** The states of all members. */
  readonly members: Effect.Effect<ReadonlyArray<Member>>
  /**
   * Returns the connection of the member on which a thread is open, for raw requests. Fails with `InvalidRequest` if the pool has not opened
   * the thread. The member runs until the scope closes.
   */
  readonly appServer: (threadId: string) => Effect.Effect<AppServer.AppServer["Service"], AppServerError, Scope.Scope>
}>()("effect-codex/CodexPool") {}

const kinds: Kinds<Options> = {
  size: positive,
  codex: func,
  home: oneOf("shared", "separate"),
  hashBy: func,
  threadsPerMember: positive,
  idleTimeToLive: duration
}

const invalid = (description: string): AppServerError =>
  appServerError(new InvalidRequest({ method: "CodexPool", description }))

/** Orders threads as the server lists them. */
const listOrder = ({ sortDirection, sortKey }: Codex.ListOptions): Order.Order<Protocol.Thread> => {
  const key = (thread: Protocol.Thread): number =>
    sortKey === "updated_at"
      ? thread.updatedAt
      : sortKey === "recency_at"
      ? thread.recencyAt ?? thread.updatedAt
      : thread.createdAt
  const ascending = Order.mapInput(Order.Number, key)
  return sortDirection === "asc" ? ascending : Order.flip(ascending)
}

const isReason = (error: unknown, tag: AppServerError["reason"]["_tag"]): boolean =>
  isAppServerError(error) && error.reason._tag === tag

const makeCodex = Effect.fnUntraced(function*<R>(
  members: Members,
  { hashBy, home = "shared", size }: Options<R>,
  approvals: PubSub.PubSub<Approvals.AuditEntry>
) {
  const metadata = yield* members.use(0, (codex) => Effect.succeed(codex.metadata))

  /** Runs an operation on each of the members, until one does not fail with `reason`. */
  const search = <A, E, R>(
    candidates: ReadonlyArray<number>,
    reason: AppServerError["reason"]["_tag"],
    run: (member: number) => Effect.Effect<A, E | AppServerError, R>
  ): Effect.Effect<A, E | AppServerError, R> => {
    const [first = 0, ...others] = candidates
    return Effect.catchIf(
      run(first),
      (error) => others.length > 0 && isReason(error, reason),
      () => search(others, reason, run)
    )
  }

  /** Runs an operation about a thread that exists, on the member that has it open or can open it. */
  const onThread = <A, E, R>(id: string, run: (member: number) => Effect.Effect<A, E | AppServerError, R>) => {
    const known = members.homeOf(id)
    if (known !== undefined) return run(known)
    if (home === "separate") return search(members.byLoad, "ThreadNotFound", run)
    return search([members.leastBusy, ...members.running.keys()], "ThreadLocked", run)
  }

  const choose = (options: Protocol.ThreadStartOptions) => () =>
    hashBy === undefined ? members.leastBusy : members.hashed(hashBy(options))

  const use = <A, E, R>(id: string, run: (codex: Codex.Codex["Service"]) => Effect.Effect<A, E, R>) =>
    onThread(id, (member) => members.use(member, run))

  /** Runs a stream on a member, which runs until the stream ends. */
  const stream = <A>(
    member: number,
    run: (codex: Codex.Codex["Service"]) => Stream.Stream<A, AppServerError>
  ): Stream.Stream<A, AppServerError> =>
    Stream.unwrap(Effect.map(members.acquire(member), (context) => run(Context.get(context, Codex.Codex))))

  const onAny = <A>(run: (codex: Codex.Codex["Service"]) => Stream.Stream<A, AppServerError>) =>
    Stream.suspend(() => stream(home === "shared" ? members.byLoad[0]! : 0, run))

  const allMembers = Array.from({ length: size }, (_, member) => member)

  return Codex.Codex.of({
    metadata,
    approvals: Stream.fromPubSub(approvals),
    startThread: (options) => members.openThread(choose(options ?? {}), (codex) => codex.startThread(options)),
    resumeThread: (id, options) =>
      onThread(id, (member) => members.openThread(() => member, (codex) => codex.resumeThread(id, options))),
    forkThread: (id, options) =>
      onThread(id, (member) => members.openThread(() => member, (codex) => codex.forkThread(id, options))),
    archiveThread: (id) => Effect.andThen(use(id, (codex) => codex.archiveThread(id)), members.release(id)),
    unarchiveThread: (id) => use(id, (codex) => codex.unarchiveThread(id)),
    listThreads: (options = {}) =>
      home === "shared"
        ? onAny((codex) => codex.listThreads(options))
        : mergeSorted(
          allMembers.map((member) => stream(member, (codex) => codex.listThreads(options))),
          listOrder(options)
        ),
    models: (options) => onAny((codex) => codex.models(options)),
    rateLimits: onAny(({ rateLimits }) => rateLimits)
  })
})

/** Follows a member while it runs. */
const follow = (members: Members, member: number, approvals: PubSub.PubSub<Approvals.AuditEntry>) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    const codex = yield* Codex.Codex
    members.running.set(member, server)
    yield* Effect.addFinalizer(() => Effect.sync(() => members.leave(member)))
    yield* Effect.forkScoped(Stream.runForEach(codex.approvals, (entry) => PubSub.publish(approvals, entry)))
    yield* server.states.pipe(
      Stream.filter(({ _tag }) => _tag === "Closed"),
      Stream.runForEach(() => members.end(member)),
      Effect.forkScoped
    )
  }))

/**
 * Provides Codex on several app-servers.
 *
 * **When to use**
 *
 * For more threads at once than one server serves well, and for tenants with homes of their own.
 *
 * **Details**
 *
 * A thread stays on the member that has opened it. A member starts with its first thread, and leaves when it has had no open thread for
 * `idleTimeToLive`. Member 0 starts with the layer, which fails if it cannot start.
 *
 * Handlers, tools, budgets and the context in which the layer is built hold on all members.
 *
 * **Gotchas**
 *
 * A thread is open until `thread.close`, an archive, or the end of its server. Close the threads that are done, or no member ever leaves.
 *
 * With separate homes, `models` and `rateLimits` are those of member 0.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <R = never>(
  options: Options<R>
): Layer.Layer<Codex.Codex | CodexPool, AppServerError, R> =>
  Layer.effectContext(Effect.gen(function*() {
    const issue = optionIssue(kinds, options)
    if (issue !== undefined) return yield* invalid(issue)
    const { codex, idleTimeToLive = "1 minute", size, threadsPerMember = Infinity } = options
    const approvals = yield* PubSub.unbounded<Approvals.AuditEntry>()
    const servers = yield* LayerMap.make(
      // Fresh, because the members would share a layer that `codex` returns twice.
      (member: number) =>
        Layer.fresh(
          Layer.provideMerge(follow(members, member, approvals), Layer.provide(codex(member), layerMember(member)))
        ),
      { idleTimeToLive }
    )
    const members: Members = new Members(servers, { size, threadsPerMember })
    yield* Effect.addFinalizer(() => members.releaseAll)
    const states = Effect.forEach(Array.from({ length: size }, (_, member) => member), (member) =>
      Effect.map(
        members.getState(member),
        (state): Member => ({ member, state, threads: members.count(member) })
      ))
    const appServer = Effect.fnUntraced(function*(threadId: string) {
      const member = members.homeOf(threadId)
      if (member === undefined) return yield* invalid(`the pool has not opened thread \`${threadId}\`. Resume it first`)
      return Context.get(yield* members.acquire(member), AppServer.AppServer)
    })
    return Context.make(CodexPool, { members: states, appServer }).pipe(
      Context.add(Codex.Codex, yield* makeCodex(members, options, approvals))
    )
  }))
