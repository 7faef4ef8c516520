import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { fileURLToPath } from "node:url"

const guard = fileURLToPath(new URL("../benchmark/guard.ts", import.meta.url))

const Ratios = Schema.fromJsonString(Schema.Struct({
  stream: Schema.Number,
  interleaved: Schema.Number,
  run: Schema.Number,
  requests: Schema.Number
}))

class Measured extends Context.Service<Measured, typeof Ratios.Type>()("test/Measured") {
  static readonly layer = Layer.effect(
    this,
    Effect.gen(function*() {
      const spawner = yield* ChildProcessSpawner
      const child = yield* spawner.spawn(
        ChildProcess.make(process.execPath, ["--conditions=@effect-codex/source", guard], { stderr: "inherit" })
      )
      return yield* Schema.decodeEffect(Ratios)(yield* Stream.mkString(Stream.decodeText(child.stdout)))
    })
  ).pipe(Layer.provide(NodeServices.layer))
}

const assertAtMost = (name: keyof typeof Ratios.Type, limit: number) =>
  Effect.gen(function*() {
    const { [name]: ratio } = yield* Measured
    assert.isAtMost(ratio, limit)
  })

// Each limit is about twice the measured ratio. `benchmark/guard.ts` describes the measurement.
describe("Processor time relative to a handwritten loop", () => {
  layer(Measured.layer, { excludeTestServices: true, timeout: "2 minutes" })((it) => {
    it.effect("is lower for a streamed delta", () => assertAtMost("stream", 1))
    it.effect("is lower still for a delta of a turn without a subscriber", () => assertAtMost("run", 0.7))
    it.effect("is at most 2.4 times as much for deltas of a hundred interleaved turns", () =>
      assertAtMost("interleaved", 2.4))
    it.effect("is at most 8 times as much for a request among a thousand concurrent ones", () =>
      assertAtMost("requests", 8))
  })
})
