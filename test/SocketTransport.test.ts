import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as NodeWS from "@effect/platform-node/NodeWS"
import { assert, describe, it, layer } from "@effect/vitest"
import { AppServer, type AppServerError, Codex, SocketTransport, Transport } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import * as SocketServer from "./SocketServer.ts"
import * as TestCodex from "./TestCodex.ts"

/** Runs a turn that streams two deltas, and returns its text and its final response. */
const runTurn = Effect.scoped(Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread()
  yield* TestCodex.script(thread, ModelServer.deltas(["Größe ", "🧵"]))
  const turn = yield* thread.turn("go")
  const text = yield* Stream.mkString(turn.text)
  const { finalResponse } = yield* turn.result
  return { text, finalResponse }
}))

const expected = { text: "Größe 🧵", finalResponse: "Größe 🧵" }

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Turn over a socket", (it) => {
  it.effect("runs on a WebSocket", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      assert.deepStrictEqual(yield* Effect.provide(runTurn, SocketServer.layerWebSocket(url)), expected)
      // The server has outlived its client.
      assert.deepStrictEqual(yield* Effect.provide(runTurn, SocketServer.layerWebSocket(url)), expected)
    }))

  it.effect("runs on the WebSocket of Node.js", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      const codex = Layer.provide(Codex.layerWebSocket(url), NodeSocket.layerWebSocketConstructor)
      assert.deepStrictEqual(yield* Effect.provide(runTurn, codex), expected)
    }))

  it.effect("runs on the default Unix socket of the server", () =>
    Effect.gen(function*() {
      const { codexHome } = yield* CodexEnvironment.CodexEnvironment
      yield* SocketServer.listen("unix://", [], `${codexHome}/app-server-control/app-server-control.sock`)
      const before = process.env["CODEX_HOME"]
      yield* Effect.acquireRelease(
        Effect.sync(() => {
          process.env["CODEX_HOME"] = codexHome
        }),
        () =>
          Effect.sync(() => {
            if (before === undefined) delete process.env["CODEX_HOME"]
            else process.env["CODEX_HOME"] = before
          })
      )
      assert.deepStrictEqual(yield* Effect.provide(runTurn, SocketServer.layerUnixSocket()), expected)
    }))

  it.effect("runs on a Unix socket", () =>
    Effect.gen(function*() {
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const path = `${root}/codex.sock`
      yield* SocketServer.listen(`unix://${path}`)
      assert.deepStrictEqual(yield* Effect.provide(runTurn, SocketServer.layerUnixSocket(path)), expected)
    }))
})

const withWs = Layer.provide(NodeWS.layerWebSocketConstructor)

/** Builds a layer that fails, and returns the error. */
const expectError = <A, R>(built: Layer.Layer<A, AppServerError.AppServerError, R>) =>
  Effect.flip(Effect.scoped(Layer.build(Layer.fresh(built))))

/** Connects to a URL that fails, and returns the reason. */
const expectFailed = Effect.fnUntraced(function*(url: string, options?: Codex.SocketOptions) {
  const { reason } = yield* expectError(withWs(Codex.layerWebSocket(url, options)))
  assert(reason._tag === "ConnectFailed", reason.message)
  return reason
})

