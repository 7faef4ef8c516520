import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { type Protocol, Turn, TurnView } from "effect-codex"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { isDeepStrictEqual } from "node:util"
import { CoalescingBuffer } from "../src/internal/connection/coalescingBuffer.ts"
import { cassette as session } from "./testing/cassetteScenario.ts"
import { readRecording } from "./testing/recordedTurns.ts"
import { cassette as turns, recordTurns } from "./testing/turnScenario.ts"
import * as Events from "./turnEvents.ts"

const empty = TurnView.empty(Events.threadId, Events.turnId)

const fold = (events: ReadonlyArray<TurnView.Event>, view = empty): TurnView.TurnView =>
  events.reduce(TurnView.reduce, view)

const decode = Schema.decodeUnknownSync(Schema.toCodecJson(TurnView.TurnView))
const encode = Schema.encodeSync(Schema.toCodecJson(TurnView.TurnView))

const parse = (view: unknown): unknown => JSON.parse(JSON.stringify(view))

const isDelta = ({ method }: TurnView.Event): boolean => /delta$/i.test(method)

const states = (view: TurnView.TurnView): ReadonlyArray<string> => view.items.map(({ id, state }) => `${id} ${state}`)

const only = (view: TurnView.TurnView): TurnView.ItemView => {
  assert.lengthOf(view.items, 1)
  return view.items[0]!
}

const itemOf = <Type extends Protocol.ThreadItem["type"]>(view: TurnView.TurnView, id: string, type: Type) => {
  const entry = view.items.find((entry) => entry.id === id)
  assert(entry !== undefined && entry.item.type === type)
  return entry.item as Extract<Protocol.ThreadItem, { type: Type }>
}

/** The ended turns of a recording. Of the turn in which the server stores the input of a review, it sends only the start. */
const readTurns = (path: string) => {
  const { events, turns } = readRecording(path)
  return turns.filter(({ turn }) => turn.completedAt !== null).map(({ threadId, turn }) => ({
    threadId,
    turn,
    empty: TurnView.empty(threadId, turn.id),
    // The response to a request does not name its turn.
    events: events.filter((event) =>
      JSON.stringify(event).includes(turn.id) || event.method === "serverRequest/resolved"
    )
  }))
}

const recorded = [session, turns].flatMap(readTurns)

/** Compares the folded views with those of the stored turns, and returns what the views had. */
const assertStored = (recorded: ReturnType<typeof readTurns>): Array<string> => {
  const seen = new Set<string>()
  for (const { empty, events, threadId, turn } of recorded) {
    const view = fold(events, empty)
    assert.deepStrictEqual(TurnView.stored(view), TurnView.stored(TurnView.fromTurn(turn, threadId)))
    assert.deepStrictEqual(view.requests, [])
    for (const { item, state } of view.items) seen.add(`${item.type} ${state}`)
    seen.add(view.status)
  }
  return [...seen]
}

/** The statuses of turns, and the items with their states, that the recordings and the real server have. */
const kinds = [
  "completed",
  "interrupted",
  "failed",
  "userMessage completed",
  "agentMessage completed",
  "agentMessage retracted",
  "reasoning completed",
  "plan completed",
  "commandExecution completed",
  "fileChange completed",
  "dynamicToolCall completed",
  "mcpToolCall completed",
  "collabAgentToolCall completed",
  "webSearch completed",
  "contextCompaction completed",
  "enteredReviewMode completed",
  "exitedReviewMode completed"
]

