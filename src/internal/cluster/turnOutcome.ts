/** What is stored of a turn that happened once, and sent between runners. */
import * as Schema from "effect/Schema"
import type { RunOnceResult } from "../../Turn.ts"
import { TurnUsage } from "../../Usage.ts"

export const TurnOutcome = Schema.Struct({
  id: Schema.String,
  threadId: Schema.String,
  status: Schema.Literals(["completed", "interrupted"]),
  finalResponse: Schema.UndefinedOr(Schema.String),
  usage: Schema.UndefinedOr(TurnUsage),
  startedAt: Schema.UndefinedOr(Schema.Number),
  completedAt: Schema.UndefinedOr(Schema.Number),
  durationMs: Schema.UndefinedOr(Schema.Number),
  origin: Schema.Literals(["sent", "joined", "found", "continued", "restarted"])
})

/** Omits the items, which may be large. They are in the history of the thread. */
export const toOutcome = (result: RunOnceResult): typeof TurnOutcome.Type => ({
  id: result.id,
  threadId: result.threadId,
  status: result.status,
  finalResponse: result.finalResponse,
  usage: result.usage,
  startedAt: result.startedAt,
  completedAt: result.completedAt,
  durationMs: result.durationMs,
  origin: result.origin
})
