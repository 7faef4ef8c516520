/** A worker: runs the job on its own app-server, with the engine and its database in this process. */
import * as NodeCrypto from "@effect/platform-node/NodeCrypto"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Codex } from "effect-codex"
import * as ClusterWorkflowEngine from "effect/cluster/ClusterWorkflowEngine"
import * as SingleRunner from "effect/cluster/SingleRunner"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Sqlite from "../support/sqlite.ts"
import * as Job from "./Job.ts"

const Options = Schema.fromJsonString(Schema.Struct({
  cwd: Schema.String,
  env: Schema.optional(Schema.Record(Schema.String, Schema.String))
}))

/** The engine in this process. Its runner holds no locks in the database, which a killed worker would leave there. */
const layerEngine = (database: string) =>
  ClusterWorkflowEngine.layer.pipe(
    Layer.provideMerge(SingleRunner.layer({
      runnerStorage: "memory",
      // How soon a worker continues what a killed one has left.
      shardingConfig: { entityMessagePollInterval: "500 millis" }
    })),
    Layer.provide([Sqlite.layer(database), NodeCrypto.layerDigest]),
    // The engine warns about work that it finds before the workflow is registered.
    Layer.provide(Layer.succeed(References.MinimumLogLevel, "Error"))
  )

const program = Effect.gen(function*() {
  const database = yield* Config.String("DURABLE_DATABASE")
  const options = yield* Schema.decodeEffect(Options)(yield* Config.String("DURABLE_CODEX"))
  const codex = Codex.layerStdio({ ...options, restart: true }).pipe(Layer.provide(NodeServices.layer))
  const layer = Job.layer.pipe(Layer.provide(codex), Layer.provideMerge(layerEngine(database)))
  yield* Job.Job.execute({ goal: "make the tests faster" }).pipe(Effect.provide(layer))
})

program.pipe(NodeRuntime.runMain)
