/**
 * A turn: the work of the model and its tools on one input, from start to end.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type AppServerError,
  DecodeFailed,
  describeTurnError,
  make as appServerError,
  showLastError,
  TurnEnded
} from "./AppServerError.ts"
import * as Input from "./Input.ts"
import { fromSubscription } from "./internal/connection/subscription.ts"
import { showIssues } from "./internal/output/issue.ts"
import type { SessionState } from "./internal/session/sessionState.ts"
import { resolveFiles } from "./internal/session/settings/serverPaths.ts"
import { interruptSubAgents } from "./internal/session/turns/interruptSubAgents.ts"
import { requestInterrupt } from "./internal/session/turns/interruptTurn.ts"
import type { TurnHandle } from "./internal/session/turns/turnHandle.ts"
import type { TurnState } from "./internal/session/turns/turnState.ts"
import { startDeadline, startIdleTimeout } from "./internal/session/turns/turnTimeouts.ts"
import { watchTurns } from "./internal/session/turns/watchTurns.ts"
import { fromViewSubscription } from "./internal/session/views/liveView.ts"
import { redactTurnView } from "./internal/session/views/redactView.ts"
import { watchThread } from "./internal/session/views/threadView.ts"
import * as Protocol from "./Protocol.ts"
import type * as ThreadView from "./ThreadView.ts"
import type * as TurnView from "./TurnView.ts"
import * as Usage from "./Usage.ts"

const TypeId = "~effect-codex/Turn"

/**
 * An event of a turn: the notification of the protocol, with `method` as its tag.
 *
 * **Details**
 *
 * A notification that only a newer server has passes through as it is.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnEvent = Protocol.TurnNotification

/**
 * The result of a turn that was completed or interrupted. A turn that failed has a {@link TurnFailed}.
 *
 * @category models
 * @since 0.1.0
 */
export interface TurnResult {
  readonly id: string
  readonly threadId: string
  readonly status: "completed" | "interrupted"
  /**
   * The text of the last message with the phase `final_answer`, or else of the last message without a phase. Commentary is never the
   * final response.
   */
  readonly finalResponse: string | undefined
  /** The completed items of the turn, in order: messages, commands, file changes, tool calls, … */
  readonly items: ReadonlyArray<Protocol.ThreadItem>
  /** The usage of the turn, or `undefined` if the server reported none. Print `usage.turn`. */
  readonly usage: Usage.TurnUsage | undefined
  /** Start of the turn, as Unix time in seconds. */
  readonly startedAt: number | undefined
  /** End of the turn, as Unix time in seconds. */
  readonly completedAt: number | undefined
  /** Duration of the turn in milliseconds. */
  readonly durationMs: number | undefined
}

/**
 * The turn ended with an error.
 *
 * **Details**
 *
 * The model was not reachable or refused, the context is full, or a usage limit is reached, for example; see `codexErrorInfo`.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnFailed extends Schema.TaggedError<TurnFailed>()("TurnFailed", {
  threadId: Schema.String,
  turnId: Schema.String,
  /** The error message of the server. */
  detail: Schema.String,
  /** The kind of failure, such as `"usageLimitExceeded"` or `{ httpConnectionFailed: { httpStatusCode } }`. */
  codexErrorInfo: Schema.UndefinedOr(Protocol.CodexErrorInfo),
  additionalDetails: Schema.UndefinedOr(Schema.String),
  /** The last error that the server reported in the turn, usually the one that ended it, without secrets. */
  lastError: Schema.UndefinedOr(Protocol.TurnError).pipe(Schema.withConstructorDefault(Effect.undefined)),
  /** The items that were completed before the failure. */
  items: Schema.Array(Protocol.ThreadItem),
  /** The usage of the turn before the failure, or `undefined` if the server reported none. */
  usage: Schema.UndefinedOr(Usage.TurnUsage)
}) {
  override get message(): string {
    const kind = this.codexErrorInfo === undefined ? "" : ` (${JSON.stringify(this.codexErrorInfo)})`
    const { additionalDetails = null, detail, lastError } = this
    const isOther = lastError !== undefined && lastError.message !== detail
    return `Turn \`${this.turnId}\` of thread \`${this.threadId}\` failed${kind}: ${
      describeTurnError({ message: detail, additionalDetails })
    }${showLastError(isOther ? lastError : undefined)}`
  }
}

