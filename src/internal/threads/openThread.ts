/** A thread that a program holds, and how it is opened again when the server has been restarted. */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import * as Semaphore from "effect/Semaphore"
import type { AppServer, RequestOptions, Requests } from "../../AppServer.ts"
import { type AppServerError, make as appServerError, SettingsNotApplied } from "../../AppServerError.ts"
import type * as Sandbox from "../../Sandbox.ts"
import { field } from "../connection/codec.ts"
import { requestThread, type ThreadOpened } from "./answers.ts"
import { covers } from "./approvalOptions.ts"

/** The rights of a thread, as the server says them. */
type Rights = Omit<ThreadOpened, "thread">

const modes: Readonly<Record<string, Sandbox.Mode>> = {
  dangerFullAccess: "danger-full-access",
  readOnly: "read-only",
  workspaceWrite: "workspace-write"
}

/** What a sandbox allows when it does not say. */
const sandboxDefaults = { networkAccess: false, writableRoots: [], excludeSlashTmp: false, excludeTmpdirEnvVar: false }

const isSameSandbox = (before: unknown, after: unknown): boolean =>
  Equal.equals({ ...sandboxDefaults, ...Object(before) }, { ...sandboxDefaults, ...Object(after) })

/** The first right that differs, if any does. */
const differenceOf = (before: Rights, after: Rights): SettingsNotApplied["setting"] | undefined => {
  const profile = field(before.activePermissionProfile, "id")
  if (before.approvalPolicy !== undefined && !covers(after.approvalPolicy, before.approvalPolicy)) {
    return "approvalPolicy"
  }
  if (before.approvalsReviewer !== undefined && before.approvalsReviewer !== after.approvalsReviewer) {
    return "approvalsReviewer"
  }
  if (profile !== field(after.activePermissionProfile, "id")) return "permissions"
  return before.sandbox !== undefined && !isSameSandbox(before.sandbox, after.sandbox) ? "sandbox" : undefined
}

export class OpenThread {
  readonly id: string
  private rights: Rights
  /** The restart of the server after which it was opened last. */
  private openedAfter: number
  private readonly reopening = Semaphore.makeUnsafe(1)

  constructor(opened: ThreadOpened, restarts: number) {
    const { thread, ...rights } = opened
    this.id = thread.id
    this.rights = rights
    this.openedAfter = restarts
  }

  /** A turn has changed the rights, for itself and for later ones. */
  change(
    { approvalPolicy, approvalsReviewer, permissions, sandboxPolicy }: {
      readonly approvalPolicy?: unknown
      readonly approvalsReviewer?: unknown
      readonly sandboxPolicy?: unknown
      readonly permissions?: unknown
    }
  ): void {
    this.rights = {
      ...this.rights,
      ...(Predicate.isNotNullish(approvalPolicy) ? { approvalPolicy } : {}),
      ...(Predicate.isNotNullish(approvalsReviewer) ? { approvalsReviewer } : {}),
      ...(Predicate.isNotNullish(sandboxPolicy) ? { sandbox: sandboxPolicy, activePermissionProfile: null } : {}),
      ...(Predicate.isNotNullish(permissions) ? { activePermissionProfile: { id: permissions } } : {})
    }
  }

  /** Opens the thread again, with the rights that it had, unless that was done since the last restart. */
  reopen(server: Requests, restarts: number): Effect.Effect<void, AppServerError> {
    return Effect.suspend(() =>
      this.openedAfter === restarts
        ? Effect.void
        : this.reopening.withPermit(Effect.suspend(() =>
          this.openedAfter === restarts ? Effect.void : Effect.tap(this.resume(server), () =>
            Effect.sync(() => {
              this.openedAfter = restarts
            }))
        ))
    )
  }

  /**
   * Sends a request about the thread on a connection on which it is open. If that ends before the request was sent, the next one is
   * used, once the thread is open there. Whoever opens it knows one connection only, and so never has others wait while it waits for
   * the next.
   */
  request<A>(
    server: AppServer["Service"],
    open: { readonly restarts: number },
    send: (server: Requests, options: RequestOptions) => Effect.Effect<A, AppServerError>
  ): Effect.Effect<A, AppServerError> {
    let isSent = false
    const onSend = () => {
      isSent = true
    }
    const attempt: Effect.Effect<A, AppServerError> = Effect.flatMap(
      server.connected,
      (requests) =>
        Effect.andThen(this.reopen(requests, open.restarts), send(requests, { onSend })).pipe(
          Effect.catchIf(({ reason }) => reason._tag === "ConnectionClosed" && !isSent, () => attempt)
        )
    )
    return attempt
  }

  private readonly resume = Effect.fnUntraced(function*(this: OpenThread, server: Requests) {
    const { activePermissionProfile, approvalPolicy, approvalsReviewer, sandbox } = this.rights
    const profile = field(activePermissionProfile, "id")
    const mode = modes[String(field(sandbox, "type"))]
    const request = requestThread(server, "thread/resume", {
      threadId: this.id,
      excludeTurns: true,
      ...(approvalPolicy === undefined ? {} : { approvalPolicy }),
      ...(approvalsReviewer === undefined ? {} : { approvalsReviewer }),
      ...(profile !== undefined ? { permissions: profile } : mode === undefined ? {} : { sandbox: mode })
    })
    let opened = yield* request
    // A stored thread remembers its sandbox, but not all of what that allows.
    if (differenceOf(this.rights, opened) === "sandbox") {
      yield* server.requestRaw("thread/settings/update", { threadId: this.id, sandboxPolicy: sandbox })
      opened = yield* request
    }
    const setting = differenceOf(this.rights, opened)
    if (setting === undefined) return
    const [requested, effective] = setting === "permissions"
      ? [this.rights.activePermissionProfile, opened.activePermissionProfile]
      : [this.rights[setting], opened[setting]]
    return yield* appServerError(
      new SettingsNotApplied({ method: "thread/resume", threadId: this.id, setting, requested, effective })
    )
  })
}

/** The threads that a program has opened itself, and still holds. One that it has dropped is not kept for it. */
export class OpenThreads {
  private readonly held = new Map<string, WeakRef<OpenThread>>()
  private readonly archived = new Set<string>()
  private readonly dropped = new FinalizationRegistry<string>((id) => {
    if (this.held.get(id)?.deref() === undefined) this.remove(id)
  })

  hold(thread: OpenThread): void {
    this.held.set(thread.id, new WeakRef(thread))
    this.archived.delete(thread.id)
    this.dropped.register(thread, thread.id)
  }

  has(id: string): boolean {
    return this.held.has(id)
  }

  /** The server has archived a thread, and with that closed it. */
  archive(id: string): void {
    if (this.held.has(id)) this.archived.add(id)
  }

  remove(id: string): void {
    this.held.delete(id)
    this.archived.delete(id)
  }

  /** Those that are to be open. */
  all(): ReadonlyArray<OpenThread> {
    return [...this.held].flatMap(([id, thread]) => this.archived.has(id) ? [] : thread.deref() ?? [])
  }
}
