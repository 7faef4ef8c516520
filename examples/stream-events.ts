/** Prints the events of a turn as the protocol sends them: reasoning, a command with its output, text, usage. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex, type Turn } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { deltas, functionCall, layerCodex, reasoning, reply } from "./support/codex.ts"

const show = (event: Turn.TurnEvent): string | undefined => {
  switch (event.method) {
    case "turn/started":
      return `turn ${event.params.turn.id} has started`
    case "item/reasoning/summaryTextDelta":
      return `  thinking: ${event.params.delta}`
    case "item/started":
      return event.params.item.type === "commandExecution" ? `  runs: ${event.params.item.command}` : undefined
    case "item/agentMessage/delta":
      return `  says: ${event.params.delta}`
    case "item/completed": {
      const { item } = event.params
      return item.type === "commandExecution"
        ? `  exit code ${item.exitCode}: ${item.aggregatedOutput?.trim()}`
        : undefined
    }
    case "turn/completed":
      return `turn ${event.params.turn.status}`
    default:
      return undefined
  }
}

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ approvalMode: "deny_all", sandbox: "read-only" })
  const turn = yield* thread.turn("Which shell commands do you need to greet me?")
  yield* turn.events.pipe(
    Stream.map(show),
    Stream.filter((line) => line !== undefined),
    Stream.runForEach(Console.log)
  )
  const { usage } = yield* turn.result
  yield* Console.log(`${usage?.turn.totalTokens} tokens`)
}).pipe(Effect.scoped)

const model = layerCodex([
  reply([
    reasoning("A greeting needs echo."),
    functionCall("exec_command", { cmd: "sleep 0.5; echo hello", login: false })
  ]),
  reply([deltas(["Just ", "one: ", "echo."])])
])

program.pipe(Effect.provide(model), NodeRuntime.runMain)
