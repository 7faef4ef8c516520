/** Compaction answers at once and is then done by a turn of its own, which is waited for here. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { AppServer, NotificationListener } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import { interruptAndSettle } from "./interruptTurn.ts"
import { TurnState } from "./turnState.ts"

/** The answer to `thread/compact/start` does not name the turn: it is the next one that the thread starts. */
const listenForNextTurn = (server: AppServer["Service"], threadId: string) => {
  const state = new TurnState(threadId)
  let turnId: string | undefined
  const listener: NotificationListener = {
    onNotification(event, id, step) {
      state.onNotification(event, id, step)
      if (turnId === undefined && id !== undefined && event.method === "turn/started") {
        turnId = id
        state.bind(id, step)
      }
    },
    onEnd: (error, step) => state.onEnd(error, step)
  }
  return { state, turnId: () => turnId ?? "", close: server.listen(threadId, listener) }
}

/** Has a thread compacted, and gives the turn that did it. */
export const compactThread = (
  server: AppServer["Service"],
  threadId: string
): Effect.Effect<{ readonly state: TurnState; readonly turn: Protocol.Turn }, AppServerError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => listenForNextTurn(server, threadId)),
    (next) =>
      server.request("thread/compact/start", { threadId }).pipe(
        Effect.andThen(Deferred.await(next.state.completion)),
        Effect.map((turn) => ({ state: next.state, turn })),
        Effect.onInterrupt(() => interruptAndSettle(server, next.state, next.turnId()))
      ),
    (next) => Effect.sync(next.close)
  )
