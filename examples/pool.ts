/** Reviews eight folders on three app-servers. Only the layer differs from a program on one server. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex, CodexPool } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { layerOptions, layerProcess, text } from "./support/codex.ts"

const printMembers = Effect.gen(function*() {
  const { members } = yield* CodexPool.CodexPool
  const all = yield* members
  const states = all.map(({ member, state, threads }) => `${member}: ${state}, ${threads} open threads`)
  yield* Console.log(`Members\n  ${states.join("\n  ")}\n`)
})

const review = Effect.fn("review")(function*(folder: string) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ sandbox: "read-only", approvalMode: "deny_all" })
  if (folder === "docs") yield* printMembers
  const { finalResponse } = yield* thread.run(`Review the folder ${folder}.`).pipe(
    // A member leaves when all its threads are closed.
    Effect.ensuring(Effect.ignore(thread.close))
  )
  yield* Console.log(`${folder}: ${finalResponse}`)
})

const folders = ["api", "app", "auth", "billing", "core", "docs", "search", "web"]

const program = Effect.forEach(folders, review, { concurrency: 6, discard: true }).pipe(Effect.andThen(printMembers))

const pool = CodexPool.layer({ size: 3, codex: () => layerProcess })

const model = layerOptions(({ lastUserText = "" }) => text(lastUserText.replace("Review the folder", "I have read")))

program.pipe(Effect.provide(pool), Effect.provide(model), NodeRuntime.runMain)
