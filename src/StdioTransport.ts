/**
 * The transport that starts `codex app-server` as a child process and talks to it over stdin and stdout.
 *
 * The process lives exactly as long as the connection's scope. On close its stdin ends, which is the server's signal to
 * leave; one that stays gets SIGTERM and then SIGKILL, each sent to its whole process group.
 *
 * This is the only module of the package that uses `effect/process`. The platform supplies the spawner, on Node.js with
 * `NodeServices.layer` of `@effect/platform-node`.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type AppServerError,
  ConnectionClosed,
  InvalidRequest,
  isAppServerError,
  make as appServerError,
  SpawnFailed
} from "./AppServerError.ts"
import { connectionNames, processKinds } from "./internal/layerOptions.ts"
import { type Kinds, optionIssue } from "./internal/options.ts"
import { codexBinary } from "./internal/stdio/codexBinary.ts"
import { linesOf, makeLineSplitter } from "./internal/stdio/framing.ts"
import { OutgoingLines } from "./internal/stdio/outgoing.ts"
import { hasOnlyZombies } from "./internal/stdio/processGroup.ts"
import { makeRedact, makeRemoveSecrets } from "./internal/stdio/redact.ts"
import { tomlOverrides, type TomlValue } from "./internal/stdio/toml.ts"
import { SyncQueue } from "./internal/syncQueue.ts"
import { type Connection, Transport } from "./Transport.ts"

/**
 * A value of Codex's configuration. It is sent as TOML, which has no `null`: leave the key out instead, or give `undefined`.
 *
 * @category models
 * @since 0.1.0
 */
export type ConfigValue = TomlValue

/**
 * How the process is started and stopped.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The `codex` binary to run. By default the native one that npm installed with `@openai/codex`, which is the version
   * this package's protocol was generated from.
   */
  readonly codexPath?: string | undefined
  /** More arguments, after `app-server`. */
  readonly args?: ReadonlyArray<string> | undefined
  /**
   * Overrides of Codex's `config.toml`, sent as `-c key=value`.
   *
   * A key is a dotted path (`"sandbox_workspace_write.network_access": true`), a value may be nested, and entries of one table
   * are merged. A segment with a dot or `=` in it is quoted as in TOML (`"projects.\"/a/b.c\".trust_level"`), or given as the key
   * of a nested object, where every name is taken as it stands.
   *
   * **Gotchas**
   *
   * `thread_unload_delay_secs`, the time for which the server keeps a thread that no client is subscribed to, is 0 unless it is given:
   * such a thread has been closed with `thread.close`.
   *
   * Overrides are visible in the list of processes: pass secrets in `env`. A key with a control character, an entry that is given
   * twice, and a value that TOML does not have, such as `null`, are refused before anything is started.
   */
  readonly config?: { readonly [key: string]: ConfigValue | undefined } | undefined
  /** The working directory of the process, and so the default one of its threads. Default: the parent's. */
  readonly cwd?: string | undefined
  /**
   * Which of the parent's environment variables the process gets: all, or those named here and no others. Whatever it gets,
   * the commands that the model runs may get too. A program mostly needs `PATH` and `HOME`. Default: all.
   */
  readonly inheritEnv?: ReadonlyArray<string> | undefined
  /**
   * Environment variables, merged over those of the parent; `undefined` removes one. Values given as `Redacted` are removed from
   * what the server writes to stderr before it reaches an error or a log, from what it says when it refuses a request, and from
   * recordings.
   */
  readonly env?: { readonly [name: string]: string | Redacted.Redacted<string> | undefined } | undefined
  /**
   * The longest line accepted from the server, in bytes. A longer one ends the connection: whatever it held, somebody would
   * wait for it. Default: no limit; answers of many megabytes are real.
   */
  readonly maxLineBytes?: number | undefined
  /** How long the process may take to leave after its stdin has ended, before it is signalled. Default: 2 seconds. */
  readonly closeTimeout?: Duration.Input | undefined
  /** How long the process may take to leave after SIGTERM, before SIGKILL. Default: 2 seconds. */
  readonly killTimeout?: Duration.Input | undefined
}

const stderrTailLines = 40
const stderrTailChars = 8_192
const stderrLineChars = 4_096

/** After stdout has ended, how long the exit is waited for, and then the last of stderr. */
const exitGrace = Duration.millis(250)

/** After the process has exited, how long a stdout that a descendant keeps open is still read. */
const stdoutGrace = Duration.seconds(1)

/**
 * Waits until nothing has come for a while: what an exited process has left in a pipe comes at once. One look would not do, for it
 * may be taken before the pipe was read.
 */
const quiet = (received: () => number): Effect.Effect<void> =>
  Effect.suspend(() => {
    let before = received()
    let looks = 0
    return Effect.sleep("5 millis").pipe(
      Effect.repeat({
        until: () => {
          looks = received() === before ? looks + 1 : 0
          before = received()
          return looks === 3
        }
      }),
      Effect.asVoid
    )
  })

/** Has the server unload a thread, and end its MCP servers, as soon as it has no subscriber. By default it waits for half an hour. */
const unloadAtOnce = ["-c", "thread_unload_delay_secs=0"]

