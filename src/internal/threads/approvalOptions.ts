/** From the options of an operation to the protocol's fields. */
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
import { type AppServerError, InvalidRequest, make as appServerError } from "../../AppServerError.ts"

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
