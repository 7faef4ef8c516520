/** The records of the threads that this program has opened, across restarts of the server. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Protocol from "../../../Protocol.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { fromUpdate, type Settings } from "../../threadSettings.ts"
import type { Config } from "../settings/threadConfig.ts"
import {
  completePolicy,
  fromOpened,
  type Instructions,
  movedRoots,
  type Requested
} from "../settings/threadSettings.ts"
import type { ThreadOpened } from "./responses.ts"

/** The restart generation of a thread that is not open on any connection. */
const neverOpened = -1

export class ThreadRecord {
  readonly id: string
  settings: Settings
  /** The `config` that the thread was opened with, which the server does not store. */
  config: Config | undefined
  /** The instructions that the thread was opened with, which the server does not report. */
  instructions: Instructions = {}
  /** The restart generation in which the thread was last opened. */
  private openedIn: number
  /** Whether the program closed the thread. The server sends no events of it until it is resumed. */
  isClosed = false
  /** Why the thread cannot be used. `undefined` if it can. */
  gone: "archived" | "deleted" | undefined
  /** The lock for opening the thread again. */
  readonly reopening = Semaphore.makeUnsafe(1)
  /** The lock for starting a turn with a key. */
  readonly keyedStart = Semaphore.makeUnsafe(1)
  /** The running turns that this program started with a key: their ids, by the id of the input. */
  readonly keyedTurns = new Map<string, string>()
  /** Called when the program has closed the thread, or the thread was deleted: the server sends no more events of it. */
  readonly onEnd = new Set<() => void>()

  constructor(id: string, settings: Settings, config: Config | undefined, openedIn: number) {
    this.id = id
    this.settings = settings
    this.config = config
    this.openedIn = openedIn
  }

  isOpen(generation: number): boolean {
    return this.openedIn === generation
  }

  open(generation: number): void {
    this.openedIn = generation
    this.isClosed = false
    this.gone = undefined
  }

  /** Ends the streams of the thread. */
  end(): void {
    for (const callback of this.onEnd) callback()
  }

  /** Notes that the server may have loaded the thread with other settings. It is opened again before it is used. */
  unload(): void {
    this.openedIn = neverOpened
  }

  /**
   * Notes the settings that a turn was started with, which also hold for later turns. If the server has reported them, notes only the
   * workspace roots, which it does not report.
   */
  applyTurnSettings(params: Requested, isReported: boolean): void {
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
type Updates = ReadonlyMap<string, Settings>

export class ThreadRecords {
  /** The restart generation: the number of restarts of the server. */
  generation = 0
  private readonly records = new Map<string, ThreadRecord>()
  private readonly collecting = new Set<Map<string, Settings>>()

  get(id: string): ThreadRecord | undefined {
    return this.records.get(id)
  }

  /** Returns the ids of all threads that this program has opened. */
  ids(): ReadonlyArray<string> {
    return [...this.records.keys()]
  }

  /**
   * Runs an effect that opens a thread, with the settings that the server reports meanwhile. A notification may arrive before the fiber
   * of the response resumes.
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
    const record = this.records.get(id) ?? new ThreadRecord(id, fromOpened(opened), config, this.generation)
    record.settings = fromOpened(opened)
    const update = updates.get(id)
    if (update !== undefined) record.update(update)
    record.config = config
    record.open(this.generation)
    this.records.set(id, record)
    return record
  }

  /** Follows the threads of a server, until the scope closes. */
  listen(server: ServerConnection): Effect.Effect<void, never, Scope.Scope> {
    const withRecord = (id: string, change: (record: ThreadRecord) => void) => {
      const record = this.records.get(id)
      if (record !== undefined) change(record)
    }
    return Effect.all([
      server.addNotificationHandler("thread/settings/updated", (params) => this.update(params)),
      server.addNotificationHandler(
        "thread/closed",
        ({ threadId }) => withRecord(threadId, (record) => record.unload())
      ),
      server.addNotificationHandler("thread/archived", ({ threadId }) =>
        withRecord(threadId, (record) => {
          record.unload()
          record.gone = "archived"
        })),
      server.addNotificationHandler("thread/unarchived", ({ threadId }) =>
        withRecord(threadId, (record) => {
          record.gone = undefined
        })),
      server.addNotificationHandler("thread/status/changed", ({ status, threadId }) => {
        if (status.type === "notLoaded") withRecord(threadId, (record) => record.unload())
      }),
      server.addNotificationHandler("thread/deleted", ({ threadId }, batch) => {
        withRecord(threadId, (record) => {
          record.gone = "deleted"
          batch.afterBatch(() => record.end())
        })
        this.records.delete(threadId)
      })
    ], { discard: true })
  }

  private update({ threadId, threadSettings }: Protocol.ThreadSettingsUpdatedNotification): void {
    const settings = fromUpdate(threadSettings)
    for (const updates of this.collecting) updates.set(threadId, settings)
    this.records.get(threadId)?.update(settings)
  }
}
