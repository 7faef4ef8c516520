/**
 * A job of two turns that happen once. Its first process is stopped in the middle of a turn. The second one finishes the job, and runs no
 * turn again.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { hang, layerOptions, layerProcess, text } from "./support/codex.ts"

/** Runs the steps of the job on its thread. A step that has happened is found in the history of the thread. */
const job = Effect.fn("job")(function*(threadId: string) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.resumeThread(threadId, { sandbox: "read-only", approvalMode: "deny_all" })
  for (const [key, input] of [["plan", "Plan the refactoring."], ["review", "Review your plan."]] as const) {
    const { finalResponse, origin } = yield* thread.runOnce(key, input)
    yield* Console.log(`  ${key} (${origin}): ${finalResponse}`)
  }
})

/** Starts the thread of the job. A name stores it, so that another process can resume it. */
const start = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ sandbox: "read-only", approvalMode: "deny_all" })
  yield* thread.setName("job 42")
  return thread.id
})

/** Runs an effect on an app-server process of its own. */
const inProcess = Effect.provide(Layer.fresh(layerProcess))

const program = Effect.gen(function*() {
  const threadId = yield* start.pipe(inProcess)
  yield* Console.log("First process:")
  yield* job(threadId).pipe(Effect.timeoutOption("3 seconds"), inProcess)
  yield* Console.log("  stopped\n\nSecond process:")
  yield* job(threadId).pipe(inProcess)
  yield* Console.log("\nThird process:")
  yield* job(threadId).pipe(inProcess)
})

const model = layerOptions([text("Three steps."), hang(), text("The plan is good."), text("unused")])

program.pipe(Effect.provide(model), NodeRuntime.runMain)
