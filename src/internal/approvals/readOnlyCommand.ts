/**
 * Which plain commands only read: programs that can do nothing else, and others without the options that would. Git is not
 * among them, because the configuration of a repository can have it run programs.
 */

type Rule = (args: ReadonlyArray<string>) => boolean

const always: Rule = () => true

/** None of the options, be they alone, with `=value`, or, if they have one letter, among others or with a value attached. */
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

/** GNU programs take a long option by any beginning of it. */
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
  // What is not one of these options is a file to read, and a second one would be written.
  ["uniq", (args) => args.filter((arg) => !/^-[cdiu]+$/.test(arg)).every((arg, i) => i === 0 && !arg.startsWith("-"))],
  ["base64", without("-o", "--output")],
  ["date", (args) => args.every((arg) => arg.startsWith("+")) || isOneOf("-u", "-R", "--utc")(args)],
  [
    "sed",
    (args) => args[0] === "-n" && /^[0-9,$]+p$/.test(args[1] ?? "") && !args.slice(2).some((arg) => arg.startsWith("-"))
  ]
])

/** Whether a command, given by its words, can do nothing but read. A program is known by its bare name only. */
export const isReadOnly = ([program, ...args]: ReadonlyArray<string>): boolean =>
  program !== undefined && rules.get(program)?.(args) === true
