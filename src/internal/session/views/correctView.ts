/** What the events alone do not tell a view. */
import type { TurnView } from "../../../TurnView.ts"
import type * as Usage from "../../../Usage.ts"
import { isTextDelta } from "../../connection/delta.ts"
import { findItem } from "../../view/items.ts"

/**
 * Corrects the usage of a view: the events of one turn do not tell the totals of the thread before it, and a view that begins later misses
 * reports.
 */
export const correctUsage = (view: TurnView, usage: Usage.TurnUsage | undefined): TurnView => {
  if (usage === undefined) return view
  const { contextWindow = null, lastRequest, thread, turn } = usage
  const { reportedAtMs, reports } = view.usage ?? { reportedAtMs: null, reports: 1 }
  return { ...view, usage: { turn, thread, lastRequest, contextWindow, reports, reportedAtMs } }
}

/** Whether an event is the delta of a text that began before the view. The text is whole when it completes. */
export const isWithoutBeginning = (view: TurnView | undefined, event: { readonly method: unknown }): boolean =>
  isTextDelta(event) && (view === undefined || findItem(view.items, event.params.itemId) === -1)
