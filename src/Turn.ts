/**
 * One turn: what the model and its tools do with one input, from start to end.
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
import { resolveFiles } from "./internal/session/settings/serverPaths.ts"
import { requestInterrupt } from "./internal/session/turns/interruptTurn.ts"
import type { TurnHandle } from "./internal/session/turns/turnHandle.ts"
import type { TurnState } from "./internal/session/turns/turnState.ts"
import { startDeadline, startIdleTimeout } from "./internal/session/turns/turnTimeouts.ts"
import * as Protocol from "./Protocol.ts"
import * as Usage from "./Usage.ts"

const TypeId = "~effect-codex/Turn"

/**
 * Something that happens in a turn: the protocol's own notification, told apart by `method`. A notification that a newer
 * server sends and this version does not know comes as it is.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnEvent = Protocol.TurnNotification

/**
 * How a turn went that was completed or interrupted. One that failed is a {@link TurnFailed}.
 *
 * @category models
 * @since 0.1.0
 */
export interface TurnResult {
  readonly id: string
  readonly threadId: string
  readonly status: "completed" | "interrupted"
  /**
   * The text of the last message that the model marked as its final answer, else of the last message that it did not mark
   * at all. Commentary is never the final response: a turn that has nothing else has none.
   */
  readonly finalResponse: string | undefined
  /** What was completed in the turn, in order: messages, commands, file changes, tool calls, … */
  readonly items: ReadonlyArray<Protocol.ThreadItem>
  /** What the turn has used: print `usage.turn`. `undefined` if the server has reported nothing for the turn. */
  readonly usage: Usage.TurnUsage | undefined
  /** Unix time in seconds. */
  readonly startedAt: number | undefined
  /** Unix time in seconds. */
  readonly completedAt: number | undefined
  readonly durationMs: number | undefined
}

/**
 * The turn ended with an error: the model could not be reached or refused, the context is full, a limit is used up.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnFailed extends Schema.TaggedError<TurnFailed>()("TurnFailed", {
  threadId: Schema.String,
  turnId: Schema.String,
  /** The server's words. */
  detail: Schema.String,
  /** The kind of failure, such as `"usageLimitExceeded"` or `{ httpConnectionFailed: { httpStatusCode } }`. */
  codexErrorInfo: Schema.UndefinedOr(Protocol.CodexErrorInfo),
  additionalDetails: Schema.UndefinedOr(Schema.String),
  /** The last error that the server has reported in the turn, mostly the one that ended it, without secrets. */
  lastError: Schema.UndefinedOr(Protocol.TurnError).pipe(Schema.withConstructorDefault(Effect.undefined)),
  /** What was completed before the failure. */
  items: Schema.Array(Protocol.ThreadItem),
  /** What the turn has used before the failure. `undefined` if the server has reported nothing for the turn. */
  usage: Schema.UndefinedOr(Usage.TurnUsage)
}) {
  override get message(): string {
    const kind = this.codexErrorInfo === undefined ? "" : ` (${JSON.stringify(this.codexErrorInfo)})`
    const { additionalDetails = null, detail, lastError } = this
    const isOther = lastError !== undefined && lastError.message !== detail
    return `Turn ${this.turnId} of thread ${this.threadId} failed${kind}: ${
      describeTurnError({ message: detail, additionalDetails })
    }${showLastError(isOther ? lastError : undefined)}`
  }
}

/**
 * What happens to a message of the assistant.
 *
 * - `Started`: the server has started a message.
 * - `Delta`: a piece of its text has arrived.
 * - `Completed`: the message is complete, and `text` is its whole text, which equals its deltas since it was started.
 * - `Retracted`: the message will not complete; discard its deltas. The server has cut it off to retry the model request, has started
 *   another message instead, or has ended the turn.
 *
 * `phase` is what the model has marked the message as, such as `"commentary"` or `"final_answer"`. A message may have none.
 *
 * **Gotchas**
 *
 * A message that completes after it was retracted is started again, with its whole text as one delta. So is a message that completes
 * with another text than its deltas, after it is retracted.
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
 * Constructors of {@link MessageEvent}, and `$match` and `$is` to tell its members apart.
 *
 * @category constructors
 * @since 0.1.0
 */
