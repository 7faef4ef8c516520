import { assert, describe, layer } from "@effect/vitest"
import { AppServer, AppServerError, Budget, Codex, type Thread, Usage } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestCodex from "./TestCodex.ts"

/** A model request that uses this number of tokens, half of them output. */
const uses = (total: number) => ({ usage: { inputTokens: total / 2, outputTokens: total / 2 } })

const call = (callId: string) => ModelServer.functionCall("exec_command", { cmd: "true", login: false }, { callId })

/** The reply of a turn that makes another request. */
const step = (total: number) => ModelServer.reply([call("step")], uses(total))

const done = (total: number) => ModelServer.text("done", uses(total))

const prices: Budget.Prices = { "mock-model": { input: 1, output: 10 } }

const isModelRequestOf = (threadId: string) => (request: ModelServer.ModelRequest) =>
  request.header("thread-id") === threadId

/** Runs an effect that fails with `BudgetExceeded`, and returns the reason. */
const expectExceeded = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(AppServerError.isAppServerError(error), String(error))
    assert(error.reason._tag === "BudgetExceeded", error.message)
    return error.reason
  })

const expectReason = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(AppServerError.isAppServerError(error), String(error))
    return error.reason
  })

const countSent = (method: string) =>
  TestCodex.Wire.use(({ sent }) =>
    Effect.map(sent, (sent) => sent.filter((message) => message.method === method).length)
  )

