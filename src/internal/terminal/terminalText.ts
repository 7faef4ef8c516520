/** Text of the model, and of other programs, as a terminal may show it. */
// Each character of these classes is meant by itself.
/* oxlint-disable no-misleading-character-class */

/** All but the line feed and the tab that has no shape of its own: controls, formats, separators, fillers and selectors. */
const unsafe =
  /(?![\n\t])[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]|(?! )\p{Zs}/gu

/**
 * Text of the model as a terminal may show it: nothing in it moves the cursor, is invisible or overrides the order of text, so
 * what is read is what is there. Letters of scripts that are written from right to left stay, and are shown so.
 */
export const terminalText = (text: string): string =>
  text.replace(unsafe, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`)

/** The same on one line. */
export const terminalLine = (text: string): string => terminalText(text).replaceAll("\n", "\\u{a}")
