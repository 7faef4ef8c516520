/**
 * The language of scripted turns: what a turn of the {@link FakeAppServer} does, written as small Effects.
 *
 * **When to use**
 *
 * Import it to write helpers for scripts. A test needs only `FakeAppServer`, which exports these actions, too.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { TurnScript } from "effect-codex/testing"
 *
 * export const fixTests: TurnScript.Script = (turn) =>
 *   Effect.gen(function*() {
 *     yield* TurnScript.reasoning("A test fails")
 *     const decision = yield* TurnScript.command("npm test", { approval: true, exitCode: 1 })
 *     yield* TurnScript.text(decision === "accept" ? `Done: ${turn.text}` : "I may not run the tests")
 *   })
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import { assertOptions, boolean, duration, type Kinds, number, string } from "../internal/options.ts"
import { encodeOutput } from "../internal/testing/encodeOutput.ts"
import { DuplicateMessages } from "../internal/testing/fake/duplicateMessages.ts"
import { toShellCommand } from "../internal/testing/fake/shellCommand.ts"
import type * as Protocol from "../Protocol.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Errors
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Ends a scripted turn as failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class TurnFailure extends Data.TaggedError("TurnFailure")<{
  readonly message: string
  readonly codexErrorInfo: Protocol.CodexErrorInfo | null
}> {}

/**
 * A request of the turn to the client failed: the client responded with an error or with an invalid result.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestFailed extends Data.TaggedError("RequestFailed")<{
  readonly method: string
  /** `error` if the client responded with an error, `invalid` if the result does not have the type of the method. */
  readonly reason: "error" | "invalid"
  readonly message: string
}> {}

/**
 * Ends a scripted turn as interrupted, as a canceled approval does.
 *
 * @category errors
 * @since 0.1.0
 */
export class Interrupted extends Data.TaggedError("Interrupted") {}

/**
 * The errors that end a scripted turn.
 *
 * @category errors
 * @since 0.1.0
 */
export type ActionError = TurnFailure | RequestFailed | Interrupted

// ---------------------------------------------------------------------------------------------------------------------
// Scripts
// ---------------------------------------------------------------------------------------------------------------------

/**
 * One action of a turn.
 *
 * @category models
 * @since 0.1.0
 */
export type Action = Effect.Effect<unknown, ActionError, TurnContext>

/**
 * A function from a turn to its actions, as one Effect or as a Stream of actions. The turn completes after the last action.
 *
 * @category models
 * @since 0.1.0
 */
export type Script = (
  turn: TurnContext["Service"]
) => Action | Stream.Stream<Action, ActionError, TurnContext>

/** The params of a method without the ids of the turn, which the context adds. */
type TurnParams<P> = P extends unknown ? Omit<P, "threadId" | "turnId"> : never

/**
 * How a fake process ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExitOptions {
  /** @default 0, unless there is a signal */
  readonly exitCode?: number | undefined
  /** The signal that kills the process, such as `SIGKILL`. */
  readonly signal?: string | undefined
  /** The beginning of a line that the process does not finish. */
  readonly midLine?: string | undefined
  /** The last output on stderr. */
  readonly stderr?: string | undefined
}

const exitKinds: Kinds<ExitOptions> = { exitCode: number, signal: string, midLine: string, stderr: string }

/**
 * The options of a {@link subAgent}.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubAgentOptions {
  /** @default the model of the thread that spawns it */
  readonly model?: string | undefined
}

/**
 * A sub-agent that a turn has spawned.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubAgent {
  readonly threadId: string
  readonly turnId: string
  /**
   * Waits for the end of the sub-agent, as the model does with a tool. Returns its last message, or its error.
   *
   * **Gotchas**
   *
   * As on the real server, it returns `undefined` after 30 seconds, also if the sub-agent was interrupted.
   */
  readonly wait: Effect.Effect<Protocol.CollabAgentState | undefined>
}

/**
 * The turn that a script plays.
 *
 * @category services
 * @since 0.1.0
 */
