/** `npm run checks`: runs the checks that need no test, two at a time, because most of them use one processor. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"

/** The slowest first. */
const checks = ["check:package", "check", "format:check", "check:words", "lint", "check:layers"]

/** Runs a check, and prints its output when it has ended. Returns whether it succeeded. */
const runCheck = Effect.fnUntraced(function*(name: string) {
  const spawner = yield* ChildProcessSpawner
  const child = yield* spawner.spawn(ChildProcess.make("npm", ["run", "--silent", name]))
  const output = yield* Stream.mkString(Stream.decodeText(child.all))
  const isGreen = (yield* child.exitCode) === 0
  yield* Console.log(`${isGreen ? "passed" : "FAILED"}: npm run ${name}${output === "" ? "" : `\n${output.trimEnd()}`}`)
  return isGreen
}, Effect.scoped)

const program = Effect.gen(function*() {
  const results = yield* Effect.forEach(checks, runCheck, { concurrency: 2 })
  if (results.includes(false)) process.exitCode = 1
})

program.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
