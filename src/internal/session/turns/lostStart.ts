/** Finds a turn that a shared server has started, although the connection ended before the response to `turn/start` arrived. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { AppServerError } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn } from "../../getOwn.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { isActive, readStoredTurn, reportUsage } from "./recoverTurns.ts"

/** A thread is active a moment before the server stores the input of its turn. */
const untilStored = Schedule.spaced("50 millis").pipe(Schedule.upTo({ duration: "5 seconds" }))

/**
 * Adds an id to the input of a turn, by which the turn is found on a shared server. The server stores the id with the input, and repeats it in
 * the item of the input.
 */
export const withInputId = (
  { isShared }: ServerConnection,
  params: Protocol.TurnStartParams
): Effect.Effect<Protocol.TurnStartParams> =>
  Effect.sync(() =>
    isShared ? { ...params, clientUserMessageId: params.clientUserMessageId ?? globalThis.crypto.randomUUID() } : params
  )

/** Waits for the next connection, and returns the turn with the input. Fails with `error` if the server has no such turn. */
export const findLostStart = (
  server: ServerConnection,
  thread: OpenThread,
  { clientUserMessageId, threadId }: Protocol.TurnStartParams,
  error: AppServerError
): Effect.Effect<Protocol.Turn, AppServerError> => {
  if (error.reason._tag !== "ConnectionClosed" || !server.isShared) return Effect.fail(error)
  const hasInput = ({ items }: Protocol.Turn) => items.some((item) => getOwn(item, "clientId") === clientUserMessageId)
  const read = thread.request(server, "thread/turns/list", (client) =>
    Effect.all({
      mayFollow: isActive(client, threadId),
      turn: readStoredTurn(client, threadId, hasInput).pipe(
        Effect.flatMap((stored) =>
          Option.isNone(stored)
            ? Effect.succeedNone
            : Effect.map(reportUsage(server, client, threadId, stored.value.id), Option.orElse(() => stored))
        ),
        Effect.catchIf(({ reason }) => reason._tag !== "ConnectionClosed", () => Effect.succeedNone)
      )
    }))
  return read.pipe(
    Effect.repeat({ until: ({ mayFollow, turn }) => Option.isSome(turn) || !mayFollow, schedule: untilStored }),
    Effect.flatMap(({ turn }) => Effect.fromOption(turn)),
    Effect.mapError(() => error)
  )
}
