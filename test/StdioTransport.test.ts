import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { fileURLToPath } from "node:url"
import * as AppServer from "../src/AppServer.ts"
import type { AppServerError } from "../src/AppServerError.ts"
import * as StdioTransport from "../src/StdioTransport.ts"
import * as CodexEnvironment from "../src/testing/CodexEnvironment.ts"
import * as Kit from "../src/testing/TestCodex.ts"
import { poll } from "./poll.ts"
import { codexPath, version } from "./TestCodex.ts"

const fakePath = fileURLToPath(new URL("fixtures/fake-app-server.mjs", import.meta.url))

const layer = (options: StdioTransport.Options & AppServer.Options) =>
  AppServer.layer(options).pipe(Layer.provide(StdioTransport.layer(options)), Layer.provide(NodeServices.layer))

const fake = (mode: string, options: StdioTransport.Options & AppServer.Options = {}) =>
  layer({ ...options, codexPath: fakePath, env: { FAKE_MODE: mode, ...options.env } })

/** The real binary in a temporary home. */
const real = (options: StdioTransport.Options & AppServer.Options = {}) =>
  Layer.unwrap(
    Effect.map(CodexEnvironment.CodexEnvironment, ({ env, workspace }) =>
      layer({ cwd: workspace, codexPath, ...options, env }))
  ).pipe(
    Layer.provide(Layer.orDie(CodexEnvironment.layer())),
    Layer.provide(Kit.layerModelServer),
    Layer.provide(NodeServices.layer)
  )

const buildError = (server: Layer.Layer<AppServer.AppServer, AppServerError>) =>
  Effect.flip(Effect.scoped(Layer.build(server)))

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Starts a fake in a new scope. Returns the scope, and the pids of the fake and its descendants. */
const startFake = Effect.fnUntraced(function*(mode: string, options: StdioTransport.Options = {}) {
  const fs = yield* FileSystem.FileSystem
  const file = yield* fs.makeTempFileScoped()
  const scope = yield* Scope.make()
  yield* Layer.buildWithScope(fake(mode, { ...options, env: { FAKE_PIDS: file } }), scope)
  const pids: Array<number> = JSON.parse(yield* fs.readFileString(file))
  return { scope, pids }
})

const awaitExits = (pids: ReadonlyArray<number>) =>
  poll(Effect.sync(() => pids.filter(isAlive)), (alive) => alive.length === 0, "the exit of all processes")

/** Waits until a process leads its own group and has a child that is a zombie. */
const awaitZombie = Effect.fnUntraced(function*(parent: number) {
  const fs = yield* FileSystem.FileSystem
  const stat = (pid: string | number) =>
    Effect.map(fs.readFileString(`/proc/${pid}/stat`), (text) => text.slice(text.lastIndexOf(")") + 2).split(" "))
  const isReady = Effect.gen(function*() {
    const [, , group] = yield* stat(parent)
    const child = (yield* fs.readFileString(`/proc/${parent}/task/${parent}/children`)).trim()
    return group === String(parent) && child !== "" && (yield* stat(child))[0] === "Z"
  })
  yield* poll(isReady, (isReady) => isReady, "a zombie in a process group")
})

