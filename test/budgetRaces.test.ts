import { assert, describe, it } from "@effect/vitest"
import { AppServer, Budget, Usage } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Fake from "./FakeTransport.ts"
import {
  emit,
  end,
  expectReason,
  getSent,
  interruptTurn,
  killed,
  layer,
  openThread,
  receive,
  reject,
  respond,
  restart,
  settle,
  startTurn
} from "./scenario.ts"

const tokens = (total: number): Usage.Tokens => ({ ...Usage.zero, inputTokens: total, totalTokens: total })

/** The server reports the total of a thread, and its last model request. */
const usage = (threadId: string, turnId: string, total: number, last = total) => ({
  method: "thread/tokenUsage/updated",
  params: { threadId, turnId, tokenUsage: { total: tokens(total), last: tokens(last), modelContextWindow: 1000 } }
})

/** A sub-agent was spawned. */
const spawned = (parentId: string, turnId: string, agentId: string, model = "m") => ({
  method: "item/completed",
  params: {
    threadId: parentId,
    turnId,
    completedAtMs: 1,
    item: {
      type: "collabAgentToolCall",
      id: `spawn-${agentId}`,
      tool: "spawnAgent",
      status: "completed",
      senderThreadId: parentId,
      receiverThreadIds: [agentId],
      prompt: "help",
      model,
      reasoningEffort: null,
      agentsStates: {}
    }
  }
})

/** Runs an effect that fails with `BudgetExceeded`, and returns the reason. */
const expectExceeded = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(expectReason(effect), (reason) => {
    assert(reason._tag === "BudgetExceeded", reason.message)
    return reason
  })

const goal = (status: string) => ({
  threadId: "t",
  objective: "go",
  status,
  createdAt: 1,
  updatedAt: 1,
  timeUsedSeconds: 0,
  tokensUsed: 0
})

const free = { input: 0, output: 0 }

const prices: Budget.Prices = { m: { input: 1, output: 10 }, cheap: free }

