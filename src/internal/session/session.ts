/** What all that is Codex on one server has in common, however many layers of it there are. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Stream from "effect/Stream"
import type * as Approvals from "../../Approvals.ts"
import type { AppServer } from "../../AppServer.ts"
import { approvalHandler } from "./handlers/approvalHandler.ts"
import { HandlerRegistry } from "./handlers/handlerRegistry.ts"
import { questionHandler } from "./handlers/questionHandler.ts"
import { toolCallHandler } from "./handlers/threadTools.ts"
import { warnOfLostLogin } from "./lostLogin.ts"
import { warnOfMissingLogin } from "./missingLogin.ts"
import { OpenThreads } from "./threads/openThread.ts"
import { ThreadRecords } from "./threads/threadRecords.ts"
import { recoverMissedCompletions, recoverTurns } from "./turns/recoverTurns.ts"
import { TurnRegistry } from "./turns/turnRegistry.ts"

export interface Shared {
  readonly open: TurnRegistry
  readonly threads: OpenThreads
  readonly registry: HandlerRegistry
  readonly audit: Stream.Stream<Approvals.AuditEntry>
}

const make = Effect.fnUntraced(function*(server: AppServer["Service"]): Effect.fn.Return<Shared, never, Scope.Scope> {
  const open = new TurnRegistry()
  const threads = new OpenThreads(yield* ThreadRecords.of(server))
  const registry = new HandlerRegistry(server, open, threads)
  yield* registry.listen
  yield* toolCallHandler(server, registry)
  yield* questionHandler(server, registry)
  const audit = yield* approvalHandler(server, registry)
  yield* threads.listen(server)
  yield* open.listen(server)
  yield* warnOfLostLogin(server)
  yield* Effect.forkScoped(warnOfMissingLogin(server))
  yield* recoverMissedCompletions(server, open)
  yield* server.onRestart((requests) => recoverTurns(requests, open, threads))
  return { open, threads, registry, audit }
})

interface Use {
  readonly shared: Shared
  readonly scope: Scope.Closeable
  times: number
}

const uses = new WeakMap<AppServer["Service"], Use>()

/** Two that begin at once must find each other. */
const alone = Semaphore.makeUnsafe(1)

/**
 * A second one that knew nothing of the first one's threads would answer for them, and be wider than their own handlers.
 * The last that is closed takes it along.
 */
export const sharedBy = (server: AppServer["Service"]): Effect.Effect<Shared, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      alone.withPermit(Effect.gen(function*() {
        const existing = uses.get(server)
        if (existing !== undefined) {
          existing.times++
          return existing
        }
        const scope = yield* Scope.make()
        const use: Use = { shared: yield* Scope.provide(make(server), scope), scope, times: 1 }
        uses.set(server, use)
        return use
      })),
      (use) =>
        Effect.suspend(() => {
          if (--use.times > 0) return Effect.void
          uses.delete(server)
          return Scope.close(use.scope, Exit.void)
        })
    ),
    ({ shared }) => shared
  )
