/** Replays one connection of a recording. */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type AppServerError, ConnectionClosed, make as appServerError } from "../../../AppServerError.ts"
import type { Connection } from "../../../Transport.ts"
import { isLoginCheck } from "../../connection/loginCheck.ts"
import type { Renaming } from "./compare.ts"
import { type Cassette, CassetteMismatch, decodeJson } from "./format.ts"
import { makeMatcher, type Matcher } from "./matcher.ts"
import { isJsonObject } from "./redact.ts"
import { describe, type ExpectedMessage, getMethod, type Step, type Timeline, toTimeline } from "./timeline.ts"

/**
 * How a recording is replayed.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReplayOptions {
  /**
   * `"none"` sends each message as soon as it may be sent. `"recorded"` waits before each message of the server as long as the
   * recording did. Under `TestClock` that time is virtual.
   *
   * @default "none"
   */
  readonly timing?: "none" | "recorded" | undefined
  /**
   * Names of properties, at any depth, that may differ from the recording, such as random ids and times of the program.
   *
   * **Details**
   *
   * A string of 8 characters or more in such a property replaces the recorded one in the server's messages.
   */
  readonly ignore?: ReadonlyArray<string> | undefined
  /** The paths of this run, by the names that were passed to `record`. */
  readonly paths?: { readonly [name: string]: string } | undefined
}

type Paths = { readonly [name: string]: string }

/** Time after which the replay reports a program that does not send an expected message. */
const stallTimeout = Duration.seconds(2)

/** Measures in real time, also under a `TestClock`, so that a test that is stuck ends. */
const realTime = Effect.provideService(Clock.Clock, Clock.Clock.defaultValue())

const toClosed = (error: {
  readonly description: string
  readonly exitCode?: number | null
  readonly signal?: string | null
  readonly stderrTail?: string
  readonly cause?: CassetteMismatch
}): AppServerError =>
  appServerError(
    new ConnectionClosed({
      description: error.description,
      exitCode: error.exitCode ?? undefined,
      signal: error.signal ?? undefined,
      stderrTail: error.stderrTail ?? "",
      ...(error.cause === undefined ? {} : { cause: error.cause })
    })
  )

/** The error of a connection that the recording does not have. */
export const noConnectionLeft = (path: string, recorded: number): AppServerError =>
  toClosed({ description: `Cassette ${path} has ${recorded} connection(s), and the program opened one more` })

/** Pairs the paths of the recording with those of this run, by name. */
const toRenamings = (recordedPaths: Paths, actualPaths: Paths = {}): ReadonlyArray<Renaming> =>
  Object.entries(actualPaths).flatMap(([name, actual]) => {
    const recorded = Object.hasOwn(recordedPaths, name) ? recordedPaths[name] : undefined
    return recorded === undefined ? [] : [{ recorded, actual, from: 0 }]
  })

/** Finds the response that the program waits for, and that the recording has only after an expected message. */
const findStall = (path: string, { expected: all }: Timeline, expected: ExpectedMessage) => {
  const ahead = all.find(({ line, matched, respondedAt }) =>
    matched !== undefined && line > expected.line && respondedAt !== undefined
  )
  if (ahead === undefined) return undefined
  const missing = all.filter(({ line, matched }) => matched === undefined && line < ahead.line)
  return new CassetteMismatch({
    path,
    method: ahead.method,
    expected: expected.message,
    actual: ahead.message,
    diff: `The program waits for the response to ${describe(ahead)}, but has not sent what precedes it: ${
      missing.map(describe).join(", ")
    }. Record the cassette again if the change is intended`
  })
}

/** Formats a recorded message for this run. */
const toLine = (step: Extract<Step, { type: "send" }>, matcher: Matcher): string => {
  // `thread/started` belongs to the opening of the thread, which precedes its use, even if it arrives later.
  const isOpening = getMethod(step.message) === "thread/started"
  const message = matcher.toActual(step.message, isOpening ? 0 : step.line)
  const id = step.respondsTo?.matched?.id
  return JSON.stringify(id === undefined || !isJsonObject(message) ? message : { ...message, id })
}

export const play = Effect.fnUntraced(function*(
  { entries, header, path }: Cassette,
  connection: number,
  options: ReplayOptions
): Effect.fn.Return<Connection, never, Scope.Scope> {
  const timeline = yield* toTimeline(entries, connection)
  const matcher = makeMatcher({
    path,
    timeline,
    redacted: header.redacted,
    ignore: new Set(options.ignore),
    renamings: toRenamings(header.paths, options.paths)
  })
  const toClient = yield* Queue.unbounded<string, AppServerError | Cause.Done>()
  let ended = false
  let received = 0

  const fail = (cause: CassetteMismatch) => {
    ended = true
    return Queue.fail(toClient, toClosed({ description: cause.message, cause }))
  }

  const send = (line: string) =>
    Effect.suspend((): Effect.Effect<unknown> => {
      if (ended || Option.exists(decodeJson(line), isLoginCheck)) return Effect.void
      received++
      return Result.match(matcher.match(line), {
        onFailure: fail,
        onSuccess: ({ arrived }) => Deferred.succeed(arrived, undefined)
      })
    }).pipe(Effect.asVoid)

  /** Waits until the program sends the counterpart of a recorded message. */
  const awaitArrival = Effect.fnUntraced(function*(expected: ExpectedMessage) {
    let warned = false
    while (expected.matched === undefined) {
      const before = received
      const arrived = yield* Deferred.await(expected.arrived).pipe(Effect.timeoutOption(stallTimeout), realTime)
      if (Option.isSome(arrived)) return
      if (before !== received) continue
      const stall = findStall(path, timeline, expected)
      if (stall !== undefined) return yield* Effect.andThen(fail(stall), Effect.never)
      if (!warned) {
        warned = true
        yield* Effect.logWarning(`Cassette ${path}: the replay waits for the program to send ${describe(expected)}`)
      }
    }
  })

  // The yield lets the program process each line before the next one, as it can with a server.
  const emit = (line: string) => Effect.andThen(Queue.offer(toClient, line), Effect.yieldNow)

  const run = (step: Step): Effect.Effect<unknown> => {
    switch (step.type) {
      case "await":
        return awaitArrival(step.expected)
      case "sendText":
        return emit(step.text)
      case "send":
        return emit(toLine(step, matcher))
      case "end":
        ended = true
        return step.error === undefined ? Queue.end(toClient) : Queue.fail(toClient, toClosed(step.error))
    }
  }

  yield* Effect.forEach(timeline.steps, (step, index) => {
    const gap = step.at - (timeline.steps[index - 1]?.at ?? 0)
    return Effect.andThen(
      options.timing === "recorded" && step.type !== "await" && gap > 0
        ? Effect.sleep(Duration.millis(gap))
        : Effect.void,
      Effect.suspend(() => run(step))
    )
  }, { discard: true }).pipe(Effect.forkScoped)

  yield* Effect.addFinalizer(() => {
    const [first, ...others] = matcher.unmatched()
    return ended || first === undefined
      ? Effect.void
      : Effect.logWarning(
        `Cassette ${path}: the program did not send ${others.length + 1} recorded message(s). The first is ${
          describe(first)
        }`
      )
  })

  return { incoming: Stream.fromQueue(toClient), send }
})
