import { assert, describe, it } from "@effect/vitest"
import { Approvals, AppServer, Codex, CodexTelemetry, StdioTransport, Tool } from "effect-codex"
import { Cassette, CodexEnvironment, ModelServer, TestCodex as Kit } from "effect-codex/testing"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Tracer from "effect/Tracer"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { inspect } from "node:util"
import { poll } from "./poll.ts"
import * as TestCodex from "./TestCodex.ts"

/** A key of the user, which has no known format. */
const key = "correct horse battery staple"

/** Texts that only the program and the model may contain, by the place where the test plants them. */
const planted = {
  prompt: "PLANTED-prompt",
  answer: "PLANTED-answer",
  command: "PLANTED-command",
  output: "PLANTED-output",
  argument: "PLANTED-argument",
  result: "PLANTED-result",
  defect: "PLANTED-prompt in a failing turn"
}

describe("Private data", () => {
  it.live.each([false, true])(
    "is in no log, metric, error or argument of the process, and in spans only where they capture contents: %s",
    (captures) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const environment = yield* CodexEnvironment.CodexEnvironment
        const model = yield* ModelServer.ModelServer
        yield* environment.writeConfig({ model_providers: { mock_provider: { env_key: "MODEL_KEY" } } })
        const cassette = `${environment.root}/session.jsonl`

        const logs: Array<string> = []
        const logger = Logger.make(({ cause, fiber, logLevel, message }) => {
          logs.push(`${logLevel} ${JSON.stringify(message)} ${Cause.pretty(cause)} ${String(fiber.id)}`)
        })
        const spans: Array<Tracer.NativeSpan> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
        const registry: Metric.MetricRegistry = new Map()
        const errors: Array<unknown> = []
        let argv = ""

        const call = (name: string, args: object, callId: string) => ModelServer.functionCall(name, args, { callId })
        yield* Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const server = yield* AppServer.AppServer
          const { process: { id } } = yield* server.request("server/diagnostics")
          if (process.platform === "linux") argv = readFileSync(`/proc/${id}/cmdline`, "utf8")
          const thread = yield* codex.startThread({
            approvalPolicy: "untrusted",
            approvalsReviewer: "user",
            approvals: { command: () => Effect.succeed(Approvals.accept) },
            tools: [Tool.make("tell", {
              description: "Tells",
              parameters: Schema.Struct({ word: Schema.String }),
              handler: ({ word }) => word === planted.argument ? Effect.succeed(planted.result) : Effect.die("no")
            })]
          })
          yield* TestCodex.script(
            thread,
            call("exec_command", { cmd: `echo ${planted.command} ${planted.output}`, login: false }, "echo"),
            call("tell", { word: planted.argument }, "tell"),
            call("tell", { word: 7 }, "wrong"),
            ModelServer.text(planted.answer),
            ModelServer.httpError(500, { error: { message: planted.answer } }),
            ModelServer.failed({ code: "invalid_prompt", message: `it is not taken with ${key}` })
          )
          yield* thread.run(planted.prompt)
          errors.push(yield* Effect.flip(thread.run(planted.defect)))
          // Providers repeat keys in their errors, and the server repeats those.
          const repeated = yield* Effect.flip(thread.run("again"))
          assert.include(repeated.message, "<redacted>")
          errors.push(repeated)
          errors.push(yield* Effect.flip(codex.resumeThread("00000000-0000-7000-8000-000000000000")))
          errors.push(yield* Effect.flip(thread.run("x".repeat(1_048_570) + planted.prompt)))
          errors.push(
            yield* Effect.flip(server.requestRaw("turn/start", { threadId: thread.id, input: planted.prompt }))
          )
          // The error contains the end of the stderr of a killed server.
          process.kill(id, "SIGKILL")
          errors.push(yield* Effect.flip(server.request("thread/loaded/list")))
        }).pipe(
          Effect.scoped,
          Effect.provide(
            Codex.layer.pipe(
              Layer.provideMerge(AppServer.layer()),
              Layer.provide(Cassette.record(cassette)),
              Layer.provide(Kit.layerTransport({ env: { RUST_LOG: "warn", MODEL_KEY: Redacted.make(key) } }))
            )
          ),
          Effect.withTracer(tracer),
          Effect.provideService(CodexTelemetry.CaptureContent, captures),
          Effect.provideService(Metric.MetricRegistry, registry),
          Effect.provide(Logger.layer([logger])),
          Effect.provideService(References.MinimumLogLevel, "All")
        )

        // The server used the key, and the messages contained the other texts.
        assert.strictEqual((yield* model.requests)[0]?.header("authorization"), `Bearer ${key}`)
        const recorded = yield* fs.readFileString(cassette)
        for (const text of Object.values(planted)) assert.include(recorded, text)
        assert.isAbove(spans.length, 5)
        assert.lengthOf(errors, 6)

        // An exporter shows the attributes, the events and the cause of a span.
        const shown = ({ attributes, events, name, status }: Tracer.NativeSpan) => [
          name,
          [...attributes],
          events,
          status._tag === "Ended" && Exit.isFailure(status.exit) ? Cause.pretty(status.exit.cause) : ""
        ]
        const output = {
          logs: logs.join("\n"),
          spans: inspect(spans.map(shown), { depth: 10, maxArrayLength: null, maxStringLength: null }),
          // `TurnFailed` contains the items of the turn. Its message does not.
          errors: errors.map((error) => `${String(error)} ${Cause.pretty(Cause.fail(error))}`).join("\n"),
          metrics: inspect(
            [...registry.values()].map(({ attributes, description, id }) => [id, description, attributes]),
            {
              depth: 10
            }
          ),
          argv
        }
        assert.isAbove(registry.size, 5)
        const { spans: traced, ...others } = output
        for (const [place, text] of Object.entries(captures ? others : output)) {
          for (const secret of [key, ...Object.values(planted)]) assert.notInclude(text, secret, place)
        }
        // The key is in none, and the other texts show that the test would find them.
        assert.notInclude(traced, key)
        if (captures) { for (const text of Object.values(planted)) assert.include(traced, text) }
        for (const error of errors) assert.notInclude(JSON.stringify(error), key)
        assert.notInclude(recorded, key)
      }).pipe(Effect.provide(TestCodex.layerEnvironment())),
    30_000
  )
})

