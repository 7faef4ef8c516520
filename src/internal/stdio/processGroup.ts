/** Inspects the processes of a group on Linux. */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import { hostProcess } from "./hostProcess.ts"

/** Maximum number of files that are open at a time while `/proc` is read. */
const maxOpenFiles = 16

interface Member {
  readonly pid: string
  readonly group: string
  readonly isZombie: boolean
}

const parseStat = (pid: string, stat: string): Member => {
  // The second field is the program's name in parentheses. It may contain any character.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
  const [state, , group = ""] = fields
  // The main thread of a process may end before the others do.
  const threads = Number(fields[17])
  return { pid, group, isZombie: state === "Z" && threads <= 1 }
}

const readMembers = Effect.fnUntraced(function*(group: number) {
  const fs = yield* FileSystem.FileSystem
  const names = yield* fs.readDirectory("/proc")
  const processes = yield* Effect.forEach(
    names.filter((name) => /^\d+$/.test(name)),
    (pid) =>
      fs.readFileString(`/proc/${pid}/stat`).pipe(
        Effect.map((stat) => parseStat(pid, stat)),
        // The process has ended since the directory was read.
        Effect.option
      ),
    { concurrency: maxOpenFiles }
  )
  return Arr.getSomes(processes).filter((process) => process.group === String(group))
})

/** Reads the pids of a group's zombies. Returns none if the group is empty or has a live member. */
const readZombies = Effect.fnUntraced(function*(group: number) {
  const members = yield* readMembers(group)
  return members.length > 0 && members.every(({ isZombie }) => isZombie)
    ? Option.some(members.map(({ pid }) => pid).join())
    : Option.none()
})

/** Whether a process group exists. Signal 0 only checks. */
const groupExists = (group: number): Effect.Effect<boolean> =>
  Effect.orElseSucceed(Effect.try(() => hostProcess?.kill(-group, 0) === true), () => false)

/** Whether a process group exists and contains only zombies: processes that have ended, and that no parent has reaped. */
export const hasOnlyZombies = Effect.fnUntraced(function*(group: number) {
  if (hostProcess?.platform !== "linux" || !(yield* groupExists(group))) return false
  const zombies = yield* readZombies(group)
  if (Option.isNone(zombies)) return false
  // A process that ends while `/proc` is read may have started another one unseen. A second read then shows one more member.
  const again = yield* readZombies(group)
  return Option.isSome(again) && again.value === zombies.value
}, Effect.orElseSucceed(() => false))
