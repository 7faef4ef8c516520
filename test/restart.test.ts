import { assert, describe, it, layer } from "@effect/vitest"
import { Approvals, AppServer, AppServerError, Codex, Sandbox, Tool } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Transport from "../src/Transport.ts"
import * as Fake from "./FakeTransport.ts"
import {
  commandRequest,
  emit,
  end,
  expectReason,
  getResponses,
  getSent,
  killed,
  layer as layerFake,
  openThread,
  receive,
  reconnect,
  reject,
  respond,
  restart,
  settle,
  startTurn
} from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"

/** Kills the process of the app-server. */
const kill = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const { process: { id } } = yield* server.request("server/diagnostics")
  process.kill(id, "SIGKILL")
})

const awaitState = (tag: AppServer.ConnectionState["_tag"]) =>
  AppServer.AppServer.use(({ states }) => Stream.runHead(Stream.filter(states, ({ _tag }) => _tag === tag)))

/** Kills the process, and waits until the next one is ready. */
const killAndAwaitReady = Effect.andThen(kill, Effect.andThen(awaitState("Starting"), awaitState("Ready")))

const fast = Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 20 }))

layer(TestCodex.layer({ restart: fast }), { excludeTestServices: true })("Restart of a killed server", (it) => {
  it.effect("fails the running turn with TurnLost, and keeps its thread usable", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const thread = yield* codex.startThread()
      yield* TestCodex.script(
        thread,
        ModelServer.text("before"),
        TestCodex.halfMessage,
        ModelServer.text("after")
      )
      assert.strictEqual((yield* thread.run("one")).finalResponse, "before")
      yield* Effect.scoped(Effect.gen(function*() {
        const turn = yield* thread.turn("two")
        yield* Stream.runHead(turn.text)
        const restarted = yield* server.notifications.pipe(
          Stream.filter(({ method }) => String(method) === "effect-codex/restarted"),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        yield* killAndAwaitReady
        const reason = yield* expectReason(turn.result)
        assert.deepInclude(reason, { _tag: "TurnLost", threadId: thread.id, turnId: turn.id, resumable: true })
        assert.isTrue(Option.isSome(yield* Fiber.join(restarted)))
        assert.strictEqual((yield* expectReason(Stream.runDrain(turn.events)))._tag, "TurnLost")
      }))
      assert.strictEqual((yield* thread.run("three")).finalResponse, "after")
    }))

  it.effect("reopens an idle thread with its permissions, tools and handlers", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const seen: Array<string> = []
      const thread = yield* codex.startThread({
        approvalPolicy: "untrusted",
        approvalsReviewer: "user",
        tools: [Tool.make("greet", { description: "Greets", handler: () => Effect.succeed("hello") })],
        approvals: {
          command: ({ script }) => {
            seen.push(script ?? "")
            return Effect.succeed(Approvals.decline)
          }
        }
      })
      const call = (name: string, args: object, callId: string) => ModelServer.functionCall(name, args, { callId })
      yield* TestCodex.script(
        thread,
        ModelServer.text("first"),
        call("greet", {}, "greet"),
        call("exec_command", { cmd: "touch x", login: false }, "touch"),
        ModelServer.text("second")
      )
      yield* thread.run("one", {
        sandboxPolicy: Sandbox.workspaceWrite({ networkAccess: true, writableRoots: ["/opt"] })
      })
      const before = yield* readPermissions(thread.id)
      yield* kill
      yield* awaitState("Starting")
      assert.strictEqual((yield* thread.run("two")).finalResponse, "second")
      const request = (yield* TestCodex.getRequests(thread.id)).at(-1)
      assert.strictEqual(request?.functionCallOutput("greet"), "hello")
      assert.deepStrictEqual(seen, ["touch x"])
      assert.deepStrictEqual(yield* readPermissions(thread.id), before)
    }))

  it.effect("reopens a thread with its config, instructions, model and sandbox", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({
        baseInstructions: "BASE-MARK",
        developerInstructions: "DEVELOPER-MARK",
        config: { web_search: "disabled", tools: { view_image: false }, model_reasoning_summary: "detailed" }
      })
      yield* TestCodex.script(thread, ...["one", "two", "three"].map((text) => ModelServer.text(text)))
      yield* thread.run("one")
      const sandboxPolicy = Sandbox.readOnly({ networkAccess: true })
      yield* thread.run("two", { model: "other-model", effort: "high", serviceTier: "flex", sandboxPolicy })
      const before = yield* thread.settings
      assert.deepInclude<object | undefined>(before.sandboxPolicy, sandboxPolicy)
      yield* killAndAwaitReady
      yield* thread.run("three")
      assert.deepStrictEqual(yield* thread.settings, before)
      const facts = (request: ModelServer.ModelRequest) => ({
        model: request.body["model"],
        reasoning: request.body["reasoning"],
        tier: request.body["service_tier"],
        tools: request.body["tools"],
        base: JSON.stringify(request.body).includes("BASE-MARK"),
        developer: request.messageTexts("developer").filter((text) => text.includes("DEVELOPER-MARK")).length
      })
      const [, second, third] = (yield* TestCodex.getRequests(thread.id)).map(facts)
      assert.deepStrictEqual(third, second)
      assert.isTrue(third?.base)
      assert.notInclude(JSON.stringify(third?.tools), "web_search")
    }))

  it.effect("delays the operations of a thread until the thread is open again", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => ModelServer.text(`You said: ${request.lastUserText}`))
      const thread = yield* codex.startThread()
      const other = yield* codex.startThread()
      yield* thread.run("one")
      yield* other.run("one")
      yield* kill
      yield* awaitState("Starting")
      const [result] = yield* Effect.all([thread.run("two"), other.compact], { concurrency: "unbounded" })
      assert.strictEqual(result.finalResponse, "You said: two")
    }))

  it.effect("fails no read, no later request and no stream of notifications", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const events = yield* server.notifications.pipe(
        Stream.filter(({ method }) => method === "thread/started"),
        Stream.runHead,
        Effect.forkChild({ startImmediately: true })
      )
      const reads = yield* Effect.forEach(
        Array.from({ length: 50 }),
        () => Effect.forkChild(Stream.runCollect(codex.models()))
      )
      yield* kill
      const during = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* awaitState("Starting")
      const later = yield* Effect.forkChild(codex.startThread())
      for (const read of reads) assert.isNotEmpty(yield* Fiber.join(read))
      yield* Fiber.join(during)
      yield* Fiber.join(later)
      assert.isTrue(Option.isSome(yield* Fiber.join(events)))
    }))
})

