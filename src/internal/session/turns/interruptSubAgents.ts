/** Interrupts the turns of sub-agents, which continue when the turn that they work for is interrupted. */
import * as Effect from "effect/Effect"
import type { AppServerError } from "../../../AppServerError.ts"
import type { SessionState } from "../sessionState.ts"

/** Interrupts the turns of all sub-agents that work for a turn. */
export const interruptSubAgents = (
  { server, subAgents }: SessionState,
  threadId: string,
  turnId: string
): Effect.Effect<void, AppServerError> =>
  Effect.suspend(() =>
    Effect.forEach(subAgents.getRunning(threadId, turnId), (running) =>
      server.request("turn/interrupt", running).pipe(
        // The turn may have ended meanwhile.
        Effect.catchReason("AppServerError", "TurnEnded", () => Effect.void)
      ), { concurrency: "unbounded", discard: true })
  )
