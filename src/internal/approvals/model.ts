/** The requests for approval, the decisions about them, and the handlers that decide. `Approvals` exports all of it. */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Protocol from "../../Protocol.ts"
import type { HandlerServices, KnownServices } from "../handlers/handlerServices.ts"

/**
 * What every request has.
 *
 * @category requests
 * @since 0.1.0
 */
export interface RequestBase {
  /** The thread that asks. That of a sub-agent is a thread of its own. */
  readonly threadId: string
  /** The turn that asks, if the server names it. */
  readonly turnId: string | undefined
  /** Why, in the model's words. */
  readonly reason: string | undefined
  /** The request as the server sent it, for what newer servers add. */
  readonly params: unknown
}

/**
 * Codex wants to run a command, outside of its sandbox.
 *
 * **When to use**
 *
 * Decide by `argv`. `script` must be parsed to be understood, and `commandActions` and `reason` are written by, or for, the model.
 *
 * **Details**
 *
 * `argv` is there for a program and its arguments, when nothing else reads them first:
 *
 * - The command is a system shell with a script, `/bin/bash -c '…'` or `-lc`, as Codex sends it, and the script is a single plain
 *   command. The shell is `sh`, `bash`, `dash`, `zsh` or `ksh` in `/bin`, `/usr/bin` or `/run/current-system/sw/bin`. Or the
 *   command is not in a shell.
 * - Nothing in it is for a shell to act upon: an operator, a variable, a pattern, a brace, a tilde that is expanded (also in
 *   `a=~/x`), an assignment, a comment, or a backslash that the shell drops from a word such as `C:\dir`.
 * - The program is not one that runs its arguments: another shell (`fish`, `pwsh`, `cmd`), a launcher (`env`, `sudo`, `xargs`, `nice`,
 *   `timeout`, `ssh`), or a builtin (`eval`, `exec`, `time`). Path, letter case and `.exe` make no difference to that.
 *
 * **Gotchas**
 *
 * - Other programs can run code too, as one of their features: `find -exec`, `git -c`, `make`, `npx`, `docker run`, `python -c`,
 *   `node -e`. They have `argv`, so look at all words and not only at the first one.
 * - A login shell (`-lc`, Codex's default) runs the user's profile first, and `zsh` always runs `~/.zshenv`. If Codex may write the
 *   user's home directory, set `allow_login_shell = false` in its configuration. `ApprovalPolicy.readOnlyCommands` accepts no
 *   command from such a shell.
 * - The environment of the server counts too: `PATH` says which program a name is, and `BASH_ENV` names a file that `bash` runs.
 *
 * @category requests
 * @since 0.1.0
 */
export interface CommandRequest extends RequestBase {
  readonly _tag: "Command"
  readonly itemId: string
  /** Tells apart several requests about one item. */
  readonly approvalId: string | undefined
  /** What is asked for; `"command"` is to run one, `"writeStdin"` to type into one that runs. */
  readonly kind: Protocol.CommandExecutionApprovalKind
  /** The command as it would be run, mostly a shell with a script. */
  readonly command: string | undefined
  /** What the shell is to run, if the command is a system shell with a script. */
  readonly script: string | undefined
  /** The program and its arguments, if these words are all that runs; `undefined` otherwise. Decide by this. */
  readonly argv: ReadonlyArray<string> | undefined
  readonly cwd: string | undefined
  /** What the server makes of the command, for people to look at. */
  readonly commandActions: ReadonlyArray<Protocol.CommandAction>
  /** Decisions that the server suggests to offer. Others are accepted too. */
  readonly availableDecisions: ReadonlyArray<Protocol.CommandExecutionApprovalDecision>
  /** Beginnings of commands that could be allowed from now on; see {@link acceptWithExecpolicyAmendment}. */
  readonly proposedExecpolicyAmendment: ReadonlyArray<string> | undefined
  /** Rules about hosts that could be kept from now on; see {@link applyNetworkPolicyAmendment}. */
  readonly proposedNetworkPolicyAmendments: ReadonlyArray<Protocol.NetworkPolicyAmendment>
  /** Set if this is about a connection that a command wants to make, and not about running it. */
  readonly networkApprovalContext: Protocol.NetworkApprovalContext | undefined
  /** Rights that the command would get besides. */
  readonly additionalPermissions: Protocol.AdditionalPermissionProfile | undefined
}

