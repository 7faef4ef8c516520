import { assert, layer } from "@effect/vitest"
import { AppServer } from "effect-codex"
import { CodexEnvironment, TestCodex } from "effect-codex/testing"
import * as Effect from "effect/Effect"

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
})
