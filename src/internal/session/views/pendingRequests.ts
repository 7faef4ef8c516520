/** The approvals and questions of the server in the views of turns and threads. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Protocol from "../../../Protocol.ts"
import * as TurnView from "../../../TurnView.ts"
import { getThreadId, getTurnId } from "../../connection/codec.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { IncomingRequest } from "../../jsonrpc/messages.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import type { TurnRegistry } from "../turns/turnRegistry.ts"

export const isPendingRequest = Schema.is(TurnView.PendingRequest)

/** Returns the pending approvals and questions of a thread, or of one of its turns. */
export const pendingRequests = (
  server: ServerConnection,
  threadId: string,
  turnId?: string
): ReadonlyArray<TurnView.PendingRequest> =>
  server.pendingServerRequests()
    .filter(({ params }) => getThreadId(params) === threadId && (turnId === undefined || getTurnId(params) === turnId))
    .filter(isPendingRequest)

/** The notification with which the server reports that a request has its response. It may arrive late, or not at all. */
export const toResolved = (
  { id, params }: IncomingRequest
): Protocol.Notification<"serverRequest/resolved"> => ({
  method: "serverRequest/resolved",
  params: { threadId: getThreadId(params) ?? "", requestId: id }
})

/** Folds the requests of the server into the views of their turns, until the scope closes. */
export const followRequests = (
  server: ServerConnection,
  turns: TurnRegistry
): Effect.Effect<void, never, Scope.Scope> => {
  const getStates = ({ params }: IncomingRequest) => {
    const threadId = getThreadId(params)
    const turnId = getTurnId(params)
    return [...turns.entries.values(), ...turns.watched]
      .filter(({ id, state }) => state.threadId === threadId && (turnId === undefined || id === turnId))
      .map(({ state }) => state)
  }
  return Effect.all([
    server.addReceivedHandler((request, batch) => {
      if (!isPendingRequest(request)) return
      for (const state of getStates(request)) state.foldRequest(request, batch)
    }),
    server.addSettledHandler((request) => {
      for (const state of getStates(request)) state.foldRequest(toResolved(request), syncBatch)
    })
  ], { discard: true })
}
