import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it, layer } from "@effect/vitest"
import {
  ApprovalPolicy,
  Approvals,
  AppServer,
  Codex,
  Questions,
  StdioTransport,
  type Thread,
  Tool,
  Transport
} from "effect-codex"
import { CodexToolkit } from "effect-codex/ai"
import { Cassette, CodexEnvironment, FakeAppServer, ModelServer, TestCodex as Kit } from "effect-codex/testing"
import { Toolkit } from "effect/ai"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestCodex from "./TestCodex.ts"

/** Passes a value that plain JavaScript may pass, and the compiler rejects. */
const js = (value: unknown): never => value as never

/** Builds a layer that fails with `InvalidRequest`, and returns the message. */
const expectInvalid = <A, E>(built: Layer.Layer<A, E, NodeServices.NodeServices>) =>
  Effect.scoped(Layer.build(Layer.provide(built, NodeServices.layer)))
    .pipe(
      TestCodex.expectReason,
      Effect.map((reason) => {
        assert.strictEqual(reason._tag, "InvalidRequest")
        return reason.message
      })
    )

/** Runs an effect that dies with a `TypeError`, and returns the message. */
const expectDefect = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.exit(effect), (exit) => {
    assert(Exit.isFailure(exit))
    const [reason] = exit.cause.reasons
    assert(reason !== undefined && Cause.isDieReason(reason))
    assert(reason.defect instanceof TypeError)
    return reason.defect.message
  })

const wrong: ReadonlyArray<readonly [options: object, ...parts: ReadonlyArray<string>]> = [
  [{ codexpath: "/x" }, "unknown option `codexpath`", "did you mean `codexPath`?"],
  [{ maxInflight: 8 }, "`maxInflight`", "`maxInFlight`"],
  [{ requestTimout: 8 }, "`requestTimout`", "`requestTimeout`"],
  [{ codexPath: 5 }, "`codexPath` is 5", "a string"],
  [{ args: "x" }, "`args` is a string", "an array of strings"],
  [{ args: ["a", 1] }, "`args` is an array", "an array of strings"],
  [{ env: { A: 1 } }, "`env` is wrong at `A`", "a string or a Redacted string"],
  [{ inheritEnv: "PATH" }, "`inheritEnv`", "an array of strings"],
  [{ config: "x" }, "`config` is a string", "an object"],
  [{ closeTimeout: "soon" }, "`closeTimeout` is a string", "a duration"],
  [{ requestTimeout: "soon" }, "`requestTimeout` is a string", "a duration, such as \"5 seconds\""],
  [{ maxInFlight: "8" }, "`maxInFlight` is a string", "a number of at least 1"],
  [{ maxInFlight: 0 }, "`maxInFlight` is 0", "a number of at least 1"],
  [{ restart: 5 }, "`restart` is 5", "a boolean or a Schedule"],
  [{ experimentalApi: "yes" }, "`experimentalApi` is a string", "a boolean"]
]

