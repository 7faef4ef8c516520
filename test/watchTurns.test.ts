import { assert, layer } from "@effect/vitest"
import { AppServer, Codex, type Thread, type ThreadView, Turn, TurnView } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestCodex from "./TestCodex.ts"

const config = { features: { goals: true }, agents: { max_depth: 3 } }

const text = (view: TurnView.TurnView): string =>
  view.items.flatMap(({ item }) => item.type === "agentMessage" ? [item.text] : []).join("|")

const isOf = (thread: { readonly id: string }) => (request: ModelServer.ModelRequest) =>
  request.header("thread-id") === thread.id

/** A command that runs until the workspace has this file. */
const waitFor = (file: string, callId = "wait") =>
  ModelServer.functionCall("exec_command", { cmd: `until [ -e ${file} ]; do sleep 0.02; done`, login: false }, {
    callId
  })

const touch = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const { workspace } = yield* CodexEnvironment.CodexEnvironment
  yield* fs.writeFileString(`${workspace}/${file}`, "")
})

/** The first view that satisfies a predicate. */
const firstView = <A>(views: Stream.Stream<A, unknown>, predicate: (view: A) => boolean) =>
  Effect.map(Stream.runHead(Stream.filter(views, predicate)), Option.getOrThrow)

/** What a page shows of a command or a file change. */
const toShown = ({ id, item, state }: TurnView.ItemView) =>
  item.type === "commandExecution" ?
    { id, state, command: item.command, cwd: item.cwd, actions: item.commandActions }
    : item.type === "fileChange"
    ? { id, state, changes: item.changes }
    : { id, state }

