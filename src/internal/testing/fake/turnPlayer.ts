/** Plays scripted turns on stored threads. */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type * as Protocol from "../../../Protocol.ts"
import { type ActionError, Interrupted, type Script, TurnContext } from "../../../testing/TurnScript.ts"
import { isPursued } from "./goals.ts"
import type { Outcome } from "./methods.ts"
import { describeTarget, makeReview } from "./reviews.ts"
import { spawn } from "./subAgents.ts"
import { completedTurnJson, turnJson } from "./threadJson.ts"
import {
  type ActiveTurn,
  isReview,
  type StoredThread,
  type StoredTurn,
  type ThreadStore,
  toSeconds,
  type TurnInput
} from "./threadStore.ts"
import {
  emitInput,
  type Fake,
  makeReports,
  makeTurnContext,
  type ScriptedTurn,
  toInput,
  toText
} from "./turnContext.ts"

/** Time from the end of a turn to the next turn of its goal. The real server takes about as long. */
const continuationDelay = Duration.millis(10)

/** The error of a turn whose script failed. */
const toTurnError = (cause: Cause.Cause<ActionError>): Protocol.TurnError => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  return {
    message: failure?.message ?? `The script of this turn died: ${Cause.pretty(cause)}`,
    codexErrorInfo: failure?._tag === "TurnFailure" ? failure.codexErrorInfo : null,
    additionalDetails: null
  }
}

/** Runs the script of a turn, and records how it ends. */
const runScript = Effect.fnUntraced(function*(
  { active, script, thread }: ScriptedTurn,
  context: TurnContext["Service"]
) {
  const { stored } = active
  const exit = yield* Effect.suspend(() => {
    const actions = script(context)
    return Effect.isEffect(actions) ? Effect.asVoid(actions) : Stream.runForEach(actions, identity)
  }).pipe(
    Effect.provideService(TurnContext, context),
    Effect.raceFirst(Deferred.await(active.interrupted)),
    Effect.exit
  )
  stored.completedAt = yield* Clock.currentTimeMillis
  thread.updatedAt = toSeconds(stored.completedAt)
  const failure = Exit.isFailure(exit) ? exit.cause : undefined
  const interrupted = failure !== undefined &&
    Option.exists(Cause.findErrorOption(failure), ({ _tag }) => _tag === "Interrupted")
  stored.status = interrupted ? "interrupted" : failure === undefined ? "completed" : "failed"
  if (failure !== undefined && !interrupted) stored.error = toTurnError(failure)
  thread.failed = stored.status === "failed"
})

/** Sends what precedes the response to an interruption. */
const settle = Effect.fnUntraced(function*({ events, goals }: Fake, { active, reports, thread }: ScriptedTurn) {
  const { error, id } = active.stored
  if (yield* Deferred.isDone(active.interrupted)) yield* reports.cutRequest
  if (error !== null) {
    yield* goals.end(thread, id, error.codexErrorInfo === "usageLimitExceeded" ? "usageLimited" : "blocked")
    yield* events.status(thread, { type: "systemError" })
    yield* reports.notify("error", { error, willRetry: false })
  }
})

/** Marks a turn with news as unread. The real server does so only when nothing follows by itself, and not for sub-agents. */
const markUnread = ({ events, store }: Fake, { active, thread }: ScriptedTurn) => {
  const { stored } = active
  const hasNews = thread.failed || isReview(active) || completedTurnJson(stored).items.length > 0
  if (!hasNews || thread.ephemeral || thread.parent !== undefined || isPursued(thread)) return Effect.void
  thread.firstUnread ??= stored.id
  return events.notify(thread, "thread/readState/changed", {
    readState: { firstUnread: { type: "turn", turnId: thread.firstUnread }, revision: store.newId("revision") }
  })
}

/** Sends what ends a turn, in the order of the real server. */
const complete = Effect.fnUntraced(function*({ events }: Fake, { active, thread }: ScriptedTurn) {
  if (yield* Deferred.isDone(active.interrupted)) {
    yield* Deferred.succeed(active.stopped, undefined)
    yield* Deferred.await(active.responded)
  }
  thread.active = undefined
  if (!thread.failed) yield* events.status(thread, { type: "idle" })
  yield* events.notify(thread, "turn/completed", { turn: completedTurnJson(active.stored) })
  for (const requestId of active.unresolved) yield* events.notify(thread, "serverRequest/resolved", { requestId })
  // An interruption that came too late stops waiting.
  yield* Deferred.succeed(active.stopped, undefined)
  yield* Deferred.succeed(active.ended, active.stored)
  yield* Effect.all(active.late, { discard: true })
})

const announce = Effect.fnUntraced(function*({ events }: Fake, thread: StoredThread, active: ActiveTurn) {
  yield* events.status(thread, { type: "active", activeFlags: [] })
  active.hasStarted = true
  yield* events.notify(thread, "turn/started", { turn: turnJson(active.started, "notLoaded") })
})

const makeActive = Effect.fnUntraced(function*(store: ThreadStore, rootTurnId?: string) {
  const id = store.newId("turn")
  const stored: StoredTurn = {
    id,
    rootTurnId: rootTurnId ?? id,
    status: "inProgress",
    error: null,
    items: [],
    startedAt: yield* Clock.currentTimeMillis,
    completedAt: null
  }
  const active: ActiveTurn = {
    stored,
    started: stored,
    steers: yield* Queue.unbounded<TurnInput>(),
    interrupted: yield* Deferred.make<never, Interrupted>(),
    stopped: yield* Deferred.make<void>(),
    responded: yield* Deferred.make<void>(),
    ended: yield* Deferred.make<StoredTurn>(),
    inProgress: new Map(),
    unresolved: [],
    late: [],
    hasStarted: false
  }
  return active
})

