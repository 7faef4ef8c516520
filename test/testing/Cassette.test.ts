import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, layer } from "@effect/vitest"
import { AppServerError, Transport } from "effect-codex"
import * as Array from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Path from "effect/Path"
import * as PlatformError from "effect/PlatformError"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { TestClock } from "effect/testing"
import packageJson from "../../package.json" with { type: "json" }
import * as Cassette from "../../src/testing/Cassette.ts"
import { cassette, layerReplay, recordScenario, scenario } from "./cassetteScenario.ts"

type Json = Schema.Json

const header = {
  cassette: 1,
  sdk: "0.1.0",
  server: "0.169.0",
  recordedAt: "2026-01-01T00:00:00Z",
  redacted: [],
  paths: {}
}
const client = (message: Json, at = 0) => ({ direction: "client", at, message })
const server = (message: Json, at = 0) => ({ direction: "server", at, message })

/** A file path in a temporary directory. */
const temporaryFile = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  return path.join(yield* fs.makeTempDirectoryScoped(), "cassettes", "one.jsonl")
})

const writeLines = Effect.fnUntraced(function*(...lines: ReadonlyArray<string | object>) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const file = yield* temporaryFile
  yield* fs.makeDirectory(path.dirname(file))
  yield* fs.writeFileString(
    file,
    lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line) + "\n")).join("")
  )
  return file
})

const readLines = Effect.fnUntraced(function*(path: string) {
  const fs = yield* FileSystem.FileSystem
  return (yield* fs.readFileString(path)).trimEnd().split("\n").map((line) => JSON.parse(line))
})

/** Opens a connection whose lines a test takes one by one. */
const open = Effect.gen(function*() {
  const transport = yield* Transport.Transport
  const connection = yield* transport.connect
  const lines = yield* Queue.unbounded<string, AppServerError.AppServerError | Cause.Done>()
  yield* connection.incoming.pipe(
    Stream.runForEach((line) => Queue.offer(lines, line)),
    Effect.matchCauseEffect({
      onSuccess: () => Queue.end(lines),
      onFailure: (cause) => Queue.failCause(lines, cause)
    }),
    Effect.forkScoped
  )
  return {
    send: (message: Json) => connection.send(JSON.stringify(message)),
    sendLine: connection.send,
    take: Effect.map(Queue.take(lines), (line): any => JSON.parse(line)),
    takeLine: Queue.take(lines),
    /** Takes all lines, after every fiber that can run has run. */
    rest: Effect.andThen(Effect.repeat(Effect.yieldNow, { times: 50 }), Queue.clear(lines)).pipe(
      Effect.map((all) => all.map((line): any => JSON.parse(line)))
    ),
    failure: Effect.flip(Effect.forever(Queue.take(lines))).pipe(
      Effect.flatMap((error) =>
        AppServerError.isAppServerError(error) ? Effect.succeed(error.reason) : Effect.die(error)
      )
    )
  }
})

/** Makes an end for every connection that the lines leave open. */
const closeConnections = (lines: ReadonlyArray<string | object>): ReadonlyArray<object> => {
  const connections = new Set<number>()
  const ended = new Set<number>()
  for (const line of lines) {
    if (typeof line === "string") continue
    const { connection = 0, direction } = line as { readonly connection?: number; readonly direction?: string }
    connections.add(connection)
    if (direction === "end") ended.add(connection)
  }
  return [...connections].filter((connection) => !ended.has(connection)).map((connection) => ({
    direction: "end",
    connection,
    at: 0,
    by: "client"
  }))
}

/** Replays the lines of a test. */
const replayLines = Effect.fnUntraced(function*(
  lines: ReadonlyArray<string | object>,
  options?: Cassette.ReplayOptions
) {
  const path = yield* writeLines(header, ...lines, ...closeConnections(lines))
  const context = yield* Layer.build(Cassette.replay(path, options))
  return yield* open.pipe(Effect.provide(context))
})

const toMismatch = (reason: AppServerError.AppServerErrorReason): Cassette.CassetteMismatch => {
  assert(reason._tag === "ConnectionClosed")
  assert.instanceOf(reason.cause, Cassette.CassetteMismatch)
  assert.include(reason.description, reason.cause.diff)
  return reason.cause
}

const collectLogs = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const seen: Array<string> = []
    return effect.pipe(
      Effect.provide(Logger.layer([Logger.make(({ message }) => seen.push(String(message)))])),
      Effect.map((value) => [value, seen] as const)
    )
  })

