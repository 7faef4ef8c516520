/**
 * Serves a Toolkit of `effect/ai` to Codex, as an MCP server inside this process.
 *
 * **When to use**
 *
 * To pass a Toolkit to Codex, this package has two ways:
 *
 * - `CodexToolkit.make`, the default. Codex calls the tools without a request for approval, and needs no network.
 * - `McpToolkit.serve`. Codex requests approval for each tool that is not annotated as read-only, so `Approvals` decides. A thread can get
 *   and lose the tools when it is resumed, and a server on another connection of this machine can use them.
 *
 * **Example** (Serving a Toolkit)
 *
 * ```ts
 * import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
 * import { Effect, Schema } from "effect"
 * import { Tool, Toolkit } from "effect/ai"
 * import { Approvals, Codex } from "effect-codex"
 * import { McpToolkit } from "effect-codex/ai"
 * import { createServer } from "node:http"
 *
 * const toolkit = Toolkit.make(
 *   Tool.make("find_ticket", {
 *     description: "Finds a ticket by its id",
 *     parameters: Schema.Struct({ id: Schema.String }),
 *     success: Schema.Struct({ title: Schema.String })
 *   }).annotate(Tool.Readonly, true),
 *   Tool.make("close_ticket", {
 *     description: "Closes a ticket",
 *     parameters: Schema.Struct({ id: Schema.String })
 *   })
 * )
 *
 * export const program = Effect.gen(function*() {
 *   const codex = yield* Codex.Codex
 *   const tickets = yield* McpToolkit.serve("tickets", toolkit)
 *   const thread = yield* codex.startThread({
 *     config: tickets.config,
 *     approvalPolicy: "on-request",
 *     approvalsReviewer: "user",
 *     approvals: {
 *       mcpToolCall: ({ tool }) => Effect.succeed(tool === "close_ticket" ? Approvals.accept : Approvals.decline)
 *     }
 *   })
 *   return yield* thread.run("Close ticket A-1")
 * }).pipe(
 *   Effect.scoped,
 *   Effect.provide(toolkit.toLayer({
 *     find_ticket: ({ id }) => Effect.succeed({ title: `Ticket ${id}` }),
 *     close_ticket: ({ id }) => Effect.log(`Closed ${id}`)
 *   })),
 *   Effect.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 }))
 * )
 * ```
 *
 * @since 0.1.0
 */
import * as McpProtocol from "effect/ai/McpProtocol"
import * as McpServer from "effect/ai/McpServer"
import * as AiTool from "effect/ai/Tool"
import type * as AiToolkit from "effect/ai/Toolkit"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { type AppServerError, InvalidRequest, make as appServerError } from "../AppServerError.ts"
import { isLoopback, makeSecret, serveApp } from "../internal/ai/loopback.ts"
import { registerTools } from "../internal/ai/mcpTools.ts"
import { handlerContext } from "../internal/handlers/handlerContext.ts"
import { assertOptions, duration, type Kinds } from "../internal/options.ts"
import { packageVersion } from "../internal/version.ts"

/**
 * The options of {@link serve}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Maximum duration of a call. The model then receives that the tool did not finish.
   *
   * @default the duration of its turn
   */
  readonly timeout?: Duration.Input | undefined
}

const kinds: Kinds<Options> = { timeout: duration }

/**
 * Configuration entries of a thread, by their dotted path.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThreadConfig {
  readonly [path: string]: {
    readonly url: string
    readonly http_headers: { readonly Authorization: string }
    readonly required: boolean
    readonly supports_parallel_tool_calls: boolean
    readonly tool_timeout_sec: number
  }
}

/**
 * A Toolkit that is served to Codex.
 *
 * @category models
 * @since 0.1.0
 */
export interface Served {
  /** The name of the MCP server. The model sees the namespace `mcp__` and this name. */
  readonly name: string
  /** The URL, with a random path. */
  readonly url: string
  /** The token of the requests, as `Authorization: Bearer`. */
  readonly token: Redacted.Redacted<string>
  /**
   * The entry for the option `config` of a thread: `{ config: served.config }`. Merge several with a spread:
   * `{ config: { ...tickets.config, ...people.config } }`.
   *
   * **Gotchas**
   *
   * It contains the token. Each access makes a new value, which a log of the {@link Served} does not show.
   */
  readonly config: ThreadConfig
}

class ServedImpl implements Served {
  readonly name: string
  readonly url: string
  readonly token: Redacted.Redacted<string>

