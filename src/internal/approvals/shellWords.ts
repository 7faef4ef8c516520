/**
 * Reads shell commands of plain and quoted words. A command with other syntax has no words here, because they would not show what it runs:
 * an operator, an expansion, a redirection, a pattern or a comment.
 */

const operators = /[|&;<>()$`*?[\]{}!^]/

/** Control characters and separators, which shells and locales read differently. Space and tab are read before. */
const separators = /[\p{Cc}\p{Z}]/u

/** In double quotes, a backslash escapes these characters only. */
const escapable = "$`\"\\"

/** Splits a command into words. `unescape` returns the text of an escaped character outside quotes. */
const splitWords = (
  command: string,
  unescape: (escaped: string) => string | undefined
): ReadonlyArray<string> | undefined => {
  const words: Array<string> = []
  let word: string | undefined
  for (let i = 0; i < command.length; i++) {
    const char = command[i]!
    if (char === " " || char === "\t") {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if (char === "'") {
      const end = command.indexOf("'", i + 1)
      if (end === -1) return undefined
      word = (word ?? "") + command.slice(i + 1, end)
      i = end
    } else if (char === "\"") {
      let text = ""
      for (i++; command[i] !== "\""; i++) {
        const quoted = command[i]
        if (quoted === undefined || quoted === "$" || quoted === "`") return undefined
        if (quoted !== "\\") text += quoted
        else if (escapable.includes(command[i + 1] ?? "none")) text += command[++i]
        else if (command[i + 1] === "\n") return undefined
        else text += quoted
      }
      word = (word ?? "") + text
    } else if (char === "\\") {
      const text = unescape(command[++i] ?? "\n")
      if (text === undefined) return undefined
      word = (word ?? "") + text
    } else if (operators.test(char) || separators.test(char)) {
      return undefined
    } else if (word === undefined && (char === "#" || char === "=")) {
      // A comment; in zsh, `=name` is the path of a program.
      return undefined
    } else if (char === "~" && (word === undefined || /[=:]/.test(command[i - 1]!))) {
      // A home directory, also after `=`: bash expands `echo a=~/x`.
      return undefined
    } else {
      word = (word ?? "") + char
    }
  }
  if (word !== undefined) words.push(word)
  // `NAME=value command` sets a variable, and some variables decide what a program runs.
  return words.length === 0 || /^[A-Za-z_][A-Za-z0-9_]*\+?=/.test(words[0]!) ? undefined : words
}

/**
 * Returns the words that a shell reads in a script of one plain command, or `undefined`. A backslash before a letter or a digit outside
 * quotes is not plain: the script shows `C:\dir`, and a shell runs `C:dir`.
 */
export const plainWords = (script: string): ReadonlyArray<string> | undefined =>
  splitWords(script, (escaped) => /[\w\n]/.test(escaped) ? undefined : escaped)

/**
 * Returns the words that the server has joined to one line, or `undefined`. The server quotes each word for a POSIX shell. So a backslash
 * outside quotes is part of a Windows path, and is kept.
 */
export const joinedWords = (command: string): ReadonlyArray<string> | undefined =>
  splitWords(command, (escaped) => /[\w.-]/.test(escaped) ? `\\${escaped}` : undefined)
