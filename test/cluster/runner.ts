/** A runner of a cluster: a process with an app-server of its own. The test starts it, and kills it. */
import * as NodeClusterSocket from "@effect/platform-node/NodeClusterSocket"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Codex } from "effect-codex"
import { ThreadEntity } from "effect-codex/cluster"
import * as RunnerAddress from "effect/cluster/RunnerAddress"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as KeyValueStore from "effect/persistence/KeyValueStore"
import * as References from "effect/References"
import { type RunnerOptions, shardingConfig } from "./cluster.ts"
import * as Postgres from "./Postgres.ts"

const { cwd, database, isDefault, name, port } = JSON.parse(process.argv[2]!) as RunnerOptions

const address = Option.some(RunnerAddress.make("127.0.0.1", port))
const cluster = NodeClusterSocket.layer({
  storage: "sql",
  shardingConfig: { ...(isDefault ? {} : shardingConfig), runnerAddress: address, runnerListenAddress: address }
})

const codex = Codex.layerStdio({
  cwd,
  restart: true,
  // The model server of the test sees which runner a request is from.
  config: { model_providers: { mock_provider: { http_headers: { "x-runner": name } } } }
}).pipe(Layer.provide(NodeServices.layer))

ThreadEntity.layer({ thread: { sandbox: "read-only", approvalMode: "deny_all" }, maxIdleTime: "5 minutes" }).pipe(
  Layer.provide([codex, cluster, KeyValueStore.layerSql()]),
  Layer.provide(Postgres.layerClient(database, "runner")),
  Layer.launch,
  // A runner warns while others are killed.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