const request = (id: number, method: string, params: Json = {}) => ({ id, method, params })
const notification = (method: string, params: Json = {}) => ({ method, params, emittedAtMs: 1 })
const opened = (id: number, thread: string) => ({ id, result: { thread: { id: thread, sessionId: thread } } })
const started = (thread: string) => notification("thread/started", { thread: { id: thread } })
const turnStart = (id: number, threadId: string, text: string) =>
  request(id, "turn/start", { threadId, input: [{ type: "text", text }] })

// ---------------------------------------------------------------------------------------------------------------------
// A transport whose server side is the test
// ---------------------------------------------------------------------------------------------------------------------

class Scripted extends Context.Service<Scripted, {
  readonly emit: (...lines: ReadonlyArray<string>) => Effect.Effect<void>
  readonly end: (error?: AppServerError.AppServerError) => Effect.Effect<void>
}>()("effect-codex/test/Scripted") {}

const layerScripted = Layer.effectContext(Effect.gen(function*() {
  const lines = yield* Queue.unbounded<string, AppServerError.AppServerError | Cause.Done>()
  return Context.make(Scripted, {
    emit: (...emitted) => Effect.asVoid(Queue.offerAll(lines, emitted)),
    end: (error) => Effect.asVoid(error === undefined ? Queue.end(lines) : Queue.fail(lines, error))
  }).pipe(Context.add(Transport.Transport, {
    connect: Effect.succeed({ incoming: Stream.fromQueue(lines), send: () => Effect.void })
  }))
}))

type SentLine = { readonly by: "client" | "server"; readonly line: string }

/** Records messages one by one, and returns those that the client received. */
const recordMessages = Effect.fnUntraced(function*(
  path: string,
  messages: ReadonlyArray<SentLine>,
  options?: Cassette.RecordOptions,
  end?: (scripted: Scripted["Service"]) => Effect.Effect<void>
) {
  return yield* Effect.gen(function*() {
    const scripted = yield* Scripted
    const connection = yield* open
    const received: Array<string> = []
    for (const { by, line } of messages) {
      if (by === "client") yield* connection.sendLine(line)
      else {
        yield* scripted.emit(line)
        received.push(yield* connection.takeLine)
      }
    }
    if (end !== undefined) {
      yield* end(scripted)
      yield* Effect.exit(connection.takeLine)
    }
    return received
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.provideMerge(Cassette.record(path, options), Layer.fresh(layerScripted)))
  )
})

