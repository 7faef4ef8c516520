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
  rootTurnId: turn.rootTurnId,
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

/** A turn in a list. One whose end is not stored was interrupted, if no turn of its thread runs. */
const listedTurnJson = (
  thread: StoredThread,
  turn: StoredTurn,
  itemsView: Protocol.TurnItemsViewParam
): Protocol.Turn =>
  turn.status === "inProgress" && thread.active === undefined
    ? { ...turnJson(turn, itemsView), status: "interrupted" }
    : turnJson(turn, itemsView)

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

/** Number of spawns between a thread and the one that a client started. */
const getDepth = ({ parent }: StoredThread): number => parent === undefined ? 0 : 1 + getDepth(parent.thread)

const getRoot = (thread: StoredThread): StoredThread =>
  thread.parent === undefined ? thread : getRoot(thread.parent.thread)

const toSource = (thread: StoredThread): Protocol.SessionSource => {
  switch (thread.parent?.kind) {
    case undefined:
      return "vscode"
    case "review":
      return { subAgent: "review" }
    case "spawn":
      return {
        subAgent: { thread_spawn: { parent_thread_id: thread.parent.thread.id, depth: getDepth(thread) } }
      }
  }
}

/** Whether a list of threads has a thread. By default it has no sub-agents. */
export const isListed = (
  { parent }: StoredThread,
  sourceKinds: ReadonlyArray<Protocol.ThreadSourceKind> | null | undefined
): boolean => {
  const kinds = sourceKinds ?? []
  if (parent === undefined) return kinds.length === 0 || kinds.includes("vscode")
  return kinds.includes("subAgent") ||
    kinds.includes(parent.kind === "review" ? "subAgentReview" : "subAgentThreadSpawn")
}

export const threadJson = (thread: StoredThread, withTurns = false): Protocol.Thread => ({
  id: thread.id,
  sessionId: thread.loaded ? getRoot(thread).id : thread.id,
  parentThreadId: thread.parent?.thread.id ?? null,
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
  source: toSource(thread),
  threadSource: thread.parent === undefined ? null : "subagent",
  name: thread.name,
  turns: withTurns ? thread.turns.map((turn) => listedTurnJson(thread, turn, "full")) : []
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

/** The newest turns in the response to `thread/resume`. In contrast to a list, they have the commands and calls in progress. */
export const initialPage = (
  thread: StoredThread,
  params: Protocol.ThreadResumeInitialTurnsPageParams
): Effect.Effect<Protocol.ThreadTurnsListResponse, Rejection> =>
  Effect.map(turnsPage(thread, { ...params, threadId: thread.id }), (page) => ({
    ...page,
    data: page.data.map((turn) =>
      turn.id === thread.active?.stored.id && params.itemsView === "full"
        ? { ...turn, items: [...turn.items, ...thread.active.inProgress.values()] }
        : turn
    )
  }))

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
    data: data.map((turn) => listedTurnJson(thread, turn, itemsView ?? "summary")),
    nextCursor: start + data.length < turns.length ? `after:${data.at(-1)!.id}` : null,
    backwardsCursor: data[0] === undefined ? null : `at:${data[0].id}`
  })
}
