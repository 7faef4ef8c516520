import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
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
import {
  commandRequest,
  decideCommands,
  emit,
  end,
  getResponses,
  getSent,
  heldApprovals,
  killed,
  layer,
  openThread,
  receive,
  receiveDecision,
  reject,
  requestApproval,
  respond,
  settle,
  startTurn
} from "../../scenario.ts"

const acceptAll = Approvals.layer(() => Effect.succeedSome(Approvals.accept))

const acceptCommands = { approvals: decideCommands(Approvals.accept) }

const declineCommands = { approvals: decideCommands(Approvals.decline) }

describe("Approval", () => {
  it.effect("interrupts its handler and sends no response when another client responds", () =>
    Effect.gen(function*() {
      const handler = yield* heldApprovals
      yield* openThread("t", { approvals: handler.approvals })
      yield* emit(commandRequest(0))
      yield* handler.started
      yield* emit(Fake.requestResolved("t", 0))
      yield* handler.interrupted
      yield* openThread("bare")
      assert.strictEqual(yield* requestApproval(1, { threadId: "bare" }), "decline")
      assert.isEmpty(yield* getResponses(0))
    }).pipe(Effect.provide(layer())))

  it.effect("interrupts its handler and is declined once when its turn ends", () =>
    Effect.gen(function*() {
      const handler = yield* heldApprovals
      yield* openThread("t", { approvals: handler.approvals })
      yield* emit(commandRequest(0))
      yield* handler.started
      yield* emit(Fake.turnCompleted("t", "other"))
      yield* emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* handler.interrupted
      assert.strictEqual(yield* receiveDecision(0), "decline")
      yield* handler.accept
      yield* emit(Fake.requestResolved("t", 0))
      yield* openThread("bare")
      assert.strictEqual(yield* requestApproval(1, { threadId: "bare" }), "decline")
      assert.lengthOf(yield* getResponses(0), 1)
    }).pipe(Effect.provide(layer())))

  it.effect("is declined when its turn ends in the same batch", () =>
    Effect.gen(function*() {
      const handler = yield* heldApprovals
      yield* openThread("t", { approvals: handler.approvals })
      yield* emit(commandRequest(0), Fake.turnCompleted("t", "u", "interrupted"))
      assert.strictEqual(yield* receiveDecision(0), "decline")
      assert.lengthOf(yield* getResponses(0), 1)
    }).pipe(Effect.provide(layer())))

  it.effect("ends when its thread is closed, archived or deleted", () =>
    Effect.gen(function*() {
      const handlers = yield* Effect.forEach(["thread/closed", "thread/archived", "thread/deleted"], (method, id) =>
        Effect.gen(function*() {
          const handler = yield* heldApprovals
          const threadId = `t${id}`
          yield* openThread(threadId, { approvals: handler.approvals })
          yield* emit(commandRequest(id, { threadId }))
          yield* handler.started
          yield* emit({ method, params: { threadId } })
          yield* handler.interrupted
          assert.strictEqual(yield* receiveDecision(id), "decline")
          return method
        }))
      assert.lengthOf(handlers, 3)
    }).pipe(Effect.provide(layer())))

  it.effect("interrupts its handler and sends no response when the connection ends", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const record = yield* Effect.forkChild(Stream.runCollect(Stream.take(codex.approvals, 2)))
      yield* settle
      const handler = yield* heldApprovals
      yield* openThread("t", { approvals: handler.approvals })
      yield* emit(commandRequest(0))
      yield* handler.started
      yield* end(killed)
      yield* handler.interrupted
      yield* handler.accept
      assert.deepStrictEqual((yield* Fiber.join(record)).map(({ _tag }) => _tag), ["Requested", "Withdrawn"])
      assert.isEmpty(yield* getResponses(0))
    }).pipe(Effect.provide(layer())))

  it.effect("does not delay another approval, the events of another thread, or an interrupt", () =>
    Effect.gen(function*() {
      const slow = yield* heldApprovals
      const thread = yield* openThread("t", { approvals: slow.approvals })
      yield* openThread("quick", acceptCommands)
      const run = yield* startTurn((yield* openThread("other")).run("go"), "v")
      yield* emit(
        commandRequest(0),
        commandRequest(1, { threadId: "quick", turnId: "w" }),
        Fake.messageCompleted("other", "v", "i", "hello"),
        Fake.turnCompleted("other", "v")
      )
      assert.strictEqual(yield* receiveDecision(1), "accept")
      assert.strictEqual((yield* Fiber.join(run)).finalResponse, "hello")
      const server = yield* AppServer.AppServer
      const interrupt = yield* Effect.forkChild(
        server.request("turn/interrupt", { threadId: thread.id, turnId: "u" })
      )
      yield* respond("turn/interrupt", {})
      yield* Fiber.join(interrupt)
      assert.isEmpty(yield* getResponses(0))
      yield* slow.accept
      assert.strictEqual(yield* receiveDecision(0), "accept")
    }).pipe(Effect.provide(layer())))

  it.effect("reaches the handlers of its turn before the response to turn/start", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t", declineCommands)
      const run = yield* Effect.forkChild(thread.run("go", acceptCommands))
      const start = yield* receive("turn/start")
      yield* emit(commandRequest(0), commandRequest(1, { turnId: "another" }))
      yield* respond(start, { turn: Fake.turn("u") })
      assert.sameDeepMembers([yield* fake.take, yield* fake.take], [
        { id: 0, result: { decision: "accept" } },
        { id: 1, result: { decision: "decline" } }
      ])
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(run)
      assert.strictEqual(yield* requestApproval(2), "decline")
    }).pipe(Effect.provide(layer())))

  it.effect("reaches the handlers of its thread when turn/start is rejected", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(Effect.exit(thread.run("go", acceptCommands)))
      const start = yield* receive("turn/start")
      yield* emit(commandRequest(0))
      yield* reject(start)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(run)))
      assert.strictEqual(yield* receiveDecision(0), "decline")
    }).pipe(Effect.provide(layer())))

  it.effect("converts a legacy request to the same type, and its decision to a legacy one", () =>
    Effect.gen(function*() {
      const seen: Array<Approvals.Request> = []
      const legacyDecisions: Array<unknown> = []
      const requestLegacy = Effect.fnUntraced(function*(method: string, params: object) {
        const id = legacyDecisions.length
        yield* emit({ method, id, params: { conversationId: "t", callId: "c", ...params } })
        legacyDecisions.push(yield* receiveDecision(id))
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
        yield* requestLegacy("execCommandApproval", command)
      }
      yield* requestLegacy("applyPatchApproval", fileChanges)
      assert.deepStrictEqual(legacyDecisions, [
        "approved",
        "approved_for_session",
        { denied: { rejection: "The user declined." } },
        "abort",
        { approved_execpolicy_amendment: { proposed_execpolicy_amendment: ["touch"] } },
        { network_policy_amendment: { network_policy_amendment: { host: "example.com", action: "deny" } } },
        // A network rule is not valid for a file change.
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
      const last = seen.at(-1)
      assert(last?._tag === "FileChange")
      assert.deepStrictEqual(last.changes, [
        { path: "/repo/a", kind: { type: "add" }, diff: "x" },
        { path: "/repo/b", kind: { type: "update", move_path: "/repo/c" }, diff: "@@" }
      ])
    }).pipe(Effect.provide(layer())))

  it.effect("contains the latest diff of a file change that the server has sent", () =>
    Effect.gen(function*() {
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
      const requestFileChange = Effect.fnUntraced(function*(id: number, itemId: string) {
        yield* emit({
          method: "item/fileChange/requestApproval",
          id,
          params: { threadId: "t", turnId: "u", itemId, startedAtMs: id }
        })
        assert.strictEqual(yield* receiveDecision(id), "decline")
      })
      yield* emit(started("a", "one"))
      yield* requestFileChange(0, "a")
      yield* emit({
        method: "item/fileChange/patchUpdated",
        params: { threadId: "t", turnId: "u", itemId: "a", changes: change("two") }
      })
      yield* requestFileChange(1, "a")
      yield* requestFileChange(2, "unknown")
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* requestFileChange(3, "a")
      assert.deepStrictEqual(seen, [["one"], ["two"], undefined, undefined])
    }).pipe(Effect.provide(layer())))

  it.effect("is declined without a decision, and logs the remedy without private values", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push(String(message)))
    return Effect.gen(function*() {
      assert.strictEqual(yield* requestApproval(0, { command: "echo secret", reason: "secret" }), "decline")
      assert.lengthOf(lines, 1)
      assert.match(lines[0]!, /Declined `item\/commandExecution\/requestApproval` of thread `t`: .*Approvals\.layer/)
      assert.notInclude(lines[0]!, "secret")

      yield* openThread("t", { approvals: { fileChange: () => Effect.succeed(Approvals.accept) } })
      assert.strictEqual(yield* requestApproval(1, { command: "echo secret" }), "decline")
      assert.match(
        lines.at(-1)!,
        /of thread `t`: the approvals of the thread made no decision\. .*ApprovalPolicy\.firstOf/
      )
      assert.notInclude(lines.at(-1)!, "secret")
    }).pipe(Effect.provide(layer()), Effect.provide(Logger.layer([logger])))
  })

  it.effect("reaches its handler when the server omits optional fields", () =>
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
      const ids = { threadId: "t", turnId: "u", itemId: "i" }
      const legacyIds = { conversationId: "t", callId: "c" }
      const requests: ReadonlyArray<readonly [method: string, params: object, result: unknown]> = [
        ["item/commandExecution/requestApproval", { ...ids, command: "ls" }, { decision: "accept" }],
        ["item/fileChange/requestApproval", ids, { decision: "accept" }],
        ["item/permissions/requestApproval", { ...ids, cwd: "/", permissions: {} }, {
          permissions: {},
          scope: "turn"
        }],
        ["execCommandApproval", { ...legacyIds, command: ["ls"], cwd: "/" }, { decision: "approved" }],
        ["applyPatchApproval", { ...legacyIds, fileChanges: {} }, { decision: "approved" }],
        ["item/tool/requestUserInput", { ...ids, questions: [{ id: "q", question: "?" }] }, {
          answers: { q: { answers: ["true"] } }
        }]
      ]
      for (const [id, [method, params, result]] of requests.entries()) {
        yield* emit({ method, id, params })
        assert.deepStrictEqual<unknown>(yield* fake.take, { id, result })
      }
    }).pipe(Effect.provide(layer())))

  it.effect("is declined for a sub-agent whose parent cannot be read or whose turn is unknown", () =>
    Effect.gen(function*() {
      yield* openThread("t", declineCommands)
      yield* emit(commandRequest(0, { threadId: "sub" }))
      yield* reject("thread/read")
      assert.strictEqual(yield* receiveDecision(0), "decline")
      yield* emit(commandRequest(1, { threadId: "sub" }))
      yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
      assert.strictEqual(yield* receiveDecision(1), "decline")
      yield* emit(commandRequest(2, { threadId: "other" }))
      yield* respond("thread/read", { thread: { id: "other", parentThreadId: null } })
      assert.strictEqual(yield* receiveDecision(2), "accept")
    }).pipe(Effect.provide(layer().pipe(Layer.provide(acceptAll)))))

  it.effect("is declined when the caller of its turn timed out or was interrupted", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      // The response to `turn/start` arrives after the timeout.
      const late = yield* Effect.forkChild(Effect.exit(thread.run("go", acceptCommands)))
      const start = yield* receive("turn/start")
      yield* TestClock.adjust("60 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(late)))
      yield* emit(commandRequest(0))
      yield* respond(start, { turn: Fake.turn("u") })
      // The other message is `turn/interrupt`.
      assert.deepInclude([yield* fake.take, yield* fake.take], { id: 0, result: { decision: "decline" } })
      yield* emit(Fake.turnCompleted("t", "u", "interrupted"))
      // The turn was interrupted, but has not ended.
      const run = yield* startTurn(thread.run("go", acceptCommands), "v")
      yield* emit(Fake.turnStarted("t", "v"))
      yield* settle
      const interrupt = yield* Effect.forkChild(Fiber.interrupt(run))
      yield* receive("turn/interrupt")
      yield* TestClock.adjust("6 seconds")
      yield* Fiber.join(interrupt)
      assert.strictEqual(yield* requestApproval(1, { turnId: "v" }), "decline")
      // The end of the turn removes its handlers.
      yield* emit(Fake.turnCompleted("t", "v", "interrupted"))
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("does not wait for a turn that was interrupted before turn/start was sent", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      for (const startImmediately of [false, true]) {
        const run = yield* Effect.forkChild(thread.run("go", declineCommands), { startImmediately })
        yield* Fiber.interrupt(run)
      }
      assert.isEmpty(yield* getSent("turn/start"))
      assert.strictEqual(yield* requestApproval(0), "accept")
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("is declined when the response to turn/start does not arrive", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(Effect.exit(thread.run("go", acceptCommands)))
      yield* receive("turn/start")
      // One request arrives before the timeout, the other after it.
      yield* emit(commandRequest(0))
      yield* TestClock.adjust("60 seconds")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(run)))
      assert.strictEqual(yield* receiveDecision(0), "decline")
      assert.strictEqual(yield* requestApproval(1), "decline")
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("is declined when the response to turn/start cannot be decoded", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const run = yield* Effect.forkChild(Effect.exit(thread.run("go", acceptCommands)))
      yield* respond("turn/start", { turn: {} })
      assert.isTrue(Exit.isFailure(yield* Fiber.join(run)))
      assert.strictEqual(yield* requestApproval(0), "decline")
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("reaches the handlers of the root turn of a sub-agent, and is declined without one", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const startTurnWith = (turnId: string, decision: Approvals.CommandDecision) =>
        startTurn(thread.run("go", { approvals: decideCommands(decision) }), turnId)
      const requestFrom = Effect.fnUntraced(function*(turnId: string, id: number) {
        yield* emit(commandRequest(id, { threadId: "sub", turnId }))
        yield* respond("thread/read", { thread: { id: "sub", parentThreadId: "t" } })
        return yield* receiveDecision(id)
      })
      const first = yield* startTurnWith("u", "acceptForSession")
      yield* emit(Fake.subAgentStarted("sub", "sub1", "u"), Fake.subAgentStarted("sub", "sub2", null))
      assert.strictEqual(yield* requestFrom("sub1", 0), "acceptForSession")
      assert.strictEqual(yield* requestFrom("sub2", 1), "decline")
      yield* emit(Fake.turnCompleted("t", "u"))
      yield* Fiber.join(first)
      assert.strictEqual(yield* requestFrom("sub1", 2), "decline")
      const second = yield* startTurnWith("v", "accept")
      yield* emit(Fake.subAgentStarted("sub", "sub3", "v"))
      assert.strictEqual(yield* requestFrom("sub1", 3), "decline")
      assert.strictEqual(yield* requestFrom("sub3", 4), "accept")
      yield* emit(Fake.turnCompleted("t", "v"))
      yield* Fiber.join(second)
      // While a turn without handlers runs, the thread and the program decide.
      const third = yield* startTurn(thread.run("go"), "w")
      yield* emit(Fake.subAgentStarted("sub", "sub4", "w"))
      assert.strictEqual(yield* requestFrom("sub4", 5), "accept")
      yield* emit(Fake.turnCompleted("t", "w"))
      yield* Fiber.join(third)
      assert.strictEqual(yield* requestFrom("sub4", 6), "decline")
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("has one outcome in the audit for each result of its handler", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const entries: Array<Approvals.AuditEntry> = []
      yield* Effect.forkChild(
        Stream.runForEach(Approvals.audit, (entry) => Effect.sync(() => entries.push(entry))),
        { startImmediately: true }
      )
      // Values that plain JavaScript may return.
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
        yield* emit(commandRequest(id, { threadId }))
        assert.strictEqual(yield* receiveDecision(id), "decline")
        const policyThread = `policy ${id}`
        yield* openThread(policyThread, { approvals: command as Approvals.Policy })
        yield* emit(commandRequest(100 + id, { threadId: policyThread }))
        assert.strictEqual(yield* receiveDecision(100 + id), "decline")
      }
      const withdrawn = yield* heldApprovals
      yield* openThread("withdrawn", { approvals: withdrawn.approvals })
      yield* emit(commandRequest(200, { threadId: "withdrawn" }))
      yield* withdrawn.started
      yield* emit(Fake.requestResolved("withdrawn", 200))
      yield* withdrawn.interrupted
      yield* openThread("bare")
      yield* emit(commandRequest(201, { threadId: "bare" }))
      yield* fake.take

      const threads = new Set(entries.map(({ request }) => request.threadId))
      assert.strictEqual(threads.size, 2 * handlers.length + 2)
      for (const threadId of threads) {
        const tags = entries.filter(({ request }) => request.threadId === threadId).map(({ _tag }) => _tag)
        assert.deepStrictEqual(tags, ["Requested", threadId === "withdrawn" ? "Withdrawn" : "Decided"], threadId)
      }
    }).pipe(Effect.provide(layer())))

  it.effect("reaches the handlers of its thread, whichever Codex layer opened the thread", () =>
    Effect.gen(function*() {
      const seen: Array<string> = []
      const open = (approvals: Approvals.Handlers) => openThread("t", { approvals })
      const broader = Approvals.layer((request) => Effect.sync(() => (seen.push(request._tag), Option.none())))
      const onAnotherLayer = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, Codex.layer)
      yield* open(declineCommands.approvals)
      const first = onAnotherLayer(Effect.provide(requestApproval(0), acceptAll))
      assert.strictEqual(yield* first, "decline")
      yield* onAnotherLayer(open({}))
      const second = onAnotherLayer(Effect.provide(onAnotherLayer(requestApproval(1)), broader))
      assert.strictEqual(yield* second, "decline")
      assert.deepStrictEqual(seen, [])
      yield* open(acceptCommands.approvals)
      assert.strictEqual(yield* requestApproval(2), "accept")
    }).pipe(Effect.provide(layer())))

  it.effect("reaches the handlers of its thread after the thread was archived or closed", () =>
    Effect.gen(function*() {
      yield* openThread("t", declineCommands)
      yield* emit({ method: "thread/archived", params: { threadId: "t" } })
      yield* emit({ method: "thread/closed", params: { threadId: "t" } })
      assert.strictEqual(yield* requestApproval(0), "decline")
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("ends with the turn of its thread, also if it is of a legacy kind", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const handler = yield* heldApprovals
      yield* openThread("t", { approvals: handler.approvals })
      yield* emit({
        method: "execCommandApproval",
        id: 0,
        params: { conversationId: "t", callId: "c", command: ["ls"], cwd: "/repo", parsedCmd: [] }
      })
      yield* handler.started
      yield* emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* handler.interrupted
      assert.deepStrictEqual((yield* fake.take).result, {
        decision: { denied: { rejection: "The client does not handle approval requests." } }
      })
    }).pipe(Effect.provide(layer())))
})

