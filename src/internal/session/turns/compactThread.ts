/** Compaction answers at once and is then done by a turn of its own, which is waited for here. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { AppServer, NotificationListener } from "../../../AppServer.ts"
import type { AppServerError } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { interruptAndAwait } from "./interruptTurn.ts"
import type { TurnRegistry } from "./turnRegistry.ts"
import { TurnState } from "./turnState.ts"
import type { Timeout } from "./turnTimeouts.ts"

const isCompaction = (event: Protocol.ServerNotification): boolean =>
  event.method === "thread/compacted" ||
  ((event.method === "item/started" || event.method === "item/completed") &&
    (event.params.item.type as unknown) === "contextCompaction")

/**
 * The answer to `thread/compact/start` does not name the turn. It is the one that has a compaction in it; one that fails
 * before that is told by being a turn that nobody started.
 */
const listenForCompaction = (server: AppServer["Service"], open: TurnRegistry, threadId: string) => {
  let turnId: string | undefined
  const ended = new Set<string>()
  const claimed = new Set([...open.entries.values()].map(({ id }) => id))
  const onClaim = (id: string) => claimed.add(id)
  open.onAcquire.add(onClaim)
  const state = new TurnState(server, open.usages, threadId, (state): NotificationListener => ({
    onNotification(event, id, batch) {
      state.onNotification(event, id, batch)
      if (turnId !== undefined || id === undefined) return
      if (event.method === "turn/completed") ended.add(id)
      const found = isCompaction(event)
        ? id
        : open.pendingStarts(threadId).size === 0
        ? [...ended].find((id) => !claimed.has(id))
        : undefined
      if (found === undefined) return
      turnId = found
      state.setTurnId(found, batch)
    },
    onClose: (error, batch) => state.onClose(error, batch)
  }))
  /** Before it was sent, a restart of the server does not concern it, and there is nothing to interrupt. */
  const sent = () => {
    open.compacting.add(state)
    open.onAwait({ state, id: () => turnId, isAwaited: () => open.compacting.has(state) })
  }
  const stop = () => {
    open.compacting.delete(state)
    open.onAcquire.delete(onClaim)
    state.unsubscribeThread()
  }
  return { state, turnId: () => turnId, sent, stop }
}

/** Has a thread compacted, and gives the turn that did it. */
export const compactThread = (
  server: AppServer["Service"],
  open: TurnRegistry,
  thread: OpenThread,
  limit: Timeout
): Effect.Effect<{ readonly state: TurnState; readonly turn: Protocol.Turn }, AppServerError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => listenForCompaction(server, open, thread.id)),
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
        limit,
        Effect.andThen(Deferred.await(state.exitDeferred)),
        Effect.map((turn) => ({ state, turn })),
        Effect.onInterrupt(() => {
          const id = turnId()
          if (!open.compacting.has(state)) return Effect.void
          // Without its id, all that could be interrupted is whatever the thread is doing.
          return id === undefined && open.isBusy(thread.id)
            ? Effect.void
            : interruptAndAwait(server, state, id ?? "")
        })
      ),
    ({ stop }) => Effect.sync(stop)
  )
