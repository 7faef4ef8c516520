/**
 * A Codex thread as an entity of a cluster. Any runner of the cluster can send to it by its id; one runner at a time has it open.
 *
 * **Example** (Asking a thread from any runner)
 *
 * ```ts
 * import { Effect, Layer } from "effect"
 * import type { Sharding } from "effect/cluster"
 * import { KeyValueStore } from "effect/persistence"
 * import { ThreadEntity } from "effect-codex/cluster"
 *
 * // Register it on each runner, with a `Codex` and the storage of the cluster.
 * export const layer = ThreadEntity.layer({
 *   thread: { sandbox: "read-only", approvalMode: "deny_all" }
 * }).pipe(Layer.provide(KeyValueStore.layerSql()))
 *
 * export const ask = Effect.fn("ask")(function*(customer: string, requestId: string, question: string) {
 *   const threadOf = yield* ThreadEntity.client
 *   const { finalResponse } = yield* threadOf(customer).Run({ key: requestId, input: question })
 *   return finalResponse
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as ClusterSchema from "effect/cluster/ClusterSchema"
import * as Entity from "effect/cluster/Entity"
import type * as Sharding from "effect/cluster/Sharding"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as Rpc from "effect/rpc/Rpc"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SynchronizedRef from "effect/SynchronizedRef"
import { SandboxConflictError } from "../ApprovalMode.ts"
import { AppServerError, make as appServerError, TurnEnded } from "../AppServerError.ts"
import * as Codex from "../Codex.ts"
import { asJson } from "../internal/cluster/asJson.ts"
import { whileTransient } from "../internal/cluster/transient.ts"
import { toOutcome, TurnOutcome } from "../internal/cluster/turnOutcome.ts"
import * as Protocol from "../Protocol.ts"
import type * as Thread from "../Thread.ts"
import { TurnFailed } from "../Turn.ts"
import * as TurnView from "../TurnView.ts"

/**
 * The errors of an entity: those of the thread, and of the storage of its id.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ThreadError = Schema.Union([AppServerError, SandboxConflictError])

/**
 * The input of a turn: text, or the inputs of the protocol.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Input = asJson(Schema.Union([Schema.String, Schema.Array(Protocol.UserInputParam)]))

/**
 * The result of a turn, without its items.
 *
 * @category schemas
 * @since 0.1.0
 */
export const RunResult = TurnOutcome

/**
 * Runs a turn once for each key, as `thread.runOnce` does. The cluster stores the request until it is done: a repeated request with the same
 * key, also of another client, has the same result.
 *
 * **Details**
 *
 * The turns of a thread run one after another. An interruption of the client ends its wait, and the turn continues.
 *
 * @category messages
 * @since 0.1.0
 */
export const Run = Rpc.make("Run", {
  payload: { key: Schema.NonEmptyString, input: Input },
  success: RunResult,
  error: Schema.Union([AppServerError, SandboxConflictError, TurnFailed]),
  primaryKey: ({ key }) => key
}).annotate(ClusterSchema.Persisted, true).annotate(ClusterSchema.Uninterruptible, true)

/**
 * Adds input to the running turn. Fails with `TurnEnded` if there is none.
 *
 * @category messages
 * @since 0.1.0
 */
export const Steer = Rpc.make("Steer", { payload: { input: Input }, error: ThreadError })

/**
 * Interrupts the running turn. Returns `false` if there is none.
 *
 * @category messages
 * @since 0.1.0
 */
export const Interrupt = Rpc.make("Interrupt", { success: Schema.Boolean, error: ThreadError })

/**
 * Emits the view of the newest turn, and then each change, also of the turns that follow. A slow client skips to the newest view.
 *
 * @category messages
 * @since 0.1.0
 */
export const View = Rpc.make("View", { success: asJson(TurnView.TurnView), error: ThreadError, stream: true })

/**
 * The entity. Its id is chosen by the program, such as the id of a conversation.
 *
 * @category entities
 * @since 0.1.0
 */
export const ThreadEntity = Entity.make("effect-codex/Thread", [Run, Steer, Interrupt, View])

/**
 * The function that returns the client of a thread.
 *
 * @category clients
 * @since 0.1.0
 */
export const client = ThreadEntity.client

/**
 * The options of {@link layer}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** The options of a thread, also when another runner resumes it. A function has the id of the entity. */
  readonly thread?: Codex.StartOptions | ((entityId: string) => Codex.StartOptions) | undefined
  /**
   * How long an entity without a request keeps its thread open.
   *
   * @default that of the cluster, one minute
   */
  readonly maxIdleTime?: Duration.Input | undefined
}

