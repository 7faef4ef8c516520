import { assert, it, layer } from "@effect/vitest"
import { Codex, TurnView } from "effect-codex"
import { ThreadEntity } from "effect-codex/cluster"
import { ModelServer } from "effect-codex/testing"
import * as TestRunner from "effect/cluster/TestRunner"
import * as Effect from "effect/Effect"
import * as SchemaBinary from "effect/encoding/SchemaBinary"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import type * as Rpc from "effect/rpc/Rpc"
import * as RpcSchema from "effect/rpc/RpcSchema"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestCodex from "../TestCodex.ts"

const layerEntity = (options?: ThreadEntity.Options) =>
  ThreadEntity.layer({ thread: { sandbox: "read-only", approvalMode: "deny_all" }, ...options }).pipe(
    Layer.provideMerge(Layer.fresh(TestRunner.layer)),
    Layer.provide(KeyValueStore.layerMemory)
  )

it("encodes its messages with the binary serialization, the default of a cluster", () => {
  const requests: Iterable<Rpc.AnyWithProps> = ThreadEntity.ThreadEntity.protocol.requests.values()
  for (const { errorSchema, payloadSchema, successSchema } of requests) {
    const success = RpcSchema.isStreamSchema(successSchema)
      ? [successSchema.success, successSchema.error]
      : [successSchema]
    for (const schema of [payloadSchema, ...success, errorSchema]) SchemaBinary.toCodec(schema)
  }
  const roundTrip = <A>(schema: Schema.Codec<A, unknown>, value: A) => {
    const codec = SchemaBinary.toCodec(schema)
    assert.deepStrictEqual(Schema.decodeSync(codec)(Schema.encodeSync(codec)(value)), value)
  }
  roundTrip(ThreadEntity.Input, "text")
  roundTrip(ThreadEntity.Input, [{ type: "image", fileId: "id" }, { type: "image", url: "data:" }])
  roundTrip(ThreadEntity.View.successSchema.success, TurnView.empty("thread", "turn"))
})

layer(TestCodex.layer(), { excludeTestServices: true })("ThreadEntity", (it) => {
  it.effect("runs the turns of a thread one after another, and each key once", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond(({ lastUserText }) => ModelServer.text(`re: ${lastUserText}`))
      const threadOf = yield* ThreadEntity.client
      const before = (yield* model.requests).length
      const keys = ["1", "2", "1"]
      const results = yield* Effect.forEach(keys, (key) => threadOf("a").Run({ key, input: `q${key}` }), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(results.map(({ finalResponse }) => finalResponse), ["re: q1", "re: q2", "re: q1"])
      assert.strictEqual(results[0]!.id, results[2]!.id)
      assert.strictEqual(new Set(results.map(({ threadId }) => threadId)).size, 1)
      assert.strictEqual((yield* model.requests).length - before, 2)
      const other = yield* threadOf("b").Run({ key: "1", input: "q" })
      assert.notStrictEqual(other.threadId, results[0]!.threadId)
    }).pipe(Effect.provide(layerEntity())))

  it.effect("steers, shows and interrupts the running turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const held = yield* TestCodex.heldMessage
      yield* model.respond(() => held.reply)
      const thread = (yield* ThreadEntity.client)("c")
      assert.isFalse(yield* thread.Interrupt())
      const error = yield* Effect.flip(thread.Steer({ input: "more" }))
      assert(error._tag === "AppServerError")
      assert.strictEqual(error.reason._tag, "TurnEnded")
      const request = yield* TestCodex.nextRequest
      const run = yield* Effect.forkChild(thread.Run({ key: "1", input: "go" }))
      yield* request
      yield* held.say("hello")
      const view = yield* thread.View().pipe(
        Stream.filter(({ items }) => items.some(({ item }) => item.type === "agentMessage" && item.text === "hello")),
        Stream.runHead
      )
      assert.strictEqual(view._tag, "Some")
      yield* thread.Steer({ input: "more" })
      assert.isTrue(yield* thread.Interrupt())
      assert.deepInclude(yield* Fiber.join(run), { status: "interrupted", origin: "sent" })
    }).pipe(Effect.provide(layerEntity())))

  it.effect("closes the thread when it is idle, and opens it again", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      const thread = (yield* ThreadEntity.client)("d")
      const first = yield* thread.Run({ key: "1", input: "go" })
      // Another process can open the thread once it is closed.
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const opened = yield* Effect.retry(codex.resumeThread(first.threadId), Schedule.spaced("50 millis"))
        yield* opened.close
      }).pipe(Effect.provide(TestCodex.layerProcess()))
      const second = yield* thread.Run({ key: "2", input: "go" })
      assert.strictEqual(second.threadId, first.threadId)
    }).pipe(Effect.provide(layerEntity({ maxIdleTime: "200 millis" }))), 20_000)

  it.effect("goes on with the thread on another runner", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      const store = yield* Layer.build(KeyValueStore.layerMemory)
      const onRunner = (key: string) =>
        Effect.flatMap(ThreadEntity.client, (threadOf) => threadOf("e").Run({ key, input: "go" })).pipe(
          Effect.provide(
            ThreadEntity.layer().pipe(
              Layer.provideMerge(Layer.fresh(TestRunner.layer)),
              Layer.provide(Layer.succeedContext(store)),
              Layer.provide(TestCodex.layerProcess())
            )
          )
        )
      const first = yield* onRunner("1")
      const second = yield* onRunner("2")
      assert.strictEqual(second.threadId, first.threadId)
      // The other runner has its own storage of messages, so the history answers.
      const again = yield* onRunner("1")
      assert.deepInclude(again, { id: first.id, origin: "found" })
    }).pipe(Effect.scoped))

  it.effect("continues the turn after a crash of its app-server", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const threadOf = yield* ThreadEntity.client
      yield* model.respond(({ lastUserText }) =>
        lastUserText === "go" ? TestCodex.halfMessage : ModelServer.text("continued")
      )
      const request = yield* TestCodex.nextRequest
      const run = yield* Effect.forkChild(threadOf("g").Run({ key: "1", input: "go" }))
      yield* request
      yield* TestCodex.killServer
      assert.deepInclude(yield* Fiber.join(run), { finalResponse: "continued", origin: "continued" })
      const other = yield* threadOf("h").Run({ key: "1", input: "another" })
      assert.strictEqual(other.finalResponse, "continued")
    }).pipe(
      Effect.provide(
        Layer.provideMerge(layerEntity(), TestCodex.layerProcess({ restart: TestCodex.quickRestart }))
      )
    ))

  it.effect("fails with the typed error of a turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.failed({ code: "insufficient_quota", message: "no quota" }))
      const thread = (yield* ThreadEntity.client)("f")
      const error = yield* Effect.flip(thread.Run({ key: "1", input: "go" }))
      assert(error._tag === "TurnFailed")
      assert.strictEqual(error.codexErrorInfo, "usageLimitExceeded")
    }).pipe(Effect.provide(layerEntity())))
})