/**
 * The result of a turn with typed output.
 *
 * **Details**
 *
 * After a repair, `items`, `usage.turn` and `durationMs` are those of all attempts together. The other fields are those of the last one.
 *
 * @category models
 * @since 0.1.0
 */
export interface TypedTurnResult<out A> extends TurnResult {
  /** The final response, decoded with the schema. */
  readonly output: A
}

/**
 * The result of `thread.runOnce`.
 *
 * **Details**
 *
 * If the turn was continued, restarted or repaired, `items` and `durationMs` are those of all attempts together. The server does not store
 * the usage of a turn, so `usage` has only what this program has seen.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOnceResult extends TurnResult {
  /**
   * How the result came about:
   *
   * - `"sent"`: this call sent the input.
   * - `"joined"`: the turn was running, and this call waited for its end.
   * - `"found"`: the turn had ended, and its result is that of the history.
   * - `"continued"`: the turn was interrupted, and this call asked the model to continue. A repair of a found output also continues.
   * - `"restarted"`: the turn was interrupted, and this call sent the input again.
   */
  readonly origin: "sent" | "joined" | "found" | "continued" | "restarted"
}

/**
 * The result of `thread.runOnce` with typed output.
 *
 * @category models
 * @since 0.1.0
 */
export interface TypedRunOnceResult<out A> extends RunOnceResult {
  /** The final response, decoded with the schema. */
  readonly output: A
}

/**
 * The final response of a turn does not decode with the schema of its option `output`, also after the repairs.
 *
 * **Details**
 *
 * - `"notJson"`: the final response is not JSON.
 * - `"invalid"`: the final response is JSON, and does not satisfy the schema.
 * - `"noMessage"`: the turn was completed without a final response. The server omits a refusal of the model, so a refused turn has none.
 * - `"interrupted"`: the turn was interrupted.
 *
 * Only `"notJson"` and `"invalid"` are repaired. A response that the provider truncates is a {@link TurnFailed} instead.
 *
 * @category errors
 * @since 0.1.0
 */
export class OutputInvalid extends Schema.TaggedError<OutputInvalid>()("OutputInvalid", {
  threadId: Schema.String,
  /** The id of the last attempt. */
  turnId: Schema.String,
  reason: Schema.Literals(["notJson", "invalid", "noMessage", "interrupted"]),
  /** The final response of the last attempt, if there is one. It is not part of `message`. */
  text: Schema.UndefinedOr(Schema.String),
  /** All issues of the last attempt, with their paths in the decoded value. */
  issues: Schema.Array(Schema.Struct({
    path: Schema.Array(Schema.PropertyKey),
    message: Schema.String
  })),
  /** The number of turns: the first one and the repairs. */
  attempts: Schema.Number,
  /** The usage of all attempts, or `undefined` if the server reported none. */
  usage: Schema.UndefinedOr(Usage.TurnUsage)
}) {
  /** The issues as text, one on each line. */
  get issue(): string {
    return showIssues(this.issues)
  }

  override get message(): string {
    const turn = `turn \`${this.turnId}\` of thread \`${this.threadId}\``
    if (this.reason === "interrupted") return `The ${turn} was interrupted, so it has no output. Run it again`
    if (this.reason === "noMessage") {
      return `The ${turn} was completed without a final response, so it has no output. Ask for a final response in the input`
    }
    const attempts = this.attempts === 1 ? "1 attempt" : `${this.attempts} attempts`
    return `The final response of ${turn} does not satisfy the schema of \`output\` after ${attempts}. ` +
      `Simplify the schema, describe its fields, or set \`repairs\`:\n${this.issue}`
  }
}

type Primitive<T> = T extends number | boolean | null ? T : T extends string | bigint | symbol ? string : null

/**
 * The type of an output while it arrives, from the encoded type of its schema.
 *
 * **Details**
 *
 * Each field may be missing, and each string may be incomplete. Values that JSON does not have, such as a `Date`, are `unknown`: their
 * JSON depends on the schema.
 *
 * @category models
 * @since 0.1.0
 */
