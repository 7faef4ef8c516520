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

/**
 * The sandbox as an option of a thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface ThreadOptions {
  /**
   * What the commands of the thread may do. Cannot be combined with a bypass, nor with `permissions`. A new thread has the
   * configured sandbox by default, any other thread keeps its own.
   *
   * - `"read-only"`: read everything, write nothing, and not use the network.
   * - `"workspace-write"`: write in the working directory and in temporary directories too.
   * - `"danger-full-access"`: **no sandbox.** Commands may do all that the server's process may do.
   */
  readonly sandbox?: Mode | undefined
}

/**
 * The sandbox as an option of a turn.
 *
 * @category models
 * @since 0.1.0
 */
export interface TurnOptions {
  /**
   * What commands may do in this turn and in later turns of the thread: {@link readOnly}, {@link workspaceWrite} or
   * {@link dangerFullAccess}. Cannot be combined with a bypass, nor with `permissions`. Default: that of the thread.
   */
  readonly sandboxPolicy?: Policy | undefined
}

/**
 * What a sandbox without writing may allow.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReadOnlyOptions {
  /**
   * Whether commands may use the network.
   *
   * @default false
   */
  readonly networkAccess?: boolean | undefined
}

/**
 * What a sandbox with writing may allow.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkspaceWriteOptions extends ReadOnlyOptions {
  /** More directories that commands may write in, as absolute paths. */
  readonly writableRoots?: ReadonlyArray<string> | undefined
  /**
   * Whether `/tmp` may not be written in.
   *
   * @default false
   */
  readonly excludeSlashTmp?: boolean | undefined
  /**
   * Whether the directory that `TMPDIR` names may not be written in.
   *
   * @default false
   */
  readonly excludeTmpdirEnvVar?: boolean | undefined
}

/**
 * Commands may read everything and write nothing. The network is off unless `networkAccess` is `true`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const readOnly = (options?: ReadOnlyOptions): Policy => ({ ...options, type: "readOnly" })

/**
 * Commands may write in the thread's working directory, in `writableRoots`, and in the temporary directories unless
 * `excludeSlashTmp` and `excludeTmpdirEnvVar` say otherwise. The network is off unless `networkAccess` is `true`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const workspaceWrite = (options?: WorkspaceWriteOptions): Policy => ({
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
