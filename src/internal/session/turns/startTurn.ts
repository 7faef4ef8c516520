/** Starts a turn: sends `turn/start`, and binds the turn to its id and its handles. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, ThreadBusy } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { syncBatch } from "../../jsonrpc/readBatch.ts"
import type { BudgetState } from "../budget/budgetState.ts"
import type { Reservation } from "../budget/turnBudgets.ts"
import type { Handlers } from "../handlers/handlers.ts"
import type { SessionState } from "../sessionState.ts"
import type { TurnTelemetry } from "../telemetry/turnTelemetry.ts"
import { restoreSettings } from "../threads/keptSettings.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { requestTurn } from "../threads/responses.ts"
import { awaitWithTimeout } from "./interruptTurn.ts"
import { findLostStart, withInputId } from "./lostStart.ts"
import { replayPast, replayStoredTurn } from "./recoverTurns.ts"
import { endTurn, TurnHandle } from "./turnHandle.ts"
import type { TurnEntry } from "./turnRegistry.ts"
import { TurnState } from "./turnState.ts"
import type { Timeout } from "./turnTimeouts.ts"

export interface Options {
  readonly params: Protocol.TurnStartParams
  /** The handlers of the turn's options. */
  readonly handlers: Handlers
  /** The handlers of the context in which the turn is started. */
  readonly context: Handlers
  /** The innermost budget that the turn counts in. */
  readonly budget: BudgetState | undefined
  readonly keepBackgroundTerminals: boolean
  /** The names of the options that cannot hold for a running turn. */
  readonly exclusive: ReadonlyArray<string>
  readonly timeout: Timeout
}

/** The params that also hold for a running turn: those of the input, and those that the server ignores. */
const joinable: ReadonlySet<string> = new Set([
  "threadId",
  "input",
  "toolOutput",
  "clientUserMessageId",
  "additionalContext",
  "responsesapiClientMetadata",
  "responsesapiClientMetadataPatch"
])

/** Returns the names of the options that cannot hold for a running turn. */
export const exclusiveOptions = (options: object): ReadonlyArray<string> =>
  Object.entries(options)
    .filter(([name, value]) => Predicate.isNotNullish(value) && !joinable.has(name))
    .map(([name]) => name)

/** Whether a failed `turn/start` may have started a turn: the server responded, but the response does not name the turn. */
const mayHaveStarted = (cause: Cause.Cause<AppServerError>): boolean =>
  Option.exists(Cause.findErrorOption(cause), ({ reason }) => reason._tag === "DecodeFailed")

/** A turn that the response to `turn/start` names. */
interface Started {
  readonly turn: TurnEntry
  /** Whether the turn was running before the request. */
  readonly isJoined: boolean
}

/** One start of a turn, from the check whether the thread is busy to the handle. */
interface TurnStart {
  readonly session: SessionState
  readonly thread: OpenThread
  readonly options: Options
  readonly state: TurnState
}

const busyError = ({ options, thread }: TurnStart, turnId: string, isSent: boolean): AppServerError =>
  appServerError(new ThreadBusy({ threadId: thread.id, turnId, options: options.exclusive, isSent }))

/** Fails if the thread runs a turn for which the options cannot hold. */
const refuseBusy = (start: TurnStart): Effect.Effect<void, AppServerError> =>
  Effect.suspend(() => {
    const { options: { exclusive, timeout }, session: { turns }, thread: { id } } = start
    if (exclusive.length === 0) return Effect.void
    const starting = turns.pendingStarts(id)
    const turnId = turns.getRunning(id)[0]?.id ?? turns.getActive(id)
    if (turnId !== undefined) return Effect.fail(busyError(start, turnId, false))
    return starting.size === 0
      ? Effect.void
      : Effect.andThen(timeout(Fiber.awaitAll(starting)), refuseBusy(start))
  })

/** Replays what a turn has done before this program joined it. The join succeeds also if that cannot be read. */
const replayJoined = (server: ServerConnection, state: TurnState, turnId: string): Effect.Effect<void> =>
  Effect.catch(replayPast(server, state, turnId), () => Effect.sync(() => state.endGap()))