export type PartialOutput<T> = unknown extends T ? unknown
  : T extends ReadonlyArray<infer Element> ? ReadonlyArray<PartialOutput<Element>>
  : T extends object
    ? (Extract<T[keyof T], (...args: ReadonlyArray<never>) => unknown> extends never
      ? { readonly [K in keyof T]?: PartialOutput<T[K]> | undefined }
      : unknown)
  : Primitive<T>

/**
 * A handle of a turn with typed output.
 *
 * **Details**
 *
 * Repairs are further turns of the same thread, which `output` and `partialOutput` start and await.
 *
 * - `id`, `events`, `text`, `messages`, `subAgents` and `result` belong to the first turn.
 * - `steer` and `interrupt` belong to the attempt that is running. `interrupt` prevents further repairs.
 * - `view` emits the views of the attempt that is running, and then those of each repair, whose `turnId` is another one. It ends after the
 *   last attempt, or after an attempt without a caller that waits for the output.
 *
 * @category models
 * @since 0.1.0
 */
export interface TypedTurn<out A, out Partial = unknown, out R = never> extends Turn {
  /**
   * Waits for the end of the turn and decodes its final response. Starts the repairs that are needed. Several callers share them.
   *
   * **Details**
   *
   * Interrupting the fiber ends the wait. The turn continues until its scope closes.
   */
  readonly output: Effect.Effect<A, OutputInvalid | TurnFailed | AppServerError, R>
  /** The usage of all attempts so far, or `undefined` if the server reported none. `usage.turn` has the tokens of all of them. */
  readonly usage: Effect.Effect<Usage.TurnUsage | undefined>
  /**
   * Emits the JSON of the output as far as it has arrived, and at last the decoded output.
   *
   * **Details**
   *
   * Each value is a new snapshot. After a retracted message or before a repair, the values start again from the beginning.
   */
  readonly partialOutput: Stream.Stream<Partial | A, OutputInvalid | TurnFailed | AppServerError, R>
}

/**
 * An event of a message of the assistant.
 *
 * **Details**
 *
 * - `Started`: the server started a message.
 * - `Delta`: a part of its text arrived.
 * - `Completed`: the message is complete. `text` is its whole text, which equals its deltas since it was started.
 * - `Retracted`: the message will not complete; discard its deltas. The server interrupted it to retry the model request, started
 *   another message instead, or ended the turn.
 *
 * `phase` is the phase that the model assigned to the message, such as `"commentary"` or `"final_answer"`. A message may have none.
 *
 * **Gotchas**
 *
 * A message that completes after it was retracted starts again, with its whole text as one delta. A message that completes with another
 * text than its deltas is retracted, and starts again in the same way.
 *
 * @category models
 * @since 0.1.0
 */
export type MessageEvent = Data.TaggedEnum<{
  Started: { readonly itemId: string; readonly phase: Protocol.MessagePhase | undefined }
  Delta: { readonly itemId: string; readonly phase: Protocol.MessagePhase | undefined; readonly delta: string }
  Completed: { readonly itemId: string; readonly phase: Protocol.MessagePhase | undefined; readonly text: string }
  Retracted: { readonly itemId: string; readonly phase: Protocol.MessagePhase | undefined }
}>

