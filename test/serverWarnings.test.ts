import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, Codex, type Protocol } from "effect-codex"
import { CodexEnvironment } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Stream from "effect/Stream"
import * as Fake from "./FakeTransport.ts"
import * as TestCodex from "./TestCodex.ts"
import { collectWarnings } from "./warnings.ts"

const thread = "thread-7"
const turn = "turn-8"
const error = {
  message: "Reconnecting... 1/5",
  codexErrorInfo: { responseStreamDisconnected: { httpStatusCode: null } },
  additionalDetails: "connection reset"
}
const hook = {
  id: "h",
  completedAt: null,
  displayOrder: 0,
  durationMs: null,
  entries: [{ kind: "warning", text: "the linter is old" }, { kind: "context", text: "only for the model" }],
  eventName: "stop",
  executionMode: "sync",
  handlerType: "command",
  scope: "turn",
  source: "user",
  sourcePath: "/hooks.json",
  startedAt: 1,
  status: "completed",
  statusMessage: null
}

/** Notifications with a message for a person, and parts of the log line. */
const logged: ReadonlyArray<
  readonly [method: keyof Protocol.ServerNotifications, params: object, parts: Array<string>]
> = [
  ["error", { error, threadId: thread, turnId: turn, willRetry: true }, [
    thread,
    turn,
    "Reconnecting... 1/5",
    "connection reset"
  ]],
  ["warning", { message: "the disk is full", threadId: thread }, [thread, "the disk is full"]],
  ["warning", { message: "skills were left out" }, ["skills were left out"]],
  ["guardianWarning", { message: "the review failed", threadId: thread }, [thread, "the review failed"]],
  ["deprecationNotice", { summary: "x is deprecated", details: "use y" }, ["x is deprecated. use y"]],
  [
    "configWarning",
    {
      summary: "unknown key",
      details: "did you mean z?",
      path: "/home/config.toml",
      range: { start: { line: 3, column: 1 }, end: { line: 3, column: 2 } }
    },
    ["/home/config.toml:3", "unknown key. did you mean z?"]
  ],
  ["mcpServer/startupStatus/updated", { name: "files", status: "failed", error: "no such file", threadId: thread }, [
    thread,
    "files",
    "no such file"
  ]],
  [
    "mcpServer/startupStatus/updated",
    { name: "mail", status: "failed", error: null, failureReason: "reauthenticationRequired" },
    ["codex mcp login mail"]
  ],
  ["mcpServer/oauthLogin/completed", { name: "files", success: false, error: "denied", threadId: thread }, [
    thread,
    "files",
    "denied"
  ]],
  ["account/login/completed", { success: false, error: "it was canceled", loginId: "l" }, ["it was canceled"]],
  ["account/gatewayOAuth/changed", { providerId: "gateway", status: "failed", error: "expired" }, [
    "gateway",
    "expired"
  ]],
  ["modelProvider/authRecoveryStarted", { message: "unauthorized", provider: "p", threadId: thread, turnId: turn }, [
    thread,
    turn,
    "unauthorized"
  ]],
  [
    "model/rerouted",
    { fromModel: "big", toModel: "small", reason: "highRiskCyberActivity", threadId: thread, turnId: turn },
    [thread, turn, "`small` instead of `big`"]
  ],
  ["model/verification", { verifications: ["trustedAccessForCyber"], threadId: thread, turnId: turn }, [
    thread,
    "trustedAccessForCyber"
  ]],
  ["hook/completed", { run: hook, threadId: thread }, [thread, "the linter is old"]],
  ["hook/completed", { run: { ...hook, entries: [], status: "failed", statusMessage: "exit 1" }, threadId: thread }, [
    thread,
    "exit 1"
  ]],
  ["thread/environment/disconnected", { environmentId: "remote", threadId: thread }, [thread, "remote"]],
  ["thread/realtime/error", { message: "no microphone", threadId: thread }, [thread, "no microphone"]],
  [
    "remoteControl/status/changed",
    { serverName: "vm", status: "errored", installationId: "i", environmentId: null },
    ["vm"]
  ],
  ["windows/worldWritableWarning", { extraCount: 2, failedScan: true, samplePaths: ["C:\\tmp"] }, [
    "C:\\tmp and 2 more"
  ]],
  ["windowsSandbox/setupCompleted", { mode: "elevated", success: false, error: "no rights" }, ["no rights"]]
]