/** Waits until an effect returns `true`. */
const until = <E, R>(effect: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(effect, { until: (isTrue) => isTrue, schedule: Schedule.spaced("10 millis") })

/** Returns the statuses of a thread's turns, as the server stores them. */
const readStatuses = (thread: Thread.Thread) =>
  Effect.map(thread.read({ includeTurns: true }), ({ turns }) => turns.map(({ status }) => status))

const config = { features: { goals: true }, agents: { max_depth: 3 } }

layer(TestCodex.layer({ home: { config, models: ["mock-model", "mini-model"] } }), { excludeTestServices: true })(
  "Budget.limit",
  (it) => {
    it.effect("interrupts a turn that exceeds the tokens, and starts no other one", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond((request) => isModelRequestOf(thread.id)(request) ? step(100) : done(1))
        const before = (yield* model.requests).length
        const wasCaught = yield* Ref.make(false)
        const starts = yield* countSent("turn/start")
        const reason = yield* Effect.gen(function*() {
          yield* thread.run("loop").pipe(Effect.catchTag("AppServerError", () => Ref.set(wasCaught, true)))
          // The budget fails also if the program handles the error.
          return yield* thread.run("again")
        }).pipe(Budget.limit({ tokens: 250 }), expectExceeded)
        assert.deepStrictEqual(reason.limit, { tokens: 250, usd: undefined, turns: undefined })
        assert.strictEqual(reason.used.tokens, 300)
        assert.strictEqual(reason.used.usd, undefined)
        assert.strictEqual(reason.used.turns, 1)
        assert.deepStrictEqual(reason.used.usage, {
          ...Usage.zero,
          inputTokens: 150,
          outputTokens: 150,
          totalTokens: 300
        })
        assert.deepStrictEqual(reason.used.threads, [{
          threadId: thread.id,
          tokens: 300,
          usd: undefined,
          turns: 1,
          usage: reason.used.usage
        }])
        assert.include(reason.message, `300 of 250 tokens (by thread: \`${thread.id}\` 300 tokens)`)
        // The model request after the interruption may have been sent.
        assert.isAtMost((yield* model.requests).length - before, 4)
        assert.deepStrictEqual(yield* readStatuses(thread), ["interrupted"])
        assert.strictEqual(yield* countSent("turn/start"), starts + 1)
        assert.isTrue(yield* Ref.get(wasCaught))
      }))

    it.effect("succeeds with the result of an effect that stays within the budget", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(step(100), done(100), done(50))
        const { result, used } = yield* Effect.gen(function*() {
          yield* thread.run("one")
          const result = yield* thread.run("two")
          return { result, used: yield* Budget.used }
        }).pipe(Budget.limit({ tokens: 250, turns: 2 }))
        assert.strictEqual(result.finalResponse, "done")
        assert.strictEqual(used.tokens, 250)
        assert.strictEqual(used.turns, 2)
        assert.deepStrictEqual(yield* Budget.used, {
          tokens: 0,
          usd: undefined,
          turns: 0,
          usage: Usage.zero,
          threads: []
        })
      }))

    it.effect("starts no turn when the budget is used up, and lets running turns end", () =>
      Effect.gen(function*() {
        const [first, second] = [yield* TestCodex.startThread, yield* TestCodex.startThread]
        const model = yield* ModelServer.ModelServer
        const held = yield* TestCodex.heldMessage
        yield* model.respond((request) =>
          isModelRequestOf(first.id)(request) ? ModelServer.reply([held.reply], uses(10)) : done(10)
        )
        const starts = yield* countSent("turn/start")
        const result = yield* Effect.gen(function*() {
          const turn = yield* first.turn("one")
          yield* model.awaitRequests(1)
          const refused = yield* expectExceeded(second.run("two", { cwd: "." }))
          assert.strictEqual(refused.used.turns, 1)
          assert.include(refused.message, "1 of 1 turns")
          yield* held.finish
          return yield* turn.result
        }).pipe(Effect.scoped, Budget.limit({ turns: 1 }))
        assert.strictEqual(result.status, "completed")
        assert.strictEqual(yield* countSent("turn/start"), starts + 1)

        // The last turn uses the budget exactly.
        const used = yield* Ref.make(0)
        yield* Effect.gen(function*() {
          yield* second.run("three")
          const { used: { tokens } } = yield* expectExceeded(second.run("four"))
          yield* Ref.set(used, tokens)
        }).pipe(Budget.limit({ tokens: 10 }))
        assert.strictEqual(yield* Ref.get(used), 10)
        assert.strictEqual(yield* countSent("turn/start"), starts + 2)
      }))

    it.effect("counts in all nested budgets, and only ends the one that is exceeded", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(done(10), step(30), step(30))
        const used = yield* Effect.gen(function*() {
          yield* thread.run("one")
          const inner = yield* thread.run("two").pipe(Budget.limit({ tokens: 40 }), expectExceeded)
          assert.strictEqual(inner.used.tokens, 60)
          yield* model.respond(() => done(4))
          yield* thread.run("three")
          return yield* Budget.used
        }).pipe(Budget.limit({ tokens: 1000 }))
        assert.strictEqual(used.tokens, 74)
        assert.strictEqual(used.turns, 3)

        yield* model.respond(() => step(30))
        const outer = yield* thread.run("four").pipe(
          Budget.limit({ tokens: 1000 }),
          Effect.catchTag("AppServerError", () => Effect.never),
          Budget.limit({ tokens: 50 }),
          expectExceeded
        )
        assert.strictEqual(outer.limit.tokens, 50)
      }))

    it.effect("counts the turns of several threads together, and interrupts all of them", () =>
      Effect.gen(function*() {
        const threads = [yield* TestCodex.startThread, yield* TestCodex.startThread, yield* TestCodex.startThread]
        const model = yield* ModelServer.ModelServer
        yield* model.respond(() => step(20))
        const reason = yield* Effect.forEach(threads, (thread) => thread.run("loop"), { concurrency: "unbounded" })
          .pipe(
            Budget.limit({ tokens: 500 }),
            expectExceeded
          )
        assert.isAbove(reason.used.tokens, 500)
        assert.lengthOf(reason.used.threads, 3)
        assert.strictEqual(reason.used.threads.reduce((sum, { tokens }) => sum + tokens, 0), reason.used.tokens)
        for (const thread of threads) assert.deepStrictEqual(yield* readStatuses(thread), ["interrupted"])
      }))

    it.effect("counts a fork without the history that it copies", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(done(1000), done(20), done(30))
        yield* thread.run("one")
        const { used } = yield* Effect.gen(function*() {
          const fork = yield* codex.forkThread(thread.id)
          yield* fork.run("two")
          yield* thread.run("three")
          return yield* thread.run("four")
        }).pipe(Budget.limit({ tokens: 50 }), expectExceeded)
        assert.strictEqual(used.tokens, 50)
        assert.strictEqual(used.turns, 2)
        assert.lengthOf(used.threads, 2)
      }))

    it.effect("counts a compaction, and interrupts one that exceeds the budget", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(done(10), ModelServer.text("a summary", uses(40)))
        const used = yield* Effect.gen(function*() {
          yield* thread.run("one")
          yield* thread.compact
          assert.strictEqual((yield* expectExceeded(thread.compact)).used.turns, 2)
          return yield* Budget.used
        }).pipe(Budget.limit({ turns: 2 }))
        assert.strictEqual(used.tokens, 50)
        assert.strictEqual(used.turns, 2)

        const other = yield* TestCodex.startThread
        const held = yield* TestCodex.heldMessage
        yield* model.enqueue(done(10))
        yield* thread.run("two")
        yield* model.respond((request) =>
          isModelRequestOf(thread.id)(request) ? ModelServer.reply([held.reply]) : step(30)
        )
        const compacting = yield* Deferred.make<AppServerError.AppServerErrorReason>()
        const exceeded = yield* Effect.gen(function*() {
          yield* expectReason(thread.compact).pipe(
            Effect.flatMap((reason) => Deferred.succeed(compacting, reason)),
            Effect.forkDetach
          )
          yield* held.say("summ")
          yield* other.run("loop")
        }).pipe(Budget.limit({ tokens: 50 }), expectExceeded)
        assert.strictEqual(exceeded.used.tokens, 60)
        assert.strictEqual((yield* Deferred.await(compacting))._tag, "BudgetExceeded")
        assert.strictEqual((yield* readStatuses(thread)).at(-1), "interrupted")
      }))

    it.effect("counts the repairs of a typed output, and starts none when the budget is used up", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(ModelServer.text("no JSON", uses(10)), ModelServer.text("still none", uses(10)))
        const options = { output: Schema.Number, repairs: 5 }
        const { used } = yield* expectExceeded(Budget.limit(thread.run("go", options), { turns: 2 }))
        assert.strictEqual(used.turns, 2)
        assert.strictEqual(used.tokens, 20)
      }))

    it.effect("counts input that joins a running turn as no turn, and ends only the wait of its caller", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        const fs = yield* FileSystem.FileSystem
        const { workspace } = yield* CodexEnvironment.CodexEnvironment
        const waiting = { cmd: "until [ -e joined ]; do sleep 0.02; done", login: false }
        yield* model.respond((request) => {
          if (request.functionCallOutput("wait") === undefined) {
            return ModelServer.reply([ModelServer.functionCall("exec_command", waiting, { callId: "wait" })], uses(100))
          }
          return request.functionCallOutput("step") === undefined ? step(50) : ModelServer.hang()
        })
        const result = yield* Effect.gen(function*() {
          const turn = yield* thread.turn("one")
          // Before the model has responded, input would start its request again.
          yield* Stream.runHead(
            Stream.filter(
              turn.events,
              (event) => event.method === "item/started" && event.params.item.type === "commandExecution"
            )
          )
          const isJoined = yield* Deferred.make<void>()
          const joined = yield* thread.turn("two").pipe(
            Effect.tap(Deferred.succeed(isJoined, undefined)),
            Effect.flatMap((turn) => turn.result),
            Effect.scoped,
            Budget.limit({ tokens: 120, turns: 1 }),
            expectExceeded,
            Effect.forkChild
          )
          yield* Deferred.await(isJoined)
          yield* fs.writeFileString(`${workspace}/joined`, "")
          const { used } = yield* Fiber.join(joined)
          assert.strictEqual(used.tokens, 150)
          assert.strictEqual(used.turns, 0)
          yield* turn.interrupt
          return yield* turn.result
        }).pipe(Effect.scoped)
        assert.strictEqual(result.usage?.turn.totalTokens, 150)
      }))

    it.effect("limits turns whose handle outlives the effect", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond(() => step(30))
        const turn = yield* Budget.limit(thread.turn("go"), { tokens: 100 })
        const { used } = yield* expectExceeded(turn.result)
        assert.strictEqual(used.tokens, 120)
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Stream.runDrain(turn.events))))
        assert.deepStrictEqual(yield* readStatuses(thread), ["interrupted"])
      }).pipe(Effect.scoped))

    it.effect("counts and interrupts turns that the program starts by raw requests", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond(() => step(30))
        const params = { threadId: thread.id, input: [{ type: "text", text: "go" }] } as const
        const { used } = yield* Effect.andThen(server.request("turn/start", params), Effect.never).pipe(
          Budget.limit({ tokens: 100 }),
          expectExceeded
        )
        assert.strictEqual(used.tokens, 120)
        assert.strictEqual(used.turns, 1)
        yield* until(Effect.map(readStatuses(thread), (statuses) => statuses.at(-1) === "interrupted"))
        const starts = yield* countSent("turn/start")
        yield* Effect.gen(function*() {
          yield* expectExceeded(server.request("turn/start", params))
          yield* expectExceeded(server.requestRaw("turn/start", params))
          yield* expectExceeded(server.request("thread/compact/start", { threadId: thread.id }))
        }).pipe(Budget.limit({ turns: 0 }))
        assert.strictEqual(yield* countSent("turn/start"), starts)
      }))

    it.effect("counts the turns of a goal, and stops the goal", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond(() => done(10))
        const params = { threadId: thread.id, objective: "count", status: "active" } as const
        const byTokens = yield* Effect.andThen(server.request("thread/goal/set", params), Effect.never).pipe(
          Budget.limit({ tokens: 35 }),
          expectExceeded
        )
        assert.strictEqual(byTokens.used.tokens, 40)
        assert.strictEqual(byTokens.used.turns, 4)
        const byTurns = yield* Effect.andThen(server.request("thread/goal/set", params), Effect.never).pipe(
          Budget.limit({ turns: 3 }),
          expectExceeded
        )
        assert.strictEqual(byTurns.used.turns, 4)
        const { goal } = yield* server.request("thread/goal/get", { threadId: thread.id })
        assert.strictEqual(goal?.status, "paused")
        yield* expectExceeded(Budget.limit(server.request("thread/goal/set", params), { turns: 0 }))
        yield* Budget.limit(server.request("thread/goal/set", { ...params, status: "paused" }), { turns: 0 })
      }))

    it.effect("counts a review when it has ended", () =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond((request) =>
          isModelRequestOf(thread.id)(request) || request.functionCallOutput("step") !== undefined
            ? ModelServer.text("fine", uses(20))
            : step(10)
        )
        /** Runs a review and waits for its end. */
        const review = Effect.gen(function*() {
          const target = { type: "custom", instructions: "look" } as const
          const ended = yield* server.notifications.pipe(
            Stream.filter(({ method }) => method === "turn/completed"),
            Stream.runHead,
            Effect.forkChild({ startImmediately: true })
          )
          yield* server.request("review/start", { threadId: thread.id, target })
          yield* Fiber.join(ended)
        })
        const reviewed = yield* Effect.gen(function*() {
          yield* review
          return yield* Budget.used
        }).pipe(Budget.limit({ usd: 1, prices }))
        assert.strictEqual(reviewed.turns, 1)
        assert.strictEqual(reviewed.tokens, 30)
        assert.closeTo(reviewed.usd ?? 0, 15e-6 + 150e-6, 1e-12)
        assert.deepStrictEqual(reviewed.threads.map(({ threadId }) => threadId), [thread.id])

        // The budget fails also if the review is the last that it does.
        assert.strictEqual((yield* expectExceeded(Budget.limit(review, { tokens: 25 }))).used.tokens, 30)
        const { used } = yield* expectExceeded(Budget.limit(Effect.andThen(review, thread.run("go")), { tokens: 30 }))
        assert.strictEqual(used.turns, 1)
        yield* expectExceeded(Budget.limit(Effect.andThen(review, review), { turns: 1 }))
      }))

    it.effect("interrupts turns and starts none below the reserve", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond(() => step(30))
        const running = yield* thread.run("go").pipe(
          Budget.limit({ tokens: 100, reserve: { tokens: 30 } }),
          expectExceeded
        )
        assert.strictEqual(running.used.tokens, 90)
        assert.include(running.message, "90 of 100 tokens with 30 reserved (by thread")
        yield* model.respond(() => done(70))
        const used = yield* Effect.gen(function*() {
          yield* thread.run("one")
          yield* expectExceeded(thread.run("two"))
          return yield* Budget.used
        }).pipe(Budget.limit({ tokens: 100, reserve: { tokens: 30 } }))
        assert.strictEqual(used.tokens, 70)
      }))

    it.effect("limits the cost, by the price of the model of each turn", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const model = yield* ModelServer.ModelServer
        yield* model.respond(() => step(100_000))
        const { used } = yield* thread.run("go").pipe(Budget.limit({ usd: 1.2, prices }), expectExceeded)
        // 50,000 tokens of input at $1 and of output at $10 a million are $0.55 for each request.
        assert.closeTo(used.usd ?? 0, 1.65, 1e-9)
        assert.strictEqual(used.threads[0]?.usd, used.usd)

        yield* model.respond(() => done(100_000))
        const both = { ...prices, "mini-model": { input: 0, output: 1 } }
        const total = yield* Effect.gen(function*() {
          yield* thread.run("one")
          yield* thread.run("two", { model: "mini-model" })
          yield* thread.run("three")
          return yield* Budget.used
        }).pipe(Budget.limit({ usd: 10, prices: both }))
        assert.closeTo(total.usd ?? 0, 0.55 + 0.05 + 0.05, 1e-9)
      }))

    it.effect("refuses a model without a price before anything is sent", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const starts = yield* countSent("turn/start")
        const inBudget = Budget.limit({ usd: 1, prices })
        const reason = yield* expectReason(inBudget(thread.run("go", { model: "other-model" })))
        assert.deepInclude(reason, { _tag: "PriceMissing", model: "other-model", threadId: thread.id })
        assert.include(reason.message, "Add its price to `prices`")
        const unknown = new AppServerError.PriceMissing({ threadId: thread.id, model: "" })
        assert.include(unknown.message, "Name the `model`")
        for (const name of ["toString", "__proto__"]) {
          assert.strictEqual((yield* expectReason(inBudget(thread.run("go", { model: name }))))._tag, "PriceMissing")
        }
        assert.strictEqual(yield* countSent("turn/start"), starts)
      }))

    describe("sub-agents", () => {
      /** Replies as a thread that spawns a sub-agent and waits for it. `reply` are the replies to the sub-agent. */
      const delegate = Effect.fnUntraced(function*(
        thread: Thread.Thread,
        agent: { readonly message: string; readonly model?: string; readonly fork_context?: boolean },
        reply: (request: ModelServer.ModelRequest) => ModelServer.Reply
      ) {
        const model = yield* ModelServer.ModelServer
        yield* model.respond((request) =>
          isModelRequestOf(thread.id)(request)
            ? TestCodex.delegate(request, agent, uses(100))
            : reply(request)
        )
      })

      it.effect("counts sub-agents in the budget, and in the usage of the turn that they work for", () =>
        Effect.gen(function*() {
          const thread = yield* TestCodex.startThread
          yield* delegate(
            thread,
            { message: "help", fork_context: true },
            (request) => request.functionCallOutput("step") === undefined ? step(20) : done(30)
          )
          const { result, used } = yield* Effect.gen(function*() {
            const result = yield* thread.run("go")
            return { result, used: yield* Budget.used }
          }).pipe(Budget.limit({ tokens: 1000 }))
          assert.strictEqual(result.usage?.turn.totalTokens, 300)
          assert.strictEqual(result.usage?.subAgents.totalTokens, 50)
          assert.strictEqual(used.tokens, 350)
          assert.strictEqual(used.turns, 2)
          assert.deepStrictEqual(used.threads.map(({ tokens, turns }) => [tokens, turns]), [[300, 1], [50, 1]])
        }))

      it.effect("counts sub-agents in the usage of their turn when they or the turn fail", () =>
        Effect.gen(function*() {
          const thread = yield* TestCodex.startThread
          yield* delegate(
            thread,
            { message: "help" },
            (request) => request.functionCallOutput("step") === undefined ? step(20) : ModelServer.httpError(400)
          )
          const result = yield* thread.run("go")
          assert.strictEqual(result.usage?.subAgents.totalTokens, 20)

          const model = yield* ModelServer.ModelServer
          const failing = yield* TestCodex.startThread
          yield* model.respond((request) =>
            !isModelRequestOf(failing.id)(request)
              ? done(70)
              : request.functionCallOutput("wait") === undefined
              ? TestCodex.delegate(request, { message: "help" })
              : ModelServer.httpError(400)
          )
          const failed = yield* Effect.flip(failing.run("go"))
          assert(failed._tag === "TurnFailed")
          assert.strictEqual(failed.usage?.subAgents.totalTokens, 70)
        }))

      it.effect("interrupts sub-agents together with the turn that they work for", () =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const thread = yield* TestCodex.startThread
          const model = yield* ModelServer.ModelServer
          yield* delegate(thread, { message: "help" }, () => step(100))
          const { used } = yield* thread.run("go").pipe(Budget.limit({ tokens: 500 }), expectExceeded)
          assert.isAbove(used.tokens, 500)
          assert.lengthOf(used.threads, 2)
          const agentId = used.threads.find(({ threadId }) => threadId !== thread.id)?.threadId ?? ""
          const agent = yield* server.request("thread/read", { threadId: agentId, includeTurns: true })
          assert.deepStrictEqual(agent.thread.turns.map(({ status }) => status), ["interrupted"])
          assert.deepStrictEqual(yield* readStatuses(thread), ["interrupted"])
          const after = (yield* model.requests).length
          yield* TestCodex.startThread
          assert.strictEqual((yield* model.requests).length, after)
        }))

      it.effect("counts the sub-agents of sub-agents, and interrupts those that start too late", () =>
        Effect.gen(function*() {
          const [thread, other] = [yield* TestCodex.startThread, yield* TestCodex.startThread]
          const model = yield* ModelServer.ModelServer
          yield* model.respond((request) => {
            const parentId = request.header("x-codex-parent-thread-id")
            const isGrandchild = parentId !== undefined && ![thread.id, other.id].includes(parentId)
            return isGrandchild ? done(50) : TestCodex.delegate(request, { message: "help" }, uses(10))
          })
          const { result, used } = yield* Effect.gen(function*() {
            const result = yield* thread.run("go")
            return { result, used: yield* Budget.used }
          }).pipe(Budget.limit({ turns: 3 }))
          assert.strictEqual(used.turns, 3)
          assert.strictEqual(result.usage?.turn.totalTokens, 30)
          assert.strictEqual(result.usage?.subAgents.totalTokens, 80)
          assert.strictEqual(used.tokens, 110)
          const exceeded = yield* other.run("go").pipe(Budget.limit({ turns: 2 }), expectExceeded)
          assert.strictEqual(exceeded.used.turns, 3)
        }))

      it.effect("requires a price for the model that the turn chooses for a sub-agent", () =>
        Effect.gen(function*() {
          const thread = yield* TestCodex.startThread
          yield* delegate(thread, { message: "help", model: "mini-model" }, () => step(100_000))
          const inBudget = Budget.limit({ usd: 10, prices })
          const reason = yield* expectReason(inBudget(thread.run("go")))
          assert.deepInclude(reason, { _tag: "PriceMissing", model: "mini-model" })
          assert.deepStrictEqual(yield* readStatuses(thread), ["interrupted"])
        }))
    })
  }
)

