/** Commands as the server shows them: one quoted word of the shell that runs them. */

const quote = (command: string): string =>
  /^[\w@%+=:,./-]+$/.test(command) ? command : `'${command.replaceAll("'", "'\"'\"'")}'`

/** Wraps a command in the shell that runs it. */
export const toShellCommand = (command: string): string => `/bin/bash -c ${quote(command)}`

/** Unwraps the command that {@link toShellCommand} wrapped. Any other command stays unchanged. */
export const fromShellCommand = (shellCommand: string): string => {
  const word = /^\S+ -l?c (.*)$/s.exec(shellCommand)?.[1] ?? shellCommand
  return word.startsWith("'") ? word.slice(1, -1).replaceAll("'\"'\"'", "'") : word
}
