/** Stored threads and turns as the protocol has them, and pages of them. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Protocol from "../../../Protocol.ts"
import { reject, type Rejection } from "./methods.ts"
import { configuration, toOpenedJson } from "./settings.ts"
import { type StoredThread, type StoredTurn, toSeconds } from "./threadStore.ts"

const ofType = (turn: StoredTurn, wanted: string) => turn.items.filter(({ type }) => type === wanted)

export const turnJson = (turn: StoredTurn, itemsView: Protocol.TurnItemsViewParam): Protocol.Turn => ({
  id: turn.id,
  rootTurnId: turn.id,
  items: itemsView === "full"
    ? turn.items
    : itemsView === "notLoaded"
    ? []
    : [...ofType(turn, "userMessage").slice(0, 1), ...ofType(turn, "agentMessage").slice(-1)],
  itemsView,
  status: turn.status,
  error: turn.error,
  startedAt: toSeconds(turn.startedAt),
  completedAt: turn.completedAt === null ? null : toSeconds(turn.completedAt),
  durationMs: turn.completedAt === null ? null : turn.completedAt - turn.startedAt
})

/** The turn in the response to `turn/start`. */
export const startedTurnJson = (turn: StoredTurn): Protocol.Turn => ({
  ...turnJson(turn, "notLoaded"),
  startedAt: null
})

/** The turn in `turn/completed`: the last message if the turn completed, and no other item. */
export const completedTurnJson = (turn: StoredTurn): Protocol.Turn => {
  const messages = turn.status === "completed" ? ofType(turn, "agentMessage") : []
  return { ...turnJson(turn, messages.length === 0 ? "notLoaded" : "summary"), items: messages.slice(-1) }
}

const toStatus = (thread: StoredThread): Protocol.ThreadStatus => {
  if (!thread.loaded) return { type: "notLoaded" }
  if (thread.active !== undefined) return { type: "active", activeFlags: [] }
  return { type: thread.failed ? "systemError" : "idle" }
}

export const threadJson = (thread: StoredThread, withTurns = false): Protocol.Thread => ({
  id: thread.id,
  sessionId: thread.id,
  forkedFromId: thread.forkedFromId,
  preview: thread.preview,
  ephemeral: thread.ephemeral,
  modelProvider: configuration.model_provider,
  // The file of a thread has the model of its turns.
  model: thread.loaded || thread.turns.length > 0 ? thread.settings.model : null,
  reasoningEffort: thread.settings.effort,
  createdAt: thread.createdAt,
  updatedAt: thread.updatedAt,
  status: toStatus(thread),
  path: thread.ephemeral ? null : `/codex/sessions/${thread.id}.jsonl`,
  cwd: thread.settings.cwd,
  cliVersion: Protocol.version,
  source: "appServer",
  name: thread.name,
  turns: withTurns ? thread.turns.map((turn) => turnJson(turn, "full")) : []
})

/** The response that opens a thread. */
export const openedThreadJson = (thread: StoredThread, withTurns = false): Protocol.ThreadStartResponse => ({
  ...toOpenedJson(thread.settings),
  thread: threadJson(thread, withTurns)
})

/** Number of entries in a page if the request names no limit. */
const defaultLimit = 50

/** A page of a list. Its cursor is the name of the list and the position of the next entry. */
export const page = <A>(
  list: string,
  data: ReadonlyArray<A>,
  params: { readonly cursor?: string | null | undefined; readonly limit?: number | null | undefined }
): Effect.Effect<{ readonly data: ReadonlyArray<A>; readonly nextCursor: string | null }, Rejection> => {
  const { cursor } = params
  const start = Predicate.isNullish(cursor)
    ? 0
    : cursor.startsWith(`${list}:`)
    ? Number(cursor.slice(list.length + 1))
    : NaN
  if (!Number.isInteger(start)) return reject(`invalid cursor: ${cursor}`)
  const end = start + Math.max(1, params.limit ?? defaultLimit)
  return Effect.succeed({ data: data.slice(start, end), nextCursor: end < data.length ? `${list}:${end}` : null })
}

/** A page of turns. In both directions, its cursors name a turn, so that they stay valid when turns are added. */
export const turnsPage = (
  thread: StoredThread,
  { cursor, itemsView, limit, sortDirection }: Protocol.ThreadTurnsListParams
): Effect.Effect<Protocol.ThreadTurnsListResponse, Rejection> => {
  const turns = sortDirection === "asc" ? thread.turns : thread.turns.toReversed()
  let start = 0
  if (Predicate.isNotNullish(cursor)) {
    const [, place, id] = /^(at|after):(.*)$/.exec(cursor) ?? []
    const index = turns.findIndex((turn) => turn.id === id)
    if (index < 0) return reject(`invalid cursor: ${cursor}`)
    start = place === "at" ? index : index + 1
  }
  const data = turns.slice(start, start + Math.max(1, limit ?? defaultLimit))
  return Effect.succeed({
    data: data.map((turn) => turnJson(turn, itemsView ?? "summary")),
    nextCursor: start + data.length < turns.length ? `after:${data.at(-1)!.id}` : null,
    backwardsCursor: data[0] === undefined ? null : `at:${data[0].id}`
  })
}
