/**
 * Codex for a test: the real `codex app-server` with a scripted model, in a home of its own that is removed afterwards. It
 * needs no login and makes no connection that leaves the machine.
 *
 * The process is the binary of `codexPath`, else the one that the environment variable `CODEX_TEST_PATH` names, else the one that
 * npm installed with this package.
 *
 * ```ts
 * import { assert, layer } from "@effect/vitest"
 * import { Effect } from "effect"
 * import { Codex } from "effect-codex"
 * import { ModelServer, TestCodex } from "effect-codex/testing"
 *
 * layer(TestCodex.layer(), { excludeTestServices: true })("my program", (it) => {
 *   it.effect("answers", () =>
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
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import type * as AppServer from "../AppServer.ts"
import type { AppServerError } from "../AppServerError.ts"
import * as Codex from "../Codex.ts"
import * as StdioTransport from "../StdioTransport.ts"
import type { Transport } from "../Transport.ts"
import * as CodexEnvironment from "./CodexEnvironment.ts"
import * as ModelServer from "./ModelServer.ts"

/** The binary that `CODEX_TEST_PATH` names, so that one suite runs on several versions of Codex. */
const testedBinary = Effect.orDie(
  Config.String("CODEX_TEST_PATH").pipe(
    Config.map((codexPath): StdioTransport.Options => ({ codexPath })),
    Config.withDefault({})
  )
)

/** What starts a process in the home at hand. */
const inHome = Effect.fnUntraced(function*<Options extends StdioTransport.Options>(options: Options | undefined) {
  const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
  return { cwd: workspace, ...yield* testedBinary, ...options, env: { ...env, ...options?.env } }
})

/**
 * How the process is started, and what its home differs in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options extends Codex.StdioOptions {
  readonly home?: CodexEnvironment.Options | undefined
}

/**
 * The transport to a process in the home at hand, for what stands between it and the `AppServer`, such as
 * `Cassette.record`.
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
> => Layer.unwrap(Effect.map(inHome(options), (options) => StdioTransport.layer(options)))

/**
 * One process in the home at hand, with its workspace as working directory. Each use is a process of its own, so that a
 * test can go on in a second one where the first has stopped.
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
> => Layer.fresh(Layer.unwrap(Effect.map(inHome(options), (options) => Codex.layerStdio(options))))

/**
 * A home and a model for processes that a test starts itself, with {@link layerProcess}.
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
    Layer.provideMerge(ModelServer.layer),
    Layer.provideMerge(NodeServices.layer)
  )

/**
 * A ready Codex on the real binary, and the scripted model behind it.
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
