/** Turns with a key: an id of their input, by which they are found in the history of their thread. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type AppServerError,
  InvalidRequest,
  make as appServerError,
  type RequestRejected
} from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import { getOwn } from "../../getOwn.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import type { SessionState } from "../sessionState.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { pages } from "../threads/pages.ts"
import { replayStoredTurn } from "./recoverTurns.ts"
import { TurnHandle } from "./turnHandle.ts"
import { toKey } from "./turnRegistry.ts"
import { TurnState } from "./turnState.ts"
import { watchCurrentTurn } from "./watchTurns.ts"

/** A turn of the history whose input has a key. */
export interface KeyedTurn {
  /** 1 for the first attempt. */
  readonly number: number
  readonly turn: Protocol.Turn
}

/** Number of turns in a page. A page has the whole items, because a turn that was running may have received the input of a later request. */
const pageSize = 20

/** The code with which the server rejects the request while the file of the thread has no content yet. */
const whileStoring = -32603

/** The messages of the server about a thread in its memory that has no stored turn. */
const withoutTurns: ReadonlySet<string> = new Set([
  "list_turns is not supported yet",
  "paginated_threads is not supported yet"
])

const notStored = "is not materialized yet; thread/turns/list is unavailable before first user message"

const toError = (threadId: string, error: AppServerError, { detail, method }: RequestRejected): AppServerError =>
  detail.startsWith("ephemeral threads")
    ? appServerError(
      new InvalidRequest({
        method,
        description: `thread \`${threadId}\` is ephemeral, so the server does not store its turns. ` +
          "Start the thread without `ephemeral`, or use `run`"
      })
    )
    : error

/**
 * Finds the attempts of a key, from the newest to the first. Reads the history from its end, until it has the first attempt. `undefined` if
 * the server has not stored the thread.
 */
export const findKeyed = (
  { server }: SessionState,
  { id: threadId }: OpenThread,
  toNumber: (inputId: string) => number | undefined
): Effect.Effect<ReadonlyArray<KeyedTurn> | undefined, AppServerError> => {
  const toAttempts = (turn: Protocol.Turn): ReadonlyArray<KeyedTurn> =>
    turn.items.flatMap((item) => {
      const inputId = getOwn(item, "clientId")
      const number = Predicate.isString(inputId) ? toNumber(inputId) : undefined
      return number === undefined ? [] : [{ number, turn }]
    })
  return pages(server, "thread/turns/list", { threadId, limit: pageSize, itemsView: "full" }, Protocol.Turn).pipe(
    Stream.flatMap((turn) => Stream.fromIterable(toAttempts(turn))),
    Stream.takeUntil(({ number }) => number === 1),
    Stream.runCollect,
    Effect.retry({
      while: ({ reason }) => reason._tag === "RequestRejected" && reason.code === whileStoring,
      schedule: Schedule.spaced("50 millis"),
      times: 100
    }),
    Effect.catchReason(
      "AppServerError",
      "RequestRejected",
      (reason, error): Effect.Effect<ReadonlyArray<KeyedTurn> | undefined, AppServerError> =>
        reason.detail.endsWith(notStored)
          ? Effect.undefined
          : withoutTurns.has(reason.detail)
          ? Effect.succeed([])
          : Effect.fail(toError(threadId, error, reason))
    )
  )
}

/** Waits until a thread runs no turn. Returns `false` if it runs none. */
export const awaitIdle = (
  session: SessionState,
  thread: OpenThread
): Effect.Effect<boolean, AppServerError> =>
  Effect.suspend(() => {
    const starting = session.turns.pendingStarts(thread.id)
    if (starting.size > 0) return Effect.as(Fiber.awaitAll(starting), true)
    return Effect.flatMap(
      watchCurrentTurn(session, { id: thread.id, opened: thread }),
      (current) => Option.isNone(current) ? Effect.succeed(false) : Effect.as(Effect.exit(current.value.ended), true)
    ).pipe(Effect.scoped)
  })

/**
 * Returns a handle of a running turn. A turn that this program started continues as long as it has a handle. `None` if the turn has ended
 * meanwhile.
 */
export const joinKeyed = Effect.fnUntraced(function*(
  session: SessionState,
  thread: OpenThread,
  turnId: string
): Effect.fn.Return<Option.Option<TurnHandle>, AppServerError, Scope.Scope> {
  const own = session.turns.entries.get(toKey(thread.id, turnId))
  if (own !== undefined && !own.state.isReleased) {
    own.refCount++
    return Option.some(
      yield* Effect.acquireRelease(Effect.sync(() => new TurnHandle(session, own)), ({ release }) => release)
    )
  }
  return Option.filter(
    yield* watchCurrentTurn(session, { id: thread.id, opened: thread }),
    ({ turn }) => turn.id === turnId
  )
})

/** Makes the state of a turn that has ended, from what the server has stored of it. */
export const endedState = ({ server, turns }: SessionState, threadId: string, turn: Protocol.Turn): TurnState => {
  const state = new TurnState(server, turns.usages, threadId)
  state.setTurnId(turn.id, syncBatch)
  replayStoredTurn(state, turn)
  return state
}
