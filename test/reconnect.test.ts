/** Sockets that are lost while the server and its turns continue. */
import { assert, layer } from "@effect/vitest"
import { Approvals, AppServer, Budget, Codex, Tool, Turn } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SocketServer from "./SocketServer.ts"
import * as TestCodex from "./TestCodex.ts"

/** Whether this is `npm run test:faults`, which also runs what takes long, and cuts after every message. */
const isFaultRun = process.env["FAULT_RUNS"] !== undefined

/** A server with a proxy in front of it. */
const start = Effect.gen(function*() {
  const server = yield* SocketServer.listen("ws://127.0.0.1:0")
  const proxy = yield* SocketServer.proxy(server.url)
  return { ...server, proxy }
})

/** Waits until the socket was lost and connected again, after an effect that loses it. */
const reconnectAfter = <A, E, R>(lose: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const restarted = yield* TestCodex.nextRestart
    yield* lose
    yield* restarted
  })

/** Runs requests on another connection to a server. */
const onServer = <A, E>(url: string, use: (server: AppServer.Service) => Effect.Effect<A, E>) =>
  Effect.provide(Effect.flatMap(AppServer.AppServer, use), Layer.fresh(SocketServer.layerAppServer(url)))

const awaitThat = (condition: () => boolean) =>
  Effect.repeat(Effect.sleep("10 millis"), { until: () => Effect.sync(condition) })

/** Waits until a thread runs no turn. */
const awaitIdle = (url: string, threadId: string) =>
  onServer(url, (server) =>
    server.request("thread/read", { threadId }).pipe(
      Effect.repeat({ until: ({ thread }) => thread.status.type === "idle", schedule: Schedule.spaced("10 millis") })
    ))

