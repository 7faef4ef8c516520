import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"
import { codexBinary, findBinary } from "../../../src/internal/stdio/codexBinary.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const nativeName = `codex-${process.platform}-${process.arch}`

/** A directory to install packages in. None of its ancestors has `node_modules`. */
const project = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const folder = yield* fs.realPath(yield* fs.makeTempDirectoryScoped())
  const write = Effect.fnUntraced(function*(file: string, text: string) {
    yield* fs.makeDirectory(path.dirname(path.join(folder, file)), { recursive: true })
    yield* fs.writeFileString(path.join(folder, file), text)
    return path.join(folder, file)
  })
  const symlink = Effect.fnUntraced(function*(target: string, from: string) {
    yield* fs.makeDirectory(path.dirname(path.join(folder, from)), { recursive: true })
    yield* fs.symlink(path.join(folder, target), path.join(folder, from))
  })
  /** Links a package of this repository. */
  const link = Effect.fnUntraced(function*(name: string) {
    yield* fs.makeDirectory(path.join(folder, "node_modules/@openai"), { recursive: true })
    yield* fs.symlink(path.join(root, "node_modules/@openai", name), path.join(folder, "node_modules/@openai", name))
  })
  return { folder, write, symlink, link }
})

const target = Effect.map(codexBinary, (path) => path.split(/[\\/]/).at(-3) ?? "")

const executable = process.platform === "win32" ? "codex.exe" : "codex"

/** Bundles `fixtures/bundled.ts` into one file. */
const bundle = (format: "cjs" | "esm", importMeta: "kept" | "empty") =>
  Effect.promise(async () => {
    const built = await rolldown({
      input: fileURLToPath(new URL("../../fixtures/bundled.ts", import.meta.url)),
      platform: "node",
      resolve: { conditionNames: ["@effect-codex/source", "import", "node", "default"] },
      // esbuild does the same for CommonJS.
      transform: importMeta === "empty" ? { define: { "import.meta.url": "undefined" } } : {},
      logLevel: "silent"
    })
    const { output } = await built.generate({ format, codeSplitting: false })
    await built.close()
    return output[0].code
  })

class Bundles extends Context.Service<Bundles, {
  readonly commonJs: string
  readonly commonJsWithUrl: string
  readonly esm: string
}>()("test/Bundles") {
  static readonly layer = Layer.effect(
    Bundles,
    Effect.all({
      commonJs: bundle("cjs", "empty"),
      commonJsWithUrl: bundle("cjs", "kept"),
      esm: bundle("esm", "kept")
    })
  )
}

const run = Effect.fnUntraced(function*(cwd: string, ...args: ReadonlyArray<string>) {
  const spawner = yield* ChildProcessSpawner
  const child = yield* spawner.spawn(
    ChildProcess.make(process.execPath, args, { cwd, env: { CODEX_HOME: cwd, HOME: cwd }, extendEnv: true })
  )
  return yield* Stream.mkString(Stream.decodeText(child.all))
})

const describeFailure = (from: string) =>
  Effect.map(Effect.flip(findBinary([{ name: "the test", path: from }])), ({ message }) => message)