layer(NodeServices.layer)("Cassette.record", (it) => {
  it.effect("writes a header, and a line with direction and time for every message", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const userAgent = "test/0.169.0 (Debian) xterm (test; 1)"
      yield* Effect.gen(function*() {
        const scripted = yield* Scripted
        const connection = yield* open
        yield* connection.send(request(1, "initialize"))
        yield* TestClock.adjust("30 millis")
        yield* scripted.emit(JSON.stringify({ id: 1, result: { userAgent } }), "not { json")
        yield* connection.takeLine
        yield* TestClock.adjust("12 millis")
        yield* connection.send({ method: "initialized" })
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Cassette.record(path, { redact: { fields: ["pet"] }, paths: { home: "/h" } }).pipe(
            Layer.provideMerge(layerScripted)
          )
        )
      )
      const [first, ...rest] = yield* readLines(path)
      assert.deepStrictEqual(first, {
        cassette: 1,
        sdk: packageJson.version,
        server: "0.169.0",
        recordedAt: "1970-01-01T00:00:00.000Z",
        redacted: ["pet"],
        paths: { home: "/h" }
      })
      assert.deepStrictEqual(rest, [
        { direction: "client", at: 0, message: request(1, "initialize") },
        { direction: "server", at: 30, message: { id: 1, result: { userAgent } } },
        { direction: "server", at: 30, text: "not { json" },
        { direction: "client", at: 42, message: { method: "initialized" } },
        { direction: "end", at: 42, by: "client" }
      ])
      for (const line of rest) Schema.decodeUnknownSync(Cassette.Entry)(line)
      Schema.decodeUnknownSync(Cassette.Header)(first)
    }))

  it.effect("redacts secrets in every position before it writes", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const secret = (name: string) => `SENTINEL${name}`
      const quoted = "SENTINEL\"quoted"
      const messages: ReadonlyArray<SentLine> = [
        request(1, "account/login/start", { type: "apiKey", apiKey: secret("1") }),
        request(2, "account/login/start", { accessToken: secret("2"), nested: { refresh_token: secret("3") } }),
        request(3, "turn/start", { input: [{ type: "text", text: `Authorization: Bearer ${secret("4")}` }] }),
        request(4, "turn/start", { input: [{ type: "text", text: `it is sk-${secret("5")} and so on` }] }),
        request(5, "x", { pet: { names: [secret("6"), 20260101], [secret("7value")]: true } }),
        request(6, "x", { text: `given ${secret("8value")}`, json: JSON.stringify({ key: quoted }) }),
        request(7, "x", { arguments: JSON.stringify({ pet: secret("9"), clientSecret: secret("10") }) }),
        request(8, "x", { arguments: JSON.stringify({ inner: JSON.stringify({ apiKey: secret("11") }) }) }),
        request(9, "x", { text: `token=\u001b[31m${secret("12")}\u001b[0m` }),
        { id: 9, error: { code: 1, message: `password: ${secret("13")}` } }
      ].map((message) => ({ by: "client", line: JSON.stringify(message) }))
      yield* recordMessages(
        path,
        [
          ...messages,
          ...messages.map(({ line }): SentLine => ({ by: "server", line })),
          { by: "server", line: `{"apiKey":"${secret("14")}` },
          { by: "client", line: `{"pet": "${secret("15")} with more` }
        ],
        {
          redact: {
            fields: ["pet"],
            values: [secret("7value"), Redacted.make(secret("8value")), Redacted.make(quoted)]
          }
        },
        (scripted) =>
          scripted.end(AppServerError.make(
            new AppServerError.ConnectionClosed({
              description: "gone",
              exitCode: 1,
              signal: undefined,
              stderrTail: `api_key=${secret("16")}`
            })
          ))
      )
      const text = yield* Effect.flatMap(FileSystem.FileSystem, (fs) => fs.readFileString(path))
      assert.notInclude(text, "SENTINEL")
      assert.notInclude(text, "20260101")
      assert.include(text, "<redacted>")
    }))

  it.effect("keeps token counts, ids and colors", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const message = notification("x", {
        tokenUsage: { totalTokens: 3, inputTokens: 1 },
        id: "01a20375-f288-7111-9546-ce561319ead5",
        output: "\u001b[31mred\u001b[0m",
        apiKey: null,
        text: "tokens: 5"
      })
      yield* recordMessages(path, [{ by: "server", line: JSON.stringify(message) }])
      assert.deepStrictEqual((yield* readLines(path))[1].message, message)
    }))

  it.effect("has every line on disk when the connection's scope closes, also by interruption", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const context = yield* Layer.build(Layer.provideMerge(Cassette.record(path), layerScripted))
      const sent = yield* Effect.gen(function*() {
        const connection = yield* open
        for (let id = 0; id < 500; id++) yield* connection.send(request(id, "x", { text: "y".repeat(1000) }))
        return yield* Effect.never
      }).pipe(Effect.scoped, Effect.provide(context), Effect.forkChild({ startImmediately: true }))
      yield* Fiber.interrupt(sent)
      const lines = yield* readLines(path)
      assert.lengthOf(lines, 502)
      assert.deepInclude(lines.at(-1), { direction: "end", by: "client" })
    }))

  it.effect("fails with CassetteError if the file cannot be opened", () =>
    Effect.gen(function*() {
      const file = yield* writeLines("in the way")
      const error = yield* Layer.build(Cassette.record(`${file}/below.jsonl`).pipe(Layer.provide(layerScripted))).pipe(
        Effect.scoped,
        Effect.flip
      )
      assert.strictEqual(error._tag, "CassetteError")
      assert.include(error.message, "The file cannot be written")
    }))

  it.effect("logs a full disk and keeps the connection open", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const fs = yield* FileSystem.FileSystem
      const full = PlatformError.systemError({
        _tag: "Unknown",
        module: "FileSystem",
        method: "writeAll",
        description: "ENOSPC"
      })
      const [received, seen] = yield* recordMessages(
        path,
        Array.makeBy(20, (n): SentLine => ({ by: n % 2 === 0 ? "client" : "server", line: `{"n":${n}}` }))
      ).pipe(
        Effect.provideService(FileSystem.FileSystem, {
          ...fs,
          open: (path, options) =>
            Effect.map(fs.open(path, options), (file) =>
              new Proxy(file, {
                get: (target, key) => key === "writeAll" ? () => Effect.fail(full) : Reflect.get(target, key, target)
              }))
        }),
        collectLogs
      )
      assert.lengthOf(received, 10)
      assert.lengthOf(seen, 1)
      assert.include(seen[0], "ENOSPC")
    }))
})

