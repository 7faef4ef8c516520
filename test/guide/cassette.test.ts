import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { AppServer, Codex, StdioTransport } from "effect-codex"
import { Cassette } from "effect-codex/testing"
import { fileURLToPath } from "node:url"
import { Reviewer } from "./Reviewer.ts"

const path = fileURLToPath(new URL("review.jsonl", import.meta.url))

/** With `RECORD=1` it records the session again, with your own Codex login. */
const transport = process.env["RECORD"] === "1"
  ? Cassette.record(path).pipe(Layer.provide(StdioTransport.layer()))
  : Cassette.replay(path)

const reviewer = Reviewer.layer.pipe(
  Layer.provide(Codex.layer),
  Layer.provide(AppServer.layer()),
  Layer.provide(transport),
  Layer.provide(NodeServices.layer)
)

describe("Reviewer on a recording", () => {
  it.live("finds a variable that never changes", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      assert.include(yield* review("+ let x = 1"), "const")
    }).pipe(Effect.provide(reviewer)))

  it.live("fails with the difference if the recording has another prompt", () =>
    Effect.gen(function*() {
      const { review } = yield* Reviewer
      const { reason } = yield* Effect.flip(review("+ var x = 1"))
      assert.include(reason, "+ let x = 1")
      assert.include(reason, "+ var x = 1")
    }).pipe(Effect.provide(reviewer)))
})
