/** Folds the events of items into their views. */
import * as Schema from "effect/Schema"
import * as Protocol from "../../Protocol.ts"
import { getOwn } from "../getOwn.ts"
import { isEnded, type ItemState, type ItemView, type TurnView } from "./model.ts"
import { decoder, getOwnNumber, type JsonObject, readItem } from "./readEvent.ts"
import { append, appendOutput, tail } from "./text.ts"

type Item = Protocol.ThreadItem
type ItemOf<Type extends string> = Extract<Item, { readonly type: Type }>

/** Maximum number of texts of a reasoning. An index beyond it is not one of the server. */
const maxParts = 1000

/** The types of items that are text of the model. Without a completion, their text does not count. */
export const textTypes: ReadonlySet<unknown> = new Set(["agentMessage", "plan", "reasoning"])

const messageType: ReadonlySet<unknown> = new Set(["agentMessage"])

const decodeFileChanges = decoder(Schema.Array(Protocol.FileUpdateChange))

/** Returns the index of an item. The items that change are mostly the last ones. */
export const findItem = (items: ReadonlyArray<ItemView>, id: string): number => {
  for (let index = items.length - 1; index >= 0; index--) {
    if (items[index]!.id === id) return index
  }
  return -1
}

/** The position behind the items that started before. */
const positionOf = (items: ReadonlyArray<ItemView>, startedAtMs: number | null): number => {
  let index = items.length
  if (startedAtMs === null) return index
  for (; index > 0; index--) {
    const before = items[index - 1]!.startedAtMs
    if (before === null || before <= startedAtMs) break
  }
  return index
}

/** Puts an item in the place of the one at `index`, or at the position of its start. */
const put = (view: TurnView, index: number, entry: ItemView): TurnView => {
  const known = view.items[index]
  if (known !== undefined && known.startedAtMs === entry.startedAtMs) {
    return { ...view, items: view.items.with(index, entry), retry: null }
  }
  const others = known === undefined ? view.items : view.items.toSpliced(index, 1)
  return { ...view, items: others.toSpliced(positionOf(others, entry.startedAtMs), 0, entry), retry: null }
}

/** The state of an item that is in progress when its model request or its turn ends. */
const endState = ({ type }: Item): ItemState => textTypes.has(type) ? "retracted" : "unfinished"

const setStates = (view: TurnView, next: (entry: ItemView) => ItemState): TurnView => {
  const changed = view.items.some((entry) => next(entry) !== entry.state)
  if (!changed) return view
  const items = view.items.map((entry) => {
    const state = next(entry)
    return state === entry.state ? entry : { ...entry, state }
  })
  return { ...view, items }
}

/** Retracts the texts in progress, or only the message. */
export const retractTexts = (view: TurnView, types = textTypes): TurnView =>
  setStates(view, ({ item, state }) => state === "inProgress" && types.has(item.type) ? "retracted" : state)

/** Ends the items in progress with their turn. */
export const endItems = (view: TurnView): TurnView =>
  setStates(view, ({ item, state }) => state === "inProgress" ? endState(item) : state)

/** Retracts the open message: one message is open at a time. */
const retractMessage = (view: TurnView, next: Item): TurnView =>
  next.type === "agentMessage" ? retractTexts(view, messageType) : view

/** Cuts the output of a command to its end. */
const toEntry = (
  id: string,
  item: Item,
  state: ItemState,
  startedAtMs: number | null,
  completedAtMs: number | null
): ItemView => {
  const entry = { id, state, startedAtMs, completedAtMs, item, progress: null, omittedOutput: 0 }
  if (item.type !== "commandExecution" || typeof item.aggregatedOutput !== "string") return entry
  const { omitted, text } = tail(item.aggregatedOutput)
  return omitted === 0 ? entry : { ...entry, item: { ...item, aggregatedOutput: text }, omittedOutput: omitted }
}

/** Adds the fields of a started item to the text that arrived before. */
const fill = (known: Item, started: Item): Item => {
  if (known.type === "agentMessage" && started.type === "agentMessage") return { ...started, text: known.text }
  if (known.type === "plan" && started.type === "plan") return { ...started, text: known.text }
  if (known.type === "reasoning" && started.type === "reasoning") {
    return { ...started, summary: known.summary ?? [], content: known.content ?? [] }
  }
  if (known.type === "commandExecution" && started.type === "commandExecution") {
    return { ...started, aggregatedOutput: known.aggregatedOutput ?? started.aggregatedOutput ?? null }
  }
  if (known.type === "fileChange" && started.type === "fileChange") return { ...started, changes: known.changes }
  return started
}

