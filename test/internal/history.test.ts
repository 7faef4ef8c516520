import { assert, describe, it } from "@effect/vitest"
import { Prompt } from "effect/ai"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { canonicalJson } from "../../src/internal/ai/canonicalJson.ts"
import { digest, findCandidate, toDigests } from "../../src/internal/ai/history.ts"

const reverse = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(reverse)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(Object.entries(value).reverse().map(([key, value]) => [key, reverse(value)]))
    : value

describe("canonicalJson", () => {
  it.prop("does not depend on the order of properties", { json: Schema.Json }, ({ json }) => {
    assert.strictEqual(canonicalJson(json), canonicalJson(reverse(json)))
  })

  it.prop("keeps the value", { json: Schema.Json }, ({ json }) => {
    assert.deepStrictEqual(JSON.parse(canonicalJson(json)), JSON.parse(JSON.stringify(json)))
  })
})

/** A message of a conversation, as its role and its text. */
const Line = Schema.Struct({ role: Schema.Literals(["system", "user", "assistant"]), text: Schema.String })

const toMessage = ({ role, text }: typeof Line.Type): Prompt.Message =>
  role === "system"
    ? Prompt.systemMessage({ content: text })
    : Prompt.makeMessage(role, { content: [Prompt.textPart({ text })] })

const Conversation = Schema.Array(Line).check(Schema.isMaxLength(6))

describe("Digests of messages", () => {
  it.effect.prop(
    "are equal as long as the messages are",
    { one: Conversation, other: Conversation },
    Effect.fnUntraced(function*({ one, other }) {
      const [first, second] = yield* Effect.all([toDigests(one.map(toMessage)), toDigests(other.map(toMessage))])
      for (let length = 0; length <= Math.min(one.length, other.length); length++) {
        const isSame = JSON.stringify(one.slice(0, length)) === JSON.stringify(other.slice(0, length))
        assert.strictEqual(first[length] === second[length], isSame)
      }
    })
  )

  it.effect.prop(
    "do not depend on results of tools, on reasoning, and on what the provider executed",
    { conversation: Conversation },
    Effect.fnUntraced(function*({ conversation }) {
      const messages = conversation.map(toMessage)
      const noise: ReadonlyArray<Prompt.Message> = [
        Prompt.toolMessage({
          content: [
            Prompt.toolResultPart({ id: "1", name: "x", result: 1, isFailure: false, providerExecuted: false })
          ]
        }),
        Prompt.assistantMessage({
          content: [
            Prompt.reasoningPart({ text: "hm" }),
            Prompt.toolCallPart({ id: "2", name: "y", params: {}, providerExecuted: true })
          ]
        })
      ]
      const plain = yield* toDigests(messages)
      const noisy = yield* toDigests(messages.flatMap((message) => [message].concat(noise)))
      assert.strictEqual(noisy.at(-1), plain.at(-1))
    })
  )

  it.effect("find the response that a prompt continues, and none that was changed", () =>
    Effect.gen(function*() {
      const user = Prompt.userMessage({ content: [Prompt.textPart({ text: "Hi" })] })
      const [, history = ""] = yield* toDigests([user])
      const respond = Effect.fnUntraced(function*(text: string, written = text) {
        const codex = { threadId: "t", turnId: "1", history, tools: "", text: yield* digest(written) }
        return Prompt.assistantMessage({ content: [Prompt.textPart({ text, options: { codex } })] })
      })
      const find = Effect.fnUntraced(function*(...messages: ReadonlyArray<Prompt.Message>) {
        return yield* findCandidate(messages, yield* toDigests(messages), () => true)
      })
      const response = yield* respond("Hello")
      assert.deepInclude(yield* find(user, response, user), { index: 1, isEnd: true })
      assert.isUndefined(yield* find(user, yield* respond("Changed", "Hello"), user))
      assert.isUndefined(yield* find(user, user, response))
      assert.isUndefined(yield* find(response, user))
      assert.isUndefined(yield* find(user, Prompt.assistantMessage({ content: [Prompt.textPart({ text: "Hello" })] })))
    }))
})
