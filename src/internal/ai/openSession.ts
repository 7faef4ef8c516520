/**
 * Opens the thread for a request: the thread of an earlier response if the prompt continues it, a fork if the prompt branches earlier, or
 * else a new thread with the messages of the prompt.
 */
import type * as AiError from "effect/ai/AiError"
import type * as Prompt from "effect/ai/Prompt"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { SandboxConflictError } from "../../ApprovalMode.ts"
import type * as AppServer from "../../AppServer.ts"
import { type AppServerError, type AppServerErrorReason, isAppServerError } from "../../AppServerError.ts"
import type * as Codex from "../../Codex.ts"
import type * as Input from "../../Input.ts"
import type * as Thread from "../../Thread.ts"
import type { Settings } from "./config.ts"
import { type Candidate, digest, findCandidate, isClientCall, toDigests, toResults } from "./history.ts"
import { developerMessage, leadingSystem, type ResponseItem, splitInput, toInput, toItems } from "./promptItems.ts"
import type { Run, Session, Sessions } from "./sessions.ts"
import { type Definition, describeTools, includesTools, ToolCalls } from "./toolCalls.ts"

/** What all requests of a language model share. */
export interface ModelContext {
  readonly codex: Codex.Codex["Service"]
  readonly server: AppServer.AppServer["Service"]
  readonly sessions: Sessions
  readonly scope: Scope.Scope
}

export interface Request {
  readonly messages: ReadonlyArray<Prompt.Message>
  readonly settings: Settings
  readonly tools: ReadonlyArray<Definition>
  /** Instructions for this request only. */
  readonly instruction: string | undefined
}

/** What a request does on its thread. */
export interface Opened {
  readonly session: Session
  /** The digest of all messages of the request. */
  readonly history: string
  /** The turn that continues with results of tools, or the input of a new turn. */
  readonly work:
    | { readonly _tag: "Continue"; readonly run: Run }
    | { readonly _tag: "Start"; readonly input: ReadonlyArray<Input.Item> }
}

type OpenError = AppServerError | SandboxConflictError

interface Plan extends Request {
  readonly digests: ReadonlyArray<string>
  readonly toolsDigest: string
}

/** Opens a thread as a session. If the caller is interrupted, the thread is closed as soon as it is open. */
const openThread = Effect.fnUntraced(function*(
  { scope, sessions }: ModelContext,
  { settings, toolsDigest }: Plan,
  open: Effect.Effect<Thread.Thread, OpenError>,
  details: Pick<Session, "calls" | "head" | "tools">
) {
  const opening = Effect.gen(function*() {
    const thread = yield* open
    const { model } = yield* Effect.onError(thread.settings, () => Effect.ignore(thread.close))
    const session: Session = {
      ...details,
      thread,
      model,
      toolsDigest,
      settings: settings.key,
      isEphemeral: settings.isEphemeral,
      isBusy: true,
      suspended: undefined
    }
    details.calls.threadId = thread.id
    sessions.add(session)
    return session
  })
  const fiber = yield* Effect.forkIn(opening, scope)
  return yield* Effect.interruptible(Fiber.join(fiber)).pipe(
    Effect.onInterrupt(() => Effect.forkIn(Effect.ignore(Effect.flatMap(Fiber.join(fiber), sessions.close)), scope))
  )
})

const toOptions = (plan: Plan, calls: ToolCalls, tools: ReadonlyArray<Definition>) => {
  const { messages, settings } = plan
  const instructions = [settings.developerInstructions, ...leadingSystem(messages).map(({ content }) => content)]
    .filter((text) => text !== undefined)
  return {
    ...settings.thread,
    ...(instructions.length === 0 ? {} : { developerInstructions: instructions.join("\n\n") }),
    ...(tools.length === 0 ? {} : { tools: calls.toTools(tools) })
  }
}

