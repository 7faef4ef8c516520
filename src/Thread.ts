/**
 * A conversation: its turns share a history, a working directory and settings.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ApprovalOptions, SandboxConflictError, TurnFields, TurnInput } from "./ApprovalMode.ts"
import type * as Approvals from "./Approvals.ts"
import type { AppServer } from "./AppServer.ts"
import type { AppServerError } from "./AppServerError.ts"
import * as Input from "./Input.ts"
import { resolveTurnOptions } from "./internal/threads/approvalOptions.ts"
import { compactThread } from "./internal/threads/compactThread.ts"
import { type HandlerOptions, type HandlerRegistry, isEmpty, provided } from "./internal/threads/handlers.ts"
import type { OpenThread } from "./internal/threads/openThread.ts"
import { recoverLostEnd } from "./internal/threads/recoverTurns.ts"
import { type OpenTurns, startTurn } from "./internal/threads/startTurn.ts"
import { requestLimit, startDeadline, startLimit } from "./internal/threads/turnTimeouts.ts"
import type * as Protocol from "./Protocol.ts"
import type * as Questions from "./Questions.ts"
import * as Turn from "./Turn.ts"

/**
 * What a turn may be given besides its input: the protocol's own fields, and `approvalMode` for its approval fields.
 *
 * The server keeps most of them for later turns of the thread (`approvalMode`, `sandboxPolicy`, `cwd`, `model`, `effort`,
 * `summary`, `personality`, `serviceTier`); `outputSchema` and `serviceTierForTurn` hold for this turn only, and so do
 * `approvals` and `questions`, which are asked before those of the thread.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnOptions<
  A extends Approvals.Approver<any> = Approvals.Approver,
  Q extends Questions.Handlers<any> = Questions.Handlers
> =
  & Omit<Protocol.TurnStartParams, "threadId" | "input" | keyof TurnFields>
  & ApprovalOptions
  & Pick<TurnInput, "sandboxPolicy">
  & HandlerOptions<A, Q>
  & TimeoutOptions

/**
 * How long a turn may take. One that takes longer is interrupted on the server and fails with the reason `TurnTimeout`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TimeoutOptions {
  /** From its start to its end. Default: as long as it takes. */
  readonly deadline?: Duration.Input | undefined
  /**
   * From one event to the next. The time that a handler of the program takes to answer the turn does not count. Default: as
   * long as it takes.
   */
  readonly idleTimeout?: Duration.Input | undefined
}

/**
 * What to read of a thread.
 *
 * @category models
 * @since 0.1.0
 */
export type ReadOptions = Omit<Protocol.ThreadReadParams, "threadId">

/**
 * A handle of a thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface Thread {
  readonly id: string
  /**
   * Runs a turn and waits for its result. Interrupting the fiber, as `Effect.timeout` does, interrupts the turn on the
   * server.
   *
   * If the thread is already running a turn, the input is added to that one, and both have its result.
   */
  readonly run: <
    const A extends Approvals.Approver<any>,
    const Q extends Questions.Handlers<any>
  >(
    input: Input.Input,
    options?: TurnOptions<A, Q>
  ) => Effect.Effect<
    Turn.TurnResult,
    SandboxConflictError | Turn.TurnFailed | AppServerError,
    Approvals.Services<A> | Questions.Services<Q>
  >
  /** Starts a turn and returns its handle. Closing the scope before the turn has ended interrupts the turn. */
  readonly turn: <
    const A extends Approvals.Approver<any>,
    const Q extends Questions.Handlers<any>
  >(
    input: Input.Input,
    options?: TurnOptions<A, Q>
  ) => Effect.Effect<
    Turn.Turn,
    SandboxConflictError | AppServerError,
    Scope.Scope | Approvals.Services<A> | Questions.Services<Q>
  >
  /**
   * The events of a new turn, which ends with `turn/completed`, also when the turn fails. Ending the stream early, as
   * `Stream.take` does, interrupts the turn. Each run of the stream is a turn of its own.
   */
  readonly stream: <
    const A extends Approvals.Approver<any>,
    const Q extends Questions.Handlers<any>
  >(
    input: Input.Input,
    options?: TurnOptions<A, Q>
  ) => Stream.Stream<
    Turn.TurnEvent,
    SandboxConflictError | AppServerError,
    Approvals.Services<A> | Questions.Services<Q>
  >
  /**
   * The stored thread, with its turns if `includeTurns` is set. A thread has no turns to read before its first turn.
   */
  readonly read: (options?: ReadOptions) => Effect.Effect<Protocol.Thread, AppServerError>
  readonly setName: (name: string) => Effect.Effect<void, AppServerError>
  /**
   * Has the model summarize the history so far, to make room, and waits until that is done. The server interrupts a turn
   * that is running.
   */
  readonly compact: Effect.Effect<void, Turn.TurnFailed | AppServerError>
}