export class TurnContext extends Context.Service<TurnContext, {
  readonly threadId: string
  readonly turnId: string
  /** The params of `turn/start`. */
  readonly params: Protocol.TurnStartParams
  /** The text of the input. */
  readonly text: string
  /** Waits for the next input that a client adds to the turn. */
  readonly nextSteer: Effect.Effect<ReadonlyArray<Protocol.UserInputParam>>
  /** Sends a notification of this turn. */
  readonly emit: <M extends Protocol.TurnNotificationMethod>(
    method: M,
    params: TurnParams<Protocol.ServerNotifications[M]>
  ) => Effect.Effect<void>
  /** Sends a notification of this turn that the protocol may not have. */
  readonly notify: (method: string, params: object) => Effect.Effect<void>
  /** Sends a request to the client and waits for its response. */
  readonly request: <M extends keyof Protocol.ServerRequests>(
    method: M,
    params: TurnParams<Protocol.ServerRequests[M]["params"]>
  ) => Effect.Effect<Protocol.ServerRequests[M]["result"], RequestFailed>
  /** Reports the tokens of one request to the model. The server adds them to those of the thread. */
  readonly usage: (request: Protocol.TokenUsageBreakdown) => Effect.Effect<void>
  /** Reports a rate limit of the account. */
  readonly rateLimits: (limit: Protocol.RateLimitSnapshot) => Effect.Effect<void>
  /** Reports that the server sends the request to the model again. */
  readonly retry: (error: Protocol.TurnError) => Effect.Effect<void>
  /** Changes the status of the goal that the thread pursues. */
  readonly updateGoal: (status: "complete" | "blocked" | "paused") => Effect.Effect<void>
  /** Spawns a sub-agent. */
  readonly subAgent: (task: string, script: Script, options?: SubAgentOptions) => Effect.Effect<SubAgent>
  /** Runs an action after the end of the turn. */
  readonly late: (action: Action) => Effect.Effect<void>
  /** Creates an id that is unique on this server. */
  readonly newId: (prefix: string) => string
  /** Sends a line unchanged. */
  readonly line: (text: string) => Effect.Effect<void>
  /** Ends the server process, and every turn with it. */
  readonly exit: (options?: ExitOptions) => Effect.Effect<void>
  /** @deprecated Use `request`. */
  readonly ask: <M extends keyof Protocol.ServerRequests>(
    method: M,
    params: TurnParams<Protocol.ServerRequests[M]["params"]>
  ) => Effect.Effect<Protocol.ServerRequests[M]["result"], RequestFailed>
}>()("effect-codex/testing/TurnScript/TurnContext") {}

/**
 * @deprecated Use {@link TurnContext}.
 * @category services
 * @since 0.1.0
 */
export const FakeTurn = TurnContext

const withTurn = <A, E>(
  f: (turn: TurnContext["Service"]) => Effect.Effect<A, E, TurnContext>
): Effect.Effect<A, E, TurnContext> => Effect.flatMap(TurnContext, f)

// ---------------------------------------------------------------------------------------------------------------------
// Items
// ---------------------------------------------------------------------------------------------------------------------

/**
 * An item of a thread, whether or not the protocol has its type.
 *
 * @category models
 * @since 0.1.0
 */
export interface AnyItem {
  readonly type: string
  readonly id: string
  readonly [key: string]: unknown
}

/**
 * Starts an item of any type.
 *
 * @category actions
 * @since 0.1.0
 */
export const itemStarted = (item: AnyItem): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) =>
    Effect.flatMap(Clock.currentTimeMillis, (startedAtMs) => turn.notify("item/started", { item, startedAtMs }))
  )

/**
 * Completes an item of any type.
 *
 * @category actions
 * @since 0.1.0
 */
export const itemCompleted = (item: AnyItem): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) =>
    Effect.flatMap(Clock.currentTimeMillis, (completedAtMs) => turn.notify("item/completed", { item, completedAtMs }))
  )

/**
 * Streams an assistant message in parts. With `pace` it sleeps that long before each part. An `unfinished` message does not complete,
 * as if the stream of the model was cut: use it before {@link retry}, {@link fail}, {@link never} or `nextSteer`.
 *
 * @category actions
 * @since 0.1.0
 */
export const deltas = (
  parts: Iterable<string>,
  options?: {
    readonly phase?: "commentary" | "final_answer" | undefined
    readonly id?: string | undefined
    readonly pace?: Duration.Input | undefined
    readonly unfinished?: boolean | undefined
  }
): Effect.Effect<void, never, TurnContext> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.deltas", { phase: string, id: string, pace: duration, unfinished: boolean }, options)
    const item = {
      type: "agentMessage",
      id: options?.id ?? turn.newId("message"),
      phase: options?.phase ?? null
    } as const
    yield* itemStarted({ ...item, text: "" })
    let text = ""
    for (const delta of parts) {
      if (options?.pace !== undefined) yield* Effect.sleep(options.pace)
      text += delta
      yield* turn.emit("item/agentMessage/delta", { itemId: item.id, delta })
    }
    if (options?.unfinished !== true) yield* itemCompleted({ ...item, text })
  }))

