import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { AppServer, AppServerError, Codex } from "effect-codex"
import { Cassette, FakeAppServer } from "effect-codex/testing"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import { readFileSync } from "node:fs"
import * as Transport from "../../src/Transport.ts"
import { killed } from "../scenario.ts"
import { cassette, scenario } from "../testing/cassetteScenario.ts"

/** The number of messages of the server in the recorded session. */
const recorded =
  readFileSync(cassette, "utf8").split("\n").filter((line) => line.includes(`"direction":"server"`)).length

/** The number of messages from one cut to the next. `npm run test:faults` cuts after every message. */
const step = process.env["FAULT_RUNS"] === undefined ? 9 : 1

/** Ends each connection after a number of lines of the server. */
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

/** Returns the tag of the `AppServerError` in an exit, or its whole cause. */
const getReason = <A, E>(exit: Exit.Exit<A, E>): string => {
  if (Exit.isSuccess(exit)) return "success"
  const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
  return AppServerError.isAppServerError(error) && !Cause.hasDies(exit.cause)
    ? error.reason._tag
    : Cause.pretty(exit.cause)
}

describe("Server that exits after any message of a session", () => {
  it("has a recorded session of more than 80 messages", () => {
    assert.isAbove(recorded, 80)
  })

  it.live("fails the program with one typed cause, and later requests at once", () =>
    Effect.gen(function*() {
      for (let lines = 0; lines < recorded; lines += step) {
        const outcome = yield* runCut(lines)
        assert(Option.isSome(outcome), `hangs when cut after ${lines} messages`)
        if (Exit.isFailure(outcome.value)) {
          assert.strictEqual(getReason(outcome.value), "ConnectionClosed", `cut after ${lines}`)
          continue
        }
        const { exit, later: [duration, afterwards] } = outcome.value.value
        assert.strictEqual(getReason(exit), "ConnectionClosed", `cut after ${lines}`)
        assert.strictEqual(getReason(afterwards), "ConnectionClosed")
        assert.isBelow(Duration.toMillis(duration), 50)
      }
    }), 120_000)

  it.live("fails the program with a typed error when each restart is cut too", () =>
    Effect.gen(function*() {
      const restart = Schedule.spaced("1 milli").pipe(Schedule.upTo({ times: 2 }))
      for (let lines = 1; lines < recorded; lines += 15) {
        const outcome = yield* runCut(lines, { restart })
        assert(Option.isSome(outcome), `hangs when cut after ${lines} messages`)
        const reason = Exit.isSuccess(outcome.value) ? getReason(outcome.value.value.exit) : getReason(outcome.value)
        assert.include(["ConnectionClosed", "RestartsExhausted", "TurnLost"], reason, `cut after ${lines}`)
        if (Exit.isSuccess(outcome.value)) {
          assert.strictEqual(getReason(outcome.value.value.later[1]), "RestartsExhausted")
        }
      }
    }), 120_000)
})

describe("Server that restarts after an exit in any message of a session", () => {
  interface Cut {
    /** The number of whole lines that the client receives. */
    readonly after: number
    /** Whether the client receives half of the next line. */
    readonly half: boolean
  }

  /** Kills the server of each connection at its cut. */
  const killAt = (cuts: ReadonlyArray<Cut>) =>
    Layer.effect(
      Transport.Transport,
      Effect.gen(function*() {
        const { connect } = yield* Transport.Transport
        const server = yield* FakeAppServer.FakeAppServer
        let connections = 0
        return {
          connect: Effect.map(connect, ({ incoming, send }) => {
            const cut = cuts[connections++]
            let received = 0
            return {
              send,
              incoming: cut === undefined ? incoming : Stream.mapEffect(
                incoming,
                (line) =>
                  received++ < cut.after ? Effect.succeed(line) : Effect.andThen(
                    server.exit({ signal: "SIGKILL" }),
                    cut.half ? Effect.succeed(line.slice(0, line.length / 2)) : Effect.fail(killed)
                  )
              )
            }
          })
        }
      })
    )

  const session = Effect.gen(function*() {
    const codex = yield* Codex.Codex
    const server = yield* AppServer.AppServer
    const fake = yield* FakeAppServer.FakeAppServer
    const failures: Array<string> = []
    const attempt = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.map(Effect.exit(effect), (exit) => {
        if (Exit.isSuccess(exit)) return exit.value
        const error = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
        failures.push(`${getReason(exit)}: ${error instanceof Error ? error.message : ""}`)
        return undefined
      })
    // The server stores a thread with its first turn, so a lost thread is started again.
    const thread = yield* Effect.retry(
      Effect.tap(codex.startThread(), (thread) => thread.run("first")),
      { times: 5 }
    )
    yield* attempt(thread.run("second"))
    yield* attempt(Stream.runDrain(thread.stream("third")))
    yield* attempt(Effect.forEach([1, 2, 3], () => Stream.runCollect(codex.models()), { concurrency: 3 }))
    yield* attempt(thread.setName("name"))
    yield* attempt(Effect.scoped(Effect.flatMap(thread.turn("fourth"), (turn) => Effect.ignore(turn.interrupt))))
    // The thread is usable after each failure.
    const last = yield* Effect.retry(thread.run("last"), { times: 5 })
    // The cut may follow the last message.
    yield* Stream.runHead(Stream.filter(server.states, ({ _tag }) => _tag === "Ready"))
    return {
      failures,
      last: last.finalResponse,
      starts: (yield* fake.sent).filter(({ method }) => method === "turn/start").map(({ params }) =>
        JSON.stringify(params?.["input"])
      )
    }
  })

  const run = (...cuts: ReadonlyArray<Cut>) =>
    session.pipe(
      Effect.provide(
        Codex.layer.pipe(
          Layer.provideMerge(AppServer.layer({ restart: Schedule.spaced("1 milli") })),
          Layer.provide(killAt(cuts)),
          Layer.provideMerge(FakeAppServer.layer())
        )
      ),
      Effect.provide(Logger.layer([])),
      Effect.timeout("5 seconds")
    )

  // A cut before the first line would fail the layer.
  const cuts = Array.from({ length: 45 / step }, (_, index) => 1 + step * index)

  for (const half of [false, true]) {
    for (const connections of [1, 3]) {
      it.live(
        `continues after ${connections} exit(s) ${half ? "within" : "before"} a message, and starts no turn twice`,
        () =>
          Effect.gen(function*() {
            for (const after of cuts) {
              const at = `cut after ${after} messages`
              const { failures, last, starts } = yield* run(
                ...Array.from({ length: connections }, () => ({ after, half }))
              )
              assert.strictEqual(last, "last", at)
              for (const failure of failures) assert.match(failure, /^(ConnectionClosed|TurnLost):/, at)
              for (const text of ["second", "third", "fourth"]) {
                assert.isAtMost(starts.filter((start) => start?.includes(`"${text}"`)).length, 1, at)
              }
            }
          }),
        60_000
      )
    }
  }
})
