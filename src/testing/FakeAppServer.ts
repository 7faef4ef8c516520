/**
 * An app-server in memory: a `Transport` whose other end follows a script.
 *
 * It keeps threads and turns as `codex app-server` does and says what each turn says in the script: an Effect, or a Stream
 * of the small Effects of this module. A test needs no process, no model and no network, runs in microseconds, and under
 * `TestClock` its delays pass in virtual time. What goes wrong in life can be scripted too.
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Layer } from "effect"
 * import { AppServer, Codex } from "effect-codex"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * const layer = Codex.layer.pipe(
 *   Layer.provide(AppServer.layer()),
 *   Layer.provideMerge(FakeAppServer.layer(() => FakeAppServer.deltas(["4", "2"])))
 * )
 *
 * it.effect("answers", () =>
 *   Effect.gen(function*() {
 *     const codex = yield* Codex.Codex
 *     const thread = yield* codex.startThread()
 *     const { finalResponse } = yield* thread.run("What is six times seven?")
 *     assert.strictEqual(finalResponse, "42")
 *   }).pipe(Effect.provide(layer)))
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type AppServerError, ConnectionClosed, make as appServerError } from "../AppServerError.ts"
import { configTree, isTable } from "../internal/configTree.ts"
import { decoderFor } from "../internal/connection/codec.ts"
import { isLoginCheck } from "../internal/connection/loginCheck.ts"
import { anything, assertOptions, boolean, duration, type Kinds, number, string } from "../internal/options.ts"
import { describeIssue } from "../internal/schemaIssue.ts"
import { linesOf } from "../internal/stdio/framing.ts"
import { makeRedact } from "../internal/stdio/redact.ts"
import * as Protocol from "../Protocol.ts"
import { type Connection, Transport } from "../Transport.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Scripts
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Ends a scripted turn as failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class ScriptedFailure extends Data.TaggedError("ScriptedFailure")<{
  readonly message: string
  readonly codexErrorInfo: Protocol.CodexErrorInfo | null
}> {}

/**
 * The client answered a request of the server with an error, or with something that is not an answer to it.
 *
 * @category errors
 * @since 0.1.0
 */
export class AskFailed extends Data.TaggedError("AskFailed")<{
  readonly method: string
  /** Whether the response was an error, or a result of another type. */
  readonly reason: "error" | "invalid"
  readonly message: string
}> {}

/**
 * Ends a scripted turn as interrupted, as a cancelled approval does.
 *
 * @category errors
 * @since 0.1.0
 */
export class Cancelled extends Data.TaggedError("Cancelled") {}

/**
 * One thing that a turn does.
 *
 * @category models
 * @since 0.1.0
 */
export type Step = Effect.Effect<unknown, ScriptedFailure | AskFailed | Cancelled, FakeTurn>

/**
 * What turns do: for each the steps to take, as one Effect or as a Stream of steps. The turn is completed after the last.
 *
 * @category models
 * @since 0.1.0
 */
export type Script = (
  turn: FakeTurn["Service"]
) => Step | Stream.Stream<Step, ScriptedFailure | AskFailed | Cancelled, FakeTurn>

type TurnParams<P> = P extends unknown ? Omit<P, "threadId" | "turnId"> : never

/**
 * The turn that a script plays.
 *
 * @category services
 * @since 0.1.0
 */
export class FakeTurn extends Context.Service<FakeTurn, {
  readonly threadId: string
  readonly turnId: string
  /** What `turn/start` was sent with. */
  readonly params: Protocol.TurnStartParams
  /** The text of the input. */
  readonly text: string
  /** Waits for the next input that is added to the turn. */
  readonly nextSteer: Effect.Effect<ReadonlyArray<Protocol.UserInputParam>>
  /** Notifies of something in this turn. */
  readonly emit: <M extends Protocol.TurnNotificationMethod>(
    method: M,
    params: TurnParams<Protocol.ServerNotifications[M]>
  ) => Effect.Effect<void>
  /** Asks the client and waits for its answer. */
  readonly ask: <M extends keyof Protocol.ServerRequests>(
    method: M,
    params: TurnParams<Protocol.ServerRequests[M]["params"]>
  ) => Effect.Effect<Protocol.ServerRequests[M]["result"], AskFailed>
  /** Reports the tokens of one request to the model, which the server adds to those of the thread. */
  readonly usage: (request: Protocol.TokenUsageBreakdown) => Effect.Effect<void>
  /** An id that nothing else has. */
  readonly newId: (prefix: string) => string
  /** The server that plays the turn. */
  readonly server: FakeAppServer["Service"]
}>()("effect-codex/testing/FakeAppServer/FakeTurn") {}

const withTurn = <A, E>(
  f: (turn: FakeTurn["Service"]) => Effect.Effect<A, E, FakeTurn>
): Effect.Effect<A, E, FakeTurn> => Effect.flatMap(FakeTurn, f)

/**
 * An item of a thread, known to the protocol or not.
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
 * Notifies of an item that has started. Any object will do, also one that the protocol does not have.
 *
 * @category steps
 * @since 0.1.0
 */
export const itemStarted = (item: AnyItem): Effect.Effect<void, never, FakeTurn> =>
  withTurn((turn) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (startedAtMs) => turn.emit("item/started", { item: item as unknown as Protocol.ThreadItem, startedAtMs })
    )
  )

/**
 * Notifies of an item that is complete. Any object will do, also one that the protocol does not have.
 *
 * @category steps
 * @since 0.1.0
 */
export const itemCompleted = (item: AnyItem): Effect.Effect<void, never, FakeTurn> =>
  withTurn((turn) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (completedAtMs) => turn.emit("item/completed", { item: item as unknown as Protocol.ThreadItem, completedAtMs })
    )
  )

/**
 * A message of the assistant that arrives in pieces, `pace` apart.
 *
 * @category steps
 * @since 0.1.0
 */
export const deltas = (
  parts: Iterable<string>,
  options?: {
    readonly phase?: "commentary" | "final_answer" | undefined
    readonly id?: string | undefined
    readonly pace?: Duration.Input | undefined
  }
): Effect.Effect<void, never, FakeTurn> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.deltas", { phase: string, id: string, pace: duration }, options)
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
    yield* itemCompleted({ ...item, text })
  }))

/**
 * A message of the assistant, in one piece.
 *
 * @category steps
 * @since 0.1.0
 */
export const text = (
  text: string,
  options?: {
    readonly phase?: "commentary" | "final_answer" | undefined
    readonly id?: string | undefined
  }
): Effect.Effect<void, never, FakeTurn> => deltas(text === "" ? [] : [text], options)

/**
 * What the model thinks, as a summary.
 *
 * @category steps
 * @since 0.1.0
 */
export const reasoning = (summary: string): Effect.Effect<void, never, FakeTurn> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    const item = { type: "reasoning", id: turn.newId("reasoning"), content: [] }
    yield* itemStarted({ ...item, summary: [] })
    yield* turn.emit("item/reasoning/summaryPartAdded", { itemId: item.id, summaryIndex: 0 })
    yield* turn.emit("item/reasoning/summaryTextDelta", { itemId: item.id, summaryIndex: 0, delta: summary })
    yield* itemCompleted({ ...item, summary: [summary] })
  }))

/** As the server shows a command: as one word of the shell that runs it. */
const quoted = (command: string): string =>
  /^[\w@%+=:,./-]+$/.test(command) ? command : `'${command.replaceAll("'", "'\"'\"'")}'`

/** The command that a shell runs, as it was before {@link quoted}. */
const wordOf = (inShell: string): string => {
  const word = /^\S+ -l?c (.*)$/s.exec(inShell)?.[1] ?? inShell
  return word.startsWith("'") ? word.slice(1, -1).replaceAll("'\"'\"'", "'") : word
}

/** Whether a decision lets the thing happen. The others decline it, or cancel the turn. */
const isAccepted = (decision: unknown): boolean => decision !== "decline" && decision !== "cancel"

/** Asks for an approval. A client that cannot answer has not approved. */
const approval = <M extends "item/commandExecution/requestApproval" | "item/fileChange/requestApproval">(
  turn: FakeTurn["Service"],
  method: M,
  params: TurnParams<Protocol.ServerRequests[M]["params"]>
): Effect.Effect<Protocol.ServerRequests[M]["result"]["decision"] | "failed"> =>
  turn.ask(method, params).pipe(
    Effect.map((answer) => answer.decision as Protocol.ServerRequests[M]["result"]["decision"]),
    Effect.catchTag("AskFailed", () => Effect.succeed("failed" as const))
  )