/**
 * Sends an assistant message as one part.
 *
 * @category actions
 * @since 0.1.0
 */
export const text = (
  text: string,
  options?: {
    readonly phase?: "commentary" | "final_answer" | undefined
    readonly id?: string | undefined
  }
): Effect.Effect<void, never, TurnContext> => deltas(text === "" ? [] : [text], options)

/**
 * Sends a final response that is the JSON of a value, as the model writes it for the option `output` with the same schema. Its phase is
 * `final_answer` by default.
 *
 * **Gotchas**
 *
 * A value that the schema cannot encode is a defect of the test, and ends the script.
 *
 * @category actions
 * @since 0.1.0
 */
export const object = <A, E, R>(
  schema: Schema.ConstraintCodec<A, E, R>,
  value: NoInfer<A>,
  options?: {
    readonly phase?: "commentary" | "final_answer" | undefined
    readonly id?: string | undefined
    readonly pace?: Duration.Input | undefined
  }
): Effect.Effect<void, never, TurnContext> =>
  Effect.flatMap(encodeOutput(schema, value), (parts) => deltas(parts, { phase: "final_answer", ...options }))

/**
 * Sends a summary of the model's reasoning.
 *
 * @category actions
 * @since 0.1.0
 */
export const reasoning = (summary: string): Effect.Effect<void, never, TurnContext> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    const item = { type: "reasoning", id: turn.newId("reasoning"), content: [] }
    yield* itemStarted({ ...item, summary: [] })
    yield* turn.emit("item/reasoning/summaryPartAdded", { itemId: item.id, summaryIndex: 0 })
    yield* turn.emit("item/reasoning/summaryTextDelta", { itemId: item.id, summaryIndex: 0, delta: summary })
    yield* itemCompleted({ ...item, summary: [summary] })
  }))

/** Returns the decision, or `failed` if the client responded with an error: only a decision approves. */
const toDecision = <D>(
  request: Effect.Effect<{ readonly decision: D }, RequestFailed>
): Effect.Effect<D | "failed"> =>
  Effect.match(request, { onSuccess: ({ decision }) => decision, onFailure: () => "failed" as const })

/** Whether the client did not approve. Decisions of newer clients approve unless they decline or cancel. */
const isRefused = (decision: unknown): decision is "failed" | "decline" | "cancel" =>
  decision === "failed" || decision === "decline" || decision === "cancel"

/** Requests approval for a command, with the decisions that the real server offers. */
const approveCommand = (
  turn: TurnContext["Service"],
  item: Pick<Protocol.CommandExecutionRequestApprovalParams, "itemId" | "command" | "commandActions" | "cwd">,
  command: string,
  reason: string | undefined
) =>
  Effect.flatMap(Clock.currentTimeMillis, (startedAtMs) => {
    const prefix = command.split(/[;&|]/, 1)[0]!.trim().split(/\s+/)
    return toDecision(turn.request("item/commandExecution/requestApproval", {
      ...item,
      startedAtMs,
      kind: "command",
      environmentId: "local",
      ...(reason === undefined ? {} : { reason }),
      proposedExecpolicyAmendment: prefix,
      availableDecisions: [
        "accept",
        { acceptWithExecpolicyAmendment: { execpolicy_amendment: prefix } },
        "cancel"
      ]
    }))
  })

/**
 * Runs a command and returns the client's decision about it.
 *
 * **Details**
 *
 * - With `approval` the turn requests the client's approval first. Without it the decision is `undefined`.
 * - The decision is `failed` if the client responds with an error or an invalid result.
 * - A command that the client declines does not run. `cancel` also ends the turn as interrupted.
 *
 * @category actions
 * @since 0.1.0
 */
