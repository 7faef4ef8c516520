/** Decodes the six approval requests of the protocol into the requests of `Approvals`, and encodes the decisions. */
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Protocol from "../../../Protocol.ts"
import { readCommand, readWords } from "../../approvals/commandWords.ts"
import type * as Approvals from "../../approvals/model.ts"
import { getOwn, getOwnString } from "../../getOwn.ts"

type Params = { readonly [M in keyof Protocol.ServerRequests]: Protocol.ServerRequests[M]["params"] }
type Results = { readonly [M in keyof Protocol.ServerRequests]: Protocol.ServerRequests[M]["result"] }

/** A request, and the function that encodes a decision. It returns `undefined` for a decision that is not valid for the request. */
export interface ApprovalRequest<M extends keyof Protocol.ServerRequests, Request extends Approvals.Request> {
  readonly request: Request
  readonly respond: (decision: Approvals.Decision) => Results[M] | undefined
}

const isCommandDecision = Schema.is(Protocol.CommandExecutionApprovalDecisionParam)
const isFileChangeDecision = Schema.is(Protocol.FileChangeApprovalDecision)

export const decodeCommandApproval = (
  params: Params["item/commandExecution/requestApproval"]
): ApprovalRequest<"item/commandExecution/requestApproval", Approvals.CommandRequest> => {
  const words = Predicate.isNotNullish(params.command) ? readCommand(params.command) : undefined
  return {
    request: {
      _tag: "Command",
      threadId: params.threadId,
      turnId: params.turnId,
      itemId: params.itemId,
      approvalId: params.approvalId ?? undefined,
      reason: params.reason ?? undefined,
      kind: params.kind ?? "command",
      command: params.command ?? undefined,
      script: words?.script,
      argv: words?.argv,
      cwd: params.cwd ?? undefined,
      commandActions: params.commandActions ?? [],
      availableDecisions: params.availableDecisions ?? [],
      proposedExecpolicyAmendment: params.proposedExecpolicyAmendment ?? undefined,
      proposedNetworkPolicyAmendments: params.proposedNetworkPolicyAmendments ?? [],
      networkApprovalContext: params.networkApprovalContext ?? undefined,
      additionalPermissions: params.additionalPermissions ?? undefined,
      params
    },
    respond: (decision) => isCommandDecision(decision) ? { decision } : undefined
  }
}

export const decodeFileChangeApproval = (
  params: Params["item/fileChange/requestApproval"],
  changes: ReadonlyArray<Protocol.FileUpdateChange> | undefined
): ApprovalRequest<"item/fileChange/requestApproval", Approvals.FileChangeRequest> => ({
  request: {
    _tag: "FileChange",
    threadId: params.threadId,
    turnId: params.turnId,
    itemId: params.itemId,
    reason: params.reason ?? undefined,
    changes,
    grantRoot: params.grantRoot ?? undefined,
    params
  },
  respond: (decision) => isFileChangeDecision(decision) ? { decision } : undefined
})

const isGrant = Schema.is(Protocol.PermissionsRequestApprovalResponse)

export const decodePermissionsApproval = (
  params: Params["item/permissions/requestApproval"]
): ApprovalRequest<"item/permissions/requestApproval", Approvals.PermissionsRequest> => {
  // Grants what was requested, unless this version does not know a requested permission.
  const grantAll = (scope: "turn" | "session") => {
    const granted = { permissions: params.permissions, scope }
    return isGrant(granted) ? granted : undefined
  }
  return {
    request: {
      _tag: "Permissions",
      threadId: params.threadId,
      turnId: params.turnId,
      itemId: params.itemId,
      reason: params.reason ?? undefined,
      permissions: params.permissions,
      cwd: params.cwd,
      params
    },
    respond: (decision) => {
      switch (decision) {
        case "accept":
          return grantAll("turn")
        case "acceptForSession":
          return grantAll("session")
        case "decline":
        case "cancel":
          return { permissions: {}, scope: "turn" }
        default:
          return isGrant(decision) ? decision : undefined
      }
    }
  }
}

/** Returns an elicitation as the server sent it, also if it does not decode. */
export const rawElicitation = (params: Params["mcpServer/elicitation/request"]): unknown =>
  params.mode === "malformed" ? getOwn(params, "raw") : params

const isMcpToolCall = (meta: unknown): boolean => getOwn(meta, "codex_approval_kind") === "mcp_tool_call"

const mcpAccepted = (persist?: "session" | "always"): Results["mcpServer/elicitation/request"] => ({
  action: "accept",
  content: null,
  _meta: persist === undefined ? null : { persist }
})

/**
 * Decodes the approval of an MCP tool call, which is an elicitation of an empty form with a mark in `_meta`. An MCP server can send the same
 * mark in its own form, so the caller must check that the turn makes such a call.
 */
