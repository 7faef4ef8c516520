import { assert, describe, it } from "@effect/vitest"
import { serverNotifications } from "effect-codex/Protocol"
import * as Schema from "effect/Schema"
import { type DeltaNotification, isDelta } from "../../../src/internal/connection/delta.ts"
import { DeltaParser } from "../../../src/internal/connection/deltaParser.ts"

interface Text {
  readonly method?: string
  readonly turnId?: string
  readonly itemId?: string
  readonly delta?: string
  readonly emittedAtMs?: number
  readonly more?: object
}

const message = ({ delta = "piece", emittedAtMs = 1_795_358_196_797, more, ...text }: Text): object => ({
  method: text.method ?? "item/agentMessage/delta",
  params: {
    threadId: "01a203b0-03af-7c63-b895-000000000001",
    turnId: text.turnId ?? "01a203b0-03af-7c63-8b02-000000000001",
    itemId: text.itemId ?? "msg_1",
    delta,
    ...more
  },
  emittedAtMs
})

const makeLine = (text: Text): string => JSON.stringify(message(text))

const parse = (line: string): unknown => {
  try {
    return JSON.parse(line)
  } catch {
    return "not JSON"
  }
}

/** Reads lines as the router does: it parses and registers a line that the delta parser does not read. */
const readAll = (lines: ReadonlyArray<string>) => {
  const deltas = new DeltaParser()
  let parsed = 0
  const events = lines.map((line): unknown => {
    const delta = deltas.tryParse(line)
    if (delta !== undefined) return delta.event
    parsed++
    const event = parse(line) as DeltaNotification
    if (isDelta(event) && Schema.is(serverNotifications[event.method].params)(event.params)) {
      deltas.register(line, event)
    }
    return event
  })
  return { events, parsed }
}

const assertRead = (lines: ReadonlyArray<string>, parsed: number) => {
  const read = readAll(lines)
  assert.deepStrictEqual(read.events, lines.map(parse))
  assert.strictEqual(read.parsed, parsed)
}

describe("DeltaParser", () => {
  it("reads the lines of a text after the first one", () => {
    assertRead(
      ["a", "b", "", "a longer piece than those before", "x".repeat(5000)].map((delta) => makeLine({ delta })),
      1
    )
  })

  it("reads a delta with any JSON string", () => {
    const pieces = ["\"", "\\", "\n", "\u2028", "é", "😀", "\ud800", "\",\"emittedAtMs\":1}", "\"delta\":\"", "}", "\0"]
    assertRead(["first", ...pieces].map((delta) => makeLine({ delta })), 1)
  })

  it("reads the time of each line", () => {
    assertRead(
      [1_795_358_196_797, 1_795_358_196_798, 1_795_358_196_798, 1_999_999_999_999].map((emittedAtMs) =>
        makeLine({ emittedAtMs })
      ),
      1
    )
  })

  it("reads interleaved lines of many turns", () => {
    const lines = Array.from(
      { length: 3000 },
      (_, i) => makeLine({ turnId: `01a203b0-03af-7c63-8b02-${String(i % 1000).padStart(12, "0")}`, delta: String(i) })
    )
    assertRead(lines, 1000)
  })

  it("reads interleaved lines of several texts of one turn", () => {
    const lines = Array.from({ length: 60 }, (_, i) => makeLine({ itemId: `msg_${i % 6}`, delta: String(i) }))
    assertRead(lines, 6)
  })

  it("reads lines with fields after the delta, and keeps the fields of a newer server", () => {
    const lines = Array.from(
      { length: 10 },
      (_, i) =>
        makeLine({
          method: "item/reasoning/textDelta",
          delta: String(i),
          more: { contentIndex: 3, added: { deep: [1, null] } }
        })
    )
    assertRead(lines, 1)
  })

  it("does not read a line in which another field differs", () => {
    assertRead([
      makeLine({}),
      makeLine({ itemId: "msg_2" }),
      makeLine({ method: "item/plan/delta" }),
      makeLine({ more: { added: 1 } }),
      makeLine({ more: { added: 2 } }),
      makeLine({}).replace("\"params\"", " \"params\"")
    ], 6)
  })

  it("does not read a line that is not JSON", () => {
    const line = makeLine({ delta: "piece" })
    const broken = ["a\"b", "a\\", "\\x", "\\u12", "a\tb", "\u0001", "\"", "\\\""].map((piece) =>
      line.replace("piece", () => piece)
    )
    const cut = Array.from({ length: line.length - 1 }, (_, length) => line.slice(0, length + 1))
    const times = ["01", "1e3", "-1", "1.5", "", "1,\"a\":2", " 1"].map((time) => line.replace("1795358196797", time))
    const lines = [line, ...broken, ...cut, ...times, line]
    assert.deepStrictEqual(readAll(lines).events, lines.map(parse))
  })

  it("reads a line with a duplicate key as JSON.parse does", () => {
    const twice = makeLine({ delta: "first" }).replace(
      "\"delta\":\"first\"",
      "\"delta\":\"first\",\"delta\":\"second\""
    )
    const last = `${
      makeLine({ delta: "first" }).slice(0, -1)
    },"params":{"threadId":"t","turnId":"u","itemId":"i","delta":"x"}}`
    const lines = [twice, twice.replace("first", "other"), last, last.replace("first", "other")]
    assert.deepStrictEqual(readAll(lines).events, lines.map(parse))
  })

  it("forgets a text after thousands of others", () => {
    const deltas = new DeltaParser()
    const line = makeLine({})
    deltas.register(line, JSON.parse(line))
    assert.isDefined(deltas.tryParse(line))
    for (let i = 0; i < 5000; i++) {
      const other = makeLine({ turnId: `turn-${String(i).padStart(5, "0")}` })
      deltas.register(other, JSON.parse(other))
    }
    assert.isUndefined(deltas.tryParse(line))
  })

  it.prop(
    "reads a line as JSON.parse does, or not at all",
    {
      texts: Schema.Array(Schema.Struct({
        turnId: Schema.Literals(["a", "b", "turn-1", "turn-2"]),
        itemId: Schema.Literals(["x", "y\"", "\\"]),
        delta: Schema.String,
        emittedAtMs: Schema.Literals([0, 9, 10, 1_795_358_196_797, -1, 1.5, 1e21]),
        more: Schema.Literals(["", "\"delta\":\"", "}", "z"])
      })),
      at: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 200 })))
    },
    ({ at, texts }) => {
      const lines = texts.map(({ more, ...text }) =>
        makeLine({ ...text, ...(more === "" ? {} : { more: { [more]: more } }) })
      )
      // Some lines lose a character, and some have one twice.
      const changed = lines.flatMap((line, i) => {
        const index = (at[i] ?? 0) % line.length
        return [
          line,
          line.slice(0, index) + line.slice(index + 1),
          line.slice(0, index) + line.slice(Math.max(index - 1, 0)),
          line
        ]
      })
      assert.deepStrictEqual(readAll(changed).events, changed.map(parse))
    }
  )
})
