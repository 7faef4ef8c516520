import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import manifest from "../package.json" with { type: "json" }
import { packageVersion } from "../src/internal/version.ts"
import { makeFolder, root } from "./repository.ts"

/** Runs a script of the repository, and returns its output. */
const runScript = Effect.fnUntraced(function*(script: string, ...args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner
  const path = yield* Path.Path
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, [path.join(root, script), ...args], { cwd: root })
  )
  return yield* Stream.mkString(Stream.decodeText(child.all))
})

describe("Package", () => {
  it("exports the version of package.json", () => {
    assert.strictEqual(packageVersion, manifest.version)
  })

  it.live(
    "builds modules with the exports of the source, and declarations that compile alone",
    () =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const path = yield* Path.Path
        const folder = yield* makeFolder
        const dist = path.join(folder, "dist")
        assert.strictEqual(yield* runScript("scripts/build.ts", dist), "")
        const modules = yield* Effect.forEach(
          ["", "ai", "cluster", "testing"],
          (sub) =>
            Effect.map(
              fs.readDirectory(path.join(root, "src", sub)),
              (names) => names.filter((name) => name.endsWith(".ts")).map((name) => path.join(sub, name.slice(0, -3)))
            )
        )
        for (const module of modules.flat()) {
          const [built, source] = yield* Effect.promise(() =>
            Promise.all([import(path.join(dist, `${module}.js`)), import(path.join(root, "src", `${module}.ts`))])
          )
          assert.deepStrictEqual(Object.keys(built).toSorted(), Object.keys(source).toSorted(), module)
          if (module !== "index") continue
          for (const name of Object.keys(source)) {
            assert.deepStrictEqual(Object.keys(built[name]).toSorted(), Object.keys(source[name]).toSorted(), name)
          }
        }
        yield* fs.writeFileString(
          path.join(folder, "tsconfig.json"),
          JSON.stringify({
            extends: "../tsconfig.base.json",
            include: ["dist/*.d.ts", "dist/ai/*.d.ts", "dist/cluster/*.d.ts", "dist/testing/*.d.ts"],
            compilerOptions: { noEmit: true, skipLibCheck: false, lib: ["ES2024", "DOM"], types: ["node"] }
          })
        )
        const errors = yield* runScript("node_modules/typescript/bin/tsc", "-p", folder)
        assert.deepStrictEqual(errors.split("\n").filter((line) => line.startsWith(path.basename(folder))), [])
        const turn = yield* fs.readFileString(path.join(folder, "dist/Turn.d.ts"))
        assert.notMatch(turn, /TurnState|TurnHandle|TypeId/)
        const chunks = yield* fs.readDirectory(path.join(dist, "internal"))
        for (
          const chunk of [
            "index.js",
            ...chunks.filter((name) => /^effect-codex.*\.js$/.test(name)).map((name) => `internal/${name}`)
          ]
        ) {
          assert.notMatch(
            yield* fs.readFileString(path.join(dist, chunk)),
            /from "effect\/(?:ai|cluster|workflow|persistence)/,
            chunk
          )
        }
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)),
    120_000
  )
})
