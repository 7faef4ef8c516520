/** Opens threads with the settings that they had. Otherwise the server would use those of its configuration. */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import * as Struct from "effect/Struct"
import { type AppServerError, make as appServerError, SettingsNotApplied } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import { isTable } from "../../configTree.ts"
import type { ServerClient } from "../../connection/client.ts"
import { getOwn } from "../../getOwn.ts"
import type { Settings } from "../../threadSettings.ts"
import { withoutUndefined } from "../../withoutUndefined.ts"
import type { ReopenMethod } from "../settings/resolveOptions.ts"
import { type Config, hasKey, includesConfig, mergeConfig } from "../settings/threadConfig.ts"
import {
  customProfile,
  type Difference,
  findMismatch,
  fromOpened,
  getSandboxMode,
  type Instructions,
  type Requested
} from "../settings/threadSettings.ts"
import { requestThread, type ThreadOpened } from "./responses.ts"
import type { ThreadRecord } from "./threadRecords.ts"

interface Options extends Requested, Instructions {
  readonly config?: Config | null | undefined
}

/** The fields that keep settings, and the settings that the thread must have afterwards. */
interface Kept {
  readonly fields: Options
  readonly requested: Requested
}

const keptApprovals = (settings: Settings, { approvalPolicy, approvalsReviewer, config }: Options): Requested => ({
  approvalPolicy: approvalPolicy ??
    (hasKey(config, "approval_policy")
      ? undefined
      : settings.approvalPolicy as Protocol.AskForApprovalParam | undefined),
  approvalsReviewer: approvalsReviewer ??
    (hasKey(config, "approvals_reviewer")
      ? undefined
      : settings.approvalsReviewer as Protocol.ApprovalsReviewerParam | undefined)
})

type WorkspaceWrite = Extract<Protocol.SandboxPolicyParam, { type: "workspaceWrite" }>

/** The details of a `workspaceWrite` policy, by their names in the configuration. A mode does not contain them. */
const details = {
  writable_roots: "writableRoots",
  network_access: "networkAccess",
  exclude_tmpdir_env_var: "excludeTmpdirEnvVar",
  exclude_slash_tmp: "excludeSlashTmp"
} as const satisfies Record<string, keyof WorkspaceWrite>

const detailNames = Struct.keys(details)

/** Returns a `workspaceWrite` policy with the details that a `config` replaces. */
const withDetails = (policy: WorkspaceWrite, config: Config | null | undefined): WorkspaceWrite => {
  const given = config?.["sandbox_workspace_write"]
  return {
    ...policy,
    ...Object.fromEntries(
      detailNames.flatMap((name) => isTable(given) && given[name] !== undefined ? [[details[name], given[name]]] : [])
    )
  }
}

const toConfig = (policy: WorkspaceWrite): Config => ({
  sandbox_workspace_write: Object.fromEntries(detailNames.map((name) => [name, policy[details[name]]]))
})

const keptSandbox = ({ activePermissionProfile, sandboxPolicy }: Settings, options: Options): Kept => {
  const { config, permissions, sandbox } = options
  if (sandboxPolicy === undefined) return { fields: {}, requested: { permissions, sandbox } }
  const mode = getSandboxMode(sandboxPolicy)
  const profile = customProfile(activePermissionProfile?.id)
  const given = sandbox ?? config?.["sandbox_mode"]
  const isOther = Predicate.isNotNullish(permissions) || hasKey(config, "default_permissions") ||
    Predicate.isNotNullish(given) && (profile !== undefined || given !== mode)
  if (isOther) return { fields: {}, requested: { permissions, sandbox } }
  const kept = sandboxPolicy as Protocol.SandboxPolicyParam
  if (profile !== undefined) {
    return { fields: { permissions: profile }, requested: { permissions: profile, sandboxPolicy: kept } }
  }
  if (kept.type !== "workspaceWrite") return { fields: { sandbox: mode }, requested: { sandboxPolicy: kept } }
  const policy = withDetails(kept, config)
  return { fields: { sandbox: mode, config: toConfig(policy) }, requested: { sandboxPolicy: policy } }
}

