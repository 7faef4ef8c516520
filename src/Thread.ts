/**
 * A thread: a stored conversation, whose turns share a history, a working directory and settings.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as JsonSchema from "effect/JsonSchema"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ApprovalOptions, SandboxConflictError } from "./ApprovalMode.ts"
import { type AppServerError, InvalidRequest, make as appServerError } from "./AppServerError.ts"
import { Attribute } from "./CodexTelemetry.ts"
import * as Input from "./Input.ts"
import type * as Approvals from "./internal/approvals/model.ts"
import { keyIssue, runKeyed } from "./internal/keyedTurn/keyedTurn.ts"
import { boolean, count, duration, jsonSchema, type Kinds, oneOf, optionIssue, schema } from "./internal/options.ts"
import { loadOutputCodec } from "./internal/output/loadOutputCodec.ts"
import type * as Questions from "./internal/questions/model.ts"
import { CurrentBudget } from "./internal/session/budget/budgetState.ts"
import { contextHandlers, type HandlerOptions, provideHandlers } from "./internal/session/handlers/handlers.ts"
import type { SessionState } from "./internal/session/sessionState.ts"
import { requireOptions, resolveTurnOptions } from "./internal/session/settings/resolveOptions.ts"
import { hasFiles, requireCwd, resolveFiles } from "./internal/session/settings/serverPaths.ts"
import { withExactRoots } from "./internal/session/settings/turnSandbox.ts"
import type { OpenThread } from "./internal/session/threads/openThread.ts"
import { pages } from "./internal/session/threads/pages.ts"
import { withGone } from "./internal/session/threads/threadNotFound.ts"
import { compactThread } from "./internal/session/turns/compactThread.ts"
import { exclusiveOptions, startTurn } from "./internal/session/turns/startTurn.ts"
import { closeTurns } from "./internal/session/turns/turnHandle.ts"
import {
  deadlineTimeout,
  requestTimeout,
  startDeadline,
  startIdleTimeout,
  startTimeout
} from "./internal/session/turns/turnTimeouts.ts"
import { watchCurrentTurn, watchTurns } from "./internal/session/turns/watchTurns.ts"
import { watchThread } from "./internal/session/views/threadView.ts"
import type { Settings } from "./internal/threadSettings.ts"
import { runTyped, startTyped } from "./internal/typedTurn/typedTurn.ts"
import * as Protocol from "./Protocol.ts"
import type * as Sandbox from "./Sandbox.ts"
import type * as ThreadView from "./ThreadView.ts"
import * as Turn from "./Turn.ts"

/** The options of every turn, with and without typed output. */
type CommonOptions<A, Q> =
  & Protocol.TurnStartOptions
  & ApprovalOptions
  & Sandbox.TurnOptions
  & HandlerOptions<A, Q>
  & TimeoutOptions
  & {
    /**
     * Whether commands that the turn started in the background continue when its scope, an interrupted fiber or a time limit interrupts the
     * turn. `turn.interrupt` never ends them. Needs the experimental API.
     *
     * @default false
     */
    readonly keepBackgroundTerminals?: boolean | undefined
  }

/**
 * The options of a turn: fields of the protocol, permissions, handlers and time limits.
 *
 * **Details**
 *
 * The server keeps these options for later turns of the thread: `approvalMode`, `sandboxPolicy`, `cwd`, `model`, `effort`, `summary`,
 * `personality` and `serviceTier`.
 *
 * These hold for this turn only: `outputSchema`, `serviceTierForTurn`, the time limits, and `approvals` and `questions`, which come
 * before those of the thread.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnOptions<
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers
> =
  & CommonOptions<A, Q>
  & OutputOptions

/**
 * The options of a turn with typed output.
 *
 * **Details**
 *
 * All options also hold for the repairs. A deadline limits all attempts together.
 *
 * @category models
 * @since 0.1.0
 */
export type TypedTurnOptions<
  S extends Schema.Constraint,
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers
> =
  & CommonOptions<A, Q>
  & TypedOutputOptions<S>

