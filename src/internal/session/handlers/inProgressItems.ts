/** What is known of the items that run, for the requests about them that do not say it. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type * as Approvals from "../../../Approvals.ts"
import type { AppServer } from "../../../AppServer.ts"
import type * as Protocol from "../../../Protocol.ts"

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
  /**
   * The call that a request is about, of a tool of an MCP server. The protocol does not promise that the call is started before
   * its approval is asked for, so one that is not running yet is waited for, but not for long.
   */
  readonly callOf: (request: Approvals.McpToolCallRequest) => Effect.Effect<Option.Option<McpToolCall>>
}

/** How long a call may be started after its approval was asked for. Both come from one process, one after the other. */
const callGrace = Duration.seconds(1)

/** Up to 0.166 the server does not name the tool, but quotes its name in the message. */
const isAbout = (request: Approvals.McpToolCallRequest, { item, threadId, turnId }: Running): boolean =>
  threadId === request.threadId && turnId === request.turnId && item.type === "mcpToolCall" &&
  item.server === request.server &&
  (request.tool === ""
    ? request.message.includes(JSON.stringify(item.tool)) && Equal.equals(item.arguments, request.arguments)
    : item.tool === request.tool)

const keyOf = (threadId: string, itemId: string): string => JSON.stringify([threadId, itemId])

export const inProgressItems = (server: AppServer["Service"]): Effect.Effect<RunningItems, never, Scope.Scope> =>
  Effect.gen(function*() {
    const running = new Map<string, Running>()
    /** Look for the calls that requests wait for. */
    const waiting = new Set<() => void>()
    yield* server.observe("item/started", (event) => {
      if (event.method !== "item/started") return
      const { item, threadId, turnId } = event.params
      if (item.type !== "fileChange" && item.type !== "mcpToolCall") return
      running.set(keyOf(threadId, item.id), { threadId, turnId, item })
      for (const look of waiting) look()
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
      callOf: (request) => {
        const find = (): McpToolCall | undefined => {
          for (const call of running.values()) {
            if (isAbout(request, call)) return call.item as McpToolCall
          }
          return undefined
        }
        return Effect.suspend(() => {
          const call = find()
          if (call !== undefined) return Effect.succeedSome(call)
          // A request that names no turn is about no call.
          if (request.turnId === undefined) return Effect.succeedNone
          return Effect.callback<McpToolCall>((resume) => {
            const look = () => {
              const call = find()
              if (call === undefined) return
              waiting.delete(look)
              // The handler is not to run in the reader's step.
              resume(Effect.as(Effect.yieldNow, call))
            }
            waiting.add(look)
            return Effect.sync(() => waiting.delete(look))
          }).pipe(Effect.timeoutOption(callGrace))
        })
      }
    }
  })
