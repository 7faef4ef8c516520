/** Describes the steps of a turn in one line each, for the progress of an MCP call. */
import type * as Protocol from "../../Protocol.ts"
import { readCommand } from "../approvals/commandWords.ts"
import { terminalText } from "../terminal/terminalText.ts"

const describeItem = (item: Protocol.ThreadItem): string | undefined => {
  switch (item.type) {
    case "commandExecution":
      return `$ ${readCommand(item.command)?.script ?? item.command}`
    case "fileChange":
      return `Changes ${item.changes.map(({ path }) => path).join(", ")}`
    case "mcpToolCall":
      return `Calls ${item.server}.${item.tool}`
    case "dynamicToolCall":
      return `Calls ${item.tool}`
    case "webSearch":
      return `Searches the web: ${item.query}`
    default:
      return undefined
  }
}

/** Describes a command, a change or a call when it starts, and a message that is not the final response when it is complete. */
export const describeStep = (event: Protocol.TurnNotification): string | undefined => {
  if (event.method === "item/started") {
    const described = describeItem(event.params.item)
    return described === undefined ? undefined : terminalText(described)
  }
  if (event.method !== "item/completed") return undefined
  const { item } = event.params
  return item.type === "agentMessage" && item.phase === "commentary" ? terminalText(item.text) : undefined
}
