/**
 * Who decides when Codex wants more than its sandbox allows.
 *
 * | `approvalMode` | what happens to a request for more rights |
 * | --- | --- |
 * | `deny_all` | it is refused; nobody is asked |
 * | `auto_review` | a second model reviews it |
 * | `dangerously_bypass_approvals_and_sandbox` | there is no sandbox, so nothing needs to be asked for |
 *
 * A mode is short for protocol fields. {@link ThreadApproval} and {@link TurnApproval} are the Schemas that resolve it to
 * them and back, purely: nothing is sent, no service is needed.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import type * as Protocol from "./Protocol.ts"
import * as Sandbox from "./Sandbox.ts"

const modes = ["deny_all", "auto_review", "dangerously_bypass_approvals_and_sandbox"] as const

/**
 * How approvals are decided.
 *
 * @category models
 * @since 0.1.0
 */
export type ApprovalMode = typeof modes[number]

/**
 * The schema of {@link ApprovalMode}. An unknown mode fails with a message that lists the known ones.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ApprovalMode: Schema.Codec<ApprovalMode> = Schema.Literals(modes).annotate({
  message: `approvalMode must be one of: ${modes.join(", ")}`
})

/**
 * `dangerously_bypass_approvals_and_sandbox` turns the sandbox off, so it cannot be combined with a sandbox. Nothing was
 * sent to the server.
 *
 * @category errors
 * @since 0.1.0
 */
export class SandboxConflictError extends Schema.TaggedError<SandboxConflictError>()("SandboxConflictError", {
  approvalMode: ApprovalMode,
  /** The option that conflicts: `sandbox` of a thread, `sandboxPolicy` of a turn. */
  field: Schema.Literals(["sandbox", "sandboxPolicy"]),
  /** What was given for it. */
  sandbox: Schema.Union([Sandbox.Mode, Sandbox.Policy])
}) {
  override get message(): string {
    return `approvalMode ${this.approvalMode} cannot be combined with ${this.field} ${
      JSON.stringify(this.sandbox)
    }: it turns the sandbox off. Leave ${this.field} out, or choose another approvalMode`
  }
}

/**
 * How an operation says who decides: a mode, or the protocol's own fields. A program that answers approval requests itself
 * gives the fields; giving both is a compile error.
 *
 * @category models
 * @since 0.1.0
 */
export type ApprovalOptions =
  | {
    /**
     * How approvals are decided. Cannot be combined with `approvalPolicy` and `approvalsReviewer`, for which it is short.
     *
     * - `deny_all`: a request for more than the sandbox allows is refused. No handler is asked.
     * - `auto_review`: a second model reviews each request. Default of a new thread.
     * - `dangerously_bypass_approvals_and_sandbox`: **no sandbox and no approvals.** Commands may do all that the server's process
     *   may do: change any file, use the network, read secrets. Only for a machine that may be lost, such as a container.
     */
    readonly approvalMode?: ApprovalMode | undefined
    readonly approvalPolicy?: undefined
    readonly approvalsReviewer?: undefined
  }
  | {
    readonly approvalMode?: undefined
    /**
     * When Codex asks for approval. Cannot be combined with `approvalMode`.
     *
     * - `"untrusted"`: before each command.
     * - `"on-request"`: when the model wants more than the sandbox allows.
     * - `"never"`: not at all. What the sandbox forbids fails.
     * - `{ granular }`: by kind of request.
     */
    readonly approvalPolicy?: Protocol.AskForApprovalParam | undefined
    /**
     * Who is asked. Cannot be combined with `approvalMode`.
     *
     * - `"user"`: the handlers of the program, see `Approvals`. Without a handler a request is declined.
     * - `"auto_review"`: a second model.
     */
    readonly approvalsReviewer?: Protocol.ApprovalsReviewerParam | undefined
  }

const ApprovalFields = {
  approvalPolicy: Schema.optional(Schema.Literals(["never", "on-request"])),
  approvalsReviewer: Schema.optional(Schema.Literal("auto_review"))
}

type ApprovalFields = Schema.Struct.Type<typeof ApprovalFields>