/**
 * The option with the schema of a turn's last message.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutputOptions {
  /**
   * The JSON Schema of the last message, for this turn only.
   *
   * **Details**
   *
   * For an Effect Schema use `output`, which sends its JSON Schema and decodes the message. An Effect Schema here fails with
   * `InvalidRequest`.
   *
   * **Gotchas**
   *
   * OpenAI accepts only strict schemas: each object has all its properties in `required`, and `additionalProperties: false`.
   */
  readonly outputSchema?: JsonSchema.JsonSchema | null | undefined
  /** An Effect Schema, see {@link TypedOutputOptions}. It cannot be combined with `outputSchema`. */
  readonly output?: undefined
  /** The maximum number of repairs of `output`, see {@link TypedOutputOptions}. */
  readonly repairs?: undefined
}

/**
 * The options with the Effect Schema of a turn's final response.
 *
 * @category models
 * @since 0.1.0
 */
export interface TypedOutputOptions<S extends Schema.Constraint> {
  /**
   * The schema of the final response. The server receives it as a strict JSON Schema, and the response is decoded.
   *
   * **Details**
   *
   * Any schema of JSON values works: structs, classes, unions, arrays, literals, recursive schemas, transformations.
   *
   * **Gotchas**
   *
   * A schema that strict JSON Schema cannot express, such as `Schema.Unknown`, fails with `InvalidRequest` before the turn starts.
   */
  readonly output: S
  /**
   * The maximum number of repairs. In a repair, a further turn of the thread reports to the model why its response does not decode.
   *
   * @default 1
   */
  readonly repairs?: number | undefined
  /** The JSON Schema is that of `output`. */
  readonly outputSchema?: undefined
}

/**
 * The time limits of a turn.
 *
 * **Details**
 *
 * A turn that exceeds a limit fails with `TurnTimeout`. It is interrupted on the server, unless other callers use it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TimeoutOptions {
  /**
   * Maximum duration of the turn, from the call to its end.
   *
   * @default no limit
   */
  readonly deadline?: Duration.Input | undefined
  /**
   * Maximum time between two events of the turn. A retry of the server does not count as an event. The time stops while the turn, or a
   * sub-agent that works for it, waits for a handler of the program, and restarts with the response.
   *
   * @default no limit
   */
  readonly idleTimeout?: Duration.Input | undefined
}

/**
 * The option of `thread.runOnce` for a turn that was interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface OnceOptions {
  /**
   * What happens if the turn was interrupted before this call, by a crash, a closed scope or a person:
   *
   * - `"continue"` asks the model to continue: "You were interrupted. Continue where you stopped. Do not repeat work that is done."
   * - `"restart"` sends the input again. The history keeps what the model did before.
   * - `"return"` returns the result with the status `"interrupted"`.
   *
   * @default "continue"
   */
  readonly onInterrupted?: "continue" | "restart" | "return" | undefined
  /** The id is the key. */
  readonly clientUserMessageId?: undefined
}

/**
 * The options of `thread.runOnce`.
 *
 * **Details**
 *
 * They hold if the call starts a turn. A turn that is found or joined keeps the options with which it was started, except `output`,
 * `repairs` and the time limits of this call.
 *
 * @category models
 * @since 0.1.0
 */
export type RunOnceOptions<
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers
> =
  & Omit<TurnOptions<A, Q>, "clientUserMessageId">
  & OnceOptions

/**
 * The options of `thread.runOnce` with typed output.
 *
 * @category models
 * @since 0.1.0
 */
export type TypedRunOnceOptions<
  S extends Schema.Constraint,
  A extends Approvals.Approver<unknown> = Approvals.Approver,
  Q extends Questions.Handlers<unknown> = Questions.Handlers
> =
  & Omit<TypedTurnOptions<S, A, Q>, "clientUserMessageId">
  & OnceOptions

/**
 * The options of `thread.read`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReadOptions extends Protocol.ThreadReadOptions {}

export type {
  /**
   * The effective settings of a thread.
   *
   * @category models
   * @since 0.1.0
   */
  Settings
} from "./internal/threadSettings.ts"

