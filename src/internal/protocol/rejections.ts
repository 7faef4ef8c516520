/**
 * Recognizes the errors of the server that have a reason of their own.
 *
 * The server has no codes for them, only words. A message is compared as a whole, with the ids of the request in it, so that no text
 * of a user is taken for one. Other words stay `RequestRejected`.
 */
import * as Predicate from "effect/Predicate"
import {
  type AppServerError,
  type AppServerErrorReason,
  make as appServerError,
  type RequestRejected,
  ThreadBusy,
  ThreadLocked,
  ThreadNotFound,
  type ThreadNotFoundState,
  TurnEnded
} from "../../AppServerError.ts"

/** What a request is about. */
interface Subject {
  readonly threadId: string
  /** Empty if the request has none. */
  readonly turnId: string
}

interface Rejection {
  readonly code: number
  /** The whole message. `other` is the id at its end, where the request does not have it. */
  readonly words: (subject: Subject, other: string) => string
  readonly reason: (rejected: RequestRejected, subject: Subject) => AppServerErrorReason
}

const invalidRequest = -32600
const invalidParams = -32602
const internalError = -32603

const notFound = (state: ThreadNotFoundState): Rejection["reason"] => (cause, { threadId }) =>
  new ThreadNotFound({ method: cause.method, threadId, state, cause })

const ended: Rejection["reason"] = (cause, subject) => new TurnEnded({ method: cause.method, ...subject, cause })

const takesNoInput = (turnKind: string): Rejection["reason"] => (cause, subject) =>
  new ThreadBusy({ ...subject, options: [], isSent: false, turnKind, cause })

const rejections: ReadonlyArray<Rejection> = [
  {
    code: invalidRequest,
    words: ({ threadId }) => `no rollout found for thread id ${threadId}`,
    reason: notFound("unknown")
  },
  {
    code: internalError,
    words: ({ threadId }) =>
      `failed to read thread: invalid thread-store request: no rollout found for thread id ${threadId}`,
    reason: notFound("unknown")
  },
  // Said by `thread/read` and `thread/turns/list`, which read stored threads too.
  {
    code: invalidRequest,
    words: ({ threadId }) => `thread not loaded: ${threadId}`,
    reason: notFound("unknown")
  },
  {
    code: invalidRequest,
    words: ({ threadId }) => `thread not found: ${threadId}`,
    reason: notFound("notLoaded")
  },
  {
    code: invalidRequest,
    words: ({ threadId }) =>
      `session ${threadId} is archived. Run \`codex unarchive ${threadId}\` to unarchive it first.`,
    reason: notFound("archived")
  },
  {
    code: invalidRequest,
    words: ({ threadId }) => `thread ${threadId} is archived`,
    reason: notFound("archived")
  },
  {
    code: invalidRequest,
    words: ({ threadId }) => `no archived rollout found for thread id ${threadId}`,
    reason: notFound("notArchived")
  },
  {
    code: invalidRequest,
    words: ({ threadId }) => `thread ${threadId} already has an active writer`,
    reason: (cause, { threadId }) => new ThreadLocked({ method: cause.method, threadId, cause })
  },
  { code: invalidRequest, words: () => "no active turn to steer", reason: ended },
  { code: invalidRequest, words: () => "no active turn to interrupt", reason: ended },
  {
    code: invalidRequest,
    words: ({ turnId }, other) => `expected active turn id \`${turnId}\` but found \`${other}\``,
    reason: ended
  },
  {
    code: invalidRequest,
    words: ({ turnId }, other) => `expected active turn id ${turnId} but found ${other}`,
    reason: ended
  },
  ...["compact", "review"].flatMap((kind): ReadonlyArray<Rejection> => [
    { code: invalidRequest, words: () => `cannot steer a ${kind} turn`, reason: takesNoInput(kind) },
    {
      code: internalError,
      words: () =>
        `failed to submit turn input: ActiveTurnNotSteerable { turn_kind: ${kind[0]?.toUpperCase()}${kind.slice(1)} }`,
      reason: takesNoInput(kind)
    }
  ]),
  {
    code: internalError,
    words: () => "failed to submit turn input: ActiveTurnOutputSchemaMismatch",
    reason: (cause, subject) => new ThreadBusy({ ...subject, options: ["outputSchema"], isSent: false, cause })
  }
]

const uuid = /^(urn:uuid:)?\{?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?$/i

const otherId = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?=`?$)/

const reasonOf = (rejected: RequestRejected, subject: Subject): AppServerErrorReason => {
  const { code, detail } = rejected
  // The parser of ids says in many ways what is wrong with one, so the id itself is looked at.
  if ((code === invalidRequest || code === invalidParams) && /^invalid (thread|session) id: /.test(detail)) {
    return uuid.test(subject.threadId) ? rejected : notFound("invalidId")(rejected, subject)
  }
  const [other = ""] = otherId.exec(detail) ?? []
  const found = rejections.find((rejection) => rejection.code === code && rejection.words(subject, other) === detail)
  return found === undefined ? rejected : found.reason(rejected, subject)
}

const member = (params: unknown, ...names: ReadonlyArray<string>): string | undefined => {
  if (!Predicate.isObject(params)) return undefined
  return names.map((name) => Object.hasOwn(params, name) ? params[name] : undefined).find(Predicate.isString)
}

/** The error with the reason that its words have, if they have one. */
export const withReason = (error: AppServerError, params: unknown): AppServerError => {
  const { reason } = error
  if (reason._tag !== "RequestRejected") return error
  const threadId = member(params, "threadId")
  if (threadId === undefined) return error
  const subject = { threadId, turnId: member(params, "turnId", "expectedTurnId") ?? "" }
  const typed = reasonOf(reason, subject)
  return typed === reason ? error : appServerError(typed)
}