/** Returns the model and its settings. A stored thread keeps them, and a fork does not. */
const keptModel = ({ effort, model, modelProvider, serviceTier }: Settings, options: Options): Options => {
  const isGiven = Predicate.isNotNullish(options.model) || Predicate.isNotNullish(options.modelProvider)
  const keepsEffort = Predicate.isNotNullish(effort) && !isGiven && !hasKey(options.config, "model_reasoning_effort")
  return {
    ...(isGiven ? {} : { model, modelProvider }),
    ...(Predicate.isNotNullish(options.serviceTier) ? {} : { serviceTier }),
    ...(keepsEffort ? { config: { model_reasoning_effort: effort } } : {})
  }
}

/** Returns the fields that resume or fork a known thread with the settings that it had, or with those in the options. */
const keep = (
  method: ReopenMethod,
  { config: opened, settings }: ThreadRecord,
  options: Options
): Kept => {
  const approvals = keptApprovals(settings, options)
  const sandbox = keptSandbox(settings, options)
  const { config, ...model }: Options = method === "thread/fork" ? keptModel(settings, options) : {}
  return {
    fields: withoutUndefined({
      ...options,
      ...withoutUndefined({ ...approvals, ...sandbox.fields, ...model }),
      config: mergeConfig(opened, sandbox.fields.config, config, options.config)
    }),
    requested: { ...options, ...withoutUndefined({ ...approvals, ...model, ...sandbox.requested }) }
  }
}

/** Makes the error for a setting that the server did not apply. */
export const notApplied = (method: string, threadId: string, difference: Difference): AppServerError =>
  appServerError(new SettingsNotApplied({ method, threadId, ...difference }))

/** Fails if a thread does not have the settings that were requested. */
export const verifySettings = (
  method: string,
  threadId: string,
  requested: Requested,
  effective: Settings
): Effect.Effect<void, AppServerError> => {
  const difference = findMismatch(requested, effective)
  return difference === undefined ? Effect.void : Effect.fail(notApplied(method, threadId, difference))
}

/** Changes the settings of an open thread, and returns its settings afterwards. */
const updateSettings = (
  server: ServerClient,
  threadId: string,
  changes: Omit<Protocol.ThreadSettingsUpdateParams, "threadId">
): Effect.Effect<ThreadOpened, AppServerError> =>
  Effect.andThen(
    server.requestRaw("thread/settings/update", { ...changes, threadId }),
    requestThread(server, "thread/resume", { threadId, excludeTurns: true })
  )

/** Restores the settings of a thread, as far as possible. */
export const restoreSettings = (
  server: ServerClient,
  threadId: string,
  { activePermissionProfile, approvalPolicy, approvalsReviewer, cwd, effort, model, sandboxPolicy, serviceTier }:
    Settings
): Effect.Effect<void> => {
  const permissions = customProfile(activePermissionProfile?.id)
  const settings = withoutUndefined({
    threadId,
    approvalPolicy,
    approvalsReviewer,
    ...(permissions === undefined ? { sandboxPolicy } : { permissions }),
    cwd,
    effort,
    model,
    serviceTier
  })
  return Effect.ignore(server.requestRaw("thread/settings/update", settings, { timeout: "5 seconds" }))
}

/** Retries while the server is unloading the thread, as after `thread.close`: it refuses to open the thread meanwhile. */
const retryWhileClosing = <A>(open: Effect.Effect<A, AppServerError>): Effect.Effect<A, AppServerError> =>
  Effect.retry(open, {
    while: ({ reason }) => reason._tag === "RequestRejected" && reason.detail.includes("is closing; retry"),
    schedule: Schedule.exponential("10 millis").pipe(Schedule.upTo({ duration: "10 seconds" }))
  })

/**
 * Resumes or forks a thread. A thread with a record keeps its settings, unless the options contain others. Fails if the thread has other
 * settings afterwards. A sandbox without a mode is applied with `thread/settings/update`.
 */
