/** The context of a script: what it sends, requests and records for its turn. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Protocol from "../../../Protocol.ts"
import { type ExitOptions, RequestFailed, type TurnContext } from "../../../testing/TurnScript.ts"
import { decoderFor } from "../../connection/codec.ts"
import { describeIssue } from "../../schemaIssue.ts"
import type { AccountLimits } from "./accountLimits.ts"
import type { Clients } from "./clients.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import type { ActiveTurn, StoredThread, ThreadStore } from "./threadStore.ts"

/** The parts of the fake that turns use. */
export interface Fake {
  readonly clients: Clients
  readonly store: ThreadStore
  readonly events: ThreadEvents
  readonly limits: AccountLimits
  readonly exit: (options?: ExitOptions) => Effect.Effect<void>
}

/** The flag of a thread that waits for a response, by the method of the request. */
const waitingFlags: Readonly<Record<string, "waitingOnApproval" | "waitingOnUserInput">> = {
  "item/commandExecution/requestApproval": "waitingOnApproval",
  "item/fileChange/requestApproval": "waitingOnApproval",
  "item/permissions/requestApproval": "waitingOnApproval",
  "item/tool/requestUserInput": "waitingOnUserInput"
}

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

/** Sends a notification of a turn, and records its items. */
export const emit = (
  { events }: Fake,
  thread: StoredThread,
  { stored }: ActiveTurn,
  method: string,
  params: object
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const item = Predicate.hasProperty(params, "item") ? params.item as Protocol.ThreadItem : undefined
    if (method === "item/completed" && item !== undefined) stored.items.push(item)
    if (item?.type === "commandExecution" && Predicate.isString(item.processId)) {
      if (method === "item/started") thread.processes.set(item.processId, item)
      else if (method === "item/completed") thread.processes.delete(item.processId)
    }
    return events.notify(thread, method, { turnId: stored.id, ...params })
  })

/** Sends the input of a turn as an item. */
export const emitInput = Effect.fnUntraced(function*(
  fake: Fake,
  thread: StoredThread,
  active: ActiveTurn,
  input: ReadonlyArray<Protocol.UserInputParam>
) {
  if (input.length === 0) return
  const item = { type: "userMessage", id: fake.store.newId("input"), clientId: null, content: input }
  const now = yield* Clock.currentTimeMillis
  yield* emit(fake, thread, active, "item/started", { item, startedAtMs: now })
  yield* emit(fake, thread, active, "item/completed", { item, completedAtMs: now })
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
  thread: StoredThread,
  active: ActiveTurn,
  params: Protocol.TurnStartParams
): TurnContext["Service"] => {
  const { clients, events, limits, store } = fake
  const turnId = active.stored.id
  const notify = (method: string, params: object) => emit(fake, thread, active, method, params)
  const sendRequest: TurnContext["Service"]["request"] = (method, params) =>
    request(fake, thread, active, method, params)
  return {
    threadId: thread.id,
    turnId,
    params,
    text: toText(params.input),
    // New input cancels the request to the model that is in flight, which the server reports like any other.
    nextSteer: Effect.tap(
      Queue.take(active.steers),
      (input) => Effect.andThen(events.modelRequest(thread, turnId), emitInput(fake, thread, active, input))
    ),
    emit: notify,
    notify,
    request: sendRequest,
    ask: sendRequest,
    usage: (last) => events.addUsage(thread, turnId, last),
    rateLimits: (limit) => limits.report(limit, thread.id),
    newId: store.newId,
    line: clients.writeLine,
    exit: fake.exit
  }
}
