import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, Codex, StdioTransport, Transport } from "effect-codex"
import { Cassette, CodexEnvironment, FakeAppServer, TestCodex as Kit } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Fake from "./FakeTransport.ts"
import * as TestCodex from "./TestCodex.ts"
import { collectWarnings } from "./warnings.ts"

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Login", (it) => {
  const withoutLogin = { config: { model_provider: "openai" } }

  /** Waits until `Codex.layer` has received the response to its check. */
  const awaitCheck = Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    const wire = yield* TestCodex.Wire
    const check = yield* wire.awaitSent(({ method }) => method === "account/read")
    yield* wire.awaitReceived(({ id, method }) => method === undefined && id === check.id)
    // The response to this request is processed after the response to the check.
    yield* server.request("thread/loaded/list")
  })

  it.effect("is reported as missing once, with a remedy, for all Codex layers on a server", () =>
    Effect.suspend(() => {
      const { awaitContaining, logger, containing } = collectWarnings()
      const server = TestCodex.layerProcess(withoutLogin)
      return Effect.gen(function*() {
        const { codexHome } = yield* CodexEnvironment.CodexEnvironment
        const [warning] = yield* awaitContaining("not logged in")
        for (const part of ["codex login", "API key", "model_provider", codexHome]) assert.include(warning, part)
        for (let round = 0; round < 2; round++) {
          yield* Effect.provide(
            Effect.flatMap(AppServer.AppServer, (server) => server.request("thread/loaded/list")),
            Codex.layer,
            { local: true }
          )
        }
        const wire = yield* TestCodex.Wire
        assert.lengthOf((yield* wire.sent).filter(({ method }) => method === "account/read"), 1)
        assert.lengthOf(containing("not logged in"), 1)
      }).pipe(Effect.provide(Layer.provideMerge(server, logger)))
    }))

  it.effect("is not reported if it is stored, not needed, or without Codex.layer", () =>
    Effect.suspend(() => {
      const { logger, containing } = collectWarnings()
      const environment = CodexEnvironment.CodexEnvironment
      return Effect.gen(function*() {
        // The provider of the tests needs no login.
        yield* Effect.provide(awaitCheck, TestCodex.layerProcess())
        // `AppServer.layer` alone does not check.
        const { env, workspace } = yield* environment
        const transport = StdioTransport.layer({ ...withoutLogin, env, cwd: workspace, codexPath: TestCodex.codexPath })
        yield* Effect.provide(
          Effect.flatMap(AppServer.AppServer, (server) => server.request("account/read", {})),
          AppServer.layer().pipe(Layer.provide(transport))
        )
        // An API key is stored.
        yield* Effect.provide(
          Effect.flatMap(AppServer.AppServer, (server) =>
            server.request("account/login/start", { type: "apiKey", apiKey: "sk-of-this-test" })),
          AppServer.layer().pipe(Layer.provide(transport))
        )
        yield* Effect.provide(awaitCheck, TestCodex.layerProcess(withoutLogin))
        assert.deepStrictEqual(containing("not logged in"), [])
      }).pipe(Effect.provide(logger))
    }))

  it.effect("is absent from a recording, unless the program reads it", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const path = `${root}/login.jsonl`
      const codex = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()))
      const program = Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        yield* server.request("account/read", {})
        return yield* server.request("thread/loaded/list")
      })
      yield* Effect.provide(
        program,
        codex.pipe(Layer.provide(Cassette.record(path)), Layer.provide(Kit.layerTransport()))
      )
      const recorded = yield* fs.readFileString(path)
      assert.lengthOf(recorded.match(/account\/read/g) ?? [], 1)
      assert.lengthOf(recorded.match(/requiresOpenaiAuth/g) ?? [], 1)
      assert.deepStrictEqual(
        (yield* Effect.provide(program, codex.pipe(Layer.provide(Cassette.replay(path))))).data,
        []
      )
    }))
})

describe("Check of the login", () => {
  it.effect("does not delay other requests when the server does not respond to it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* fake.reply(yield* fake.takeMethod("thread/loaded/list"), { data: [] })
      assert.deepStrictEqual((yield* Fiber.join(request)).data, [])
      yield* TestClock.adjust("5 minutes")
      assert.deepInclude(yield* server.state, { _tag: "Ready" })
    }).pipe(
      Effect.provide(
        Codex.layer.pipe(
          Layer.provideMerge(AppServer.layer({ maxInFlight: 1 })),
          Layer.provide(Layer.effect(
            Transport.Transport,
            Effect.map(Transport.Transport, ({ connect }) => ({
              connect: Effect.map(connect, ({ incoming, send }) => ({
                incoming,
                send: (line: string) => line.includes("account/read") ? Effect.void : send(line)
              }))
            }))
          )),
          Layer.provideMerge(Fake.layer)
        )
      )
    ))

  it.effect("is absent from the messages that a fake server received", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* FakeAppServer.FakeAppServer
      yield* (yield* codex.startThread()).run("go")
      assert.notInclude((yield* fake.sent).map(({ method }) => method), "account/read")
    }).pipe(
      Effect.provide(
        Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(FakeAppServer.layer()))
      )
    ))
})
