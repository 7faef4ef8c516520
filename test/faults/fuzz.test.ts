import { assert, describe, it } from "@effect/vitest"
import { AppServer, AppServerError, Input, Transport } from "effect-codex"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { splitLines } from "../../src/internal/stdio/framing.ts"
import * as Fake from "../FakeTransport.ts"
import { layer, openThread } from "../scenario.ts"

/** The number of runs of each property. `npm run test:faults` sets more. */
const runs = Number(process.env["FAULT_RUNS"] ?? 100)

const fakeLayer = layer()

/** A value at any place of a message. */
const Value = Schema.Union([
  Schema.Json,
  Schema.Literals(["", "t", "u", "__proto__", "\u2028", "\ud800", "constructor", "NaN"]),
  Schema.Literals([0, -1, 1e308, 2 ** 53])
])

const methods = [
  "turn/started",
  "turn/completed",
  "item/started",
  "item/completed",
  "item/agentMessage/delta",
  "thread/tokenUsage/updated",
  "thread/started",
  "serverRequest/resolved",
  "item/commandExecution/requestApproval",
  "item/fileChange/requestApproval",
  "item/tool/call",
  "item/tool/requestUserInput",
  "mcpServer/elicitation/request",
  "execCommandApproval",
  "thread/closed",
  "error",
  "no/such/method",
  "__proto__",
  "toString"
] as const

const Message = Schema.Struct({
  id: Schema.optionalKey(Value),
  method: Schema.optionalKey(Schema.Union([Schema.Literals(methods), Value])),
  params: Schema.optionalKey(Schema.Union([
    Value,
    Schema.Struct({
      threadId: Schema.optionalKey(Value),
      turnId: Schema.optionalKey(Value),
      itemId: Schema.optionalKey(Value),
      requestId: Schema.optionalKey(Value),
      delta: Schema.optionalKey(Value),
      item: Schema.optionalKey(Schema.Union([Value, Schema.Struct({ type: Value, id: Value, changes: Value })])),
      turn: Schema.optionalKey(Schema.Union([Value, Schema.Struct({ id: Value, status: Value, items: Value })]))
    })
  ])),
  result: Schema.optionalKey(Value),
  error: Schema.optionalKey(Value)
})

const Line = Schema.Union([
  Schema.String,
  Schema.Literals(["{", "null", "[]", "[[[[", "\"\\ud800\"", "{\"__proto__\":{\"polluted\":true}}", "1e999", "true"])
])

/** Asserts that the connection completes a request. */
const assertUsable = Effect.gen(function*() {
  const fake = yield* Fake.FakeTransport
  const server = yield* AppServer.AppServer
  const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
  yield* fake.reply(yield* fake.takeMethod("thread/loaded/list"), { data: ["fine"] })
  assert.deepStrictEqual((yield* Fiber.join(request)).data, ["fine"])
  assert.notProperty({}, "polluted")
})

