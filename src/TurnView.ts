/**
 * The state of a turn as one value, folded from its events.
 *
 * **When to use**
 *
 * To show a turn: in a terminal, on a web page, in a log. The events of a turn are a flood of many kinds; a view is what they add up to.
 *
 * **Details**
 *
 * {@link reduce} folds one event into a view. {@link fromTurn} makes the view of a stored turn. Both are pure and total: an event that is
 * late, repeated, unknown or malformed never throws, and never damages the view. {@link stored} is what both agree on.
 *
 * A view is plain JSON, so it travels to a browser, a database or a log. {@link TurnView} is its schema. An event changes one item; the
 * other items are the same objects as before.
 *
 * **Example** (Folding the events of a turn)
 *
 * ```ts
 * import { Console, Stream } from "effect"
 * import { type Turn, TurnView } from "effect-codex"
 *
 * export const showItems = (turn: Turn.Turn) =>
 *   turn.events.pipe(
 *     Stream.scan(() => TurnView.empty(turn.threadId, turn.id), TurnView.reduce),
 *     Stream.changes,
 *     Stream.runForEach(({ items, status }) =>
 *       Console.log(status, items.map(({ item, state }) => `${item.type} ${state}`).join(", "))
 *     )
 *   )
 * ```
 *
 * @since 0.1.0
 */
import { getOwn, getOwnString } from "./internal/getOwn.ts"
import {
  addCommandOutput,
  addItems,
  addMessageText,
  addPlanText,
  addReasoningText,
  completeItem,
  endItems,
  retractTexts,
  setFileChanges,
  setProgress,
  startItem
} from "./internal/view/items.ts"
import { type Event, isEnded, type ItemView, Plan, type TurnView } from "./internal/view/model.ts"
import { decoder, getOwnNumber, type JsonObject, readError, toObject, unwrap } from "./internal/view/readEvent.ts"
import { addRequest, resolveRequest, settleRequests } from "./internal/view/requests.ts"
import { maxOutput, maxStoredOutput, tail } from "./internal/view/text.ts"
import { addUsage, retryUsage } from "./internal/view/usage.ts"
import type * as Protocol from "./Protocol.ts"

export * from "./internal/view/model.ts"

/**
 * The number of characters of a command's output that a view keeps: the last 32,768. While the command is in progress, a view keeps up to
 * twice as many.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxOutputChars: number = maxOutput

/**
 * The view of a turn before its first event.
 *
 * @category constructors
 * @since 0.1.0
 */
export const empty = (threadId: string, turnId: string): TurnView => ({
  threadId,
  turnId,
  rootTurnId: null,
  status: "inProgress",
  items: [],
  plan: null,
  diff: null,
  usage: null,
  retry: null,
  requests: [],
  settledRequests: [],
  error: null,
  startedAt: null,
  completedAt: null,
  durationMs: null,
  updatedAtMs: null
})

/** Sets the fields that the server sends with the turn itself. */
const setTurn = (view: TurnView, turn: unknown, status: Protocol.TurnStatus): TurnView => ({
  ...view,
  status,
  rootTurnId: getOwnString(turn, "rootTurnId") ?? view.rootTurnId,
  error: getOwn(turn, "error") === undefined ? view.error : readError(getOwn(turn, "error")),
  startedAt: getOwnNumber(turn, "startedAt") ?? view.startedAt,
  completedAt: getOwnNumber(turn, "completedAt") ?? view.completedAt,
  durationMs: getOwnNumber(turn, "durationMs") ?? view.durationMs
})

/**
 * Makes the view of a stored turn: one of `thread/turns/list`, or of the response to `thread/read` or `thread/resume`.
 *
 * **When to use**
 *
 * To show a turn of the past. Or to start with the whole turn, when a program attaches in the middle: fold the events that follow into
 * this view.
 *
 * **Gotchas**
 *
 * - Request the turn with `itemsView: "full"`. By default the server returns a summary, with few items.
 * - A stored turn does not contain the id of its thread. Without `threadId`, the view takes it from its first event.
 *
 * @see {@link stored} for what the server does not store
 * @category constructors
 * @since 0.1.0
 */
