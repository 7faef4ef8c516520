/** Plays scripted turns on stored threads. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Protocol from "../../../Protocol.ts"
import {
  type ActionError,
  type ExitOptions,
  Interrupted,
  RequestFailed,
  type Script,
  TurnContext
} from "../../../testing/TurnScript.ts"
import { decoderFor } from "../../connection/codec.ts"
import { describeIssue } from "../../schemaIssue.ts"
import type { Clients } from "./clients.ts"
import type { Outcome } from "./methods.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import { completedTurnJson, turnJson } from "./threadJson.ts"
import { type ActiveTurn, type StoredThread, type StoredTurn, type ThreadStore, toSeconds } from "./threadStore.ts"

/** The flag of a thread that waits for a response, by the method of the request. */
const waitingFlags: Readonly<Record<string, "waitingOnApproval" | "waitingOnUserInput">> = {
  "item/commandExecution/requestApproval": "waitingOnApproval",
  "item/fileChange/requestApproval": "waitingOnApproval",
  "item/permissions/requestApproval": "waitingOnApproval",
  "item/tool/requestUserInput": "waitingOnUserInput"
}

const toText = (input: ReadonlyArray<Protocol.UserInputParam>): string =>
  input.flatMap((item) => item.type === "text" ? [item.text] : []).join("\n")

/** The error of a turn whose script failed. */
const toTurnError = (cause: Cause.Cause<ActionError>): Protocol.TurnError => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  return {
    message: failure?.message ?? `The script of this turn died: ${Cause.pretty(cause)}`,
    codexErrorInfo: failure?._tag === "TurnFailure" ? failure.codexErrorInfo : null,
    additionalDetails: null
  }
}

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

