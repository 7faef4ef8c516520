/** The reasons without a code of the server, on the real binary, for each operation that can fail with one. */
import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, AppServerError, Codex, type Thread } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { withReason } from "../src/internal/protocol/rejections.ts"
import * as TestCodex from "./TestCodex.ts"

const unknownId = "01a202b0-92d7-7af0-b1d3-7c004a056f01"
const unknownTurn = "01a202b0-92d7-7af0-b1d3-7c004a056f02"

/** Starts a process, and returns its services. */
const inProcess = Effect.map(Layer.build(TestCodex.layerProcess()), (services) => ({
  codex: Context.get(services, Codex.Codex),
  server: Context.get(services, AppServer.AppServer)
}))

/** Starts a thread that the server stores. */
const startStoredThread = (codex: Codex.Codex["Service"]) =>
  Effect.provideService(TestCodex.startStoredThread(), Codex.Codex, codex)

/** Runs an effect that fails, and returns the state of `ThreadNotFound` or the tag of another reason. */
const expectState = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(
    TestCodex.expectReason(effect),
    (reason) => reason._tag === "ThreadNotFound" ? reason.state : reason._tag
  )

/** Asserts that each operation fails with a state or a tag. */
const assertStates = Effect.fnUntraced(function*<E, R>(
  operations: Readonly<Record<string, Effect.Effect<unknown, E, R>>>,
  expected: string
) {
  for (const [name, operation] of Object.entries(operations)) {
    assert.strictEqual(yield* expectState(operation), expected, name)
  }
})

const threadOperations = (thread: Thread.Thread) => ({
  run: thread.run("go"),
  turn: Effect.scoped(thread.turn("go")),
  stream: Stream.runDrain(thread.stream("go")),
  compact: thread.compact
})

