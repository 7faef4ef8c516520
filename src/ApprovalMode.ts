/**
 * The decision about actions that the sandbox of Codex does not allow, as one option.
 *
 * | `approvalMode` | a request for more permissions |
 * | --- | --- |
 * | `deny_all` | is refused, without a call of a handler |
 * | `auto_review` | is reviewed by a second model |
 * | `dangerously_bypass_approvals_and_sandbox` | does not occur, because there is no sandbox |
 *
 * **Details**
 *
 * A mode stands for fields of the protocol. {@link ThreadApproval} and {@link TurnApproval} are the schemas that resolve it to these
 * fields and back. Both are pure: they send nothing and need no service.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { withoutUndefined } from "./internal/withoutUndefined.ts"
import type * as Protocol from "./Protocol.ts"
import * as Sandbox from "./Sandbox.ts"

const modes = ["deny_all", "auto_review", "dangerously_bypass_approvals_and_sandbox"] as const

/**
 * The name of a way to decide approvals.
 *
 * @category models
 * @since 0.1.0
 */
export type ApprovalMode = typeof modes[number]

/**
 * The schema of {@link ApprovalMode}. The message for an unknown mode lists the known ones.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ApprovalMode: Schema.Codec<ApprovalMode> = Schema.Literals(modes).annotate({
  message: `\`approvalMode\` must be one of: ${modes.join(", ")}`
})

/**
 * The mode `dangerously_bypass_approvals_and_sandbox` was combined with a sandbox, which the mode turns off. Nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class SandboxConflictError extends Schema.TaggedError<SandboxConflictError>()("SandboxConflictError", {
  approvalMode: ApprovalMode,
  /** The option that conflicts: `sandbox` of a thread, `sandboxPolicy` of a turn. */
  field: Schema.Literals(["sandbox", "sandboxPolicy"]),
  /** The value of that option. */
  sandbox: Schema.Union([Sandbox.Mode, Sandbox.Policy])
}) {
  override get message(): string {
    return `The approvalMode \`${this.approvalMode}\` cannot be combined with \`${this.field}\` ${
      JSON.stringify(this.sandbox)
    }, because this mode turns the sandbox off. Omit \`${this.field}\`, or choose another \`approvalMode\``
  }
}

/**
 * The approval options of a thread or a turn: a mode, or the fields of the protocol.
 *
 * **When to use**
 *
 * Pass `approvalPolicy` and `approvalsReviewer: "user"` if handlers of the program decide.
 *
 * **Gotchas**
 *
 * A mode together with one of the fields does not compile.
 *
 * @category models
 * @since 0.1.0
 */
export type ApprovalOptions =
  | {
    /**
     * The way to decide approvals. It stands for `approvalPolicy` and `approvalsReviewer`, and cannot be combined with them.
     *
     * - `deny_all`: a request for more than the sandbox allows is refused. No handler is called.
     * - `auto_review`: a second model reviews each request.
     * - `dangerously_bypass_approvals_and_sandbox`: **no sandbox and no approvals.** Commands have all permissions of the server's
     *   process: they can change any file, use the network and read secrets. Use it only on a disposable machine, such as a container.
     *
     * @default "auto_review" for a new thread; another thread or a turn keeps the settings of the thread
     */
    readonly approvalMode?: ApprovalMode | undefined
    readonly approvalPolicy?: undefined
    readonly approvalsReviewer?: undefined
  }
  | {
    readonly approvalMode?: undefined
    /**
     * The cases in which Codex requests approval. Cannot be combined with `approvalMode`.
     *
     * - `"untrusted"`: before each command.
     * - `"on-request"`: when the model needs more than the sandbox allows.
     * - `"never"`: in no case. An action that the sandbox forbids fails.
     * - `{ granular }`: by kind of request.
     */
    readonly approvalPolicy?: Protocol.AskForApprovalParam | undefined
    /**
     * The reviewer of approval requests. Cannot be combined with `approvalMode`.
     *
     * - `"user"`: the handlers of the program; see `Approvals`. A request without a handler is declined.
     * - `"auto_review"`: a second model.
     */
    readonly approvalsReviewer?: Protocol.ApprovalsReviewerParam | undefined
  }

const ApprovalFields = {
  approvalPolicy: Schema.optional(Schema.Literals(["never", "on-request"])),
  approvalsReviewer: Schema.optional(Schema.Literal("auto_review"))
}