/**
 * The constructors of {@link MessageEvent}, with `$match` and `$is`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const MessageEvent = Data.taggedEnum<MessageEvent>()

/**
 * A handle of a turn.
 *
 * **Details**
 *
 * The handle belongs to the scope in which the turn was started. If the scope closes before the turn has ended, the turn is interrupted
 * on the server, unless other callers use it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Turn {
  /** @internal */
  readonly [TypeId]?: TurnHandle
  readonly id: string
  readonly threadId: string
  /**
   * The events of the turn from its start to `turn/completed`. The stream can run at any time and several times.
   *
   * **Details**
   *
   * No event is lost. Deltas that a slow subscriber has not read are coalesced: consecutive deltas of one item become one event.
   */
  readonly events: Stream.Stream<TurnEvent, AppServerError>
  /**
   * The text of all messages of the assistant as it arrives, with a blank line between two messages.
   *
   * **Gotchas**
   *
   * The stream cannot retract text. If a model request is interrupted, the server retries it and starts the message again, as a new
   * paragraph. `messages` reports retractions, and `finalResponse` of the result contains completed messages only.
   */
  readonly text: Stream.Stream<string, AppServerError>
  /**
   * The events of the messages of the assistant: a message starts, its text arrives, and it is completed or retracted.
   *
   * **When to use**
   *
   * In programs that must remove text that was retracted. Otherwise `text` is simpler.
   */
  readonly messages: Stream.Stream<MessageEvent, AppServerError>
  /** Adds input to the running turn. Fails with `TurnEnded` if the turn has ended. */
  readonly steer: (input: Input.Input) => Effect.Effect<void, AppServerError>
  /**
   * Interrupts the turn on the server. Its `result` then has the status `interrupted`. If the turn has ended, this succeeds and changes
   * nothing.
   */
  readonly interrupt: Effect.Effect<void, AppServerError>
  /** Waits for the turn to end, and returns its result. */
  readonly result: Effect.Effect<TurnResult, TurnFailed | AppServerError>
  /**
   * The state of the turn, and then each change until the turn ends.
   *
   * **When to use**
   *
   * Show the turn: its items with their texts, plan, diff, usage, retry, and the approvals and questions that wait for a response.
   *
   * **Details**
   *
   * A slow subscriber skips to the newest state. A late one starts with the whole turn.
   *
   * @see `TurnView`
   */
  readonly view: Stream.Stream<TurnView.TurnView, AppServerError>
  /**
   * The sub-agents to which the turn gives work, each once, until the turn ends.
   *
   * **Gotchas**
   *
   * A sub-agent continues when the turn ends or is interrupted. {@link interruptWithSubAgents} interrupts both.
   */
  readonly subAgents: Stream.Stream<SubAgent, AppServerError>
}

/**
 * An agent that works for a turn, in a thread of its own.
 *
 * **Details**
 *
 * Its turns are watched: they continue when their handles are released. `turns` and `view` end when the server unloads or deletes the thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubAgent {
  /** The id of its thread. */
  readonly id: string
  /** The id of the thread for which it works. */
  readonly parentId: string
  /** The task that the model gave to it, if the server reports it. */
  readonly task: string | undefined
  /** Its model, if the server reports it. */
  readonly model: string | undefined
  /** A handle of its running turn, and then of each turn that it starts from then on. */
  readonly turns: Stream.Stream<Turn, AppServerError>
  /** The state of its thread with all its turns, and then each change. */
  readonly view: Stream.Stream<ThreadView.ThreadView, AppServerError>
  /** The tokens that it has used in all its turns so far. */
  readonly usage: Effect.Effect<Usage.Tokens>
}

const finalResponse = (items: ReadonlyArray<Protocol.ThreadItem>): string | undefined => {
  let unmarked: string | undefined
  let final: string | undefined
  for (const item of items) {
    if (item.type !== "agentMessage") continue
    if (item.phase === "final_answer") final = item.text
    else if (item.phase === null || item.phase === undefined) unmarked = item.text
  }
  return final ?? unmarked
}

/** @internal */
export const failure = (state: TurnState, turn: Protocol.Turn, detail: string): Effect.Effect<never, TurnFailed> =>
  Effect.fail(
    new TurnFailed({
      threadId: state.threadId,
      turnId: turn.id,
      detail: state.redact(detail),
      codexErrorInfo: turn.error?.codexErrorInfo ?? undefined,
      additionalDetails: turn.error?.additionalDetails == null ? undefined : state.redact(turn.error.additionalDetails),
      lastError: state.lastError,
      items: state.items.slice(),
      usage: state.usage
    })
  )

/** @internal */
export const toResult = (
  state: TurnState,
  turn: Protocol.Turn
): Effect.Effect<TurnResult, TurnFailed | AppServerError> => {
  const items = state.items.slice()
  const ended = (status: TurnResult["status"]): Effect.Effect<TurnResult> =>
    Effect.succeed({
      id: turn.id,
      threadId: state.threadId,
      status,
      finalResponse: finalResponse(items),
      items,
      usage: state.usage,
      startedAt: turn.startedAt ?? undefined,
      completedAt: turn.completedAt ?? undefined,
      durationMs: turn.durationMs ?? undefined
    })
  switch (turn.status) {
    case "completed":
      return ended("completed")
    case "interrupted":
      return ended("interrupted")
    case "failed":
      return failure(state, turn, turn.error?.message ?? "the server gave no reason")
    default:
      return Effect.fail(state.withVersions(appServerError(
        new DecodeFailed({
          method: "turn/completed",
          issue: `turn \`${turn.id}\` of thread \`${state.threadId}\` ended with the unknown status \`${turn.status}\``
        })
      )))
  }
}

