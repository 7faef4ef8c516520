import { assert, layer } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as CodexEnvironment from "../src/testing/CodexEnvironment.ts"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as TestCodex from "./TestCodex.ts"

/** A thread that has had a turn, and so is stored. */
const storedThread = Effect.fnUntraced(function*(options?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const model = yield* ModelServer.ModelServer
  const thread = yield* codex.startThread(options)
  yield* model.enqueue(ModelServer.text("stored"))
  yield* thread.run("store me")
  return thread
})

const idsOf = <E, R>(threads: Stream.Stream<{ readonly id: string }, E, R>) =>
  Effect.map(Stream.runCollect(threads), (all) => all.map(({ id }) => id))

const rejection = Effect.fnUntraced(function*(effect: Effect.Effect<unknown, unknown>) {
  const reason = yield* TestCodex.reasonOf(effect)
  return reason._tag === "ThreadNotFound" ? reason.cause : yield* Effect.die(reason)
})

layer(TestCodex.layer(), { excludeTestServices: true })("Codex", (it) => {
  it.effect("knows the server it is connected to", () =>
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

  it.effect("starts threads of their own, in the directory and on the model asked for", () =>
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
      assert.strictEqual((yield* TestCodex.requestsOf(first.id))[0]?.body["model"], "mock-model")
      assert.strictEqual((yield* TestCodex.requestsOf(second.id))[0]?.body["model"], "another-model")
    }))

  it.effect("a resumed thread goes on with its history", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* storedThread()
      const resumed = yield* codex.resumeThread(thread.id)
      assert.strictEqual(resumed.id, thread.id)
      yield* model.enqueue(ModelServer.text("again"))
      assert.strictEqual((yield* resumed.run("and again")).finalResponse, "again")
      const request = (yield* TestCodex.requestsOf(thread.id)).at(-1)
      assert.deepStrictEqual(request?.userTexts.slice(-2), ["store me", "and again"])
      assert.deepStrictEqual(request?.messageTexts("assistant"), ["stored"])
    }))

  it.effect("a fork has the history of its source, and from then on each goes its own way", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const source = yield* storedThread()
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
      assert.lengthOf(yield* TestCodex.turnsOf(source.id), 2)
      assert.lengthOf(yield* TestCodex.turnsOf(forked.id), 2)
    }))

  it.effect("archiving unloads a thread until it is unarchived and resumed", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const thread = yield* storedThread()

      yield* codex.archiveThread(thread.id)
      for (const effect of [Effect.asVoid(thread.run("archived")), Effect.asVoid(codex.resumeThread(thread.id))]) {
        assert.deepInclude(yield* TestCodex.reasonOf(effect), { _tag: "ThreadNotFound", state: "archived" })
      }

      yield* codex.unarchiveThread(thread.id)
      const resumed = yield* codex.resumeThread(thread.id)
      yield* model.enqueue(ModelServer.text("back"))
      assert.strictEqual((yield* resumed.run("are you back?")).finalResponse, "back")
    }))

  it.effect("lists the models of the catalogue", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const models = yield* Stream.runCollect(codex.models())
      assert.deepStrictEqual(models.map(({ displayName, id }) => ({ displayName, id })), [
        { displayName: "Mock", id: "mock-model" }
      ])
    }))

  it.effect("an unknown thread is not found, and the words of the server are kept", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const unknown = "01a2034c-0000-7000-8000-000000000000"
      const rejected = Effect.fnUntraced(function*(method: string, effect: Effect.Effect<unknown, unknown>) {
        const reason = yield* rejection(effect)
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

  it.effect("a thread without a turn cannot be resumed or forked", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      assert.match((yield* rejection(codex.resumeThread(thread.id))).detail, /no rollout found/)
      assert.match((yield* rejection(codex.forkThread(thread.id))).detail, /no rollout found/)
    }))

  it.effect("an option that the protocol does not have is refused, and nothing is sent", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      const before = yield* wire.sent
      const failure = codex.startThread({ sandboxPolicy: { type: "readOnly" } } as Codex.StartOptions).pipe(
        Effect.as(undefined),
        Effect.catchReason("AppServerError", "InvalidRequest", (reason) => Effect.succeed(reason))
      )
      assert.include((yield* failure)?.description, "sandboxPolicy")
      assert.deepStrictEqual(yield* wire.sent, before)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Codex.listThreads", (it) => {
  it.effect("lists stored threads, newest first, and archived ones apart", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      assert.deepStrictEqual(yield* idsOf(codex.listThreads()), [])
      const first = yield* storedThread()
      const second = yield* storedThread()
      const third = yield* storedThread()
      yield* codex.startThread()
      const all = [third.id, second.id, first.id]

      assert.deepStrictEqual(yield* idsOf(codex.listThreads()), all)
      assert.deepStrictEqual(yield* idsOf(codex.listThreads({ sortDirection: "asc" })), all.toReversed())

      yield* codex.archiveThread(second.id)
      assert.deepStrictEqual(yield* idsOf(codex.listThreads()), [third.id, first.id])
      assert.deepStrictEqual(yield* idsOf(codex.listThreads({ archived: false })), [third.id, first.id])
      assert.deepStrictEqual(yield* idsOf(codex.listThreads({ archived: true })), [second.id])

      yield* codex.unarchiveThread(second.id)
      assert.sameMembers(yield* idsOf(codex.listThreads()), all)
      assert.deepStrictEqual(yield* idsOf(codex.listThreads({ archived: true })), [])
    }))

  it.effect("fetches a page when it is pulled, and no sooner", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      yield* Effect.repeat(storedThread(), { times: 2 })
      const all = yield* idsOf(codex.listThreads())
      assert.isAtLeast(all.length, 3)
      const pagesOf = Effect.fnUntraced(function*(threads: Stream.Stream<{ readonly id: string }, unknown>) {
        const count = Effect.map(wire.sent, (sent) => sent.filter(({ method }) => method === "thread/list").length)
        const before = yield* count
        const ids = yield* idsOf(threads)
        return { ids, pages: (yield* count) - before }
      })

      assert.deepStrictEqual(yield* pagesOf(codex.listThreads({ limit: 1 })), { ids: all, pages: all.length })
      assert.deepStrictEqual(yield* pagesOf(codex.listThreads({ limit: 2 })), {
        ids: all,
        pages: Math.ceil(all.length / 2)
      })
      assert.deepStrictEqual(yield* pagesOf(Stream.take(codex.listThreads({ limit: 1 }), 1)), {
        ids: all.slice(0, 1),
        pages: 1
      })
      assert.deepStrictEqual(yield* pagesOf(Stream.take(codex.listThreads({ limit: 1 }), 2)), {
        ids: all.slice(0, 2),
        pages: 2
      })
    }))
})