/** The permissions that the server reports for a thread. */
const readPermissions = Effect.fnUntraced(function*(threadId: string) {
  const server = yield* AppServer.AppServer
  const { approvalPolicy, approvalsReviewer, sandbox } = yield* server.request("thread/resume", {
    threadId,
    excludeTurns: true
  })
  return { approvalPolicy, approvalsReviewer, sandbox }
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Restart of a killed server with a login", (it) => {
  it.effect("logs a warning that the login in memory is lost", () =>
    Effect.suspend(() => {
      const warnings: Array<string> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        if (logLevel === "Warn") warnings.push(String(message))
      })
      return Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const claims = { exp: 4_000_000_000, "https://api.openai.com/auth": { chatgpt_account_id: "account" } }
        const accessToken = ["{}", JSON.stringify(claims), "signature"].map(Base64Url.encode).join(".")
        const login = yield* server.notifications.pipe(
          Stream.filter(({ method }) => method === "account/updated"),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        yield* server.request("account/login/start", {
          type: "chatgptAuthTokens",
          accessToken,
          chatgptAccountId: "account"
        })
        yield* Fiber.join(login)
        yield* killAndAwaitReady
        const warning = warnings.find((text) => text.includes("chatgptAuthTokens"))
        assert.include(warning, "account/login/start")
        assert.notInclude(warnings.join(), accessToken)
      }).pipe(
        Effect.provide(Layer.provideMerge(TestCodex.layerProcess({ restart: fast }), Logger.layer([logger])))
      )
    }))
})

