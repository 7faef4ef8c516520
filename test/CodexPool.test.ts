import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it, layer } from "@effect/vitest"
import { Approvals, AppServer, Budget, Codex, CodexMetrics, CodexPool, type Thread } from "effect-codex"
import { CodexEnvironment, FakeAppServer, ModelServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as TestCodex from "./TestCodex.ts"

const readOnly = { sandbox: "read-only", approvalMode: "deny_all" } as const

/** Provides a pool of real servers with one home. */
const withPool = (options?: Partial<CodexPool.Options> & Pick<Codex.StdioOptions, "restart">) =>
  Effect.fnUntraced(function*<A, E, R>(use: Effect.Effect<A, E, R>) {
    const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
    const { restart, ...rest } = options ?? {}
    const pool = CodexPool.layer({
      size: 3,
      codex: () => Codex.layerStdio({ cwd: workspace, env, ...(restart === undefined ? {} : { restart }) }),
      ...rest
    })
    return yield* Effect.provide(use, pool)
  })

const threadsOf = Effect.gen(function*() {
  const { members } = yield* CodexPool.CodexPool
  return (yield* members).map(({ threads }) => threads)
})

const awaitMembers = Effect.fnUntraced(function*(
  predicate: (members: ReadonlyArray<CodexPool.Member>) => boolean
) {
  const { members } = yield* CodexPool.CodexPool
  return yield* Effect.repeat(members, { until: predicate, schedule: Schedule.spaced("20 millis") })
})

const kill = Effect.fnUntraced(function*(thread: Thread.Thread) {
  const { appServer } = yield* CodexPool.CodexPool
  const { process: { id } } = yield* Effect.scoped(
    Effect.flatMap(appServer(thread.id), (server) => server.request("server/diagnostics"))
  )
  process.kill(id, "SIGKILL")
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("CodexPool of real servers", (it) => {
  it.effect("starts each thread on the member with the fewest threads, and runs them at once", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond(({ lastUserText }) => ModelServer.text(`re: ${lastUserText}`))
      const threads = yield* Effect.forEach(
        [1, 2, 3, 4, 5, 6],
        () => codex.startThread(readOnly),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(yield* threadsOf, [2, 2, 2])
      const results = yield* Effect.forEach(threads, (thread, i) => thread.run(`${i}`), { concurrency: "unbounded" })
      assert.deepStrictEqual(
        results.map(({ finalResponse }) => finalResponse),
        [0, 1, 2, 3, 4, 5].map((i) => `re: ${i}`)
      )
      yield* threads[0]!.close
      assert.deepStrictEqual((yield* threadsOf).toSorted(), [1, 2, 2])
      const listed = yield* Stream.runCollect(codex.listThreads())
      assert.deepStrictEqual(listed.map(({ id }) => id).toSorted(), threads.map(({ id }) => id).toSorted())
    }).pipe(withPool()))

  it.effect("opens a thread on the member that has it, and another one after its member has left", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      const thread = yield* codex.startThread(readOnly)
      yield* thread.run("store")
      const again = yield* codex.resumeThread(thread.id)
      assert.strictEqual((yield* again.settings).sandboxPolicy?.type, "readOnly")
      assert.deepStrictEqual((yield* threadsOf).toSorted(), [0, 0, 1])
      const fork = yield* codex.forkThread(thread.id)
      assert.strictEqual((yield* fork.settings).sandboxPolicy?.type, "readOnly")
      yield* fork.close
      yield* thread.close
      yield* awaitMembers((members) => members.every(({ state }) => state === "Stopped"))
      const resumed = yield* codex.resumeThread(thread.id, readOnly)
      assert.strictEqual((yield* resumed.run("again")).finalResponse, "done")
    }).pipe(withPool({ idleTimeToLive: "100 millis" })))

  it.effect("starts a member again that was killed, and leaves the others alone", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      const first = yield* codex.startThread(readOnly)
      const second = yield* codex.startThread(readOnly)
      yield* Effect.all([first.run("store"), second.run("store")], { concurrency: 2 })
      yield* kill(first)
      assert.strictEqual((yield* TestCodex.expectReason(first.run("lost")))._tag, "ConnectionClosed")
      assert.strictEqual((yield* second.run("alive")).finalResponse, "done")
      yield* awaitMembers((members) => members.filter(({ state }) => state === "Ready").length === 1)
      const resumed = yield* codex.resumeThread(first.id, readOnly)
      assert.strictEqual((yield* resumed.run("again")).finalResponse, "done")
    }).pipe(withPool()))

  it.effect("keeps the threads of a killed member with `restart`", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      const thread = yield* codex.startThread(readOnly)
      yield* thread.run("store")
      yield* kill(thread)
      const run = thread.run("again").pipe(Effect.retry({ times: 3 }))
      assert.strictEqual((yield* run).finalResponse, "done")
      assert.strictEqual((yield* thread.settings).sandboxPolicy?.type, "readOnly")
    }).pipe(withPool({ restart: TestCodex.quickRestart })))

  it.effect("opens a thread that another member has loaded", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const { appServer } = yield* CodexPool.CodexPool
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.text("done"))
      const thread = yield* codex.startThread(readOnly)
      yield* thread.run("store")
      // A raw fork is a thread that the pool does not know.
      const { thread: { id } } = yield* Effect.scoped(
        Effect.flatMap(appServer(thread.id), (server) => server.request("thread/fork", { threadId: thread.id }))
      )
      const fork = yield* codex.resumeThread(id, readOnly)
      assert.strictEqual((yield* fork.run("again")).finalResponse, "done")
      assert.deepStrictEqual((yield* threadsOf).toSorted(), [0, 0, 2])
    }).pipe(withPool()))

  it.effect("counts the turns of all members in a budget, and asks the approvals of its context", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      yield* model.respond((request) =>
        request.functionCallOutput("call") === undefined
          ? ModelServer.functionCall("exec_command", {
            cmd: "touch x",
            login: false,
            sandbox_permissions: "require_escalated",
            justification: "?"
          }, { callId: "call" })
          : ModelServer.text("done")
      )
      const asked = yield* Deferred.make<string>()
      const audit = yield* Effect.forkChild(Stream.runHead(codex.approvals), { startImmediately: true })
      const options = { sandbox: "read-only", approvalPolicy: "on-request", approvalsReviewer: "user" } as const
      const used = yield* Effect.gen(function*() {
        const threads = yield* Effect.forEach([1, 2, 3], () => codex.startThread(options))
        yield* Effect.forEach(threads, (thread) => thread.run("go"), { concurrency: "unbounded" })
        return yield* Budget.used
      }).pipe(
        Budget.limit({ turns: 10 }),
        Effect.provide(Approvals.layer({
          command: ({ command }) => Effect.as(Deferred.succeed(asked, command ?? ""), "decline" as const)
        }))
      )
      assert.strictEqual(used.turns, 3)
      assert.lengthOf(used.threads, 3)
      assert.include(yield* Deferred.await(asked), "touch x")
      assert.strictEqual((yield* Fiber.join(audit))._tag, "Some")
    }).pipe(withPool()))
})

