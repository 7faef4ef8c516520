import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import { Cassette } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Stream from "effect/Stream"
import * as Transport from "../../src/Transport.ts"
import { cassette, scenario } from "../testing/cassetteScenario.ts"

/** Delays each line of the server by a random time below a limit in milliseconds, and keeps the order of the lines. */
const delay = (millis: number) =>
  Layer.effect(
    Transport.Transport,
    Effect.map(Transport.Transport, (transport) => ({
      connect: Effect.map(transport.connect, ({ incoming, send }) => {
        const wait = Effect.flatMap(Random.nextIntBetween(0, millis), (time) =>
          time === 0 ? Effect.yieldNow : Effect.sleep(time))
        return {
          incoming: Stream.tap(Stream.rechunk(incoming, 1), () =>
            wait),
          send: (line: string) => Effect.andThen(Effect.yieldNow, send(line))
        }
      })
    }))
  )

/**
 * Runs a session, and returns what the program sees. Notifications before the first thread are omitted, as they may arrive
 * before a subscriber.
 */
const observe = (millis: number, seed: number) =>
  scenario("/workspace").pipe(
    Effect.map(({ notifications, ...outcome }) => {
      const first = notifications.findIndex(({ method }) => method === "thread/started")
      return JSON.stringify({ ...outcome, notifications: notifications.slice(first) })
    }),
    Effect.provide(
      Codex.layer.pipe(
        Layer.provideMerge(AppServer.layer()),
        Layer.provide(delay(millis)),
        Layer.provide(Cassette.replay(cassette))
      )
    ),
    Random.withSeed(seed),
    Effect.provide(NodeServices.layer),
    Effect.timeout("30 seconds")
  )

describe("Connection with random delays", () => {
  it.live("delivers the same events and results to the program", () =>
    Effect.gen(function*() {
      const expected = yield* observe(1, 0)
      for (let seed = 1; seed <= 60; seed++) {
        assert.strictEqual(yield* observe(1 + (seed % 6), seed), expected, `seed ${seed}`)
      }
    }))
})