/** Starts a thread whose turn asks about a command and completes. */
const startAsking = Effect.fnUntraced(function*(
  command: () => Effect.Effect<Approvals.CommandDecision>
) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({
    approvalPolicy: "untrusted",
    approvalsReviewer: "user",
    approvals: { command }
  })
  yield* TestCodex.script(
    thread,
    ModelServer.functionCall("exec_command", { cmd: "touch x", login: false }, { callId: "command" }),
    ModelServer.text("done")
  )
  return thread
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Socket that is lost", (it) => {
  it.effect("joins the running turn again, with its whole text", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        yield* TestCodex.script(thread, message.reply)
        const turn = yield* thread.turn("go")
        const texts = yield* Queue.unbounded<string>()
        const text = yield* turn.text.pipe(
          Stream.tap((part) => Queue.offer(texts, part)),
          Stream.mkString,
          Effect.forkChild({ startImmediately: true })
        )
        const events = yield* Effect.forkChild(Stream.runCollect(turn.events), { startImmediately: true })
        yield* message.say("one ")
        assert.strictEqual(yield* Queue.take(texts), "one ")
        yield* proxy.stall
        yield* message.say("two ")
        yield* proxy.heal
        yield* reconnectAfter(proxy.cut)
        yield* message.say("three")
        yield* message.finish
        const { finalResponse, items, status } = yield* turn.result
        assert.strictEqual(status, "completed")
        assert.strictEqual(finalResponse, "one two three")
        assert.strictEqual(yield* Fiber.join(text), "one two three")
        assert.deepStrictEqual(items.map(({ type }) => type), ["userMessage", "agentMessage"])
        const methods = (yield* Fiber.join(events)).map(({ method }) => String(method))
        assert.strictEqual(methods.filter((method) => method === "turn/completed").length, 1)
        assert.strictEqual(methods.filter((method) => method === "effect-codex/restarted").length, 1)
        assert.strictEqual(proxy.connections(), 2)
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("emits a handle of a turn that another client started meanwhile", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        yield* TestCodex.script(thread, ModelServer.text("first"), message.reply)
        yield* thread.run("go")
        const next = yield* Effect.forkChild(Stream.runHead(thread.turns), { startImmediately: true })
        yield* reconnectAfter(Effect.gen(function*() {
          yield* proxy.stall
          yield* proxy.cut
          yield* onServer(url, (server) =>
            Effect.andThen(
              server.request("thread/resume", { threadId: thread.id }),
              server.request("turn/start", { threadId: thread.id, input: [{ type: "text", text: "other" }] })
            ))
          yield* proxy.heal
          yield* proxy.cut
        }))
        const turn = yield* Effect.fromOption(yield* Fiber.join(next))
        yield* message.say("second")
        yield* message.finish
        const { finalResponse, items } = yield* turn.result
        assert.strictEqual(finalResponse, "second")
        assert.deepStrictEqual(items.map(({ type }) => type), ["userMessage", "agentMessage"])
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("shows the command that has started meanwhile", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const fs = yield* FileSystem.FileSystem
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        const command = ModelServer.functionCall("exec_command", {
          cmd: "until [ -e go ]; do sleep 0.02; done",
          login: false
        })
        yield* TestCodex.script(thread, ModelServer.reply([message.reply, command]), ModelServer.text("done"))
        const turn = yield* thread.turn("go", { sandboxPolicy: { type: "dangerFullAccess" } })
        const running = yield* turn.view.pipe(
          Stream.map(({ items }) => items.at(-1)!),
          Stream.filter((entry) => entry?.item.type === "commandExecution"),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        yield* message.say("I run it")
        yield* reconnectAfter(Effect.gen(function*() {
          yield* proxy.stall
          yield* message.finish
          yield* onServer(url, (server) =>
            server.request("thread/resume", {
              threadId: thread.id,
              excludeTurns: true,
              initialTurnsPage: { limit: 1, itemsView: "full" }
            }).pipe(
              // The server rejects the request while it stores the first turn.
              Effect.retry({
                while: ({ reason }) => reason._tag === "RequestRejected",
                schedule: Schedule.spaced("10 millis")
              }),
              Effect.repeat({
                until: ({ initialTurnsPage }) => initialTurnsPage?.data[0]?.items.at(-1)?.type === "commandExecution",
                schedule: Schedule.spaced("10 millis")
              })
            ))
          yield* proxy.heal
          yield* proxy.cut
        }))
        const entry = yield* Effect.fromOption(yield* Fiber.join(running))
        assert.strictEqual(entry.state, "inProgress")
        yield* fs.writeFileString(`${workspace}/go`, "")
        const { items } = yield* turn.result
        assert.deepStrictEqual(items.map(({ type }) => type), [
          "userMessage",
          "agentMessage",
          "commandExecution",
          "agentMessage"
        ])
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("interrupts a turn with its sub-agents afterwards", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const thread = yield* codex.startThread()
        yield* model.respond((request) =>
          request.header("thread-id") === thread.id
            ? TestCodex.delegate(request, { message: "help" })
            : ModelServer.hang()
        )
        const turn = yield* thread.turn("go")
        const agent = yield* Effect.fromOption(yield* Stream.runHead(turn.subAgents))
        yield* Stream.runHead(agent.turns)
        yield* reconnectAfter(proxy.cut)
        yield* Turn.interruptWithSubAgents(turn)
        assert.strictEqual((yield* turn.result).status, "interrupted")
        yield* awaitIdle(url, agent.id)
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("adds the usage of its sub-agents afterwards", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        const usage = { inputTokens: 40, outputTokens: 2 }
        yield* model.respond((request) =>
          request.header("thread-id") === thread.id
            ? TestCodex.delegate(request, { message: "help" }, { usage: { inputTokens: 10, outputTokens: 1 } })
            : ModelServer.reply([message.reply], { usage })
        )
        const turn = yield* thread.turn("go")
        const agent = yield* Effect.fromOption(yield* Stream.runHead(turn.subAgents))
        yield* Stream.runHead(agent.turns)
        yield* reconnectAfter(proxy.cut)
        yield* message.say("seven")
        yield* message.finish
        const result = yield* turn.result
        assert.strictEqual((yield* agent.usage).totalTokens, 42)
        assert.strictEqual(result.usage?.subAgents.totalTokens, 42)
        assert.strictEqual(result.usage?.turn.totalTokens, 33)
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("returns the result of a turn that ended meanwhile", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        yield* TestCodex.script(thread, message.reply, ModelServer.text("next"))
        const turn = yield* thread.turn("go")
        yield* message.say("one ")
        yield* Stream.runHead(turn.text)
        yield* reconnectAfter(Effect.gen(function*() {
          yield* proxy.stall
          yield* proxy.cut
          yield* message.say("two")
          yield* message.finish
          yield* awaitIdle(url, thread.id)
          yield* proxy.heal
          yield* proxy.cut
        }))
        assert.strictEqual((yield* turn.result).finalResponse, "one two")
        assert.strictEqual((yield* thread.run("next")).finalResponse, "next")
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url, { openTimeout: "200 millis" })))
    }))

  it.effect("delivers the end of a turn that another client interrupted meanwhile", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, TestCodex.halfMessage)
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(turn.text)
        yield* reconnectAfter(Effect.gen(function*() {
          yield* proxy.stall
          yield* proxy.cut
          yield* onServer(url, (other) => other.request("turn/interrupt", { threadId: thread.id, turnId: turn.id }))
          yield* awaitIdle(url, thread.id)
          yield* proxy.heal
          yield* proxy.cut
        }))
        assert.strictEqual((yield* turn.result).status, "interrupted")
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url, { openTimeout: "200 millis" })))
    }))

  it.effect("keeps the handler of an approval, and sends its decision after the reconnect", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      const asked = yield* Queue.unbounded<void>()
      const decision = yield* Deferred.make<Approvals.CommandDecision>()
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* startAsking(() => Effect.andThen(Queue.offer(asked, undefined), Deferred.await(decision)))
        const audit = yield* Effect.forkChild(Stream.runCollect(Stream.take(codex.approvals, 2)), {
          startImmediately: true
        })
        const running = yield* Effect.forkChild(thread.run("go"))
        yield* Queue.take(asked)
        yield* reconnectAfter(proxy.cut)
        yield* Deferred.succeed(decision, Approvals.accept)
        assert.strictEqual((yield* Fiber.join(running)).finalResponse, "done")
        assert.strictEqual(yield* Queue.size(asked), 0)
        assert.deepStrictEqual((yield* Fiber.join(audit)).map(({ _tag }) => _tag), ["Requested", "Decided"])
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("interrupts the handler of an approval that another client decided meanwhile", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      const asked = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      yield* Effect.gen(function*() {
        const thread = yield* startAsking(() =>
          Deferred.succeed(asked, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
        )
        const running = yield* Effect.forkChild(thread.run("go"))
        yield* Deferred.await(asked)
        yield* proxy.stall
        yield* proxy.cut
        yield* Effect.gen(function*() {
          const codex = yield* Codex.Codex
          yield* codex.resumeThread(thread.id, { approvals: { command: () => Effect.succeed(Approvals.accept) } })
          yield* awaitIdle(url, thread.id)
        }).pipe(Effect.provide(SocketServer.layerWebSocket(url)))
        assert.isFalse(yield* Deferred.isDone(interrupted))
        yield* proxy.heal
        yield* proxy.cut
        yield* Deferred.await(interrupted)
        assert.strictEqual((yield* Fiber.join(running)).finalResponse, "done")
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url, { openTimeout: "200 millis" })))
    }))

  it.effect("keeps a thread that has had no turn, with its settings, and adds nothing to its input", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ approvalPolicy: "untrusted", sandbox: "workspace-write" })
        const untouched = yield* codex.startThread({ approvalPolicy: "untrusted", sandbox: "workspace-write" })
        yield* reconnectAfter(proxy.cut)
        yield* TestCodex.script(thread, ModelServer.text("first"))
        assert.strictEqual((yield* thread.run("go")).finalResponse, "first")
        const settings = yield* thread.settings
        assert.deepInclude<object>(settings, { approvalPolicy: "untrusted" })
        assert.deepInclude<object | undefined>(settings.sandboxPolicy, { type: "workspaceWrite" })
        yield* TestCodex.script(untouched, ModelServer.text("second"))
        yield* untouched.run("go")
        const [request] = yield* TestCodex.getRequests(thread.id)
        assert.notInclude(JSON.stringify(request?.body), "effect_codex")
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("fails the turn of an ephemeral thread, which the server cannot resume", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ ephemeral: true })
        yield* TestCodex.script(thread, TestCodex.halfMessage)
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(turn.text)
        yield* reconnectAfter(proxy.cut)
        const reason = yield* TestCodex.expectReason(turn.result)
        assert.deepInclude(reason, { _tag: "TurnLost", resumable: false })
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("opens idle threads again, so that the turns of other clients arrive", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const thread = yield* TestCodex.startStoredThread()
        const marks = yield* server.notifications.pipe(
          Stream.map(({ method }) => String(method)),
          Stream.filter((method) => method === "effect-codex/restarted" || method === "turn/completed"),
          Stream.take(2),
          Stream.runCollect,
          Effect.forkChild({ startImmediately: true })
        )
        yield* reconnectAfter(proxy.cut)
        yield* TestCodex.script(thread, ...Array.from({ length: 50 }, () => ModelServer.text("other")))
        yield* Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const same = yield* codex.resumeThread(thread.id)
          // The threads are opened in the background.
          yield* Effect.repeat(same.run("go"), { until: () => Effect.sync(() => marks.pollUnsafe() !== undefined) })
        }).pipe(Effect.provide(SocketServer.layerWebSocket(url)))
        assert.deepStrictEqual(yield* Fiber.join(marks), ["effect-codex/restarted", "turn/completed"])
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("interrupts the turn of a caller that leaves while the socket is lost", () =>
    Effect.gen(function*() {
      const { proxy, url } = yield* start
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, TestCodex.halfMessage)
        yield* Effect.scoped(Effect.gen(function*() {
          const turn = yield* thread.turn("go")
          yield* Stream.runHead(turn.text)
          yield* proxy.cut
        }))
        yield* awaitIdle(url, thread.id)
        const [turn] = yield* onServer(url, (other) => other.request("thread/turns/list", { threadId: thread.id }))
          .pipe(
            Effect.map(({ data }) => data)
          )
        assert.strictEqual(turn?.status, "interrupted")
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
    }))

  it.effect("fails everything with RestartsExhausted when the server does not come back", () =>
    Effect.gen(function*() {
      const { kill, url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, TestCodex.halfMessage)
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(turn.text)
        yield* kill
        const reason = yield* TestCodex.expectReason(turn.result)
        assert.strictEqual(reason._tag, "RestartsExhausted")
        assert.include(
          reason.message,
          `Last error: Cannot connect to codex app-server at \`${url}\`: no server listens there`
        )
      }).pipe(
        Effect.scoped,
        Effect.provide(SocketServer.layerWebSocket(url, {
          restart: Schedule.spaced("10 millis").pipe(Schedule.upTo({ times: 2 }))
        }))
      )
    }))

  it.effect("fails the turn with TurnLost when the server was killed and started again", () =>
    Effect.gen(function*() {
      const first = yield* SocketServer.listen("ws://127.0.0.1:0")
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* TestCodex.script(thread, TestCodex.halfMessage, ModelServer.text("after"))
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(turn.text)
        yield* first.kill
        yield* SocketServer.listen(first.url)
        const reason = yield* TestCodex.expectReason(turn.result)
        assert.deepInclude(reason, { _tag: "TurnLost", resumable: true })
        assert.strictEqual((yield* thread.run("next")).finalResponse, "after")
      }).pipe(
        Effect.scoped,
        Effect.provide(SocketServer.layerWebSocket(first.url, { restart: Schedule.spaced("20 millis") }))
      )
    }))
})