/** Ends the telemetry of a call with its turn. */
const endTelemetry = (
  telemetry: SessionState["telemetry"],
  call: TurnTelemetry,
  { isOurs, state: { coalesced, exit, telemetry: own, usage } }: TurnEntry
): void => {
  if (exit !== undefined) call.end(exit, { coalesced, isJoined: !isOurs || own !== call, usage })
  telemetry.remove(call)
}

/**
 * Sends `turn/start` in a fiber that outlives the caller. If the caller is interrupted or times out, the fiber still awaits the response,
 * because only the response names the turn. The fiber is detached. The scope of the session would interrupt it when the connection closes,
 * but its request must fail with the cause.
 */
const send = Effect.fnUntraced(function*({ options, session, state, thread }: TurnStart, reservation: Reservation) {
  const { budgets, handlers, server, telemetry, turns } = session
  const { context, keepBackgroundTerminals } = options
  const params = yield* withInputId(server, options.params)
  const { threadId } = params
  const turnHandlers = handlers.addTurn(threadId, { options: options.handlers, context, thread: thread.handlers })
  let isSent = false
  let activeBefore: string | undefined
  const settingsBefore = thread.record.settings
  const turnTelemetry = yield* telemetry.start(params, settingsBefore.model)
  state.telemetry = turnTelemetry
  const request = yield* thread.request(
    server,
    "turn/start",
    (client, { onSend }) =>
      requestTurn(client, "turn/start", params, {
        timeout: Duration.infinity,
        onSend: () => {
          isSent = true
          activeBefore = turns.getActive(threadId)
          state.expect(params)
          onSend?.()
        }
      })
  ).pipe(
    Effect.map(({ turn: { id } }) => ({ id, lost: undefined })),
    Effect.catch((error) =>
      isSent
        ? Effect.map(findLostStart(server, thread, params, error), (lost) => ({ id: lost.id, lost }))
        : Effect.fail(error)
    ),
    Effect.flatMap(({ id, lost }) => {
      thread.record.applyTurnSettings(params, state.hasSettings)
      const isJoined = activeBefore === id || turns.isRunning(threadId, id)
      if (isJoined) turnHandlers.end()
      else turnHandlers.setTurnId(id)
      const isPartial = isJoined && options.exclusive.length === 0 && !state.hasStart(id)
      // The events wait until those before are known.
      if (isPartial) state.startGap()
      telemetry.setTurnId(turnTelemetry, id)
      const turn = turns.acquire(id, { activeBefore, keepBackgroundTerminals, state, thread })
      budgets.add(reservation, threadId, id, isJoined, syncBatch)
      turn.state.onComplete(() => {
        turnHandlers.end()
        budgets.end(id)
        endTelemetry(telemetry, turnTelemetry, turn)
      })
      const started: Started = { turn, isJoined }
      if (lost !== undefined) replayStoredTurn(turn.state, lost)
      else if (isPartial && turn.state === state) return Effect.as(replayJoined(server, state, id), started)
      else turn.state.endGap()
      return Effect.succeed(started)
    }),
    turnTelemetry.span === undefined
      ? identity
      : Effect.withParentSpan(turnTelemetry.span, { captureStackTrace: false }),
    Effect.interruptible,
    Effect.forkDetach
  )
  turns.trackStart(threadId, request)
  turns.unassigned.add(state)
  // An observer, because a fiber that is interrupted before it has begun runs no finalizer.
  request.addObserver((exit) => {
    turns.unassigned.delete(state)
    if (Exit.isFailure(exit)) {
      turnTelemetry.fail(exit.cause)
      telemetry.remove(turnTelemetry)
    }
    if (Exit.isSuccess(exit) || mayHaveStarted(exit.cause)) return
    turnHandlers.end()
    reservation.cancel()
  })
  return { request, isSent: () => isSent, turnHandlers, settingsBefore, turnTelemetry }
})

