/** Runs the examples with the scripted model, and with `CODEX_LIVE=1` on a home that stands for the user's home. */
import { assert, layer } from "@effect/vitest"
import { CodexEnvironment, ModelServer, TestCodex } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { readdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { isThorough } from "./thorough.ts"

const folder = fileURLToPath(new URL("../examples/", import.meta.url))
/** The example that serves a page until Ctrl-C. `serveView.test.ts` runs it. */
const servers: ReadonlySet<string> = new Set(["serve-view"])
/** The examples that `npm test` does not run, because each takes seconds, and tests of their own cover what they show. */
const thorough: ReadonlySet<string> = new Set([
  "approve",
  "budget",
  "chat",
  "durable",
  "interrupt",
  "language-model",
  "mcp-server",
  "pool",
  "questions",
  "resume",
  "run-once",
  "stream-events",
  "tools",
  "two-threads",
  "typed-output",
  "view"
])
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -".ts".length))
  .filter((name) => !servers.has(name) && (isThorough || !thorough.has(name)))

/** The examples that refuse to run live, with their reason. */
const scriptedOnly: Readonly<Record<string, string>> = {
  "approval-modes": "runs a command without a sandbox",
  budget: "has the prices of the scripted model"
}

/** Runs an example in an empty directory, and returns its exit code, its output and the files that it wrote. */
const runExample = Effect.fnUntraced(function*(name: string, env: Readonly<Record<string, string | undefined>>) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
  const cwd = yield* fs.makeTempDirectoryScoped()
  const child = yield* spawner.spawn(
    ChildProcess.make(
      process.execPath,
      ["--conditions=@effect-codex/source", path.join(folder, `${name}.ts`)],
      // Input for the terminal. An example without questions does not read it.
      { cwd, env, extendEnv: true, stdin: Stream.make(new TextEncoder().encode("1\n1\n1\n1\n")) }
    )
  )
  const output = yield* Stream.mkString(Stream.decodeText(child.all))
  return { exitCode: yield* child.exitCode, output, files: yield* fs.readDirectory(cwd) }
}, Effect.scoped)

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Examples", (it) => {
  for (const name of names) {
    it.effect(`run ${name} with the scripted model`, () =>
      Effect.gen(function*() {
        const { exitCode, files, output } = yield* runExample(name, { CODEX_LIVE: undefined })
        assert.strictEqual(exitCode, 0, output)
        assert.include(output, "Model: scripted")
        assert.deepStrictEqual(files, [])
      }))
  }
})

layer(
  TestCodex.layerEnvironment({ config: { model: "users-model", sandbox_mode: "workspace-write" } }),
  { excludeTestServices: true }
)("Examples with CODEX_LIVE=1", (it) => {
  // The other examples behave as these do. `npm run test:faults` runs all.
  const live = isThorough ? names : ["approval-modes", "quickstart"]
  for (const name of live) {
    it.effect(`run ${name} with the user's model, or fail`, () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const { codexHome, env } = yield* CodexEnvironment.CodexEnvironment
        const fs = yield* FileSystem.FileSystem
        const before = (yield* model.requests).length
        const config = yield* fs.readFileString(`${codexHome}/config.toml`)
        yield* model.respond((request) => {
          // The server would write this file in its working directory.
          const isFirst = request.functionCallOutput("probe") === undefined
          return isFirst
            ? ModelServer.functionCall("exec_command", { cmd: "touch written-by-codex", login: false }, {
              callId: "probe"
            })
            : ModelServer.text("done")
        })
        const { exitCode, files, output } = yield* runExample(name, { ...env, CODEX_LIVE: "1" })
        const requests = (yield* model.requests).slice(before)
        assert.deepStrictEqual(files, [])
        assert.strictEqual(yield* fs.readFileString(`${codexHome}/config.toml`), config)
        const reason = scriptedOnly[name]
        if (reason !== undefined) {
          assert.strictEqual(exitCode, 1)
          assert.lengthOf(requests, 0)
          assert.include(output, `${reason}, so it runs with the scripted model only. Run it without CODEX_LIVE`)
          assert.notInclude(output, "    at ")
          return
        }
        assert.strictEqual(exitCode, 0, output)
        assert.include(output, "Model: live")
        assert.isAbove(requests.length, 0)
        for (const { body } of requests) {
          assert.strictEqual(body["model"], "users-model")
          assert.notInclude(JSON.stringify(body), "danger-full-access")
        }
      }))
  }
})
