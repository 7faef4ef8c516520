/** The settings that the turns of a thread run with, and how requests change them. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Protocol from "../../../Protocol.ts"
import { configTree } from "../../configTree.ts"
import { reject, type Rejection } from "./methods.ts"

/** The working directory of threads and commands that name none. */
const workspace = "/workspace"

export interface Settings {
  readonly cwd: string
  readonly roots: ReadonlyArray<string>
  readonly model: string
  readonly effort: string | null
  readonly summary: string | null
  readonly serviceTier: string | null
  readonly approvalPolicy: Protocol.AskForApproval
  readonly approvalsReviewer: string
  readonly sandbox: Protocol.SandboxPolicyParam
}

/** The params that `thread/start`, `thread/fork` and `thread/resume` share. */
export type OpenParams = Pick<
  Protocol.ThreadStartParams,
  | "approvalPolicy"
  | "approvalsReviewer"
  | "config"
  | "cwd"
  | "ephemeral"
  | "model"
  | "runtimeWorkspaceRoots"
  | "sandbox"
  | "serviceTier"
>

/** The params of `turn/start` and `thread/settings/update` that change settings. */
export type OverrideParams = Omit<Protocol.TurnStartParams, "threadId" | "input">

export const model: Protocol.Model = {
  id: "fake-model",
  model: "fake-model",
  displayName: "Fake",
  description: "A scripted model",
  hidden: false,
  isDefault: true,
  supportedReasoningEfforts: [{ reasoningEffort: "medium", description: "Medium" }],
  defaultReasoningEffort: "medium"
}

/** The configuration of the fake, as `config.toml` would have it. */
export const configuration = {
  model: model.model,
  model_provider: "fake",
  model_reasoning_effort: null,
  approval_policy: "on-request",
  approvals_reviewer: null,
  sandbox_mode: "read-only",
  sandbox_workspace_write: null
} as const satisfies Protocol.Config

/** Reads the `config` of a request as one tree. */
export const readConfig = ({ config }: OpenParams): Effect.Effect<Protocol.Config, Rejection> =>
  Effect.try(() => configTree(config ?? {})).pipe(
    Effect.catch(({ cause }) => reject(`failed to load configuration: ${describeError(cause)}`)),
    Effect.flatMap((tree) =>
      Effect.catch(
        Schema.decodeEffect(Protocol.Config)(tree),
        ({ message }) => reject(`failed to load configuration: ${message}`)
      )
    )
  )

const describeError = (error: unknown): string => Predicate.isError(error) ? error.message : String(error)

const toReviewer = (name: string): string => name === "guardian_subagent" ? "auto_review" : name

// The wire has no `undefined`, which is all that the sent type allows more than the received one.
const toApprovalPolicy = (policy: Protocol.AskForApprovalParam) => policy as Protocol.AskForApproval

const toSandboxPolicy = (mode: string, config: Protocol.Config): Protocol.SandboxPolicyParam => {
  const details = config.sandbox_workspace_write
  switch (mode) {
    case "danger-full-access":
      return { type: "dangerFullAccess" }
    case "workspace-write":
      return {
        type: "workspaceWrite",
        writableRoots: details?.writable_roots ?? [],
        networkAccess: details?.network_access ?? false,
        excludeTmpdirEnvVar: details?.exclude_tmpdir_env_var ?? false,
        excludeSlashTmp: details?.exclude_slash_tmp ?? false
      }
    default:
      return { type: "readOnly", networkAccess: false }
  }
}

/** Replaces the working directory among the roots. */
const moveRoots = ({ cwd, roots }: Settings, to: string): ReadonlyArray<string> => [
  ...new Set(roots.map((root) => root === cwd ? to : root))
]

/**
 * Computes the settings of a thread that a request starts, forks or loads. The order of precedence: the params, their `config`, the
 * previous settings as far as Codex keeps them, and the configuration.
 */
