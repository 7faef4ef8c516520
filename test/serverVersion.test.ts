import { assert, describe, it } from "@effect/vitest"
import { AppServer, AppServerError, Protocol } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Fake from "./FakeTransport.ts"

const layerOf = (versions: ReadonlyArray<string>, options?: AppServer.Options) =>
  Layer.provideMerge(AppServer.layer(options), Fake.layerOf(...versions))

/** Connects, and returns how that went and what was logged. */
const connect = Effect.fnUntraced(function*(version: string, options?: AppServer.Options) {
  const logs: Array<string> = []
  const exit = yield* Effect.exit(Effect.scoped(Layer.build(layerOf([version], options)))).pipe(
    Effect.provide(Logger.layer([Logger.make(({ logLevel, message }) => void logs.push(`${logLevel} ${message}`))]))
  )
  return { exit, logs }
})

describe("the version of the server", () => {
  for (const version of ["0.165.9", "0.165.0-alpha.1", "0.60.1", "0.162.1"]) {
    it.effect(`refuses ${version}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(layerOf([version]))))
        assert.deepInclude(error.reason, { _tag: "UnsupportedServer", serverVersion: version, floor: "0.166.0" })
        for (const part of [version, "0.166.0", "allowUnsupportedServer"]) assert.include(error.message, part)
      }))

    it.effect(`connects to ${version} with allowUnsupportedServer, and warns`, () =>
      Effect.gen(function*() {
        const { exit, logs } = yield* connect(version, { allowUnsupportedServer: true })
        assert.isTrue(Exit.isSuccess(exit))
        assert.lengthOf(logs, 1)
        assert.include(logs[0], `Warn Connected to codex app-server ${version},`)
        assert.include(logs[0], "permissions")
      }))
  }

  for (const version of ["0.166.0", "0.166.0-alpha.1", "0.168.2", "0.169.0-alpha.3", "0.170.0", "1.0.0"]) {
    it.effect(`connects to ${version}, and warns that it is not the one that the protocol was generated from`, () =>
      Effect.gen(function*() {
        const { exit, logs } = yield* connect(version)
        assert.isTrue(Exit.isSuccess(exit))
        assert.lengthOf(logs, 1)
        for (const part of ["Warn", version, Protocol.version]) assert.include(logs[0], part)
      }))
  }

  for (const version of [Protocol.version, "0.0.0", "0.0.0-dev", "dev", "2026-11-25", "0.166"]) {
    it.effect(`connects to ${version} without a warning`, () =>
      Effect.gen(function*() {
        const { exit, logs } = yield* connect(version)
        assert.isTrue(Exit.isSuccess(exit))
        assert.deepStrictEqual(logs, [])
      }))
  }

  const restart = Schedule.recurs(2)

  it.effect("is checked again after each restart", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      yield* fake.end()
      yield* Stream.runDrain(server.states)
      const { reason } = yield* Effect.flip(server.request("model/list"))
      assert(reason._tag === "RestartsExhausted")
      assert.isTrue(AppServerError.isAppServerError(reason.cause))
      assert.include(reason.message, "codex app-server 0.150.0 is not supported")
    }).pipe(Effect.provide(layerOf(["0.169.0", "0.150.0"], { restart }))))

  it.effect("is warned of once, however often the server is restarted", () => {
    const logs: Array<string> = []
    return Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const restarted = Stream.runHead(
        Stream.filter(server.notifications, ({ method }) => (method as string) === "effect-codex/restarted")
      )
      for (let i = 0; i < 2; i++) {
        yield* Effect.all([restarted, fake.end()], { concurrency: "unbounded" })
      }
      assert.lengthOf(logs, 1)
    }).pipe(
      Effect.provide(layerOf(["0.168.0", "0.167.0", "0.170.0"], { restart: Schedule.recurs(5) })),
      Effect.provide(Logger.layer([Logger.make(({ message }) => void logs.push(String(message)))]))
    )
  })
})