export const MessageEvent = Data.taggedEnum<MessageEvent>()

/**
 * A turn that has been started.
 *
 * It belongs to the scope it was started in: when the scope closes before the turn has ended, the turn is interrupted on
 * the server.
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
   * Every event of the turn from its start to `turn/completed`, whenever and however often the stream is run. A reader
   * that lags gets the deltas of one item as one event, until something else happens, and misses nothing.
   */
  readonly events: Stream.Stream<TurnEvent, AppServerError>
  /**
   * The assistant's text as it arrives, of all messages of the turn, with a blank line between two messages.
   *
   * Text that has been emitted cannot be taken back. When a model request is cut off, the server retries it and starts the message
   * again: the new message then begins a new paragraph after the part that was emitted. `messages` reports what was retracted, and
   * `finalResponse` of the result has the completed message only.
   */
  readonly text: Stream.Stream<string, AppServerError>
  /**
   * What happens to each message of the assistant: it is started, its text arrives, and it is completed or retracted. For programs that
   * must not show text that was taken back.
   */
  readonly messages: Stream.Stream<MessageEvent, AppServerError>
  /** Adds input to the running turn. Fails with the reason `TurnEnded` if the turn has ended. */
  readonly steer: (input: Input.Input) => Effect.Effect<void, AppServerError>
  /**
   * Interrupts the turn on the server. Its `result` then has the status `interrupted`. An interrupt of a turn that has ended succeeds
   * and changes nothing.
   */
  readonly interrupt: Effect.Effect<void, AppServerError>
  /** Waits for the turn to end. */
  readonly result: Effect.Effect<TurnResult, TurnFailed | AppServerError>
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
export const resultOf = (
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
          issue: `turn ${turn.id} of thread ${state.threadId} has ended with the unknown status ${turn.status}`
        })
      )))
  }
}

/** How far the messages of a turn were emitted as text. */
interface Emitted {
  isEmpty: boolean
  itemId: string | undefined
  /** The length of the text of that message. */
  length: number
  /** The lengths of other messages that have not completed. */
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
 * The texts of a turn's messages, with a blank line between two of them. A message without deltas, or with fewer than it has text, is
 * made up for when it is completed.
 *
 * @internal
 */
export const textOf = <E>(events: Stream.Stream<TurnEvent, E>): Stream.Stream<string, E> =>
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
          // A message that was cut off may be started again under its id.
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

/** The messages of a turn, of which one is open at a time. */
class Messages {
  private open: OpenMessage | undefined
  /** The messages that were retracted, and may complete after all. */
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
    const deltaOf = (delta: string) => delta === "" ? [] : [MessageEvent.Delta({ itemId, phase, delta })]
    const { open } = this
    if (open?.itemId === itemId && text.startsWith(open.text)) {
      this.open = undefined
      return [...deltaOf(text.slice(open.text.length)), completed]
    }
    const retracted = open?.itemId === itemId ? this.retract() : []
    this.retracted.delete(itemId)
    return [...retracted, MessageEvent.Started({ itemId, phase }), ...deltaOf(text), completed]
  }

  /** Retracts the open message: it was cut off. */
  retract(): ReadonlyArray<MessageEvent> {
    if (this.open === undefined) return []
    const { itemId, phase } = this.open
    this.open = undefined
    this.retracted.add(itemId)
    return [MessageEvent.Retracted({ itemId, phase })]
  }
}

/**
 * The messages of a turn. When the turn has ended, an open message is retracted; when the events fail, nothing is known of it.
 *
 * @internal
 */