export const makeTurnPlayer = Effect.fnUntraced(function*(fake: {
  readonly clients: Clients
  readonly store: ThreadStore
  readonly events: ThreadEvents
  readonly exit: (options?: ExitOptions) => Effect.Effect<void>
  readonly eventsBeforeResponse: boolean
}) {
  const { clients, events, store } = fake
  const turns = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(turns)()

  /** Sends a notification of a turn, and records its items. */
  const emit = (thread: StoredThread, { stored }: ActiveTurn) => (method: string, params: object) =>
    Effect.suspend(() => {
      const item = Predicate.hasProperty(params, "item") ? params.item as Protocol.ThreadItem : undefined
      if (method === "item/completed" && item !== undefined) stored.items.push(item)
      if (item?.type === "commandExecution" && Predicate.isString(item.processId)) {
        if (method === "item/started") thread.processes.set(item.processId, item)
        else if (method === "item/completed") thread.processes.delete(item.processId)
      }
      return events.notify(thread, method, { turnId: stored.id, ...params })
    })

  const emitInput = Effect.fnUntraced(function*(
    thread: StoredThread,
    active: ActiveTurn,
    input: ReadonlyArray<Protocol.UserInputParam>
  ) {
    if (input.length === 0) return
    const item = { type: "userMessage", id: store.newId("input"), clientId: null, content: input }
    const now = yield* Clock.currentTimeMillis
    yield* emit(thread, active)("item/started", { item, startedAtMs: now })
    yield* emit(thread, active)("item/completed", { item, completedAtMs: now })
  })

  const request = Effect.fnUntraced(function*<M extends keyof Protocol.ServerRequests>(
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

  const makeContext = (
    thread: StoredThread,
    active: ActiveTurn,
    params: Protocol.TurnStartParams
  ): TurnContext["Service"] => {
    const turnId = active.stored.id
    const notify = emit(thread, active)
    return {
      threadId: thread.id,
      turnId,
      params,
      text: toText(params.input),
      // New input cancels the request to the model that is in flight, which the server reports like any other.
      nextSteer: Effect.tap(
        Queue.take(active.steers),
        (input) => Effect.andThen(events.modelRequest(thread, turnId), emitInput(thread, active, input))
      ),
      emit: notify,
      notify,
      request: (method, params) => request(thread, active, method, params),
      usage: (last) => events.addUsage(thread, turnId, last),
      newId: store.newId,
      line: clients.writeLine,
      exit: fake.exit
    }
  }

  /** Sends what ends a turn, in the order of the real server. */
  const complete = Effect.fnUntraced(function*(thread: StoredThread, active: ActiveTurn) {
    const { stored } = active
    thread.failed = stored.status === "failed"
    if (stored.error !== null) {
      yield* events.status(thread, { type: "systemError" })
      yield* emit(thread, active)("error", { error: stored.error, willRetry: false })
    }
    thread.active = undefined
    const turn = completedTurnJson(stored)
    if (!thread.ephemeral && (thread.failed || turn.items.length > 0)) {
      yield* events.notify(thread, "thread/readState/changed", {
        readState: {
          firstUnread: { type: "turn", turnId: thread.turns[thread.inherited]!.id },
          revision: store.newId("revision")
        }
      })
    }
    if (!thread.failed) yield* events.status(thread, { type: "idle" })
    yield* events.notify(thread, "turn/completed", { turn })
    for (const requestId of active.unresolved) yield* events.notify(thread, "serverRequest/resolved", { requestId })
    // An interruption that came too late stops waiting.
    yield* Deferred.succeed(active.stopped, undefined)
  })

  /** Plays one turn to its end, which comes however the script ends. */
  const play = Effect.fnUntraced(function*(
    thread: StoredThread,
    active: ActiveTurn,
    params: Protocol.TurnStartParams,
    script: Script
  ) {
    const { stored } = active
    const context = makeContext(thread, active, params)
    yield* events.status(thread, { type: "active", activeFlags: [] })
    active.started = true
    yield* events.notify(thread, "turn/started", { turn: turnJson(stored, "notLoaded") })
    yield* emitInput(thread, active, params.input)
    const exit = yield* Effect.suspend(() => {
      const actions = script(context)
      return Effect.isEffect(actions) ? Effect.asVoid(actions) : Stream.runForEach(actions, identity)
    }).pipe(
      Effect.provideService(TurnContext, context),
      Effect.raceFirst(Deferred.await(active.interrupted)),
      Effect.exit
    )
    if (yield* Deferred.isDone(active.interrupted)) {
      yield* events.modelRequest(thread, stored.id)
      yield* Deferred.succeed(active.stopped, undefined)
      yield* Deferred.await(active.responded)
    }
    stored.completedAt = yield* Clock.currentTimeMillis
    thread.updatedAt = toSeconds(stored.completedAt)
    const failure = Exit.isFailure(exit) ? exit.cause : undefined
    const interrupted = failure !== undefined &&
      Option.exists(Cause.findErrorOption(failure), ({ _tag }) => _tag === "Interrupted")
    stored.status = interrupted ? "interrupted" : failure === undefined ? "completed" : "failed"
    if (failure !== undefined && !interrupted) stored.error = toTurnError(failure)
    yield* complete(thread, active)
  })

  const start = Effect.fnUntraced(function*(thread: StoredThread, params: Protocol.TurnStartParams) {
    const active: ActiveTurn = {
      stored: {
        id: store.newId("turn"),
        status: "inProgress",
        error: null,
        items: [],
        startedAt: yield* Clock.currentTimeMillis,
        completedAt: null
      },
      steers: yield* Queue.unbounded<ReadonlyArray<Protocol.UserInputParam>>(),
      interrupted: yield* Deferred.make<never, Interrupted>(),
      stopped: yield* Deferred.make<void>(),
      responded: yield* Deferred.make<void>(),
      unresolved: [],
      started: false
    }
    thread.turns.push(active.stored)
    thread.active = active
    if (!thread.ephemeral) thread.stored = true
    if (thread.stored && thread.preview === "") thread.preview = toText(params.input)
    return active
  })

  return {
    /** Starts a turn. It plays after the response, or before it with `eventsBeforeResponse`. */
    begin: Effect.fnUntraced(function*<A>(
      thread: StoredThread,
      params: Protocol.TurnStartParams,
      script: Script,
      toResult: (turn: StoredTurn) => A
    ) {
      const active = yield* start(thread, params)
      const turn = play(thread, active, params, script)
      const result = toResult(active.stored)
      const outcome: Outcome<A> = fake.eventsBeforeResponse
        ? { result, before: turn }
        : { result, after: Effect.sync(() => fork(turn)) }
      return outcome
    }),
    /** Stops the script of a turn before the response, and ends the turn after it. */
    interrupt: (active: ActiveTurn) => ({
      before: Effect.andThen(Deferred.fail(active.interrupted, new Interrupted()), Deferred.await(active.stopped)),
      after: Deferred.succeed(active.responded, undefined)
    }),
    fork,
    /** Interrupts every turn. A script may call it from its own turn, so it does not wait for them. */
    stopAll: Effect.asVoid(Effect.forkDetach(FiberSet.clear(turns)))
  }
})

export type TurnPlayer = Effect.Success<ReturnType<typeof makeTurnPlayer>>
