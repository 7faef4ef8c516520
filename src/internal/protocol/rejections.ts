/**
 * Recognizes the errors of the server that have a reason of their own.
 *
 * The server has no codes for them, only messages. A message is compared as a whole, with the ids of the request, so that no text of a user
 * matches. An error with any other message stays `RequestRejected`.
 */
import * as Predicate from "effect/Predicate"
import {
  type AppServerError,
  type AppServerErrorReason,
  LoginRequired,
  make as appServerError,
  type RequestRejected,
  ThreadBusy,
  ThreadLocked,
  ThreadNotFound,
  type ThreadNotFoundState,
  TurnEnded
} from "../../AppServerError.ts"
import { getOwn } from "../getOwn.ts"

/** The thread and turn of a request. */
interface Subject {
  readonly threadId: string
  /** Empty if the request has none. */
  readonly turnId: string
}

interface Rejection {
  readonly code: number
  /** Returns the whole message. `other` is the id at its end, if it is not an id of the request. */
  readonly message: (subject: Subject, other: string) => string
  readonly reason: (rejected: RequestRejected, subject: Subject) => AppServerErrorReason
}

const invalidRequest = -32600
const invalidParams = -32602
const internalError = -32603

const notFound = (state: ThreadNotFoundState): Rejection["reason"] => (cause, { threadId }) =>
  new ThreadNotFound({ method: cause.method, threadId, state, cause })

const ended: Rejection["reason"] = (cause, subject) => new TurnEnded({ method: cause.method, ...subject, cause })

const notSteerable = (turnKind: string): Rejection["reason"] => (cause, subject) =>
  new ThreadBusy({ ...subject, options: [], isSent: false, turnKind, cause })

const rejections: ReadonlyArray<Rejection> = [
  {
    code: invalidRequest,
    message: ({ threadId }) => `no rollout found for thread id ${threadId}`,
    reason: notFound("unknown")
  },
  {
    code: internalError,
    message: ({ threadId }) =>
      `failed to read thread: invalid thread-store request: no rollout found for thread id ${threadId}`,
    reason: notFound("unknown")
  },
  // The message of `thread/read` and `thread/turns/list`, which also read stored threads.
  {
    code: invalidRequest,
    message: ({ threadId }) => `thread not loaded: ${threadId}`,
    reason: notFound("unknown")
  },
  {
    code: invalidRequest,
    message: ({ threadId }) => `thread not found: ${threadId}`,
    reason: notFound("notLoaded")
  },
  {
    code: invalidRequest,
    message: ({ threadId }) =>
      `session ${threadId} is archived. Run \`codex unarchive ${threadId}\` to unarchive it first.`,
    reason: notFound("archived")
  },
  {
    code: invalidRequest,
    message: ({ threadId }) => `thread ${threadId} is archived`,
    reason: notFound("archived")
  },
  {
    code: invalidRequest,
    message: ({ threadId }) => `no archived rollout found for thread id ${threadId}`,
    reason: notFound("notArchived")
  },
  {
    code: invalidRequest,
    message: ({ threadId }) => `thread ${threadId} already has an active writer`,
    reason: (cause, { threadId }) => new ThreadLocked({ method: cause.method, threadId, cause })
  },
  { code: invalidRequest, message: () => "no active turn to steer", reason: ended },
  { code: invalidRequest, message: () => "no active turn to interrupt", reason: ended },
  {
    code: invalidRequest,
    message: ({ turnId }, other) => `expected active turn id \`${turnId}\` but found \`${other}\``,
    reason: ended
  },
  {
    code: invalidRequest,
    message: ({ turnId }, other) => `expected active turn id ${turnId} but found ${other}`,
    reason: ended
  },
  ...["compact", "review"].flatMap((kind): ReadonlyArray<Rejection> => [
    { code: invalidRequest, message: () => `cannot steer a ${kind} turn`, reason: notSteerable(kind) },
    {
      code: internalError,
      message: () =>
        `failed to submit turn input: ActiveTurnNotSteerable { turn_kind: ${kind[0]?.toUpperCase()}${kind.slice(1)} }`,
      reason: notSteerable(kind)
    }
  ]),
  {
    code: internalError,
    message: () => "failed to submit turn input: ActiveTurnOutputSchemaMismatch",
    reason: (cause, subject) => new ThreadBusy({ ...subject, options: ["outputSchema"], isSent: false, cause })
  }
]

/** The ends of the messages about a missing ChatGPT login, by method. The other messages have no subject. */
const loginMessages: Readonly<Record<string, string>> = {
  "account/rateLimits/read": "authentication required to read rate limits",
  "account/usage/read": "authentication required to read token usage",
  "account/workspaceMessages/read": "authentication required to read workspace messages",
  "account/sendAddCreditsNudgeEmail": "authentication required to notify workspace owner",
  "account/rateLimitResetCredit/consume": "authentication required for rate limit reset credits"
}

const findLogin = ({ code, detail, method }: RequestRejected): LoginRequired["login"] | undefined => {
  const message = Object.hasOwn(loginMessages, method) ? loginMessages[method] : undefined
  if (code !== invalidRequest || message === undefined) return undefined
  return detail === `codex account ${message}` ? "none" : detail === `chatgpt ${message}` ? "other" : undefined
}

const uuid = /^(urn:uuid:)?\{?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?$/i

const otherId = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=`?$)/

const findReason = (rejected: RequestRejected, subject: Subject): AppServerErrorReason => {
  const { code, detail } = rejected
  // The server has many messages for an invalid id, so the id itself is checked.
  if ((code === invalidRequest || code === invalidParams) && /^invalid (thread|session) id: /.test(detail)) {
    return uuid.test(subject.threadId) ? rejected : notFound("invalidId")(rejected, subject)
  }
  const [other = ""] = otherId.exec(detail) ?? []
  const found = rejections.find((rejection) => rejection.code === code && rejection.message(subject, other) === detail)
  return found === undefined ? rejected : found.reason(rejected, subject)
}

const getString = (params: unknown, ...names: ReadonlyArray<string>): string | undefined =>
  names.map((name) => getOwn(params, name)).find(Predicate.isString)

/** Returns an error with the reason that the table has for its message, or the error itself. */
export const withReason = (error: AppServerError, params: unknown): AppServerError => {
  const { reason } = error
  if (reason._tag !== "RequestRejected") return error
  const login = findLogin(reason)
  if (login !== undefined) return appServerError(new LoginRequired({ method: reason.method, login, cause: reason }))
  const threadId = getString(params, "threadId")
  if (threadId === undefined) return error
  const subject = { threadId, turnId: getString(params, "turnId", "expectedTurnId") ?? "" }
  const typed = findReason(reason, subject)
  return typed === reason ? error : appServerError(typed)
}
