import { assert, it } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { AppServer, Codex } from "effect-codex"
import { CodexLanguageModel } from "effect-codex/ai"
import { FakeAppServer } from "effect-codex/testing"
import { Chat, Tool, Toolkit } from "effect/ai"

const toolkit = Toolkit.make(
  Tool.make("weather", { parameters: Schema.Struct({ place: Schema.String }), success: Schema.Finite })
)

/** The program under test: it depends on a language model, and not on Codex. */
const forecast = Effect.fn(function*(place: string) {
  const chat = yield* Chat.empty
  let response = yield* chat.generateText({ prompt: `How warm is ${place}?`, toolkit })
  while (response.finishReason === "tool-calls") response = yield* chat.generateText({ prompt: [], toolkit })
  return response.text
})

// The model calls the tool for two places at once, and then responds.
const layer = CodexLanguageModel.layer().pipe(
  Layer.provide(Codex.layer),
  Layer.provide(AppServer.layer()),
  Layer.provide(FakeAppServer.layer(() =>
    Effect.gen(function*() {
      const results = yield* Effect.all([
        FakeAppServer.toolCall("weather", { place: "Oslo" }),
        FakeAppServer.toolCall("weather", { place: "Rome" })
      ], { concurrency: 2 })
      yield* FakeAppServer.text(JSON.stringify(results.map(({ contentItems }) => contentItems[0])))
    })
  ))
)

it.effect("asks for both places", () =>
  Effect.gen(function*() {
    const text = yield* forecast("Oslo or Rome")
    assert.include(text, "-3")
    assert.include(text, "20")
  }).pipe(
    Effect.provide(toolkit.toLayer({ weather: ({ place }) => Effect.succeed(place === "Oslo" ? -3 : 20) })),
    Effect.provide(layer)
  ))
