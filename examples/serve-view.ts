/**
 * Shows a thread on a web page: a server on this machine sends views to the page over `effect/rpc`. Open the address that it
 * prints, and end it with Ctrl-C.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Server from "./serve-view/server.ts"
import { deltas, functionCall, layerCodex, reasoning, reply } from "./support/codex.ts"

const answer = "The note is there. Ask again for another turn, or press Stop while this text arrives. ".repeat(5)

/** In each turn: a plan, a command that waits for a decision, and a message. */
const model = layerCodex((request) => {
  const turn = request.userTexts.length
  if (request.functionCallOutput(`plan_${turn}`) === undefined) {
    const plan = [{ step: "Write a note", status: "in_progress" }, { step: "Report", status: "pending" }]
    return reply([
      reasoning("A note is a file, so this needs a command."),
      functionCall("update_plan", { plan }, { callId: `plan_${turn}` })
    ])
  }
  if (request.functionCallOutput(`command_${turn}`) === undefined) {
    const command = {
      cmd: "for line in one two three; do echo $line | tee -a note.txt; sleep 0.3; done",
      login: false,
      sandbox_permissions: "require_escalated",
      justification: "The command writes the note"
    }
    return reply([functionCall("exec_command", command, { callId: `command_${turn}` })])
  }
  return reply([deltas(answer.split(/(?<= )/), { pace: "50 millis", phase: "final_answer" })])
})

const announce = Layer.effectDiscard(
  Effect.flatMap(Server.PageAddress, (address) => Console.log(`Open ${address}\nEnd with Ctrl-C.`))
)

Layer.launch(announce).pipe(
  Effect.provide(Server.layer),
  Effect.provide(model),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
