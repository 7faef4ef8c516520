import { afterAll, assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isReadOnly } from "../../../src/internal/approvals/readOnlyCommand.ts"
import { joinedWords, plainWords } from "../../../src/internal/approvals/shellWords.ts"
import { isThorough } from "../../thorough.ts"

const Word = Schema.String.check(Schema.isMaxLength(12))
const Words = Schema.Array(Word).check(Schema.isMinLength(1), Schema.isMaxLength(4))

const quoteSingle = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`
const quoteDouble = (word: string) => `"${word.replaceAll(/[$`"\\]/g, (char) => `\\${char}`)}"`

/** Pieces of text with a meaning to a shell. */
const pieces = [
  "a",
  "b",
  " ",
  "\t",
  "'",
  "\"",
  "\\",
  "'x'",
  "\"y\"",
  "\"\\\"\"",
  "\\ ",
  "-",
  "=",
  ":",
  "~",
  "~/x",
  "a=~",
  "/",
  "%",
  "^",
  "{a,b}",
  "é",
  "\u00a0",
  "\u3000",
  "\u0001",
  "\u007f",
  "\r",
  "#",
  "!",
  "$",
  "*",
  ";",
  "\n"
] as const
const Hostile = Schema.Array(Schema.Literals(pieces)).check(Schema.isMinLength(1), Schema.isMaxLength(6))

/** An empty folder, and one whose files match the patterns of a command. */
const folders = [[], ["a", "b", "ab", "x", "-", "="]].map((files) => {
  const folder = mkdtempSync(join(tmpdir(), "words-"))
  for (const file of files) writeFileSync(join(folder, file), "")
  return folder
})

afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true })
})

/** Returns the words of a command as a shell with these options reads them in a folder. */
const readWithShell = (command: string, options: ReadonlyArray<string>, cwd: string): ReadonlyArray<string> =>
  execFileSync("bash", [...options, "-c", `printf '%s\\0' ${command}`], {
    cwd,
    env: { PATH: process.env["PATH"], HOME: "/home/user" },
    encoding: "utf8"
  }).split("\0").slice(0, -1)

describe("plainWords", () => {
  it.prop("returns words that were quoted with single or double quotes", { words: Words }, ({ words }) => {
    const isAssignment = /^[A-Za-z_][A-Za-z0-9_]*\+?=/.test(words[0]!)
    const expected = isAssignment ? undefined : words
    assert.deepStrictEqual(plainWords(words.map(quoteSingle).join(" ")), expected)
    assert.deepStrictEqual(plainWords(words.map(quoteDouble).join("  ")), expected)
  })

  const compared: Array<string> = []
  it.prop(
    "returns the words of a shell, or none",
    { hostile: Hostile },
    ({ hostile }) => {
      const command = hostile.join("")
      const words = plainWords(command)
      if (words === undefined) return
      compared.push(command)
      for (const folder of folders) {
        for (const options of [[], ["-f"]]) {
          assert.deepStrictEqual(readWithShell(command, options, folder), words)
        }
      }
    },
    { arbitrary: { runs: isThorough ? 400 : 100 }, timeout: 30_000 }
  )

  it("was compared with a shell many times", () => {
    assert.isAbove(compared.length, isThorough ? 50 : 10)
  })

  it("returns none for syntax that a shell interprets", () => {
    const commands = [
      "a | b",
      "a && b",
      "a; b",
      "a & b",
      "a > b",
      "a < b",
      "a $B",
      "a \"$B\"",
      "a `b`",
      "a \"`b`\"",
      "a $(b)",
      "a *",
      "a ?",
      "a [b]",
      "a {b,c}",
      "a ~",
      "~/a",
      "~user",
      "a b=~/c",
      "a b=c:~/d",
      "a --b=~/c",
      "a =b",
      "a @(b|c)",
      "a b^c",
      "a !!",
      "a\u00a0b",
      "a\rb",
      "a #b",
      "! a",
      "a\nb",
      "a\\\nb",
      "A=1 b",
      "PATH+=:/evil b",
      "(a)",
      "a 'b",
      "a \"b",
      "a \\",
      ""
    ]
    for (const command of commands) assert.isUndefined(plainWords(command), command)
  })

  it("keeps a tilde that no shell expands", () => {
    assert.deepStrictEqual(plainWords("git diff HEAD~1 a~ 'b=~/c' b=\\~/c"), [
      "git",
      "diff",
      "HEAD~1",
      "a~",
      "b=~/c",
      "b=~/c"
    ])
  })

  it("keeps the backslashes that a shell keeps, and returns none if a shell drops those of a path", () => {
    assert.deepStrictEqual(plainWords(String.raw`a 'C:\b\c' "C:\b\c" C:\\b\\c d\ e f\.g`), [
      "a",
      "C:\\b\\c",
      "C:\\b\\c",
      "C:\\b\\c",
      "d e",
      "f.g"
    ])
    for (const script of [String.raw`C:\dir\x.exe`, String.raw`type C:\x`, String.raw`\rm a`]) {
      assert.isUndefined(plainWords(script), script)
    }
  })
})

