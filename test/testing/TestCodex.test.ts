import { assert, layer, vi } from "@effect/vitest"
import { AppServer } from "effect-codex"
import { CodexEnvironment, TestCodex } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

layer(TestCodex.layer(), { excludeTestServices: true })("TestCodex", (it) => {
  it.effect("takes of the parent's environment what a process needs, and nothing else", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { codexHome, home } = yield* CodexEnvironment.CodexEnvironment
      const { stdout } = yield* server.request("command/exec", {
        command: ["env"],
        sandboxPolicy: { type: "dangerFullAccess" }
      })
      const names = stdout.split("\n").map((line) => line.split("=", 1)[0])
      // The test runner sets this one in its own environment, as a developer sets keys.
      assert.isDefined(process.env["VITEST"])
      assert.notInclude(names, "VITEST")
      assert.include(names, "PATH")
      assert.include(stdout, `HOME=${home}`)
      assert.include(stdout, `CODEX_SQLITE_HOME=${codexHome}`)
    }))

  it.effect("keeps out a variable that was set after the package was loaded", () =>
    Effect.gen(function*() {
      vi.stubEnv("LATE_SECRET", "s3cret")
      const { env } = yield* Layer.build(TestCodex.layerEnvironment()).pipe(
        Effect.map(Context.get(CodexEnvironment.CodexEnvironment)),
        Effect.ensuring(Effect.sync(() => vi.unstubAllEnvs()))
      )
      assert.isTrue("LATE_SECRET" in env)
      assert.isUndefined(env["LATE_SECRET"])
    }).pipe(Effect.scoped))
})