/**
 * A command with its output. With `approval` the client is asked first; the decision is the result, and `failed` if its
 * answer was none. A declined command does not run; `cancel` also ends the turn as interrupted.
 *
 * @category steps
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
): Effect.Effect<Protocol.CommandExecutionApprovalDecisionParam | "failed" | undefined, Cancelled, FakeTurn> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.command", {
      output: string,
      exitCode: number,
      approval: boolean,
      reason: string,
      cwd: string
    }, options)
    const id = turn.newId("command")
    const cwd = options?.cwd ?? workspace
    const inShell = `/bin/bash -c ${quoted(command)}`
    const item = {
      type: "commandExecution",
      id,
      command: inShell,
      cwd,
      commandActions: [{ type: "unknown" as const, command }],
      source: "agent",
      processId: null
    }
    const started = { ...item, processId: turn.newId("process") }
    const isAsked = options?.approval === true
    // A command that waits for its approval has no process yet.
    yield* itemStarted({ ...isAsked ? item : started, status: "inProgress" })
    const prefix = command.split(/[;&|]/, 1)[0]!.trim().split(/\s+/)
    const decision = isAsked
      ? yield* approval(turn, "item/commandExecution/requestApproval", {
        itemId: id,
        startedAtMs: yield* Clock.currentTimeMillis,
        kind: "command",
        environmentId: "local",
        command: inShell,
        commandActions: item.commandActions,
        cwd,
        ...(options.reason === undefined ? {} : { reason: options.reason }),
        proposedExecpolicyAmendment: prefix,
        availableDecisions: [
          "accept",
          { acceptWithExecpolicyAmendment: { execpolicy_amendment: prefix } },
          "cancel"
        ]
      })
      : undefined
    if (decision === "failed" || !isAccepted(decision)) {
      yield* itemCompleted({ ...item, status: decision === "failed" ? "failed" : "declined" })
      return decision === "cancel" ? yield* new Cancelled() : decision
    }
    const output = options?.output ?? ""
    const exitCode = options?.exitCode ?? 0
    if (output !== "") yield* turn.emit("item/commandExecution/outputDelta", { itemId: id, delta: output })
    yield* itemCompleted({
      ...started,
      status: exitCode === 0 ? "completed" : "failed",
      aggregatedOutput: output === "" ? null : output,
      exitCode,
      durationMs: 0
    })
    return decision
  }))

/**
 * Changes of files. With `approval` the client is asked first, as for {@link command}.
 *
 * @category steps
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
): Effect.Effect<Protocol.FileChangeApprovalDecision | "failed" | undefined, Cancelled, FakeTurn> =>
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
      ? yield* approval(turn, "item/fileChange/requestApproval", {
        itemId: id,
        startedAtMs: yield* Clock.currentTimeMillis,
        reason: options.reason ?? null,
        grantRoot: null
      })
      : undefined
    // As the real server does: a change whose approval cancels the turn is never completed.
    if (decision === "cancel") return yield* new Cancelled()
    if (decision === "failed" || !isAccepted(decision)) {
      yield* itemCompleted({ ...item, status: "declined" })
      return decision
    }
    yield* itemCompleted({ ...item, status: "completed" })
    yield* turn.emit("turn/diff/updated", { diff: changes.map(({ diff }) => diff).join("\n") })
    return decision
  }))

/**
 * The model's plan.
 *
 * @category steps
 * @since 0.1.0
 */
export const plan = (
  steps: ReadonlyArray<{ readonly step: string; readonly status: "pending" | "inProgress" | "completed" }>,
  explanation: string | null = null
): Effect.Effect<void, never, FakeTurn> =>
  withTurn((turn) => turn.emit("turn/plan/updated", { explanation, plan: steps }))

/**
 * The tokens of one request to the model.
 *
 * **Details**
 *
 * - The server reports them as `last`, and in `total` the sum over all requests of the thread, in this turn and in earlier ones.
 * - A turn makes one request, and one more after each round of tool calls. A turn of two requests has two of these steps.
 * - A count that is left out is 0; `totalTokens` is the sum of input and output.
 *
 * @category steps
 * @since 0.1.0
 */
export const usage = (tokens: Partial<Protocol.TokenUsageBreakdown>): Effect.Effect<void, never, FakeTurn> =>
  withTurn((turn) => {
    const {
      cachedInputTokens = 0,
      cacheWriteInputTokens = 0,
      inputTokens = 0,
      outputTokens = 0,
      reasoningOutputTokens = 0
    } = tokens
    const breakdown: Protocol.TokenUsageBreakdown = {
      cachedInputTokens,
      cacheWriteInputTokens,
      inputTokens,
      outputTokens,
      reasoningOutputTokens,
      totalTokens: tokens.totalTokens ?? inputTokens + outputTokens
    }
    return turn.usage(breakdown)
  })

/**
 * Asks the user. The result is the chosen answers by question.
 *
 * @category steps
 * @since 0.1.0
 */
