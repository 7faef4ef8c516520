/**
 * Splits bytes into lines at `\n` only: U+2028 is data. The time is linear in the bytes, because a line that spans chunks is joined once,
 * when its end arrives.
 */
import * as Arr from "effect/Array"
import * as Stream from "effect/Stream"

const newline = 0x0a
const carriageReturn = 0x0d

const concat = (parts: ReadonlyArray<Uint8Array>, size: number): Uint8Array => {
  const joined = new Uint8Array(size)
  let offset = 0
  for (const part of parts) {
    joined.set(part, offset)
    offset += part.length
  }
  return joined
}

interface LineSplitter {
  /** Returns the lines that the chunk completes. */
  readonly push: (chunk: Uint8Array) => Array<string>
  /** Removes and returns the text after the last line end. A killed writer leaves an incomplete line. */
  readonly remainder: () => string
  /** The number of lines of the last chunk before the first line over the limit. `undefined` if there was no such line. */
  readonly droppedAfter: () => number | undefined
}

/** Makes a splitter. A line of more than `maxLineBytes` is dropped while it arrives, so that it takes no memory. */
export const makeLineSplitter = (maxLineBytes = Infinity): LineSplitter => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  let carry: Array<Uint8Array> = []
  let carried = 0
  let dropping = false
  let droppedAfter: number | undefined

  const decode = (bytes: Uint8Array): string => decoder.decode(bytes)

  const append = (bytes: Uint8Array, linesBefore = 0) => {
    if (dropping) return
    if (carried + bytes.length > maxLineBytes) {
      carry = []
      carried = 0
      dropping = true
      droppedAfter ??= linesBefore
      return
    }
    carry.push(bytes)
    carried += bytes.length
  }

  const takeLine = (): Uint8Array => {
    const line = carry.length === 1 ? carry[0]! : concat(carry, carried)
    carry = []
    carried = 0
    return line
  }

  return {
    push(chunk) {
      droppedAfter = undefined
      const last = chunk.lastIndexOf(newline)
      if (last === -1) {
        append(chunk)
        return []
      }
      let lines: Array<string> = []
      let start = 0
      if (carried > 0 || dropping) {
        start = chunk.indexOf(newline) + 1
        append(chunk.subarray(0, start - 1))
        if (dropping) dropping = false
        else lines.push(stripCarriageReturn(decode(takeLine())))
      }
      if (start <= last) {
        // All whole lines of the chunk are decoded at once: `\n` is never part of a longer UTF-8 sequence.
        const bytes = chunk.subarray(start, last)
        const text = decode(bytes)
        const whole = text.split("\n")
        if (bytes.length <= maxLineBytes && !text.includes("\r")) {
          lines = lines.length === 0 ? whole : [lines[0]!, ...whole]
        } else {
          for (const line of whole) {
            if (isLonger(line, maxLineBytes)) droppedAfter ??= lines.length
            else lines.push(stripCarriageReturn(line))
          }
        }
      }
      if (last + 1 < chunk.length) append(chunk.subarray(last + 1), lines.length)
      return lines
    },
    remainder: () => dropping ? "" : decode(takeLine()),
    droppedAfter: () => droppedAfter
  }
}

/** Whether a line takes more bytes than a limit. A UTF-16 unit takes at most three, so most lines are not encoded. */
const isLonger = (line: string, maxBytes: number): boolean =>
  line.length * 3 > maxBytes && new TextEncoder().encode(line).length > maxBytes

const stripCarriageReturn = (line: string): string =>
  line.charCodeAt(line.length - 1) === carriageReturn ? line.slice(0, -1) : line

/** Splits a stream of bytes into lines. Lines of more than `maxLineBytes` are dropped. */
export const splitLines = <E>(bytes: Stream.Stream<Uint8Array, E>, maxLineBytes?: number): Stream.Stream<string, E> =>
  Stream.suspend(() => {
    const splitter = makeLineSplitter(maxLineBytes)
    const last = Stream.suspend(() => {
      const remainder = splitter.remainder()
      return remainder === "" ? Stream.empty : Stream.make(remainder)
    })
    return bytes.pipe(
      Stream.map(splitter.push),
      Stream.filter(Arr.isArrayNonEmpty),
      Stream.flattenArray,
      Stream.concat(last)
    )
  })
