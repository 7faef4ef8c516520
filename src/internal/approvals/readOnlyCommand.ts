/**
 * Recognizes plain commands that only read: programs that can do nothing else, and programs without their writing options. Git is not one
 * of them, because the configuration of a repository can make it run programs.
 */

type Rule = (args: ReadonlyArray<string>) => boolean

const always: Rule = () => true

/** Forbids options: alone, with `=value`, or, if they have one letter, in a group or with a value attached. */
const without = (...options: ReadonlyArray<string>): Rule => {
  const long = options.filter((option) => option.startsWith("--") || option.length > 2)
  const letters = options.filter((option) => !long.includes(option)).map((option) => option[1]!)
  return (args) =>
    args.every((arg) =>
      !long.some((option) =>
        arg === option || arg.startsWith(`${option}=`) || (option.startsWith("--") && isAbbreviation(arg, option))
      ) && !(/^-[^-]/.test(arg) && letters.some((letter) => arg.includes(letter)))
    )
}

/** GNU programs accept any prefix of a long option. */
const isAbbreviation = (arg: string, option: string): boolean => {
  const name = arg.split("=", 1)[0]!
  return name.length > 2 && option.startsWith(name)
}

const isOneOf = (...allowed: ReadonlyArray<string>): Rule => (args) => args.every((arg) => allowed.includes(arg))

const rules: ReadonlyMap<string, Rule> = new Map([
  ...[
    "cat",
    "head",
    "tail",
    "wc",
    "nl",
    "cut",
    "paste",
    "tr",
    "rev",
    "seq",
    "stat",
    "ls",
    "pwd",
    "id",
    "whoami",
    "uname"
  ]
    .map((name): [string, Rule] => [name, always]),
  ...["echo", "expr", "true", "false", "which", "basename", "dirname", "realpath", "readlink", "grep", "egrep", "fgrep"]
    .map((name): [string, Rule] => [name, always]),
  ["file", without("-C", "--compile")],
  [
    "find",
    without(
      "-exec",
      "-execdir",
      "-ok",
      "-okdir",
      "-delete",
      "-fls",
      "-fprint",
      "-fprint0",
      "-fprintf"
    )
  ],
  ["rg", without("--pre", "--pre-glob", "--hostname-bin", "--search-zip", "-z")],
  ["sort", without("-o", "--output", "-T", "--temporary-directory", "--compress-program")],
  // Any other argument is a file. `uniq` reads the first one and writes the second one.
  ["uniq", (args) => args.filter((arg) => !/^-[cdiu]+$/.test(arg)).every((arg, i) => i === 0 && !arg.startsWith("-"))],
  ["base64", without("-o", "--output")],
  ["date", (args) => args.every((arg) => arg.startsWith("+")) || isOneOf("-u", "-R", "--utc")(args)],
  [
    "sed",
    (args) => args[0] === "-n" && /^[0-9,$]+p$/.test(args[1] ?? "") && !args.slice(2).some((arg) => arg.startsWith("-"))
  ]
])

/** Whether a command can only read. The program must be a bare name, without a path. */
export const isReadOnly = ([program, ...args]: ReadonlyArray<string>): boolean =>
  program !== undefined && rules.get(program)?.(args) === true