const readMetadata = Effect.map(AppServer.AppServer, ({ metadata }) => metadata.serverVersion)

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Token of a socket", (it) => {
  const token = Redacted.make("open-sesame-0123456789")

  it.effect("connects to a server that requires a capability token", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { root } = yield* CodexEnvironment.CodexEnvironment
      yield* fs.writeFileString(`${root}/token`, `${Redacted.value(token)}\n`)
      const args = ["--ws-auth", "capability-token", "--ws-token-file", `${root}/token`]
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0", args)
      assert.deepStrictEqual(yield* Effect.provide(runTurn, SocketServer.layerWebSocket(url, { token })), expected)
      const onNode = Layer.provide(Codex.layerWebSocket(url, { token }), NodeSocket.layerWebSocketConstructor)
      assert.strictEqual(yield* Effect.provide(readMetadata, onNode), TestCodex.version)

      const missing = yield* expectFailed(url)
      assert.strictEqual(missing.status, 401)
      assert.include(
        missing.message,
        `at \`${url}\`: the server requires a token (HTTP 401). Pass the option \`token\``
      )
      const wrong = yield* expectFailed(url, { token: Redacted.make("wrong-token-9876") })
      assert.strictEqual(wrong.status, 401)
      assert.include(wrong.message, "the server refused the token (HTTP 401)")
      assert.notInclude(JSON.stringify(wrong) + String(wrong.cause), "wrong-token")
    }))

  it.effect("is removed from text of the server", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const reason = yield* TestCodex.expectReason(server.requestRaw(`echo/${Redacted.value(token)}`))
        assert(reason._tag === "RequestRejected")
        assert.include(reason.detail, "echo/<redacted>")
      }).pipe(Effect.provide(SocketServer.layerWebSocket(url, { token })))
    }))

  it.effect("is signed anew for each connection to a server that requires it", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const secret = Redacted.make("0123456789abcdef0123456789abcdef")
      yield* fs.writeFileString(`${root}/secret`, Redacted.value(secret))
      const { kill, url } = yield* SocketServer.listen("ws://127.0.0.1:0", [
        "--ws-auth=signed-bearer-token",
        `--ws-shared-secret-file=${root}/secret`,
        "--ws-issuer=tests",
        "--ws-audience=codex"
      ])
      let signed = 0
      const sign = (options: object = {}) =>
        Effect.tap(
          SocketTransport.signToken({ secret, issuer: "tests", audience: "codex", ...options }),
          () => Effect.sync(() => signed++)
        )
      assert.deepStrictEqual(
        yield* Effect.provide(runTurn, SocketServer.layerWebSocket(url, { token: sign() })),
        expected
      )
      assert.strictEqual(signed, 1)
      for (const options of [{ audience: "other" }, { issuer: "other" }, { secret: Redacted.make("x".repeat(32)) }]) {
        assert.strictEqual((yield* expectFailed(url, { token: sign(options) })).status, 401)
      }
      yield* kill
    }))

  it.effect.each(["ws://example.com:4500", "ws://10.0.0.7", "ws://[2001:db8::1]:4500", "ws://127.0.0.1.example.com"])(
    "is not sent unencrypted to %s",
    (url) =>
      Effect.gen(function*() {
        const { reason } = yield* expectError(withWs(Codex.layerWebSocket(url, { token })))
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.include(reason.message, "would send the token unencrypted. Use `wss://`")
      })
  )

  it.effect.each(["ws://localhost:1", "ws://127.0.0.2:1", "ws://127.1:1", "ws://[::1]:1", "wss://127.0.0.1:1"])(
    "may be sent to %s",
    (url) => Effect.map(expectFailed(url, { token }), ({ url: shown }) => assert.match(shown, /^wss?:/))
  )

  it.effect.each([["", "is empty"], [" ", "is empty"], ["a\nb", "a character"], ["gr\u00fcn", "a character"]] as const)(
    "%j is rejected before anything is sent",
    ([text, issue]) =>
      Effect.gen(function*() {
        const error = yield* expectError(
          withWs(Codex.layerWebSocket("ws://127.0.0.1:1", { token: Redacted.make(text) }))
        )
        assert.strictEqual(error.reason._tag, "InvalidRequest")
        assert.include(error.message, issue)
      })
  )

  it.effect("cannot be sent by the WebSocket of a browser", () =>
    Effect.gen(function*() {
      const browser = Layer.provide(
        Codex.layerWebSocket("ws://127.0.0.1:1", { token }),
        Socket.layerWebSocketConstructorGlobal
      )
      const { message, reason } = yield* expectError(browser)
      assert.strictEqual(reason._tag, "ConnectFailed")
      assert.include(
        message,
        "cannot send a token. Provide a WebSocket that can, such as `NodeWS.layerWebSocketConstructor`"
      )
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Failure to connect", (it) => {
  it.effect("explains that no server listens", () =>
    Effect.gen(function*() {
      const { message, status } = yield* expectFailed("ws://127.0.0.1:1/path?secret=1")
      assert.strictEqual(status, undefined)
      assert.strictEqual(
        message,
        "Cannot connect to codex app-server at `ws://127.0.0.1:1/path`: no server listens there. Start one with " +
          "`codex app-server --listen ws://IP:PORT`, or correct the URL"
      )
    }))

  it.effect("explains a Unix socket without a server", () =>
    Effect.gen(function*() {
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const { message } = yield* expectError(withWs(Codex.layerUnixSocket(`${root}/none.sock`)))
      assert.include(message, `at \`unix://${root}/none.sock\`: no server listens on this socket`)
    }))

  it.effect("explains a server that is not codex app-server", () =>
    Effect.gen(function*() {
      const { url } = yield* ModelServer.ModelServer
      const { message, status } = yield* expectFailed(url.replace("http:", "ws:"))
      assert.strictEqual(status, 404)
      assert.include(
        message,
        "the response to the handshake was HTTP 404. Check that the URL is one of codex app-server"
      )
    }))

  it.effect("explains that the server has no TLS", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      const { message } = yield* expectFailed(url.replace("ws:", "wss:"))
      assert.include(message, "TLS failed. `codex app-server` itself has no TLS: use `ws://`")
    }))

  it.effect("explains a WebSocket that reports no reason", () =>
    Effect.gen(function*() {
      const onNode = Layer.provide(Codex.layerWebSocket("ws://127.0.0.1:1"), NodeSocket.layerWebSocketConstructor)
      assert.include((yield* expectError(onNode)).message, "reports no reason")
      const unix = Layer.provide(Codex.layerUnixSocket("/x"), NodeSocket.layerWebSocketConstructor)
      assert.include((yield* expectError(unix)).message, "cannot open Unix sockets. Provide a WebSocket that can")
    }))

  it.effect("ends a handshake without a response", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      const proxy = yield* SocketServer.proxy(url)
      yield* proxy.stall
      const { message } = yield* expectFailed(proxy.url, { openTimeout: "100 millis", closeTimeout: "100 millis" })
      assert.include(message, "the handshake took too long")
    }))
})