/**
 * A handle of a thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface Thread {
  /** The id of the thread, with which another program can resume it. */
  readonly id: string
  /**
   * Runs a turn and returns its result. Interrupting the fiber, as `Effect.timeout` does, interrupts the turn on the server.
   *
   * **Details**
   *
   * On a thread with a running turn, the input joins that turn, and both callers get its result. Options that cannot hold for a running
   * turn, such as permissions, a model or handlers, then fail with `ThreadBusy`.
   *
   * A time limit or an interruption of one caller ends the wait of that caller. The turn continues for the other callers.
   *
   * With the option `output`, the result has the decoded final response as `output`. A response that does not decode is repaired up to
   * `repairs` times, and then fails with `OutputInvalid`.
   */
  readonly run: {
    <
      const S extends Schema.Constraint = never,
      const A extends Approvals.Approver<unknown> = Approvals.Approver,
      const Q extends Questions.Handlers<unknown> = Questions.Handlers
    >(
      input: Input.Input,
      options: TypedTurnOptions<S, A, Q>
    ): Effect.Effect<
      Turn.TypedTurnResult<S["Type"]>,
      SandboxConflictError | Turn.OutputInvalid | Turn.TurnFailed | AppServerError,
      Approvals.Services<A> | Questions.Services<Q> | S["DecodingServices"]
    >
    <
      const A extends Approvals.Approver<unknown>,
      const Q extends Questions.Handlers<unknown>
    >(
      input: Input.Input,
      options?: TurnOptions<A, Q>
    ): Effect.Effect<
      Turn.TurnResult,
      SandboxConflictError | Turn.TurnFailed | AppServerError,
      Approvals.Services<A> | Questions.Services<Q>
    >
  }
  /**
   * Starts a turn and returns its handle. If the scope closes before the turn has ended, the turn is interrupted.
   *
   * **Details**
   *
   * With the option `output`, the handle also has `output` and `partialOutput`.
   */
  readonly turn: {
    <
      const S extends Schema.Constraint = never,
      const A extends Approvals.Approver<unknown> = Approvals.Approver,
      const Q extends Questions.Handlers<unknown> = Questions.Handlers
    >(
      input: Input.Input,
      options: TypedTurnOptions<S, A, Q>
    ): Effect.Effect<
      Turn.TypedTurn<S["Type"], Turn.PartialOutput<S["Encoded"]>, S["DecodingServices"]>,
      SandboxConflictError | AppServerError,
      Scope.Scope | Approvals.Services<A> | Questions.Services<Q>
    >
    <
      const A extends Approvals.Approver<unknown>,
      const Q extends Questions.Handlers<unknown>
    >(
      input: Input.Input,
      options?: TurnOptions<A, Q>
    ): Effect.Effect<
      Turn.Turn,
      SandboxConflictError | AppServerError,
      Scope.Scope | Approvals.Services<A> | Questions.Services<Q>
    >
  }
  /**
   * Starts a turn and emits its events. The last one is `turn/completed`, also if the turn fails.
   *
   * **Gotchas**
   *
   * Each run of the stream starts a new turn. Ending the stream early, as `Stream.take` does, interrupts the turn.
   */
  readonly stream: <
    const A extends Approvals.Approver<unknown>,
    const Q extends Questions.Handlers<unknown>
  >(
    input: Input.Input,
    options?: TurnOptions<A, Q>
  ) => Stream.Stream<
    Turn.TurnEvent,
    SandboxConflictError | AppServerError,
    Approvals.Services<A> | Questions.Services<Q>
  >
  /**
   * Runs a turn that happens once, however often it is asked for with the same key, also by another process and after a crash.
   *
   * **When to use**
   *
   * In work that is retried or resumed: jobs, workflows, handlers of a queue.
   *
   * **Details**
   *
   * The key is sent with the input, and the server stores it. A later call finds the turn in the history of the thread and returns its
   * result, decoded with the option `output`. It joins a turn that is running, and continues one that was interrupted, see `onInterrupted`.
   * `origin` of the result says which of these happened. A turn that failed fails again with its `TurnFailed`; run it with another key.
   *
   * Calls for one thread start their turns one after another. A call waits until the thread is idle.
   *
   * Each call is safe to retry, for example after `TurnLost` or `ConnectionClosed`.
   *
   * **Gotchas**
   *
   * The input is not compared: a call with the key of another input returns the result of that input.
   *
   * A call reads the history from its end until it finds the key, so a new key reads the whole history.
   *
   * An ephemeral thread fails with `InvalidRequest`. Two clients of a shared server that send a new key at the same time may both send
   * the input.
   *
   * A thread that the server has not stored is given the key as its name, because that stores it.
   */
  readonly runOnce: {
    <
      const S extends Schema.Constraint = never,
      const A extends Approvals.Approver<unknown> = Approvals.Approver,
      const Q extends Questions.Handlers<unknown> = Questions.Handlers
    >(
      key: string,
      input: Input.Input,
      options: TypedRunOnceOptions<S, A, Q>
    ): Effect.Effect<
      Turn.TypedRunOnceResult<S["Type"]>,
      SandboxConflictError | Turn.OutputInvalid | Turn.TurnFailed | AppServerError,
      Approvals.Services<A> | Questions.Services<Q> | S["DecodingServices"]
    >
    <
      const A extends Approvals.Approver<unknown>,
      const Q extends Questions.Handlers<unknown>
    >(
      key: string,
      input: Input.Input,
      options?: RunOnceOptions<A, Q>
    ): Effect.Effect<
      Turn.RunOnceResult,
      SandboxConflictError | Turn.TurnFailed | AppServerError,
      Approvals.Services<A> | Questions.Services<Q>
    >
  }
  /** Reads the stored thread, with its turns if `includeTurns` is `true`. Before its first turn, a thread has no turns to read. */
  readonly read: (options?: ReadOptions) => Effect.Effect<Protocol.Thread, AppServerError>
  /** Sets the name of the thread. */
  readonly setName: (name: string) => Effect.Effect<void, AppServerError>
  /**
   * Compacts the context of the thread: the model summarizes the history. Waits until that is complete.
   *
   * **Gotchas**
   *
   * The server interrupts a running turn of the thread.
   */
  readonly compact: Effect.Effect<void, Turn.TurnFailed | AppServerError>
  /**
   * Returns the effective permissions, model and working directory of the thread.
   *
   * **When to use**
   *
   * Check a thread that this program did not start before you run a turn on it. A resumed or forked thread may have
   * the permissions of `config.toml`.
   *
   * **Details**
   *
   * The server reports these settings when it opens the thread, and each change by a turn or another client. After a restart of the
   * server, the thread is resumed first.
   */
  readonly settings: Effect.Effect<Settings, AppServerError>
  /**
   * A handle of each turn that starts from now on, also of turns that this program did not start.
   *
   * **When to use**
   *
   * Follow the turns of a goal, a review or another client.
   *
   * **Details**
   *
   * The handles watch their turns. Interrupting a fiber that uses one ends its wait, and only `turn.interrupt` interrupts the turn. A handle
   * works until its turn ends, also when the stream has ended.
   *
   * The stream ends when the thread is closed or deleted. It fails when the connection ends for good.
   */
  readonly turns: Stream.Stream<Turn.Turn, AppServerError>
  /**
   * A handle of the running turn, or `None` if the thread runs no turn.
   *
   * **Details**
   *
   * The handle watches the turn: only `turn.interrupt` interrupts it. When the scope closes, the handle fails with `TurnLost`, and the turn
   * continues.
   *
   * If this program did not start the turn, its first events are the items that the server has stored, and the starts of the commands and
   * calls in progress. A message that is being written arrives whole when it completes, and so does the output of a command before.
   */
  readonly currentTurn: Effect.Effect<Option.Option<Turn.Turn>, AppServerError, Scope.Scope>
  /**
   * The state of the thread, and then each change: its settings, its goal, and the views of its turns.
   *
   * **Details**
   *
   * Reads the stored thread with all its turns. A slow subscriber skips to the newest state. After a restart of the server, the thread is
   * read again.
   *
   * The stream ends when the thread is closed or deleted. It fails when the connection ends for good.
   *
   * @see `ThreadView`
   */
  readonly view: Stream.Stream<ThreadView.ThreadView, AppServerError>
  /** The background terminals of the thread. Needs the experimental API. */
  readonly backgroundTerminals: BackgroundTerminals
  /**
   * Closes the thread on this connection: interrupts the turns that this program started, ends the subscription to its events, and
   * removes its handlers and tools.
   *
   * **When to use**
   *
   * In a program that opens many threads on one server. A server that this package started unloads a thread without a subscriber, and
   * ends the thread's MCP servers.
   *
   * **Details**
   *
   * A turn that another client or a goal started continues. A caller that waits for it fails with `TurnLost`. `view` and `turns` end.
   *
   * **Gotchas**
   *
   * All handles of the thread are closed: `run`, `turn`, `stream`, `compact` and `settings` fail with `InvalidRequest`.
   * `codex.resumeThread` opens the thread and these handles again, with the same permissions. A thread without a turn is not stored, so
   * it cannot be resumed.
   */
  readonly close: Effect.Effect<void, AppServerError>
}

