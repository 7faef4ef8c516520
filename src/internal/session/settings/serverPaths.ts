/**
 * Checks paths on the machine of the server before they are sent. The server accepts a path that does not exist, and reports it to the model
 * only.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../../AppServerError.ts"
import type { Item } from "../../../Input.ts"
import type { ServerClient } from "../../connection/client.ts"
import { getOwn } from "../../getOwn.ts"

type Server = Pick<ServerClient, "requestRaw">

const isAbsolute = (path: string): boolean => /^([\\/]|[a-z]:[\\/])/i.test(path)

/** The server expands `~`. */
const isInHome = (path: string): boolean => /^~([\\/]|$)/.test(path)

const join = (folder: string, path: string): string => {
  const separator = /^([a-z]:)?\\/i.test(folder) || /^[a-z]:/i.test(folder) ? "\\" : "/"
  return `${folder.replace(/[\\/]+$/, "")}${separator}${path}`
}

const show = (path: string): string => `\`${path}\``

const invalid = (method: string, description: string): Effect.Effect<never, AppServerError> =>
  Effect.fail(appServerError(new InvalidRequest({ method, description })))

/**
 * Fails if an absolute path is not that of a file or directory. Only an error of the operating system makes a path invalid: a test double
 * may not implement the check.
 */
const requireKind = (
  server: Server,
  { kind, method, option, path }: {
    readonly method: string
    /** Names the option in the error. */
    readonly option: string
    readonly path: string
    readonly kind: "file" | "directory"
  }
): Effect.Effect<void, AppServerError> => {
  if (path.includes("\0")) return invalid(method, `${option} has a NUL character in its path`)
  const wrongKind = (metadata: unknown): string | undefined => {
    const isDirectory = getOwn(metadata, "isDirectory") === true
    if (kind === "directory") return getOwn(metadata, "isFile") === true ? "is a file, not a directory" : undefined
    return isDirectory ? "is a directory, not a file" : undefined
  }
  return server.requestRaw("fs/getMetadata", { path }).pipe(
    Effect.map((metadata) => {
      const wrong = wrongKind(metadata)
      return wrong === undefined ? undefined : `${show(path)} ${wrong}`
    }),
    Effect.catchReason(
      "AppServerError",
      "RequestRejected",
      ({ detail }) =>
        Effect.succeed(/\(os error \d+\)$/.test(detail) ? `cannot use ${show(path)}: ${detail}` : undefined)
    ),
    Effect.flatMap((problem) =>
      problem === undefined ? Effect.void : invalid(method, `${option} ${problem} (on the machine of the server)`)
    )
  )
}

/** Reads the working directory of the server process. `undefined` if the server does not report it. */
const processCwd = (server: Server): Effect.Effect<string | undefined, AppServerError> =>
  server.requestRaw("environment/info", { environmentId: "local" }).pipe(
    Effect.map((info) => {
      const cwd = getOwn(info, "cwd")
      if (!Predicate.isString(cwd) || !URL.canParse(cwd)) return undefined
      const path = decodeURIComponent(new URL(cwd).pathname)
      return /^\/[a-z]:/i.test(path) ? path.slice(1) : path
    }),
    Effect.catchReason("AppServerError", "RequestRejected", () => Effect.succeed(undefined))
  )

/** Fails if a `cwd` is not a directory. The server resolves a relative one against the working directory of its process. */
export const requireCwd = (
  server: Server,
  method: string,
  cwd: string | null | undefined
): Effect.Effect<void, AppServerError> => {
  if (!Predicate.isString(cwd) || cwd === "" || isInHome(cwd)) return Effect.void
  const require = (path: string) => requireKind(server, { method, option: "the option `cwd`", path, kind: "directory" })
  return isAbsolute(cwd)
    ? require(cwd)
    : Effect.flatMap(processCwd(server), (base) => base === undefined ? Effect.void : require(join(base, cwd)))
}

/** Items with the path of a file. The path of a mention is a URL. */
type FileItem = Extract<Item, { readonly type: "localImage" | "localAudio" | "skill" }>

const isFileItem = (item: Item): item is FileItem =>
  Predicate.isObject(item) && ["localImage", "localAudio", "skill"].includes(item.type) &&
  Predicate.isString(getOwn(item, "path"))

export const hasFiles = (items: ReadonlyArray<Item>): boolean => items.some(isFileItem)

/** Makes the paths in an input absolute. Fails for a path that is not that of a file. */
export const resolveFiles = (
  server: Server,
  method: string,
  items: ReadonlyArray<Item>,
  cwd: string | null | undefined
): Effect.Effect<ReadonlyArray<Item>, AppServerError> => {
  if (!hasFiles(items)) return Effect.succeed(items)
  return Effect.forEach(
    items,
    Effect.fnUntraced(function*(item, index) {
      // A built-in skill of the server has a URL.
      if (!isFileItem(item) || item.path.includes("://")) return item
      const option = `\`input[${index}].path\``
      if (isAbsolute(item.path)) {
        yield* requireKind(server, { method, option, path: item.path, kind: "file" })
        return item
      }
      if (!Predicate.isString(cwd) || !isAbsolute(cwd)) {
        return yield* invalid(
          method,
          `${option} is the relative path ${
            show(item.path)
          }, and the working directory of the thread is unknown. Pass an absolute path.`
        )
      }
      const path = join(cwd, item.path)
      yield* requireKind(server, { method, option, path, kind: "file" })
      return { ...item, path }
    }),
    { concurrency: "unbounded" }
  )
}
