/** Random sequences of events of turns: valid ones, and values of any shape in their place. */
import type { TurnView } from "effect-codex"

export interface Random {
  /** An integer from 0 up to, and without, `end`. */
  readonly below: (end: number) => number
  readonly pick: <A>(values: ReadonlyArray<A>) => A
  readonly chance: (probability: number) => boolean
}

/** The generator `mulberry32`, so that a failing seed repeats its sequence. */
export const makeRandom = (seed: number): Random => {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const below = (end: number) => Math.floor(next() * end)
  return { below, pick: (values) => values[below(values.length)]!, chance: (probability) => next() < probability }
}

/** Runs a check with the random numbers of many seeds. A failure names its seed. */
export const forSeeds = (count: number, check: (random: Random) => void): void => {
  for (let seed = 0; seed < count; seed++) {
    try {
      check(makeRandom(seed))
    } catch (error) {
      throw new Error(`The check fails with the seed ${seed}: ${String(error)}`, { cause: error })
    }
  }
}

export const threadId = "thread"
export const turnId = "turn"

type Json = Record<string, unknown>

/** An item as the server sends it. */
export const item = (type: string, id: string, more: Json = {}): Json => {
  const fields: Record<string, Json> = {
    userMessage: { content: [{ type: "text", text: "go" }] },
    agentMessage: { text: "", phase: null },
    plan: { text: "" },
    reasoning: { summary: [], content: [] },
    commandExecution: {
      command: "ls",
      cwd: "/repo",
      commandActions: [],
      status: "inProgress",
      aggregatedOutput: null,
      exitCode: null
    },
    fileChange: { changes: [], status: "inProgress" },
    mcpToolCall: { server: "people", tool: "find", arguments: {}, status: "inProgress" },
    dynamicToolCall: { tool: "lookup", arguments: { id: "A" }, status: "inProgress" },
    webSearch: { query: "effect" },
    contextCompaction: {},
    enteredReviewMode: { review: "look" },
    madeUpLater: { data: [1, 2] }
  }
  return { type, id, ...fields[type], ...more }
}

export const types = [
  "userMessage",
  "agentMessage",
  "plan",
  "reasoning",
  "commandExecution",
  "fileChange",
  "mcpToolCall",
  "dynamicToolCall",
  "webSearch",
  "contextCompaction",
  "enteredReviewMode",
  "madeUpLater"
] as const

/** A notification about the turn. */
export const event = (method: string, params: Json = {}, emittedAtMs?: number): TurnView.Event => ({
  method,
  params: { threadId, turnId, ...params },
  ...(emittedAtMs === undefined ? {} : { emittedAtMs })
} as TurnView.Event)

export const started = (started: Json, startedAtMs: number): TurnView.Event =>
  event("item/started", { item: { ...started, startedAtMs, completedAtMs: null }, startedAtMs })

export const completed = (completed: Json, completedAtMs: number): TurnView.Event =>
  event("item/completed", { item: { ...completed, completedAtMs }, completedAtMs })

export const delta = (method: string, itemId: string, text: string, more: Json = {}): TurnView.Event =>
  event(method, { itemId, delta: text, ...more })

export const turn = (status: string, more: Json = {}): Json => ({
  id: turnId,
  rootTurnId: turnId,
  items: [],
  itemsView: "notLoaded",
  status,
  error: null,
  startedAt: 1,
  completedAt: status === "inProgress" ? null : 2,
  durationMs: status === "inProgress" ? null : 1000,
  ...more
})

export const turnStarted: TurnView.Event = event("turn/started", { turn: turn("inProgress") })

export const turnCompleted = (status = "completed", more: Json = {}): TurnView.Event =>
  event("turn/completed", { turn: turn(status, more) })

export const error = (willRetry: boolean, emittedAtMs?: number): TurnView.Event =>
  event("error", { willRetry, error: { message: "Reconnecting... 1/5" } }, emittedAtMs)

export const usage = (total: number, last: number): TurnView.Event => {
  const tokens = (count: number) => ({
    inputTokens: count,
    cachedInputTokens: 0,
    outputTokens: 0,
    reasoningOutputTokens: 0,
    totalTokens: count
  })
  return event("thread/tokenUsage/updated", {
    tokenUsage: { total: tokens(total), last: tokens(last), modelContextWindow: 1000 }
  })
}

export const commandRequest = (id: number, itemId: string): TurnView.Event => ({
  method: "item/commandExecution/requestApproval",
  id,
  params: { threadId, turnId, itemId, startedAtMs: 1, command: "ls", cwd: "/repo" }
})

export const resolved = (requestId: number): TurnView.Event => ({
  method: "serverRequest/resolved",
  params: { threadId, requestId }
})

