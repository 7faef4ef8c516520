/**
 * Reads lines in batches. A batch is a synchronous pass over the lines that the transport delivers at once. It runs no code of the
 * program. An action that resumes a fiber runs after the batch, or in a flood after several batches.
 */
import * as Effect from "effect/Effect"

/** What a read batch offers to the code that handles its lines. */
export interface ReadBatch {
  /** Runs an action after the batch, where it may resume fibers. */
  readonly afterBatch: (action: () => void) => void
  /** Runs an action after the batch, or in a flood after several batches. */
  readonly whenIdle: (action: () => void) => void
  /** Runs the actions of `whenIdle` after this batch, also in a flood. */
  readonly flush: () => void
  /** Logs a warning after the batch. */
  readonly warn: (warning: string) => void
}

/** Runs actions at once, for callers outside of the reader. */
export const syncBatch: ReadBatch = {
  afterBatch: (action) => action(),
  whenIdle: (action) => action(),
  flush: () => {},
  warn: () => {}
}

/** Minimum number of lines in a batch that starts a flood: more lines probably follow. */
const floodLines = 64

/** Maximum number of lines that are read in a flood before subscribers are resumed, so that they keep up. */
const maxDeferredLines = 8192

interface Options {
  readonly receive: (line: string, batch: ReadBatch) => void
  /** Writes the buffered lines, so that the server processes them while fibers run. */
  readonly flushWrites: () => void
  readonly schedule: (task: () => void) => void
  readonly runFork: (effect: Effect.Effect<void>) => unknown
}

/** The reader of one connection. For speed, its actions are functions in an array, not fibers. */
export class BatchReader implements ReadBatch {
  private readonly options: Options
  private readonly receive: Options["receive"]
  private actions: Array<() => void> = []
  private warnings: Array<string> = []
  private isFlushed = false
  /** Number of lines that were read since the last actions ran. */
  private deferredLines = 0
  /** Number of batches that were read. */
  batches = 0
  private isScheduled = false

  constructor(options: Options) {
    this.options = options
    this.receive = options.receive
  }

  afterBatch(action: () => void): void {
    this.actions.push(action)
    this.isFlushed = true
  }

  whenIdle(action: () => void): void {
    this.actions.push(action)
  }

  flush(): void {
    this.isFlushed = true
  }

  warn(warning: string): void {
    this.warnings.push(warning)
  }

  /** Reads the lines of one batch. */
  read(lines: ReadonlyArray<string>): void {
    const { receive } = this
    for (const line of lines) {
      // JSON that is nested too deeply throws. The connection stays open, and the next line is read.
      try {
        receive(line, this)
      } catch (error) {
        this.warn(`Skipped a line that cannot be handled (${line.length} characters): ${String(error)}`)
      }
    }
    this.batches++
    this.deferredLines += lines.length
    // Resuming a fiber costs as much as several lines, so a flood resumes each fiber once for several batches.
    const isFlood = this.isScheduled || lines.length >= floodLines
    if (!isFlood || this.isFlushed || this.deferredLines >= maxDeferredLines) this.runActions()
    else if (this.actions.length > 0 && !this.isScheduled) this.runActionsLater(this.batches)
    this.logWarnings()
  }

  /** Runs the actions of the batches that were read so far. */
  runActions(): void {
    const { actions } = this
    this.actions = []
    this.isFlushed = false
    this.deferredLines = 0
    this.options.flushWrites()
    for (const action of actions) {
      // An observer of a fiber may throw, which must not affect the next action.
      try {
        action()
      } catch (error) {
        this.warn(`A fiber observer threw while responses or events were delivered: ${String(error)}`)
      }
    }
  }

  /** Runs the actions once no batch has been read since, which ends the flood. */
  private runActionsLater(lastBatch: number): void {
    this.isScheduled = true
    this.options.schedule(() => {
      this.isScheduled = false
      if (this.batches === lastBatch) this.runActions()
      else if (this.actions.length > 0) this.runActionsLater(this.batches)
    })
  }

  private logWarnings(): void {
    if (this.warnings.length === 0) return
    const { warnings } = this
    this.warnings = []
    // A logger that throws must not end the connection.
    this.options.runFork(
      Effect.ignoreCause(Effect.forEach(warnings, (warning) => Effect.logWarning(warning), { discard: true }))
    )
  }
}
