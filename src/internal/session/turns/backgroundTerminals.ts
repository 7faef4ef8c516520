/** Ends background terminals: commands that outlive their turn. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type { AppServerError } from "../../../AppServerError.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn } from "../../getOwn.ts"
import type { TurnState } from "./turnState.ts"

/** The reasons of errors after which the commands have ended with the server. */
const endOfServer: ReadonlySet<string> = new Set(["ConnectionClosed", "RestartsExhausted", "TurnLost"])

/** Ends the background terminals that a turn started. */
export const endTerminals = (server: ServerConnection, state: TurnState): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { commands, exit, threadId } = state
    const isLost = exit !== undefined && Result.isFailure(exit) && endOfServer.has(exit.failure.reason._tag)
    if (commands.size === 0 || isLost || !server.experimentalApi) return Effect.void
    const end = Effect.fnUntraced(function*(cursor: string | null): Effect.fn.Return<void, AppServerError> {
      const page = yield* server.requestRaw("thread/backgroundTerminals/list", { threadId, cursor })
      const data = getOwn(page, "data")
      for (const terminal of Array.isArray(data) ? data : []) {
        const processId = getOwn(terminal, "processId")
        const itemId = getOwn(terminal, "itemId")
        if (!Predicate.isString(itemId) || !commands.has(itemId) || !Predicate.isString(processId)) continue
        yield* server.requestRaw("thread/backgroundTerminals/terminate", { threadId, processId })
      }
      const next = getOwn(page, "nextCursor")
      if (Predicate.isString(next) && next !== cursor) yield* end(next)
    })
    return Effect.catch(end(null), (error) =>
      Effect.logWarning(
        `Cannot end the background terminals of an interrupted turn of thread \`${threadId}\`: ${error.message}`
      ))
  })