const everySecond = Schedule.spaced("1 second")

/** A fake server that is restarted one second after its end. */
const layerRestarting = layerFake({ restart: everySecond })

/** Codex on the fake transport after a change to it. */
const layerOn = (transport: typeof Fake.layerRedacting, options: AppServer.Options) =>
  Codex.layer.pipe(
    Layer.provideMerge(AppServer.layer(options)),
    Layer.provide(transport),
    Layer.provideMerge(Fake.layer)
  )

describe("AppServer.states", () => {
  it.effect("emits Starting with the cause of the restart, and Closed with the cause of its end", () => {
    let isRefused = false
    const refusal = AppServerError.make(
      new AppServerError.SpawnFailed({ command: "codex", cwd: undefined, description: "too many processes" })
    )
    const layerRefusing = Layer.effect(
      Transport.Transport,
      Effect.map(Transport.Transport, ({ connect }) => ({
        connect: Effect.suspend(() => isRefused ? Effect.fail(refusal) : connect)
      }))
    )
    return Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const states = yield* Effect.forkChild(Stream.runCollect(server.states))
      assert.strictEqual((yield* server.state)._tag, "Ready")
      yield* settle
      yield* end(killed)
      const waiting = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* reconnect
      yield* respond("thread/loaded/list", { data: [] })
      yield* Fiber.join(waiting)
      isRefused = true
      yield* end(killed)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(
        (yield* Fiber.join(states)).map((state) =>
          state._tag === "Ready" || state.cause === undefined ? state._tag : [state._tag, state.cause.reason._tag]
        ),
        [
          "Ready",
          ["Starting", "ConnectionClosed"],
          "Ready",
          ["Starting", "ConnectionClosed"],
          ["Starting", "SpawnFailed"],
          ["Closed", "RestartsExhausted"]
        ]
      )
      const reason = yield* expectReason(server.request("thread/loaded/list"))
      assert.deepInclude(reason, { _tag: "RestartsExhausted", restarts: 2 })
      assert.match(reason.message, /too many processes/)
      assert.strictEqual((yield* expectReason(codex.startThread()))._tag, "RestartsExhausted")
      assert.strictEqual((yield* expectReason(Stream.runDrain(server.notifications)))._tag, "RestartsExhausted")
    }).pipe(Effect.provide(layerOn(layerRefusing, { restart: everySecond.pipe(Schedule.upTo({ times: 2 })) })))
  })

  it.effect("emits Closed with its cause after the end of a server without restart", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      yield* end(killed)
      yield* expectReason(server.request("thread/loaded/list"))
      assert.deepStrictEqual(yield* Stream.runCollect(server.states), [{ _tag: "Closed", cause: killed }])
      assert.lengthOf(yield* getSent("initialize"), 1)
    }).pipe(Effect.provide(layerFake())))

  it.effect("does not emit Ready for a connection that ends while initialized is sent", () => {
    /** Ends a connection, and lets the client process its end, before `initialized` is sent. */
    const layerDying = (isDying: () => boolean) =>
      Layer.effect(
        Transport.Transport,
        Effect.map(Transport.Transport, ({ connect }) => ({
          connect: Effect.map(connect, ({ incoming, send }) => {
            const ended = Deferred.makeUnsafe<never, AppServerError.AppServerError>()
            return {
              incoming: Stream.merge(incoming, Stream.fromEffect(Deferred.await(ended))),
              send: (line: string) =>
                line.includes("\"initialized\"") && isDying()
                  ? Effect.andThen(Deferred.fail(ended, killed), Effect.repeat(Effect.yieldNow, { times: 50 }))
                  : send(line)
            }
          })
        }))
      )
    let connections = 0
    return Effect.gen(function*() {
      const first = layerOn(layerDying(() => true), {})
      assert.deepStrictEqual(yield* Effect.flip(Effect.scoped(Layer.build(first))), killed)

      yield* Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const server = yield* AppServer.AppServer
        yield* end(killed)
        yield* awaitState("Starting")
        const states: Array<string> = []
        yield* Effect.forkChild(Stream.runForEach(server.states, ({ _tag }) => Effect.sync(() => states.push(_tag))))
        const waiting = yield* Effect.forkChild(server.request("thread/loaded/list"))
        yield* TestClock.adjust("1500 millis")
        yield* fake.reconnected
        assert.deepStrictEqual(states.filter((tag) => tag !== "Starting"), [])
        yield* reconnect
        yield* respond("thread/loaded/list", { data: [] })
        yield* Fiber.join(waiting)
        assert.strictEqual(states.at(-1), "Ready")
      }).pipe(Effect.provide(layerOn(layerDying(() => connections++ === 1), { restart: everySecond })))
    })
  })
})

