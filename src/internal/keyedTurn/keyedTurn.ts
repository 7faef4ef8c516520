/** A turn that happens once. Its key is the id of its input, by which it is found in the history of the thread. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, TurnLost } from "../../AppServerError.ts"
import type * as Input from "../../Input.ts"
import type { OutputInvalid, RunOnceResult, TurnFailed, TurnResult } from "../../Turn.ts"
import { toResult } from "../../Turn.ts"
import type { OutputCodec } from "../output/outputCodec.ts"
import type { SessionState } from "../session/sessionState.ts"
import type { OpenThread } from "../session/threads/openThread.ts"
import { awaitIdle, endedState, findKeyed, joinKeyed } from "../session/turns/keyedTurns.ts"
import type { TurnHandle } from "../session/turns/turnHandle.ts"
import { addFailure, addResult, decodeOutput, repairInput } from "../typedTurn/typedTurn.ts"

/** The input that continues an interrupted turn. */
const continueInput = "You were interrupted. Continue where you stopped. Do not repeat work that is done."

export interface Options<A, R> {
  readonly session: SessionState
  readonly thread: OpenThread
  readonly key: string
  readonly input: Input.Input
  readonly onInterrupted: "continue" | "restart" | "return"
  /** The codec of typed output. */
  readonly codec: OutputCodec<A, R> | undefined
  /** The maximum number of repairs of typed output. */
  readonly repairs: number
  /** Starts a turn. `isRepeated` if it has the input of the call. Fails with `ThreadBusy` if the thread runs another turn. */
  readonly start: (
    input: Input.Input,
    inputId: string,
    isRepeated: boolean
  ) => Effect.Effect<TurnHandle, AppServerError, Scope.Scope>
  /** Applies the time limits to a turn that is joined. */
  readonly limit: (handle: TurnHandle) => Effect.Effect<void, never, Scope.Scope>
  /** Limits the time before a turn starts. */
  readonly timeout: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | AppServerError, R>
}

/** What follows the attempts so far. */
interface Step {
  readonly number: number
  readonly input: Input.Input
  /** Whether the input is that of the call. */
  readonly isRepeated: boolean
  /** The result of the attempts before, together. */
  readonly before: TurnResult | undefined
  /** The number of attempts that were completed. */
  readonly completed: number
  /** How the result came about. */
  readonly origin: RunOnceResult["origin"]
}

/** The id of the input of an attempt. No key ends as the ids of later attempts do. */
const toInputId = (key: string, number: number): string => number === 1 ? key : `${key}#${number}`

const laterAttempt = /#\d+$/

/** Describes a key that cannot be used. */
export const keyIssue = (key: unknown): string | undefined => {
  if (typeof key !== "string" || key === "") return "the key must be a string that is not empty"
  return laterAttempt.test(key)
    ? `the key \`${key}\` ends with \`#\` and a number, as the keys of repeated attempts do. Use another key`
    : undefined
}

/** Returns the number of the attempt whose input has an id. */
const toNumber = (key: string) => (inputId: string): number | undefined => {
  if (inputId === key) return 1
  const number = inputId.startsWith(`${key}#`) ? Number(inputId.slice(key.length + 1)) : 0
  return Number.isSafeInteger(number) && number > 1 ? number : undefined
}

/** An attempt that has ended before this call, or one that runs. */
type Attempt =
  | { readonly _tag: "Ended"; readonly result: Effect.Effect<TurnResult, TurnFailed | AppServerError> }
  | { readonly _tag: "Running"; readonly handle: TurnHandle; readonly isJoined: boolean }

/** Number of times, 50 milliseconds apart, that a turn is looked up which the server lists as running, and does not run. */
const maxLookUps = 100

const notRunning = (threadId: string, turnId: string): AppServerError =>
  appServerError(
    new TurnLost({
      threadId,
      turnId,
      resumable: true,
      description: "the server lists the turn as running, but runs no turn on the thread",
      lastError: undefined
    })
  )

