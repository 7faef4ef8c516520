/** Keeps `thread/start` from writing into the user's configuration. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Protocol from "../../../Protocol.ts"
import type { ServerClient } from "../../connection/client.ts"
import { getOwn } from "../../getOwn.ts"
import { hasKey, mergeConfig } from "./threadConfig.ts"
import { isAbsolute, isSamePath } from "./threadSettings.ts"

/** Whether the configuration of the user contains the trust level of a directory, or trusts the project around it. */
const isConfigured = (response: unknown, cwd: string): boolean => {
  const projects = getOwn(getOwn(response, "config"), "projects")
  const layers = getOwn(response, "layers")
  return Predicate.isObject(projects) && Object.keys(projects).some((folder) => isSamePath(cwd, folder)) ||
    Array.isArray(layers) &&
      layers.some((layer: unknown) =>
        getOwn(getOwn(layer, "name"), "type") === "project" && Predicate.isNullish(getOwn(layer, "disabledReason"))
      )
}

/**
 * Changes the params of a new thread so that it trusts its project only if `config.toml` does.
 *
 * For a `cwd` in a repository and a sandbox that can write, the server writes `trust_level = "trusted"` into `config.toml`. It does not if
 * the params contain the trust level of the project.
 */
export const withoutTrust = <Params extends Pick<Protocol.ThreadStartParams, "cwd" | "sandbox" | "config">>(
  server: Pick<ServerClient, "requestRaw">,
  params: Params
): Effect.Effect<Params> => {
  const { config, cwd, sandbox } = params
  if (Predicate.isNullish(cwd) || !isAbsolute(cwd) || sandbox === "read-only" || hasKey(config, "projects")) {
    return Effect.succeed(params)
  }
  const untrusted = { projects: { [cwd]: { trust_level: "untrusted" } } }
  return server.requestRaw("config/read", { cwd, includeLayers: true }).pipe(
    Effect.map((response) =>
      isConfigured(response, cwd) ? params : { ...params, config: mergeConfig(untrusted, config) }
    ),
    // A server without this method does not write into `config.toml` either.
    Effect.orElseSucceed(() => params)
  )
}
