import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Codex from "../../../src/Codex.ts"
import * as Fake from "../../FakeTransport.ts"
import {
  emit,
  expectReason,
  getSent,
  interruptTurn,
  layer,
  openThread,
  receive,
  reject,
  respond,
  settle,
  startTurn
} from "../../scenario.ts"

const fullAccess = { approvalPolicy: "on-request", sandbox: { type: "dangerFullAccess" } }
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

describe("Thread.settings", () => {
  it.effect("has an update that arrives in one batch with the response that opens the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const opening = yield* Effect.forkChild(codex.startThread())
      yield* respond("thread/start", Fake.threadResponse("t", fullAccess))
      yield* Fiber.join(opening)
      const forking = yield* Effect.forkChild(codex.forkThread("t"))
      const fork = yield* receive("thread/fork")
      yield* emit({ id: fork.id, result: Fake.threadResponse("f", fullAccess) }, settingsUpdated("f"))
      const forked = yield* Fiber.join(forking)
      assert.deepStrictEqual<object | undefined>((yield* forked.settings).sandboxPolicy, readOnly)

      const resuming = yield* Effect.forkChild(codex.resumeThread("t"))
      const resume = yield* receive("thread/resume")
      yield* emit({ id: resume.id, result: Fake.threadResponse("t", fullAccess) }, settingsUpdated("t"))
      const resumed = yield* Fiber.join(resuming)
      assert.deepStrictEqual<object | undefined>((yield* resumed.settings).sandboxPolicy, readOnly)
    }).pipe(Effect.provide(layer())))

  it.effect("is verified before a turn starts on a thread that the server has unloaded", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit({ method: "thread/status/changed", params: { threadId: "t", status: { type: "notLoaded" } } })
      yield* settle
      const running = yield* Effect.forkChild(expectReason(thread.run("hi")))
      const resume = yield* respond("thread/resume", Fake.threadResponse("t", { approvalPolicy: "never" }))
      assert.deepInclude(resume.params, { threadId: "t", sandbox: "read-only", approvalPolicy: "on-request" })
      assert.strictEqual((yield* Fiber.join(running))._tag, "SettingsNotApplied")
      assert.isEmpty(yield* getSent("turn/start"))
    }).pipe(Effect.provide(layer())))
})

describe("Thread.close", () => {
  const unsubscribed = { status: "unsubscribed" }

  it.effect("sends its request again after it was interrupted or rejected", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const interrupted = yield* Effect.forkChild(thread.close)
      yield* receive("thread/unsubscribe")
      yield* Fiber.interrupt(interrupted)
      const rejected = yield* Effect.forkChild(Effect.exit(thread.close))
      yield* reject("thread/unsubscribe")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(rejected)))
      const closing = yield* Effect.forkChild(thread.close)
      yield* respond("thread/unsubscribe", unsubscribed)
      yield* Fiber.join(closing)
      yield* thread.close
      assert.lengthOf(yield* getSent("thread/unsubscribe"), 3)
    }).pipe(Effect.provide(layer())))

  it.effect("interrupts a turn that is being started", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const running = yield* Effect.forkChild(Effect.exit(thread.run("hi")))
      const start = yield* receive("turn/start")
      const closing = yield* Effect.forkChild(thread.close)
      yield* respond(start, { turn: Fake.turn("u") })
      yield* interruptTurn("t", "u")
      yield* respond("thread/unsubscribe", unsubscribed)
      yield* Fiber.join(closing)
      yield* Fiber.join(running)
    }).pipe(Effect.provide(layer())))

  it.effect("fails a run whose response to turn/start arrives later, and interrupts its turn", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const running = yield* Effect.forkChild(expectReason(thread.run("hi")))
      const start = yield* receive("turn/start")
      const closing = yield* Effect.forkChild(thread.close)
      yield* TestClock.adjust("5 seconds")
      yield* respond("thread/unsubscribe", unsubscribed)
      yield* Fiber.join(closing)
      yield* respond(start, { turn: Fake.turn("u") })
      yield* respond("turn/interrupt", {})
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Fiber.join(running))._tag, "InvalidRequest")
    }).pipe(Effect.provide(layer())))

  it.effect("fails a run that joined the turn of another client, and does not interrupt that turn", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* emit(Fake.turnStarted("t", "theirs"))
      yield* settle
      const running = yield* startTurn(expectReason(thread.run("hi")), "theirs")
      yield* respond("thread/resume", { initialTurnsPage: { data: [Fake.turn("theirs")] } })
      const closing = yield* Effect.forkChild(thread.close)
      yield* respond("thread/unsubscribe", unsubscribed)
      yield* Fiber.join(closing)
      assert.strictEqual((yield* Fiber.join(running))._tag, "TurnLost")
      assert.isEmpty(yield* getSent("turn/interrupt"))
    }).pipe(Effect.provide(layer())))
})
