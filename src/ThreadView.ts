/**
 * The state of a thread as one value: its settings, its goal, and the views of its turns.
 *
 * **When to use**
 *
 * To show a whole conversation, including the turns that goals, reviews and other clients start. {@link TurnView} shows one turn.
 *
 * **Details**
 *
 * {@link reduce} folds one event into a view, and {@link fromThread} makes the view of a stored thread. Both are pure and total, as those
 * of `TurnView` are. A view is plain JSON.
 *
 * **Example** (Following a thread)
 *
 * ```ts
 * import { Effect, Ref, Stream } from "effect"
 * import { AppServer, type Protocol, ThreadView } from "effect-codex"
 *
 * export const follow = Effect.fn(function*(thread: Protocol.Thread) {
 *   const server = yield* AppServer.AppServer
 *   const view = yield* Ref.make(ThreadView.fromThread(thread))
 *   yield* Stream.runForEach(
 *     server.notifications,
 *     (event) => Ref.update(view, (view) => ThreadView.reduce(view, event))
 *   )
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { getOwn, getOwnString } from "./internal/getOwn.ts"
import { fromUpdate, Settings } from "./internal/threadSettings.ts"
import { decoder, getOwnNumber, unwrap } from "./internal/view/readEvent.ts"
import { withoutUndefined } from "./internal/withoutUndefined.ts"
import * as Protocol from "./Protocol.ts"
import * as TurnView from "./TurnView.ts"
import * as Usage from "./Usage.ts"

/**
 * The state of a thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThreadView {
  readonly threadId: string
  readonly name: string | null
  /** `null` until the server reports it. */
  readonly status: Protocol.ThreadStatus | null
  /** The permissions, the model and the other settings, or `null` until the server reports them. */
  readonly settings: Settings | null
  readonly goal: Protocol.ThreadGoal | null
  /** The turns, oldest first: those of the stored thread, and those that had an event since. */
  readonly turns: ReadonlyArray<TurnView.TurnView>
  /** When the server emitted the last event that changed the view, as Unix time in milliseconds. */
  readonly updatedAtMs: number | null
}

/**
 * The schema of {@link ThreadView}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ThreadView: Schema.Codec<ThreadView> = Schema.Struct({
  threadId: Schema.String,
  name: Schema.NullOr(Schema.String),
  status: Schema.NullOr(Protocol.ThreadStatus),
  settings: Schema.NullOr(Settings),
  goal: Schema.NullOr(Protocol.ThreadGoal),
  turns: Schema.Array(TurnView.TurnView),
  updatedAtMs: Schema.NullOr(Schema.Number)
})

/**
 * An event that may change a view: any notification, or an approval or a question of the server.
 *
 * @category models
 * @since 0.1.0
 */
export type Event = Protocol.ServerNotification | TurnView.PendingRequest

/**
 * The view of a thread before its first event.
 *
 * @category constructors
 * @since 0.1.0
 */
export const empty = (threadId: string): ThreadView => ({
  threadId,
  name: null,
  status: null,
  settings: null,
  goal: null,
  turns: [],
  updatedAtMs: null
})

const decodeStatus = decoder(Protocol.ThreadStatus)
const decodeSettings = decoder(Protocol.ThreadSettings)
const decodeGoal = decoder(Protocol.ThreadGoal)

/**
 * Makes the view of a stored thread, such as that of the response to `thread/read` or `thread/resume`.
 *
 * **Gotchas**
 *
 * The thread contains its turns only if the request includes them. It contains no settings and no goal.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromThread = (thread: Protocol.Thread): ThreadView => {
  const threadId = getOwnString(thread, "id") ?? ""
  const turns = getOwn(thread, "turns")
  return {
    ...empty(threadId),
    name: getOwnString(thread, "name") ?? null,
    status: decodeStatus(getOwn(thread, "status")) ?? null,
    turns: Array.isArray(turns) ? turns.map((turn) => TurnView.fromTurn(turn, threadId)) : []
  }
}

/** The methods of turns that say nothing about a turn that the view does not have: the server may repeat them for an old one. */
const isAboutKnownTurns = (method: string): boolean => !/^(?:error|turn\/|item\/|mcpServer\/elicitation\/)/.test(method)