export const command = (
  command: string,
  options?: {
    readonly output?: string | undefined
    readonly exitCode?: number | undefined
    readonly approval?: boolean | undefined
    readonly reason?: string | undefined
    readonly cwd?: string | undefined
  }
): Effect.Effect<Protocol.CommandExecutionApprovalDecisionParam | "failed" | undefined, Interrupted, TurnContext> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.command", {
      output: string,
      exitCode: number,
      approval: boolean,
      reason: string,
      cwd: string
    }, options)
    const id = turn.newId("command")
    const item = {
      type: "commandExecution",
      id,
      command: toShellCommand(command),
      cwd: options?.cwd ?? "/workspace",
      commandActions: [{ type: "unknown" as const, command }],
      source: "agent",
      processId: null
    }
    const running = { ...item, processId: turn.newId("process") }
    // A command that waits for approval has no process yet.
    const needsApproval = options?.approval === true
    yield* itemStarted({ ...needsApproval ? item : running, status: "inProgress" })
    const decision = needsApproval
      ? yield* approveCommand(
        turn,
        { itemId: id, command: item.command, commandActions: item.commandActions, cwd: item.cwd },
        command,
        options.reason
      )
      : undefined
    if (isRefused(decision)) {
      yield* itemCompleted({ ...item, status: decision === "failed" ? "failed" : "declined" })
      return decision === "cancel" ? yield* new Interrupted() : decision
    }
    const output = options?.output ?? ""
    const exitCode = options?.exitCode ?? 0
    if (output !== "") yield* turn.emit("item/commandExecution/outputDelta", { itemId: id, delta: output })
    yield* itemCompleted({
      ...running,
      status: exitCode === 0 ? "completed" : "failed",
      aggregatedOutput: output === "" ? null : output,
      exitCode,
      durationMs: 0
    })
    return decision
  }))

/**
 * Changes files and returns the client's decision about it, as {@link command} does.
 *
 * @category actions
 * @since 0.1.0
 */
export const fileChange = (
  changes: ReadonlyArray<{
    readonly path: string
    readonly kind: "add" | "delete" | "update"
    readonly diff: string
  }>,
  options?: {
    readonly approval?: boolean | undefined
    readonly reason?: string | undefined
  }
): Effect.Effect<Protocol.FileChangeApprovalDecision | "failed" | undefined, Interrupted, TurnContext> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.fileChange", { approval: boolean, reason: string }, options)
    const id = turn.newId("patch")
    const item = {
      type: "fileChange",
      id,
      changes: changes.map(({ diff, kind, path }) => ({
        path,
        diff,
        kind: kind === "update" ? { type: kind, move_path: null } : { type: kind }
      }))
    }
    yield* itemStarted({ ...item, status: "inProgress" })
    const decision = options?.approval === true
      ? yield* toDecision(turn.request("item/fileChange/requestApproval", {
        itemId: id,
        startedAtMs: yield* Clock.currentTimeMillis,
        reason: options.reason ?? null,
        grantRoot: null
      }))
      : undefined
    // The real server does not complete a change whose approval cancels the turn.
    if (decision === "cancel") return yield* new Interrupted()
    if (isRefused(decision)) {
      yield* itemCompleted({ ...item, status: "declined" })
      return decision
    }
    yield* itemCompleted({ ...item, status: "completed" })
    yield* turn.emit("turn/diff/updated", { diff: changes.map(({ diff }) => diff).join("\n") })
    return decision
  }))

/**
 * Updates the model's plan.
 *
 * @category actions
 * @since 0.1.0
 */
export const plan = (
  steps: ReadonlyArray<{ readonly step: string; readonly status: "pending" | "inProgress" | "completed" }>,
  explanation: string | null = null
): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) => turn.emit("turn/plan/updated", { explanation, plan: steps }))

/**
 * Reports the tokens of one request to the model.
 *
 * **Details**
 *
 * - The server reports them as `last`. Its `total` is the sum of all requests of the thread, in this turn and in earlier turns.
 * - A turn makes one request, and one more after each round of tool calls. Use this action once per request.
 * - A count that you omit is 0. `totalTokens` is by default the sum of input and output.
 *
 * @category actions
 * @since 0.1.0
 */
export const usage = (tokens: Partial<Protocol.TokenUsageBreakdown>): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) => {
    const {
      cachedInputTokens = 0,
      cacheWriteInputTokens = 0,
      inputTokens = 0,
      outputTokens = 0,
      reasoningOutputTokens = 0,
      totalTokens = inputTokens + outputTokens
    } = tokens
    return turn.usage({
      cachedInputTokens,
      cacheWriteInputTokens,
      inputTokens,
      outputTokens,
      reasoningOutputTokens,
      totalTokens
    })
  })

