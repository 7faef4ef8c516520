/** Texts that grow by deltas, and the bounded output of commands. */

/**
 * Number of characters of a command's output that a view keeps. A page shows the end of it, and a view travels whole.
 *
 * While a command is in progress, its output grows to twice as many before it is cut, so that a delta does not copy it.
 */
export const maxOutput = 32_768

/**
 * Number of characters that the end of a stored output has in common with the output itself. The server stores 64 KiB of an output, half
 * of them from its end, and a character has at most 4 bytes.
 */
export const maxStoredOutput = 8192

/** Returns the length of a text with its four leading bits only. */
const step = (length: number): number => {
  const bits = Math.max(0, 28 - Math.clz32(length))
  return (length >>> bits) << bits
}

/**
 * Appends to a text. V8 keeps every piece of a text that was concatenated with `+`, until the text is read. So one concatenation in each
 * growth by an eighth or less copies the text into one piece.
 */
export const append = (text: string, delta: string): string =>
  step(text.length) === step(text.length + delta.length) ? text + delta : [text, delta].join("")

/** The end of a text, and how many characters precede it. */
export interface Tail {
  readonly text: string
  readonly omitted: number
}

const isLowSurrogate = (code: number): boolean => code >= 0xdc00 && code <= 0xdfff

/** Cuts a text to its end. The copy does not keep the whole text in memory. */
export const tail = (text: string, max = maxOutput): Tail => {
  if (text.length <= max) return { text, omitted: 0 }
  let start = text.length - max
  if (isLowSurrogate(text.charCodeAt(start))) start++
  return { text: [text.slice(start, start + 1), text.slice(start + 1)].join(""), omitted: start }
}

/** Appends to an output, and cuts it if it is too long. */
export const appendOutput = (output: string, delta: string): Tail => {
  const text = append(output, delta)
  return text.length > 2 * maxOutput ? tail(text) : { text, omitted: 0 }
}
