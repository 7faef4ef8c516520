/**
 * The transport to a `codex app-server` that already runs, over a WebSocket or a Unix socket.
 *
 * **When to use**
 *
 * To attach to a server that several programs share, or to one on another machine. The server continues when a program ends, and its
 * turns continue too.
 *
 * **Details**
 *
 * The platform supplies the WebSocket, as `WebSocketConstructor` of `effect/socket`. On Node.js, Bun and Deno provide
 * `NodeWS.layerWebSocketConstructor` of `@effect/platform-node`. It opens Unix sockets, sends tokens, applies backpressure, and
 * reports why a connection failed.
 *
 * **Example** (Attaching to a server)
 *
 * ```ts
 * import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
 * import * as NodeWS from "@effect/platform-node/NodeWS"
 * import { Config, Effect, Layer } from "effect"
 * import { Codex } from "effect-codex"
 *
 * // codex app-server --listen ws://127.0.0.1:4500 --ws-auth capability-token --ws-token-file /run/codex/token
 * const CodexLive = Layer.unwrap(
 *   Effect.map(Config.Redacted("CODEX_TOKEN"), (token) => Codex.layerWebSocket("ws://127.0.0.1:4500", { token }))
 * ).pipe(Layer.provide(NodeWS.layerWebSocketConstructor))
 *
 * const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread({ sandbox: "read-only" })
 *   return yield* thread.run("What does this project do?")
 * })
 *
 * program.pipe(Effect.provide(CodexLive), NodeRuntime.runMain)
 * ```
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { WebSocketConstructor } from "effect/socket/Socket"
import { type AppServerError, InvalidRequest, make as appServerError } from "./AppServerError.ts"
import { connectionNames, redactedString, socketKinds } from "./internal/layerOptions.ts"
import { assertOptions, duration, type Kinds, optionIssue, string } from "./internal/options.ts"
import { makeRemoveSecrets } from "./internal/redact.ts"
import { type Address, parsePath, parseUrl } from "./internal/socket/address.ts"
import { openSocket } from "./internal/socket/openSocket.ts"
import { signJwt } from "./internal/socket/signToken.ts"
import { streamLines } from "./internal/stdio/stdout.ts"
import { type Connection, Transport } from "./Transport.ts"

/**
 * The options of a socket to a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The token that the server requires, sent as `Authorization: Bearer`. An effect runs for each connection, so a token that expires can
   * be a new one after a reconnect; see {@link signToken}.
   *
   * **Gotchas**
   *
   * A token is sent only over `wss://`, over a Unix socket, or to this machine. Any other address fails with `InvalidRequest`, as it does
   * in Codex itself: any host on the way could read the token.
   *
   * @default none
   */
  readonly token?: Redacted.Redacted<string> | Effect.Effect<Redacted.Redacted<string>, AppServerError> | undefined
  /**
   * Maximum time for the handshake.
   *
   * @default "10 seconds"
   */
  readonly openTimeout?: Duration.Input | undefined
  /**
   * Maximum time without a message from the server. Then the client sends a request, and ends the connection if the same time passes
   * again without a message. So it notices a connection that a network or a proxy has dropped. `Duration.infinity` turns this off.
   *
   * @default "15 seconds"
   */
  readonly keepAlive?: Duration.Input | undefined
  /**
   * The maximum size of a message from the server, in bytes. A larger message ends the connection, because a caller may wait for its
   * content.
   *
   * @default no limit besides that of the WebSocket, which is 100 MiB for `NodeWS`
   */
  readonly maxMessageBytes?: number | undefined
  /**
   * Maximum time for the server to respond to the close of the socket, when the scope closes.
   *
   * @default "2 seconds"
   */
  readonly closeTimeout?: Duration.Input | undefined
}

const invalid = (description: string): AppServerError =>
  appServerError(new InvalidRequest({ method: "initialize", description }))

/** Maximum size of a message that the server accepts, in bytes. It closes the connection on a larger one. */
const maxSendBytes = 16 * 1024 * 1024

const toDuration = (input: Duration.Input | undefined, byDefault: Duration.Duration): Duration.Duration =>
  input === undefined ? byDefault : Duration.fromInputUnsafe(input)

const readToken = (token: Options["token"]): Effect.Effect<string | undefined, AppServerError> =>
  token === undefined
    ? Effect.succeed(undefined)
    : Effect.map(Redacted.isRedacted(token) ? Effect.succeed(token) : token, (token) => Redacted.value(token).trim())