describe("StdioTransport", () => {
  describe("failure to start", () => {
    it.live("fails with SpawnFailed if the binary does not exist", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(layer({ codexPath: "/nowhere/codex" }))
        assert(reason._tag === "SpawnFailed")
        assert.strictEqual(reason.command, "/nowhere/codex")
        assert.include(reason.message, "/nowhere/codex")
      }))

    it.live("fails with SpawnFailed if the file is not executable", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(layer({ codexPath: fileURLToPath(import.meta.url) }))
        assert.strictEqual(reason._tag, "SpawnFailed")
      }))

    it.live("fails without the configuration in the error if the binary is a directory", () =>
      Effect.gen(function*() {
        const error = yield* buildError(layer({ codexPath: "/tmp", config: { token: "SECRETCFG" } }))
        assert.strictEqual(error.reason._tag, "SpawnFailed")
        assert.notInclude(`${error.message} ${JSON.stringify(error)} ${error.stack}`, "SECRETCFG")
      }))

    it.live("fails with SpawnFailed for too many arguments, and for a value that TOML does not have", () =>
      Effect.gen(function*() {
        const long = yield* buildError(fake("", { args: ["x".repeat(3_000_000)] }))
        assert.strictEqual(long.reason._tag, "SpawnFailed")
        const odd = yield* buildError(fake("", { config: { key: null as never } }))
        assert(odd.reason._tag === "SpawnFailed")
        assert.include(odd.message, "TOML has no null")
      }))

    it.live("fails with SpawnFailed if the working directory does not exist", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(fake("", { cwd: "/nowhere/at/all" }))
        assert(reason._tag === "SpawnFailed")
        assert.include(reason.message, "the working directory `/nowhere/at/all` does not exist")
      }))

    it.live("reports stderr when the real server refuses the configuration", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(real({ config: { approval_policy: "untrusted" } }))
        assert(reason._tag === "ConnectionClosed")
        assert.strictEqual(reason.exitCode, 1)
        assert.include(reason.stderrTail, "untrusted")
        assert.include(reason.message, "exited with code 1")
      }))

    it.live("names the binary in the error when it is not Codex", () =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const script = yield* fs.makeTempFileScoped()
        yield* fs.writeFileString(script, "#!/bin/sh\necho 'usage: tool [options]'\n")
        yield* fs.chmod(script, 0o755)
        for (
          const [codexPath, says] of [
            ["/bin/true", "`/bin/true` exited with code 0 before it sent anything"],
            ["/bin/cat", "`/bin/cat` exited with code 1 before it sent anything"],
            [script, `\`${script}\` exited with code 0`]
          ] as const
        ) {
          const { reason } = yield* buildError(layer({ codexPath }))
          assert(reason._tag === "ConnectionClosed")
          assert.include(reason.message, says)
        }
      }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))

    it.live("reports the exit code and stderr of a server that exits before its first response", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(fake("exit-early"))
        assert(reason._tag === "ConnectionClosed")
        assert.deepInclude(reason, { exitCode: 3, signal: undefined, stderrTail: "config is bad" })
      }))

    it.live("fails with RequestTimeout when the server does not respond, and leaves no process", () =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const file = yield* fs.makeTempFileScoped()
        const { reason } = yield* buildError(fake("mute", { requestTimeout: "1 second", env: { FAKE_PIDS: file } }))
        assert(reason._tag === "RequestTimeout")
        assert.strictEqual(reason.method, "initialize")
        yield* awaitExits(JSON.parse(yield* fs.readFileString(file)))
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live("fails with InitializeFailed when the response has no server name", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(fake("nameless"))
        assert(reason._tag === "InitializeFailed")
      }))

    it.live("fails with InitializeFailed when the server refuses the client", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(fake("refuse"))
        assert(reason._tag === "InitializeFailed")
        assert.include(reason.message, "Invalid clientInfo.name")
      }))
  })

  describe("start", () => {
    it.live("runs the binary that npm installed, with configuration overrides", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        assert.strictEqual(server.metadata.serverVersion, version)
        const { config } = yield* server.request("config/read", {})
        assert.strictEqual(config.model, "quo\"ted = é")
        assert.deepStrictEqual(config.sandbox_workspace_write?.writable_roots, ["/a b", "/c"])
        assert.strictEqual(config.sandbox_workspace_write?.network_access, true)
      }).pipe(Effect.provide(real({
        config: {
          model: "quo\"ted = é",
          sandbox_workspace_write: { writable_roots: ["/a b", "/c"] },
          "sandbox_workspace_write.network_access": true
        }
      }))))

    it.live("passes the arguments in order", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const response = yield* server.requestRaw("model/list", {})
        assert.deepPropertyVal(response, "args", [
          "-c",
          "a=1",
          "-c",
          "b.c=[true]",
          "app-server",
          "-c",
          "thread_unload_delay_secs=0",
          "--more"
        ])
      }).pipe(Effect.provide(fake("", { config: { a: 1, "b.c": [true] }, args: ["--more"] }))))

    it.live("keeps the `thread_unload_delay_secs` of the option `config`", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const response = yield* server.requestRaw("model/list", {})
        assert.deepPropertyVal(response, "args", ["-c", "thread_unload_delay_secs=9", "app-server"])
      }).pipe(Effect.provide(fake("", { config: { thread_unload_delay_secs: 9 } }))))
  })

  describe("reading", () => {
    it.live("skips lines that are not messages", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        assert.deepStrictEqual((yield* server.request("model/list")).data, [])
      }).pipe(Effect.provide(fake("junk"))))

    it.live("reads a line of 20 MB", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const response = yield* server.requestRaw("model/list", {})
        assert.propertyVal(response, "pad", "é".repeat(10 * 1024 * 1024))
      }).pipe(Effect.provide(fake("big-line"))))

    it.live("ends the connection at a line over the limit", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const { reason } = yield* Effect.flip(server.request("model/list"))
        assert(reason._tag === "ConnectionClosed")
        assert.include(reason.message, "more than 1000 bytes")
      }).pipe(Effect.provide(fake("big-line", { maxLineBytes: 1000 }))))

    it.live("delivers the lines before a line over the limit, and none after it", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const before = yield* Effect.forkChild(server.request("model/list"))
        yield* Effect.yieldNow
        assert.include((yield* Effect.flip(server.request("thread/loaded/list"))).message, "more than 1000 bytes")
        assert.deepStrictEqual((yield* Fiber.join(before)).data, [])
      }).pipe(Effect.provide(fake("long-between", { maxLineBytes: 1000 }))))

    it.live("reads a flood of stderr, and logs each line at debug level", () => {
      let lines = 0
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        yield* server.request("model/list")
        yield* poll(Effect.sync(() => lines), (count) => count >= 20_000, "20,000 lines of stderr")
      }).pipe(
        Effect.provide(fake("stderr-flood")),
        Effect.provide(Logger.layer([Logger.make(({ logLevel, message }) => {
          if (logLevel === "Debug" && String(message).startsWith("line ")) lines++
        })])),
        Effect.provideService(References.MinimumLogLevel, "Debug")
      )
    })
  })

  describe("end of the process", () => {
    it.live("reports the signal of a server that is killed within a line", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const { reason } = yield* Effect.flip(server.request("model/list"))
        assert(reason._tag === "ConnectionClosed")
        assert.deepInclude(reason, { exitCode: undefined, signal: "SIGKILL" })
        assert.include(reason.message, "killed by SIGKILL")
        const later = yield* Effect.flip(server.request("model/list"))
        assert.deepStrictEqual(later.reason, reason)
      }).pipe(Effect.provide(fake("half-line"))))

    it.live("delivers the last response before the end", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        assert.deepStrictEqual((yield* server.request("model/list")).data, [])
        yield* Effect.flip(server.request("model/list")).pipe(
          Effect.repeat({ until: ({ reason }) => reason._tag === "ConnectionClosed" && reason.exitCode === 7 }),
          Effect.timeout("5 seconds")
        )
      }).pipe(Effect.provide(fake("last-words"))))

    for (const held of ["stderr", "all"]) {
      it.live(`reports the signal at once, although a child holds ${held === "all" ? "all pipes" : "stderr"} open`, () =>
        Effect.gen(function*() {
          const fs = yield* FileSystem.FileSystem
          const file = yield* fs.makeTempFileScoped()
          const context = yield* Layer.build(
            fake(`last-word-then-killed grandchild holds-${held}`, {
              killTimeout: "100 millis",
              env: { FAKE_PIDS: file }
            })
          )
          const server = yield* Effect.provide(AppServer.AppServer, context)
          assert.deepStrictEqual((yield* server.request("model/list")).data, [])
          const [duration, { reason }] = yield* Effect.timed(Effect.flip(server.request("model/list")))
          assert(reason._tag === "ConnectionClosed")
          assert.strictEqual(reason.signal, "SIGKILL")
          // It takes about 40 ms on an idle machine.
          assert.isBelow(Duration.toMillis(duration), 900)
        }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)))
    }

    it.live("fails a request in flight when the real server is killed", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const { process: { id } } = yield* server.request("server/diagnostics")
        const waiting = yield* Effect.forkChild(
          Effect.flip(
            server.request("command/exec", { command: ["sleep", "30"], sandboxPolicy: { type: "dangerFullAccess" } })
          )
        )
        yield* Effect.yieldNow
        yield* server.request("thread/loaded/list")
        process.kill(id, "SIGKILL")
        const { reason } = yield* Fiber.join(waiting)
        assert(reason._tag === "ConnectionClosed")
        assert.strictEqual(reason.signal, "SIGKILL")
      }).pipe(Effect.provide(real())))

    it.live("removes secrets from stderr", () =>
      Effect.gen(function*() {
        const { reason } = yield* buildError(
          fake("secrets exit-early", { env: { MY_KEY: Redacted.make("correct horse battery") } })
        )
        assert(reason._tag === "ConnectionClosed")
        assert.include(reason.stderrTail, "config is bad")
        for (const secret of ["correct horse battery", "abc.def.ghi", "hunter2", "sk-abcdefghijklmnop"]) {
          assert.notInclude(`${reason.message} ${JSON.stringify(reason)}`, secret)
        }
      }))

    it.live("removes secrets from a refusal and from the server's name", () =>
      Effect.gen(function*() {
        for (const mode of ["refuse-key", "named-key"]) {
          const key = mode === "named-key" ? "correct_horse_battery" : "correct horse battery"
          const { reason } = yield* buildError(fake(mode, { env: { MY_KEY: Redacted.make(key) } }))
          assert(reason._tag === "InitializeFailed")
          assert.include(reason.message, "<redacted>")
          assert.notInclude(`${reason.message} ${JSON.stringify(reason)}`, key)
        }
      }))
  })

  describe("cleanup", () => {
    it.live("waits for the process to exit when the scope closes", () =>
      Effect.gen(function*() {
        const { pids, scope } = yield* startFake("")
        assert.isTrue(pids.every(isAlive))
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(pids.filter(isAlive), [])
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live("kills a server and its child that ignore the end of stdin and SIGTERM", () =>
      Effect.gen(function*() {
        const { pids, scope } = yield* startFake("stubborn grandchild", {
          closeTimeout: "200 millis",
          killTimeout: "200 millis"
        })
        assert.strictEqual(pids.length, 2)
        yield* Scope.close(scope, Exit.void)
        yield* awaitExits(pids)
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live("kills the child of a server that was killed", () =>
      Effect.gen(function*() {
        const { pids, scope } = yield* startFake("grandchild", { killTimeout: "200 millis" })
        process.kill(pids[0]!, "SIGKILL")
        yield* Scope.close(scope, Exit.void)
        yield* awaitExits(pids)
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live.skipIf(process.platform !== "linux")(
      "does not wait for a zombie in the process group",
      () =>
        Effect.gen(function*() {
          const { pids, scope } = yield* startFake("zombie", { closeTimeout: "10 seconds", killTimeout: "10 seconds" })
          const parent = pids[1]!
          yield* Effect.addFinalizer(() => Effect.sync(() => process.kill(parent, "SIGKILL")))
          yield* awaitZombie(parent)
          const [duration] = yield* Effect.timed(Scope.close(scope, Exit.void))
          // It takes less than 100 ms. The spawner alone would wait for the kill timeout.
          assert.isBelow(Duration.toSeconds(duration), 5)
        }).pipe(Effect.scoped, Effect.provide(NodeServices.layer))
    )

    it.live("ends the real server when the fiber that uses it is interrupted", () =>
      Effect.gen(function*() {
        const started = yield* Deferred.make<number>()
        const fiber = yield* Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const { process: { id } } = yield* server.request("server/diagnostics")
          yield* Deferred.succeed(started, id)
          return yield* Effect.never
        }).pipe(Effect.provide(real()), Effect.forkChild)
        const pid = yield* Deferred.await(started)
        assert.isTrue(isAlive(pid))
        yield* Fiber.interrupt(fiber)
        assert.isFalse(isAlive(pid))
      }))
  })
})
