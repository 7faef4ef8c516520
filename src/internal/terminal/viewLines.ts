/** Renders the parts of a view as lines of limited width. */
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../Protocol.ts"
import type { ThreadView } from "../../ThreadView.ts"
import { readCommand } from "../approvals/commandWords.ts"
import { getOwn, getOwnString } from "../getOwn.ts"
import { textTypes } from "../view/items.ts"
import { isEnded, type ItemView, type PendingRequest, type TurnView } from "../view/model.ts"
import { wrap, wrapHead, wrapTail } from "./displayText.ts"
import { terminalText } from "./terminalText.ts"

/** The color or the intensity of a line. */
export type Style = "bold" | "dim" | "green" | "red" | "yellow"

/** One row of the terminal. */
export interface Line {
  readonly text: string
  readonly style: Style | undefined
}

/** Where lines are shown, and when. */
export interface Canvas {
  readonly columns: number
  /** The number of rows of the terminal. Only the end of a text that is still incomplete is shown. */
  readonly rows: number
  readonly nowMs: number
}

/** Maximum number of rows of a command, a call, a request or an error. The interesting part is at its start. */
const maxHead = 4

/** Maximum number of files, of agents, and of steps of a plan while the turn is in progress. */
const maxEntries = 10

/** Maximum number of rows of an output. */
const maxOutput = 10

/** Maximum number of rows of an output that is still incomplete. */
const maxLiveOutput = 5

/** Puts rows next to a mark of one character. A terminal of less than four columns has no room for marks. */
const block = (
  canvas: Canvas,
  mark: string,
  toRows: (columns: number) => ReadonlyArray<string>,
  style?: Style
): ReadonlyArray<Line> => {
  if (canvas.columns < 4) return toRows(Math.max(1, canvas.columns)).map((text) => ({ text, style }))
  return toRows(canvas.columns - 2).map((row, index) => {
    const prefix = index === 0 ? `${mark} ` : "  "
    return { text: `${prefix}${row}`.trimEnd(), style }
  })
}

/** A short text, such as a command: its first rows. */
const short = (canvas: Canvas, mark: string, text: string, style?: Style): ReadonlyArray<Line> =>
  block(canvas, mark, (columns) => wrapHead(text, columns, maxHead), style)

/** A text that a person reads. While it is incomplete, only its end. */
const prose = (canvas: Canvas, mark: string, source: string, isLive: boolean, style?: Style): ReadonlyArray<Line> => {
  const text = source.trim()
  if (text === "") return []
  return block(canvas, mark, (columns) => isLive ? wrapTail(text, columns, canvas.rows) : wrap(text, columns), style)
}

/** The end of an output. */
const output = (canvas: Canvas, text: string, max: number): ReadonlyArray<Line> =>
  text.trim() === "" ? [] : block(canvas, " ", (columns) => wrapTail(text.trimEnd(), columns, max), "dim")

/** The strings of an array. */
const strings = (value: unknown): ReadonlyArray<string> => Array.isArray(value) ? value.filter(Predicate.isString) : []

const list = (value: unknown): ReadonlyArray<unknown> => Array.isArray(value) ? value : []

const pad = (part: number): string => String(part).padStart(2, "0")

/** A duration, such as `12s`, `3m 04s` or `2h 05m`. */
const formatDuration = (ms: number): string => {
  const seconds = Number.isFinite(ms) && ms > 0 ? Math.floor(ms / 1000) : 0
  if (seconds < 60) return `${seconds}s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${pad(seconds % 60)}s`
  return `${Math.floor(seconds / 3600)}h ${pad(Math.floor(seconds / 60) % 60)}m`
}

const formatJson = (value: unknown): string => value === undefined ? "" : JSON.stringify(value) ?? ""

const formatElapsed = (entry: ItemView, { nowMs }: Canvas): string =>
  entry.state === "inProgress" && entry.startedAtMs !== null ? ` (${formatDuration(nowMs - entry.startedAtMs)})` : ""

