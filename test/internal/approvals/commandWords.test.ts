import { afterAll, assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { spawnSync } from "node:child_process"
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readCommand, readWords } from "../../../src/internal/approvals/commandWords.ts"

const readArgv = (command: string) => readCommand(command)?.argv

/** A command in the form that the server sends. */
const inShell = (script: string, shell = "/bin/bash -c") => `${shell} '${script.replaceAll("'", `'"'"'`)}'`

describe("readCommand", () => {
  it("returns the words that a system shell runs, or that run without a shell", () => {
    assert.deepStrictEqual(readArgv("/bin/bash -c 'git status'"), ["git", "status"])
    assert.deepStrictEqual(readArgv("/bin/zsh -lc \"echo 'a b'\""), ["echo", "a b"])
    assert.deepStrictEqual(readArgv("/usr/bin/sh -c ls"), ["ls"])
    assert.deepStrictEqual(readArgv("/run/current-system/sw/bin/bash -lc ls"), ["ls"])
    assert.deepStrictEqual(readArgv("ls -la"), ["ls", "-la"])
    assert.deepStrictEqual(readArgv(inShell("./start read sh env")), ["./start", "read", "sh", "env"])
    // These programs run others, which their words name.
    for (
      const script of [
        "find . -exec rm a +",
        "python3 -c pass",
        "node -e 1",
        "npx tsc",
        "make test",
        "git -c a.b=c log"
      ]
    ) {
      assert.deepStrictEqual(readArgv(inShell(script)), script.split(" "))
    }
    assert.deepStrictEqual(readArgv(inShell("printf %s a")), ["printf", "%s", "a"])
    assert.deepStrictEqual(readArgv(String.raw`C:\tools\x.exe C:\a`), [String.raw`C:\tools\x.exe`, String.raw`C:\a`])
  })

  const shells = [
    "sh -c ls",
    "bash ls",
    "bash -c ls",
    "bash -lc ls",
    "bash -l -c ls",
    "bash --login -c ls",
    "bash -ic ls",
    "bash -c ls extra",
    "bash +x -c ls",
    "bash --rcfile evil -c ls",
    "bash -O extglob -c ls",
    "/bin/bash -l -c ls",
    "/bin/bash -cl ls",
    "/bin/bash -c ls extra",
    "/bin/bash script.sh",
    "/bin/bash",
    "./bash -c ls",
    "bin/bash -lc ls",
    "node_modules/.bin/bash -c ls",
    "/tmp/bash -c ls",
    "/bin/../tmp/bash -c ls",
    "/project/bin/bash -c ls",
    "//tmp/bin/bash -c ls",
    "/home/me/usr/bin/bash -c ls",
    "/BIN/BASH -c ls",
    "BASH -c ls",
    "baſh -c ls",
    "bash-5.2 -c ls",
    "bash5 -c ls",
    "ksh93 -c ls",
    "busybox sh -c ls",
    "busybox ls",
    "busybox-static ls",
    "/bin/dash -lc -c",
    "/bin/bash -c -x",
    "/bin/bash -c +x",
    "/bin/bash -c --login",
    "fish -c ls",
    "fish -l -c ls",
    "nu -c ls",
    "csh -c ls",
    "tcsh -fc ls",
    "pwsh -Command ls",
    "pwsh -NoProfile -Command 'ls; rm a'",
    "pwsh.exe -NoProfile -Command 'ls; rm a'",
    "PwSh.EXE -c ls",
    "powershell -EncodedCommand bHM=",
    "'C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe' -Command ls",
    "C:\\Windows\\System32\\cmd.exe /c ls",
    "'C:\\Program Files\\Git\\bin\\bash.exe' -lc ls",
    "cmd /c dir",
    "CMD.EXE /c dir",
    "cmd.exe. /c dir",
    "'cmd.exe ' /c dir",
    "C:cmd /c dir",
    "npm.cmd test",
    "run.BAT a",
    "wsl ls",
    "/lib64/ld-linux-x86-64.so.2 /bin/ls",
    "/lib/ld-musl-x86_64.so.1 /bin/ls"
  ]
  const launchers = [
    "env ls",
    "env bash -c ls",
    "env -i A=b ls",
    "env -S 'bash -c ls'",
    "/usr/bin/env ls",
    "sudo ls",
    "sudo -u me bash -c ls",
    "doas ls",
    "su -c ls",
    "xargs ls",
    "nice -n 5 ls",
    "ionice ls",
    "nohup ls",
    "timeout 5 ls",
    "gtimeout 5 ls",
    "setsid ls",
    "stdbuf -o0 ls",
    "chroot / ls",
    "ssh host ls",
    "script -c ls",
    "watch ls",
    "parallel ls",
    "flock f ls",
    "strace ls",
    "time ls",
    "/usr/bin/time ls",
    "unshare ls",
    "systemd-run ls",
    "taskset 1 ls",
    "x86_64 ls",
    "command ls",
    "SUDO ls",
    "./env ls"
  ]
  it("returns no argv for a shell or a launcher, by any path and in any form", () => {
    for (const command of [...shells, ...launchers]) {
      // The command is readable, so only its program hides the argv.
      if (command.startsWith("bash") || launchers.includes(command)) assert.isDefined(readCommand(command), command)
      assert.isUndefined(readArgv(command), command)
      assert.isUndefined(readArgv(inShell(command)), `in a shell: ${command}`)
      assert.isUndefined(readArgv(inShell(inShell(command))), `in two shells: ${command}`)
    }
  })

  it("returns no argv for words that a shell itself interprets", () => {
    const scripts = [
      "eval 'rm a'",
      "exec rm a",
      "builtin eval 'rm a'",
      "source a",
      ". a",
      "'.' a",
      "\\eval 'rm a'",
      "'eval' 'rm a'",
      "trap 'rm a' EXIT",
      "alias ls=rm",
      "export 'A=b'",
      "declare 'a[$(rm b)]=1'",
      "read 'a[$(rm b)]'",
      "unset 'a[$(rm b)]'",
      "let 'a[$(rm b)]'",
      "test -v 'a[$(rm b)]'",
      "printf -v 'a[$(rm b)]' c",
      "printf -v 'a[`rm b`]' c",
      "mapfile -C 'rm a' b",
      "compgen -C 'rm a'",
      "enable -f ./evil.so evil",
      "coproc rm a",
      "time rm a",
      "noglob rm a",
      " - rm a",
      "emulate sh -c 'rm a'",
      "repeat 2 rm",
      "A=1 rm",
      "echo a=~/x",
      "echo =ls",
      "ls | rm a",
      "ls\nrm a",
      ""
    ]
    for (const script of scripts) {
      const command = readCommand(inShell(script))
      assert.strictEqual(command?.script, script)
      assert.isUndefined(command?.argv, script)
    }
  })

  it("reads an array of words like a joined command", () => {
    assert.deepStrictEqual(readWords(["/bin/bash", "-lc", "ls 'a b'"]), {
      script: "ls 'a b'",
      argv: ["ls", "a b"],
      runsStartupFiles: true
    })
    assert.deepStrictEqual(readWords(["C:\\a b\\x.exe", "$a", "b;c"]).argv, ["C:\\a b\\x.exe", "$a", "b;c"])
    const none = [[], ["ls", "a\0b"], ["sudo", "ls"], ["bash", "-c", "ls"], ["./bash", "-c", "ls"], [
      "/bin/bash",
      "-c",
      "ls",
      "x"
    ], ["cmd", "/c", "x"]]
    for (const words of none) {
      assert.deepStrictEqual(readWords(words), { script: undefined, argv: undefined, runsStartupFiles: false })
    }
  })

  it("reports whether the shell runs files of the home directory first", () => {
    const runsStartupFiles = (command: string) => readCommand(command)?.runsStartupFiles
    for (const command of ["ls", "/bin/bash -c ls", "/usr/bin/bash -c ls", "/bin/sh -c ls", "/bin/dash -c ls"]) {
      assert.isFalse(runsStartupFiles(command), command)
    }
    for (const command of ["/bin/bash -lc ls", "/bin/sh -lc ls", "/bin/zsh -c ls", "/bin/zsh -lc ls"]) {
      assert.isTrue(runsStartupFiles(command), command)
    }
  })
})

