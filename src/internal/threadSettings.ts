/** The settings of a thread, in the vocabulary of this package. */
import * as Schema from "effect/Schema"
import * as Protocol from "../Protocol.ts"

/**
 * The effective settings of a thread, by the names of the protocol's `ThreadSettings`. A member is `undefined` if the server
 * does not report it, and `null` if the thread has none.
 */
export interface Settings {
  /** When Codex asks for approval. */
  readonly approvalPolicy?: Protocol.AskForApproval | undefined
  /** Who decides about approval requests: `user`, or `auto_review`, a second model. */
  readonly approvalsReviewer?: Protocol.ApprovalsReviewer | undefined
  /** Where commands may write and whether they may use the network. */
  readonly sandboxPolicy?: Protocol.SandboxPolicy | undefined
  /** The permission profile that the sandbox policy came from. A built-in one has an id that starts with a colon. */
  readonly activePermissionProfile?: Protocol.ActivePermissionProfile | null | undefined
  readonly model?: string | undefined
  readonly modelProvider?: string | undefined
  /** The reasoning effort; `null` for the model's default. */
  readonly effort?: Protocol.ReasoningEffort | null | undefined
  readonly serviceTier?: string | null | undefined
  /** The working directory, an absolute path on the server's machine. */
  readonly cwd?: string | undefined
  /** The workspace roots besides those of the sandbox policy, absolute paths on the server's machine. */
  readonly runtimeWorkspaceRoots?: ReadonlyArray<string> | undefined
}

/** The schema of {@link Settings}. */
export const Settings: Schema.Codec<Settings> = Schema.Struct({
  approvalPolicy: Schema.optional(Protocol.AskForApproval),
  approvalsReviewer: Schema.optional(Protocol.ApprovalsReviewer),
  sandboxPolicy: Schema.optional(Protocol.SandboxPolicy),
  activePermissionProfile: Schema.optional(Schema.NullOr(Protocol.ActivePermissionProfile)),
  model: Schema.optional(Schema.String),
  modelProvider: Schema.optional(Schema.String),
  effort: Schema.optional(Schema.NullOr(Protocol.ReasoningEffort)),
  serviceTier: Schema.optional(Schema.NullOr(Schema.String)),
  cwd: Schema.optional(Schema.String),
  runtimeWorkspaceRoots: Schema.optional(Schema.Array(Schema.String))
})

/** Reads the settings in `thread/settings/updated`, which does not report the workspace roots. */
export const fromUpdate = (updated: Protocol.ThreadSettings): Settings => ({
  approvalPolicy: updated.approvalPolicy,
  approvalsReviewer: updated.approvalsReviewer,
  sandboxPolicy: updated.sandboxPolicy,
  activePermissionProfile: updated.activePermissionProfile,
  model: updated.model,
  modelProvider: updated.modelProvider,
  effort: updated.effort,
  serviceTier: updated.serviceTier,
  cwd: updated.cwd,
  runtimeWorkspaceRoots: undefined
})
