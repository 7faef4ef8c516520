/** A turn whose final response is decoded. A response that does not decode is reported to the model in a further turn, the repair. */
import * as Deferred from "effect/Deferred"
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
  readonly getUsage: () => Usage.TurnUsage | undefined
  readonly number: number
  /** The result of the attempts before, together. */
  readonly before: TurnResult | undefined
  /** What follows, once it is known: the next attempt, or the decoded output. */
  next: Next<A> | undefined
  /** Number of callers that wait for what follows. */
  followers: number
  /** Completed when the callers know what follows, or none of them waits any more. */
  followed: Deferred.Deferred<void>
}

const makeAttempt = <A>(turn: Turn, number: number, before: TurnResult | undefined): Attempt<A> => ({
  // A copy, because the handle of the typed turn replaces members of the first turn.
  turn: { ...turn },
  getUsage: () => turn["~effect-codex/Turn"]?.turn.state.getUsage(),
  number,
  before,
  next: undefined,
  followers: 0,
  followed: Deferred.makeUnsafe()
})

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
  private last: Attempt<A>
  private isInterrupted = false
  private readonly options: Options<A, R>
  private readonly scope: Scope.Scope
  private readonly semaphore = Semaphore.makeUnsafe(1)

  constructor(options: Options<A, R>, scope: Scope.Scope, turn: Turn) {
    this.options = options
    this.scope = scope
    this.first = makeAttempt(turn, 1, undefined)
    this.last = this.first
  }

  /** Waits for the end of an attempt. A caller that is interrupted leaves the attempt to the next caller. */
  follow(attempt: Attempt<A>): Effect.Effect<Next<A>, OutputError, R> {
    const follow = Effect.suspend(() =>
      attempt.next === undefined ? this.decodeOrRepair(attempt) : Effect.succeed(attempt.next)
    ).pipe(this.semaphore.withPermit)
    return Effect.acquireUseRelease(
      Effect.sync(() => {
        if (attempt.followers++ === 0) attempt.followed = Deferred.makeUnsafe()
      }),
      () => follow,
      () =>
        Effect.sync(() => {
          const isLast = --attempt.followers === 0
          if (isLast || attempt.next !== undefined) Deferred.doneUnsafe(attempt.followed, Effect.void)
        })
    )
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
        const next = { attempt: makeAttempt<A>(turn, attempt.number + 1, before) }
        attempt.next = next
        this.last = next.attempt
        return Effect.as(this.isInterrupted ? turn.interrupt : Effect.void, next)
      })
    )
  }

  readonly interrupt: Effect.Effect<void, AppServerError> = Effect.suspend(() => {
    this.isInterrupted = true
    return this.last.turn.interrupt
  })

  readonly steer: Turn["steer"] = (input) => Effect.suspend(() => this.last.turn.steer(input))

  /** The usage of all attempts so far. */
  readonly usage: Effect.Effect<Usage.TurnUsage | undefined> = Effect.sync(() => {
    const { before, getUsage } = this.last
    return addUsage(before?.usage, getUsage())
  })

  /** The views of the last attempt and of those that follow. Starts no repair. */
  readonly view: Turn["view"] = Stream.suspend(() => this.viewFrom(this.last))

  private viewFrom(attempt: Attempt<A>): Turn["view"] {
    const next = Effect.suspend(() =>
      attempt.followers > 0 && attempt.next === undefined ? Deferred.await(attempt.followed) : Effect.void
    ).pipe(Effect.map(() => attempt.next))
    return Stream.concat(
      attempt.turn.view,
      Stream.unwrap(Effect.map(
        next,
        (next) => next !== undefined && "attempt" in next ? this.viewFrom(next.attempt) : Stream.empty
      ))
    )
  }

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
  const turn = yield* options.start
  return { attempts: new Attempts(options, scope, turn), turn }
})

/** Runs a turn with typed output. */
export const runTyped = <A, R>(
  options: Options<A, R>
): Effect.Effect<TypedTurnResult<A>, OutputError, Scope.Scope | R> =>
  Effect.flatMap(start(options), ({ attempts }) => attempts.result())

/** Starts a turn with typed output, and returns its handle. */
export const startTyped = <A, R>(
  options: Options<A, R>
): Effect.Effect<TypedTurn<A, unknown, R>, AppServerError, Scope.Scope> =>
  Effect.map(start(options), ({ attempts, turn }) =>
    // Assigned, so that the turn keeps its handle, which is not enumerable.
    Object.assign(turn, {
      interrupt: attempts.interrupt,
      steer: attempts.steer,
      view: attempts.view,
      usage: attempts.usage,
      output: Effect.map(attempts.result(), ({ output }) => output),
      partialOutput: attempts.partialOutput()
    }))
