/** A thread that a program holds, and how it is opened again when the server has been restarted. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { AppServer, RequestOptions, Requests } from "../../AppServer.ts"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type { ThreadOpened } from "./answers.ts"
import { type Opening, reopenKept, ThreadRecord } from "./keptSettings.ts"
import { completePolicy, movedRoots, type Requested, settingsOf, settingsOfUpdate } from "./threadSettings.ts"

export class OpenThread {
  readonly id: string
  readonly record: ThreadRecord
  /** The restart of the server after which it was opened last. */
  private openedAfter: number
  private readonly reopening = Semaphore.makeUnsafe(1)

  constructor(id: string, record: ThreadRecord, restarts: number) {
    this.id = id
    this.record = record
    this.openedAfter = restarts
  }

  /** Notes the settings that a turn was started with, which hold for later turns too. */
  change(params: Requested): void {
    const { settings } = this.record
    const { sandboxPolicy, permissions } = params
    this.record.settings = {
      ...settings,
      runtimeWorkspaceRoots: movedRoots(settings.runtimeWorkspaceRoots, settings.cwd, params.cwd),
      ...Object.fromEntries(
        ([
          "approvalPolicy",
          "approvalsReviewer",
          "model",
          "effort",
          "serviceTier",
          "cwd",
          "runtimeWorkspaceRoots"
        ] as const)
          .flatMap((name) => Predicate.isNotNullish(params[name]) ? [[name, params[name]]] : [])
      ),
      ...(Predicate.isNotNullish(sandboxPolicy)
        ? { sandboxPolicy: completePolicy(sandboxPolicy), activePermissionProfile: null }
        : {}),
      ...(Predicate.isNotNullish(permissions) ? { activePermissionProfile: { id: permissions } } : {})
    }
  }

  /** Opens the thread again, with the settings that it had, unless that was done since the last restart. */
  reopen(server: Requests, restarts: number): Effect.Effect<void, AppServerError> {
    return Effect.suspend(() =>
      this.openedAfter === restarts
        ? Effect.void
        : this.reopening.withPermit(Effect.suspend(() =>
          this.openedAfter === restarts
            ? Effect.void
            : reopenKept(server, this.id, this.record).pipe(
              Effect.mapError(server.withVersions),
              Effect.tap(() =>
                Effect.sync(() => {
                  this.openedAfter = restarts
                })
              )
            )
        ))
    )
  }

  /**
   * Sends a request about the thread on a connection on which it is open. If that connection ends before the request was sent, the
   * next one is used, once the thread is open there. A fiber that opens the thread knows one connection only, so no other fiber
   * waits while it waits for the next.
   */
  request<A>(
    server: AppServer["Service"],
    open: { readonly restarts: number },
    method: string,
    send: (server: Requests, options: RequestOptions) => Effect.Effect<A, AppServerError>
  ): Effect.Effect<A, AppServerError> {
    let isSent = false
    const onSend = () => {
      isSent = true
    }
    const attempt: Effect.Effect<A, AppServerError> = Effect.suspend(() =>
      this.record.isClosed ? Effect.fail(this.closed(method)) : Effect.flatMap(
        server.connected,
        (requests) =>
          Effect.andThen(this.reopen(requests, open.restarts), send(requests, { onSend })).pipe(
            Effect.catchIf(({ reason }) => reason._tag === "ConnectionClosed" && !isSent, () => attempt)
          )
      )
    )
    return attempt
  }

  private closed(method: string): AppServerError {
    return appServerError(
      new InvalidRequest({
        method,
        description: `the handle of thread ${this.id} was closed; open the thread again with codex.resumeThread`
      })
    )
  }
}

/** The threads that a program has opened itself. */
export class OpenThreads {
  /** Those that the program still holds. */
  private readonly held = new Map<string, WeakRef<OpenThread>>()
  /** What is known of all of them: a program may resume or fork a thread whose handle it has dropped. */
  private readonly records = new Map<string, ThreadRecord>()
  private readonly archived = new Set<string>()
  private readonly dropped = new FinalizationRegistry<string>((id) => {
    if (this.held.get(id)?.deref() === undefined) this.release(id)
  })

  /** Follows the threads of a server, for as long as the scope lives. */
  listen(server: AppServer["Service"]): Effect.Effect<void, never, Scope.Scope> {
    return Effect.all([
      server.observe("thread/settings/updated", (event) => {
        if (event.method === "thread/settings/updated") this.update(event.params)
      }),
      server.observe("thread/archived", (event) => {
        if (event.method !== "thread/archived") return
        // The server closes a thread that it archives.
        if (this.held.has(event.params.threadId)) this.archived.add(event.params.threadId)
      }),
      server.observe("thread/deleted", (event) => {
        if (event.method !== "thread/deleted") return
        this.release(event.params.threadId)
        this.records.delete(event.params.threadId)
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

  /** Notes the settings of a thread that the server has opened. */
  note(opened: ThreadOpened, opening: Opening): ThreadRecord {
    const { id } = opened.thread
    const settings = settingsOf(opened)
    const record = this.records.get(id) ?? new ThreadRecord(settings, opening)
    record.settings = settings
    record.opening = opening
    record.isClosed = false
    this.records.set(id, record)
    return record
  }

  recordOf(id: string): ThreadRecord | undefined {
    return this.records.get(id)
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

  private update({ threadId, threadSettings }: Protocol.ThreadSettingsUpdatedNotification): void {
    const record = this.records.get(threadId)
    if (record === undefined) return
    const { cwd, runtimeWorkspaceRoots } = record.settings
    record.settings = {
      ...settingsOfUpdate(threadSettings),
      runtimeWorkspaceRoots: movedRoots(runtimeWorkspaceRoots, cwd, threadSettings.cwd)
    }
  }
}
