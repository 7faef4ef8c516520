/** Runs turns whose final response is a value of an Effect Schema: while it arrives, decoded, and after a repair. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { deltas, layerCodex, object, reply, text } from "./support/codex.ts"

const Finding = Schema.Struct({
  file: Schema.String,
  line: Schema.Int.annotate({ description: "the first line, counted from 1" }),
  severity: Schema.Literals(["minor", "major"])
})

const Review = Schema.Struct({
  summary: Schema.String,
  findings: Schema.Array(Finding)
})

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ sandbox: "read-only" })

  // The review while it arrives. A field that has not arrived is missing.
  const turn = yield* thread.turn("Review the last commit.", { output: Review })
  yield* turn.partialOutput.pipe(
    Stream.map(({ findings = [], summary = "" }) => `${summary.length} characters, ${findings.length} findings`),
    Stream.changes,
    Stream.runForEach(Console.log)
  )

  // The decoded review.
  const { findings, summary } = yield* turn.output
  yield* Console.log(`\n${summary}`)
  yield* Effect.forEach(findings, ({ file, line, severity }) => Console.log(`  ${severity}: ${file}:${line}`))

  // A schema need not be a struct. The scripted model makes a mistake, and corrects it in a repair.
  const { output, usage } = yield* thread.run("When was the file last changed?", { output: Schema.Date, repairs: 2 })
  yield* Console.log(`\nLast changed in ${output.getFullYear()}, found out with ${usage?.turn.totalTokens} tokens`)
}).pipe(
  Effect.scoped,
  Effect.catchTag("OutputInvalid", ({ attempts, issue }) => Console.error(`After ${attempts} attempts:\n${issue}`))
)

const model = layerCodex([
  reply([
    deltas(["I read the commit first."], { phase: "commentary" }),
    object(Review, {
      summary: "The change is sound, with one exception.",
      findings: [
        { file: "src/main.ts", line: 12, severity: "major" },
        { file: "src/util.ts", line: 3, severity: "minor" }
      ]
    }, { pace: "30 millis" })
  ]),
  text("Some time in November, I believe."),
  object(Schema.Date, new Date("2026-11-01"))
])

program.pipe(Effect.provide(model), NodeRuntime.runMain)
