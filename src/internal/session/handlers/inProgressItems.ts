/** Follows the items in progress, for requests of the server that do not describe their item. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Protocol from "../../../Protocol.ts"
import type * as Approvals from "../../approvals/model.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"

type FileChange = Extract<Protocol.ThreadItem, { type: "fileChange" }>
type McpToolCall = Extract<Protocol.ThreadItem, { type: "mcpToolCall" }>

interface InProgress {
  readonly threadId: string
  readonly turnId: string
  readonly item: FileChange | McpToolCall
}

/**
 * Maximum time from an approval request to the start of its call. The protocol does not promise the order of the two, but one process sends
 * them in direct succession.
 */
const callStartTimeout = Duration.seconds(1)

/** Whether a request is about a call. Up to 0.166 the server does not name the tool, but its message quotes the name. */
const matchesCall = (
  request: Approvals.McpToolCallRequest,
  threadId: string,
  turnId: string,
  item: McpToolCall
): boolean =>
  threadId === request.threadId && turnId === request.turnId && item.server === request.server &&
  (request.tool === ""
    ? request.message.includes(JSON.stringify(item.tool)) && Equal.equals(item.arguments, request.arguments)
    : item.tool === request.tool)

const toKey = (threadId: string, itemId: string): string => JSON.stringify([threadId, itemId])

export class InProgressItems {
  private readonly items = new Map<string, InProgress>()
  /** Called when an item starts. */
  private readonly onStart = new Set<() => void>()

  /** Follows the items of the server, until the scope closes. */
  static readonly make = (server: ServerConnection): Effect.Effect<InProgressItems, never, Scope.Scope> =>
    Effect.suspend(() => {
      const items = new InProgressItems()
      return Effect.as(items.listen(server), items)
    })

  private listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.addNotificationHandler("item/started", ({ item, threadId, turnId }) => {
        if (item.type !== "fileChange" && item.type !== "mcpToolCall") return
        this.items.set(toKey(threadId, item.id), { threadId, turnId, item })
        for (const notify of this.onStart) notify()
      }),
      server.addNotificationHandler("item/fileChange/patchUpdated", ({ changes, itemId, threadId, turnId }) => {
        const item: FileChange = { type: "fileChange", id: itemId, changes, status: "inProgress" }
        this.items.set(toKey(threadId, itemId), { threadId, turnId, item })
      }),
      server.addNotificationHandler("item/completed", ({ item, threadId }) => {
        if (item.type === "fileChange" || item.type === "mcpToolCall") this.items.delete(toKey(threadId, item.id))
      }),
      server.addNotificationHandler("turn/completed", ({ threadId, turn }) => {
        for (const [key, item] of this.items) {
          if (item.threadId === threadId && item.turnId === turn.id) this.items.delete(key)
        }
      }),
      server.addRestartHandler(() => Effect.sync(() => this.items.clear()))
    ], { discard: true })
  }

  /** Returns the diffs of a file change. Its approval request does not have them. */
  getFileChanges(threadId: string, itemId: string): ReadonlyArray<Protocol.FileUpdateChange> | undefined {
    const item = this.items.get(toKey(threadId, itemId))?.item
    return item?.type === "fileChange" ? item.changes : undefined
  }

  /** Waits for the MCP tool call that a request is about. Returns none if the turn makes no such call within `callStartTimeout`. */
  awaitMcpToolCall(request: Approvals.McpToolCallRequest): Effect.Effect<Option.Option<McpToolCall>> {
    return Effect.suspend(() => {
      const call = this.findMcpToolCall(request)
      if (call !== undefined) return Effect.succeedSome(call)
      // A request without a turn id is about no call.
      if (request.turnId === undefined) return Effect.succeedNone
      return Effect.callback<McpToolCall>((resume) => {
        const notify = () => {
          const call = this.findMcpToolCall(request)
          if (call === undefined) return
          this.onStart.delete(notify)
          // The handler must not run within the read batch.
          resume(Effect.as(Effect.yieldNow, call))
        }
        this.onStart.add(notify)
        return Effect.sync(() => this.onStart.delete(notify))
      }).pipe(Effect.timeoutOption(callStartTimeout))
    })
  }

  private findMcpToolCall(request: Approvals.McpToolCallRequest): McpToolCall | undefined {
    for (const { item, threadId, turnId } of this.items.values()) {
      if (item.type === "mcpToolCall" && matchesCall(request, threadId, turnId, item)) return item
    }
    return undefined
  }
}