/** How a command or a call ended, if it did not succeed. */
const outcome = (entry: ItemView, failure: string | undefined): readonly [text: string, style: Style | undefined] => {
  if (entry.state === "unfinished") return ["unfinished", "yellow"]
  const status = getOwnString(entry.item, "status")
  if (status === "declined") return ["declined", "yellow"]
  return status === "failed" || failure !== undefined ? [failure ?? "failed", "red"] : ["", undefined]
}

/** A command or a call: what it is, the rows that belong to it, and how it ended if it did not succeed. */
const action = (
  canvas: Canvas,
  entry: ItemView,
  mark: string,
  text: string,
  options: { readonly failure?: string | undefined; readonly body?: ReadonlyArray<Line> } = {}
): ReadonlyArray<Line> => {
  const [end, style] = outcome(entry, options.failure)
  return [
    ...short(canvas, mark, `${terminalText(text)}${formatElapsed(entry, canvas)}`, "bold"),
    ...(options.body ?? []),
    ...(end === "" ? [] : short(canvas, " ", end, style))
  ]
}

/** The script of a shell, or the whole command. */
const toScript = (command = ""): string => readCommand(command)?.script ?? command

const command = (canvas: Canvas, entry: ItemView): ReadonlyArray<Line> => {
  const exitCode = getOwn(entry.item, "exitCode")
  return action(canvas, entry, "$", toScript(getOwnString(entry.item, "command")), {
    failure: Predicate.isNumber(exitCode) && exitCode !== 0 ? `exit code ${exitCode}` : undefined,
    body: output(
      canvas,
      getOwnString(entry.item, "aggregatedOutput") ?? "",
      entry.state === "inProgress" ? maxLiveOutput : maxOutput
    )
  })
}

/** The number of lines of a diff that start with a character. */
const countLines = (diff: string, start: RegExp): number => diff.match(start)?.length ?? 0

/** A file, and how many lines changed. The diff of a file that is added or deleted is its content. */
const formatChange = (change: unknown): string => {
  const diff = getOwnString(change, "diff") ?? ""
  const kind = getOwnString(getOwn(change, "kind"), "type") ?? ""
  const count = countLines(diff, /.+$/gm)
  const added = kind === "add" ? count : kind === "delete" ? 0 : countLines(diff, /^\+(?!\+\+ )/gm)
  const deleted = kind === "delete" ? count : kind === "add" ? 0 : countLines(diff, /^-(?!-- )/gm)
  const moved = getOwnString(getOwn(change, "kind"), "move_path")
  const path = terminalText(getOwnString(change, "path") ?? "")
  return `${kind} ${path}${moved === undefined ? "" : ` → ${terminalText(moved)}`} (+${added} -${deleted})`.trim()
}

const fileChange = (canvas: Canvas, entry: ItemView): ReadonlyArray<Line> => {
  const changes = list(getOwn(entry.item, "changes"))
  const shown = changes.slice(0, maxEntries)
  const [end, style] = outcome(entry, undefined)
  const more = changes.length - shown.length
  return [
    ...shown.flatMap((change) => short(canvas, "±", formatChange(change), "bold")),
    ...(more > 0 ? short(canvas, " ", `… and ${more} more`, "dim") : []),
    ...(end === "" ? [] : short(canvas, " ", end, style))
  ]
}

/** A call of a tool, with its progress or its error. */
const call = (canvas: Canvas, entry: ItemView, name: string): ReadonlyArray<Line> => {
  const { item } = entry
  const failure = getOwnString(getOwn(item, "error"), "message") ??
    (getOwn(item, "success") === false ? "failed" : undefined)
  return action(canvas, entry, "→", `${name}(${formatJson(getOwn(item, "arguments"))})`, {
    failure,
    body: entry.progress === null ? [] : short(canvas, " ", entry.progress, "dim")
  })
}

