import { assert, describe, it } from "@effect/vitest"
import type { Protocol } from "effect-codex"
import * as Schema from "effect/Schema"
import { CoalescingBuffer } from "../../../src/internal/connection/coalescingBuffer.ts"
import { DeltaParser } from "../../../src/internal/connection/deltaParser.ts"
import * as Fake from "../../FakeTransport.ts"

type Event = Protocol.ServerNotification

const limit = 4

const delta = (itemId: string, text: string): Event => Fake.delta("t", "u", itemId, text)

const completed = (itemId: string): Event => Fake.messageCompleted("t", "u", itemId, "text")

/** Formats the text of each item, with a mark at each other event. */
const format = (events: ReadonlyArray<Event>): string => {
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

/** Writes events as the router does: the delta of a known text on its own, other events whole. */
const makeWriter = (log: CoalescingBuffer<Event>) => {
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

const fill = (log: CoalescingBuffer<Event>, events: ReadonlyArray<Event>): void => events.forEach(makeWriter(log))

describe("CoalescingBuffer", () => {
  it("keeps each event separate below its limit", () => {
    const log = new CoalescingBuffer<Event>(limit)
    const events = ["a", "b", "c"].map((text) => delta("i", text))
    fill(log, events)
    assert.deepStrictEqual(log.take(), events)
  })

  it("coalesces the deltas of one text above its limit", () => {
    const log = new CoalescingBuffer<Event>(limit)
    fill(log, Array.from({ length: 1000 }, (_, i) => delta("i", String(i % 10))))
    const events = log.take()
    assert.strictEqual(events.length, limit)
    assert.strictEqual(format(events), JSON.stringify([["i", "0123456789".repeat(100)]]))
  })

  it("coalesces interleaved texts separately", () => {
    const log = new CoalescingBuffer<Event>(limit)
    const events = Array.from({ length: 3000 }, (_, i) => delta(`i${i % 3}`, String(i % 7)))
    fill(log, events)
    const taken = log.take()
    assert.isAtMost(taken.length, limit + 3)
    assert.strictEqual(format(taken), format(events))
  })

  it("does not coalesce across another event", () => {
    const log = new CoalescingBuffer<Event>(1)
    fill(log, [delta("i", "a"), delta("i", "b"), completed("other"), delta("i", "c"), delta("i", "d")])
    assert.deepStrictEqual(log.take().map(({ method }) => method), [
      "item/agentMessage/delta",
      "item/completed",
      "item/agentMessage/delta"
    ])
  })

  it.prop(
    "keeps all text and its order around other events for any reads",
    {
      steps: Schema.Array(Schema.Literals(["a", "b", "c", "other", "take", "copy"])),
      limit: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 6 }))
    },
    ({ limit, steps }) => {
      const log = new CoalescingBuffer<Event>(limit)
      const given: Array<Event> = []
      const taken: Array<Event> = []
      const write = makeWriter(log)
      steps.forEach((step, i) => {
        if (step === "take") {
          taken.push(...log.take())
        } else if (step === "copy") {
          assert.strictEqual(format([...taken, ...log.copy()]), format(given))
        } else {
          const event = step === "other" ? completed("other") : delta(step, `${i} `)
          given.push(event)
          write(event)
        }
      })
      assert.strictEqual(format([...taken, ...log.take()]), format(given))
    }
  )
})
