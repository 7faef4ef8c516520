/** Draws rows at the bottom of a terminal, and redraws only those that change. */
import { displayWidth } from "./displayText.ts"
import type { Line, Style } from "./viewLines.ts"

const csi = "\u001b["

const styles: Readonly<Record<Style, string>> = { bold: "1", dim: "2", green: "32", red: "31", yellow: "33" }

/** Adds the style of a line. */
export const paint = ({ style, text }: Line): string =>
  style === undefined || text === "" ? text : `${csi}${styles[style]}m${text}${csi}0m`

/**
 * Terminals show all of a frame at once, without the cursor on its way. A row that is wider than this module computes is cut instead of
 * wrapped, because a wrapped row would move all rows below it.
 *
 * Each frame ends what it begins, so that a process that is killed leaves the terminal in order.
 */
const begin = `${csi}?2026h${csi}?25l${csi}?7l`
const end = `${csi}?7h${csi}?25h${csi}?2026l`

const move = (rows: number): string => rows === 0 ? "" : rows < 0 ? `${csi}${-rows}A` : `${csi}${rows}B`

/**
 * Returns what turns the previous rows into the next ones, or an empty string if they are equal. The cursor is at the start of the row
 * below them, before and after. The last frame also erases what the user typed there, such as `^C`.
 */
export const redraw = (previous: ReadonlyArray<string>, next: ReadonlyArray<string>, isLast = false): string => {
  let text = ""
  let row = previous.length
  for (const [index, line] of next.entries()) {
    if (index < previous.length) {
      if (line === previous[index]) continue
      text += `${move(index - row)}${line}${csi}K\r`
      row = index
    } else {
      // A line feed scrolls at the bottom of the terminal, where a movement would stop.
      text += `${move(index - row)}${line}${csi}K\r\n`
      row = index + 1
    }
  }
  if (next.length < previous.length) {
    text += `${move(next.length - row)}${csi}J`
    row = next.length
  }
  text += move(next.length - row)
  if (isLast) text += `${csi}J`
  return text === "" ? "" : `${begin}\r${text}${end}`
}

/** Returns what erases rows after the terminal was resized. A terminal wraps rows that have become too wide for it. */
export const erase = (rows: ReadonlyArray<Line>, columns: number, maxRows: number): string => {
  const height = rows.reduce((height, { text }) => height + Math.max(1, Math.ceil(displayWidth(text) / columns)), 0)
  return `${begin}\r${move(-Math.min(height, maxRows))}${csi}J${end}`
}
