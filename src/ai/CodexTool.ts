/**
 * The tools that Codex runs itself, as provider-defined tools of `effect/ai`.
 *
 * **When to use**
 *
 * Add them to the toolkit of a program on `CodexLanguageModel`, so that its responses contain what Codex does: commands, file changes, web
 * searches and calls of MCP tools.
 *
 * **Details**
 *
 * The tools change only what a response shows. Codex has its tools with or without them. Without them a response has no parts about them,
 * because a toolkit cannot decode the parts of tools that it does not have.
 *
 * `LanguageModel` types the `params` of a call as `unknown`. The results therefore repeat what identifies the call.
 *
 * **Example** (Printing the commands of a response)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { LanguageModel, Toolkit } from "effect/ai"
 * import { CodexTool } from "effect-codex/ai"
 *
 * const toolkit = Toolkit.make(CodexTool.Command())
 *
 * export const program = Effect.gen(function*() {
 *   const response = yield* LanguageModel.generateText({ prompt: "Which tests fail?", toolkit })
 *   for (const { result } of response.toolResults) {
 *     if ("exitCode" in result) yield* Console.log(result.command, result.exitCode)
 *   }
 *   return response.text
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Tool from "effect/ai/Tool"
import * as AiToolkit from "effect/ai/Toolkit"
import * as Schema from "effect/Schema"

/**
 * A shell command.
 *
 * **Details**
 *
 * `status` is `"completed"`, `"failed"`, `"declined"`, or `"inProgress"` if the turn ended before the command. `exitCode` is `null` if the
 * command has none. `output` is what it wrote to stdout and stderr.
 *
 * @category tools
 * @since 0.1.0
 */
export const Command = Tool.providerDefined({
  id: "codex.command",
  customName: "CodexCommand",
  providerName: "exec_command",
  parameters: Schema.Struct({ command: Schema.String, cwd: Schema.String }),
  success: Schema.Struct({
    command: Schema.String,
    status: Schema.String,
    exitCode: Schema.NullOr(Schema.Number),
    output: Schema.String
  })
})

/**
 * A change of files. `kind` is `"add"`, `"delete"` or `"update"`; `status` is as that of {@link Command}.
 *
 * @category tools
 * @since 0.1.0
 */
export const FileChange = Tool.providerDefined({
  id: "codex.file_change",
  customName: "CodexFileChange",
  providerName: "apply_patch",
  parameters: Schema.Struct({
    changes: Schema.Array(Schema.Struct({ path: Schema.String, kind: Schema.String, diff: Schema.String }))
  }),
  success: Schema.Struct({
    changes: Schema.Array(Schema.Struct({ path: Schema.String, kind: Schema.String })),
    status: Schema.String
  })
})

/**
 * A web search, or a page that the model opened. `action` is that of the protocol.
 *
 * @category tools
 * @since 0.1.0
 */
export const WebSearch = Tool.providerDefined({
  id: "codex.web_search",
  customName: "CodexWebSearch",
  providerName: "web_search",
  parameters: Schema.Struct({ query: Schema.String }),
  success: Schema.Struct({ query: Schema.String, action: Schema.NullOr(Schema.Json) })
})

/**
 * A call of a tool of an MCP server.
 *
 * **Details**
 *
 * `error` is the message of a call that failed. `content` and `structuredContent` are those of the MCP server.
 *
 * @category tools
 * @since 0.1.0
 */
export const McpCall = Tool.providerDefined({
  id: "codex.mcp_call",
  customName: "CodexMcpCall",
  providerName: "mcp",
  parameters: Schema.Struct({ server: Schema.String, tool: Schema.String, arguments: Schema.Json }),
  success: Schema.Struct({
    server: Schema.String,
    tool: Schema.String,
    status: Schema.String,
    content: Schema.Array(Schema.Json),
    structuredContent: Schema.NullOr(Schema.Json),
    error: Schema.NullOr(Schema.String)
  })
})

/**
 * A Toolkit with all tools of Codex. Merge it with your own by `Toolkit.merge`.
 *
 * @category toolkits
 * @since 0.1.0
 */
export const toolkit = AiToolkit.make(Command(), FileChange(), WebSearch(), McpCall())
