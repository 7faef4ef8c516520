import { assert, describe, expectTypeOf, it, layer } from "@effect/vitest"
import { Approvals, AppServer, Codex, Questions, Tool } from "effect-codex"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import { codexBinary } from "../src/internal/stdio/codexBinary.ts"
import * as CodexEnvironment from "../src/testing/CodexEnvironment.ts"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as TestCodex from "./TestCodex.ts"

const collectIds = <E, R>(threads: Stream.Stream<{ readonly id: string }, E, R>) =>
  Effect.map(Stream.runCollect(threads), (all) => all.map(({ id }) => id))

/** Runs an effect that fails with `ThreadNotFound`, and returns the rejection of the server. */
const expectNotFound = Effect.fnUntraced(function*(effect: Effect.Effect<unknown, unknown>) {
  const reason = yield* TestCodex.expectReason(effect)
  return reason._tag === "ThreadNotFound" ? reason.cause : yield* Effect.die(reason)
})

layer(TestCodex.layer(), { excludeTestServices: true })("Codex", (it) => {
  it.effect("provides the metadata of its server", () =>
    Effect.gen(function*() {
      const { metadata } = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const environment = yield* CodexEnvironment.CodexEnvironment
      assert.strictEqual(metadata.serverVersion, TestCodex.version)
      assert.strictEqual(metadata.serverName, "effect-codex")
      assert.isTrue(metadata.userAgent.startsWith(`effect-codex/${TestCodex.version} (`))
      assert.strictEqual(metadata.codexHome, environment.codexHome)
      assert.strictEqual(metadata.platformFamily, "unix")
      assert.strictEqual(metadata.platformOs, process.platform === "darwin" ? "macos" : process.platform)
      assert.deepStrictEqual(server.metadata, metadata)
    }))

  it.effect("starts separate threads with the requested working directories and models", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const { root, workspace } = yield* CodexEnvironment.CodexEnvironment
      const [first, second] = yield* Effect.all([
        codex.startThread(),
        codex.startThread({ cwd: root, model: "another-model" })
      ], { concurrency: "unbounded" })
      assert.notStrictEqual(first.id, second.id)
      assert.strictEqual((yield* first.read()).cwd, workspace)
      assert.strictEqual((yield* second.read()).cwd, root)

      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.text("one"), ModelServer.text("two"))
      yield* first.run("which model?")
      yield* second.run("which model?")
      assert.strictEqual((yield* TestCodex.getRequests(first.id))[0]?.body["model"], "mock-model")
      assert.strictEqual((yield* TestCodex.getRequests(second.id))[0]?.body["model"], "another-model")
    }))

  it.effect("resumes a thread with its history", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* TestCodex.startStoredThread()
      const resumed = yield* codex.resumeThread(thread.id)
      assert.strictEqual(resumed.id, thread.id)
      yield* model.enqueue(ModelServer.text("again"))
      assert.strictEqual((yield* resumed.run("and again")).finalResponse, "again")
      const request = (yield* TestCodex.getRequests(thread.id)).at(-1)
      assert.deepStrictEqual(request?.userTexts.slice(-2), ["store me", "and again"])
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["stored"])
    }))

  it.effect("forks a thread with its history, and keeps their later turns apart", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const source = yield* TestCodex.startStoredThread()
      const forked = yield* codex.forkThread(source.id)
      assert.notStrictEqual(forked.id, source.id)
      assert.strictEqual((yield* forked.read()).forkedFromId, source.id)

      yield* model.enqueue(ModelServer.text("forked"), ModelServer.text("source"))
      yield* forked.run("to the fork")
      yield* source.run("to the source")
      const requests = yield* model.requests
      const said = (text: string) => requests.find((request) => request.lastUserText === text)?.userTexts.slice(-2)
      assert.deepStrictEqual(said("to the fork"), ["store me", "to the fork"])
      assert.deepStrictEqual(said("to the source"), ["store me", "to the source"])
      assert.lengthOf(yield* TestCodex.readTurns(source.id), 2)
      assert.lengthOf(yield* TestCodex.readTurns(forked.id), 2)
    }))

  it.effect("unloads an archived thread until it is unarchived and resumed", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* TestCodex.startStoredThread()

      yield* codex.archiveThread(thread.id)
      for (const effect of [Effect.asVoid(thread.run("archived")), Effect.asVoid(codex.resumeThread(thread.id))]) {
        assert.deepInclude(yield* TestCodex.expectReason(effect), { _tag: "ThreadNotFound", state: "archived" })
      }

      yield* codex.unarchiveThread(thread.id)
      const resumed = yield* codex.resumeThread(thread.id)
      yield* model.enqueue(ModelServer.text("back"))
      assert.strictEqual((yield* resumed.run("are you back?")).finalResponse, "back")
    }))

  it.effect("lists the models of the catalog", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const models = yield* Stream.runCollect(codex.models())
      assert.deepStrictEqual(models.map(({ displayName, id }) => ({ displayName, id })), [
        { displayName: "Mock", id: "mock-model" }
      ])
    }))

  it.effect("fails for an unknown thread with the message of the server", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const unknown = "01a2034c-0000-7000-8000-000000000000"
      const rejected = Effect.fnUntraced(function*(method: string, effect: Effect.Effect<unknown, unknown>) {
        const reason = yield* expectNotFound(effect)
        assert.deepInclude(reason, { method, code: -32600 })
        assert.include(reason.detail, unknown)
      })
      yield* rejected("thread/resume", codex.resumeThread(unknown))
      yield* rejected("thread/fork", codex.forkThread(unknown))
      yield* rejected("thread/archive", codex.archiveThread(unknown))
      yield* rejected("thread/unarchive", codex.unarchiveThread(unknown))

      const caught = yield* codex.resumeThread(unknown).pipe(
        Effect.as("resumed"),
        Effect.catchReason("AppServerError", "ThreadNotFound", ({ state }) => Effect.succeed(state))
      )
      assert.strictEqual(caught, "unknown")
    }))

  it.effect("does not resume or fork a thread without a turn", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      assert.match((yield* expectNotFound(codex.resumeThread(thread.id))).detail, /no rollout found/)
      assert.match((yield* expectNotFound(codex.forkThread(thread.id))).detail, /no rollout found/)
    }))

  it.effect("rejects an option that the protocol does not have, and sends nothing", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      const before = yield* wire.sent
      // @ts-expect-error: an option of turns
      const failure = codex.startThread({ sandboxPolicy: { type: "readOnly" } }).pipe(
        Effect.as(undefined),
        Effect.catchReason("AppServerError", "InvalidRequest", (reason) => Effect.succeed(reason))
      )
      assert.include((yield* failure)?.description, "sandboxPolicy")
      assert.deepStrictEqual(yield* wire.sent, before)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Codex.listThreads", (it) => {
  it.effect("lists stored threads, newest first, and archived threads separately", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      assert.deepStrictEqual(yield* collectIds(codex.listThreads()), [])
      const first = yield* TestCodex.startStoredThread()
      const second = yield* TestCodex.startStoredThread()
      const third = yield* TestCodex.startStoredThread()
      yield* codex.startThread()
      const all = [third.id, second.id, first.id]

      assert.deepStrictEqual(yield* collectIds(codex.listThreads()), all)
      assert.deepStrictEqual(yield* collectIds(codex.listThreads({ sortDirection: "asc" })), all.toReversed())

      yield* codex.archiveThread(second.id)
      assert.deepStrictEqual(yield* collectIds(codex.listThreads()), [third.id, first.id])
      assert.deepStrictEqual(yield* collectIds(codex.listThreads({ archived: false })), [third.id, first.id])
      assert.deepStrictEqual(yield* collectIds(codex.listThreads({ archived: true })), [second.id])

      yield* codex.unarchiveThread(second.id)
      assert.sameMembers(yield* collectIds(codex.listThreads()), all)
      assert.deepStrictEqual(yield* collectIds(codex.listThreads({ archived: true })), [])
    }))

  it.effect("fetches a page only when the stream is pulled", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      yield* Effect.repeat(TestCodex.startStoredThread(), { times: 2 })
      const all = yield* collectIds(codex.listThreads())
      assert.isAtLeast(all.length, 3)
      const countPages = Effect.fnUntraced(function*(threads: Stream.Stream<{ readonly id: string }, unknown>) {
        const count = Effect.map(wire.sent, (sent) => sent.filter(({ method }) => method === "thread/list").length)
        const before = yield* count
        const ids = yield* collectIds(threads)
        return { ids, pages: (yield* count) - before }
      })

      assert.deepStrictEqual(yield* countPages(codex.listThreads({ limit: 1 })), { ids: all, pages: all.length })
      assert.deepStrictEqual(yield* countPages(codex.listThreads({ limit: 2 })), {
        ids: all,
        pages: Math.ceil(all.length / 2)
      })
      assert.deepStrictEqual(yield* countPages(Stream.take(codex.listThreads({ limit: 1 }), 1)), {
        ids: all.slice(0, 1),
        pages: 1
      })
      assert.deepStrictEqual(yield* countPages(Stream.take(codex.listThreads({ limit: 1 }), 2)), {
        ids: all.slice(0, 2),
        pages: 2
      })
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Codex.layerStdio", (it) => {
  const stdio = Effect.fnUntraced(function*(options?: Codex.StdioOptions) {
    const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
    return Codex.layerStdio({
      cwd: workspace,
      codexPath: TestCodex.codexPath,
      ...options,
      env: { ...env, ...options?.env }
    })
  })

  const sayHello = Effect.gen(function*() {
    const codex = yield* Codex.Codex
    const model = yield* ModelServer.ModelServer
    yield* model.enqueue(ModelServer.text("hello"))
    const thread = yield* codex.startThread()
    return { thread: yield* thread.read(), result: yield* thread.run("say hello") }
  })

  it.effect("starts a process in the given directory, with the given environment and configuration", () =>
    Effect.gen(function*() {
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const said = yield* sayHello.pipe(
        Effect.provide(
          yield* stdio({
            cwd: root,
            clientInfo: { name: "a client", title: null, version: "1.2.3" },
            config: { model: "configured-model", "model_providers.mock_provider.http_headers": { "x-test": "a b" } }
          })
        )
      )
      assert.strictEqual(said.result.finalResponse, "hello")
      assert.strictEqual(said.thread.cwd, root)
      const request = (yield* TestCodex.getRequests(said.thread.id))[0]
      assert.strictEqual(request?.body["model"], "configured-model")
      assert.strictEqual(request?.header("x-test"), "a b")
      const userAgent = request?.header("user-agent") ?? ""
      assert.isTrue(userAgent.startsWith(`a client/${TestCodex.version} `), userAgent)
      assert.match(userAgent, /\(a client; 1\.2\.3\)$/)
    }))

  it.effect("starts a process for each layer, also where one is provided inside another", () =>
    Effect.gen(function*() {
      const named = (name: string) => stdio({ clientInfo: { name, title: null, version: "1.2.3" } })
      const [outer, inner] = yield* Effect.all([named("outer"), named("inner")])
      const here = Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const server = yield* AppServer.AppServer
        const { thread } = yield* sayHello
        return {
          names: [codex.metadata.serverName, server.metadata.serverName],
          threadId: thread.id,
          loaded: (yield* server.request("thread/loaded/list", {})).data
        }
      })
      const both = Effect.gen(function*() {
        return { inner: yield* Effect.provide(here, inner), outer: yield* here }
      })
      const said = yield* Effect.provide(both, outer)
      assert.deepStrictEqual(said.inner.names, ["inner", "inner"])
      assert.deepStrictEqual(said.outer.names, ["outer", "outer"])
      assert.deepStrictEqual(said.inner.loaded, [said.inner.threadId])
      assert.deepStrictEqual(said.outer.loaded, [said.outer.threadId])
    }))

  it.effect("starts several processes and their threads concurrently", () =>
    Effect.gen(function*() {
      const all = yield* Effect.forEach(["first", "second", "third"], (name) =>
        Effect.flatMap(
          stdio({ clientInfo: { name, title: null, version: "1.2.3" } }),
          (layer) =>
            Effect.gen(function*() {
              const codex = yield* Codex.Codex
              const thread = yield* codex.startThread()
              return { ...codex.metadata, threadId: thread.id }
            }).pipe(Effect.provide(layer, { local: true }))
        ), { concurrency: "unbounded" })
      assert.deepStrictEqual(all.map(({ serverName }) => serverName), ["first", "second", "third"])
      assert.deepStrictEqual(new Set(all.map(({ serverVersion }) => serverVersion)), new Set([TestCodex.version]))
      assert.strictEqual(new Set(all.map(({ threadId }) => threadId)).size, 3)
    }))

  it.effect("resumes a thread with its history in a second process after the first has exited", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const first = yield* sayHello.pipe(Effect.provide(yield* stdio()))
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        assert.include(yield* collectIds(codex.listThreads()), first.thread.id)
        const resumed = yield* codex.resumeThread(first.thread.id)
        yield* model.enqueue(ModelServer.text("still here"))
        assert.strictEqual((yield* resumed.run("and now?")).finalResponse, "still here")
      }).pipe(Effect.provide(yield* stdio()))
      const request = (yield* TestCodex.getRequests(first.thread.id)).at(-1)
      assert.deepStrictEqual(request?.userTexts.slice(-2), ["say hello", "and now?"])
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["hello"])
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })(
  "Codex.listThreads in a home of several programs",
  (it) => {
    it.effect("lists the threads of all providers and of codex exec, without archived threads", () =>
      Effect.scoped(Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
        yield* model.respond((request) =>
          request.lastUserText === "delegate"
            ? TestCodex.delegate(request, { message: "help" })
            : ModelServer.text("done")
        )
        const startIn = Effect.fnUntraced(function*(options: Codex.StdioOptions) {
          const services = yield* Layer.build(TestCodex.layerProcess(options))
          const codex = Context.get(services, Codex.Codex)
          const thread = yield* codex.startThread()
          yield* thread.run("store me")
          return { codex, id: thread.id }
        })
        const mine = yield* startIn({})
        const other = yield* startIn({
          config: {
            model_provider: "other",
            model_providers: { other: { name: "Other", base_url: model.url, wire_api: "responses" } }
          }
        })
        const archived = yield* startIn({})
        yield* archived.codex.archiveThread(archived.id)
        const parent = yield* mine.codex.startThread()
        yield* parent.run("delegate")
        const spawner = yield* ChildProcessSpawner
        const exec = yield* spawner.exitCode(
          ChildProcess.make(
            TestCodex.codexPath ?? (yield* codexBinary),
            ["exec", "--skip-git-repo-check", "store me too"],
            { cwd: workspace, env, extendEnv: true, stdin: "ignore", stdout: "ignore", stderr: "ignore" }
          )
        )
        assert.strictEqual(exec, 0)

        const list = (options?: Codex.ListOptions) => Stream.runCollect(mine.codex.listThreads(options))
        const all = yield* list()
        assert.includeMembers(all.map(({ id }) => id), [mine.id, other.id, parent.id])
        assert.sameMembers(all.map(({ source }) => source), ["vscode", "vscode", "vscode", "exec"])
        const subAgents = yield* list({ sourceKinds: ["subAgent", "subAgentThreadSpawn"] })
        assert.lengthOf(subAgents, 1)
        // These are the filters that the server applies by default.
        assert.deepStrictEqual(
          (yield* list({ modelProviders: ["mock_provider"], sourceKinds: [] })).map(({ id }) => id),
          [parent.id, mine.id]
        )
        assert.deepStrictEqual((yield* list({ archived: true })).map(({ id }) => id), [archived.id])
        assert.lengthOf(yield* list({ modelProviders: null, sourceKinds: null }), 4)
      })))
  }
)

