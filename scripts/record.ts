/** `npm run record`: records the cassettes of the tests from the real app-server with a scripted model. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { AppServer, Codex } from "effect-codex"
import { Cassette, ModelServer, TestCodex } from "effect-codex/testing"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Reviewer } from "../test/guide/Reviewer.ts"
import { cassette, recordScenario } from "../test/testing/cassetteScenario.ts"
import { cassette as turns, recordTurns } from "../test/testing/turnScenario.ts"

const review = "test/guide/review.jsonl"

const recordReview = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  yield* model.enqueue(ModelServer.text("Use const: x never changes."))
  const reviewer = Reviewer.layer.pipe(
    Layer.provide(Codex.layer),
    Layer.provide(AppServer.layer()),
    Layer.provide(Cassette.record(review)),
    Layer.provide(TestCodex.layerTransport())
  )
  yield* Effect.provide(Effect.flatMap(Reviewer, (reviewer) => reviewer.review("+ let x = 1")), reviewer)
}).pipe(Effect.provide(TestCodex.layerEnvironment()))

recordScenario(cassette).pipe(
  Effect.andThen(recordReview),
  Effect.andThen(recordTurns(turns)),
  Effect.andThen(Console.log(`Recorded ${cassette}, ${review} and ${turns}`)),
  NodeRuntime.runMain
)
