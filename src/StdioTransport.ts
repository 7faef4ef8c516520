/**
 * The transport that starts `codex app-server` as a child process and communicates with it over stdin and stdout.
 *
 * The process never outlives the scope of its connection. When the scope closes, the transport ends stdin, which asks the
 * server to exit. A process that does not exit gets SIGTERM and then SIGKILL, each sent to its whole process group.
 *
 * The platform supplies the spawner and the file system: on Node.js, Bun and Deno with `NodeServices.layer` of
 * `@effect/platform-node`.
 *
 * @since 0.1.0
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Path from "effect/Path"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type AppServerError, InvalidRequest, make as appServerError, SpawnFailed } from "./AppServerError.ts"
import type { TomlValue } from "./internal/configTree.ts"
import { connectionNames, processKinds } from "./internal/layerOptions.ts"
import { type Kinds, optionIssue } from "./internal/options.ts"
import { makeRemoveSecrets } from "./internal/redact.ts"
import { codexBinary } from "./internal/stdio/codexBinary.ts"
import { connectionClosed } from "./internal/stdio/connectionEnd.ts"
import { hostProcess } from "./internal/stdio/hostProcess.ts"
import { OutgoingLines } from "./internal/stdio/outgoing.ts"
import { awaitExit, shutDown, spawnServer } from "./internal/stdio/serverProcess.ts"
import { captureStderr } from "./internal/stdio/stderrTail.ts"
import { makeStdoutReader, streamLines } from "./internal/stdio/stdout.ts"
import { tomlOverrides } from "./internal/stdio/toml.ts"
import { type Connection, Transport } from "./Transport.ts"

export type {
  /**
   * A value of Codex's configuration. It is sent as TOML, which has no `null`: leave the key out instead, or pass `undefined`.
   *
   * @category models
   * @since 0.1.0
   */
  TomlValue as ConfigValue
} from "./internal/configTree.ts"

/**
 * Options for starting and stopping the process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The `codex` binary to run. An array is a command that runs it elsewhere, such as `["ssh", "host", "codex"]` or
   * `["docker", "run", "-i", "--rm", "image", "codex"]`.
   *
   * **Gotchas**
   *
   * `ssh` passes arguments to a shell, which splits the values of `config` at spaces and removes their quotes. Write such values to
   * `config.toml` of the host. Neither `ssh` nor `docker` passes on `env` and `cwd` of this process.
   *
   * @default the native binary that npm installed with `@openai/codex`, of the version that this package's protocol was
   * generated from
   */
  readonly codexPath?: string | ReadonlyArray<string> | undefined
  /**
   * Additional arguments, placed after `app-server`.
   *
   * @default none
   */
  readonly args?: ReadonlyArray<string> | undefined
  /**
   * Overrides of Codex's `config.toml`, sent as `-c key=value`.
   *
   * **Details**
   *
   * A key is a dotted path (`"sandbox_workspace_write.network_access": true`), a value may be nested, and entries of one table
   * are merged. Quote a segment that contains a dot or `=` as in TOML (`"projects.\"/a/b.c\".trust_level"`). Or use it as the
   * key of a nested object, where each key is one name.
   *
   * `thread_unload_delay_secs` is the time for which the server keeps a thread without a subscriber. It defaults to 0 here:
   * such a thread was closed with `thread.close`.
   *
   * **Gotchas**
   *
   * The list of processes shows overrides: pass secrets in `env`. An invalid entry fails before the process starts: a key with a
   * control character, a duplicate key, or a value that TOML does not have, such as `null`.
   */
  readonly config?: { readonly [key: string]: TomlValue | undefined } | undefined
  /**
   * The working directory of the process, and so the default one of its threads.
   *
   * @default the parent's
   */
  readonly cwd?: string | undefined
  /**
   * The names of the parent's environment variables that the process inherits. The commands that the model runs may inherit
   * them too. Most programs need `PATH` and `HOME`.
   *
   * @default all variables
   */
  readonly inheritEnv?: ReadonlyArray<string> | undefined
  /**
   * Environment variables, merged over the inherited ones. `undefined` removes a variable.
   *
   * **Details**
   *
   * `Redacted` values are removed from lines of stderr in errors and logs, from error messages of the server, and from recordings.
   */
  readonly env?: { readonly [name: string]: string | Redacted.Redacted<string> | undefined } | undefined
  /**
   * The maximum size of a line from the server, in bytes. A longer line ends the connection, because a caller may wait for
   * what it contains.
   *
   * @default no limit, because some responses have many megabytes
   */
  readonly maxLineBytes?: number | undefined
  /**
   * Maximum time for the process to exit after the end of its stdin. Then the transport sends SIGTERM.
   *
   * @default 2 seconds
   */
  readonly closeTimeout?: Duration.Input | undefined
  /**
   * Maximum time for the process to exit after SIGTERM. Then the transport sends SIGKILL.
   *
   * @default 2 seconds
   */
  readonly killTimeout?: Duration.Input | undefined
}