/**
 * Reports a rate limit of the account, as the server does at the end of a request to the model.
 *
 * **Details**
 *
 * - The default of `limitId` is `codex`. Members that you omit are sent as `null`, which does not clear a value.
 * - From then on the fake responds to `account/rateLimits/read`, with the limits that were reported. Before the first report it rejects the
 *   request, as a server without a login does.
 * - `resetsAt` is Unix time in seconds.
 *
 * **Example** (A turn that exceeds a limit)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * export const exceeded = (resetsAt: number) =>
 *   FakeAppServer.layer(() =>
 *     Effect.andThen(
 *       FakeAppServer.rateLimits({ primary: { usedPercent: 100, resetsAt } }),
 *       FakeAppServer.fail("You have hit your usage limit", "usageLimitExceeded")
 *     )
 *   )
 * ```
 *
 * @category actions
 * @since 0.1.0
 */
export const rateLimits = (limit: Protocol.RateLimitSnapshot): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) => turn.rateLimits(limit))

/**
 * Spawns a sub-agent, and returns it while it runs.
 *
 * **When to use**
 *
 * To test what a program does with the turns and the tokens of sub-agents.
 *
 * **Details**
 *
 * - The script of the sub-agent has a thread, a turn and tokens of its own. It may spawn sub-agents, too.
 * - The turn waits for the sub-agent with `wait`. Without it the sub-agent runs on after the end of the turn.
 * - As on the real server, an interruption of the turn does not interrupt the sub-agent. `turn/interrupt` with the ids of the sub-agent
 *   does.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * const findTests: FakeAppServer.Script = () =>
 *   Effect.andThen(FakeAppServer.usage({ inputTokens: 100 }), FakeAppServer.text("test/Turn.test.ts"))
 *
 * export const script: FakeAppServer.Script = () =>
 *   Effect.gen(function*() {
 *     const agent = yield* FakeAppServer.subAgent("Find the tests", findTests, { model: "small-model" })
 *     yield* FakeAppServer.usage({ inputTokens: 1000 })
 *     const state = yield* agent.wait
 *     yield* FakeAppServer.text(`The tests are in ${state?.message}`)
 *   })
 * ```
 *
 * @category actions
 * @since 0.1.0
 */
export const subAgent = (
  task: string,
  script: Script,
  options?: SubAgentOptions
): Effect.Effect<SubAgent, never, TurnContext> =>
  withTurn((turn) => {
    assertOptions("FakeAppServer.subAgent", { model: string } satisfies Kinds<SubAgentOptions>, options)
    return turn.subAgent(task, script, options)
  })

/**
 * Changes the status of the goal that the thread pursues, as the model does. No further turn of the goal follows.
 *
 * ```ts
 * import { Stream } from "effect"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * export const script: FakeAppServer.Script = () =>
 *   Stream.make(FakeAppServer.text("All tests pass"), FakeAppServer.updateGoal("complete"))
 * ```
 *
 * @category actions
 * @since 0.1.0
 */
export const updateGoal = (status: "complete" | "blocked" | "paused"): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) => turn.updateGoal(status))

/**
 * Requests input from the user and returns the chosen labels by question id.
 *
 * @category actions
 * @since 0.1.0
 */
export const userInput = (
  questions: ReadonlyArray<{
    readonly id: string
    readonly question: string
    readonly header?: string | undefined
    readonly options?: ReadonlyArray<string> | undefined
  }>
): Effect.Effect<{ readonly [question: string]: ReadonlyArray<string> }, RequestFailed, TurnContext> =>
  withTurn((turn) =>
    turn.request("item/tool/requestUserInput", {
      itemId: turn.newId("question"),
      isBlocking: true,
      autoResolutionMs: null,
      questions: questions.map(({ header, id, options, question }) => ({
        id,
        header: header ?? question,
        question,
        isOther: true,
        isSecret: false,
        options: options?.map((label) => ({ label, description: label })) ?? null
      }))
    }).pipe(
      Effect.map(({ answers }) => Object.fromEntries(Object.entries(answers).map(([id, { answers }]) => [id, answers])))
    )
  )

/**
 * Calls a tool of the client and returns the client's response.
 *
 * @category actions
 * @since 0.1.0
 */
