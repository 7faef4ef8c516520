import { assert, describe, it, layer } from "@effect/vitest"
import { Approvals, AppServer, Codex, Questions, Sandbox, type Thread, Turn } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import * as Fake from "./FakeTransport.ts"
import { poll } from "./poll.ts"
import { layer as layerFake, openThread } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"

/** A thread with a running turn. The turn continues until the test runs `finish`, also after an input joins it. */
const busyThread = Effect.gen(function*() {
  const thread = yield* TestCodex.startThread
  const [one, two] = [yield* TestCodex.heldMessage, yield* TestCodex.heldMessage]
  yield* TestCodex.script(thread, one.reply, two.reply)
  const requested = yield* TestCodex.nextRequest
  const first = yield* Effect.forkChild(thread.run("first"))
  yield* requested
  yield* one.say("to all")
  yield* two.say("to all")
  return { finish: Effect.andThen(one.finish, two.finish), first, thread }
})

/** A thread with a running turn that its handle did not start. */
const foreignTurn = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const thread = yield* TestCodex.startThread
  yield* TestCodex.script(thread, ...Array.from({ length: 4 }, () => TestCodex.halfMessage))
  const requested = yield* TestCodex.nextRequest
  const started = yield* server.notifications.pipe(
    Stream.filter((event) => event.method === "turn/started" && event.params.threadId === thread.id),
    Stream.runHead,
    Effect.forkChild({ startImmediately: true })
  )
  const { turn } = yield* server.request("turn/start", {
    threadId: thread.id,
    input: [{ type: "text", text: "from another client" }]
  })
  yield* Fiber.join(started)
  yield* requested
  return { thread, turnId: turn.id }
})

const options: ReadonlyArray<Thread.TurnOptions> = [
  { approvalMode: "deny_all" },
  { approvalPolicy: "never" },
  { sandboxPolicy: Sandbox.readOnly() },
  { permissions: ":read-only" },
  { model: "other-model" },
  { effort: "high" },
  { summary: "none" },
  { serviceTier: "flex" },
  { cwd: "/" },
  { outputSchema: { type: "object" } },
  { approvals: { command: () => Effect.succeed(Approvals.accept) } },
  { questions: { elicitation: () => Effect.succeed(Questions.decline) } },
  { keepBackgroundTerminals: true }
]

