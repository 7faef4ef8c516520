/** Logs the messages of the server for a person: warnings, deprecations, retries and background failures. */
import * as Predicate from "effect/Predicate"
import { describeTurnError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import { getOwn } from "../getOwn.ts"
import type { Router } from "./router.ts"

type Notifications = Protocol.ServerNotifications

/** Returns the warning in a notification, or `undefined` if this one contains none. */
type Describe<M extends keyof Notifications> = (params: Notifications[M]) => string | undefined

/** Joins the parts that are present into sentences. */
const sentences = (...parts: ReadonlyArray<string | null | undefined>): string =>
  parts.filter((part) => Predicate.isNotNullish(part) && part !== "")
    .map((part) => part!.trim())
    .map((part, index, all) => index < all.length - 1 && !/[.!?:]$/.test(part) ? `${part}.` : part)
    .join(" ")

const ofThread = (threadId: string | null | undefined): string => threadId == null ? "" : ` of thread \`${threadId}\``

const orNoReason = (error: string | null | undefined): string => error ?? "the server gave no reason"

const configWarning: Describe<"configWarning"> = ({ details, path, range, summary }) => {
  const line = range?.start.line
  const place = path == null ? "" : ` (\`${path}${line === undefined ? "" : `:${line}`}\`)`
  return `codex app-server warns about its configuration${place}: ${sentences(summary, details)}`
}

/** Describes the messages of a hook for the user, and its failure. Its other entries are for the model. */
const hookCompleted: Describe<"hook/completed"> = ({ run, threadId }) => {
  const texts = (run.entries ?? []).flatMap(({ kind, text }) =>
    kind === "warning" || kind === "error" || kind === "stop" ? [text] : []
  )
  if (run.status !== "failed" && texts.length === 0) return undefined
  return `Hook \`${run.eventName}\` (\`${run.sourcePath}\`) of thread \`${threadId}\` ${run.status}: ${
    sentences(...texts, run.statusMessage) || orNoReason(undefined)
  }`
}

const mcpServerStartup: Describe<"mcpServer/startupStatus/updated"> = (
  { error, failureReason, name, status, threadId }
) =>
  status !== "failed" ? undefined : sentences(
    `MCP server \`${name}\`${ofThread(threadId)} failed to start: ${orNoReason(error)}`,
    failureReason === "reauthenticationRequired" ? `Log in again with \`codex mcp login ${name}\`` : undefined
  )

const worldWritable: Describe<"windows/worldWritableWarning"> = ({ extraCount, failedScan, samplePaths }) =>
  sentences(
    `The sandbox of Codex cannot protect world-writable directories: ${samplePaths.join(", ")}${
      extraCount > 0 ? ` and ${extraCount} more` : ""
    }`,
    failedScan ? "The scan for them did not finish" : undefined
  )

/**
 * Describes the warning in each notification. `undefined` marks a notification that is not for a person: it reports progress, or a caller
 * waits for it. The compiler demands an entry for each notification of a newer protocol.
 */
const descriptions: { readonly [M in keyof Notifications]: Describe<M> | undefined } = {
  // An error without a retry ends the turn, and its `TurnFailed` contains it.
  error: ({ error, threadId, turnId, willRetry }) =>
    willRetry
      ? `codex app-server retries a model request in turn \`${turnId}\` of thread \`${threadId}\`: ${
        describeTurnError(error)
      }`
      : undefined,
  warning: ({ message, threadId }) =>
    `codex app-server warns${threadId == null ? "" : ` about thread \`${threadId}\``}: ${message}`,
  guardianWarning: ({ message, threadId }) =>
    `codex app-server reviews approvals of thread \`${threadId}\`: ${message}`,
  deprecationNotice: ({ details, summary }) =>
    `codex app-server announces a deprecation: ${sentences(summary, details)}`,
  configWarning,
  "mcpServer/startupStatus/updated": mcpServerStartup,
  "mcpServer/oauthLogin/completed": ({ error, name, success, threadId }) =>
    success ? undefined : `The login to MCP server \`${name}\`${ofThread(threadId)} failed: ${orNoReason(error)}`,
  "account/login/completed": ({ error, success }) =>
    success ? undefined : `The login to Codex failed: ${orNoReason(error)}`,
  "account/gatewayOAuth/changed": ({ error, providerId, status }) =>
    status === "failed" ? `The login to provider \`${providerId}\` failed: ${orNoReason(error)}` : undefined,
  "modelProvider/authRecoveryStarted": ({ message, provider, threadId, turnId }) =>
    `codex app-server renews the login to provider \`${provider}\` in turn \`${turnId}\` of thread \`${threadId}\`: ${message}`,
  "model/rerouted": ({ fromModel, reason, threadId, toModel, turnId }) =>
    `Turn \`${turnId}\` of thread \`${threadId}\` runs on \`${toModel}\` instead of \`${fromModel}\`: ${reason}`,
  "model/verification": ({ threadId, turnId, verifications }) =>
    `The model provider requires a verification of the account in turn \`${turnId}\` of thread \`${threadId}\`: ${
      verifications.join(", ")
    }`,
  "hook/completed": hookCompleted,
  "thread/environment/disconnected": ({ environmentId, threadId }) =>
    `Environment \`${environmentId}\` of thread \`${threadId}\` was disconnected`,
  "thread/realtime/error": ({ message, threadId }) =>
    `The realtime session of thread \`${threadId}\` failed: ${message}`,
  "remoteControl/status/changed": ({ serverName, status }) =>
    status === "errored" ? `The remote control of \`${serverName}\` failed` : undefined,
  "windows/worldWritableWarning": worldWritable,
  "windowsSandbox/setupCompleted": ({ error, mode, success }) =>
    success ? undefined : `The setup of the \`${mode}\` sandbox failed: ${orNoReason(error)}`,

  "account/rateLimits/updated": undefined,
  "account/updated": undefined,
  "app/list/updated": undefined,
  "autoApprovalReview/strictReviewRequired": undefined,
  "command/exec/outputDelta": undefined,
  "externalAgentConfig/import/completed": undefined,
  "externalAgentConfig/import/progress": undefined,
  "fs/changed": undefined,
  "fuzzyFileSearch/sessionCompleted": undefined,
  "fuzzyFileSearch/sessionUpdated": undefined,
  "hook/started": undefined,
  "item/agentMessage/delta": undefined,
  "item/autoApprovalReview/completed": undefined,
  "item/autoApprovalReview/started": undefined,
  "item/commandExecution/outputDelta": undefined,
  "item/commandExecution/terminalInteraction": undefined,
  "item/completed": undefined,
  "item/fileChange/outputDelta": undefined,
  "item/fileChange/patchUpdated": undefined,
  "item/mcpToolCall/progress": undefined,
  "item/plan/delta": undefined,
  "item/reasoning/summaryPartAdded": undefined,
  "item/reasoning/summaryTextDelta": undefined,
  "item/reasoning/textDelta": undefined,
  "item/started": undefined,
  "mcpServer/event/stream/notification": undefined,
  "model/safetyBuffering/updated": undefined,
  "modelProvider/authRecoveryCompleted": undefined,
  "process/exited": undefined,
  "process/outputDelta": undefined,
  "project/changed": undefined,
  "serverRequest/resolved": undefined,
  "skills/changed": undefined,
  "thread/archived": undefined,
  "thread/attachment/updated": undefined,
  "thread/closed": undefined,
  "thread/compacted": undefined,
  "thread/deleted": undefined,
  "thread/environment/connected": undefined,
  "thread/goal/cleared": undefined,
  "thread/goal/updated": undefined,
  "thread/name/updated": undefined,
  "thread/prediction/updated": undefined,
  "thread/project/updated": undefined,
  "thread/queue/changed": undefined,
  "thread/readState/changed": undefined,
  "thread/realtime/closed": undefined,
  "thread/realtime/item/completed": undefined,
  "thread/realtime/item/started": undefined,
  "thread/realtime/item/transcript/delta": undefined,
  "thread/realtime/itemAdded": undefined,
  "thread/realtime/outputAudio/delta": undefined,
  "thread/realtime/sdp": undefined,
  "thread/realtime/started": undefined,
  "thread/realtime/transcript/delta": undefined,
  "thread/realtime/transcript/done": undefined,
  "thread/reverted": undefined,
  "thread/section/changed": undefined,
  "thread/settings/updated": undefined,
  "thread/started": undefined,
  "thread/status/changed": undefined,
  "thread/tokenUsage/updated": undefined,
  "thread/unarchived": undefined,
  "turn/completed": undefined,
  "turn/diff/updated": undefined,
  "turn/moderationMetadata": undefined,
  "turn/plan/updated": undefined,
  "turn/started": undefined
}