type ApprovalFields = Schema.Struct.Type<typeof ApprovalFields>

/** Resolves a mode to the approval fields of the protocol. */
const toFields = (mode: ApprovalMode | undefined): ApprovalFields => {
  switch (mode) {
    case undefined:
      return {}
    case "auto_review":
      return { approvalPolicy: "on-request", approvalsReviewer: "auto_review" }
    case "deny_all":
    case "dangerously_bypass_approvals_and_sandbox":
      return { approvalPolicy: "never" }
  }
}

/** Finds the mode with these approval fields. */
const toMode = (fields: ApprovalFields, unsandboxed: boolean): Result.Result<ApprovalMode | undefined, string> => {
  if (fields.approvalPolicy === "never" && fields.approvalsReviewer === undefined) {
    return Result.succeed(unsandboxed ? "dangerously_bypass_approvals_and_sandbox" : "deny_all")
  }
  if (fields.approvalPolicy === "on-request" && fields.approvalsReviewer === "auto_review") {
    return Result.succeed("auto_review")
  }
  return fields.approvalPolicy === undefined && fields.approvalsReviewer === undefined
    ? Result.succeed(undefined)
    : Result.fail("No `approvalMode` resolves to this `approvalPolicy` and `approvalsReviewer`")
}

type Bypass = "dangerously_bypass_approvals_and_sandbox"

const isBypass = (mode: ApprovalMode | undefined): mode is Bypass => mode === "dangerously_bypass_approvals_and_sandbox"

const ThreadInput = Schema.Struct({
  approvalMode: Schema.optional(ApprovalMode),
  sandbox: Schema.optional(Sandbox.Mode)
})

const ThreadFields = Schema.Struct({ ...ApprovalFields, sandbox: Schema.optional(Sandbox.Mode) })

const TurnInput = Schema.Struct({
  approvalMode: Schema.optional(ApprovalMode),
  sandboxPolicy: Schema.optional(Sandbox.Policy)
})

const TurnFields = Schema.Struct({ ...ApprovalFields, sandboxPolicy: Schema.optional(Sandbox.Policy) })

/**
 * The input of {@link ThreadApproval}: a mode and a sandbox, each optional.
 *
 * @category models
 * @since 0.1.0
 */
export type ThreadInput = typeof ThreadInput.Type

/**
 * The input of {@link TurnApproval}: a mode and a sandbox policy, each optional.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnInput = typeof TurnInput.Type

/**
 * The approval and sandbox fields of `thread/start`, `thread/resume` and `thread/fork`.
 *
 * @category models
 * @since 0.1.0
 */
export type ThreadFields = typeof ThreadFields.Type

/**
 * The approval and sandbox fields of `turn/start`.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnFields = typeof TurnFields.Type

const threadFields = (input: ThreadInput): Result.Result<ThreadFields, SandboxConflictError> => {
  if (!isBypass(input.approvalMode)) {
    return Result.succeed(withoutUndefined({ ...toFields(input.approvalMode), sandbox: input.sandbox }))
  }
  return input.sandbox === undefined
    ? Result.succeed({ ...toFields(input.approvalMode), sandbox: "danger-full-access" })
    : Result.fail(
      new SandboxConflictError({ approvalMode: input.approvalMode, field: "sandbox", sandbox: input.sandbox })
    )
}

const turnFields = (input: TurnInput): Result.Result<TurnFields, SandboxConflictError> => {
  if (!isBypass(input.approvalMode)) {
    return Result.succeed(withoutUndefined({ ...toFields(input.approvalMode), sandboxPolicy: input.sandboxPolicy }))
  }
  return input.sandboxPolicy === undefined
    ? Result.succeed({ ...toFields(input.approvalMode), sandboxPolicy: Sandbox.dangerFullAccess })
    : Result.fail(
      new SandboxConflictError({
        approvalMode: input.approvalMode,
        field: "sandboxPolicy",
        sandbox: input.sandboxPolicy
      })
    )
}

/** The annotation of a schema issue that contains the conflict, because an issue cannot contain a domain error. */
const conflictKey = "effect-codex/SandboxConflictError"

