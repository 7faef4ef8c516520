/** The responses of a language model: streams of the parts of a turn. */
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import type * as Response from "effect/ai/Response"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as JsonSchema from "effect/JsonSchema"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Turn from "../../Turn.ts"
import { type Failure, getIncompleteReason, toAiError } from "./aiErrors.ts"
import type { Settings } from "./config.ts"
import { digest, type Origin } from "./history.ts"
import { type ModelContext, type Opened, openSession } from "./openSession.ts"
import { type Offer, ResponseParts } from "./responseParts.ts"
import type { Run, Session, Signal } from "./sessions.ts"
import { annotateFinish, annotateRequest, annotateResponse } from "./telemetry.ts"
import { toDefinitions } from "./toolCalls.ts"
import { checkTools, resolveToolChoice } from "./toolChoice.ts"

type Part = Response.StreamPartEncoded

/** Time without an event after which no further call of a model's response is expected, where the server does not report its end. */
const quietTime = Duration.millis(100)

/** What a request has done so far. */
interface State {
  readonly opened: Opened
  /** The scope of the turn. */
  readonly scope: Scope.Closeable
  run: Run | undefined
  /** How the response ended. `undefined` until then: the turn is then interrupted. */
  end: "calls" | "turn" | undefined
}

/** Starts the turn of a request. */
const startRun = Effect.fnUntraced(function*(
  session: Session,
  scope: Scope.Closeable,
  input: Parameters<Session["thread"]["turn"]>[0],
  options: Settings["turn"] & { readonly outputSchema?: JsonSchema.JsonSchema }
) {
  const turn = yield* Scope.provide(session.thread.turn(input, options), scope)
  const signals = yield* Queue.unbounded<Signal>()
  const parts = new ResponseParts((callId) => session.calls.refuse(callId))
  const run: Run = { turn, signals, parts, scope, isEnded: false }
  yield* turn.events.pipe(
    Stream.runForEach((event) => Queue.offer(signals, { _tag: "Event", event })),
    Effect.andThen(turn.result),
    Effect.exit,
    Effect.flatMap((exit) => {
      run.isEnded = true
      return Queue.offer(signals, { _tag: "Ended", exit })
    }),
    Effect.forkIn(scope)
  )
  return run
})

/** Ends the use of the thread: it stays open after a complete response, and is closed otherwise, which interrupts its turn. */
const settle = (
  { sessions }: ModelContext,
  { idleTimeToLive }: Settings,
  { end, opened: { history, session }, run, scope }: State
): Effect.Effect<void> =>
  Effect.gen(function*() {
    if (run !== undefined && end === "calls") session.suspended = { run, history }
    if (end !== "calls") yield* Scope.close(scope, Exit.void)
    if (end === undefined) return yield* sessions.close(session)
    if (end === "turn") session.calls.clear()
    yield* sessions.release(session, idleTimeToLive)
  })

/** Returns the next parts of a response. The last part is `finish`. */
const nextParts = Effect.fnUntraced(function*(
  state: State,
  { parts, signals, turn }: Run,
  checkEnd: Effect.Effect<void, AiError.AiErrorReason>
): Effect.fn.Return<ReadonlyArray<Part>, Failure> {
  const { callsEnd } = parts
  const signal = callsEnd === "now"
    ? Option.none()
    : callsEnd === "quiet"
    ? yield* Effect.timeoutOption(Queue.take(signals), quietTime)
    : Option.some(yield* Queue.take(signals))
  if (Option.isNone(signal)) {
    state.end = "calls"
    return parts.finishWithCalls()
  }
  if (signal.value._tag === "Event") return parts.on(signal.value.event)
  const { exit } = signal.value
  return yield* Effect.matchEffect(exit, {
    onFailure: (error) => {
      const reason = error._tag === "TurnFailed" ? getIncompleteReason(error) : undefined
      return reason === undefined || error._tag !== "TurnFailed"
        ? Effect.fail(error)
        : Effect.succeed(parts.finishTurn(reason, error.usage))
    },
    onSuccess: Effect.fnUntraced(function*({ status, usage }: Turn.TurnResult) {
      if (status === "interrupted") return parts.finishTurn("other", usage)
      yield* checkEnd
      state.end = "turn"
      state.opened.session.head = turn.id
      return parts.finishTurn("stop", usage)
    })
  })
})

