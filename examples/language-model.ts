/** Runs one program of `effect/ai` on two providers: on Codex, and on a small one without a model. Only the layer differs. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { CodexLanguageModel } from "effect-codex/ai"
import { Chat, LanguageModel, Model, Tool, Toolkit } from "effect/ai"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { functionCall, layerCodex, object, reply, text } from "./support/codex.ts"

// ---- The program, which knows no provider -----------------------------------------------------------------------------

const Triage = Schema.Struct({
  area: Schema.Literals(["payments", "search"]),
  severity: Schema.Literals(["minor", "major"])
})

const toolkit = Toolkit.make(
  Tool.make("find_owner", {
    description: "Finds the person who owns an area",
    parameters: Schema.Struct({ area: Schema.String }),
    success: Schema.String
  })
)

const handlers = toolkit.toLayer({
  find_owner: ({ area }) => Effect.succeed(area === "payments" ? "Ada" : "Grace")
})

const report = "Some customers paid twice since this morning."

const program = Effect.gen(function*() {
  const provider = yield* Model.ProviderName
  const { value } = yield* LanguageModel.generateObject({ prompt: `Triage this report: ${report}`, schema: Triage })
  yield* Console.log(`${provider}: ${value.severity}, in ${value.area}`)

  const chat = yield* Chat.fromPrompt([{ role: "system", content: "Answer with one sentence." }])
  let response = yield* chat.generateText({ prompt: `Who looks into the ${value.area} problem?`, toolkit })
  // The model receives the results with the next request.
  while (response.finishReason === "tool-calls") response = yield* chat.generateText({ prompt: [], toolkit })
  yield* Console.log(`${provider}: ${response.text}\n`)
}).pipe(
  Effect.catchTag("AiError", ({ message }) => Console.error(message)),
  Effect.provide(handlers)
)

// ---- Two providers ----------------------------------------------------------------------------------------------------

/** Responds by rules. Official providers of `effect/ai`, such as that of OpenAI, are layers of the same type. */
const rules = Model.make(
  "rules",
  "if-and-else",
  Layer.effect(
    LanguageModel.LanguageModel,
    LanguageModel.make({
      generateText: ({ prompt, responseFormat, tools }) => {
        const last = prompt.content.at(-1)
        const results = last?.role === "tool"
          ? last.content.flatMap((part) => "result" in part ? [part.result] : [])
          : []
        if (responseFormat.type === "json") {
          return Effect.succeed([{ type: "text", text: JSON.stringify({ area: "payments", severity: "major" }) }])
        }
        return results.length === 0 && tools.length > 0
          ? Effect.succeed([
            { type: "tool-call", id: "1", name: "find_owner", params: { area: "payments" } },
            { type: "finish", reason: "tool-calls", usage: { inputTokens: {}, outputTokens: {} } }
          ])
          : Effect.succeed([{ type: "text", text: `${results.join()} does.` }])
      },
      streamText: () => Stream.empty
    })
  )
)

const codex = Layer.provideMerge(
  Layer.merge(CodexLanguageModel.layer(), Layer.succeed(Model.ProviderName, "codex")),
  layerCodex([
    reply([object(Triage, { area: "payments", severity: "major" })]),
    functionCall("find_owner", { area: "payments" }),
    text("Ada looks into it.")
  ])
)

Effect.andThen(Effect.provide(program, rules), Effect.provide(program, codex)).pipe(NodeRuntime.runMain)
