/** The configuration of a language model: its options, their defaults, and how they combine. */
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type { ApprovalOptions } from "../../ApprovalMode.ts"
import type * as Codex from "../../Codex.ts"
import type * as Protocol from "../../Protocol.ts"
import type * as Sandbox from "../../Sandbox.ts"
import { anything, boolean, duration, type Kinds, object, string, strings } from "../options.ts"
import { canonicalJson } from "./canonicalJson.ts"

/** The fields of the protocol that are options of a language model. */
type ThreadFields = Pick<
  Protocol.ThreadStartOptions,
  | "baseInstructions"
  | "config"
  | "cwd"
  | "developerInstructions"
  | "ephemeral"
  | "model"
  | "modelProvider"
  | "permissions"
  | "runtimeWorkspaceRoots"
  | "serviceTier"
>

type TurnFields = Pick<Protocol.TurnStartOptions, "effort" | "summary">

export type Options =
  & ThreadFields
  & TurnFields
  & ApprovalOptions
  & Sandbox.ThreadOptions
  & {
    /**
     * Time that a thread without a request stays open. Then a turn that still waits for results of tools is interrupted, and the thread is
     * closed. A later request opens the thread again, unless it is ephemeral.
     *
     * @default "5 minutes"
     */
    readonly idleTimeToLive?: Duration.Input | undefined
  }

/** The kind of every option. Others than ours are checked when a thread is opened. */
export const kinds: Kinds<Options> = {
  approvalMode: anything,
  approvalPolicy: anything,
  approvalsReviewer: anything,
  baseInstructions: string,
  config: object,
  cwd: string,
  developerInstructions: string,
  effort: string,
  ephemeral: boolean,
  idleTimeToLive: duration,
  model: string,
  modelProvider: string,
  permissions: string,
  runtimeWorkspaceRoots: strings,
  sandbox: anything,
  serviceTier: string,
  summary: string
}

const approvalFields = ["approvalMode", "approvalPolicy", "approvalsReviewer"] as const
const sandboxFields = ["sandbox", "permissions"] as const

const without = (options: Options, names: ReadonlyArray<keyof Options>, unless: boolean): Options =>
  unless ? options : Object.fromEntries(
    Object.entries(options).filter(([name]) => !names.includes(name as keyof Options))
  ) as Options

const hasAny = (options: Options, names: ReadonlyArray<keyof Options>): boolean =>
  names.some((name) => options[name] !== undefined)

/** Merges options. Those that stand for the same settings replace each other: a mode replaces a policy. */
export const mergeOptions = (options: Options, overrides: Options | undefined): Options => {
  if (overrides === undefined) return options
  const isBypass = overrides.approvalMode === "dangerously_bypass_approvals_and_sandbox"
  const kept = without(
    without(options, approvalFields, !hasAny(overrides, approvalFields)),
    sandboxFields,
    !isBypass && !hasAny(overrides, sandboxFields)
  )
  const given = Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined))
  return { ...kept, ...given } as Options
}

/** Adds the defaults: commands may read, and a request for more is refused. */
const withDefaults = (options: Options): Options => {
  const withApproval = hasAny(options, approvalFields) ? options : mergeOptions(options, { approvalMode: "deny_all" })
  return withApproval.approvalMode === "dangerously_bypass_approvals_and_sandbox" || hasAny(options, sandboxFields)
    ? withApproval
    : { ...withApproval, sandbox: "read-only" }
}

/** Resolved options. */
export interface Settings {
  /** The options of the thread, also if it is resumed or forked. */
  readonly thread: Codex.ResumeOptions
  readonly developerInstructions: string | undefined
  readonly isEphemeral: boolean
  /** The options of the turn. */
  readonly turn: TurnFields
  readonly idleTimeToLive: Duration.Input
  /** The identity of the options, except the time to live. */
  readonly key: string
}

export const resolveSettings = (options: Options): Settings => {
  const { idleTimeToLive = Duration.minutes(5), ...given } = withDefaults(options)
  const { developerInstructions, effort, ephemeral, summary, ...thread } = given
  return {
    thread: thread as Codex.ResumeOptions,
    developerInstructions: developerInstructions ?? undefined,
    isEphemeral: ephemeral === true,
    turn: {
      ...(Predicate.isNotNullish(effort) ? { effort } : {}),
      ...(Predicate.isNotNullish(summary) ? { summary } : {})
    },
    idleTimeToLive,
    key: canonicalJson(given)
  }
}
