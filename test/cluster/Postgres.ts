/** A PostgreSQL of its own in a temporary folder, which listens on a Unix socket. */
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { execFileSync } from "node:child_process"
import { accessSync, readdirSync } from "node:fs"

/** Port of the socket. It is part of a file name in a folder of its own, so it needs not be free. */
const port = 5432

const isExecutable = (file: string): boolean => {
  try {
    accessSync(file)
    return true
  } catch {
    return false
  }
}

/** Debian keeps the programs of each version in a folder of its own, and only some of them in `PATH`. */
const findFolder = (): string | undefined => {
  const debian = "/usr/lib/postgresql"
  const versions = isExecutable(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  return [...versions.map((version) => `${debian}/${version}/bin`), ...(process.env["PATH"] ?? "").split(":")]
    .find((folder) => isExecutable(`${folder}/initdb`) && isExecutable(`${folder}/pg_ctl`))
}

/** The user that owns the database. PostgreSQL refuses to run as root. */
const findUser = (): number | undefined => {
  try {
    return Number(execFileSync("id", ["-u", "postgres"], { stdio: ["ignore", "pipe", "ignore"] }))
  } catch {
    return undefined
  }
}

const folder = process.platform === "linux" ? findFolder() : undefined
const isRoot = process.getuid?.() === 0
const user = isRoot ? findUser() : process.getuid?.()

/** Why PostgreSQL cannot run here. */
export const missing: string | undefined = folder === undefined
  ? "PostgreSQL is not installed. Install the Debian package `postgresql`"
  : user === undefined
  ? "The tests run as root, and there is no user `postgres`. Run them as another user"
  : undefined

/** Starts PostgreSQL, and returns the path of its socket. It stops when the scope closes. */
const start = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
  const root = yield* fs.makeTempDirectoryScoped({ prefix: "effect-codex-pg-" })
  if (isRoot) yield* fs.chown(root, user!, user!)
  const log = path.join(root, "log")
  const run = Effect.fnUntraced(function*(program: string, ...args: ReadonlyArray<string>) {
    const command = [path.join(folder!, program), ...args]
    const [name, ...rest] = isRoot ? ["runuser", "-u", "postgres", "--", ...command] : command
    const code = yield* spawner.exitCode(
      ChildProcess.make(name!, rest, { cwd: root, stdin: "ignore", stdout: "ignore", stderr: "inherit" })
    )
    if (code !== 0) {
      const lines = yield* Effect.orElseSucceed(fs.readFileString(log), () => "no log")
      return yield* Effect.die(new Error(`\`${program}\` failed with code ${code}: ${lines}`))
    }
  })
  const data = path.join(root, "data")
  yield* run("initdb", "--pgdata", data, "--username", "postgres", "--auth", "trust", "--no-sync")
  // The settings are the defaults, but for the statistics that the test reads.
  const options = `-k ${root} -p ${port} -c listen_addresses='' -c shared_preload_libraries=pg_stat_statements`
  yield* Effect.acquireRelease(
    run("pg_ctl", "--pgdata", data, "--log", log, "--options", options, "--wait", "start"),
    () => run("pg_ctl", "--pgdata", data, "--mode", "immediate", "--wait", "stop").pipe(Effect.orDie)
  )
  return path.join(root, `.s.PGSQL.${port}`)
})

/** A client of a database with a path. */
export const layerClient = (path: string, username: string) =>
  PgClient.layer({ path, username, database: "postgres", maxConnections: 8 })

/** The database and its client. `client.config.path` is the path of the socket. */
export const layer = Layer.unwrap(Effect.map(start, (path) => layerClient(path, "postgres")))