const connect = Effect.fnUntraced(function*(
  parsed: Result.Result<Address, string>,
  options: Options
): Effect.fn.Return<Connection, AppServerError, WebSocketConstructor | Scope.Scope> {
  const issue = optionIssue(socketKinds satisfies Kinds<Options>, options, connectionNames)
  if (issue !== undefined) return yield* invalid(issue)
  if (Result.isFailure(parsed)) return yield* invalid(parsed.failure)
  const address = parsed.success
  if (options.token !== undefined && !address.isPrivate) {
    return yield* invalid(
      `\`${address.shown}\` would send the token unencrypted. Use \`wss://\`, or forward the port to this machine, for example with ` +
        "`ssh -L`"
    )
  }
  const token = yield* readToken(options.token)
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token)) {
    return yield* invalid("the option `token` is empty, or contains a character that a header cannot have")
  }
  const redact = makeRemoveSecrets(token === undefined ? [] : [token])
  const { receive, send } = yield* openSocket({
    address,
    headers: token === undefined ? undefined : { Authorization: `Bearer ${token}` },
    redact,
    openTimeout: toDuration(options.openTimeout, Duration.seconds(10)),
    closeTimeout: toDuration(options.closeTimeout, Duration.seconds(2)),
    maxMessageBytes: options.maxMessageBytes ?? Infinity
  })
  return {
    incoming: streamLines(receive),
    send: (line) => Effect.sync(() => send([line])),
    direct: { receive, send },
    redact,
    maxSendBytes,
    keepAlive: toDuration(options.keepAlive, Duration.seconds(15)),
    isShared: true
  }
})

const layer = (
  address: () => Result.Result<Address, string>,
  options: Options = {}
): Layer.Layer<Transport, never, WebSocketConstructor> =>
  Layer.effect(
    Transport,
    Effect.map(
      Effect.context<WebSocketConstructor>(),
      (context) =>
        Transport.of({
          connect: Effect.provideContext(Effect.suspend(() => connect(address(), options)), context)
        })
    )
  )

/**
 * Provides a {@link Transport} to a server that listens on a WebSocket, as `codex app-server --listen ws://IP:PORT` does.
 *
 * **Details**
 *
 * Connecting fails with `ConnectFailed` if the server does not listen, refuses the token, or is not codex app-server. An invalid URL, an
 * unknown option or a value of the wrong kind fails with `InvalidRequest`. The names of `AppServer` options are accepted, because one
 * object may contain both.
 *
 * The connection ends with the socket: it then fails with `ConnectionClosed`. The server and its turns continue.
 *
 * **Gotchas**
 *
 * The server closes the socket on a message of more than 16 MiB, so such a request fails with `InvalidRequest`. It also closes the socket
 * of a program that reads too slowly.
 *
 * The server refuses web pages: their requests have an `Origin` header.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWebSocket = (
  url: string,
  options?: Options
): Layer.Layer<Transport, never, WebSocketConstructor> => layer(() => parseUrl(url), options)

/**
 * Provides a {@link Transport} to a server that listens on a Unix socket, as `codex app-server --listen unix://` does. Without a path it is the
 * default one of the server, in `CODEX_HOME`.
 *
 * **Details**
 *
 * Only the user that started the server can open the socket, so the server requires no token. The errors are those of
 * {@link layerWebSocket}.
 *
 * **Gotchas**
 *
 * The WebSocket of the platform must open `ws+unix:` URLs, as that of `NodeWS` does. The path must be absolute, and not contain characters
 * that a URL escapes, such as spaces.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerUnixSocket = (
  path?: string,
  options?: Options
): Layer.Layer<Transport, never, WebSocketConstructor> => layer(() => parsePath(path), options)

/**
 * The options of {@link signToken}.
 *
 * @category models
 * @since 0.1.0
 */
export interface SignTokenOptions {
  /** The content of the file of `--ws-shared-secret-file`, of at least 32 bytes. */
  readonly secret: Redacted.Redacted<string>
  /**
   * The name of `--ws-issuer`.
   *
   * @default none
   */
  readonly issuer?: string | undefined
  /**
   * The name of `--ws-audience`.
   *
   * @default none
   */
  readonly audience?: string | undefined
  /**
   * The time for which the token is valid. The server checks it only during the handshake.
   *
   * @default "5 minutes"
   */
  readonly lifetime?: Duration.Input | undefined
}

const signTokenKinds: Kinds<SignTokenOptions> = {
  secret: redactedString,
  issuer: string,
  audience: string,
  lifetime: duration
}

/**
 * Signs a token for a server that runs with `--ws-auth signed-bearer-token`.
 *
 * **When to use**
 *
 * Pass it as the option `token`. Each connection then has a new token, which is valid for a short time.
 *
 * **Details**
 *
 * The token is a JSON Web Token that is signed with HMAC-SHA256. Invalid options throw a `TypeError`.
 *
 * **Example** (Signing a token for each connection)
 *
 * ```ts
 * import { Redacted } from "effect"
 * import { Codex, SocketTransport } from "effect-codex"
 *
 * export const layer = (secret: Redacted.Redacted<string>) =>
 *   Codex.layerWebSocket("wss://codex.example.com", {
 *     token: SocketTransport.signToken({ secret, audience: "codex" })
 *   })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const signToken = (options: SignTokenOptions): Effect.Effect<Redacted.Redacted<string>> => {
  assertOptions("SocketTransport.signToken", signTokenKinds, { ...options, secret: options?.secret ?? null })
  const { audience, issuer, lifetime, secret } = options
  return signJwt({ secret, issuer, audience, lifetime: toDuration(lifetime, Duration.minutes(5)) })
}
