/** The methods that start and steer turns, and those about background terminals. */
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { itemCompleted, itemStarted, type Script } from "../../../testing/TurnScript.ts"
import { type Methods, reject } from "./methods.ts"
import { fromShellCommand } from "./shellCommand.ts"
import type { ThreadEvents } from "./threadEvents.ts"
import { page, startedTurnJson } from "./threadJson.ts"
import type { ThreadStore } from "./threadStore.ts"
import type { TurnPlayer } from "./turnPlayer.ts"

const compaction: Script = (turn) => {
  const item = { type: "contextCompaction", id: turn.newId("compaction") }
  return Effect.andThen(itemStarted(item), itemCompleted(item))
}

/** `turn/start`, `turn/steer`, `turn/interrupt` and `thread/compact/start`. */
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
    "turn/start": Effect.fnUntraced(function*(params) {
      const thread = yield* store.getLoaded(params)
      // The real server sends this before its response or soon after it.
      yield* yield* events.override(thread, params)
      const { active } = thread
      if (active === undefined) {
        return yield* player.begin(thread, params, fake.script(), (turn) => ({ turn: startedTurnJson(turn) }))
      }
      // In the real server, too, the input joins the turn in progress.
      yield* Queue.offer(active.steers, params.input)
      return { result: { turn: startedTurnJson(active.stored) } }
    }),
    "turn/steer": Effect.fnUntraced(function*({ expectedTurnId, input, threadId }) {
      const { active } = yield* store.getLoaded({ threadId })
      if (active === undefined) return yield* reject("no active turn to steer")
      if (active.stored.id !== expectedTurnId) {
        return yield* reject(`expected active turn id \`${expectedTurnId}\` but found \`${active.stored.id}\``)
      }
      yield* Queue.offer(active.steers, input)
      return { result: { turnId: active.stored.id } }
    }),
    "turn/interrupt": Effect.fnUntraced(function*({ threadId, turnId }) {
      const { active } = yield* store.getLoaded({ threadId })
      if (turnId === "") return { result: {}, ...(active === undefined ? {} : player.interrupt(active)) }
      if (active === undefined || !active.started) return yield* reject("no active turn to interrupt")
      if (active.stored.id !== turnId) {
        return yield* reject(`expected active turn id ${turnId} but found ${active.stored.id}`)
      }
      return { result: {}, ...player.interrupt(active) }
    })
  } satisfies Methods
}

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
