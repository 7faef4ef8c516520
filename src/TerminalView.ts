/**
 * Shows a turn to a person at a terminal.
 *
 * **When to use**
 *
 * In command-line programs: {@link show} follows a turn. {@link render} returns the lines of one view, for a user interface of your own.
 *
 * **Example** (Following a turn)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { TerminalView, type Thread } from "effect-codex"
 *
 * export const follow = Effect.fn(function*(thread: Thread.Thread) {
 *   const turn = yield* thread.turn("Fix the failing test")
 *   yield* TerminalView.show(turn.view)
 *   return yield* turn.result
 * }, Effect.scoped)
 * ```
 *
 * @since 0.1.0
 */
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as PlatformError from "effect/PlatformError"
import * as Stream from "effect/Stream"
import * as Terminal from "effect/Terminal"
import { erase, paint, redraw } from "./internal/terminal/frame.ts"
import { TerminalLock } from "./internal/terminal/prompt.ts"
import { agentLines, type Canvas, footerLines, itemLines, type Line } from "./internal/terminal/viewLines.ts"
import type { ItemView, TurnView } from "./internal/view/model.ts"
import type { ThreadView } from "./ThreadView.ts"
import type { SubAgent } from "./Turn.ts"

/**
 * Where the lines of a view are shown, and when.
 *
 * @category models
 * @since 0.1.0
 */
export interface RenderOptions {
  /** Maximum width of a line in cells of the terminal. */
  readonly columns: number
  /**
   * Maximum number of lines. If there are more, the first ones are left out.
   *
   * @default Infinity
   */
  readonly rows?: number | undefined
  /**
   * The time until which a turn in progress has run, as Unix time in milliseconds.
   *
   * @default `updatedAtMs` of the view
   */
  readonly nowMs?: number | undefined
  /**
   * The views of the sub-agents that work for the turn. Each one that runs a turn has a line below the items.
   *
   * @default none
   */
  readonly subAgents?: ReadonlyArray<ThreadView> | undefined
}

/**
 * What is shown besides the views of a turn.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShowOptions<out E = never, out R = never> {
  /**
   * The sub-agents of the turn: `turn.subAgents`. While one works, a terminal shows its current command, call or message in one line below
   * the items in progress.
   *
   * @default none
   */
  readonly subAgents?: Stream.Stream<Pick<SubAgent, "view">, E, R> | undefined
}

/**
 * Returns the lines of a view: its items, the plan, the approvals and questions, a retry, an error and the status.
 *
 * **Details**
 *
 * - No line is wider than `columns`. A character of East Asian width and an emoji have two cells. An emoji that is made of several counts
 *   as all of them, because some terminals show it so.
 * - A line contains no control character, and no character that reverses the order of text. Escape sequences and other invisible characters
 *   are removed from texts and outputs. In commands, arguments and paths they are shown as `\u{1b}`.
 * - A command has the last 10 rows of its output. A retracted text is left out.
 *
 * The function is pure and total, and works without a terminal.
 *
 * @category rendering
 * @since 0.1.0
 */
export const render = (view: TurnView, options: RenderOptions): ReadonlyArray<string> => {
  const { columns, nowMs = view.updatedAtMs ?? 0, rows = Infinity, subAgents = [] } = options
  const canvas: Canvas = { columns, rows, nowMs }
  const lines = [
    ...view.items.flatMap((entry) => itemLines(canvas, entry)),
    ...subAgents.flatMap((agent) => agentLines(canvas, agent)),
    ...footerLines(canvas, view)
  ]
  return lines.slice(Math.max(0, lines.length - rows)).map(({ text }) => text)
}

/** Shortest time between two frames: 20 frames in a second look continuous. */
const frameInterval = "50 millis"

/** A terminal without a size is a common one. */
const defaultSize = { columns: 80, rows: 24 }

const isCi = Effect.orElseSucceed(Config.Boolean("CI").pipe(Config.withDefault(false)), () => true)

