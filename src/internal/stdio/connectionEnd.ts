/** Reports the end of the connection, with the exit of the process and its last lines on stderr. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { type AppServerError, ConnectionClosed, make as appServerError } from "../../AppServerError.ts"
import { awaitIdle } from "./awaitIdle.ts"
import type { ProcessExit } from "./serverProcess.ts"
import type { StderrTail } from "./stderrTail.ts"
import { LineTooLong } from "./stdout.ts"

/** Maximum time to wait for the exit after the end of stdout, and then for the rest of stderr. */
const exitGrace = Duration.millis(250)

/** Describes an exit. It names the command, which may be another binary than Codex. */
const describeExit = (exit: ProcessExit | undefined, command: string, isSilent: boolean): string => {
  const end = exit === undefined
    ? "closed its stdout"
    : exit.signal === undefined
    ? `exited with code ${exit.exitCode}`
    : `was killed by ${exit.signal}`
  return `\`${command}\` ${end}${isSilent ? " before it sent anything" : ""}`
}

/** Fails with `ConnectionClosed` after stdout was read. `read` is the exit of the reader. */
export const connectionClosed = Effect.fnUntraced(function*(read: Exit.Exit<void, unknown>, options: {
  readonly command: string
  readonly exited: Effect.Effect<ProcessExit>
  readonly isSilent: boolean
  readonly stderr: StderrTail
}): Effect.fn.Return<never, AppServerError> {
  const { command, exited, isSilent, stderr } = options
  const cause = Exit.isFailure(read) ? Cause.squash(read.cause) : undefined
  if (cause instanceof LineTooLong) {
    return yield* appServerError(
      new ConnectionClosed({
        description:
          `the server sent a line of more than ${cause.maxLineBytes} bytes. Raise or remove the option \`maxLineBytes\`.`,
        exitCode: undefined,
        signal: undefined,
        stderrTail: stderr.text()
      })
    )
  }
  const exit = Option.getOrUndefined(yield* Effect.timeoutOption(exited, exitGrace))
  if (exit !== undefined) {
    // A descendant may keep stderr open.
    yield* stderr.ended.pipe(
      Effect.raceFirst(awaitIdle(stderr.lineCount)),
      Effect.timeoutOption(exitGrace)
    )
  }
  return yield* appServerError(
    new ConnectionClosed({
      description: describeExit(exit, command, isSilent),
      exitCode: exit?.exitCode,
      signal: exit?.signal,
      stderrTail: stderr.text(),
      ...(Exit.isFailure(read) ? { cause } : {})
    })
  )
})
