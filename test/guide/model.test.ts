import { assert, layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { ModelServer, TestCodex } from "effect-codex/testing"
import { Reviewer } from "./Reviewer.ts"

/** Provides the service on the real app-server with a scripted model. */
const reviewer = Reviewer.layer.pipe(Layer.provideMerge(TestCodex.layer()))

layer(reviewer, { excludeTestServices: true })("Reviewer on the real app-server", (it) => {
  it.effect("sends the change to the model, and returns its response", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.text("Use const"))
      const { review } = yield* Reviewer
      assert.strictEqual(yield* review("+ let x"), "Use const")
      const [request] = yield* model.requests
      assert.strictEqual(request?.lastUserText, "Review this change:\n+ let x")
    }))

  it.effect("denies writes of the model", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => {
        const output = request.functionCallOutput("write")
        return output === undefined
          ? ModelServer.functionCall("exec_command", { cmd: "echo hi > x; ls" }, { callId: "write" })
          : ModelServer.text(output)
      })
      const { review } = yield* Reviewer
      assert.notMatch(yield* review("+ let x"), /^x$/m)
    }))

  it.effect("fails with the reason of the failed turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.httpError(503, { error: { code: "server_is_overloaded" } }))
      const { review } = yield* Reviewer
      assert.strictEqual((yield* Effect.flip(review("+ let x"))).reason, "serverOverloaded")
    }))
})