/** What the model does with sub-agents, and how these are. */
const subAgents = (canvas: Canvas, entry: ItemView): ReadonlyArray<Line> => {
  const { item } = entry
  const prompt = getOwnString(item, "prompt")
  const states = getOwn(item, "agentsStates")
  return [
    ...action(canvas, entry, "◇", `${getOwnString(item, "tool") ?? ""}${prompt === undefined ? "" : `: ${prompt}`}`),
    ...Object.entries(Predicate.isObject(states) ? states : {}).slice(0, maxEntries).flatMap(([id, state]) => {
      const message = getOwnString(state, "message")
      const status = getOwnString(state, "status") ?? ""
      // The start of an id is its time, which agents may share.
      return short(
        canvas,
        " ",
        `${terminalText(id.slice(-8))} ${status}${message === undefined ? "" : `: ${message}`}`,
        "dim"
      )
    })
  ]
}

const userInput = (part: unknown): string =>
  getOwnString(part, "text") ?? `[${getOwnString(part, "name") ?? getOwnString(part, "type") ?? ""}]`

/** Renders an item. A retracted one has no lines. */
export const itemLines = (canvas: Canvas, entry: ItemView): ReadonlyArray<Line> => {
  const { item, state } = entry
  if (state === "retracted") return []
  const isLive = state === "inProgress"
  const text = getOwnString(item, "text") ?? ""
  switch (item.type) {
    case "userMessage":
      return prose(canvas, "›", list(getOwn(item, "content")).map(userInput).join("\n"), isLive, "bold")
    case "agentMessage":
    case "plan":
      return prose(canvas, "•", text, isLive)
    case "reasoning":
      return prose(canvas, "∴", strings(getOwn(item, "summary")).join("\n\n"), isLive, "dim")
    case "commandExecution":
      return command(canvas, entry)
    case "fileChange":
      return fileChange(canvas, entry)
    case "mcpToolCall":
      return call(canvas, entry, `${getOwnString(item, "server") ?? ""}.${getOwnString(item, "tool") ?? ""}`)
    case "dynamicToolCall":
      return call(canvas, entry, getOwnString(item, "tool") ?? "")
    case "collabAgentToolCall":
      return subAgents(canvas, entry)
    case "subAgentActivity":
      return short(
        canvas,
        "◇",
        `${terminalText(getOwnString(item, "agentPath") ?? "")} ${getOwnString(item, "kind") ?? ""}`
      )
    case "webSearch":
      return action(canvas, entry, "→", `search: ${getOwnString(item, "query") ?? ""}`)
    case "imageView":
      return action(canvas, entry, "→", `view ${getOwnString(item, "path") ?? ""}`)
    case "enteredReviewMode":
    case "exitedReviewMode":
      return prose(canvas, "•", `Review: ${getOwnString(item, "review") ?? ""}`, isLive)
    case "contextCompaction":
      return short(canvas, "→", isLive ? "compacting the context" : "compacted the context", "dim")
    default:
      return short(canvas, "→", terminalText(`${item.type}${formatElapsed(entry, canvas)}`), "dim")
  }
}

/** Renders what a sub-agent does now, in one row: its last item in progress, and of a text its end. An idle one has no row. */
export const agentLines = (canvas: Canvas, { threadId, turns }: ThreadView): ReadonlyArray<Line> => {
  const turn = turns.at(-1)
  if (turn === undefined || isEnded(turn)) return []
  const lines = turn.items.filter(({ state }) => state === "inProgress").flatMap((entry) => {
    const lines = itemLines({ ...canvas, columns: Infinity }, entry)
    const line = textTypes.has(entry.item.type) ? lines.at(-1) : lines[0]
    return line === undefined ? [] : [line.text.trim()]
  })
  const doing = turn.requests.length > 0 ? "waits for a response" : lines.at(-1) ?? "works"
  // The start of an id is its time, which agents may share.
  const text = `${terminalText(threadId.slice(-8))} ${doing}`
  return block(canvas, " ", (columns) => wrapHead(text, columns, 1), "dim")
}