describe("SocketTransport.signToken", () => {
  it("rejects invalid options", () => {
    const secret = Redacted.make("0123456789abcdef0123456789abcdef")
    const issues: ReadonlyArray<readonly [options: object | undefined, issue: string]> = [
      [undefined, "the option `secret` is null; expected a Redacted string"],
      [{ secret: "plain" }, "the option `secret` is a string; expected a Redacted string"],
      [{ secret, audiance: "codex" }, "unknown option `audiance`; did you mean `audience`?"],
      [{ secret, lifetime: "soon" }, "the option `lifetime` is a string; expected a duration"]
    ]
    for (const [options, issue] of issues) {
      const invalid = options as SocketTransport.SignTokenOptions
      assert.throws(() => SocketTransport.signToken(invalid), `SocketTransport.signToken: ${issue}`)
    }
  })
})

describe("Address of a socket", () => {
  const expectInvalid = <A>(built: Layer.Layer<A, AppServerError.AppServerError>) =>
    Effect.map(expectError(built), ({ message, reason }) => {
      assert.strictEqual(reason._tag, "InvalidRequest", message)
      return message
    })

  it.effect.each([
    ["localhost:4500", "is not one of a WebSocket"],
    ["http://127.0.0.1", "is not one of a WebSocket"],
    ["", "is not one of a WebSocket"],
    ["ws://user:secret@127.0.0.1", "Pass the option `token`"],
    ["ws://127.0.0.1/#x", "fragment"]
  ])("refuses the URL %j", ([url, issue]) =>
    Effect.gen(function*() {
      const message = yield* expectInvalid(withWs(Codex.layerWebSocket(url!)))
      assert.include(message, issue!)
      assert.notInclude(message, "secret")
    }))

  it.effect.each([
    ["codex.sock", "is not absolute"],
    ["/home/a b/codex.sock", "a character that a URL escapes"],
    ["/home/józef/codex.sock", "a character that a URL escapes"],
    ["/tmp/a:b", "a character that a URL escapes"],
    ["/tmp/a?b", "a character that a URL escapes"],
    ["/tmp/../codex.sock", "a character that a URL escapes"]
  ])(
    "refuses the path %j",
    ([path, issue]) =>
      Effect.map(expectInvalid(withWs(Codex.layerUnixSocket(path))), (message) => assert.include(message, issue!))
  )

  it.effect.each<readonly [object, ...ReadonlyArray<string>]>([
    [{ tokn: Redacted.make("x") }, "unknown option `tokn`", "did you mean `token`?"],
    [{ token: "plain" }, "the option `token` is a string; expected a Redacted string, or an Effect of one"],
    [{ keepAlive: "soon" }, "`keepAlive` is a string"],
    [{ maxMessageBytes: 0 }, "`maxMessageBytes` is 0"],
    [{ maxInflight: 8 }, "did you mean `maxInFlight`?"]
  ])("rejects the options %j", ([options, ...parts]) =>
    Effect.gen(function*() {
      const message = yield* expectInvalid(withWs(Codex.layerWebSocket("ws://127.0.0.1:1", options)))
      for (const part of parts) assert.include(message, part)
    }))

  it.effect("rejects unknown options of the transport", () =>
    Effect.gen(function*() {
      const transport = yield* Transport.Transport
      const reason = yield* TestCodex.expectReason(Effect.scoped(transport.connect))
      assert.include(reason.message, "did you mean `openTimeout`?")
    }).pipe(
      Effect.provide(withWs(SocketTransport.layerWebSocket("ws://127.0.0.1:1", { opentimeout: 1 } as object)))
    ))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Size of messages", (it) => {
  const big = (bytes: number) => "x".repeat(bytes)

  it.effect("fails a request that is too large for the server, and keeps the connection", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const list = (searchTerm: string) => server.request("thread/list", { searchTerm })
        const overhead = Buffer.byteLength(`{"id":1,"method":"thread/list","params":{"searchTerm":""}}`)
        const limit = 16 * 1024 * 1024
        const reason = yield* TestCodex.expectReason(list(big(limit)))
        assert.strictEqual(reason._tag, "InvalidRequest")
        assert.include(reason.message, "more than 16777216 bytes")
        // The server accepts the largest one that this client sends.
        assert.deepStrictEqual((yield* list(big(limit - overhead - 8))).data, [])
        assert.strictEqual((yield* server.state)._tag, "Ready")
      }).pipe(Effect.provide(SocketServer.layerWebSocket(url, { restart: false })))
    }))

  it.effect("ends the connection on a message above maxMessageBytes", () =>
    Effect.gen(function*() {
      const { url } = yield* SocketServer.listen("ws://127.0.0.1:0")
      yield* Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        yield* server.request("thread/list", {})
        // The response names all methods.
        const reason = yield* TestCodex.expectReason(server.requestRaw("unknown/method"))
        assert.strictEqual(reason._tag, "ConnectionClosed")
        assert.include(
          reason.message,
          "a message of more than 4000 bytes. Raise or remove the option `maxMessageBytes`"
        )
      }).pipe(Effect.provide(SocketServer.layerWebSocket(url, { restart: false, maxMessageBytes: 4000 })))
    }))
})
