import { assert, describe, it } from "@effect/vitest"
import { terminalText } from "../../../src/internal/terminal/terminalText.ts"

describe("text on a terminal", () => {
  it("is shown as it is, and can neither hide nor move anything", () => {
    assert.strictEqual(terminalText("plain\ttext\nö 漢 🙂"), "plain\ttext\nö 漢 🙂")
    assert.strictEqual(
      terminalText("rm -rf /\r\u001b[2K\u202eecho safe\u200b\u009b"),
      "rm -rf /\\u{d}\\u{1b}[2K\\u{202e}echo safe\\u{200b}\\u{9b}"
    )
  })
})
