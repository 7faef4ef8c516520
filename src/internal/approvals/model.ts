/** Requests for approval, decisions about them, and handlers. The public module `Approvals` exports all of it. */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Protocol from "../../Protocol.ts"
import type { HandlerServices, KnownServices } from "../handlers/handlerServices.ts"

/**
 * The fields of every request.
 *
 * @category requests
 * @since 0.1.0
 */
export interface RequestBase {
  /** The id of the requesting thread. A sub-agent has its own thread. */
  readonly threadId: string
  /** The id of the requesting turn, if the server sends it. */
  readonly turnId: string | undefined
  /** The reason that the model gives. */
  readonly reason: string | undefined
  /** The params as the server sent them, with the additions of newer servers. */
  readonly params: unknown
}

/**
 * A request to run a command outside of the sandbox.
 *
 * **When to use**
 *
 * Decide by `argv`. `script` is shell code, and `commandActions` and `reason` come from the model.
 *
 * **Details**
 *
 * `argv` is set if the command is one program with its arguments, and no shell or launcher interprets them first:
 *
 * - The command is a system shell with a script, such as `/bin/bash -lc '…'`, and the script is a single plain command. The shell is `sh`,
 *   `bash`, `dash`, `zsh` or `ksh` in `/bin`, `/usr/bin` or `/run/current-system/sw/bin`. A command without a shell qualifies too.
 * - The command has no syntax of a shell: no operator, variable, pattern, brace, assignment or comment. It has no tilde that a shell
 *   expands (also in `a=~/x`), and no backslash that a shell removes from a word such as `C:\dir`.
 * - The program does not run its arguments. Excluded are other shells (`fish`, `pwsh`, `cmd`), launchers (`env`, `sudo`, `xargs`, `nice`,
 *   `timeout`, `ssh`) and builtins (`eval`, `exec`, `time`). Path, letter case and `.exe` make no difference.
 *
 * **Gotchas**
 *
 * - Other programs can also run code: `find -exec`, `git -c`, `make`, `npx`, `docker run`, `python -c`, `node -e`. They have `argv`, so
 *   check all words and not only the first one.
 * - A login shell (`-lc`, the default of Codex) runs the user's profile first, and `zsh` always runs `~/.zshenv`. If Codex may write to the
 *   user's home directory, set `allow_login_shell = false` in its configuration. `ApprovalPolicy.readOnlyCommands` accepts no
 *   command of such a shell.
 * - The environment of the server matters too: `PATH` determines the program of a name, and `bash` runs the file in `BASH_ENV`.
 *
 * @category requests
 * @since 0.1.0
 */
export interface CommandRequest extends RequestBase {
  readonly _tag: "Command"
  readonly itemId: string
  /** Distinguishes several requests about one item. */
  readonly approvalId: string | undefined
  /** The action: `"command"` to run a command, `"writeStdin"` to write to the stdin of a running one. */
  readonly kind: Protocol.CommandExecutionApprovalKind
  /** The complete command, usually a shell with a script. */
  readonly command: string | undefined
  /** The script, if the command is a system shell with a script. */
  readonly script: string | undefined
  /** The program and its arguments, or `undefined` if the command runs anything else. Decide by this. */
  readonly argv: ReadonlyArray<string> | undefined
  /** The working directory of the command. */
  readonly cwd: string | undefined
  /** The server's interpretation of the command. Display it; do not decide by it. */
  readonly commandActions: ReadonlyArray<Protocol.CommandAction>
  /** The decisions that the server suggests. It accepts others too. */
  readonly availableDecisions: ReadonlyArray<Protocol.CommandExecutionApprovalDecision>
  /** A prefix of commands that could be allowed permanently; see {@link acceptWithExecpolicyAmendment}. */
  readonly proposedExecpolicyAmendment: ReadonlyArray<string> | undefined
  /** Rules about hosts that could be stored; see {@link applyNetworkPolicyAmendment}. */
  readonly proposedNetworkPolicyAmendments: ReadonlyArray<Protocol.NetworkPolicyAmendment>
  /** The network connection of a command, if the request is about that connection and not about the command. */
  readonly networkApprovalContext: Protocol.NetworkApprovalContext | undefined
  /** The additional permissions that the command would get. */
  readonly additionalPermissions: Protocol.AdditionalPermissionProfile | undefined
}