/**
 * Codex wants to change files.
 *
 * **Gotchas**
 *
 * The paths are as the server names them. A folder or a file among them can be a link that leads elsewhere, and an update can
 * move its file to `move_path`. `ApprovalPolicy.onlyInside` and `ApprovalPolicy.acceptFileChanges` look at both.
 *
 * @category requests
 * @since 0.1.0
 */
export interface FileChangeRequest extends RequestBase {
  readonly _tag: "FileChange"
  readonly itemId: string
  /** The files with their diffs; `undefined` if the server has not told this client, so accept that at your own risk. */
  readonly changes: ReadonlyArray<Protocol.FileUpdateChange> | undefined
  /** Set if Codex asks for the right to write below this folder for the rest of the session. */
  readonly grantRoot: string | undefined
}

/**
 * Codex wants more rights for what follows.
 *
 * @category requests
 * @since 0.1.0
 */
export interface PermissionsRequest extends RequestBase {
  readonly _tag: "Permissions"
  readonly itemId: string
  readonly permissions: Protocol.RequestPermissionProfile
  readonly cwd: string
}

/**
 * Codex wants to call a tool of an MCP server. Tools that are marked as read-only are not asked about.
 *
 * An MCP server's own form can look the same, so this is asked only while the turn makes the call, as `item/started` says, and is
 * declined otherwise.
 *
 * @category requests
 * @since 0.1.0
 */
export interface McpToolCallRequest extends RequestBase {
  readonly _tag: "McpToolCall"
  readonly server: string
  readonly tool: string
  /** The question in the server's words. */
  readonly message: string
  readonly description: string | undefined
  /** The arguments of the call. */
  readonly arguments: unknown
  /** What the tool says of itself, such as `{ destructiveHint: true }`. Codex 0.166 does not say it: then it is empty. */
  readonly annotations: Readonly<Record<string, unknown>>
}

/**
 * Something that Codex asks for, told apart by `_tag`.
 *
 * @category requests
 * @since 0.1.0
 */
export type Request = CommandRequest | FileChangeRequest | PermissionsRequest | McpToolCallRequest

/**
 * @category decisions
 * @since 0.1.0
 */
export type CommandDecision = Protocol.CommandExecutionApprovalDecisionParam

/**
 * @category decisions
 * @since 0.1.0
 */
export type FileChangeDecision = Protocol.FileChangeApprovalDecision

/**
 * A decision about rights: all that were asked for, or those that are named.
 *
 * @category decisions
 * @since 0.1.0
 */
export type PermissionsDecision =
  | "accept"
  | "acceptForSession"
  | "decline"
  | "cancel"
  | Protocol.PermissionsRequestApprovalResponse

/**
 * @category decisions
 * @since 0.1.0
 */
export type McpToolCallDecision = "accept" | "acceptForSession" | "acceptAlways" | "decline" | "cancel"

/**
 * @category decisions
 * @since 0.1.0
 */
export type Decision = CommandDecision | FileChangeDecision | PermissionsDecision | McpToolCallDecision

/**
 * Yes, this once. Of rights: for the rest of the turn.
 *
 * @category decisions
 * @since 0.1.0
 */
export const accept = "accept" as const

/**
 * Yes, and do not ask again in this session: for the same command, for these files, for this tool.
 *
 * @category decisions
 * @since 0.1.0
 */
export const acceptForSession = "acceptForSession" as const

/**
 * Yes, and do not ask again, in later sessions either. For MCP tools only; the server keeps it in its configuration.
 *
 * @category decisions
 * @since 0.1.0
 */
export const acceptAlways = "acceptAlways" as const

/**
 * No. The model is told so, and the turn goes on.
 *
 * @category decisions
 * @since 0.1.0
 */
export const decline = "decline" as const

/**
 * No, and interrupt the turn.
 *
 * @category decisions
 * @since 0.1.0
 */