layer(Layer.merge(NodeServices.layer, Bundles.layer), { excludeTestServices: true, timeout: "60 seconds" })(
  "codexBinary",
  (it) => {
    describe("from a bundle that runs in another directory", () => {
      it.effect.each(
        [
          ["a CommonJS bundle without import.meta", "commonJs", "main.cjs"],
          ["a CommonJS bundle", "commonJsWithUrl", "main.cjs"],
          ["an ES module", "esm", "main.mjs"]
        ] as const
      )("finds the binary of %s", ([, kind, file]) =>
        Effect.gen(function*() {
          const bundles = yield* Bundles
          const { link, write } = yield* project
          const elsewhere = yield* project
          yield* link("codex")
          yield* link(nativeName)
          const main = yield* write(`dist/${file}`, bundles[kind])
          assert.include(yield* run(elsewhere.folder, main), "started 0.169.0")
        }))

      it.effect("finds the binary from the working directory of a program without an entry script", () =>
        Effect.gen(function*() {
          const bundles = yield* Bundles
          const { folder, link, write } = yield* project
          const elsewhere = yield* project
          yield* link("codex")
          yield* link(nativeName)
          yield* write("sub/file", "")
          const main = yield* elsewhere.write("main.cjs", bundles.commonJs)
          // As in a compiled executable, neither `import.meta` nor the arguments locate the program.
          assert.include(yield* run(`${folder}/sub`, "--eval", `require(${JSON.stringify(main)})`), "started 0.169.0")
        }))
    })

    describe("with npm", () => {
      it.effect.each([
        ["from 0.131 on", `node_modules/@openai/${nativeName}`, "bin"],
        ["up to 0.130", `node_modules/@openai/${nativeName}`, "codex"],
        ["without hoisting", `node_modules/@openai/codex/node_modules/@openai/${nativeName}`, "bin"],
        ["up to 0.98, where one package has all binaries", "node_modules/@openai/codex", "codex"]
      ])("finds the binary in the layout %s", ([, owner, directory]) =>
        Effect.gen(function*() {
          const { folder, write } = yield* project
          yield* write("node_modules/@openai/codex/package.json", "{}")
          yield* write(`${owner}/package.json`, "{}")
          const binary = yield* write(`${owner}/vendor/${yield* target}/${directory}/${executable}`, "")
          assert.strictEqual(yield* findBinary([{ name: "the test", path: `${folder}/src/deep/main.js` }]), binary)
        }))
    })

    it.effect("finds the binary in the layout of pnpm, where packages are links", () =>
      Effect.gen(function*() {
        const { folder, symlink, write } = yield* project
        const store = "node_modules/.pnpm/codex@1/node_modules/@openai"
        yield* write(`${store}/codex/package.json`, "{}")
        yield* write(`${store}/${nativeName}/package.json`, "{}")
        const binary = yield* write(`${store}/${nativeName}/vendor/${yield* target}/bin/${executable}`, "")
        yield* write("node_modules/.pnpm/effect-codex@1/node_modules/effect-codex/dist/index.js", "")
        yield* symlink(`${store}/codex`, "node_modules/.pnpm/effect-codex@1/node_modules/@openai/codex")
        yield* symlink("node_modules/.pnpm/effect-codex@1/node_modules/effect-codex", "node_modules/effect-codex")
        const path = `${folder}/node_modules/effect-codex/dist/index.js`
        assert.strictEqual(yield* findBinary([{ name: "the test", path }]), binary)
      }))

    it.effect("finds the binary in the root of a workspace, from a linked member", () =>
      Effect.gen(function*() {
        const { folder, symlink, write } = yield* project
        yield* write("node_modules/@openai/codex/package.json", "{}")
        yield* write(`node_modules/@openai/${nativeName}/package.json`, "{}")
        const binary = yield* write(`node_modules/@openai/${nativeName}/vendor/${yield* target}/bin/${executable}`, "")
        yield* write("packages/library/dist/index.js", "")
        yield* symlink("packages/library", "apps/program/node_modules/library")
        const path = `${folder}/apps/program/node_modules/library/dist/index.js`
        assert.strictEqual(yield* findBinary([{ name: "the test", path }]), binary)
      }))

    describe("without a binary", () => {
      it.effect("names each search root when a bundle runs without any package", () =>
        Effect.gen(function*() {
          const bundles = yield* Bundles
          const { folder, write } = yield* project
          const elsewhere = yield* project
          const output = yield* run(elsewhere.folder, yield* write("main.cjs", bundles.commonJs))
          assert.include(output, "`codexPath`")
          assert.include(output, "from this package: its path is unknown")
          assert.include(output, `from the entry script (\`${folder}/main.cjs\`): \`@openai/codex\` is not installed`)
          assert.include(
            output,
            `from the working directory (\`${elsewhere.folder}\`): \`@openai/codex\` is not installed`
          )
        }))

      it.effect("names the package of the platform when it is not installed", () =>
        Effect.gen(function*() {
          const { folder, write } = yield* project
          yield* write("node_modules/@openai/codex/package.json", "{}")
          const description = yield* describeFailure(folder)
          assert.include(description, `${folder}/node_modules/@openai/codex`)
          assert.include(description, `comes without \`@openai/${nativeName}\``)
        }))

      it.effect("names the package of the platform when its layout is unknown", () =>
        Effect.gen(function*() {
          const { folder, write } = yield* project
          yield* write("node_modules/@openai/codex/package.json", "{}")
          yield* write(`node_modules/@openai/${nativeName}/package.json`, "{}")
          assert.match(
            yield* describeFailure(folder),
            /`@openai\/codex-[\w-]+` has no binary at .*[\\/]bin[\\/]codex.* or .*[\\/]codex[\\/]codex/
          )
        }))
    })
  }
)
