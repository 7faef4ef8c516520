/**
 * Turns as steps of a workflow of `effect/workflow`: each happens once, also if the worker is killed, and a person may decide tomorrow.
 *
 * **Example** (A job of two turns)
 *
 * ```ts
 * import { Console, Effect, Schema } from "effect"
 * import { Workflow } from "effect/workflow"
 * import { CodexWorkflow } from "effect-codex/cluster"
 *
 * const Plan = Schema.Struct({ steps: Schema.Array(Schema.String) })
 *
 * export const Refactor = Workflow.make("Refactor", {
 *   payload: { job: Schema.String, goal: Schema.String },
 *   success: Schema.UndefinedOr(Schema.String),
 *   error: CodexWorkflow.StepError,
 *   idempotencyKey: ({ job }) => job
 * })
 *
 * export const layer = Refactor.toLayer(Effect.fnUntraced(function*({ goal }) {
 *   const thread = yield* CodexWorkflow.thread("refactoring", {
 *     sandbox: "workspace-write",
 *     approvalPolicy: "on-request",
 *     approvalsReviewer: "user"
 *   })
 *   const { output } = yield* thread.turn("plan", `Plan: ${goal}`, { output: Plan })
 *   const { finalResponse } = yield* thread.turn("do", `Do: ${output.steps.join(", ")}`, {
 *     // The turn waits for a person. Later the workflow waits without a turn, and continues with the decision.
 *     ask: ({ request, token }) => Console.log(`Decide about ${request._tag}: ${token}`)
 *   })
 *   return finalResponse
 * }))
 *
 * export const accept = (token: CodexWorkflow.Token) => CodexWorkflow.decide(token, "accept")
 * ```
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Activity from "effect/workflow/Activity"
import * as DurableDeferred from "effect/workflow/DurableDeferred"
import { WorkflowEngine, WorkflowInstance } from "effect/workflow/WorkflowEngine"
import { SandboxConflictError } from "../ApprovalMode.ts"
import { AppServerError } from "../AppServerError.ts"
import * as Codex from "../Codex.ts"
import type * as Input from "../Input.ts"
import type * as Approvals from "../internal/approvals/model.ts"
import { Decision, type PersonRequest, requestName } from "../internal/cluster/decisions.ts"
import { whileTransient } from "../internal/cluster/transient.ts"
import { toOutcome, TurnOutcome } from "../internal/cluster/turnOutcome.ts"
import type * as Questions from "../internal/questions/model.ts"
import type * as Thread from "../Thread.ts"
import { OutputInvalid, type RunOnceResult, TurnFailed } from "../Turn.ts"

/**
 * The errors with which a step fails.
 *
 * @category schemas
 * @since 0.1.0
 */
export const StepError = Schema.Union([AppServerError, SandboxConflictError, TurnFailed, OutputInvalid])

/**
 * The error with which a step fails.
 *
 * @category models
 * @since 0.1.0
 */
export type StepError = typeof StepError.Type

/**
 * The result of a step: that of `thread.runOnce` without the items, which are in the history of the thread.
 *
 * @category schemas
 * @since 0.1.0
 */
export const StepResult = TurnOutcome

/**
 * The result of a step.
 *
 * @category models
 * @since 0.1.0
 */
export type StepResult = typeof TurnOutcome.Type

/**
 * What a step waits for: a request for approval, or questions of the model (`_tag: "UserInput"`).
 *
 * @category models
 * @since 0.1.0
 */
export interface Pending {
  readonly request: PersonRequest
  /** The name of the decision. Pass it to {@link decide} or {@link answer}, in any process that has the engine. */
  readonly token: Token
}

/**
 * The name of a decision.
 *
 * @category models
 * @since 0.1.0
 */
export type Token = DurableDeferred.Token

type Decide = "accept" | "acceptForSession" | "acceptAlways" | "decline" | "cancel"

/**
 * The options of a step: those of `thread.runOnce`, with durable decisions in place of handlers.
 *
 * @category models
 * @since 0.1.0
 */
export type StepOptions<R = never> =
  & Omit<Thread.RunOnceOptions, "approvals" | "questions" | "output" | "repairs">
  & PersonOptions<R>

/**
 * The options of a step with typed output.
 *
 * @category models
 * @since 0.1.0
 */