const stepMarks: Readonly<Record<string, readonly [mark: string, style: Style | undefined]>> = {
  completed: ["✓", "dim"],
  inProgress: ["▸", "bold"]
}

/** Renders the plan. A long one is cut around the step that is in progress. */
const planLines = (canvas: Canvas, view: TurnView): ReadonlyArray<Line> => {
  const steps = view.plan?.steps ?? []
  const current = steps.findIndex(({ status }) => status !== "completed")
  const max = isEnded(view) ? steps.length : Math.min(maxEntries, canvas.rows)
  const start = Math.max(0, Math.min(current === -1 ? steps.length : current - 1, steps.length - max))
  return steps.slice(start, start + max).flatMap(({ status, step }) => {
    const [mark, style] = Object.hasOwn(stepMarks, status) ? stepMarks[status]! : ["·", undefined]
    return short(canvas, mark, step, style)
  })
}

const describeRequest = ({ method, params }: PendingRequest): string => {
  switch (method) {
    case "item/commandExecution/requestApproval":
      return `Approve the command ${terminalText(toScript(getOwnString(params, "command")))}`
    case "item/fileChange/requestApproval":
      return "Approve the changes of files"
    case "item/permissions/requestApproval":
      return `Approve more permissions: ${terminalText(formatJson(getOwn(params, "permissions")))}`
    case "item/tool/requestUserInput":
      return list(getOwn(params, "questions")).map((question) => getOwnString(question, "question") ?? "").join("\n")
    case "mcpServer/elicitation/request":
      return `${terminalText(getOwnString(params, "serverName") ?? "")}: ${getOwnString(params, "message") ?? ""}`
  }
}

const errorText = (error: Protocol.TurnError): string => getOwnString(error, "message") ?? ""

const statuses: Readonly<Record<string, readonly [text: string, style: Style]>> = {
  inProgress: ["Working", "dim"],
  completed: ["Completed", "green"],
  interrupted: ["Interrupted", "yellow"],
  failed: ["Failed", "red"]
}

/** Renders the status, the time and the tokens. */
const statusLines = (canvas: Canvas, view: TurnView): ReadonlyArray<Line> => {
  const known = Object.hasOwn(statuses, view.status) ? statuses[view.status]! : undefined
  const [status, style] = known ?? [terminalText(view.status), "dim" as const]
  const ms = view.durationMs ??
    (view.startedAt === null ? null : (isEnded(view) ? view.updatedAtMs ?? 0 : canvas.nowMs) - 1000 * view.startedAt)
  const { contextWindow, lastRequest, turn } = view.usage ?? {}
  const parts = [
    ms === null ? status : `${status} ${formatDuration(ms)}`,
    ...(turn === undefined ? [] : [`${turn.totalTokens.toLocaleString("en-US")} tokens`]),
    ...(contextWindow == null || contextWindow <= 0 || lastRequest === undefined
      ? []
      : [`${Math.round(100 * lastRequest.totalTokens / contextWindow)}% of context`])
  ]
  return block(canvas, "■", (columns) => wrap(parts.join(" · "), columns), style)
}

/** Renders what follows the items: the plan, the requests, a retry, an error and the status. */
export const footerLines = (canvas: Canvas, view: TurnView): ReadonlyArray<Line> => [
  ...planLines(canvas, view),
  ...view.requests.flatMap((request) => short(canvas, "?", describeRequest(request), "yellow")),
  ...(view.retry === null ? [] : short(canvas, "!", `Retry: ${errorText(view.retry)}`, "yellow")),
  ...(view.error === null ? [] : short(canvas, "!", errorText(view.error), "red")),
  ...statusLines(canvas, view)
]
