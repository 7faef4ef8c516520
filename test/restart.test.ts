import { assert, describe, it, layer } from "@effect/vitest"
import { Approvals, AppServer, AppServerError, Codex, Sandbox, Tool } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as Transport from "../src/Transport.ts"
import * as Fake from "./FakeTransport.ts"
import * as TestCodex from "./TestCodex.ts"

/** Kills the process of the app-server, which says itself which it is. */
const kill = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const { process: { id } } = yield* server.request("server/diagnostics")
  process.kill(id, "SIGKILL")
})

const awaitReady = Effect.flatMap(AppServer.AppServer, ({ states }) =>
  states.pipe(
    Stream.dropUntil(({ _tag }) => _tag === "Starting"),
    Stream.filter(({ _tag }) => _tag === "Ready"),
    Stream.runHead
  ))

const quick = Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 20 }))

const reasonOf = <A, R>(
  effect: Effect.Effect<A, { readonly _tag: string; readonly reason?: AppServerError.AppServerErrorReason }, R>
) => Effect.map(Effect.flip(effect), (error) => error.reason)

layer(TestCodex.layer({ restart: quick }), { excludeTestServices: true })("a server that is killed", (it) => {
  it.effect("is started again: the turn that ran is lost, and its thread goes on", () =>
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
        const ready = yield* Effect.forkChild(awaitReady)
        const told = yield* server.notifications.pipe(
          Stream.filter(({ method }) => (method as string) === "effect-codex/restarted"),
          Stream.runHead,
          Effect.forkChild
        )
        yield* Effect.sleep("20 millis")
        yield* kill
        const reason = yield* reasonOf(turn.result)
        assert.deepInclude(reason, { _tag: "TurnLost", threadId: thread.id, turnId: turn.id, resumable: true })
        yield* Fiber.join(ready)
        assert.isTrue(Option.isSome(yield* Fiber.join(told)))
        assert.deepInclude(yield* reasonOf(Stream.runDrain(turn.events)), { _tag: "TurnLost" })
      }))
      assert.strictEqual((yield* thread.run("three")).finalResponse, "after")
    }))

  it.effect("does not take threads along that were idle: they are opened again with the rights and tools they had", () =>
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
      const before = yield* rightsOf(thread.id)
      const ready = yield* Effect.forkChild(awaitReady)
      yield* Effect.sleep("20 millis")
      yield* kill
      yield* Stream.runHead(Stream.filter((yield* AppServer.AppServer).states, ({ _tag }) => _tag === "Starting"))
      // It may be used at once.
      assert.strictEqual((yield* thread.run("two")).finalResponse, "second")
      yield* Fiber.join(ready)
      const request = (yield* TestCodex.getRequests(thread.id)).at(-1)
      assert.strictEqual(request?.functionCallOutput("greet"), "hello")
      assert.deepStrictEqual(seen, ["touch x"])
      assert.deepStrictEqual(yield* rightsOf(thread.id), before)
    }))

  it.effect("gives back a thread with its config, its instructions, its model and the details of its sandbox", () =>
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
      const ready = yield* Effect.forkChild(awaitReady)
      yield* Effect.sleep("20 millis")
      yield* kill
      yield* Fiber.join(ready)
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

  it.effect("lets threads be used meanwhile: what is asked of them waits until they are open again", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) => ModelServer.text(`You said: ${request.lastUserText}`))
      const thread = yield* codex.startThread()
      const other = yield* codex.startThread()
      yield* thread.run("one")
      yield* other.run("one")
      const { states } = yield* AppServer.AppServer
      const starting = yield* Effect.forkChild(Stream.runHead(Stream.filter(states, ({ _tag }) => _tag === "Starting")))
      yield* Effect.sleep("20 millis")
      yield* kill
      yield* Fiber.join(starting)
      const [result] = yield* Effect.all([thread.run("two"), other.compact], { concurrency: "unbounded" })
      assert.strictEqual(result.finalResponse, "You said: two")
    }))

  it.effect("costs no read, no waiting request and no stream of notifications", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const events = yield* server.notifications.pipe(
        Stream.filter(({ method }) => method === "thread/started"),
        Stream.runHead,
        Effect.forkChild
      )
      yield* Effect.sleep("20 millis")
      const reads = yield* Effect.forEach(
        Array.from({ length: 50 }),
        () => Effect.forkChild(Stream.runCollect(codex.models()))
      )
      yield* kill
      const during = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* Stream.runHead(Stream.filter(server.states, ({ _tag }) => _tag === "Starting"))
      const later = yield* Effect.forkChild(codex.startThread())
      for (const read of reads) assert.isNotEmpty(yield* Fiber.join(read))
      yield* Fiber.join(during)
      yield* Fiber.join(later)
      assert.isTrue(Option.isSome(yield* Fiber.join(events)))
    }))
})

