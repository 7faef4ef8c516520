/* oxlint-disable no-control-regex */
/** Terminals whose input and whose screen are the test. */
import * as TerminalCapabilities from "effect/cli/TerminalCapabilities"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Terminal from "effect/Terminal"
import { cellWidth } from "./cellWidth.ts"

export const make = Effect.gen(function*() {
  const lines = yield* Queue.unbounded<string, Terminal.QuitError>()
  const shown: Array<string> = []
  const terminal = Terminal.make({
    columns: Effect.succeed(80),
    rows: Effect.succeed(24),
    size: Effect.die("unused"),
    readInput: Effect.die("unused"),
    readLine: Queue.take(lines),
    display: (text) => Effect.sync(() => void shown.push(text))
  })
  return {
    layer: Layer.succeed(Terminal.Terminal, terminal),
    type: (...typed: ReadonlyArray<string>) => Queue.offerAll(lines, typed),
    /** Ends the input after the lines that are already typed. */
    quit: Queue.fail(lines, new Terminal.QuitError({})),
    /** Returns all text that the terminal shows. */
    shown: () => shown.join("")
  }
})

/** The escape sequences that a screen knows. */
const sequence = /\u001b\[(\??)([\d;]*)([A-Za-z])/y

/**
 * Interprets what is written to a terminal. Throws if a character is neither printable nor one of the escape sequences that the package
 * uses.
 */
export class Screen {
  /** The cells of all rows: those that have scrolled away, and the last ones, which are visible. The second cell of a wide character is empty. */
  private readonly lines: Array<Array<string>> = [[]]
  private row = 0
  private column = 0
  private wraps = true
  /** The number of frames, and of what is written in total. */
  frames = 0
  bytes = 0
  readonly columns: number
  readonly rows: number

  constructor(columns: number, rows: number) {
    this.columns = columns
    this.rows = rows
  }

  /** All rows without those that are empty at the end. */
  get text(): string {
    return this.lines.map((line) => line.join("").trimEnd()).join("\n").trimEnd()
  }

  /** Where the cursor is, counted from the first row of {@link text}. */
  get cursor(): readonly [row: number, column: number] {
    return [this.row, this.column]
  }

  private get top(): number {
    return Math.max(0, this.lines.length - this.rows)
  }

  private lineFeed(): void {
    this.row++
    if (this.row === this.lines.length) this.lines.push([])
  }

  private put(char: string): void {
    if (/(?!\u200d)\p{C}/u.test(char)) {
      throw new Error(`A control character reaches the terminal: ${JSON.stringify(char)}`)
    }
    const width = cellWidth(char)
    if (this.column + width > this.columns) {
      if (!this.wraps) return
      this.lineFeed()
      this.column = 0
    }
    const line = this.lines[this.row]!
    while (line.length < this.column) line.push(" ")
    if (width > 0) line.splice(this.column, width, char, ...(width === 2 ? [""] : []))
    else if (this.column > 0) line[line[this.column - 1] === "" ? this.column - 2 : this.column - 1] += char
    this.column += width
  }

  private control(isPrivate: boolean, parameter: string, command: string): void {
    const count = Number(parameter === "" ? 1 : parameter)
    switch (isPrivate ? `?${parameter}${command}` : command) {
      case "A":
        this.row = Math.max(this.top, this.row - count)
        break
      case "B":
        this.row = Math.min(this.lines.length - 1, this.row + count)
        break
      case "K":
        this.lines[this.row]!.splice(this.column)
        break
      case "J":
        this.lines[this.row]!.splice(this.column)
        this.lines.length = this.row + 1
        break
      case "m":
      case "?25h":
      case "?25l":
      case "?2026l":
        break
      case "?2026h":
        this.frames++
        break
      case "?7h":
        this.wraps = true
        break
      case "?7l":
        this.wraps = false
        break
      default:
        throw new Error(`An unknown escape sequence reaches the terminal: ${parameter}${command}`)
    }
  }

  write(text: string): void {
    this.bytes += new TextEncoder().encode(text).length
    for (let index = 0; index < text.length;) {
      sequence.lastIndex = index
      const match = sequence.exec(text)
      if (match !== null) {
        this.control(match[1] === "?", match[2]!, match[3]!)
        index = sequence.lastIndex
        continue
      }
      const char = String.fromCodePoint(text.codePointAt(index)!)
      if (char === "\n") {
        this.lineFeed()
        this.column = 0
      } else if (char === "\r") this.column = 0
      else this.put(char)
      index += char.length
    }
  }

  /** The same content after the terminal was resized: rows that are too wide are wrapped, and the cursor stays below them. */
  resize(columns: number, rows: number): Screen {
    const screen = new Screen(columns, rows)
    screen.write(this.lines.map((line) => line.join("").trimEnd()).join("\n"))
    return screen
  }
}

/** A terminal that can redraw, with a screen. */
export const makeScreen = Effect.fnUntraced(
  function*(columns: number, rows: number, capabilities = { canColor: true, canAnimate: true, canPrompt: true }) {
    const sizes = yield* Queue.sliding<Terminal.Size>(1)
    const lines = yield* Queue.unbounded<string, Terminal.QuitError>()
    let screen = new Screen(columns, rows)
    const terminal = Terminal.make({
      columns: Effect.sync(() => capabilities.canAnimate ? screen.columns : 0),
      rows: Effect.sync(() => capabilities.canAnimate ? screen.rows : 0),
      size: Effect.succeed(sizes),
      readInput: Effect.die("unused"),
      readLine: Queue.take(lines),
      display: (text) => Effect.sync(() => screen.write(text))
    })
    return {
      layer: Layer.merge(
        Layer.succeed(Terminal.Terminal, terminal),
        Layer.succeed(TerminalCapabilities.TerminalCapabilities, capabilities)
      ),
      screen: () => screen,
      /** The user types a line, which the terminal shows. */
      type: (line: string) => Effect.andThen(Effect.sync(() => screen.write(`${line}\n`)), Queue.offer(lines, line)),
      resize: (columns: number, rows: number) =>
        Effect.suspend(() => {
          screen = screen.resize(columns, rows)
          return Queue.offer(sizes, { columns, rows })
        })
    }
  }
)
