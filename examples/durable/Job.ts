/** A job of three turns as a workflow. */
import { CodexWorkflow } from "effect-codex/cluster"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Workflow from "effect/workflow/Workflow"

export const Job = Workflow.make("Job", {
  payload: { goal: Schema.String },
  success: Schema.UndefinedOr(Schema.String),
  error: CodexWorkflow.StepError,
  idempotencyKey: ({ goal }) => goal
})

export const layer = Job.toLayer(Effect.fnUntraced(function*({ goal }) {
  const thread = yield* CodexWorkflow.thread("job", { sandbox: "read-only", approvalMode: "deny_all" })
  const steps = { plan: `Plan: ${goal}.`, work: "Do what you have planned.", report: "Report in one sentence." }
  let last: string | undefined
  for (const [name, input] of Object.entries(steps)) {
    yield* Console.log(`  ${name} …`)
    const { finalResponse, origin } = yield* thread.turn(name, input)
    yield* Console.log(`  ${name} (${origin}): ${finalResponse}`)
    last = finalResponse
  }
  return last
}))
