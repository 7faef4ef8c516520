/** The threads that a program holds, and how they are opened again where the server does not have them open. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { AppServer, Client, RequestOptions } from "../../../AppServer.ts"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../../AppServerError.ts"
import type { Instructions } from "../settings/threadSettings.ts"
import { reopenKept } from "./keptSettings.ts"
import type { ThreadRecord, ThreadRecords } from "./threadRecords.ts"

export class OpenThread {
  readonly id: string
  readonly record: ThreadRecord
  /** What the thread was opened with, as far as the server does not report it. */
  readonly instructions: Instructions
  private readonly records: ThreadRecords
  private readonly reopening = Semaphore.makeUnsafe(1)

  constructor(id: string, record: ThreadRecord, records: ThreadRecords, instructions: Instructions = {}) {
    this.id = id
    this.record = record
    this.records = records
    this.instructions = instructions
  }

  /** Opens the thread again, with the settings that it had, unless it is open since the last restart. */
  reopen(server: Client): Effect.Effect<void, AppServerError> {
    const { record, records } = this
    return Effect.suspend(() =>
      record.isOpen(records.restarts)
        ? Effect.void
        : this.reopening.withPermit(Effect.suspend(() => {
          const { restarts } = records
          return record.isOpen(restarts) ? Effect.void : reopenKept(server, this.id, record).pipe(
            Effect.mapError(server.withVersions),
            Effect.tap(() => Effect.sync(() => record.open(restarts)))
          )
        }))
    )
  }

  /**
   * Sends a request about the thread on a connection on which it is open. If that connection ends before the request was sent, the
   * next one is used, once the thread is open there. A fiber that opens the thread knows one connection only, so no other fiber
   * waits while it waits for the next.
   */
  request<A>(
    server: AppServer["Service"],
    method: string,
    send: (server: Client, options: RequestOptions) => Effect.Effect<A, AppServerError>
  ): Effect.Effect<A, AppServerError> {
    let isSent = false
    const onSend = () => {
      isSent = true
    }
    const attempt: Effect.Effect<A, AppServerError> = Effect.suspend(() =>
      this.record.isClosed ? Effect.fail(this.closed(method)) : Effect.flatMap(
        server.connected,
        (requests) =>
          Effect.andThen(this.reopen(requests), send(requests, { onSend })).pipe(
            Effect.catchIf(({ reason }) => reason._tag === "ConnectionClosed" && !isSent, () => attempt)
          )
      )
    )
    return attempt
  }

  closed(method: string): AppServerError {
    return appServerError(
      new InvalidRequest({
        method,
        description: `the handle of thread ${this.id} was closed; open the thread again with codex.resumeThread`
      })
    )
  }
}

/** The threads that a program has opened itself, and still holds. */
export class OpenThreads {
  readonly records: ThreadRecords
  private readonly held = new Map<string, WeakRef<OpenThread>>()
  private readonly archived = new Set<string>()
  private readonly dropped = new FinalizationRegistry<string>((id) => {
    if (this.held.get(id)?.deref() === undefined) this.release(id)
  })

  constructor(records: ThreadRecords) {
    this.records = records
  }

  /** Follows the threads of a server, for as long as the scope lives. */
  listen(server: AppServer["Service"]): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.observe("thread/archived", (event) => {
        if (event.method !== "thread/archived") return
        if (this.held.has(event.params.threadId)) this.archived.add(event.params.threadId)
      }),
      server.observe("thread/deleted", (event) => {
        if (event.method === "thread/deleted") this.release(event.params.threadId)
      })
    ], { discard: true })
  }

  hold(thread: OpenThread): void {
    this.held.set(thread.id, new WeakRef(thread))
    this.archived.delete(thread.id)
    this.dropped.register(thread, thread.id)
  }

  has(id: string): boolean {
    return this.held.has(id)
  }

  get(id: string): OpenThread | undefined {
    return this.held.get(id)?.deref()
  }

  /** Does not open a thread again any more. Its settings stay known. */
  release(id: string): void {
    this.held.delete(id)
    this.archived.delete(id)
  }

  /** Those that are to be open. */
  all(): ReadonlyArray<OpenThread> {
    return [...this.held].flatMap(([id, thread]) => this.archived.has(id) ? [] : thread.deref() ?? [])
  }
}