export const decodeMcpToolCallApproval = (
  params: Params["mcpServer/elicitation/request"]
): Option.Option<ApprovalRequest<"mcpServer/elicitation/request", Approvals.McpToolCallRequest>> => {
  const sent = rawElicitation(params)
  const meta = getOwn(sent, "_meta")
  const properties = getOwn(getOwn(sent, "requestedSchema"), "properties")
  const isEmpty = Predicate.isObject(properties) && Object.keys(properties).length === 0
  if (!isMcpToolCall(meta) || !isEmpty) return Option.none()
  const annotations = getOwn(meta, "tool_annotations")
  return Option.some({
    request: {
      _tag: "McpToolCall",
      threadId: getOwnString(sent, "threadId") ?? "",
      turnId: getOwnString(sent, "turnId"),
      reason: undefined,
      server: getOwnString(sent, "serverName") ?? "",
      tool: getOwnString(meta, "tool_name") ?? "",
      message: getOwnString(sent, "message") ?? "",
      description: getOwnString(meta, "tool_description"),
      arguments: getOwn(meta, "tool_params"),
      annotations: Predicate.isObject(annotations) ? annotations : {},
      params: sent
    },
    respond: (decision) => {
      switch (decision) {
        case "accept":
          return mcpAccepted()
        case "acceptForSession":
          return mcpAccepted("session")
        case "acceptAlways":
          return mcpAccepted("always")
        case "decline":
        case "cancel":
          return { action: decision, content: null }
        default:
          return undefined
      }
    }
  })
}

const toCommandAction = (parsed: Protocol.ParsedCommand): Protocol.CommandAction => {
  switch (parsed.type) {
    case "read":
      return { type: "read", command: parsed.cmd, name: parsed.name, path: parsed.path }
    case "list_files":
      return { type: "listFiles", command: parsed.cmd, path: parsed.path ?? null }
    case "search":
      return { type: "search", command: parsed.cmd, path: parsed.path ?? null, query: parsed.query ?? null }
    case "unknown":
      return { type: "unknown", command: parsed.cmd }
    default:
      return parsed as Protocol.CommandAction
  }
}

/** Converts a decision to a legacy decision. Returns `undefined` if there is none for it. */
const toReviewDecision = (decision: Approvals.Decision): Protocol.ReviewDecision | undefined => {
  switch (decision) {
    case "accept":
      return "approved"
    case "acceptForSession":
      return "approved_for_session"
    case "decline":
      return { denied: { rejection: "The user declined." } }
    case "cancel":
      return "abort"
  }
  if (!isCommandDecision(decision) || Predicate.isString(decision)) return undefined
  return "acceptWithExecpolicyAmendment" in decision
    ? {
      approved_execpolicy_amendment: {
        proposed_execpolicy_amendment: decision.acceptWithExecpolicyAmendment.execpolicy_amendment
      }
    }
    : { network_policy_amendment: decision.applyNetworkPolicyAmendment }
}

/** Quotes words for a POSIX shell. */
const quote = (words: ReadonlyArray<string>): string =>
  words.map((word) => /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'"'"'`)}'`).join(" ")

export const decodeLegacyCommandApproval = (
  params: Params["execCommandApproval"]
): ApprovalRequest<"execCommandApproval", Approvals.CommandRequest> => {
  const { argv, script } = readWords(params.command)
  return {
    request: {
      _tag: "Command",
      threadId: params.conversationId,
      turnId: undefined,
      itemId: params.callId,
      approvalId: params.approvalId ?? undefined,
      reason: params.reason ?? undefined,
      kind: "command",
      command: quote(params.command),
      script,
      argv,
      cwd: params.cwd,
      commandActions: params.parsedCmd?.map(toCommandAction) ?? [],
      availableDecisions: [],
      proposedExecpolicyAmendment: undefined,
      proposedNetworkPolicyAmendments: [],
      networkApprovalContext: undefined,
      additionalPermissions: undefined,
      params
    },
    respond: (decision) => {
      const review = toReviewDecision(decision)
      return review && { decision: review }
    }
  }
}

const toFileUpdateChange = (path: string, change: Protocol.FileChange): Protocol.FileUpdateChange => {
  switch (change.type) {
    case "add":
    case "delete":
      return { path, kind: { type: change.type }, diff: change.content }
    case "update":
      return { path, kind: { type: "update", move_path: change.move_path ?? null }, diff: change.unified_diff }
    default:
      return { path, kind: change as Protocol.PatchChangeKind, diff: "" }
  }
}

export const decodeLegacyFileChangeApproval = (
  params: Params["applyPatchApproval"]
): ApprovalRequest<"applyPatchApproval", Approvals.FileChangeRequest> => ({
  request: {
    _tag: "FileChange",
    threadId: params.conversationId,
    turnId: undefined,
    itemId: params.callId,
    reason: params.reason ?? undefined,
    changes: Object.entries(params.fileChanges).map(([path, change]) => toFileUpdateChange(path, change)),
    grantRoot: params.grantRoot ?? undefined,
    params
  },
  respond: (decision) => {
    const review = isFileChangeDecision(decision) ? toReviewDecision(decision) : undefined
    return review && { decision: review }
  }
})