/** Makes a turn the active one of its thread. */
const install = (thread: StoredThread, active: ActiveTurn, input: ReadonlyArray<Protocol.UserInputParam>) => {
  thread.turns.push(active.started)
  thread.active = active
  if (!thread.ephemeral) thread.stored = true
  if (thread.stored && thread.preview === "") thread.preview = toText(input)
}

/** Starts a turn, which is not played yet. */
const makeTurn = Effect.fnUntraced(function*(
  fake: Fake,
  thread: StoredThread,
  params: Protocol.TurnStartParams,
  script: Script,
  rootTurnId?: string
) {
  const active = yield* makeActive(fake.store, rootTurnId)
  install(thread, active, params.input)
  return { thread, active, params, script, reports: makeReports(fake, thread, active) } satisfies ScriptedTurn
})

/** Interrupts a turn in whose place another one starts, and waits for its end. */
const replace = (active: ActiveTurn) =>
  Effect.gen(function*() {
    yield* Deferred.succeed(active.responded, undefined)
    yield* Deferred.fail(active.interrupted, new Interrupted())
    yield* Deferred.await(active.ended)
  })

/** Makes a review of a thread, and the effect that plays it. */
const prepareReview = Effect.fnUntraced(function*(
  fake: Fake,
  thread: StoredThread,
  target: Protocol.ReviewTarget,
  play: (turn: ScriptedTurn, exit: Effect.Effect<void>) => Effect.Effect<void>
) {
  const { prompt, title } = describeTarget(target)
  const { stored, ...rest } = yield* makeActive(fake.store)
  const active: ActiveTurn = { ...rest, stored, started: { ...stored, id: fake.store.newId("turn"), items: [] } }
  const previous = thread.active
  if (previous === undefined) install(thread, active, [])
  const playing = Effect.gen(function*() {
    if (previous !== undefined) {
      yield* replace(previous)
      install(thread, active, [])
    }
    const params = { threadId: thread.id, input: toInput(prompt) }
    const { enter, exit, reports } = yield* makeReview(fake, { active, thread }, title, prompt)
    yield* enter
    yield* announce(fake, thread, active)
    yield* play({ thread, active, params, script: fake.script(), reports }, exit)
  })
  return { playing, stored, title }
})

export const makeTurnPlayer = Effect.fnUntraced(function*(fake: Fake, eventsBeforeResponse: boolean) {
  const scope = yield* Effect.scope
  const turns = yield* FiberSet.make()
  const fork = yield* FiberSet.runtime(turns)()

  /** Plays a turn that was announced to its end, however its script ends. */
  const play: (turn: ScriptedTurn, exit?: Effect.Effect<void>) => Effect.Effect<void> = Effect.fnUntraced(function*(
    turn,
    exit = Effect.void
  ) {
    const { active, params, reports, thread } = turn
    const context = makeTurnContext(
      fake,
      turn,
      (task, script, options) => Effect.uninterruptible(spawn(fake, turn, launch, task, script, options?.model))
    )
    yield* emitInput(fake, reports, params)
    yield* runScript(turn, context)
    yield* settle(fake, turn)
    yield* exit
    yield* markUnread(fake, turn)
    yield* complete(fake, turn)
    if (active.stored.status === "completed" && isPursued(thread)) {
      fork(Effect.delay(continueGoal(thread), continuationDelay))
    }
  })

  const toOutcome = <A>(turn: Effect.Effect<void>, result: A): Outcome<A> =>
    eventsBeforeResponse ? { result, before: turn } : { result, after: Effect.sync(() => fork(turn)) }

  /** Starts a turn, which plays on by itself. */
  const launch = Effect.fnUntraced(function*(
    thread: StoredThread,
    params: Protocol.TurnStartParams,
    script: Script,
    rootTurnId?: string
  ) {
    const turn = yield* makeTurn(fake, thread, params, script, rootTurnId)
    yield* announce(fake, thread, turn.active)
    fork(play(turn))
    return turn.active
  })

  /** Starts the next turn of a goal, unless another turn has started. */
  const continueGoal = (thread: StoredThread) =>
    Effect.suspend(() =>
      isPursued(thread) && thread.loaded && thread.active === undefined
        ? Effect.asVoid(launch(thread, { threadId: thread.id, input: [] }, fake.script()))
        : Effect.void
    )

  return {
    /** Starts a turn. It plays after the response, or before it with `eventsBeforeResponse`. */
    begin: Effect.fnUntraced(function*<A>(
      thread: StoredThread,
      params: Protocol.TurnStartParams,
      script: Script,
      toResult: (turn: StoredTurn) => A
    ) {
      const turn = yield* makeTurn(fake, thread, params, script)
      const playing = Effect.andThen(announce(fake, thread, turn.active), play(turn))
      return toOutcome(playing, toResult(turn.active.stored))
    }),
    /** Starts a review. It interrupts the turn in progress. */
    review: Effect.fnUntraced(function*<A>(
      thread: StoredThread,
      target: Protocol.ReviewTarget,
      toResult: (turn: StoredTurn, title: string) => A
    ) {
      const { playing, stored, title } = yield* prepareReview(fake, thread, target, play)
      return toOutcome(playing, toResult(stored, title))
    }),
    launch,
    continueGoal,
    /** Starts a turn that no request of the client starts. As on the real server, its input joins a turn in progress. */
    startTurn: Effect.fnUntraced(function*(thread: StoredThread, text: string | undefined, script: Script) {
      const input = text === undefined ? [] : toInput(text)
      const { active } = thread
      if (active === undefined) return (yield* launch(thread, { threadId: thread.id, input }, script)).stored.id
      if (text !== undefined) yield* Queue.offer(active.steers, { input })
      return active.stored.id
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
