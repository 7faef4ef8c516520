/** Retries of the server are logged and are no progress. The last one is in the error of the turn. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, Codex, type Thread } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Fake from "./FakeTransport.ts"
import { openThread } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"
import { collectWarnings } from "./warnings.ts"

layer(TestCodex.layerEnvironment({ config: TestCodex.retryConfig(2) }), { excludeTestServices: true })(
  "Retries of the real server",
  (it) => {
    it.effect("are logged once each, and are in the failure of the turn", () =>
      Effect.suspend(() => {
        const { logger, containing } = collectWarnings()
        return Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const model = yield* ModelServer.ModelServer
          const thread = yield* codex.startThread()
          yield* model.respond(() => ModelServer.cut())
          const failed = yield* Effect.flip(thread.run("go"))
          assert(failed._tag === "TurnFailed")
          assert.strictEqual(failed.lastError?.message, failed.detail)
          assert.include(failed.message, failed.detail)
          const retries = containing("retries a model request")
          assert.strictEqual(new Set(retries).size, retries.length)
          assert.isAtLeast(retries.length, 1)
          for (const retry of retries) {
            assert.include(retry, thread.id)
            assert.include(retry, failed.turnId)
            assert.match(retry, /Reconnecting\.\.\. \d\/2/)
          }
          yield* model.respond(() => ModelServer.text("done"))
          assert.strictEqual((yield* thread.run("again")).finalResponse, "done")
        }).pipe(Effect.provide(Layer.provideMerge(TestCodex.layerProcess(), logger)))
      }))

    it.effect("are in the error of a turn that a restart loses", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const thread = yield* codex.startThread()
        // A thread without a turn cannot be reopened.
        yield* model.respond(() => ModelServer.text("done"))
        yield* thread.run("first")
        yield* model.enqueue(ModelServer.cut())
        yield* model.respond(() => ModelServer.hang())
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(Stream.filter(turn.events, ({ method }) => method === "error"))
        yield* TestCodex.killServer
        const reason = yield* TestCodex.expectReason(turn.result)
        assert(reason._tag === "TurnLost")
        assert.match(reason.lastError?.message ?? "", /Reconnecting\.\.\. \d\/2/)
        assert.include(reason.message, reason.lastError?.message ?? "Reconnecting")
      }).pipe(Effect.scoped, Effect.provide(TestCodex.layerProcess({ restart: true }))))
  }
)

layer(
  TestCodex.layerEnvironment({
    config: {
      features: { unbounded_connection_retries: true },
      // No process listens on this port.
      model_providers: { mock_provider: { base_url: "http://127.0.0.1:9/v1", stream_max_retries: 1000 } }
    }
  }),
  { excludeTestServices: true }
)("Real server without a connection to the model", (it) => {
  const limits: ReadonlyArray<readonly [kind: "idle" | "deadline", options: Thread.TurnOptions]> = [
    ["idle", { idleTimeout: "8 seconds" }],
    ["deadline", { deadline: "8 seconds" }]
  ]

  it.effect(
    "retries until the idle timeout or the deadline of a turn, whose error has the last retry",
    () =>
      Effect.suspend(() => {
        const { logger, containing } = collectWarnings()
        return Effect.gen(function*() {
          const codex = yield* Codex.Codex
          yield* Effect.forEach(
            limits,
            Effect.fnUntraced(function*([kind, options]) {
              const thread = yield* codex.startThread()
              const reason = yield* TestCodex.expectReason(
                thread.run("go", options)
              )
              assert(reason._tag === "TurnTimeout")
              assert.strictEqual(reason.kind, kind)
              assert.match(reason.lastError?.message ?? "", /Reconnecting/)
              assert.include(reason.message, "Reconnecting")
              assert.isNotEmpty(containing(thread.id).filter((warning) => warning.includes("Reconnecting")))
            }),
            { concurrency: "unbounded" }
          )
        }).pipe(Effect.provide(Layer.provideMerge(TestCodex.layerProcess(), logger)))
      }),
    25_000
  )
})

describe("Turn that the server retries", () => {
  const codex = Codex.layer.pipe(
    Layer.provideMerge(AppServer.layer()),
    Layer.provide(Fake.layerRedacting),
    Layer.provideMerge(Fake.layer)
  )

  const startTurn = Effect.fnUntraced(function*(options?: Thread.TurnOptions) {
    const fake = yield* Fake.FakeTransport
    const thread = yield* openThread("t")
    const starting = yield* Effect.forkChild(thread.turn("go", options))
    yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
    const turn = yield* Fiber.join(starting)
    yield* fake.emit(Fake.turnStarted("t", "u"))
    yield* Stream.runHead(turn.events)
    return { fake, turn }
  })

  const retry = (message: string, more: object = {}) => ({
    method: "error",
    params: { threadId: "t", turnId: "u", willRetry: true, error: { message, ...more } },
    emittedAtMs: 1
  })

  for (
    const [name, notification] of [
      ["a retry", retry("Reconnecting... 1/5", { additionalDetails: "not with hunter2" })],
      ["a retry that does not decode", retry("Reconnecting... 1/5", { additionalDetails: 7 })]
    ] as const
  ) {
    it.effect(`does not restart its idle timeout at ${name}, and fails with the error of the retry`, () =>
      Effect.gen(function*() {
        const { fake, turn } = yield* startTurn({ idleTimeout: "1 minute" })
        yield* TestClock.adjust("50 seconds")
        yield* fake.emit(notification)
        yield* TestClock.adjust("10 seconds")
        yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
        yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
        const reason = yield* TestCodex.expectReason(turn.result)
        assert(reason._tag === "TurnTimeout")
        assert.strictEqual(reason.kind, "idle")
        assert.strictEqual(reason.lastError?.message, "Reconnecting... 1/5")
        assert.include(reason.message, "Reconnecting... 1/5")
        assert.notInclude(`${reason.message} ${JSON.stringify(reason)}`, "hunter2")
      }).pipe(Effect.scoped, Effect.provide(codex)))
  }

  it.effect("restarts its idle timeout when an event shows progress", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn({ idleTimeout: "1 minute" })
      yield* TestClock.adjust("50 seconds")
      yield* fake.emit(retry("Reconnecting... 1/5"), Fake.delta("t", "u", "i", "again"))
      yield* TestClock.adjust("50 seconds")
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* turn.result).status, "completed")
    }).pipe(Effect.scoped, Effect.provide(codex)))

  it.effect("fails with the last error if the server reports no other reason", () =>
    Effect.gen(function*() {
      const { fake, turn } = yield* startTurn()
      yield* fake.emit(retry("Reconnecting... 5/5", { additionalDetails: "hunter2 timed out" }))
      yield* fake.emit(Fake.turnCompleted("t", "u", "failed"))
      const failed = yield* Effect.flip(turn.result)
      assert(failed._tag === "TurnFailed")
      assert.deepInclude(failed.lastError, {
        message: "Reconnecting... 5/5",
        additionalDetails: "<redacted> timed out"
      })
      assert.include(failed.message, "Reconnecting... 5/5 (<redacted> timed out)")
    }).pipe(Effect.scoped, Effect.provide(codex)))
})
