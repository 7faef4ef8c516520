/** The state that the threads and turns of one connection share. */
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type * as Approvals from "../approvals/model.ts"
import type { ServerConnection } from "../connection/serverConnection.ts"
import type { TurnBudgets } from "./budget/turnBudgets.ts"
import type { HandlerRegistry } from "./handlers/handlerRegistry.ts"
import type { SessionTelemetry } from "./telemetry/sessionTelemetry.ts"
import type { SubAgents } from "./threads/subAgents.ts"
import type { ThreadRecords } from "./threads/threadRecords.ts"
import type { TurnRegistry } from "./turns/turnRegistry.ts"

export interface SessionState {
  readonly server: ServerConnection
  readonly scope: Scope.Scope
  readonly records: ThreadRecords
  readonly turns: TurnRegistry
  readonly subAgents: SubAgents
  readonly budgets: TurnBudgets
  readonly handlers: HandlerRegistry
  readonly telemetry: SessionTelemetry
  readonly audit: Stream.Stream<Approvals.AuditEntry>
}
