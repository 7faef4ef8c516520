/** A turn that takes too long is interrupted on the server by `Effect.timeout`, and the thread continues. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { deltas, hang, layerCodex, text } from "./support/codex.ts"

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ sandbox: "read-only" })

  yield* thread.run("Count to a million").pipe(
    Effect.timeoutOrElse({
      duration: "1 second",
      orElse: () => Console.log("The turn took too long and was interrupted")
    })
  )

  const { turns } = yield* thread.read({ includeTurns: true })
  yield* Console.log(`The server reports the turn as ${turns[0]?.status}`)

  const { finalResponse } = yield* thread.run("Then just say hello")
  yield* Console.log(`The thread continues: ${finalResponse}`)
})

const model = layerCodex([hang([deltas(["1, 2, 3, "], { unfinished: true })]), text("Hello!")])

program.pipe(Effect.provide(model), NodeRuntime.runMain)
