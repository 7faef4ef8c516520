import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, Codex, type Thread, Turn, Usage } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Struct from "effect/Struct"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as Fake from "./FakeTransport.ts"
import { layer as layerFake } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"

const tokens = (inputTokens: number, outputTokens: number): Usage.Tokens => ({
  ...Usage.zero,
  inputTokens,
  outputTokens,
  totalTokens: inputTokens + outputTokens
})

const sum = (all: ReadonlyArray<Usage.Tokens>) => all.reduce((a, b) => Usage.add(a, b), Usage.zero)

describe("Usage", () => {
  const a: Usage.Tokens = {
    inputTokens: 9,
    cachedInputTokens: 4,
    cacheWriteInputTokens: 2,
    outputTokens: 5,
    reasoningOutputTokens: 3,
    totalTokens: 14
  }

  it("adds and subtracts each kind of token", () => {
    assert.deepStrictEqual(Usage.add(a, a), {
      inputTokens: 18,
      cachedInputTokens: 8,
      cacheWriteInputTokens: 4,
      outputTokens: 10,
      reasoningOutputTokens: 6,
      totalTokens: 28
    })
    assert.deepStrictEqual(Usage.add(a, Usage.zero), a)
    assert.deepStrictEqual(Usage.subtract(Usage.add(a, tokens(1, 2)), tokens(1, 2)), a)
    assert.deepStrictEqual(Usage.subtract(a)(a), Usage.zero)
  })

  it("compares each kind of token", () => {
    assert.isTrue(Usage.Equivalence(a, { ...a }))
    for (const kind of Struct.keys(a)) assert.isFalse(Usage.Equivalence(a, { ...a, [kind]: a[kind] + 1 }))
  })

  it("prices each kind of token once", () => {
    // 3 uncached, 4 cached and 2 written tokens of input, and 5 of output.
    const price = { input: 1_000_000, cachedInput: 100_000, cacheWrite: 2_000_000, output: 10_000_000 }
    assert.closeTo(Usage.cost(a, price), 3 + 0.4 + 4 + 50, 1e-9)
    assert.closeTo(Usage.cost({ input: 1_000_000, output: 10_000_000 })(a), 9 + 50, 1e-9)
    assert.strictEqual(Usage.cost(Usage.zero, price), 0)
  })

  it("encodes and decodes in the error of a failed turn", () => {
    const failed = new Turn.TurnFailed({
      threadId: "t",
      turnId: "u",
      detail: "no",
      codexErrorInfo: undefined,
      additionalDetails: undefined,
      items: [],
      usage: { turn: a, subAgents: tokens(1, 2), thread: a, lastRequest: a, contextWindow: undefined }
    })
    const decoded = Schema.decodeUnknownSync(Turn.TurnFailed)(Schema.encodeSync(Turn.TurnFailed)(failed))
    assert.deepStrictEqual(decoded.usage, failed.usage)
    assert.throws(() => Schema.decodeUnknownSync(Usage.Tokens)({ inputTokens: 1 }))
  })
})

const usage = (inputTokens: number, outputTokens: number) => ({ usage: { inputTokens, outputTokens } })

const call = (callId: string) => ModelServer.functionCall("exec_command", { cmd: "true", login: false }, { callId })

const incompleteMessage = ModelServer.deltas(["half"], { unfinished: true })

const config = TestCodex.retryConfig(2)

/** Runs a turn with these replies of the model, and returns the usage of its result or of its error. */
const runForUsage = Effect.fnUntraced(function*(thread: Thread.Thread, ...replies: ReadonlyArray<ModelServer.Reply>) {
  const model = yield* ModelServer.ModelServer
  yield* model.enqueue(...replies)
  return yield* Effect.matchEffect(thread.run("go"), {
    onSuccess: ({ usage }) => Effect.succeed(usage),
    onFailure: (error) => error._tag === "TurnFailed" ? Effect.succeed(error.usage) : Effect.fail(error)
  })
})

