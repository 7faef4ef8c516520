/** The calls of a thread's tools. Each waits for a result that a later request brings. */
import type * as Prompt from "effect/ai/Prompt"
import * as AiTool from "effect/ai/Tool"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Tool from "../../Tool.ts"
import { canonicalJson } from "./canonicalJson.ts"
import { toContents } from "./toolContent.ts"

/** What a model receives about a tool. */
export type Definition = Pick<Tool.Tool, "name" | "description" | "inputSchema">

/** The schema of a dynamic tool without parameters allows any value. Codex accepts objects only. */
const toInputSchema = (tool: AiTool.Any): Definition["inputSchema"] => {
  const schema = AiTool.getJsonSchema(tool)
  return Object.keys(schema).length === 0 ? { type: "object", additionalProperties: true } : schema
}

/** Returns the definitions of the tools that the program runs. */
export const toDefinitions = (tools: ReadonlyArray<AiTool.Any>): ReadonlyArray<Definition> =>
  tools.filter((tool) => !AiTool.isProviderDefined(tool)).map((tool) => ({
    name: tool.name,
    description: AiTool.getDescription(tool) ?? "",
    inputSchema: toInputSchema(tool)
  }))

/** The identity of definitions. The server registers names and schemas. */
export const describeTools = (tools: ReadonlyArray<Definition>): string =>
  canonicalJson(Object.fromEntries(tools.map(({ inputSchema, name }) => [name, inputSchema])))

/** Whether a thread with some tools also offers others. */
export const includesTools = (tools: ReadonlyArray<Definition>, others: ReadonlyArray<Definition>): boolean =>
  others.every((other) => {
    const tool = tools.find(({ name }) => name === other.name)
    return tool !== undefined && describeTools([tool]) === describeTools([other])
  })

const failed = (text: string): Tool.Result => ({ success: false, content: [Tool.text(text)] })

export class ToolCalls {
  /** The id of the thread, once it is open. */
  threadId: string | undefined
  private readonly results = new Map<string, Deferred.Deferred<Tool.Result>>()

  /** Makes tools whose calls wait for {@link complete}. */
  toTools(definitions: ReadonlyArray<Definition>): ReadonlyArray<Tool.Tool> {
    return definitions.map((definition) => ({
      ...definition,
      run: (_, { callId, threadId }) =>
        Effect.suspend(() =>
          threadId === this.threadId
            ? Deferred.await(this.get(callId))
            // No response would contain the call of a sub-agent, and the turn would wait for it.
            : Effect.succeed(failed("A sub-agent cannot call this tool. Continue without it"))
        )
    }))
  }

  /** Responds to a call, which may not have arrived yet. Without a result, the model receives that there is none. */
  complete(callId: string, result: Prompt.ToolResultPart | undefined): void {
    this.succeed(
      callId,
      result === undefined
        ? failed("The program returned no result for this call")
        : { success: !result.isFailure, content: toContents(result.result, result.modelOutput) }
    )
  }

  /** Responds to a call of a tool that the current request does not offer. */
  refuse(callId: string): void {
    this.succeed(callId, failed("This tool is not available now. Continue without it"))
  }

  /** Forgets the calls of a turn that has ended. */
  clear(): void {
    this.results.clear()
  }

  private succeed(callId: string, result: Tool.Result): void {
    Deferred.doneUnsafe(this.get(callId), Effect.succeed(result))
  }

  private get(callId: string): Deferred.Deferred<Tool.Result> {
    const known = this.results.get(callId)
    if (known !== undefined) return known
    const made = Deferred.makeUnsafe<Tool.Result>()
    this.results.set(callId, made)
    return made
  }
}
