/**
 * `npm run check:package`: builds and packs the package as npm publishes it. Checks its entry points with publint and attw, its modules against
 * the sources, and its declarations.
 */
import { checkPackage, createPackageFromTarballData } from "@arethetypeswrong/core"
import { filterProblems } from "@arethetypeswrong/core/problems"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { fileURLToPath } from "node:url"
import { publint } from "publint"
import { formatMessage } from "publint/utils"
import { report } from "./report.ts"
import { readFiles } from "./source.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

const pack = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
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

/** The folders of the public modules. */
const folders = ["", "ai", "cluster", "testing"]

/** Checks that each built module has the exports of its source. */
const checkExports = Effect.gen(function*() {
  const path = yield* Path.Path
  const sources = yield* readFiles(["src"], (file) => file.endsWith(".ts") && !file.startsWith("src/internal/"))
  const namesOf = (exports: object) => Object.keys(exports).toSorted().join()
  const problems = yield* Effect.forEach([...sources.keys()], (file) =>
    Effect.promise(async () => {
      const source = await import(path.join(root, file))
      const built = await import(path.join(root, file.replace(/^src\/(.*)\.ts$/, "dist/$1.js")))
      const modules = file === "src/index.ts" ? Object.keys(source) : []
      return [
        ...namesOf(built) === namesOf(source) ? [] : [file],
        ...modules.filter((name) => namesOf(built[name]) !== namesOf(source[name])).map((name) => `${file}, ${name}`)
      ].map((module) => `${module}: the built module has other exports than the source`)
    }))
  return problems.flat()
})

/** Checks that the declarations compile alone, and show nothing internal. */
const checkDeclarations = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
  const config = path.join(root, "dist/tsconfig.json")
  const include = folders.map((folder) => path.join(folder, "*.d.ts"))
  const compilerOptions = { noEmit: true, skipLibCheck: false, lib: ["ES2024", "DOM"], types: ["node"] }
  yield* fs.writeFileString(config, JSON.stringify({ extends: "../tsconfig.base.json", include, compilerOptions }))
  const output = yield* spawner.string(ChildProcess.make("npx", ["tsc", "-p", config], { cwd: root }))
  const turn = yield* fs.readFileString(path.join(root, "dist/Turn.d.ts"))
  return [
    ...output.split("\n").filter((line) => line.startsWith("dist/")),
    ...(turn.match(/TurnState|TurnHandle|TypeId/g) ?? []).map((name) => `dist/Turn.d.ts shows the internal \`${name}\``)
  ]
})

/** Checks that the root loads no unstable module of Effect. */
const checkImports = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const names = yield* fs.readDirectory(path.join(root, "dist/internal"))
  const chunks = names.filter((name) => /^effect-codex.*\.js$/.test(name)).map((name) => `internal/${name}`)
  const problems = yield* Effect.forEach(
    ["index.js", ...chunks],
    (chunk) =>
      Effect.map(
        fs.readFileString(path.join(root, "dist", chunk)),
        (code) =>
          (code.match(/from "effect\/(?:ai|cluster|workflow|persistence|sql)\b[^"]*"/g) ?? [])
            .map((found) => `dist/${chunk} imports ${found.slice(5)}`)
      )
  )
  return problems.flat()
})

const program = Effect.gen(function*() {
  const tarball = yield* pack
  const checks = [checkWithPublint(tarball), checkWithAttw(tarball), checkExports, checkDeclarations, checkImports]
  return yield* report((yield* Effect.all(checks)).flat())
})

program.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
