/** The processes of this machine, as Linux shows them in `/proc`. */
import * as Effect from "effect/Effect"
import { readdirSync, readFileSync } from "node:fs"
import { poll } from "./poll.ts"

const read = (pid: number, file: string): string | undefined => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8")
  } catch {
    return undefined
  }
}

/** Finds the processes whose environment contains a text. Processes of a home contain its path. */
export const findProcesses = (marker: string): ReadonlyArray<number> =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) =>
    pid !== process.pid && read(pid, "environ")?.includes(marker) === true
  )

/** Waits until all processes of a home have exited, and returns the duration. */
export const awaitExits = (marker: string) =>
  Effect.timed(poll(Effect.sync(() => findProcesses(marker)), (pids) => pids.length === 0, "the exit of all processes"))

/** What a process has used. */
export interface ProcessUsage {
  readonly memoryMb: number
  readonly cpuSeconds: number
}

/** Reads the resident memory and the processor time of a process. Both are 0 once it has exited. */
export const readUsage = (pid: number): ProcessUsage => {
  const kilobytes = Number(/^VmRSS:\s+(\d+)/m.exec(read(pid, "status") ?? "")?.[1] ?? 0)
  // The name of the command is in parentheses, and may contain spaces. Fields 14 and 15 are in ticks of 10 milliseconds.
  const fields = read(pid, "stat")?.split(") ")[1]?.split(" ") ?? []
  return { memoryMb: kilobytes / 1024, cpuSeconds: (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / 100 }
}

/** Returns the name of the executable of a process. */
export const readName = (pid: number): string => read(pid, "comm")?.trim() ?? ""
