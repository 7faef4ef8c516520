import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { execFileSync } from "node:child_process"
import { isReadOnly } from "../../../src/internal/approvals/readOnlyCommand.ts"
import { plainWords, scriptOf } from "../../../src/internal/approvals/shellWords.ts"

const Word = Schema.String.check(Schema.isMaxLength(12))
const Words = Schema.Array(Word).check(Schema.isMinLength(1), Schema.isMaxLength(4))

const singleQuoted = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`
const doubleQuoted = (word: string) => `"${word.replaceAll(/[$`"\\]/g, (char) => `\\${char}`)}"`

/** Text of the pieces that matter to a shell. */
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
  "~",
  "#",
  "!",
  "$",
  "*",
  ";",
  "\n"
] as const
const Hostile = Schema.Array(Schema.Literals(pieces)).check(Schema.isMinLength(1), Schema.isMaxLength(6))

/** What a shell takes the words of a command to be. */
const wordsOfShell = (command: string): ReadonlyArray<string> =>
  execFileSync("bash", ["-c", `printf '%s\\0' ${command}`], { encoding: "utf8" }).split("\0").slice(0, -1)

describe("the words of a plain command", () => {
  it.prop("are those that were quoted, in either way", { words: Words }, ({ words }) => {
    const isAssignment = /^[A-Za-z_][A-Za-z0-9_]*\+?=/.test(words[0]!)
    const expected = isAssignment ? undefined : words
    assert.deepStrictEqual(plainWords(words.map(singleQuoted).join(" ")), expected)
    assert.deepStrictEqual(plainWords(words.map(doubleQuoted).join("  ")), expected)
  })

  const compared: Array<string> = []
  it.prop(
    "are those that a shell makes of it, wherever they are given at all",
    { hostile: Hostile },
    ({ hostile }) => {
      const command = hostile.join("")
      const words = plainWords(command)
      if (words === undefined) return
      compared.push(command)
      assert.deepStrictEqual(wordsOfShell(command), words)
    },
    { arbitrary: { runs: 500 } }
  )

  it("are given often enough for that to mean something", () => {
    assert.isAbove(compared.length, 50)
  })

  it("are not given for what a shell would act upon", () => {
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

  it("are read of a shell's script", () => {
    const script = (command: string) => scriptOf(plainWords(command) ?? [])
    assert.strictEqual(script(`/bin/bash -c 'git status'`), "git status")
    assert.strictEqual(script(`/bin/zsh -lc "echo 'a b'"`), "echo 'a b'")
    // As the server quotes: in pieces.
    assert.strictEqual(script(`/bin/bash -c "echo 'it'\\"'\\"'s' "'$HOME'`), `echo 'it'"'"'s' $HOME`)
    assert.isUndefined(script("/bin/bash -c ls extra"))
    assert.isUndefined(script("/bin/bash script.sh"))
    assert.isUndefined(script("python -c 'print(1)'"))
  })
})

describe("a command that only reads", () => {
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
  it("is known by its program and its options", () => {
    for (const command of yes) assert.isTrue(isReadOnly(command.replaceAll("'", "").split(" ")), command)
    for (const command of no) assert.isFalse(isReadOnly(command.split(" ")), command)
    assert.isFalse(isReadOnly([]))
  })
})
