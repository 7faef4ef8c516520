/** Finds words in documents, and in the comments and strings of programs. */
import { getLine, keepProse } from "./source.ts"

export interface Word {
  /** A word or a phrase, as the source of a regular expression. A space stands for any gap, also a line break in a comment. */
  readonly pattern: string
  /** What to write instead. */
  readonly advice: string
}

/** An occurrence that stays. */
export interface Allowed {
  readonly file: string
  readonly word: string
  readonly reason: string
}

interface Occurrence {
  readonly file: string
  readonly line: number
  readonly word: string
  readonly advice: string
}

/** Finds words in a file: in all of a document, but only in the comments and strings of a program. */
const findWords = (file: string, text: string, words: ReadonlyArray<Word>): ReadonlyArray<Occurrence> => {
  const prose = file.endsWith(".md") ? text : keepProse(file, text)
  const found = words.flatMap(({ advice, pattern }) => {
    const source = pattern.replaceAll(" ", "(?:\\s|\\*|//)+")
    return [...prose.matchAll(new RegExp(`\\b(?:${source})\\b`, "gi"))].map((match) => ({
      file,
      line: getLine(prose, match.index),
      word: match[0].replaceAll(/[\s*/]+/g, " ").toLowerCase(),
      advice
    }))
  })
  return found.sort((a, b) => a.line - b.line)
}

/** Returns one line for each word that the list of allowed occurrences does not contain, and for each unused row of that list. */
export const checkWords = (
  files: ReadonlyMap<string, string>,
  words: ReadonlyArray<Word>,
  allowed: ReadonlyArray<Allowed>
): ReadonlyArray<string> => {
  const found = [...files].flatMap(([file, text]) => findWords(file, text, words))
  const isAllowed = (row: Allowed, { file, word }: Occurrence) => row.file === file && row.word === word
  const unused = allowed.filter((row) => !found.some((occurrence) => isAllowed(row, occurrence)))
  return [
    ...found.filter((occurrence) => !allowed.some((row) => isAllowed(row, occurrence)))
      .map(({ advice, file, line, word }) => `${file}:${line}:${word}: ${advice}`),
    ...unused.map(({ file, word }) => `${file} no longer contains \`${word}\`; remove it from the allowed occurrences`)
  ]
}