layer(NodeServices.layer)("Cassette.replay", (it) => {
  const messageId = Schema.Literals([0, 1, 2, "a"])
  const method = Schema.Literals(["x", "initialize", "turn/start"])

  it.effect.prop(
    "replays every recorded conversation (law)",
    {
      messages: Schema.Array(Schema.Struct({
        by: Schema.Literals(["client", "server"]),
        message: Schema.Union([
          Schema.Struct({ id: messageId, method, params: Schema.Json }),
          Schema.Struct({ method, params: Schema.Json }),
          Schema.Struct({ id: messageId, result: Schema.Json }),
          Schema.Json
        ])
      }))
    },
    ({ messages }) =>
      Effect.gen(function*() {
        const path = yield* temporaryFile
        const lines = messages.map(({ by, message }): SentLine => ({ by, line: JSON.stringify(message) }))
        const received = yield* recordMessages(path, lines)
        const replayed = yield* Effect.gen(function*() {
          const connection = yield* open
          const received: Array<string> = []
          for (const { by, line } of lines) {
            if (by === "client") yield* connection.sendLine(line)
            else received.push(yield* connection.takeLine)
          }
          return received
        }).pipe(Effect.scoped, Effect.provide(Cassette.replay(path)))
        assert.deepStrictEqual(replayed.map((line) => JSON.parse(line)), received.map((line) => JSON.parse(line)))
      }).pipe(Effect.scoped),
    { arbitrary: { runs: 100 } }
  )

  it.effect("sends a message only after the program has sent what precedes it", () =>
    Effect.gen(function*() {
      const { rest, send } = yield* replayLines([
        server(notification("first")),
        client(request(1, "a")),
        server({ id: 1, result: "a" }),
        client(request(2, "b")),
        server(notification("between")),
        server({ id: 2, result: "b" })
      ])
      assert.deepStrictEqual(yield* rest, [notification("first")])
      yield* send(request(1, "a"))
      assert.deepStrictEqual(yield* rest, [{ id: 1, result: "a" }])
      yield* send(request(2, "b"))
      assert.deepStrictEqual(yield* rest, [notification("between"), { id: 2, result: "b" }])
    }))

  it.effect("responds with the program's request ids, and keeps the ids of server requests", () =>
    Effect.gen(function*() {
      const { rest, send } = yield* replayLines([
        client(request(1, "a")),
        client(request(2, "b")),
        server({ id: 2, result: "b" }),
        server({ id: 1, error: { code: 1, message: "a" } }),
        client(request(1, "again")),
        server({ method: "ask", id: 0, params: {} }),
        client({ id: 0, result: {} }),
        server({ id: 1, result: "again" })
      ])
      yield* send({ ...request(0, "b"), id: "mine" })
      assert.deepStrictEqual(yield* rest, [])
      yield* send(request(70, "a"))
      assert.deepStrictEqual(yield* rest, [{ id: "mine", result: "b" }, { id: 70, error: { code: 1, message: "a" } }])
      yield* send(request(1, "again"))
      assert.deepStrictEqual(yield* rest, [{ method: "ask", id: 0, params: {} }])
      yield* send({ id: 0, result: {} })
      assert.deepStrictEqual(yield* rest, [{ id: 1, result: "again" }])
    }))

  it.effect("matches equal requests in the recorded order", () =>
    Effect.gen(function*() {
      const { rest, send } = yield* replayLines([
        client(request(1, "read")),
        server({ id: 1, result: "before" }),
        client(request(2, "read")),
        server({ id: 2, result: "after" })
      ])
      yield* send(request(1, "read"))
      yield* send(request(2, "read"))
      assert.deepStrictEqual(yield* rest, [{ id: 1, result: "before" }, { id: 2, result: "after" }])
    }))

  it.effect("matches other client info, trace contexts, redacted values and an empty turn id of an interrupt", () =>
    Effect.gen(function*() {
      const { rest, send } = yield* replayLines([
        client(request(1, "initialize", { clientInfo: { name: "old", version: "0.0.1" }, capabilities: null })),
        client(request(2, "account/login/start", { type: "apiKey", apiKey: "<redacted>" })),
        client({ ...Object(turnStart(3, "t", "my name is <redacted>, hello")), trace: { traceparent: "00-1-2-01" } }),
        client(request(4, "turn/interrupt", { threadId: "t", turnId: "turn-1" })),
        server(notification("end"))
      ])
      yield* send(request(1, "initialize", { clientInfo: { name: "new", version: "9" }, capabilities: null }))
      yield* send(request(2, "account/login/start", { type: "apiKey", apiKey: "sk-of-this-run" }))
      yield* send(turnStart(3, "t", "my name is Max, hello"))
      yield* send(request(4, "turn/interrupt", { threadId: "t", turnId: "" }))
      assert.deepStrictEqual(yield* rest, [notification("end")])
    }))

  it.effect("matches ignored properties, and renames their values in server messages", () =>
    Effect.gen(function*() {
      const { rest, send } = yield* replayLines([
        client(request(1, "process/spawn", { processHandle: "handle-1234", at: 1, command: ["ls"] })),
        server(notification("process/outputDelta", { processHandle: "handle-1234" }))
      ], { ignore: ["processHandle", "at"] })
      yield* send(request(1, "process/spawn", { processHandle: "handle-9876", at: 2, command: ["ls"] }))
      assert.deepStrictEqual(yield* rest, [notification("process/outputDelta", { processHandle: "handle-9876" })])
    }))

  describe("paths of another run", () => {
    it.effect("renames recorded paths in server messages to those of the program", () =>
      Effect.gen(function*() {
        const { rest, send } = yield* replayLines([
          client(request(1, "thread/start", { cwd: "/tmp/codex-abc/workspace" })),
          server({
            id: 1,
            result: {
              cwd: "/tmp/codex-abc/workspace",
              home: "/tmp/codex-abc/home",
              other: "/tmp/codex-abcd/home",
              text: "in /tmp/codex-abc/workspace, not in /usr/tmp/codex-abc.old or /srv/tmp/codex-abc/x.",
              "/tmp/codex-abc/workspace/file": 1
            }
          }),
          client(turnStart(2, "t", "read /tmp/codex-abc/home/notes")),
          server(notification("end"))
        ])
        yield* send(request(1, "thread/start", { cwd: "/var/run-7/workspace" }))
        assert.deepStrictEqual(yield* rest, [{
          id: 1,
          result: {
            cwd: "/var/run-7/workspace",
            home: "/var/run-7/home",
            other: "/tmp/codex-abcd/home",
            text: "in /var/run-7/workspace, not in /usr/tmp/codex-abc.old or /srv/tmp/codex-abc/x.",
            "/var/run-7/workspace/file": 1
          }
        }])
        yield* send(turnStart(2, "t", "read /var/run-7/home/notes"))
        assert.deepStrictEqual(yield* rest, [notification("end")])
      }))

    it.effect("rejects two paths for one recorded path", () =>
      Effect.gen(function*() {
        const start = (id: number, cwd: string) => request(id, "thread/start", { cwd })
        const cases = [
          { recorded: ["/a/one", "/a/two"], actual: ["/b/one", "/b/one"] },
          { recorded: ["/a/one", "/a/one"], actual: ["/b/one", "/b/two"] },
          { recorded: ["/a/one", "/a/one"], actual: ["/a/one", "/b/one"] }
        ]
        for (const { actual, recorded } of cases) {
          const { failure, send } = yield* replayLines(recorded.map((cwd, id) => client(start(id, cwd))))
          for (const [id, cwd] of actual.entries()) yield* send(start(id, cwd))
          assert.include(toMismatch(yield* failure).diff, "params.cwd")
        }
      }))

    it.effect("renames named paths that the program has not sent before", () =>
      Effect.gen(function*() {
        const path = yield* writeLines(
          { ...header, paths: { root: "/tmp/abc", workspace: "/tmp/abc/ws" } },
          client(turnStart(1, "t", "read /tmp/abc/ws/notes")),
          server(notification("x", { path: "/tmp/abc/ws/notes", home: "/tmp/abc/home" })),
          { direction: "end", at: 0, by: "client" }
        )
        const context = yield* Layer.build(Cassette.replay(path, { paths: { root: "/my", workspace: "/my/place" } }))
        const { rest, send } = yield* Effect.provide(open, context)
        yield* send(turnStart(1, "t", "read /my/place/notes"))
        assert.deepStrictEqual(yield* rest, [notification("x", { path: "/my/place/notes", home: "/my/home" })])
      }))
  })

  describe("concurrent threads", () => {
    const names = ["a", "b", "c"]
    const threads = ["t-1", "t-2", "t-3"]
    const lines = [
      ...threads.map((_, n) => client(request(n, "thread/start"))),
      server(opened(0, "t-1")),
      client(turnStart(10, "t-1", "a")),
      server(started("t-1")),
      server(opened(1, "t-2")),
      server(opened(2, "t-3")),
      server(started("t-2")),
      server(started("t-3")),
      client(turnStart(11, "t-2", "b")),
      client(turnStart(12, "t-3", "c")),
      ...threads.map((threadId, n) => server(notification("said", { threadId, text: names[n]! })))
    ]

    for (const order of [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) {
      it.effect(`match in the order ${order.map((n) => names[n]).join(", ")}`, () =>
        Effect.gen(function*() {
          const { rest, send, take } = yield* replayLines(lines)
          for (const n of order) yield* send(request(100 + n, "thread/start"))
          const threadIds = new Map<string, string>()
          for (const n of order) {
            const { id, result } = yield* take
            assert.strictEqual(id, 100 + n)
            threadIds.set(names[n]!, result.thread.id)
            yield* send(turnStart(200 + n, result.thread.id, names[n]!))
          }
          const received = yield* rest
          assert.deepStrictEqual(
            received.flatMap(({ method, params }) => method === "thread/started" ? [params.thread.id] : []).sort(),
            threads
          )
          assert.deepStrictEqual(
            received.flatMap(({ method, params }) => method === "said" ? [[params.text, params.threadId]] : []),
            names.map((name) => [name, threadIds.get(name)])
          )
        }))
    }

    it.effect("rejects a swap of threads that the program has used", () =>
      Effect.gen(function*() {
        for (const message of [turnStart(13, "t-1", "b"), turnStart(13, "t-2", "more")]) {
          const { failure, send } = yield* replayLines([...lines, client(turnStart(13, "t-1", "more"))])
          for (const n of [0, 1, 2]) yield* send(request(n, "thread/start"))
          yield* send(turnStart(10, "t-1", "a"))
          yield* send(message)
          assert.deepStrictEqual(toMismatch(yield* failure).actual, message)
        }
      }))

    it.effect("rejects a swap of threads with other params", () =>
      Effect.gen(function*() {
        const { failure, send } = yield* replayLines([
          client(request(1, "thread/start", { model: "small" })),
          client(request(2, "thread/start", { model: "large" })),
          server(opened(1, "t-1")),
          server(opened(2, "t-2")),
          client(turnStart(3, "t-1", "a")),
          client(turnStart(4, "t-2", "b"))
        ])
        yield* send(request(1, "thread/start", { model: "small" }))
        yield* send(request(2, "thread/start", { model: "large" }))
        yield* send(turnStart(3, "t-2", "a"))
        assert.include(toMismatch(yield* failure).diff, "params.threadId")
      }))
  })

  describe("an unrecorded message", () => {
    it.effect("shows the difference from the closest recorded message", () =>
      Effect.gen(function*() {
        const { failure, send } = yield* replayLines([
          client(turnStart(1, "t", "Hello")),
          client(request(2, "turn/start", { threadId: "u", input: [], effort: "high" }))
        ])
        yield* send(turnStart(1, "t", "Goodbye"))
        const { actual, diff, expected, method } = toMismatch(yield* failure)
        assert.strictEqual(method, "turn/start")
        assert.deepStrictEqual(expected, turnStart(1, "t", "Hello"))
        assert.deepStrictEqual(actual, turnStart(1, "t", "Goodbye"))
        assert.strictEqual(
          diff,
          [
            "The program sent request `turn/start` with other content than the recording. Record the cassette again if " +
            "the change is intended. The closest message is on line 2 (- recorded, + sent):",
            "  params.input[0].text",
            "    - \"Hello\"",
            "    + \"Goodbye\""
          ].join("\n")
        )
        // The connection has ended, so later messages have no effect.
        yield* send(turnStart(1, "t", "Hello"))
      }))

    it.effect("lists the messages still expected if none is close", () =>
      Effect.gen(function*() {
        const { failure, send } = yield* replayLines([client(request(1, "a")), client(request(2, "b"))])
        yield* send(request(1, "a"))
        yield* send(request(2, "a"))
        assert.include(toMismatch(yield* failure).diff, "does not have again. Still expected: request `b` (line 3)")
      }))

    it.effect("compares responses to server requests", () =>
      Effect.gen(function*() {
        const { failure, send, take } = yield* replayLines([
          server({ method: "item/commandExecution/requestApproval", id: 0, params: {} }),
          client({ id: 0, result: { decision: "accept" } })
        ])
        const { id } = yield* take
        yield* send({ id, result: { decision: "decline" } })
        const { diff, method } = toMismatch(yield* failure)
        assert.strictEqual(method, "item/commandExecution/requestApproval")
        assert.include(diff, "- \"accept\"")
        assert.include(diff, "+ \"decline\"")
      }))

    it.effect("omits secrets", () =>
      Effect.gen(function*() {
        const { failure, send } = yield* replayLines([client(request(1, "a", { text: "x" }))])
        yield* send(request(1, "a", { text: "Bearer abcdefg", apiKey: "hijklmn" }))
        const error = toMismatch(yield* failure)
        assert.notMatch(JSON.stringify(error) + error.message, /abcdefg|hijklmn/)
      }))

    it.effect("fails when the program waits for a response after a message it does not send, also under TestClock", () =>
      Effect.gen(function*() {
        const { failure, send } = yield* replayLines([
          client(request(1, "thread/name/set")),
          server({ id: 1, result: {} }),
          client(request(2, "turn/start")),
          server({ id: 2, result: {} })
        ])
        yield* send(request(1, "turn/start"))
        const { diff, method } = toMismatch(yield* failure)
        assert.strictEqual(method, "turn/start")
        assert.include(diff, "has not sent what precedes it: request `thread/name/set` (line 2)")
      }))
  })

  it.effect("warns of unsent messages when the connection closes", () =>
    Effect.gen(function*() {
      const lines = [client(request(1, "a")), client(request(2, "b"))]
      const path = yield* writeLines(header, ...lines, ...closeConnections(lines))
      const [, seen] = yield* Effect.gen(function*() {
        const { send } = yield* open
        yield* send(request(1, "a"))
      }).pipe(Effect.scoped, Effect.provide(Cassette.replay(path)), collectLogs)
      assert.lengthOf(seen, 1)
      assert.include(seen[0], "did not send 1 recorded message(s). The first is request `b` (line 3)")
    }))

  it.effect("waits for the recorded time with timing: recorded", () =>
    Effect.gen(function*() {
      const lines = [
        client(request(1, "a"), 100),
        server({ id: 1, result: {} }, 350),
        server(notification("later"), 5350)
      ]
      const { rest, send } = yield* replayLines(lines, { timing: "recorded" })
      yield* send(request(1, "a"))
      yield* TestClock.adjust("249 millis")
      assert.lengthOf(yield* rest, 0)
      yield* TestClock.adjust("1 millis")
      assert.lengthOf(yield* rest, 1)
      yield* TestClock.adjust("4999 millis")
      assert.lengthOf(yield* rest, 0)
      yield* TestClock.adjust("1 millis")
      assert.lengthOf(yield* rest, 1)

      const atOnce = yield* replayLines(lines)
      yield* atOnce.send(request(1, "a"))
      assert.lengthOf(yield* atOnce.rest, 2)
    }))

  it.effect("ends with the failure of the recorded connection", () =>
    Effect.gen(function*() {
      const closed = new AppServerError.ConnectionClosed({
        description: "the server exited with code 3",
        exitCode: 3,
        signal: undefined,
        stderrTail: "a panic"
      })
      for (const error of [AppServerError.make(closed), undefined]) {
        const path = yield* temporaryFile
        yield* recordMessages(
          path,
          [{ by: "client", line: "{\"method\":\"a\"}" }, { by: "server", line: "{\"half\": a line" }],
          {},
          (scripted) => scripted.end(error)
        )
        const context = yield* Layer.build(Cassette.replay(path))
        const connection = yield* Effect.provide(open, context)
        yield* connection.send({ method: "a" })
        assert.strictEqual(yield* connection.takeLine, "{\"half\": a line")
        const end = yield* Effect.flip(connection.takeLine)
        if (AppServerError.isAppServerError(end)) assert.deepStrictEqual(end.reason, closed)
        else assert.isUndefined(error)
        // As on any transport, a message after the end is dropped.
        yield* connection.send({ method: "b" })
      }
    }))

  it.effect("replays connections in order, and rejects one more", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const context = yield* Layer.build(Layer.provideMerge(Cassette.record(path), layerScripted))
      for (const method of ["a", "b"]) {
        yield* Effect.flatMap(open, ({ send }) => send({ method })).pipe(Effect.scoped, Effect.provide(context))
      }
      yield* Effect.gen(function*() {
        for (const method of ["a", "b"]) yield* Effect.scoped(Effect.flatMap(open, ({ send }) => send({ method })))
        const error = yield* Effect.flip(Effect.scoped(open))
        assert.include(error.message, "has 2 connection(s), and the program opened one more")
      }).pipe(Effect.provide(Cassette.replay(path)))
    }))

  it.effect("fails with the line and the reason for an invalid file", () =>
    Effect.gen(function*() {
      const whole = JSON.stringify(client(request(1, "a"))) + "\n"
      const cases = [
        { lines: [{ ...header, cassette: 2 }], line: 1, reason: "The file has version `2` of the format" },
        { lines: ["{\"id\":1}\n"], line: 1, reason: "not the header of a cassette" },
        { lines: [], line: 1, reason: "not the header of a cassette" },
        { lines: [{ cassette: 1 }], line: 1, reason: "not the header of a cassette" },
        { lines: [header, whole, whole.slice(0, 40)], line: 3, reason: "not an entry of a cassette" },
        { lines: [header, { direction: "up", at: 0, message: {} }], line: 2, reason: "not an entry of a cassette" },
        { lines: [header, client(request(1, "a"))], line: 2, reason: "stops before the end of the recording" }
      ]
      for (const { line, lines, reason } of cases) {
        const path = yield* writeLines(...lines)
        const error = yield* Effect.flip(Effect.scoped(Layer.build(Cassette.replay(path))))
        assert.strictEqual(error._tag, "CassetteError")
        assert.strictEqual(error.line, line)
        assert.include(error.message, reason)
      }
      const missing = yield* Effect.flip(Effect.scoped(Layer.build(Cassette.replay("/no/such/file.jsonl"))))
      assert.include(missing.message, "The file does not exist")
    }))
})

