import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Vm from "node:vm"
import { rolldown } from "rolldown"
import { root } from "./repository.ts"

interface Bundle {
  readonly code: string
  readonly imports: ReadonlyArray<string>
}

/** Bundles a program of `fixtures` for a browser. The global `Program` has its exports. */
const bundle = (fixture: string) =>
  Effect.promise(async (): Promise<Bundle> => {
    const build = await rolldown({
      input: `${root}test/fixtures/${fixture}`,
      platform: "browser",
      resolve: { conditionNames: ["@effect-codex/source", "browser", "import", "default"] },
      logLevel: "silent"
    })
    const { output: [chunk] } = await build.generate({ format: "iife", name: "Program", codeSplitting: false })
    await build.close()
    // A dynamic import of a module in the bundle is one of the bundle itself.
    const imports = [...chunk.imports, ...chunk.dynamicImports].filter((name) => name !== chunk.fileName)
    return { code: chunk.code, imports }
  })

class Browser extends Context.Service<Browser, {
  readonly bundle: Bundle
  readonly evaluate: (expression: string) => unknown
}>()("test/Browser") {
  /** Loads the bundle of `fixtures/browser.ts` in a realm without the globals of Node. */
  static readonly layer = Layer.effect(
    Browser,
    Effect.map(bundle("browser.ts"), (bundle) => {
      // The globals of a browser that Effect needs.
      const context = Vm.createContext({ TextDecoder, TextEncoder, URL, clearTimeout, queueMicrotask, setTimeout })
      Vm.runInContext(bundle.code, context)
      return { bundle, evaluate: (expression) => Vm.runInContext(expression, context) }
    })
  )
}

layer(Browser.layer, { timeout: "60 seconds" })("Root in a browser", (it) => {
  it.effect("bundles without any import", () =>
    Effect.map(Browser, ({ bundle }) => {
      assert.deepStrictEqual(bundle.imports, [])
    }))

  it.effect("runs without the globals of Node", () =>
    Effect.map(Browser, ({ evaluate }) => {
      assert.throws(() => evaluate("process.env"), "process is not defined")
      assert.strictEqual(evaluate("typeof Program.root.Codex.layer"), "object")
    }))

  it.effect("resolves approval modes and decodes the protocol", () =>
    Effect.map(Browser, ({ evaluate }) => {
      assert.deepStrictEqual(JSON.parse(String(evaluate("Program.run()"))), {
        thread: { approvalPolicy: "on-request", approvalsReviewer: "auto_review", sandbox: "read-only" },
        turn: { approvalPolicy: "never", sandboxPolicy: { type: "readOnly" } },
        conflict: "SandboxConflictError",
        delta: { threadId: "t", turnId: "u", itemId: "i", delta: "é" },
        unknownItem: { type: "fromTheFuture", id: "i" },
        isDelta: false
      })
    }))

  it.effect("fails with a typed error when it has to start a process", () =>
    Effect.map(Browser, ({ evaluate }) => {
      assert.match(String(evaluate("Program.connectError({})")), /does not run processes/)
      assert.match(
        String(evaluate("Program.connectError({ codexPath: '/codex', inheritEnv: ['PATH'] })")),
        /no binary at `\/codex`/
      )
    }))
})

describe("Program for Node", () => {
  it.effect(
    "keeps its imports when it is bundled for a browser",
    () =>
      Effect.map(bundle("bundled.ts"), ({ imports }) => {
        assert.includeMembers([...imports], ["node:child_process", "node:fs"])
      }),
    60_000
  )
})

describe("Source", () => {
  it.effect("imports modules of Node only in testing", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const files = (yield* fs.readDirectory(`${root}src`, { recursive: true })).filter((file) => file.endsWith(".ts"))
      const mentioning = yield* Effect.filter(
        files,
        // The examples in comments are programs for Node.
        (file) => Effect.map(fs.readFileString(`${root}src/${file}`), (text) => /^(?! \*).*["']node:\w/m.test(text))
      )
      assert.isNotEmpty(mentioning)
      assert.deepStrictEqual(mentioning.filter((file) => !/^(?:internal[\\/])?testing[\\/]/.test(file)), [])
    }).pipe(Effect.provide(NodeServices.layer)))
})