describe("Options of layers", () => {
  it.effect.each(wrong)(
    "reject the process and connection options %j",
    ([options, ...parts]) =>
      Effect.gen(function*() {
        const message = yield* expectInvalid(Codex.layerStdio(js(options)))
        for (const text of parts) assert.include(message, text)
        assert.isBelow(message.length, 300)
      })
  )

  it.effect("accept the options of all layers in one object", () =>
    Effect.gen(function*() {
      assert.include(
        yield* expectInvalid(
          AppServer.layer(js({ codexPath: "/x", maxInflight: 1 })).pipe(
            Layer.provide(StdioTransport.layer({}))
          )
        ),
        "maxInflight"
      )
      const transport = yield* Transport.Transport
      const reason = yield* TestCodex.expectReason(transport.connect)
      assert(reason._tag === "InvalidRequest")
      assert.include(reason.message, "did you mean `codexPath`?")
    }).pipe(
      Effect.scoped,
      Effect.provide(StdioTransport.layer(js({ maxInFlight: 1, codexpath: "/x" }))),
      Effect.provide(NodeServices.layer)
    ))

  it.effect("reject unknown names in the testing kit", () =>
    Effect.gen(function*() {
      const build = <A, E>(built: Layer.Layer<A, E>) => expectDefect(Effect.scoped(Layer.build(built)))
      const environment = (options: object) =>
        CodexEnvironment.layer(js(options)).pipe(
          Layer.provide(Kit.layerModelServer),
          Layer.provide(NodeServices.layer)
        )
      assert.include(yield* build(environment({ directry: "/x" })), "did you mean `directory`?")
      assert.include(yield* build(environment({ directory: 5 })), "`directory` is 5; expected a string")
      assert.include(yield* build(FakeAppServer.layer(undefined, js({ latncy: 5 }))), "did you mean `latency`?")
      assert.include(yield* build(FakeAppServer.layer(undefined, js({ latency: "soon" }))), "`latency`")
      const played = Cassette.replay("x", js({ ignores: [] })).pipe(Layer.provide(NodeServices.layer))
      assert.include(yield* build(played), "did you mean `ignore`?")
      const recorded = Cassette.record("x", js({ redacted: {} })).pipe(
        Layer.provide(FakeAppServer.layer()),
        Layer.provide(NodeServices.layer)
      )
      assert.include(yield* build(recorded), "did you mean `redact`?")
      assert.throws(() => ModelServer.functionCall("f", {}, js({ callID: "x" })), TypeError, "did you mean `callId`?")
      assert.throws(() => ModelServer.deltas(["x"], js({ pace: "slow" })), TypeError, "`pace` is a string")
      assert.throws(() => ModelServer.text("x", js({ usages: {} })), TypeError, "did you mean `usage`?")
      assert.throws(() => FakeAppServer.rejected("no", js({ cod: 1 })), TypeError, "did you mean `code`?")
      assert.include(yield* expectInvalid(Kit.layer(js({ codexpath: "/x" }))), "did you mean `codexPath`?")
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Options of threads, turns and handlers", (it) => {
  const accept = () => Effect.succeed("accept" as const)

  it.effect("fail with one InvalidRequest when they are misspelled or of the wrong kind", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const thread = yield* codex.startThread()
      const tool = Tool.make("t", { description: "d", handler: () => Effect.succeed("") })
      const start = (options: unknown) => Effect.scoped(codex.startThread(js(options)))
      const run = (options: unknown, input: unknown = "x") => thread.run(js(input), js(options))
      const cases: ReadonlyArray<readonly [Effect.Effect<unknown, unknown>, ...ReadonlyArray<string>]> = [
        [start({ modle: "x" }), "unknown option `modle`", "did you mean `model`?"],
        [start({ aprovalMode: "deny_all" }), "did you mean `approvalMode`?"],
        [start({ model: 5 }), "`model` is 5; expected string"],
        [start({ sandbox: "worspace-write" }), "`sandbox` is \"worspace-write\"", "\"workspace-write\""],
        [start({ config: "x" }), "`config`", "a string"],
        [start({ approvals: { comand: accept } }), "`approvals`", "did you mean `command`?"],
        [start({ approvals: { command: "accept" } }), "`command` is a string; expected a function"],
        [start({ approvals: "accept" }), "`approvals`", "a string"],
        [start({ questions: { userinput: accept } }), "`questions`", "did you mean `userInput`?"],
        [start({ tools: {} }), "`tools` is an object; expected an array"],
        [start({ tools: ["x"] }), "expected what `Tool.make` returns"],
        [start({ tools: [{ ...tool, inputSchema: Schema.Struct({}) }] }), "`inputSchema`", "expected JSON Schema"],
        [start({ tools: [{ ...tool, run: undefined }] }), "`run` is missing"],
        [start({ tools: [tool], toolConcurrency: "8" }), "`toolConcurrency` is a string"],
        [
          start({ dynamicTools: [{ type: "function", name: "x", description: "", inputSchema: Schema.String }] }),
          "`dynamicTools[0].inputSchema` is an Effect Schema; expected JSON"
        ],
        [codex.startThread(js(5)), "the options are 5; expected an object"],
        [codex.startThread(js(null)), "the options are null; expected an object"],
        [codex.resumeThread("x", js("y")), "the options are a string; expected an object"],
        [codex.forkThread("x", js([])), "the options are an array; expected an object"],
        [thread.run("go", js("high")), "the options are a string; expected an object"],
        [thread.read(js(true)), "the options are true; expected an object"],
        [Stream.runDrain(codex.listThreads(js(20))), "the options are 20; expected an object"],
        [Stream.runDrain(codex.models(js(null))), "the options are null; expected an object"],
        [codex.resumeThread(js(undefined)), "`threadId` is undefined; expected string"],
        [codex.resumeThread("x", js({ excludeTurns: true })), "unknown option `excludeTurns`"],
        [codex.forkThread("x", js({ cwdd: "/" })), "did you mean `cwd`?"],
        [run({ effrt: "low" }), "did you mean `effort`?"],
        [run({ effort: 5 }), "`effort` is 5; expected string"],
        [run({ deadlin: 5 }), "did you mean `deadline`?"],
        [run({ deadline: "soon" }), "`deadline` is a string; expected a duration"],
        [run({ deadline: -5 }), "`deadline` is -5; expected a duration"],
        [run({ idleTimeout: Number.NaN }), "`idleTimeout` is NaN; expected a duration"],
        [run({ threadId: "x" }), "unknown option `threadId`"],
        [run({ approvals: { comand: accept } }), "did you mean `command`?"],
        [
          run({ sandboxPolicy: { type: "worspaceWrite" } }),
          "`sandboxPolicy.type` is \"worspaceWrite\"",
          "\"workspaceWrite\""
        ],
        [run({ sandboxPolicy: { type: "workspaceWrite", writableRoot: ["/"] } }), "did you mean `writableRoots`?"],
        [run({ sandboxPolicy: "workspace-write" }), "`sandboxPolicy` is a string; expected an object whose `type` is"],
        [
          run({ outputSchema: Schema.String }),
          "`outputSchema` is an Effect Schema; expected a JSON Schema",
          "Pass an Effect Schema as `output`"
        ],
        [run({ output: { type: "object" } }), "`output` is an object; expected an Effect Schema"],
        [run({ output: Schema.Unknown }), "`output` has no strict JSON Schema"],
        [
          run({ output: Schema.Struct({ a: Schema.Array(Schema.Unknown) }) }),
          "`a[]` of `output` has no strict JSON Schema"
        ],
        [run({ output: Schema.String, outputSchema: {} }), "either `output` or `outputSchema`, not both"],
        [run({ output: Schema.String, repairs: -1 }), "`repairs` is -1; expected a whole number"],
        [run({ output: Schema.String, repairs: 1.5 }), "`repairs` is 1.5; expected a whole number"],
        [run({ output: Schema.String, deadlin: 5 }), "did you mean `deadline`?"],
        [run({ outputs: Schema.String }), "did you mean `output`?"],
        [run({ repairs: 1 }), "`repairs` needs the option `output`"],
        [Stream.runDrain(thread.stream("go", js({ output: Schema.String }))), "`stream` has no typed output"],
        [run({ outputSchema: Schema.toJsonSchemaDocument(Schema.String) }), "`outputSchema` is an object; expected"],
        [run({ outputSchema: "x" }), "`outputSchema` is a string; expected a JSON Schema"],
        [run({ outputSchema: [] }), "`outputSchema` is an array; expected a JSON Schema"],
        [run({ outputSchema: () => 1 }), "`outputSchema` is a function; expected a JSON Schema"],
        [run({ outputSchema: { type: "object", x: () => 1 } }), "`outputSchema.x` is a function; expected JSON"],
        [thread.run(js(undefined)), "`input[0]` is undefined; expected an object whose `type` is"],
        [run({}, ["go"]), "`input[0]` is a string; expected an object whose `type` is"],
        [run({}, [null]), "`input[0]` is null; expected an object whose `type` is"],
        [run({}, [{ type: "localImage" }]), "`input[0].path` is missing"],
        [run({}, [{ type: "localImage", path: 5 }]), "`input[0].path` is 5; expected string"],
        [run({}, [{ type: "image", url: 5 }]), "`input[0]"],
        [run({}, 5), "`input[0]` is 5; expected an object whose `type` is"],
        [run({}, [{ type: "txt", text: "secret prompt" }]), "`input[0].type` is \"txt\"; expected \"text\""],
        [thread.read(js({ includeTurn: true })), "did you mean `includeTurns`?"],
        [Stream.runDrain(codex.listThreads(js({ limt: 5 }))), "did you mean `limit`?"],
        [Stream.runDrain(codex.listThreads(js({ limit: "5" }))), "`limit` is a string; expected number"],
        [server.request("model/list", {}, js({ timeot: 5 })), "did you mean `timeout`?"],
        [server.request("model/list", {}, js({ timeout: "soon" })), "`timeout` is a string; expected a duration"],
        [server.request("thread/read", js({})), "`threadId` is missing"],
        [
          server.request("config/value/write", js({ keyPath: "a", mergeStrategy: "replace", value: Schema.String })),
          "`value` is an Effect Schema"
        ]
      ]
      for (const [effect, ...parts] of cases) {
        const reason = yield* TestCodex.expectReason(effect)
        assert.strictEqual(reason._tag, "InvalidRequest", parts[0])
        for (const text of parts) assert.include(reason.message, text)
        assert.notInclude(reason.message, "secret prompt")
        assert.notInclude(reason.message, "readonly")
        assert.isBelow(reason.message.length, 350)
      }
    }))

  it("require JSON Schema where an Effect Schema would not be sent, at compile time too", () => {
    const schema = Schema.Struct({ a: Schema.String })
    const json: Thread.TurnOptions = { outputSchema: toCodecOpenAI(schema).jsonSchema }
    const literal: Thread.TurnOptions = { outputSchema: { type: "object", properties: { a: { type: "string" } } } }
    // @ts-expect-error: not JSON
    const effectSchema: Thread.TurnOptions = { outputSchema: schema }
    // @ts-expect-error: not JSON
    const effectClass: Thread.TurnOptions = { outputSchema: class extends Schema.Class("A")({ a: Schema.String }) {} }
    assert.lengthOf([json, literal, effectSchema, effectClass], 4)
  })

  it.effect("are a defect in layers and policies, which cannot fail", () =>
    Effect.gen(function*() {
      const built = (layer: Layer.Layer<never>) => expectDefect(Effect.scoped(Layer.build(layer)))
      assert.include(yield* built(Approvals.layer(js({ comand: accept }))), "did you mean `command`?")
      assert.include(yield* built(Approvals.layer(js({ command: 5 }))), "`command` is 5; expected a function")
      assert.include(yield* built(Questions.layer(js({ userinput: accept }))), "did you mean `userInput`?")
      assert.throws(() => ApprovalPolicy.firstOf(js({ comand: accept })), TypeError, "did you mean `command`?")
      assert.throws(() => ApprovalPolicy.onlyInside(js({ comand: accept }), "/"), TypeError, "`command`")
      assert.throws(
        () => ApprovalPolicy.onlyInside({ command: accept }, ""),
        TypeError,
        "`folder` is a string; expected"
      )
      assert.throws(() => ApprovalPolicy.onlyInside({ command: accept }, js(5)), TypeError, "`folder` is 5")
      assert.throws(
        () => ApprovalPolicy.acceptCommands(js("ls")),
        TypeError,
        "`predicate` is a string; expected a function"
      )
      assert.throws(() => ApprovalPolicy.onlyInside({ command: accept }, js(undefined)), TypeError, "`folder`")
      assert.throws(() => ApprovalPolicy.acceptCommands(js(undefined)), TypeError, "`predicate`")
      assert.throws(() => ApprovalPolicy.timeout({ command: accept }, js("soon")), TypeError, "a duration")
      const make = (options: object) => () => Tool.make("t", js({ description: "d", handler: accept, ...options }))
      assert.throws(make({ params: {} }), TypeError, "Tool.make(\"t\"): unknown option `params`")
      assert.throws(make({ paramaters: Schema.Struct({}) }), TypeError, "did you mean `parameters`?")
      assert.throws(
        make({ parameters: { type: "object" } }),
        TypeError,
        "`parameters` is an object; expected an Effect Schema"
      )
      assert.throws(
        () => Tool.make("t", js(undefined)),
        TypeError,
        "Tool.make(\"t\"): the option `description` is missing"
      )
      assert.throws(make({ handler: undefined }), TypeError, "the option `handler` is missing")
      assert.throws(make({ timeout: "soon" }), TypeError, "a duration")
      const toolkit = CodexToolkit.make(Toolkit.empty, js({ aprove: accept })) as Effect.Effect<unknown>
      assert.include(yield* expectDefect(toolkit), "did you mean `approve`?")
    }))
})
