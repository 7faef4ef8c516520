/** Reads stdout of the server as lines. */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { SyncQueue } from "../syncQueue.ts"
import { awaitIdle } from "./awaitIdle.ts"
import { makeLineSplitter } from "./framing.ts"

/** Maximum time to read stdout after the exit of the process, if a descendant keeps it open. */
const drainTimeout = Duration.seconds(1)

/** The server sent a line that is longer than the limit. */
export class LineTooLong extends Data.TaggedError("LineTooLong")<{ readonly maxLineBytes: number }> {}

interface StdoutReader<E> {
  /** Number of chunks that were read. */
  readonly chunkCount: () => number
  /** Calls a function with the lines of each chunk, until stdout has ended or the output of the exited process is read. */
  readonly receive: (onLines: (lines: ReadonlyArray<string>) => void) => Effect.Effect<void, E | LineTooLong>
}

export const makeStdoutReader = <E>(stdout: Stream.Stream<Uint8Array, E>, options: {
  readonly exited: Effect.Effect<unknown>
  readonly maxLineBytes: number | undefined
}): StdoutReader<E> => {
  const maxLineBytes = options.maxLineBytes ?? Infinity
  const splitter = makeLineSplitter(maxLineBytes)
  let chunkCount = 0

  /** Waits until the output of the exited process is read. A descendant may keep stdout open, so its end may not arrive. */
  const awaitDrained = Effect.andThen(
    options.exited,
    Effect.timeoutOption(awaitIdle(() => chunkCount), drainTimeout)
  )

  return {
    chunkCount: () => chunkCount,
    receive: (onLines) =>
      Stream.runForEachArray(stdout, (chunks) => {
        chunkCount += chunks.length
        for (const chunk of chunks) {
          const lines = splitter.push(chunk)
          const droppedAfter = splitter.droppedAfter()
          // Without a line, the lines after it would have another meaning.
          const accepted = droppedAfter === undefined ? lines : lines.slice(0, droppedAfter)
          if (accepted.length > 0) onLines(accepted)
          if (droppedAfter !== undefined) return Effect.fail(new LineTooLong({ maxLineBytes }))
        }
        return Effect.void
      }).pipe(
        Effect.raceFirst(awaitDrained),
        Effect.andThen(Effect.sync(() => {
          const remainder = splitter.remainder()
          if (remainder !== "") onLines([remainder])
        }))
      )
  }
}

/** Makes a stream of the lines that `receive` delivers. The stream can be run once. */
export const streamLines = <E>(
  receive: (onLines: (lines: ReadonlyArray<string>) => void) => Effect.Effect<never, E>
): Stream.Stream<string, E> =>
  Stream.unwrap(Effect.gen(function*() {
    const unread: Array<string> = []
    const lines = new SyncQueue<string, E>(() => unread.splice(0))
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
  }))