/**
 * The background terminals of a thread: commands that outlive their turns, such as servers and watchers.
 *
 * @category models
 * @since 0.1.0
 */
export interface BackgroundTerminals {
  /** Emits the running commands. Pages are requested as the stream is pulled. */
  readonly list: Stream.Stream<Protocol.ThreadBackgroundTerminal, AppServerError>
  /** Ends the command with this `processId`. Returns `false` if there is none. */
  readonly terminate: (processId: string) => Effect.Effect<boolean, AppServerError>
  /** Ends all running commands. */
  readonly clean: Effect.Effect<void, AppServerError>
}

const ownKinds: Kinds<Pick<TurnOptions, "deadline" | "idleTimeout" | "keepBackgroundTerminals" | "outputSchema">> = {
  deadline: duration,
  idleTimeout: duration,
  keepBackgroundTerminals: boolean,
  outputSchema: jsonSchema
}

interface ThreadContext {
  readonly session: SessionState
  readonly thread: OpenThread
}

/** Adds the state to a `ThreadNotFound` failure if the thread was archived or deleted. */
const explainGone = <A, E, R>(effect: Effect.Effect<A, E, R>, { thread: { record } }: ThreadContext) =>
  Effect.mapError(effect, (error) => withGone(error, record))

/** The kinds of the options that only typed output has. */
const typedKinds: Kinds<Pick<TypedTurnOptions<Schema.Constraint>, "output" | "repairs">> = {
  output: schema,
  repairs: count
}

