/** Plays scripted turns on stored threads. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type * as Protocol from "../../../Protocol.ts"
import { type ActionError, Interrupted, type Script, TurnContext } from "../../../testing/TurnScript.ts"
import type { Outcome } from "./methods.ts"
import { completedTurnJson, turnJson } from "./threadJson.ts"
import { type ActiveTurn, type StoredThread, type StoredTurn, type ThreadStore, toSeconds } from "./threadStore.ts"
import { emit, emitInput, type Fake, makeTurnContext, toText } from "./turnContext.ts"

/** The error of a turn whose script failed. */
const toTurnError = (cause: Cause.Cause<ActionError>): Protocol.TurnError => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  return {
    message: failure?.message ?? `The script of this turn died: ${Cause.pretty(cause)}`,
    codexErrorInfo: failure?._tag === "TurnFailure" ? failure.codexErrorInfo : null,
    additionalDetails: null
  }
}

/** Sends what ends a turn, in the order of the real server. */
const complete = Effect.fnUntraced(function*(fake: Fake, thread: StoredThread, active: ActiveTurn) {
  const { events, store } = fake
  const { stored } = active
  thread.failed = stored.status === "failed"
  if (stored.error !== null) {
    yield* events.status(thread, { type: "systemError" })
    yield* emit(fake, thread, active, "error", { error: stored.error, willRetry: false })
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

/** Plays one turn to its end, however its script ends. */
const play = Effect.fnUntraced(function*(
  fake: Fake,
  thread: StoredThread,
  active: ActiveTurn,
  params: Protocol.TurnStartParams,
  script: Script
) {
  const { events } = fake
  const { stored } = active
  const context = makeTurnContext(fake, thread, active, params)
  yield* events.status(thread, { type: "active", activeFlags: [] })
  active.started = true
  yield* events.notify(thread, "turn/started", { turn: turnJson(stored, "notLoaded") })
  yield* emitInput(fake, thread, active, params.input)
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
  yield* complete(fake, thread, active)
})

const start = Effect.fnUntraced(function*(store: ThreadStore, thread: StoredThread, params: Protocol.TurnStartParams) {
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

export const makeTurnPlayer = Effect.fnUntraced(function*(fake: Fake, eventsBeforeResponse: boolean) {
  const scope = yield* Effect.scope
  const turns = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(turns)()

  return {
    /** Starts a turn. It plays after the response, or before it with `eventsBeforeResponse`. */
    begin: Effect.fnUntraced(function*<A>(
      thread: StoredThread,
      params: Protocol.TurnStartParams,
      script: Script,
      toResult: (turn: StoredTurn) => A
    ) {
      const active = yield* start(fake.store, thread, params)
      const turn = play(fake, thread, active, params, script)
      const result = toResult(active.stored)
      const outcome: Outcome<A> = eventsBeforeResponse
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
    stopAll: Effect.asVoid(Effect.forkIn(FiberSet.clear(turns), scope))
  }
})

export type TurnPlayer = Effect.Success<ReturnType<typeof makeTurnPlayer>>
