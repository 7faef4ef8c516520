/**
 * The sandbox of commands: the directories in which they may write, and whether they may use the network.
 *
 * **Details**
 *
 * A thread is opened with a {@link Mode}, whose details come from the configuration of Codex. A turn has a {@link Policy}, which
 * contains all details, and holds for that turn and all later turns of its thread.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import * as Protocol from "./Protocol.ts"

/**
 * The name of a sandbox of a thread: `read-only`, `workspace-write` or `danger-full-access`.
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
 * The sandbox of a turn, with all details.
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
   * The sandbox of the commands of the thread. Cannot be combined with a bypass or with `permissions`.
   *
   * - `"read-only"`: commands may read everything, write nothing, and not use the network.
   * - `"workspace-write"`: commands may also write in the working directory and in temporary directories.
   * - `"danger-full-access"`: **no sandbox.** Commands have all permissions of the server's process.
   *
   * @default the configured sandbox for a new thread; another thread keeps its own
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
   * The sandbox of commands in this turn and later turns of the thread: {@link readOnly}, {@link workspaceWrite} or
   * {@link dangerFullAccess}. Cannot be combined with a bypass or with `permissions`.
   *
   * @default the sandbox of the thread
   */
  readonly sandboxPolicy?: Policy | undefined
}

/**
 * The options of {@link readOnly}.
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
 * The options of {@link workspaceWrite}.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkspaceWriteOptions extends ReadOnlyOptions {
  /** Additional directories in which commands may write, as absolute paths. */
  readonly writableRoots?: ReadonlyArray<string> | undefined
  /**
   * Whether commands may not write in `/tmp`.
   *
   * @default false
   */
  readonly excludeSlashTmp?: boolean | undefined
  /**
   * Whether commands may not write in the directory that `TMPDIR` names.
   *
   * @default false
   */
  readonly excludeTmpdirEnvVar?: boolean | undefined
}

/**
 * Makes a sandbox in which commands may read everything and write nothing. They may use the network if `networkAccess` is `true`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const readOnly = (options?: ReadOnlyOptions): Policy => ({ ...options, type: "readOnly" })

/**
 * Makes a sandbox in which commands may read everything, and write in some directories.
 *
 * **Details**
 *
 * Commands may write in the working directory of the thread, in `writableRoots`, and in temporary directories unless
 * `excludeSlashTmp` and `excludeTmpdirEnvVar` exclude these. They may use the network if `networkAccess` is `true`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const workspaceWrite = (options?: WorkspaceWriteOptions): Policy => ({
  ...options,
  type: "workspaceWrite"
})

/**
 * The absence of a sandbox: commands have all permissions of the app-server process.
 *
 * @category constructors
 * @since 0.1.0
 */
export const dangerFullAccess: Policy = { type: "dangerFullAccess" }

/**
 * Converts a mode to the type of the policy that the server reports for it.
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
