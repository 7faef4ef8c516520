/** A cluster of processes: runners with an app-server each, PostgreSQL, one home, and one scripted model. */
import * as NodeClusterSocket from "@effect/platform-node/NodeClusterSocket"
import { PgClient } from "@effect/sql-pg"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import type * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import { type ChildProcessHandle, ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { findProcesses, type ProcessUsage, readName, readUsage } from "../processes.ts"
import * as TestCodex from "../TestCodex.ts"
import * as Postgres from "./Postgres.ts"

/** What a runner receives as its argument. */
export interface RunnerOptions {
  readonly name: string
  readonly port: number
  readonly cwd: string
  /** The path of the socket of the database. */
  readonly database: string
  /** Whether the runner has the intervals of Effect, not those of the tests. */
  readonly isDefault: boolean
}

/**
 * Shorter intervals than those of Effect, so that a runner that was killed is missed after some seconds. A lock has to be refreshed within a
 * third of its expiration, also on a machine that is busy: with 6 seconds, runners lost their locks.
 */
export const shardingConfig: Partial<ShardingConfig.ShardingConfig["Service"]> = {
  shardLockExpiration: "15 seconds",
  runnerHealthCheckInterval: "2 seconds",
  refreshAssignmentsInterval: "1 second"
}

/** The shards of the cluster: the default of Effect. */
const shards = 300

/** A request of the model, as far as the test reads it. */
export interface Served {
  readonly runner: string
  readonly conversation: string
  /** In milliseconds, of `performance.now()`. */
  readonly at: number
  /** The inputs of the history. */
  readonly inputs: ReadonlyArray<string>
}

/** The usage of a runner and of its app-server. */
export interface RunnerUsage {
  readonly runner: ProcessUsage
  readonly appServer: ProcessUsage
}

/** What the database has done since its statistics were reset. */
export interface DatabaseUsage {
  readonly runnerQueries: number
  readonly clientQueries: number
  readonly milliseconds: number
}

export class Cluster extends Context.Service<Cluster, {
  /** Starts a runner, and waits until it is registered and all shards are locked. */
  readonly start: (name: string) => Effect.Effect<void>
  /** Sends a signal to a runner, and waits until it has exited. */
  readonly signal: (name: string, signal: "SIGKILL" | "SIGTERM") => Effect.Effect<void>
  readonly usage: (name: string) => RunnerUsage
  /** The requests of the model, in their order. */
  readonly served: ReadonlyArray<Served>
  readonly resetStatistics: Effect.Effect<void>
  readonly statistics: Effect.Effect<DatabaseUsage>
  readonly rows: Effect.Effect<{ readonly messages: number; readonly replies: number; readonly threads: number }>
}>()("effect-codex/test/Cluster") {}

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as { readonly port: number }
    server.close(() => resume(Effect.succeed(port)))
  })
})

/** Waits until an effect returns `true`, at most a minute. */
export const awaitTrue = <E, R>(what: string, effect: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(effect, { until: (value) => value, schedule: Schedule.spaced("20 millis") }).pipe(
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => Effect.die(new Error(`Timed out waiting for ${what}`))
    })
  )

const program = fileURLToPath(new URL("./runner.ts", import.meta.url))

/** Text in the environment of a runner and of its app-server. */
const marker = (root: string, name: string) => `EFFECT_CODEX_RUNNER=${root}/${name};`

