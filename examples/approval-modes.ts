/** Runs a command under two approval modes, and catches the conflict between bypass and a sandbox. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { type ApprovalMode, Codex, Sandbox } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { functionCall, layerScripted, reply, text } from "./support/codex.ts"

const tryToWrite = Effect.fn(function*(approvalMode: ApprovalMode.ApprovalMode) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ approvalMode })
  const { finalResponse } = yield* thread.run("Write to note.txt")
  yield* Console.log(`${approvalMode}: ${finalResponse}`)
})

const conflicting = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread()
  yield* thread.run("This is never sent", {
    approvalMode: "dangerously_bypass_approvals_and_sandbox",
    sandboxPolicy: Sandbox.readOnly()
  })
}).pipe(
  Effect.catchTag("SandboxConflictError", (conflict) => Console.log(`\nSandboxConflictError: ${conflict.message}`))
)

const program = Effect.gen(function*() {
  yield* tryToWrite("deny_all")
  // The scripted model writes one file in a temporary directory. A live model could run any command on your machine.
  yield* tryToWrite("dangerously_bypass_approvals_and_sandbox")
  yield* conflicting
})

const model = layerScripted((request) => {
  const output = request.functionCallOutput("write")
  if (output === undefined) {
    return reply([
      functionCall("exec_command", { cmd: "sleep 0.3; echo hi > note.txt && echo written", login: false }, {
        callId: "write"
      })
    ])
  }
  return text(output.includes("written") ? "The file was written." : "The sandbox did not let me write the file.")
}, "runs a command without a sandbox")

program.pipe(Effect.provide(model), NodeRuntime.runMain)
