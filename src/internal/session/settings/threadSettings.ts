/** The settings of threads, and how they are read and compared. */
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Struct from "effect/Struct"
import type { SettingsNotApplied } from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import type * as Sandbox from "../../../Sandbox.ts"
import { decoderFor } from "../../connection/codec.ts"
import { getOwn } from "../../getOwn.ts"
import type { Settings } from "../../threadSettings.ts"
import type { ThreadOpened } from "../threads/responses.ts"

const reader = <A>(schema: Schema.Codec<A>) => (value: unknown): A | undefined => {
  const decoded = decoderFor(schema)(value)
  return Result.isSuccess(decoded) ? decoded.success as A : undefined
}

const readApprovalPolicy = reader(Protocol.AskForApproval)
const readApprovalsReviewer = reader(Protocol.ApprovalsReviewer)
const readSandboxPolicy = reader(Protocol.SandboxPolicy)
const readProfile = reader(Schema.NullOr(Protocol.ActivePermissionProfile))
const readEffort = reader(Schema.NullOr(Protocol.ReasoningEffort))
const readServiceTier = reader(Schema.NullOr(Schema.String))
const readString = (value: unknown): string | undefined => Predicate.isString(value) ? value : undefined
const readStrings = (value: unknown): ReadonlyArray<string> | undefined =>
  Array.isArray(value) && value.every(Predicate.isString) ? value : undefined

/** Reads the settings in the response that opened a thread. */
export const fromOpened = (opened: ThreadOpened): Settings => ({
  approvalPolicy: readApprovalPolicy(opened.approvalPolicy),
  approvalsReviewer: readApprovalsReviewer(opened.approvalsReviewer),
  sandboxPolicy: readSandboxPolicy(opened.sandbox),
  activePermissionProfile: readProfile(opened.activePermissionProfile),
  model: readString(opened.model),
  modelProvider: readString(opened.modelProvider),
  effort: readEffort(opened.reasoningEffort),
  serviceTier: readServiceTier(opened.serviceTier),
  cwd: readString(opened.cwd),
  runtimeWorkspaceRoots: readStrings(opened.runtimeWorkspaceRoots)
})

/** The options of a thread that the server does not report. */
export interface Instructions {
  readonly baseInstructions?: string | null | undefined
  readonly developerInstructions?: string | null | undefined
  readonly personality?: Protocol.PersonalityParam | null | undefined
}

export const getInstructions = (
  { baseInstructions, developerInstructions, personality }: Instructions
): Instructions => ({
  ...(Predicate.isNotNullish(baseInstructions) ? { baseInstructions } : {}),
  ...(Predicate.isNotNullish(developerInstructions) ? { developerInstructions } : {}),
  ...(Predicate.isNotNullish(personality) ? { personality } : {})
})

/** The settings that a request sets, by the names of its params. */
export interface Requested {
  readonly approvalPolicy?: Protocol.AskForApprovalParam | null | undefined
  readonly approvalsReviewer?: Protocol.ApprovalsReviewerParam | null | undefined
  /** A mode. Its details come from the configuration of the server. */
  readonly sandbox?: Sandbox.Mode | null | undefined
  /** A policy, which is compared in every detail. */
  readonly sandboxPolicy?: Protocol.SandboxPolicyParam | null | undefined
  readonly permissions?: string | null | undefined
  readonly model?: string | null | undefined
  readonly modelProvider?: string | null | undefined
  /** Not compared, as `serviceTier`: the server replaces a value that the model does not support. */
  readonly effort?: string | null | undefined
  readonly serviceTier?: string | null | undefined
  readonly cwd?: string | null | undefined
  readonly runtimeWorkspaceRoots?: ReadonlyArray<string> | null | undefined
  /** Lets the server choose another model than the requested one. */
  readonly allowProviderModelFallback?: boolean | undefined
  /** Takes precedence over the model. */
  readonly collaborationMode?: { readonly settings: { readonly model: string } } | null | undefined
}

