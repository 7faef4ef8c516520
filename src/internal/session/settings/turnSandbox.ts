/** Keeps workspace roots from widening the sandbox policy of a turn. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type { AppServerError } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { Settings } from "../../threadSettings.ts"
import { notApplied } from "../threads/keptSettings.ts"
import { isAbsolute, isSamePath, movedRoots } from "./threadSettings.ts"

/**
 * Adds workspace roots to the params of a turn, so that its sandbox policy holds exactly. By default, the server adds the workspace roots of
 * the thread to the writable roots of the policy.
 */
export const withExactRoots = (
  settings: Settings,
  experimentalApi: boolean,
  params: Protocol.TurnStartParams
): Effect.Effect<Protocol.TurnStartParams, AppServerError> => {
  const { sandboxPolicy, threadId } = params
  const known = settings.runtimeWorkspaceRoots
  if (
    sandboxPolicy?.type !== "workspaceWrite" || Predicate.isNotNullish(params.runtimeWorkspaceRoots) ||
    known === undefined
  ) {
    return Effect.succeed(params)
  }
  const cwd = params.cwd ?? settings.cwd
  const writable = sandboxPolicy.writableRoots ?? []
  const allowed = [cwd, ...writable].filter(Predicate.isNotNullish).filter(isAbsolute)
  const current = movedRoots(known, settings.cwd, cwd) ?? []
  const kept = current.filter((root) => !isAbsolute(root) || allowed.some((path) => isSamePath(root, path)))
  if (kept.length === current.length) return Effect.succeed(params)
  if (!experimentalApi) {
    const effective = { ...sandboxPolicy, writableRoots: [...new Set([...writable, ...current])] }
    return Effect.fail(notApplied("turn/start", threadId, { setting: "sandbox", requested: sandboxPolicy, effective }))
  }
  // Without a root the server reports the temporary folders as writable roots instead of as the flags of the policy.
  const roots = kept.length === 0 && cwd !== undefined && isAbsolute(cwd) ? [cwd] : kept
  return Effect.succeed({ ...params, runtimeWorkspaceRoots: roots })
}
