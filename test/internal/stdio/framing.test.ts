import { assert, describe, it } from "@effect/vitest"
import * as Schema from "effect/Schema"
import { makeLineSplitter } from "../../../src/internal/stdio/framing.ts"

const encode = (text: string) => new TextEncoder().encode(text)

const splitAt = (bytes: Uint8Array, sizes: ReadonlyArray<number>): Array<Uint8Array> => {
  const chunks: Array<Uint8Array> = []
  let offset = 0
  for (let index = 0; offset < bytes.length; index++) {
    const size = sizes.length === 0 ? bytes.length : Math.max(1, sizes[index % sizes.length]!)
    chunks.push(bytes.subarray(offset, offset + size))
    offset += size
  }
  return chunks
}

describe("makeLineSplitter", () => {
  it.prop("returns the same lines for any chunks of the bytes", {
    lines: Schema.Array(Schema.String),
    sizes: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 7 })))
  }, ({ lines, sizes }) => {
    const clean = lines.map((line) => line.toWellFormed().replace(/[\r\n]/g, ""))
    const splitter = makeLineSplitter()
    const seen = splitAt(encode(clean.map((line) => line + "\n").join("")), sizes).flatMap(splitter.push)
    assert.deepStrictEqual(seen, clean)
    assert.strictEqual(splitter.remainder(), "")
  })

  it("returns a line that is cut at any byte", () => {
    const line = JSON.stringify({ text: "é😀\u2028\u2029 end" })
    const bytes = encode(`${line}\n${line}\n`)
    for (let at = 1; at < bytes.length; at++) {
      const splitter = makeLineSplitter()
      const seen = [bytes.subarray(0, at), bytes.subarray(at)].flatMap(splitter.push)
      assert.deepStrictEqual(seen, [line, line])
    }
  })

  it("treats U+2028, U+2029 and U+0085 as data, and removes a carriage return before the line end", () => {
    const splitter = makeLineSplitter()
    assert.deepStrictEqual(splitter.push(encode("a\u2028b\u2029c\u0085d\r\n")), ["a\u2028b\u2029c\u0085d"])
  })

  it("returns half a line as the remainder", () => {
    const splitter = makeLineSplitter()
    assert.deepStrictEqual(splitter.push(encode("one\ntw")), ["one"])
    assert.strictEqual(splitter.remainder(), "tw")
  })

  it("drops a line over the limit, and reports its position", () => {
    const splitter = makeLineSplitter(10)
    const push = (text: string) => [splitter.push(encode(text)), splitter.droppedAfter()]
    assert.deepStrictEqual(push("short\n0123"), [["short"], undefined])
    assert.deepStrictEqual(push("4567"), [[], undefined])
    assert.deepStrictEqual(push("89abcdef"), [[], 0])
    assert.deepStrictEqual(push("still the same line"), [[], undefined])
    assert.deepStrictEqual(push("\none\ntwo\nmuch too long as well\nthree\n"), [["one", "two", "three"], 2])
    assert.deepStrictEqual(push("four\nthis is not whole"), [["four"], 1])
    assert.deepStrictEqual(push("\nfive\n"), [["five"], undefined])
  })

  it("joins a line of 20 MB once, when its end arrives", () => {
    const chunk = new Uint8Array(65_536).fill(0x61)
    let joins = 0
    const splitter = makeLineSplitter()
    for (let index = 0; index < 320; index++) joins += splitter.push(chunk).length
    const lines = splitter.push(encode("\n"))
    assert.strictEqual(joins, 0)
    assert.strictEqual(lines[0]!.length, 320 * 65_536)
  })
})