describe("Budget", () => {
  it.effect("counts a turn whose response precedes the end of the turn before", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const used = yield* Effect.gen(function*() {
        const first = yield* startTurn(thread.run("one"), "u1")
        yield* emit(Fake.turnStarted("t", "u1"), usage("t", "u1", 10))
        // The server accepts the next turn before it reports the end of the last one.
        const second = yield* startTurn(thread.run("two"), "u2")
        yield* emit(Fake.turnCompleted("t", "u1"), Fake.turnStarted("t", "u2"), usage("t", "u2", 30, 20))
        yield* emit(Fake.turnCompleted("t", "u2"))
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        return yield* Budget.used
      }).pipe(Budget.limit({ tokens: 1000 }))
      assert.strictEqual(used.tokens, 30)
      assert.strictEqual(used.turns, 2)
    }).pipe(Effect.provide(layer())))

  it.effect("counts and interrupts a sub-agent that starts after the turn that it works for has ended", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const { used } = yield* Effect.gen(function*() {
        const run = yield* startTurn(thread.run("one"), "u1")
        yield* emit(Fake.turnStarted("t", "u1"), spawned("t", "u1", "s"), usage("t", "u1", 10))
        yield* emit(Fake.turnCompleted("t", "u1"), Fake.subAgentStarted("s", "u2", "u1"))
        yield* Fiber.join(run)
        yield* emit(usage("s", "u2", 100))
        const interrupt = yield* respond("turn/interrupt", {})
        assert.deepStrictEqual(interrupt.params, { threadId: "s", turnId: "u2" })
        return yield* Effect.never
      }).pipe(Budget.limit({ tokens: 50 }), expectExceeded)
      assert.strictEqual(used.tokens, 110)
      assert.strictEqual(used.turns, 2)
    }).pipe(Effect.provide(layer())))

  it.effect("does not interrupt the sub-agents of a turn that continues for other callers", () =>
    Effect.gen(function*() {
      const [shared, foreign] = [yield* openThread("t"), yield* openThread("f")]
      const outside = yield* startTurn(shared.run("one"), "t1")
      yield* emit(Fake.turnStarted("t", "t1"), Fake.turnStarted("f", "f1"))
      for (const thread of [shared, foreign]) {
        const { id } = thread
        const inside = yield* startTurn(expectExceeded(Budget.limit(thread.run("two"), { tokens: 50 })), `${id}1`)
        // The program joins a turn that it did not start, so it reads what the turn has done before.
        if (thread === foreign) yield* respond("thread/resume", { initialTurnsPage: { data: [Fake.turn("f1")] } })
        yield* emit(spawned(id, `${id}1`, `${id}-agent`), Fake.subAgentStarted(`${id}-agent`, `${id}2`, `${id}1`))
        yield* emit(usage(`${id}-agent`, `${id}2`, 100))
        assert.strictEqual((yield* Fiber.join(inside)).used.tokens, 100)
      }
      assert.lengthOf(yield* getSent("turn/interrupt"), 0)
      yield* emit(Fake.turnCompleted("t", "t1"))
      assert.strictEqual((yield* Fiber.join(outside)).status, "completed")
    }).pipe(Effect.provide(layer())))

  it.effect("fails after the interrupt of a turn that a goal starts before it is paused", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      yield* openThread("t")
      const exceeding = yield* Effect.andThen(
        server.request("thread/goal/set", { threadId: "t", objective: "go", status: "active" }),
        Effect.never
      ).pipe(Budget.limit({ tokens: 10 }), expectExceeded, Effect.forkChild)
      yield* respond("thread/goal/set", { goal: goal("active") })
      yield* emit(Fake.turnStarted("t", "a"))
      yield* emit(usage("t", "a", 20))
      yield* respond("thread/goal/get", { goal: goal("active") })
      const pause = yield* receive("thread/goal/set")
      yield* emit(Fake.turnCompleted("t", "a"))
      yield* emit(Fake.turnStarted("t", "b"))
      const read = yield* receive("thread/goal/get")
      yield* respond(pause, { goal: goal("paused") })
      yield* reject("turn/interrupt")
      yield* settle
      assert.isUndefined(exceeding.pollUnsafe())
      yield* respond(read, { goal: goal("paused") })
      yield* respond("turn/interrupt", {})
      assert.strictEqual((yield* Fiber.join(exceeding)).used.tokens, 20)
    }).pipe(Effect.provide(layer())))

  it.effect("fails also if the server does not respond to the interrupts", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(expectExceeded(Budget.limit(thread.run("go"), { tokens: 50 })), "u1")
      yield* emit(Fake.turnStarted("t", "u1"), Fake.subAgentStarted("s", "u2", "u1"), usage("s", "u2", 100))
      yield* settle
      yield* TestClock.adjust("10 seconds")
      assert.lengthOf(yield* getSent("turn/interrupt"), 2)
      assert.isDefined(run.pollUnsafe())
      assert.strictEqual((yield* Fiber.join(run)).used.tokens, 100)
    }).pipe(Effect.provide(layer())))

  it.effect("counts nothing when a restarted server has lost the last reports", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const used = yield* Effect.gen(function*() {
        const first = yield* startTurn(Effect.exit(thread.run("one")), "u1")
        yield* emit(Fake.turnStarted("t", "u1"), usage("t", "u1", 10, 10), usage("t", "u1", 30, 20))
        yield* settle
        yield* restart
        const resume = yield* receive("thread/resume")
        yield* emit(usage("t", "u1", 10, 10))
        yield* respond(resume, Fake.threadResponse("t"))
        yield* respond("thread/turns/list", { data: [Fake.turn("u1", "interrupted")] })
        assert.isTrue(Exit.isFailure(yield* Fiber.join(first)))
        const second = yield* startTurn(thread.run("two"), "u2")
        yield* emit(Fake.turnStarted("t", "u2"), usage("t", "u2", 15, 5), Fake.turnCompleted("t", "u2"))
        yield* Fiber.join(second)
        return yield* Budget.used
      }).pipe(Budget.limit({ tokens: 1000 }))
      assert.strictEqual(used.tokens, 35)
    }).pipe(Effect.provide(layer({ restart: true }))))

  it.effect("counts a report of a turn that a restarted server has lost, and no other turn", () =>
    Effect.gen(function*() {
      const used = yield* Effect.gen(function*() {
        const thread = yield* openThread("t")
        const run = yield* startTurn(thread.run("one"), "u1")
        yield* emit(Fake.turnStarted("t", "u1"), usage("t", "u1", 10))
        yield* settle
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(run))
        yield* receive("turn/interrupt")
        yield* restart
        const resume = yield* receive("thread/resume")
        yield* emit(usage("t", "u1", 30, 20))
        yield* respond(resume, Fake.threadResponse("t"))
        yield* Fiber.join(interrupting)
        yield* settle
        return yield* Budget.used
      }).pipe(Budget.limit({ tokens: 1000 }))
      assert.deepStrictEqual([used.tokens, used.turns], [30, 1])
    }).pipe(Effect.provide(layer({ restart: true }))))

  it.effect("adds costs without rounding errors", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const total = yield* Effect.gen(function*() {
        for (const n of [1, 2, 3]) {
          const run = yield* startTurn(thread.run("go"), `u${n}`)
          yield* emit(
            Fake.turnStarted("t", `u${n}`),
            usage("t", `u${n}`, n * 100_000, 100_000),
            Fake.turnCompleted("t", `u${n}`)
          )
          yield* Fiber.join(run)
        }
        return yield* Budget.used
      }).pipe(Budget.limit({ usd: 0.3, prices }))
      assert.strictEqual(total.usd, 0.3)
    }).pipe(Effect.provide(layer())))

  it.effect("is exceeded by counts that are not numbers", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* startTurn(expectExceeded(Budget.limit(thread.run("go"), { usd: 1, prices: { m: free } })), "u")
      // JSON has no NaN, but the difference of two infinite counts is one.
      const infinite = JSON.stringify(usage("t", "u", 1)).replaceAll(
        /"(cachedI|i)nputTokens":\d/g,
        `"$1nputTokens":1e999`
      )
      yield* Fake.FakeTransport.use((fake) => fake.emitLines(infinite))
      yield* interruptTurn("t", "u")
      assert.isNaN((yield* Fiber.join(run)).used.usd)
    }).pipe(Effect.provide(layer())))

  it.effect("fails raw requests on a closed connection with its cause", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      yield* end(killed)
      yield* settle
      const params = { threadId: "t", input: [] }
      const reason = yield* expectReason(Budget.limit(server.request("turn/start", params), { turns: 1 }))
      assert.strictEqual(reason._tag, "ConnectionClosed")
    }).pipe(Effect.provide(layer())))

  it.effect("prices a turn by the model that it was started with", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const used = yield* Effect.gen(function*() {
        const run = yield* startTurn(thread.run("go"), "u")
        yield* emit(Fake.turnStarted("t", "u"))
        // Holds from the next turn on.
        const settings = {
          activePermissionProfile: null,
          approvalPolicy: "on-request",
          approvalsReviewer: "auto_review",
          collaborationMode: { mode: "default", settings: { model: "cheap" } },
          cwd: "/repo",
          effort: null,
          model: "cheap",
          modelProvider: "m",
          sandboxPolicy: { type: "readOnly", networkAccess: false },
          serviceTier: null
        }
        yield* emit({ method: "thread/settings/updated", params: { threadId: "t", threadSettings: settings } })
        yield* emit(usage("t", "u", 100_000), Fake.turnCompleted("t", "u"))
        yield* Fiber.join(run)
        return yield* Budget.used
      }).pipe(Budget.limit({ usd: 1, prices }))
      assert.strictEqual(used.usd, 0.1)
    }).pipe(Effect.provide(layer())))

  it.effect("checks raw requests by the model that they name", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      yield* openThread("t")
      const start = (model: string) =>
        server.request("turn/start", { threadId: "t", input: [], model }).pipe(
          Budget.limit({ usd: 1, prices: { cheap: free } })
        )
      const starting = yield* Effect.forkChild(start("cheap"))
      yield* respond("turn/start", { turn: Fake.turn("u") })
      yield* Fiber.join(starting)
      const refused = yield* Effect.forkChild(expectReason(start("m")))
      yield* settle
      assert.lengthOf(yield* getSent("turn/start"), 1)
      assert.deepInclude(yield* Fiber.join(refused), { _tag: "PriceMissing", model: "m" })
    }).pipe(Effect.provide(layer())))

  it.effect("starts no more turns than it allows while a review is counted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const [thread, other] = [yield* openThread("t"), yield* openThread("o")]
      yield* Effect.gen(function*() {
        const review = yield* Effect.forkChild(
          server.request("review/start", { threadId: "t", target: { type: "custom", instructions: "look" } })
        )
        yield* respond("review/start", { turn: Fake.turn("r"), reviewThreadId: "t" })
        yield* Fiber.join(review)
        yield* emit(Fake.subAgentStarted("t", "x", "r"))
        yield* emit(Fake.turnCompleted("t", "r"))
        const list = yield* receive("thread/list")
        const runs = yield* Effect.forkChild(
          Effect.all([Effect.exit(thread.compact), Effect.exit(other.compact)], { concurrency: "unbounded" })
            .pipe(Budget.limit({ turns: 1 }))
        )
        yield* settle
        yield* respond(list, { data: [], nextCursor: null })
        yield* settle
        assert.lengthOf(yield* getSent("thread/compact/start"), 1)
        yield* reject("thread/compact/start")
        assert.deepStrictEqual((yield* Fiber.join(runs)).map(Exit.isFailure), [true, true])
        assert.strictEqual((yield* Budget.used).turns, 1)
      }).pipe(Budget.limit({ turns: 10 }))
    }).pipe(Effect.provide(layer())))

  it.effect("interrupts a caller at once while a review is counted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const [thread] = [yield* openThread("t"), yield* openThread("o")]
      yield* Effect.gen(function*() {
        const review = yield* Effect.forkChild(
          server.request("review/start", { threadId: "o", target: { type: "custom", instructions: "look" } })
        )
        yield* respond("review/start", { turn: Fake.turn("r"), reviewThreadId: "o" })
        yield* Fiber.join(review)
        yield* emit(Fake.subAgentStarted("o", "x", "r"))
        // The option makes the second turn wait for the start of the first.
        const first = yield* Effect.forkChild(Effect.exit(thread.run("one")), { startImmediately: true })
        const start = yield* receive("turn/start")
        const second = yield* Effect.forkChild(thread.run("two", { model: "m" }), { startImmediately: true })
        yield* settle
        yield* emit(Fake.turnCompleted("o", "r"))
        const list = yield* receive("thread/list")
        yield* reject(start)
        assert.isTrue(Exit.isFailure(yield* Fiber.join(first)))
        yield* settle
        const interrupted = yield* Effect.forkChild(Fiber.interrupt(second), { startImmediately: true })
        yield* settle
        assert.isDefined(interrupted.pollUnsafe())
        yield* respond(list, { data: [], nextCursor: null })
        yield* settle
        assert.lengthOf(yield* getSent("turn/start"), 1)
        assert.strictEqual((yield* Budget.used).turns, 1)
      }).pipe(Budget.limit({ turns: 10 }))
    }).pipe(Effect.provide(layer())))
})