export const toolCall = (
  tool: string,
  args: unknown,
  options?: { readonly namespace?: string | undefined }
): Effect.Effect<Protocol.DynamicToolCallResponse, RequestFailed, TurnContext> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.toolCall", { namespace: string }, options)
    const callId = turn.newId("call")
    const namespace = options?.namespace ?? null
    const item = { type: "dynamicToolCall", id: callId, tool, namespace, arguments: args }
    yield* turn.notify("rawResponseItem/completed", {
      item: { type: "function_call", call_id: callId, name: tool, arguments: JSON.stringify(args) }
    })
    yield* itemStarted({ ...item, status: "inProgress" })
    // Calls that a script makes at the same time belong to one response of the model.
    yield* Effect.yieldNow
    yield* turn.notify("rawResponse/completed", { responseId: callId, usage: null })
    const response = yield* turn.request("item/tool/call", { callId, tool, namespace, arguments: args }).pipe(
      Effect.tapError(({ reason }) =>
        itemCompleted({
          ...item,
          status: "failed",
          success: false,
          contentItems: [{
            type: "inputText",
            text: reason === "error" ? "dynamic tool request failed" : "dynamic tool response was invalid"
          }]
        })
      )
    )
    yield* itemCompleted({
      ...item,
      status: response.success ? "completed" : "failed",
      success: response.success,
      contentItems: response.contentItems
    })
    return response
  }))

// ---------------------------------------------------------------------------------------------------------------------
// Ends and faults
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Ends the turn as failed.
 *
 * @category actions
 * @since 0.1.0
 */
export const fail = (
  message: string,
  codexErrorInfo: Protocol.CodexErrorInfo | null = null
): Effect.Effect<never, TurnFailure> => Effect.fail(new TurnFailure({ message, codexErrorInfo }))

/**
 * Reports that the stream of the model was cut, and that the server sends the request again. Messages that have not completed are
 * retracted.
 *
 * ```ts
 * import { Stream } from "effect"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * export const script: FakeAppServer.Script = () =>
 *   Stream.make(
 *     FakeAppServer.deltas(["The ans"], { unfinished: true }),
 *     FakeAppServer.retry(),
 *     FakeAppServer.text("The answer is 42")
 *   )
 * ```
 *
 * @category faults
 * @since 0.1.0
 */
export const retry = (message = "Reconnecting... 1/5"): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) =>
    turn.retry({
      message,
      codexErrorInfo: { responseStreamDisconnected: { httpStatusCode: null } },
      additionalDetails: "stream disconnected before completion: stream closed before response.completed"
    })
  )

/**
 * Sends each message of an action twice.
 *
 * ```ts
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * export const script: FakeAppServer.Script = () => FakeAppServer.duplicate(FakeAppServer.text("once"))
 * ```
 *
 * @category faults
 * @since 0.1.0
 */
export const duplicate = <A, E, R>(action: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.provideService(action, DuplicateMessages, true)

/**
 * Runs an action after the end of the turn, so that its messages arrive late.
 *
 * ```ts
 * import { Stream } from "effect"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * export const script: FakeAppServer.Script = () =>
 *   Stream.make(FakeAppServer.late(FakeAppServer.command("sleep 60")), FakeAppServer.text("It still runs"))
 * ```
 *
 * @category faults
 * @since 0.1.0
 */
export const late = (action: Action): Effect.Effect<void, never, TurnContext> => withTurn((turn) => turn.late(action))

/**
 * Sends nothing more until the turn is interrupted.
 *
 * @category actions
 * @since 0.1.0
 */
export const never: Effect.Effect<never> = Effect.never

/**
 * @deprecated Use {@link never}.
 * @category actions
 * @since 0.1.0
 */
export const silence: Effect.Effect<never> = never

/**
 * Sends a line unchanged, such as junk or half a message.
 *
 * @category faults
 * @since 0.1.0
 */
export const line = (text: string): Effect.Effect<void, never, TurnContext> => withTurn((turn) => turn.line(text))

/**
 * Sends a notification of this turn that the protocol may not have.
 *
 * @category faults
 * @since 0.1.0
 */
export const notification = (method: string, params: object): Effect.Effect<void, never, TurnContext> =>
  withTurn((turn) => turn.notify(method, params))

/**
 * Ends the server process during the turn.
 *
 * @category faults
 * @since 0.1.0
 */
export const exit = (options?: ExitOptions): Effect.Effect<never, never, TurnContext> =>
  withTurn((turn) => {
    assertOptions("FakeAppServer.exit", exitKinds, options)
    return Effect.andThen(turn.exit(options), Effect.never)
  })
