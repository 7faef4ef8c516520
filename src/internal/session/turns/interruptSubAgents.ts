/** Interrupts the turns of sub-agents, which continue when the turn that they work for is interrupted. */
import * as Effect from "effect/Effect"
import type { AppServerError } from "../../../AppServerError.ts"
import type { SessionState } from "../sessionState.ts"

/** Interrupts the turns of all sub-agents that work for a turn, and of those that start meanwhile. */
export const interruptSubAgents = (
  { server, subAgents }: SessionState,
  threadId: string,
  turnId: string
): Effect.Effect<void, AppServerError> =>
  Effect.suspend(() => {
    const interrupted = new Set<string>()
    const interruptNext: Effect.Effect<void, AppServerError> = Effect.suspend(() => {
      const running = subAgents.getRunning(threadId, turnId).filter(({ turnId }) => !interrupted.has(turnId))
      if (running.length === 0) return Effect.void
      for (const { turnId } of running) interrupted.add(turnId)
      return Effect.forEach(running, (turn) =>
        server.request("turn/interrupt", turn).pipe(
          // The turn may have ended meanwhile, and its thread may be unloaded.
          Effect.catchReasons("AppServerError", { TurnEnded: () => Effect.void, ThreadNotFound: () => Effect.void })
        ), { concurrency: "unbounded", discard: true }).pipe(Effect.andThen(interruptNext))
    })
    return interruptNext
  })
