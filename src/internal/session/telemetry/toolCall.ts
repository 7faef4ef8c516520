/** Describes the items that are calls of tools, in the terms of the conventions. */
import * as Predicate from "effect/Predicate"
import { Attribute } from "../../../CodexTelemetry.ts"
import type * as Protocol from "../../../Protocol.ts"

/** A call of a tool. The program runs a `function`; Codex runs an `extension`. */
export interface ToolCall {
  /** The id of the item. */
  readonly id: string
  readonly name: string
  readonly type: "function" | "extension"
  /** `"completed"`, or why the call has no result. `"inProgress"` until it ends. */
  readonly status: string
  /** Attributes besides name, type and status. They have no contents. */
  readonly attributes: Readonly<Record<string, unknown>>
  /** Returns the arguments, which are private. */
  readonly arguments: () => unknown
  /** Returns the result, which is private. */
  readonly result: () => unknown
}

const commandName = (source: unknown): string =>
  source === "unifiedExecInteraction" ? "write_stdin" : source === "userShell" ? "user_shell" : "exec_command"

const extension = (
  id: string,
  name: string,
  status: string,
  args: () => unknown,
  result: () => unknown = () => undefined,
  attributes: ToolCall["attributes"] = {}
): ToolCall => ({ id, name, type: "extension", status, attributes, arguments: args, result })

/** Whether an item without a status has completed. It has a time of completion, or is the item of `item/completed`. */
const statusOf = (isCompleted: boolean): string => isCompleted ? "completed" : "inProgress"

/** Returns the call that an item is, or `undefined` for messages, reasoning and other items. */
export const toToolCall = (item: Protocol.ThreadItem, isCompleted: boolean): ToolCall | undefined => {
  switch (item.type) {
    case "commandExecution":
      return extension(
        item.id,
        commandName(item.source),
        item.status,
        () => ({ command: item.command, cwd: item.cwd }),
        () => item.aggregatedOutput ?? undefined,
        Predicate.isNotNullish(item.exitCode) ? { [Attribute.ProcessExitCode]: item.exitCode } : {}
      )
    case "fileChange":
      return extension(item.id, "apply_patch", item.status, () => ({ changes: item.changes }))
    case "mcpToolCall":
      return extension(
        item.id,
        item.tool,
        item.status,
        () => item.arguments,
        () => item.error ?? item.result ?? undefined,
        { [Attribute.McpMethod]: "tools/call", [Attribute.McpServer]: item.server }
      )
    case "dynamicToolCall":
      return {
        id: item.id,
        name: item.tool,
        type: "function",
        status: item.success === false ? "failed" : item.status,
        attributes: {},
        arguments: () => item.arguments,
        result: () => item.contentItems ?? undefined
      }
    case "collabAgentToolCall":
      return extension(
        item.id,
        item.tool,
        item.status,
        () => ({ prompt: item.prompt ?? undefined }),
        () => item.agentsStates
      )
    case "webSearch":
      return extension(
        item.id,
        "web_search",
        statusOf(isCompleted),
        () => ({ query: item.query }),
        () => item.results
      )
    case "imageView":
      return extension(item.id, "view_image", statusOf(isCompleted), () => ({ path: item.path }))
    case "imageGeneration":
      return extension(
        item.id,
        "image_generation",
        statusOf(isCompleted),
        () => ({ prompt: item.revisedPrompt ?? undefined })
      )
    case "sleep":
      return extension(item.id, "sleep", statusOf(isCompleted), () => ({ durationMs: item.durationMs }))
    default:
      return undefined
  }
}