/** Notifications without a message for a person. */
const silent: ReadonlyArray<readonly [method: keyof Protocol.ServerNotifications, params: object]> = [
  ["error", { error, threadId: thread, turnId: turn, willRetry: false }],
  ["mcpServer/startupStatus/updated", { name: "files", status: "starting" }],
  ["mcpServer/startupStatus/updated", { name: "files", status: "ready" }],
  ["mcpServer/startupStatus/updated", { name: "files", status: "cancelled" }],
  ["mcpServer/oauthLogin/completed", { name: "files", success: true }],
  ["account/login/completed", { success: true, error: null, loginId: "l" }],
  ["account/gatewayOAuth/changed", { providerId: "gateway", status: "succeeded" }],
  ["hook/completed", { run: { ...hook, entries: [{ kind: "context", text: "for the model" }] }, threadId: thread }],
  ["remoteControl/status/changed", { serverName: "vm", status: "disabled", installationId: "i", environmentId: null }],
  ["windowsSandbox/setupCompleted", { mode: "elevated", success: true }],
  ["modelProvider/authRecoveryCompleted", { message: "renewed", provider: "p", threadId: thread, turnId: turn }],
  ["account/updated", { authMode: null, planType: null }],
  ["thread/closed", { threadId: thread }]
]

const appServer = AppServer.layer().pipe(Layer.provideMerge(Fake.layer))

/** Sends messages to the client, and waits until it has processed them. */
const emit = Effect.fnUntraced(function*(...messages: ReadonlyArray<object>) {
  const fake = yield* Fake.FakeTransport
  const server = yield* AppServer.AppServer
  yield* fake.emit(...messages)
  for (let round = 0; round < 2; round++) {
    const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
    yield* fake.reply(yield* fake.takeMethod("thread/loaded/list"), { data: [] })
    yield* Fiber.join(request)
  }
})

