/**
 * The model asks before it plans, and a person answers at the terminal, by number or in words of their own.
 *
 * To have it answered: `printf '2\n' | npm run -s example questions`.
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
  // The mode has a model of its own. Take that of the thread, so that the mode does not change it.
  const { model } = yield* thread.settings
  const { finalResponse } = yield* thread.run("Plan the migration. Ask me which database to use.", {
    collaborationMode: model === undefined ? undefined : { mode: "plan", settings: { model } }
  })
  yield* Console.log(`\n${finalResponse}`)
})

const model = layerCodex((request) => {
  const answer = request.functionCallOutput("question")
  return answer === undefined
    ? functionCall("request_user_input", {
      questions: [{
        id: "database",
        header: "Database",
        question: "Where shall the data live?",
        options: [
          { label: "PostgreSQL", description: "One server that we know" },
          { label: "SQLite", description: "A file beside the program" }
        ]
      }]
    }, { callId: "question" })
    : text(`The model was told: ${answer}`)
})

program.pipe(
  Effect.provide(Questions.layer(Questions.askTerminal)),
  Effect.provide(model),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