/** Texts that fill the queue of the server without a reader. */
const manyTexts = Array.from({ length: 30_000 }, (_, index) => `${index} ${"x".repeat(40)} `)

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Silent socket", (it) => {
  const quick = { keepAlive: "100 millis", closeTimeout: "100 millis", openTimeout: "200 millis" } as const

  it.effect("is replaced, and its turn is joined again", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        const message = yield* TestCodex.heldMessage
        yield* TestCodex.script(thread, message.reply)
        const turn = yield* thread.turn("go")
        yield* message.say("one ")
        yield* Stream.runHead(turn.text)
        const lost = yield* server.states.pipe(
          Stream.filter(({ _tag }) => _tag === "Starting"),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        yield* reconnectAfter(Effect.andThen(proxy.stall, Effect.andThen(Fiber.join(lost), proxy.heal)))
        yield* message.say("two")
        yield* message.finish
        assert.strictEqual((yield* turn.result).finalResponse, "one two")
      }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url, quick)))
    }))

  it.effect("fails its requests with the reason, without restart", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        yield* proxy.stall
        const reason = yield* TestCodex.expectReason(server.request("model/list", {}))
        assert.strictEqual(reason._tag, "ConnectionClosed")
        assert.include(reason.message, "the server sent nothing for 200ms, and did not respond to a request")
      }).pipe(
        Effect.provide(SocketServer.layerWebSocket(proxy.url, { ...quick, restart: false })),
        Effect.timed,
        Effect.map(([duration]) => assert.isBelow(Duration.toMillis(duration), 3000))
      )
    }))

  it.effect("stays open while the server responds", () =>
    Effect.gen(function*() {
      const { proxy } = yield* start
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const before = proxy.received()
        yield* awaitThat(() => proxy.received() > before + 3)
        assert.strictEqual((yield* server.state)._tag, "Ready")
        assert.strictEqual(proxy.connections(), 1)
      }).pipe(Effect.provide(SocketServer.layerWebSocket(proxy.url, quick)))
    }))

  it.effect.runIf(isFaultRun)(
    "is replaced when the server has dropped it, because the network is slower than the turn",
    () =>
      Effect.gen(function*() {
        const { proxy } = yield* start
        yield* Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const thread = yield* codex.startThread()
          yield* TestCodex.script(thread, ModelServer.deltas(manyTexts))
          const turn = yield* thread.turn("go")
          yield* Stream.runHead(turn.text)
          yield* reconnectAfter(proxy.stallServer)
          assert.strictEqual((yield* turn.result).finalResponse, manyTexts.join(""))
        }).pipe(
          Effect.scoped,
          Effect.provide(SocketServer.layerWebSocket(proxy.url, { ...quick, keepAlive: "1 second" }))
        )
      }),
    60_000
  )

  it.effect.runIf(isFaultRun)(
    "stays open when a subscriber reads slowly, and delivers the whole text",
    () =>
      Effect.gen(function*() {
        const { proxy } = yield* start
        yield* Effect.gen(function*() {
          const codex = yield* Codex.Codex
          const thread = yield* codex.startThread()
          yield* TestCodex.script(thread, ModelServer.deltas(manyTexts))
          const turn = yield* thread.turn("go")
          let text = ""
          yield* Stream.runForEachArray(turn.text, (texts) => {
            text += texts.join("")
            return Effect.sleep(texts.length)
          })
          assert.strictEqual(text, manyTexts.join(""))
          assert.strictEqual(proxy.connections(), 1)
        }).pipe(Effect.scoped, Effect.provide(SocketServer.layerWebSocket(proxy.url)))
      }),
    60_000
  )
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Two clients of one server", (it) => {
  /** Approvals that wait for the test, and report what happens to them. */
  const waitingApprovals = Effect.gen(function*() {
    const events = yield* Queue.unbounded<string>()
    const decision = yield* Deferred.make<Approvals.CommandDecision>()
    return {
      next: Queue.take(events),
      decide: (value: Approvals.CommandDecision) => Deferred.succeed(decision, value),
      command: () =>
        Queue.offer(events, "asked").pipe(
          Effect.andThen(Deferred.await(decision)),
          Effect.onInterrupt(() => Queue.offer(events, "interrupted"))
        )
    }
  })

  for (const winner of [0, 1]) {
    it.effect(`both receive the approval of a command, and the decision of client ${winner} counts`, () =>
      Effect.gen(function*() {
        const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
        const approvals = [yield* waitingApprovals, yield* waitingApprovals]
        const contexts = [
          yield* Layer.build(SocketServer.layerWebSocket(url)),
          yield* Layer.build(SocketServer.layerWebSocket(url))
        ]
        const thread = yield* Effect.provide(startAsking(approvals[0]!.command), contexts[0]!)
        yield* TestCodex.script(
          thread,
          ModelServer.text("stored"),
          ModelServer.functionCall("exec_command", { cmd: "touch x", login: false }, { callId: "command" }),
          ModelServer.text("done")
        )
        yield* thread.run("store")
        const other = yield* Codex.Codex.use((codex) =>
          codex.resumeThread(thread.id, { approvals: { command: approvals[1]!.command } })
        ).pipe(Effect.provide(contexts[1]!))
        const running = yield* Effect.forkChild(thread.run("go"))
        assert.deepStrictEqual([yield* approvals[0]!.next, yield* approvals[1]!.next], ["asked", "asked"])
        yield* approvals[winner]!.decide(Approvals.decline)
        assert.strictEqual(yield* approvals[1 - winner]!.next, "interrupted")
        const { finalResponse, items } = yield* Fiber.join(running)
        assert.strictEqual(finalResponse, "done")
        const command = items.find(({ type }) => type === "commandExecution")
        assert.deepInclude<object | undefined>(command, { status: "declined" })
        assert.strictEqual(other.id, thread.id)
      }).pipe(Effect.scoped))
  }

  it.effect("join the input of one to the turn of the other, and both have its end", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      const first = yield* Layer.build(SocketServer.layerWebSocket(url))
      const second = yield* Layer.build(SocketServer.layerWebSocket(url))
      const thread = yield* Effect.provide(TestCodex.startStoredThread(), first)
      const other = yield* Effect.provide(Codex.Codex.use((codex) => codex.resumeThread(thread.id)), second)
      const message = yield* TestCodex.heldMessage
      yield* TestCodex.script(thread, message.reply, ModelServer.text("both"))
      const turn = yield* thread.turn("one")
      yield* message.say("half")
      yield* Stream.runHead(turn.text)
      const joined = yield* other.turn("two")
      assert.strictEqual(joined.id, turn.id)
      assert.strictEqual((yield* joined.result).finalResponse, "both")
      assert.strictEqual((yield* turn.result).finalResponse, "both")
    }).pipe(Effect.scoped))
})