describe("joinedWords", () => {
  it("returns the words that the server has joined", () => {
    // The server quotes in pieces.
    assert.deepStrictEqual(joinedWords(`/bin/bash -c "echo 'it'\\"'\\"'s' "'$HOME'`), [
      "/bin/bash",
      "-c",
      `echo 'it'"'"'s' $HOME`
    ])
    assert.deepStrictEqual(joinedWords(String.raw`/bin/bash -c "C:\\dir\\x.exe a\\ b"`), [
      "/bin/bash",
      "-c",
      String.raw`C:\dir\x.exe a\ b`
    ])
  })

  it("keeps the backslashes of Windows paths without quotes", () => {
    assert.deepStrictEqual(joinedWords(String.raw`C:\dir\x.exe --in=C:\a\.b 'D:\e f'`), [
      String.raw`C:\dir\x.exe`,
      String.raw`--in=C:\a\.b`,
      String.raw`D:\e f`
    ])
    for (const command of [String.raw`a\ b`, String.raw`C:\a\ b`, String.raw`\\server\share\x`, "a\\'b", "a\\"]) {
      assert.isUndefined(joinedWords(command), command)
    }
  })
})

describe("isReadOnly", () => {
  const yes = [
    "ls -la src",
    "cat a.txt",
    "head -5 a",
    "grep -rn foo src",
    "rg -n foo",
    "find . -name '*.ts'",
    "sed -n 1,20p a.txt",
    "wc -l a",
    "sort a",
    "uniq a",
    "uniq -c a",
    "date +%s",
    "pwd"
  ]
  const no = [
    "rm a",
    "touch a",
    "find . -delete",
    "find . -exec rm {} +",
    "find . -fprint out",
    "rg --pre=evil foo",
    "rg --pre evil foo",
    "rg -nz foo",
    "sort -o out a",
    "sort -uo out a",
    "sort --output=out a",
    "sort --outp out a",
    "uniq a out",
    "uniq - out",
    "uniq -c - out",
    "uniq -f1 -- in -out",
    "uniq -",
    "sed -i s/a/b/ a",
    "sed -n 1p -i a",
    "sed -n 1w a",
    "sed s/a/b/e a",
    "date -s 2020-01-01",
    "git status",
    "./ls",
    "/tmp/evil/ls",
    "xargs rm",
    "env ls",
    "bash -c ls",
    "tee a"
  ]
  it("decides by the program and its options", () => {
    for (const command of yes) assert.isTrue(isReadOnly(command.replaceAll("'", "").split(" ")), command)
    for (const command of no) assert.isFalse(isReadOnly(command.split(" ")), command)
    assert.isFalse(isReadOnly([]))
  })
})