/** Finds an attempt, or starts it when the thread is idle. */
const acquire = Effect.fnUntraced(function*<A, R>(
  { key, limit, session, start, thread, timeout }: Options<A, R>,
  { input, isRepeated, number }: Step
): Effect.fn.Return<Attempt, AppServerError, Scope.Scope> {
  const { keyedTurns } = thread.record
  const inputId = toInputId(key, number)
  const join = Effect.fnUntraced(function*(turnId: string) {
    const handle = yield* timeout(joinKeyed(session, thread, turnId))
    if (Option.isSome(handle)) yield* limit(handle.value)
    return handle
  })
  const startWithKey = Effect.gen(function*() {
    const handle = yield* start(input, inputId, isRepeated)
    keyedTurns.set(inputId, handle.turn.id)
    handle.turn.state.onComplete(() => keyedTurns.delete(inputId))
    return Option.some(handle)
  }).pipe(
    // Another caller has started a turn meanwhile. If it has received the input, it is found.
    Effect.catchReason("AppServerError", "ThreadBusy", () => Effect.succeedNone)
  )
  for (let lookUps = 1;; lookUps++) {
    const ownId = keyedTurns.get(inputId)
    const own = ownId === undefined ? Option.none() : yield* join(ownId)
    if (Option.isSome(own)) return { _tag: "Running", handle: own.value, isJoined: true }

    const found = yield* timeout(findKeyed(session, thread, toNumber(key)))
    const turn = found?.find((attempt) => attempt.number === number)?.turn
    if (turn !== undefined && turn.status !== "inProgress") {
      const state = endedState(session, thread.id, turn)
      return { _tag: "Ended", result: toResult(state, turn) }
    }
    const running = turn === undefined ? Option.none() : yield* join(turn.id)
    if (Option.isSome(running)) return { _tag: "Running", handle: running.value, isJoined: true }

    if (turn !== undefined) {
      if (lookUps >= maxLookUps) return yield* notRunning(thread.id, turn.id)
      yield* timeout(Effect.sleep(Duration.millis(50)))
      continue
    }

    if (yield* timeout(awaitIdle(session, thread))) continue
    if (found === undefined) {
      yield* timeout(session.server.request("thread/name/set", { threadId: thread.id, name: key }))
    }
    const started = yield* startWithKey
    if (Option.isSome(started)) return { _tag: "Running", handle: started.value, isJoined: false }
  }
})

/** Runs a turn once: finds or joins the turn with the key, continues it if it was interrupted, or starts it. */
export const runKeyed = <A, R>(
  options: Options<A, R>
): Effect.Effect<
  RunOnceResult & { readonly output?: A },
  OutputInvalid | TurnFailed | AppServerError,
  Scope.Scope | R
> => {
  const { codec, onInterrupted, repairs, thread: { record } } = options
  const next = Effect.fnUntraced(function*(step: Step): Effect.fn.Return<
    RunOnceResult & { readonly output?: A },
    OutputInvalid | TurnFailed | AppServerError,
    Scope.Scope | R
  > {
    const attempt = yield* options.timeout(record.keyedStart.withPermit(acquire(options, step)))
    const ended = yield* Effect.mapError(
      attempt._tag === "Ended" ?
        attempt.result :
        Effect.flatMap(attempt.handle.ended, (turn) => toResult(attempt.handle.turn.state, turn)),
      (error) => addFailure(step.before, error)
    )
    const before = addResult(step.before, ended)
    const origin = attempt._tag === "Ended" ? "found" : attempt.isJoined ? "joined" : step.origin
    if (attempt._tag === "Ended" && ended.status === "interrupted" && onInterrupted !== "return") {
      const isRepeated = onInterrupted === "restart"
      return yield* next({
        ...step,
        number: step.number + 1,
        input: isRepeated ? options.input : continueInput,
        isRepeated,
        before,
        origin: isRepeated ? "restarted" : "continued"
      })
    }
    if (codec === undefined) return { ...before, origin }
    const completed = step.completed + 1
    const decoded = yield* decodeOutput(codec, before, completed, completed <= repairs)
    if (Result.isSuccess(decoded)) return { ...before, output: decoded.success, origin }
    return yield* next({
      number: step.number + 1,
      input: repairInput(decoded.failure),
      isRepeated: false,
      before,
      completed,
      origin: origin === "found" || origin === "joined" ? "continued" : origin
    })
  })
  return next({ number: 1, input: options.input, isRepeated: true, before: undefined, completed: 0, origin: "sent" })
}