/** A turn with an approved command, a call of a tool and a message. */
const richTurn = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const model = yield* ModelServer.ModelServer
  const calls: Array<string> = []
  const before = (yield* model.requests).length
  yield* model.respond((request) =>
    request.functionCallOutput("command") === undefined
      ? ModelServer.functionCall("exec_command", { cmd: "echo x", login: false }, { callId: "command" })
      : request.functionCallOutput("tool") === undefined
      ? ModelServer.functionCall("greet", {}, { callId: "tool" })
      : ModelServer.deltas(["all ", "is ", "done"])
  )
  const note = (call: string) => Effect.sync(() => calls.push(call))
  // A thread whose start has no response was never used.
  const thread = yield* Effect.retry(
    codex.startThread({
      approvalPolicy: "untrusted",
      approvalsReviewer: "user",
      approvals: { command: () => Effect.as(note("approve"), Approvals.accept) },
      tools: [Tool.make("greet", { description: "Greets", handler: () => Effect.as(note("greet"), "hello") })]
    }),
    { times: 3 }
  )
  return yield* Effect.scoped(Effect.gen(function*() {
    // The server has no such turn if the request did not arrive.
    const turn = yield* Effect.retry(thread.turn("go"), { times: 3 })
    const text = yield* Effect.forkChild(Stream.mkString(turn.text), { startImmediately: true })
    const events = yield* Stream.runCollect(turn.events)
    const { finalResponse, items, status, usage } = yield* turn.result
    return {
      calls,
      finalResponse,
      status,
      items: items.map(({ type }) => type),
      ends: events.filter(({ method }) => method === "turn/completed").length,
      starts: events.filter(({ method }) => method === "turn/started").length,
      completed: new Set(events.flatMap((event) =>
        event.method === "item/completed" ? [event.params.item.id] : []
      )).size,
      completions: events.filter(({ method }) => method === "item/completed").length,
      text: yield* Fiber.join(text),
      tokens: usage?.turn.totalTokens,
      budget: (yield* Budget.used).turns,
      budgetTokens: (yield* Budget.used).tokens,
      requests: (yield* model.requests).length - before
    }
  }))
})

