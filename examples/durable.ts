/**
 * A job of three turns that survives `kill -9` twice: its first worker is killed in the middle of a turn, its second one right after a turn.
 * The third one finishes the job. No turn runs twice.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { CodexOptions, hang, layerOptions, text } from "./support/codex.ts"

const worker = fileURLToPath(new URL("durable/worker.ts", import.meta.url))

/** Runs a worker. Kills it when it prints a text, if there is one. */
const runWorker = Effect.fn("runWorker")(function*(name: string, database: string, killAfter?: string, delay = 0) {
  const options = yield* CodexOptions
  const spawner = yield* ChildProcessSpawner
  yield* Console.log(`${name} worker`)
  const child = yield* spawner.spawn(ChildProcess.make(
    process.execPath,
    ["--conditions=@effect-codex/source", "--disable-warning=ExperimentalWarning", worker],
    {
      env: { DURABLE_DATABASE: database, DURABLE_CODEX: JSON.stringify(options) },
      extendEnv: true,
      stderr: "inherit"
    }
  ))
  yield* Stream.runForEach(Stream.splitLines(Stream.decodeText(child.stdout)), (line) =>
    Effect.andThen(
      Console.log(line),
      killAfter !== undefined && line.includes(killAfter)
        ? Effect.delay(Effect.ignore(child.kill({ killSignal: "SIGKILL" })), delay)
        : Effect.void
    ))
  yield* Console.log(killAfter === undefined ? "  done\n" : "  killed\n")
}, Effect.scoped)

const program = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const folder = yield* fs.makeTempDirectoryScoped()
  const database = `${folder}/job.sqlite`
  yield* runWorker("First", database, "work …", 1000)
  yield* runWorker("Second", database, "work (")
  yield* runWorker("Third", database)
}).pipe(Effect.scoped)

/** The model hangs in its first try of the second turn. */
let hasHung = false
const model = layerOptions(({ lastUserText = "" }) => {
  if (lastUserText.startsWith("Plan")) return text("Run them in parallel.")
  if (lastUserText.startsWith("Report")) return text("The tests run in parallel.")
  if (hasHung) return text("They run in parallel now.")
  hasHung = true
  return hang()
})

program.pipe(Effect.provide(model), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
