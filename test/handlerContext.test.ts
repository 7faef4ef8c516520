/** Approvals and questions as context: which handlers respond, and which do not. */
import { assert, describe, it } from "@effect/vitest"
import { Approvals, Codex, Questions, type Thread } from "effect-codex"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Fake from "./FakeTransport.ts"
import {
  commandRequest,
  decideCommands,
  emit,
  layer,
  openThread,
  receive,
  receiveDecision,
  requestApproval,
  respond,
  startTurn
} from "./scenario.ts"

/** Starts a turn that runs until the scope closes. */
const openTurn = Effect.fnUntraced(function*(thread: Thread.Thread, turnId: string, options?: Thread.TurnOptions) {
  yield* Fiber.join(yield* startTurn(thread.turn("go", options), turnId))
  yield* emit(Fake.turnStarted(thread.id, turnId))
})

/** Approvals that record their name. Those with the name `decides` accept, the others make no decision. */
const recorder = (decides: string) => {
  const names: Array<string> = []
  const policy = (name: string): Approvals.Policy => () =>
    Effect.sync(() => {
      names.push(name)
      return name === decides ? Option.some(Approvals.accept) : Option.none()
    })
  return { names, policy, layer: (name: string) => Approvals.layer(policy(name)) }
}

const acceptAll = Approvals.layer(decideCommands(Approvals.accept))

const precedence = ["turn option", "thread option", "turn context", "thread context", "layer context"]

