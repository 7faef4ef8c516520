/** From the options of an operation to the protocol's fields, and from the server's answer back to the question. */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Schema from "effect/Schema"
import {
  type ApprovalOptions,
  resolveThread,
  resolveTurn,
  type SandboxConflictError,
  type ThreadInput,
  type TurnInput
} from "../../ApprovalMode.ts"
import {
  type AppServerError,
  InvalidRequest,
  make as appServerError,
  SettingsNotApplied
} from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import * as Sandbox from "../../Sandbox.ts"
import type { ThreadOpened } from "./answers.ts"

type Method = "thread/start" | "thread/resume" | "thread/fork" | "turn/start"

interface PermissionOptions {
  readonly permissions?: string | null | undefined
}

const hasSandbox = (fields: object): boolean =>
  Predicate.hasProperty(fields, "sandbox") && fields.sandbox !== undefined ||
  Predicate.hasProperty(fields, "sandboxPolicy") && fields.sandboxPolicy !== undefined

const resolveOptions = <Options extends ApprovalOptions & PermissionOptions, Fields extends object>(
  method: Method,
  options: Options,
  resolve: (options: Options) => Effect.Effect<Fields, SandboxConflictError | Schema.SchemaError>
): Effect.Effect<Omit<Options, "approvalMode"> & Fields, SandboxConflictError | AppServerError> => {
  const { approvalMode, ...rest } = options
  if (approvalMode !== undefined && (rest.approvalPolicy !== undefined || rest.approvalsReviewer !== undefined)) {
    return Effect.fail(appServerError(
      new InvalidRequest({
        method,
        description: "give either approvalMode, or approvalPolicy and approvalsReviewer, not both"
      })
    ))
  }
  return resolve(options).pipe(
    Effect.flatMap((fields) => {
      const resolved = { ...rest, ...fields }
      return Predicate.isNotNullish(rest.permissions) && hasSandbox(resolved)
        ? Effect.fail(appServerError(
          new InvalidRequest({ method, description: "permissions cannot be combined with a sandbox, nor with bypass" })
        ))
        : Effect.succeed(resolved)
    }),
    Effect.catchTag(
      "SchemaError",
      (error) => Effect.fail(appServerError(new InvalidRequest({ method, description: error.message })))
    )
  )
}

/** The fields of an operation that opens a thread. */
export const resolveThreadOptions = <
  Options extends ApprovalOptions & PermissionOptions & Pick<ThreadInput, "sandbox">
>(
  method: "thread/start" | "thread/resume" | "thread/fork",
  options: Options
) => resolveOptions(method, options, resolveThread)

/** The fields of an operation that starts a turn. */
export const resolveTurnOptions = <
  Options extends ApprovalOptions & PermissionOptions & Pick<TurnInput, "sandboxPolicy">
>(
  options: Options
) => resolveOptions("turn/start", options, resolveTurn)

interface Requested extends PermissionOptions {
  readonly approvalPolicy?: Protocol.AskForApprovalParam | null | undefined
  readonly approvalsReviewer?: Protocol.ApprovalsReviewerParam | null | undefined
  readonly sandbox?: Sandbox.Mode | null | undefined
}

/** A granular policy may come back with more than was asked for, as defaults. */
export const covers = (effective: unknown, requested: unknown): boolean =>
  Predicate.isObject(requested)
    ? Predicate.isObject(effective) && Object.entries(requested).every(([key, value]) =>
      value === undefined ||
      (Object.hasOwn(effective, key) && covers((effective as Record<string, unknown>)[key], value))
    )
    : effective === requested

/** The name that the server gives the reviewer today. */
const reviewer = (name: unknown): unknown => name === "guardian_subagent" ? "auto_review" : name

/** Hands out a thread only if it has the rights that were asked for. */
export const verifyApplied = (
  method: "thread/start" | "thread/resume" | "thread/fork",
  requested: Requested,
  effective: ThreadOpened
): Effect.Effect<void, AppServerError> => {
  const differs = (setting: SettingsNotApplied["setting"], asked: unknown, got: unknown) =>
    Effect.fail(appServerError(
      new SettingsNotApplied({ method, threadId: effective.thread.id, setting, requested: asked, effective: got })
    ))
  if (Predicate.isNotNullish(requested.approvalPolicy) && !covers(effective.approvalPolicy, requested.approvalPolicy)) {
    return differs("approvalPolicy", requested.approvalPolicy, effective.approvalPolicy)
  }
  if (
    Predicate.isNotNullish(requested.approvalsReviewer) &&
    reviewer(requested.approvalsReviewer) !== reviewer(effective.approvalsReviewer)
  ) {
    return differs("approvalsReviewer", requested.approvalsReviewer, effective.approvalsReviewer)
  }
  if (
    Predicate.isNotNullish(requested.sandbox) &&
    !covers(effective.sandbox, { type: Sandbox.policyType(requested.sandbox) })
  ) {
    return differs("sandbox", requested.sandbox, effective.sandbox)
  }
  if (
    Predicate.isNotNullish(requested.permissions) &&
    !covers(effective.activePermissionProfile, { id: requested.permissions })
  ) {
    return differs("permissions", requested.permissions, effective.activePermissionProfile)
  }
  return Effect.void
}
