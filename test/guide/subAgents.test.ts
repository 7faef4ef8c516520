import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { AppServer, Budget, Codex } from "effect-codex"
import { FakeAppServer } from "effect-codex/testing"

const findTests: FakeAppServer.Script = () =>
  Effect.andThen(FakeAppServer.usage({ inputTokens: 50 }), FakeAppServer.text("test/Turn.test.ts"))

const script: FakeAppServer.Script = () =>
  Effect.gen(function*() {
    const agent = yield* FakeAppServer.subAgent("Find the tests", findTests)
    yield* FakeAppServer.usage({ inputTokens: 200 })
    const state = yield* agent.wait
    yield* FakeAppServer.text(`They are in ${state?.message}`)
  })

const layer = Codex.layer.pipe(Layer.provide(AppServer.layer()), Layer.provide(FakeAppServer.layer(script)))

it.effect("counts the tokens of sub-agents", () =>
  Effect.gen(function*() {
    const codex = yield* Codex.Codex
    const thread = yield* codex.startThread()
    yield* thread.run("Where are the tests?")
    const { tokens, turns } = yield* Budget.used
    assert.deepStrictEqual([tokens, turns], [250, 2])
  }).pipe(Budget.limit({ tokens: 1000 }), Effect.provide(layer)))
