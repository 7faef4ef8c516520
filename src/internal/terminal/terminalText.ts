/** Text of the model, and of other programs, as a terminal may show it. */
// Control characters are what this is for.
// oxlint-disable-next-line no-control-regex
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g

/**
 * Text of the model as a terminal may show it: nothing in it moves the cursor, hides a part or turns its order around, so what
 * is read is what is there.
 */
export const terminalText = (text: string): string =>
  text.replace(unsafe, (char) => `\\u{${char.charCodeAt(0).toString(16)}}`)

/** The same on one line. */
export const terminalLine = (text: string): string => terminalText(text).replaceAll("\n", "\\u{a}")
