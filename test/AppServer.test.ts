import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import manifest from "../package.json" with { type: "json" }
import * as AppServer from "../src/AppServer.ts"
import { Session } from "../src/internal/session/session.ts"
import * as Protocol from "../src/Protocol.ts"
import * as Fake from "./FakeTransport.ts"
import { expectReason, killed, settle } from "./scenario.ts"

const sessionState = Effect.flatMap(Session, ({ acquire }) => acquire)

const layer = (options?: AppServer.Options) => Layer.provideMerge(AppServer.layer(options), Fake.layer)

const overloaded = { code: -32001, message: "Server overloaded; retry later." }

const commandApproval = {
  threadId: "t",
  turnId: "u",
  itemId: "call_1",
  startedAtMs: 1,
  command: "ls",
  cwd: "/repo"
}

describe("AppServer", () => {
  describe("layer", () => {
    it.effect("initializes the server with the name of the client and the experimental API", () =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        assert.deepStrictEqual(fake.sent[0], {
          id: 1,
          method: "initialize",
          params: {
            clientInfo: { name: "effect-codex", title: "effect-codex", version: manifest.version },
            capabilities: { experimentalApi: true, requestAttestation: false }
          }
        })
        assert.deepStrictEqual(fake.sent[1], { method: "initialized" })
      }).pipe(Effect.provide(layer())))

    it.effect("initializes the server with the client info and the capabilities of its options", () =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        assert.deepStrictEqual(fake.sent[0]!.params, {
          clientInfo: { name: "mine", version: "9.9.9" },
          capabilities: {
            experimentalApi: false,
            requestAttestation: true,
            optOutNotificationMethods: ["thread/started"]
          }
        })
      }).pipe(Effect.provide(layer({
        clientInfo: { name: "mine", version: "9.9.9" },
        experimentalApi: false,
        requestAttestation: true,
        optOutNotificationMethods: ["thread/started"]
      }))))

    it.effect("has the metadata of the server", () =>
      Effect.gen(function*() {
        const { metadata } = yield* AppServer.AppServer
        assert.strictEqual(metadata.userAgent, Fake.userAgent)
        assert.strictEqual(metadata.serverVersion, "0.169.0")
        assert.strictEqual(metadata.codexHome, "/codex")
      }).pipe(Effect.provide(layer())))
  })

  describe("request", () => {
    it.effect("sends an id, a method and params, and returns the result", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const response = yield* Effect.forkChild(server.request("thread/loaded/list", { limit: 2 }))
        const request = yield* fake.take
        assert.deepStrictEqual(request, { id: request.id!, method: "thread/loaded/list", params: { limit: 2 } })
        yield* fake.reply(request, { data: ["a"], nextCursor: null, addedLater: true })
        assert.deepStrictEqual<unknown>(yield* Fiber.join(response), {
          data: ["a"],
          nextCursor: null,
          addedLater: true
        })
      }).pipe(Effect.provide(layer())))

    it.effect("sends empty params only for a method that has params", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        yield* Effect.forkChild(server.request("thread/loaded/list"))
        assert.deepStrictEqual((yield* fake.take).params, {})
        yield* Effect.forkChild(server.request("account/logout"))
        assert.isFalse("params" in (yield* fake.take))
      }).pipe(Effect.provide(layer())))

    it.effect("returns its own result in any order of responses", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const fibers = yield* Effect.forEach(["a", "b", "c"], (threadId) =>
          Effect.forkChild(server.request("thread/name/set", { threadId, name: threadId })))
        const requests = [yield* fake.take, yield* fake.take, yield* fake.take]
        for (const request of requests.toReversed()) {
          yield* fake.reply(request, { of: request.params.threadId })
        }
        const responses = yield* Effect.forEach(fibers, (fiber) =>
          Fiber.join(fiber))
        assert.deepStrictEqual<unknown>(responses, [{ of: "a" }, { of: "b" }, { of: "c" }])
      }).pipe(Effect.provide(layer())))

    it.effect("fails with InvalidRequest for params that are not in the protocol, and sends nothing", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const before = fake.sent.length
        const misspelled = yield* expectReason(server.request("thread/start", { sandBox: "read-only" } as never))
        assert(misspelled._tag === "InvalidRequest")
        assert.include(misspelled.message, "sandBox")
        const nested = yield* expectReason(
          server.request("turn/start", { threadId: "t", input: [{ type: "text", text: "hi", txt: "ho" }] } as never)
        )
        assert(nested._tag === "InvalidRequest")
        assert.include(nested.message, "txt")
        const closed = yield* expectReason(server.request("thread/start", { sandbox: "none" as never }))
        assert(closed._tag === "InvalidRequest")
        const unknown = yield* expectReason(server.request("thread/explode" as never, {} as never))
        assert(unknown._tag === "InvalidRequest")
        assert.strictEqual(fake.sent.length, before)
      }).pipe(Effect.provide(layer())))

    it.effect("does not include an invalid value in its error", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const error = yield* Effect.flip(
          server.request("thread/name/set", { threadId: "t", name: { secret: "swordfish" } as never })
        )
        assert.notInclude(`${error.message} ${JSON.stringify(error)} ${error.stack}`, "swordfish")
      }).pipe(Effect.provide(layer())))

    it.effect("replaces lone surrogates, with which the server would drop the request", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const name = "a\ud800b \\ud800 😀 \udfff\u2028"
        yield* Effect.forkChild(server.request("thread/name/set", { threadId: "t", name }))
        assert.strictEqual((yield* fake.take).params.name, name.toWellFormed())
      }).pipe(Effect.provide(layer())))

    it.effect.prop(
      "sends every string as a well-formed string",
      { name: Schema.String },
      ({ name }) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const fake = yield* Fake.FakeTransport
          yield* Effect.forkChild(server.request("thread/name/set", { threadId: "t", name }))
          assert.strictEqual((yield* fake.take).params.name, name.toWellFormed())
        }).pipe(Effect.provide(layer())),
      { arbitrary: { runs: 50 } }
    )

    it.effect("fails with the code, message and data of an error response", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const failure = yield* Effect.forkChild(expectReason(server.request("thread/archive", { threadId: "t" })))
        const { id } = yield* fake.take
        yield* fake.emit({ error: { code: -32600, message: "no rollout found", data: { why: "none" } }, id })
        const reason = yield* Fiber.join(failure)
        assert(reason._tag === "RequestRejected")
        assert.deepInclude(reason, { method: "thread/archive", code: -32600, detail: "no rollout found" })
        assert.deepStrictEqual(reason.data, { why: "none" })
      }).pipe(Effect.provide(layer())))

    it.effect("fails with DecodeFailed when the result does not decode", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const failure = yield* Effect.forkChild(expectReason(server.request("thread/loaded/list")))
        yield* fake.reply(yield* fake.take, { data: "swordfish" })
        const reason = yield* Fiber.join(failure)
        assert(reason._tag === "DecodeFailed")
        assert.include(reason.message, "thread/loaded/list")
        assert.notInclude(reason.message, "swordfish")
      }).pipe(Effect.provide(layer())))

    it.effect("fails with DecodeFailed when the response has neither a result nor an error", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const failure = yield* Effect.forkChild(expectReason(server.request("thread/loaded/list")))
        yield* fake.emit({ id: (yield* fake.take).id })
        assert.strictEqual((yield* Fiber.join(failure))._tag, "DecodeFailed")
      }).pipe(Effect.provide(layer())))

    it.effect("fails with InvalidRequest when maxInFlight is not positive", () =>
      Effect.gen(function*() {
        for (const maxInFlight of [0, -1, NaN]) {
          const error = yield* Effect.flip(Effect.scoped(Layer.build(layer({ maxInFlight }))))
          assert.strictEqual(error.reason._tag, "InvalidRequest")
        }
      }))

    it.effect("fails with RequestTimeout without a response, and ignores a later response", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const failure = yield* Effect.forkChild(expectReason(server.request("thread/archive", { threadId: "t" })))
        const request = yield* fake.take
        yield* TestClock.adjust("60 seconds")
        const reason = yield* Fiber.join(failure)
        assert(reason._tag === "RequestTimeout")
        assert.strictEqual(reason.timeoutMillis, 60_000)
        yield* fake.reply(request, {})
        const next = yield* Effect.forkChild(server.request("thread/archive", { threadId: "t" }))
        yield* fake.reply(yield* fake.take, {})
        yield* Fiber.join(next)
      }).pipe(Effect.provide(layer())))

    it.effect("sends at most maxInFlight requests without a response", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const handshake = fake.sent.length
        const all = yield* Effect.forkChild(
          Effect.forEach(Array.from({ length: 10 }), () => server.request("thread/loaded/list"), {
            concurrency: "unbounded"
          })
        )
        const first = yield* Effect.forEach([1, 2, 3], () => fake.take)
        yield* settle
        assert.strictEqual(fake.sent.length - handshake, 3)
        yield* fake.reply(first[0]!, { data: [] })
        yield* fake.take
        yield* settle
        assert.strictEqual(fake.sent.length - handshake, 4)
        yield* Fiber.interrupt(all)
      }).pipe(Effect.provide(layer({ maxInFlight: 3 }))))

    it.effect("releases the permit of a long request after the default timeout, and still receives its response", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const patient = yield* Effect.forEach(
          [1, 2],
          () => Effect.forkChild(server.requestRaw("thread/resume", { threadId: "t" }, { timeout: "1 hour" }))
        )
        const [first, second] = [yield* fake.takeMethod("thread/resume"), yield* fake.takeMethod("thread/resume")]
        // The first two requests hold both permits for 60 seconds.
        const waiting = yield* Effect.forkChild(server.request("model/list", {}, { timeout: "2 minutes" }))
        yield* TestClock.adjust("59 seconds")
        assert.isFalse(fake.sent.some(({ method }) => method === "model/list"))
        yield* TestClock.adjust("1 second")
        yield* fake.reply(yield* fake.takeMethod("model/list"), { data: [] })
        yield* Fiber.join(waiting)
        yield* TestClock.adjust("10 minutes")
        for (const request of [first, second]) yield* fake.reply(request, { late: true })
        for (const each of patient) assert.deepStrictEqual(yield* Fiber.join(each), { late: true })
        // The late responses do not release the permits a second time.
        yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(server.request("thread/loaded/list")))
        yield* TestClock.adjust("1 second")
        assert.lengthOf(fake.sent.filter(({ method }) => method === "thread/loaded/list"), 2)
      }).pipe(Effect.provide(layer({ maxInFlight: 2 }))))

    it.effect("sends turn/interrupt without a permit", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        yield* Effect.forkChild(server.request("thread/loaded/list"))
        yield* fake.take
        yield* Effect.forkChild(server.request("turn/interrupt", { threadId: "t", turnId: "u" }))
        assert.strictEqual((yield* fake.take).method, "turn/interrupt")
      }).pipe(Effect.provide(layer({ maxInFlight: 1 }))))

    it.effect("retries an idempotent request when the server is overloaded, and no other", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const refuse = Effect.flatMap(fake.take, ({ id }) => fake.emit({ id, error: overloaded }))

        const read = yield* Effect.forkChild(server.request("thread/loaded/list"))
        yield* refuse
        yield* TestClock.adjust("1 second")
        yield* refuse
        yield* TestClock.adjust("1 second")
        yield* fake.reply(yield* fake.take, { data: [] })
        assert.deepStrictEqual((yield* Fiber.join(read)).data, [])

        const start = yield* Effect.forkChild(expectReason(server.request("turn/start", { threadId: "t", input: [] })))
        yield* refuse
        assert.strictEqual((yield* Fiber.join(start))._tag, "Overloaded")
      }).pipe(Effect.provide(layer())))

    it.effect("fails with Overloaded after a minute of retries", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const failure = yield* Effect.forkChild(
          server.request("model/list").pipe(
            Effect.catchReason("AppServerError", "Overloaded", (reason) => Effect.succeed(reason.method))
          )
        )
        const refuse = Effect.flatMap(fake.take, ({ id }) => fake.emit({ id, error: overloaded }))
        yield* Effect.forkChild(Effect.forever(refuse))
        yield* TestClock.adjust("59 seconds")
        assert.strictEqual(yield* Fiber.join(failure), "model/list")
      }).pipe(Effect.provide(layer())))
  })

  describe("end of the connection", () => {
    it.effect("fails every pending and later request and stream with its cause", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const pending = yield* Effect.forkChild(Effect.flip(server.request("thread/loaded/list")))
        const watching = yield* Effect.forkChild(Effect.flip(Stream.runDrain(server.notifications)))
        yield* fake.take
        yield* fake.end(killed)
        assert.deepStrictEqual(yield* Fiber.join(pending), killed)
        assert.deepStrictEqual(yield* Fiber.join(watching), killed)
        assert.deepStrictEqual(yield* Effect.flip(server.request("thread/loaded/list")), killed)
        assert.deepStrictEqual(yield* Effect.flip(Stream.runDrain(server.notifications)), killed)
      }).pipe(Effect.provide(layer())))

    it.effect("comes after the messages before it", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
        const { id } = yield* fake.take
        const seen: Array<unknown> = []
        const watching = yield* Effect.forkChild(
          Effect.exit(Stream.runForEach(server.notifications, (event) => Effect.sync(() => seen.push(event.method))))
        )
        yield* settle
        yield* fake.emit(Fake.turnStarted("t", "u"), { id, result: { data: ["last"] } }, Fake.turnCompleted("t", "u"))
        yield* fake.end(killed)
        assert.deepStrictEqual((yield* Fiber.join(request)).data, ["last"])
        assert.isTrue(Exit.isFailure(yield* Fiber.join(watching)))
        assert.deepStrictEqual(seen, ["turn/started", "turn/completed"])
      }).pipe(Effect.provide(layer())))

    it.effect("settles every other request when a fiber observer or a listener throws", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const throwing = yield* Effect.forkChild(server.request("model/list"))
        throwing.addObserver(() => {
          throw new Error("a bug in an observer")
        })
        const first = yield* fake.take
        const others = yield* Effect.forEach([1, 2], () =>
          Effect.forkChild(Effect.exit(server.request("thread/loaded/list"))))
        const [second, third] = [yield* fake.take, yield* fake.take]
        yield* fake.emit({ id: first.id, result: { data: [] } }, { id: second.id, result: { data: ["a"] } })
        assert.isTrue(Exit.isSuccess(yield* Fiber.join(others[0]!)))
        const { server: connection } = yield* sessionState
        connection.addThreadListener("t", {
          onNotification: () => {},
          onClose: () => {
            throw new Error("a bug in a listener")
          }
        })
        yield* fake.end(killed)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(others[1]!)))
        assert.isDefined(third)
      }).pipe(Effect.provide(layer())))

    it.effect("fails requests with ConnectionClosed when the transport ends without an error", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const pending = yield* Effect.forkChild(expectReason(server.request("thread/loaded/list")))
        yield* fake.take
        yield* fake.end()
        assert.strictEqual((yield* Fiber.join(pending))._tag, "ConnectionClosed")
      }).pipe(Effect.provide(layer())))

    it.effect("fails requests with ConnectionClosed when the scope of the layer closes", () =>
      Effect.gen(function*() {
        const server = yield* Effect.provide(AppServer.AppServer, layer())
        assert.strictEqual((yield* expectReason(server.request("thread/loaded/list")))._tag, "ConnectionClosed")
      }))

    it.effect("interrupts running handlers", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const running = yield* Deferred.make<void>()
        const interrupted = yield* Deferred.make<void>()
        yield* server.handle("item/commandExecution/requestApproval", () =>
          Deferred.succeed(running, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          ))
        yield* fake.emit({ method: "item/commandExecution/requestApproval", id: 0, params: commandApproval })
        yield* Deferred.await(running)
        yield* fake.end(killed)
        yield* Deferred.await(interrupted)
      }).pipe(Effect.scoped, Effect.provide(layer())))
  })

  describe("notifications", () => {
    it.effect("emits a typed notification with its additional fields", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const message = { ...Fake.turnStarted("t", "u"), traceId: "abc" }
        const watching = yield* Effect.forkChild(Stream.runCollect(Stream.take(server.notifications, 1)))
        yield* settle
        yield* fake.emit(message)
        assert.deepStrictEqual<unknown>(yield* Fiber.join(watching), [message])
      }).pipe(Effect.provide(layer())))

    it.effect("emits unknown methods, members, variants and fields of a newer server", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const messages = [
          { method: "turn/teleported", params: { threadId: "t", turnId: "u", where: "Oslo" } },
          Fake.turnCompleted("t", "u", "paused"),
          {
            method: "item/completed",
            params: { threadId: "t", turnId: "u", completedAtMs: 1, item: { type: "hologram", id: "i", depth: 3 } }
          },
          { method: "thread/archived", params: { threadId: "t", by: "someone" }, shard: 7 }
        ]
        const watching = yield* Effect.forkChild(Stream.runCollect(Stream.take(server.notifications, messages.length)))
        yield* settle
        yield* fake.emit(...messages)
        assert.deepStrictEqual<unknown>(yield* Fiber.join(watching), messages)
      }).pipe(Effect.provide(layer())))

    it.effect("emits a notification that does not decode as malformed, with the raw message", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const message = {
          method: "item/agentMessage/delta",
          params: { threadId: "t", turnId: "u", itemId: "i", delta: 7 }
        }
        const watching = yield* Effect.forkChild(Stream.runCollect(Stream.take(server.notifications, 1)))
        yield* settle
        yield* fake.emit(message)
        assert.deepStrictEqual<unknown>(yield* Fiber.join(watching), [{ method: "malformed", raw: message }])
      }).pipe(Effect.provide(layer())))

    it.effect("coalesces the deltas of a slow subscriber, and does not delay a fast one", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const count = 20_000
        const gate = yield* Deferred.make<void>()
        const read = (wait: Effect.Effect<void>) =>
          server.notifications.pipe(
            Stream.takeUntil((event) => event.method === "turn/completed"),
            Stream.tap((event) => event.method === "turn/started" ? wait : Effect.void),
            Stream.runCollect
          )
        const fast = yield* Effect.forkChild(read(Effect.void))
        const slow = yield* Effect.forkChild(read(Deferred.await(gate)))
        yield* settle
        yield* fake.emit(Fake.turnStarted("t", "u"))
        for (let index = 0; index < count; index += 1000) {
          yield* fake.emit(...Array.from({ length: 1000 }, (_, at) => Fake.delta("t", "u", "i", `${index + at} `)))
        }
        yield* fake.emit(Fake.messageCompleted("t", "u", "i", "done"), Fake.turnCompleted("t", "u"))
        const text = (events: ReadonlyArray<Protocol.ServerNotification>) =>
          events.map((event) => event.method === "item/agentMessage/delta" ? event.params.delta : "").join("")
        const expected = Array.from({ length: count }, (_, index) => `${index} `).join("")
        const quick = yield* Fiber.join(fast)
        assert.strictEqual(text(quick), expected)
        yield* Deferred.succeed(gate, undefined)
        const late = yield* Fiber.join(slow)
        assert.strictEqual(text(late), expected)
        assert.isBelow(late.length, 2_000)
        assert.deepStrictEqual(late.slice(-2).map((event) => event.method), ["item/completed", "turn/completed"])
      }).pipe(Effect.provide(layer())))
  })

  describe("invalid line", () => {
    it.effect("is skipped, and the connection stays usable", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
        const { id } = yield* fake.take
        yield* fake.emitLines(
          "not json swordfish",
          "",
          "   ",
          "42",
          "null",
          "[]",
          "\"text\"",
          "{}",
          "{\"id\":null,\"result\":{}}",
          "{\"id\":{},\"result\":{}}",
          "{\"id\":999999,\"result\":{}}",
          "{\"method\":7,\"params\":{}}",
          "{\"method\":\"turn/started\"}",
          "{\"method\":\"turn/started\",\"params\":null}",
          "{\"__proto__\":{\"polluted\":true},\"method\":\"toString\",\"params\":{\"__proto__\":{\"threadId\":\"t\"}}}",
          "{\"truncated\":"
        )
        yield* fake.emit({ id, result: { data: ["still here"] } }, { id, result: { data: ["again"] } })
        assert.deepStrictEqual((yield* Fiber.join(request)).data, ["still here"])
        assert.isFalse("polluted" in {})
      }).pipe(Effect.provide(layer())))

    it.effect("is logged without its content", () => {
      const logged: Array<string> = []
      const logger = Logger.make(({ message }) => {
        logged.push(String(message))
      })
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        yield* fake.emitLines("not json: swordfish")
        for (let round = 0; round < 2; round++) {
          const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
          yield* fake.reply(yield* fake.take, { data: [] })
          yield* Fiber.join(request)
        }
        assert.isTrue(logged.some((message) => message.includes("not JSON")))
        assert.notInclude(logged.join("\n"), "swordfish")
      }).pipe(Effect.provide(layer()), Effect.provide(Logger.layer([logger])))
    })
  })

  describe("handle", () => {
    const declines: Record<string, unknown> = {
      "item/commandExecution/requestApproval": { decision: "decline" },
      "item/fileChange/requestApproval": { decision: "decline" },
      "item/permissions/requestApproval": { permissions: {}, scope: "turn" },
      "mcpServer/elicitation/request": { action: "decline", content: null }
    }

    for (const method of [...Object.keys(Protocol.serverRequests), "newer/request"]) {
      it.effect(`responds to ${method} without a grant when it has no handler`, () =>
        Effect.gen(function*() {
          const fake = yield* Fake.FakeTransport
          yield* fake.emit({ method, id: 0, params: { threadId: "t" } })
          const response = yield* fake.take
          assert.strictEqual(response.id, 0)
          if (method in declines) assert.deepStrictEqual(response.result, declines[method])
          else if (method === "item/tool/call") assert.isFalse(response.result.success)
          else if (method.endsWith("Approval")) assert.property(response.result.decision, "denied")
          else assert.strictEqual(response.error.code, -32601)
          const spec = method in Protocol.serverRequests
            ? Protocol.serverRequests[method as keyof Protocol.ServerRequests]
            : undefined
          if (spec !== undefined && response.result !== undefined) {
            const decoded = Schema.decodeUnknownResult(spec.result as Schema.Codec<unknown>)(response.result)
            assert.isTrue(Result.isSuccess(decoded))
          }
        }).pipe(Effect.provide(layer())))
    }

    it.effect("responds with the result of the handler, which gets typed params", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        yield* server.handle("item/commandExecution/requestApproval", (params) =>
          Effect.succeed({ decision: params.command === "ls" ? "accept" : "decline" } as const))
        yield* fake.emit({ method: "item/commandExecution/requestApproval", id: 0, params: commandApproval })
        assert.deepStrictEqual(yield* fake.take, { id: 0, result: { decision: "accept" } })
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("declines when the handler fails, dies or returns an invalid result, and when the params do not decode", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/commandExecution/requestApproval"
        const expectDecline = Effect.fnUntraced(
          function*(handler: () => unknown, params: object = commandApproval) {
            yield* server.handle(method, handler as () => Effect.Effect<never>)
            yield* fake.emit({ method, id: 0, params })
            assert.deepStrictEqual(yield* fake.take, { id: 0, result: { decision: "decline" } })
          },
          Effect.scoped
        )
        yield* expectDecline(() => Effect.fail("no"))
        yield* expectDecline(() => Effect.die(new Error("bug")))
        yield* expectDecline(() => {
          throw new Error("thrown")
        })
        yield* expectDecline(() => Effect.interrupt)
        yield* expectDecline(() => Promise.resolve({ decision: "accept" }))
        yield* expectDecline(() => Effect.succeed({ decision: "yes please" }))
        yield* expectDecline(() => Effect.succeed(undefined))
        yield* expectDecline(() => Effect.succeed({ decision: "accept" }), { ...commandApproval, threadId: 7 })
      }).pipe(Effect.provide(layer())))

    it.effect("does not delay requests, notifications or other handlers", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/commandExecution/requestApproval"
        yield* server.handle(method, (params) =>
          params.itemId === "slow" ? Effect.never : Effect.succeed({ decision: "accept" } as const))
        const events = yield* Effect.forkChild(Stream.runCollect(Stream.take(server.notifications, 1)))
        yield* settle
        yield* fake.emit({ method, id: 0, params: { ...commandApproval, itemId: "slow" } })
        yield* fake.emit({ method, id: 1, params: commandApproval }, Fake.turnStarted("other", "v"))
        assert.deepStrictEqual(yield* fake.take, { id: 1, result: { decision: "accept" } })
        assert.strictEqual((yield* Fiber.join(events))[0]!.method, "turn/started")
        const interrupt = yield* Effect.forkChild(server.request("turn/interrupt", { threadId: "t", turnId: "u" }))
        yield* fake.reply(yield* fake.take, {})
        yield* Fiber.join(interrupt)
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("lets the handler send requests", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/commandExecution/requestApproval"
        yield* server.handle(method, () =>
          Effect.map(server.request("thread/loaded/list"), ({ data }) =>
            ({ decision: data.includes("t") ? "accept" : "decline" }) as const))
        yield* fake.emit({ method, id: 0, params: commandApproval })
        yield* fake.reply(yield* fake.takeMethod("thread/loaded/list"), { data: ["t"] })
        assert.deepStrictEqual(yield* fake.take, { id: 0, result: { decision: "accept" } })
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("runs the handler once for a replayed request, and interrupts it when another client responds", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/commandExecution/requestApproval"
        let calls = 0
        const interrupted = yield* Deferred.make<void>()
        yield* server.handle(method, () =>
          Effect.sync(() => calls++).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          ))
        yield* fake.emit({ method, id: 0, params: commandApproval }, { method, id: 0, params: commandApproval })
        yield* fake.emit({ method: "serverRequest/resolved", params: { threadId: "t", requestId: 0 } })
        yield* Deferred.await(interrupted)
        assert.strictEqual(calls, 1)
        const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
        const next = yield* fake.take
        assert.strictEqual(next.method, "thread/loaded/list")
        yield* Fiber.interrupt(request)
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("runs the latest handler, and the earlier one after its scope closes", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/fileChange/requestApproval"
        const params = { threadId: "t", turnId: "u", itemId: "i", startedAtMs: 1 }
        yield* server.handle(method, () => Effect.succeed({ decision: "accept" } as const))
        yield* Effect.gen(function*() {
          yield* server.handle(method, () => Effect.succeed({ decision: "cancel" } as const))
          yield* fake.emit({ method, id: 0, params })
          assert.deepStrictEqual((yield* fake.take).result, { decision: "cancel" })
        }).pipe(Effect.scoped)
        yield* fake.emit({ method, id: 1, params })
        assert.deepStrictEqual((yield* fake.take).result, { decision: "accept" })
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("runs the earlier handler after NotHandled, and declines after the last one", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/fileChange/requestApproval"
        const params = { threadId: "t", turnId: "u", itemId: "i", startedAtMs: 1 }
        const pass = Effect.fail(new AppServer.NotHandled({ why: "not mine" }))
        yield* server.handle(
          method,
          ({ itemId }) => itemId === "i" ? Effect.succeed({ decision: "accept" } as const) : pass
        )
        yield* server.handle(method, () => pass)
        yield* fake.emit({ method, id: 0, params })
        assert.deepStrictEqual((yield* fake.take).result, { decision: "accept" })
        yield* fake.emit({ method, id: 1, params: { ...params, itemId: "j" } })
        assert.deepStrictEqual((yield* fake.take).result, { decision: "decline" })
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("responds with an error to a request without a decline, with another code when a handler fails", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const methods = ["currentTime/read", "account/chatgptAuthTokens/refresh", "attestation/generate"] as const
        const params = { threadId: "t", reason: "unauthorized" }
        for (const [index, method] of methods.entries()) {
          yield* fake.emit({ method, id: index, params })
          assert.deepStrictEqual((yield* fake.take).error, {
            code: -32601,
            message: `The client does not handle \`${method}\``
          })
          yield* Effect.gen(function*() {
            yield* server.handle(method, () => Effect.fail("no idea"))
            yield* fake.emit({ method, id: index + 10, params })
            assert.deepStrictEqual((yield* fake.take).error, {
              code: -32603,
              message: `The client failed to handle \`${method}\``
            })
          }).pipe(Effect.scoped)
        }
        yield* server.handle("currentTime/read", () => Effect.succeed({ currentTimeAt: 1_795_525_230 }))
        yield* server.handle("attestation/generate", () => Effect.succeed({ token: "token" }))
        yield* server.handle(
          "account/chatgptAuthTokens/refresh",
          ({ reason }) => Effect.succeed({ accessToken: `for ${reason}`, chatgptAccountId: "account" })
        )
        yield* fake.emit(...methods.map((method, id) => ({ method, id: id + 20, params })))
        const responses = yield* Effect.all(methods.map(() => fake.take))
        assert.deepStrictEqual(responses.map(({ result }) => result), [
          { currentTimeAt: 1_795_525_230 },
          { accessToken: "for unauthorized", chatgptAccountId: "account" },
          { token: "token" }
        ])
      }).pipe(Effect.scoped, Effect.provide(layer())))

    it.effect("sends no second response to a replayed request, but one to another request with the same id", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const fake = yield* Fake.FakeTransport
        const method = "item/commandExecution/requestApproval"
        let calls = 0
        yield* server.handle(method, () =>
          Effect.sync(() => {
            calls++
            return { decision: "accept" } as const
          }))
        const resume = yield* Effect.forkChild(server.requestRaw("thread/resume", { threadId: "t" }))
        const { id } = yield* fake.takeMethod("thread/resume")
        yield* fake.emit({ method, id: 0, params: commandApproval })
        assert.deepStrictEqual(yield* fake.take, { id: 0, result: { decision: "accept" } })
        yield* fake.emit({ id, result: {} }, { method, id: 0, params: commandApproval })
        yield* Fiber.join(resume)
        yield* fake.emit({ method, id: 0, params: { ...commandApproval, itemId: "another" } })
        assert.deepStrictEqual(yield* fake.take, { id: 0, result: { decision: "accept" } })
        assert.strictEqual(calls, 2)
        assert.lengthOf(fake.sent.filter((message) => message.method === undefined && message.id === 0), 2)
      }).pipe(Effect.scoped, Effect.provide(layer())))
  })

  it.effect("calls an internal notification handler until its scope closes", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { server: connection } = yield* sessionState
      const fake = yield* Fake.FakeTransport
      const seen: Array<unknown> = []
      yield* Effect.gen(function*() {
        yield* connection.addNotificationHandler("turn/started", () => {
          throw new Error("an error of another handler")
        })
        yield* connection.addNotificationHandler("turn/started", ({ turn }) => seen.push(turn.id))
        const started = yield* Effect.forkChild(Stream.runCollect(Stream.take(server.notifications, 2)))
        yield* settle
        yield* fake.emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
        yield* Fiber.join(started)
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(seen, ["u"])
      const later = yield* Effect.forkChild(Stream.runCollect(Stream.take(server.notifications, 1)))
      yield* settle
      yield* fake.emit(Fake.turnStarted("t", "v"))
      yield* Fiber.join(later)
      assert.lengthOf(seen, 1)
    }).pipe(Effect.provide(layer())))
})
