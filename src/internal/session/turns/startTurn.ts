/** Starts turns: the one way from a thread to a running turn. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, ThreadBusy } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { Handlers } from "../handlers/handlerRegistry.ts"
import { restoreSettings } from "../threads/keptSettings.ts"
import type { OpenThread } from "../threads/openThread.ts"
import { requestTurn } from "../threads/responses.ts"
import { awaitWithTimeout } from "./interruptTurn.ts"
import { endTurn, type Session, TurnHandle } from "./turnHandle.ts"
import type { TurnEntry, TurnRegistry } from "./turnRegistry.ts"
import { TurnState } from "./turnState.ts"
import type { Timeout } from "./turnTimeouts.ts"

/** What a turn is started with. */
export interface Start {
  readonly params: Protocol.TurnStartParams
  readonly handlers: Handlers | undefined
  readonly keepBackgroundTerminals: boolean
  /** The options that cannot hold if the turn is one that the thread is running already. */
  readonly exclusive: ReadonlyArray<string>
  readonly limit: Timeout
}

/** The params that concern the input, or that the server ignores, so that they hold for a turn that is joined. */
const joinable: ReadonlySet<string> = new Set([
  "threadId",
  "input",
  "toolOutput",
  "clientUserMessageId",
  "additionalContext",
  "responsesapiClientMetadata",
  "responsesapiClientMetadataPatch"
])

/** The options that cannot hold for a turn that runs already. */
export const exclusiveOptions = (options: object): ReadonlyArray<string> =>
  Object.entries(options)
    .filter(([name, value]) => Predicate.isNotNullish(value) && !joinable.has(name))
    .map(([name]) => name)

const busy = (threadId: string, turnId: string, options: ReadonlyArray<string>, isSent: boolean): AppServerError =>
  appServerError(new ThreadBusy({ threadId, turnId, options, isSent }))

/** Fails if the thread is known to run a turn, for which the options of another turn cannot hold. */
const refuseBusy = (
  open: TurnRegistry,
  threadId: string,
  exclusive: ReadonlyArray<string>,
  limit: Timeout
): Effect.Effect<void, AppServerError> =>
  exclusive.length === 0 ? Effect.void : Effect.suspend(() => {
    const starting = open.pendingStarts(threadId)
    const turnId = open.getRunning(threadId)[0]?.id ?? open.getActive(threadId)
    if (turnId !== undefined) return Effect.fail(busy(threadId, turnId, exclusive, false))
    return starting.size === 0
      ? Effect.void
      : Effect.andThen(limit(Fiber.awaitAll(starting)), refuseBusy(open, threadId, exclusive, limit))
  })

/** The server has responded to `turn/start`, but in a way that does not name the turn. */
const mayHaveStarted = (cause: Cause.Cause<AppServerError>): boolean =>
  Option.exists(Cause.findErrorOption(cause), ({ reason }) => reason._tag === "DecodeFailed")

/** A turn that `turn/start` has named, and whether it was running before. */
interface Started {
  readonly turn: TurnEntry
  readonly isJoined: boolean
}

/**
 * Sends `turn/start`, in a fiber of its own that outlives the caller's: if the caller gives up waiting, interrupted or out of time,
 * the response is still awaited, because only it names the turn.
 */
const sendStart = Effect.fnUntraced(function*(
  { open, registry, server }: Session,
  thread: OpenThread,
  state: TurnState,
  { handlers: given, keepBackgroundTerminals, params }: Start
) {
  const { threadId } = params
  const handlers = given && registry.addTurn(threadId, given)
  let isSent = false
  let activeBefore: string | undefined
  const before = thread.record.settings
  const request = yield* thread.request(
    server,
    "turn/start",
    (server, { onSend }) =>
      requestTurn(server, "turn/start", params, {
        timeout: Duration.infinity,
        onSend: () => {
          isSent = true
          activeBefore = open.getActive(threadId)
          state.expect(params)
          onSend?.()
        }
      })
  ).pipe(
    Effect.map(({ turn: { id } }): Started => {
      thread.record.change(params, state.hasSettings)
      const isJoined = activeBefore === id || open.isRunning(threadId, id)
      if (isJoined) handlers?.end()
      else handlers?.setTurnId(id)
      const turn = open.acquire(id, { activeBefore, keepBackgroundTerminals, state, thread })
      turn.state.onComplete(() => handlers?.end())
      return { turn, isJoined }
    }),
    Effect.interruptible,
    Effect.forkDetach
  )
  open.trackStart(threadId, request)
  open.unassigned.add(state)
  // An observer, because a fiber that is interrupted before it has begun runs no finalizer.
  request.addObserver((exit) => {
    open.unassigned.delete(state)
    if (Exit.isFailure(exit) && !mayHaveStarted(exit.cause)) handlers?.end()
  })
  return { request, isSent: () => isSent, handlers, before }
})

/** Interrupts a turn for which the server has reported other settings than it was started with. */
const rejectTurn = ({ server }: Session, turn: TurnEntry, error: AppServerError): Effect.Effect<void> =>
  Effect.suspend(() => {
    turn.state.expire(error)
    return Effect.andThen(endTurn(server, turn), Effect.sync(() => turn.state.failIfExpired()))
  })

/** Starts a turn and returns its handle, which is held for as long as the scope lives. */
export const startTurn = (
  session: Session,
  thread: OpenThread,
  start: Start
): Effect.Effect<TurnHandle, AppServerError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const { exclusive, limit, params: { threadId } } = start
      yield* restore(refuseBusy(session.open, threadId, exclusive, limit))
      const state = new TurnState(session.server, session.open.usages, threadId)
      const { before, handlers, isSent, request } = yield* sendStart(session, thread, state, start)
      if (handlers !== undefined) yield* Effect.addFinalizer(() => Effect.sync(() => handlers.detach()))

      const started = yield* Effect.exit(restore(limit(Fiber.join(request))))
      if (Exit.isSuccess(started)) {
        const { isJoined, turn } = started.value
        const handle = new TurnHandle(session, turn)
        const joined = Effect.suspend(() => {
          turn.isOurs = false
          if (exclusive.length === 0) return Effect.void
          handle.fail(busy(threadId, turn.id, exclusive, true))
          return Effect.andThen(restoreSettings(session.server, threadId, before), handle.release)
        })
        if (thread.record.isClosed) {
          yield* handle.release
          return yield* thread.closed("turn/start")
        }
        if (isJoined && exclusive.length > 0) {
          yield* handle.release
          yield* restoreSettings(session.server, threadId, before)
          return yield* busy(threadId, turn.id, exclusive, true)
        }
        if (!isJoined && state.rejected !== undefined) {
          yield* handle.release
          return yield* state.rejected
        }
        yield* Effect.addFinalizer(() => handle.release)
        const services = yield* Effect.context<never>()
        const run = Effect.runForkWith(services)
        state.whenRejected((error) => run(rejectTurn(session, turn, error)))
        if (!isJoined) state.whenJoined(() => run(joined))
        return handle
      }

      if (!isSent()) request.interruptUnsafe()
      state.release()
      const released = yield* Fiber.await(request).pipe(
        Effect.flatMap((exit) =>
          Exit.isSuccess(exit)
            ? new TurnHandle(session, exit.value.turn).release
            : Effect.sync(() => state.unsubscribeThread())
        ),
        Effect.interruptible,
        Effect.forkDetach
      )
      if (Exit.hasInterrupts(started)) yield* awaitWithTimeout(Fiber.await(released))
      return yield* Effect.failCause(started.cause)
    })
  )
