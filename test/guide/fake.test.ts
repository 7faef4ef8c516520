import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import { AppServer, Codex } from "effect-codex"
import { FakeAppServer } from "effect-codex/testing"
import { TestClock } from "effect/testing"
import { Reviewer } from "./Reviewer.ts"

/** Provides the service on a scripted app-server in memory. */
const reviewer = (script: FakeAppServer.Script) =>
  Reviewer.layer.pipe(
    Layer.provide(Codex.layer),
    Layer.provide(AppServer.layer()),
    Layer.provideMerge(FakeAppServer.layer(script))
  )

describe("Reviewer", () => {
  it.effect("returns the final answer without the commentary", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      assert.strictEqual(yield* review("+ let x"), "Use const")
    }).pipe(Effect.provide(reviewer(() =>
      Stream.make(
        FakeAppServer.text("Let me look", { phase: "commentary" }),
        FakeAppServer.command("git diff", { output: "+ let x" }),
        FakeAppServer.text("Use const", { phase: "final_answer" })
      )
    ))))

  it.effect("streams the reasoning of the model", () =>
    Effect.gen(function*() {
      const { thoughts } = yield* Reviewer
      assert.deepStrictEqual(yield* Stream.runCollect(thoughts("+ let x")), ["A variable", "It never changes"])
    }).pipe(Effect.provide(reviewer(() =>
      Effect.andThen(FakeAppServer.reasoning("A variable"), FakeAppServer.reasoning("It never changes"))
    ))))

  it.effect("fails with the reason of the failed turn", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      assert.strictEqual((yield* Effect.flip(review("+ let x"))).reason, "usageLimitExceeded")
    }).pipe(Effect.provide(reviewer(() => FakeAppServer.fail("Come back tomorrow", "usageLimitExceeded")))))

  it.effect("fails after two minutes, and interrupts the turn", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      const fake = yield* FakeAppServer.FakeAppServer
      const failure = yield* Effect.forkChild(Effect.flip(review("+ let x")))
      yield* fake.awaitSent("turn/start")
      yield* TestClock.adjust("2 minutes")
      assert.include((yield* Fiber.join(failure)).reason, "timed out")
      yield* fake.awaitSent("turn/interrupt")
    }).pipe(Effect.provide(reviewer(() => FakeAppServer.never))))

  it.effect("fails when the server exits within a message", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      assert.include((yield* Effect.flip(review("+ let x"))).reason, "killed by SIGKILL")
    }).pipe(Effect.provide(reviewer(() => FakeAppServer.exit({ signal: "SIGKILL", midLine: "{\"method\":\"item/" })))))

  it.effect("starts a thread without permissions", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      const fake = yield* FakeAppServer.FakeAppServer
      yield* review("+ let x")
      const { params } = yield* fake.awaitSent("thread/start")
      assert.deepStrictEqual(params, { approvalPolicy: "never", sandbox: "read-only" })
    }).pipe(Effect.provide(reviewer((turn) => FakeAppServer.text(turn.text)))))
})
