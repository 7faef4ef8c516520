/** `npm run check:package`: packs the package as npm publishes it, and checks its entry points with publint and attw. */
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core"
import { filterProblems } from "@arethetypeswrong/core/problems"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import { report } from "./report.ts"
import { readFiles } from "./source.ts"

const pack = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
  const root = path.join(import.meta.dirname, "..", "..")
  const folder = yield* fs.makeTempDirectoryScoped()
  const args = ["pack", "--silent", "--pack-destination", folder]
  const output = yield* spawner.string(ChildProcess.make("npm", args, { cwd: root, stderr: "inherit" }))
  const [name] = yield* fs.readDirectory(folder)
  if (name === undefined) return yield* Effect.die(new Error(`\`npm pack\` failed. Its output:\n${output}`))
  return yield* fs.readFile(path.join(folder, name))
})

const checkWithPublint = Effect.fnUntraced(function*(tarball: Uint8Array) {
  const { messages, pkg } = yield* Effect.promise(() =>
    publint({ pack: { tarball: new Uint8Array(tarball).buffer }, strict: true })
  )
  return messages.map((message) => `publint: ${formatMessage(message, pkg, { color: false })}`)
})

/** The resolution modes that support an ESM-only package. */
const resolutions = ["node16-esm", "bundler"] as const

const checkWithAttw = Effect.fnUntraced(function*(tarball: Uint8Array) {
  // attw does not expand the pattern in `exports`.
  const sources = yield* readFiles(["src"], (file) => file.endsWith(".ts") && !file.startsWith("src/internal/"))
  const modules = [...sources.keys()].map((file) => file.replace(/^src\/(.*)\.ts$/, "./$1"))
  const entrypoints = modules.map((module) => module === "./index" ? "." : module)
  const result = yield* Effect.promise(() => checkPackage(createPackageFromTarballData(tarball), { entrypoints }))
  if (result.types === false) return ["attw: the package has no types"]
  const problems = resolutions.flatMap((resolutionKind) => filterProblems(result, { resolutionKind }))
  return [...new Set(problems)].map((problem) => `attw: ${JSON.stringify(problem)}`)
})

const program = Effect.gen(function*() {
  const tarball = yield* pack
  const [publintProblems, attwProblems] = yield* Effect.all([checkWithPublint(tarball), checkWithAttw(tarball)])
  return yield* report([...publintProblems, ...attwProblems])
})

program.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