export type TypedStepOptions<S extends Schema.Constraint, R = never> =
  & Omit<Thread.TypedRunOnceOptions<S>, "approvals" | "questions">
  & PersonOptions<R>

/**
 * How a step asks a person.
 *
 * @category models
 * @since 0.1.0
 */
export interface PersonOptions<R = never> {
  /**
   * Tells a person that the step waits for a decision, for example by mail. It may run again for the same request after a crash.
   *
   * @default the handlers of the context decide, see `Approvals.layer`
   */
  readonly ask?: ((pending: Pending) => Effect.Effect<void, never, R>) | undefined
  /**
   * How long the turn waits for the decision. Afterwards the turn is interrupted and the workflow suspended. The decision resumes the
   * workflow, and the turn is continued.
   *
   * @default "5 minutes"
   */
  readonly patience?: Duration.Input | undefined
}

/**
 * A thread of a workflow.
 *
 * @category models
 * @since 0.1.0
 */
export interface WorkflowThread {
  readonly id: string
  /**
   * Runs a turn as an activity. Its name is unique within the thread: with it, the turn is found again.
   *
   * **Details**
   *
   * The result is stored by the engine. If the worker is killed before, the next one finds, joins or continues the turn, as
   * `thread.runOnce` does.
   */
  readonly turn: {
    <const S extends Schema.Constraint, R = never>(
      name: string,
      input: Input.Input,
      options: TypedStepOptions<S, R>
    ): Effect.Effect<
      StepResult & { readonly output: S["Type"] },
      StepError,
      Codex.Codex | WorkflowEngine | WorkflowInstance | S["DecodingServices"] | S["EncodingServices"] | R
    >
    <R = never>(
      name: string,
      input: Input.Input,
      options?: StepOptions<R>
    ): Effect.Effect<StepResult, StepError, Codex.Codex | WorkflowEngine | WorkflowInstance | R>
  }
}

/** How often a turn that waits looks for the decision. */
const pollInterval = Duration.millis(500)

const makeDecision = (name: string) => DurableDeferred.make(name, { success: Decision })

/** Asks a person with durable decisions. Calls `suspend` with a decision that has not arrived in time. */
const makePerson = Effect.fnUntraced(function*<R>(
  step: string,
  { ask, patience = "5 minutes" }: PersonOptions<R>,
  suspend: (decision: ReturnType<typeof makeDecision>) => void
) {
  if (ask === undefined) return {}
  const engine = yield* WorkflowEngine
  const context = yield* Effect.context<WorkflowInstance | R>()
  const asked = new Map<string, number>()
  const decide = Effect.fnUntraced(function*(request: PersonRequest) {
    const hash = yield* requestName(request)
    // The model may repeat a request, which is then a decision of its own.
    const number = (asked.get(hash) ?? 0) + 1
    asked.set(hash, number)
    const decision = makeDecision(`${step}/${hash}/${number}`)
    const result = engine.deferredResult(decision)
    const before = yield* result
    if (Option.isSome(before)) return yield* before.value
    yield* ask({ request, token: yield* DurableDeferred.token(decision) })
    const poll: typeof result = Effect.delay(result, pollInterval).pipe(
      Effect.flatMap((exit) => Option.isSome(exit) ? Effect.succeed(exit) : poll)
    )
    const arrived = Option.flatten(yield* Effect.timeoutOption(poll, patience))
    if (Option.isSome(arrived)) return yield* arrived.value
    suspend(decision)
    return yield* Effect.never
  }, (effect) => Effect.provideContext(effect, context))
  return {
    approvals: (request: Approvals.Request): Effect.Effect<Option.Option<Approvals.Decision>> =>
      Effect.map(decide(request), (decision) => Option.some(typeof decision === "string" ? decision : "decline")),
    questions: {
      userInput: (request: Questions.UserInputRequest) =>
        Effect.map(
          decide({ _tag: "UserInput", ...request }),
          (decision): Questions.UserInputAnswers => typeof decision === "string" ? {} : decision
        )
    }
  }
})

type AnyStepOptions = StepOptions<never> | TypedStepOptions<Schema.ConstraintCodec<unknown, unknown>>