const start = (context: ModelContext, plan: Plan) => {
  const calls = new ToolCalls()
  const { settings, tools } = plan
  const options = {
    ...toOptions(plan, calls, tools),
    ...(settings.isEphemeral ? { ephemeral: true } : {}),
    // Only these report when a response of the model is over while its calls still wait.
    ...(tools.length === 0 ? {} : { experimentalRawEvents: true })
  } as Codex.StartOptions
  return openThread(context, plan, context.codex.startThread(options), { calls, tools, head: undefined })
}

const fork = (
  context: ModelContext,
  plan: Plan,
  { threadId, turnId }: Candidate["origin"],
  tools: ReadonlyArray<Definition>
) => {
  const calls = new ToolCalls()
  const options = {
    ...toOptions(plan, calls, tools),
    ...(plan.settings.isEphemeral ? { ephemeral: true } : {}),
    lastTurnId: turnId
  }
  return openThread(context, plan, context.codex.forkThread(threadId, options), { calls, tools, head: undefined })
}

const resume = (context: ModelContext, plan: Plan, { threadId, turnId }: Candidate["origin"]) => {
  const calls = new ToolCalls()
  const { tools } = plan
  const thread = context.codex.resumeThread(threadId, toOptions(plan, calls, tools))
  return openThread(context, plan, thread, { calls, tools, head: turnId })
}

/** The reasons why a stored thread cannot be used, so that a new thread must take its place. */
const unavailable: ReadonlySet<AppServerErrorReason["_tag"]> = new Set([
  "RequestRejected",
  "SettingsNotApplied",
  "ThreadLocked",
  "ThreadNotFound",
  "ToolsNotApplied"
])

/** Returns `None` if the thread of an effect is not available. */
const whenAvailable = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Option.Option<A>, E, R> =>
  Effect.catchIf(
    Effect.asSome(effect),
    (error) => isAppServerError(error) && unavailable.has(error.reason._tag),
    () => Effect.succeedNone
  )

/** Returns the id of the last turn of a stored thread. */
const getHead = ({ server }: ModelContext, threadId: string) =>
  Effect.map(
    Effect.interruptible(server.request("thread/turns/list", { threadId, limit: 1 })),
    ({ data }) => data[0]?.id
  )

/** Whether a turn is the last one of an open thread. Another client of the server may have started one since. */
const isLast = (context: ModelContext, session: Session, turnId: string) =>
  session.isEphemeral
    ? Effect.succeed(true)
    : whenAvailable(getHead(context, session.thread.id)).pipe(
      Effect.map((head) => Option.isSome(head) && head.value === turnId),
      Effect.onError(() => context.sessions.close(session))
    )

/** Opens the thread of a response with the turns until that response. Returns `None` if a new thread must take its place. */
const continueFrom = Effect.fnUntraced(function*(context: ModelContext, plan: Plan, { origin }: Candidate) {
  const { sessions } = context
  const { settings, tools, toolsDigest } = plan
  const live = sessions.get(origin.threadId)
  if (live !== undefined) {
    if (!includesTools(live.tools, tools)) return Option.none()
    const isHead = live.suspended === undefined && live.head === origin.turnId && live.settings === settings.key
    if (isHead && (yield* sessions.take(live))) {
      if (yield* isLast(context, live, origin.turnId)) return Option.some(live)
      yield* sessions.close(live)
    }
    const forked = { ...plan, toolsDigest: live.toolsDigest }
    return live.isEphemeral ? Option.none() : yield* whenAvailable(fork(context, forked, origin, live.tools))
  }
  if (origin.tools !== toolsDigest) return Option.none()
  const head = yield* whenAvailable(getHead(context, origin.threadId))
  if (Option.isNone(head)) return Option.none()
  const resumed = head.value === origin.turnId
    ? yield* whenAvailable(resume(context, plan, origin))
    : Option.none()
  return Option.isSome(resumed) ? resumed : yield* whenAvailable(fork(context, plan, origin, tools))
})

