/** Keeps the settings of threads that this program has opened, where the server would take others from its configuration. */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import type { Requests } from "../../AppServer.ts"
import { type AppServerError, make as appServerError, SettingsNotApplied } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import { field } from "../connection/codec.ts"
import { requestThread, type ThreadOpened } from "./answers.ts"
import { type Config, hasKey, includesConfig, mergeConfig } from "./threadConfig.ts"
import {
  customProfile,
  type Difference,
  differenceOf,
  isAbsolute,
  isSamePath,
  modeOf,
  movedRoots,
  type Requested,
  type Settings,
  settingsOf
} from "./threadSettings.ts"

/** What a thread was opened with that the server does not report. */
export interface Opening {
  readonly config?: Config | null | undefined
  readonly baseInstructions?: string | null | undefined
  readonly developerInstructions?: string | null | undefined
  readonly personality?: Protocol.PersonalityParam | null | undefined
}

/** What is known of a thread, for as long as the connection lives. */
export class ThreadRecord {
  settings: Settings
  opening: Opening
  /** A handle was closed: the server sends no more events of the thread, until the thread is resumed. */
  isClosed = false

  constructor(settings: Settings, opening: Opening) {
    this.settings = settings
    this.opening = opening
  }
}

/** The opening of a thread that was opened with these options, on top of an earlier opening. */
export const openingOf = (
  { baseInstructions, config, developerInstructions, personality }: Opening,
  before: Opening = {}
): Opening => ({
  config: mergeConfig(before.config, config),
  baseInstructions: baseInstructions ?? before.baseInstructions,
  developerInstructions: developerInstructions ?? before.developerInstructions,
  personality: personality ?? before.personality
})

interface Options extends Requested, Opening {}

/** The fields that are sent to keep settings, and the settings that the thread must have then. */
interface Kept {
  readonly fields: Options
  readonly requested: Requested
}