// The compiler checks these tests.
describe("Options of startThread, resumeThread and forkThread", () => {
  class A extends Context.Service<A, "a">()("test/A") {}
  class B extends Context.Service<B, "b">()("test/B") {}
  class C extends Context.Service<C, "c">()("test/C") {}

  const approvals = { command: () => Effect.as(A, Approvals.accept) }
  const questions = { elicitation: () => Effect.as(B, Questions.decline) }
  const tools = [Tool.make("c", { description: "Reads C", handler: () => C })]

  type Services<F extends (codex: Codex.Codex["Service"]) => Effect.Effect<unknown, unknown, unknown>> =
    Effect.Services<
      ReturnType<F>
    >

  it("require the services of their handlers", () => {
    const startPlain = (codex: Codex.Codex["Service"]) => codex.startThread({ model: "m" })
    const startApprovals = (codex: Codex.Codex["Service"]) => codex.startThread({ approvals })
    const startTools = (codex: Codex.Codex["Service"]) => codex.startThread({ tools })
    const start = (codex: Codex.Codex["Service"]) => codex.startThread({ approvals, questions, tools })
    const resume = (codex: Codex.Codex["Service"]) => codex.resumeThread("t", { approvals, questions, tools })
    const fork = (codex: Codex.Codex["Service"]) => codex.forkThread("t", { approvals, questions, tools })
    expectTypeOf<Services<typeof startPlain>>().toEqualTypeOf<never>()
    expectTypeOf<Services<typeof startApprovals>>().toEqualTypeOf<A>()
    expectTypeOf<Services<typeof startTools>>().toEqualTypeOf<C>()
    expectTypeOf<Services<typeof start>>().toEqualTypeOf<A | B | C>()
    expectTypeOf<Services<typeof resume>>().toEqualTypeOf<A | B | C>()
    expectTypeOf<Services<typeof fork>>().toEqualTypeOf<A | B | C>()
  })

  it("do not accept a misspelled option or handler", () => {
    const start = (codex: Codex.Codex["Service"]) => [
      // @ts-expect-error: aprovals
      codex.startThread({ aprovals: approvals }),
      // @ts-expect-error: comand
      codex.startThread({ approvals: { ...approvals, comand: approvals.command } }),
      // @ts-expect-error: elicitatoin
      codex.resumeThread("t", { questions: { ...questions, elicitatoin: questions.elicitation } }),
      // @ts-expect-error: a tool by its name
      codex.forkThread("t", { tools: ["c"] })
    ]
    assert.isFunction(start)
  })
})
