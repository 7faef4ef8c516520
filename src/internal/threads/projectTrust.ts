/** Keeps `thread/start` from writing into the user's configuration. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { Requests } from "../../AppServer.ts"
import type * as Protocol from "../../Protocol.ts"
import { field } from "../connection/codec.ts"
import { hasKey, mergeConfig } from "./threadConfig.ts"

const isBelow = (path: string, folder: string): boolean => {
  const root = folder.replace(/[\\/]+$/, "")
  return path === root || path.startsWith(`${root}/`) || path.startsWith(`${root}\\`)
}

/**
 * The params of a new thread that trusts its project only if `config.toml` does.
 *
 * The server takes a `cwd` together with a sandbox that can write for trust in the project, and writes `trust_level = "trusted"` into
 * `config.toml`. It does not where the level of the project is given.
 */
export const withoutTrust = <Params extends Pick<Protocol.ThreadStartParams, "cwd" | "sandbox" | "config">>(
  server: Pick<Requests, "requestRaw">,
  params: Params
): Effect.Effect<Params> => {
  const { config, cwd, sandbox } = params
  if (Predicate.isNullish(cwd) || sandbox === "read-only" || hasKey(config, "projects")) return Effect.succeed(params)
  return server.requestRaw("config/read", { cwd }).pipe(
    Effect.map((response) => {
      const projects = field(field(response, "config"), "projects")
      const isConfigured = Predicate.isObject(projects) && Object.keys(projects).some((folder) => isBelow(cwd, folder))
      const untrusted = { projects: { [cwd]: { trust_level: "untrusted" } } }
      return isConfigured ? params : { ...params, config: mergeConfig(untrusted, config) }
    }),
    // A server without this method has none of this either.
    Effect.orElseSucceed(() => params)
  )
}
