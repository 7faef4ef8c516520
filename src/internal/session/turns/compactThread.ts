/** Compacts threads. The server responds at once, and then compacts the thread in a turn. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { AppServerError } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { NotificationListener } from "../../connection/delta.ts"
import type { BudgetState } from "../budget/budgetState.ts"
import type { Reservation } from "../budget/turnBudgets.ts"
import type { SessionState } from "../sessionState.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { interruptAndAwait } from "./interruptTurn.ts"
import { TurnState } from "./turnState.ts"
import type { Timeout } from "./turnTimeouts.ts"

const isCompaction = (event: Protocol.ServerNotification): boolean =>
  event.method === "thread/compacted" ||
  ((event.method === "item/started" || event.method === "item/completed") &&
    event.params.item.type === "contextCompaction")

/**
 * Finds the turn of a compaction, which the response to `thread/compact/start` does not name. It is the turn with a compaction item. If it
 * fails before that item, it is the turn that no caller started.
 */
const listenForCompaction = ({ budgets, server, turns }: SessionState, threadId: string, reservation: Reservation) => {
  const ended = new Set<string>()
  const acquired = new Set([...turns.entries.values()].map(({ id }) => id))
  const onAcquire = (id: string) => acquired.add(id)
  turns.onAcquire.add(onAcquire)
  const state = new TurnState(server, turns.usages, threadId, (state): NotificationListener => ({
    onNotification(event, id, batch) {
      state.onNotification(event, id, batch)
      if (state.id !== undefined || id === undefined) return
      if (event.method === "turn/completed") ended.add(id)
      const found = isCompaction(event)
        ? id
        : turns.pendingStarts(threadId).size === 0
        ? [...ended].find((id) => !acquired.has(id))
        : undefined
      if (found === undefined) return
      budgets.add(reservation, threadId, found, false, batch)
      state.setTurnId(found, batch)
      state.onComplete(() => budgets.end(found))
    },
    onClose: (error, batch) => state.onClose(error, batch)
  }))
  /** Called when the request is sent. Before that, there is no compaction to recover or to interrupt. */
  const sent = () => {
    turns.compacting.add(state)
    turns.onAwait({ state, id: () => state.id, isAwaited: () => turns.compacting.has(state) })
  }
  const stop = () => {
    turns.compacting.delete(state)
    turns.onAcquire.delete(onAcquire)
    state.unsubscribeThread()
  }
  return { state, sent, stop }
}

/** Interrupts a compaction that has no caller any more, or that its budget does not allow. */
const interruptCompaction = (
  { server, turns }: SessionState,
  state: TurnState
): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (!turns.compacting.has(state)) return Effect.void
    // Without a turn id, the interrupt would end any turn of the thread.
    return state.id === undefined && turns.isBusy(state.threadId)
      ? Effect.void
      : interruptAndAwait(server, state, state.id ?? "")
  })

/** Compacts a thread and returns the turn of the compaction. */
export const compactThread = Effect.fnUntraced(function*(
  session: SessionState,
  thread: OpenThread,
  budget: BudgetState | undefined,
  timeout: Timeout
): Effect.fn.Return<{ readonly state: TurnState; readonly turn: Protocol.Turn }, AppServerError> {
  const { budgets, server } = session
  yield* budgets.settle(budget)
  return yield* Effect.acquireUseRelease(
    Effect.map(budgets.reserve(budget, thread.id), (reservation) => ({
      reservation,
      ...listenForCompaction(session, thread.id, reservation)
    })),
    ({ reservation, sent, state }) => {
      const remove = reservation.budgets.map((budget) =>
        budget.addRunning((error) => {
          state.expire(error)
          return Effect.andThen(interruptCompaction(session, state), Effect.sync(() => state.failIfExpired()))
        })
      )
      return thread.request(
        server,
        "thread/compact/start",
        (server, { onSend }) =>
          server.request("thread/compact/start", { threadId: thread.id }, {
            onSend: () => {
              sent()
              onSend?.()
            }
          })
      ).pipe(
        timeout,
        Effect.andThen(Deferred.await(state.exitDeferred)),
        Effect.map((turn) => ({ state, turn })),
        Effect.onInterrupt(() => interruptCompaction(session, state)),
        Effect.ensuring(Effect.sync(() => remove.forEach((remove) => remove())))
      )
    },
    ({ reservation, state, stop }) =>
      Effect.sync(() => {
        stop()
        if (state.id === undefined) reservation.cancel()
      })
  )
})
