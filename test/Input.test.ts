import { assert, describe, it } from "@effect/vitest"
import { Input, Sandbox } from "effect-codex"
import * as Effect from "effect/Effect"

describe("Input", () => {
  it("converts a string, an item or several items to items", () => {
    assert.deepStrictEqual(Input.toItems("hi"), [{ type: "text", text: "hi" }])
    assert.deepStrictEqual(Input.toItems(Input.localImage("/a.png")), [{ type: "localImage", path: "/a.png" }])
    assert.deepStrictEqual(Input.toItems([]), [])
    assert.deepStrictEqual(
      Input.toItems([
        Input.text("look"),
        Input.image("data:image/png;base64,AA"),
        Input.skill("demo", "/skills/demo/SKILL.md"),
        Input.mention("repo", "app://repo")
      ]),
      [
        { type: "text", text: "look" },
        { type: "image", url: "data:image/png;base64,AA" },
        { type: "skill", name: "demo", path: "/skills/demo/SKILL.md" },
        { type: "mention", name: "repo", path: "app://repo" }
      ]
    )
  })

  it.effect("accepts as many characters as the server does, and counts them in the same way", () =>
    Effect.gen(function*() {
      yield* Input.validate("turn/start", "a".repeat(Input.maxChars))
      yield* Input.validate("turn/start", "😀".repeat(Input.maxChars))
      const error = yield* Effect.flip(
        Input.validate("turn/start", [Input.text("a".repeat(Input.maxChars)), Input.text("b")])
      )
      assert(error.reason._tag === "InvalidRequest")
      assert.include(error.message, "1048577 characters")
      assert.include(error.message, "nothing was sent")
    }))
})

describe("Sandbox", () => {
  it("builds the policies of the protocol", () => {
    assert.deepStrictEqual(Sandbox.readOnly(), { type: "readOnly" })
    assert.deepStrictEqual(Sandbox.readOnly({ networkAccess: true }), { type: "readOnly", networkAccess: true })
    assert.deepStrictEqual(Sandbox.workspaceWrite({ writableRoots: ["/a"] }), {
      type: "workspaceWrite",
      writableRoots: ["/a"]
    })
    assert.deepStrictEqual(Sandbox.dangerFullAccess, { type: "dangerFullAccess" })
  })

  it("maps each mode to the type of its policy", () => {
    assert.deepStrictEqual(
      (["read-only", "workspace-write", "danger-full-access"] as const).map(Sandbox.policyType),
      ["readOnly", "workspaceWrite", "dangerFullAccess"]
    )
  })
})