describe("Approvals.layer", () => {
  for (const [index, decides] of [...precedence, "no handler"].entries()) {
    const title = decides === "no handler"
      ? "declines when no handler decides"
      : `runs no broader handler when the ${decides} decides`
    it.effect(title, () =>
      Effect.suspend(() => {
        const { layer: approvals, names, policy } = recorder(decides)
        return Effect.gen(function*() {
          const thread = yield* Effect.provide(
            openThread("t", { approvals: policy("thread option") }),
            approvals("thread context")
          )
          yield* Effect.provide(
            openTurn(thread, "u", { approvals: policy("turn option") }),
            approvals("turn context")
          )
          assert.strictEqual(yield* requestApproval(1), decides === "no handler" ? "decline" : "accept")
          assert.deepStrictEqual(names, precedence.slice(0, index + 1))
          yield* emit(Fake.turnCompleted("t", "u"))
        }).pipe(Effect.scoped, Effect.provide(layer().pipe(Layer.provide(approvals("layer context")))))
      }))
  }

  it.effect("decides for the program that it is provided to", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const open = (id: string, decision: "accept" | "decline") =>
        Effect.provide(openThread(id), Approvals.layer(decideCommands(decision)))
      yield* open("generous", Approvals.accept)
      yield* open("strict", Approvals.decline)
      yield* openThread("without")
      yield* emit(
        commandRequest(1, { threadId: "generous" }),
        commandRequest(2, { threadId: "strict" }),
        commandRequest(3, { threadId: "without" })
      )
      const responses = [yield* fake.take, yield* fake.take, yield* fake.take]
      const decision = (id: number) => responses.find((response) => response.id === id)?.result
      assert.deepStrictEqual(decision(1), { decision: "accept" })
      assert.deepStrictEqual(decision(2), { decision: "decline" })
      assert.deepStrictEqual(decision(3), { decision: "decline" })
    }).pipe(Effect.provide(layer())))

  it.effect("is replaced by a nested layer for the turns that start in it", () =>
    Effect.suspend(() => {
      const { layer: approvals, names } = recorder("inner")
      return Effect.gen(function*() {
        const thread = yield* openThread("t")
        yield* Effect.scoped(Effect.gen(function*() {
          yield* openTurn(thread, "u")
          assert.strictEqual(yield* requestApproval(1), "accept")
          yield* emit(Fake.turnCompleted("t", "u"))
        })).pipe(Effect.provide(approvals("inner")))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* openTurn(thread, "v")
          assert.strictEqual(yield* requestApproval(2, { turnId: "v" }), "decline")
          yield* emit(Fake.turnCompleted("t", "v"))
        }))
        assert.deepStrictEqual(names, ["inner", "outer"])
      }).pipe(Effect.provide(approvals("outer")), Effect.provide(layer()))
    }))

  it.effect("runs its handler once when a turn and its thread have the same context", () =>
    Effect.suspend(() => {
      const { layer: approvals, names } = recorder("no handler")
      return Effect.gen(function*() {
        const thread = yield* openThread("t")
        yield* openTurn(thread, "u")
        yield* requestApproval(1)
        assert.deepStrictEqual(names, ["program"])
        yield* emit(Fake.turnCompleted("t", "u"))
      }).pipe(Effect.scoped, Effect.provide(approvals("program")), Effect.provide(layer()))
    }))

  it.effect("decides for the sub-agents of a turn until the turn ends", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* openTurn(thread, "u").pipe(
        Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.accept)))
      )
      yield* emit(Fake.subAgentStarted("sub", "s", "u"))
      const requestFromSubAgent = Effect.fnUntraced(function*(id: number) {
        yield* emit(commandRequest(id, { threadId: "sub", turnId: "s" }))
        yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
        return yield* receiveDecision(id)
      })
      assert.strictEqual(yield* requestFromSubAgent(1), "accept")
      yield* emit(Fake.turnCompleted("t", "u"))
      assert.strictEqual(yield* requestFromSubAgent(2), "decline")
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("leaves the thread option in force when its turn was released, or has ended", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t", { approvals: decideCommands(Approvals.accept) })
      const scope = yield* Scope.make()
      yield* openTurn(thread, "u").pipe(
        Scope.provide(scope),
        Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.decline)))
      )
      const joined = yield* startTurn(thread.run("also"), "u")
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* requestApproval(1), "accept")
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(joined)
      yield* emit(commandRequest(2, { threadId: "sub", turnId: "s" }))
      yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
      assert.strictEqual(yield* receiveDecision(2), "accept")
    }).pipe(Effect.provide(layer())))

  it.effect("does not decide for a turn that joins the turn of another program", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      yield* openTurn(thread, "u").pipe(
        Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.decline)))
      )
      const joined = yield* startTurn(
        Effect.provide(thread.run("also"), Approvals.layer(() => Effect.succeedSome(Approvals.accept))),
        "u"
      )
      assert.strictEqual(yield* requestApproval(1), "decline")
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(joined)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("decides for the turns of its handle after another program has resumed the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const strict = Approvals.layer(decideCommands(Approvals.decline))
      const thread = yield* Effect.provide(openThread("t"), strict)
      yield* Effect.provide(openTurn(thread, "u"), strict)
      const resumed = yield* Effect.forkChild(
        Effect.provide(codex.resumeThread("t"), Approvals.layer(decideCommands(Approvals.accept)))
      )
      yield* respond("thread/resume", Fake.threadResponse("t"))
      const other = yield* Fiber.join(resumed)
      assert.strictEqual(yield* requestApproval(1), "decline")
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* openTurn(other, "v")
      assert.strictEqual(yield* requestApproval(2, { turnId: "v" }), "accept")
      yield* emit(Fake.turnCompleted("t", "v"))
      // A sub-agent of the first turn may still run.
      yield* emit(commandRequest(3, { threadId: "sub", turnId: "s" }))
      yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
      assert.strictEqual(yield* receiveDecision(3), "decline")
    }).pipe(Effect.scoped, Effect.provide(layer().pipe(Layer.provide(acceptAll)))))

  for (const end of ["closed", "deleted"] as const) {
    it.effect(`does not decide for the sub-agents of a thread that was ${end}`, () =>
      Effect.gen(function*() {
        const thread = yield* openThread("t", { approvals: decideCommands(Approvals.decline) })
        if (end === "deleted") yield* emit({ method: "thread/deleted", params: { threadId: "t" } })
        else {
          const closing = yield* Effect.forkChild(thread.close)
          yield* respond("thread/unsubscribe", { status: "unsubscribed" })
          yield* Fiber.join(closing)
        }
        yield* emit(commandRequest(1, { threadId: "sub", turnId: "s" }))
        yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
        assert.strictEqual(yield* receiveDecision(1), "decline")
        assert.strictEqual(yield* requestApproval(2), "decline")
      }).pipe(Effect.provide(layer().pipe(Layer.provide(acceptAll)))))
  }

  it.effect("comes after the handlers of the parent thread when the thread of a sub-agent is resumed", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      yield* openThread("t", { approvals: decideCommands(Approvals.decline) })
      const resumed = yield* Effect.forkChild(codex.resumeThread("sub"))
      const response = Fake.threadResponse("sub")
      yield* respond("thread/resume", { ...response, thread: { ...response.thread, parentThreadId: "t" } })
      yield* Fiber.join(resumed)
      assert.strictEqual(yield* requestApproval(1, { threadId: "sub", turnId: "s" }), "decline")
    }).pipe(Effect.provide(layer().pipe(Layer.provide(acceptAll)))))

  it.effect("does not wait for a start that has failed", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t", { approvals: decideCommands(Approvals.accept) })
      const failed = yield* Effect.forkChild(
        Effect.exit(thread.turn("go", { approvals: decideCommands(Approvals.decline), deadline: "1 second" }))
      )
      const { id } = yield* receive("turn/start")
      yield* TestClock.adjust("1 second")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(failed)))
      assert.strictEqual(yield* requestApproval(1, { turnId: "other" }), "decline")
      yield* emit({ id, result: { turn: Fake.turn("late") } })
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("does not wait for a pending start when the turn of the request is known", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t", { approvals: decideCommands(Approvals.accept) })
      yield* openTurn(thread, "u")
      const joining = yield* Effect.forkChild(
        Effect.provide(thread.run("also"), Approvals.layer(decideCommands(Approvals.decline)))
      )
      const { id } = yield* receive("turn/start")
      assert.strictEqual(yield* requestApproval(1), "accept")
      yield* emit({ id, result: { turn: Fake.turn("u") } }, Fake.turnCompleted("t", "u"))
      yield* Fiber.join(joining)
    }).pipe(Effect.scoped, Effect.provide(layer())))

  it.effect("declines when a policy returns no Option", () =>
    Effect.gen(function*() {
      const policy = (() => Effect.succeed({ value: "accept" })) as unknown as Approvals.Policy
      yield* openThread("t", { approvals: policy })
      assert.strictEqual(yield* requestApproval(1), "decline")
    }).pipe(Effect.provide(layer())))

  it.effect("declines when its handler fails, without a broader handler", () =>
    Effect.suspend(() => {
      const { layer: approvals, names } = recorder("layer context")
      return Effect.gen(function*() {
        yield* Effect.provide(openThread("t"), Approvals.layer(() => Effect.fail("no idea")))
        assert.strictEqual(yield* requestApproval(1), "decline")
        assert.deepStrictEqual(names, [])
      }).pipe(Effect.provide(layer().pipe(Layer.provide(approvals("layer context")))))
    }))
})