/** A valid event of the turn. */
const anyEvent = (random: Random): TurnView.Event => {
  const id = random.pick(["a", "b", "c", "d", "e"])
  const type = random.chance(0.7) ? types[id.charCodeAt(0) - 96]! : random.pick(types)
  const text = random.pick(["", "x", "yes\n", "😀", "\ud83d", "\u2028", "__proto__"])
  const time = random.below(20)
  switch (random.below(20)) {
    case 0:
    case 1:
    case 2:
      return started(item(type, id), time)
    case 3:
    case 4:
    case 5:
      return completed(
        item(type, id, random.chance(0.5) ? { startedAtMs: time, text, aggregatedOutput: text } : {}),
        time
      )
    case 6:
    case 7:
      return delta("item/agentMessage/delta", id, text)
    case 8:
      return delta("item/commandExecution/outputDelta", id, text)
    case 9:
      return delta("item/plan/delta", id, text)
    case 10:
      return random.chance(0.5)
        ? delta("item/reasoning/summaryTextDelta", id, text, { summaryIndex: random.below(3) })
        : delta("item/reasoning/textDelta", id, text, { contentIndex: random.below(3) })
    case 11:
      return event("item/fileChange/patchUpdated", {
        itemId: id,
        changes: [{ path: text, kind: { type: "add" }, diff: text }]
      })
    case 12:
      return event("item/mcpToolCall/progress", { itemId: id, message: text })
    case 13:
      return error(random.chance(0.8), time)
    case 14:
      return commandRequest(random.below(4), id)
    case 15:
      return resolved(random.below(4))
    case 16:
      return usage(random.below(500), random.below(100))
    case 17:
      return random.chance(0.5)
        ? event("turn/plan/updated", { explanation: text, plan: [{ step: text, status: "pending" }] }, time)
        : event("turn/diff/updated", { diff: text }, time)
    case 18:
      return turnStarted
    default:
      return random.chance(0.2) ? turnCompleted(random.pick(["completed", "failed", "later"])) : turnStarted
  }
}

/** Values that no event of the server has. */
const hostile: ReadonlyArray<unknown> = [
  null,
  true,
  0,
  -1,
  0.5,
  1e21,
  2 ** 53,
  "",
  "turn",
  "__proto__",
  "constructor",
  "malformed",
  "inProgress",
  [],
  {},
  [[]],
  JSON.parse("{\"__proto__\": {\"id\": \"a\", \"type\": \"agentMessage\", \"text\": 1}}"),
  { type: "malformed" },
  { type: "agentMessage", id: "a" },
  { type: "__proto__", id: "__proto__" },
  { constructor: { prototype: { polluted: true } }, id: "b", type: "toString" },
  { length: 3, 0: "x" }
]

/** Replaces, removes or adds one value anywhere within a JSON value. */
const mutate = (random: Random, value: unknown): unknown => {
  if (typeof value !== "object" || value === null || random.chance(0.2)) return random.pick(hostile)
  if (Array.isArray(value)) {
    if (value.length === 0) return [random.pick(hostile)]
    const index = random.below(value.length)
    return value.with(index, mutate(random, value[index]))
  }
  const keys = Object.keys(value)
  const key = random.chance(0.1) || keys.length === 0
    ? random.pick(["id", "type", "raw", "status", "constructor", "toString"])
    : random.pick(keys)
  const { [key]: old, ...others } = value as Json
  return random.chance(0.15) ? others : { ...others, [key]: mutate(random, old) }
}

/** An item that did not decode, in an event that did. */
const malformedItem = (random: Random): TurnView.Event =>
  event(random.pick(["item/started", "item/completed"]), {
    item: {
      type: "malformed",
      raw: random.pick<unknown>([
        null,
        { id: "a" },
        { id: "a", type: "plan", text: 5 },
        { id: "a", type: "plan", text: "valid" },
        { id: "a", type: "malformed", raw: { id: "a", type: "malformed" } }
      ])
    }
  })

/** A sequence of events. Some belong to another turn, are repeated, or have any shape. */
export const anyEvents = (random: Random, hostility: number): ReadonlyArray<TurnView.Event> => {
  const events: Array<TurnView.Event> = []
  for (let count = random.below(40); count > 0; count--) {
    const repeated = random.chance(0.1) && events.length > 0
    const next = repeated ? random.pick(events) : random.chance(0.03) ? malformedItem(random) : anyEvent(random)
    const wrapped = random.chance(0.05) ? { method: "malformed", raw: next } : next
    events.push((random.chance(hostility) ? mutate(random, wrapped) : wrapped) as TurnView.Event)
  }
  return events
}