export const fromTurn = (turn: Protocol.Turn, threadId = ""): TurnView => {
  const status = getOwnString(turn, "status") ?? "inProgress"
  const view = setTurn(empty(threadId, getOwnString(turn, "id") ?? ""), turn, status)
  return addItems(view, getOwn(turn, "items"))
}

/** Folds `turn/started`. */
const startTurn = (view: TurnView, turn: unknown): TurnView => {
  if (isEnded(view)) return view
  const startedAt = getOwnNumber(turn, "startedAt") ?? view.startedAt
  const rootTurnId = getOwnString(turn, "rootTurnId") ?? view.rootTurnId
  const started = startedAt === view.startedAt && rootTurnId === view.rootTurnId
    ? view
    : { ...view, startedAt, rootTurnId }
  return addItems(started, getOwn(turn, "items"))
}

/** Folds `turn/completed`. The first one is final. A turn without a status has not ended. */
const endTurn = (view: TurnView, turn: unknown): TurnView => {
  const status = getOwnString(turn, "status")
  if (isEnded(view) || status === undefined || status === "inProgress") return view
  // The server repeats the last message here. Its `item/completed` may be missing.
  const items = addItems(view, getOwn(turn, "items"))
  return settleRequests(endItems({ ...setTurn(items, turn, status), retry: null }))
}

/** Whether an event is older than the view, so that what it replaces may be newer. */
const isLate = ({ updatedAtMs }: TurnView, emittedAtMs: number | null): boolean =>
  updatedAtMs !== null && emittedAtMs !== null && emittedAtMs < updatedAtMs

/** Folds `error`. */
const addError = (view: TurnView, params: JsonObject, emittedAtMs: number | null): TurnView => {
  const error = readError(params["error"])
  if (error === null || isEnded(view) || isLate(view, emittedAtMs)) return view
  if (params["willRetry"] !== true) return { ...view, error }
  return { ...retractTexts(view), retry: error, usage: retryUsage(view.usage) }
}

const decodePlan = decoder(Plan)

/** Folds `turn/plan/updated`. */
const setPlan = (view: TurnView, params: JsonObject, emittedAtMs: number | null): TurnView => {
  if (isEnded(view) || isLate(view, emittedAtMs)) return view
  const plan = decodePlan({ explanation: getOwnString(params, "explanation") ?? null, steps: params["plan"] })
  return plan === undefined ? view : { ...view, plan, retry: null }
}

/** Folds `turn/diff/updated`. The server repeats it. */
const setDiff = (view: TurnView, params: JsonObject, emittedAtMs: number | null): TurnView => {
  const diff = getOwnString(params, "diff")
  if (diff === undefined || diff === view.diff || isEnded(view) || isLate(view, emittedAtMs)) return view
  return { ...view, diff }
}

/** Whether an event with these params is about the turn of a view. */
const isAbout = (view: TurnView, params: JsonObject): boolean => {
  const turnId = params["turnId"] ?? getOwn(params["turn"], "id")
  return turnId === view.turnId && (view.threadId === "" || params["threadId"] === view.threadId)
}

/** Folds an event of the turn of the view. */
const fold = (view: TurnView, message: JsonObject, params: JsonObject, emittedAtMs: number | null): TurnView => {
  switch (message["method"]) {
    case "item/agentMessage/delta":
      return addMessageText(view, params)
    case "item/commandExecution/outputDelta":
      return addCommandOutput(view, params)
    case "item/reasoning/summaryTextDelta":
      return addReasoningText(view, params, "summary", "summaryIndex", params["delta"])
    case "item/reasoning/textDelta":
      return addReasoningText(view, params, "content", "contentIndex", params["delta"])
    case "item/reasoning/summaryPartAdded":
      return addReasoningText(view, params, "summary", "summaryIndex", "")
    case "item/plan/delta":
      return addPlanText(view, params)
    case "item/fileChange/patchUpdated":
      return setFileChanges(view, params)
    case "item/mcpToolCall/progress":
      return setProgress(view, params)
    case "item/started":
      return startItem(view, params)
    case "item/completed":
      return settleRequests(completeItem(view, params))
    case "turn/started":
      return startTurn(view, params["turn"])
    case "turn/completed":
      return endTurn(view, params["turn"])
    case "turn/plan/updated":
      return setPlan(view, params, emittedAtMs)
    case "turn/diff/updated":
      return setDiff(view, params, emittedAtMs)
    case "thread/tokenUsage/updated":
      return isEnded(view) ? view : addUsage(view, params["tokenUsage"], emittedAtMs)
    case "error":
      return addError(view, params, emittedAtMs)
    default:
      return addRequest(view, message)
  }
}