describe("Questions.layer", () => {
  const elicitation = (id: number, threadId: string) => ({
    method: "mcpServer/elicitation/request",
    id,
    params: {
      threadId,
      turnId: null,
      serverName: "people",
      mode: "form",
      message: "Your name?",
      requestedSchema: { type: "object", properties: { name: { type: "string" } } },
      _meta: null
    }
  })
  const naming = (name: string) => Questions.layer({ elicitation: () => Effect.succeed(Questions.accept({ name })) })

  it.effect("responds for the program that it is provided to", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* Effect.provide(openThread("a"), naming("Ada"))
      yield* Effect.provide(openThread("b"), naming("Bob"))
      yield* emit(elicitation(1, "b"))
      assert.deepInclude((yield* fake.take).result, { action: "accept", content: { name: "Bob" } })
    }).pipe(Effect.provide(layer())))

  it.effect("responds while its thread is being started, unless another thread is too", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const first = yield* Effect.forkChild(Effect.provide(codex.startThread(), naming("Ada")))
      const start = yield* receive("thread/start")
      yield* emit(elicitation(1, "t"))
      assert.deepInclude((yield* fake.take).result, { content: { name: "Ada" } })
      const second = yield* Effect.forkChild(Effect.provide(codex.startThread(), naming("Bob")))
      const other = yield* receive("thread/start")
      yield* emit(elicitation(2, "t"))
      assert.deepInclude((yield* fake.take).result, { action: "decline" })
      yield* respond(start, Fake.threadResponse("t"))
      yield* respond(other, Fake.threadResponse("s"))
      yield* Fiber.join(first)
      yield* Fiber.join(second)
    }).pipe(Effect.provide(layer().pipe(Layer.provide(naming("Layer"))))))

  it.effect("interrupts its handler when the turn ends", () =>
    Effect.gen(function*() {
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      yield* openThread("t").pipe(Effect.provide(Questions.layer({
        userInput: () =>
          Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
      })))
      yield* emit({
        method: "item/tool/requestUserInput",
        id: 1,
        params: { threadId: "t", turnId: "u", itemId: "i", questions: [], isBlocking: true }
      })
      yield* Deferred.await(started)
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Deferred.await(interrupted)
    }).pipe(Effect.provide(layer())))
})