const make = Effect.fnUntraced(function*(isDefault: boolean) {
  const { env, root, workspace } = yield* CodexEnvironment.CodexEnvironment
  const spawner = yield* ChildProcessSpawner
  const sql = yield* PgClient.PgClient
  const running = new Map<string, { readonly handle: ChildProcessHandle; readonly scope: Scope.Closeable }>()
  const ports = new Map<string, number>()
  // Each role has its own statistics.
  yield* sql`CREATE EXTENSION pg_stat_statements`
  for (const role of ["runner", "client"]) yield* sql`CREATE ROLE ${sql(role)} SUPERUSER LOGIN`

  const count = (query: Effect.Effect<ReadonlyArray<{ readonly count: unknown }>, unknown>) =>
    query.pipe(Effect.map(([row]) => Number(row?.count)), Effect.orDie)
  const lockedShards = count(
    sql`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted`
  )
  const lockingRunners = count(
    sql`SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted`
  )

  const start = Effect.fnUntraced(function*(name: string) {
    const port = ports.get(name) ?? (yield* freePort)
    ports.set(name, port)
    const options: RunnerOptions = { name, port, cwd: workspace, database: sql.config.path!, isDefault }
    const own = yield* Scope.make()
    const handle = yield* spawner.spawn(ChildProcess.make(
      process.execPath,
      ["--conditions=@effect-codex/source", program, JSON.stringify(options)],
      {
        // The runners compile the sources once.
        env: {
          ...env,
          EFFECT_CODEX_RUNNER: `${root}/${name};`,
          NODE_COMPILE_CACHE: process.env["NODE_COMPILE_CACHE"]
        },
        extendEnv: true,
        stdin: "ignore",
        stdout: "inherit",
        stderr: "inherit"
      }
    )).pipe(Scope.provide(own))
    running.set(name, { handle, scope: own })
    yield* awaitTrue(
      `runner ${name}`,
      Effect.map(
        Effect.all([lockedShards, lockingRunners]),
        ([locked, runners]) => locked === shards && runners === running.size
      )
    )
  }, Effect.orDie)

  const signal = Effect.fnUntraced(function*(name: string, signal: "SIGKILL" | "SIGTERM") {
    const { handle, scope } = running.get(name)!
    running.delete(name)
    // The runner alone receives it: an app-server has to notice by itself that its runner is gone.
    process.kill(handle.pid, signal)
    yield* Effect.exit(handle.exitCode)
    yield* Scope.close(scope, Exit.void)
  })
  // Before the database stops.
  yield* Effect.addFinalizer(() =>
    Effect.forEach([...running.keys()], (name) => signal(name, "SIGTERM"), { concurrency: "unbounded", discard: true })
  )

  const served: Array<Served> = []
  const model = yield* ModelServer.ModelServer
  const replyTo = (request: ModelServer.ModelRequest) => {
    const inputs = request.userTexts.filter((text) => text.startsWith("ask "))
    served.push({
      runner: request.header("x-runner") ?? "",
      conversation: inputs.at(-1)?.split(" ")[1] ?? "",
      at: performance.now(),
      inputs
    })
    return inputs.at(-1)
  }
  yield* model.respond((request) =>
    ModelServer.deltas(["re: ", replyTo(request) ?? ""], { pace: "200 millis", phase: "final_answer" })
  )

  return Cluster.of({
    start,
    signal,
    usage: (name) => {
      const { handle: { pid } } = running.get(name)!
      const appServer = findProcesses(marker(root, name)).find((pid) => readName(pid) === "codex")
      return { runner: readUsage(pid), appServer: readUsage(appServer ?? 0) }
    },
    served,
    resetStatistics: Effect.orDie(Effect.asVoid(sql`SELECT pg_stat_statements_reset()`)),
    statistics: sql<{ rolname: string; calls: unknown; milliseconds: unknown }>`
      SELECT rolname, sum(calls) AS calls, sum(total_exec_time) AS milliseconds
      FROM pg_stat_statements JOIN pg_roles ON pg_roles.oid = userid GROUP BY rolname
    `.pipe(
      Effect.map((rows) => {
        const of = (role: string) => rows.find(({ rolname }) => rolname === role)
        return {
          runnerQueries: Number(of("runner")?.calls ?? 0),
          clientQueries: Number(of("client")?.calls ?? 0),
          milliseconds: Number(of("runner")?.milliseconds ?? 0) + Number(of("client")?.milliseconds ?? 0)
        }
      }),
      Effect.orDie
    ),
    rows: Effect.all({
      messages: count(sql`SELECT count(*) FROM cluster_messages`),
      replies: count(sql`SELECT count(*) FROM cluster_replies`),
      threads: count(sql`SELECT count(*) FROM effect_key_value_store`)
    })
  })
})

/** A client of the cluster, which is no runner. */
const layerSharding = Layer.unwrap(
  Effect.map(
    PgClient.PgClient,
    ({ config }) =>
      NodeClusterSocket.layer({ clientOnly: true, storage: "sql", shardingConfig }).pipe(
        Layer.provide(Layer.fresh(Postgres.layerClient(config.path!, "client")))
      )
  )
)

/** The cluster without its runners. */
export const layer = (options?: { readonly isDefault?: boolean }) =>
  layerSharding.pipe(
    Layer.provideMerge(Layer.effect(Cluster, make(options?.isDefault ?? false))),
    Layer.provideMerge(Postgres.layer),
    Layer.provideMerge(TestCodex.layerEnvironment())
  )
