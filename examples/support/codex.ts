/**
 * Codex for the examples: the real `codex app-server`, by default with a scripted model in this process, which needs no
 * account. `CODEX_LIVE=1` selects your own Codex, with your login and configuration.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Codex } from "effect-codex"
import { CodexEnvironment, ModelServer, TestCodex } from "effect-codex/testing"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"

export const { deltas, functionCall, hang, object, reasoning, reply, text } = ModelServer

/** The replies of the scripted model: a list in order, or a function of the request. */
export type Script = ReadonlyArray<ModelServer.Reply> | ((request: ModelServer.ModelRequest) => ModelServer.Reply)

/** The options of the app-server process. */
export class CodexOptions extends Context.Service<CodexOptions, Codex.StdioOptions>()("examples/CodexOptions") {}

const scripted = (script: Script) =>
  Layer.effect(
    CodexOptions,
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
      yield* typeof script === "function" ? model.respond(script) : model.enqueue(...script)
      yield* Console.log("Model: scripted, in this process. Set CODEX_LIVE=1 to use your own Codex login.\n")
      return { cwd: workspace, env }
    })
  ).pipe(
    Layer.provide(CodexEnvironment.layer()),
    Layer.provide(TestCodex.layerModelServer),
    Layer.provide(NodeServices.layer)
  )

// An empty directory keeps the files of the model out of this clone.
const live = Layer.effect(
  CodexOptions,
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const cwd = yield* fs.makeTempDirectoryScoped({ prefix: "effect-codex-example-" })
    yield* Console.log(`Model: live, with your own Codex login and configuration, in ${cwd}.\n`)
    return { cwd }
  })
).pipe(Layer.provide(NodeServices.layer))

const isLive = Config.Boolean("CODEX_LIVE").pipe(Config.withDefault(false))

/** Chooses between the scripted and the live model, and prints the choice. */
export const layerOptions = (script: Script) =>
  Layer.unwrap(Effect.map(isLive, (isLive) => isLive ? live : scripted(script)))

/** Codex on one app-server process. */
export const layerProcess = Layer.unwrap(Effect.map(CodexOptions, Codex.layerStdio)).pipe(
  Layer.provide(NodeServices.layer)
)

/** Codex with the scripted or the live model. */
export const layerCodex = (script: Script) => Layer.provide(layerProcess, layerOptions(script))

/** Codex with the scripted model only. With `CODEX_LIVE=1` the program prints `reason` and exits. */
export const layerScripted = (script: Script, reason: string) =>
  Layer.unwrap(Effect.gen(function*() {
    if (yield* isLive) {
      yield* Console.error(
        `This example ${reason}, so it runs with the scripted model only. Run it without CODEX_LIVE.`
      )
      return yield* Effect.sync(() => process.exit(1))
    }
    return Layer.provide(layerProcess, scripted(script))
  }))