/** Returns the text of a notification that failed to decode. */
const malformedText = (method: string, raw: unknown): string | undefined => {
  const params = getOwn(raw, "params")
  const text = [params, getOwn(params, "error")].flatMap((
    value
  ) => [getOwn(value, "message"), getOwn(value, "summary")])
    .find(Predicate.isString)
  return text === undefined ? undefined : `codex app-server sent a \`${method}\`: ${text}`
}

/** Maximum length of a logged warning, in UTF-16 units. */
const maxLength = 2000

/** Maximum number of warnings that are remembered, so that each is logged once. */
const maxRemembered = 512

/**
 * Logs each warning of the server once, across restarts.
 *
 * Only the methods with warnings get a handler, so other notifications take no more time. The reader logs after the read batch.
 */
export const logWarnings = (
  router: Router,
  redact: (text: string) => string,
  isExpected: (method: string) => boolean
): void => {
  const logged = new Set<string>()
  for (const [method, describe] of Object.entries(descriptions) as Array<[string, Describe<any> | undefined]>) {
    if (describe === undefined) continue
    router.addNotificationHandler(method, (event, batch) => {
      const text = event.method === "malformed" ? malformedText(method, event.raw) : describe(event.params)
      if (text === undefined || isExpected(method)) return
      // `JSON.stringify` copies the text: a slice would keep the whole text in memory.
      const key = JSON.stringify(text.slice(0, maxLength))
      if (logged.has(key)) return
      if (logged.add(key).size > maxRemembered) logged.delete(logged.values().next().value!)
      // Secrets are removed first: a secret that is cut in two would not be recognized.
      const clean = redact(text)
      batch.warn(clean.length > maxLength ? `${clean.slice(0, maxLength)}…` : clean)
    })
  }
}
