/**
 * Codex for a test: the real `codex app-server` with a scripted model, in its own temporary home.
 *
 * **When to use**
 *
 * To test what the real server does with your program: sandbox, tools, history. It needs no login, and no connection leaves the
 * machine.
 *
 * **Details**
 *
 * The binary is `codexPath`, or the value of the environment variable `CODEX_TEST_PATH`, or the one that npm installed with this
 * package, in this order.
 *
 * ```ts
 * import { assert, layer } from "@effect/vitest"
 * import { Effect } from "effect"
 * import { Codex } from "effect-codex"
 * import { ModelServer, TestCodex } from "effect-codex/testing"
 *
 * layer(TestCodex.layer(), { excludeTestServices: true })("my program", (it) => {
 *   it.effect("returns the final response", () =>
 *     Effect.gen(function*() {
 *       const model = yield* ModelServer.ModelServer
 *       yield* model.enqueue(ModelServer.text("42"))
 *       const codex = yield* Codex.Codex
 *       const thread = yield* codex.startThread()
 *       const { finalResponse } = yield* thread.run("What is six times seven?")
 *       assert.strictEqual(finalResponse, "42")
 *     }))
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Base64Url from "effect/encoding/Base64Url"
import type * as FileSystem from "effect/FileSystem"
import * as HttpServer from "effect/http/HttpServer"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Http from "node:http"
import * as AppServer from "../AppServer.ts"
import type { AppServerError } from "../AppServerError.ts"
import * as Codex from "../Codex.ts"
import * as StdioTransport from "../StdioTransport.ts"
import type { Transport } from "../Transport.ts"
import * as CodexEnvironment from "./CodexEnvironment.ts"
import * as ModelServer from "./ModelServer.ts"

/** Reads `CODEX_TEST_PATH`, so that one suite runs on several versions of Codex. */
const testedBinary = Effect.orDie(
  Config.String("CODEX_TEST_PATH").pipe(
    Config.map((codexPath): StdioTransport.Options => ({ codexPath })),
    Config.withDefault({})
  )
)

/** Adds the environment to the options of a process. */
const inEnvironment = Effect.fnUntraced(
  function*<Options extends StdioTransport.Options>(options: Options | undefined) {
    const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
    return { cwd: workspace, ...yield* testedBinary, ...options, env: { ...env, ...options?.env } }
  }
)

/**
 * The options of the process and of its home.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Codex.StdioOptions {
  /** The options of the environment, such as entries of `config.toml`. */
  readonly home?: CodexEnvironment.Options | undefined
}

/**
 * Provides the transport to a process in a {@link CodexEnvironment}.
 *
 * **When to use**
 *
 * To wrap the transport, for example with `Cassette.record`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerTransport = (
  options?: StdioTransport.Options
): Layer.Layer<
  Transport,
  never,
  CodexEnvironment.CodexEnvironment | ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> => Layer.unwrap(Effect.map(inEnvironment(options), (options) => StdioTransport.layer(options)))

/**
 * Starts a process in a {@link CodexEnvironment}, with its workspace as working directory.
 *
 * **Details**
 *
 * Each use starts another process, so that a test can resume a thread in a second process.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerProcess = (
  options?: Codex.StdioOptions
): Layer.Layer<
  Codex.Codex | AppServer.AppServer | AppServer.Session,
  AppServerError,
  CodexEnvironment.CodexEnvironment | ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> => Layer.fresh(Layer.unwrap(Effect.map(inEnvironment(options), (options) => Codex.layerStdio(options))))

/** Node's HTTP server on a free port of the loopback interface. */
const layerHttpServer = Layer.effect(
  HttpServer.HttpServer,
  Effect.gen(function*() {
    const server = Http.createServer()
    const httpServer = yield* NodeHttpServer.make(() => server, {
      host: "127.0.0.1",
      port: 0,
      disablePreemptiveShutdown: true
    })
    // Ends connections that have sent half a request, for which the finalizer of `make` would wait. The server stops listening first,
    // so that no connection opens in between.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
    )
    return httpServer
  })
)

/**
 * Starts a `ModelServer` with Node's HTTP server, on a free port of the loopback interface.
 *
 * **Details**
 *
 * Its end drops the responses that are in flight.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerModelServer: Layer.Layer<ModelServer.ModelServer> = ModelServer.layer.pipe(
  Layer.provide(Layer.orDie(layerHttpServer))
)

/**
 * Provides the home and the model of processes that a test starts with {@link layerProcess}.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerEnvironment = (
  options?: CodexEnvironment.Options
): Layer.Layer<
  CodexEnvironment.CodexEnvironment | ModelServer.ModelServer | NodeServices.NodeServices,
  PlatformError.PlatformError
> =>
  CodexEnvironment.layer(options).pipe(
    Layer.provideMerge(layerModelServer),
    Layer.provideMerge(NodeServices.layer)
  )

/**
 * Provides Codex on the real binary, with its scripted model.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  | Codex.Codex
  | AppServer.AppServer
  | AppServer.Session
  | CodexEnvironment.CodexEnvironment
  | ModelServer.ModelServer
  | NodeServices.NodeServices,
  AppServerError | PlatformError.PlatformError
> => {
  const { home, ...process } = options
  return Layer.provideMerge(layerProcess(process), layerEnvironment(home))
}

/** Encodes a part of a JSON Web Token. */
const encodeJwtPart = (part: object): string => Base64Url.encode(JSON.stringify(part))

/**
 * Logs in to a ChatGPT account that the `ModelServer` plays.
 *
 * **When to use**
 *
 * Test what only a ChatGPT login has, such as `codex.rateLimits`. `ModelServer.setRateLimits` sets the limits of the account.
 *
 * **Details**
 *
 * The login lasts until the process ends. Model requests go to the scripted model with and without it.
 *
 * @category operations
 * @since 0.1.0
 */
export const logIn: Effect.Effect<void, AppServerError, AppServer.AppServer> = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const claims = {
    email: "test@example.com",
    "https://api.openai.com/auth": { chatgpt_plan_type: "pro", chatgpt_account_id: "account", chatgpt_user_id: "user" }
  }
  yield* server.request("account/login/start", {
    type: "chatgptAuthTokens",
    accessToken: [encodeJwtPart({ alg: "none", typ: "JWT" }), encodeJwtPart(claims), "signature"].join("."),
    chatgptAccountId: "account",
    chatgptPlanType: "pro"
  })
}).pipe(Effect.withSpan("TestCodex.logIn"))
