/**
 * Reads a shell command only as far as that is safe: plain words and quotes. A command with anything in it that a shell
 * would act upon (an operator, an expansion, a redirection, a pattern, a comment) is not read at all, because what it runs
 * cannot be told from its words.
 */

const operators = /[|&;<>()$`*?[\]{}!^\n\r]/

/** In double quotes a backslash escapes these only. */
const escapable = "$`\"\\"

/** The words of a single plain command, or `undefined`. */
export const plainWords = (command: string): ReadonlyArray<string> | undefined => {
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
      const escaped = command[++i]
      if (escaped === undefined || escaped === "\n") return undefined
      word = (word ?? "") + escaped
    } else if (operators.test(char) || (word === undefined && (char === "#" || char === "~"))) {
      return undefined
    } else {
      word = (word ?? "") + char
    }
  }
  if (word !== undefined) words.push(word)
  // `NAME=value command` sets a variable, and some variables choose what is run.
  return words.length === 0 || /^[A-Za-z_][A-Za-z0-9_]*\+?=/.test(words[0]!) ? undefined : words
}

const isShell = (program: string): boolean => /^(?:.*\/)?(?:ba|z|da|k)?sh$/.test(program)

/** What a shell is to run, if the command is one that is given a script. */
export const scriptOf = (words: ReadonlyArray<string>): string | undefined =>
  words.length === 3 && isShell(words[0]!) && (words[1] === "-c" || words[1] === "-lc") ? words[2] : undefined
