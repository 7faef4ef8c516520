import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { AppServer, AppServerError, Codex } from "effect-codex"
import { Cassette } from "effect-codex/testing"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import * as Transport from "../../src/Transport.ts"
import { cassette, scenario } from "../testing/cassetteScenario.ts"

const recorded =
  readFileSync(cassette, "utf8").split("\n").filter((line) => line.includes(`"direction":"server"`)).length

const killed = AppServerError.make(
  new AppServerError.ConnectionClosed({ description: "cut", exitCode: undefined, signal: "SIGKILL", stderrTail: "" })
)

/** Ends each connection after so many lines of the server. */
const cutAfter = (lines: number) =>
  Layer.effect(
    Transport.Transport,
    Effect.map(Transport.Transport, (transport) => ({
      connect: Effect.map(transport.connect, ({ incoming, send }) => ({
        incoming: Stream.concat(Stream.take(incoming, lines), Stream.fail(killed)),
        send
      }))
    }))
  )

const runCut = (lines: number, options?: AppServer.Options) =>
  Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    const exit = yield* Effect.exit(scenario("/workspace"))
    const later = yield* Effect.timed(Effect.exit(server.request("thread/loaded/list")))
    return { exit, later }
  }).pipe(
    Effect.provide(
      Codex.layer.pipe(
        Layer.provideMerge(AppServer.layer(options)),
        Layer.provide(cutAfter(lines)),
        Layer.provide(Cassette.replay(cassette))
      )
    ),
    Effect.provide(NodeServices.layer),
    Effect.exit,
    Effect.timeoutOption("5 seconds")
  )

/** Why a program failed that is to fail with an `AppServerError`; a defect or an interrupt is none. */
const reasonOf = <A, E>(exit: Exit.Exit<A, E>): string => {
  if (Exit.isSuccess(exit)) return "success"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return AppServerError.isAppServerError(error) && !Cause.hasDies(exit.cause)
    ? error.reason._tag
    : Cause.pretty(exit.cause)
}

describe("a server that dies after any message of a session", () => {
  it("says something in it", () => {
    assert.isAbove(recorded, 80)
  })

  it.live("fails the program with one typed cause, and what comes later at once", () =>
    Effect.gen(function*() {
      for (let lines = 0; lines < recorded; lines++) {
        const outcome = yield* runCut(lines)
        assert(Option.isSome(outcome), `hangs when cut after ${lines} messages`)
        if (Exit.isFailure(outcome.value)) {
          assert.strictEqual(reasonOf(outcome.value), "ConnectionClosed", `cut after ${lines}`)
          continue
        }
        const { exit, later: [duration, afterwards] } = outcome.value.value
        assert.strictEqual(reasonOf(exit), "ConnectionClosed", `cut after ${lines}`)
        assert.strictEqual(reasonOf(afterwards), "ConnectionClosed")
        assert.isBelow(Duration.toMillis(duration), 50)
      }
    }), 120_000)

  it.live("each time it is restarted ends in a typed storm", () =>
    Effect.gen(function*() {
      const restart = Schedule.spaced("1 milli").pipe(Schedule.upTo({ times: 2 }))
      for (let lines = 1; lines < recorded; lines += 5) {
        const outcome = yield* runCut(lines, { restart })
        assert(Option.isSome(outcome), `hangs when cut after ${lines} messages`)
        const reason = Exit.isSuccess(outcome.value) ? reasonOf(outcome.value.value.exit) : reasonOf(outcome.value)
        assert.include(["ConnectionClosed", "RestartsExhausted", "TurnLost"], reason, `cut after ${lines}`)
        if (Exit.isSuccess(outcome.value)) {
          assert.strictEqual(reasonOf(outcome.value.value.later[1]), "RestartsExhausted")
        }
      }
    }), 120_000)
})
