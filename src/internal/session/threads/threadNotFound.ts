/** Adds the state of a thread to `ThreadNotFound`, where the server does not report it. */
import * as Effect from "effect/Effect"
import {
  type AppServerError,
  isAppServerError,
  make as appServerError,
  ThreadNotFound,
  type ThreadNotFoundState
} from "../../../AppServerError.ts"
import type { ServerClient } from "../../connection/client.ts"
import type { ThreadRecord } from "./threadRecords.ts"

const withState = (error: AppServerError, state: ThreadNotFoundState): AppServerError => {
  const { reason } = error
  if (reason._tag !== "ThreadNotFound") return error
  const { cause, method, threadId } = reason
  return appServerError(new ThreadNotFound({ method, threadId, state, cause }))
}

/** Adds the state of a thread that this program has opened and that was archived or deleted. */
export const withGone = <E>(error: E, record: ThreadRecord | undefined): E | AppServerError =>
  isAppServerError(error) && record?.gone !== undefined ? withState(error, record.gone) : error

/**
 * Distinguishes a thread that is open but not stored from one that does not exist. A resume or a fork fails with the same error for both, but
 * `thread/read` succeeds for an open thread.
 */
export const orNotStored = (server: ServerClient, error: AppServerError): Effect.Effect<never, AppServerError> => {
  const { reason } = error
  return reason._tag !== "ThreadNotFound" || reason.state !== "unknown"
    ? Effect.fail(error)
    : server.requestRaw("thread/read", { threadId: reason.threadId }).pipe(
      Effect.match({ onFailure: () => error, onSuccess: () => withState(error, "notStored") }),
      Effect.flatMap(Effect.fail)
    )
}