layer(TestCodex.layer(), { excludeTestServices: true })("Turn with options on a busy thread", (it) => {
  it.effect("fails with ThreadBusy and sends nothing, for each option that cannot hold", () =>
    Effect.gen(function*() {
      const wire = yield* TestCodex.Wire
      const { finish, first, thread } = yield* busyThread
      const before = yield* thread.settings
      for (const given of options) {
        const reason = yield* TestCodex.expectReason(thread.run("second", given))
        assert.deepInclude(reason, {
          _tag: "ThreadBusy",
          threadId: thread.id,
          options: Object.keys(given),
          isSent: false
        })
      }
      const reason = yield* TestCodex.expectReason(thread.run("second", { model: "other-model", effort: "high" }))
      assert(reason._tag === "ThreadBusy")
      assert.deepStrictEqual(reason.options, ["model", "effort"])
      yield* finish
      const result = yield* Fiber.join(first)
      assert.strictEqual(reason.turnId, result.id)
      assert.strictEqual(result.finalResponse, "to all")
      const sent = (yield* wire.sent).filter(({ params }) => params?.["threadId"] === thread.id)
      assert.lengthOf(sent.filter(({ method }) => method === "turn/start"), 1)
      assert.deepStrictEqual(yield* thread.settings, before)
      // The options apply after the turn.
      yield* thread.run("second", { model: "other-model" })
      assert.strictEqual((yield* thread.settings).model, "other-model")
    }))

  it.effect("joins with options of its input or of the wait of its caller", () =>
    Effect.gen(function*() {
      const { finish, first, thread } = yield* busyThread
      const requested = yield* TestCodex.nextRequest
      const second = yield* Effect.forkChild(
        thread.run("second", {
          clientUserMessageId: "mine",
          deadline: "1 minute",
          idleTimeout: "1 minute",
          model: null
        })
      )
      yield* requested
      yield* finish
      assert.strictEqual((yield* Fiber.join(second)).id, (yield* Fiber.join(first)).id)
    }))

  it.effect("waits for the response to the start of another turn", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      yield* TestCodex.script(thread, ModelServer.text("first"), ModelServer.text("second"))
      const [first, second] = yield* Effect.all([
        thread.run("first"),
        Effect.result(thread.run("second", { model: "other-model" }))
      ], { concurrency: "unbounded" })
      assert(second._tag === "Failure" && second.failure._tag === "AppServerError")
      assert.deepInclude(second.failure.reason, { _tag: "ThreadBusy", turnId: first.id, options: ["model"] })
    }))

  it.effect("fails with ThreadBusy when another client started the running turn, also before the thread was opened", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const { thread, turnId } = yield* foreignTurn
      for (const handle of [thread, yield* codex.resumeThread(thread.id)]) {
        const reason = yield* TestCodex.expectReason(handle.run("mine", { approvalMode: "deny_all" }))
        assert.deepInclude(reason, { _tag: "ThreadBusy", threadId: thread.id, turnId, options: ["approvalMode"] })
      }
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Caller of a joined turn", (it) => {
  it.effect("stops waiting at its own time limit, and leaves the turn to the other callers", () =>
    Effect.gen(function*() {
      for (const limit of [Turn.withDeadline("100 millis"), Turn.withIdleTimeout("100 millis")]) {
        const { finish, first, thread } = yield* busyThread
        yield* Effect.scoped(Effect.gen(function*() {
          const second = yield* Effect.flatMap(thread.turn("second"), limit)
          const events = yield* Effect.forkChild(TestCodex.expectReason(Stream.runDrain(second.events)))
          const reason = yield* TestCodex.expectReason(second.result)
          assert.deepInclude(reason, { _tag: "TurnTimeout", turnId: second.id, isInterrupted: false })
          assert.deepStrictEqual(yield* Fiber.join(events), reason)
          assert.deepStrictEqual(yield* TestCodex.expectReason(Stream.runDrain(second.text)), reason)
        }))
        assert.strictEqual((yield* thread.read()).status.type, "active")
        yield* finish
        assert.strictEqual((yield* Fiber.join(first)).status, "completed")
      }
    }))

  it.effect("interrupts the turn at its own time limit when it is the last caller", () =>
    Effect.gen(function*() {
      const { first, thread } = yield* busyThread
      yield* Effect.scoped(Effect.gen(function*() {
        const second = yield* thread.turn("second")
        yield* Fiber.interrupt(first)
        yield* Turn.withDeadline(second, "100 millis")
        assert.deepInclude(yield* TestCodex.expectReason(second.result), { _tag: "TurnTimeout", isInterrupted: true })
      }))
      assert.strictEqual((yield* thread.read()).status.type, "idle")
    }))

  it.effect("does not interrupt a turn that another program started", () =>
    Effect.gen(function*() {
      const { thread, turnId } = yield* foreignTurn
      const wire = yield* TestCodex.Wire
      yield* Effect.scoped(Effect.gen(function*() {
        const turn = yield* Effect.flatMap(thread.turn("mine"), Turn.withDeadline("100 millis"))
        const reason = yield* TestCodex.expectReason(turn.result)
        assert.deepInclude(reason, { _tag: "TurnTimeout", turnId, isInterrupted: false })
      }))
      yield* Effect.scoped(thread.turn("mine"))
      assert.strictEqual((yield* thread.read()).status.type, "active")
      const sent = (yield* wire.sent).filter(({ params }) => params?.["threadId"] === thread.id)
      assert.notInclude(sent.map(({ method }) => method), "turn/interrupt")
      yield* Effect.scoped(Effect.flatMap(thread.turn("mine"), ({ interrupt }) => interrupt))
      yield* poll(thread.read(), ({ status }) => status.type === "idle", "an idle thread")
    }))
})

layer(TestCodex.layer({ config: { features: { goals: true } } }), { excludeTestServices: true })(
  "Turn of a goal",
  (it) => {
    it.effect("continues when a run that joined it times out or is interrupted", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const model = yield* ModelServer.ModelServer
        const wire = yield* TestCodex.Wire
        yield* model.respond(() => TestCodex.halfMessage)
        const thread = yield* TestCodex.startThread
        const requested = yield* TestCodex.nextRequest
        yield* server.request("thread/goal/set", { threadId: thread.id, objective: "Count to ten" })
        yield* requested
        yield* Effect.scoped(Effect.gen(function*() {
          const turn = yield* Effect.flatMap(thread.turn("How far are you?"), Turn.withDeadline("100 millis"))
          assert.deepInclude(yield* TestCodex.expectReason(turn.result), { _tag: "TurnTimeout", isInterrupted: false })
        }))
        yield* Effect.scoped(thread.turn("And now?"))
        const reason = yield* TestCodex.expectReason(thread.run("Faster", { model: "other-model" }))
        assert.deepInclude(reason, { _tag: "ThreadBusy", options: ["model"], isSent: false })
        assert.strictEqual((yield* thread.read()).status.type, "active")
        assert.notInclude((yield* wire.sent).map(({ method }) => method), "turn/interrupt")
        yield* server.request("thread/goal/clear", { threadId: thread.id })
      }))
  }
)

