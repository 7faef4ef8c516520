import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as ApprovalPolicy from "../../../src/ApprovalPolicy.ts"
import * as Approvals from "../../../src/Approvals.ts"
import * as AppServer from "../../../src/AppServer.ts"
import * as Codex from "../../../src/Codex.ts"
import * as Questions from "../../../src/Questions.ts"
import * as Fake from "../../FakeTransport.ts"

const layer = Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provideMerge(Fake.layer))

const openThread = Effect.fnUntraced(function*(id: string, options?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const fake = yield* Fake.FakeTransport
  const thread = yield* Effect.forkChild(codex.startThread(options))
  yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse(id))
  return yield* Fiber.join(thread)
})

const commandRequest = (id: number, more: object = {}) => ({
  method: "item/commandExecution/requestApproval",
  id,
  params: {
    threadId: "t",
    turnId: "u",
    itemId: `item${id}`,
    startedAtMs: 1,
    command: "/bin/bash -c 'touch x'",
    cwd: "/repo",
    ...more
  }
})

const declined = (id: number) => ({ id, result: { decision: "decline" } })

const accepted = (id: number) => ({ id, result: { decision: "accept" } })

/** Handlers that wait until they are told, and tell when they begin and when they are interrupted. */
const waiting = Effect.gen(function*() {
  const began = yield* Deferred.make<void>()
  const interrupted = yield* Deferred.make<void>()
  const go = yield* Deferred.make<void>()
  const approvals: Approvals.Handlers = {
    command: () =>
      Deferred.succeed(began, undefined).pipe(
        Effect.andThen(Deferred.await(go)),
        Effect.as(Approvals.accept),
        Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
      )
  }
  return { approvals, began: Deferred.await(began), interrupted: Deferred.await(interrupted), go }
})

const answersTo = (fake: Fake.FakeTransport["Service"], id: number) =>
  fake.sent.filter((message) => message.method === undefined && message.id === id)