const rightsOf = Effect.fnUntraced(function*(threadId: string) {
  const server = yield* AppServer.AppServer
  const { approvalPolicy, approvalsReviewer, sandbox } = yield* server.request("thread/resume", {
    threadId,
    excludeTurns: true
  })
  return { approvalPolicy, approvalsReviewer, sandbox }
})

/** The reason of a fiber that is to fail with an `AppServerError`. */
const failureOf = <A, E>(fiber: Fiber.Fiber<Exit.Exit<A, E>>) =>
  Effect.map(Fiber.join(fiber), (exit) => {
    const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
    return AppServerError.isAppServerError(error) ? error.reason._tag : undefined
  })

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("a server that is killed, with a login", (it) => {
  it.effect("reports that a login is lost which it kept in memory, before a turn fails for it", () =>
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
        const ready = yield* Effect.forkChild(awaitReady)
        yield* Effect.sleep("20 millis")
        yield* kill
        yield* Fiber.join(ready)
        const warning = warnings.find((text) => text.includes("chatgptAuthTokens"))
        assert.include(warning, "account/login/start")
        assert.notInclude(warnings.join(), accessToken)
      }).pipe(
        Effect.provide(Layer.provideMerge(TestCodex.layerProcess({ restart: quick }), Logger.layer([logger])))
      )
    }))
})