describe("Turn with options", () => {
  const fakeLayer = layerFake({ maxInFlight: 1 })

  it.effect("fails with ThreadBusy when the response shows that it joined a turn", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const other = yield* Effect.forkChild(server.request("model/list"))
      const list = yield* fake.takeMethod("model/list")
      // The request waits for a permit while a goal starts a turn.
      const running = yield* Effect.forkChild(TestCodex.expectReason(thread.run("mine", { model: "m2" })))
      yield* Effect.yieldNow
      yield* fake.emit(Fake.turnStarted("t", "goal"))
      yield* fake.reply(list, { data: [], nextCursor: null })
      yield* Fiber.join(other)
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("goal") })
      // The server applied the options to later turns, so the client restores the settings.
      const restore = yield* fake.takeMethod("thread/settings/update")
      assert.deepInclude(restore.params, { threadId: "t", model: "m", approvalPolicy: "on-request" })
      yield* fake.reply(restore, {})
      const reason = yield* Fiber.join(running)
      assert.deepInclude(reason, { _tag: "ThreadBusy", turnId: "goal", options: ["model"], isSent: true })
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
    }).pipe(Effect.provide(fakeLayer)))

  const userMessage = (turnId: string, text: string) => ({
    method: "item/started",
    params: {
      threadId: "t",
      turnId,
      startedAtMs: 1,
      item: { type: "userMessage", id: text, content: [{ type: "text", text, text_elements: [] }] }
    }
  })

  it.effect("fails with ThreadBusy when the turn shows the input of another client first", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const running = yield* Effect.forkChild(TestCodex.expectReason(thread.run("mine", { model: "m2" })))
      const plain = yield* Effect.forkChild(thread.run("plain"))
      for (let i = 0; i < 2; i++) {
        const start = yield* fake.takeMethod("turn/start")
        yield* fake.reply(start, { turn: Fake.turn("theirs") })
      }
      yield* fake.emit(
        Fake.turnStarted("t", "theirs"),
        userMessage("theirs", "theirs"),
        userMessage("theirs", "mine")
      )
      yield* fake.reply(yield* fake.takeMethod("thread/settings/update"), {})
      const reason = yield* Fiber.join(running)
      assert.deepInclude(reason, { _tag: "ThreadBusy", turnId: "theirs", options: ["model"], isSent: true })
      yield* Fiber.interrupt(plain)
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
    }).pipe(Effect.provide(fakeLayer)))

  it.effect("completes when the turn shows its own input first", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const running = yield* Effect.forkChild(thread.run("mine", { model: "m2" }))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* fake.emit(Fake.turnStarted("t", "u"), userMessage("u", "mine"), userMessage("u", "more"))
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual((yield* Fiber.join(running)).status, "completed")
    }).pipe(Effect.provide(fakeLayer)))

  it.effect("interrupts the turn and fails when the server reports other settings than requested", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const settings = {
        approvalPolicy: "never",
        approvalsReviewer: "user",
        collaborationMode: { mode: "default", settings: { model: "m" } },
        cwd: "/repo",
        model: "m",
        modelProvider: "m",
        sandboxPolicy: { type: "dangerFullAccess" }
      }
      const updated = { method: "thread/settings/updated", params: { threadId: "t", threadSettings: settings } }
      const narrow = { approvalPolicy: "never", sandboxPolicy: Sandbox.readOnly() } as const
      for (const isEarly of [true, false]) {
        const running = yield* Effect.forkChild(TestCodex.expectReason(thread.run("mine", narrow)))
        const start = yield* fake.takeMethod("turn/start")
        if (isEarly) yield* fake.emit(updated)
        yield* fake.reply(start, { turn: Fake.turn("u") })
        if (!isEarly) yield* fake.emit(updated)
        yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
        yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
        assert.deepInclude(yield* Fiber.join(running), {
          _tag: "SettingsNotApplied",
          method: "turn/start",
          setting: "sandbox"
        })
      }
    }).pipe(Effect.provide(fakeLayer)))
})
