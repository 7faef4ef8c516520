/**
 * Splits bytes into lines at `\n` and nowhere else (U+2028 is data), in time linear in the bytes: a line that spans
 * chunks is joined once, when its end arrives.
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

export interface LineSplitter {
  /** The lines that the chunk completes. */
  readonly push: (chunk: Uint8Array) => Array<string>
  /** What is left after the last line end, as when a writer is killed half-way through a line. */
  readonly rest: () => string
  /** How many of the lines that the last chunk completed came before one that was dropped for its length, if one was. */
  readonly droppedAfter: () => number | undefined
}

/** A splitter whose lines may be `maxLineBytes` long. A longer one is dropped as it arrives, so it never takes memory. */
export const makeLineSplitter = (maxLineBytes = Infinity): LineSplitter => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  let carry: Array<Uint8Array> = []
  let carried = 0
  let dropping = false
  let droppedAfter: number | undefined

  const decode = (bytes: Uint8Array): string => decoder.decode(bytes)

  const keep = (bytes: Uint8Array, linesBefore = 0) => {
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

  const take = (): Uint8Array => {
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
        keep(chunk)
        return []
      }
      let lines: Array<string> = []
      let start = 0
      if (carried > 0 || dropping) {
        start = chunk.indexOf(newline) + 1
        keep(chunk.subarray(0, start - 1))
        if (dropping) dropping = false
        else lines.push(stripCarriageReturn(decode(take())))
      }
      if (start <= last) {
        // One decode for all whole lines of the chunk; `\n` cannot be part of a longer UTF-8 sequence.
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
      if (last + 1 < chunk.length) keep(chunk.subarray(last + 1), lines.length)
      return lines
    },
    rest: () => dropping ? "" : decode(take()),
    droppedAfter: () => droppedAfter
  }
}

/** A UTF-16 unit takes at most three bytes, so most lines need no measuring. */
const isLonger = (line: string, maxBytes: number): boolean =>
  line.length * 3 > maxBytes && new TextEncoder().encode(line).length > maxBytes

const stripCarriageReturn = (line: string): string =>
  line.charCodeAt(line.length - 1) === carriageReturn ? line.slice(0, -1) : line

/** The lines of a stream of bytes. Lines longer than `maxLineBytes` are left out. */
export const linesOf = <E>(bytes: Stream.Stream<Uint8Array, E>, maxLineBytes?: number): Stream.Stream<string, E> =>
  Stream.suspend(() => {
    const splitter = makeLineSplitter(maxLineBytes)
    const last = Stream.suspend(() => {
      const rest = splitter.rest()
      return rest === "" ? Stream.empty : Stream.make(rest)
    })
    return bytes.pipe(
      Stream.map(splitter.push),
      Stream.filter(Arr.isArrayNonEmpty),
      Stream.flattenArray,
      Stream.concat(last)
    )
  })