/** Runs a turn with durable decisions. While it waits for one that does not arrive in time, the workflow is suspended. */
const runStep = (
  threadId: string,
  key: string,
  open: Codex.StartOptions,
  input: Input.Input,
  { ask, patience, ...options }: AnyStepOptions
) => {
  const attempt: Effect.Effect<RunOnceResult, StepError, Codex.Codex | WorkflowEngine | WorkflowInstance> = Effect.gen(
    function*() {
      const codex = yield* Codex.Codex
      const suspended = yield* Deferred.make<ReturnType<typeof makeDecision>>()
      const person = yield* makePerson(
        key,
        { ask, patience },
        (decision) => Deferred.doneUnsafe(suspended, Effect.succeed(decision))
      )
      const { ephemeral: _, ...resume } = open
      const run = Effect.gen(function*() {
        const thread = yield* Effect.acquireRelease(
          codex.resumeThread(threadId, resume),
          // So that another worker can open it.
          (thread) => Effect.ignore(thread.close)
        )
        return yield* thread.runOnce(key, input, { ...options, ...person } as Thread.RunOnceOptions)
      }).pipe(Effect.scoped, Effect.retry(whileTransient))
      const first = yield* Effect.raceFirst(
        Effect.map(run, (result) => ({ result })),
        Effect.map(Deferred.await(suspended), (decision) => ({ decision }))
      )
      if ("result" in first) return first.result
      yield* DurableDeferred.await(first.decision)
      return yield* attempt
    }
  )
  return attempt
}

const turn = (thread: { readonly id: string; readonly name: string }, open: Codex.StartOptions) =>
  Effect.fn("CodexWorkflow.turn")(function*(name: string, input: Input.Input, options: AnyStepOptions = {}) {
    const { executionId } = yield* WorkflowInstance
    const key = `${executionId}/${thread.name}/${name}`
    const { output } = options as { readonly output?: Schema.Codec<unknown> }
    const run = runStep(thread.id, key, open, input, options)
    const success = output === undefined ? TurnOutcome : Schema.Struct({ ...TurnOutcome.fields, output })
    return yield* Activity.make({
      name: `codex/${thread.name}/${name}`,
      success: success as typeof TurnOutcome,
      error: StepError,
      execute: Effect.map(run, (result) => ({
        ...toOutcome(result),
        ...("output" in result ? { output: result.output } : {})
      }))
    })
  })

/**
 * Starts a thread as an activity, and returns it. Its name is unique within the workflow.
 *
 * **Details**
 *
 * The options hold for each step: a worker that continues the workflow resumes the thread with them.
 *
 * **Gotchas**
 *
 * If the worker is killed between the start and the store of the thread's id, another thread is started. The first one has no turns.
 *
 * @category constructors
 * @since 0.1.0
 */
export const thread: (
  name: string,
  options?: Codex.StartOptions
) => Effect.Effect<WorkflowThread, StepError, Codex.Codex | WorkflowEngine | WorkflowInstance> = Effect.fn(
  "CodexWorkflow.thread"
)(function*(name: string, options: Codex.StartOptions = {}) {
  const { executionId } = yield* WorkflowInstance
  const id = yield* Activity.make({
    name: `codex/${name}`,
    success: Schema.String,
    error: StepError,
    execute: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread(options)
      // A name stores the thread, so that another worker can resume it.
      yield* thread.setName(`${name} ${executionId}`)
      yield* thread.close
      return thread.id
    }).pipe(Effect.retry(whileTransient))
  })
  return { id, turn: turn({ id, name }, options) as WorkflowThread["turn"] }
})

/**
 * Decides about a request for approval. The workflow continues with it, in this or another process.
 *
 * @category decisions
 * @since 0.1.0
 */
export const decide = (token: Token, decision: Decide): Effect.Effect<void, never, WorkflowEngine> =>
  DurableDeferred.succeed(makeDecision("decision"), { token, value: decision })

/**
 * Answers the questions of the model, by their ids. The workflow continues with the answers, in this or another process.
 *
 * @category decisions
 * @since 0.1.0
 */
export const answer = (
  token: Token,
  answers: Questions.UserInputAnswers
): Effect.Effect<void, never, WorkflowEngine> =>
  DurableDeferred.succeed(makeDecision("decision"), { token, value: answers })
