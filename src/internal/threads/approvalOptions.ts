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
import type * as Protocol from "../../Protocol.ts"
import { configTree } from "../configTree.ts"

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
  Options extends
    & ApprovalOptions
    & PermissionOptions
    & Pick<ThreadInput, "sandbox">
    & Pick<
      Protocol.ThreadStartParams,
      "config"
    >
>(
  method: "thread/start" | "thread/resume" | "thread/fork",
  options: Options
) =>
  Effect.flatMap(resolveOptions(method, options, resolveThread), (fields) =>
    Predicate.isNullish(fields.config)
      ? Effect.succeed(fields)
      : Effect.try({
        try: () => ({ ...fields, config: configTree(fields.config ?? {}) }),
        catch: (cause) =>
          appServerError(
            new InvalidRequest({
              method,
              description: `the option \`config\` is not valid: ${
                cause instanceof Error ? cause.message : String(cause)
              }`
            })
          )
      }))

/** The fields of an operation that starts a turn. */
export const resolveTurnOptions = <
  Options extends ApprovalOptions & PermissionOptions & Pick<TurnInput, "sandboxPolicy">
>(
  options: Options
) => resolveOptions("turn/start", options, resolveTurn)