describe("Arbitrary input from the server", () => {
  it.effect.prop(
    "keeps the connection usable for messages of any shape and order, with one response to each server request",
    { messages: Schema.Array(Message).check(Schema.isMaxLength(12)) },
    ({ messages }) =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const thread = yield* openThread("t")
        const run = yield* Effect.forkChild(Effect.exit(thread.run("go")))
        yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
        // The server chooses the ids of its requests. A response with the id of a pending request would settle it.
        const sent = messages.map(({ id, ...message }) =>
          message.method === undefined || id === undefined ? message : { ...message, id: `s${JSON.stringify(id)}` }
        )
        yield* fake.emit(...sent)
        yield* assertUsable
        yield* fake.emit(Fake.turnCompleted("t", "u"))
        yield* Fiber.join(run)
        const ids = new Set(
          sent.flatMap((message) => "id" in message && typeof message.method === "string" ? [message.id] : [])
        )
        for (const id of ids) {
          const responses = fake.sent.filter((message) => message.method === undefined && message.id === id)
          assert.isAtMost(responses.length, sent.filter((message) => "id" in message && message.id === id).length)
        }
      }).pipe(Effect.provide(fakeLayer)),
    { arbitrary: { runs } }
  )

  it.effect.prop(
    "keeps the connection usable for lines of any text",
    { lines: Schema.Array(Line).check(Schema.isMaxLength(12)) },
    ({ lines }) =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        yield* fake.emitLines(...lines.map((line) => line.replaceAll("\n", " ")))
        yield* assertUsable
      }).pipe(Effect.provide(fakeLayer)),
    { arbitrary: { runs } }
  )

  it.effect.prop(
    "is framed at line feeds only, for any bytes in any chunks",
    { bytes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 255 }))), size: Schema.Int },
    ({ bytes, size }) =>
      Effect.gen(function*() {
        const all = Uint8Array.from(bytes)
        const step = 1 + Math.abs(size % 7)
        const chunks = Array.from({ length: Math.ceil(all.length / step) }, (_, i) =>
          all.subarray(i * step, (i + 1) * step))
        const lines = yield* Stream.runCollect(splitLines(Stream.fromIterable(chunks), undefined))
        const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(all)
        assert.deepStrictEqual(lines.join("\n"), text.endsWith("\n") ? text.slice(0, -1) : text)
      }),
    { arbitrary: { runs } }
  )

  it.effect("keeps the connection usable for nesting of any depth", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      for (const depth of [100, 10_000, 1_000_000]) {
        yield* fake.emitLines(
          `{"method":"turn/started","params":${"[".repeat(depth)}${"]".repeat(depth)}}`,
          `{"method":"item/tool/call","id":"d${depth}","params":{"a":${"[".repeat(depth)}${"]".repeat(depth)}}}`
        )
        yield* assertUsable
      }
    }).pipe(Effect.provide(fakeLayer)))

  it.effect("keeps the connection usable for nested ids while server requests may be repeated", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      // The client recognizes repeated requests by their ids.
      const resume = yield* Effect.forkChild(server.requestRaw("thread/resume", { threadId: "t" }))
      yield* fake.takeMethod("thread/resume")
      yield* fake.emit({ id: "a", method: "item/tool/call", params: { threadId: "t", itemId: "i" } })
      yield* fake.take
      for (const id of ["itemId", "threadId"]) {
        yield* fake.emitLines(
          `{"method":"item/tool/call","id":"${id}","params":{"${id}":${"[".repeat(20_000)}${"]".repeat(20_000)}}}`
        )
        yield* assertUsable
      }
      yield* Fiber.interrupt(resume)
    }).pipe(Effect.provide(fakeLayer)))
})

describe("Arbitrary input from the program", () => {
  /** Runs a turn that fails before a message is sent, and returns the tag of the error. */
  const runUnsent = Effect.fnUntraced(function*(input: Input.Input) {
    const fake = yield* Fake.FakeTransport
    const thread = yield* openThread("t")
    const before = fake.sent.length
    const error = yield* Effect.flip(thread.run(input))
    assert.strictEqual(fake.sent.length, before)
    return AppServerError.isAppServerError(error) ? error.reason._tag : error._tag
  })

  it.effect("fails with InvalidRequest before a message is sent if it is too long for the server", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* runUnsent("x".repeat(1_048_577)), "InvalidRequest")
      assert.strictEqual(
        yield* runUnsent([Input.text("x".repeat(600_000)), Input.text("x".repeat(600_000))]),
        "InvalidRequest"
      )
    }).pipe(Effect.provide(fakeLayer)))
})

describe("Broken transport", () => {
  it.effect("fails the layer with ConnectionClosed when `incoming` dies, throws or ends", () =>
    Effect.gen(function*() {
      const broken: ReadonlyArray<Stream.Stream<string, never>> = [
        Stream.die(new Error("bug")),
        Stream.suspend(() => {
          throw new Error("thrown")
        }),
        Stream.empty,
        Stream.fromEffect(Effect.interrupt)
      ]
      for (const incoming of broken) {
        const lines = yield* Queue.unbounded<string>()
        const transport = Layer.succeed(Transport.Transport, {
          connect: Effect.succeed({ incoming, send: (line: string) => Effect.asVoid(Queue.offer(lines, line)) })
        })
        const error = yield* Effect.flip(
          Effect.scoped(Layer.build(AppServer.layer().pipe(Layer.provide(transport))))
        )
        assert.strictEqual(error.reason._tag, "ConnectionClosed")
      }
    }))

  it.effect("fails only the caller of the request when `redact` throws", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const request = yield* Effect.forkChild(Effect.exit(server.request("model/list")))
      const { id } = yield* fake.takeMethod("model/list")
      yield* fake.emit({ id, error: { code: -1, message: "no" } })
      const exit = yield* Fiber.join(request)
      assert(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      yield* assertUsable
    }).pipe(
      Effect.provide(
        AppServer.layer().pipe(
          Layer.provide(Layer.effect(
            Transport.Transport,
            Effect.map(Transport.Transport, ({ connect }) => ({
              connect: Effect.map(connect, (connection) => ({
                ...connection,
                redact: () => {
                  throw new Error("bug")
                }
              }))
            }))
          )),
          Layer.provideMerge(Fake.layer)
        )
      )
    ))
})
