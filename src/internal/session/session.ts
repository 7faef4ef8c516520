/** The session of a connection: the state of threads, turns and handlers that all `Codex` layers on the connection share. */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as RcRef from "effect/RcRef"
import type * as Scope from "effect/Scope"
import type { ServerConnection } from "../connection/serverConnection.ts"
import { TurnBudgets } from "./budget/turnBudgets.ts"
import { handleApprovals } from "./handlers/approvalHandler.ts"
import { HandlerRegistry } from "./handlers/handlerRegistry.ts"
import { handleQuestions } from "./handlers/questionHandler.ts"
import { handleToolCalls } from "./handlers/toolCallHandler.ts"
import { warnOfLostLogin } from "./lostLogin.ts"
import { warnOfMissingLogin } from "./missingLogin.ts"
import type { SessionState } from "./sessionState.ts"
import { SessionTelemetry } from "./telemetry/sessionTelemetry.ts"
import { SubAgents } from "./threads/subAgents.ts"
import { ThreadRecords } from "./threads/threadRecords.ts"
import { recoverMissedCompletions, recoverTurns } from "./turns/recoverTurns.ts"
import { TurnRegistry } from "./turns/turnRegistry.ts"
import { followRequests } from "./views/pendingRequests.ts"

/** The session of a connection. */
export class Session extends Context.Service<Session, {
  /** Acquires the state. Dies with the cause if the connection has ended and stays ended. */
  readonly acquire: Effect.Effect<SessionState, never, Scope.Scope>
}>()("effect-codex/AppServer/Session") {}

const makeState = Effect.fnUntraced(function*(
  server: ServerConnection
): Effect.fn.Return<SessionState, never, Scope.Scope> {
  const records = new ThreadRecords()
  const subAgents = new SubAgents()
  const turns = new TurnRegistry(subAgents)
  const budgets = new TurnBudgets(server, { records, subAgents, turns })
  const handlers = new HandlerRegistry(server, turns, subAgents)
  const telemetry = new SessionTelemetry(server, subAgents, turns.usages)
  // First, because the others need the root turn of a turn when it starts.
  yield* subAgents.listen(server)
  yield* handlers.listen
  yield* handleToolCalls(server, handlers, telemetry)
  yield* handleQuestions(server, handlers, telemetry)
  const audit = yield* handleApprovals(server, handlers, telemetry)
  yield* records.listen(server)
  yield* turns.listen(server)
  yield* telemetry.listen
  yield* budgets.listen
  yield* followRequests(server, turns)
  yield* warnOfLostLogin(server)
  yield* Effect.forkScoped(warnOfMissingLogin(server))
  yield* recoverMissedCompletions(server, turns)
  const scope = yield* Effect.scope
  yield* server.addRestartHandler((client, isShared) =>
    recoverTurns(client, { connection: server, isShared, records, scope, turns })
  )
  return { server, scope, records, turns, subAgents, budgets, handlers, telemetry, audit }
})

/**
 * Makes the session of a connection. Its state is made for the first `Codex` layer, with the context of the `AppServer` layer. It never goes
 * idle, and lives as long as the connection. So a later `Codex` layer does not widen the permissions of a thread that an earlier one has
 * opened.
 */
export const makeSession = (
  server: ServerConnection
): Effect.Effect<Session["Service"], never, Scope.Scope> =>
  Effect.map(
    RcRef.make({ acquire: makeState(server), idleTimeToLive: Duration.infinity }),
    (ref) => ({
      acquire: Effect.flatMap(
        server.state,
        (state) => state._tag === "Closed" ? Effect.die(state.cause) : RcRef.get(ref)
      )
    })
  )