describe("Restart", () => {
  it.effect("returns the stored result of a turn whose end did not arrive", () =>
    Effect.gen(function*() {
      const run = yield* startTurn((yield* openThread("t")).run("go"), "u")
      yield* emit(Fake.turnStarted("t", "u"), Fake.messageCompleted("t", "u", "one", "known"))
      yield* settle
      yield* restart
      yield* respond("thread/resume", Fake.threadResponse("t"))
      const items = [
        { type: "agentMessage", id: "one", text: "known", phase: null },
        { type: "agentMessage", id: "two", text: "the end", phase: "final_answer" }
      ]
      yield* respond("thread/turns/list", {
        data: [Fake.turn("v"), Fake.turn("u", "completed", { items })],
        nextCursor: null
      })
      const result = yield* Fiber.join(run)
      assert.strictEqual(result.finalResponse, "the end")
      assert.deepStrictEqual(result.items.map((item) => "id" in item && item.id), ["one", "two"])
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("does not send turn/start again", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(expectReason(thread.run("go")))
      yield* receive("turn/start")
      yield* restart
      assert.strictEqual((yield* Fiber.join(run))._tag, "ConnectionClosed")
      const again = yield* Effect.forkChild(thread.run("again"))
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* respond("turn/start", { turn: Fake.turn("w") })
      yield* emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(again)
      const inputs = (yield* getSent("turn/start")).map(({ params }) => params.input[0].text)
      assert.deepStrictEqual(inputs, ["go", "again"])
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("does not reopen a thread with other permissions", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(expectReason(thread.run("go")), "u")
      yield* restart
      yield* respond("thread/resume", Fake.threadResponse("t", { approvalPolicy: "never" }))
      assert.strictEqual((yield* Fiber.join(run))._tag, "TurnLost")
      const again = yield* Effect.forkChild(expectReason(thread.run("again")))
      const widened = Fake.threadResponse("t", { sandbox: { type: "dangerFullAccess" } })
      yield* respond("thread/resume", widened)
      yield* respond("thread/settings/update", {})
      yield* respond("thread/resume", widened)
      assert.deepInclude(yield* Fiber.join(again), { _tag: "SettingsNotApplied", setting: "sandbox" })
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("does not start a turn with other permissions that was called before the restart", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(expectReason(thread.run("go")), "u")
      const blocking = yield* Effect.forkChild(Effect.exit(thread.compact))
      yield* receive("thread/compact/start")
      const waiting = yield* Effect.forkChild(expectReason(thread.run("waiting")))
      yield* settle
      yield* end(killed)
      yield* Fiber.join(blocking)
      yield* reconnect
      const widened = Fake.threadResponse("t", { approvalPolicy: "never" })
      yield* respond("thread/resume", widened)
      assert.strictEqual((yield* Fiber.join(run))._tag, "TurnLost")
      // The waiting run opens the thread again.
      yield* respond("thread/resume", widened)
      assert.deepInclude(yield* Fiber.join(waiting), { _tag: "SettingsNotApplied", setting: "approvalPolicy" })
      assert.lengthOf(yield* getSent("turn/start"), 1)
    }).pipe(Effect.provide(layerFake({ restart: everySecond, maxInFlight: 1 }))))

  it.effect("recovers turns when an earlier restart could not", () =>
    Effect.gen(function*() {
      const run = yield* startTurn(expectReason((yield* openThread("t")).run("go")), "u")
      yield* restart
      yield* receive("thread/resume")
      yield* restart
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* respond("thread/turns/list", { data: [Fake.turn("u", "interrupted")] })
      assert.strictEqual((yield* Fiber.join(run))._tag, "TurnLost")
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("sends the requests that waited for it, even if they exceed the permits", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(expectReason(thread.run("go")), "u")
      yield* end(killed)
      const waiting = yield* Effect.replicateEffect(Effect.forkChild(thread.setName("named")), 200)
      const again = yield* Effect.forkChild(thread.run("again"))
      yield* reconnect
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* respond("thread/turns/list", { data: [] })
      assert.strictEqual((yield* Fiber.join(run))._tag, "TurnLost")
      const fake = yield* Fake.FakeTransport
      for (let responses = 0; responses < 201; responses++) {
        const request = yield* fake.take
        yield* respond(request, request.method === "turn/start" ? { turn: Fake.turn("w") } : {})
      }
      yield* Fiber.joinAll(waiting)
      yield* emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(again)
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("reopens a thread when it is used, once for all callers", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      yield* openThread("archived")
      yield* emit({ method: "thread/archived", params: { threadId: "archived" } })
      yield* end(killed)
      yield* awaitState("Starting")
      const run = yield* Effect.forkChild(thread.run("meanwhile"))
      const compact = yield* Effect.forkChild(thread.compact)
      const name = yield* Effect.forkChild(thread.setName("meanwhile"))
      yield* reconnect
      const byMethod = new Map([yield* fake.take, yield* fake.take].map((request) => [request.method, request]))
      // Renaming a thread does not need it open.
      assert.sameMembers([...byMethod.keys()], ["thread/resume", "thread/name/set"])
      yield* TestClock.adjust("1 second")
      assert.lengthOf(yield* getSent("thread/resume"), 1)
      assert.strictEqual((yield* server.state)._tag, "Ready")
      yield* respond(byMethod.get("thread/name/set")!, {})
      assert.strictEqual(byMethod.get("thread/resume")!.params.threadId, "t")
      yield* respond(byMethod.get("thread/resume")!, Fake.threadResponse("t"))
      for (const request of [yield* fake.take, yield* fake.take]) byMethod.set(request.method, request)
      yield* respond(byMethod.get("turn/start")!, { turn: Fake.turn("u") })
      yield* emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
      yield* Fiber.join(run)
      yield* Fiber.join(name)
      // The compaction was sent after the restart, so it is not lost.
      yield* respond(byMethod.get("thread/compact/start")!, {})
      yield* emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c"))
      yield* Fiber.join(compact)
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("reopens a thread that ran a turn of a goal, so that the goal continues", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* openThread("idle")
      yield* emit(Fake.turnStarted("t", "goal"), Fake.turnStarted("unknown", "other"))
      yield* end(killed)
      yield* reconnect
      yield* respond("thread/resume", Fake.threadResponse(thread.id))
      yield* settle
      assert.deepStrictEqual((yield* getSent("thread/resume")).map(({ params }) => params.threadId), ["t"])
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("reopens a thread before it lists or ends its background terminals", () =>
    Effect.gen(function*() {
      const { backgroundTerminals } = yield* openThread("t")
      const terminated = { terminated: true }
      const operations = [
        ["thread/backgroundTerminals/list", Stream.runDrain(backgroundTerminals.list), { data: [] }],
        ["thread/backgroundTerminals/terminate", Effect.asVoid(backgroundTerminals.terminate("p")), terminated],
        ["thread/backgroundTerminals/clean", backgroundTerminals.clean, {}]
      ] as const
      for (const [method, operation, response] of operations) {
        yield* restart
        const running = yield* Effect.forkChild(operation)
        yield* respond("thread/resume", Fake.threadResponse("t"))
        yield* respond(method, response)
        yield* Fiber.join(running)
      }
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("reopens a thread whose tools were read during it", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const tools = [Tool.make("greet", { description: "Greets", handler: () => Effect.succeed("hello") })]
      const resuming = yield* Effect.forkChild(codex.resumeThread("t", { tools }))
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* receive("thread/read")
      yield* restart
      yield* respond("thread/read", { thread: { id: "t" } })
      const thread = yield* Fiber.join(resuming)
      const run = yield* Effect.forkChild(thread.run("go"))
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* respond("turn/start", { turn: Fake.turn("u") })
      yield* emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
      yield* Fiber.join(run)
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("sends a compaction that was not sent before it", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* openThread("t")
      yield* Effect.forkChild(server.request("model/list"))
      yield* receive("model/list")
      const compact = yield* Effect.forkChild(thread.compact)
      yield* settle
      yield* restart
      yield* respond("model/list", { data: [] })
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* respond("thread/compact/start", {})
      yield* emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c"))
      yield* Fiber.join(compact)
    }).pipe(Effect.provide(layerFake({ restart: everySecond, maxInFlight: 1 }))))

  it.effect("completes a run that was opening its thread when the server ended again", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* startTurn(expectReason(thread.run("go")), "u")
      yield* restart
      yield* reject("thread/resume", { code: -32603, message: "not now" })
      assert.strictEqual((yield* Fiber.join(run))._tag, "TurnLost")
      // The next run resumes the thread again, and the server ends before it responds.
      const again = yield* Effect.forkChild(thread.run("again"))
      yield* receive("thread/resume")
      yield* restart
      yield* respond("thread/resume", Fake.threadResponse("t"))
      yield* respond(yield* fake.take, { turn: Fake.turn("w") })
      yield* emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(again)
    }).pipe(Effect.provide(layerRestarting)))

  it.effect("starts its schedule again after the server was ready for a minute", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      for (let time = 0; time < 5; time++) {
        yield* restart
        yield* settle
        assert.strictEqual((yield* server.state)._tag, "Ready")
        yield* TestClock.adjust("1 minute")
      }
      yield* restart
      yield* settle
      yield* end(killed)
      const reason = yield* expectReason(server.request("thread/loaded/list"))
      assert.deepInclude(reason, { _tag: "RestartsExhausted", restarts: 1 })
    }).pipe(Effect.provide(layerFake({ restart: everySecond.pipe(Schedule.upTo({ times: 1 })) }))))

  it.effect("interrupts the handler of a request, and sends no response to it", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const server = yield* AppServer.AppServer
      yield* server.handle("item/commandExecution/requestApproval", () =>
        Deferred.succeed(started, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        ))
      yield* emit(commandRequest(7))
      yield* Deferred.await(started)
      yield* end(killed)
      yield* Deferred.await(interrupted)
      yield* reconnect
      const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* respond("thread/loaded/list", { data: [] })
      yield* Fiber.join(request)
      assert.isEmpty(yield* getResponses(7))
    }).pipe(Effect.scoped, Effect.provide(layerRestarting)))

  it.effect("fails the requests that wait for it when the scope of the connection closes", () =>
    Effect.gen(function*() {
      const waiting = yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        yield* end(killed)
        const fiber = yield* Effect.forkDetach(expectReason(server.request("thread/loaded/list")))
        yield* settle
        return fiber
      }).pipe(Effect.provide(layerFake({ restart: Schedule.spaced("1 hour") })))
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "ConnectionClosed")
    }))
})
