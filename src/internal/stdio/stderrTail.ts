/** Reads stderr of the server: logs each line, and keeps the last ones for the error at the end of the process. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { makeRedact } from "../redact.ts"
import { splitLines } from "./framing.ts"

/** Maximum number of lines that are kept. */
const maxLines = 40

/** Maximum length of the tail, in UTF-16 units. */
const maxTailLength = 8_192

/** Maximum length of one line, in UTF-16 units. */
const maxLineLength = 4_096

/** Maximum size of a line, in bytes. A longer line is dropped while it is read, so that it takes no memory. */
const maxLineBytes = 1_048_576

export interface StderrTail {
  /** Number of lines that were read. */
  readonly lineCount: () => number
  /** The last lines, without secrets. */
  readonly text: () => string
  /** Waits until stderr has ended. */
  readonly ended: Effect.Effect<void>
}

/** Starts to read stderr in the scope. Each line is logged at debug level. */
export const captureStderr = Effect.fnUntraced(function*<E>(
  stderr: Stream.Stream<Uint8Array, E>,
  removeSecrets: (text: string) => string
): Effect.fn.Return<StderrTail, never, Scope.Scope> {
  const removeCredentials = makeRedact([])
  const tail: Array<string> = []
  let lineCount = 0

  const add = (line: string) => {
    lineCount++
    // Secrets are removed first: a secret that is cut in two would not be recognized.
    const clean = removeSecrets(line)
    const redacted = removeCredentials(clean.length > maxLineLength ? `${clean.slice(0, maxLineLength)}…` : clean)
    tail.push(redacted)
    if (tail.length > maxLines) tail.shift()
    return Effect.logDebug(redacted)
  }

  const fiber = yield* splitLines(stderr, maxLineBytes).pipe(
    Stream.runForEach(add),
    Effect.annotateLogs({ source: "codex app-server stderr" }),
    Effect.ignore,
    Effect.forkScoped
  )
  return {
    lineCount: () => lineCount,
    text: () => tail.join("\n").slice(-maxTailLength),
    ended: Effect.asVoid(Fiber.await(fiber))
  }
})
