/** What is known of the items that run, for the requests about them that do not say it. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { AppServer } from "../../AppServer.ts"
import type * as Protocol from "../../Protocol.ts"

type FileChange = Extract<Protocol.ThreadItem, { type: "fileChange" }>
type McpToolCall = Extract<Protocol.ThreadItem, { type: "mcpToolCall" }>

interface Running {
  readonly threadId: string
  readonly turnId: string
  readonly item: FileChange | McpToolCall
}

export interface RunningItems {
  /** The diffs of a file change. A request for approval does not have them; they came when the item was started. */
  readonly changesOf: (threadId: string, itemId: string) => ReadonlyArray<Protocol.FileUpdateChange> | undefined
  /** Whether a turn is about to call a tool of an MCP server, or calls it. */
  readonly isCalling: (threadId: string, turnId: string | undefined, server: string, tool: string) => boolean
}

const keyOf = (threadId: string, itemId: string): string => JSON.stringify([threadId, itemId])

export const runningItems = (server: AppServer["Service"]): Effect.Effect<RunningItems, never, Scope.Scope> =>
  Effect.gen(function*() {
    const running = new Map<string, Running>()
    yield* server.observe("item/started", (event) => {
      if (event.method !== "item/started") return
      const { item, threadId, turnId } = event.params
      if (item.type !== "fileChange" && item.type !== "mcpToolCall") return
      running.set(keyOf(threadId, item.id), { threadId, turnId, item })
    })
    yield* server.observe("item/fileChange/patchUpdated", (event) => {
      if (event.method !== "item/fileChange/patchUpdated") return
      const { changes, itemId, threadId, turnId } = event.params
      const item: FileChange = { type: "fileChange", id: itemId, changes, status: "inProgress" }
      running.set(keyOf(threadId, itemId), { threadId, turnId, item })
    })
    yield* server.observe("item/completed", (event) => {
      if (event.method !== "item/completed") return
      const { item, threadId } = event.params
      if (item.type === "fileChange" || item.type === "mcpToolCall") running.delete(keyOf(threadId, item.id))
    })
    yield* server.observe("turn/completed", (event) => {
      if (event.method !== "turn/completed") return
      const { threadId, turn } = event.params
      for (const [key, item] of running) {
        if (item.threadId === threadId && item.turnId === turn.id) running.delete(key)
      }
    })
    yield* server.onRestart(() => Effect.sync(() => running.clear()))
    return {
      changesOf: (threadId, itemId) => {
        const item = running.get(keyOf(threadId, itemId))?.item
        return item?.type === "fileChange" ? item.changes : undefined
      },
      isCalling: (threadId, turnId, server, tool) =>
        [...running.values()].some((call) =>
          call.threadId === threadId && call.turnId === turnId && call.item.type === "mcpToolCall" &&
          call.item.server === server && call.item.tool === tool
        )
    }
  })
