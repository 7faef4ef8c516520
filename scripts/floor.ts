/**
 * Runs the test suite with the oldest supported server and compares the failing tests with the table in `test/floor.ts`. npm
 * downloads the server on the first run.
 *
 *     node scripts/floor.ts [arguments of vitest]
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import { floor } from "../src/internal/connection/serverVersion.ts"
import { differences } from "../test/floor.ts"

const Report = Schema.fromJsonString(Schema.Struct({
  testResults: Schema.Array(Schema.Struct({
    name: Schema.String,
    message: Schema.String,
    assertionResults: Schema.Array(Schema.Struct({ fullName: Schema.String, status: Schema.String }))
  }))
}))

const program = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
  const root = path.join(import.meta.dirname, "..")
  // Git ignores this folder, and `npm ci` removes it.
  const cache = path.join(root, "node_modules", ".cache", "effect-codex", `codex-${floor}`)
  const run = (command: string, args: ReadonlyArray<string>, cwd: string, env: Record<string, string> = {}) =>
    spawner.exitCode(
      ChildProcess.make(command, args, {
        cwd,
        env,
        extendEnv: true,
        stdin: "inherit",
        stdout: "inherit",
        stderr: "inherit"
      })
    )

  const packages = path.join(cache, "node_modules", "@openai")
  if (!(yield* fs.exists(path.join(packages, "codex")))) {
    yield* fs.makeDirectory(cache, { recursive: true })
    yield* fs.writeFileString(path.join(cache, "package.json"), JSON.stringify({ private: true }))
    yield* run("npm", ["install", "--no-audit", "--no-fund", `@openai/codex@${floor}`], cache)
  }
  // npm installs only the package of this platform.
  const name = (yield* fs.readDirectory(packages)).find((name) => name.startsWith("codex-"))
  const vendor = path.join(packages, name ?? "", "vendor")
  const [target] = name === undefined ? [] : yield* fs.readDirectory(vendor)
  if (target === undefined) {
    return yield* Effect.die(new Error(`Codex ${floor} has no binary for this platform in ${cache}`))
  }
  const binary = path.join(vendor, target, "bin", process.platform === "win32" ? "codex.exe" : "codex")

  const output = path.join(yield* fs.makeTempDirectoryScoped(), "report.json")
  const vitest = path.join(root, "node_modules", "vitest", "vitest.mjs")
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${output}`]
  yield* run(process.execPath, [vitest, "run", ...reporters, ...process.argv.slice(2)], root, {
    CODEX_TEST_PATH: binary,
    CODEX_TEST_VERSION: floor
  })

  const { testResults } = yield* Effect.flatMap(fs.readFileString(output), Schema.decodeEffect(Report))
  const tests = testResults.flatMap(({ assertionResults, name }) =>
    assertionResults.map((test) => ({ ...test, name: `${path.relative(root, name)}: ${test.fullName}` }))
  )
  const ran = new Set(tests.filter(({ status }) => status === "passed" || status === "failed").map(({ name }) => name))
  const failed = new Set(tests.filter(({ status }) => status === "failed").map(({ name }) => name))
  const broken = testResults.filter(({ assertionResults, message }) => assertionResults.length === 0 && message !== "")
  const unexpected = [
    ...broken.map(({ message, name }) => `${path.relative(root, name)} cannot run: ${message}`),
    ...[...failed].filter((name) => !Object.hasOwn(differences, name)).map((name) => `fails: ${name}`),
    ...Object.keys(differences).filter((name) => !ran.has(name) && process.argv.length === 2).map((name) =>
      `is in test/floor.ts, but did not run: ${name}`
    )
  ]
  yield* Console.log(`\nCodex ${floor}: ${ran.size - failed.size} of ${ran.size} tests pass`)
  for (const name of failed) {
    if (Object.hasOwn(differences, name)) yield* Console.log(`- expected to fail: ${name}\n  ${differences[name]}`)
  }
  // Not a failure: some of these tests depend on the speed of the machine.
  for (const name of Object.keys(differences)) {
    if (ran.has(name) && !failed.has(name)) yield* Console.log(`- passes, though it is in test/floor.ts: ${name}`)
  }
  for (const line of unexpected) yield* Console.error(`- ${line}`)
  if (unexpected.length > 0) process.exitCode = 1
})

program.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
