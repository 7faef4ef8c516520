/**
 * Shows a turn at the terminal: commands with their output, the plan, a sub-agent, and the text as it arrives. With the
 * output in a pipe, it appends each item once it is complete.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Codex, TerminalView } from "effect-codex"
import * as Effect from "effect/Effect"
import { deltas, functionCall, layerCodex, reasoning, reply, text } from "./support/codex.ts"

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({
    approvalMode: "deny_all",
    sandbox: "read-only",
    config: { "tools.update_plan": { enabled: true } }
  })
  const turn = yield* thread.turn("Count the words of the greeting")
  yield* TerminalView.show(turn.view, { subAgents: turn.subAgents })
}).pipe(Effect.scoped)

const plan = (...statuses: ReadonlyArray<string>) =>
  functionCall(
    "update_plan",
    { plan: ["Read the greeting", "Ask an agent", "Report"].map((step, index) => ({ step, status: statuses[index] })) },
    { callId: `plan_${statuses.join("_")}` }
  )

const greeting = "for word in Hello 世界 👋 $(printf '\\033[32mgreen\\033[0m'); do echo \"$word\"; sleep 0.3; done"

const words = "The greeting has **four** words. One is green, and one is a hand. ".split(/(?<= )/)

/** The model first plans and runs a command, then delegates to a sub-agent and waits for it, and then reports. */
const model = layerCodex((request) => {
  if (request.lastUserText === "Count") return reply([deltas(["Four", " words."], { pace: "400 millis" })])
  const spawned = request.functionCallOutput("spawn")
  if (request.functionCallOutput("read") === undefined) {
    return reply([
      reasoning("The words of a greeting are in its output."),
      plan("in_progress", "pending", "pending"),
      functionCall("exec_command", { cmd: greeting, login: false }, { callId: "read" })
    ])
  }
  if (spawned === undefined) {
    return reply([
      plan("completed", "in_progress", "pending"),
      functionCall("spawn_agent", { message: "Count" }, { callId: "spawn", namespace: "multi_agent_v1" })
    ])
  }
  if (request.functionCallOutput("wait") === undefined) {
    const targets = [JSON.parse(spawned).agent_id]
    return reply([functionCall("wait_agent", { targets }, { callId: "wait", namespace: "multi_agent_v1" })])
  }
  if (request.functionCallOutput("plan_completed_completed_in_progress") === undefined) {
    return reply([plan("completed", "completed", "in_progress")])
  }
  return request.functionCallOutput("plan_completed_completed_completed") === undefined
    ? reply([deltas(words, { pace: "50 millis", phase: "commentary" }), plan("completed", "completed", "completed")])
    : text("Four.")
})

program.pipe(Effect.provide(model), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