const orConflict = <Input, Fields>(
  resolve: (input: Input) => Result.Result<Fields, SandboxConflictError>
) =>
(input: Input): Effect.Effect<Fields, SchemaIssue.Issue> =>
  Effect.fromResult(
    Result.mapError(resolve(input), (conflict) =>
      new SchemaIssue.InvalidValue({ message: conflict.message, [conflictKey]: conflict }))
  )

const orNoMode = <Input>(result: Result.Result<Input, string>): Effect.Effect<Input, SchemaIssue.Issue> =>
  Effect.fromResult(Result.mapError(result, (message) => new SchemaIssue.InvalidValue({ message })))

/**
 * Resolves `{ approvalMode?, sandbox? }` to the fields of `thread/start`, `thread/resume` and `thread/fork`.
 *
 * **Details**
 *
 * Encoding returns an input that resolves to the same fields. Without a mode, the result has no approval fields.
 *
 * A conflict is a schema issue. {@link sandboxConflict} finds the {@link SandboxConflictError} in it; {@link resolveThread} fails with
 * that error.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ThreadApproval: Schema.Codec<ThreadFields, ThreadInput> = ThreadInput.pipe(
  Schema.decodeTo(
    ThreadFields,
    SchemaTransformation.transformEffect({
      decode: orConflict(threadFields),
      encode: (fields) =>
        orNoMode(
          Result.map(toMode(fields, fields.sandbox === "danger-full-access"), (approvalMode): ThreadInput =>
            withoutUndefined({ approvalMode, sandbox: isBypass(approvalMode) ? undefined : fields.sandbox }))
        )
    })
  )
)

/**
 * Resolves `{ approvalMode?, sandboxPolicy? }` to the fields of `turn/start`, as {@link ThreadApproval} does for a thread.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TurnApproval: Schema.Codec<TurnFields, TurnInput> = TurnInput.pipe(
  Schema.decodeTo(
    TurnFields,
    SchemaTransformation.transformEffect({
      decode: orConflict(turnFields),
      encode: (fields) =>
        orNoMode(
          Result.map(toMode(fields, fields.sandboxPolicy?.type === "dangerFullAccess"), (approvalMode): TurnInput =>
            withoutUndefined({
              approvalMode,
              sandboxPolicy: isBypass(approvalMode) ? undefined : fields.sandboxPolicy
            }))
        )
    })
  )
)

const findConflict = (issue: SchemaIssue.Issue): SandboxConflictError | undefined => {
  switch (issue._tag) {
    case "InvalidValue": {
      const conflict = issue.annotations?.[conflictKey]
      return conflict instanceof SandboxConflictError ? conflict : undefined
    }
    case "Filter":
    case "Encoding":
    case "Pointer":
      return findConflict(issue.issue)
    case "Composite":
    case "AnyOf":
      for (const inner of issue.issues) {
        const conflict = findConflict(inner)
        if (conflict !== undefined) return conflict
      }
      return undefined
    default:
      return undefined
  }
}

/**
 * Finds the conflict in a failure of {@link ThreadApproval}, {@link TurnApproval} or a schema that contains one of them.
 *
 * @category conversions
 * @since 0.1.0
 */
export const sandboxConflict = (error: Schema.SchemaError): SandboxConflictError | undefined =>
  findConflict(error.issue)

const orSchemaError = (error: Schema.SchemaError): SandboxConflictError | Schema.SchemaError =>
  sandboxConflict(error) ?? error

/**
 * Resolves the input of a thread, as {@link ThreadApproval} does.
 *
 * **Details**
 *
 * Fails with {@link SandboxConflictError}, or with a `SchemaError` for input of another type, such as an unknown mode.
 *
 * @category conversions
 * @since 0.1.0
 */
export const resolveThread = (
  input: ThreadInput
): Effect.Effect<ThreadFields, SandboxConflictError | Schema.SchemaError> =>
  Effect.mapError(Schema.decodeEffect(ThreadApproval)(input), orSchemaError)

/**
 * Resolves the input of a turn, as {@link TurnApproval} does. Fails as {@link resolveThread} does.
 *
 * @category conversions
 * @since 0.1.0
 */
export const resolveTurn = (
  input: TurnInput
): Effect.Effect<TurnFields, SandboxConflictError | Schema.SchemaError> =>
  Effect.mapError(Schema.decodeEffect(TurnApproval)(input), orSchemaError)
