import { assert, describe, it } from "@effect/vitest"
import { AppServer, AppServerError, Codex, Protocol } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as Fake from "./FakeTransport.ts"

const layerServer = (versions: ReadonlyArray<string>, options?: AppServer.Options) =>
  Layer.provideMerge(AppServer.layer(options), Fake.layerOf(...versions))

/** Connects, and returns the exit and the log. */
const connect = Effect.fnUntraced(function*(version: string, options?: AppServer.Options) {
  const logs: Array<string> = []
  const exit = yield* Effect.exit(Effect.scoped(Layer.build(layerServer([version], options)))).pipe(
    Effect.provide(Logger.layer([Logger.make(({ logLevel, message }) => void logs.push(`${logLevel} ${message}`))]))
  )
  return { exit, logs }
})

describe("Server version", () => {
  for (const version of ["0.165.9", "0.165.0-alpha.1", "0.60.1", "0.162.1"]) {
    it.effect(`fails to connect to ${version}`, () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.scoped(Layer.build(layerServer([version]))))
        assert.deepInclude(error.reason, { _tag: "UnsupportedServer", serverVersion: version, floor: "0.166.0" })
        for (const part of [version, "0.166.0", "allowUnsupportedServer"]) assert.include(error.message, part)
      }))

    it.effect(`connects to ${version} with allowUnsupportedServer, and warns`, () =>
      Effect.gen(function*() {
        const { exit, logs } = yield* connect(version, { allowUnsupportedServer: true })
        assert.isTrue(Exit.isSuccess(exit))
        assert.lengthOf(logs, 1)
        assert.include(logs[0], `Warn Connected to codex app-server \`${version}\`,`)
        assert.include(logs[0], "permissions")
      }))
  }

  for (const version of ["0.166.0", "0.166.0-alpha.1", "0.168.2", "0.169.0-alpha.3", "0.170.0", "1.0.0"]) {
    it.effect(`connects to ${version}, and warns that the protocol was generated from another version`, () =>
      Effect.gen(function*() {
        const { exit, logs } = yield* connect(version)
        assert.isTrue(Exit.isSuccess(exit))
        assert.lengthOf(logs, 1)
        for (const part of ["Warn", version, Protocol.version]) assert.include(logs[0], part)
      }))
  }

  for (const version of [Protocol.version, "0.0.0", "0.0.0-dev", "dev", "2026-11-25", "0.166"]) {
    it.effect(`connects to ${version} without a warning`, () =>
      Effect.gen(function*() {
        const { exit, logs } = yield* connect(version)
        assert.isTrue(Exit.isSuccess(exit))
        assert.deepStrictEqual(logs, [])
      }))
  }

  const restart = Schedule.recurs(2)

  it.effect("is checked again after each restart", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      yield* fake.end()
      yield* Stream.runDrain(server.states)
      const { reason } = yield* Effect.flip(server.request("model/list"))
      assert(reason._tag === "RestartsExhausted")
      assert.isTrue(AppServerError.isAppServerError(reason.cause))
      assert.include(reason.message, "Version `0.150.0` of codex app-server is not supported")
    }).pipe(Effect.provide(layerServer(["0.169.0", "0.150.0"], { restart }))))

  it.effect("is logged once across several restarts", () => {
    const logs: Array<string> = []
    return Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const server = yield* AppServer.AppServer
      const restarted = Stream.runHead(
        Stream.filter(server.notifications, ({ method }) => (method as string) === "effect-codex/restarted")
      )
      for (let i = 0; i < 2; i++) {
        yield* Effect.all([restarted, fake.end()], { concurrency: "unbounded" })
      }
      assert.lengthOf(logs, 1)
    }).pipe(
      Effect.provide(layerServer(["0.168.0", "0.167.0", "0.170.0"], { restart: Schedule.recurs(5) })),
      Effect.provide(Logger.layer([Logger.make(({ message }) => void logs.push(String(message)))]))
    )
  })
})