const setGoal = (thread: Thread.Thread, status: "active" | "paused") =>
  AppServer.AppServer.use((server) =>
    server.request("thread/goal/set", { threadId: thread.id, objective: "count", status })
  )

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Turn.view", (it) => {
  it.effect("emits the state of the turn, and ends with its end", () =>
    Effect.gen(function*() {
      // Its totals do not start at zero.
      const thread = yield* TestCodex.startStoredThread()
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      yield* model.enqueue(ModelServer.reply([waitFor("one")]), message.reply)
      const turn = yield* thread.turn("go")
      const running = yield* firstView(turn.view, ({ items }) => items.at(-1)?.item.type === "commandExecution")
      assert.strictEqual(running.status, "inProgress")
      assert.strictEqual(running.turnId, turn.id)
      yield* touch("one")
      yield* message.say("Hel")
      yield* firstView(turn.view, (view) => text(view) === "Hel")
      yield* message.say("lo")
      yield* message.finish
      const views = yield* Stream.runCollect(turn.view)
      const last = views.at(-1)!
      assert.strictEqual(last.status, "completed")
      assert.strictEqual(text(last), "Hello")
      const result = yield* turn.result
      assert.deepStrictEqual(last.usage?.turn, result.usage?.turn)
      assert.deepStrictEqual(last.items.map(({ id }) => id), result.items.map((item) => (item as { id: string }).id))
      // A late subscriber gets the whole turn at once.
      assert.deepStrictEqual(yield* Stream.runCollect(turn.view), [last])
      const json = JSON.parse(JSON.stringify(last))
      assert.deepStrictEqual(Schema.decodeUnknownSync(TurnView.TurnView)(json), last)
    }).pipe(Effect.scoped))

  it.effect("skips to the newest for a slow subscriber, and keeps the items that did not change", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      yield* model.enqueue(message.reply)
      const turn = yield* thread.turn("go")
      const seen: Array<TurnView.TurnView> = []
      const isBlocked = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const slow = yield* turn.view.pipe(
        Stream.runForEach((view) => {
          seen.push(view)
          return text(view) === ""
            ? Effect.void
            : Effect.andThen(Deferred.succeed(isBlocked, undefined), Deferred.await(goOn))
        }),
        Effect.forkChild
      )
      yield* message.say("0")
      yield* Deferred.await(isBlocked)
      for (let i = 1; i < 200; i++) yield* message.say(".")
      yield* message.finish
      yield* turn.result
      const before = seen.length
      yield* Deferred.succeed(goOn, undefined)
      yield* Fiber.join(slow)
      assert.strictEqual(seen.length, before + 1)
      assert.strictEqual(seen.at(-1)?.status, "completed")
      assert.strictEqual(seen.at(-1)?.items[0], seen.at(-2)?.items[0])
    }).pipe(Effect.scoped))

  it.effect("has the approvals that wait for a response", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const decision = yield* Deferred.make<"decline">()
      const thread = yield* codex.startThread({
        approvalPolicy: "on-request",
        approvalsReviewer: "user",
        approvals: { command: () => Deferred.await(decision) }
      })
      const command = { cmd: "touch x", login: false, sandbox_permissions: "require_escalated", justification: "why" }
      yield* model.enqueue(ModelServer.functionCall("exec_command", command), ModelServer.text("ok"))
      const turn = yield* thread.turn("go")
      const requested = yield* firstView(turn.view, ({ requests }) => requests.length > 0)
      assert.strictEqual(requested.requests[0]?.method, "item/commandExecution/requestApproval")
      const late = yield* thread.currentTurn
      const whole = yield* firstView(Option.getOrThrow(late).view, ({ requests }) => requests.length > 0)
      assert.deepStrictEqual(whole.requests, requested.requests)
      const inThread = yield* firstView(thread.view, ({ turns }) => turns.at(-1)?.requests.length === 1)
      assert.deepStrictEqual(inThread.turns.at(-1)?.requests, requested.requests)
      yield* Deferred.succeed(decision, "decline")
      yield* firstView(turn.view, ({ requests }) => requests.length === 0)
      yield* turn.result
    }).pipe(Effect.scoped))
})

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Thread.turns", (it) => {
  it.effect("emits the turns of a goal, and interrupts one only by its handle", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startStoredThread()
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      let requests = 0
      yield* model.respond(() => requests++ === 0 ? ModelServer.text("first") : message.reply)
      const turns = yield* Effect.forkChild(Stream.runCollect(Stream.take(thread.turns, 2)), { startImmediately: true })
      yield* setGoal(thread, "active")
      const [first, second] = yield* Fiber.join(turns)
      assert(first !== undefined && second !== undefined)
      const result = yield* first.result
      assert.strictEqual(result.finalResponse, "first")
      assert.isAbove(result.usage?.turn.totalTokens ?? 0, 0)
      const views = yield* Stream.runCollect(first.view)
      assert.strictEqual(text(views.at(-1)!), "first")

      yield* message.say("half")
      const watcher = yield* Effect.forkChild(second.result)
      yield* firstView(second.view, (view) => text(view) === "half")
      yield* Fiber.interrupt(watcher)
      assert.isFalse((yield* thread.currentTurn).pipe(Option.isNone))
      yield* second.interrupt
      assert.strictEqual((yield* second.result).status, "interrupted")
      yield* setGoal(thread, "paused")
    }).pipe(Effect.scoped))

  it.effect("emits the turns that this program starts, which continue to belong to their callers", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.respond(({ lastUserText }) => lastUserText === "hang" ? ModelServer.hang() : ModelServer.text("one"))
      const watched = yield* Effect.forkChild(Stream.runCollect(Stream.take(thread.turns, 2)), {
        startImmediately: true
      })
      const { id } = yield* thread.run("go")
      const own = yield* Effect.forkChild(thread.run("hang"))
      const [first, second] = yield* Fiber.join(watched)
      assert.strictEqual(first?.id, id)
      assert.strictEqual((yield* first!.result).finalResponse, "one")
      // The caller interrupts its turn, although it is watched.
      yield* Fiber.interrupt(own)
      assert.strictEqual((yield* second!.result).status, "interrupted")
    }))

  it.effect("emits one handle of a review, which can be interrupted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      const start = server.request("review/start", {
        threadId: thread.id,
        target: { type: "custom", instructions: "look" }
      })
      yield* model.respond(() => ModelServer.text("all fine"))
      const turns = yield* Effect.forkChild(Stream.runCollect(Stream.take(thread.turns, 2)), { startImmediately: true })
      const { turn: { id } } = yield* start
      yield* firstView(thread.view, ({ turns }) =>
        turns.some((turn) => turn.turnId === id && turn.status === "completed"))
      yield* model.respond(() =>
        ModelServer.hang()
      )
      yield* start
      const [reviewed, hanging] = yield* Fiber.join(turns)
      assert.strictEqual(reviewed?.id, id)
      const { items, status } = yield* reviewed!.result
      assert.strictEqual(status, "completed")
      assert.includeMembers(items.map(({ type }) => type), ["enteredReviewMode", "exitedReviewMode"])
      yield* hanging!.interrupt
      assert.strictEqual((yield* hanging!.result).status, "interrupted")
    }))
})

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Thread.currentTurn", (it) => {
  it.effect("is None while the thread runs no turn", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      assert.isTrue(Option.isNone(yield* thread.currentTurn))
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.text("one"))
      yield* thread.run("go")
      assert.isTrue(Option.isNone(yield* thread.currentTurn))
    }).pipe(Effect.scoped))

  it.effect("watches a turn of another client as a whole", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(
        ModelServer.reply([ModelServer.message("before", { phase: "commentary" }), waitFor("two")]),
        ModelServer.text("after")
      )
      // A raw request stands for another client.
      yield* server.request("turn/start", { threadId: thread.id, input: [{ type: "text", text: "go" }] })
      yield* firstView(thread.view, ({ turns }) => turns.at(-1)?.items.at(-1)?.item.type === "commandExecution")
      const scope = yield* Effect.scope
      const turn = Option.getOrThrow(yield* thread.currentTurn)
      const attached = yield* firstView(turn.view, () => true)
      assert.include(text(attached), "before")
      yield* touch("two")
      const result = yield* turn.result
      assert.strictEqual(result.finalResponse, "after")
      assert.deepStrictEqual(result.items.map(({ type }) => type), [
        "userMessage",
        "agentMessage",
        "commandExecution",
        "agentMessage"
      ])
      const last = (yield* Stream.runCollect(turn.view)).at(-1)!
      assert.strictEqual(text(last), "before|after")
      assert.isDefined(scope)
    }).pipe(Effect.scoped))

  const escalated = { cmd: "touch x", login: false, sandbox_permissions: "require_escalated", justification: "why" }
  const patch = "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch"
  it.effect.each([
    { name: "a command in progress", call: waitFor("four"), requests: 0 },
    { name: "a command that needs approval", call: ModelServer.functionCall("exec_command", escalated), requests: 1 },
    { name: "a file change that needs approval", call: ModelServer.customToolCall("apply_patch", patch), requests: 1 }
  ])("has $name", ({ call, requests }) =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const server = yield* AppServer.AppServer
      const decision = yield* Deferred.make<"accept">()
      const thread = yield* codex.startThread({
        approvalPolicy: "on-request",
        approvalsReviewer: "user",
        sandbox: "read-only",
        approvals: { command: () => Deferred.await(decision), fileChange: () => Deferred.await(decision) }
      })
      yield* model.enqueue(ModelServer.reply([call]), ModelServer.text("after"))
      const seen = yield* Effect.forkChild(
        firstView(
          thread.view,
          ({ turns }) => turns.at(-1)?.items.length === 2 && turns[0]?.requests.length === requests
        ),
        { startImmediately: true }
      )
      yield* server.request("turn/start", { threadId: thread.id, input: [{ type: "text", text: "go" }] })
      const live = (yield* Fiber.join(seen)).turns[0]!
      assert.strictEqual(live.items[1]?.state, "inProgress")
      const turn = Option.getOrThrow(yield* thread.currentTurn)
      const attached = yield* firstView(turn.view, () => true)
      const inThread = (yield* firstView(thread.view, () => true)).turns[0]!
      for (const view of [attached, inThread]) {
        assert.deepStrictEqual(view.requests, live.requests)
        assert.deepStrictEqual(view.items.map(toShown), live.items.map(toShown))
      }
      yield* touch("four")
      yield* Deferred.succeed(decision, "accept")
      const { finalResponse, items } = yield* turn.result
      assert.strictEqual(finalResponse, "after")
      assert.lengthOf(items, 3)
    }).pipe(Effect.scoped))

  it.effect("fails when its scope is closed, and the turn continues", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.reply([waitFor("three")]), ModelServer.text("after"))
      yield* server.request("turn/start", { threadId: thread.id, input: [{ type: "text", text: "go" }] })
      yield* firstView(thread.view, ({ turns }) => turns.at(-1)?.items.at(-1)?.item.type === "commandExecution")
      const turn = yield* Effect.scoped(Effect.flatMap(thread.currentTurn, Effect.fromOption))
      const error = yield* Effect.flip(turn.result)
      assert(error._tag === "AppServerError" && error.reason._tag === "TurnLost")
      assert.include(error.message, "scope of its handle was closed")
      yield* touch("three")
      yield* firstView(thread.view, ({ turns }) => turns.at(-1)?.status === "completed")
    }))
})

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Turn.subAgents", (it) => {
  it.effect("emits each sub-agent with its turns, view and usage", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      yield* model.respond((request) =>
        isOf(thread)(request) ? TestCodex.delegate(request, { message: "count the files" }) : message.reply
      )
      const turn = yield* thread.turn("go")
      const agent = Option.getOrThrow(yield* Stream.runHead(turn.subAgents))
      assert.strictEqual(agent.parentId, thread.id)
      assert.strictEqual(agent.task, "count the files")
      assert.strictEqual(agent.model, "mock-model")
      const working = Option.getOrThrow(yield* Stream.runHead(agent.turns))
      assert.strictEqual(working.threadId, agent.id)
      yield* message.say("seven")
      yield* firstView(working.view, (view) => text(view).endsWith("seven"))
      yield* message.finish
      assert.strictEqual((yield* working.result).finalResponse, "seven")
      const { usage } = yield* turn.result
      assert.deepStrictEqual(yield* agent.usage, usage?.subAgents)
      const view = yield* firstView(agent.view, () => true)
      assert.strictEqual(view.threadId, agent.id)
      assert.strictEqual(text(view.turns.at(-1)!), "seven")
      assert.lengthOf(yield* Stream.runCollect(turn.subAgents), 1)
    }).pipe(Effect.scoped))

  it.effect("know the model of an agent that an earlier turn has spawned", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      let agentId = ""
      yield* model.respond((request) => {
        if (!isOf(thread)(request)) return ModelServer.text("yes")
        if (request.lastUserText !== "again") return TestCodex.delegate(request, { message: "help" })
        return request.functionCallOutput("send") === undefined
          ? ModelServer.functionCall("send_input", { target: agentId, message: "more" }, {
            callId: "send",
            namespace: "multi_agent_v1"
          })
          : ModelServer.text("sent")
      })
      const first = yield* thread.turn("go")
      agentId = Option.getOrThrow(yield* Stream.runHead(first.subAgents)).id
      yield* first.result
      const second = yield* thread.turn("again")
      const agent = Option.getOrThrow(yield* Stream.runHead(second.subAgents))
      assert.deepInclude(agent, { id: agentId, model: "mock-model", task: "more" })
      yield* second.result
    }).pipe(Effect.scoped))

  it.effect("continue when their turn is interrupted, unless they are interrupted too", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const start = Effect.gen(function*() {
        const thread = yield* TestCodex.startThread
        const message = yield* TestCodex.heldMessage
        yield* model.respond((request) =>
          isOf(thread)(request) ? TestCodex.delegate(request, { message: "help" }) : message.reply
        )
        const turn = yield* thread.turn("go")
        const agent = Option.getOrThrow(yield* Stream.runHead(turn.subAgents))
        const working = Option.getOrThrow(yield* Stream.runHead(agent.turns))
        return { message, turn, working }
      })
      const one = yield* start
      yield* one.turn.interrupt
      assert.strictEqual((yield* one.turn.result).status, "interrupted")
      yield* one.message.finish
      assert.strictEqual((yield* one.working.result).status, "completed")

      const two = yield* start
      yield* Turn.interruptWithSubAgents(two.turn)
      assert.strictEqual((yield* two.turn.result).status, "interrupted")
      assert.strictEqual((yield* two.working.result).status, "interrupted")
    }).pipe(Effect.scoped))
})

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Thread.view", (it) => {
  it.effect("has the settings, the goal and all turns, and follows them", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startStoredThread({ sandbox: "read-only" })
      const model = yield* ModelServer.ModelServer
      const first = yield* firstView(thread.view, () => true)
      assert.strictEqual(first.settings?.sandboxPolicy?.type, "readOnly")
      assert.strictEqual(first.goal, null)
      assert.deepStrictEqual(first.turns.map(text), ["stored"])
      yield* model.enqueue(ModelServer.text("two"))
      const second = yield* Effect.forkChild(
        firstView(thread.view, ({ turns }) => turns.length === 2 && turns[1]?.status === "completed"),
        { startImmediately: true }
      )
      yield* thread.run("go")
      const followed = yield* Fiber.join(second)
      assert.deepStrictEqual(followed.turns.map(text), ["stored", "two"])
      // A late subscriber gets what the server has not stored: text in progress and usage.
      const message = yield* TestCodex.heldMessage
      yield* model.enqueue(ModelServer.functionCall("exec_command", { cmd: "true", login: false }), message.reply)
      const running = yield* Effect.forkChild(thread.run("again"))
      yield* message.say("half")
      yield* firstView(thread.view, ({ turns }) => turns.length === 3 && text(turns[2]!) === "half")
      const late = (yield* firstView(thread.view, () => true)).turns.at(-1)!
      assert.strictEqual(text(late), "half")
      assert.isAbove(late.usage?.turn.totalTokens ?? 0, 0)
      yield* message.say(" and half")
      yield* message.finish
      yield* firstView(thread.view, ({ turns }) => text(turns[2]!) === "half and half")
      yield* Fiber.join(running)
      yield* thread.setName("named")
      assert.strictEqual((yield* firstView(thread.view, ({ name }) => name !== null)).name, "named")
      yield* setGoal(thread, "paused")
      assert.strictEqual((yield* firstView(thread.view, ({ goal }) => goal !== null)).goal?.objective, "count")
    }))
})

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Streams of a thread", (it) => {
  const forkBoth = Effect.fnUntraced(function*(thread: Pick<Turn.SubAgent, "turns" | "view">) {
    const isWatching = yield* Deferred.make<void>()
    const view = thread.view.pipe(Stream.tap(() => Deferred.succeed(isWatching, undefined)), Stream.runDrain)
    const fiber = yield* Effect.forkChild(
      Effect.all([Effect.exit(view), Effect.exit(Stream.runDrain(thread.turns))], { concurrency: 2 }),
      { startImmediately: true }
    )
    yield* Deferred.await(isWatching)
    return fiber
  })
  const ended: [Exit.Exit<void>, Exit.Exit<void>] = [Exit.void, Exit.void]

  it.effect("end when the thread is closed, and work again when it is resumed", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* TestCodex.startStoredThread()
      const both = yield* forkBoth(thread)
      yield* thread.close
      assert.deepStrictEqual(yield* Fiber.join(both), ended)
      assert.strictEqual((yield* TestCodex.expectReason(Stream.runDrain(thread.view)))._tag, "InvalidRequest")
      assert.strictEqual((yield* TestCodex.expectReason(Stream.runDrain(thread.turns)))._tag, "InvalidRequest")
      const resumed = yield* codex.resumeThread(thread.id)
      assert.deepStrictEqual((yield* firstView(resumed.view, () => true)).turns.map(text), ["stored"])
    }))

  it.effect("end when the thread is deleted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* TestCodex.startStoredThread()
      const both = yield* forkBoth(thread)
      yield* server.request("thread/delete", { threadId: thread.id })
      assert.deepStrictEqual(yield* Fiber.join(both), ended)
    }))

  it.effect("end when the thread of the sub-agent is deleted", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) =>
        isOf(thread)(request) ? TestCodex.delegate(request, { message: "help" }) : ModelServer.text("yes")
      )
      const turn = yield* thread.turn("go")
      const agent = Option.getOrThrow(yield* Stream.runHead(turn.subAgents))
      const both = yield* forkBoth(agent)
      yield* turn.result
      yield* server.request("thread/delete", { threadId: agent.id })
      assert.deepStrictEqual(yield* Fiber.join(both), ended)
    }).pipe(Effect.scoped))
})

