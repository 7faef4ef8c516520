/**
 * Serves Codex to MCP clients, such as editors and other agents: the tools `codex` and `codex_reply`.
 *
 * **When to use**
 *
 * To let another agent delegate work to Codex. To give tools to Codex itself, use `McpToolkit` or `CodexToolkit`.
 *
 * **Details**
 *
 * | tool | parameters | result |
 * | --- | --- | --- |
 * | `codex` | `prompt`, and optionally `cwd`, `model`, `sandbox`, `approval-policy`, `base-instructions`, `developer-instructions` | `threadId` and `content` |
 * | `codex_reply` | `threadId` and `prompt` | `threadId` and `content` |
 *
 * - A request for approval is an elicitation: the user of the client accepts, declines or cancels. If the context has `Approvals`, these
 *   decide first. Without elicitations in the client, and without `Approvals`, a request is declined.
 * - Questions of the model, and elicitations of MCP servers of Codex, are elicitations too.
 * - Commands, changes, calls and interim messages are progress notifications.
 * - A cancelled call interrupts its turn.
 * - A session can only continue threads that it has started. They are closed with the session, after ten minutes without a call (the next
 *   call resumes them), and with the layer.
 *
 * A client cannot widen permissions: not the sandbox beyond that of {@link Options}, not the directory, and not the configuration.
 *
 * **Example** (Serving Codex over standard input and output)
 *
 * ```ts
 * import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import * as NodeStdio from "@effect/platform-node/NodeStdio"
 * import { Layer, Logger } from "effect"
 * import { Codex } from "effect-codex"
 * import { CodexMcpServer } from "effect-codex/ai"
 *
 * CodexMcpServer.layerStdio({ sandbox: "workspace-write" }).pipe(
 *   Layer.provide(Codex.layerStdio()),
 *   Layer.provide([NodeServices.layer, NodeStdio.layer, Layer.succeed(Logger.LogToStderr, true)]),
 *   Layer.launch,
 *   NodeRuntime.runMain
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as McpProtocol from "effect/ai/McpProtocol"
import type { McpServerClient } from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import type { Stdio } from "effect/Stdio"
import * as Codex from "../Codex.ts"
import { makeThreads, sessionHeader, type Threads } from "../internal/ai/codexThreads.ts"
import { registerCodex } from "../internal/ai/codexTools.ts"
import { assertOptions, type Kinds, nonEmpty, object, oneOf } from "../internal/options.ts"
import { packageVersion } from "../internal/version.ts"
import type * as Protocol from "../Protocol.ts"
import type * as Sandbox from "../Sandbox.ts"

/**
 * What clients may do with Codex.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The sandbox of threads. A client may choose a narrower one.
   *
   * **Gotchas**
   *
   * With `danger-full-access` a client can run any command with all permissions of the server's process.
   *
   * @default "read-only"
   */
  readonly sandbox?: Sandbox.Mode | undefined
  /**
   * The working directory of threads, an absolute path on the server's machine. A client may choose a directory in it.
   *
   * @default the working directory of this process
   */
  readonly cwd?: string | undefined
  /** The configuration of threads, such as `model`. A client cannot change it. */
  readonly config?: Protocol.ThreadStartOptions["config"]
}

const kinds: Kinds<Options> = {
  sandbox: oneOf("read-only", "workspace-write", "danger-full-access"),
  cwd: nonEmpty,
  config: object
}

type Services = Codex.Codex | FileSystem.FileSystem | Path.Path

const register = (threads: Threads, { config, cwd, sandbox = "read-only" }: Options) =>
  Layer.effectDiscard(
    Effect.flatMap(Path.Path, (path) => registerCodex(threads, { sandbox, config, cwd: path.resolve(cwd ?? ".") }))
  )

const withThreads = <A, E, R>(make: (threads: Threads) => Layer.Layer<A, E, R>) =>
  Layer.unwrap(Effect.map(Effect.flatMap(Codex.Codex, makeThreads), make))

/**
 * Registers the tools with an MCP server, as the option `registrations` of `McpServer` and the argument of `McpTest.makeClient`.
 *
 * **When to use**
 *
 * To serve Codex beside other tools, on another transport, or in a test. Otherwise use {@link layerStdio} or {@link layerHttp}.
 *
 * **Details**
 *
 * The server must speak only protocols with sessions, up to `2025-11-25`, because threads belong to sessions.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  never,
  never,
  McpServer.McpServer | Services | McpServer.McpRequest<"Requires", McpServerClient>
> => {
  assertOptions("CodexMcpServer.layer", kinds, options)
  return withThreads((threads) => register(threads, options))
}

const protocols = [McpProtocol.v2025_11_25, McpProtocol.v2025_06_18, McpProtocol.v2025_03_26] as const

const serverInfo = { name: "codex", version: packageVersion, protocols } as const

/**
 * Serves Codex over standard input and output, to a client that starts this process.
 *
 * **Gotchas**
 *
 * Nothing else may write to standard output. Provide `Layer.succeed(Logger.LogToStderr, true)`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStdio = (
  options: Options = {}
): Layer.Layer<
  McpServer.McpServer,
  Cause.IllegalArgumentError,
  Stdio | Services
> => {
  assertOptions("CodexMcpServer.layerStdio", kinds, options)
  return McpServer.layerStdio({ ...serverInfo, registrations: layer(options) })
}

/**
 * The options of {@link layerHttp}.
 *
 * @category models
 * @since 0.1.0
 */
export interface HttpOptions extends Options {
  /** The path of the endpoint. */
  readonly path: HttpRouter.PathInput
  /** The values of the `Origin` header that are allowed. Browsers send it. */
  readonly allowedOrigins?: ReadonlyArray<string> | undefined
}

/** Closes the threads of a session that its client ends. */
const endSessions = (threads: Threads) =>
  HttpRouter.middleware(
    (effect) =>
      Effect.tap(effect, ({ status }) =>
        Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers, method }) => {
          const session = headers[sessionHeader]
          return method === "DELETE" && status === 204 && session !== undefined ? threads.end(session) : Effect.void
        })),
    { global: true }
  )

/**
 * Serves Codex at a path of an `HttpRouter`.
 *
 * **Details**
 *
 * Each client has a session. Its threads are closed when the client ends the session.
 *
 * **Gotchas**
 *
 * Every client that reaches the endpoint can run Codex. Listen on a loopback address, or authenticate the requests with
 * `HttpRouter.middleware`.
 *
 * **Example** (Serving Codex on a port of this machine)
 *
 * ```ts
 * import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
 * import * as NodeServices from "@effect/platform-node/NodeServices"
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { Codex } from "effect-codex"
 * import { CodexMcpServer } from "effect-codex/ai"
 * import { createServer } from "node:http"
 *
 * export const server = HttpRouter.serve(CodexMcpServer.layerHttp({ path: "/mcp", cwd: "/my/project" })).pipe(
 *   Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 3000 })),
 *   Layer.provide(Codex.layerStdio()),
 *   Layer.provide(NodeServices.layer)
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerHttp = ({ allowedOrigins, path, ...options }: HttpOptions): Layer.Layer<
  McpServer.McpServer,
  Cause.IllegalArgumentError,
  HttpRouter.HttpRouter | Services
> => {
  assertOptions("CodexMcpServer.layerHttp", kinds, options)
  return withThreads((threads) =>
    McpServer.layerHttp({
      ...serverInfo,
      path,
      allowedOrigins,
      allowSessionTermination: true,
      registrations: register(threads, options)
    }).pipe(Layer.merge(endSessions(threads)))
  )
}