export const messagesOf = <E>(events: Stream.Stream<TurnEvent, E>): Stream.Stream<MessageEvent, E> =>
  Stream.mapAccum(
    Stream.concat(events, Stream.succeed(undefined)),
    () => new Messages(),
    (messages, event): readonly [Messages, ReadonlyArray<MessageEvent>] => [
      messages,
      event === undefined ? messages.retract() : messages.on(event)
    ]
  )

const onHandle = (
  turn: Turn,
  start: (handle: TurnHandle) => Effect.Effect<void, never, Scope.Scope>
): Effect.Effect<Turn, never, Scope.Scope> => {
  const handle = turn[TypeId]
  return handle === undefined
    ? Effect.die(
      new TypeError("This turn was not started by a thread of effect-codex; pass the value that `thread.turn` returns")
    )
    : Effect.as(start(handle), turn)
}

/**
 * Gives a turn a deadline, from now on: if it has not ended by then its `result`, `events` and `text` fail with the reason
 * `TurnTimeout`, and it is interrupted on the server unless other callers hold it. The option `deadline` of a turn does this from its
 * start.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withDeadline: {
  (duration: Duration.Input): (turn: Turn) => Effect.Effect<Turn, never, Scope.Scope>
  (turn: Turn, duration: Duration.Input): Effect.Effect<Turn, never, Scope.Scope>
} = dual(2, (turn: Turn, duration: Duration.Input) => onHandle(turn, (handle) => startDeadline(handle, duration)))

/**
 * Limits how long a turn may produce no event, where a retry of the server does not count as one: then its `result`, `events` and
 * `text` fail with the reason `TurnTimeout`, and it is interrupted on the server unless other callers hold it. The clock stops while
 * the turn, or a sub-agent that works for it, waits for a handler of the program, and starts anew with the response. The option
 * `idleTimeout` of a turn does this from its start.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withIdleTimeout: {
  (duration: Duration.Input): (turn: Turn) => Effect.Effect<Turn, never, Scope.Scope>
  (turn: Turn, duration: Duration.Input): Effect.Effect<Turn, never, Scope.Scope>
} = dual(2, (turn: Turn, duration: Duration.Input) => onHandle(turn, (handle) => startIdleTimeout(handle, duration)))

const steer = Effect.fn("Turn.steer")(function*({ session: { server }, turn }: TurnHandle, input: Input.Input) {
  const { id, state: { exit, threadId }, thread: { record } } = turn
  const items = yield* Input.validate("turn/steer", input)
  // The server forgets a thread that was archived or closed since, and would say only that.
  if (exit !== undefined && Result.isSuccess(exit)) {
    return yield* appServerError(new TurnEnded({ method: "turn/steer", threadId, turnId: id, cause: undefined }))
  }
  yield* server.request("turn/steer", {
    threadId,
    expectedTurnId: id,
    input: yield* resolveFiles(server, "turn/steer", items, record.settings.cwd)
  })
})

const interrupt = Effect.fn("Turn.interrupt")(({ session: { server }, turn: { id, state } }: TurnHandle) =>
  requestInterrupt(server, state, id)
)

const result = Effect.fn("Turn.result")((handle: TurnHandle) =>
  Effect.flatMap(handle.ended, (turn) => resultOf(handle.turn.state, turn))
)

/** @internal */
export const make = (handle: TurnHandle): Turn => {
  const { id, state } = handle.turn
  const events = fromSubscription(() => handle.subscribe(), (buffer) => handle.unsubscribe(buffer))
  const turn = {
    id,
    threadId: state.threadId,
    events,
    text: textOf(events),
    messages: messagesOf(events),
    steer: (input: Input.Input) => steer(handle, input),
    interrupt: Effect.suspend(() => interrupt(handle)),
    result: Effect.suspend(() => result(handle))
  }
  // Not enumerable, so that a turn in a log does not show it.
  return Object.defineProperty(turn, TypeId, { value: handle }) as Turn
}