/** Interrupts a turn within a model request, after these replies, and returns its usage. */
const interruptForUsage = (thread: Thread.Thread, ...replies: ReadonlyArray<ModelServer.Reply>) =>
  Effect.gen(function*() {
    const model = yield* ModelServer.ModelServer
    yield* model.enqueue(...replies, ModelServer.hang([incompleteMessage]))
    const turn = yield* thread.turn("go")
    yield* Stream.runHead(turn.text)
    yield* turn.interrupt
    const { status, usage } = yield* turn.result
    assert.strictEqual(status, "interrupted")
    return usage
  }).pipe(Effect.scoped)

/** Asserts that a turn used no tokens. The server may repeat its last report when it interrupts a request. */
const assertNothing = (usage: Usage.TurnUsage | undefined) =>
  assert.deepStrictEqual(usage?.turn ?? Usage.zero, Usage.zero)

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Usage of a turn", (it) => {
  it.effect("sums the model requests of a completed, failed or interrupted turn", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const first = yield* runForUsage(
        thread,
        ModelServer.reply([call("a")], usage(1000, 100)),
        ModelServer.reply([call("b")], usage(2000, 200)),
        ModelServer.text("done", usage(3000, 5))
      )
      assert.deepStrictEqual(first, {
        turn: tokens(6000, 305),
        subAgents: Usage.zero,
        thread: tokens(6000, 305),
        lastRequest: tokens(3000, 5),
        contextWindow: 258_400
      })
      const second = yield* runForUsage(thread, ModelServer.text("again", usage(10, 1)))
      assert.deepStrictEqual(second?.turn, tokens(10, 1))
      assert.deepStrictEqual(second?.thread, tokens(6010, 306))

      const failed = yield* runForUsage(
        thread,
        ModelServer.reply([call("c")], usage(500, 50)),
        ModelServer.httpError(400, { error: { message: "no" } })
      )
      assert.deepStrictEqual(failed?.turn, tokens(500, 50))
      assert.deepStrictEqual(failed?.thread, tokens(6510, 356))
      assert.deepStrictEqual(failed?.lastRequest, tokens(500, 50))

      assert.deepStrictEqual(
        (yield* interruptForUsage(thread, ModelServer.reply([call("d")], usage(70, 7))))?.turn,
        tokens(70, 7)
      )
      assertNothing(yield* interruptForUsage(thread))
      assert.isUndefined(yield* runForUsage(thread, ModelServer.httpError(400, { error: { message: "no" } })))
      assert.deepStrictEqual((yield* runForUsage(thread, ModelServer.text("still", usage(1, 1))))?.turn, tokens(1, 1))
    }))

  it.effect("does not count a report that the server repeats before a retry", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const cut = ModelServer.cut([incompleteMessage])
      assert.deepStrictEqual(
        (yield* runForUsage(thread, cut, ModelServer.text("one", usage(100, 10))))?.turn,
        tokens(100, 10)
      )
      const second = yield* runForUsage(
        thread,
        cut,
        ModelServer.reply([call("a")], usage(200, 20)),
        ModelServer.cut([ModelServer.message("whole")]),
        ModelServer.text("two", usage(300, 30))
      )
      assert.deepStrictEqual(second?.turn, tokens(500, 50))
      const failed = yield* runForUsage(thread, cut, cut, cut)
      assert.deepStrictEqual(failed?.turn, Usage.zero)
      assert.deepStrictEqual(failed?.thread, tokens(600, 60))
    }))

  it.effect("counts exactly on a fork of any part of a thread, and after a revert", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { forkThread } = yield* Codex.Codex
      const thread = yield* TestCodex.startThread
      yield* runForUsage(thread, ModelServer.text("one", usage(100, 10)))
      yield* runForUsage(thread, ModelServer.text("two", usage(200, 20)))
      const [first, second] = yield* TestCodex.readTurns(thread.id)

      const whole = yield* forkThread(thread.id)
      assertNothing(yield* interruptForUsage(whole))
      const onFork = yield* runForUsage(whole, ModelServer.text("three", usage(7, 3)))
      assert.deepStrictEqual(onFork?.turn, tokens(7, 3))
      assert.deepStrictEqual(onFork?.thread, tokens(307, 33))

      const partial = yield* forkThread(thread.id, { lastTurnId: first!.id })
      const retried = yield* runForUsage(
        partial,
        ModelServer.cut([ModelServer.message("whole")]),
        ModelServer.text("three", usage(7, 3))
      )
      assert.deepStrictEqual(retried?.turn, tokens(7, 3))
      assert.deepStrictEqual(retried?.thread, tokens(107, 13))

      yield* server.request("thread/revert", { threadId: thread.id, beforeTurnId: second!.id })
      const reverted = yield* runForUsage(thread, ModelServer.text("other", usage(1000, 1)))
      assert.deepStrictEqual(reverted?.turn, tokens(1000, 1))
      assert.deepStrictEqual(reverted?.thread, tokens(1100, 11))
    }))

  it.effect("counts the requests of a compaction, and not the estimate that the server reports after it", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* runForUsage(thread, ModelServer.text("one", usage(100, 10)))
      yield* model.enqueue(ModelServer.text("a summary", usage(50, 5)))
      yield* thread.compact
      const after = yield* runForUsage(thread, ModelServer.text("two", usage(20, 2)))
      assert.deepStrictEqual(after?.turn, tokens(20, 2))
      assert.deepStrictEqual(after?.thread, tokens(170, 17))

      const within = yield* runForUsage(
        thread,
        ModelServer.reply([call("a")], usage(250_000, 1)),
        ModelServer.text("a summary", usage(1000, 100)),
        ModelServer.text("three", usage(30, 3))
      )
      assert.deepStrictEqual(within?.turn, tokens(251_030, 104))
      assert.deepStrictEqual(within?.lastRequest, tokens(30, 3))
    }))

  it.effect("does not count the context window, which the server reports when the context is full", () =>
    Effect.gen(function*() {
      const full = ModelServer.failed({ code: "context_length_exceeded", message: "too long" })
      const never = yield* runForUsage(yield* TestCodex.startThread, full)
      assert.deepStrictEqual(never, {
        turn: Usage.zero,
        subAgents: Usage.zero,
        thread: Usage.zero,
        lastRequest: Usage.zero,
        contextWindow: 258_400
      })
      const thread = yield* TestCodex.startThread
      yield* runForUsage(thread, ModelServer.text("one", usage(100, 10)))
      const failed = yield* runForUsage(thread, ModelServer.reply([call("a")], usage(200, 20)), full)
      assert.deepStrictEqual(failed?.turn, tokens(200, 20))
      assert.deepStrictEqual(failed?.thread, tokens(300, 30))
      assert.deepStrictEqual(failed?.lastRequest, tokens(200, 20))
      const compacted = yield* runForUsage(
        thread,
        ModelServer.text("a summary", usage(50, 5)),
        ModelServer.text("two", usage(7, 3))
      )
      assert.deepStrictEqual(compacted?.turn, tokens(57, 8))
      assert.deepStrictEqual(compacted?.thread, tokens(357, 38))
    }))

  it.effect("covers the whole turn for each caller that joined it", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const thread = yield* TestCodex.startThread
      yield* runForUsage(thread, ModelServer.text("before", usage(5, 5)))
      yield* model.enqueue(
        ModelServer.reply([call("a")], usage(100, 10)),
        TestCodex.halfMessage,
        ModelServer.text("both", usage(200, 20))
      )
      const turn = yield* thread.turn("one")
      yield* Stream.runHead(turn.text)
      const first = yield* Effect.forkChild(turn.result)
      const second = yield* Effect.forkChild(thread.run("two"))
      const results = [yield* Fiber.join(first), yield* Fiber.join(second)]
      assert.strictEqual(results[0]?.id, results[1]?.id)
      for (const { usage } of results) assert.deepStrictEqual(usage?.turn, tokens(300, 30))
    }).pipe(Effect.scoped))
})