/** The options of a turn, whose handlers need any services. */
type AnyTurnOptions = TurnOptions<Approvals.Approver<unknown>, Questions.Handlers<unknown>>

/** The options of a turn with typed output, whose handlers and schema need any services. */
type AnyTypedOptions = TypedTurnOptions<
  Schema.ConstraintCodec<unknown, unknown>,
  Approvals.Approver<unknown>,
  Questions.Handlers<unknown>
>

type AnyCommonOptions =
  & CommonOptions<Approvals.Approver<unknown>, Questions.Handlers<unknown>>
  & Pick<OutputOptions, "outputSchema">

type AnyOptions = AnyTurnOptions | AnyTypedOptions

const isTyped = (options: AnyOptions | undefined): options is AnyTypedOptions =>
  Predicate.isObject(options) && options.output !== undefined

const invalidTurn = (description: string): AppServerError =>
  appServerError(new InvalidRequest({ method: "turn/start", description }))

/** Checks and resolves the options of a turn, and of the repairs of its output. `exclusive` are the options that the caller passed. */
const prepare = Effect.fnUntraced(function*(options: AnyCommonOptions, exclusive: object) {
  const { approvals, deadline, idleTimeout, keepBackgroundTerminals = false, questions, ...rest } = options
  const issue = optionIssue(ownKinds, {
    deadline,
    idleTimeout,
    keepBackgroundTerminals,
    outputSchema: rest.outputSchema
  })
  if (issue !== undefined) return yield* invalidTurn(issue)
  return {
    handlers: yield* provideHandlers({ approvals, questions }, "turn/start"),
    context: yield* contextHandlers,
    budget: yield* CurrentBudget,
    fields: yield* resolveTurnOptions(rest),
    deadline,
    idleTimeout,
    keepBackgroundTerminals,
    exclusive: exclusiveOptions({
      ...exclusive,
      deadline: undefined,
      idleTimeout: undefined,
      keepBackgroundTerminals: keepBackgroundTerminals || undefined
    }),
    since: yield* Clock.currentTimeMillis
  }
})

