/**
 * Follows the sub-agents of the server. A sub-agent has a thread of its own, which this program did not open. Its turns name the turn that
 * they work for, and the call that spawned it names its thread and its model.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { ServerConnection } from "../../connection/serverConnection.ts"

export class SubAgents {
  /** The parent thread of each sub-agent's thread. */
  private readonly parents = new Map<string, string>()
  /** The model of each sub-agent's thread. */
  private readonly models = new Map<string, string>()
  /** The running turns that work for another turn: the first turn in the chain of work that led to them. */
  private readonly roots = new Map<string, { readonly threadId: string; readonly rootId: string }>()

  /** Follows the sub-agents of a server, until the scope closes. */
  listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.addNotificationHandler("turn/started", ({ threadId, turn: { id, rootTurnId } }) => {
        if (Predicate.isString(rootTurnId) && rootTurnId !== id) this.roots.set(id, { threadId, rootId: rootTurnId })
      }),
      server.addNotificationHandler("turn/completed", ({ threadId }) => this.endTurns(threadId)),
      server.addNotificationHandler("thread/started", ({ thread: { id, parentThreadId } }) => {
        if (Predicate.isString(parentThreadId)) this.parents.set(id, parentThreadId)
      }),
      server.addNotificationHandler("item/completed", ({ item, threadId }) => {
        if (item.type === "collabAgentToolCall" && item.tool === "spawnAgent") {
          for (const agentId of item.receiverThreadIds) this.add(agentId, threadId, item.model)
        } else if (item.type === "subAgentActivity") this.add(item.agentThreadId, threadId, item.model)
      }),
      server.addNotificationHandler("thread/closed", ({ threadId }) => this.forget(threadId)),
      // The server does not close the thread of a sub-agent, but unloads it with that of its parent.
      server.addNotificationHandler("thread/status/changed", ({ status, threadId }) => {
        if (status.type === "notLoaded") this.forget(threadId)
      }),
      server.addRestartHandler((_, isShared) =>
        Effect.sync(() => {
          // A shared server continues them.
          if (isShared) return
          this.parents.clear()
          this.models.clear()
          this.roots.clear()
        })
      )
    ], { discard: true })
  }

  /** Returns the parent of a sub-agent's thread, if a notification has named it. */
  getParent(threadId: string): string | undefined {
    return this.parents.get(threadId)
  }

  /** Returns the model of a sub-agent's thread, if a notification has named it. */
  getModel(threadId: string): string | undefined {
    return this.models.get(threadId)
  }

  /** Returns the id of the turn that a turn works for. */
  getRoot(turnId: string): string | undefined {
    return this.roots.get(turnId)?.rootId
  }

  /** Returns the running turns of the sub-agents that work for a turn, also of the sub-agents of sub-agents. */
  getRunning(threadId: string, turnId: string): ReadonlyArray<{ readonly threadId: string; readonly turnId: string }> {
    const rootId = this.getRoot(turnId) ?? turnId
    // A sub-agent may start before the call that spawned it completes, which names its parent. All work for the root.
    const isPart = (agentId: string) => rootId === turnId ? agentId !== threadId : this.isBelow(agentId, threadId)
    return [...this.roots].flatMap(([id, root]) =>
      root.rootId === rootId && isPart(root.threadId) ? [{ threadId: root.threadId, turnId: id }] : []
    )
  }

  private add(threadId: string, parentId: string, model: string | null | undefined): void {
    this.parents.set(threadId, parentId)
    if (Predicate.isString(model) && model !== "") this.models.set(threadId, model)
  }

  private isBelow(threadId: string, ancestorId: string): boolean {
    const seen = new Set<string>()
    let parentId = this.parents.get(threadId)
    while (parentId !== undefined && parentId !== ancestorId && !seen.has(parentId)) {
      seen.add(parentId)
      parentId = this.parents.get(parentId)
    }
    return parentId === ancestorId
  }

  /** Removes the running turn of a thread. A review starts with another turn id than it ends with. */
  private endTurns(threadId: string): void {
    for (const [id, root] of this.roots) {
      if (root.threadId === threadId) this.roots.delete(id)
    }
  }

  /** Removes a thread that was closed. */
  forget(threadId: string): void {
    this.parents.delete(threadId)
    this.models.delete(threadId)
    this.endTurns(threadId)
  }
}