/**
 * Folds an event into a view.
 *
 * **Details**
 *
 * - An event of another turn, and an event that changes nothing, return the same view.
 * - Deltas may be coalesced, and events may be repeated, except deltas. The first completion of an item, and the first end of the turn, are
 *   final.
 * - Items are in the order of their starts, also if the events are not.
 * - A message is retracted when the server retries its model request, starts another message, or ends the turn. It counts again if it
 *   completes nevertheless.
 * - After the end of the turn, only items change: a command may outlive its turn.
 * - Besides the notifications, `event` may be an approval or a question of the server. It is pending until `serverRequest/resolved`, the
 *   completion of its item or the end of the turn.
 *
 * **Gotchas**
 *
 * A delta does not copy the items, but the array of them: with 1,000 items, that takes about a microsecond.
 *
 * @category folding
 * @since 0.1.0
 */
export const reduce = (view: TurnView, event: Event): TurnView => {
  const message = unwrap(event)
  const params = toObject(message["params"])
  if (message["method"] === "serverRequest/resolved") {
    return params["threadId"] === view.threadId ? resolveRequest(view, params) : view
  }
  if (!isAbout(view, params)) return view
  const emittedAtMs = getOwnNumber(message, "emittedAtMs")
  // `fold` returns the same view or a new object, so this changes no view that a caller has.
  const next: { -readonly [K in keyof TurnView]: TurnView[K] } = fold(view, message, params, emittedAtMs)
  if (next === view) return view
  if (emittedAtMs !== null && !isLate(view, emittedAtMs)) next.updatedAtMs = emittedAtMs
  if (view.threadId === "") next.threadId = getOwnString(params, "threadId") ?? ""
  return next
}

const isDeclined = ({ item }: ItemView): boolean =>
  (item.type === "commandExecution" || item.type === "fileChange") && item.status === "declined"

/** The part of an output that the server stores, also of a long one. */
const storedOutput = (entry: ItemView): ItemView => {
  const { item } = entry
  if (item.type !== "commandExecution" || typeof item.aggregatedOutput !== "string") return entry
  return {
    ...entry,
    item: { ...item, aggregatedOutput: tail(item.aggregatedOutput, maxStoredOutput).text },
    omittedOutput: 0
  }
}

/**
 * Reduces a view to what the server stores of a turn.
 *
 * **When to use**
 *
 * To compare a view that was folded from events with one of {@link fromTurn}: for a turn that has ended, both reduce to the same value.
 *
 * **Details**
 *
 * The server does not store:
 *
 * - the plan, the merged diff, the usage, retries, approvals and questions,
 * - items that have not completed, and commands and file changes that were declined,
 * - the middle of a long output of a command, so `stored` keeps its last 8,192 characters,
 * - the input of a review, which it stores in a turn of its own. That turn never ends for a subscriber: it has no other event than its start.
 *
 * @category folding
 * @since 0.1.0
 */
export const stored = (view: TurnView): TurnView => {
  const isReview = view.items.some(({ item }) => item.type === "enteredReviewMode")
  const items = view.items.filter((entry) =>
    entry.state === "completed" && !isDeclined(entry) && !(isReview && entry.item.type === "userMessage")
  )
  return {
    ...view,
    // Items that start in the same millisecond have no other order: the server stores them in the order of their completion.
    items: items.map(storedOutput).sort((a, b) =>
      (a.startedAtMs ?? 0) - (b.startedAtMs ?? 0) || (a.id < b.id ? -1 : 1)
    ),
    plan: null,
    diff: null,
    usage: null,
    retry: null,
    requests: [],
    settledRequests: [],
    updatedAtMs: null
  }
}