export const openKept = Effect.fnUntraced(function*(
  server: ServerClient,
  { id, method, options, record }: {
    readonly method: ReopenMethod
    readonly id: string
    readonly record: ThreadRecord | undefined
    readonly options: Options
  }
): Effect.fn.Return<ThreadOpened, AppServerError> {
  const { fields, requested } = record === undefined
    ? { fields: options, requested: options }
    : keep(method, record, options)
  const opened = yield* retryWhileClosing(
    requestThread(server, method, { ...fields, threadId: id, excludeTurns: true })
  )
  const threadId = opened.thread.id
  const difference = findMismatch(requested, fromOpened(opened))
  if (difference === undefined) return opened
  const error = notApplied(method, threadId, difference)
  const { sandboxPolicy } = requested
  if (difference.setting !== "sandbox" || Predicate.isNullish(sandboxPolicy)) return yield* error
  const updated = yield* Effect.catchReason(
    updateSettings(server, threadId, { sandboxPolicy }),
    "AppServerError",
    "RequestRejected",
    () => Effect.fail(error)
  )
  yield* verifySettings(method, threadId, requested, fromOpened(updated))
  return updated
})

/**
 * Stores a thread that has had no turn. The server cannot resume it otherwise, although a server that has outlived its connection has loaded
 * it. The server stores the item, which has an unknown type, and does not send it to the model.
 */
const store = (server: ServerClient, threadId: string): Effect.Effect<unknown, AppServerError> =>
  server.requestRaw("thread/inject_items", { threadId, items: [{ type: "effect_codex_stored" }] })

/** Opens a known thread again with its settings, including its model. */
export const reopenKept = Effect.fnUntraced(function*(
  server: ServerClient,
  id: string,
  record: ThreadRecord
): Effect.fn.Return<ThreadOpened, AppServerError> {
  const open = openKept(server, { method: "thread/resume", id, record, options: {} })
  const opened = yield* Effect.catchIf(
    open,
    ({ reason }) => reason._tag === "ThreadNotFound" && reason.state === "unknown",
    (error) => Effect.andThen(Effect.mapError(store(server, id), () => error), open)
  )
  const { cwd, effort, model, modelProvider, serviceTier } = record.settings
  const changes = { cwd, effort, model, serviceTier }
  const effective = fromOpened(opened)
  const isSame = Equal.equals(changes, {
    cwd: effective.cwd,
    effort: effective.effort,
    model: effective.model,
    serviceTier: effective.serviceTier
  })
  const updated = isSame ? opened : yield* Effect.catchReason(
    updateSettings(server, id, withoutUndefined(changes)),
    "AppServerError",
    "RequestRejected",
    () => Effect.succeed(opened)
  )
  yield* verifySettings("thread/resume", id, { cwd, model, modelProvider }, fromOpened(updated))
  return updated
})

/** Fails if a thread that was opened without its settings has other settings than its record. */
export const verifyKept = (
  effective: Settings,
  { method, options, record, threadId }: {
    readonly method: ReopenMethod
    readonly threadId: string
    readonly record: ThreadRecord
    readonly options: Options
  }
): Effect.Effect<void, AppServerError> =>
  verifySettings(method, threadId, keep(method, record, options).requested, effective)

/** The options of a resume that the server does not report, and ignores if it has loaded the thread. */
const ignoredOptions = ["baseInstructions", "developerInstructions", "personality"] as const

/** Fails, without a change of the thread, if the server would ignore options of a resume. `before` are those it was opened with. */
export const refuseIgnored = Effect.fnUntraced(function*(
  server: ServerClient,
  id: string,
  options: Options,
  before: { readonly config: Config | undefined; readonly instructions: Instructions | undefined }
): Effect.fn.Return<void, AppServerError> {
  const setting = includesConfig(before.config, options.config)
    ? ignoredOptions.find((name) =>
      Predicate.isNotNullish(options[name]) && options[name] !== before.instructions?.[name]
    )
    : "config"
  if (setting === undefined) return
  const read = yield* Effect.orElseSucceed(server.requestRaw("thread/read", { threadId: id }), () => undefined)
  const status = getOwn(getOwn(getOwn(read, "thread"), "status"), "type")
  if (!Predicate.isString(status) || status === "notLoaded") return
  // The values may contain instructions and tokens, so the error does not repeat them.
  return yield* notApplied("thread/resume", id, { setting, requested: undefined, effective: undefined })
})
