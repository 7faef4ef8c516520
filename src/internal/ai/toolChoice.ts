/** The tools that a request allows and requires. The protocol cannot force a call, so the model receives instructions. */
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import * as AiTool from "effect/ai/Tool"
import * as Effect from "effect/Effect"
import { providerToolIds } from "./providerTools.ts"

/** Fails for tools that only another provider can run. */
export const checkTools = (tools: ReadonlyArray<AiTool.Any>): Effect.Effect<void, AiError.AiErrorReason> => {
  const unknown = tools.find((tool) => AiTool.isProviderDefined(tool) && !providerToolIds.has(tool.id))
  return unknown === undefined ? Effect.void : Effect.fail(
    new AiError.InvalidRequestError({
      parameter: "toolkit",
      constraint: `must not contain the provider-defined tool \`${unknown.name}\``,
      description: "Codex does not have this tool. Remove it, or use a tool of `CodexTool`"
    })
  )
}

const uncalled = (names: ReadonlyArray<string>) =>
  new AiError.InvalidOutputError({
    description: `The model called none of the tools that \`toolChoice\` requires: ${names.join(", ")}. Try again`
  })

/** What a tool choice means for a request. */
export interface ToolChoice {
  readonly isAllowed: (name: string) => boolean
  /** The instruction for a model that must call a tool. */
  readonly instruction: string | undefined
  /** Fails if the turn ended without a call that is required. */
  readonly checkEnd: (hasCalls: boolean) => Effect.Effect<void, AiError.AiErrorReason>
}

const required = (names: ReadonlyArray<string>): ToolChoice => ({
  isAllowed: (name) => names.includes(name),
  instruction: names.length === 1
    ? `Call the tool \`${names[0]}\` before you respond.`
    : `Call one of these tools before you respond: ${names.map((name) => `\`${name}\``).join(", ")}.`,
  checkEnd: (hasCalls) => hasCalls ? Effect.void : Effect.fail(uncalled(names))
})

/** `LanguageModel` has already removed the tools that `oneOf` excludes. */
export const resolveToolChoice = (
  choice: LanguageModel.ProviderOptions["toolChoice"],
  tools: ReadonlyArray<AiTool.Any>
): ToolChoice => {
  if (typeof choice === "object" && "tool" in choice) return required([choice.tool])
  const isRequired = choice === "required" || typeof choice === "object" && choice.mode === "required"
  if (isRequired) return required(tools.map(({ name }) => name))
  return { isAllowed: () => choice !== "none", instruction: undefined, checkEnd: () => Effect.void }
}