/** Adds the metadata from which a later prompt continues the thread. */
const withMetadata = (origin: Origin) => {
  const texts = new Map<string, string>()
  const add = (part: Part, text?: string): Part =>
    ({ ...part, metadata: { codex: text === undefined ? origin : { ...origin, text } } }) as Part
  return (part: Part): Effect.Effect<Part> => {
    switch (part.type) {
      case "text-start":
        texts.set(part.id, "")
        return Effect.succeed(add(part))
      case "text-delta":
        texts.set(part.id, (texts.get(part.id) ?? "") + part.delta)
        return Effect.succeed(part)
      case "text-end":
        return part.metadata === undefined
          ? Effect.map(digest(texts.get(part.id) ?? ""), (text) => add(part, text))
          : Effect.succeed(part)
      case "reasoning-start":
      case "tool-call":
        return Effect.succeed(add(part))
      default:
        return Effect.succeed(part)
    }
  }
}

const toMetadata = Effect.fnUntraced(function*({ turn }: Run, { model }: Session) {
  const timestamp = DateTime.formatIso(DateTime.makeUnsafe(yield* Clock.currentTimeMillis))
  const part: Part = {
    type: "response-metadata",
    id: turn.id,
    ...(model === undefined ? {} : { modelId: model }),
    timestamp
  }
  return part
})

/** The output schema of a request for an object. */
export type ToOutputSchema = (
  format: LanguageModel.ProviderOptions["responseFormat"]
) => Effect.Effect<JsonSchema.JsonSchema | undefined, AiError.AiErrorReason>

const open = Effect.fnUntraced(function*(
  context: ModelContext,
  settings: Settings,
  options: LanguageModel.ProviderOptions,
  instruction: string | undefined
) {
  if (options.prompt.content.length === 0) {
    return yield* Effect.fail(
      new AiError.InvalidUserInputError({ description: "The prompt has no messages. Add a message of the user" })
    )
  }
  yield* checkTools(options.tools)
  return yield* openSession(context, {
    messages: options.prompt.content,
    settings,
    tools: toDefinitions(options.tools),
    instruction
  })
})

/** Streams the parts of the response to a request. If the stream ends before `finish`, the turn is interrupted. */
export const respond = (
  context: ModelContext,
  settings: Settings,
  options: LanguageModel.ProviderOptions,
  toOutputSchema: ToOutputSchema,
  method: string
): Stream.Stream<Part, AiError.AiError> =>
  Stream.unwrap(Effect.gen(function*() {
    annotateRequest(options.span, settings)
    const { checkEnd, instruction, isAllowed } = resolveToolChoice(options.toolChoice, options.tools)
    const outputSchema = yield* toOutputSchema(options.responseFormat)
    const state: State = yield* Effect.acquireRelease(
      Effect.map(
        open(context, settings, options, instruction),
        (opened): State => ({
          opened,
          scope: opened.work._tag === "Continue" ? opened.work.run.scope : Scope.makeUnsafe(),
          run: undefined,
          end: undefined
        })
      ),
      (state) => settle(context, settings, state)
    )
    const { history, session, work } = state.opened
    const run = state.run = work._tag === "Continue" ? work.run : yield* startRun(session, state.scope, work.input, {
      ...settings.turn,
      ...(outputSchema === undefined ? {} : { outputSchema })
    })
    const offer: Offer = {
      tools: options.tools,
      allowed: new Set(options.tools.map(({ name }) => name).filter(isAllowed))
    }
    run.parts.begin(offer)
    const metadata = yield* toMetadata(run, session)
    annotateResponse(options.span, session.thread.id, metadata)
    const origin: Origin = { threadId: session.thread.id, turnId: run.turn.id, history, tools: session.toolsDigest }
    const hasCalls = { current: false }
    const parts = Stream.fromEffectRepeat(Effect.suspend(() => nextParts(state, run, checkEnd(hasCalls.current)))).pipe(
      Stream.flattenIterable,
      Stream.takeUntil(({ type }) => type === "finish"),
      Stream.mapEffect(withMetadata(origin)),
      Stream.tap((part) =>
        Effect.sync(() => {
          if (part.type === "tool-call") hasCalls.current = true
          if (part.type === "finish") annotateFinish(options.span, part)
        })
      )
    )
    return Stream.concat(Stream.succeed(metadata), parts)
  })).pipe(
    Stream.mapError((failure: Failure) => toAiError(method, failure))
  )
