/** A turn whose final response is decoded. A response that does not decode is reported to the model in a further turn, the repair. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Input from "../../Input.ts"
import { OutputInvalid, TurnFailed } from "../../Turn.ts"
import type { Turn, TurnResult, TypedTurn, TypedTurnResult } from "../../Turn.ts"
import * as Usage from "../../Usage.ts"
import type { OutputCodec, OutputIssue } from "../output/outputCodec.ts"
import { toPartialOutput } from "./partialOutput.ts"

type OutputError = OutputInvalid | TurnFailed | AppServerError

interface Options<A, R> {
  readonly codec: OutputCodec<A, R>
  /** The maximum number of repairs. */
  readonly repairs: number
  /** Starts the first turn. */
  readonly start: Effect.Effect<Turn, AppServerError, Scope.Scope>
  /** Starts a further turn with the options of the call. */
  readonly repair: (input: Input.Input) => Effect.Effect<Turn, AppServerError, Scope.Scope>
}

/** One turn: the first one, or a repair. */
interface Attempt<A> {
  readonly turn: Turn
  readonly number: number
  /** The result of the attempts before, together. */
  readonly before: TurnResult | undefined
  /** What follows, once it is known: the next attempt, or the decoded output. */
  next: Next<A> | undefined
}

type Next<A> = { readonly attempt: Attempt<A> } | { readonly result: TypedTurnResult<A> }

const addUsage = (
  before: Usage.TurnUsage | undefined,
  last: Usage.TurnUsage | undefined
): Usage.TurnUsage | undefined =>
  before === undefined || last === undefined ? last ?? before : { ...last, turn: Usage.add(before.turn, last.turn) }

/** Adds the result of a further turn to that of the turns before. */
export const addResult = (before: TurnResult | undefined, last: TurnResult): TurnResult =>
  before === undefined ? last : {
    ...last,
    items: [...before.items, ...last.items],
    usage: addUsage(before.usage, last.usage),
    startedAt: before.startedAt,
    durationMs: before.durationMs === undefined || last.durationMs === undefined
      ? undefined
      : before.durationMs + last.durationMs
  }

/** Adds the failure of a further turn to the result of the turns before. */
export const addFailure = <E>(before: TurnResult | undefined, error: E): E | TurnFailed =>
  before !== undefined && error instanceof TurnFailed
    ? new TurnFailed({
      ...error,
      items: [...before.items, ...error.items],
      usage: addUsage(before.usage, error.usage)
    })
    : error

/** Makes the input of a repair. */
export const repairInput = (issue: OutputIssue): string =>
  `Your last response does not satisfy the JSON Schema of the response:

${issue.message.split("\n").map((line) => `- ${line}`).join("\n")}

Respond with the whole JSON again, corrected. Do not repeat work that is done.`

/** Decodes the final response of a turn. Fails if the response cannot be repaired, or not any more. */
export const decodeOutput = Effect.fnUntraced(function*<A, R>(
  codec: OutputCodec<A, R>,
  { finalResponse: text, id: turnId, status, threadId, usage }: TurnResult,
  attempts: number,
  canRepair: boolean
): Effect.fn.Return<Result.Result<A, OutputIssue>, OutputInvalid, R> {
  const invalid = (reason: OutputInvalid["reason"], issues: OutputInvalid["issues"] = []) =>
    new OutputInvalid({ threadId, turnId, reason, text, issues, attempts, usage })
  if (status === "interrupted") return yield* invalid("interrupted")
  if (text === undefined) return yield* invalid("noMessage")
  const decoded = yield* Effect.result(codec.decode(text))
  if (Result.isSuccess(decoded) || canRepair) return decoded
  return yield* invalid(decoded.failure.reason, decoded.failure.issues)
})

/** The attempts of one call. Each attempt is followed at most once. */
class Attempts<A, R> {
  readonly first: Attempt<A>
  /** Interrupts the last attempt. */
  private interruptLast: Turn["interrupt"]
  private isInterrupted = false
  private readonly options: Options<A, R>
  private readonly scope: Scope.Scope
  private readonly semaphore = Semaphore.makeUnsafe(1)

