import { assert, describe, it } from "@effect/vitest"
import { TurnView } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { isDeepStrictEqual } from "node:util"
import * as Events from "../turnEvents.ts"

/** The number of random sequences. */
const runs = process.env["FAULT_RUNS"] === undefined ? 500 : 50_000

const empty = TurnView.empty(Events.threadId, Events.turnId)

/** Views of another turn, and of a turn of another thread. */
const others = [TurnView.empty(Events.threadId, "other"), TurnView.empty("other", Events.turnId)]

const isView = Schema.is(TurnView.TurnView)
const decode = Schema.decodeUnknownSync(Schema.toCodecJson(TurnView.TurnView))
const encode = Schema.encodeSync(Schema.toCodecJson(TurnView.TurnView))

const parse = (view: unknown): unknown => JSON.parse(JSON.stringify(view))

const isDelta = (event: TurnView.Event): boolean => /delta"/i.test(JSON.stringify(event))

/** Leaves out the number of reports of usage: a report without a time counts again. */
const stable = (view: TurnView.TurnView) => ({ ...view, usage: view.usage && { ...view.usage, reports: 0 } })

/** As `assert.deepStrictEqual`, which takes most of the time of a run. */
const assertEqual = (actual: unknown, expected: unknown): void => {
  if (!isDeepStrictEqual(actual, expected)) assert.deepStrictEqual(actual, expected)
}

describe("TurnView of any events", () => {
  it("is valid, does not lose what is final, and ignores the events of other turns", { timeout: 1_000_000 }, () => {
    Events.forSeeds(runs, (random) => {
      const hostility = random.pick([0, 0.1, 0.5])
      let view = empty
      for (const event of Events.anyEvents(random, hostility)) {
        const next = TurnView.reduce(view, event)
        for (const entry of view.items) {
          if (entry.state === "completed") assert.isTrue(next.items.includes(entry))
          else assert.strictEqual(next.items.filter(({ id }) => id === entry.id).length, 1)
        }
        if (view.status !== "inProgress") {
          assertEqual({ ...next, items: view.items, updatedAtMs: null }, { ...view, updatedAtMs: null })
        }
        for (const other of others) assert.strictEqual(TurnView.reduce(other, event), other)
        if (!isDelta(event)) assertEqual(stable(TurnView.reduce(next, event)), stable(next))
        view = next
      }
      assert.isTrue(isView(view))
      assertEqual(parse(view), view)
      // This takes more time than all the rest.
      if (random.chance(0.2)) assertEqual(decode(parse(encode(view))), view)
      assert.isTrue(isView(TurnView.stored(view)))
      assert.isFalse("polluted" in {})
    })
  })

  it.effect.prop(
    "ignores values that are not events",
    { value: Schema.Json, turn: Schema.Json },
    ({ turn, value }) =>
      Effect.sync(() => {
        assert.strictEqual(TurnView.reduce(empty, value as never), empty)
        assert.isTrue(isView(TurnView.fromTurn(turn as never)))
        const params = {
          threadId: Events.threadId,
          turnId: Events.turnId,
          item: value,
          turn,
          error: value,
          delta: turn
        }
        for (const method of ["item/started", "item/completed", "turn/started", "turn/completed", "error"]) {
          assert.isTrue(isView(TurnView.reduce(empty, { method, params } as never)))
        }
      }),
    { arbitrary: { runs: 200 } }
  )
})