type Prepared = Effect.Success<ReturnType<typeof prepare>>

const startHandle = Effect.fnUntraced(function*(
  { session, thread }: ThreadContext,
  { deadline, fields, idleTimeout, since, ...options }: Prepared,
  input: Input.Input
) {
  const { budgets, server } = session
  const validated = yield* Input.validate("turn/start", input)
  yield* budgets.check(options.budget, thread.id, fields.model ?? thread.record.settings.model)
  const timeout = yield* startTimeout(server, thread.id, { deadline, idle: idleTimeout }, since)
  const items = Predicate.isNotNullish(fields.cwd) || hasFiles(validated)
    ? yield* timeout(Effect.andThen(
      requireCwd(server, "turn/start", fields.cwd),
      resolveFiles(server, "turn/start", validated, fields.cwd ?? thread.record.settings.cwd)
    ))
    : validated
  const params = { ...fields, threadId: thread.id, input: items }
  const handle = yield* startTurn(session, thread, {
    ...options,
    params: yield* withExactRoots(thread.record.settings, server.experimentalApi, params),
    timeout
  })
  if (deadline !== undefined) yield* startDeadline(handle, deadline, since)
  if (idleTimeout !== undefined) yield* startIdleTimeout(handle, idleTimeout)
  return handle
}, explainGone)

const startPrepared = (context: ThreadContext, prepared: Prepared, input: Input.Input) =>
  Effect.map(startHandle(context, prepared, input), Turn.make)

/** Checks and resolves the options of a turn without typed output. Only plain JavaScript passes one here. */
const prepareUntyped = Effect.fnUntraced(function*({ output, repairs, ...untyped }: AnyTurnOptions) {
  if (output !== undefined) {
    return yield* invalidTurn("`stream` has no typed output. Use `turn` with the option `output`")
  }
  if (repairs !== undefined) return yield* invalidTurn("`repairs` needs the option `output`")
  return yield* prepare(untyped, untyped)
})

const start = Effect.fnUntraced(function*(context: ThreadContext, input: Input.Input, options: AnyTurnOptions = {}) {
  yield* requireOptions("turn/start", options)
  return yield* startPrepared(context, yield* prepareUntyped(options), input)
})

/** The fields of the input, which a repair does not repeat. */
const onlyFirst = {
  additionalContext: undefined,
  clientUserMessageId: undefined,
  toolOutput: undefined
} satisfies Protocol.TurnStartOptions

/** Checks the options of a turn with typed output, and makes the codec of its schema. */
const prepareTyped = Effect.fnUntraced(function*(options: AnyTypedOptions) {
  const { output, outputSchema, repairs = 1, ...rest } = options
  const issue = optionIssue(typedKinds, { output, repairs })
  if (issue !== undefined) return yield* invalidTurn(issue)
  if (outputSchema !== undefined) return yield* invalidTurn("pass either `output` or `outputSchema`, not both")
  const { makeOutputCodec } = yield* loadOutputCodec
  const codec = yield* makeOutputCodec(output)
  const prepared = yield* prepare({ ...rest, outputSchema: codec.jsonSchema }, { ...rest, output })
  return { codec, repairs, prepared }
})

