import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { root } from "./repository.ts"

/** Returns the modules that the import of an entry point loads. */
const loadedModules = Effect.fnUntraced(function*(specifier: string) {
  const spawner = yield* ChildProcessSpawner
  const path = yield* Path.Path
  const child = yield* spawner.spawn(ChildProcess.make(
    process.execPath,
    ["--conditions=@effect-codex/source", path.join(root, "test/fixtures/loaded-modules.mjs"), specifier],
    { cwd: root }
  ))
  return JSON.parse(yield* Stream.mkString(Stream.decodeText(child.stdout))) as ReadonlyArray<string>
}, Effect.scoped)

describe("Unstable modules of Effect", () => {
  it.live("are loaded by effect-codex/ai, and not by effect-codex", () =>
    Effect.gen(function*() {
      const unstable = /\/effect\/(?:dist|src)\/ai\/|\/src\/(?:internal\/)?ai\//
      const own = yield* loadedModules("effect-codex")
      assert.isTrue(own.some((url) => url.endsWith("/src/Codex.ts")))
      assert.deepStrictEqual(own.filter((url) => unstable.test(url)), [])
      const area = yield* loadedModules("effect-codex/ai")
      assert.isTrue(area.some((url) => url.endsWith("/ai/McpServer.js")))
    }).pipe(Effect.provide(NodeServices.layer)), 30_000)
})