layer(TestCodex.layerEnvironment({ config }), { excludeTestServices: true })(
  "Usage of a turn in another process",
  (it) => {
    it.effect("does not count the report that the server replays when a thread is resumed", () =>
      Effect.gen(function*() {
        const inProcess = Effect.provide(TestCodex.layerProcess(), { local: true })
        const { id } = yield* Effect.gen(function*() {
          const thread = yield* TestCodex.startThread
          yield* runForUsage(thread, ModelServer.text("one", usage(1000, 100)))
          return thread
        }).pipe(inProcess)
        yield* Effect.gen(function*() {
          const { resumeThread } = yield* Codex.Codex
          const thread = yield* resumeThread(id)
          assertNothing(yield* interruptForUsage(thread))
          const resumed = yield* runForUsage(thread, ModelServer.text("two", usage(7, 3)))
          assert.deepStrictEqual(resumed?.turn, tokens(7, 3))
          assert.deepStrictEqual(resumed?.thread, tokens(1007, 103))
          yield* thread.close
          const again = yield* runForUsage(yield* resumeThread(id), ModelServer.text("three", usage(1, 1)))
          assert.deepStrictEqual(again?.turn, tokens(1, 1))
          assert.deepStrictEqual(again?.thread, tokens(1008, 104))
        }).pipe(inProcess)
        yield* Effect.gen(function*() {
          const { forkThread } = yield* Codex.Codex
          const fork = yield* forkThread(id)
          // The server does not report the totals at the start of the fork.
          assertNothing(yield* interruptForUsage(fork))
          assert.deepStrictEqual((yield* runForUsage(fork, ModelServer.text("f", usage(2, 2))))?.turn, tokens(2, 2))
        }).pipe(inProcess)
      }))
  }
)

