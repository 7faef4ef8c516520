/** Starts a thread, streams the text of a turn, and prints its result. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { deltas, layerCodex, reply } from "./support/codex.ts"

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  yield* Console.log(`Connected to Codex ${codex.metadata.serverVersion}`)

  const thread = yield* codex.startThread({ sandbox: "read-only" })
  const turn = yield* thread.turn("In one sentence: what is an Effect?")
  yield* turn.text.pipe(
    Stream.runForEach((text) => Effect.sync(() => process.stdout.write(text)))
  )

  const result = yield* turn.result
  yield* Console.log(`\n\nFinal response: ${result.finalResponse}`)
  yield* Console.log(`Tokens: ${result.usage?.turn.inputTokens} in, ${result.usage?.turn.outputTokens} out`)
}).pipe(Effect.scoped)

const model = layerCodex([
  reply([
    deltas(
      [
        "An Effect ",
        "describes a program ",
        "that needs an environment, ",
        "may fail with a typed error, ",
        "and succeeds with a value."
      ],
      { pace: "60 millis" }
    )
  ], { usage: { inputTokens: 24, outputTokens: 19 } })
])

program.pipe(Effect.provide(model), NodeRuntime.runMain)