describe("Environment of the process", () => {
  const Environment = Schema.Struct({ env: Schema.Array(Schema.String) })
  const fakePath = fileURLToPath(new URL("fixtures/fake-app-server.mjs", import.meta.url))

  it.live("keeps secrets out of errors, logs and recordings, though the server repeats them", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const logs: Array<string> = []
      const logger = Logger.make(({ message }) => {
        logs.push(JSON.stringify(message))
      })
      const cassette = `${root}/repeated.jsonl`
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const { reason } = yield* Effect.flip(server.request("model/list"))
        assert(reason._tag === "RequestRejected")
        assert.strictEqual(reason.detail, "bad key <redacted>")
        assert.deepStrictEqual(reason.data, { "<redacted>": ["<redacted>"] })
        assert.notInclude(JSON.stringify(reason), key)
        yield* poll(Effect.sync(() => logs), (logs) => logs.join().includes("in color"), "a line of stderr in the log")
      }).pipe(
        Effect.scoped,
        Effect.provide(
          AppServer.layer().pipe(
            Layer.provide(Cassette.record(cassette)),
            Layer.provide(StdioTransport.layer({
              codexPath: fakePath,
              env: { FAKE_MODE: "repeat-key", MY_KEY: Redacted.make(key) }
            }))
          )
        ),
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      const recorded = yield* fs.readFileString(cassette)
      assert.include(recorded, "bad key <redacted>")
      for (const part of [key, "battery", "corre"]) assert.notInclude(`${recorded}\n${logs.join("\n")}`, part)
    }).pipe(Effect.provide(TestCodex.layerEnvironment())))

  it.live("contains only `env` and the variables of `inheritEnv`", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { env } = yield* Effect.flatMap(
        server.requestRaw("model/list", {}),
        Schema.decodeUnknownEffect(Environment)
      )
      assert.deepStrictEqual(env.filter((name) => !name.startsWith("__")), ["MINE", "PATH"])
    }).pipe(
      Effect.provide(
        AppServer.layer().pipe(Layer.provide(StdioTransport.layer({
          codexPath: fakePath,
          inheritEnv: ["PATH", "NOT_SET_ANYWHERE"],
          env: { MINE: "1" }
        })))
      ),
      Effect.provide(TestCodex.layerEnvironment())
    ))
})
