/** Converts what Codex did itself to the calls and results of its provider-defined tools. */
import type * as Protocol from "../../Protocol.ts"
import { getOwnString } from "../getOwn.ts"

/** A call of a provider-defined tool, with its result if its item has completed. */
export interface ProviderCall {
  /** The id of the item. */
  readonly id: string
  /** The id of the tool, as `CodexTool` defines it. */
  readonly tool: string
  readonly params: unknown
  readonly result: unknown
  /** Whether the params are complete only with the item. */
  readonly isLate: boolean
}

type Item<Type extends string> = Extract<Protocol.ThreadItem, { readonly type: Type }>

const command = (item: Item<"commandExecution">): ProviderCall => ({
  id: item.id,
  tool: "codex.command",
  params: { command: item.command, cwd: item.cwd },
  result: {
    command: item.command,
    status: item.status,
    exitCode: item.exitCode ?? null,
    output: item.aggregatedOutput ?? ""
  },
  isLate: false
})

const fileChange = (item: Item<"fileChange">): ProviderCall => {
  const changes = item.changes.map(({ diff, kind, path }) => ({
    path,
    kind: getOwnString(kind, "type") ?? "update",
    diff
  }))
  return {
    id: item.id,
    tool: "codex.file_change",
    params: { changes },
    result: { changes: changes.map(({ kind, path }) => ({ path, kind })), status: item.status },
    isLate: false
  }
}

const webSearch = (item: Item<"webSearch">): ProviderCall => ({
  id: item.id,
  tool: "codex.web_search",
  params: { query: item.query },
  result: { query: item.query, action: item.action ?? null },
  isLate: true
})

const mcpCall = (item: Item<"mcpToolCall">): ProviderCall => ({
  id: item.id,
  tool: "codex.mcp_call",
  params: { server: item.server, tool: item.tool, arguments: item.arguments ?? null },
  result: {
    server: item.server,
    tool: item.tool,
    status: item.status,
    content: item.result?.content ?? [],
    structuredContent: item.result?.structuredContent ?? null,
    error: item.error?.message ?? null
  },
  isLate: false
})

/** Returns the call of an item, or `undefined` for an item of another kind. */
export const toProviderCall = (item: Protocol.ThreadItem): ProviderCall | undefined => {
  switch (item.type) {
    case "commandExecution":
      return command(item)
    case "fileChange":
      return fileChange(item)
    case "webSearch":
      return webSearch(item)
    case "mcpToolCall":
      return mcpCall(item)
    default:
      return undefined
  }
}

/** The ids of the provider-defined tools of Codex. */
export const providerToolIds: ReadonlySet<string> = new Set([
  "codex.command",
  "codex.file_change",
  "codex.web_search",
  "codex.mcp_call"
])