describe("TurnView of recorded turns", () => {
  it("equals the view of the stored turn, up to what the server does not store", () => {
    assert.isAbove(recorded.length, 25)
    assert.includeMembers(assertStored(recorded), kinds)
  })

  it("is equal when the view of a part of the stored turn precedes all events", () => {
    for (const { events, threadId, turn } of recorded) {
      for (let count = 0; count <= turn.items.length; count++) {
        const part = { ...turn, items: turn.items.slice(0, count), status: "inProgress" as const, error: null }
        assert.deepStrictEqual(
          TurnView.stored(fold(events, TurnView.fromTurn(part, threadId))),
          TurnView.stored(TurnView.fromTurn(turn, threadId))
        )
      }
    }
  })

  it("is JSON after each event, and does not change when it travels", () => {
    for (const { empty, events } of recorded) {
      let view = empty
      let traveled = empty
      for (const event of events) {
        view = TurnView.reduce(view, event)
        traveled = decode(parse(encode(TurnView.reduce(traveled, event))))
        assert.isTrue(isDeepStrictEqual(traveled, view))
        assert.isTrue(isDeepStrictEqual(parse(view), view))
      }
    }
  })

  it("is equal when deltas are coalesced", () => {
    let fewer = 0
    for (const { empty, events } of recorded) {
      const buffer = new CoalescingBuffer<Protocol.ServerNotification>(0)
      for (const event of events) buffer.push(event as Protocol.ServerNotification)
      const coalesced = buffer.take() as ReadonlyArray<TurnView.Event>
      fewer += events.length - coalesced.length
      assert.deepStrictEqual(fold(coalesced, empty), fold(events, empty))
    }
    assert.isAbove(fewer, 10)
  })

  it("is equal when events other than deltas are repeated later", () => {
    for (const [seed, { empty, events }] of recorded.entries()) {
      const expected = fold(events, empty)
      for (let run = 0; run < 20; run++) {
        const random = Events.makeRandom(seed * 1000 + run)
        const repeated = events.flatMap((event, index) => {
          const earlier = random.pick(events.slice(0, index + 1))
          return isDelta(earlier) ? [event] : [event, earlier]
        })
        assert.deepStrictEqual(fold(repeated, empty), expected)
      }
    }
  })

  it("shows an approval from its request to its response", () => {
    const pending: Array<string> = []
    for (const { empty, events } of recorded) {
      let view = empty
      for (const event of events) {
        const next = TurnView.reduce(view, event)
        if (next.requests.length > view.requests.length) pending.push(next.requests.at(-1)!.method)
        view = next
      }
    }
    assert.includeMembers(pending, [
      "item/commandExecution/requestApproval",
      "item/fileChange/requestApproval",
      "mcpServer/elicitation/request",
      "item/tool/requestUserInput"
    ])
  })
})

/** The events of one item, from its start to its end, at a time of its own. */
const lifecycle = (random: Events.Random, type: string, id: string, at: number): ReadonlyArray<TurnView.Event> => {
  const { completed, delta, item, started } = Events
  const deltas: Record<string, () => TurnView.Event> = {
    commandExecution: () => delta("item/commandExecution/outputDelta", id, random.pick(["a\n", "b\n"])),
    reasoning: () =>
      delta("item/reasoning/summaryTextDelta", id, random.pick(["x", "y"]), { summaryIndex: random.below(3) }),
    plan: () => delta("item/plan/delta", id, random.pick(["x", "y"])),
    agentMessage: () => delta("item/agentMessage/delta", id, random.pick(["x", "y"])),
    mcpToolCall: () => Events.event("item/mcpToolCall/progress", { itemId: id, message: random.pick(["x", "y"]) }),
    fileChange: () => Events.event("item/fileChange/patchUpdated", { itemId: id, changes: [] })
  }
  return [
    started(item(type, id), at),
    ...Array.from({ length: random.below(4) }, deltas[type]!),
    ...random.chance(0.5) ? [completed({ ...item(type, id), startedAtMs: at }, at + 100)] : []
  ]
}

const idOf = (event: TurnView.Event): unknown => {
  const { item } = event.params as { readonly item: { readonly id: unknown } }
  return item.id
}

/** Interleaves sequences in a random order, which keeps the order within each of them. */
const interleave = (random: Events.Random, sequences: ReadonlyArray<ReadonlyArray<TurnView.Event>>) => {
  const rest = sequences.map((sequence) => sequence.slice())
  const events: Array<TurnView.Event> = []
  for (;;) {
    const left = rest.filter((sequence) => sequence.length > 0)
    if (left.length === 0) return events
    events.push(random.pick(left).shift()!)
  }
}

describe("TurnView of turns on the real server", () => {
  it.live("equals the view of the stored turn, up to what the server does not store", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* fs.makeTempFileScoped()
      yield* recordTurns(path)
      assert.includeMembers(assertStored(readTurns(path)), kinds)
    }).pipe(Effect.scoped, Effect.provide(NodeServices.layer)), 60_000)
})

