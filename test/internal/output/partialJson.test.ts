import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { PartialJson } from "../../../src/internal/output/partialJson.ts"

/** Whether one value is an earlier state of another: strings, arrays and objects only grow, and atoms stay. */
const isPrefix = (early: unknown, late: unknown): boolean => {
  if (early === undefined) return true
  if (typeof early === "string") return typeof late === "string" && late.startsWith(early)
  if (Array.isArray(early)) {
    return Array.isArray(late) && early.length <= late.length &&
      early.every((item, index) => isPrefix(item, late[index]))
  }
  if (typeof early === "object" && early !== null) {
    return typeof late === "object" && late !== null && !Array.isArray(late) &&
      Object.entries(early).every(([name, value]) =>
        Object.hasOwn(late, name) && isPrefix(value, late[name as keyof typeof late])
      )
  }
  return Object.is(early, late)
}

const Json = Schema.Record(
  Schema.String,
  Schema.Union([
    Schema.String,
    Schema.Finite,
    Schema.Boolean,
    Schema.Null,
    Schema.Array(Schema.Union([Schema.String, Schema.Array(Schema.Int), Schema.Record(Schema.String, Schema.String)])),
    Schema.Record(Schema.String, Schema.Array(Schema.NullOr(Schema.String)))
  ])
)

const parse = (...pieces: ReadonlyArray<string>): unknown => {
  const parser = new PartialJson()
  for (const piece of pieces) parser.push(piece)
  return parser.snapshot()
}

describe("PartialJson", () => {
  it.prop(
    "returns an earlier state of the value after each character, and the value at the end",
    { value: Json },
    ({ value }) => {
      for (const text of [JSON.stringify(value), JSON.stringify(value, undefined, 1)]) {
        const final: unknown = JSON.parse(text)
        const parser = new PartialJson()
        let before: unknown
        let kept = "undefined"
        for (const char of text.split("")) {
          parser.push(char)
          assert.strictEqual(String(JSON.stringify(before)), kept, "an earlier snapshot has changed")
          const snapshot = parser.snapshot()
          assert.isTrue(isPrefix(before, snapshot))
          assert.isTrue(isPrefix(snapshot, final))
          before = snapshot
          kept = String(JSON.stringify(before))
        }
        assert.deepStrictEqual(before, final)
      }
    }
  )

  it.prop("returns the same for any pieces of the text", {
    value: Json,
    length: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 9 }))
  }, ({ length, value }) => {
    const text = JSON.stringify(value)
    const pieces = Array.from(
      { length: Math.ceil(text.length / length) },
      (_, index) => text.slice(index * length, (index + 1) * length)
    )
    assert.deepStrictEqual(parse(...pieces), JSON.parse(text))
  })

  it.prop("never throws on text that is not JSON", { text: Schema.String }, ({ text }) => {
    for (const odd of [text, `{"a":${text}`, `["x",${text}`, `{"a":"b"}${text}`, `[1}${text}`]) parse(...odd.split(""))
  })

  it("shows a string while it grows, and a number once it is complete", () => {
    assert.deepStrictEqual(parse(`{"a":"x`), { a: "x" })
    assert.deepStrictEqual(parse(`{"a":"`), { a: "" })
    assert.deepStrictEqual(parse(`{"a":["x","y`), { a: ["x", "y"] })
    assert.deepStrictEqual(parse(`{"a":12`), {})
    assert.deepStrictEqual(parse(`{"a":12,`), { a: 12 })
    assert.deepStrictEqual(parse(`{"a":tru`), {})
    assert.deepStrictEqual(parse(`{"a":[[1,`), { a: [[1]] })
    assert.deepStrictEqual(parse(`{"ke`), {})
    assert.deepStrictEqual(parse(`{"a":"\\u00`, `e9"`), { a: "é" })
    assert.strictEqual(parse(""), undefined)
    assert.strictEqual(parse("no JSON"), undefined)
  })

  it("keeps what has come before text that is not JSON", () => {
    assert.deepStrictEqual(parse(`{"a":1,"b":oops,"c":2}`), { a: 1 })
    assert.deepStrictEqual(parse(`{"a":1} and more`), { a: 1 })
    assert.deepStrictEqual(parse(`{"a":[1}`), { a: [1] })
  })

  it("keeps a field that is named as a property of each object", () => {
    const value = parse(`{"__proto__":{"x":1},"toString":"y`)
    assert.deepStrictEqual(Object.keys(value as object), ["__proto__", "toString"])
    assert.strictEqual(({} as { readonly x?: number }).x, undefined)
  })

  it("shares what is complete between snapshots", () => {
    const parser = new PartialJson()
    parser.push(`{"a":{"b":[1,2]},"c":"x`)
    const first = parser.snapshot() as { readonly a: unknown }
    parser.push("y")
    const second = parser.snapshot() as { readonly a: unknown }
    assert.notStrictEqual(first, second)
    assert.strictEqual(first.a, second.a)
  })
})