/** Opens the thread of an entity. It is started once, and resumed afterwards. */
const open = Effect.fnUntraced(function*(entityId: string, options: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const store = KeyValueStore.prefix(yield* KeyValueStore.KeyValueStore, "effect-codex/thread/")
  const stored = yield* Effect.orDie(store.get(entityId))
  if (stored !== undefined) {
    const { ephemeral: _, ...resume } = options
    // A runner that left may have the thread open for a moment.
    return yield* Effect.retry(codex.resumeThread(stored, resume), whileTransient)
  }
  const thread = yield* codex.startThread(options)
  // A name stores the thread, so that another runner can resume it.
  yield* thread.setName(entityId)
  yield* Effect.orDie(store.set(entityId, thread.id))
  return thread
})

/** Whether the thread has to be opened again on another connection. */
const isClosed = (error: { readonly _tag: string }): boolean =>
  error._tag === "AppServerError" &&
  ["ConnectionClosed", "RestartsExhausted"].includes((error as AppServerError).reason._tag)

const currentTurn = (thread: Thread.Thread) => Effect.map(thread.currentTurn, Option.getOrUndefined)

const makeHandlers = (options: Options) =>
  Effect.gen(function*() {
    const { entityId } = yield* Entity.CurrentAddress
    const context = yield* Effect.context<Codex.Codex | KeyValueStore.KeyValueStore>()
    const threadOptions = typeof options.thread === "function" ? options.thread(entityId) : options.thread ?? {}
    const opened = yield* SynchronizedRef.make(Option.none<Thread.Thread>())
    const getThread = SynchronizedRef.modifyEffect(
      opened,
      (
        current
      ): Effect.Effect<readonly [Thread.Thread, Option.Option<Thread.Thread>], AppServerError | SandboxConflictError> =>
        Option.isSome(current)
          ? Effect.succeed([current.value, current])
          : Effect.map(
            Effect.provideContext(open(entityId, threadOptions), context),
            (thread) => [thread, Option.some(thread)]
          )
    )
    // Otherwise the next runner finds the thread locked.
    yield* Effect.addFinalizer(() =>
      Effect.flatMap(SynchronizedRef.get(opened), (thread) =>
        Option.isSome(thread) ? Effect.ignore(thread.value.close) : Effect.void)
    )

    const use = <A, E extends { readonly _tag: string }, R>(f: (thread: Thread.Thread) => Effect.Effect<A, E, R>) =>
      Effect.flatMap(getThread, f).pipe(
        Effect.tapError((error) =>
          isClosed(error) ? SynchronizedRef.set(opened, Option.none()) : Effect.void
        )
      )

    return ThreadEntity.of({
      // The cluster stores an error as the result of the key. That of a lost server would end a turn that can be continued.
      Run: ({ payload: { input, key } }) =>
        Effect.retry(use((thread) => Effect.map(thread.runOnce(key, input), toOutcome)), whileTransient),
      Steer: ({ payload: { input } }) =>
        use(Effect.fnUntraced(function*(thread) {
          const turn = yield* currentTurn(thread)
          if (turn !== undefined) return yield* turn.steer(input)
          return yield* appServerError(
            new TurnEnded({ method: "turn/steer", threadId: thread.id, turnId: "", cause: undefined })
          )
        }, Effect.scoped)).pipe(Rpc.fork),
      Interrupt: () =>
        use(Effect.fnUntraced(function*(thread) {
          const turn = yield* currentTurn(thread)
          if (turn !== undefined) yield* turn.interrupt
          return turn !== undefined
        }, Effect.scoped)).pipe(Rpc.fork),
      View: () =>
        Stream.unwrap(use((thread) => Effect.succeed(thread.view))).pipe(
          Stream.flatMap(({ turns }) => Stream.fromIterable(turns.slice(-1))),
          Stream.changesWith((a, b) => a === b),
          Rpc.fork
        )
    })
  })

/**
 * Registers the entity on a runner. Its threads run on the `Codex` of the runner.
 *
 * **Details**
 *
 * The id of the thread is stored in the `KeyValueStore`, which all runners share: `KeyValueStore.layerSql()`. All runners need the same
 * `CODEX_HOME`, on a shared file system, because a thread that moves is resumed from it.
 *
 * When the entity is idle, or its runner leaves, the thread is closed. The next request opens it again, on any runner.
 *
 * **Gotchas**
 *
 * A runner that is killed leaves its turn interrupted. The cluster sends the request to the next runner, which continues the turn. An
 * app-server that is killed leaves its turns interrupted too, and they are continued after its restart.
 *
 * Give the `Codex` of a runner `restart: true`. Without it, a runner whose app-server has exited fails each request.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<never, never, Codex.Codex | KeyValueStore.KeyValueStore | Sharding.Sharding> =>
  ThreadEntity.toLayer(makeHandlers(options), { maxIdleTime: options.maxIdleTime })