export const userInput = (
  questions: ReadonlyArray<{
    readonly id: string
    readonly question: string
    readonly header?: string | undefined
    readonly options?: ReadonlyArray<string> | undefined
  }>
): Effect.Effect<{ readonly [question: string]: ReadonlyArray<string> }, AskFailed, FakeTurn> =>
  withTurn((turn) =>
    turn.ask("item/tool/requestUserInput", {
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
 * Calls a tool of the client. The result is what the client answered.
 *
 * @category steps
 * @since 0.1.0
 */
export const toolCall = (
  tool: string,
  args: unknown,
  options?: { readonly namespace?: string | undefined }
): Effect.Effect<Protocol.DynamicToolCallResponse, AskFailed, FakeTurn> =>
  withTurn(Effect.fnUntraced(function*(turn) {
    assertOptions("FakeAppServer.toolCall", { namespace: string }, options)
    const callId = turn.newId("call")
    const namespace = options?.namespace ?? null
    const item = { type: "dynamicToolCall", id: callId, tool, namespace, arguments: args }
    yield* itemStarted({ ...item, status: "inProgress" })
    const answer = yield* turn.ask("item/tool/call", { callId, tool, namespace, arguments: args }).pipe(
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
      status: answer.success ? "completed" : "failed",
      success: answer.success,
      contentItems: answer.contentItems
    })
    return answer
  }))

/**
 * Ends the turn as failed.
 *
 * @category steps
 * @since 0.1.0
 */
export const fail = (
  message: string,
  codexErrorInfo: Protocol.CodexErrorInfo | null = null
): Effect.Effect<never, ScriptedFailure> => Effect.fail(new ScriptedFailure({ message, codexErrorInfo }))

/**
 * Says nothing, until the turn is interrupted.
 *
 * @category steps
 * @since 0.1.0
 */
export const silence: Effect.Effect<never> = Effect.never

/**
 * A line as it is: junk, half a message, whatever comes.
 *
 * @category faults
 * @since 0.1.0
 */
export const line = (text: string): Effect.Effect<void, never, FakeTurn> => withTurn((turn) => turn.server.line(text))

/**
 * A notification of this turn that the protocol need not have.
 *
 * @category faults
 * @since 0.1.0
 */
export const notification = (method: string, params: object): Effect.Effect<void, never, FakeTurn> =>
  withTurn((turn) => turn.server.notify(method, { threadId: turn.threadId, turnId: turn.turnId, ...params }))

/**
 * How a fake process ends.
 *
 * @category models
 * @since 0.1.0
 */
export interface ExitOptions {
  /** Default: 0, unless there is a signal. */
  readonly exitCode?: number | undefined
  /** The signal that kills it, such as `SIGKILL`. */
  readonly signal?: string | undefined
  /** The beginning of a line that it does not get to finish. */
  readonly midLine?: string | undefined
  /** Its last words. */
  readonly stderr?: string | undefined
}

const exitKinds: Kinds<ExitOptions> = { exitCode: number, signal: string, midLine: string, stderr: string }

/**
 * Ends the server in the middle of the turn.
 *
 * @category faults
 * @since 0.1.0
 */
export const exit = (options?: ExitOptions): Effect.Effect<never, never, FakeTurn> =>
  withTurn((turn) => {
    assertOptions("FakeAppServer.exit", exitKinds, options)
    return Effect.andThen(turn.server.exit(options), Effect.never)
  })

// ---------------------------------------------------------------------------------------------------------------------
// Answers
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How a request is answered.
 *
 * @category models
 * @since 0.1.0
 */
export type Answer = Data.TaggedEnum<{
  Usual: {}
  Result: { readonly result: unknown }
  Rejected: { readonly code: number; readonly message: string; readonly data?: unknown }
  Silent: {}
}>

const Answer = Data.taggedEnum<Answer>()

/**
 * As the fake answers by itself.
 *
 * @category answers
 * @since 0.1.0
 */
export const usual: Answer = Answer.Usual()

/**
 * With this result, whatever the protocol says.
 *
 * @category answers
 * @since 0.1.0
 */
export const result = (result: unknown): Answer => Answer.Result({ result })

/**
 * With an error. The real server uses -32600, the default, for nearly everything.
 *
 * @category answers
 * @since 0.1.0
 */
export const rejected = (
  message: string,
  options?: { readonly code?: number | undefined; readonly data?: unknown }
): Answer => {
  assertOptions("FakeAppServer.rejected", { code: number, data: anything }, options)
  return Answer.Rejected({ code: options?.code ?? -32600, message, data: options?.data })
}

/**
 * As a server that is too busy.
 *
 * @category answers
 * @since 0.1.0
 */
export const overloaded: Answer = Answer.Rejected({ code: -32001, message: "Server overloaded; retry later." })

/**
 * Not at all.
 *
 * @category answers
 * @since 0.1.0
 */
export const silent: Answer = Answer.Silent()

// ---------------------------------------------------------------------------------------------------------------------
// Server
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Something that the client has sent.
 *
 * @category models
 * @since 0.1.0
 */
export interface ClientMessage {
  readonly id?: string | number
  readonly method?: string
  readonly params?: any
  readonly result?: any
  readonly error?: any
}

/**
 * How a {@link FakeAppServer} behaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** How long each message of the server takes, one after the other. Default: nothing. */
  readonly latency?: Duration.Input | undefined
  /** Whether `turn/start` is answered only after the whole turn. Default: `false`. */
  readonly eventsBeforeAnswer?: boolean | undefined
  /** Whether each byte comes by itself. Default: `false`. */
  readonly splitAtEveryByte?: boolean | undefined
  /** Whether each message is sent twice. Default: `false`. */
  readonly duplicateMessages?: boolean | undefined
}

/**
 * The controls of the fake.
 *
 * @category services
 * @since 0.1.0
 */
export class FakeAppServer extends Context.Service<FakeAppServer, {
  /** The methods that the fake answers without a scripted answer. */
  readonly methods: ReadonlyArray<string>
  /** Everything that clients have sent, in order, without the check of the login that `Codex.layer` makes. */
  readonly sent: Effect.Effect<ReadonlyArray<ClientMessage>>
  /** Waits until a method has been sent `count` times, 1 by default, and gives the last of those messages. */
  readonly awaitSent: (method: string, count?: number) => Effect.Effect<ClientMessage>
  /** What turns do from now on. */
  readonly onTurn: (script: Script) => Effect.Effect<void>
  /** How requests of a method are answered from now on, the next `times` of them or all. */
  readonly answer: (
    method: string,
    answer: Answer | ((request: ClientMessage) => Answer),
    options?: { readonly times?: number | undefined }
  ) => Effect.Effect<void>
  /** Sends a notification to every client. */
  readonly notify: (method: string, params: object) => Effect.Effect<void>
  /** Sends a request to every client and waits for the first answer, a result or an error. */
  readonly ask: (method: string, params: object) => Effect.Effect<ClientMessage>
  /** Sends a line as it is to every client. */
  readonly line: (text: string) => Effect.Effect<void>
  /** Stops reading what clients send, until `resume`. */
  readonly stall: Effect.Effect<void>
  readonly resume: Effect.Effect<void>
  /** Ends every connection, as when the process ends. Stored threads stay for the next one. */
  readonly exit: (options?: ExitOptions) => Effect.Effect<void>
}>()("effect-codex/testing/FakeAppServer") {}

const workspace = "/workspace"

interface StoredTurn {
  readonly id: string
  status: "inProgress" | "completed" | "interrupted" | "failed"
  error: Protocol.TurnError | null
  readonly items: Array<Protocol.ThreadItem>
  /** In milliseconds. */
  readonly startedAt: number
  completedAt: number | null
}

interface ActiveTurn {
  readonly stored: StoredTurn
  readonly steers: Queue.Queue<ReadonlyArray<Protocol.UserInputParam>>
  readonly interrupted: Deferred.Deferred<never, Cancelled>
  /** The script has ended, by itself or because the turn was interrupted. */
  readonly stopped: Deferred.Deferred<void>
  /** The request to interrupt the turn has its response, which precedes the end of the turn. */
  readonly answered: Deferred.Deferred<void>
  /** Requests to the client that the interruption leaves without a response. */
  readonly unanswered: Array<number>
  started: boolean
}

/** What a thread's turns run with. */
interface Settings {
  readonly cwd: string
  readonly roots: ReadonlyArray<string>
  readonly model: string
  readonly effort: string | null
  readonly summary: Protocol.ReasoningSummaryParam | null
  readonly serviceTier: string | null
  readonly approvalPolicy: Protocol.AskForApprovalParam
  readonly approvalsReviewer: string
  readonly sandbox: Protocol.SandboxPolicyParam
}

interface StoredThread {
  readonly id: string
  readonly forkedFromId: string | null
  readonly ephemeral: boolean
  readonly createdAt: number
  updatedAt: number
  name: string | null
  preview: string
  /** Whether the thread has a file. It gets one with its first turn, its name or its archive. */
  stored: boolean
  archived: boolean
  loaded: boolean
  /** Whether the server has read the thread from its file, which is what makes the turns of a thread without any listable. */
  reopened: boolean
  failed: boolean
  settings: Settings
  usage: { readonly total: Protocol.TokenUsageBreakdown; readonly last: Protocol.TokenUsageBreakdown } | undefined
  /** The turn that made the last request to the model. */
  usageTurnId: string | undefined
  readonly turns: Array<StoredTurn>
  /** How many of the turns were those of the thread that this one was forked from. */
  readonly inherited: number
  /** Commands that run, by the id of their process. One that its turn leaves behind is a background terminal. */
  readonly processes: Map<string, Protocol.ThreadItem & { readonly type: "commandExecution" }>
  active: ActiveTurn | undefined
}

const modelEntry: Protocol.Model = {
  id: "fake-model",
  model: "fake-model",
  displayName: "Fake",
  description: "A scripted model",
  hidden: false,
  isDefault: true,
  supportedReasoningEfforts: [{ reasoningEffort: "medium", description: "Medium" }],
  defaultReasoningEffort: "medium"
}

/** As the real server reports it for a model of 272,000 tokens, of which it keeps some back. */
const modelContextWindow = 258_400

/** The configuration of the fake, as `config.toml` would have it. */
const configuration = {
  model: modelEntry.model,
  model_provider: "fake",
  model_reasoning_effort: null,
  approval_policy: "on-request",
  approvals_reviewer: null,
  sandbox_mode: "read-only",
  sandbox_workspace_write: null
} as const

/** What a request is refused with. */
class Refused extends Data.TaggedError("Refused")<{ readonly message: string; readonly code?: number }> {}

const refuse = (message: string, code?: number) =>
  Effect.fail(new Refused(code === undefined ? { message } : { message, code }))

/** What a thread waits for, by the method of the request. */
const waitingFlags: Readonly<Record<string, "waitingOnApproval" | "waitingOnUserInput">> = {
  "item/commandExecution/requestApproval": "waitingOnApproval",
  "item/fileChange/requestApproval": "waitingOnApproval",
  "item/permissions/requestApproval": "waitingOnApproval",
  "item/tool/requestUserInput": "waitingOnUserInput"
}

const textOf = (input: ReadonlyArray<Protocol.UserInputParam>): string =>
  input.flatMap((item) => item.type === "text" ? [item.text] : []).join("\n")

const seconds = (millis: number) => Math.floor(millis / 1000)

const turnJson = (turn: StoredTurn, itemsView: Protocol.TurnItemsViewParam): Protocol.Turn => ({
  id: turn.id,
  rootTurnId: turn.id,
  items: itemsView === "full" ? turn.items : itemsView === "notLoaded" ? [] : [
    ...turn.items.filter(({ type }) => type === "userMessage").slice(0, 1),
    ...turn.items.filter(({ type }) => type === "agentMessage").slice(-1)
  ],
  itemsView,
  status: turn.status,
  error: turn.error,
  startedAt: seconds(turn.startedAt),
  completedAt: turn.completedAt === null ? null : seconds(turn.completedAt),
  durationMs: turn.completedAt === null ? null : turn.completedAt - turn.startedAt
})

/** The turn in `turn/completed`, which has the last message of a turn that is completed, and no other item. */
const completedJson = (turn: StoredTurn): Protocol.Turn => {
  const messages = turn.status === "completed" ? turn.items.filter(({ type }) => type === "agentMessage") : []
  return { ...turnJson(turn, messages.length === 0 ? "notLoaded" : "summary"), items: messages.slice(-1) }
}

const threadJson = (thread: StoredThread, withTurns = false): Protocol.Thread => ({
  id: thread.id,
  sessionId: thread.id,
  forkedFromId: thread.forkedFromId,
  preview: thread.preview,
  ephemeral: thread.ephemeral,
  modelProvider: "fake",
  // The file of a thread has the model of its turns.
  model: thread.loaded || thread.turns.length > 0 ? thread.settings.model : null,
  reasoningEffort: thread.settings.effort,
  createdAt: thread.createdAt,
  updatedAt: thread.updatedAt,
  status: !thread.loaded
    ? { type: "notLoaded" }
    : thread.active !== undefined
    ? { type: "active", activeFlags: [] }
    : { type: thread.failed ? "systemError" : "idle" },
  path: thread.ephemeral ? null : `/codex/sessions/${thread.id}.jsonl`,
  cwd: thread.settings.cwd,
  cliVersion: Protocol.version,
  source: "appServer",
  name: thread.name,
  turns: withTurns ? thread.turns.map((turn) => turnJson(turn, "full")) : []
})

/** Codex adds the workspace roots of a thread to the writable roots of its sandbox policy. */
const effectivePolicy = ({ cwd, roots, sandbox }: Settings): Protocol.SandboxPolicy => {
  switch (sandbox.type) {
    case "readOnly":
      return { type: "readOnly", networkAccess: sandbox.networkAccess ?? false }
    case "workspaceWrite": {
      const { excludeSlashTmp = false, excludeTmpdirEnvVar = false, networkAccess = false, writableRoots = [] } =
        sandbox
      return {
        type: "workspaceWrite",
        writableRoots: [...new Set([...roots, ...writableRoots])].filter((root) => root !== cwd),
        networkAccess,
        excludeTmpdirEnvVar,
        excludeSlashTmp
      }
    }
    case "externalSandbox":
      return { type: "externalSandbox", networkAccess: sandbox.networkAccess ?? "restricted" }
    default:
      return sandbox
  }
}

const openedJson = (thread: StoredThread): Protocol.ThreadStartResponse => {
  const { approvalPolicy, approvalsReviewer, cwd, effort, model, roots, serviceTier } = thread.settings
  return {
    thread: threadJson(thread),
    model,
    modelProvider: configuration.model_provider,
    serviceTier,
    cwd,
    runtimeWorkspaceRoots: roots,
    approvalPolicy: approvalPolicy as Protocol.AskForApproval,
    approvalsReviewer,
    sandbox: effectivePolicy(thread.settings),
    activePermissionProfile: null,
    reasoningEffort: effort
  }
}

const settingsJson = (settings: Settings): Protocol.ThreadSettings => {
  const { approvalPolicy, approvalsReviewer, cwd, effort, model, roots, serviceTier, summary } = settings
  return {
    cwd,
    environments: [{ environmentId: "local", cwd, runtimeWorkspaceRoots: roots }],
    approvalPolicy: approvalPolicy as Protocol.AskForApproval,
    approvalsReviewer,
    sandboxPolicy: effectivePolicy(settings),
    activePermissionProfile: null,
    model,
    modelProvider: configuration.model_provider,
    serviceTier,
    effort,
    summary,
    collaborationMode: {
      mode: "default",
      settings: { model, reasoning_effort: effort, developer_instructions: null }
    },
    personality: null
  }
}

type OpenParams = Partial<Protocol.ThreadStartParams>

const reviewerOf = (name: string) => name === "guardian_subagent" ? "auto_review" : name

/** The `config` of a request, as one tree. */
const configOf = (params: OpenParams): Effect.Effect<Record<string, any>, Refused> =>
  Effect.try({
    try: () => configTree(params.config ?? {}),
    catch: (error) => new Refused({ message: `failed to load configuration: ${(error as Error).message}` })
  })

const policyOf = (mode: string, config: Record<string, any>): Protocol.SandboxPolicyParam => {
  const table: unknown = config["sandbox_workspace_write"]
  const details: Record<string, any> = isTable(table) ? table : {}
  switch (mode) {
    case "danger-full-access":
      return { type: "dangerFullAccess" }
    case "workspace-write":
      return {
        type: "workspaceWrite",
        writableRoots: details["writable_roots"] ?? [],
        networkAccess: details["network_access"] ?? false,
        excludeTmpdirEnvVar: details["exclude_tmpdir_env_var"] ?? false,
        excludeSlashTmp: details["exclude_slash_tmp"] ?? false
      }
    default:
      return { type: "readOnly", networkAccess: false }
  }
}

/**
 * The settings of a thread that is started, forked or read from its file: those of the request, then those of its `config`, then
 * those that the thread had, as far as Codex keeps them, then those of the configuration.
 */
const openSettings = (
  method: "thread/start" | "thread/fork" | "thread/resume",
  params: OpenParams,
  config: Record<string, any>,
  before: Settings | undefined
): Settings => {
  // Codex does not keep `workspace-write`, and a fork has the model of the configuration.
  const sandbox = before === undefined || before.sandbox.type === "workspaceWrite" ? undefined : before.sandbox
  const isModelGiven = params.model ?? config["model"] ?? config["model_reasoning_effort"]
  const model = method !== "thread/resume" || Predicate.isNotNullish(isModelGiven) ? undefined : before
  const mode = params.sandbox ?? config["sandbox_mode"]
  const policy = Predicate.isNotNullish(mode)
    ? policyOf(mode, config)
    : sandbox ?? policyOf(configuration.sandbox_mode, config)
  const cwd = params.cwd ?? before?.cwd ?? workspace
  return {
    cwd,
    roots: params.runtimeWorkspaceRoots ??
      (method === "thread/resume" && before !== undefined
        ? movedRoots(before, cwd)
        : [...new Set([cwd, ...policy.type === "workspaceWrite" ? policy.writableRoots ?? [] : []])]),
    model: params.model ?? config["model"] ?? model?.model ?? configuration.model,
    effort: config["model_reasoning_effort"] ?? model?.effort ?? null,
    summary: config["model_reasoning_summary"] ?? model?.summary ?? null,
    serviceTier: params.serviceTier ?? config["service_tier"] ??
      (method === "thread/resume" ? before?.serviceTier : undefined) ?? null,
    approvalPolicy: params.approvalPolicy ?? config["approval_policy"] ?? before?.approvalPolicy ??
      configuration.approval_policy,
    approvalsReviewer: reviewerOf(
      params.approvalsReviewer ?? config["approvals_reviewer"] ?? before?.approvalsReviewer ?? "user"
    ),
    sandbox: policy
  }
}

/** The working directory is one of the roots, so another one takes its place. */
const movedRoots = ({ cwd, roots }: Settings, to: string): ReadonlyArray<string> => [
  ...new Set(roots.map((root) => root === cwd ? to : root))
]

/** The settings of a thread after a turn or an update that brings others. */
const overriddenSettings = (
  settings: Settings,
  params: Omit<Protocol.TurnStartParams, "threadId" | "input">
): Settings => {
  const cwd = params.cwd ?? settings.cwd
  return {
    cwd,
    roots: params.runtimeWorkspaceRoots ?? movedRoots(settings, cwd),
    model: params.model ?? settings.model,
    effort: params.effort ?? settings.effort,
    summary: params.summary ?? settings.summary,
    serviceTier: params.serviceTier === null && settings.serviceTier !== null
      ? "default"
      : params.serviceTier ?? settings.serviceTier,
    approvalPolicy: params.approvalPolicy ?? settings.approvalPolicy,
    approvalsReviewer: reviewerOf(params.approvalsReviewer ?? settings.approvalsReviewer),
    sandbox: params.sandboxPolicy ?? settings.sandbox
  }
}

const addUsage = (
  one: Protocol.TokenUsageBreakdown,
  other: Protocol.TokenUsageBreakdown
): Protocol.TokenUsageBreakdown => ({
  cachedInputTokens: one.cachedInputTokens + other.cachedInputTokens,
  cacheWriteInputTokens: (one.cacheWriteInputTokens ?? 0) + (other.cacheWriteInputTokens ?? 0),
  inputTokens: one.inputTokens + other.inputTokens,
  outputTokens: one.outputTokens + other.outputTokens,
  reasoningOutputTokens: one.reasoningOutputTokens + other.reasoningOutputTokens,
  totalTokens: one.totalTokens + other.totalTokens
})

/** An open connection, from the server's side. */
interface Client {
  readonly outgoing: Queue.Queue<Uint8Array, AppServerError | Cause.Done>
  initialized: boolean
  /** Threads whose events this connection does not get. */
  readonly unsubscribed: Set<string>
}

/** What a request is answered with, what that waits for, and what follows it. */
interface Outcome {
  readonly result: unknown
  readonly before?: Effect.Effect<unknown>
  readonly after?: Effect.Effect<unknown>
}

const echo: Script = (turn) => text(turn.text)

/** A page of a list. A cursor is opaque to the client: the position that comes next, for a list of that name. */
const page = <A>(
  list: string,
  data: ReadonlyArray<A>,
  params: { readonly cursor?: string | null | undefined; readonly limit?: number | null | undefined }
): Effect.Effect<{ readonly data: ReadonlyArray<A>; readonly nextCursor: string | null }, Refused> => {
  const { cursor } = params
  const start = Predicate.isNullish(cursor)
    ? 0
    : cursor.startsWith(`${list}:`)
    ? Number(cursor.slice(list.length + 1))
    : NaN
  if (!Number.isInteger(start)) return refuse(`invalid cursor: ${cursor}`)
  const end = start + Math.max(1, params.limit ?? 50)
  return Effect.succeed({ data: data.slice(start, end), nextCursor: end < data.length ? `${list}:${end}` : null })
}

/** A page of turns. A cursor names a turn, so that it holds when turns are added, and in both directions. */
const turnsPage = (
  thread: StoredThread,
  { cursor, itemsView, limit, sortDirection }: Protocol.ThreadTurnsListParams
): Effect.Effect<Protocol.ThreadTurnsListResponse, Refused> => {
  const turns = sortDirection === "asc" ? thread.turns : thread.turns.toReversed()
  let start = 0
  if (Predicate.isNotNullish(cursor)) {
    const [, place, id] = /^(at|after):(.*)$/.exec(cursor) ?? []
    const index = turns.findIndex((turn) => turn.id === id)
    if (index < 0) return refuse(`invalid cursor: ${cursor}`)
    start = place === "at" ? index : index + 1
  }
  const data = turns.slice(start, start + Math.max(1, limit ?? 50))
  return Effect.succeed({
    data: data.map((turn) => turnJson(turn, itemsView ?? "summary")),
    nextCursor: start + data.length < turns.length ? `after:${data.at(-1)!.id}` : null,
    backwardsCursor: data[0] === undefined ? null : `at:${data[0].id}`
  })
}

const rateLimits: Protocol.RateLimitSnapshot = { limitId: "codex", limitName: null, primary: null, secondary: null }

const compaction = (turn: FakeTurn["Service"]) => {
  const item = { type: "contextCompaction", id: turn.newId("compaction") }
  return Effect.andThen(itemStarted(item), itemCompleted(item))
}

/** Why a script failed, as the error of its turn. */
const errorOf = (cause: Cause.Cause<ScriptedFailure | AskFailed | Cancelled>): Protocol.TurnError => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  return {
    message: failure?.message ?? `the script of this turn died: ${Cause.pretty(cause)}`,
    codexErrorInfo: failure?._tag === "ScriptedFailure" ? failure.codexErrorInfo : null,
    additionalDetails: null
  }
}

