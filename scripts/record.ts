/** `npm run record`: records the cassettes of the tests from the real app-server, with the scripted model. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { cassette, recordScenario } from "../test/testing/cassetteScenario.ts"

recordScenario(cassette).pipe(
  Effect.andThen(Console.log(`Recorded ${cassette}`)),
  NodeRuntime.runMain
)