describe("Approval of an MCP tool", () => {
  const forms: Array<unknown> = []
  const seen: Array<Approvals.McpToolCallRequest> = []
  const open = Effect.gen(function*() {
    forms.length = 0
    seen.length = 0
    yield* openThread("t", {
      approvals: {
        mcpToolCall: (request) => Effect.sync(() => (seen.push(request), Approvals.accept))
      },
      questions: { elicitation: (request) => Effect.sync(() => (forms.push(request), Questions.accept({}))) }
    })
  })
  const requestTool = (id: number, more: object = {}) =>
    emit({
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
    })
  /** The request of 0.166, which does not name the tool. */
  const nameless = (what: string) => ({
    _meta: { codex_approval_kind: "mcp_tool_call", tool_params: { what } }
  })
  const receiveAction = Effect.gen(function*() {
    const fake = yield* Fake.FakeTransport
    const taken = yield* Effect.forkChild(fake.take, { startImmediately: true })
    yield* TestClock.adjust("1 second")
    return (yield* Fiber.join(taken)).result.action
  })
  const requestAction = (id: number, more?: object) => Effect.andThen(requestTool(id, more), receiveAction)
  const call = (method: "item/started" | "item/completed", id = "i", tool = "erase", what = "it") => {
    const item = { type: "mcpToolCall", id, server: "people", tool, status: "inProgress", arguments: { what } }
    const time = method === "item/started" ? { startedAtMs: 1 } : { completedAtMs: 2 }
    return emit({ method, params: { threadId: "t", turnId: "u", item, ...time } })
  }

  it.effect("is declined unless its turn makes the call", () =>
    Effect.gen(function*() {
      yield* open
      assert.strictEqual(yield* requestAction(0), "decline")
      yield* call("item/started")
      assert.strictEqual(yield* requestAction(1), "accept")
      const another = { codex_approval_kind: "mcp_tool_call", tool_name: "another" }
      assert.strictEqual(yield* requestAction(2, { _meta: another }), "decline")
      assert.strictEqual(yield* requestAction(3, { serverName: "another" }), "decline")
      assert.strictEqual(yield* requestAction(4, { turnId: null }), "decline")
      yield* call("item/completed")
      assert.strictEqual(yield* requestAction(5), "decline")
      assert.deepStrictEqual(forms, [])
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("waits one second for the start of the call", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* open
      yield* requestTool(0)
      yield* TestClock.adjust("900 millis")
      yield* call("item/started", "other", "harmless")
      yield* call("item/started")
      assert.strictEqual((yield* fake.take).result.action, "accept")
      yield* call("item/completed")
      yield* requestTool(1)
      yield* TestClock.adjust("1 second")
      yield* call("item/started")
      assert.strictEqual((yield* fake.take).result.action, "decline")
      // A request that another client resolves while it waits reaches no handler.
      yield* call("item/completed")
      yield* requestTool(2)
      yield* TestClock.adjust("1 millis")
      yield* emit(Fake.requestResolved("t", 2))
      yield* TestClock.adjust("1 millis")
      yield* call("item/started")
      assert.strictEqual(yield* requestAction(3), "accept")
      assert.lengthOf(seen, 2)
      assert.deepStrictEqual(forms, [])
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))

  it.effect("matches the call by message and arguments if it has no tool name", () =>
    Effect.gen(function*() {
      yield* open
      yield* call("item/started", "a", "harmless", "it")
      assert.strictEqual(yield* requestAction(0, nameless("it")), "decline")
      yield* call("item/started", "b", "erase", "it")
      assert.strictEqual(yield* requestAction(1, nameless("it")), "accept")
      assert.deepInclude(seen.at(-1), { tool: "erase", arguments: { what: "it" } })
      assert.strictEqual(yield* requestAction(2, nameless("all")), "decline")
      assert.strictEqual(yield* requestAction(3, { ...nameless("it"), message: "Allow it?" }), "decline")
      assert.strictEqual(yield* requestAction(4, { _meta: { codex_approval_kind: "mcp_tool_call" } }), "decline")
      assert.deepStrictEqual(forms, [])
    }).pipe(Effect.provide(acceptAll), Effect.provide(layer())))
})

describe("Handlers", () => {
  it("do not compile when they are misspelled, and may need different services", () => {
    const handler = () => Effect.succeed(Approvals.accept)
    const misspelled = (codex: Codex.Codex["Service"]) => [
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
    assert.isFunction(misspelled)
    assert.isTrue(Layer.isLayer(made))
  })
})
