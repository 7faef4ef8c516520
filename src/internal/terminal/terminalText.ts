/** Escapes text of the model and of other programs for a terminal. */
// Each character of the classes stands for itself.
/* oxlint-disable no-misleading-character-class */

/** Matches invisible characters except line feed and tab: controls, formats, separators, fillers and selectors. */
const unsafe =
  /(?![\n\t])[\p{C}\p{Zl}\p{Zp}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\ufe00-\ufe0f\u{e0100}-\u{e01ef}]|(?! )\p{Zs}/gu

/**
 * Escapes characters that move the cursor, are invisible, or override the order of text, so that the user sees all of the text. Letters of
 * right-to-left scripts stay.
 */
export const terminalText = (text: string): string =>
  text.replace(unsafe, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`)

/** Escapes text for one line of a terminal. */
export const terminalLine = (text: string): string => terminalText(text).replaceAll("\n", "\\u{a}")