describe("a connection that ends", () => {
  /** A transport each of whose connections is scripted by the test: what it sends and how it ends. */
  const makeServers = Effect.gen(function*() {
    const connections = yield* Queue.unbounded<Fake.FakeTransport["Service"]>()
    let opened = 0
    let refuse = false
    const connect = Effect.gen(function*() {
      opened++
      if (refuse) {
        return yield* AppServerError.make(
          new AppServerError.SpawnFailed({ command: "codex", cwd: undefined, description: "no more of them" })
        )
      }
      const context = yield* Layer.build(Layer.fresh(Fake.layer))
      const fake = yield* Effect.provide(Fake.FakeTransport, context)
      const transport = yield* Effect.provide(Transport.Transport, context)
      yield* Queue.offer(connections, fake)
      return yield* transport.connect
    })
    return {
      layer: Layer.succeed(Transport.Transport, { connect }),
      next: Queue.take(connections),
      opened: () => opened,
      refuse: () => {
        refuse = true
      }
    }
  })

  const killed = AppServerError.make(
    new AppServerError.ConnectionClosed({ description: "killed", exitCode: 137, signal: undefined, stderrTail: "" })
  )

  const build = (transport: Layer.Layer<Transport.Transport>, options: AppServer.Options) =>
    Layer.build(Codex.layer.pipe(Layer.provideMerge(AppServer.layer(options)), Layer.provide(transport)))

  it.effect("tells its state: ready, starting because of what, ready again, closed because of what", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, {
        restart: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 2 }))
      })
      const server = yield* Effect.provide(AppServer.AppServer, context)
      const states = yield* Effect.forkChild(Stream.runCollect(server.states))
      assert.strictEqual((yield* server.state)._tag, "Ready")
      yield* Effect.yieldNow
      const first = yield* servers.next
      yield* first.end(killed)
      const waiting = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      yield* second.reply(yield* second.takeMethod("thread/loaded/list"), { data: [] })
      yield* Fiber.join(waiting)
      servers.refuse()
      yield* second.end(killed)
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
      const reason = yield* reasonOf(server.request("thread/loaded/list"))
      assert.deepInclude(reason, { _tag: "RestartsExhausted", restarts: 2 })
      assert.match(reason!.message, /no more of them/)
      const codex = yield* Effect.provide(Codex.Codex, context)
      assert.strictEqual((yield* reasonOf(codex.startThread()))?._tag, "RestartsExhausted")
      assert.strictEqual((yield* reasonOf(Stream.runDrain(server.notifications)))?._tag, "RestartsExhausted")
    }).pipe(Effect.scoped))

  it.effect("for good tells Closed with its cause, also to those who ask later", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, {})
      const server = yield* Effect.provide(AppServer.AppServer, context)
      yield* (yield* servers.next).end(killed)
      yield* reasonOf(server.request("thread/loaded/list"))
      const states = yield* Stream.runCollect(server.states)
      assert.deepStrictEqual(states, [{ _tag: "Closed", cause: killed }])
      assert.strictEqual(servers.opened(), 1)
    }).pipe(Effect.scoped))

  it.effect("while it is told that it is initialized is not taken into use", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      /** Has a connection end, and its end be heard, while `initialized` is on its way. */
      const dying = (isDying: () => boolean) =>
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
        ).pipe(Layer.provide(servers.layer))

      assert.deepStrictEqual(yield* Effect.flip(build(dying(() => true), {})), killed)

      let opened = 0
      const context = yield* build(dying(() => opened++ === 1), { restart: Schedule.spaced("1 second") })
      const server = yield* Effect.provide(AppServer.AppServer, context)
      yield* servers.next
      yield* (yield* servers.next).end(killed)
      yield* Stream.runHead(Stream.filter(server.states, ({ _tag }) => _tag === "Starting"))
      const states: Array<string> = []
      yield* Effect.forkChild(Stream.runForEach(server.states, ({ _tag }) => Effect.sync(() => states.push(_tag))))
      const waiting = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* TestClock.adjust("1500 millis")
      assert.deepStrictEqual(states.filter((tag) => tag !== "Starting"), [])
      yield* servers.next
      yield* TestClock.adjust("1 second")
      const third = yield* servers.next
      yield* third.reply(yield* third.takeMethod("thread/loaded/list"), { data: [] })
      yield* Fiber.join(waiting)
      assert.strictEqual(states.at(-1), "Ready")
    }).pipe(Effect.scoped))

  const open = Effect.fnUntraced(function*(servers: Effect.Success<typeof makeServers>, options?: AppServer.Options) {
    const context = yield* build(servers.layer, { restart: Schedule.spaced("1 second"), ...options })
    const codex = yield* Effect.provide(Codex.Codex, context)
    const fake = yield* servers.next
    const starting = yield* Effect.forkChild(codex.startThread())
    yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t"))
    const thread = yield* Fiber.join(starting)
    const run = yield* Effect.forkChild(Effect.exit(thread.run("go")))
    const start = yield* fake.takeMethod("turn/start")
    return { fake, thread, run, start }
  })

  it.effect("after a turn whose end was not heard: the turn has the result that the server has stored", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, start } = yield* open(servers)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.messageCompleted("t", "u", "one", "known"))
      yield* Effect.yieldNow
      yield* fake.end(killed)
      yield* TestClock.adjust("1 second")
      const next = yield* servers.next
      yield* next.reply(yield* next.takeMethod("thread/resume"), Fake.threadResponse("t"))
      const items = [
        { type: "agentMessage", id: "one", text: "known", phase: null },
        { type: "agentMessage", id: "two", text: "the end", phase: "final_answer" }
      ]
      yield* next.reply(yield* next.takeMethod("thread/turns/list"), {
        data: [Fake.turn("v"), Fake.turn("u", "completed", { items })],
        nextCursor: null
      })
      const exit = yield* Fiber.join(run)
      assert.strictEqual(exit._tag, "Success")
      if (exit._tag !== "Success") return
      assert.strictEqual(exit.value.finalResponse, "the end")
      assert.deepStrictEqual(exit.value.items.map((item) => (item as { id: string }).id), ["one", "two"])
    }).pipe(Effect.scoped))

  it.effect("while a turn was being started does not start it twice", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, thread } = yield* open(servers)
      yield* fake.end(killed)
      assert.strictEqual(yield* failureOf(run), "ConnectionClosed")
      yield* TestClock.adjust("1 second")
      const next = yield* servers.next
      const again = yield* Effect.forkChild(thread.run("again"))
      yield* next.reply(yield* next.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* next.reply(yield* next.takeMethod("turn/start"), { turn: Fake.turn("w") })
      yield* next.emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(again)
      assert.lengthOf(next.sent.filter(({ method }) => method === "turn/start"), 1)
    }).pipe(Effect.scoped))

  it.effect("does not hand out a thread with other rights than it had", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, start, thread } = yield* open(servers)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* fake.end(killed)
      yield* TestClock.adjust("1 second")
      const next = yield* servers.next
      yield* next.reply(
        yield* next.takeMethod("thread/resume"),
        Fake.threadResponse("t", { approvalPolicy: "never" })
      )
      assert.strictEqual(yield* failureOf(run), "TurnLost")
      const again = yield* Effect.forkChild(reasonOf(thread.run("again")))
      yield* next.reply(
        yield* next.takeMethod("thread/resume"),
        Fake.threadResponse("t", { sandbox: { type: "dangerFullAccess" } })
      )
      yield* next.reply(yield* next.takeMethod("thread/settings/update"), {})
      yield* next.reply(
        yield* next.takeMethod("thread/resume"),
        Fake.threadResponse("t", { sandbox: { type: "dangerFullAccess" } })
      )
      assert.deepInclude(yield* Fiber.join(again), { _tag: "SettingsNotApplied", setting: "sandbox" })
    }).pipe(Effect.scoped))

  it.effect("does not start a turn with other rights in a thread, though it was asked for before the end", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, start, thread } = yield* open(servers, { maxInFlight: 1 })
      yield* fake.reply(start, { turn: Fake.turn("u") })
      // This has the only place.
      const inTheWay = yield* Effect.forkChild(Effect.exit(thread.compact))
      yield* fake.takeMethod("thread/compact/start")
      const waiting = yield* Effect.forkChild(reasonOf(thread.run("waiting")))
      yield* Effect.yieldNow
      yield* fake.end(killed)
      yield* Fiber.join(inTheWay)
      yield* TestClock.adjust("1 second")
      const next = yield* servers.next
      const widened = Fake.threadResponse("t", { approvalPolicy: "never" })
      yield* next.reply(yield* next.takeMethod("thread/resume"), widened)
      assert.strictEqual(yield* failureOf(run), "TurnLost")
      // Now that it is to be used, it is tried again.
      yield* next.reply(yield* next.take, widened)
      assert.deepInclude(yield* Fiber.join(waiting), { _tag: "SettingsNotApplied", setting: "approvalPolicy" })
      assert.notInclude(next.sent.map(({ method }) => method), "turn/start")
    }).pipe(Effect.scoped))

  it.effect("again while turns are recovered leaves them to the next restart", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, start } = yield* open(servers)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* fake.end(killed)
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      yield* second.takeMethod("thread/resume")
      yield* second.end(killed)
      yield* TestClock.adjust("1 second")
      const third = yield* servers.next
      yield* third.reply(yield* third.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* third.reply(yield* third.takeMethod("thread/turns/list"), { data: [Fake.turn("u", "interrupted")] })
      assert.strictEqual(yield* failureOf(run), "TurnLost")
    }).pipe(Effect.scoped))

  it.effect("is made usable again however many requests wait for it, and sends those that were not sent", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, start, thread } = yield* open(servers)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* fake.end(killed)
      const waiting = yield* Effect.forEach(
        Array.from({ length: 200 }),
        () => Effect.forkChild(Effect.exit(thread.setName("all of them")))
      )
      const again = yield* Effect.forkChild(thread.run("again"))
      yield* TestClock.adjust("1 second")
      const next = yield* servers.next
      yield* next.reply(yield* next.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* next.reply(yield* next.takeMethod("thread/turns/list"), { data: [] })
      assert.strictEqual(yield* failureOf(run), "TurnLost")
      for (let answered = 0; answered < 201; answered++) {
        const request = yield* next.take
        yield* next.reply(request, request.method === "turn/start" ? { turn: Fake.turn("w") } : {})
      }
      for (const each of waiting) assert.isTrue(Exit.isSuccess(yield* Fiber.join(each)))
      yield* next.emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(again)
    }).pipe(Effect.scoped))

  it.effect("opens a thread again when it is used, once for all callers", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, { restart: Schedule.spaced("1 second") })
      const codex = yield* Effect.provide(Codex.Codex, context)
      const server = yield* Effect.provide(AppServer.AppServer, context)
      const first = yield* servers.next
      const opening = yield* Effect.forkChild(Effect.all([codex.startThread(), codex.startThread()]))
      yield* first.reply(yield* first.takeMethod("thread/start"), Fake.threadResponse("t"))
      yield* first.reply(yield* first.takeMethod("thread/start"), Fake.threadResponse("archived"))
      const [thread] = yield* Fiber.join(opening)
      yield* first.emit({ method: "thread/archived", params: { threadId: "archived" } })
      yield* first.end(killed)
      yield* Stream.runHead(Stream.filter(server.states, ({ _tag }) => _tag === "Starting"))
      const run = yield* Effect.forkChild(thread.run("meanwhile"))
      const compact = yield* Effect.forkChild(Effect.exit(thread.compact))
      const name = yield* Effect.forkChild(thread.setName("meanwhile"))
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      const byMethod = new Map([yield* second.take, yield* second.take].map((request) => [request.method, request]))
      // Renaming a thread does not need it open.
      assert.sameMembers([...byMethod.keys()], ["thread/resume", "thread/name/set"])
      yield* TestClock.adjust("1 second")
      assert.lengthOf(second.sent.filter(({ method }) => method === "thread/resume"), 1)
      assert.strictEqual((yield* server.state)._tag, "Ready")
      yield* second.reply(byMethod.get("thread/name/set")!, {})
      assert.strictEqual(byMethod.get("thread/resume")!.params.threadId, "t")
      yield* second.reply(byMethod.get("thread/resume")!, Fake.threadResponse("t"))
      for (const request of [yield* second.take, yield* second.take]) byMethod.set(request.method, request)
      yield* second.reply(byMethod.get("turn/start")!, { turn: Fake.turn("u") })
      yield* second.emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
      yield* Fiber.join(run)
      yield* Fiber.join(name)
      // The compaction was sent after the restart, so it is not lost.
      yield* second.reply(byMethod.get("thread/compact/start")!, {})
      yield* second.emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c"))
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(compact)))
    }).pipe(Effect.scoped))

  it.effect("opens a thread again before it lists or ends its background terminals", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, { restart: Schedule.spaced("1 second") })
      const codex = yield* Effect.provide(Codex.Codex, context)
      let fake = yield* servers.next
      const opening = yield* Effect.forkChild(codex.startThread())
      yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t"))
      const { backgroundTerminals } = yield* Fiber.join(opening)
      const operations = [
        ["thread/backgroundTerminals/list", Stream.runDrain(backgroundTerminals.list), { data: [] }],
        ["thread/backgroundTerminals/terminate", Effect.asVoid(backgroundTerminals.terminate("p")), {
          terminated: true
        }],
        ["thread/backgroundTerminals/clean", backgroundTerminals.clean, {}]
      ] as const
      for (const [method, operation, response] of operations) {
        yield* fake.end(killed)
        yield* TestClock.adjust("1 second")
        fake = yield* servers.next
        const running = yield* Effect.forkChild(operation)
        yield* fake.reply(yield* fake.takeMethod("thread/resume"), Fake.threadResponse("t"))
        yield* fake.reply(yield* fake.takeMethod(method), response)
        yield* Fiber.join(running)
      }
    }).pipe(Effect.scoped))

  it.effect("while the tools of a thread are read, that was opened before it, has that opened again", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, { restart: Schedule.spaced("1 second") })
      const codex = yield* Effect.provide(Codex.Codex, context)
      const first = yield* servers.next
      const tools = [Tool.make("greet", { description: "Greets", handler: () => Effect.succeed("hello") })]
      const resuming = yield* Effect.forkChild(codex.resumeThread("t", { tools }))
      yield* first.reply(yield* first.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* first.takeMethod("thread/read")
      yield* first.end(killed)
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      yield* second.reply(yield* second.takeMethod("thread/read"), { thread: { id: "t" } })
      const thread = yield* Fiber.join(resuming)
      const run = yield* Effect.forkChild(thread.run("go"))
      yield* second.reply(yield* second.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* second.reply(yield* second.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* second.emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u"))
      yield* Fiber.join(run)
    }).pipe(Effect.scoped))

  it.effect("before a compaction was sent does not lose it", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, { restart: Schedule.spaced("1 second"), maxInFlight: 1 })
      const codex = yield* Effect.provide(Codex.Codex, context)
      const server = yield* Effect.provide(AppServer.AppServer, context)
      const first = yield* servers.next
      const opening = yield* Effect.forkChild(codex.startThread())
      yield* first.reply(yield* first.takeMethod("thread/start"), Fake.threadResponse("t"))
      const thread = yield* Fiber.join(opening)
      yield* Effect.forkChild(server.request("model/list"))
      yield* first.takeMethod("model/list")
      const compact = yield* Effect.forkChild(Effect.exit(thread.compact))
      yield* Effect.yieldNow
      yield* first.end(killed)
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      yield* second.reply(yield* second.takeMethod("model/list"), { data: [] })
      yield* second.reply(yield* second.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* second.reply(yield* second.takeMethod("thread/compact/start"), {})
      yield* second.emit(Fake.turnStarted("t", "c"), Fake.turnCompleted("t", "c"))
      assert.isTrue(Exit.isSuccess(yield* Fiber.join(compact)))
    }).pipe(Effect.scoped))

  it.effect("while somebody opens a thread again is made usable all the same", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const { fake, run, start, thread } = yield* open(servers)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* fake.end(killed)
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      const refused = yield* second.takeMethod("thread/resume")
      yield* second.emit({ id: refused.id, error: { code: -32603, message: "not now" } })
      assert.strictEqual(yield* failureOf(run), "TurnLost")
      // It is tried again by whoever uses it, and is not answered when the server ends once more.
      const again = yield* Effect.forkChild(thread.run("again"))
      yield* second.takeMethod("thread/resume")
      yield* second.end(killed)
      yield* TestClock.adjust("1 second")
      const third = yield* servers.next
      yield* third.reply(yield* third.takeMethod("thread/resume"), Fake.threadResponse("t"))
      yield* third.reply(yield* third.take, { turn: Fake.turn("w") })
      yield* third.emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(again)
    }).pipe(Effect.scoped))

  it.effect("after it has lasted a minute has the schedule begin anew", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const context = yield* build(servers.layer, {
        restart: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 1 }))
      })
      const server = yield* Effect.provide(AppServer.AppServer, context)
      let fake = yield* servers.next
      for (let time = 0; time < 5; time++) {
        yield* fake.end(killed)
        yield* TestClock.adjust("1 second")
        fake = yield* servers.next
        assert.strictEqual((yield* server.state)._tag, "Ready")
        yield* TestClock.adjust("1 minute")
      }
      yield* fake.end(killed)
      yield* TestClock.adjust("1 second")
      yield* (yield* servers.next).end(killed)
      const reason = yield* reasonOf(server.request("thread/loaded/list"))
      assert.deepInclude(reason, { _tag: "RestartsExhausted", restarts: 1 })
    }).pipe(Effect.scoped))

  it.effect("interrupts the handler that it was asking, and the next one gets no answer to that", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const asked = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const context = yield* build(servers.layer, { restart: Schedule.spaced("1 second") })
      const server = yield* Effect.provide(AppServer.AppServer, context)
      yield* server.handle("item/commandExecution/requestApproval", () =>
        Deferred.succeed(asked, undefined).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
        ))
      const first = yield* servers.next
      yield* first.emit({
        method: "item/commandExecution/requestApproval",
        id: 7,
        params: { threadId: "t", turnId: "u", itemId: "i", startedAtMs: 1, command: "ls" }
      })
      yield* Deferred.await(asked)
      yield* first.end(killed)
      yield* Deferred.await(interrupted)
      yield* TestClock.adjust("1 second")
      const second = yield* servers.next
      const request = yield* Effect.forkChild(server.request("thread/loaded/list"))
      yield* second.reply(yield* second.takeMethod("thread/loaded/list"), { data: [] })
      yield* Fiber.join(request)
      assert.isFalse([...first.sent, ...second.sent].some(({ id, method }) => id === 7 && method === undefined))
    }).pipe(Effect.scoped))

  it.effect("with its scope fails what waits for a restart at once", () =>
    Effect.gen(function*() {
      const servers = yield* makeServers
      const reason = yield* Deferred.make<unknown>()
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* build(servers.layer, { restart: Schedule.spaced("1 hour") })
        const server = yield* Effect.provide(AppServer.AppServer, context)
        yield* (yield* servers.next).end(killed)
        yield* Effect.forkDetach(
          Effect.flatMap(reasonOf(server.request("thread/loaded/list")), (it) => Deferred.succeed(reason, it))
        )
        yield* Effect.yieldNow
      }))
      assert.deepInclude(yield* Deferred.await(reason), { _tag: "ConnectionClosed" })
    }))
})