/** The part of a turn's messages that was emitted as text. */
interface Emitted {
  isEmpty: boolean
  /** The id of the current message. */
  itemId: string | undefined
  /** The emitted length of the current message. */
  length: number
  /** The emitted lengths of other messages that have not completed. */
  readonly others: Map<string, number>
}

/** Continues with another message. */
const switchTo = (emitted: Emitted, itemId: string): void => {
  if (emitted.itemId !== undefined) emitted.others.set(emitted.itemId, emitted.length)
  emitted.itemId = itemId
  emitted.length = emitted.others.get(itemId) ?? 0
  emitted.others.delete(itemId)
}

const emit = (emitted: Emitted, itemId: string, text: string): ReadonlyArray<string> => {
  if (text === "") return []
  const isNew = emitted.itemId !== itemId
  if (isNew) switchTo(emitted, itemId)
  const isParagraph = !emitted.isEmpty && (isNew || emitted.length === 0)
  emitted.isEmpty = false
  emitted.length += text.length
  return [isParagraph ? `\n\n${text}` : text]
}

/**
 * Emits the texts of a turn's messages, with a blank line between two of them. When a message completes, the text that had no deltas is
 * emitted.
 *
 * @internal
 */
export const toText = <E>(events: Stream.Stream<TurnEvent, E>): Stream.Stream<string, E> =>
  Stream.mapAccum(
    events,
    (): Emitted => ({ isEmpty: true, itemId: undefined, length: 0, others: new Map() }),
    (emitted, event): readonly [Emitted, ReadonlyArray<string>] => {
      switch (event.method) {
        case "item/agentMessage/delta":
          return [emitted, emit(emitted, event.params.itemId, event.params.delta)]
        case "item/started": {
          const { item } = event.params
          if (item.type !== "agentMessage") return [emitted, []]
          // A message that was interrupted may start again with the same id.
          if (emitted.itemId === item.id) emitted.length = 0
          else emitted.others.delete(item.id)
          return [emitted, []]
        }
        case "item/completed": {
          const { item } = event.params
          if (item.type !== "agentMessage") return [emitted, []]
          const length = emitted.itemId === item.id ? emitted.length : emitted.others.get(item.id) ?? 0
          const texts = emit(emitted, item.id, item.text.slice(length))
          if (emitted.itemId === item.id) emitted.itemId = undefined
          emitted.others.delete(item.id)
          return [emitted, texts]
        }
        default:
          return [emitted, []]
      }
    }
  )

/** A message that has started and not completed. */
interface OpenMessage {
  readonly itemId: string
  readonly phase: Protocol.MessagePhase | undefined
  text: string
}

/**
 * Folds the events of a turn to events of its messages. One message is open at a time.
 *
 * @internal
 */
export class Messages {
  private open: OpenMessage | undefined
  /** Retracted messages, which may still complete. */
  private readonly retracted = new Set<string>()

  on(event: TurnEvent): ReadonlyArray<MessageEvent> {
    switch (event.method) {
      case "item/started": {
        const { item } = event.params
        return item.type === "agentMessage" ? this.start(item.id, item.phase ?? undefined) : []
      }
      case "item/agentMessage/delta":
        return this.add(event.params.itemId, event.params.delta)
      case "item/completed": {
        const { item } = event.params
        return item.type === "agentMessage" ? this.complete(item.id, item.phase ?? undefined, item.text) : []
      }
      case "error":
        return event.params.willRetry ? this.retract() : []
      default:
        return []
    }
  }

  private start(itemId: string, phase: Protocol.MessagePhase | undefined): ReadonlyArray<MessageEvent> {
    const retracted = this.retract()
    this.retracted.delete(itemId)
    this.open = { itemId, phase, text: "" }
    return [...retracted, MessageEvent.Started({ itemId, phase })]
  }

