/** Finds out what a command runs: its own words, or the words of a shell script. */
import { joinedWords, plainWords } from "./shellWords.ts"

const names = (...lines: ReadonlyArray<string>): ReadonlySet<string> =>
  new Set(lines.flatMap((line) => line.split(" ")))

/** Programs that exist to run another command, given as a script or as arguments. */
const launchers = names(
  // Shells.
  "sh ash bash rbash dash zsh rzsh ksh rksh mksh lksh pdksh oksh loksh yash posh bsh csh tcsh rc es scsh",
  "fish nu nushell elvish xonsh ion osh ysh oil murex hush sash git-bash git-cmd",
  "pwsh pwsh-preview powershell powershell_ise cmd command wsl",
  // Many programs in one, named by the first argument.
  "busybox toybox coreutils",
  // As another user, with another environment, file system or limit.
  "env genv sudo sudo-rs doas su su-rs runuser pkexec run0 gosu su-exec setpriv setuidgid chpst softlimit sg newgrp",
  "envdir envuidgid cross-env cross-env-shell env-cmd dotenv dotenvx runas gsudo psexec psexec64 paexec",
  "chroot gchroot fakechroot fakeroot proot unshare nsenter bwrap firejail capsh runcon systemd-run systemd-nspawn",
  "nice gnice ionice chrt taskset numactl choom uclampset prlimit cgexec setarch linux32 linux64 i386 x86_64",
  "faketime proxychains proxychains4 torsocks torify tsocks dbus-run-session dbus-launch xvfb-run ssh-agent",
  // At another time, in another place, several times, or on another terminal.
  "xargs gxargs parallel forfiles watch entr at batch flock lockf setlock ssh slogin rsh mosh autossh sshpass",
  "nohup gnohup setsid daemon daemonize start-stop-daemon timeout gtimeout stdbuf gstdbuf unbuffer script scriptlive",
  "screen tmux byobu zellij dtach abduco conhost time gtime strace ltrace perf valgrind rr"
)

/** Builtins and reserved words of shells that run, define or evaluate their arguments. */
const interpreting = names(
  ". - source eval exec builtin trap alias let declare typeset local export readonly unset read mapfile readarray getopts",
  "compgen complete compopt bind enable fc hist r jobs noglob nocorrect emulate zmodload autoload functions sched vared",
  "zle zstyle zparseopts integer float nameref",
  "case coproc do done elif else end esac fi for foreach function if in namespace repeat select then until while"
)

/** Builtins that evaluate an argument as arithmetic or as a name: `test -v 'a[$(rm x)]'` runs `rm`. */
const evaluating = names("test printf print exit return shift kill wait ulimit umask sleep")

/** Whether a name is that of a launcher, regardless of letter case, extension and version. */
const isLauncherName = (part: string): boolean => {
  // Upper case first: for a file system that ignores letter case, `ſ` equals `s`.
  const folded = part.toUpperCase().toLowerCase()
  // Windows ignores dots and spaces at the end of a name.
  const name = folded.replace(/[. ]+$/, "").replace(/\.(?:exe|com)$/, "")
  return launchers.has(name) ||
    launchers.has(name.replace(/[-.]static$/, "").replace(/[-_.]?\d[\d._-]*$/, "")) ||
    // `cmd` interprets batch files and their arguments; a dynamic linker runs its first argument.
    /\.(?:cmd|bat)$/.test(name) || /^ld\b.*\.so\b/.test(name)
}

/** Whether the last name of a path is a launcher. It may have a drive before it (`C:cmd`) or a stream after it (`cmd.exe:stream`). */
const isLauncher = (program: string): boolean => program.split(/[\\/]/).at(-1)!.split(":").some(isLauncherName)

/** Returns the words if they are a program and the arguments that it receives. */
const getArgv = (words: ReadonlyArray<string> | undefined): ReadonlyArray<string> | undefined => {
  const [program, ...args] = words ?? []
  if (program === undefined || interpreting.has(program) || isLauncher(program)) return undefined
  // The operating system passes no argument with a null character.
  if (words!.some((word) => word.includes("\0"))) return undefined
  return evaluating.has(program) && args.some((arg) => /[$`]/.test(arg)) ? undefined : words
}

/** Matches shells whose words `plainWords` reads, in directories that only the administrator can write. */
const systemShell = /^(?:\/usr|\/run\/current-system\/sw)?\/bin\/(sh|bash|dash|zsh|ksh)$/

/** What a command runs. */
interface CommandWords {
  /** The script, if the command is a system shell with one. */
  readonly script: string | undefined
  /** The program and its arguments. `undefined` if a shell or a launcher interprets them. */
  readonly argv: ReadonlyArray<string> | undefined
  /** Whether the shell runs files of the home directory before the script. */
  readonly runsStartupFiles: boolean
}

/** Reads the words of a command as a process gets them. */
export const readWords = (words: ReadonlyArray<string>): CommandWords => {
  const [program = "", option, script = ""] = words
  const [, shell] = systemShell.exec(program) ?? []
  const hasScript = words.length === 3 && (option === "-c" || option === "-lc") &&
    // For a shell, such a script is another option.
    !/^[-+]/.test(script)
  if (shell === undefined || !hasScript) {
    return { script: undefined, argv: getArgv(words), runsStartupFiles: false }
  }
  return {
    script,
    argv: getArgv(plainWords(script)),
    // A login shell runs a profile, and zsh always runs `~/.zshenv`.
    runsStartupFiles: option === "-lc" || shell === "zsh"
  }
}

/** Reads a command whose words the server has joined to one line. */
export const readCommand = (command: string): CommandWords | undefined => {
  const words = joinedWords(command)
  return words && readWords(words)
}