/** A pool of fakes, whose member is the first word of each response. */
const layerFakes = (options?: Partial<CodexPool.Options>) =>
  CodexPool.layer({
    size: 3,
    codex: (member) =>
      Codex.layer.pipe(
        Layer.provideMerge(AppServer.layer()),
        Layer.provide(
          FakeAppServer.layer((turn) => FakeAppServer.text(`${member} ${turn.text}`), { threadIds: `member-${member}` })
        )
      ),
    ...options
  })

describe("CodexPool of fakes", () => {
  it.effect("starts threads with the same key on the same member", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const memberOf = Effect.fnUntraced(function*(cwd: string) {
        const thread = yield* codex.startThread({ cwd })
        return (yield* thread.run("")).finalResponse
      })
      const folders = ["/a", "/b", "/c", "/d", "/e"]
      const first = yield* Effect.forEach(folders, memberOf)
      assert.deepStrictEqual(yield* Effect.forEach(folders, memberOf), first)
      assert.isAbove(new Set(first).size, 1)
    }).pipe(Effect.provide(layerFakes({ hashBy: ({ cwd }) => cwd ?? "" }))))

  it.effect("waits with a further thread until one is closed", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const threads = yield* Effect.forEach([1, 2, 3], () => codex.startThread())
      const waiting = yield* Effect.forkChild(codex.startThread(), { startImmediately: true })
      const interrupted = yield* Effect.forkChild(codex.startThread(), { startImmediately: true })
      assert.deepStrictEqual(yield* threadsOf, [1, 1, 1])
      yield* Fiber.interrupt(interrupted)
      assert.isUndefined(waiting.pollUnsafe())
      yield* threads[1]!.close
      assert.strictEqual((yield* (yield* Fiber.join(waiting)).run("x")).finalResponse, "1 x")
      assert.deepStrictEqual(yield* threadsOf, [1, 1, 1])
    }).pipe(Effect.provide(layerFakes({ threadsPerMember: 1 }))))

  it.effect("merges the lists of separate homes in order, and finds a thread in one of them", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const threads = yield* Effect.forEach([1, 2, 3, 4, 5, 6, 7], () => codex.startThread())
      yield* Effect.forEach(threads, (thread) => thread.run("store"))
      const newest = yield* Stream.runCollect(codex.listThreads({ limit: 2 }))
      assert.lengthOf(newest, 7)
      const times = newest.map(({ createdAt }) => createdAt)
      assert.deepStrictEqual(times, times.toSorted((a, b) => b - a))
      const oldest = yield* Stream.runCollect(codex.listThreads({ sortDirection: "asc" }))
      assert.deepStrictEqual(oldest.map(({ createdAt }) => createdAt), times.toReversed())
      for (const { close } of threads) yield* close
      assert.deepStrictEqual(yield* threadsOf, [0, 0, 0])
    }).pipe(Effect.provide(layerFakes({ home: "separate" }))))

  it.effect("adds the member to the metrics of its turns", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const threads = yield* Effect.forEach([1, 2, 3], () => codex.startThread())
      yield* Effect.forEach(threads, (thread) => thread.run("go"))
      const turns = (yield* Metric.snapshot).filter(({ id }) => id === CodexMetrics.turnDuration.id)
      assert.deepStrictEqual(turns.map(({ attributes }) => attributes?.["codex.pool.member"]).toSorted(), [
        "0",
        "1",
        "2"
      ])
    }).pipe(Effect.provide(layerFakes()), Effect.provideService(Metric.MetricRegistry, new Map())))

  it.effect("frees the place of a thread that does not start", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      // @ts-expect-error Not an option.
      assert.isTrue(Exit.isFailure(yield* Effect.exit(codex.startThread({ sandBox: "read-only" }))))
      assert.deepStrictEqual(yield* threadsOf, [0, 0, 0])
    }).pipe(Effect.provide(layerFakes())))

  it.effect("rejects wrong options, and the id of a thread that it has not opened", () =>
    Effect.gen(function*() {
      const build = (options: object) =>
        TestCodex.expectReason(Effect.scoped(Layer.build(layerFakes(options as Partial<CodexPool.Options>))))
      assert.include((yield* build({ size: 0 })).message, "`size`")
      assert.include((yield* build({ idleTimeToLife: "1 second" })).message, "did you mean `idleTimeToLive`?")
      const reason = yield* Effect.gen(function*() {
        const { appServer } = yield* CodexPool.CodexPool
        return yield* TestCodex.expectReason(Effect.scoped(appServer("unknown")))
      }).pipe(Effect.provide(layerFakes()))
      assert.include(reason.message, "has not opened thread `unknown`")
    }))
})

