/** The context of a script: what it sends, requests and records for its turn. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Protocol from "../../../Protocol.ts"
import {
  type ExitOptions,
  RequestFailed,
  type Script,
  type SubAgent,
  TurnContext
} from "../../../testing/TurnScript.ts"
import { decoderFor } from "../../connection/codec.ts"
import { describeIssue } from "../../schemaIssue.ts"
import type { AccountLimits } from "./accountLimits.ts"
import type { Clients } from "./clients.ts"
import type { Goals } from "./goals.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import type { ActiveTurn, StoredThread, ThreadStore, TurnInput } from "./threadStore.ts"

/** The parts of the fake that turns use. */
export interface Fake {
  readonly clients: Clients
  readonly store: ThreadStore
  readonly events: ThreadEvents
  readonly limits: AccountLimits
  readonly goals: Goals
  /** The script of the next turn. */
  readonly script: () => Script
  readonly exit: (options?: ExitOptions) => Effect.Effect<void>
}

/** What the script of a turn reports, and where. */
export interface Reports {
  readonly notify: (method: string, params: object) => Effect.Effect<void>
  /** Adds the tokens of a request to the model. */
  readonly addUsage: (tokens: Protocol.TokenUsageBreakdown) => Effect.Effect<void>
  /** Ends a request to the model that was cut off. */
  readonly cutRequest: Effect.Effect<void>
}

/** A turn and the script that it plays. */
export interface ScriptedTurn {
  readonly thread: StoredThread
  readonly active: ActiveTurn
  readonly params: Protocol.TurnStartParams
  readonly script: Script
  readonly reports: Reports
}

/** The flag of a thread that waits for a response, by the method of the request. */
const waitingFlags: Readonly<Record<string, "waitingOnApproval" | "waitingOnUserInput">> = {
  "item/commandExecution/requestApproval": "waitingOnApproval",
  "item/fileChange/requestApproval": "waitingOnApproval",
  "item/permissions/requestApproval": "waitingOnApproval",
  "item/tool/requestUserInput": "waitingOnUserInput"
}

export const toInput = (text: string) => [{ type: "text" as const, text, text_elements: [] }]

export const toText = (input: ReadonlyArray<Protocol.UserInputParam>): string =>
  input.flatMap((item) => item.type === "text" ? [item.text] : []).join("\n")

/** Decodes the response of a client to a request of a turn. */
const decodeResponse = <M extends keyof Protocol.ServerRequests>(
  method: M,
  { error, result }: { readonly error?: { readonly message: string }; readonly result?: unknown }
): Effect.Effect<Protocol.ServerRequests[M]["result"], RequestFailed> => {
  if (error !== undefined) {
    const message = `The client rejected \`${method}\`: ${error.message}`
    return Effect.fail(new RequestFailed({ method, reason: "error", message }))
  }
  const decoded = decoderFor(Protocol.serverRequests[method].result)(result)
  if (Result.isSuccess(decoded)) return Effect.succeed(result as Protocol.ServerRequests[M]["result"])
  const message = `The client sent an invalid response to \`${method}\`: ${describeIssue(decoded.failure, result)}`
  return Effect.fail(new RequestFailed({ method, reason: "invalid", message }))
}

export const getItem = (params: object): Protocol.ThreadItem | undefined =>
  Predicate.hasProperty(params, "item") ? params.item as Protocol.ThreadItem : undefined

/** The types of items that the server does not list before they are complete. */
const textTypes: ReadonlySet<unknown> = new Set(["agentMessage", "plan", "reasoning"])

/** Whether the server lists an item in progress: no text, and no command that waits for its approval. */
const isListed = (item: Protocol.ThreadItem): item is Protocol.ThreadItem & { readonly id: string } =>
  Predicate.hasProperty(item, "id") && !textTypes.has(item.type) &&
  (item.type !== "commandExecution" || Predicate.isString(item.processId))

/** Sends a notification of a turn, and records its items in a stored turn. */
export const emit = (
  { events }: Fake,
  thread: StoredThread,
  { inProgress, stored }: ActiveTurn,
  method: string,
  params: object,
  { items } = stored
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const item = getItem(params)
    if (method === "item/completed" && item !== undefined) items.push(item)
    if (item !== undefined && isListed(item)) {
      if (method === "item/started") inProgress.set(item.id, item)
      else inProgress.delete(item.id)
    }
    if (item?.type === "commandExecution" && Predicate.isString(item.processId)) {
      if (method === "item/started") thread.processes.set(item.processId, item)
      else if (method === "item/completed") thread.processes.delete(item.processId)
    }
    return events.notify(thread, method, { turnId: stored.id, ...params })
  })

