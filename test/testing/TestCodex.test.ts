import { assert, layer, vi } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import { CodexEnvironment, ModelServer, TestCodex } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

layer(TestCodex.layer(), { excludeTestServices: true })("TestCodex", (it) => {
  it.effect("inherits only the variables that a process needs", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { codexHome, home } = yield* CodexEnvironment.CodexEnvironment
      const { stdout } = yield* server.request("command/exec", {
        command: ["env"],
        sandboxPolicy: { type: "dangerFullAccess" }
      })
      const names = stdout.split("\n").map((line) => line.split("=", 1)[0])
      // The test runner sets this variable, as a developer sets keys.
      assert.isDefined(process.env["VITEST"])
      assert.notInclude(names, "VITEST")
      assert.include(names, "PATH")
      assert.include(stdout, `HOME=${home}`)
      assert.include(stdout, `CODEX_SQLITE_HOME=${codexHome}`)
    }))

  it.effect("removes a variable that was set after the import of the package", () =>
    Effect.gen(function*() {
      vi.stubEnv("LATE_SECRET", "s3cret")
      const { env } = yield* Layer.build(TestCodex.layerEnvironment()).pipe(
        Effect.map(Context.get(CodexEnvironment.CodexEnvironment)),
        Effect.ensuring(Effect.sync(() => vi.unstubAllEnvs()))
      )
      assert.isTrue("LATE_SECRET" in env)
      assert.isUndefined(env["LATE_SECRET"])
    }).pipe(Effect.scoped))

  for (
    const [scheme, message] of [
      ["http", "A test connects to loopback only, not to `codex.invalid`"],
      // A tunnel that the proxy rejects has no message.
      ["https", "Connection failed"]
    ] as const
  ) {
    it.effect(`connects to loopback only if the configuration names another ${scheme} host`, () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const { env } = yield* CodexEnvironment.CodexEnvironment
        assert.strictEqual(env[`${scheme}_proxy`], model.url)
        const thread = yield* codex.startThread()
        const failed = yield* Effect.flip(thread.run("hi"))
        assert(failed._tag === "TurnFailed", failed.message)
        assert.include(failed.message, message)
        assert.deepStrictEqual(yield* model.requests, [])
        const server = yield* AppServer.AppServer
        const feedback = server.request("feedback/upload", { classification: "bug", includeLogs: false })
        assert.strictEqual((yield* Effect.flip(feedback)).reason._tag, "RequestRejected")
      }).pipe(Effect.provide(Layer.fresh(TestCodex.layer({
        home: {
          config: {
            model_provider: "public",
            model_providers: {
              public: {
                name: "A public host",
                base_url: `${scheme}://codex.invalid/v1`,
                wire_api: "responses",
                request_max_retries: 0,
                stream_max_retries: 0,
                supports_websockets: false
              }
            }
          }
        }
      })))))
  }
})
