/** Compacts threads. The server responds at once, and then compacts the thread in a turn. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { AppServerError } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { NotificationListener } from "../../connection/delta.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { interruptAndAwait } from "./interruptTurn.ts"
import type { TurnRegistry } from "./turnRegistry.ts"
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
const listenForCompaction = (server: ServerConnection, turns: TurnRegistry, threadId: string) => {
  let turnId: string | undefined
  const ended = new Set<string>()
  const acquired = new Set([...turns.entries.values()].map(({ id }) => id))
  const onAcquire = (id: string) => acquired.add(id)
  turns.onAcquire.add(onAcquire)
  const state = new TurnState(server, turns.usages, threadId, (state): NotificationListener => ({
    onNotification(event, id, batch) {
      state.onNotification(event, id, batch)
      if (turnId !== undefined || id === undefined) return
      if (event.method === "turn/completed") ended.add(id)
      const found = isCompaction(event)
        ? id
        : turns.pendingStarts(threadId).size === 0
        ? [...ended].find((id) => !acquired.has(id))
        : undefined
      if (found === undefined) return
      turnId = found
      state.setTurnId(found, batch)
    },
    onClose: (error, batch) => state.onClose(error, batch)
  }))
  /** Called when the request is sent. Before that, there is no compaction to recover or to interrupt. */
  const sent = () => {
    turns.compacting.add(state)
    turns.onAwait({ state, id: () => turnId, isAwaited: () => turns.compacting.has(state) })
  }
  const stop = () => {
    turns.compacting.delete(state)
    turns.onAcquire.delete(onAcquire)
    state.unsubscribeThread()
  }
  return { state, turnId: () => turnId, sent, stop }
}

/** Compacts a thread and returns the turn of the compaction. */
export const compactThread = (
  server: ServerConnection,
  turns: TurnRegistry,
  thread: OpenThread,
  timeout: Timeout
): Effect.Effect<{ readonly state: TurnState; readonly turn: Protocol.Turn }, AppServerError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => listenForCompaction(server, turns, thread.id)),
    ({ sent, state, turnId }) =>
      thread.request(
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
        Effect.onInterrupt(() => {
          const id = turnId()
          if (!turns.compacting.has(state)) return Effect.void
          // Without a turn id, the interrupt would end any turn of the thread.
          return id === undefined && turns.isBusy(thread.id)
            ? Effect.void
            : interruptAndAwait(server, state, id ?? "")
        })
      ),
    ({ stop }) => Effect.sync(stop)
  )