/** Stops the script of a turn before the response, and lets the turn end after it. */
const interrupt = (active: ActiveTurn) => ({
  before: Effect.andThen(Deferred.fail(active.interrupted, new Cancelled()), Deferred.await(active.stopped)),
  after: Deferred.succeed(active.answered, undefined)
})

const kinds: Kinds<Options> = {
  latency: duration,
  eventsBeforeAnswer: boolean,
  splitAtEveryByte: boolean,
  duplicateMessages: boolean
}

const makeServer = Effect.fnUntraced(function*(initialScript: Script, options: Options) {
  assertOptions("FakeAppServer.layer", kinds, options)
  const threads = new Map<string, StoredThread>()
  const clients = new Set<Client>()
  const asks = new Map<number, Deferred.Deferred<ClientMessage>>()
  const answers = new Map<string, { readonly answer: (request: ClientMessage) => Answer; times: number }>()
  const sent = yield* SubscriptionRef.make<ReadonlyArray<ClientMessage>>([])
  const reading = yield* Latch.make(true)
  const turns = yield* FiberSet.make()
  const runTurn = yield* FiberSet.runtime(turns)()
  let script = initialScript
  let lastAskId = -1
  let lastId = 0
  const newId = (prefix: string) => `${prefix}-${++lastId}`
  const encoder = new TextEncoder()

  const bytesOf = (text: string): ReadonlyArray<Uint8Array> => {
    const bytes = encoder.encode(text)
    return options.splitAtEveryByte === true
      ? Array.from(bytes, (_, index) => bytes.subarray(index, index + 1))
      : [bytes]
  }

  const write = (client: Client, text: string) => Effect.asVoid(Queue.offerAll(client.outgoing, bytesOf(text)))

  const sendTo = Effect.fnUntraced(function*(client: Client, message: object) {
    if (options.latency !== undefined) yield* Effect.sleep(options.latency)
    const line = JSON.stringify(message) + "\n"
    yield* write(client, options.duplicateMessages === true ? line + line : line)
  })

  const toAll = (send: (client: Client) => Effect.Effect<void>) => Effect.forEach([...clients], send, { discard: true })

  const notify = (method: string, params: object) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (emittedAtMs) => toAll((client) => sendTo(client, { method, params, emittedAtMs }))
    )

  /** Notifies the connections that follow a thread. */
  const notifyFollowers = (thread: StoredThread, method: string, params: object) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (emittedAtMs) =>
        toAll((client) =>
          client.unsubscribed.has(thread.id) ? Effect.void : sendTo(client, { method, params, emittedAtMs })
        )
    )

  const notifyOf = (thread: StoredThread, method: string, params: object) =>
    notifyFollowers(thread, method, { threadId: thread.id, ...params })

  const notifyStatus = (thread: StoredThread, status: Protocol.ThreadStatus) =>
    notify("thread/status/changed", { threadId: thread.id, status })

  const ask = Effect.fnUntraced(function*(method: string, params: object, onId?: (id: number) => void) {
    const id = ++lastAskId
    onId?.(id)
    const answer = Deferred.makeUnsafe<ClientMessage>()
    asks.set(id, answer)
    yield* toAll((client) => sendTo(client, { method, id, params }))
    return yield* Effect.ensuring(Deferred.await(answer), Effect.sync(() => asks.delete(id)))
  })

  const askInTurn = Effect.fnUntraced(function*(
    thread: StoredThread,
    active: ActiveTurn,
    method: keyof Protocol.ServerRequests,
    params: object
  ) {
    const flag = waitingFlags[method]
    let requestId = -1
    if (flag !== undefined) yield* notifyStatus(thread, { type: "active", activeFlags: [flag] })
    const response = yield* ask(method, { threadId: thread.id, turnId: active.stored.id, ...params }, (id) => {
      requestId = id
    }).pipe(Effect.onInterrupt(() => Effect.sync(() => active.unanswered.push(requestId))))
    // As the real server does: it does not say that the call of a tool is resolved.
    if (method !== "item/tool/call") yield* notifyOf(thread, "serverRequest/resolved", { requestId })
    if (flag !== undefined) yield* notifyStatus(thread, { type: "active", activeFlags: [] })
    if (response.error !== undefined) {
      return yield* new AskFailed({
        method,
        reason: "error",
        message: `the client refused ${method}: ${response.error.message}`
      })
    }
    const decoded = decoderFor(Protocol.serverRequests[method].result as Schema.Codec<unknown>)(response.result)
    if (Result.isSuccess(decoded)) return response.result
    return yield* new AskFailed({
      method,
      reason: "invalid",
      message: `the client's response to ${method} is of another type: ${
        describeIssue(decoded.failure, response.result)
      }`
    })
  })

  const server: FakeAppServer["Service"] = {
    get methods() {
      return ["initialize", ...Object.keys(handlers)]
    },
    sent: SubscriptionRef.get(sent),
    awaitSent: (method, count = 1) =>
      SubscriptionRef.changes(sent).pipe(
        Stream.map((messages) => messages.filter((message) => message.method === method)),
        Stream.filter((messages) => messages.length >= count),
        Stream.runHead,
        Effect.flatMap(
          Option.match({ onNone: () => Effect.never, onSome: (messages) => Effect.succeed(messages[count - 1]!) })
        )
      ),
    onTurn: (next) =>
      Effect.sync(() => {
        script = next
      }),
    answer: (method, answer, { times = Infinity } = {}) =>
      Effect.sync(() => {
        answers.set(method, { answer: typeof answer === "function" ? answer : () => answer, times })
      }),
    notify,
    ask,
    line: (text) => toAll((client) => write(client, `${text}\n`)),
    stall: Effect.asVoid(reading.close),
    resume: Effect.asVoid(reading.open),
    exit: Effect.fnUntraced(function*(exit: ExitOptions = {}) {
      const { exitCode = exit.signal === undefined ? 0 : undefined, midLine, signal } = exit
      const error = appServerError(
        new ConnectionClosed({
          description: signal === undefined
            ? `the server exited with code ${exitCode}`
            : `the server was killed by ${signal}`,
          exitCode,
          signal,
          stderrTail: makeRedact([])(exit.stderr ?? "")
        })
      )
      for (const client of clients) {
        if (midLine !== undefined) yield* write(client, midLine)
        yield* Queue.fail(client.outgoing, error)
      }
      clients.clear()
      for (const thread of threads.values()) {
        thread.loaded = false
        thread.failed = false
        thread.processes.clear()
        if (thread.active === undefined) continue
        thread.active.stored.status = "interrupted"
        thread.active = undefined
      }
      yield* FiberSet.clear(turns).pipe(Effect.forkDetach)
    })
  }

  const threadOf = (params: { readonly threadId: string }): Effect.Effect<StoredThread, Refused> => {
    const thread = threads.get(params.threadId)
    return thread === undefined || !thread.loaded
      ? refuse(`thread not found: ${params.threadId}`)
      : Effect.succeed(thread)
  }

  /** A thread that has a file, and so can be opened again. */
  const storedOf = (id: string): Effect.Effect<StoredThread, Refused> => {
    const thread = threads.get(id)
    if (thread === undefined || !thread.stored) return refuse(`no rollout found for thread id ${id}`)
    return thread.archived
      ? refuse(`session ${id} is archived. Run \`codex unarchive ${id}\` to unarchive it first.`)
      : Effect.succeed(thread)
  }

  /** A thread whose turns are asked for. */
  const readableOf = (id: string): Effect.Effect<StoredThread, Refused> => {
    const thread = threads.get(id)
    return thread === undefined ? refuse(`thread not loaded: ${id}`) : Effect.succeed(thread)
  }

  /** As the real server does: the turns of a thread that has none are listable only once it was read from its file. */
  const checkListable = (thread: StoredThread) =>
    thread.turns.length > 0 || thread.reopened || !thread.loaded
      ? Effect.void
      : refuse("list_turns is not supported yet", -32601)

  const createThread = Effect.fnUntraced(function*(params: OpenParams, source?: StoredThread) {
    const now = seconds(yield* Clock.currentTimeMillis)
    const config = yield* configOf(params)
    const thread: StoredThread = {
      id: newId("thread"),
      forkedFromId: source?.id ?? null,
      ephemeral: params.ephemeral ?? false,
      createdAt: now,
      updatedAt: now,
      name: source?.name ?? null,
      preview: source?.preview ?? "",
      stored: source !== undefined && params.ephemeral !== true,
      archived: false,
      loaded: true,
      reopened: false,
      failed: false,
      settings: source === undefined
        ? openSettings("thread/start", params, config, undefined)
        : openSettings("thread/fork", params, config, source.settings),
      usage: source?.usage,
      usageTurnId: source?.usageTurnId,
      turns: source?.turns.map((turn) => ({ ...turn, items: turn.items.slice() })) ?? [],
      inherited: source?.turns.length ?? 0,
      processes: new Map(),
      active: undefined
    }
    threads.set(thread.id, thread)
    return thread
  })

  /** Takes over the settings that a turn or an update brings, and says so if any differs. */
  const override = Effect.fnUntraced(function*(
    thread: StoredThread,
    params: Omit<Protocol.TurnStartParams, "threadId" | "input">
  ) {
    const before = settingsJson(thread.settings)
    thread.settings = overriddenSettings(thread.settings, params)
    const threadSettings = settingsJson(thread.settings)
    return Equal.equals(before, threadSettings)
      ? Effect.void
      : notifyOf(thread, "thread/settings/updated", { threadSettings })
  })

  const reportUsage = (thread: StoredThread, turnId: string) =>
    thread.usage === undefined ? Effect.void : notifyOf(thread, "thread/tokenUsage/updated", {
      turnId,
      tokenUsage: { ...thread.usage, modelContextWindow }
    })

  const reportRequest = (thread: StoredThread, turnId: string) =>
    Effect.andThen(reportUsage(thread, turnId), notifyFollowers(thread, "account/rateLimits/updated", { rateLimits }))

  /** What a turn says reaches the clients and the history. */
  const emitOf = (thread: StoredThread, active: ActiveTurn) => (method: string, params: object) =>
    Effect.suspend(() => {
      const item = Predicate.hasProperty(params, "item") ? params.item as Protocol.ThreadItem : undefined
      if (method === "item/completed" && item !== undefined) active.stored.items.push(item)
      if (item?.type === "commandExecution" && Predicate.isString(item.processId)) {
        if (method === "item/started") thread.processes.set(item.processId, item)
        else if (method === "item/completed") thread.processes.delete(item.processId)
      }
      return notifyOf(thread, method, { turnId: active.stored.id, ...params })
    })

  const userMessage = Effect.fnUntraced(function*(
    emit: (method: string, params: object) => Effect.Effect<void>,
    input: ReadonlyArray<Protocol.UserInputParam>
  ) {
    if (input.length === 0) return
    const item = { type: "userMessage", id: newId("input"), clientId: null, content: input }
    const now = yield* Clock.currentTimeMillis
    yield* emit("item/started", { item, startedAtMs: now })
    yield* emit("item/completed", { item, completedAtMs: now })
  })

  /** Plays one turn from its start to its end, which comes whatever the script does. */
  const play = Effect.fnUntraced(function*(
    thread: StoredThread,
    active: ActiveTurn,
    params: Protocol.TurnStartParams,
    script: Script
  ) {
    const { stored } = active
    const emit = emitOf(thread, active)
    const turn: FakeTurn["Service"] = {
      threadId: thread.id,
      turnId: stored.id,
      params,
      text: textOf(params.input),
      // New input cuts off the request to the model that runs, which the server reports as it reports any.
      nextSteer: Effect.tap(
        Queue.take(active.steers),
        (input) => Effect.andThen(reportRequest(thread, stored.id), userMessage(emit, input))
      ),
      emit,
      ask: ((method, asked) => askInTurn(thread, active, method, asked)) as FakeTurn["Service"]["ask"],
      usage: (last) =>
        Effect.suspend(() => {
          thread.usage = { last, total: thread.usage === undefined ? last : addUsage(thread.usage.total, last) }
          thread.usageTurnId = stored.id
          return reportRequest(thread, stored.id)
        }),
      newId,
      server
    }
    const steps = Effect.suspend(() => {
      const played = script(turn)
      return Effect.isEffect(played)
        ? Effect.asVoid(played)
        : Stream.runForEach(played, identity)
    })
    yield* notifyStatus(thread, { type: "active", activeFlags: [] })
    active.started = true
    yield* notifyOf(thread, "turn/started", { turn: turnJson(stored, "notLoaded") })
    yield* userMessage(emit, params.input)
    const exit = yield* steps.pipe(
      Effect.provideService(FakeTurn, turn),
      Effect.raceFirst(Deferred.await(active.interrupted)),
      Effect.exit
    )

    if (yield* Deferred.isDone(active.interrupted)) {
      yield* reportRequest(thread, stored.id)
      yield* Deferred.succeed(active.stopped, undefined)
      yield* Deferred.await(active.answered)
    }
    const isInterrupted = Exit.isFailure(exit) &&
      Option.exists(Cause.findErrorOption(exit.cause), ({ _tag }) => _tag === "Cancelled")
    stored.completedAt = yield* Clock.currentTimeMillis
    thread.updatedAt = seconds(stored.completedAt)
    stored.status = isInterrupted ? "interrupted" : Exit.isFailure(exit) ? "failed" : "completed"
    thread.failed = stored.status === "failed"
    if (Exit.isFailure(exit) && !isInterrupted) {
      stored.error = errorOf(exit.cause)
      yield* notifyStatus(thread, { type: "systemError" })
      yield* emit("error", { error: stored.error, willRetry: false })
    }
    thread.active = undefined
    const completed = completedJson(stored)
    if (!thread.ephemeral && (thread.failed || completed.items.length > 0)) {
      yield* notifyOf(thread, "thread/readState/changed", {
        readState: {
          firstUnread: { type: "turn", turnId: thread.turns[thread.inherited]!.id },
          revision: newId("revision")
        }
      })
    }
    if (!thread.failed) yield* notifyStatus(thread, { type: "idle" })
    yield* notifyOf(thread, "turn/completed", { turn: completed })
    for (const requestId of active.unanswered) yield* notifyOf(thread, "serverRequest/resolved", { requestId })
    // An interruption that came too late waits no longer.
    yield* Deferred.succeed(active.stopped, undefined)
  })

  const startTurn = Effect.fnUntraced(
    function*(thread: StoredThread, params: Protocol.TurnStartParams, script: Script) {
      const active: ActiveTurn = {
        stored: {
          id: newId("turn"),
          status: "inProgress",
          error: null,
          items: [],
          startedAt: yield* Clock.currentTimeMillis,
          completedAt: null
        },
        steers: yield* Queue.unbounded<ReadonlyArray<Protocol.UserInputParam>>(),
        interrupted: Deferred.makeUnsafe(),
        stopped: Deferred.makeUnsafe(),
        answered: Deferred.makeUnsafe(),
        unanswered: [],
        started: false
      }
      thread.turns.push(active.stored)
      thread.active = active
      if (!thread.ephemeral) thread.stored = true
      if (thread.stored && thread.preview === "") thread.preview = textOf(params.input)
      return { active, run: play(thread, active, params, script) }
    }
  )

  const begin = Effect.fnUntraced(function*(
    thread: StoredThread,
    params: Protocol.TurnStartParams,
    script: Script,
    result: (turn: StoredTurn) => unknown
  ) {
    const { active, run } = yield* startTurn(thread, params, script)
    const answer = result(active.stored)
    if (options.eventsBeforeAnswer !== true) return { result: answer, after: Effect.sync(() => runTurn(run)) }
    return { result: answer, before: run }
  })

  const deprecateHistory = (instead: string) =>
    notify("deprecationNotice", {
      summary: `Full-history hydration is deprecated for paginated threads; ${instead}, then page with ` +
        "`thread/turns/list` and `thread/items/list`.",
      details: null
    })

  /** The response that opens a thread, with its history if that is asked for, which the server deprecates. */
  const opened = Effect.fnUntraced(function*(
    thread: StoredThread,
    { excludeTurns }: { readonly excludeTurns?: boolean | undefined }
  ) {
    if (excludeTurns === true) return openedJson(thread)
    yield* deprecateHistory("use `excludeTurns: true`")
    return { ...openedJson(thread), thread: threadJson(thread, true) }
  })

  const terminate = (thread: StoredThread, processId: string) =>
    Effect.suspend(() => {
      const item = thread.processes.get(processId)
      const turn = thread.turns.at(-1)
      if (item === undefined || turn === undefined) return Effect.void
      thread.processes.delete(processId)
      return Effect.flatMap(Clock.currentTimeMillis, (completedAtMs) =>
        notifyOf(thread, "item/completed", { turnId: turn.id, item: { ...item, status: "failed" }, completedAtMs }))
    })

  const handlers: Record<string, (params: any, client: Client) => Effect.Effect<Outcome, Refused>> = {
    "model/list": (params) => Effect.map(page("models", [modelEntry], params), (result) => ({ result })),
    "account/read": () => Effect.succeed({ result: { account: null, requiresOpenaiAuth: false } }),
    "config/read": (params: Protocol.ConfigReadParams) =>
      Effect.succeed({
        result: { config: configuration, origins: {}, ...(params.includeLayers === true ? { layers: [] } : {}) }
      }),
    "thread/start": (params: Protocol.ThreadStartParams) =>
      Effect.map(createThread(params), (thread) => ({
        result: openedJson(thread),
        after: notify("thread/started", { thread: threadJson(thread) })
      })),
    "thread/resume": Effect.fnUntraced(function*(params: Protocol.ThreadResumeParams, client: Client) {
      const thread = yield* storedOf(params.threadId)
      const wasLoaded = thread.loaded
      // As the real server does: a thread that is loaded keeps its settings.
      if (!wasLoaded) {
        const config = yield* configOf(params as OpenParams)
        thread.settings = openSettings("thread/resume", params as OpenParams, config, thread.settings)
        thread.loaded = true
        thread.reopened = true
        yield* notifyStatus(thread, { type: "idle" })
      }
      client.unsubscribed.delete(thread.id)
      const result = yield* opened(thread, params)
      if (params.excludeTurns !== true) yield* checkListable(thread)
      const turnId = params.excludeTurns === true ? thread.usageTurnId : thread.turns.at(-1)?.id
      return wasLoaded && params.excludeTurns === true || turnId === undefined
        ? { result }
        : { result, after: reportUsage(thread, turnId) }
    }),
    "thread/fork": Effect.fnUntraced(function*(params: Protocol.ThreadForkParams) {
      const source = yield* storedOf(params.threadId)
      const thread = yield* createThread(params as OpenParams, source)
      const turnId = params.excludeTurns === true ? undefined : thread.turns.at(-1)?.id
      return {
        result: yield* opened(thread, params),
        after: Effect.andThen(
          turnId === undefined ? Effect.void : reportUsage(thread, turnId),
          notify("thread/started", { thread: threadJson(thread) })
        )
      }
    }),
    "thread/unsubscribe": ({ threadId }: Protocol.ThreadUnsubscribeParams, client: Client) =>
      Effect.sync(() => {
        if (threads.get(threadId)?.loaded !== true) return { result: { status: "notLoaded" } }
        if (client.unsubscribed.has(threadId)) return { result: { status: "notSubscribed" } }
        client.unsubscribed.add(threadId)
        return { result: { status: "unsubscribed" } }
      }),
    "thread/settings/update": Effect.fnUntraced(function*(params: Protocol.ThreadSettingsUpdateParams) {
      const thread = yield* threadOf(params)
      return { result: {}, after: yield* override(thread, params) }
    }),
    "thread/list": Effect.fnUntraced(function*(params: Protocol.ThreadListParams) {
      const archived = params.archived ?? false
      const listed = [...threads.values()].filter((thread) =>
        thread.stored && thread.archived === archived && (archived || thread.turns.length > 0)
      )
      const key = Predicate.isNullish(params.sortKey) || params.sortKey === "created_at" ? "createdAt" : "updatedAt"
      listed.sort((one, other) => one[key] - other[key])
      if (params.sortDirection !== "asc") listed.reverse()
      // As the real server does: a list does not say where a fork came from.
      const entries = listed.map((thread) => Object.assign(threadJson(thread), { forkedFromId: null }))
      return { result: yield* page("threads", entries, params) }
    }),
    "thread/loaded/list": (params) =>
      Effect.suspend(() => {
        const loaded = [...threads.values()].filter((thread) => thread.loaded).map((thread) => thread.id)
        const loadedPage = page("loaded", loaded, loaded.length === 0 ? {} : params)
        return Effect.map(loadedPage, (result) => ({ result }))
      }),
    "thread/read": Effect.fnUntraced(function*(params: Protocol.ThreadReadParams) {
      const thread = yield* readableOf(params.threadId)
      if (params.includeTurns !== true) return { result: { thread: threadJson(thread) } }
      if (thread.ephemeral) return yield* refuse("ephemeral threads do not support includeTurns")
      // As the real server does: it writes the file of a thread to read it.
      thread.stored = true
      yield* checkListable(thread)
      yield* deprecateHistory("omit `includeTurns` or set it to `false`")
      return { result: { thread: threadJson(thread, true) } }
    }),
    "thread/turns/list": Effect.fnUntraced(function*(params: Protocol.ThreadTurnsListParams) {
      const thread = yield* readableOf(params.threadId)
      if (thread.ephemeral) return yield* refuse("ephemeral threads do not support thread/turns/list")
      if (!thread.stored) {
        return yield* refuse(
          `thread ${thread.id} is not materialized yet; thread/turns/list is unavailable before first user message`
        )
      }
      yield* checkListable(thread)
      return { result: yield* turnsPage(thread, params) }
    }),
    "thread/name/set": Effect.fnUntraced(function*(params: Protocol.ThreadSetNameParams) {
      const thread = threads.get(params.threadId)
      if (thread === undefined || thread.archived) {
        return yield* refuse(`no rollout found for thread id ${params.threadId}`)
      }
      if (thread.ephemeral) {
        return yield* refuse(`ephemeral thread does not support metadata updates: ${thread.id}`)
      }
      thread.name = params.name
      thread.stored = true
      return { result: {}, after: notify("thread/name/updated", { threadId: thread.id, threadName: thread.name }) }
    }),
    "thread/archive": Effect.fnUntraced(function*(params: Protocol.ThreadArchiveParams) {
      const thread = threads.get(params.threadId)
      if (thread === undefined || thread.ephemeral || thread.archived) {
        return yield* refuse(`no rollout found for thread id ${params.threadId}`)
      }
      if (thread.loaded) yield* notifyStatus(thread, { type: "notLoaded" })
      thread.archived = true
      thread.stored = true
      thread.loaded = false
      thread.failed = false
      return { result: {}, after: notify("thread/archived", { threadId: thread.id }) }
    }),
    "thread/unarchive": Effect.fnUntraced(function*(params: Protocol.ThreadUnarchiveParams) {
      const thread = threads.get(params.threadId)
      if (thread?.loaded === true && !thread.ephemeral) {
        return yield* refuse(`thread ${thread.id} already has an active writer`)
      }
      if (thread?.archived !== true) {
        return yield* refuse(`no archived rollout found for thread id ${params.threadId}`)
      }
      thread.archived = false
      thread.updatedAt = seconds(yield* Clock.currentTimeMillis)
      return {
        result: { thread: threadJson(thread) },
        after: notify("thread/unarchived", { threadId: thread.id })
      }
    }),
    "thread/compact/start": Effect.fnUntraced(function*(params: Protocol.ThreadCompactStartParams) {
      const thread = yield* threadOf(params)
      return yield* begin(thread, { threadId: thread.id, input: [] }, compaction, () => ({}))
    }),
    "thread/backgroundTerminals/list": Effect.fnUntraced(
      function*(params: Protocol.ThreadBackgroundTerminalsListParams) {
        const { processes } = yield* threadOf(params)
        const terminals = [...processes].map(([processId, { command, cwd, id }]) => ({
          itemId: id,
          processId,
          command: wordOf(command),
          cwd,
          osPid: null,
          cpuPercent: null,
          rssKb: null
        }))
        return { result: yield* page("terminals", terminals, params) }
      }
    ),
    "thread/backgroundTerminals/terminate": Effect.fnUntraced(
      function*(params: Protocol.ThreadBackgroundTerminalsTerminateParams) {
        const thread = yield* threadOf(params)
        return {
          result: { terminated: thread.processes.has(params.processId) },
          after: terminate(thread, params.processId)
        }
      }
    ),
    "thread/backgroundTerminals/clean": Effect.fnUntraced(
      function*(params: Protocol.ThreadBackgroundTerminalsCleanParams) {
        const thread = yield* threadOf(params)
        return { result: {}, after: Effect.forEach([...thread.processes.keys()], (id) => terminate(thread, id)) }
      }
    ),
    "turn/start": Effect.fnUntraced(function*(params: Protocol.TurnStartParams) {
      const thread = yield* threadOf(params)
      // The real server sends this before its response or soon after it.
      yield* yield* override(thread, params)
      const { active } = thread
      if (active !== undefined) {
        // As the real server does: the input joins the turn that runs.
        yield* Queue.offer(active.steers, params.input)
        return { result: { turn: { ...turnJson(active.stored, "notLoaded"), startedAt: null } } }
      }
      return yield* begin(thread, params, script, (turn) => ({
        turn: { ...turnJson(turn, "notLoaded"), startedAt: null }
      }))
    }),
    "turn/steer": Effect.fnUntraced(function*(params: Protocol.TurnSteerParams) {
      const { active } = yield* threadOf(params)
      if (active === undefined) return yield* refuse("no active turn to steer")
      if (active.stored.id !== params.expectedTurnId) {
        return yield* refuse(`expected active turn id \`${params.expectedTurnId}\` but found \`${active.stored.id}\``)
      }
      yield* Queue.offer(active.steers, params.input)
      return { result: { turnId: active.stored.id } }
    }),
    "turn/interrupt": Effect.fnUntraced(function*(params: Protocol.TurnInterruptParams) {
      const { active } = yield* threadOf(params)
      if (params.turnId === "") return { result: {}, ...(active === undefined ? {} : interrupt(active)) }
      if (active === undefined || !active.started) return yield* refuse("no active turn to interrupt")
      if (active.stored.id !== params.turnId) {
        return yield* refuse(`expected active turn id ${params.turnId} but found ${active.stored.id}`)
      }
      return { result: {}, ...interrupt(active) }
    })
  }

  const initialize = (client: Client, params: Protocol.InitializeParams): Effect.Effect<Outcome, Refused> => {
    if (client.initialized) return refuse("Already initialized")
    client.initialized = true
    const { name, version } = params.clientInfo
    return Effect.succeed({
      result: {
        userAgent: `${name}/${Protocol.version} (Fake 1.0.0; x86_64) fake (${name}; ${version})`,
        codexHome: "/codex",
        platformFamily: "unix",
        platformOs: "linux"
      }
    })
  }

  /** The fake's own answer. Params are read as strictly as they were to be sent. */
  const usualOutcome = (client: Client, request: ClientMessage): Effect.Effect<Outcome, Refused> => {
    const method = request.method!
    const spec = Object.hasOwn(Protocol.clientRequests, method)
      ? Protocol.clientRequests[method as keyof Protocol.ClientRequests]
      : undefined
    if (spec === undefined) return refuse(`Invalid request: unknown variant \`${method}\``)
    if (method !== "initialize" && !client.initialized) return refuse("Not initialized")
    if (spec.params !== undefined) {
      const decoded = decoderFor(spec.params as Schema.Codec<unknown>)(request.params)
      if (Result.isFailure(decoded)) {
        return refuse(`Invalid request: ${describeIssue(decoded.failure, request.params)}`)
      }
    }
    if (method === "initialize") return initialize(client, request.params)
    const handler = Object.hasOwn(handlers, method) ? handlers[method] : undefined
    return handler === undefined
      ? refuse(
        `the fake does not know ${method}; script its answer before the program sends it: ` +
          `fake.answer("${method}", FakeAppServer.result(…)), where fake is the service FakeAppServer.FakeAppServer`
      )
      : handler(request.params ?? {}, client)
  }

  const scripted = (request: ClientMessage): Answer => {
    const entry = answers.get(request.method!)
    if (entry === undefined || entry.times === 0) return usual
    entry.times--
    try {
      return entry.answer(request)
    } catch (error) {
      return rejected(`the scripted answer to ${request.method} has thrown: ${String(error)}`)
    }
  }

  const answer = Effect.fnUntraced(function*(client: Client, request: ClientMessage) {
    const { id } = request
    const reject = (code: number, message: string, data?: unknown) =>
      sendTo(client, { error: data === undefined ? { code, message } : { code, message, data }, id })
    yield* Answer.$match(scripted(request), {
      Usual: () =>
        Effect.matchEffect(usualOutcome(client, request), {
          onFailure: ({ code, message }) => reject(code ?? -32600, message),
          onSuccess: ({ after, before, result }) => {
            const send = Effect.andThen(sendTo(client, { id, result }), after ?? Effect.void)
            // What is waited for may itself wait for the client, so it must not keep the server from reading.
            return before === undefined ? send : Effect.sync(() => runTurn(Effect.andThen(before, send)))
          }
        }),
      Result: ({ result }) => sendTo(client, { id, result }),
      Rejected: ({ code, data, message }) => reject(code, message, data),
      Silent: () => Effect.void
    })
  })

  const receive = Effect.fnUntraced(function*(client: Client, message: ClientMessage) {
    yield* reading.await
    yield* SubscriptionRef.update(sent, (messages) => [...messages, message])
    if (message.method === undefined) {
      const waiting = asks.get(message.id as number)
      if (waiting !== undefined) yield* Deferred.succeed(waiting, message)
    } else if (message.id !== undefined) {
      yield* answer(client, message)
    }
  })

  const connect = Effect.gen(function*() {
    const incoming = yield* Queue.unbounded<ClientMessage>()
    const client: Client = {
      outgoing: yield* Queue.unbounded<Uint8Array, AppServerError | Cause.Done>(),
      initialized: false,
      unsubscribed: new Set()
    }
    clients.add(client)
    yield* Effect.addFinalizer(() => Effect.sync(() => clients.delete(client)))
    yield* Queue.take(incoming).pipe(
      Effect.flatMap((message) => receive(client, message)),
      Effect.catchCause((cause) => Effect.logError("The fake cannot go on with a message", cause)),
      Effect.forever,
      Effect.forkScoped
    )
    return {
      incoming: linesOf(Stream.fromQueue(client.outgoing)),
      send: (line) => {
        const message = JSON.parse(line)
        // A fake has no login that could be missing, and the program has not sent this.
        return isLoginCheck(message) ? Effect.void : Effect.asVoid(Queue.offer(incoming, message))
      }
    } satisfies Connection
  })

  return { server, connect }
})

/**
 * A {@link FakeAppServer} and the transport that leads to it. Without a script turns say what they were given.
 *
 * Threads are kept as long as the layer lives, so a second connection finds what the first one stored.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (script: Script = echo, options: Options = {}): Layer.Layer<FakeAppServer | Transport> =>
  Layer.effectContext(
    Effect.map(
      makeServer(script, options),
      ({ connect, server }) => Context.make(FakeAppServer, server).pipe(Context.add(Transport, { connect }))
    )
  )
