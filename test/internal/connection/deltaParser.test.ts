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

const lineOf = (text: Text): string => JSON.stringify(message(text))

const parse = (line: string): unknown => {
  try {
    return JSON.parse(line)
  } catch {
    return "not JSON"
  }
}

/** Reads lines as the reader does: what is not read is parsed and learned. Tells what was read, and how much was parsed. */
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

describe("the lines of a text that arrives in pieces", () => {
  it("are parsed once, and then read by what differs", () => {
    assertRead(
      ["a", "b", "", "a longer piece than those before", "x".repeat(5000)].map((delta) => lineOf({ delta })),
      1
    )
  })

  it("may have anything in a piece that JSON can say", () => {
    const pieces = ["\"", "\\", "\n", "\u2028", "é", "😀", "\ud800", "\",\"emittedAtMs\":1}", "\"delta\":\"", "}", "\0"]
    assertRead(["first", ...pieces].map((delta) => lineOf({ delta })), 1)
  })

  it("have the time at which they were sent", () => {
    assertRead(
      [1_795_358_196_797, 1_795_358_196_798, 1_795_358_196_798, 1_999_999_999_999].map((emittedAtMs) =>
        lineOf({ emittedAtMs })
      ),
      1
    )
  })

  it("may be those of many turns that take turns", () => {
    const lines = Array.from(
      { length: 3000 },
      (_, i) => lineOf({ turnId: `01a203b0-03af-7c63-8b02-${String(i % 1000).padStart(12, "0")}`, delta: String(i) })
    )
    assertRead(lines, 1000)
  })

  it("may be those of several texts of one turn", () => {
    const lines = Array.from({ length: 60 }, (_, i) => lineOf({ itemId: `msg_${i % 6}`, delta: String(i) }))
    assertRead(lines, 6)
  })

  it("may have fields after the piece, and keep what a newer server adds", () => {
    const lines = Array.from(
      { length: 10 },
      (_, i) =>
        lineOf({
          method: "item/reasoning/textDelta",
          delta: String(i),
          more: { contentIndex: 3, added: { deep: [1, null] } }
        })
    )
    assertRead(lines, 1)
  })

  it("are parsed when anything else differs", () => {
    assertRead([
      lineOf({}),
      lineOf({ itemId: "msg_2" }),
      lineOf({ method: "item/plan/delta" }),
      lineOf({ more: { added: 1 } }),
      lineOf({ more: { added: 2 } }),
      lineOf({}).replace("\"params\"", " \"params\"")
    ], 6)
  })

  it("are not read where they are not JSON", () => {
    const line = lineOf({ delta: "piece" })
    const broken = ["a\"b", "a\\", "\\x", "\\u12", "a\tb", "\u0001", "\"", "\\\""].map((piece) =>
      line.replace("piece", () => piece)
    )
    const cut = Array.from({ length: line.length - 1 }, (_, length) => line.slice(0, length + 1))
    const times = ["01", "1e3", "-1", "1.5", "", "1,\"a\":2", " 1"].map((time) => line.replace("1795358196797", time))
    const lines = [line, ...broken, ...cut, ...times, line]
    assert.deepStrictEqual(readAll(lines).events, lines.map(parse))
  })

  it("are not taken for others when a key is there twice", () => {
    const twice = lineOf({ delta: "first" }).replace("\"delta\":\"first\"", "\"delta\":\"first\",\"delta\":\"second\"")
    const last = `${
      lineOf({ delta: "first" }).slice(0, -1)
    },"params":{"threadId":"t","turnId":"u","itemId":"i","delta":"x"}}`
    const lines = [twice, twice.replace("first", "other"), last, last.replace("first", "other")]
    assert.deepStrictEqual(readAll(lines).events, lines.map(parse))
  })

  it("are forgotten when there were very many", () => {
    const deltas = new DeltaParser()
    const line = lineOf({})
    deltas.register(line, JSON.parse(line))
    assert.isDefined(deltas.tryParse(line))
    for (let i = 0; i < 5000; i++) {
      const other = lineOf({ turnId: `turn-${String(i).padStart(5, "0")}` })
      deltas.register(other, JSON.parse(other))
    }
    assert.isUndefined(deltas.tryParse(line))
  })

  it.prop(
    "are read as JSON.parse reads them, or not at all",
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
        lineOf({ ...text, ...(more === "" ? {} : { more: { [more]: more } }) })
      )
      // Some lose a character, some have one twice.
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