const argv = ({ args = [], config = {} }: Options): ReadonlyArray<string> => [
  ...tomlOverrides(config).flatMap((override) => ["-c", override]),
  "app-server",
  ...(Object.hasOwn(config, "thread_unload_delay_secs") ? [] : unloadAtOnce),
  ...args
]

/** The parent's variables of these names, as they are now. */
const inherited = (names: ReadonlyArray<string> = []): Record<string, string | undefined> =>
  Object.fromEntries(names.map((name) => [name, process.env[name]]))

/** The last lines of stderr, redacted, and a log line for each at debug level. */
const makeStderrTail = (removeSecrets: (text: string) => string) => {
  const tail: Array<string> = []
  const removeCredentials = makeRedact([])
  let lines = 0
  return {
    lines: () => lines,
    text: () => tail.join("\n").slice(-stderrTailChars),
    add: (line: string) => {
      lines++
      // Before it is cut, for half a secret is not known.
      const clean = removeSecrets(line)
      const redacted = removeCredentials(
        clean.length > stderrLineChars ? `${clean.slice(0, stderrLineChars)}…` : clean
      )
      tail.push(redacted)
      if (tail.length > stderrTailLines) tail.shift()
      return Effect.logDebug(redacted)
    }
  }
}

/** Names the binary, which may not be that of Codex. */
const describeExit = (exit: Option.Option<ProcessExit>, command: string, silent: boolean): string =>
  Option.match(exit, {
    onNone: () => `\`${command}\` closed its stdout`,
    onSome: ({ exitCode, signal }) =>
      `\`${command}\` ${signal === undefined ? `exited with code ${exitCode}` : `was killed by ${signal}`}`
  }) + (silent ? " before it sent anything" : "")

interface ProcessExit {
  readonly exitCode: number | undefined
  readonly signal: string | undefined
}

/** The spawner reports death by signal as an error that names the signal in its text only. */
const signalOf = (cause: Cause.Cause<unknown>): string | undefined => /'(SIG[A-Z0-9]+)'/.exec(Cause.pretty(cause))?.[1]