/** Takes the turn that waits for the results of tools in the prompt. */
const takeSuspended = Effect.fnUntraced(function*({ sessions }: ModelContext, plan: Plan) {
  const { digests, messages, settings, tools } = plan
  const lastIndex = messages.findLastIndex(({ role }) => role === "assistant")
  const candidate = yield* findCandidate(messages, digests, ({ index, isEnd }) => index === lastIndex && !isEnd)
  if (candidate === undefined) return undefined
  const { history, threadId, turnId } = candidate.origin
  const session = sessions.get(threadId)
  const suspended = session?.suspended
  const rest = messages.slice(candidate.index + 1)
  const isSame = suspended?.run.turn.id === turnId && !suspended.run.isEnded && suspended.history === history &&
    session?.settings === settings.key && includesTools(session.tools, tools) &&
    rest.every(({ role }) => role === "tool" || role === "user")
  return isSame && (yield* sessions.take(session))
    ? { session, run: suspended.run, message: messages[candidate.index], rest }
    : undefined
})

/** Gives the results of tools and further input to a turn. */
const deliver = Effect.fnUntraced(function*(
  { calls }: Session,
  { turn }: Run,
  message: Prompt.Message | undefined,
  rest: ReadonlyArray<Prompt.Message>
) {
  const input = yield* toInput(rest.filter((message) => message.role === "user"))
  // The model receives the input after the results, with its next request.
  if (input.length > 0) yield* turn.steer(input)
  const results = toResults(rest)
  if (message?.role !== "assistant") return
  for (const { id } of message.content.filter(isClientCall)) calls.complete(id, results.get(id))
})

const inject = (
  { server }: ModelContext,
  { thread: { id } }: Session,
  items: ReadonlyArray<ResponseItem>
): Effect.Effect<void, AppServerError> =>
  items.length === 0 ? Effect.void : Effect.asVoid(server.request("thread/inject_items", { threadId: id, items }))

/** Opens the thread for a new turn. */
const openForTurn = Effect.fnUntraced(function*(context: ModelContext, plan: Plan) {
  const { digests, instruction, messages } = plan
  const candidate = yield* findCandidate(messages, digests, ({ isEnd }) => isEnd)
  const continued = candidate === undefined
    ? undefined
    : Option.getOrUndefined(yield* continueFrom(context, plan, candidate))
  const from = continued !== undefined && candidate !== undefined
    ? candidate.index + 1
    : leadingSystem(messages).length
  const { before, input } = splitInput(messages.slice(from))
  // A message that Codex cannot receive fails before a thread is started.
  const convert = Effect.all([toItems(before), toInput(input)])
  const closeContinued = continued === undefined ? Effect.void : context.sessions.close(continued)
  const [items, turnInput] = yield* Effect.onError(convert, () => closeContinued)
  const session = continued ?? (yield* start(context, plan))
  const injected = instruction === undefined ? items : [...items, developerMessage(instruction)]
  yield* Effect.interruptible(inject(context, session, injected)).pipe(
    Effect.onError(() => context.sessions.close(session))
  )
  return { session, input: turnInput }
})

/** Opens the thread for a request, and returns what the request does on it. The caller must make it uninterruptible. */
export const openSession = Effect.fnUntraced(function*(
  context: ModelContext,
  request: Request
): Effect.fn.Return<Opened, AiError.AiErrorReason | OpenError> {
  const digests = yield* toDigests(request.messages)
  const plan: Plan = { ...request, digests, toolsDigest: yield* digest(describeTools(request.tools)) }
  const history = digests.at(-1) ?? ""
  const suspended = yield* takeSuspended(context, plan)
  if (suspended === undefined) {
    const { input, session } = yield* openForTurn(context, plan)
    return { session, history, work: { _tag: "Start", input } }
  }
  const { message, rest, run, session } = suspended
  yield* Effect.interruptible(deliver(session, run, message, rest)).pipe(
    Effect.onError(() => context.sessions.close(session))
  )
  session.suspended = undefined
  return { session, history, work: { _tag: "Continue", run } }
})
