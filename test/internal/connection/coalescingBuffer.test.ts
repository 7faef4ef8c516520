import { assert, describe, it } from "@effect/vitest"
import type { Protocol } from "effect-codex"
import * as Schema from "effect/Schema"
import { CoalescingBuffer } from "../../../src/internal/connection/coalescingBuffer.ts"
import { DeltaParser } from "../../../src/internal/connection/deltaParser.ts"
import * as Fake from "../../FakeTransport.ts"

type Event = Protocol.ServerNotification

const joinFrom = 4

const delta = (itemId: string, text: string): Event => Fake.delta("t", "u", itemId, text) as Event

const completed = (itemId: string): Event => Fake.messageCompleted("t", "u", itemId, "text") as Event

/** The text of each item, and where other events stand in it. */
const shapeOf = (events: ReadonlyArray<Event>): string => {
  const texts = new Map<string, string>()
  for (const event of events) {
    if (event.method === "item/agentMessage/delta") {
      texts.set(event.params.itemId, (texts.get(event.params.itemId) ?? "") + event.params.delta)
    } else {
      for (const [item, text] of texts) texts.set(item, `${text}|`)
    }
  }
  return JSON.stringify([...texts])
}

/** Puts events in as the reader does: pieces of a known text as such, others whole. */
const writerTo = (log: CoalescingBuffer<Event>) => {
  const lines = new DeltaParser()
  return (event: Event): void => {
    const line = JSON.stringify(event)
    const piece = lines.tryParse(line)
    if (piece !== undefined) {
      log.pushDelta(piece)
      return
    }
    if (event.method === "item/agentMessage/delta") lines.register(line, event)
    log.push(event)
  }
}

const fill = (log: CoalescingBuffer<Event>, events: ReadonlyArray<Event>): void => events.forEach(writerTo(log))

describe("a log of events", () => {
  it("has each event by itself until it is long", () => {
    const log = new CoalescingBuffer<Event>(joinFrom)
    const events = ["a", "b", "c"].map((text) => delta("i", text))
    fill(log, events)
    assert.deepStrictEqual(log.take(), events)
  })

  it("then has what follows of one text as one event", () => {
    const log = new CoalescingBuffer<Event>(joinFrom)
    fill(log, Array.from({ length: 1000 }, (_, i) => delta("i", String(i % 10))))
    const events = log.take()
    assert.strictEqual(events.length, joinFrom)
    assert.strictEqual(shapeOf(events), JSON.stringify([["i", "0123456789".repeat(100)]]))
  })

  it("joins texts that take turns, each with itself", () => {
    const log = new CoalescingBuffer<Event>(joinFrom)
    const events = Array.from({ length: 3000 }, (_, i) => delta(`i${i % 3}`, String(i % 7)))
    fill(log, events)
    const taken = log.take()
    assert.isAtMost(taken.length, joinFrom + 3)
    assert.strictEqual(shapeOf(taken), shapeOf(events))
  })

  it("joins nothing across another event", () => {
    const log = new CoalescingBuffer<Event>(1)
    fill(log, [delta("i", "a"), delta("i", "b"), completed("other"), delta("i", "c"), delta("i", "d")])
    assert.deepStrictEqual(log.take().map(({ method }) => method), [
      "item/agentMessage/delta",
      "item/completed",
      "item/agentMessage/delta"
    ])
  })

  it.prop(
    "loses nothing and moves nothing across another event, however often it is read",
    {
      steps: Schema.Array(Schema.Literals(["a", "b", "c", "other", "take", "copy"])),
      joinFrom: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 }))
    },
    ({ joinFrom, steps }) => {
      const log = new CoalescingBuffer<Event>(joinFrom)
      const given: Array<Event> = []
      const taken: Array<Event> = []
      const write = writerTo(log)
      steps.forEach((step, i) => {
        if (step === "take") {
          taken.push(...log.take())
        } else if (step === "copy") {
          assert.strictEqual(shapeOf([...taken, ...log.copy()]), shapeOf(given))
        } else {
          const event = step === "other" ? completed("other") : delta(step, `${i} `)
          given.push(event)
          write(event)
        }
      })
      assert.strictEqual(shapeOf([...taken, ...log.take()]), shapeOf(given))
    }
  )
})