const requests = (server: AppServer.AppServer["Service"], threadId: string) => ({
  start: server.request("turn/start", { threadId, input: [] }),
  steer: server.request("turn/steer", { threadId, expectedTurnId: unknownTurn, input: [] }),
  interrupt: server.request("turn/interrupt", { threadId, turnId: unknownTurn }),
  compact: server.request("thread/compact/start", { threadId }),
  settings: server.request("thread/settings/update", { threadId, effort: "low" })
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("ThreadNotFound", (it) => {
  it.effect("has the state `unknown` for an id of no thread", () =>
    Effect.scoped(Effect.gen(function*() {
      const { codex, server } = yield* inProcess
      yield* assertStates({
        resume: codex.resumeThread(unknownId),
        fork: codex.forkThread(unknownId),
        archive: codex.archiveThread(unknownId),
        delete: server.request("thread/delete", { threadId: unknownId }),
        name: server.request("thread/name/set", { threadId: unknownId, name: "x" }),
        read: server.request("thread/read", { threadId: unknownId }),
        turns: server.request("thread/turns/list", { threadId: unknownId }),
        queue: server.request("thread/queue/list", { threadId: unknownId })
      }, "unknown")
      yield* assertStates({ unarchive: codex.unarchiveThread(unknownId) }, "notArchived")
      yield* assertStates(requests(server, unknownId), "notLoaded")

      const reason = yield* TestCodex.expectReason(codex.resumeThread(unknownId))
      assert(reason._tag === "ThreadNotFound")
      assert.deepInclude(reason, { method: "thread/resume", threadId: unknownId })
      assert.deepInclude(reason.cause, { _tag: "RequestRejected", code: -32600, method: "thread/resume" })
      assert.match(reason.cause.detail, /no rollout found/)
      assert.match(reason.message, /^Request `thread\/resume` cannot find thread `01a202b0.*CODEX_HOME/)
    })))

  it.effect("has the state `invalidId` for a string that is no id", () =>
    Effect.scoped(Effect.gen(function*() {
      const { codex, server } = yield* inProcess
      for (const id of ["nope", "", "01a202b0-92d7", "no rollout found for thread id x"]) {
        yield* assertStates({
          resume: codex.resumeThread(id),
          fork: codex.forkThread(id),
          archive: codex.archiveThread(id),
          unarchive: codex.unarchiveThread(id),
          attachments: server.request("thread/attachment/list", { threadId: id }),
          ...requests(server, id)
        }, "invalidId")
      }
    })))

  it.effect("has the state `notStored` for a thread without a turn, or an ephemeral one", () =>
    Effect.scoped(Effect.gen(function*() {
      const { codex } = yield* inProcess
      const model = yield* ModelServer.ModelServer
      const fresh = yield* codex.startThread()
      const ephemeral = yield* codex.startThread({ ephemeral: true })
      yield* model.enqueue(ModelServer.text("not stored"))
      yield* ephemeral.run("go")
      for (const { id } of [fresh, ephemeral]) {
        yield* assertStates({ resume: codex.resumeThread(id), fork: codex.forkThread(id) }, "notStored")
      }
      const reason = yield* TestCodex.expectReason(codex.resumeThread(fresh.id))
      assert.match(reason.message, /the thread is not stored. Run a turn on the thread first/)
    })))

  it.effect("has the state `archived` until the thread is unarchived", () =>
    Effect.scoped(Effect.gen(function*() {
      const { codex, server } = yield* inProcess
      const model = yield* ModelServer.ModelServer
      const thread = yield* startStoredThread(codex)
      yield* assertStates({ unarchive: codex.unarchiveThread(thread.id) }, "notArchived")
      yield* codex.archiveThread(thread.id)
      yield* assertStates({
        resume: codex.resumeThread(thread.id),
        fork: codex.forkThread(thread.id),
        ...threadOperations(thread),
        setName: thread.setName("x"),
        queue: server.request("thread/queue/list", { threadId: thread.id })
      }, "archived")
      const reason = yield* TestCodex.expectReason(thread.run("go"))
      assert.match(reason.message, /the thread is archived. Call `codex.unarchiveThread`/)
      yield* codex.unarchiveThread(thread.id)
      yield* assertStates({ unarchive: codex.unarchiveThread(thread.id) }, "notArchived")
      // The handle opens the thread again.
      yield* model.enqueue(ModelServer.text("again"), ModelServer.text("once more"))
      assert.strictEqual((yield* thread.run("go")).finalResponse, "again")
      const resumed = yield* codex.resumeThread(thread.id)
      assert.strictEqual((yield* resumed.run("go")).finalResponse, "once more")
    })))

  it.effect("has the state `deleted` for the handle of a deleted thread", () =>
    Effect.scoped(Effect.gen(function*() {
      const { codex, server } = yield* inProcess
      const thread = yield* startStoredThread(codex)
      yield* server.request("thread/delete", { threadId: thread.id })
      yield* assertStates({
        ...threadOperations(thread),
        read: thread.read(),
        setName: thread.setName("x")
      }, "deleted")
      yield* assertStates({ resume: codex.resumeThread(thread.id), fork: codex.forkThread(thread.id) }, "unknown")
    })))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("ThreadLocked", (it) => {
  it.effect("reports a thread that another process has open", () =>
    Effect.scoped(Effect.gen(function*() {
      const first = yield* inProcess
      const second = yield* inProcess
      const thread = yield* startStoredThread(first.codex)
      const { id } = thread
      yield* assertStates({
        resume: second.codex.resumeThread(id),
        archive: second.codex.archiveThread(id),
        unarchive: second.codex.unarchiveThread(id),
        delete: second.server.request("thread/delete", { threadId: id })
      }, "ThreadLocked")
      const reason = yield* TestCodex.expectReason(second.codex.resumeThread(id))
      assert.match(reason.message, /open in another app-server process.*`codex.forkThread`/)

      // These operations work, as the documentation states.
      assert.notStrictEqual((yield* second.codex.forkThread(id)).id, id)
      assert.include(
        (yield* Stream.runCollect(second.codex.listThreads())).map((stored) => stored.id),
        id
      )
      yield* second.server.request("thread/name/set", { threadId: id, name: "named" })
      const { thread: stored } = yield* second.server.request("thread/read", { threadId: id })
      assert.strictEqual(stored.name, "named")
    })))
})

layer(TestCodex.layer(), { excludeTestServices: true })("LoginRequired", (it) => {
  it.effect("reports what needs a ChatGPT login, without a login and with an API key", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const operations = {
        limits: server.request("account/rateLimits/read"),
        usage: server.request("account/usage/read"),
        messages: server.request("account/workspaceMessages/read"),
        nudge: server.request("account/sendAddCreditsNudgeEmail", { creditType: "credits" }),
        reset: server.request("account/rateLimitResetCredit/consume", { idempotencyKey: "key" })
      }
      const expectLogin = Effect.fnUntraced(function*(login: string, text: string) {
        for (
          const [name, operation] of Object.entries<Effect.Effect<unknown, AppServerError.AppServerError>>(operations)
        ) {
          const reason = yield* TestCodex.expectReason(operation)
          assert(reason._tag === "LoginRequired", name)
          assert.strictEqual(reason.login, login, name)
          assert.strictEqual(reason.cause.method, reason.method)
          assert.include(reason.message, text)
        }
      })
      yield* expectLogin("none", "is not logged in")
      yield* server.request("account/login/start", { type: "apiKey", apiKey: "sk-of-this-test" })
      yield* expectLogin("other", "an API key")
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("TurnEnded", (it) => {
  it.effect("fails a steer after the end of the turn, where an interrupt succeeds", () =>
    Effect.scoped(Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const model = yield* ModelServer.ModelServer
      const wire = yield* TestCodex.Wire
      const thread = yield* codex.startThread()
      yield* model.enqueue(ModelServer.text("done"))
      const turn = yield* thread.turn("go")
      const { id } = yield* turn.result
      const before = yield* wire.sent
      const reason = yield* TestCodex.expectReason(turn.steer("too late"))
      assert.deepInclude(reason, { _tag: "TurnEnded", threadId: thread.id, turnId: id, cause: undefined })
      yield* turn.interrupt
      assert.deepStrictEqual(yield* wire.sent, before)

      const { interrupt, steer } = requests(server, thread.id)
      yield* assertStates({ interrupt, steer }, "TurnEnded")
      // The message of the server is different while another turn runs.
      yield* model.enqueue(TestCodex.halfMessage)
      const next = yield* thread.turn("hang")
      yield* Stream.runHead(Stream.filter(next.events, ({ method }) => method === "item/agentMessage/delta"))
      yield* assertStates({ interrupt, steer }, "TurnEnded")
      const late = yield* TestCodex.expectReason(steer)
      assert(late._tag === "TurnEnded")
      assert.match(late.cause?.detail ?? "", /expected active turn id/)
      assert.include(late.message, unknownTurn)
    })))
})

layer(TestCodex.layer(), { excludeTestServices: true })("ThreadBusy", (it) => {
  it.effect("fails input during a compaction and a review", () =>
    Effect.scoped(Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const model = yield* ModelServer.ModelServer
      const thread = yield* startStoredThread(codex)
      const threadId = thread.id
      const begin = {
        compact: Effect.asVoid(server.request("thread/compact/start", { threadId })),
        review: Effect.asVoid(
          server.request("review/start", { threadId, target: { type: "custom", instructions: "look" } })
        )
      }
      for (const kind of ["compact", "review"] as const) {
        yield* model.enqueue(TestCodex.halfMessage)
        const requested = yield* TestCodex.nextRequest
        yield* begin[kind]
        yield* requested
        for (
          const effect of [
            Effect.asVoid(thread.run("go")),
            Effect.asVoid(server.request("turn/start", { threadId, input: [] }))
          ]
        ) {
          const reason = yield* TestCodex.expectReason(effect)
          assert.deepInclude(reason, { _tag: "ThreadBusy", threadId, options: [], isSent: false, turnKind: kind })
          assert.include(
            reason.message,
            kind === "compact" ? "a compaction, which accepts no input" : "a review, which"
          )
        }
        if (kind === "compact") {
          const { data } = yield* server.request("thread/turns/list", { threadId, limit: 1 })
          const [{ id: turnId } = { id: "" }] = data
          const steered = yield* TestCodex.expectReason(
            server.request("turn/steer", { threadId, expectedTurnId: turnId, input: [{ type: "text", text: "x" }] })
          )
          assert.deepInclude(steered, { _tag: "ThreadBusy", turnId, turnKind: "compact" })
        }
        yield* server.request("turn/interrupt", { threadId, turnId: "" })
        yield* model.awaitIdle
      }
    })))

  it.effect("fails an output schema on a turn of another client", () =>
    Effect.scoped(Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const model = yield* ModelServer.ModelServer
      const thread = yield* startStoredThread(yield* Codex.Codex)
      yield* model.enqueue(TestCodex.halfMessage)
      const requested = yield* TestCodex.nextRequest
      const running = yield* Effect.forkChild(thread.run("hang"))
      yield* requested
      const reason = yield* TestCodex.expectReason(
        server.request("turn/start", {
          threadId: thread.id,
          input: [{ type: "text", text: "go" }],
          outputSchema: { type: "object" }
        })
      )
      assert.deepInclude(reason, { _tag: "ThreadBusy", options: ["outputSchema"], isSent: false })
      yield* Fiber.interrupt(running)
    })))
})

describe("Rejection messages of the server", () => {
  const toReason = (code: number, detail: string, params: unknown) => {
    const rejected = new AppServerError.RequestRejected({ method: "turn/start", code, detail, data: undefined })
    return withReason(AppServerError.make(rejected), params).reason
  }

  it("match only as a whole, with the code and the ids of the request", () => {
    const params = { threadId: unknownId, turnId: unknownTurn }
    const messages = [
      `no rollout found for thread id ${unknownId}`,
      `thread not found: ${unknownId}`,
      `thread ${unknownId} already has an active writer`,
      "no active turn to steer",
      `expected active turn id ${unknownTurn} but found ${unknownId}`
    ]
    for (const detail of messages) {
      assert.notStrictEqual(toReason(-32600, detail, params)._tag, "RequestRejected", detail)
      for (
        const [code, other, about] of [
          [-32603, detail, params],
          [-32600, `the tool said: ${detail}`, params],
          [-32600, `${detail} (see the log)`, params],
          [-32600, detail.toUpperCase(), params],
          [-32600, detail, {}],
          [-32600, detail, undefined],
          [-32600, detail, "x"]
        ] as const
      ) {
        assert.deepInclude(toReason(code, other, about), { _tag: "RequestRejected", code, detail: other })
      }
    }
    // The messages of `account/rateLimits/read`, here with another method.
    assert.strictEqual(
      toReason(-32600, "codex account authentication required to read rate limits", {})._tag,
      "RequestRejected"
    )
    const other = { threadId: unknownTurn }
    assert.strictEqual(toReason(-32600, messages[0]!, other)._tag, "RequestRejected")
    assert.strictEqual(
      toReason(-32600, "invalid thread id: too odd", params)._tag,
      "RequestRejected"
    )
  })
})