  private add(itemId: string, delta: string): ReadonlyArray<MessageEvent> {
    if (this.retracted.has(itemId)) return []
    const started = this.open?.itemId === itemId ? [] : this.start(itemId, undefined)
    const open = this.open!
    open.text += delta
    return [...started, MessageEvent.Delta({ itemId, phase: open.phase, delta })]
  }

  private complete(
    itemId: string,
    phase: Protocol.MessagePhase | undefined,
    text: string
  ): ReadonlyArray<MessageEvent> {
    const completed = MessageEvent.Completed({ itemId, phase, text })
    const toDeltas = (delta: string) => delta === "" ? [] : [MessageEvent.Delta({ itemId, phase, delta })]
    const { open } = this
    if (open?.itemId === itemId && text.startsWith(open.text)) {
      this.open = undefined
      return [...toDeltas(text.slice(open.text.length)), completed]
    }
    const retracted = open?.itemId === itemId ? this.retract() : []
    this.retracted.delete(itemId)
    return [...retracted, MessageEvent.Started({ itemId, phase }), ...toDeltas(text), completed]
  }

  /** Retracts the open message, if there is one. */
  retract(): ReadonlyArray<MessageEvent> {
    if (this.open === undefined) return []
    const { itemId, phase } = this.open
    this.open = undefined
    this.retracted.add(itemId)
    return [MessageEvent.Retracted({ itemId, phase })]
  }
}

/**
 * Emits the events of a turn's messages. At the end of the turn, an open message is retracted. It is not if the events fail, because
 * it may still complete on the server.
 *
 * @internal
 */
export const toMessages = <E>(events: Stream.Stream<TurnEvent, E>): Stream.Stream<MessageEvent, E> =>
  Stream.mapAccum(
    Stream.concat(events, Stream.succeed(undefined)),
    () => new Messages(),
    (messages, event): readonly [Messages, ReadonlyArray<MessageEvent>] => [
      messages,
      event === undefined ? messages.retract() : messages.on(event)
    ]
  )

const notATurn = () =>
  new TypeError("The value is not a turn of effect-codex. Pass the value that `thread.turn` returns")

const onHandle = <T extends Turn>(
  turn: T,
  start: (handle: TurnHandle) => Effect.Effect<void, never, Scope.Scope>
): Effect.Effect<T, never, Scope.Scope> => {
  const handle = turn[TypeId]
  return handle === undefined ? Effect.die(notATurn()) : Effect.as(start(handle), turn)
}

/**
 * Limits the time in which a turn must end, from now on.
 *
 * **When to use**
 *
 * For a turn that is running. The option `deadline` of a turn limits it from its start.
 *
 * **Details**
 *
 * If the turn exceeds the deadline, its `result` and its streams fail with `TurnTimeout`. The turn is interrupted on the server, unless
 * other callers use it.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withDeadline: {
  (duration: Duration.Input): <T extends Turn>(turn: T) => Effect.Effect<T, never, Scope.Scope>
  <T extends Turn>(turn: T, duration: Duration.Input): Effect.Effect<T, never, Scope.Scope>
} = dual(
  2,
  <T extends Turn>(turn: T, duration: Duration.Input) => onHandle(turn, (handle) => startDeadline(handle, duration))
)

/**
 * Limits the time between two events of a turn, from now on.
 *
 * **When to use**
 *
 * For a turn that is running. The option `idleTimeout` of a turn limits it from its start.
 *
 * **Details**
 *
 * A retry of the server does not count as an event. The time stops while the turn, or a sub-agent that works for it, waits for a handler
 * of the program, and restarts with the response.
 *
 * If the turn exceeds the timeout, its `result` and its streams fail with `TurnTimeout`. The turn is interrupted on the server, unless
 * other callers use it.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withIdleTimeout: {
  (duration: Duration.Input): <T extends Turn>(turn: T) => Effect.Effect<T, never, Scope.Scope>
  <T extends Turn>(turn: T, duration: Duration.Input): Effect.Effect<T, never, Scope.Scope>
} = dual(
  2,
  <T extends Turn>(turn: T, duration: Duration.Input) => onHandle(turn, (handle) => startIdleTimeout(handle, duration))
)

const steer = Effect.fn("Turn.steer")(function*({ session: { server }, turn }: TurnHandle, input: Input.Input) {
  const { id, state: { exit, threadId }, thread } = turn
  const items = yield* Input.validate("turn/steer", input)
  // The server would report only a missing thread if the thread was archived or closed since.
  if (exit !== undefined && Result.isSuccess(exit)) {
    return yield* appServerError(new TurnEnded({ method: "turn/steer", threadId, turnId: id, cause: undefined }))
  }
  yield* server.request("turn/steer", {
    threadId,
    expectedTurnId: id,
    input: yield* resolveFiles(server, "turn/steer", items, thread?.record.settings.cwd)
  })
})

const interrupt = Effect.fn("Turn.interrupt")(({ session: { server }, turn: { id, state } }: TurnHandle) =>
  requestInterrupt(server, state, id)
)

const result = Effect.fn("Turn.result")((handle: TurnHandle) =>
  Effect.flatMap(handle.ended, (turn) => toResult(handle.turn.state, turn))
)

/**
 * Interrupts a turn and all its sub-agents, also those of sub-agents. `turn.interrupt` leaves sub-agents running.
 *
 * @category combinators
 * @since 0.1.0
 */
