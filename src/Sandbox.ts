/**
 * Where commands may write and whether they may use the network.
 *
 * A thread is opened with a {@link Mode}, a name, and takes the details from Codex's configuration. A turn takes a
 * {@link Policy}, which says everything; it holds for that turn and for all later ones of its thread.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import * as Protocol from "./Protocol.ts"

/**
 * The sandbox of a thread: `read-only`, `workspace-write` or `danger-full-access`.
 *
 * @category models
 * @since 0.1.0
 */
export type Mode = Protocol.SandboxModeParam

/**
 * The schema of {@link Mode}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Mode: Schema.Codec<Mode> = Protocol.SandboxModeParam

/**
 * The sandbox of a turn.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy = Protocol.SandboxPolicyParam

/**
 * The schema of {@link Policy}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Policy: Schema.Codec<Policy> = Protocol.SandboxPolicyParam

type PolicyOptions<Type extends Policy["type"]> = Omit<Extract<Policy, { readonly type: Type }>, "type">

/**
 * Commands may read everything and write nothing. The network is off unless `networkAccess` is `true`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const readOnly = (options?: PolicyOptions<"readOnly">): Policy => ({ ...options, type: "readOnly" })

/**
 * Commands may write in the thread's working directory, in `writableRoots`, and in the temporary directories unless
 * `excludeSlashTmp` and `excludeTmpdirEnvVar` say otherwise. The network is off unless `networkAccess` is `true`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const workspaceWrite = (options?: PolicyOptions<"workspaceWrite">): Policy => ({
  ...options,
  type: "workspaceWrite"
})

/**
 * No sandbox: commands may do whatever the app-server's own process may do.
 *
 * @category constructors
 * @since 0.1.0
 */
export const dangerFullAccess: Policy = { type: "dangerFullAccess" }

/**
 * The type of the policy that a mode leads to, as the server reports it for a thread.
 *
 * @category conversions
 * @since 0.1.0
 */
export const policyType = (mode: Mode): Policy["type"] => {
  switch (mode) {
    case "read-only":
      return "readOnly"
    case "workspace-write":
      return "workspaceWrite"
    case "danger-full-access":
      return "dangerFullAccess"
  }
}