export const openSettings = (
  method: "thread/start" | "thread/fork" | "thread/resume",
  params: OpenParams,
  config: Protocol.Config,
  previous: Settings | undefined
): Settings => {
  // Codex does not keep `workspace-write`, and a fork has the model of the configuration.
  const keptSandbox = previous?.sandbox.type === "workspaceWrite" ? undefined : previous?.sandbox
  const givenModel = params.model ?? config.model ?? config.model_reasoning_effort
  const resumed = method === "thread/resume" ? previous : undefined
  const keptModel = Predicate.isNotNullish(givenModel) ? undefined : resumed
  const mode = params.sandbox ?? config.sandbox_mode
  const sandbox = Predicate.isNotNullish(mode)
    ? toSandboxPolicy(mode, config)
    : keptSandbox ?? toSandboxPolicy(configuration.sandbox_mode, config)
  const cwd = params.cwd ?? previous?.cwd ?? workspace
  const writableRoots = sandbox.type === "workspaceWrite" ? sandbox.writableRoots ?? [] : []
  return {
    cwd,
    roots: params.runtimeWorkspaceRoots ??
      (resumed === undefined ? [...new Set([cwd, ...writableRoots])] : moveRoots(resumed, cwd)),
    model: params.model ?? config.model ?? keptModel?.model ?? configuration.model,
    effort: config.model_reasoning_effort ?? keptModel?.effort ?? null,
    summary: config.model_reasoning_summary ?? keptModel?.summary ?? null,
    serviceTier: params.serviceTier ?? config.service_tier ?? resumed?.serviceTier ?? null,
    approvalPolicy: Predicate.isNotNullish(params.approvalPolicy)
      ? toApprovalPolicy(params.approvalPolicy)
      : config.approval_policy ?? previous?.approvalPolicy ?? configuration.approval_policy,
    approvalsReviewer: toReviewer(
      params.approvalsReviewer ?? config.approvals_reviewer ?? previous?.approvalsReviewer ?? "user"
    ),
    sandbox
  }
}

/** Computes the settings of a thread after a turn or an update that overrides some. */
export const overrideSettings = (settings: Settings, params: OverrideParams): Settings => {
  const cwd = params.cwd ?? settings.cwd
  return {
    cwd,
    roots: params.runtimeWorkspaceRoots ?? moveRoots(settings, cwd),
    model: params.model ?? settings.model,
    effort: params.effort ?? settings.effort,
    summary: params.summary ?? settings.summary,
    serviceTier: params.serviceTier === null && settings.serviceTier !== null
      ? "default"
      : params.serviceTier ?? settings.serviceTier,
    approvalPolicy: Predicate.isNotNullish(params.approvalPolicy)
      ? toApprovalPolicy(params.approvalPolicy)
      : settings.approvalPolicy,
    approvalsReviewer: toReviewer(params.approvalsReviewer ?? settings.approvalsReviewer),
    sandbox: params.sandboxPolicy ?? settings.sandbox
  }
}

/** Adds the workspace roots of a thread to the writable roots of its sandbox policy, as Codex does. */
const toEffectivePolicy = ({ cwd, roots, sandbox }: Settings): Protocol.SandboxPolicy => {
  switch (sandbox.type) {
    case "readOnly":
      return { type: "readOnly", networkAccess: sandbox.networkAccess ?? false }
    case "workspaceWrite": {
      const { excludeSlashTmp = false, excludeTmpdirEnvVar = false, networkAccess = false, writableRoots = [] } =
        sandbox
      return {
        type: "workspaceWrite",
        writableRoots: [...new Set([...roots, ...writableRoots])].filter((root) => root !== cwd),
        networkAccess,
        excludeTmpdirEnvVar,
        excludeSlashTmp
      }
    }
    case "externalSandbox":
      return { type: "externalSandbox", networkAccess: sandbox.networkAccess ?? "restricted" }
    default:
      return sandbox
  }
}

/** The settings in the response that opens a thread. */
export const toOpenedJson = (settings: Settings): Omit<Protocol.ThreadStartResponse, "thread"> => {
  const { approvalPolicy, approvalsReviewer, cwd, effort, model, roots, serviceTier } = settings
  return {
    model,
    modelProvider: configuration.model_provider,
    serviceTier,
    cwd,
    runtimeWorkspaceRoots: roots,
    approvalPolicy,
    approvalsReviewer,
    sandbox: toEffectivePolicy(settings),
    activePermissionProfile: null,
    reasoningEffort: effort
  }
}

/** The settings in `thread/settings/updated`. */
export const toSettingsJson = (settings: Settings): Protocol.ThreadSettings => {
  const { approvalPolicy, approvalsReviewer, cwd, effort, model, roots, serviceTier, summary } = settings
  return {
    cwd,
    environments: [{ environmentId: "local", cwd, runtimeWorkspaceRoots: roots }],
    approvalPolicy,
    approvalsReviewer,
    sandboxPolicy: toEffectivePolicy(settings),
    activePermissionProfile: null,
    model,
    modelProvider: configuration.model_provider,
    serviceTier,
    effort,
    summary,
    collaborationMode: {
      mode: "default",
      settings: { model, reasoning_effort: effort, developer_instructions: null }
    },
    personality: null
  }
}
