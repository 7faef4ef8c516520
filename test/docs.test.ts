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
import { findExamples, makeFolder, root } from "./repository.ts"

/** Finds the files of a directory of the repository, by their paths in the repository. */
const findFiles = Effect.fnUntraced(function*(directory: string, extension: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const files = yield* fs.readDirectory(path.join(root, directory))
  return files.filter((file) => file.endsWith(extension)).map((file) => path.join(directory, file))
})

/** The Markdown pages for users and contributors. */
const pages = Effect.map(findFiles("docs", ".md"), (docs) => ["README.md", "AGENTS.md", "examples/README.md", ...docs])

/** Returns the anchors that GitHub generates for the headings of a page. */
const findAnchors = (text: string): ReadonlySet<string> =>
  new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading!.toLowerCase().replace(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-")
    )
  )

describe("Pages of the docs", () => {
  it.effect("link to existing files and headings", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const broken: Array<string> = []
      let count = 0
      for (const page of yield* pages) {
        const text = yield* fs.readFileString(path.join(root, page))
        for (const [, link] of text.matchAll(/\]\((?!https?:)([^)\s]+)\)/g)) {
          count++
          const [target, anchor] = link!.split("#", 2) as [string, string?]
          const file = target === "" ? page : path.join(path.dirname(page), target)
          const exists = yield* fs.exists(path.join(root, file))
          if (
            !exists ||
            anchor !== undefined && !findAnchors(yield* fs.readFileString(path.join(root, file))).has(anchor)
          ) {
            broken.push(`${page}: ${link}`)
          }
        }
      }
      assert.deepStrictEqual(broken, [])
      assert.isAbove(count, 50)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("are linked from the README and from the index", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const readme = yield* fs.readFileString(path.join(root, "README.md"))
      const index = yield* fs.readFileString(path.join(root, "docs/README.md"))
      for (const page of yield* findFiles("docs", ".md")) {
        if (page === "docs/README.md") continue
        assert.include(readme, `](${page})`)
        assert.include(index, `](${path.basename(page)})`)
      }
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("Guide for contributors", () => {
  it.effect("names files that exist", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const guide = yield* fs.readFileString(path.join(root, "AGENTS.md"))
      const named = [...guide.matchAll(/`((?:src|test|docs|internal|testing)\/[\w/.-]*)`/g)].map(([, file]) => file!)
      assert.isAbove(named.length, 20)
      for (const file of named) {
        const folder = /^(?:internal|testing)\//.test(file) ? "src" : "."
        assert.isTrue(yield* fs.exists(path.join(root, folder, file)), file)
      }
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("Page on reliability", () => {
  it.effect("names tests that exist", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const page = yield* fs.readFileString(path.join(root, "docs/reliability.md"))
      const tests = yield* fs.readDirectory(path.join(root, "test"), { recursive: true })
      const modules = tests.map((file) => `/${file}`.replace(/\.(?:test|faults)\.ts$/, ""))
      const column = page.split("\n").flatMap((line) => line.match(/^\|.*?[^|]\|.*?[^|]\|([^|]*)\|/)?.[1] ?? [])
      const named = column.flatMap((cell) => [...cell.matchAll(/`([\w/]+)`/g)].map(([, name]) => name!))
      assert.isAbove(named.length, 50)
      assert.deepStrictEqual(named.filter((name) => !modules.some((module) => module.endsWith(`/${name}`))), [])
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("Testing guide", () => {
  it.effect("shows the exact files of test/guide", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const guide = yield* fs.readFileString(path.join(root, "docs/testing.md"))
      const shown = new Map(
        findExamples(guide).flatMap((code) => {
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

describe("Examples in the docs", () => {
  it.live("compile", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const spawner = yield* ChildProcessSpawner
      const folder = yield* makeFolder
      const sources = [
        // `test/guide` contains the programs of the testing guide.
        ...(yield* pages).filter((page) => page !== "docs/testing.md"),
        ...(yield* findFiles("src", ".ts")),
        ...(yield* findFiles("src/testing", ".ts"))
      ]
      let count = 0
      for (const source of sources) {
        const examples = findExamples(yield* fs.readFileString(path.join(root, source)))
        for (const [index, code] of examples.entries()) {
          count++
          yield* fs.writeFileString(path.join(folder, `${source.replaceAll("/", "-")}-${index + 1}.ts`), code)
        }
      }
      assert.isAbove(count, 40)
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

      // A program with the transport in memory runs.
      const memory = (yield* fs.readDirectory(folder)).find((file) =>
        readFileSync(path.join(folder, file), "utf8").includes("export const layerTest")
      )
      const { layerTest }: { readonly layerTest: Layer.Layer<Codex.Codex> } = yield* Effect.promise(() =>
        import(path.join(folder, memory!))
      )
      const models = Effect.flatMap(Codex.Codex, (codex) => Stream.runCollect(codex.models()))
      assert.deepStrictEqual(yield* Effect.provide(models, layerTest), [])
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 60_000)
})