describe("Versions in an error", () => {
  const layerCodex = (version: string) => Layer.provideMerge(Codex.layer, layerServer([version]))
  const both = { serverVersion: "0.167.2", protocolVersion: Protocol.version }
  const shown = `(codex app-server is 0.167.2; this version of effect-codex was generated from ${Protocol.version})`

  /** Responds to the next request with a method. */
  const respond = Effect.fnUntraced(function*(method: string, response: object) {
    const fake = yield* Fake.FakeTransport
    const { id } = yield* fake.takeMethod(method)
    yield* fake.emit({ id, ...response })
  })

  /** Runs an effect that fails with an `AppServerError`, and responds to its requests. */
  const expectError = Effect.fnUntraced(function*<A, R>(
    effect: Effect.Effect<A, unknown, R>,
    ...responses: ReadonlyArray<readonly [method: string, response: object]>
  ) {
    const fiber = yield* Effect.forkChild(Effect.result(effect))
    for (const [method, response] of responses) yield* respond(method, response)
    const result = yield* Fiber.join(fiber)
    assert(Result.isFailure(result) && AppServerError.isAppServerError(result.failure))
    return result.failure
  })

  const rejected = { error: { code: -32600, message: "no such model" } }
  const started = (settings: object) => ({ result: Fake.threadResponse("t", settings) })
  const strict = { approvalPolicy: "never", approvalsReviewer: "user" } as const

  const failures: ReadonlyArray<
    readonly [
      name: string,
      tag: AppServerError.AppServerErrorReason["_tag"],
      fails: Effect.Effect<AppServerError.AppServerError, never, Codex.Codex | AppServer.AppServer | Fake.FakeTransport>
    ]
  > = [
    [
      "a request that is rejected",
      "RequestRejected",
      Effect.flatMap(
        AppServer.AppServer,
        (server) => expectError(server.request("model/list"), ["model/list", rejected])
      )
    ],
    [
      "a request that is rejected when a thread is started",
      "RequestRejected",
      Effect.flatMap(Codex.Codex, (codex) => expectError(codex.startThread(), ["thread/start", rejected]))
    ],
    [
      "a response that cannot be read",
      "DecodeFailed",
      Effect.flatMap(
        AppServer.AppServer,
        (server) => expectError(server.request("thread/loaded/list", {}), ["thread/loaded/list", { result: {} }])
      )
    ],
    [
      "a thread that cannot be read",
      "DecodeFailed",
      Effect.flatMap(Codex.Codex, (codex) => expectError(codex.resumeThread("t"), ["thread/resume", { result: {} }]))
    ],
    [
      "a page that cannot be read",
      "DecodeFailed",
      Effect.flatMap(
        Codex.Codex,
        (codex) => expectError(Stream.runDrain(codex.listThreads()), ["thread/list", { result: {} }])
      )
    ],
    [
      "a turn that cannot be read",
      "DecodeFailed",
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const opening = yield* Effect.forkChild(codex.resumeThread("t"))
        yield* respond("thread/resume", started({}))
        const thread = yield* Effect.orDie(Fiber.join(opening))
        return yield* expectError(thread.run("go"), ["turn/start", { result: {} }])
      })
    ],
    [
      "the end of a turn that cannot be read",
      "DecodeFailed",
      Effect.gen(function*() {
        const fake = yield* Fake.FakeTransport
        const codex = yield* Codex.Codex
        const opening = yield* Effect.forkChild(codex.resumeThread("t"))
        yield* respond("thread/resume", started({}))
        const thread = yield* Effect.orDie(Fiber.join(opening))
        const run = yield* Effect.forkChild(expectError(thread.run("go")))
        yield* respond("turn/start", { result: { turn: Fake.turn("u") } })
        yield* fake.emit(Fake.turnCompleted("t", "u", "vanished"))
        return yield* Fiber.join(run)
      })
    ],
    [
      "a setting that is not applied",
      "SettingsNotApplied",
      Effect.flatMap(Codex.Codex, (codex) => expectError(codex.startThread(strict), ["thread/start", started({})]))
    ]
  ]

  for (const [name, tag, fails] of failures) {
    it.effect(`are present and in the message for ${name}`, () =>
      Effect.gen(function*() {
        const { message, reason } = yield* fails
        assert.deepInclude(reason, { _tag: tag, ...both })
        assert.include(message, shown)
      }).pipe(Effect.provide(layerCodex("0.167.2"))))

    it.effect(`are present and not in the message for ${name} if they are equal`, () =>
      Effect.gen(function*() {
        const { message, reason } = yield* fails
        assert.deepInclude(reason, { _tag: tag, serverVersion: Protocol.version, protocolVersion: Protocol.version })
        assert.notInclude(message, Protocol.version)
      }).pipe(Effect.provide(layerCodex(Protocol.version))))
  }

  const notApplied = (method: "thread/start" | "thread/resume" | "thread/fork", settings: object) =>
    Effect.flatMap(Codex.Codex, (codex) => {
      const opened = {
        "thread/start": () => codex.startThread(strict),
        "thread/resume": () => codex.resumeThread("t", strict),
        "thread/fork": () => codex.forkThread("t", strict)
      }
      return Effect.map(expectError(opened[method](), [method, started(settings)]), ({ message }) => message)
    })

  it.effect("follow an explanation for the method and the reported setting", () =>
    Effect.gen(function*() {
      const resumed = yield* notApplied("thread/resume", {})
      assert.include(
        resumed,
        "Request `thread/resume` set `approvalPolicy` to \"never\", but thread `t` has \"on-request\""
      )
      assert.include(resumed, "A loaded thread keeps its settings")
      const start = yield* notApplied("thread/start", {})
      assert.include(start, "requirements of the server")
      const fork = yield* notApplied("thread/fork", {})
      assert.include(fork, "Archive it")
      for (const other of [start, fork]) assert.notInclude(other, "loaded thread")
      for (const method of ["thread/start", "thread/resume", "thread/fork"] as const) {
        const unreported = yield* notApplied(method, { approvalPolicy: undefined })
        assert.include(
          unreported,
          `Request \`${method}\` set \`approvalPolicy\` to "never", but the server does not report`
        )
        for (const wrong of ["undefined", "loaded thread", "has"]) {
          assert.notInclude(unreported.split("(")[0], ` ${wrong} `)
        }
      }
    }).pipe(Effect.provide(layerCodex(Protocol.version))))
})

