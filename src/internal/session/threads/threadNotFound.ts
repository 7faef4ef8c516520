/** Says more about a thread that the server cannot find than the words of the server do. */
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

/** Names what became of a thread that this program holds: the server says only that it is not loaded, or not stored. */
export const withGone = <E>(error: E, record: ThreadRecord | undefined): E | AppServerError =>
  isAppServerError(error) && record?.gone !== undefined ? withState(error, record.gone) : error

/**
 * Tells a thread that is open but not stored from one that does not exist. The server says the same of both when a thread is resumed
 * or forked, so it is asked for the open one.
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