describe("a request for approval", () => {
  it.effect("that is resolved elsewhere interrupts its handler and is not answered", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handler = yield* waiting
      yield* openThread("t", { approvals: handler.approvals })
      yield* fake.emit(commandRequest(0))
      yield* handler.began
      yield* fake.emit({ method: "serverRequest/resolved", params: { threadId: "t", requestId: 0 } })
      yield* handler.interrupted
      yield* openThread("bare")
      yield* fake.emit(commandRequest(1, { threadId: "bare" }))
      assert.deepStrictEqual(yield* fake.take, declined(1))
      assert.deepStrictEqual(answersTo(fake, 0), [])
    }).pipe(Effect.provide(layer)))

  it.effect("whose turn ends interrupts its handler and is declined, once", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handler = yield* waiting
      yield* openThread("t", { approvals: handler.approvals })
      yield* fake.emit(commandRequest(0))
      yield* handler.began
      yield* fake.emit(Fake.turnCompleted("t", "other"))
      yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* handler.interrupted
      assert.deepStrictEqual(yield* fake.take, declined(0))
      yield* Deferred.succeed(handler.go, undefined)
      yield* fake.emit({ method: "serverRequest/resolved", params: { threadId: "t", requestId: 0 } })
      yield* openThread("bare")
      yield* fake.emit(commandRequest(1, { threadId: "bare" }))
      assert.deepStrictEqual(yield* fake.take, declined(1))
      assert.lengthOf(answersTo(fake, 0), 1)
    }).pipe(Effect.provide(layer)))

  it.effect("whose turn ends in the same batch does not keep a handler", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handler = yield* waiting
      yield* openThread("t", { approvals: handler.approvals })
      yield* fake.emit(commandRequest(0), Fake.turnCompleted("t", "u", "interrupted"))
      assert.deepStrictEqual(yield* fake.take, declined(0))
      assert.lengthOf(answersTo(fake, 0), 1)
    }).pipe(Effect.provide(layer)))

  it.effect("whose thread is closed, archived or deleted ends with it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handlers = yield* Effect.forEach(["thread/closed", "thread/archived", "thread/deleted"], (method, id) =>
        Effect.gen(function*() {
          const handler = yield* waiting
          const threadId = `t${id}`
          yield* openThread(threadId, { approvals: handler.approvals })
          yield* fake.emit(commandRequest(id, { threadId }))
          yield* handler.began
          yield* fake.emit({ method, params: { threadId } })
          yield* handler.interrupted
          assert.deepStrictEqual(yield* fake.take, declined(id))
          return method
        }))
      assert.lengthOf(handlers, 3)
    }).pipe(Effect.provide(layer)))

  it.effect("is forgotten when the connection ends; an answer that comes later goes nowhere", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const codex = yield* Codex.Codex
      const record = yield* Effect.forkChild(Stream.runCollect(Stream.take(codex.approvals, 2)))
      yield* Effect.yieldNow
      const handler = yield* waiting
      yield* openThread("t", { approvals: handler.approvals })
      yield* fake.emit(commandRequest(0))
      yield* handler.began
      yield* fake.end()
      yield* handler.interrupted
      yield* Deferred.succeed(handler.go, undefined)
      assert.deepStrictEqual((yield* Fiber.join(record)).map(({ _tag }) => _tag), ["Requested", "Withdrawn"])
      assert.deepStrictEqual(answersTo(fake, 0), [])
    }).pipe(Effect.provide(layer)))

  it.effect("waits for nobody: two at once, another thread's stream and an interrupt go on meanwhile", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const slow = yield* waiting
      const thread = yield* openThread("t", { approvals: slow.approvals })
      yield* openThread("quick", { approvals: { command: () => Effect.succeed(Approvals.accept) } })
      const other = yield* openThread("other")
      const run = yield* Effect.forkChild(other.run("go"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("v") })
      yield* fake.emit(
        commandRequest(0),
        commandRequest(1, { threadId: "quick", turnId: "w" }),
        Fake.messageCompleted("other", "v", "i", "hello"),
        Fake.turnCompleted("other", "v")
      )
      assert.deepStrictEqual(yield* fake.take, accepted(1))
      assert.strictEqual((yield* Fiber.join(run)).finalResponse, "hello")
      const server = yield* AppServer.AppServer
      const interrupt = yield* Effect.forkChild(
        server.request("turn/interrupt", { threadId: thread.id, turnId: "u" })
      )
      yield* fake.reply(yield* fake.takeMethod("turn/interrupt"), {})
      yield* Fiber.join(interrupt)
      assert.deepStrictEqual(answersTo(fake, 0), [])
      yield* Deferred.succeed(slow.go, undefined)
      assert.deepStrictEqual(yield* fake.take, accepted(0))
    }).pipe(Effect.provide(layer)))

  it.effect("of a turn reaches the turn's handlers also before the server has named the turn", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t", { approvals: { command: () => Effect.succeed(Approvals.decline) } })
      const run = yield* Effect.forkChild(
        thread.run("go", { approvals: { command: () => Effect.succeed(Approvals.accept) } })
      )
      const start = yield* fake.takeMethod("turn/start")
      yield* fake.emit(commandRequest(0), commandRequest(1, { turnId: "another" }))
      yield* fake.reply(start, { turn: Fake.turn("u") })
      const answers = [yield* fake.take, yield* fake.take]
      assert.sameDeepMembers(answers, [accepted(0), declined(1)])
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(run)
      yield* fake.emit(commandRequest(2))
      assert.deepStrictEqual(yield* fake.take, declined(2))
    }).pipe(Effect.provide(layer)))

  it.effect("is asked of the thread's handlers when the turn's own never started", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(
        Effect.exit(thread.run("go", { approvals: { command: () => Effect.succeed(Approvals.accept) } }))
      )
      const start = yield* fake.takeMethod("turn/start")
      yield* fake.emit(commandRequest(0))
      yield* fake.emit({ id: start.id, error: { code: -32600, message: "no" } })
      assert.isTrue(Exit.isFailure(yield* Fiber.join(run)))
      assert.deepStrictEqual(yield* fake.take, declined(0))
    }).pipe(Effect.provide(layer)))

  it.effect("of the legacy kinds has the same types and gets the legacy words", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const seen: Array<Approvals.Request> = []
      const answers: Array<unknown> = []
      const ask = Effect.fnUntraced(function*(method: string, params: object) {
        yield* fake.emit({ method, id: answers.length, params: { conversationId: "t", callId: "c", ...params } })
        answers.push((yield* fake.take).result.decision)
      })
      const decisions: Array<Approvals.Decision> = [
        "accept",
        "acceptForSession",
        "decline",
        "cancel",
        Approvals.acceptWithExecpolicyAmendment(["touch"]),
        Approvals.applyNetworkPolicyAmendment({ host: "example.com", action: "deny" })
      ]
      const command = { command: ["/bin/bash", "-lc", "touch 'a b'"], cwd: "/repo", parsedCmd: [] }
      const fileChanges = {
        fileChanges: {
          "/repo/a": { type: "add", content: "x" },
          "/repo/b": { type: "update", unified_diff: "@@", move_path: "/repo/c" }
        }
      }
      for (const decision of decisions) {
        yield* openThread("t", {
          approvals: (request) => {
            seen.push(request)
            return Effect.succeedSome(decision)
          }
        })
        yield* ask("execCommandApproval", command)
      }
      yield* ask("applyPatchApproval", fileChanges)
      assert.deepStrictEqual(answers, [
        "approved",
        "approved_for_session",
        { denied: { rejection: "The user declined." } },
        "abort",
        { approved_execpolicy_amendment: { proposed_execpolicy_amendment: ["touch"] } },
        { network_policy_amendment: { network_policy_amendment: { host: "example.com", action: "deny" } } },
        // A rule about a host is no decision about a file.
        { denied: { rejection: "The user declined." } }
      ])
      assert.deepInclude(seen[0], {
        _tag: "Command",
        threadId: "t",
        turnId: undefined,
        itemId: "c",
        script: "touch 'a b'",
        argv: ["touch", "a b"]
      })
      assert.deepStrictEqual((seen.at(-1) as Approvals.FileChangeRequest).changes, [
        { path: "/repo/a", kind: { type: "add" }, diff: "x" },
        { path: "/repo/b", kind: { type: "update", move_path: "/repo/c" }, diff: "@@" }
      ])
    }).pipe(Effect.provide(layer)))

  it.effect("of a file change has the latest diff, and none when the server has told none", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const seen: Array<unknown> = []
      yield* openThread("t", {
        approvals: {
          fileChange: ({ changes }) => {
            seen.push(changes?.map(({ diff }) => diff))
            return Effect.succeed(Approvals.decline)
          }
        }
      })
      const change = (diff: string) => [{ path: "/repo/a", kind: { type: "add" }, diff }]
      const started = (itemId: string, diff: string) => ({
        method: "item/started",
        params: {
          threadId: "t",
          turnId: "u",
          startedAtMs: 1,
          item: { type: "fileChange", id: itemId, changes: change(diff), status: "inProgress" }
        }
      })
      const ask = Effect.fnUntraced(function*(id: number, itemId: string) {
        yield* fake.emit({
          method: "item/fileChange/requestApproval",
          id,
          params: { threadId: "t", turnId: "u", itemId, startedAtMs: id }
        })
        assert.deepStrictEqual(yield* fake.take, declined(id))
      })
      yield* fake.emit(started("a", "one"))
      yield* ask(0, "a")
      yield* fake.emit({
        method: "item/fileChange/patchUpdated",
        params: { threadId: "t", turnId: "u", itemId: "a", changes: change("two") }
      })
      yield* ask(1, "a")
      yield* ask(2, "unheard of")
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      yield* ask(3, "a")
      assert.deepStrictEqual(seen, [["one"], ["two"], undefined, undefined])
    }).pipe(Effect.provide(layer)))

  it.effect("that nobody decides is declined, and the log says how to handle it and nothing that is private", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push(String(message)))
    return Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* fake.emit(commandRequest(0, { command: "echo secret", reason: "secret" }))
      assert.deepStrictEqual(yield* fake.take, declined(0))
      assert.lengthOf(lines, 1)
      assert.match(lines[0]!, /Declined `item\/commandExecution\/requestApproval` of thread `t`: .*Approvals\.layer/)
      assert.notInclude(lines[0]!, "secret")

      yield* openThread("t", { approvals: { fileChange: () => Effect.succeed(Approvals.accept) } })
      yield* fake.emit(commandRequest(1, { command: "echo secret" }))
      assert.deepStrictEqual(yield* fake.take, declined(1))
      assert.match(
        lines.at(-1)!,
        /of thread `t`: the approvals of the thread made no decision\. .*ApprovalPolicy\.firstOf/
      )
      assert.notInclude(lines.at(-1)!, "secret")
    }).pipe(Effect.provide(layer), Effect.provide(Logger.layer([logger])))
  })

  const acceptAll = Approvals.layer(() => Effect.succeedSome(Approvals.accept))
  const strict = { approvals: { command: () => Effect.succeed(Approvals.decline) } }

  it.effect("is asked of the handlers though the server leaves out what they do not need", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* openThread("t", {
        approvals: {
          command: () => Effect.succeed(Approvals.accept),
          fileChange: () => Effect.succeed(Approvals.accept),
          permissions: () => Effect.succeed(Approvals.accept)
        },
        questions: { userInput: ({ isBlocking }) => Effect.succeed({ q: String(isBlocking) }) }
      })
      const asked = { threadId: "t", turnId: "u", itemId: "i" }
      const legacy = { conversationId: "t", callId: "c" }
      const requests: ReadonlyArray<readonly [method: string, params: object, answer: unknown]> = [
        ["item/commandExecution/requestApproval", { ...asked, command: "ls" }, { decision: "accept" }],
        ["item/fileChange/requestApproval", asked, { decision: "accept" }],
        ["item/permissions/requestApproval", { ...asked, cwd: "/", permissions: {} }, {
          permissions: {},
          scope: "turn"
        }],
        ["execCommandApproval", { ...legacy, command: ["ls"], cwd: "/" }, { decision: "approved" }],
        ["applyPatchApproval", { ...legacy, fileChanges: {} }, { decision: "approved" }],
        ["item/tool/requestUserInput", { ...asked, questions: [{ id: "q", question: "?" }] }, {
          answers: { q: { answers: ["true"] } }
        }]
      ]
      for (const [id, [method, params, answer]] of requests.entries()) {
        yield* fake.emit({ method, id, params })
        assert.deepStrictEqual<unknown>(yield* fake.take, { id, result: answer })
      }
    }).pipe(Effect.provide(layer)))

  it.effect("of a sub-agent is declined when it cannot be told for whom it works", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* openThread("t", strict)
      yield* fake.emit(commandRequest(0, { threadId: "sub" }))
      const { id } = yield* fake.takeMethod("thread/read")
      yield* fake.emit({ id, error: { code: -32600, message: "no" } })
      assert.deepStrictEqual(yield* fake.take, declined(0))
      yield* fake.emit(commandRequest(1, { threadId: "sub" }))
      yield* fake.reply(yield* fake.takeMethod("thread/read"), { thread: { id: "sub", parentThreadId: "t" } })
      assert.deepStrictEqual(yield* fake.take, declined(1))
      yield* fake.emit(commandRequest(2, { threadId: "other" }))
      yield* fake.reply(yield* fake.takeMethod("thread/read"), { thread: { id: "other", parentThreadId: null } })
      assert.deepStrictEqual(yield* fake.take, accepted(2))
    }).pipe(Effect.provide(layer.pipe(Layer.provide(acceptAll)))))

  it.effect("of a turn that the program has let go of is declined, and not asked of those that are wider", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      // Started too late.
      const late = yield* Effect.forkChild(Effect.exit(thread.run("go", strict)))
      const start = yield* fake.takeMethod("turn/start")
      yield* TestClock.adjust("60 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(late)))
      yield* fake.emit(commandRequest(0))
      yield* fake.reply(start, { turn: Fake.turn("u") })
      const messages = [yield* fake.take, yield* fake.take]
      assert.deepInclude(messages, declined(0))
      yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
      // Interrupted, but not ended.
      const run = yield* Effect.forkChild(thread.run("go", strict))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("v") })
      yield* fake.emit(Fake.turnStarted("t", "v"))
      yield* Effect.yieldNow
      const interrupt = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* fake.takeMethod("turn/interrupt")
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(interrupt)
      yield* fake.emit(commandRequest(1, { turnId: "v" }))
      assert.deepStrictEqual(yield* fake.take, declined(1))
      // Ended: its handlers are gone.
      yield* fake.emit(Fake.turnCompleted("t", "v", "interrupted"))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

  it.effect("does not wait for a turn that was interrupted before it was sent", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      for (const startImmediately of [false, true]) {
        const run = yield* Effect.forkChild(thread.run("go", strict), { startImmediately })
        yield* Fiber.interrupt(run)
      }
      assert.isFalse(fake.sent.some(({ method }) => method === "turn/start"))
      yield* fake.emit(commandRequest(0))
      assert.deepStrictEqual(yield* fake.take, accepted(0))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

  it.effect("is declined, and waits for nobody, when the answer that would name its turn is lost", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(Effect.exit(thread.run("go", strict)))
      yield* fake.takeMethod("turn/start")
      // One waits already, the other comes after the program has given up.
      yield* fake.emit(commandRequest(0))
      yield* TestClock.adjust("60 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(run)))
      assert.deepStrictEqual(yield* fake.take, declined(0))
      yield* fake.emit(commandRequest(1))
      assert.deepStrictEqual(yield* fake.take, declined(1))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

  it.effect("is declined when the answer that would name its turn cannot be read", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(Effect.exit(thread.run("go", strict)))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: {} })
      assert.isTrue(Exit.isFailure(yield* Fiber.join(run)))
      yield* fake.emit(commandRequest(0))
      assert.deepStrictEqual(yield* fake.take, declined(0))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

  it.effect("of a sub-agent is asked of the turn that it works for, and of nobody if it does not say which", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const turn = Effect.fnUntraced(function*(id: string, decision: Approvals.CommandDecision) {
        const run = yield* Effect.forkChild(
          thread.run("go", { approvals: { command: () => Effect.succeed(decision) } })
        )
        yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn(id) })
        return run
      })
      const asks = Effect.fnUntraced(function*(id: number, turnId: string) {
        yield* fake.emit(commandRequest(id, { threadId: "sub", turnId }))
        yield* fake.reply(yield* fake.takeMethod("thread/read"), { thread: { id: "sub", parentThreadId: "t" } })
        return yield* fake.take
      })
      const first = yield* turn("u", "acceptForSession")
      const start = (turnId: string, rootTurnId: string | null) => ({
        method: "turn/started",
        params: { threadId: "sub", turn: { ...Fake.turn(turnId), rootTurnId } }
      })
      yield* fake.emit(start("sub1", "u"), start("sub2", null))
      assert.deepStrictEqual(yield* asks(0, "sub1"), { id: 0, result: { decision: "acceptForSession" } })
      assert.deepStrictEqual(yield* asks(1, "sub2"), declined(1))
      yield* fake.emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(first)
      assert.deepStrictEqual(yield* asks(2, "sub1"), declined(2))
      const second = yield* turn("v", "accept")
      yield* fake.emit(start("sub3", "v"))
      assert.deepStrictEqual(yield* asks(3, "sub1"), declined(3))
      assert.deepStrictEqual(yield* asks(4, "sub3"), accepted(4))
      yield* fake.emit(Fake.turnCompleted("t", "v"))
      yield* Fiber.join(second)
      // A turn without handlers of its own leaves it to those of the thread and the program, while it runs.
      const third = yield* Effect.forkChild(thread.run("go"))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: Fake.turn("w") })
      yield* fake.emit(start("sub4", "w"))
      assert.deepStrictEqual(yield* asks(5, "sub4"), accepted(5))
      yield* fake.emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(third)
      assert.deepStrictEqual(yield* asks(6, "sub4"), declined(6))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

  describe("of an MCP tool", () => {
    const forms: Array<unknown> = []
    const asked: Array<Approvals.McpToolCallRequest> = []
    const open = Effect.gen(function*() {
      forms.length = 0
      asked.length = 0
      yield* openThread("t", {
        approvals: {
          mcpToolCall: (request) => Effect.sync(() => (asked.push(request), Approvals.accept))
        },
        questions: { elicitation: (request) => Effect.sync(() => (forms.push(request), Questions.accept({}))) }
      })
    })
    const request = (id: number, more: object = {}) =>
      Effect.flatMap(Fake.FakeTransport, (fake) =>
        fake.emit({
          method: "mcpServer/elicitation/request",
          id,
          params: {
            threadId: "t",
            turnId: "u",
            serverName: "people",
            mode: "form",
            message: "Allow the people MCP server to run tool \"erase\"?",
            _meta: { codex_approval_kind: "mcp_tool_call", tool_name: "erase", tool_params: { what: "it" } },
            requestedSchema: { type: "object", properties: {} },
            ...more
          }
        }))
    /** Up to 0.166 the request does not name the tool. */
    const nameless = (what: string) => ({
      _meta: { codex_approval_kind: "mcp_tool_call", tool_params: { what } }
    })
    const action = Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const taken = yield* Effect.forkChild(fake.take, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      return (yield* Fiber.join(taken)).result.action
    })
    const ask = (id: number, more?: object) => Effect.andThen(request(id, more), action)
    const call = (method: "item/started" | "item/completed", id = "i", tool = "erase", what = "it") =>
      Effect.flatMap(Fake.FakeTransport, (fake) => {
        const item = { type: "mcpToolCall", id, server: "people", tool, status: "inProgress", arguments: { what } }
        const time = method === "item/started" ? { startedAtMs: 1 } : { completedAtMs: 2 }
        return fake.emit({ method, params: { threadId: "t", turnId: "u", item, ...time } })
      })

    it.effect("is one only while the turn makes the call", () =>
      Effect.gen(function*() {
        yield* open
        assert.strictEqual(yield* ask(0), "decline")
        yield* call("item/started")
        assert.strictEqual(yield* ask(1), "accept")
        const another = { codex_approval_kind: "mcp_tool_call", tool_name: "another" }
        assert.strictEqual(yield* ask(2, { _meta: another }), "decline")
        assert.strictEqual(yield* ask(3, { serverName: "another" }), "decline")
        assert.strictEqual(yield* ask(4, { turnId: null }), "decline")
        yield* call("item/completed")
        assert.strictEqual(yield* ask(5), "decline")
        assert.deepStrictEqual(forms, [])
      }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

    it.effect("may be asked for before the call is started, but not long before", () =>
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        yield* open
        yield* request(0)
        yield* TestClock.adjust("900 millis")
        yield* call("item/started", "other", "harmless")
        yield* call("item/started")
        assert.strictEqual((yield* fake.take).result.action, "accept")
        yield* call("item/completed")
        yield* request(1)
        yield* TestClock.adjust("1 second")
        yield* call("item/started")
        assert.strictEqual((yield* fake.take).result.action, "decline")
        // One that is withdrawn while it waits is asked of no handler.
        yield* call("item/completed")
        yield* request(2)
        yield* TestClock.adjust("1 millis")
        yield* fake.emit({ method: "serverRequest/resolved", params: { threadId: "t", requestId: 2 } })
        yield* TestClock.adjust("1 millis")
        yield* call("item/started")
        assert.strictEqual(yield* ask(3), "accept")
        assert.lengthOf(asked, 2)
        assert.deepStrictEqual(forms, [])
      }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

    it.effect("need not name the tool, if its message and arguments are those of the call", () =>
      Effect.gen(function*() {
        yield* open
        yield* call("item/started", "a", "harmless", "it")
        assert.strictEqual(yield* ask(0, nameless("it")), "decline")
        yield* call("item/started", "b", "erase", "it")
        assert.strictEqual(yield* ask(1, nameless("it")), "accept")
        assert.deepInclude(asked.at(-1), { tool: "erase", arguments: { what: "it" } })
        assert.strictEqual(yield* ask(2, nameless("all")), "decline")
        assert.strictEqual(yield* ask(3, { ...nameless("it"), message: "Allow it?" }), "decline")
        assert.strictEqual(yield* ask(4, { _meta: { codex_approval_kind: "mcp_tool_call" } }), "decline")
        assert.deepStrictEqual(forms, [])
      }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))
  })

  it.effect("has one outcome in the audit, whatever its handler returns, throws or decides", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const entries: Array<Approvals.AuditEntry> = []
      yield* Effect.forkChild(
        Stream.runForEach(Approvals.audit, (entry) => Effect.sync(() => entries.push(entry))),
        { startImmediately: true }
      )
      // What plain JavaScript may give.
      const handlers: ReadonlyArray<() => unknown> = [
        () => Promise.resolve("accept"),
        () => "accept",
        () => undefined,
        () => {
          throw new Error("broken")
        },
        () => Effect.succeed("perhaps"),
        () => Effect.succeed(undefined),
        () => Effect.fail("not today"),
        () => Effect.die("broken"),
        () => Effect.interrupt
      ]
      for (const [id, command] of handlers.entries()) {
        const threadId = `typed ${id}`
        yield* openThread(threadId, { approvals: { command } as Approvals.Handlers })
        yield* fake.emit(commandRequest(id, { threadId }))
        assert.deepStrictEqual(yield* fake.take, declined(id))
        const policyThread = `policy ${id}`
        yield* openThread(policyThread, { approvals: command as Approvals.Policy })
        yield* fake.emit(commandRequest(100 + id, { threadId: policyThread }))
        assert.deepStrictEqual(yield* fake.take, declined(100 + id))
      }
      const withdrawn = yield* waiting
      yield* openThread("withdrawn", { approvals: withdrawn.approvals })
      yield* fake.emit(commandRequest(200, { threadId: "withdrawn" }))
      yield* withdrawn.began
      yield* fake.emit({ method: "serverRequest/resolved", params: { threadId: "withdrawn", requestId: 200 } })
      yield* withdrawn.interrupted
      yield* openThread("bare")
      yield* fake.emit(commandRequest(201, { threadId: "bare" }))
      yield* fake.take

      const threads = new Set(entries.map(({ request }) => request.threadId))
      assert.strictEqual(threads.size, 2 * handlers.length + 2)
      for (const threadId of threads) {
        const tags = entries.filter(({ request }) => request.threadId === threadId).map(({ _tag }) => _tag)
        assert.deepStrictEqual(tags, ["Requested", threadId === "withdrawn" ? "Withdrawn" : "Decided"], threadId)
      }
    }).pipe(Effect.provide(layer)))

  it.effect("is asked of the handlers of its thread, whichever Codex on the server has opened it", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const asked: Array<string> = []
      const open = (approvals: Approvals.Handlers) => openThread("t", { approvals })
      const nosy = Approvals.layer((request) => Effect.sync(() => (asked.push(request._tag), Option.none())))
      const another = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, Codex.layer)
      yield* open(strict.approvals)
      yield* another(
        Effect.gen(function*() {
          yield* fake.emit(commandRequest(0))
          assert.deepStrictEqual(yield* fake.take, declined(0))
        }).pipe(Effect.provide(acceptAll))
      )
      yield* another(open({}))
      yield* another(Effect.provide(
        another(Effect.gen(function*() {
          yield* fake.emit(commandRequest(1))
          assert.deepStrictEqual(yield* fake.take, declined(1))
        })),
        nosy
      ))
      assert.deepStrictEqual(asked, [])
      yield* open({ command: () => Effect.succeed(Approvals.accept) })
      yield* fake.emit(commandRequest(2))
      assert.deepStrictEqual(yield* fake.take, accepted(2))
    }).pipe(Effect.provide(layer)))

  it.effect("of a thread that was closed or archived is still asked of its handlers", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* openThread("t", strict)
      yield* fake.emit({ method: "thread/archived", params: { threadId: "t" } })
      yield* fake.emit({ method: "thread/closed", params: { threadId: "t" } })
      yield* fake.emit(commandRequest(0))
      assert.deepStrictEqual(yield* fake.take, declined(0))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer)))

  it.effect("of the legacy kinds ends with the turn of its thread", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handler = yield* waiting
      yield* openThread("t", { approvals: handler.approvals })
      yield* fake.emit({
        method: "execCommandApproval",
        id: 0,
        params: { conversationId: "t", callId: "c", command: ["ls"], cwd: "/repo", parsedCmd: [] }
      })
      yield* handler.began
      yield* fake.emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* handler.interrupted
      assert.deepStrictEqual((yield* fake.take).result, {
        decision: { denied: { rejection: "The client does not answer approval requests." } }
      })
    }).pipe(Effect.provide(layer)))
})

describe("handlers", () => {
  it("that are misspelt do not compile, and those that need different services do", () => {
    const handler = () => Effect.succeed(Approvals.accept)
    const misspelt = (codex: Codex.Codex["Service"]) => [
      // @ts-expect-error: fileChnage
      codex.startThread({ approvals: { command: handler, fileChnage: handler } }),
      // @ts-expect-error: mcpTolCall
      Approvals.layer({ command: handler, mcpTolCall: handler }),
      // @ts-expect-error: elicitatoin
      codex.startThread({ questions: { userInput: () => Effect.succeed({}), elicitatoin: handler } })
    ]
    class A extends Context.Service<A, "a">()("test/A") {}
    class B extends Context.Service<B, "b">()("test/B") {}
    const both = {
      command: () => Effect.as(A, Approvals.accept),
      fileChange: () => Effect.as(B, Approvals.decline)
    }
    const policy: Approvals.Policy<A | B> = ApprovalPolicy.timeout(both, "1 second")
    const made: Layer.Layer<never, never, A | B> = Approvals.layer(both)
    assert.isFunction(policy)
    assert.isFunction(misspelt)
    assert.isTrue(Layer.isLayer(made))
  })
})