/**
 * A request to change files.
 *
 * **Gotchas**
 *
 * The server does not resolve the paths: a part of a path can be a symbolic link. An update can move its file to `move_path`.
 * `ApprovalPolicy.onlyInside` and `ApprovalPolicy.acceptFileChanges` check both.
 *
 * @category requests
 * @since 0.1.0
 */
export interface FileChangeRequest extends RequestBase {
  readonly _tag: "FileChange"
  readonly itemId: string
  /** The files with their diffs, or `undefined` if the server did not send them to this client. Accept such a request at your own risk. */
  readonly changes: ReadonlyArray<Protocol.FileUpdateChange> | undefined
  /** A directory, if Codex requests permission to write in it for the rest of the session. */
  readonly grantRoot: string | undefined
}

/**
 * A request for more permissions.
 *
 * @category requests
 * @since 0.1.0
 */
export interface PermissionsRequest extends RequestBase {
  readonly _tag: "Permissions"
  readonly itemId: string
  /** The requested permissions. */
  readonly permissions: Protocol.RequestPermissionProfile
  /** The working directory of the thread. */
  readonly cwd: string
}

/**
 * A request to call a tool of an MCP server.
 *
 * **Details**
 *
 * Codex sends no request for tools that are marked as read-only.
 *
 * An MCP server can send a form that looks the same. The handler is therefore called only while the turn makes the call, according to
 * `item/started`. Otherwise the request is declined.
 *
 * @category requests
 * @since 0.1.0
 */
export interface McpToolCallRequest extends RequestBase {
  readonly _tag: "McpToolCall"
  /** The name of the MCP server. */
  readonly server: string
  /** The name of the tool. */
  readonly tool: string
  /** The question of the app-server. */
  readonly message: string
  /** The description of the tool. */
  readonly description: string | undefined
  /** The arguments of the call. */
  readonly arguments: unknown
  /** The annotations of the tool, such as `{ destructiveHint: true }`. Empty with Codex 0.166, which does not send them. */
  readonly annotations: Readonly<Record<string, unknown>>
}

/**
 * A request for approval. `_tag` is the kind of request.
 *
 * @category requests
 * @since 0.1.0
 */
export type Request = CommandRequest | FileChangeRequest | PermissionsRequest | McpToolCallRequest

/**
 * A decision about a command.
 *
 * @category decisions
 * @since 0.1.0
 */
export type CommandDecision = Protocol.CommandExecutionApprovalDecisionParam

/**
 * A decision about changes of files.
 *
 * @category decisions
 * @since 0.1.0
 */
export type FileChangeDecision = Protocol.FileChangeApprovalDecision

/**
 * A decision about permissions: all requested ones, or the listed ones; see {@link grant}.
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
 * A decision about a call of a tool of an MCP server.
 *
 * @category decisions
 * @since 0.1.0
 */
export type McpToolCallDecision = "accept" | "acceptForSession" | "acceptAlways" | "decline" | "cancel"

/**
 * A decision about any request.
 *
 * @category decisions
 * @since 0.1.0
 */
export type Decision = CommandDecision | FileChangeDecision | PermissionsDecision | McpToolCallDecision

/**
 * Accepts the request once. Requested permissions hold for the rest of the turn.
 *
 * @category decisions
 * @since 0.1.0
 */
export const accept = "accept" as const

/**
 * Accepts the request, and equal ones in this session: the same command, the same files or the same tool.
 *
 * @category decisions
 * @since 0.1.0
 */
export const acceptForSession = "acceptForSession" as const

/**
 * Accepts all calls of an MCP tool, also in later sessions. The server stores this in its configuration.
 *
 * @category decisions
 * @since 0.1.0
 */
export const acceptAlways = "acceptAlways" as const

