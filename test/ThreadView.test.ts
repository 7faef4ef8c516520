import { assert, describe, it } from "@effect/vitest"
import { ThreadView, TurnView } from "effect-codex"
import * as Schema from "effect/Schema"
import { readRecording } from "./testing/recordedTurns.ts"
import { cassette } from "./testing/turnScenario.ts"
import * as Events from "./turnEvents.ts"

const isView = Schema.is(ThreadView.ThreadView)

const { events, turns } = readRecording(cassette)

const threadIds = [...new Set(turns.map(({ threadId }) => threadId))]

const fold = (view: ThreadView.ThreadView) =>
  (events as ReadonlyArray<ThreadView.Event>).reduce(ThreadView.reduce, view)

const event = (method: string, params: object, emittedAtMs?: number): ThreadView.Event =>
  Events.event(method, { turnId: undefined, ...params }, emittedAtMs) as ThreadView.Event

describe("ThreadView", () => {
  it("has the turns of the stored thread, up to what the server does not store", () => {
    assert.isAbove(threadIds.length, 1)
    for (const threadId of threadIds) {
      const view = fold(ThreadView.empty(threadId))
      const stored = turns.filter((stored) => stored.threadId === threadId).map(({ turn }) => turn)
      assert.sameMembers(view.turns.map(({ turnId }) => turnId), stored.map(({ id }) => id))
      for (const turn of stored) {
        const folded = view.turns.find(({ turnId }) => turnId === turn.id)!
        const expected = TurnView.stored(TurnView.fromTurn(turn, threadId))
        // The server stores the input of a review in a turn of its own, and sends it in the turn of the review.
        if (turn.completedAt === null) assert.strictEqual(folded.status, turn.status)
        else assert.deepStrictEqual(TurnView.stored(folded), expected)
      }
      assert.deepStrictEqual(view.status, { type: "idle" })
      assert.isTrue(isView(view))
      assert.deepStrictEqual(JSON.parse(JSON.stringify(view)), view)
    }
  })

  it("has the settings of the thread", () => {
    const view = fold(ThreadView.empty(threadIds[0]!))
    assert.strictEqual(view.settings?.approvalPolicy, "untrusted")
  })

  it("counts the usage of each turn from the totals of the turn before", () => {
    const view = fold(ThreadView.empty(threadIds[0]!))
    const used = view.turns.map(({ usage }) => usage?.turn.totalTokens ?? 0)
    const total = view.turns.findLast(({ usage }) => usage !== null)!.usage!.thread.totalTokens
    assert.isAbove(total, 1000)
    assert.strictEqual(used.reduce((sum, tokens) => sum + tokens, 0), total)
  })

  it("changes one turn with a delta", () => {
    let view = ThreadView.empty(Events.threadId)
    for (const turnId of ["one", "two"]) {
      view = ThreadView.reduce(view, event("item/agentMessage/delta", { turnId, itemId: "a", delta: "x" }))
    }
    const next = ThreadView.reduce(view, event("item/agentMessage/delta", { turnId: "one", itemId: "a", delta: "y" }))
    assert.notStrictEqual(next.turns[0], view.turns[0])
    assert.strictEqual(next.turns[1], view.turns[1])
    assert.strictEqual(ThreadView.reduce(ThreadView.empty("other"), event("turn/started", {})).turns.length, 0)
  })

  it("does not add a turn for an old report of usage", () => {
    const view = ThreadView.empty(Events.threadId)
    assert.strictEqual(ThreadView.reduce(view, Events.usage(1, 1) as ThreadView.Event), view)
  })

  it("settles the request of any turn", () => {
    let view = ThreadView.empty(Events.threadId)
    for (
      const next of [
        Events.turnStarted,
        Events.commandRequest(0, "a"),
        event("turn/started", { turn: { id: "later" } })
      ]
    ) {
      view = ThreadView.reduce(view, next as ThreadView.Event)
    }
    assert.lengthOf(view.turns[0]!.requests, 1)
    view = ThreadView.reduce(view, Events.resolved(0) as ThreadView.Event)
    assert.lengthOf(view.turns[0]!.requests, 0)
  })

  it("has the goal, the name and the status, and ignores older ones", () => {
    const goal = {
      threadId: Events.threadId,
      objective: "Fix it",
      status: "active",
      createdAt: 1,
      updatedAt: 1,
      timeUsedSeconds: 0,
      tokensUsed: 0
    }
    let view = ThreadView.reduce(ThreadView.empty(Events.threadId), event("thread/goal/updated", { goal }, 5))
    view = ThreadView.reduce(view, event("thread/name/updated", { threadName: "new" }, 6))
    assert.deepStrictEqual<unknown>(view.goal, goal)
    assert.strictEqual(ThreadView.reduce(view, event("thread/name/updated", { threadName: "old" }, 4)), view)
    assert.strictEqual(view.name, "new")
    assert.strictEqual(ThreadView.reduce(view, event("thread/goal/cleared", {}, 7)).goal, null)
  })

  it("is valid after any events", () => {
    Events.forSeeds(500, (random) => {
      const events = Events.anyEvents(random, random.pick([0, 0.1, 0.5])) as ReadonlyArray<ThreadView.Event>
      const view = events.reduce(ThreadView.reduce, ThreadView.empty(Events.threadId))
      assert.isTrue(isView(view))
      for (const event of events) {
        const other = ThreadView.empty("other")
        assert.strictEqual(ThreadView.reduce(other, event), other)
      }
    })
  })

  it("starts with the turns of a stored thread", () => {
    const threadId = threadIds[0]!
    const stored = turns.filter((stored) => stored.threadId === threadId).map(({ turn }) => turn)
    const thread = { id: threadId, name: "n", status: { type: "idle" }, turns: stored }
    const view = ThreadView.fromThread(thread as never)
    assert.deepStrictEqual(view.turns, stored.map((turn) => TurnView.fromTurn(turn, threadId)))
    assert.isTrue(isView(ThreadView.fromThread({ id: 5, turns: [null, {}] } as never)))
  })
})
