import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, AppServerError, Codex } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { spawn } from "node:child_process"
import { rmSync } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { awaitExits, findProcesses } from "../processes.ts"
import * as TestCodex from "../TestCodex.ts"

const host = fileURLToPath(new URL("../fixtures/host.ts", import.meta.url))

/** Runs the host in a temporary home until it has printed a number of lines. Then acts on its process, and waits for all exits. */
const withHost = Effect.fnUntraced(function*(lines: number, act: (pid: number) => void) {
  const { env, root } = yield* CodexEnvironment.CodexEnvironment
  const child = spawn(process.execPath, ["--conditions=@effect-codex/source", host], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "ignore"]
  })
  const exited = new Promise<number | null>((resolve) => child.on("exit", resolve))
  yield* Effect.callback<void>((resume) => {
    let output = ""
    child.stdout.on("data", (chunk) => {
      output += String(chunk)
      if (output.split("\n").length > lines) resume(Effect.void)
    })
  })
  assert.isNotEmpty(findProcesses(root))
  act(child.pid!)
  const code = yield* Effect.promise(() => exited)
  const [duration] = yield* awaitExits(root)
  return { code, duration }
})

const environment = TestCodex.layerEnvironment()

describe.skipIf(process.platform !== "linux")("Server process", () => {
  it.live("exits when the program is killed", () =>
    Effect.gen(function*() {
      const { duration } = yield* withHost(2, (pid) => process.kill(pid, "SIGKILL"))
      console.log(`host killed: all processes exited after ${duration}`)
    }).pipe(Effect.provide(environment)))

  it.live("exits after Ctrl-C while a command runs", () =>
    Effect.gen(function*() {
      const { code } = yield* withHost(2, (pid) => process.kill(pid, "SIGINT"))
      assert.strictEqual(code, 130)
    }).pipe(Effect.provide(environment)))

  it.live("exits after Ctrl-C at any time of the start", () =>
    Effect.gen(function*() {
      for (const delay of [0, 20, 50, 100, 150, 250]) {
        yield* Effect.gen(function*() {
          const { root } = yield* CodexEnvironment.CodexEnvironment
          yield* withHost(1, (pid) => {
            setTimeout(() => process.kill(pid, "SIGINT"), delay)
          })
          assert.deepStrictEqual(findProcesses(root), [])
        }).pipe(Effect.provide(Layer.fresh(environment)))
      }
    }))

  it.live("exits with its command when the scope closes", () =>
    Effect.gen(function*() {
      const { root } = yield* CodexEnvironment.CodexEnvironment
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ approvalPolicy: "never", sandbox: "danger-full-access" })
        yield* TestCodex.script(
          thread,
          ModelServer.functionCall("exec_command", { cmd: "sleep 300 & sleep 301", login: false }, { callId: "c" })
        )
        yield* thread.stream("go").pipe(
          Stream.takeUntil(({ method }) => method === "item/started" && findProcesses(root).length > 2),
          Stream.take(8),
          Stream.runDrain
        )
      }).pipe(Effect.scoped, Effect.provide(TestCodex.layerProcess()))
      yield* awaitExits(root)
    }).pipe(Effect.provide(environment)))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Real server", (it) => {
  it.effect("responds to each of 5,000 concurrent requests once", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const [duration, responses] = yield* Effect.timed(Effect.forEach(
        Array.from({ length: 5000 }),
        () => Stream.runCount(codex.models()),
        { concurrency: "unbounded" }
      ))
      assert.lengthOf(responses, 5000)
      assert.isTrue(responses.every((count) => count > 0))
      console.log(`5,000 model/list at once: ${duration}`)
    }))

  it.effect("completes a thousand turns on ten threads, each with its own response", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => ModelServer.text(`${request.promptCacheKey} ${request.lastUserText}`))
      const threads = yield* Effect.forEach(Array.from({ length: 10 }), () => codex.startThread({ ephemeral: true }))
      const [duration] = yield* Effect.timed(Effect.forEach(threads, (thread) =>
        Effect.forEach(
          Array.from({ length: 100 }, (_, i) => `turn ${i}`),
          (input) =>
            Effect.map(
              thread.run(input),
              ({ finalResponse }) => assert.strictEqual(finalResponse, `${thread.id} ${input}`)
            )
        ), { concurrency: "unbounded" }))
      console.log(`1,000 turns on ten threads: ${duration}`)
    }))

  it.effect("completes a run although the client has unsubscribed from the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const thread = yield* codex.startThread()
      yield* TestCodex.script(thread, ModelServer.text("before"), ModelServer.text("unreported"))
      yield* thread.run("one")
      yield* server.request("thread/unsubscribe", { threadId: thread.id })
      const { finalResponse } = yield* Effect.timeout(thread.run("two"), "20 seconds")
      assert.strictEqual(finalResponse, "unreported")
    }).pipe(Effect.provide(TestCodex.layerProcess({ config: { thread_unload_delay_secs: 1800 } }))))

  it.effect("ends a run although it unloads the thread while the turn starts", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      for (let i = 0; i < 5; i++) {
        const thread = yield* codex.startThread()
        yield* thread.run("one")
        const unsubscribing = yield* Effect.forkChild(
          server.request("thread/unsubscribe", { threadId: thread.id }),
          { startImmediately: true }
        )
        const ended = yield* Effect.timeoutOption(Effect.exit(thread.run("two")), "20 seconds")
        assert.isTrue(Option.isSome(ended))
        yield* Fiber.join(unsubscribing)
      }
    }).pipe(
      // The server may never respond to a start that it receives while it unloads the thread.
      Effect.provide(TestCodex.layerProcess({ requestTimeout: "5 seconds" }))
    ))
})

/** Finds a port on which no process listens. */
const closedPort = Effect.callback<number>((resume) => {
  const server = createServer()
  server.listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" ? address!.port : 0)))
  })
})

describe("Run without a connection to the model", () => {
  it.live("ends at the deadline or the idle timeout, although the server retries without limit", () =>
    Effect.gen(function*() {
      const environment = yield* CodexEnvironment.CodexEnvironment
      yield* environment.writeConfig({
        features: { unbounded_connection_retries: true },
        model_providers: { mock_provider: { base_url: `http://127.0.0.1:${yield* closedPort}/v1` } }
      })
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        for (const options of [{ deadline: "1 second" }, { idleTimeout: "1 second" }] as const) {
          const thread = yield* codex.startThread()
          const error = yield* Effect.flip(thread.run("hello?", options)).pipe(Effect.timeout("20 seconds"))
          assert(AppServerError.isAppServerError(error))
          assert.deepInclude(error.reason, { _tag: "TurnTimeout", threadId: thread.id, timeoutMillis: 1000 })
        }
      }).pipe(Effect.scoped, Effect.provide(TestCodex.layerProcess()))
    }).pipe(Effect.provide(environment)))
})

describe("Missing home", () => {
  it.live("fails with ConnectionClosed and the message of the server", () =>
    Effect.gen(function*() {
      const { codexHome } = yield* CodexEnvironment.CodexEnvironment
      rmSync(codexHome, { recursive: true })
      const error = yield* Effect.flip(Effect.scoped(Layer.build(TestCodex.layerProcess())))
      assert.strictEqual(error.reason._tag, "ConnectionClosed")
      assert.match(error.message, /CODEX_HOME/i)
    }).pipe(Effect.provide(environment)))
})