layer(NodeServices.layer, { excludeTestServices: true })("Cassette of the real app-server", (it) => {
  it.effect("replays with equal results in any directory", () =>
    Effect.gen(function*() {
      const play = (cwd: string) => scenario(cwd).pipe(Effect.provide(layerReplay(cassette)))
      const first = yield* play("/tmp/here/workspace")
      assert.deepStrictEqual(yield* play("/tmp/here/workspace"), first)

      assert.include(first.read.path, "/tmp/here/codex-home/")
      assert.strictEqual(first.listed.finalResponse, "There are two.")
      assert.strictEqual(first.interrupted.status, "interrupted")
      assert.include(first.failed, "rateLimitExceeded")
      assert.lengthOf(first.approvals, 2)
      const elsewhere = yield* play("/tmp/there/workspace")
      assert.strictEqual(elsewhere.read.cwd, "/tmp/there/workspace")
      assert.deepStrictEqual(
        JSON.parse(JSON.stringify(elsewhere).replaceAll("/tmp/there", "/tmp/here")),
        JSON.parse(JSON.stringify(first))
      )
    }))

  it.effect("replays when fibers run in another order", () =>
    Effect.gen(function*() {
      const { together: [b, a] } = yield* scenario("/w/x", ["b", "a"]).pipe(Effect.provide(layerReplay(cassette)))
      assert.include(JSON.stringify(a), "You said: I am a")
      assert.include(JSON.stringify(b), "You said: I am b")
    }))

  it.effect("shows the program what it observed during the recording", () =>
    Effect.gen(function*() {
      const path = yield* temporaryFile
      const recorded = yield* recordScenario(path)
      const replayed = yield* scenario(recorded.read.cwd).pipe(Effect.provide(layerReplay(path)))
      // Notifications at the start may arrive before or after the program subscribes.
      const without = (observed: typeof recorded) => ({
        ...observed,
        notifications: observed.notifications.filter(({ method }) =>
          method !== "remoteControl/status/changed" && method !== "configWarning"
        )
      })
      assert.deepStrictEqual(without(replayed), without(recorded))
    }))
})
