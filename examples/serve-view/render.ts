/** Renders a `ThreadView` into the DOM. All text is inserted as text, never as HTML. */
import type { ThreadView, TurnView } from "effect-codex"

/** Decides about the approval with this id. */
type Decide = (approvalId: string, decision: "accept" | "decline") => void

const make = (tag: string, text = "", className = ""): HTMLElement => {
  const element = document.createElement(tag)
  element.textContent = text
  element.className = className
  return element
}

const button = (text: string, onClick: () => void): HTMLElement => {
  const element = make("button", text)
  element.addEventListener("click", onClick)
  return element
}

/** The value that an element shows. */
const shown = new WeakMap<Element, unknown>()

/** Keeps one child for each value, and renders a child again when its value is another object than before. */
const renderEach = <A>(
  parent: Element,
  values: ReadonlyArray<A>,
  getKey: (value: A) => string,
  render: (value: A, element: HTMLElement) => void
): void => {
  const unused = new Map(Array.from(parent.children, (child) => [(child as HTMLElement).dataset["key"], child]))
  for (const [index, value] of values.entries()) {
    const key = getKey(value)
    const element = (unused.get(key) ?? make("div")) as HTMLElement
    unused.delete(key)
    element.dataset["key"] = key
    if (shown.get(element) !== value) {
      shown.set(element, value)
      render(value, element)
    }
    if (parent.children[index] !== element) parent.insertBefore(element, parent.children[index] ?? null)
  }
  for (const element of unused.values()) element.remove()
}

/** Returns the title and the text of an item. */
const describeItem = ({ item, omittedOutput, progress }: TurnView.ItemView): readonly [title: string, text: string] => {
  switch (item.type) {
    case "userMessage":
      return ["You", item.content.map((part) => part.type === "text" ? part.text : `(${part.type})`).join("\n")]
    case "agentMessage":
      return ["Codex", item.text]
    case "reasoning":
      return ["Reasoning", item.summary?.join("\n\n") ?? ""]
    case "plan":
      return ["Plan", item.text]
    case "commandExecution": {
      const exit = typeof item.exitCode === "number" ? `, exit code ${item.exitCode}` : ""
      const omitted = omittedOutput > 0 ? `(${omittedOutput} characters before)\n` : ""
      return [`Command, ${item.status}${exit}`, `$ ${item.command}\n${omitted}${item.aggregatedOutput ?? ""}`]
    }
    case "fileChange":
      return [`File change, ${item.status}`, item.changes.map(({ diff, path }) => `${path}\n${diff}`).join("\n")]
    case "mcpToolCall":
      return [`${item.server}.${item.tool}, ${item.status}`, progress ?? ""]
    default:
      return [item.type, ""]
  }
}

const renderItem = (entry: TurnView.ItemView, element: HTMLElement): void => {
  const [title, text] = describeItem(entry)
  element.dataset["type"] = entry.item.type
  element.dataset["state"] = entry.state
  element.replaceChildren(make("h3", entry.state === "retracted" ? `${title}, retracted` : title), make("pre", text))
}

const renderRequest = (decide: Decide) => ({ method, params }: TurnView.PendingRequest, element: HTMLElement): void => {
  // The next update has a copy of the request. A click on a button needs the same button.
  if (element.hasChildNodes()) return
  element.append(make("h3", `Waits for a decision: ${method}`))
  switch (method) {
    case "item/commandExecution/requestApproval":
    case "item/fileChange/requestApproval": {
      const id = "approvalId" in params && params.approvalId || params.itemId
      if ("command" in params) element.append(make("pre", `$ ${params.command}`))
      element.append(button("Allow", () => decide(id, "accept")), button("Decline", () => decide(id, "decline")))
    }
  }
}

/** Returns the lines below the items of a turn. */
const describeTurn = ({ error, plan, retry, status, usage }: TurnView.TurnView): ReadonlyArray<HTMLElement> => [
  ...(plan?.steps ?? []).map(({ status, step }) => make("div", `${status}: ${step}`, "plan")),
  ...(retry === null ? [] : [make("div", `Retries: ${retry.message}`, "retry")]),
  ...(error === null ? [] : [make("div", error.message, "error")]),
  make("div", `${status}, ${usage?.turn.totalTokens ?? 0} tokens`, "status")
]

const renderTurn = (decide: Decide) => (turn: TurnView.TurnView, element: HTMLElement): void => {
  if (!element.hasChildNodes()) element.append(make("section"), make("div"), make("footer"))
  const [items, requests, footer] = element.children
  renderEach(items!, turn.items, ({ id }) => id, renderItem)
  renderEach(requests!, turn.requests, ({ id }) => String(id), renderRequest(decide))
  footer!.replaceChildren(...describeTurn(turn))
}

/** Renders the turns of a thread. A turn or an item that is the same object as before costs nothing. */
export const renderThread = (parent: Element, { turns }: ThreadView.ThreadView, decide: Decide): void =>
  renderEach(parent, turns, ({ turnId }) => turnId, renderTurn(decide))
