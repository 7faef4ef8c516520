/** Approvals and questions as context: which handlers respond, and which do not. */
import { assert, describe, it } from "@effect/vitest"
import { Approvals, AppServer, Codex, Questions } from "effect-codex"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Fake from "./FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

const method = "item/commandExecution/requestApproval"

const request = (id: number, params: object = {}) => ({
  method,
  id,
  params: { threadId: "t", turnId: "u", itemId: "i", command: "ls", startedAtMs: 0, ...params }
})

const openThread = Effect.fnUntraced(function*(id: string, options: Codex.StartOptions = {}) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const thread = yield* Effect.forkChild(codex.startThread(options))
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(id))
  return yield* Fiber.join(thread)
})

/** Starts a turn that runs until the scope closes. */
const startTurn = Effect.fnUntraced(function*(
  thread: Effect.Success<ReturnType<typeof openThread>>,
  id: string,
  options: Parameters<typeof thread.turn>[1] = {}
) {
  const fake = yield* Fake.FakeTransport
  const turn = yield* Effect.forkChild(thread.turn("go", options))
  yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(id) })
  yield* fake.emit(Fake.turnStarted(thread.id, id))
  return yield* Fiber.join(turn)
})

const endTurn = (threadId: string, id: string) =>
  Effect.flatMap(Fake.FakeTransport, (fake) => fake.emit(Fake.turnCompleted(threadId, id)))

/** Approvals that record their name and make no decision, except the ones that `decides` names. */
const recorder = (decides: string) => {
  const names: Array<string> = []
  const policy = (name: string): Approvals.Policy => () =>
    Effect.sync(() => {
      names.push(name)
      return name === decides ? Option.some(Approvals.accept) : Option.none()
    })
  return { names, policy, layer: (name: string) => Approvals.layer(policy(name)) }
}

const precedence = ["turn option", "thread option", "turn context", "thread context", "layer context"]