  constructor(options: Options<A, R>, scope: Scope.Scope, turn: Turn) {
    this.options = options
    this.scope = scope
    this.first = { turn, number: 1, before: undefined, next: undefined }
    this.interruptLast = turn.interrupt
  }

  /** Waits for the end of an attempt. A caller that is interrupted leaves the attempt to the next caller. */
  follow(attempt: Attempt<A>): Effect.Effect<Next<A>, OutputError, R> {
    return Effect.suspend(() =>
      attempt.next === undefined ? this.decodeOrRepair(attempt) : Effect.succeed(attempt.next)
    ).pipe(this.semaphore.withPermit)
  }

  private readonly decodeOrRepair = Effect.fnUntraced(
    function*(this: Attempts<A, R>, attempt: Attempt<A>): Effect.fn.Return<Next<A>, OutputError, R> {
      const { codec, repairs } = this.options
      const ended = yield* Effect.mapError(attempt.turn.result, (error) => addFailure(attempt.before, error))
      const result = addResult(attempt.before, ended)
      const canRepair = attempt.number <= repairs && !this.isInterrupted
      const decoded = yield* decodeOutput(codec, result, attempt.number, canRepair)
      if (Result.isSuccess(decoded)) {
        attempt.next = { result: { ...result, output: decoded.success } }
        return attempt.next
      }
      return yield* this.repair(attempt, decoded.failure, result)
    }
  )

  /** Starts the next attempt. It is uninterruptible between the start and the assignment, so that no other caller starts it again. */
  private repair(attempt: Attempt<A>, issue: OutputIssue, before: TurnResult): Effect.Effect<Next<A>, AppServerError> {
    const start = Scope.provide(this.options.repair(repairInput(issue)), this.scope)
    return Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(restore(start), (turn) => {
        const next = { attempt: { turn, number: attempt.number + 1, before, next: undefined } }
        attempt.next = next
        this.interruptLast = turn.interrupt
        return Effect.as(this.isInterrupted ? turn.interrupt : Effect.void, next)
      })
    )
  }

  readonly interrupt: Effect.Effect<void, AppServerError> = Effect.suspend(() => {
    this.isInterrupted = true
    return this.interruptLast
  })

  result(attempt: Attempt<A> = this.first): Effect.Effect<TypedTurnResult<A>, OutputError, R> {
    return Effect.flatMap(
      this.follow(attempt),
      (next) => "attempt" in next ? this.result(next.attempt) : Effect.succeed(next.result)
    )
  }

  partialOutput(attempt: Attempt<A> = this.first): Stream.Stream<unknown, OutputError, R> {
    return Stream.concat(
      toPartialOutput(attempt.turn.messages, this.options.codec),
      Stream.unwrap(Effect.map(
        this.follow(attempt),
        (next) => "attempt" in next ? this.partialOutput(next.attempt) : Stream.succeed(next.result.output)
      ))
    )
  }
}

/** Starts a turn with typed output. */
const start = Effect.fnUntraced(function*<A, R>(options: Options<A, R>) {
  const scope = yield* Effect.scope
  return new Attempts(options, scope, yield* options.start)
})

/** Runs a turn with typed output. */
export const runTyped = <A, R>(
  options: Options<A, R>
): Effect.Effect<TypedTurnResult<A>, OutputError, Scope.Scope | R> =>
  Effect.flatMap(start(options), (attempts) => attempts.result())

/** Starts a turn with typed output, and returns its handle. */
export const startTyped = <A, R>(
  options: Options<A, R>
): Effect.Effect<TypedTurn<A, unknown, R>, AppServerError, Scope.Scope> =>
  Effect.map(start(options), (attempts) =>
    // Assigned, so that the turn keeps its handle, which is not enumerable.
    Object.assign(attempts.first.turn, {
      interrupt: attempts.interrupt,
      output: Effect.map(attempts.result(), ({ output }) => output),
      partialOutput: attempts.partialOutput()
    }))