describe("Warning of the server", () => {
  for (const [method, params, parts] of logged) {
    it.effect(`is logged once at Warn: ${method} with ${parts.join(", ")}`, () =>
      Effect.suspend(() => {
        const { logger, warnings } = collectWarnings()
        return Effect.gen(function*() {
          yield* emit({ method, params }, { method, params })
          yield* emit({ method, params })
          assert.lengthOf(warnings, 1)
          for (const part of parts) assert.include(warnings[0], part)
        }).pipe(Effect.provide(Layer.provideMerge(appServer, logger)))
      }))
  }

  it.effect("is not logged for notifications without a message for a person", () =>
    Effect.suspend(() => {
      const { logger, warnings } = collectWarnings()
      return Effect.gen(function*() {
        for (const [method, params] of silent) yield* emit({ method, params })
        assert.deepStrictEqual(warnings, [])
      }).pipe(Effect.provide(Layer.provideMerge(appServer, logger)))
    }))

  it.effect("is logged once for each thread", () =>
    Effect.suspend(() => {
      const { logger, containing, warnings } = collectWarnings()
      return Effect.gen(function*() {
        const warning = (threadId: string) => ({ method: "warning", params: { message: "slow", threadId } })
        yield* emit(warning("a"), warning("b"), warning("a"))
        assert.lengthOf(warnings, 2)
        assert.lengthOf(containing("thread `a`"), 1)
        assert.lengthOf(containing("thread `b`"), 1)
      }).pipe(Effect.provide(Layer.provideMerge(appServer, logger)))
    }))

  it.effect("is truncated, and remembered among a limited number of warnings", () =>
    Effect.suspend(() => {
      const { logger, containing, warnings } = collectWarnings()
      const warning = (message: string) => ({ method: "warning", params: { message } })
      return Effect.gen(function*() {
        yield* emit(warning("the first"), warning("x".repeat(1_000_000)))
        assert.isBelow(warnings.at(-1)!.length, 2100)
        yield* emit(...Array.from({ length: 1000 }, (_, index) => warning(`number ${index}`)))
        yield* emit(warning("number 999"), warning("the first"))
        assert.lengthOf(containing("number 999"), 1)
        assert.lengthOf(containing("the first"), 2)
      }).pipe(Effect.provide(Layer.provideMerge(appServer, logger)))
    }))

  it.effect("is logged without secrets, and published as a notification", () =>
    Effect.suspend(() => {
      const { logger, warnings } = collectWarnings()
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const published = yield* Effect.forkChild(Stream.runHead(server.notifications), { startImmediately: true })
        const params = { message: "the password hunter2 is weak" }
        yield* emit({ method: "warning", params })
        assert.deepStrictEqual(warnings, ["codex app-server warns: the password <redacted> is weak"])
        assert.deepInclude(yield* Fiber.join(published), { value: { method: "warning", params } })
      }).pipe(
        Effect.provide(
          AppServer.layer().pipe(
            Layer.provide(Fake.layerRedacting),
            Layer.provideMerge(Fake.layer),
            Layer.provideMerge(logger)
          )
        )
      )
    }))

  it.effect("is logged with its text although it does not decode", () =>
    Effect.suspend(() => {
      const { logger, containing } = collectWarnings()
      return Effect.gen(function*() {
        yield* emit({ method: "configWarning", params: { summary: "it is new", range: "all of it" } })
        assert.lengthOf(containing("it is new"), 1)
      }).pipe(Effect.provide(Layer.provideMerge(appServer, logger)))
    }))

  it.effect("is silenced by the minimum log level", () =>
    Effect.suspend(() => {
      const { logger, warnings } = collectWarnings()
      return emit({ method: "warning", params: { message: "slow" } }).pipe(
        Effect.andThen(Effect.sync(() => assert.deepStrictEqual(warnings, []))),
        Effect.provide(appServer.pipe(Layer.provide(Layer.succeed(References.MinimumLogLevel, "Error")))),
        Effect.provide(logger)
      )
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Real server", (it) => {
  it.effect(
    "warns about its configuration once, before any subscriber and after a restart",
    () =>
      Effect.suspend(() => {
        const { awaitContaining, logger, containing } = collectWarnings()
        return Effect.gen(function*() {
          const environment = yield* CodexEnvironment.CodexEnvironment
          yield* environment.writeConfig({ sandbox_mod: "read-only" })
          yield* Effect.gen(function*() {
            const server = yield* AppServer.AppServer
            yield* awaitContaining("about its configuration: Codex is ignoring 1 unrecognized")
            yield* TestCodex.restartServer
            yield* server.request("thread/loaded/list")
            assert.lengthOf(containing("about its configuration: Codex is ignoring 1 unrecognized"), 1)
          }).pipe(Effect.provide(Layer.provideMerge(TestCodex.layerProcess({ restart: true }), logger)))
          yield* environment.writeConfig({ sandbox_mod: undefined })
        })
      }),
    30_000
  )

  it.effect("warns about an MCP server that does not start, with the thread id", () =>
    Effect.suspend(() => {
      const { awaitContaining, logger } = collectWarnings()
      return Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const { id } = yield* codex.startThread({
          config: { mcp_servers: { broken: { command: "/no/such/program", args: [] } } }
        })
        const [warning] = yield* awaitContaining("MCP server `broken`")
        assert.include(warning, id)
        assert.include(warning, "failed to start")
        assert.include(warning, "No such file")
      }).pipe(Effect.provide(Layer.provideMerge(TestCodex.layerProcess(), logger)))
    }))

  it.effect("warns once that a request with the full history is deprecated", () =>
    Effect.suspend(() => {
      const { awaitContaining, logger, containing } = collectWarnings()
      return Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const server = yield* AppServer.AppServer
        const thread = yield* TestCodex.startStoredThread()
        yield* codex.resumeThread(thread.id)
        assert.lengthOf(containing("deprecat"), 0)
        yield* server.request("thread/resume", { threadId: thread.id })
        yield* server.request("thread/resume", { threadId: thread.id })
        assert.lengthOf(yield* awaitContaining("deprecation"), 1)
      }).pipe(Effect.provide(Layer.provideMerge(TestCodex.layerProcess(), logger)))
    }))
})