/** Makes the handle of a started turn. Fails if the options do not hold for the turn. */
const toHandle = Effect.fnUntraced(function*(
  start: TurnStart,
  { isJoined, turn }: Started,
  settingsBefore: OpenThread["record"]["settings"],
  { budgets }: Reservation
): Effect.fn.Return<TurnHandle, AppServerError, Scope.Scope> {
  const { options: { exclusive }, session, state, thread } = start
  const handle = new TurnHandle(session, turn)
  const restore = restoreSettings(session.server, thread.id, settingsBefore)
  if (thread.record.isClosed) {
    yield* handle.release
    return yield* thread.closedError("turn/start")
  }
  if (isJoined && exclusive.length > 0) {
    yield* handle.release
    yield* restore
    return yield* busyError(start, turn.id, true)
  }
  if (!isJoined && state.rejected !== undefined) {
    yield* handle.release
    return yield* state.rejected
  }
  const remove = budgets.map((budget) => budget.addRunning((error) => handle.expire(() => error)))
  const removeAll = () => remove.forEach((remove) => remove())
  turn.state.onComplete(removeAll)
  yield* Effect.addFinalizer(() => Effect.andThen(handle.release, Effect.sync(removeAll)))
  const runFork = Effect.runForkWith(yield* Effect.context<never>())
  const fork = (effect: Effect.Effect<void>) => Fiber.runIn(runFork(effect), session.scope)
  state.whenRejected((error) => fork(rejectTurn(session, turn, error)))
  if (!isJoined) {
    state.whenJoined(() => {
      turn.isOurs = false
      if (exclusive.length === 0) return
      handle.fail(busyError(start, turn.id, true))
      fork(Effect.andThen(restore, handle.release))
    })
  }
  return handle
})

/** Interrupts a turn for which the server reports other settings than those it was started with. */
const rejectTurn = ({ server }: SessionState, turn: TurnEntry, error: AppServerError): Effect.Effect<void> =>
  Effect.suspend(() => {
    turn.state.expire(error)
    return Effect.andThen(endTurn(server, turn), Effect.sync(() => turn.state.failIfExpired()))
  })

/**
 * Releases a turn whose caller does not wait for the response any more. Returns the fiber that interrupts the turn when the response names
 * it. The fiber is detached, because it outlives the caller as the fiber of the request does.
 */
const abandon = Effect.fnUntraced(
  function*({ session, state }: TurnStart, request: Fiber.Fiber<Started, AppServerError>) {
    state.release()
    return yield* Fiber.await(request).pipe(
      Effect.flatMap((exit) =>
        Exit.isSuccess(exit)
          ? new TurnHandle(session, exit.value.turn).release
          : Effect.sync(() => state.unsubscribeThread())
      ),
      Effect.interruptible,
      Effect.forkDetach
    )
  }
)

/** Starts a turn and returns its handle, which is released when the scope closes. */
export const startTurn = (
  session: SessionState,
  thread: OpenThread,
  options: Options
): Effect.Effect<TurnHandle, AppServerError, Scope.Scope> =>
  Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const state = new TurnState(session.server, session.turns.usages, thread.id)
    const start: TurnStart = { session, thread, options, state }
    yield* restore(refuseBusy(start))
    const { budget, params } = options
    yield* restore(session.budgets.settle(budget))
    const reservation = yield* session.budgets.reserve(budget, thread.id, params.model ?? thread.record.settings.model)
    const { isSent, request, settingsBefore, turnHandlers, turnTelemetry } = yield* send(start, reservation)
    yield* Effect.addFinalizer(() => Effect.sync(() => turnHandlers.detach()))

    const started = yield* Effect.exit(restore(options.timeout(Fiber.join(request))))
    if (Exit.isSuccess(started)) {
      return yield* toHandle(start, started.value, settingsBefore, reservation).pipe(
        Effect.onError((cause) => Effect.sync(() => turnTelemetry.fail(cause)))
      )
    }

    // The scope of the caller may stay open.
    turnHandlers.detach()
    if (!isSent()) request.interruptUnsafe()
    const released = yield* abandon(start, request)
    if (Exit.hasInterrupts(started)) yield* awaitWithTimeout(Fiber.await(released))
    return yield* Effect.failCause(started.cause)
  }))
