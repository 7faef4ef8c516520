import { assert, describe, it } from "@effect/vitest"
import { terminalText } from "../../../src/internal/terminal/terminalText.ts"

describe("terminalText", () => {
  it("keeps printable text, and escapes characters that hide or move text", () => {
    assert.strictEqual(terminalText("plain\ttext\nö 漢 🙂"), "plain\ttext\nö 漢 🙂")
    assert.strictEqual(
      terminalText("rm -rf /\r\u001b[2K\u202eecho safe\u200b\u009b"),
      "rm -rf /\\u{d}\\u{1b}[2K\\u{202e}echo safe\\u{200b}\\u{9b}"
    )
  })

  it("escapes characters that are invisible", () => {
    const unseen = [
      0xad,
      0x61c,
      0x34f,
      0x115f,
      0x3164,
      0xffa0,
      0x2800,
      0x17b4,
      0x180e,
      0xfff9,
      0xe0041,
      0xfe0f,
      0xa0,
      0x3000
    ]
    for (const code of unseen) assert.strictEqual(terminalText(String.fromCodePoint(code)), `\\u{${code.toString(16)}}`)
  })
})