/** Draws views: items when they are final, and below them the part that still changes, if the terminal can redraw. */
const makeScreen = Effect.gen(function*() {
  const terminal = yield* Terminal.Terminal
  const lock = yield* TerminalLock
  const { canAnimate, canColor } = yield* TerminalCapabilities.TerminalCapabilities
  const isLive = canAnimate && !(yield* isCi)
  /** The ids of the items that are drawn and do not change any more. */
  const final = new Set<string>()
  /** The rows that still change, at the bottom of the terminal. */
  let live: ReadonlyArray<Line> = []
  let size = defaultSize
  let conversations = lock.conversations
  let isFinished = false

  const toText = (lines: ReadonlyArray<Line>) => lines.map((line) => canColor ? paint(line) : line.text)

  /** The size of the terminal. The last column stays empty, because terminals differ in where the cursor is behind it. */
  const readSize = Effect.gen(function*() {
    const columns = yield* terminal.columns
    const rows = yield* terminal.rows
    return columns > 0 && rows > 0 ? { columns, rows } : defaultSize
  })

  /** Returns what makes room for the next frame if the terminal was resized or a conversation took place. */
  const reset = (next: typeof size): string => {
    const isMoved = conversations !== lock.conversations
    const isResized = next.columns !== size.columns || next.rows !== size.rows
    const text = isResized && !isMoved && live.length > 0 ? erase(live, next.columns, next.rows - 1) : ""
    if (isMoved || isResized) live = []
    conversations = lock.conversations
    size = next
    return text
  }

  const draw = Effect.fnUntraced(function*(view: TurnView, agents: ReadonlyArray<ThreadView>, isLast: boolean) {
    if (isFinished) return
    isFinished = isLast
    const resized = isLive ? reset(yield* readSize) : ""
    // Rows that have scrolled away cannot be redrawn, and the cursor needs a row. The last rows need not be redrawn.
    const maxLive = isLive && !isLast ? Math.max(0, size.rows - 1) : Infinity
    const canvas: Canvas = {
      columns: isLive ? Math.max(1, size.columns - 1) : Infinity,
      rows: Math.max(1, maxLive),
      nowMs: yield* Clock.currentTimeMillis
    }
    const isFinal = ({ id, state }: ItemView) => !final.has(id) && (isLast || state === "completed")
    const done = view.items.filter(isFinal)
    for (const { id } of done) final.add(id)
    const above = done.flatMap((entry) => itemLines(canvas, entry))
    const changing = view.items.filter(({ id }) => !final.has(id)).flatMap((entry) => itemLines(canvas, entry))
    const working = isLast ? [] : agents.flatMap((agent) => agentLines(canvas, agent))
    const footer = isLive || isLast ? [...changing, ...working, ...footerLines(canvas, view)] : []
    const below = footer.slice(Math.max(0, footer.length - maxLive))
    const next = [...above, ...below]
    const text = isLive
      ? `${resized}${redraw(toText(live), toText(next), isLast)}`
      : toText(next).map((line) => `${line}\n`).join("")
    live = below
    if (text !== "") yield* terminal.display(text)
  })

  return {
    isLive,
    /** Emits when the terminal may show something else although the view is the same. */
    changes: isLive
      ? Stream.merge(Stream.tick("1 second"), Stream.unwrap(Effect.map(terminal.size, Stream.fromQueue)))
      : Stream.empty,
    /** Draws a view. Waits for a conversation on the terminal. */
    draw: (view: TurnView, agents: ReadonlyArray<ThreadView>, isLast = false) =>
      lock.semaphore.withPermit(Effect.uninterruptible(draw(view, agents, isLast))),
    /** Draws the last view of a stream that failed, unless there is a conversation on the terminal: that may wait for the same fiber. */
    leave: (view: TurnView) => Effect.ignore(lock.semaphore.withPermitsIfAvailable(1)(draw(view, [], true)))
  }
})

/** The views of sub-agents as they change. The turn is shown also if they fail. */
const followAgents = <E, R>(
  agents: Stream.Stream<Pick<SubAgent, "view">, E, R>
): Stream.Stream<ThreadView, never, R> =>
  agents.pipe(
    Stream.flatMap(({ view }) => Stream.catch(view, () => Stream.empty), { concurrency: "unbounded" }),
    Stream.catch(() => Stream.empty)
  )

/**
 * Shows a turn until its views end.
 *
 * **When to use**
 *
 * Pass `turn.view`, and `turn.subAgents` to see also what the sub-agents do. For all turns of a thread, run it for each one of `thread.turns`.
 *
 * **Details**
 *
 * - On a terminal, each item is written once it has completed. Below them are the parts that still change: items in progress with the end of
 *   their text or output, the plan, pending approvals and questions, a retry, the time and the tokens. They are redrawn in place, at most 20
 *   times a second, and only the rows that differ.
 * - With the option `subAgents`, a terminal shows what each working sub-agent does in one line below the items in progress.
 * - If the output is no terminal, or `CI` is set, each item is appended once it has completed, and at last the plan and the status.
 *   `TerminalCapabilities` of `effect/cli` decides about that, and about colors.
 * - Prompts on the same terminal, such as `ApprovalPolicy.askTerminal`, suspend the drawing. It continues below them.
 * - When the views end or fail, or the fiber is interrupted, the last state remains, and the cursor is at the start of a line.
 *
 * **Gotchas**
 *
 * Other output to the same terminal, such as logs or a line that the user types, overlaps the redrawn rows. Write logs to a file.
 *
 * @see {@link render} for the lines of one view
 * @category rendering
 * @since 0.1.0
 */
export const show = Effect.fn("TerminalView.show")(function*<E, R, R2 = never>(
  views: Stream.Stream<TurnView, E, R>,
  options: ShowOptions<unknown, R2> = {}
): Effect.fn.Return<void, E | PlatformError.PlatformError, R | R2 | Terminal.Terminal> {
  const screen = yield* makeScreen
  let latest: TurnView | undefined
  const agents = new Map<string, ThreadView>()
  const draw = Effect.suspend(() => latest === undefined ? Effect.void : screen.draw(latest, [...agents.values()]))
  const newest = Stream.tap(views, (view) => Effect.sync(() => latest = view))
  const working = followAgents(screen.isLive ? options.subAgents ?? Stream.empty : Stream.empty).pipe(
    Stream.tap((view) => Effect.sync(() => agents.set(view.threadId, view)))
  )
  yield* newest.pipe(
    Stream.merge(Stream.merge(screen.changes, working), { haltStrategy: "left" }),
    // Each frame draws the newest view, so the frames between are not needed.
    Stream.buffer({ capacity: 1, strategy: "sliding" }),
    Stream.runForEach(() => screen.isLive ? Effect.andThen(draw, Effect.sleep(frameInterval)) : draw),
    Effect.andThen(Effect.suspend(() => latest === undefined ? Effect.void : screen.draw(latest, [], true))),
    Effect.onExit((exit) => Exit.isSuccess(exit) || latest === undefined ? Effect.void : screen.leave(latest))
  )
})