/**
 * Declines the request. The model receives that, and the turn continues.
 *
 * @category decisions
 * @since 0.1.0
 */
export const decline = "decline" as const

/**
 * Declines the request and interrupts the turn.
 *
 * @category decisions
 * @since 0.1.0
 */
export const cancel = "cancel" as const

/**
 * Accepts a command, and all commands that start with these words.
 *
 * **Details**
 *
 * The server stores the rule in its `CODEX_HOME`, so it also holds in later sessions. The request suggests words in
 * `proposedExecpolicyAmendment`.
 *
 * @category decisions
 * @since 0.1.0
 */
export const acceptWithExecpolicyAmendment = (words: ReadonlyArray<string>) => ({
  acceptWithExecpolicyAmendment: { execpolicy_amendment: words }
})

/**
 * Stores a rule that allows or denies this connection and later ones to its host.
 *
 * @category decisions
 * @since 0.1.0
 */
export const applyNetworkPolicyAmendment = (amendment: Protocol.NetworkPolicyAmendmentParam) => ({
  applyNetworkPolicyAmendment: { network_policy_amendment: amendment }
})

/**
 * Grants these permissions only, for the turn, or with `scope: "session"` for the session.
 *
 * @category decisions
 * @since 0.1.0
 */
export const grant = (
  permissions: Protocol.GrantedPermissionProfile,
  options?: Omit<Protocol.PermissionsRequestApprovalResponse, "permissions">
): Protocol.PermissionsRequestApprovalResponse => ({ scope: "turn", ...options, permissions })

/**
 * The handlers of a program, one for each kind of request.
 *
 * **Details**
 *
 * A request without a handler passes to the next handlers: first those of the turn, then those of the thread, then those of the
 * context. If none of them decides, it is declined.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handlers<out R = never> {
  /** Decides about commands, also about their network connections. */
  readonly command?: ((request: CommandRequest) => Effect.Effect<CommandDecision, unknown, R>) | undefined
  /** Decides about changes of files. */
  readonly fileChange?: ((request: FileChangeRequest) => Effect.Effect<FileChangeDecision, unknown, R>) | undefined
  /** Decides about requests for more permissions. */
  readonly permissions?: ((request: PermissionsRequest) => Effect.Effect<PermissionsDecision, unknown, R>) | undefined
  /** Decides about calls of tools of MCP servers. */
  readonly mcpToolCall?: ((request: McpToolCallRequest) => Effect.Effect<McpToolCallDecision, unknown, R>) | undefined
}

/**
 * A function that decides about any request, or leaves it open with `Option.none`.
 *
 * **When to use**
 *
 * Compose policies with `ApprovalPolicy`, which also has predefined ones.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy<R = never> = (request: Request) => Effect.Effect<Option.Option<Decision>, unknown, R>

/**
 * A policy, or handlers for each kind of request.
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
 * An entry of the audit log of requests and decisions.
 *
 * **Details**
 *
 * - `Requested`: Codex sent the request.
 * - `Decided`: the request has its decision. `by` is the source: the handlers of the turn, the thread or the layer. The decision of
 *   `"nobody"` is to decline, because no handler decided; that of `"failure"` is to decline, because a handler failed with `cause`.
 * - `Withdrawn`: another client responded, or the turn or the connection ended, before a handler decided.
 *
 * **Gotchas**
 *
 * Entries contain the requests and decisions, so they are as private as these.
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
 * Context reference for the policy that decides about the requests of threads and turns started in that context.
 *
 * **When to use**
 *
 * Provide it with `Approvals.layer` to a program. Provide it to one effect with `Effect.provideService` and `Approvals.make`.
 *
 * **Details**
 *
 * Because it is a `Context.Reference`, programs without approvals need no service. The default is `undefined`: no policy, so requests
 * that the handlers of the turn and the thread leave open are declined.
 *
 * @category references
 * @since 0.1.0
 */
export const Approvals: Context.Reference<Policy | undefined> = Context.Reference<Policy | undefined>(
  "effect-codex/Approvals",
  { defaultValue: () => undefined }
)
