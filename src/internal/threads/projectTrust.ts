/** Keeps `thread/start` from writing into the user's configuration. */
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type { Requests } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import { field } from "../connection/codec.ts"
import { hasKey, mergeConfig } from "./threadConfig.ts"
import { isAbsolute, isSamePath } from "./threadSettings.ts"

type Asking = Pick<Requests, "requestRaw">

const parentOf = (path: string): string | undefined => {
  const parent = path.replace(/[\\/]+$/, "").replace(/[^\\/]+$/, "").replace(/(.)[\\/]+$/, "$1")
  return parent === "" || parent === path ? undefined : parent
}

/** The text of a file on the server's machine. */
const readText = (server: Asking, path: string): Effect.Effect<string, AppServerError> =>
  Effect.map(server.requestRaw("fs/readFile", { path }), (response) => {
    const data = field(response, "dataBase64")
    return Result.getOrElse(Base64.decodeString(Predicate.isString(data) ? data : ""), () => "")
  })

/** The repository that a worktree belongs to, by what is in its `.git` file. */
const mainRepository = (gitFile: string): string | undefined =>
  /^gitdir:\s*(.+?)[\\/]\.git[\\/]worktrees[\\/][^\\/]+\s*$/m.exec(gitFile)?.[1]

/**
 * The folders whose trust level the server looks up: the working directory, the root of its repository, and for a worktree the root of
 * the main one. `undefined` outside of a repository, where the server writes nothing.
 */
const projectFolders = Effect.fnUntraced(function*(server: Asking, cwd: string) {
  for (let folder: string | undefined = cwd; folder !== undefined; folder = parentOf(folder)) {
    const git = `${folder}/.git`
    const found = yield* Effect.option(server.requestRaw("fs/getMetadata", { path: git }))
    if (found._tag === "None") continue
    const main = field(found.value, "isDirectory") === true ? undefined : mainRepository(yield* readText(server, git))
    return [cwd, folder, main].filter(Predicate.isNotUndefined)
  }
  return undefined
})

/**
 * The params of a new thread that trusts its project only if `config.toml` does.
 *
 * The server takes a `cwd` in a repository together with a sandbox that can write for trust in the project, and writes
 * `trust_level = "trusted"` into `config.toml`. It does not where the level of the project is given.
 */
export const withoutTrust = <Params extends Pick<Protocol.ThreadStartParams, "cwd" | "sandbox" | "config">>(
  server: Asking,
  params: Params
): Effect.Effect<Params> => {
  const { config, cwd, sandbox } = params
  if (Predicate.isNullish(cwd) || !isAbsolute(cwd) || sandbox === "read-only" || hasKey(config, "projects")) {
    return Effect.succeed(params)
  }
  return Effect.gen(function*() {
    const folders = yield* projectFolders(server, cwd)
    if (folders === undefined) return params
    const projects = field(field(yield* server.requestRaw("config/read", { cwd }), "config"), "projects")
    const configured = Predicate.isObject(projects) ? Object.keys(projects) : []
    if (folders.some((folder) => configured.some((other) => isSamePath(folder, other)))) return params
    return { ...params, config: mergeConfig({ projects: { [cwd]: { trust_level: "untrusted" } } }, config) }
  }).pipe(
    // A server without these methods does not write either.
    Effect.orElseSucceed(() => params)
  )
}