/** The details of `workspace-write`, which a mode does not have, as the configuration names them. */
const sandboxConfig = (policy: Protocol.SandboxPolicy): Config | undefined =>
  policy.type !== "workspaceWrite" ? undefined : {
    sandbox_workspace_write: {
      writable_roots: policy.writableRoots ?? [],
      network_access: policy.networkAccess ?? false,
      exclude_tmpdir_env_var: policy.excludeTmpdirEnvVar ?? false,
      exclude_slash_tmp: policy.excludeSlashTmp ?? false
    }
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

const keptSandbox = ({ activePermissionProfile, sandboxPolicy }: Settings, options: Options): Kept => {
  const { config, permissions, sandbox } = options
  const isGiven = Predicate.isNotNullish(sandbox) || Predicate.isNotNullish(permissions) ||
    hasKey(config, "sandbox_mode") || hasKey(config, "default_permissions")
  if (isGiven || sandboxPolicy === undefined) return { fields: {}, requested: { permissions, sandbox } }
  const policy = sandboxPolicy as Protocol.SandboxPolicyParam
  const profile = customProfile(activePermissionProfile?.id)
  if (profile !== undefined) {
    return { fields: { permissions: profile }, requested: { permissions: profile, sandboxPolicy: policy } }
  }
  const mode = modeOf(sandboxPolicy)
  return hasKey(config, "sandbox_workspace_write")
    ? { fields: { sandbox: mode }, requested: { sandbox: mode } }
    : { fields: { sandbox: mode, config: sandboxConfig(sandboxPolicy) }, requested: { sandboxPolicy: policy } }
}

/** The model and its settings, which a stored thread keeps by itself, and a fork does not. */
const keptModel = ({ effort, model, modelProvider, serviceTier }: Settings, options: Options): Options => {
  const isGiven = Predicate.isNotNullish(options.model) || Predicate.isNotNullish(options.modelProvider)
  const keepsEffort = Predicate.isNotNullish(effort) && !isGiven && !hasKey(options.config, "model_reasoning_effort")
  return {
    ...(isGiven ? {} : { model, modelProvider }),
    ...(Predicate.isNotNullish(options.serviceTier) ? {} : { serviceTier }),
    ...(keepsEffort ? { config: { model_reasoning_effort: effort } } : {})
  }
}

const withoutUndefined = <A extends object>(fields: A): A =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as A

/** The fields with which a known thread is resumed or forked, so that it has the settings that it had, or those in the options. */
const keep = (
  method: "thread/resume" | "thread/fork",
  { opening, settings }: ThreadRecord,
  options: Options
): Kept => {
  const approvals = keptApprovals(settings, options)
  const sandbox = keptSandbox(settings, options)
  const { config, ...model } = method === "thread/fork" ? keptModel(settings, options) : {} as Options
  return {
    fields: withoutUndefined({
      ...options,
      ...withoutUndefined({ ...approvals, ...sandbox.fields, ...model }),
      config: mergeConfig(opening.config, sandbox.fields.config, config, options.config)
    }),
    requested: { ...options, ...withoutUndefined({ ...approvals, ...model, ...sandbox.requested }) }
  }
}

/** The error for a setting that the server did not apply. */
export const notApplied = (method: string, threadId: string, difference: Difference): AppServerError =>
  appServerError(new SettingsNotApplied({ method, threadId, ...difference }))

/** Fails if a thread does not have the settings that were requested. */
export const verifySettings = (
  method: string,
  threadId: string,
  requested: Requested,
  effective: Settings
): Effect.Effect<void, AppServerError> => {
  const difference = differenceOf(requested, effective)
  return difference === undefined ? Effect.void : Effect.fail(notApplied(method, threadId, difference))
}

/** Changes the settings of an open thread, and returns those that it has then. */
const updateSettings = (
  server: Requests,
  threadId: string,
  changes: Omit<Protocol.ThreadSettingsUpdateParams, "threadId">
): Effect.Effect<ThreadOpened, AppServerError> =>
  Effect.andThen(
    server.requestRaw("thread/settings/update", { ...changes, threadId }),
    requestThread(server, "thread/resume", { threadId, excludeTurns: true })
  )

/**
 * Resumes or forks a thread: one that is known with the settings that it has, unless the options give others. Fails if the thread
 * has other settings afterwards. A sandbox that has no mode is applied with `thread/settings/update`.
 */
export const openKept = Effect.fnUntraced(function*(
  server: Requests,
  method: "thread/resume" | "thread/fork",
  id: string,
  record: ThreadRecord | undefined,
  options: Options
): Effect.fn.Return<ThreadOpened, AppServerError> {
  const { fields, requested } = record === undefined
    ? { fields: options, requested: options }
    : keep(method, record, options)
  const opened = yield* requestThread(server, method, { ...fields, threadId: id, excludeTurns: true })
  const threadId = opened.thread.id
  const difference = differenceOf(requested, settingsOf(opened))
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
  yield* verifySettings(method, threadId, requested, settingsOf(updated))
  return updated
})

/** Opens a known thread again as it was, with its model too. */
export const reopenKept = Effect.fnUntraced(function*(
  server: Requests,
  id: string,
  record: ThreadRecord
): Effect.fn.Return<void, AppServerError> {
  const opened = yield* openKept(server, "thread/resume", id, record, {})
  const { cwd, effort, model, modelProvider, serviceTier } = record.settings
  const changes = { cwd, effort, model, serviceTier }
  const effective = settingsOf(opened)
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
  yield* verifySettings("thread/resume", id, { cwd, model, modelProvider }, settingsOf(updated))
})

/** Fails if a known thread was opened in a way that does not send its settings, and has others then. */
export const verifyKept = (
  method: "thread/resume" | "thread/fork",
  threadId: string,
  record: ThreadRecord,
  options: Options,
  effective: Settings
): Effect.Effect<void, AppServerError> =>
  verifySettings(method, threadId, keep(method, record, options).requested, effective)

/**
 * The params of a turn, with workspace roots that make its sandbox policy hold: the server adds the workspace roots of the thread to
 * the writable roots of a policy.
 */
export const withExactRoots = (
  { settings }: ThreadRecord,
  experimentalApi: boolean,
  params: Protocol.TurnStartParams
): Effect.Effect<Protocol.TurnStartParams, AppServerError> => {
  const { sandboxPolicy, threadId } = params
  const known = settings.runtimeWorkspaceRoots
  if (sandboxPolicy?.type !== "workspaceWrite" || Predicate.isNotNullish(params.runtimeWorkspaceRoots)) {
    return Effect.succeed(params)
  }
  const cwd = params.cwd ?? settings.cwd
  const current = movedRoots(known, settings.cwd, cwd) ?? []
  const allowed = [cwd, ...sandboxPolicy.writableRoots ?? []].filter(Predicate.isNotNullish)
  const kept = current.filter((root) => allowed.some((path) => isSamePath(root, path)))
  if (known === undefined || kept.length === current.length) return Effect.succeed(params)
  // Without a root the server reports the temporary folders as writable roots instead of as the flags of the policy.
  const roots = kept.length === 0 && cwd !== undefined ? [cwd] : kept
  return experimentalApi
    ? Effect.succeed({ ...params, runtimeWorkspaceRoots: roots })
    : Effect.fail(notApplied("turn/start", threadId, {
      setting: "sandbox",
      requested: sandboxPolicy,
      effective: { ...sandboxPolicy, writableRoots: [...new Set([...sandboxPolicy.writableRoots ?? [], ...known])] }
    }))
}

/** The options of a resume that the server ignores if it has loaded the thread, and does not report. */
const unreported = ["config", "baseInstructions", "developerInstructions", "personality"] as const

/** Fails if options of a resume would be ignored. Nothing is changed then. */
export const refuseIgnored = Effect.fnUntraced(function*(
  server: Requests,
  id: string,
  record: ThreadRecord | undefined,
  options: Opening
): Effect.fn.Return<void, AppServerError> {
  const setting = unreported.find((name) =>
    Predicate.isNotNullish(options[name]) && (name === "config"
      ? !includesConfig(record?.opening.config, options.config)
      : !Equal.equals(options[name], record?.opening[name]))
  )
  if (setting === undefined) return
  const read = yield* Effect.orElseSucceed(server.requestRaw("thread/read", { threadId: id }), () => undefined)
  const status = field(field(field(read, "thread"), "status"), "type")
  if (!Predicate.isString(status) || status === "notLoaded") return
  // These hold instructions and tokens, so the error does not repeat them.
  return yield* notApplied("thread/resume", id, { setting, requested: undefined, effective: undefined })
})