/** Makes the turn with typed output, and its repairs. */
const typedTurn = Effect.fnUntraced(function*(context: ThreadContext, input: Input.Input, options: AnyTypedOptions) {
  const { prepared, ...typed } = yield* prepareTyped(options)
  const repair = { ...prepared, fields: { ...prepared.fields, ...onlyFirst } }
  return {
    ...typed,
    start: startPrepared(context, prepared, input),
    repair: (input: Input.Input) => startPrepared(context, repair, input)
  }
})

const run = Effect.fn("Thread.run")(
  function*(context: ThreadContext, input: Input.Input, options?: AnyOptions) {
    yield* Effect.annotateCurrentSpan(Attribute.ConversationId, context.thread.id)
    if (isTyped(options)) return yield* runTyped(yield* typedTurn(context, input, options))
    const turn = yield* start(context, input, options)
    return yield* turn.result
  },
  Effect.scoped
)

const turn = Effect.fn("Thread.turn")(
  function*(context: ThreadContext, input: Input.Input, options?: AnyOptions) {
    yield* Effect.annotateCurrentSpan(Attribute.ConversationId, context.thread.id)
    if (isTyped(options)) return yield* startTyped(yield* typedTurn(context, input, options))
    return yield* start(context, input, options)
  }
)

const onceKinds: Kinds<Pick<OnceOptions, "onInterrupted">> = {
  onInterrupted: oneOf("continue", "restart", "return")
}

/** Checks the options of `runOnce` that other turns do not have. */
const onceIssue = ({ clientUserMessageId, onInterrupted }: OnceOptions): string | undefined =>
  clientUserMessageId === undefined
    ? optionIssue(onceKinds, { onInterrupted })
    : "`clientUserMessageId` is the key. Pass it as the first argument"

const runOnce = Effect.fn("Thread.runOnce")(
  function*(context: ThreadContext, key: string, input: Input.Input, options: AnyOptions & OnceOptions = {}) {
    const { session, thread } = context
    yield* Effect.annotateCurrentSpan(Attribute.ConversationId, thread.id)
    yield* requireOptions("turn/start", options)
    const issue = keyIssue(key) ?? onceIssue(options)
    if (issue !== undefined) return yield* invalidTurn(issue)
    const { onInterrupted = "continue", ...others } = options
    // The union of the options has lost its form in the rest.
    const rest = others as AnyOptions
    yield* Input.validate("turn/start", input)
    const { prepared, ...typed } = isTyped(rest)
      ? yield* prepareTyped(rest)
      : { prepared: yield* prepareUntyped(rest), codec: undefined, repairs: 0 }
    const { deadline, fields, idleTimeout, since } = prepared
    return yield* runKeyed({
      session,
      thread,
      key,
      input,
      onInterrupted,
      ...typed,
      start: (input, inputId, isRepeated) =>
        startHandle(context, {
          ...prepared,
          // A running turn does not take the input.
          exclusive: [...prepared.exclusive, "key"],
          fields: { ...fields, ...(isRepeated ? {} : onlyFirst), clientUserMessageId: inputId }
        }, input),
      limit: Effect.fnUntraced(function*(handle) {
        if (deadline !== undefined) yield* startDeadline(handle, deadline, since)
        if (idleTimeout !== undefined) yield* startIdleTimeout(handle, idleTimeout)
      }),
      timeout: yield* deadlineTimeout(thread.id, deadline, since)
    }).pipe((effect) => explainGone(effect, context))
  },
  Effect.scoped
)

const read = Effect.fn("Thread.read")(function*(context: ThreadContext, options: ReadOptions = {}) {
  const { session: { server }, thread: { id } } = context
  yield* requireOptions("thread/read", options)
  const { thread } = yield* explainGone(server.request("thread/read", { ...options, threadId: id }), context)
  return thread
})

const setName = Effect.fn("Thread.setName")(function*({ session, thread }: ThreadContext, name: string) {
  yield* session.server.request("thread/name/set", { threadId: thread.id, name })
}, explainGone)

