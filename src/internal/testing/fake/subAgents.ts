/** Sub-agents: threads that a turn spawns. */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Protocol from "../../../Protocol.ts"
import type { Script, SubAgent } from "../../../testing/TurnScript.ts"
import type { ActiveTurn, StoredThread, StoredTurn } from "./threadStore.ts"
import { type Fake, type ScriptedTurn, toInput } from "./turnContext.ts"

/** Maximum time that the real server waits for a sub-agent, if the model asks for no other. */
const waitTimeout = Duration.seconds(30)

const toState = ({ error, items, status }: StoredTurn): Protocol.CollabAgentState => {
  if (status === "failed") return { status: "errored", message: error?.message ?? null }
  const last = items.findLast((item) => item.type === "agentMessage")
  return { status: "completed", message: last?.type === "agentMessage" ? last.text : null }
}

/** The wait for an interrupted sub-agent ends only with its timeout. */
const awaitState = (child: ActiveTurn): Effect.Effect<Option.Option<Protocol.CollabAgentState>> =>
  Deferred.await(child.ended).pipe(
    Effect.flatMap((turn) => turn.status === "interrupted" ? Effect.never : Effect.succeed(toState(turn))),
    Effect.timeoutOption(waitTimeout)
  )

/** The item of a tool that works with sub-agents. */
const makeCall = ({ reports, thread }: ScriptedTurn, id: string, tool: string, members: object) => {
  const notify = (method: "item/started" | "item/completed", changes: object) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      reports.notify(method, {
        item: { type: "collabAgentToolCall", id, tool, senderThreadId: thread.id, ...members, ...changes },
        [method === "item/started" ? "startedAtMs" : "completedAtMs"]: now
      }))
  return {
    started: (receiverThreadIds: ReadonlyArray<string>) =>
      notify("item/started", { status: "inProgress", receiverThreadIds, agentsStates: {} }),
    completed: (changes: object) => notify("item/completed", { status: "completed", ...changes })
  }
}

/** Spawns a sub-agent, whose turn does not wait for the one that spawns it. */
export const spawn = Effect.fnUntraced(function*(
  { events, store }: Fake,
  turn: ScriptedTurn,
  launch: (
    thread: StoredThread,
    params: Protocol.TurnStartParams,
    script: Script,
    rootTurnId: string
  ) => Effect.Effect<ActiveTurn>,
  task: string,
  script: Script,
  model?: string
) {
  const { active: { stored }, thread } = turn
  const prompt = { prompt: task, reasoningEffort: "medium" }
  const spawning = makeCall(turn, store.newId("spawn"), "spawnAgent", { ...prompt, model: model ?? "" })
  yield* spawning.started([])
  const settings = { ...thread.settings, model: model ?? thread.settings.model }
  const child = yield* store.createChild({ thread, kind: "spawn" }, { settings })
  yield* events.status(child, { type: "idle" })
  yield* spawning.completed({
    model: settings.model,
    receiverThreadIds: [child.id],
    agentsStates: { [child.id]: { status: "pendingInit", message: null } }
  })
  const params = { threadId: child.id, input: toInput(task) }
  const active = yield* launch(child, params, script, stored.rootTurnId)

  const wait = Effect.gen(function*() {
    const waiting = makeCall(turn, store.newId("wait"), "wait", { prompt: null, model: null, reasoningEffort: null })
    yield* waiting.started([child.id])
    const state = Option.getOrUndefined(yield* awaitState(active))
    yield* waiting.completed({
      status: state?.status === "errored" ? "failed" : "completed",
      receiverThreadIds: state === undefined ? [] : [child.id],
      agentsStates: state === undefined ? {} : { [child.id]: state }
    })
    return state
  })
  return { threadId: child.id, turnId: active.stored.id, wait } satisfies SubAgent
})