const wholeTurn = {
  calls: ["approve", "greet"],
  finalResponse: "all is done",
  status: "completed",
  items: ["userMessage", "commandExecution", "dynamicToolCall", "agentMessage"],
  ends: 1,
  starts: 1,
  completed: 4,
  completions: 4,
  text: "all is done",
  tokens: 6,
  budget: 1,
  budgetTokens: 6,
  requests: 3
}

/** Each cut takes half a second. */
const cutEvery = isFaultRun ? 1 : 16

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Socket that is cut after any message", (it) => {
  /** Runs the turn on connections that are each cut, and returns the number of messages of the server. */
  const runCut = Effect.fnUntraced(function*(url: string, ...cuts: ReadonlyArray<SocketServer.Cut>) {
    const proxy = yield* SocketServer.proxy(url)
    proxy.cutAt(...cuts)
    const result = yield* Budget.limit(richTurn, { tokens: 1000 }).pipe(
      Effect.provide(SocketServer.layerWebSocket(proxy.url)),
      Effect.timeout("20 seconds"),
      Effect.exit
    )
    return { result, messages: proxy.received() }
  }, Effect.scoped)

  it.effect.each(
    [
      ["after a message", { loses: false, connections: 2 }],
      ["with a message that is lost", { loses: true, connections: 1 }]
    ] as const
  )("runs each turn once when connections are cut %s", ([at, { connections, loses }]) =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      const { messages, result } = yield* runCut(url)
      assert.deepStrictEqual<unknown>(result, Exit.succeed(wholeTurn))
      assert.isAbove(messages, 30)
      // A cut before the first message, the response to `initialize`, fails the layer.
      for (let message = loses ? 2 : 1; message <= messages; message += cutEvery) {
        const cut = yield* runCut(url, ...Array.from({ length: connections }, () => ({ message, loses })))
        assert.deepStrictEqual<unknown>(cut.result, Exit.succeed(wholeTurn), `cut ${at} ${message}`)
      }
    }), 120_000)
})
