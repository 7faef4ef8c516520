import { assert, describe, it } from "@effect/vitest"
import { makeRedact, makeRemoveSecrets, redactInJson } from "../../../src/internal/redact.ts"
import { encodeToml } from "../../../src/internal/stdio/toml.ts"

describe("encodeToml", () => {
  it("encodes every kind of value", () => {
    assert.strictEqual(encodeToml("plain"), "\"plain\"")
    assert.strictEqual(encodeToml("q\"uo\\te\n\u0001\u007f é"), "\"q\\\"uo\\\\te\\n\\u0001\\u007f é\"")
    assert.strictEqual(encodeToml(1.5), "1.5")
    assert.strictEqual(encodeToml(1e21), "1e+21")
    assert.deepStrictEqual([NaN, Infinity, -Infinity].map(encodeToml), ["nan", "inf", "-inf"])
    assert.strictEqual(encodeToml([true, ["a"], []]), "[true, [\"a\"], []]")
    assert.strictEqual(encodeToml({ a: 1, "b c": { d: "e" } }), "{ a = 1, \"b c\" = { d = \"e\" } }")
  })
})

describe("redact", () => {
  it("removes a secret of several lines line by line", () => {
    const redact = makeRedact(["-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----"])
    assert.strictEqual(redact("MIIEvQIBADANBg"), "<redacted>")
    assert.strictEqual(redact("key: kqhkiG9w0BAQEF"), "key: <redacted>")
  })

  it("removes a secret in each encoding, and a secret that contains another one", () => {
    const redact = makeRedact(["se/c \"ret\"", "se/c \"ret\"-and-more"])
    const secret = "se/c \"ret\""
    for (const text of [secret, JSON.stringify(secret).slice(1, -1), encodeURIComponent(secret), btoa(secret)]) {
      assert.strictEqual(redact(`it is ${text}.`), "it is <redacted>.")
    }
    assert.strictEqual(redact(`${secret}-and-more`), "<redacted>")
    assert.strictEqual(redact("se/\u001b[31mc \"ret\""), "<redacted>")
  })

  it("leaves credentials and colors unchanged when it removes known secrets only", () => {
    const removeSecrets = makeRemoveSecrets(["correct horse"])
    const text = "\u001b[31mred\u001b[0m Authorization: Bearer abc.DEF-123"
    assert.strictEqual(removeSecrets(text), text)
    assert.strictEqual(removeSecrets("a correct horse"), "a <redacted>")
  })

  it("removes a secret that is escaped in JSON within JSON", () => {
    const redact = makeRedact(["a \"quoted\\ \tkey"])
    const once = JSON.stringify({ of: "a \"quoted\\ \tkey" })
    assert.strictEqual(redact(JSON.stringify(once)), JSON.stringify("{\"of\":\"<redacted>\"}"))
  })

  it("removes secrets from the keys and strings of JSON of any depth", () => {
    const redact = makeRemoveSecrets(["a \"secret\""])
    const json = {
      "its a \"secret\"": ["a \u001b[1m\"secret\"", 1, null, "\u001b[1mbold"],
      text: JSON.stringify({ of: "a \"secret\"" })
    }
    assert.deepStrictEqual(redactInJson(json, redact), {
      "its <redacted>": ["<redacted>", 1, null, "\u001b[1mbold"],
      text: "{\"of\":\"<redacted>\"}"
    })
    assert.strictEqual(redactInJson("a \"secret\"", redact), "<redacted>")
    assert.isArray(redactInJson(JSON.parse("[".repeat(100_000) + "]".repeat(100_000)), redact))
  })

  it("takes linear time", () => {
    const redact = makeRedact([])
    const text = "eyJ-".repeat(50_000)
    assert.strictEqual(redact(text), text)
  })

  it("removes given secrets and text that looks like a credential, and nothing else", () => {
    const redact = makeRedact(["correct horse", ""])
    assert.strictEqual(redact("open correct horse now"), "open <redacted> now")
    assert.strictEqual(redact("Authorization: Bearer abc.DEF-123"), "Authorization: <redacted> <redacted>")
    assert.strictEqual(redact("key sk-proj-abcdefgh12345"), "key <redacted>")
    assert.strictEqual(redact("jwt eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.sig"), "jwt <redacted>")
    assert.strictEqual(
      redact("{\"api_key\": \"hunter2\", \"model\": \"m\"}"),
      "{\"api_key\": <redacted>, \"model\": \"m\"}"
    )
    assert.strictEqual(redact("AWS_SECRET_ACCESS_KEY=abc123"), "AWS_SECRET_ACCESS_KEY=<redacted>")
    assert.strictEqual(redact("id AKIAIOSFODNN7EXAMPLE"), "id <redacted>")
    assert.strictEqual(redact("postgres://user:s3cret@host/db"), "postgres://user:<redacted>@host/db")
    assert.strictEqual(redact("\u001b[31mred\u001b[0m"), "red")
    assert.strictEqual(
      redact("error: failed to load configuration: unknown variant `x`"),
      "error: failed to load configuration: unknown variant `x`"
    )
  })
})