describe("Server below the floor", () => {
  it.effect("lists threads and models and runs a turn, although it omits fields", () =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      const codex = yield* Codex.Codex
      const list = Effect.fnUntraced(function*<A extends { readonly id: string }, E>(
        method: string,
        entries: Stream.Stream<A, E>
      ) {
        const all = yield* Effect.forkChild(Stream.runCollect(entries))
        yield* fake.reply(yield* fake.takeMethod(method), {
          data: [{ id: "a", model: "a" }, { id: "b", model: "b", preview: "hi" }]
        })
        return (yield* Fiber.join(all)).map(({ id }) => id)
      })
      assert.deepStrictEqual(yield* list("thread/list", codex.listThreads()), ["a", "b"])
      assert.deepStrictEqual(yield* list("model/list", codex.models()), ["a", "b"])

      const opening = yield* Effect.forkChild(codex.startThread())
      const { approvalPolicy, approvalsReviewer } = Fake.threadResponse("t")
      yield* fake.reply(yield* fake.takeMethod("thread/start"), {
        thread: { id: "t" },
        approvalPolicy,
        approvalsReviewer
      })
      const thread = yield* Fiber.join(opening)
      const events = yield* Effect.forkChild(Stream.runCollect(thread.stream("go")))
      yield* fake.reply(yield* fake.takeMethod("turn/start"), { turn: { id: "u" } })
      const item = { type: "agentMessage", id: "i", text: "hello" }
      yield* fake.emit(
        { method: "item/started", params: { threadId: "t", turnId: "u", item } },
        { method: "item/completed", params: { threadId: "t", turnId: "u", item } },
        { method: "turn/completed", params: { threadId: "t", turn: { id: "u", status: "completed", items: [] } } }
      )
      assert.deepStrictEqual<ReadonlyArray<string>>((yield* Fiber.join(events)).map(({ method }) => method), [
        "item/started",
        "item/completed",
        "turn/completed"
      ])
    }).pipe(
      Effect.provide(Layer.provideMerge(Codex.layer, layerServer(["0.60.1"], { allowUnsupportedServer: true })))
    ))
})
