/** The worker of the example `durable`, which is killed twice. */
import { assert, it } from "@effect/vitest"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import * as TestCodex from "../TestCodex.ts"

const script = fileURLToPath(new URL("../../examples/durable/worker.ts", import.meta.url))

const startWorker = Effect.fnUntraced(function*(database: string) {
  const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
  const spawner = yield* ChildProcessSpawner
  return yield* spawner.spawn(ChildProcess.make(
    process.execPath,
    ["--conditions=@effect-codex/source", "--disable-warning=ExperimentalWarning", script],
    {
      env: { DURABLE_DATABASE: database, DURABLE_CODEX: JSON.stringify({ cwd: workspace, env }) },
      extendEnv: true,
      killSignal: "SIGKILL"
    }
  ))
})

/** Runs a worker until it prints a line with a text, and kills it. Returns its output. */
const runUntil = Effect.fnUntraced(function*(database: string, text: string) {
  const worker = yield* startWorker(database)
  return yield* worker.all.pipe(
    Stream.decodeText,
    Stream.splitLines,
    Stream.takeUntil((line) => line.includes(text)),
    Stream.runCollect
  )
}, Effect.scoped)

it.live(
  "A workflow finishes after SIGKILL within a turn and after a turn, and runs no turn again",
  () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const model = yield* ModelServer.ModelServer
      const database = `${yield* fs.makeTempDirectoryScoped()}/job.sqlite`
      const isWorking = yield* Deferred.make<void>()
      yield* model.respond(({ lastUserText = "" }) =>
        lastUserText.startsWith("Do what")
          ? Effect.as(Deferred.succeed(isWorking, undefined), ModelServer.hang())
          : ModelServer.text(`re: ${lastUserText}`)
      )
      yield* Effect.scoped(Effect.andThen(startWorker(database), Deferred.await(isWorking)))
      yield* model.respond(({ lastUserText = "" }) => ModelServer.text(`re: ${lastUserText.slice(0, 20)}`))
      const second = yield* runUntil(database, "work (")
      assert.include(second.at(-1), "work (continued): re: You were interrupted")
      const third = yield* runUntil(database, "report (")
      assert.include(third.join("\n"), "work (continued)")
      assert.include(third.at(-1), "report (sent): re: Report in one")

      const requests = yield* model.requests
      assert.deepStrictEqual(requests.map(({ lastUserText }) => lastUserText?.slice(0, 8)), [
        "Plan: ma",
        "Do what ",
        "You were",
        "Report i"
      ])
      const { userTexts } = requests.at(-1)!
      for (const input of ["Plan: ", "Do what ", "You were ", "Report "]) {
        assert.lengthOf(userTexts.filter((text) => text.startsWith(input)), 1, input)
      }
    }).pipe(Effect.scoped, Effect.provide(TestCodex.layerEnvironment())),
  60_000
)