describe("TurnView", () => {
  it("does not depend on the order of the events of independent items", () => {
    Events.forSeeds(300, (random) => {
      const types = ["agentMessage", "commandExecution", "reasoning", "plan", "mcpToolCall", "fileChange"]
      const sequences = types.map((type, index) => lifecycle(random, type, `item-${index}`, index))
      assert.deepStrictEqual(fold(interleave(random, sequences)), fold(sequences.flat()))
    })
  })

  it("is the same when the start of an item follows its deltas", () => {
    for (const type of ["agentMessage", "commandExecution", "reasoning", "plan", "mcpToolCall", "fileChange"]) {
      Events.forSeeds(50, (random) => {
        const [start, ...others] = lifecycle(random, type, "a", 1)
        const ends = others.filter(({ method }) => method === "item/completed")
        const deltas = others.filter(({ method }) => method !== "item/completed")
        assert.deepStrictEqual(fold([...deltas, start!, ...ends]), fold([start!, ...others]))
        assert.deepStrictEqual(fold([start!, ...others, start!]), fold([start!, ...others]))
      })
    }
  })

  it("agrees with `turn.messages` about the messages that were retracted and completed", () => {
    Events.forSeeds(200, (random) => {
      const events: Array<TurnView.Event> = []
      for (let time = 0; time < 12; time++) {
        const id = random.pick(["a", "b", "c"])
        const text = random.pick(["x", "yz"])
        const next = random.below(6)
        if (next === 0) events.push(Events.started(Events.item("agentMessage", id), time))
        else if (next === 1) events.push(Events.error(true))
        else if (next === 2) events.push(Events.completed(Events.item("agentMessage", id, { text }), time))
        else events.push(Events.delta("item/agentMessage/delta", id, text))
      }
      // A message that has completed does not change any more.
      const seen = events.filter((event, index) =>
        !events.slice(0, index).some((earlier) =>
          earlier.method === "item/completed" && JSON.stringify(event).includes(`"${idOf(earlier)}"`)
        )
      )
      const shown = new Map<string, string>()
      const messages = Effect.runSync(
        Stream.runCollect(Turn.toMessages(Stream.fromIterable(seen as Array<Turn.TurnEvent>)))
      )
      for (const message of messages) {
        if (message._tag === "Retracted") shown.delete(message.itemId)
        if (message._tag === "Completed") shown.set(message.itemId, message.text)
      }
      const view = fold([...seen, Events.turnCompleted()])
      const completed = view.items.filter(({ state }) => state === "completed")
      assert.deepStrictEqual(
        new Map(completed.map(({ id }) => [id, itemOf(view, id, "agentMessage").text])),
        shown
      )
      assert.isTrue(view.items.every(({ state }) => state === "completed" || state === "retracted"))
    })
  })

  it("retracts a message when its request is retried, another one starts or the turn ends", () => {
    const half = [
      Events.started(Events.item("agentMessage", "a"), 1),
      Events.delta("item/agentMessage/delta", "a", "half")
    ]
    assert.deepStrictEqual(states(fold(half)), ["a inProgress"])
    const retried = fold([...half, Events.error(true)])
    assert.deepStrictEqual(states(retried), ["a retracted"])
    assert.strictEqual(retried.retry?.message, "Reconnecting... 1/5")
    const another = fold([...half, Events.delta("item/agentMessage/delta", "b", "whole")])
    assert.deepStrictEqual(states(another), ["a retracted", "b inProgress"])
    assert.deepStrictEqual(states(fold([...half, Events.turnCompleted("interrupted")])), ["a retracted"])
    // A late delta does not revive the message. Its completion does, and so does another start with the same id.
    const late = Events.delta("item/agentMessage/delta", "a", " and more")
    assert.strictEqual(TurnView.reduce(retried, late), retried)
    assert.strictEqual(TurnView.reduce(retried, half[0]!), retried)
    assert.deepStrictEqual(
      states(fold([Events.completed(Events.item("agentMessage", "a"), 2)], retried)),
      ["a completed"]
    )
    const again = fold([Events.started(Events.item("agentMessage", "a"), 3), late], retried)
    assert.deepStrictEqual(states(again), ["a inProgress"])
    assert.strictEqual(itemOf(again, "a", "agentMessage").text, " and more")
    assert.strictEqual(again.retry, null)
  })

  it("ignores a retry, a plan and a diff that are older than the view", () => {
    const now = fold([
      Events.event("turn/plan/updated", { plan: [{ step: "new", status: "pending" }] }, 20),
      Events.event("turn/diff/updated", { diff: "new" }, 20),
      Events.event("item/agentMessage/delta", { itemId: "a", delta: "x" }, 21)
    ])
    assert.strictEqual(now.updatedAtMs, 21)
    const late = [
      Events.event("turn/plan/updated", { plan: [{ step: "old", status: "pending" }] }, 10),
      Events.event("turn/diff/updated", { diff: "old" }, 10),
      Events.error(true, 10)
    ]
    for (const event of late) assert.strictEqual(TurnView.reduce(now, event), now)
  })

  it("keeps the first completion of an item, and the first end of the turn", () => {
    const message = (text: string) => Events.completed(Events.item("agentMessage", "a", { text }), 1)
    const view = fold([message("first"), Events.turnCompleted("interrupted")])
    assert.isTrue(TurnView.isEnded(view))
    assert.strictEqual(TurnView.reduce(view, message("second")), view)
    assert.strictEqual(TurnView.reduce(view, Events.turnCompleted("failed")), view)
    assert.strictEqual(TurnView.reduce(view, Events.turnStarted), view)
  })

  it("keeps the command that outlives its turn, and completes it", () => {
    const output = (text: string) => Events.delta("item/commandExecution/outputDelta", "a", text)
    const ended = fold([
      Events.started(Events.item("commandExecution", "a"), 1),
      output("early\n"),
      Events.turnCompleted("interrupted"),
      output("late\n")
    ])
    assert.deepStrictEqual(states(ended), ["a unfinished"])
    assert.strictEqual(itemOf(ended, "a", "commandExecution").aggregatedOutput, "early\nlate\n")
    const done = Events.item("commandExecution", "a", { aggregatedOutput: "all\n", status: "completed", exitCode: 0 })
    const completed = fold([Events.completed(done, 2)], ended)
    assert.deepStrictEqual(states(completed), ["a completed"])
    assert.strictEqual(completed.status, "interrupted")
    assert.strictEqual(itemOf(completed, "a", "commandExecution").exitCode, 0)
  })

  it("keeps the end of a long output, and counts the rest", () => {
    const line = "0123456789abcde\n"
    const chunk = line.repeat(64)
    let view = fold([Events.started(Events.item("commandExecution", "a"), 1)])
    for (let count = 0; count < 200; count++) {
      view = TurnView.reduce(view, Events.delta("item/commandExecution/outputDelta", "a", chunk))
      const length = itemOf(view, "a", "commandExecution").aggregatedOutput!.length
      assert.isAtMost(length, 2 * TurnView.maxOutputChars)
      assert.strictEqual(length + only(view).omittedOutput, (count + 1) * chunk.length)
    }
    const emoji = Events.item("commandExecution", "a", { aggregatedOutput: "x" + "😀".repeat(TurnView.maxOutputChars) })
    view = fold([Events.completed(emoji, 2)], view)
    const { aggregatedOutput } = itemOf(view, "a", "commandExecution")
    assert.isTrue(aggregatedOutput!.isWellFormed())
    assert.strictEqual(aggregatedOutput!.length, TurnView.maxOutputChars)
    assert.strictEqual(only(view).omittedOutput, 1 + TurnView.maxOutputChars)
    const odd = { ...emoji, aggregatedOutput: "😀".repeat(TurnView.maxOutputChars) + "x" }
    assert.isTrue(itemOf(fold([Events.completed(odd, 2)]), "a", "commandExecution").aggregatedOutput!.isWellFormed())
  })

  it("keeps unknown and malformed items with their JSON", () => {
    const unknown = Events.item("madeUpLater", "a", { startedAtMs: 1 })
    const broken = { type: "commandExecution", id: "b", command: 5 }
    const view = fold([
      Events.completed(unknown, 2),
      Events.completed(broken, 3),
      // The notification does not decode, but its item does.
      {
        method: "malformed",
        raw: Events.completed(Events.item("agentMessage", "c", { text: "salvaged" }), 4)
      } as never,
      {
        method: "malformed",
        raw: Events.turnCompleted("failed", { error: { message: 5, codexErrorInfo: "other" } })
      } as never
    ])
    assert.deepStrictEqual(states(view), ["a completed", "b completed", "c completed"])
    assert.deepStrictEqual<unknown>(view.items[0]!.item, { ...unknown, completedAtMs: 2 })
    assert.deepStrictEqual<unknown>(view.items[1]!.item, { type: "malformed", raw: { ...broken, completedAtMs: 3 } })
    assert.strictEqual(itemOf(view, "c", "agentMessage").text, "salvaged")
    assert.strictEqual(view.status, "failed")
    assert.strictEqual(view.error?.codexErrorInfo, "other")
  })

  it("has the approvals without a response", () => {
    const { commandRequest, completed, item, resolved, started, turnCompleted } = Events
    const asked = fold([started(item("commandExecution", "a"), 1), commandRequest(0, "a"), commandRequest(1, "b")])
    assert.deepStrictEqual(asked.requests.map(({ id }) => id), [0, 1])
    assert.strictEqual(TurnView.reduce(asked, commandRequest(0, "a")), asked)
    const settled = fold([resolved(0)], asked)
    assert.deepStrictEqual(settled.requests.map(({ id }) => id), [1])
    assert.strictEqual(TurnView.reduce(settled, commandRequest(0, "a")), settled)
    assert.strictEqual(TurnView.reduce(settled, resolved(7)), settled)
    const done = fold([completed(item("commandExecution", "b"), 2)], settled)
    assert.deepStrictEqual(done.requests, [])
    assert.strictEqual(TurnView.reduce(done, commandRequest(2, "b")), done)
    assert.deepStrictEqual(fold([turnCompleted()], asked).requests, [])
  })

  it("counts the usage of the turn", () => {
    const output = Events.completed(Events.item("agentMessage", "a"), 1)
    const tokens = (view: TurnView.TurnView) => [view.usage?.turn.totalTokens, view.usage?.thread.totalTokens]
    // A thread without a history.
    assert.deepStrictEqual(tokens(fold([Events.usage(100, 100), Events.usage(150, 50)])), [150, 150])
    // A thread with a history: the first report may be one of an earlier turn.
    assert.deepStrictEqual(tokens(fold([Events.usage(900, 100)])), [0, 900])
    assert.deepStrictEqual(tokens(fold([output, Events.usage(900, 100), Events.usage(950, 50)])), [150, 950])
    assert.deepStrictEqual(tokens(fold([output, Events.usage(900, 100), Events.error(true), Events.usage(960, 60)])), [
      60,
      960
    ])
    // The request after the first one is retried.
    assert.deepStrictEqual(
      tokens(fold([output, Events.usage(900, 100), Events.usage(900, 100), Events.error(true)])),
      [100, 900]
    )
  })

  it("copies only the item of a delta", () => {
    let view = fold(Array.from({ length: 1000 }, (_, id) => Events.completed(Events.item("webSearch", `${id}`), id)))
    view = fold([Events.started(Events.item("agentMessage", "message"), 2000)], view)
    view = fold([Events.started(Events.item("commandExecution", "command"), 2001)], view)
    const next = TurnView.reduce(view, Events.delta("item/agentMessage/delta", "message", "x"))
    const changed = next.items.filter((entry, index) => entry !== view.items[index])
    assert.deepStrictEqual(changed.map(({ id }) => id), ["message"])
    for (const key of ["plan", "usage", "requests", "error"] as const) assert.strictEqual(next[key], view[key])
    assert.deepStrictEqual(
      view.items.at(-2)!.item,
      { ...Events.item("agentMessage", "message"), startedAtMs: 2000, completedAtMs: null } as never
    )
  })

  it("takes the thread of a stored turn from its first event", () => {
    const view = TurnView.fromTurn(Events.turn("inProgress") as never)
    assert.strictEqual(view.threadId, "")
    const next = fold([Events.delta("item/agentMessage/delta", "a", "x")], view)
    assert.strictEqual(next.threadId, Events.threadId)
  })
})
