/**
 * A person at the terminal decides about each command: yes, always, no, or cancel the turn. Read-only commands are accepted
 * without a question.
 *
 * To respond without a terminal: `printf 'a\nn\n' | npm run -s example approve`.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { ApprovalPolicy, Approvals, Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { functionCall, layerCodex, text } from "./support/codex.ts"

const approvals = Approvals.layer(
  ApprovalPolicy.firstOf(
    ApprovalPolicy.readOnlyCommands,
    ApprovalPolicy.timeout(ApprovalPolicy.askTerminal, "5 minutes")
  )
)

const report = Stream.runForEach(
  Approvals.audit,
  (entry) =>
    entry._tag === "Decided" && entry.request._tag === "Command"
      ? Console.log(`  → ${entry.decision}: ${entry.request.script ?? entry.request.command}`)
      : Effect.void
)

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  yield* Effect.forkScoped(report)
  const thread = yield* codex.startThread({ approvalPolicy: "on-request", approvalsReviewer: "user" })
  const { finalResponse, items, status } = yield* thread.run("Write a note, then delete it")

  yield* Console.log("")
  for (const item of items) {
    if (item.type === "commandExecution") yield* Console.log(`${item.status}: ${item.command}`)
  }
  yield* Console.log(`The turn is ${status}. ${finalResponse ?? ""}`)
}).pipe(Effect.scoped)

/** The model runs these in order, outside its sandbox. After "always" Codex does not ask about the second `touch`. */
const commands = ["ls", "touch note.txt", "touch note.txt", "rm -f note.txt"]

const model = layerCodex((request) => {
  const next = commands.findIndex((_, index) => request.functionCallOutput(`command_${index}`) === undefined)
  return next === -1 ? text("That is all.") : functionCall(
    "exec_command",
    {
      cmd: commands[next],
      login: false,
      sandbox_permissions: "require_escalated",
      justification: "The command works on the note"
    },
    { callId: `command_${next}` }
  )
})

program.pipe(
  Effect.provide(approvals),
  Effect.provide(model),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
