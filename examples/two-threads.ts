/** Two threads stream at the same time over one connection, and each turn receives only its own events. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { deltas, layerCodex, reply } from "./support/codex.ts"

const explain = Effect.fn(function*(subject: string) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ sandbox: "read-only" })
  const turn = yield* thread.turn(`Explain ${subject}`)
  yield* Stream.runForEach(turn.text, (text) => Console.log(`${subject.padEnd(8)} ${text}`))
  return (yield* turn.result).finalResponse
}, Effect.scoped)

const program = Effect.gen(function*() {
  const explanations = yield* Effect.all([explain("fibers"), explain("streams")], { concurrency: "unbounded" })
  yield* Console.log(`\n${explanations.join("\n")}`)
})

const model = layerCodex((request) => {
  const subject = request.lastUserText?.split(" ").at(-1) ?? "nothing"
  return reply([deltas([`${subject} `, "are ", "lightweight ", "and ", "safe."], { pace: "100 millis" })])
})

program.pipe(Effect.provide(model), NodeRuntime.runMain)