  constructor(name: string, url: string, token: Redacted.Redacted<string>) {
    this.name = name
    this.url = url
    this.token = token
  }

  get config(): ThreadConfig {
    return {
      [`mcp_servers.${this.name}`]: {
        url: this.url,
        http_headers: { Authorization: `Bearer ${Redacted.value(this.token)}` },
        // Otherwise a thread that cannot reach the server starts without the tools.
        required: true,
        // Otherwise Codex calls only read-only tools in parallel.
        supports_parallel_tool_calls: true,
        tool_timeout_sec: unlimitedSeconds
      }
    }
  }
}

/** A year, because Codex has no value for no limit. The end of the turn ends its calls. */
const unlimitedSeconds = 31_536_000

const invalid = (description: string): AppServerError =>
  appServerError(new InvalidRequest({ method: "McpToolkit.serve", description }))

/** Describes why a Toolkit cannot be served. */
const serveIssue = (
  name: string,
  tools: Readonly<Record<string, AiTool.Any>>,
  server: HttpServer.HttpServer["Service"]
): string | undefined => {
  if (!/^[a-zA-Z0-9_-]+$/.test(name)) {
    return `the server name ${JSON.stringify(name)} is not valid. Use letters, digits, \`_\` and \`-\` only`
  }
  const providerTool = Object.values(tools).find(AiTool.isProviderDefined)
  if (providerTool !== undefined) {
    return `only a provider can run tool \`${providerTool.name}\`. Remove it from the Toolkit`
  }
  return isLoopback(server)
    ? undefined
    : `the HTTP server listens on \`${HttpServer.formatAddress(server.address)}\`, which is no loopback address. ` +
      "Listen on `127.0.0.1`"
}

/**
 * Serves a Toolkit to Codex until the scope closes.
 *
 * **Details**
 *
 * The MCP server listens on the `HttpServer` of the context, on a path of 256 random bits, and only for requests with a random token.
 * Several Toolkits share one `HttpServer`; it must serve nothing else, and listen on a loopback address. On Node.js, Bun and Deno provide
 * `NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })` around the scope.
 *
 * The handlers use the services of the current context. What the model receives is the same as with `CodexToolkit.make`: an encoded
 * success, a failure of a handler with either `failureMode`, the images and sounds of `toModelOutput`, and the issue of arguments that do
 * not decode. A preliminary result is a progress notification, which Codex 0.169 does not show.
 *
 * Codex requests approval for each tool with `needsApproval`, and for each other tool that is neither annotated as `Tool.Readonly` nor as
 * both not `Tool.Destructive` and not `Tool.OpenWorld`: the handler `mcpToolCall` of `Approvals` decides. With `deny_all` such a tool fails, with `auto_review` a second model decides, and with bypass it
 * runs.
 *
 * A call is interrupted when its turn is, when its connection ends, and when the scope closes.
 *
 * **Gotchas**
 *
 * A thread cannot start without the server, and after a restart of the app-server it cannot be opened again without it. So keep the
 * scope open as long as its threads. A loaded thread keeps its tools: close a thread before you resume it with other ones.
 *
 * The app-server must run on the same machine. Fails with `InvalidRequest` if the `HttpServer` does not listen on a loopback address, and
 * for tools that only a provider can run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const serve = Effect.fnUntraced(function*<Tools extends Record<string, AiTool.Any>>(
  name: string,
  toolkit: AiToolkit.Toolkit<Tools>,
  options: Options = {}
): Effect.fn.Return<
  Served,
  AppServerError,
  HttpServer.HttpServer | Scope.Scope | AiTool.HandlersFor<Tools> | AiTool.HandlerServices<Tools[keyof Tools]>
> {
  assertOptions("McpToolkit.serve", kinds, options)
  const issue = serveIssue(name, toolkit.tools, yield* HttpServer.HttpServer)
  if (issue !== undefined) return yield* invalid(issue)
  const context = yield* handlerContext<any>()
  const token = Redacted.make(yield* makeSecret)
  const path = `/${yield* makeSecret}` as const
  const app = yield* HttpRouter.toHttpEffect(McpServer.layerHttp({
    name,
    version: packageVersion,
    path,
    protocols: [McpProtocol.v2025_11_25, McpProtocol.v2025_06_18, McpProtocol.v2025_03_26],
    allowSessionTermination: true,
    registrations: Layer.effectDiscard(registerTools(toolkit, { context, timeout: options.timeout }))
  })).pipe(Effect.orDie)
  return new ServedImpl(name, yield* serveApp(app, { path, token }), token)
})