/**
 * Starts the process and connects to it, for as long as the scope lives.
 *
 * Fails with `SpawnFailed` when the binary or the working directory is missing, and with `InvalidRequest` for an option that there
 * is not or whose value is of another kind. The names of `AppServer` options are accepted, because one object may have
 * both. The end of the process is the end of the
 * connection: `incoming` then fails with `ConnectionClosed`, which has the exit code or signal and the end of stderr.
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect: (
  options?: Options
) => Effect.Effect<Connection, AppServerError, ChildProcessSpawner | Scope.Scope> = Effect.fnUntraced(
  function*(options: Options = {}) {
    const issue = optionIssue(processKinds satisfies Kinds<Options>, options, connectionNames)
    if (issue !== undefined) {
      return yield* appServerError(new InvalidRequest({ method: "initialize", description: issue }))
    }
    const spawner = yield* ChildProcessSpawner
    const command = options.codexPath ?? (yield* codexBinary)
    const redact = makeRemoveSecrets(
      Object.values(options.env ?? {}).flatMap((value) => Redacted.isRedacted(value) ? [Redacted.value(value)] : [])
    )
    const args = yield* Effect.try({
      try: () => argv(options),
      catch: (cause) =>
        appServerError(
          new SpawnFailed({
            command,
            cwd: options.cwd,
            description: `the option \`config\` is not valid: ${cause instanceof Error ? cause.message : String(cause)}`
          })
        )
    })
    const child = yield* spawner.spawn(ChildProcess.make(command, args, {
      cwd: options.cwd,
      env: { ...inherited(options.inheritEnv), ...options.env },
      extendEnv: options.inheritEnv === undefined,
      windowsHide: true,
      forceKillAfter: options.killTimeout ?? Duration.seconds(2)
    })).pipe(
      Effect.mapError(({ reason }) => describeSpawnError(reason, command, options.cwd)),
      // Node throws some errors instead of reporting them, as for arguments that are too long.
      Effect.catchDefect((defect) => Effect.fail(`the system refused it (${codeOf(defect)})`)),
      Effect.mapError((description) => appServerError(new SpawnFailed({ command, cwd: options.cwd, description })))
    )

    const outgoing = new OutgoingLines()
    yield* outgoing.stream.pipe(
      Stream.encodeText,
      Stream.run(child.stdin),
      // A server that does not read any more is about to end, and its end is reported by `incoming`.
      Effect.ignore,
      Effect.forkScoped
    )

    const stderr = makeStderrTail(redact)
    const stderrDrained = yield* linesOf(child.stderr, 1_048_576).pipe(
      Stream.runForEach(stderr.add),
      Effect.annotateLogs({ source: "codex app-server stderr" }),
      Effect.ignore,
      Effect.forkScoped
    )

    const exited = yield* Effect.exit(child.exitCode).pipe(
      Effect.map((exit): ProcessExit =>
        Exit.isSuccess(exit)
          ? { exitCode: exit.value, signal: undefined }
          : { exitCode: undefined, signal: signalOf(exit.cause) }
      ),
      Effect.forkScoped
    )

    yield* Effect.addFinalizer(() =>
      Effect.sync(() => outgoing.end()).pipe(
        Effect.andThen(Fiber.join(exited)),
        // The spawner waits for the group to be empty. Where process 1 reaps no zombies, as in many containers, it would do so in
        // vain for what a command of the server has left there, though there is nothing to end any more.
        Effect.andThen(Effect.suspend(() => hasOnlyZombies(child.pid) ? child.unref : Effect.void)),
        Effect.timeoutOption(options.closeTimeout ?? Duration.seconds(2)),
        Effect.ignore
      )
    )

    let chunksRead = 0
    const closed = Effect.fnUntraced(function*(cause?: Cause.Cause<unknown>) {
      const exit = yield* Effect.timeoutOption(Fiber.join(exited), exitGrace)
      if (Option.isSome(exit)) {
        // A descendant may hold stderr.
        yield* Fiber.await(stderrDrained).pipe(
          Effect.raceFirst(quiet(stderr.lines)),
          Effect.timeoutOption(exitGrace)
        )
      }
      return yield* appServerError(
        new ConnectionClosed({
          description: describeExit(exit, command, chunksRead === 0),
          exitCode: Option.getOrUndefined(exit)?.exitCode,
          signal: Option.getOrUndefined(exit)?.signal,
          stderrTail: stderr.text(),
          ...(cause === undefined ? {} : { cause: Cause.squash(cause) })
        })
      )
    })

    const tooLong = Effect.suspend(() =>
      Effect.fail(appServerError(
        new ConnectionClosed({
          description: `the server sent a line of more than ${options.maxLineBytes} bytes (maxLineBytes)`,
          exitCode: undefined,
          signal: undefined,
          stderrTail: stderr.text()
        })
      ))
    )

    const splitter = makeLineSplitter(options.maxLineBytes)
    /** The process has exited, and a descendant holds stdout. */
    const leftOpen = Effect.andThen(
      Fiber.join(exited),
      Effect.timeoutOption(quiet(() => chunksRead), stdoutGrace)
    )
    const receive = (onLines: (lines: ReadonlyArray<string>) => void): Effect.Effect<never, AppServerError> =>
      Stream.runForEachArray(child.stdout, (chunks) => {
        chunksRead += chunks.length
        for (const chunk of chunks) {
          const lines = splitter.push(chunk)
          const droppedAfter = splitter.droppedAfter()
          // What comes after a gap would be misunderstood.
          const heard = droppedAfter === undefined ? lines : lines.slice(0, droppedAfter)
          if (heard.length > 0) onLines(heard)
          if (droppedAfter !== undefined) return tooLong
        }
        return Effect.void
      }).pipe(
        Effect.raceFirst(leftOpen),
        Effect.tap(() =>
          Effect.sync(() => {
            const rest = splitter.rest()
            if (rest !== "") onLines([rest])
          })
        ),
        Effect.matchCauseEffect({
          onFailure: (cause) => {
            const error = Option.getOrUndefined(Cause.findErrorOption(cause))
            return isAppServerError(error) ? Effect.fail(error) : closed(cause)
          },
          onSuccess: () => closed()
        })
      )

    return {
      incoming: Stream.unwrap(Effect.gen(function*() {
        const unread: Array<string> = []
        const lines = new SyncQueue<string, AppServerError>(() => unread.splice(0))
        yield* receive((more) => {
          for (const line of more) unread.push(line)
          lines.notify()
        }).pipe(
          Effect.catch((error) =>
            Effect.sync(() => {
              lines.end(error)
              lines.notify()
            })
          ),
          Effect.forkScoped
        )
        return lines.stream
      })),
      send: (line) => Effect.sync(() => outgoing.push([line])),
      direct: { receive, send: (lines) => outgoing.push(lines) },
      redact
    }
  }
)

const codeOf = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && Predicate.isString(error.code) ? error.code : "for no reason that it gave"

/** The error itself is not kept: it has the whole command line, and with it the configuration, in its text. */
const describeSpawnError = (
  reason: PlatformError.PlatformError["reason"],
  command: string,
  cwd: string | undefined
): string => {
  // The spawner looks for the directory before it starts anything.
  const isDirectory = "method" in reason && reason.method === "access"
  switch (reason._tag) {
    case "NotFound":
      return isDirectory ? `the working directory ${cwd} does not exist` : `there is no binary at ${command}`
    case "PermissionDenied":
      return isDirectory ? `the working directory ${cwd} may not be used` : `${command} may not be run`
    case "BadArgument":
      return reason.description ?? "an argument is not valid"
    default:
      return `the system refused it (${reason._tag}, ${codeOf(reason.cause)})`
  }
}

/**
 * A {@link Transport} that starts a process for each connection.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: Options): Layer.Layer<Transport, never, ChildProcessSpawner> =>
  Layer.effect(
    Transport,
    Effect.gen(function*() {
      const spawner = yield* ChildProcessSpawner
      return Transport.of({
        connect: connect(options).pipe(Effect.provideService(ChildProcessSpawner, spawner))
      })
    })
  )
