/** Converts failures of Codex to the reasons of `AiError`. */
import * as AiError from "effect/ai/AiError"
import * as Predicate from "effect/Predicate"
import type { SandboxConflictError } from "../../ApprovalMode.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { TurnFailed } from "../../Turn.ts"
import { getOwn } from "../getOwn.ts"

/** The failures of the operations that a request uses. */
export type Failure = AiError.AiErrorReason | AppServerError | SandboxConflictError | TurnFailed

const network = (method: string, description: string, cause: unknown): AiError.NetworkError =>
  new AiError.NetworkError({ reason: "TransportError", method, url: "codex app-server", description, cause })

/** The status of a failed request to the model. `null` if there was no response. */
const getStatus = (info: Protocol.CodexErrorInfo | undefined): number | null | undefined => {
  if (!Predicate.isObject(info)) return undefined
  const [details] = Object.values(info)
  const status = getOwn(details, "httpStatusCode")
  return Predicate.isNumber(status) || status === null ? status : undefined
}

const fromStatus = (status: number, description: string): AiError.AiErrorReason =>
  status >= 500
    ? new AiError.InternalProviderError({ description })
    : AiError.reasonFromHttpStatus({ status, description })

/** The server has no kind for these failures, only messages. The second is the body of an HTTP 400. */
const isDisconnected = (detail: string): boolean => detail.startsWith("stream disconnected before completion")
const isRejected = (detail: string): boolean => detail.startsWith("{\"error\"")

/** Returns the reason why a provider ended a response early, which the server reports as a failed turn. */
export const getIncompleteReason = (
  { codexErrorInfo, detail }: TurnFailed
): "length" | "content-filter" | undefined => {
  if (codexErrorInfo !== "other") return undefined
  switch (/Incomplete response returned, reason: (\w+)/.exec(detail)?.[1]) {
    case "max_output_tokens":
      return "length"
    case "content_filter":
      return "content-filter"
    default:
      return undefined
  }
}

const fromTurn = (error: TurnFailed): AiError.AiErrorReason => {
  const { codexErrorInfo, detail: description, message, threadId, turnId } = error
  const metadata = { codex: { threadId, turnId } }
  switch (codexErrorInfo) {
    case "rateLimitExceeded":
      return new AiError.RateLimitError({ metadata })
    case "usageLimitExceeded":
    case "sessionBudgetExceeded":
      return new AiError.QuotaExhaustedError({ metadata })
    case "unauthorized":
      return new AiError.AuthenticationError({ kind: "Unknown", description, metadata })
    case "contextWindowExceeded":
      return new AiError.InvalidRequestError({
        parameter: "prompt",
        constraint: "must fit in the context window of the model",
        description,
        metadata
      })
    case "modelNotFound":
      return new AiError.InvalidRequestError({ parameter: "model", description, metadata })
    case "badRequest":
      return new AiError.InvalidRequestError({ description, metadata })
    case "cyberPolicy":
    case "misalignmentPolicyViolation":
    case "inferenceHookDenied":
      return new AiError.ContentPolicyError({ description, metadata })
    case "serverOverloaded":
    case "flexUnavailable":
    case "policyCapacityUnavailable":
    case "internalServerError":
      return new AiError.InternalProviderError({ description, metadata })
  }
  const status = getStatus(codexErrorInfo)
  if (status === null || isDisconnected(description)) return network("turn/start", description, error)
  if (isRejected(description)) return new AiError.InvalidRequestError({ description, metadata })
  if (status !== undefined) return fromStatus(status, description)
  return new AiError.UnknownError({ description: message, metadata })
}

const fromAppServer = (error: AppServerError): AiError.AiErrorReason => {
  const { message: description, reason } = error
  switch (reason._tag) {
    case "ConnectionClosed":
    case "RestartsExhausted":
      return network("turn/start", description, error)
    case "RequestTimeout":
      return network(reason.method, description, error)
    case "Overloaded":
    case "TurnLost":
    case "TurnTimeout":
      return new AiError.InternalProviderError({ description })
    case "LoginRequired":
      return new AiError.AuthenticationError({ kind: "MissingKey", description })
    case "BudgetExceeded":
      return new AiError.QuotaExhaustedError({ metadata: { codex: { description } } })
    case "DecodeFailed":
      return new AiError.InvalidResponseError({ description })
    case "InvalidRequest":
    case "RequestRejected":
    case "SettingsNotApplied":
    case "ThreadBusy":
    case "ThreadLocked":
    case "ThreadNotFound":
    case "ToolsNotApplied":
      return new AiError.InvalidRequestError({ description })
    default:
      return new AiError.UnknownError({ description })
  }
}

const toReason = (failure: Failure): AiError.AiErrorReason => {
  switch (failure._tag) {
    case "AppServerError":
      return fromAppServer(failure)
    case "SandboxConflictError":
      return new AiError.InvalidRequestError({ description: failure.message })
    case "TurnFailed":
      return fromTurn(failure)
    default:
      return failure
  }
}

/** Converts a failure to the error of an operation of the language model. */
export const toAiError = (method: string, failure: Failure): AiError.AiError =>
  AiError.make({ module: "CodexLanguageModel", method, reason: toReason(failure) })
