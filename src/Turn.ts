/**
 * One turn: what the model and its tools do with one input, from start to end.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type AppServerError, DecodeFailed, make as appServerError } from "./AppServerError.ts"
import * as Input from "./Input.ts"
import { streamOf } from "./internal/connection/eventBuffer.ts"
import { requestInterrupt } from "./internal/threads/interruptTurn.ts"
import type { TurnHandle } from "./internal/threads/turnHandle.ts"
import type { TurnState } from "./internal/threads/turnState.ts"
import { startDeadline, startIdleTimeout } from "./internal/threads/turnTimeouts.ts"
import * as Protocol from "./Protocol.ts"
import * as Usage from "./Usage.ts"

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
  /** What was completed before the failure. */
  items: Schema.Array(Protocol.ThreadItem),
  /** What the turn has used before the failure. `undefined` if the server has reported nothing for the turn. */
  usage: Schema.UndefinedOr(Usage.TurnUsage)
}) {
  override get message(): string {
    const kind = this.codexErrorInfo === undefined ? "" : ` (${JSON.stringify(this.codexErrorInfo)})`
    return `Turn ${this.turnId} of thread ${this.threadId} failed${kind}: ${this.detail}`
  }
}

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
  readonly id: string
  readonly threadId: string
  /**
   * Every event of the turn from its start to `turn/completed`, whenever and however often the stream is run. A reader
   * that lags gets the deltas of one item as one event, until something else happens, and misses nothing.
   */
  readonly events: Stream.Stream<TurnEvent, AppServerError>
  /** The assistant's text as it arrives, of all messages of the turn. */
  readonly text: Stream.Stream<string, AppServerError>
  /** Adds input to the running turn. */
  readonly steer: (input: Input.Input) => Effect.Effect<void, AppServerError>
  /** Interrupts the turn on the server. Its `result` then has the status `interrupted`. */
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

/**
 * The texts of a turn's messages. A message without deltas, or with fewer than it has text, is made up for when it is
 * completed.
 *
 * @internal
 */
export const textOf = <E>(events: Stream.Stream<TurnEvent, E>): Stream.Stream<string, E> =>
  Stream.mapAccum(
    events,
    () => new Map<string, number>(),
    (sent, event): readonly [Map<string, number>, ReadonlyArray<string>] => {
      switch (event.method) {
        case "item/agentMessage/delta": {
          const { delta, itemId } = event.params
          sent.set(itemId, (sent.get(itemId) ?? 0) + delta.length)
          return [sent, [delta]]
        }
        case "item/completed": {
          const { item } = event.params
          if (item.type !== "agentMessage") return [sent, []]
          const rest = item.text.slice(sent.get(item.id) ?? 0)
          sent.delete(item.id)
          return [sent, rest === "" ? [] : [rest]]
        }
        default:
          return [sent, []]
      }
    }
  )

const handles = new WeakMap<Turn, TurnHandle>()

const onHandle = (
  turn: Turn,
  start: (handle: TurnHandle) => Effect.Effect<void, never, Scope.Scope>
): Effect.Effect<Turn, never, Scope.Scope> => {
  const handle = handles.get(turn)
  return handle === undefined
    ? Effect.die(new TypeError("This turn was not started by a thread of effect-codex"))
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
 * Limits how long a turn may produce no event: then its `result`, `events` and `text` fail with the reason `TurnTimeout`, and it is
 * interrupted on the server unless other callers hold it. The clock stops while the turn, or a sub-agent that works for it, waits for a
 * handler of the program, and starts anew with the response. The option `idleTimeout` of a turn does this from its start.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withIdleTimeout: {
  (duration: Duration.Input): (turn: Turn) => Effect.Effect<Turn, never, Scope.Scope>
  (turn: Turn, duration: Duration.Input): Effect.Effect<Turn, never, Scope.Scope>
} = dual(2, (turn: Turn, duration: Duration.Input) => onHandle(turn, (handle) => startIdleTimeout(handle, duration)))

const steer = Effect.fn("Turn.steer")(function*({ session: { server }, turn }: TurnHandle, input: Input.Input) {
  yield* server.request("turn/steer", {
    threadId: turn.state.threadId,
    expectedTurnId: turn.id,
    input: yield* Input.validate("turn/steer", input)
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
  const events = streamOf(() => handle.subscribe(), (buffer) => handle.unsubscribe(buffer))
  const turn: Turn = {
    id,
    threadId: state.threadId,
    events,
    text: textOf(events),
    steer: (input) => steer(handle, input),
    interrupt: Effect.suspend(() => interrupt(handle)),
    result: Effect.suspend(() => result(handle))
  }
  handles.set(turn, handle)
  return turn
}