layer(TestCodex.layer(), { excludeTestServices: true })("Budget.limitStream", (it) => {
  it.effect("limits each run of a stream", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => step(30))
      const stream = thread.stream("go").pipe(Budget.limitStream({ tokens: 50 }))
      for (const _ of [1, 2]) {
        const { used } = yield* expectExceeded(Stream.runDrain(stream))
        assert.strictEqual(used.tokens, 60)
      }
      assert.deepStrictEqual(yield* readStatuses(thread), ["interrupted", "interrupted"])
      yield* model.respond(() => done(10))
      const events = yield* Stream.runCollect(stream)
      assert.strictEqual(events.at(-1)?.method, "turn/completed")
    }))

  it.effect("fails a stream that handles the error, or that waits for something else", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => step(30))
      const events = thread.stream("go").pipe(Stream.drain)
      const handling = events.pipe(Stream.catchTag("AppServerError", () => Stream.make("fallback")))
      yield* expectExceeded(Stream.runCollect(Budget.limitStream(handling, { tokens: 50 })))
      const waiting = Stream.merge(events, Stream.never)
      yield* expectExceeded(Stream.runCollect(Budget.limitStream(waiting, { tokens: 50 })))
    }))
})

layer(TestCodex.layer({ restart: TestCodex.quickRestart }), { excludeTestServices: true })("Budget", (it) => {
  it.effect("counts across restarts of the server", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startStoredThread()
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => done(40))
      const { used } = yield* Effect.gen(function*() {
        yield* thread.run("one")
        yield* TestCodex.restartServer
        yield* thread.run("two")
        return yield* thread.run("three")
      }).pipe(Budget.limit({ tokens: 80 }), expectExceeded)
      assert.strictEqual(used.tokens, 80)
      assert.strictEqual(used.turns, 2)
    }))

  it.effect("emits its changes, and a slow subscriber gets the newest", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(step(10), step(10), done(10))
      const seen = yield* Effect.gen(function*() {
        const observer = yield* Budget.changes.pipe(
          Stream.map(({ tokens }) => tokens),
          Stream.takeUntil((tokens) => tokens === 30),
          Stream.runCollect,
          Effect.forkChild({ startImmediately: true })
        )
        yield* thread.run("go")
        const late = yield* Stream.runHead(Budget.changes)
        assert.strictEqual(Option.getOrThrow(late).tokens, 30)
        return yield* Fiber.join(observer)
      }).pipe(Budget.limit({ tokens: 100 }))
      assert.strictEqual(seen[0], 0)
      assert.strictEqual(seen.at(-1), 30)
      assert.deepStrictEqual(Array.from(yield* Stream.runCollect(Budget.changes)).map(({ tokens }) => tokens), [0])
    }))

  it.effect("passes on the services, the interruption and the error of the effect", () =>
    Effect.gen(function*() {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      const name = yield* Budget.limit(Name, { turns: 1 }).pipe(Effect.provideService(Name, "service"))
      assert.strictEqual(name, "service")
      const exit = yield* Effect.exit(Budget.limit(Effect.interrupt, { turns: 1 }))
      assert.isTrue(Exit.hasInterrupts(exit))
      assert.strictEqual(yield* Effect.flip(Budget.limit(Effect.fail("own" as const), { turns: 1 })), "own")
    }))

  it.effect("rejects invalid options", () =>
    Effect.gen(function*() {
      const missing = undefined as unknown as object
      // @ts-expect-error `usd` needs `prices`
      Budget.limit({ usd: 1 })
      const issues: ReadonlyArray<readonly [object, string]> = [
        [missing, "set `tokens`, `usd` or `turns`"],
        [{}, "set `tokens`, `usd` or `turns`"],
        [{ token: 1 }, "did you mean `tokens`?"],
        [{ tokens: -1 }, "a number of at least 0"],
        [{ tokens: NaN }, "a number of at least 0"],
        [{ turns: 1.5 }, "a whole number"],
        [{ usd: 1 }, "`usd` needs `prices`"],
        [{ usd: 1, prices: { "mock-model": { input: 1 } } }, "wrong at `mock-model`"],
        [{ usd: 1, prices: { "mock-model": { input: 1, output: "2" } } }, "wrong at `mock-model`"],
        [{ tokens: 1, reserve: { token: 1 } }, "`reserve`"],
        [{ turns: 1, reserve: { tokens: 1 } }, "`reserve.tokens` needs `tokens`"],
        [{ tokens: 1, reserve: { usd: 1 } }, "`reserve.usd` needs `usd`"]
      ]
      for (const [options, issue] of issues) {
        const reason = yield* expectReason(Budget.limit(Effect.void, options))
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.include(reason.message, issue)
        assert.include((yield* expectReason(Stream.runDrain(Budget.limitStream(Stream.empty, options)))).message, issue)
      }
    }))
})