export const cancel = "cancel" as const

/**
 * Yes, and do not ask again about commands that begin with these words. The server writes that into the rules in its home, so
 * it holds for later sessions too. `proposedExecpolicyAmendment` of the request is a suggestion.
 *
 * @category decisions
 * @since 0.1.0
 */
export const acceptWithExecpolicyAmendment = (words: ReadonlyArray<string>) => ({
  acceptWithExecpolicyAmendment: { execpolicy_amendment: words }
})

/**
 * Keeps a rule about a host, which allows or denies this connection and later ones.
 *
 * @category decisions
 * @since 0.1.0
 */
export const applyNetworkPolicyAmendment = (amendment: Protocol.NetworkPolicyAmendmentParam) => ({
  applyNetworkPolicyAmendment: { network_policy_amendment: amendment }
})

/**
 * Grants just these rights. `scope` is `"turn"` unless it is said to be `"session"`.
 *
 * @category decisions
 * @since 0.1.0
 */
export const grant = (
  permissions: Protocol.GrantedPermissionProfile,
  options?: Omit<Protocol.PermissionsRequestApprovalResponse, "permissions">
): Protocol.PermissionsRequestApprovalResponse => ({ scope: "turn", ...options, permissions })

/**
 * One typed handler for each kind of request. A kind without a handler is left to whoever comes next: the turn's handlers
 * come first, then the thread's, then those of {@link layer}, and at last it is declined.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handlers<out R = never> {
  readonly command?: ((request: CommandRequest) => Effect.Effect<CommandDecision, unknown, R>) | undefined
  readonly fileChange?: ((request: FileChangeRequest) => Effect.Effect<FileChangeDecision, unknown, R>) | undefined
  readonly permissions?: ((request: PermissionsRequest) => Effect.Effect<PermissionsDecision, unknown, R>) | undefined
  readonly mcpToolCall?: ((request: McpToolCallRequest) => Effect.Effect<McpToolCallDecision, unknown, R>) | undefined
}

/**
 * Decides about any request, or leaves it to whoever comes next. `ApprovalPolicy` has some that are ready-made.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy<R = never> = (request: Request) => Effect.Effect<Option.Option<Decision>, unknown, R>

/**
 * Whoever decides about requests.
 *
 * @category models
 * @since 0.1.0
 */
export type Approver<R = never> = Handlers<R> | Policy<R>

/**
 * The services that an {@link Approver} needs.
 *
 * @category models
 * @since 0.1.0
 */
export type Services<A> = KnownServices<
  A extends (request: never) => Effect.Effect<infer _A, infer _E, infer R> ? R : HandlerServices<A>
>

/**
 * What becomes of requests, for the record. It has the requests and decisions themselves, so it is as private as they are.
 *
 * - `Requested`: Codex asks.
 * - `Decided`: the answer, and by whom: the handler of the turn, the thread or the layer; `"nobody"`, if it was declined because
 *   none decided; `"failure"`, if it was declined because a handler failed, as `cause` says.
 * - `Withdrawn`: it was resolved elsewhere, or its turn or the connection ended, before anybody decided.
 *
 * @category models
 * @since 0.1.0
 */
export type AuditEntry =
  | { readonly _tag: "Requested"; readonly at: DateTime.Utc; readonly request: Request }
  | {
    readonly _tag: "Decided"
    readonly at: DateTime.Utc
    readonly request: Request
    readonly decision: Decision
    readonly by: "turn" | "thread" | "layer" | "nobody" | "failure"
    readonly cause: Cause.Cause<unknown> | undefined
  }
  | { readonly _tag: "Withdrawn"; readonly at: DateTime.Utc; readonly request: Request }

/**
 * The approvals in a context: the policy that decides about the requests of the threads and turns that are started in it.
 *
 * `undefined`, the default, decides about nothing. `Approvals.layer` provides it.
 *
 * @category services
 * @since 0.1.0
 */
export const Approvals: Context.Reference<Policy | undefined> = Context.Reference<Policy | undefined>(
  "effect-codex/Approvals",
  { defaultValue: () => undefined }
)
