/**
 * The model asks before it plans, and a person at the terminal responds with a number or with free text.
 *
 * To respond without a terminal: `printf '2\n' | npm run -s example questions`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Codex, Questions } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { functionCall, layerCodex, text } from "./support/codex.ts"

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread()
  // The mode sets the model too, so pass the model of the thread.
  const { model } = yield* thread.settings
  const { finalResponse } = yield* thread.run("Plan the migration. Ask me which database to use.", {
    collaborationMode: model === undefined ? undefined : { mode: "plan", settings: { model } }
  })
  yield* Console.log(`\n${finalResponse}`)
})

const model = layerCodex((request) => {
  const output = request.functionCallOutput("question")
  return output === undefined
    ? functionCall("request_user_input", {
      questions: [{
        id: "database",
        header: "Database",
        question: "Where should the data be stored?",
        options: [
          { label: "PostgreSQL", description: "One server" },
          { label: "SQLite", description: "One file" }
        ]
      }]
    }, { callId: "question" })
    : text(`The model received: ${output}`)
})

program.pipe(
  Effect.provide(Questions.layer(Questions.askTerminal)),
  Effect.provide(model),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
