/** What is left of a process group, as Linux tells it. */
import { type Builtins, builtins } from "./builtins.ts"

/** The zombies of a group, or `undefined` if any of its members is alive. Throws where there is no `/proc`. */
const zombiesOf = ({ readdirSync, readFileSync }: Builtins["fs"], group: number): string | undefined => {
  const zombies: Array<string> = []
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue
    let stat: string
    try {
      stat = readFileSync(`/proc/${name}/stat`, "utf8")
    } catch {
      // It has gone in the meantime.
      continue
    }
    // The second field is the name of the program in parentheses, which may have anything in it.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    const [state, , pgrp] = fields
    if (pgrp !== String(group)) continue
    // The first thread of a process may have ended before the others.
    const threads = Number(fields[17])
    if (state !== "Z" || threads > 1) return undefined
    zombies.push(name)
  }
  return zombies.join()
}

/**
 * Whether there is a process group, and nothing in it but zombies: processes that have ended, and that nobody has asked about.
 * `false` if that cannot be told.
 */
export const hasOnlyZombies = (group: number): boolean => {
  const fs = builtins()?.fs
  if (fs === undefined || process.platform !== "linux") return false
  try {
    process.kill(-group, 0)
    const zombies = zombiesOf(fs, group)
    // A process that was seen too late may have started one that was not seen. Of such two, another look shows a zombie more.
    return zombies !== undefined && zombies !== "" && zombies === zombiesOf(fs, group)
  } catch {
    return false
  }
}