describe("Approvals.layer", () => {
  for (const [index, decides] of [...precedence, "no handler"].entries()) {
    it.effect(`comes after ${decides === "turn option" ? "nothing" : precedence.slice(0, index).join(", ")}`, () =>
      Effect.suspend(() => {
        const { layer: approvals, names, policy } = recorder(decides)
        return Effect.gen(function*() {
          const fake = yield* Fake.FakeTransport
          const thread = yield* Effect.provide(
            openThread("t", { approvals: policy("thread option") }),
            approvals("thread context")
          )
          yield* Effect.provide(
            startTurn(thread, "u", { approvals: policy("turn option") }),
            approvals("turn context")
          )
          yield* fake.emit(request(1))
          const decision = decides === "no handler" ? "decline" : "accept"
          assert.deepStrictEqual(yield* fake.take, { id: 1, result: { decision } })
          assert.deepStrictEqual(names, precedence.slice(0, index + 1))
          yield* endTurn("t", "u")
        }).pipe(Effect.scoped, Effect.provide(layer.pipe(Layer.provide(approvals("layer context")))))
      }))
  }

  it.effect("decides for the program that it is provided to, on one Codex", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const open = (id: string, decision: "accept" | "decline") =>
        Effect.provide(openThread(id), Approvals.layer({ command: () => Effect.succeed(decision) }))
      yield* open("generous", Approvals.accept)
      yield* open("strict", Approvals.decline)
      yield* openThread("without")
      yield* fake.emit(
        request(1, { threadId: "generous" }),
        request(2, { threadId: "strict" }),
        request(3, { threadId: "without" })
      )
      const responses = [yield* fake.take, yield* fake.take, yield* fake.take]
      const decision = (id: number) => responses.find((response) => response.id === id)?.result
      assert.deepStrictEqual(decision(1), { decision: "accept" })
      assert.deepStrictEqual(decision(2), { decision: "decline" })
      assert.deepStrictEqual(decision(3), { decision: "decline" })
    }).pipe(Effect.provide(layer)))

  it.effect("is replaced by a nested layer, for the turns that are started in it", () =>
    Effect.suspend(() => {
      const { layer: approvals, names } = recorder("inner")
      return Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const thread = yield* openThread("t")
        yield* Effect.scoped(Effect.gen(function*() {
          yield* startTurn(thread, "u")
          yield* fake.emit(request(1))
          assert.deepStrictEqual(yield* fake.take, { id: 1, result: { decision: "accept" } })
          yield* endTurn("t", "u")
        })).pipe(Effect.provide(approvals("inner")))
        yield* Effect.scoped(Effect.gen(function*() {
          yield* startTurn(thread, "v")
          yield* fake.emit(request(2, { turnId: "v" }))
          assert.deepStrictEqual(yield* fake.take, { id: 2, result: { decision: "decline" } })
          yield* endTurn("t", "v")
        }))
        assert.deepStrictEqual(names, ["inner", "outer"])
      }).pipe(Effect.provide(approvals("outer")), Effect.provide(layer))
    }))

  it.effect("is asked once where a turn and its thread were started in the same context", () =>
    Effect.suspend(() => {
      const { layer: approvals, names } = recorder("no handler")
      return Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const thread = yield* openThread("t")
        yield* startTurn(thread, "u")
        yield* fake.emit(request(1))
        yield* fake.take
        assert.deepStrictEqual(names, ["program"])
        yield* endTurn("t", "u")
      }).pipe(Effect.scoped, Effect.provide(approvals("program")), Effect.provide(layer))
    }))

  it.effect("decides for the sub-agents of a turn, and declines for them when the turn has ended", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      yield* startTurn(thread, "u").pipe(
        Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.accept)))
      )
      yield* fake.emit({
        method: "turn/started",
        params: { threadId: "sub", turn: { ...Fake.turn("s"), rootTurnId: "u" } }
      })
      const ask = Effect.fnUntraced(function*(id: number) {
        yield* fake.emit(request(id, { threadId: "sub", turnId: "s" }))
        yield* fake.reply(yield* fake.takeMethod("thread/read"), { thread: { id: "sub", parentThreadId: "t" } })
        return (yield* fake.take).result
      })
      assert.deepStrictEqual(yield* ask(1), { decision: "accept" })
      yield* endTurn("t", "u")
      assert.deepStrictEqual(yield* ask(2), { decision: "decline" })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("leaves the thread option in force when its turn was released, or has ended", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t", { approvals: { command: () => Effect.succeed(Approvals.accept) } })
      const scope = yield* Scope.make()
      yield* startTurn(thread, "u").pipe(
        Scope.provide(scope),
        Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.decline)))
      )
      const joined = yield* Effect.forkChild(thread.run("also"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* Scope.close(scope, Exit.void)
      yield* fake.emit(request(1))
      assert.deepStrictEqual(yield* fake.take, { id: 1, result: { decision: "accept" } })
      yield* endTurn("t", "u")
      yield* Fiber.join(joined)
      yield* fake.emit(request(2, { threadId: "sub", turnId: "s" }))
      yield* fake.reply(yield* fake.takeMethod("thread/read"), { thread: { id: "sub", parentThreadId: "t" } })
      assert.deepStrictEqual(yield* fake.take, { id: 2, result: { decision: "accept" } })
    }).pipe(Effect.provide(layer)))

  it.effect("does not decide for a turn that joins the turn of another program", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      yield* startTurn(thread, "u").pipe(
        Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.decline)))
      )
      const joined = yield* Effect.forkChild(
        Effect.provide(thread.run("also"), Approvals.layer(() => Effect.succeedSome(Approvals.accept)))
      )
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("u") })
      yield* Effect.yieldNow
      yield* fake.emit(request(1))
      assert.deepStrictEqual(yield* fake.take, { id: 1, result: { decision: "decline" } })
      yield* endTurn("t", "u")
      yield* Fiber.join(joined)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("declines when its handler fails, and does not ask a broader one", () =>
    Effect.suspend(() => {
      const { layer: approvals, names } = recorder("layer context")
      return Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        yield* Effect.provide(openThread("t"), Approvals.layer(() => Effect.fail("no idea")))
        yield* fake.emit(request(1))
        assert.deepStrictEqual(yield* fake.take, { id: 1, result: { decision: "decline" } })
        assert.deepStrictEqual(names, [])
      }).pipe(Effect.provide(layer.pipe(Layer.provide(approvals("layer context")))))
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
      yield* fake.emit(elicitation(1, "b"))
      assert.deepInclude((yield* fake.take).result, { action: "accept", content: { name: "Bob" } })
    }).pipe(Effect.provide(layer)))

  it.effect("responds while its thread is being started, if no other thread is", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const first = yield* Effect.forkChild(Effect.provide(codex.startThread(), naming("Ada")))
      const start = yield* fake.takeMethod("thread/start")
      yield* fake.emit(elicitation(1, "t"))
      assert.deepInclude((yield* fake.take).result, { content: { name: "Ada" } })
      const second = yield* Effect.forkChild(Effect.provide(codex.startThread(), naming("Bob")))
      const other = yield* fake.takeMethod("thread/start")
      yield* fake.emit(elicitation(2, "t"))
      assert.deepInclude((yield* fake.take).result, { action: "decline" })
      yield* fake.reply(start, Fake.threadResponse("t"))
      yield* fake.reply(other, Fake.threadResponse("s"))
      yield* Fiber.join(first)
      yield* Fiber.join(second)
    }).pipe(Effect.provide(layer.pipe(Layer.provide(naming("Layer"))))))

  it.effect("interrupts its handler when the turn ends", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const started = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      yield* openThread("t").pipe(Effect.provide(Questions.layer({
        userInput: () =>
          Effect.andThen(Deferred.succeed(started, undefined), Effect.never).pipe(
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
      })))
      yield* fake.emit({
        method: "item/tool/requestUserInput",
        id: 1,
        params: { threadId: "t", turnId: "u", itemId: "i", questions: [], isBlocking: true }
      })
      yield* Deferred.await(started)
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      yield* Deferred.await(interrupted)
    }).pipe(Effect.provide(layer)))
})