export const interruptWithSubAgents = (turn: Turn): Effect.Effect<void, AppServerError> => {
  const handle = turn[TypeId]
  return handle === undefined
    ? Effect.die(notATurn())
    // First the turn, because it could start another sub-agent.
    : Effect.andThen(turn.interrupt, interruptSubAgents(handle.session, turn.threadId, turn.id))
}

const toView = (handle: TurnHandle): Stream.Stream<TurnView.TurnView, AppServerError> =>
  fromViewSubscription(
    () => handle.subscribeView(),
    (subscription) => handle.unsubscribeView(subscription)
  ).pipe(Stream.map((view) => redactTurnView(view, handle.turn.state.redact)))

/** Returns the ids of the threads to which an item gives work, with the task and the model if the item has them. */
const toAgents = (item: Protocol.ThreadItem) => {
  switch (item.type) {
    case "collabAgentToolCall":
      return item.receiverThreadIds.map((id) => ({
        id,
        task: item.prompt ?? undefined,
        model: item.model ?? undefined
      }))
    case "subAgentActivity":
      return [{ id: item.agentThreadId, task: undefined, model: item.model ?? undefined }]
    default:
      return []
  }
}

const makeSubAgent = (
  session: SessionState,
  parentId: string,
  { id, model, task }: ReturnType<typeof toAgents>[number]
): SubAgent => {
  const thread = { id, opened: undefined }
  return {
    id,
    parentId,
    task,
    // Only the item that spawned it names the model.
    model: model ?? session.subAgents.getModel(id),
    turns: Stream.map(watchTurns(session, thread, "current"), make),
    view: watchThread(session, thread),
    usage: Effect.sync(() => session.turns.usages.getThread(id))
  }
}

const toSubAgents = <E>(
  { session }: TurnHandle,
  events: Stream.Stream<TurnEvent, E>
): Stream.Stream<SubAgent, E> =>
  Stream.mapAccum(
    events,
    () => new Set<string>(),
    (seen, event): readonly [Set<string>, ReadonlyArray<SubAgent>] => {
      if (event.method !== "item/completed") return [seen, []]
      const { item, threadId } = event.params
      const agents = toAgents(item).filter(({ id }) => !seen.has(id))
      for (const { id } of agents) seen.add(id)
      return [seen, agents.map((agent) => makeSubAgent(session, threadId, agent))]
    }
  )

/** @internal */
export const make = (handle: TurnHandle): Turn => {
  const { id, state } = handle.turn
  const events = fromSubscription(() => handle.subscribe(), (buffer) => handle.unsubscribe(buffer))
  const turn: Turn = {
    id,
    threadId: state.threadId,
    events,
    text: toText(events),
    messages: toMessages(events),
    steer: (input: Input.Input) => steer(handle, input),
    interrupt: Effect.suspend(() => interrupt(handle)),
    result: Effect.suspend(() => result(handle)),
    view: toView(handle),
    subAgents: toSubAgents(handle, events)
  }
  // Not enumerable, so that a turn in a log does not show its handle.
  return Object.defineProperty(turn, TypeId, { value: handle })
}
