/** Resolves paths as the operating system does. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"

/** Maximum number of links in one path, as on Linux. */
const maxLinks = 40

/** One name of a path, and whether it comes from the target of a link. */
interface Segment {
  readonly name: string
  readonly ofLink: boolean
}

/**
 * Resolves an absolute path name by name: a link first, then a `..` after it. The end of the path need not exist. Returns none for a link to
 * a missing file, a loop, an unreadable directory, and paths in `/proc`, whose links differ for each process.
 *
 * `Path.resolve` and Node's `realpath` remove `..` first, and so resolve `link/..` to another directory than the system does.
 */
export const resolvePath = Effect.fnUntraced(function*(
  given: string,
  options?: {
    /** `"entry"` does not follow a link at the end: to delete or move a link changes the directory that contains it. */
    readonly of?: "target" | "entry" | undefined
  }
): Effect.fn.Return<Option.Option<string>, never, FileSystem.FileSystem | Path.Path> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  if (!path.isAbsolute(given)) return Option.none()
  const pending: Array<Segment> = []
  /** Resolves the names of a path next. Returns its root. */
  const enter = (of: string, ofLink: boolean): string => {
    const { root } = path.parse(of)
    const all = of.slice(root.length).split(path.sep === "\\" ? /[\\/]/ : "/")
    const used = all.filter((name) => name !== "" && name !== ".")
    pending.push(...used.reverse().map((name) => ({ name, ofLink })))
    return root
  }
  let existing = enter(given, false)
  let links = 0
  while (pending.length > 0) {
    const { name, ofLink } = pending.pop()!
    const next = path.join(existing, name)
    if (next === "/proc") return Option.none()
    if (name !== ".." && !(pending.length === 0 && options?.of === "entry")) {
      const link = yield* Effect.option(fs.readLink(next))
      if (Option.isSome(link)) {
        if (++links > maxLinks) return Option.none()
        const root = enter(link.value, true)
        if (root !== "") existing = root
        continue
      }
      const exists = yield* Effect.option(fs.exists(next))
      if (Option.isNone(exists)) return Option.none()
      if (!exists.value) {
        const missing = [{ name, ofLink }, ...pending.reverse()]
        return missing.some((segment) => segment.ofLink || segment.name === "..")
          ? Option.none()
          : Option.some(path.join(existing, ...missing.map((segment) => segment.name)))
      }
    }
    existing = next
  }
  return Option.some(existing)
})
