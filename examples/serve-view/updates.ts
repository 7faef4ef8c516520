/**
 * Sends a view in parts. An event changes one item, and all other items and turns of a view are the same objects as before.
 */
import type { ThreadView, TurnView } from "effect-codex"
import * as Stream from "effect/Stream"
import type { Update } from "./ViewRpcs.ts"

/** Whether `after` begins with all the turns and the items of `before`. */
const isExtension = (before: ThreadView.ThreadView, after: ThreadView.ThreadView): boolean =>
  before.turns.every((turn, index) => {
    const next = after.turns[index]
    return turn === next ||
      turn.turnId === next?.turnId && turn.items.every(({ id }, index) => next.items[index]?.id === id)
  })

/** Removes what the page does not show. */
const toPage = (turn: TurnView.TurnView): TurnView.TurnView => ({ ...turn, diff: null, settledRequests: [] })

const toUpdate = (before: ThreadView.ThreadView | undefined, after: ThreadView.ThreadView): Update => {
  const thread = { ...after, settings: null, goal: null }
  if (before === undefined || !isExtension(before, after)) {
    return { isWhole: true, thread: { ...thread, turns: after.turns.map(toPage) } }
  }
  const turns = after.turns.flatMap((turn, index) => {
    const old = before.turns[index]
    if (turn === old) return []
    return [toPage({ ...turn, items: turn.items.filter((item, index) => item !== old?.items[index]) })]
  })
  return { isWhole: false, thread: { ...thread, turns } }
}

/** Makes the updates of a page from the views of a thread. The first one is the whole thread. */
export const toUpdates: <E, R>(views: Stream.Stream<ThreadView.ThreadView, E, R>) => Stream.Stream<Update, E, R> =
  Stream.mapAccum(
    () => undefined as ThreadView.ThreadView | undefined,
    (before, after: ThreadView.ThreadView) => [after, [toUpdate(before, after)]]
  )

/** Replaces the entries that have a newer version, and appends the new ones. */
const merge = <A>(before: ReadonlyArray<A>, changed: ReadonlyArray<A>, getId: (entry: A) => string): Array<A> => {
  const newer = new Map(changed.map((entry) => [getId(entry), entry]))
  const merged = before.map((entry) => newer.get(getId(entry)) ?? entry)
  const known = new Set(before.map(getId))
  return [...merged, ...changed.filter((entry) => !known.has(getId(entry)))]
}

/** Makes the view of the page from its last view and an update. */
export const applyUpdate = (before: ThreadView.ThreadView | undefined, update: Update): ThreadView.ThreadView => {
  const { isWhole, thread } = update
  if (isWhole || before === undefined) return thread
  const turns = thread.turns.map((turn) => {
    const items = before.turns.find(({ turnId }) => turnId === turn.turnId)?.items ?? []
    return { ...turn, items: merge(items, turn.items, ({ id }) => id) }
  })
  return { ...thread, turns: merge(before.turns, turns, ({ turnId }) => turnId) }
}