it.live("finds threads of separate homes again", () =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const { codexHome, env, workspace } = yield* CodexEnvironment.CodexEnvironment
    const homes = yield* Effect.forEach(
      [0, 1, 2],
      Effect.fnUntraced(function*() {
        const home = yield* fs.makeTempDirectoryScoped()
        yield* fs.copy(codexHome, home, { overwrite: true })
        return home
      })
    )
    const model = yield* ModelServer.ModelServer
    yield* model.respond(() => ModelServer.text("done"))
    const pool = CodexPool.layer({
      size: 3,
      home: "separate",
      codex: (member) =>
        Codex.layerStdio({
          cwd: workspace,
          env: { ...env, CODEX_HOME: homes[member], CODEX_SQLITE_HOME: homes[member] }
        })
    })
    const ids = yield* Effect.gen(function*() {
      const codex = yield* Codex.Codex
      return yield* Effect.forEach(
        [0, 1, 2, 3],
        Effect.fnUntraced(function*() {
          const thread = yield* codex.startThread(readOnly)
          yield* thread.run("store")
          return thread.id
        })
      )
    }).pipe(Effect.provide(Layer.fresh(pool)))
    yield* Effect.gen(function*() {
      const codex = yield* Codex.Codex
      for (const id of ids) {
        const thread = yield* codex.resumeThread(id, readOnly)
        assert.strictEqual((yield* thread.run("again")).finalResponse, "done")
      }
      const listed = yield* Stream.runCollect(codex.listThreads())
      assert.deepStrictEqual(listed.map(({ id }) => id).toSorted(), ids.toSorted())
      yield* codex.archiveThread(ids[0]!)
      assert.lengthOf(yield* Stream.runCollect(codex.listThreads()), 3)
      assert.strictEqual(
        (yield* TestCodex.expectReason(codex.resumeThread("01a20000-0000-7000-8000-000000000000")))._tag,
        "ThreadNotFound"
      )
    }).pipe(Effect.provide(Layer.fresh(pool)))
  }).pipe(Effect.scoped, Effect.provide(TestCodex.layerEnvironment()), Effect.provide(NodeServices.layer)), 60_000)