/** The protocol's approval fields for a mode. */
const fieldsOf = (mode: ApprovalMode | undefined): ApprovalFields => {
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

/** The mode with these approval fields, if there is one. */
const modeOf = (fields: ApprovalFields, unsandboxed: boolean): Result.Result<ApprovalMode | undefined, string> => {
  if (fields.approvalPolicy === "never" && fields.approvalsReviewer === undefined) {
    return Result.succeed(unsandboxed ? "dangerously_bypass_approvals_and_sandbox" : "deny_all")
  }
  if (fields.approvalPolicy === "on-request" && fields.approvalsReviewer === "auto_review") {
    return Result.succeed("auto_review")
  }
  return fields.approvalPolicy === undefined && fields.approvalsReviewer === undefined
    ? Result.succeed(undefined)
    : Result.fail("no approvalMode has this approvalPolicy and approvalsReviewer")
}

const isBypass = (mode: ApprovalMode | undefined) => mode === "dangerously_bypass_approvals_and_sandbox"

/** Leaves out what is `undefined`, so that an absent option is an absent field. */
const compact = <A extends object>(fields: A): A =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as A

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
 * What a thread is opened with: a mode and a sandbox, each optional.
 *
 * @category models
 * @since 0.1.0
 */
export type ThreadInput = typeof ThreadInput.Type

/**
 * What a turn is started with: a mode and a sandbox policy, each optional.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnInput = typeof TurnInput.Type

/**
 * The fields that `thread/start`, `thread/resume` and `thread/fork` are sent.
 *
 * @category models
 * @since 0.1.0
 */
export type ThreadFields = typeof ThreadFields.Type

/**
 * The fields that `turn/start` is sent.
 *
 * @category models
 * @since 0.1.0
 */
export type TurnFields = typeof TurnFields.Type

const threadFields = (input: ThreadInput): Result.Result<ThreadFields, SandboxConflictError> => {
  if (!isBypass(input.approvalMode)) {
    return Result.succeed(compact({ ...fieldsOf(input.approvalMode), sandbox: input.sandbox }))
  }
  return input.sandbox === undefined
    ? Result.succeed({ ...fieldsOf(input.approvalMode), sandbox: "danger-full-access" })
    : Result.fail(
      new SandboxConflictError({ approvalMode: input.approvalMode!, field: "sandbox", sandbox: input.sandbox })
    )
}

const turnFields = (input: TurnInput): Result.Result<TurnFields, SandboxConflictError> => {
  if (!isBypass(input.approvalMode)) {
    return Result.succeed(compact({ ...fieldsOf(input.approvalMode), sandboxPolicy: input.sandboxPolicy }))
  }
  return input.sandboxPolicy === undefined
    ? Result.succeed({ ...fieldsOf(input.approvalMode), sandboxPolicy: Sandbox.dangerFullAccess })
    : Result.fail(
      new SandboxConflictError({
        approvalMode: input.approvalMode!,
        field: "sandboxPolicy",
        sandbox: input.sandboxPolicy
      })
    )
}

/** The name under which a conflict travels in a schema issue, whose type has no room for domain errors. */
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
 * Resolves `{ approvalMode?, sandbox? }` to the fields of `thread/start`, `thread/resume` and `thread/fork`; encoding goes
 * back to an input that resolves to the same fields. Without a mode no approval field is set.
 *
 * A conflict fails with a schema issue; {@link sandboxConflict} finds the {@link SandboxConflictError} in it, and
 * {@link resolveThread} has it in its type.
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
          Result.map(modeOf(fields, fields.sandbox === "danger-full-access"), (approvalMode): ThreadInput =>
            compact({ approvalMode, sandbox: isBypass(approvalMode) ? undefined : fields.sandbox }))
        )
    })
  )
)

/**
 * Resolves `{ approvalMode?, sandboxPolicy? }` to the fields of `turn/start`; encoding goes back. Otherwise as
 * {@link ThreadApproval}.
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
          Result.map(modeOf(fields, fields.sandboxPolicy?.type === "dangerFullAccess"), (approvalMode): TurnInput =>
            compact({ approvalMode, sandboxPolicy: isBypass(approvalMode) ? undefined : fields.sandboxPolicy }))
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
 * The conflict in a failure of {@link ThreadApproval} or {@link TurnApproval}, also when they stand within other schemas.
 *
 * @category conversions
 * @since 0.1.0
 */
export const sandboxConflict = (error: Schema.SchemaError): SandboxConflictError | undefined =>
  findConflict(error.issue)

const orSchemaError = (error: Schema.SchemaError): SandboxConflictError | Schema.SchemaError =>
  sandboxConflict(error) ?? error

/**
 * {@link ThreadApproval} as an Effect. Fails with {@link SandboxConflictError}, or with a `SchemaError` for input that is
 * not of its type, such as an unknown mode.
 *
 * @category conversions
 * @since 0.1.0
 */
export const resolveThread = (
  input: ThreadInput
): Effect.Effect<ThreadFields, SandboxConflictError | Schema.SchemaError> =>
  Effect.mapError(Schema.decodeEffect(ThreadApproval)(input), orSchemaError)

/**
 * {@link TurnApproval} as an Effect. Fails as {@link resolveThread} does.
 *
 * @category conversions
 * @since 0.1.0
 */
export const resolveTurn = (
  input: TurnInput
): Effect.Effect<TurnFields, SandboxConflictError | Schema.SchemaError> =>
  Effect.mapError(Schema.decodeEffect(TurnApproval)(input), orSchemaError)
