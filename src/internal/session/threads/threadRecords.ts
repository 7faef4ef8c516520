/** What this program knows of the threads that it has opened, for as long as the connection to their server lives. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import type { AppServer, Client } from "../../../AppServer.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { Config } from "../settings/threadConfig.ts"
import {
  completePolicy,
  fromOpened,
  fromUpdate,
  movedRoots,
  type Requested,
  type Settings
} from "../settings/threadSettings.ts"
import type { ThreadOpened } from "./responses.ts"

/** The number of no restart: the thread is not open on any connection. */
const neverOpened = -1

export class ThreadRecord {
  settings: Settings
  /** The `config` that the thread was opened with, which the server does not store. */
  config: Config | undefined
  /** The restart of the server after which the thread was opened last. */
  private openedAfter: number
  /** A handle was closed: the server sends no more events of the thread, until the thread is resumed. */
  isClosed = false
  /** What became of the thread, if it can no longer be used as it is. */
  gone: "archived" | "deleted" | undefined

  constructor(settings: Settings, config: Config | undefined, openedAfter: number) {
    this.settings = settings
    this.config = config
    this.openedAfter = openedAfter
  }

  isOpen(restarts: number): boolean {
    return this.openedAfter === restarts
  }

  open(restarts: number): void {
    this.openedAfter = restarts
    this.isClosed = false
    this.gone = undefined
  }

  /** The server may have loaded the thread without its settings since, or may do so. It is opened again before it is used. */
  unload(): void {
    this.openedAfter = neverOpened
  }

  /**
   * Notes the settings that a turn was started with, which hold for later turns too. If the server has reported them, only the
   * workspace roots are noted, which it does not report.
   */
  change(params: Requested, isReported: boolean): void {
    const { settings } = this
    const roots = params.runtimeWorkspaceRoots
    if (isReported) {
      if (Predicate.isNotNullish(roots)) this.settings = { ...settings, runtimeWorkspaceRoots: roots }
      return
    }
    const { cwd, permissions, sandboxPolicy } = params
    const names = ["approvalPolicy", "approvalsReviewer", "model", "effort", "serviceTier", "cwd"] as const
    this.settings = {
      ...settings,
      ...Object.fromEntries(
        names.flatMap((name) => Predicate.isNotNullish(params[name]) ? [[name, params[name]]] : [])
      ),
      runtimeWorkspaceRoots: roots ??
        movedRoots(settings.runtimeWorkspaceRoots, settings.cwd, cwd),
      ...(Predicate.isNotNullish(sandboxPolicy)
        ? { sandboxPolicy: completePolicy(sandboxPolicy), activePermissionProfile: null }
        : {}),
      ...(Predicate.isNotNullish(permissions) ? { activePermissionProfile: { id: permissions } } : {})
    }
  }

  update(reported: Settings): void {
    const { cwd, runtimeWorkspaceRoots } = this.settings
    this.settings = { ...reported, runtimeWorkspaceRoots: movedRoots(runtimeWorkspaceRoots, cwd, reported.cwd) }
  }
}

/** The settings that the server reported while a thread was being opened, by thread. */
export type Updates = ReadonlyMap<string, Settings>

export class ThreadRecords {
  /** How often the server was restarted. */
  restarts = 0
  private restartedWith: Client | undefined
  private readonly records = new Map<string, ThreadRecord>()
  private readonly collecting = new Set<Map<string, Settings>>()

  get(id: string): ThreadRecord | undefined {
    return this.records.get(id)
  }

  /** Called once or more after each restart, with what sends requests to the new server. */
  restart(requests: Client): void {
    if (this.restartedWith === requests) return
    this.restartedWith = requests
    this.restarts++
  }

  /**
   * Runs an effect that opens a thread, with the settings that are reported meanwhile: a notification may overtake the fiber that the
   * response resumes.
   */
  collect<A, E, R>(open: (updates: Updates) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      const updates = new Map<string, Settings>()
      this.collecting.add(updates)
      return Effect.ensuring(open(updates), Effect.sync(() => this.collecting.delete(updates)))
    })
  }

  /** Notes the settings of a thread that the server has opened. */
  note(opened: ThreadOpened, updates: Updates, config: Config | undefined): ThreadRecord {
    const { id } = opened.thread
    const record = this.records.get(id) ?? new ThreadRecord(fromOpened(opened), config, this.restarts)
    record.settings = fromOpened(opened)
    const update = updates.get(id)
    if (update !== undefined) record.update(update)
    record.config = config
    record.open(this.restarts)
    this.records.set(id, record)
    return record
  }

  private readonly listen = (server: AppServer["Service"]): Effect.Effect<void, never, Scope.Scope> =>
    Effect.all([
      server.observe("thread/settings/updated", (event) => {
        if (event.method === "thread/settings/updated") this.update(event.params)
      }),
      server.observe("thread/closed", (event) => {
        if (event.method === "thread/closed") this.records.get(event.params.threadId)?.unload()
      }),
      server.observe("thread/archived", (event) => {
        if (event.method !== "thread/archived") return
        const record = this.records.get(event.params.threadId)
        record?.unload()
        if (record !== undefined) record.gone = "archived"
      }),
      server.observe("thread/unarchived", (event) => {
        if (event.method !== "thread/unarchived") return
        const record = this.records.get(event.params.threadId)
        if (record !== undefined) record.gone = undefined
      }),
      server.observe("thread/status/changed", (event) => {
        if (event.method !== "thread/status/changed" || event.params.status.type !== "notLoaded") return
        this.records.get(event.params.threadId)?.unload()
      }),
      server.observe("thread/deleted", (event) => {
        if (event.method !== "thread/deleted") return
        const record = this.records.get(event.params.threadId)
        if (record !== undefined) record.gone = "deleted"
        this.records.delete(event.params.threadId)
      }),
      server.onRestart((requests) => Effect.sync(() => this.restart(requests)))
    ], { discard: true })

  private update({ threadId, threadSettings }: Protocol.ThreadSettingsUpdatedNotification): void {
    const settings = fromUpdate(threadSettings)
    for (const updates of this.collecting) updates.set(threadId, settings)
    this.records.get(threadId)?.update(settings)
  }

  private static readonly all = new WeakMap<AppServer["Service"], ThreadRecords>()

  /**
   * The records of a server. They outlive the layers of `Codex` on it, as the threads do: a layer that is built later must not widen
   * the permissions of a thread that an earlier one has opened.
   */
  static readonly of = (server: AppServer["Service"]): Effect.Effect<ThreadRecords> =>
    Effect.suspend(() => {
      const existing = ThreadRecords.all.get(server)
      if (existing !== undefined) return Effect.succeed(existing)
      const records = new ThreadRecords()
      ThreadRecords.all.set(server, records)
      // Never closed: the observers are released with the server.
      return Effect.as(Scope.provide(records.listen(server), Scope.makeUnsafe()), records)
    })
}