/** What the handle of a thread stands for. */
interface HeldThread {
  readonly server: AppServer["Service"]
  readonly open: OpenTurns
  readonly registry: HandlerRegistry
  readonly thread: OpenThread
}

const start = Effect.fnUntraced(function*(
  { open, registry, server, thread }: HeldThread,
  input: Input.Input,
  options: TurnOptions = {}
) {
  const { id } = thread
  const { approvals, deadline, idleTimeout, questions, ...rest } = options
  const handlers = yield* provided({ approvals, questions })
  const fields = yield* resolveTurnOptions(rest)
  const items = yield* Input.validate("turn/start", input)
  const since = yield* Clock.currentTimeMillis
  const limit = yield* startLimit(server, id, { deadline, idle: idleTimeout })
  const held = yield* startTurn(
    server,
    open,
    thread,
    { ...fields, threadId: id, input: items },
    limit,
    isEmpty(handlers) ? undefined : () => registry.addTurn(id, handlers)
  )
  yield* recoverLostEnd(server, held)
  const turn = Turn.make(server, held.state, held.id)
  if (deadline !== undefined) yield* startDeadline({ server, state: held.state, turnId: held.id }, deadline, since)
  if (idleTimeout !== undefined) yield* Turn.withIdleTimeout(turn, idleTimeout)
  return turn
})

const run = Effect.fn("Thread.run")(function*(held: HeldThread, input: Input.Input, options?: TurnOptions) {
  yield* Effect.annotateCurrentSpan({ threadId: held.thread.id })
  const turn = yield* start(held, input, options)
  return yield* turn.result
}, Effect.scoped)

const turn = Effect.fn("Thread.turn")(function*(held: HeldThread, input: Input.Input, options?: TurnOptions) {
  yield* Effect.annotateCurrentSpan({ threadId: held.thread.id })
  return yield* start(held, input, options)
})

const read = Effect.fn("Thread.read")(function*({ server, thread: { id } }: HeldThread, options: ReadOptions = {}) {
  const { thread } = yield* server.request("thread/read", { ...options, threadId: id })
  return thread
})

const setName = Effect.fn("Thread.setName")(function*({ server, thread }: HeldThread, name: string) {
  yield* server.request("thread/name/set", { threadId: thread.id, name })
})

const compact = Effect.fn("Thread.compact")(function*({ open, server, thread }: HeldThread) {
  const limit = yield* requestLimit(server, "thread/compact/start")
  const { state, turn } = yield* compactThread(server, open, thread, limit)
  const { status } = yield* Turn.resultOf(state, turn)
  if (status !== "completed") yield* Turn.failure(state, turn, "the compaction was interrupted")
})

/** @internal */
export const make = (held: HeldThread): Thread => ({
  id: held.thread.id,
  run: ((input: Input.Input, options?: TurnOptions) => run(held, input, options)) as Thread["run"],
  turn: ((input: Input.Input, options?: TurnOptions) => turn(held, input, options)) as Thread["turn"],
  stream:
    ((input: Input.Input, options?: TurnOptions) =>
      Stream.unwrap(Effect.map(start(held, input, options), ({ events }) => events))) as Thread["stream"],
  read: (options) => read(held, options),
  setName: (name) => setName(held, name),
  compact: Effect.suspend(() => compact(held))
})
