/** Facts about the protocol that its schema does not contain. Review this file when you move to another version of Codex. */

/** The fields that a value with an id must have besides the id: they identify it, or this package reads them. */
export const requiredFields: Readonly<Record<string, ReadonlyArray<string>>> = {
  Model: ["model"],
  ToolRequestUserInputQuestion: ["question"],
  Turn: ["items", "status"]
}

/** Fields that programs only display. */
export const displayFields: ReadonlySet<string> = new Set(["description", "displayName", "parsedCmd"])

/** Responses whose names do not follow from the names of their params. */
export const responseNames: Readonly<Record<string, string>> = {
  "account/gatewayOAuth/cancel": "GatewayOAuthCancelResponse",
  "account/logout": "LogoutAccountResponse",
  "account/securitySetup/read": "GetAccountSecuritySetupResponse",
  "account/workspaceMessages/read": "GetWorkspaceMessagesResponse",
  "accountSession/list": "AccountSessionsResponse",
  "config/batchWrite": "ConfigWriteResponse",
  "config/mcpServer/reload": "McpServerRefreshResponse",
  "config/value/write": "ConfigWriteResponse",
  "configRequirements/read": "ConfigRequirementsReadResponse",
  "externalAgentConfig/import/readHistories": "ExternalAgentConfigImportHistoriesReadResponse",
  "memory/reset": "MemoryResetResponse",
  "remoteControl/status/read": "RemoteControlStatusReadResponse",
  "rollout/compress": "RolloutCompressResponse",
  "windowsSandbox/readiness": "WindowsSandboxReadinessResponse"
}

/**
 * Known values of definitions that the schema leaves as strings, to which other strings still conform.
 *
 * The models of the catalog advertise the reasoning efforts; providers of the Responses API add `none` and `minimal`.
 */
export const knownStrings: Readonly<Record<string, ReadonlyArray<string>>> = {
  ReasoningEffort: ["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]
}

/** Descriptions of fields that the schema does not describe, or describes together with the fields that follow. */
const threadFields = {
  approvalPolicy:
    "When Codex asks for approval: with `untrusted` before each command, with `on-request` when the model wants more than the sandbox " +
    "allows, with `never` not at all, so that what the sandbox forbids fails.",
  baseInstructions: "Replaces the instructions that Codex gives to the model.",
  config:
    "Overrides of the configuration, for this thread, such as `{ model_verbosity: \"low\", \"features.goals\": true }`. Values may be " +
    "nested.",
  cwd:
    "The working directory, an absolute path on the server's machine. A new thread has that of the server's process by default, any " +
    "other thread keeps its own.",
  developerInstructions: "Instructions of the program, which the model gets in addition to those of Codex.",
  model:
    "The id of the model, as `model/list` gives it. A new thread has the configured one by default, any other thread keeps its own.",
  modelProvider:
    "The id of the model's provider: a key of `model_providers` in the configuration, or one that Codex has.",
  sandbox:
    "What commands may do: `read-only` reads everything and writes nothing, `workspace-write` also writes in the working directory " +
    "and in temporary directories, `danger-full-access` has no sandbox.",
  serviceTier: "The service tier of requests to the model, by its id: one of the model's `serviceTiers`."
}

/** Descriptions of fields by definition. They replace the descriptions of the schema. */
export const fieldDocs: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  ThreadForkParams: {
    ...threadFields,
    ephemeral: "Whether the fork is kept in memory only, and so cannot be resumed."
  },
  ThreadResumeParams: threadFields,
  ThreadStartParams: {
    ...threadFields,
    dynamicTools: "Tools that the client runs when the server asks it to with `item/tool/call`.",
    ephemeral: "Whether the thread is kept in memory only, and so can be neither resumed nor forked.",
    serviceName: "A name for the service that starts the thread.",
    sessionStartSource: "Why the thread is started: `startup`, or `clear` for one that replaces another."
  },
  TurnStartParams: {
    clientUserMessageId: "An id of the client's own for the input, which its item has as `clientId`.",
    toolOutput: "The output of a tool that the turn is started with."
  }
}

const approvalFields = ["approvalPolicy", "approvalsReviewer"]

/**
 * Params that an operation accepts as options, without the fields that the operation sets or declares itself.
 *
 * They are interfaces, because editors show no documentation for the fields that `Omit` leaves.
 */
export const optionInterfaces: Readonly<
  Record<string, { readonly name: string; readonly without: ReadonlyArray<string> }>
> = {
  ModelListParams: { name: "ModelListOptions", without: ["cursor"] },
  ThreadForkParams: {
    name: "ThreadForkOptions",
    without: [...approvalFields, "excludeTurns", "sandbox", "threadId"]
  },
  ThreadListParams: { name: "ThreadListOptions", without: ["cursor"] },
  ThreadReadParams: { name: "ThreadReadOptions", without: ["threadId"] },
  ThreadResumeParams: {
    name: "ThreadResumeOptions",
    without: [...approvalFields, "excludeTurns", "initialTurnsPage", "sandbox", "threadId"]
  },
  ThreadStartParams: { name: "ThreadStartOptions", without: [...approvalFields, "sandbox"] },
  TurnStartParams: {
    name: "TurnStartOptions",
    without: [...approvalFields, "input", "outputSchema", "sandboxPolicy", "threadId"]
  }
}
