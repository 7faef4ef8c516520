import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Codex } from "effect-codex"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("..", import.meta.url))

/** The TypeScript examples of a Markdown file, or of the doc comments of a module. */
const examplesOf = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^[ *]*```ts\n([\s\S]*?)^[ *]*```$/gm)].map(([, code]) => code!.replace(/^ \* ?/gm, ""))

describe("the testing guide", () => {
  it.effect("shows the tests that are run here, to the letter", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const guide = yield* fs.readFileString(path.join(root, "docs/testing.md"))
      const shown = new Map(
        examplesOf(guide).flatMap((code) => {
          const [, name] = /^\/\/ (\S+)\n/.exec(code) ?? []
          return name === undefined ? [] : [[name, code.slice(code.indexOf("\n") + 1)] as const]
        })
      )
      const files = (yield* fs.readDirectory(path.join(root, "test/guide"))).filter((file) => file.endsWith(".ts"))
      assert.sameMembers([...shown.keys()], files)
      for (const [name, code] of shown) {
        assert.strictEqual(code, yield* fs.readFileString(path.join(root, "test/guide", name)))
      }
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("the examples in the docs", () => {
  it.live("compile", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const spawner = yield* ChildProcessSpawner
      // Within the package, so that `effect-codex` means its sources.
      const folder = yield* fs.makeTempDirectoryScoped({ directory: root, prefix: ".docs-" })
      const modulesIn = (directory: string) =>
        Effect.map(
          fs.readDirectory(path.join(root, directory)),
          (files) => files.filter((file) => file.endsWith(".ts")).map((file) => path.join(directory, file))
        )
      const sources = [
        "README.md",
        "docs/questions.md",
        ...(yield* modulesIn("src")),
        ...(yield* modulesIn("src/testing"))
      ]
      let count = 0
      for (const source of sources) {
        const examples = examplesOf(yield* fs.readFileString(path.join(root, source)))
        for (const [index, code] of examples.entries()) {
          count++
          yield* fs.writeFileString(path.join(folder, `${path.basename(source)}-${index + 1}.ts`), code)
        }
      }
      assert.isAbove(count, 6)
      yield* fs.writeFileString(
        path.join(folder, "tsconfig.json"),
        JSON.stringify({
          extends: "../tsconfig.json",
          include: ["*.ts"],
          compilerOptions: { noUnusedLocals: false, noUnusedParameters: false }
        })
      )
      const tsc = yield* spawner.spawn(
        ChildProcess.make(process.execPath, [path.join(root, "node_modules/typescript/bin/tsc"), "-p", folder])
      )
      const errors = yield* Stream.mkString(Stream.decodeText(tsc.all))
      assert.strictEqual(errors, "")
      assert.strictEqual(yield* tsc.exitCode, 0)

      // The transport in memory, which a reader would copy into a test, works.
      const memory = (yield* fs.readDirectory(folder)).find((file) =>
        readFileSync(path.join(folder, file), "utf8").includes("export const layerTest")
      )
      const { layerTest }: { readonly layerTest: Layer.Layer<Codex.Codex> } = yield* Effect.promise(() =>
        import(path.join(folder, memory!))
      )
      const models = Effect.flatMap(Codex.Codex, (codex) => Stream.runCollect(codex.models()))
      assert.deepStrictEqual(yield* Effect.provide(models, layerTest), [])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
})