const compact = Effect.fn("Thread.compact")(function*({ session, thread }: ThreadContext) {
  const timeout = yield* requestTimeout(session.server, "thread/compact/start")
  const { state, turn } = yield* compactThread(session, thread, yield* CurrentBudget, timeout)
  const { status } = yield* Turn.toResult(state, turn)
  if (status !== "completed") return yield* Turn.failure(state, turn, "the compaction was interrupted")
}, explainGone)

const settings = Effect.fn("Thread.settings")((context: ThreadContext) => {
  const { session: { server }, thread } = context
  const opened = thread.request(server, "thread/resume", () => Effect.sync(() => thread.record.settings))
  return explainGone(opened, context)
})

const close = Effect.fn("Thread.close")(function*({ session, thread }: ThreadContext) {
  const { id, record } = thread
  if (record.isClosed) return
  record.isClosed = true
  yield* closeTurns(session, id)
  yield* session.server.request("thread/unsubscribe", { threadId: id }).pipe(
    Effect.onError(() =>
      Effect.sync(() => {
        record.isClosed = false
      })
    )
  )
  record.end()
  record.instructions = {}
  session.handlers.closeThread(id)
  session.turns.usages.forgetTotals(id)
})

const backgroundTerminals = (
  { session: { server }, thread, thread: { id: threadId } }: ThreadContext
): BackgroundTerminals => ({
  list: pages(
    {
      withVersions: server.withVersions,
      requestRaw: (method, params) =>
        thread.request(server, method, (client, options) => client.requestRaw(method, params, options))
    },
    "thread/backgroundTerminals/list",
    { threadId },
    Protocol.ThreadBackgroundTerminal
  ),
  terminate: Effect.fn("Thread.backgroundTerminals.terminate")(function*(processId) {
    const { terminated } = yield* thread.request(
      server,
      "thread/backgroundTerminals/terminate",
      (client, options) => client.request("thread/backgroundTerminals/terminate", { threadId, processId }, options)
    )
    return terminated
  }),
  clean: Effect.asVoid(thread.request(
    server,
    "thread/backgroundTerminals/clean",
    (client, options) => client.request("thread/backgroundTerminals/clean", { threadId }, options)
  ))
})

/** Opens the thread again if a restart has closed it, because the server sends its events only then. */
const ensureOpen = ({ session: { server }, thread }: ThreadContext) =>
  thread.request(server, "thread/resume", () => Effect.void)

const turns = (context: ThreadContext): Thread["turns"] => {
  const { session, thread } = context
  const watched = watchTurns(session, { id: thread.id, opened: thread }, "next")
  return Stream.unwrap(Effect.as(explainGone(ensureOpen(context), context), watched)).pipe(Stream.map(Turn.make))
}

const currentTurn = Effect.fn("Thread.currentTurn")(function*(context: ThreadContext) {
  const { session, thread } = context
  yield* ensureOpen(context)
  const handle = yield* watchCurrentTurn(session, { id: thread.id, opened: thread })
  return Option.map(handle, Turn.make)
}, explainGone)

/** @internal */
export const make = (session: SessionState, thread: OpenThread): Thread => {
  const context: ThreadContext = { session, thread }
  return {
    id: thread.id,
    // The context of the caller has the services of the handlers and of the schema, because the types of the interface require them.
    run: ((input: Input.Input, options?: AnyOptions) => run(context, input, options)) as Thread["run"],
    turn: ((input: Input.Input, options?: AnyOptions) => turn(context, input, options)) as Thread["turn"],
    runOnce:
      ((key: string, input: Input.Input, options?: AnyOptions & OnceOptions) =>
        runOnce(context, key, input, options)) as Thread["runOnce"],
    stream: (input, options) => Stream.unwrap(Effect.map(start(context, input, options), ({ events }) => events)),
    read: (options) => read(context, options),
    setName: (name) => setName(context, name),
    compact: Effect.suspend(() => compact(context)),
    settings: Effect.suspend(() => settings(context)),
    turns: turns(context),
    currentTurn: Effect.suspend(() => currentTurn(context)),
    view: watchThread(session, { id: thread.id, opened: thread }),
    backgroundTerminals: backgroundTerminals(context),
    close: Effect.suspend(() => close(context))
  }
}