export const makeReports = (fake: Fake, thread: StoredThread, active: ActiveTurn): Reports => {
  const { events, goals } = fake
  const turnId = active.stored.id
  return {
    notify: (method, params) => emit(fake, thread, active, method, params),
    addUsage: (tokens) =>
      Effect.andThen(
        events.addUsage(thread, turnId, tokens),
        // The tokens that the provider had cached do not count.
        goals.count(thread, tokens.totalTokens - tokens.cachedInputTokens)
      ),
    cutRequest: Effect.andThen(events.modelRequest(thread, turnId), goals.count(thread, 0))
  }
}

/** Starts and completes an item. */
export const emitItem = Effect.fnUntraced(function*({ notify }: Pick<Reports, "notify">, item: object) {
  const now = yield* Clock.currentTimeMillis
  yield* notify("item/started", { item, startedAtMs: now })
  yield* notify("item/completed", { item, completedAtMs: now })
})

/** Sends the input of a turn as an item. */
export const emitInput = (
  { store }: Fake,
  reports: Reports,
  { clientUserMessageId = null, input }: TurnInput
): Effect.Effect<void> =>
  input.length === 0
    ? Effect.void
    : emitItem(reports, {
      type: "userMessage",
      id: store.newId("input"),
      clientId: clientUserMessageId,
      content: input
    })

const request = Effect.fnUntraced(function*<M extends keyof Protocol.ServerRequests>(
  { clients, events }: Fake,
  thread: StoredThread,
  active: ActiveTurn,
  method: M,
  params: object
) {
  const flag = waitingFlags[method]
  let requestId = -1
  if (flag !== undefined) yield* events.status(thread, { type: "active", activeFlags: [flag] })
  const response = yield* clients.request(
    method,
    { threadId: thread.id, turnId: active.stored.id, ...params },
    (id) => {
      requestId = id
    }
  ).pipe(Effect.onInterrupt(() => Effect.sync(() => active.unresolved.push(requestId))))
  // The real server does not report the call of a tool as resolved.
  if (method !== "item/tool/call") yield* events.notify(thread, "serverRequest/resolved", { requestId })
  if (flag !== undefined) yield* events.status(thread, { type: "active", activeFlags: [] })
  return yield* decodeResponse(method, response)
})

export const makeTurnContext = (
  fake: Fake,
  { active, params, reports, thread }: ScriptedTurn,
  subAgent: (task: string, script: Script, options?: { readonly model?: string | undefined }) => Effect.Effect<SubAgent>
): TurnContext["Service"] => {
  const { clients, goals, limits, store } = fake
  const turnId = active.stored.id
  const sendRequest: TurnContext["Service"]["request"] = (method, params) =>
    request(fake, thread, active, method, params)
  const context = TurnContext.of({
    threadId: thread.id,
    turnId,
    params,
    text: toText(params.input),
    // New input cancels the request to the model that is in flight.
    nextSteer: Queue.take(active.steers).pipe(
      Effect.tap((input) => Effect.andThen(reports.cutRequest, emitInput(fake, reports, input))),
      Effect.map(({ input }) => input)
    ),
    emit: reports.notify,
    notify: (method, params) =>
      method.startsWith("rawResponse") && !thread.rawEvents ? Effect.void : reports.notify(method, params),
    request: sendRequest,
    ask: sendRequest,
    rateLimits: (limit) => limits.report(limit, thread.id),
    usage: reports.addUsage,
    retry: (error) => Effect.andThen(reports.cutRequest, reports.notify("error", { error, willRetry: true })),
    updateGoal: (status) => goals.end(thread, turnId, status),
    subAgent,
    late: (action) =>
      Effect.sync(() => {
        active.late.push(Effect.ignoreCause(Effect.provideService(action, TurnContext, context), { log: true }))
      }),
    newId: store.newId,
    line: clients.writeLine,
    exit: fake.exit
  })
  return context
}
