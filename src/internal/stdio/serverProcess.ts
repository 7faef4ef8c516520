/** Starts the child process of the server, reports its exit, and shuts it down. */
import * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as PlatformError from "effect/PlatformError"
import * as Predicate from "effect/Predicate"
import * as ChildProcess from "effect/process/ChildProcess"
import { type ChildProcessHandle, ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { make as appServerError, SpawnFailed } from "../../AppServerError.ts"
import { hasOnlyZombies } from "./processGroup.ts"

const describeCode = (error: unknown): string =>
  Predicate.hasProperty(error, "code") && Predicate.isString(error.code) ? `\`${error.code}\`` : "no error code"

/** Describes an error without its message, which contains the command line and so the configuration. */
const describeSpawnError = (
  reason: PlatformError.PlatformError["reason"],
  command: string,
  cwd: string | undefined
): string => {
  // The spawner checks the directory before it starts the process.
  const isDirectory = "method" in reason && reason.method === "access"
  switch (reason._tag) {
    case "NotFound":
      return isDirectory
        ? `the working directory \`${cwd}\` does not exist. Create it, or change the option \`cwd\`.`
        : `there is no binary at \`${command}\`. Check the option \`codexPath\`.`
    case "PermissionDenied":
      return isDirectory
        ? `the working directory \`${cwd}\` is not accessible. Change its file permissions, or the option \`cwd\`.`
        : `\`${command}\` is not executable. Change its file permissions, or the option \`codexPath\`.`
    case "BadArgument":
      return reason.description ?? "an argument is not valid"
    default:
      return `the operating system refused to start it (${reason._tag}, ${describeCode(reason.cause)})`
  }
}

/** Starts the process, and signals its whole group when the scope closes. */
export const spawnServer = Effect.fnUntraced(
  function*(command: string, args: ReadonlyArray<string>, options: ChildProcess.CommandOptions) {
    const spawner = yield* ChildProcessSpawner
    return yield* spawner.spawn(ChildProcess.make(command, args, options)).pipe(
      Effect.mapError(({ reason }) => describeSpawnError(reason, command, options.cwd)),
      // Node.js throws some errors, such as the one for arguments that are too long.
      Effect.catchDefect((defect) => Effect.fail(`the operating system refused to start it (${describeCode(defect)})`)),
      Effect.mapError((description) => appServerError(new SpawnFailed({ command, cwd: options.cwd, description })))
    )
  }
)

/** How a process has ended: with an exit code, or by a signal. */
export interface ProcessExit {
  readonly exitCode: number | undefined
  readonly signal: string | undefined
}

/** Reads the signal that killed a process from the message of the spawner's error, the only place where it is. */
const getSignal = (cause: Cause.Cause<unknown>): string | undefined => /'(SIG[A-Z0-9]+)'/.exec(Cause.pretty(cause))?.[1]

export const awaitExit = (child: ChildProcessHandle): Effect.Effect<ProcessExit> =>
  Effect.map(Effect.exit(child.exitCode), (exit) =>
    Exit.isSuccess(exit)
      ? { exitCode: exit.value, signal: undefined }
      : { exitCode: undefined, signal: getSignal(exit.cause) })

/** Ends stdin and waits for the process to exit. The spawner then signals the processes of the group that are still alive. */
export const shutDown = Effect.fnUntraced(function*(child: ChildProcessHandle, options: {
  readonly endInput: () => void
  readonly exited: Effect.Effect<ProcessExit>
  readonly timeout: Duration.Input
}) {
  options.endInput()
  yield* options.exited.pipe(
    Effect.andThen(hasOnlyZombies(child.pid)),
    // The spawner waits until the group is empty. In many containers process 1 does not reap zombies. The wait would then use up its
    // timeouts, although the group has no live member to signal.
    Effect.andThen((onlyZombies) => onlyZombies ? Effect.asVoid(child.unref) : Effect.void),
    Effect.timeoutOption(options.timeout),
    Effect.ignore
  )
})