/** Makes the server unload a thread, and stop its MCP servers, once the thread has no subscriber. Its own default is 30 minutes. */
const unloadAtOnce = ["-c", "thread_unload_delay_secs=0"]

const makeArguments = ({ args = [], config = {} }: Options): ReadonlyArray<string> => [
  ...tomlOverrides(config).flatMap((override) => ["-c", override]),
  "app-server",
  ...(Object.hasOwn(config, "thread_unload_delay_secs") ? [] : unloadAtOnce),
  ...args
]

/** The current values of the parent's variables with these names. */
const inheritedEnv = (names: ReadonlyArray<string> = []): Record<string, string | undefined> =>
  Object.fromEntries(names.map((name) => [name, hostProcess?.env[name]]))

const spawn = Effect.fnUntraced(function*(command: string, firstArgs: ReadonlyArray<string>, options: Options) {
  const args = yield* Effect.try({
    try: () => makeArguments(options),
    catch: (cause) =>
      appServerError(
        new SpawnFailed({
          command,
          cwd: options.cwd,
          description: `the option \`config\` is not valid: ${cause instanceof Error ? cause.message : String(cause)}`
        })
      )
  })
  return yield* spawnServer(command, [...firstArgs, ...args], {
    cwd: options.cwd,
    env: { ...inheritedEnv(options.inheritEnv), ...options.env },
    extendEnv: options.inheritEnv === undefined,
    windowsHide: true,
    forceKillAfter: options.killTimeout ?? Duration.seconds(2)
  })
})

/**
 * Starts the process and connects to it, for the lifetime of the scope.
 *
 * **Details**
 *
 * Fails with `SpawnFailed` if the binary or the working directory is missing. An unknown option or a value of the wrong kind fails
 * with `InvalidRequest`. The names of `AppServer` options are accepted, because one object may contain both.
 *
 * The connection ends with the process: `incoming` then fails with `ConnectionClosed`, which has the exit code or signal and
 * the last lines of stderr.
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<
  Connection,
  AppServerError,
  ChildProcessSpawner | FileSystem.FileSystem | Path.Path | Scope.Scope
> {
  const issue = optionIssue(processKinds satisfies Kinds<Options>, options, connectionNames)
  if (issue !== undefined) {
    return yield* appServerError(new InvalidRequest({ method: "initialize", description: issue }))
  }
  const redact = makeRemoveSecrets(
    Object.values(options.env ?? {}).flatMap((value) => Redacted.isRedacted(value) ? [Redacted.value(value)] : [])
  )
  const [command = "", ...firstArgs] = Arr.ensure(options.codexPath ?? (yield* codexBinary))
  const child = yield* spawn(command, firstArgs, options)

  const outgoing = new OutgoingLines()
  yield* outgoing.stream.pipe(
    Stream.encodeText,
    Stream.run(child.stdin),
    // A server that no longer reads is about to end. `incoming` reports its end.
    Effect.ignore,
    Effect.forkScoped
  )
  const stderr = yield* captureStderr(child.stderr, redact)
  const exited = Fiber.join(yield* Effect.forkScoped(awaitExit(child)))
  yield* Effect.addFinalizer(() =>
    shutDown(child, {
      endInput: () => outgoing.end(),
      exited,
      timeout: options.closeTimeout ?? Duration.seconds(2)
    })
  )

  const stdout = makeStdoutReader(child.stdout, { exited, maxLineBytes: options.maxLineBytes })
  const receive = (onLines: (lines: ReadonlyArray<string>) => void): Effect.Effect<never, AppServerError> =>
    stdout.receive(onLines).pipe(
      Effect.exit,
      Effect.flatMap((read) => connectionClosed(read, { command, exited, isSilent: stdout.chunkCount() === 0, stderr }))
    )
  return {
    incoming: streamLines(receive),
    send: (line) => Effect.sync(() => outgoing.push([line])),
    direct: { receive, send: (lines) => outgoing.push(lines) },
    redact
  }
})

/**
 * Provides a {@link Transport} that starts a process for each connection.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options?: Options
): Layer.Layer<Transport, never, ChildProcessSpawner | FileSystem.FileSystem | Path.Path> =>
  Layer.effect(
    Transport,
    Effect.map(
      Effect.context<ChildProcessSpawner | FileSystem.FileSystem | Path.Path>(),
      (context) => Transport.of({ connect: Effect.provideContext(connect(options), context) })
    )
  )