/** The view of a turn that begins with the totals of the turn before. */
const nextTurn = (view: ThreadView, turnId: string): TurnView.TurnView => {
  const turn = TurnView.empty(view.threadId, turnId)
  const usage = view.turns.at(-1)?.usage
  return usage === undefined || usage === null ? turn : { ...turn, usage: { ...usage, turn: Usage.zero, reports: 1 } }
}

/** Ends the turns that belong to a turn that has ended: the server starts one for the input of a review, and does not end it. */
const endParts = (view: ThreadView, rootTurnId: string): ThreadView => {
  const isPart = (turn: TurnView.TurnView): boolean =>
    turn.rootTurnId === rootTurnId && turn.turnId !== rootTurnId && turn.status === "inProgress"
  if (!view.turns.some(isPart)) return view
  return { ...view, turns: view.turns.map((turn) => isPart(turn) ? { ...turn, status: "interrupted" } : turn) }
}

/** Folds an event of one turn. */
const reduceTurn = (view: ThreadView, turnId: string, method: string, event: TurnView.Event): ThreadView => {
  const index = view.turns.findLastIndex((turn) => turn.turnId === turnId)
  if (index === -1 && isAboutKnownTurns(method)) return view
  const turn = view.turns[index] ?? nextTurn(view, turnId)
  const next = TurnView.reduce(turn, event)
  if (next === view.turns[index]) return view
  const turns = index === -1 ? [...view.turns, next] : view.turns.with(index, next)
  const reduced = { ...view, turns }
  return method === "turn/completed" ? endParts(reduced, turnId) : reduced
}

/** Folds the response to an approval or a question, which does not name the turn. */
const resolveRequest = (view: ThreadView, event: TurnView.Event): ThreadView => {
  const index = view.turns.findLastIndex((turn) => TurnView.reduce(turn, event) !== turn)
  return index === -1 ? view : { ...view, turns: view.turns.with(index, TurnView.reduce(view.turns[index]!, event)) }
}

/** Folds an event of the thread itself. */
const reduceThread = (view: ThreadView, method: string, params: unknown): ThreadView => {
  switch (method) {
    case "thread/name/updated":
      return { ...view, name: getOwnString(params, "threadName") ?? null }
    case "thread/status/changed": {
      const status = decodeStatus(getOwn(params, "status"))
      return status === undefined ? view : { ...view, status }
    }
    case "thread/settings/updated": {
      const settings = decodeSettings(getOwn(params, "threadSettings"))
      if (settings === undefined) return view
      const { runtimeWorkspaceRoots } = view.settings ?? {}
      return { ...view, settings: withoutUndefined({ ...fromUpdate(settings), runtimeWorkspaceRoots }) }
    }
    case "thread/goal/updated": {
      const goal = decodeGoal(getOwn(params, "goal"))
      return goal === undefined ? view : { ...view, goal }
    }
    case "thread/goal/cleared":
      return view.goal === null ? view : { ...view, goal: null }
    default:
      return view
  }
}

/**
 * Folds an event into a view.
 *
 * **Details**
 *
 * - An event of another thread, and an event that changes nothing, return the same view.
 * - The first event of a turn adds the turn, also if another client, a goal or a review started it.
 * - An event of the thread that is older than the view is ignored.
 *
 * **Gotchas**
 *
 * After `thread/reverted`, read the thread again and start with {@link fromThread}: the event does not say which turns remain.
 *
 * @category folding
 * @since 0.1.0
 */
export const reduce = (view: ThreadView, event: Event): ThreadView => {
  const message = unwrap(event)
  const method = getOwnString(message, "method")
  const params = getOwn(message, "params")
  if (method === undefined || getOwn(params, "threadId") !== view.threadId) return view
  const emittedAtMs = getOwnNumber(message, "emittedAtMs")
  const isLate = emittedAtMs !== null && view.updatedAtMs !== null && emittedAtMs < view.updatedAtMs
  const turnId = getOwnString(params, "turnId") ?? getOwnString(getOwn(params, "turn"), "id")
  const next = method === "serverRequest/resolved"
    ? resolveRequest(view, event as TurnView.Event)
    : turnId === undefined || method.startsWith("thread/goal/")
    ? isLate ? view : reduceThread(view, method, params)
    : reduceTurn(view, turnId, method, event as TurnView.Event)
  if (next === view || isLate || emittedAtMs === null) return next
  return { ...next, updatedAtMs: emittedAtMs }
}
