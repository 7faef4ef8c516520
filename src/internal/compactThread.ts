/** Compaction answers at once and is then done by a turn of its own, which is waited for here. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { AppServer, NotificationListener } from "../AppServer.ts"
import type { AppServerError } from "../AppServerError.ts"
import { resultOf, type TurnFailed } from "../Turn.ts"
import { interruptAndSettle } from "./interruptTurn.ts"
import { TurnState } from "./turnState.ts"

/** The answer to `thread/compact/start` does not name the turn: it is the next one that the thread starts. */
const listenForNextTurn = (server: AppServer["Service"], threadId: string) => {
  const state = new TurnState(threadId, { keepLog: false })
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

export const compactThread = (
  server: AppServer["Service"],
  threadId: string
): Effect.Effect<void, TurnFailed | AppServerError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => listenForNextTurn(server, threadId)),
    (next) =>
      server.request("thread/compact/start", { threadId }).pipe(
        Effect.andThen(Deferred.await(next.state.completion)),
        Effect.flatMap((turn) => resultOf(next.state, turn)),
        Effect.asVoid,
        Effect.onInterrupt(() => interruptAndSettle(server, next.state, next.turnId()))
      ),
    (next) => Effect.sync(next.close)
  )