layer(TestCodex.layer({ restart: TestCodex.quickRestart }), { excludeTestServices: true })(
  "Usage of a turn after a restart",
  (it) => {
    it.effect("does not count the tokens used before the restart", () =>
      Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        yield* runForUsage(thread, ModelServer.text("one", usage(1000, 100)))
        yield* TestCodex.restartServer
        const after = yield* runForUsage(thread, ModelServer.text("two", usage(7, 3)))
        assert.deepStrictEqual(after?.turn, tokens(7, 3))
        assert.deepStrictEqual(after?.thread, tokens(1007, 103))
      }))
  }
)

// ---------------------------------------------------------------------------------------------------------------------
// Any sequence of events of a thread
// ---------------------------------------------------------------------------------------------------------------------

const count = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 }))

const Breakdown = Schema.Struct({ input: count, cached: count, written: count, output: count, reasoning: count })

const Step = Schema.Union([
  Schema.Struct({ type: Schema.Literal("request"), tokens: Breakdown, isCutFirst: Schema.Boolean }),
  Schema.Struct({ type: Schema.Literals(["retry", "estimate", "full"]) })
])

const Events = Schema.Struct({
  before: Schema.Array(Breakdown).check(Schema.isMaxLength(2)),
  opening: Schema.Literals(["start", "resume", "fork"]),
  turns: Schema.Array(Schema.Struct({
    steps: Schema.Array(Step).check(Schema.isMaxLength(4)),
    isRevertedBefore: Schema.Boolean,
    end: Schema.Literals(["completed", "failed", "interrupted"])
  })).check(Schema.isMaxLength(4))
})

/** The tokens of a completed model request: at least one of input and one of output. */
const toTokens = ({ cached, input, output, reasoning, written }: typeof Breakdown.Type): Usage.Tokens => ({
  inputTokens: 1 + input + cached + written,
  cachedInputTokens: cached,
  cacheWriteInputTokens: written,
  outputTokens: 1 + output + reasoning,
  reasoningOutputTokens: reasoning,
  totalTokens: 2 + input + cached + written + output + reasoning
})

