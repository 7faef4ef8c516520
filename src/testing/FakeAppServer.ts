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
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type AppServerError, ConnectionClosed, make as appServerError } from "../AppServerError.ts"
import { isLoginCheck } from "../internal/connection/loginCheck.ts"
import { anything, assertOptions, boolean, duration, type Kinds, number, string } from "../internal/options.ts"
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
    yield* itemStarted({ ...item, status: "inProgress" })
    const decision = options?.approval === true
      ? yield* approval(turn, "item/commandExecution/requestApproval", {
        itemId: id,
        startedAtMs: yield* Clock.currentTimeMillis,
        kind: "command",
        environmentId: "local",
        command: inShell,
        commandActions: item.commandActions,
        cwd,
        reason: options.reason ?? null,
        proposedExecpolicyAmendment: command.split(" "),
        availableDecisions: ["accept", "cancel"]
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
      ...item,
      status: exitCode === 0 ? "completed" : "failed",
      aggregatedOutput: output,
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
    if (decision === "failed" || !isAccepted(decision)) {
      yield* itemCompleted({ ...item, status: decision === "failed" ? "failed" : "declined" })
      return decision === "cancel" ? yield* new Cancelled() : decision
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
 * The tokens used so far.
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
    return turn.emit("thread/tokenUsage/updated", {
      tokenUsage: { last: breakdown, total: breakdown, modelContextWindow: null }
    })
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
      Effect.tapError(() => itemCompleted({ ...item, status: "failed", success: false }))
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
  startedAt: number
  completedAt: number | null
}

interface ActiveTurn {
  readonly stored: StoredTurn
  readonly steers: Queue.Queue<ReadonlyArray<Protocol.UserInputParam>>
  readonly interrupted: Deferred.Deferred<never, Cancelled>
  started: boolean
}

interface StoredThread {
  readonly id: string
  readonly forkedFromId: string | null
  readonly ephemeral: boolean
  readonly createdAt: number
  updatedAt: number
  name: string | null
  preview: string
  archived: boolean
  loaded: boolean
  cwd: string
  model: string
  approvalPolicy: unknown
  approvalsReviewer: string
  sandbox: object
  readonly turns: Array<StoredTurn>
  active: ActiveTurn | undefined
}

const policies = {
  "read-only": { type: "readOnly", networkAccess: false },
  "workspace-write": {
    type: "workspaceWrite",
    writableRoots: [],
    networkAccess: false,
    excludeTmpdirEnvVar: false,
    excludeSlashTmp: false
  },
  "danger-full-access": { type: "dangerFullAccess" }
} as const

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

/** What a request is refused with. */
class Refused extends Data.TaggedError("Refused")<{ readonly message: string; readonly code?: number }> {}

const refuse = (message: string, code?: number) =>
  Effect.fail(new Refused(code === undefined ? { message } : { message, code }))

const textOf = (input: ReadonlyArray<Protocol.UserInputParam>): string =>
  input.flatMap((item) => item.type === "text" ? [item.text] : []).join("\n")

const turnJson = (turn: StoredTurn, withItems: boolean): Protocol.Turn => ({
  id: turn.id,
  rootTurnId: turn.id,
  items: withItems ? turn.items : turn.items.filter((item) => item.type === "agentMessage").slice(-1),
  itemsView: withItems ? "full" : "summary",
  status: turn.status,
  error: turn.error,
  startedAt: turn.startedAt,
  completedAt: turn.completedAt,
  durationMs: turn.completedAt === null ? null : (turn.completedAt - turn.startedAt) * 1000
})

const threadJson = (thread: StoredThread, withTurns = false): Protocol.Thread => ({
  id: thread.id,
  sessionId: thread.id,
  forkedFromId: thread.forkedFromId,
  preview: thread.preview,
  ephemeral: thread.ephemeral,
  modelProvider: "fake",
  model: thread.model,
  createdAt: thread.createdAt,
  updatedAt: thread.updatedAt,
  status: !thread.loaded
    ? { type: "notLoaded" }
    : thread.active === undefined
    ? { type: "idle" }
    : { type: "active", activeFlags: [] },
  path: thread.ephemeral ? null : `/codex/sessions/${thread.id}.jsonl`,
  cwd: thread.cwd,
  cliVersion: Protocol.version,
  source: "appServer",
  name: thread.name,
  turns: withTurns ? thread.turns.map((turn) => turnJson(turn, true)) : []
})

const openedJson = (thread: StoredThread): Protocol.ThreadStartResponse => ({
  thread: threadJson(thread),
  model: thread.model,
  modelProvider: "fake",
  serviceTier: null,
  cwd: thread.cwd,
  approvalPolicy: thread.approvalPolicy as Protocol.AskForApproval,
  approvalsReviewer: thread.approvalsReviewer,
  sandbox: thread.sandbox as Protocol.SandboxPolicy,
  reasoningEffort: null
})

/** Takes over the settings that params bring. A thread takes a sandbox by name, a turn by policy. */
const applySettings = (
  thread: StoredThread,
  params: Partial<Protocol.ThreadStartParams & Protocol.TurnStartParams>
) => {
  if (Predicate.isNotNullish(params.approvalPolicy)) thread.approvalPolicy = params.approvalPolicy
  if (Predicate.isNotNullish(params.approvalsReviewer)) {
    thread.approvalsReviewer = params.approvalsReviewer === "guardian_subagent"
      ? "auto_review"
      : params.approvalsReviewer
  }
  if (Predicate.isNotNullish(params.sandbox)) thread.sandbox = policies[params.sandbox]
  if (Predicate.isNotNullish(params.sandboxPolicy)) thread.sandbox = params.sandboxPolicy
  if (Predicate.isNotNullish(params.cwd)) thread.cwd = params.cwd
  if (Predicate.isNotNullish(params.model)) thread.model = params.model
}

/** An open connection, from the server's side. */
interface Client {
  readonly outgoing: Queue.Queue<Uint8Array, AppServerError | Cause.Done>
  initialized: boolean
}

/** What a request is answered with, what that waits for, and what follows it. */
interface Outcome {
  readonly result: unknown
  readonly before?: Effect.Effect<unknown>
  readonly after?: Effect.Effect<unknown>
}

const echo: Script = (turn) => text(turn.text)

const page = <A>(
  data: ReadonlyArray<A>,
  params: { readonly cursor?: string | null | undefined; readonly limit?: number | null | undefined }
) => {
  const start = Number(params.cursor ?? 0)
  const end = start + (params.limit ?? 50)
  return { data: data.slice(start, end), nextCursor: end < data.length ? String(end) : null }
}

const interrupt = (active: ActiveTurn) => Deferred.fail(active.interrupted, new Cancelled())

const compaction = (turn: FakeTurn["Service"]) => {
  const item = { type: "contextCompaction", id: turn.newId("compaction") }
  return Effect.andThen(itemStarted(item), itemCompleted(item))
}

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
  const seconds = Effect.map(Clock.currentTimeMillis, (millis) => Math.floor(millis / 1000))
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

  const ask = Effect.fnUntraced(function*(method: string, params: object) {
    const id = ++lastAskId
    const answer = Deferred.makeUnsafe<ClientMessage>()
    asks.set(id, answer)
    yield* toAll((client) => sendTo(client, { method, id, params }))
    return yield* Effect.ensuring(Deferred.await(answer), Effect.sync(() => asks.delete(id)))
  })

  const askInTurn = Effect.fnUntraced(function*(
    ids: { readonly threadId: string; readonly turnId: string },
    method: keyof Protocol.ServerRequests,
    params: object
  ) {
    const answer = yield* ask(method, { ...ids, ...params })
    yield* notify("serverRequest/resolved", { threadId: ids.threadId, requestId: answer.id })
    const isAnswer = Schema.is(Protocol.serverRequests[method].result as Schema.Codec<unknown>)
    if (answer.error === undefined && isAnswer(answer.result)) return answer.result
    return yield* new AskFailed({ method, message: answer.error?.message ?? "the client's answer is not one" })
  })

  const server: FakeAppServer["Service"] = {
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

  /** A thread that has run a turn is stored, and can be opened again. */
  const storedOf = (id: string): Effect.Effect<StoredThread, Refused> => {
    const thread = threads.get(id)
    if (thread === undefined || thread.ephemeral || thread.turns.length === 0) {
      return refuse(`no rollout found for thread id ${id}`)
    }
    return thread.archived
      ? refuse(`session ${id} is archived. Run \`codex unarchive ${id}\` to unarchive it first.`)
      : Effect.succeed(thread)
  }

  const createThread = Effect.fnUntraced(function*(
    params: Partial<Protocol.ThreadStartParams>,
    source?: StoredThread
  ) {
    const now = yield* seconds
    const thread: StoredThread = {
      id: newId("thread"),
      forkedFromId: source?.id ?? null,
      ephemeral: params.ephemeral ?? false,
      createdAt: now,
      updatedAt: now,
      name: source?.name ?? null,
      preview: source?.preview ?? "",
      archived: false,
      loaded: true,
      cwd: source?.cwd ?? workspace,
      model: source?.model ?? modelEntry.model,
      approvalPolicy: source?.approvalPolicy ?? "on-request",
      approvalsReviewer: source?.approvalsReviewer ?? "user",
      sandbox: source?.sandbox ?? policies["read-only"],
      turns: source?.turns.map((turn) => ({ ...turn, items: turn.items.slice() })) ?? [],
      active: undefined
    }
    applySettings(thread, params)
    threads.set(thread.id, thread)
    return thread
  })

  /** What a turn says reaches the clients and the history. */
  const emitOf = (thread: StoredThread, active: ActiveTurn) => (method: string, params: object) =>
    Effect.suspend(() => {
      const item = Predicate.hasProperty(params, "item") ? params.item as Protocol.ThreadItem : undefined
      if (method === "item/completed" && item !== undefined) active.stored.items.push(item)
      return notify(method, { threadId: thread.id, turnId: active.stored.id, ...params })
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
      nextSteer: Effect.tap(Queue.take(active.steers), (input) => userMessage(emit, input)),
      emit,
      ask: ((method, asked) =>
        askInTurn({ threadId: thread.id, turnId: stored.id }, method, asked)) as FakeTurn["Service"]["ask"],
      newId,
      server
    }
    const steps = Effect.suspend(() => {
      const played = script(turn)
      return Effect.isEffect(played)
        ? Effect.asVoid(played)
        : Stream.runForEach(played, identity)
    })
    yield* notify("thread/status/changed", { threadId: thread.id, status: { type: "active", activeFlags: [] } })
    active.started = true
    yield* notify("turn/started", { threadId: thread.id, turn: turnJson(stored, false) })
    yield* userMessage(emit, params.input)
    const exit = yield* steps.pipe(
      Effect.provideService(FakeTurn, turn),
      Effect.raceFirst(Deferred.await(active.interrupted)),
      Effect.exit
    )

    if (Exit.isSuccess(exit)) {
      stored.status = "completed"
    } else {
      const failure = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
      if (failure?._tag === "Cancelled") {
        stored.status = "interrupted"
      } else {
        stored.status = "failed"
        stored.error = {
          message: failure?.message ?? `the script died: ${Cause.pretty(exit.cause)}`,
          codexErrorInfo: failure?._tag === "ScriptedFailure" ? failure.codexErrorInfo : null,
          additionalDetails: null
        }
        yield* emit("error", { error: stored.error, willRetry: false })
      }
    }
    stored.completedAt = yield* seconds
    thread.updatedAt = stored.completedAt
    thread.active = undefined
    yield* notify("thread/status/changed", { threadId: thread.id, status: { type: "idle" } })
    yield* notify("turn/completed", { threadId: thread.id, turn: turnJson(stored, false) })
  })

  const startTurn = Effect.fnUntraced(
    function*(thread: StoredThread, params: Protocol.TurnStartParams, script: Script) {
      const active: ActiveTurn = {
        stored: {
          id: newId("turn"),
          status: "inProgress",
          error: null,
          items: [],
          startedAt: yield* seconds,
          completedAt: null
        },
        steers: yield* Queue.unbounded<ReadonlyArray<Protocol.UserInputParam>>(),
        interrupted: Deferred.makeUnsafe(),
        started: false
      }
      thread.turns.push(active.stored)
      thread.active = active
      if (thread.preview === "") thread.preview = textOf(params.input)
      return { active, run: play(thread, active, params, script) }
    }
  )

  const begin = Effect.fnUntraced(function*(
    thread: StoredThread,
    params: Protocol.TurnStartParams,
    script: Script,
    result: (turnId: string) => unknown
  ) {
    const { active, run } = yield* startTurn(thread, params, script)
    const answer = result(active.stored.id)
    if (options.eventsBeforeAnswer !== true) return { result: answer, after: Effect.sync(() => runTurn(run)) }
    return { result: answer, before: run }
  })

  const handlers: Record<string, (params: any) => Effect.Effect<Outcome, Refused>> = {
    "model/list": (params) => Effect.succeed({ result: page([modelEntry], params) }),
    "thread/start": (params: Protocol.ThreadStartParams) =>
      Effect.map(createThread(params), (thread) => ({
        result: openedJson(thread),
        after: notify("thread/started", { thread: threadJson(thread) })
      })),
    "thread/resume": Effect.fnUntraced(function*(params: Protocol.ThreadResumeParams) {
      const loaded = threads.get(params.threadId)
      const thread = loaded?.loaded === true && loaded.turns.length > 0 ? loaded : yield* storedOf(params.threadId)
      // As the real server does: a thread that is loaded keeps its settings.
      if (!thread.loaded) applySettings(thread, params as Partial<Protocol.ThreadStartParams>)
      thread.loaded = true
      const opened = openedJson(thread)
      return { result: params.excludeTurns === true ? opened : { ...opened, thread: threadJson(thread, true) } }
    }),
    "thread/fork": Effect.fnUntraced(function*(params: Protocol.ThreadForkParams) {
      const source = yield* storedOf(params.threadId)
      const thread = yield* createThread(params as Partial<Protocol.ThreadStartParams>, source)
      const opened = openedJson(thread)
      return {
        result: params.excludeTurns === true ? opened : { ...opened, thread: threadJson(thread, true) },
        after: notify("thread/started", { thread: threadJson(thread) })
      }
    }),
    "thread/list": (params: Protocol.ThreadListParams) =>
      Effect.sync(() => {
        const listed = [...threads.values()].filter((thread) =>
          !thread.ephemeral && thread.turns.length > 0 && thread.archived === (params.archived ?? false)
        )
        if (params.sortDirection !== "asc") listed.reverse()
        return { result: page(listed.map((thread) => threadJson(thread)), params) }
      }),
    "thread/loaded/list": (params) =>
      Effect.sync(() => ({
        result: page([...threads.values()].filter((thread) => thread.loaded).map((thread) => thread.id), params)
      })),
    "thread/read": Effect.fnUntraced(function*(params: Protocol.ThreadReadParams) {
      const thread = threads.get(params.threadId)
      if (thread === undefined) return yield* refuse(`thread not loaded: ${params.threadId}`)
      if (params.includeTurns !== true) return { result: { thread: threadJson(thread) } }
      if (thread.ephemeral) return yield* refuse("ephemeral threads do not support includeTurns")
      if (thread.turns.length === 0) return yield* refuse("list_turns is not supported yet", -32601)
      return { result: { thread: threadJson(thread, true) } }
    }),
    "thread/name/set": Effect.fnUntraced(function*(params: Protocol.ThreadSetNameParams) {
      const thread = threads.get(params.threadId)
      if (thread === undefined) return yield* refuse(`no rollout found for thread id ${params.threadId}`)
      thread.name = params.name
      return { result: {}, after: notify("thread/name/updated", { threadId: thread.id, threadName: thread.name }) }
    }),
    "thread/archive": Effect.fnUntraced(function*(params: Protocol.ThreadArchiveParams) {
      const thread = yield* storedOf(params.threadId)
      thread.archived = true
      thread.loaded = false
      return {
        result: {},
        after: Effect.andThen(
          notify("thread/status/changed", { threadId: thread.id, status: { type: "notLoaded" } }),
          notify("thread/archived", { threadId: thread.id })
        )
      }
    }),
    "thread/unarchive": Effect.fnUntraced(function*(params: Protocol.ThreadUnarchiveParams) {
      const thread = threads.get(params.threadId)
      if (thread === undefined || !thread.archived) {
        return yield* refuse(`no archived rollout found for thread id ${params.threadId}`)
      }
      thread.archived = false
      return {
        result: { thread: threadJson(thread) },
        after: notify("thread/unarchived", { threadId: thread.id })
      }
    }),
    "thread/compact/start": Effect.fnUntraced(function*(params: Protocol.ThreadCompactStartParams) {
      const thread = yield* threadOf(params)
      return yield* begin(thread, { threadId: thread.id, input: [] }, compaction, () => ({}))
    }),
    "turn/start": Effect.fnUntraced(function*(params: Protocol.TurnStartParams) {
      const thread = yield* threadOf(params)
      applySettings(thread, params as Partial<Protocol.TurnStartParams>)
      const { active } = thread
      if (active !== undefined) {
        // As the real server does: the input joins the turn that runs.
        yield* Queue.offer(active.steers, params.input)
        return { result: { turn: turnJson(active.stored, false) } }
      }
      return yield* begin(thread, params, script, (id) => ({
        turn: { ...turnJson(thread.turns.find((turn) => turn.id === id)!, false), status: "inProgress", items: [] }
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
      if (params.turnId === "") {
        return { result: {}, ...(active === undefined ? {} : { after: interrupt(active) }) }
      }
      if (active === undefined || !active.started) return yield* refuse("no active turn to interrupt")
      if (active.stored.id !== params.turnId) {
        return yield* refuse(`expected active turn id ${params.turnId} but found ${active.stored.id}`)
      }
      return { result: {}, after: interrupt(active) }
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
    if (spec.params !== undefined && !Schema.is(spec.params as Schema.Codec<unknown>)(request.params)) {
      return refuse(`Invalid request: the params of ${method} are not of its type`)
    }
    if (method === "initialize") return initialize(client, request.params)
    const handler = handlers[method]
    return handler === undefined
      ? refuse(`the fake does not know ${method}; script it with FakeAppServer.answer`)
      : handler(request.params ?? {})
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
      initialized: false
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