layer(TestCodex.layer({ restart: false }), { excludeTestServices: true })("Streams of a thread", (it) => {
  it.effect("fail when the connection ends", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startStoredThread()
      const view = yield* Effect.forkChild(Stream.runDrain(thread.view), { startImmediately: true })
      const turns = yield* Effect.forkChild(Stream.runDrain(thread.turns), { startImmediately: true })
      yield* firstView(thread.view, () => true)
      yield* TestCodex.killServer
      for (const fiber of [view, turns]) {
        assert.strictEqual((yield* TestCodex.expectReason(Fiber.join(fiber)))._tag, "ConnectionClosed")
      }
      assert.strictEqual((yield* TestCodex.expectReason(Stream.runDrain(thread.view)))._tag, "ConnectionClosed")
    }))
})

layer(TestCodex.layer({ restart: TestCodex.quickRestart }), { excludeTestServices: true })("Views", (it) => {
  it.effect("show that the turn of a killed server is interrupted, also while the next turn runs", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startStoredThread()
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      yield* model.respond(({ lastUserText }) => lastUserText === "hang" ? ModelServer.hang() : message.reply)
      const killed = yield* Effect.forkChild(Effect.exit(thread.run("hang")), { startImmediately: true })
      yield* firstView(thread.view, ({ turns }) => turns.length === 2 && turns[1]!.items.length > 0)
      yield* TestCodex.restartServer
      yield* Fiber.join(killed)
      const next = yield* Effect.forkChild(thread.run("next"))
      yield* message.say("working")
      const isWorking = ({ turns }: ThreadView.ThreadView) => turns.length === 3 && text(turns[2]!) === "working"
      for (const predicate of [isWorking, () => true]) {
        const { turns } = yield* firstView(thread.view, predicate)
        assert.deepStrictEqual(turns.map(({ status }) => status), ["completed", "interrupted", "inProgress"])
      }
      yield* message.finish
      yield* Fiber.join(next)
    }))

  it.effect("survive a restart of the server", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startStoredThread()
      const model = yield* ModelServer.ModelServer
      const seen = yield* Effect.forkChild(
        firstView(thread.view, ({ turns }) => turns.some((turn) => text(turn) === "after")),
        { startImmediately: true }
      )
      const [next] = [yield* Effect.forkChild(Stream.runHead(thread.turns), { startImmediately: true })]
      yield* TestCodex.restartServer
      yield* model.enqueue(ModelServer.text("after"))
      yield* thread.run("go")
      assert.deepStrictEqual((yield* Fiber.join(seen)).turns.map(text), ["stored", "after"])
      const turn = Option.getOrThrow(yield* Fiber.join(next))
      assert.strictEqual((yield* turn.result).finalResponse, "after")
    }))
})