/** Whether a started item starts anew: the server may retry a text with the same id. The same start again is a duplicate. */
const isRestart = (known: ItemView, startedAtMs: number | null): boolean => {
  if (!textTypes.has(known.item.type)) return false
  if (known.startedAtMs === null || startedAtMs === null) return known.state === "retracted"
  return startedAtMs > known.startedAtMs
}

/** Folds `item/started`. */
export const startItem = (view: TurnView, params: JsonObject): TurnView => {
  const read = readItem(params["item"])
  if (read === undefined || isEnded(view)) return view
  const { id, item, raw } = read
  const startedAtMs = getOwnNumber(raw, "startedAtMs") ?? getOwnNumber(params, "startedAtMs")
  const index = findItem(view.items, id)
  const known = view.items[index]
  const started = toEntry(id, item, "inProgress", startedAtMs, null)
  if (known === undefined) return put(retractMessage(view, item), index, started)
  if (known.state === "completed" || known.item.type !== item.type) return view
  if (isRestart(known, startedAtMs)) return put(retractMessage(view, item), index, started)
  if (known.state !== "inProgress" || known.startedAtMs !== null) return view
  return put(view, index, { ...known, startedAtMs, item: fill(known.item, started.item) })
}

/** Completes an item. Its first completion is final. */
const complete = (
  view: TurnView,
  id: string,
  item: Item,
  startedAtMs: number | null,
  completedAtMs: number | null
): TurnView => {
  const index = findItem(view.items, id)
  const known = view.items[index]
  if (known?.state === "completed") return view
  return put(view, index, toEntry(id, item, "completed", startedAtMs ?? known?.startedAtMs ?? null, completedAtMs))
}

/** Folds `item/completed`. */
export const completeItem = (view: TurnView, params: JsonObject): TurnView => {
  const read = readItem(params["item"])
  if (read === undefined) return view
  const { id, item, raw } = read
  const completedAtMs = getOwnNumber(raw, "completedAtMs") ?? getOwnNumber(params, "completedAtMs")
  return complete(view, id, item, getOwnNumber(raw, "startedAtMs"), completedAtMs)
}

/** Adds the items of a turn in a notification or a response. */
export const addItems = (view: TurnView, items: unknown): TurnView => {
  if (!Array.isArray(items)) return view
  let next = view
  for (const value of items) {
    const read = readItem(value)
    if (read === undefined) continue
    const { id, item, raw } = read
    const startedAtMs = getOwnNumber(raw, "startedAtMs")
    if (getOwn(raw, "status") !== "inProgress") {
      next = complete(next, id, item, startedAtMs, getOwnNumber(raw, "completedAtMs"))
    } else if (findItem(next.items, id) === -1) {
      next = put(next, -1, toEntry(id, item, isEnded(view) ? endState(item) : "inProgress", startedAtMs, null))
    }
  }
  return next === view ? view : { ...next, retry: view.retry }
}

/** Changes the item of a type that is in progress. An item whose start did not arrive begins as `empty`. */
const change = <Type extends Item["type"] & string>(
  view: TurnView,
  params: JsonObject,
  type: Type,
  empty: (id: string) => ItemOf<Type>,
  next: (entry: ItemView, item: ItemOf<Type>) => ItemView
): TurnView => {
  const id = params["itemId"]
  if (typeof id !== "string") return view
  const index = findItem(view.items, id)
  const known = view.items[index]
  if (known === undefined) {
    if (isEnded(view)) return view
    const item = empty(id)
    const entry = next(toEntry(id, item, "inProgress", null, null), item)
    return put(retractMessage(view, item), index, entry)
  }
  if (known.item.type !== type || known.state === "completed" || known.state === "retracted") return view
  const entry = next(known, known.item as ItemOf<Type>)
  return entry === known ? view : put(view, index, entry)
}

const emptyMessage = (id: string): ItemOf<"agentMessage"> => ({ type: "agentMessage", id, text: "", phase: null })

