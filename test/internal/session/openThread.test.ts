import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as AppServer from "../../../src/AppServer.ts"
import * as Codex from "../../../src/Codex.ts"
import * as Fake from "../../FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

const openThread = Effect.fnUntraced(function*(settings: object = {}) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const opening = yield* Effect.forkChild(codex.startThread())
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t", settings))
  return yield* Fiber.join(opening)
})

const bypassed = { approvalPolicy: "on-request", sandbox: { type: "dangerFullAccess" } }
const readOnly = { type: "readOnly", networkAccess: false }

const settingsUpdated = (threadId: string) => ({
  method: "thread/settings/updated",
  params: {
    threadId,
    threadSettings: {
      approvalPolicy: "on-request",
      approvalsReviewer: "auto_review",
      collaborationMode: { mode: "default", settings: { model: "m" } },
      cwd: "/repo",
      model: "m",
      modelProvider: "m",
      sandboxPolicy: readOnly
    }
  }
})

describe("the settings of a thread", () => {
  it.effect("are those of a notification that comes in one batch after the response that opens the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      yield* openThread(bypassed)
      const forking = yield* Effect.forkChild(codex.forkThread("t"))
      const { id } = yield* fake.takeMethod("thread/fork")
      yield* fake.emit({ id, result: Fake.threadResponse("f", bypassed) }, settingsUpdated("f"))
      const fork = yield* Fiber.join(forking)
      assert.deepStrictEqual<object | undefined>((yield* fork.settings).sandboxPolicy, readOnly)

      const resuming = yield* Effect.forkChild(codex.resumeThread("t"))
      const resume = yield* fake.takeMethod("thread/resume")
      yield* fake.emit({ id: resume.id, result: Fake.threadResponse("t", bypassed) }, settingsUpdated("t"))
      const resumed = yield* Fiber.join(resuming)
      assert.deepStrictEqual<object | undefined>((yield* resumed.settings).sandboxPolicy, readOnly)
    }).pipe(Effect.provide(layer)))

  it.effect("are verified before a thread is used that was unloaded meanwhile", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread()
      yield* fake.emit({ method: "thread/status/changed", params: { threadId: "t", status: { type: "notLoaded" } } })
      yield* Effect.yieldNow
      const running = yield* Effect.forkChild(Effect.flip(thread.run("hi")))
      const resume = yield* fake.takeMethod("thread/resume")
      assert.deepInclude(resume.params, { threadId: "t", sandbox: "read-only", approvalPolicy: "on-request" })
      yield* fake.reply(resume, Fake.threadResponse("t", { approvalPolicy: "never" }))
      const failure = yield* Fiber.join(running)
      assert(failure._tag === "AppServerError" && failure.reason._tag === "SettingsNotApplied")
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/start")
    }).pipe(Effect.provide(layer)))
})

describe("closing a thread", () => {
  const unsubscribes = (fake: Fake.FakeTransport["Service"]) =>
    fake.sent.filter(({ method }) => method === "thread/unsubscribe").length

  it.effect("can be repeated when it was interrupted or refused", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread()
      const interrupted = yield* Effect.forkChild(thread.close)
      yield* fake.takeMethod("thread/unsubscribe")
      yield* Fiber.interrupt(interrupted)
      const refused = yield* Effect.forkChild(Effect.exit(thread.close))
      const { id } = yield* fake.takeMethod("thread/unsubscribe")
      yield* fake.emit({ id, error: { code: -32600, message: "not now" } })
      assert.isTrue(Exit.isFailure(yield* Fiber.join(refused)))
      const closing = yield* Effect.forkChild(thread.close)
      yield* fake.reply(yield* fake.takeMethod("thread/unsubscribe"), { status: "unsubscribed" })
      yield* Fiber.join(closing)
      yield* thread.close
      assert.strictEqual(unsubscribes(fake), 3)
    }).pipe(Effect.provide(layer)))

  it.effect("interrupts a turn that is about to start", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread()
      const running = yield* Effect.forkChild(Effect.exit(thread.run("hi")))
      const start = yield* fake.takeMethod("turn/start")
      const closing = yield* Effect.forkChild(thread.close)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
      yield* fake.emit(Fake.turnStarted("t", "u"), Fake.turnCompleted("t", "u", "interrupted"))
      yield* fake.reply(yield* fake.takeMethod("thread/unsubscribe"), { status: "unsubscribed" })
      yield* Fiber.join(closing)
      yield* Fiber.join(running)
    }).pipe(Effect.provide(layer)))

  it.effect("refuses a turn whose start gets its response only then, and interrupts it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread()
      const running = yield* Effect.forkChild(Effect.flip(thread.run("hi")))
      const start = yield* fake.takeMethod("turn/start")
      const closing = yield* Effect.forkChild(thread.close)
      yield* TestClock.adjust("5 seconds")
      yield* fake.reply(yield* fake.takeMethod("thread/unsubscribe"), { status: "unsubscribed" })
      yield* Fiber.join(closing)
      yield* fake.reply(start, { turn: Fake.turn("u") })
      yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
      yield* TestClock.adjust("5 seconds")
      const failure = yield* Fiber.join(running)
      assert(failure._tag === "AppServerError" && failure.reason._tag === "InvalidRequest")
    }).pipe(Effect.provide(layer)))

  it.effect("ends the wait for a turn of another client, which goes on", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread()
      yield* fake.emit(Fake.turnStarted("t", "theirs"))
      yield* Effect.yieldNow
      const running = yield* Effect.forkChild(Effect.flip(thread.run("hi")))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("theirs") })
      yield* TestClock.adjust("1 millis")
      const closing = yield* Effect.forkChild(thread.close)
      yield* fake.reply(yield* fake.takeMethod("thread/unsubscribe"), { status: "unsubscribed" })
      yield* Fiber.join(closing)
      const failure = yield* Fiber.join(running)
      assert(failure._tag === "AppServerError" && failure.reason._tag === "TurnLost")
      assert.notInclude(fake.sent.map(({ method }) => method), "turn/interrupt")
    }).pipe(Effect.provide(layer)))
})