/** A setting that is not what was requested. */
export interface Difference {
  readonly setting: SettingsNotApplied["setting"]
  readonly requested: unknown
  readonly effective: unknown
}

const policyTypes: Readonly<Record<Sandbox.Mode, string>> = {
  "read-only": "readOnly",
  "workspace-write": "workspaceWrite",
  "danger-full-access": "dangerFullAccess"
}

export const getSandboxMode = ({ type }: Protocol.SandboxPolicy): Sandbox.Mode | undefined =>
  Struct.keys(policyTypes).find((mode) => policyTypes[mode] === type)

/** Whether a value has all requested members. The server adds default members to a granular policy. */
const includes = (effective: unknown, requested: unknown): boolean =>
  Predicate.isObject(requested)
    ? Predicate.isObject(effective) && Object.entries(requested).every(([key, value]) =>
      value === undefined ||
      (Object.hasOwn(effective, key) && includes(effective[key], value))
    )
    : effective === requested

/** Returns the current name of a reviewer. */
const currentReviewer = (name: unknown): unknown => name === "guardian_subagent" ? "auto_review" : name

/** Returns the id of a profile that is not built in. The sandbox policy does not report all of what such a profile permits. */
export const customProfile = (id: string | null | undefined): string | undefined =>
  Predicate.isString(id) && !id.startsWith(":") ? id : undefined

/** Normalizes a path as the server does: without `.` and `..`, and without resolving links. */
const normalize = (path: string): string => {
  const segments: Array<string> = []
  for (const segment of path.split(/[\\/]+/)) {
    if (segment === "..") segments.pop()
    else if (segment !== "." && segment !== "") segments.push(segment)
  }
  return segments.join("/")
}

export const isAbsolute = (path: string): boolean => /^(?:[\\/]|[A-Za-z]:[\\/])/.test(path)

/** Whether two paths are equal. A relative path equals any: the server resolves it against a directory that it does not report. */
export const isSamePath = (effective: string, requested: string): boolean =>
  !isAbsolute(requested) || normalize(effective) === normalize(requested)

/** Returns the workspace roots after a change of the working directory: the server replaces the root that was the working directory. */
export const movedRoots = (
  roots: ReadonlyArray<string> | undefined,
  from: string | undefined,
  to: string | null | undefined
): ReadonlyArray<string> | undefined =>
  from === undefined || Predicate.isNullish(to) ? roots : roots?.map((root) => isSamePath(root, from) ? to : root)

const toPathSet = (paths: ReadonlyArray<string>, cwd: string | undefined): ReadonlySet<string> =>
  new Set(paths.map(normalize).filter((path) => cwd === undefined || path !== normalize(cwd)))

const isSameSet = (one: ReadonlySet<string>, other: ReadonlySet<string>): boolean =>
  one.size === other.size && [...one].every((path) => other.has(path))

/** The values of members that a sandbox policy leaves out. */
const policyDefaults = (type: string) => ({
  networkAccess: type === "externalSandbox" ? "restricted" : false,
  excludeSlashTmp: false,
  excludeTmpdirEnvVar: false
})

/** Returns a sandbox policy as the server reports it, with the members that a request may leave out. */
export const completePolicy = (policy: Protocol.SandboxPolicyParam): Protocol.SandboxPolicy => {
  switch (policy.type) {
    case "workspaceWrite":
      return {
        type: policy.type,
        writableRoots: policy.writableRoots ?? [],
        networkAccess: policy.networkAccess ?? false,
        excludeTmpdirEnvVar: policy.excludeTmpdirEnvVar ?? false,
        excludeSlashTmp: policy.excludeSlashTmp ?? false
      }
    case "readOnly":
      return { type: policy.type, networkAccess: policy.networkAccess ?? false }
    case "externalSandbox":
      return { type: policy.type, networkAccess: policy.networkAccess ?? "restricted" }
    default:
      return policy
  }
}