/** Folds `item/agentMessage/delta`. */
export const addMessageText = (view: TurnView, params: JsonObject): TurnView => {
  const { delta } = params
  if (typeof delta !== "string") return view
  return change(view, params, "agentMessage", emptyMessage, (entry, item) => ({
    ...entry,
    item: { ...item, text: append(item.text, delta) }
  }))
}

const emptyPlan = (id: string): ItemOf<"plan"> => ({ type: "plan", id, text: "" })

/** Folds `item/plan/delta`. */
export const addPlanText = (view: TurnView, params: JsonObject): TurnView => {
  const { delta } = params
  if (typeof delta !== "string") return view
  return change(view, params, "plan", emptyPlan, (entry, item) => ({
    ...entry,
    item: { ...item, text: append(item.text, delta) }
  }))
}

const emptyReasoning = (id: string): ItemOf<"reasoning"> => ({ type: "reasoning", id, summary: [], content: [] })

/** Folds the deltas of a reasoning, and the start of a part, which has no text yet. */
export const addReasoningText = (
  view: TurnView,
  params: JsonObject,
  field: "summary" | "content",
  indexName: string,
  delta: unknown
): TurnView => {
  const part = getOwnNumber(params, indexName)
  if (typeof delta !== "string" || part === null || !Number.isInteger(part) || part < 0 || part >= maxParts) return view
  return change(view, params, "reasoning", emptyReasoning, (entry, item) => {
    const texts = (item[field] ?? []).slice()
    if (delta === "" && part < texts.length) return entry
    while (texts.length <= part) texts.push("")
    texts[part] = append(texts[part]!, delta)
    return { ...entry, item: { ...item, [field]: texts } }
  })
}

const emptyCommand = (id: string): ItemOf<"commandExecution"> => ({
  type: "commandExecution",
  id,
  command: "",
  cwd: "",
  commandActions: [],
  status: "inProgress",
  aggregatedOutput: null
})

/** Adds the command that an approval is about, unless its start has arrived. The server does not repeat the start to a late subscriber. */
export const addCommand = (
  view: TurnView,
  params: Protocol.ServerRequests["item/commandExecution/requestApproval"]["params"]
): TurnView => {
  const { command, commandActions, cwd, itemId } = params
  if (typeof command !== "string" || findItem(view.items, itemId) !== -1) return view
  const item = { ...emptyCommand(itemId), command, cwd: cwd ?? "", commandActions: commandActions ?? [] }
  return put(view, -1, toEntry(itemId, item, "inProgress", null, null))
}

/** Folds `item/commandExecution/outputDelta`. */
export const addCommandOutput = (view: TurnView, params: JsonObject): TurnView => {
  const { delta } = params
  if (typeof delta !== "string") return view
  return change(view, params, "commandExecution", emptyCommand, (entry, item) => {
    const { omitted, text } = appendOutput(item.aggregatedOutput ?? "", delta)
    return {
      ...entry,
      item: { ...item, aggregatedOutput: text },
      omittedOutput: entry.omittedOutput + omitted
    }
  })
}

const emptyFileChange = (id: string): ItemOf<"fileChange"> => ({
  type: "fileChange",
  id,
  changes: [],
  status: "inProgress"
})

/** Folds `item/fileChange/patchUpdated`. */
export const setFileChanges = (view: TurnView, params: JsonObject): TurnView => {
  const changes = decodeFileChanges(params["changes"])
  if (changes === undefined) return view
  return change(
    view,
    params,
    "fileChange",
    emptyFileChange,
    (entry, item) => ({ ...entry, item: { ...item, changes } })
  )
}

const emptyMcpToolCall = (id: string): ItemOf<"mcpToolCall"> => ({
  type: "mcpToolCall",
  id,
  server: "",
  tool: "",
  arguments: null,
  status: "inProgress"
})

/** Folds `item/mcpToolCall/progress`. */
export const setProgress = (view: TurnView, params: JsonObject): TurnView => {
  const progress = params["message"]
  if (typeof progress !== "string") return view
  return change(
    view,
    params,
    "mcpToolCall",
    emptyMcpToolCall,
    (entry) => entry.progress === progress ? entry : { ...entry, progress }
  )
}
