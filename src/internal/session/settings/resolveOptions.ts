/** Converts the options of an operation to the fields of its request. */
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
} from "../../../ApprovalMode.ts"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import { configTree } from "../../configTree.ts"
import { objectIssue, unknownName } from "../../options.ts"
import { describeIssue, fieldNames } from "../../schemaIssue.ts"

/** The methods that open a thread that exists. */
export type ReopenMethod = "thread/resume" | "thread/fork"

/** The methods that open a thread. */
export type OpenMethod = "thread/start" | ReopenMethod

type Method = OpenMethod | "turn/start"

interface PermissionOptions {
  readonly permissions?: string | null | undefined
}

const hasSandbox = (fields: object): boolean =>
  Predicate.hasProperty(fields, "sandbox") && fields.sandbox !== undefined ||
  Predicate.hasProperty(fields, "sandboxPolicy") && fields.sandboxPolicy !== undefined

/** Names of options that are not fields of the request (`own`), and of fields that the operation sets itself (`set`). */
const ownNames = ["approvalMode", "approvals", "questions"]
const names: Record<Method, { readonly own: ReadonlyArray<string>; readonly set: ReadonlyArray<string> }> = {
  "thread/start": { own: [...ownNames, "tools", "toolConcurrency"], set: [] },
  "thread/resume": {
    own: [...ownNames, "tools", "toolConcurrency"],
    set: ["threadId", "excludeTurns", "initialTurnsPage"]
  },
  "thread/fork": { own: [...ownNames, "tools", "toolConcurrency"], set: ["threadId", "excludeTurns"] },
  "turn/start": { own: [...ownNames, "deadline", "idleTimeout", "output", "repairs"], set: ["threadId", "input"] }
}

/** Returns the names of an operation's options. */
const knownNames = (method: Method): ReadonlyArray<string> => {
  const { own, set } = names[method]
  const { params } = Protocol.clientRequests[method]
  const fields = params === undefined ? [] : fieldNames(params)
  return [...own, ...fields.filter((name) => !set.includes(name))]
}

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
        description: "pass either `approvalMode`, or `approvalPolicy` and `approvalsReviewer`, not both"
      })
    ))
  }
  const unknown = unknownName("option", rest, knownNames(method))
  if (unknown !== undefined) {
    return Effect.fail(appServerError(new InvalidRequest({ method, description: unknown })))
  }
  return resolve(options).pipe(
    Effect.flatMap((fields) => {
      // The policy as it was passed: decoding removes unknown fields, which must fail.
      const policy = Predicate.hasProperty(rest, "sandboxPolicy") && Predicate.isNotNullish(rest.sandboxPolicy)
        ? { sandboxPolicy: rest.sandboxPolicy }
        : {}
      const resolved = { ...rest, ...fields, ...policy }
      return Predicate.isNotNullish(rest.permissions) && hasSandbox(resolved)
        ? Effect.fail(appServerError(
          new InvalidRequest({
            method,
            description: "`permissions` cannot be combined with a sandbox or with `bypass`. Remove one of them."
          })
        ))
        : Effect.succeed(resolved)
    }),
    Effect.catchTag(
      "SchemaError",
      (error) => Effect.fail(appServerError(new InvalidRequest({ method, description: describeIssue(error, options) })))
    )
  )
}

/** Fails for options that are not an object, as plain JavaScript may pass them. */
export const requireOptions = (method: string, options: unknown): Effect.Effect<void, AppServerError> => {
  const description = objectIssue(options)
  return description === undefined
    ? Effect.void
    : Effect.fail(appServerError(new InvalidRequest({ method, description })))
}

/** Resolves the options of an operation that opens a thread. */
export const resolveThreadOptions = <
  Options extends
    & ApprovalOptions
    & PermissionOptions
    & Pick<ThreadInput, "sandbox">
    & Pick<Protocol.ThreadStartParams, "config">
>(
  method: OpenMethod,
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

/** Resolves the options of an operation that starts a turn. */
export const resolveTurnOptions = <
  Options extends ApprovalOptions & PermissionOptions & Pick<TurnInput, "sandboxPolicy">
>(
  options: Options
) => resolveOptions("turn/start", options, resolveTurn)