const getWritableRoots = (policy: object): ReadonlyArray<string> => readStrings(getOwn(policy, "writableRoots")) ?? []

const isSamePolicy = (
  effective: Protocol.SandboxPolicy,
  requested: Protocol.SandboxPolicyParam,
  cwd: string | undefined
): boolean => {
  const { writableRoots: _, ...rest }: Record<string, unknown> = { ...policyDefaults(requested.type), ...requested }
  return includes({ ...policyDefaults(effective.type), ...effective }, rest) &&
    isSameSet(toPathSet(getWritableRoots(effective), cwd), toPathSet(getWritableRoots(requested), cwd))
}

/**
 * Finds the first setting that differs from the requested one. A permission that the server does not report differs. Any other setting that
 * it does not report is not compared.
 */
export const findMismatch = (requested: Requested, effective: Settings): Difference | undefined => {
  const { approvalPolicy, approvalsReviewer, permissions, sandbox, sandboxPolicy } = requested
  const profile = effective.activePermissionProfile?.id
  if (Predicate.isNotNullish(approvalPolicy) && !includes(effective.approvalPolicy, approvalPolicy)) {
    return { setting: "approvalPolicy", requested: approvalPolicy, effective: effective.approvalPolicy }
  }
  if (
    Predicate.isNotNullish(approvalsReviewer) &&
    currentReviewer(approvalsReviewer) !== currentReviewer(effective.approvalsReviewer)
  ) {
    return { setting: "approvalsReviewer", requested: approvalsReviewer, effective: effective.approvalsReviewer }
  }
  if (Predicate.isNotNullish(permissions) && permissions !== profile) {
    return { setting: "permissions", requested: permissions, effective: effective.activePermissionProfile }
  }
  if (Predicate.isNotNullish(sandbox) && effective.sandboxPolicy?.type !== policyTypes[sandbox]) {
    return { setting: "sandbox", requested: sandbox, effective: effective.sandboxPolicy }
  }
  if (Predicate.isNotNullish(sandboxPolicy)) {
    if (Predicate.isNullish(permissions) && customProfile(profile) !== undefined) {
      return { setting: "permissions", requested: undefined, effective: effective.activePermissionProfile }
    }
    const cwd = requested.cwd ?? effective.cwd
    if (effective.sandboxPolicy === undefined || !isSamePolicy(effective.sandboxPolicy, sandboxPolicy, cwd)) {
      return { setting: "sandbox", requested: sandboxPolicy, effective: effective.sandboxPolicy }
    }
  }
  return findOtherMismatch(requested, effective)
}

/** Whether a setting that is not a permission was requested, and the server reports another value. */
const isDifferent = <A>(
  wanted: A | null | undefined,
  got: A | null | undefined,
  isSame: (got: A, wanted: A) => boolean = (got, wanted) => got === wanted
): boolean => Predicate.isNotNullish(wanted) && got !== undefined && (got === null || !isSame(got, wanted))

const findOtherMismatch = (requested: Requested, effective: Settings): Difference | undefined => {
  const isChosen = requested.allowProviderModelFallback === true || Predicate.isNotNullish(requested.collaborationMode)
  const differences: ReadonlyArray<readonly [keyof Requested & Difference["setting"], boolean]> = [
    ["model", !isChosen && isDifferent(requested.model, effective.model)],
    ["modelProvider", isDifferent(requested.modelProvider, effective.modelProvider)],
    ["cwd", isDifferent(requested.cwd, effective.cwd, isSamePath)],
    [
      "runtimeWorkspaceRoots",
      isDifferent(
        requested.runtimeWorkspaceRoots,
        effective.runtimeWorkspaceRoots,
        (got, wanted) => isSameSet(toPathSet(got, undefined), toPathSet(wanted, undefined))
      )
    ]
  ]
  const setting = differences.find(([, differs]) => differs)?.[0]
  return setting === undefined
    ? undefined
    : { setting, requested: requested[setting], effective: effective[setting as keyof Settings] }
}