describe("Usage of a turn", () => {
  it.effect.prop(
    "sums the model requests in any sequence of events of a thread",
    { events: Events },
    ({ events: { before, opening, turns } }) =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const codex = yield* Codex.Codex
        const id = "t"
        const history = opening === "start" ? [] : before.map(toTokens)
        let total = sum(history)
        let last = history.at(-1)
        let turnId = "old"
        let items = 0
        const report = () =>
          last === undefined ? [] : [{
            method: "thread/tokenUsage/updated",
            params: { threadId: id, turnId, tokenUsage: { total, last, modelContextWindow: 1000 } }
          }]
        const output = () => Fake.messageCompleted(id, turnId, `item-${items++}`, "a message")
        const willRetry = () => ({
          method: "error",
          params: { threadId: id, turnId, willRetry: true, error: { message: "Reconnecting... 1/5" } }
        })

        const opened = yield* Effect.forkChild(
          opening === "start"
            ? codex.startThread()
            : opening === "resume"
            ? codex.resumeThread(id)
            : codex.forkThread("original")
        )
        const request = yield* fake.takeMethod(`thread/${opening}`)
        if (opening === "resume") yield* fake.emit(...report())
        yield* fake.reply(request, Fake.threadResponse(id))
        const thread = yield* Fiber.join(opened)

        let isFull = false
        for (const [index, turn] of turns.entries()) {
          if (turn.isRevertedBefore && index > 0) {
            // The totals are again those of the history with which the thread was opened.
            total = sum(history)
            last = history.at(-1)
            isFull = false
            yield* fake.emit({ method: "thread/reverted", params: { threadId: id } })
          }
          turnId = `turn-${index}`
          const result = yield* Effect.forkChild(Effect.matchEffect(thread.run("go"), {
            onSuccess: ({ usage }) => Effect.succeed(usage),
            onFailure: (error) => error._tag === "TurnFailed" ? Effect.succeed(error.usage) : Effect.die(error)
          }))
          yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(turnId) })
          yield* fake.emit(Fake.turnStarted(id, turnId))
          const used: Array<Usage.Tokens> = []
          let reports = 0
          const emit = (...messages: ReadonlyArray<Fake.Message>) => {
            reports += messages.filter((message) => message.method?.includes("tokenUsage")).length
            return fake.emit(...messages)
          }
          for (const step of turn.steps) {
            switch (step.type) {
              case "request": {
                if (step.isCutFirst) yield* emit(output(), ...report(), willRetry())
                last = toTokens(step.tokens)
                total = Usage.add(total, last)
                used.push(last)
                yield* emit(output(), ...report())
                break
              }
              case "retry":
                yield* emit(Fake.delta(id, turnId, `item-${items++}`, "a p"), ...report(), willRetry())
                break
              case "estimate":
                if (last === undefined) break
                yield* emit(...report())
                last = { ...Usage.zero, totalTokens: 17 }
                yield* emit(...report())
                break
              case "full":
                total = { ...Usage.zero, totalTokens: 1000 }
                last = { ...Usage.zero, totalTokens: 900 }
                isFull = true
                yield* emit(...report())
            }
          }
          if (turn.end === "interrupted") yield* emit(...report())
          yield* fake.emit(Fake.turnCompleted(id, turnId, turn.end))
          const usage = yield* Fiber.join(result)
          assert.deepStrictEqual(usage?.turn, reports === 0 ? undefined : sum(used))
          if (usage === undefined) continue
          if (!isFull) assert.deepStrictEqual(usage.thread, total)
          if (used.length > 0) assert.deepStrictEqual(usage.lastRequest, used.at(-1))
          assert.strictEqual(usage.contextWindow, 1000)
        }
      }).pipe(Effect.provide(layerFake())),
    { arbitrary: { runs: Number(process.env["FAULT_RUNS"] ?? 100) } }
  )
})
