/** The methods that start and steer turns, and those about goals and background terminals. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { itemCompleted, itemStarted, type Script } from "../../../testing/TurnScript.ts"
import { type Goals, toGoalJson } from "./goals.ts"
import { type Methods, reject } from "./methods.ts"
import { fromShellCommand } from "./shellCommand.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import { page, startedTurnJson } from "./threadJson.ts"
import { isReview, type ThreadStore } from "./threadStore.ts"
import { toInput } from "./turnContext.ts"
import type { TurnPlayer } from "./turnPlayer.ts"

const compaction: Script = (turn) => {
  const item = { type: "contextCompaction", id: turn.newId("compaction") }
  return Effect.andThen(itemStarted(item), itemCompleted(item))
}

/** `turn/start`, `turn/steer`, `turn/interrupt`, `review/start` and `thread/compact/start`. */
export const turnMethods = (fake: {
  readonly store: ThreadStore
  readonly events: ThreadEvents
  readonly player: TurnPlayer
  /** The script of the next turn. */
  readonly script: () => Script
}) => {
  const { events, player, store } = fake
  return {
    "thread/compact/start": Effect.fnUntraced(function*({ threadId }) {
      const thread = yield* store.getLoaded({ threadId })
      return yield* player.begin(thread, { threadId, input: [] }, compaction, () => ({}))
    }),
    "review/start": Effect.fnUntraced(function*({ target, threadId }) {
      const thread = yield* store.getLoaded({ threadId })
      if (target.type === "custom" && target.instructions.trim() === "") {
        return yield* reject("instructions must not be empty")
      }
      return yield* player.review(thread, target, (turn, title) => {
        const items = [{ type: "userMessage" as const, id: turn.id, clientId: null, content: toInput(title) }]
        return { turn: { ...startedTurnJson(turn), rootTurnId: null, items }, reviewThreadId: threadId }
      })
    }),
    "turn/start": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getLoaded(params)
      // The real server sends this before its response or soon after it.
      yield* yield* events.override(thread, params)
      const { active } = thread
      if (active === undefined) {
        return yield* player.begin(thread, params, fake.script(), (turn) => ({ turn: startedTurnJson(turn) }))
      }
      if (isReview(active)) {
        return yield* reject("failed to submit turn input: ActiveTurnNotSteerable { turn_kind: Review }", -32603)
      }
      // In the real server, too, the input joins the turn in progress.
      yield* Queue.offer(active.steers, params)
      return { result: { turn: startedTurnJson(active.stored) } }
    }),
    "turn/steer": Effect.fnUntraced(function*(params) {
      const { expectedTurnId, threadId } = params
      const { active } = yield* store.getLoaded({ threadId })
      if (active === undefined) return yield* reject("no active turn to steer")
      if (active.stored.id !== expectedTurnId) {
        return yield* reject(`expected active turn id \`${expectedTurnId}\` but found \`${active.stored.id}\``)
      }
      if (isReview(active)) return yield* reject("cannot steer a review turn")
      yield* Queue.offer(active.steers, params)
      return { result: { turnId: active.stored.id } }
    }),
    "turn/interrupt": Effect.fnUntraced(function*({ threadId, turnId }) {
      const { active } = yield* store.getLoaded({ threadId })
      if (turnId === "") return { result: {}, ...(active === undefined ? {} : player.interrupt(active)) }
      if (active === undefined || !active.hasStarted) return yield* reject("no active turn to interrupt")
      if (active.started.id !== turnId) {
        return yield* reject(`expected active turn id ${turnId} but found ${active.started.id}`)
      }
      return { result: {}, ...player.interrupt(active) }
    })
  } satisfies Methods
}

/** The methods about goals. */
export const goalMethods = ({ events, goals, player }: {
  readonly events: ThreadEvents
  readonly goals: Goals
  readonly player: TurnPlayer
}) =>
  ({
    "thread/goal/set": Effect.fnUntraced(function*(params) {
      const thread = yield* goals.getThread(params)
      const goal = yield* goals.set(thread, params)
      return {
        result: { goal: toGoalJson(thread, goal) },
        after: Effect.andThen(goals.updated(thread, null), player.continueGoal(thread))
      }
    }),
    "thread/goal/get": Effect.fnUntraced(function*(params) {
      const thread = yield* goals.getThread(params)
      return { result: { goal: thread.goal === undefined ? null : toGoalJson(thread, thread.goal) } }
    }),
    "thread/goal/clear": Effect.fnUntraced(function*(params) {
      const thread = yield* goals.getThread(params)
      const cleared = thread.goal !== undefined
      thread.goal = undefined
      return { result: { cleared }, ...(cleared ? { after: events.notify(thread, "thread/goal/cleared", {}) } : {}) }
    })
  }) satisfies Methods

/** The methods about background terminals. */
export const terminalMethods = ({ events, store }: { readonly store: ThreadStore; readonly events: ThreadEvents }) =>
  ({
    "thread/backgroundTerminals/list": Effect.fnUntraced(function*(params) {
      const { processes } = yield* store.getLoaded(params)
      const terminals = [...processes].map(([processId, { command, cwd, id }]) => ({
        itemId: id,
        processId,
        command: fromShellCommand(command),
        cwd,
        osPid: null,
        cpuPercent: null,
        rssKb: null
      }))
      return { result: yield* page("terminals", terminals, params) }
    }),
    "thread/backgroundTerminals/terminate": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getLoaded(params)
      return {
        result: { terminated: thread.processes.has(params.processId) },
        after: events.terminate(thread, params.processId)
      }
    }),
    "thread/backgroundTerminals/clean": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getLoaded(params)
      return { result: {}, after: Effect.forEach([...thread.processes.keys()], (id) => events.terminate(thread, id)) }
    })
  }) satisfies Methods
