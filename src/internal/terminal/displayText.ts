/** Prepares texts of the model and of programs for reading on a terminal, in lines of limited width. */
// Each character of the classes stands for itself.
/* oxlint-disable no-misleading-character-class, no-control-regex */

/** Matches escape sequences of terminals: colors, movements of the cursor, titles and links. The end of one may not have arrived. */
const escapeSequence =
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]?|(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u0080-\u009f\n]*(?:\u0007|\u001b\\|\u009c)|\u001b[ -/]*[0-~]/g

/** Matches invisible characters, except those within an emoji. Some of them reverse the order of text. */
const invisible =
  /(?!\t|(?<=\p{Extended_Pictographic}[\ufe0f\p{Emoji_Modifier}]?)\u200d(?=\p{Extended_Pictographic})|(?<=[\p{Extended_Pictographic}#*0-9])\ufe0f)[\p{Cc}\p{Cf}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]/gu

/** Matches characters that no font is certain to have: unassigned ones, those of private use, and halves of others. */
const unknown = /[\p{Cn}\p{Co}\p{Cs}]/gu

/** Maximum number of characters of a line from which its last rows are made, for each of its columns and rows. */
const charsPerCell = 4

/** Maximum number of code points in one cell. A letter may have any number of marks. */
const maxCluster = 16

const wideSpace = "\u3000"

/**
 * Matches characters of two cells: the East Asian ones of the width `W` or `F`, and emoji. An emoji that is made of several counts as all
 * of them, because some terminals show it so.
 */
const wide =
  /[\p{Emoji_Presentation}\p{Emoji_Modifier}\u1100-\u115f\u2329\u232a\u2630-\u2637\u268a-\u268f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe10-\ufe19\ufe30-\ufe6b\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18dff}\u{1aff0}-\u{1b2ff}\u{1d300}-\u{1d376}\u{1f200}-\u{1f265}\u{20000}-\u{3fffd}]/u

const zeroWidth = /[\p{Mn}\p{Me}\u200d\ufe0f]/u

const isPlain = (text: string): boolean => /^[ -~]*$/.test(text)

// Loading the rules takes ten milliseconds, which the import of the package does not need.
let segmenter: Intl.Segmenter | undefined

/** The characters of a text, as a person counts them. */
const segments = (text: string): Iterable<Intl.SegmentData> =>
  (segmenter ??= new Intl.Segmenter(undefined, { granularity: "grapheme" })).segment(text)

const codePointWidth = (char: string): number => zeroWidth.test(char) ? 0 : wide.test(char) ? 2 : 1

const clusterWidth = (cluster: string): number => {
  if (cluster.length === 1) return codePointWidth(cluster)
  let width = 0
  for (const char of cluster) width += codePointWidth(char)
  // Some terminals show a character with this selector as an emoji.
  return cluster.includes("\ufe0f") ? Math.max(width, 2) : width
}

/** The number of cells that a text occupies at most. */
export const displayWidth = (text: string): number => {
  if (isPlain(text)) return text.length
  let width = 0
  for (const { segment } of segments(text)) width += clusterWidth(segment)
  return width
}

/**
 * Removes from a line of text what a terminal would obey or not show. Tabs remain.
 *
 * `terminalText` shows such characters instead. It is for what a person decides about; this is for what a person reads.
 */
const displayLine = (line: string): string => {
  if (isPlain(line)) return line
  const text = line.replace(escapeSequence, "")
  // A program that rewrites its line, such as a progress bar, writes a carriage return. The last text after one is what remains.
  let end = text.length
  while (text[end - 1] === "\r") end--
  return text.slice(text.lastIndexOf("\r", end - 1) + 1, end)
    .replace(invisible, "")
    .replace(unknown, "\ufffd")
    .replace(/\p{Z}/gu, (space) => space === wideSpace ? "  " : " ")
}

/** Breaks a line into rows, at spaces where possible. */
const wrapLine = (source: string, columns: number): ReadonlyArray<string> => {
  const line = displayLine(source)
  if (line.length <= columns && isPlain(line)) return [line]
  const rows: Array<string> = []
  let row = ""
  let width = 0
  /** Where the last word of the row starts, or 0 if it is the first one. */
  let word = 0
  let isBlank = true
  for (const { segment } of segments(line)) {
    let cell = segment.length <= maxCluster ? segment : Array.from(segment).slice(0, maxCluster).join("")
    if (cell === "\t") cell = " ".repeat(Math.min(8 - width % 8, columns))
    let cellWidth = isPlain(cell) ? cell.length : clusterWidth(cell)
    if (cellWidth > columns) {
      cell = "?"
      cellWidth = 1
    }
    const isSpace = cell.startsWith(" ")
    while (width + cellWidth > columns) {
      const end = isSpace || word === 0 ? row.length : word
      rows.push(row.slice(0, end).trimEnd())
      row = row.slice(end)
      width = displayWidth(row)
      word = 0
      isBlank = row === ""
      if (isSpace) break
    }
    // The space at which a row ends is not shown.
    if (isSpace && row === "" && rows.length > 0) continue
    row += cell
    width += cellWidth
    if (!isSpace) isBlank = false
    else if (!isBlank) word = row.length
  }
  rows.push(row)
  return rows
}

/** Breaks a text into rows. */
export const wrap = (text: string, columns: number): ReadonlyArray<string> =>
  text.split("\n").flatMap((line) => wrapLine(line, columns))

/** The first rows of a text. If there are more, the last one is `…`. */
export const wrapHead = (text: string, columns: number, max: number): ReadonlyArray<string> => {
  const maxChars = charsPerCell * columns * max
  const rows = wrap(text.slice(0, maxChars), columns)
  return rows.length > max || text.length > maxChars ? [...rows.slice(0, max - 1), "…"] : rows
}

/** Cuts a line to the end that its last rows need. It moves in steps, so that the rows stay while the line grows. */
const lineEnd = (line: string, columns: number, max: number): string => {
  const excess = line.length - charsPerCell * columns * max
  const step = columns * max
  return excess > 0 ? line.slice(Math.ceil(excess / step) * step) : line
}

/** The last rows of a text. If there are more, the first one is `…`. Reads only the end of the text. */
export const wrapTail = (text: string, columns: number, max: number): ReadonlyArray<string> => {
  const reversed: Array<string> = []
  for (let end = text.length; reversed.length <= max;) {
    const start = end === 0 ? 0 : text.lastIndexOf("\n", end - 1) + 1
    reversed.push(...wrapLine(lineEnd(text.slice(start, end), columns, max), columns).toReversed())
    if (start === 0) break
    end = start - 1
  }
  return (reversed.length > max ? [...reversed.slice(0, max - 1), "…"] : reversed).toReversed()
}