describe("readCommand on a real shell", () => {
  const folder = mkdtempSync(join(tmpdir(), "runs-"))
  const log = join(folder, "log")
  const program = join(folder, "show")
  writeFileSync(program, `#!/bin/sh\n{ printf '%s\\0' "$@"; printf '\\n\\n\\0'; } >>"$LOG"\n`)
  chmodSync(program, 0o755)
  afterAll(() => rmSync(folder, { recursive: true }))

  /** Runs a script, and returns the arguments of each run of `show`. */
  const runScript = (script: string, shell: string) => {
    writeFileSync(log, "")
    spawnSync(shell, ["-c", script], {
      cwd: folder,
      env: { PATH: `${folder}:/usr/bin:/bin`, HOME: folder, LOG: log },
      stdio: "ignore",
      timeout: 5_000
    })
    return readFileSync(log, "utf8").split("\n\n\0").slice(0, -1).map((run) => run.split("\0").slice(0, -1))
  }

  const first = [
    "show",
    "'show'",
    "sh\\ow",
    "./show",
    "env show",
    "eval show",
    "exec show",
    "command show",
    "builtin show",
    "time show",
    "coproc show",
    "nice show",
    "nohup show",
    "xargs show",
    "timeout 1 show",
    "sh -c show",
    "bash -c 'show a'",
    "trap show EXIT",
    "trap 'show a' EXIT",
    "A=1 show",
    "'A=1' show",
    "test -v 'a[$(show)]'",
    "printf -v 'a[$(show)]' b",
    "printf %s",
    "find . -name show -exec",
    "echo show",
    "''show",
    "'' show",
    "if show",
    "$SHELL show"
  ] as const
  const rest = [
    "a",
    " ",
    " ",
    "'b c'",
    "\"d\"",
    "\\e",
    "=",
    "~/x",
    ":",
    "*",
    "show",
    "\n",
    ";show",
    "{1,2}",
    "-",
    "'$(show)'",
    "#"
  ] as const
  const Script = Schema.Struct({
    first: Schema.Literals(first),
    rest: Schema.Array(Schema.Literals(rest)).check(Schema.isMaxLength(5))
  })

  const compared: Array<string> = []
  it.prop(
    "returns only an argv that the shell runs",
    { script: Script },
    ({ script }) => {
      const text = [script.first, script.rest.join("")].join(" ")
      const argv = readArgv(inShell(text))
      if (argv === undefined) return
      const [program, ...args] = argv
      // The real `find` runs other programs, which its words name.
      if (program === "find") return
      compared.push(text)
      const isShow = program === "show" || program === "./show"
      // Without arguments `show` prints one empty argument.
      const expected = isShow ? [args.length === 0 ? [""] : args] : []
      for (const shell of ["bash", "sh"]) assert.deepStrictEqual(runScript(text, shell), expected, `${shell}: ${text}`)
    },
    { arbitrary: { runs: 500 }, timeout: 60_000 }
  )

  it("was compared with the shell at least 20 times", () => {
    assert.isAbove(compared.length, 20)
    assert.isAbove(compared.filter((script) => script.startsWith("show")).length, 0)
  })
})
