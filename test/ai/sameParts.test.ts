/** The same programs on Codex and on a plain provider of the Responses API: they receive the same parts. */
import { assert, layer } from "@effect/vitest"
import { CodexLanguageModel } from "effect-codex/ai"
import { ModelServer } from "effect-codex/testing"
import { Chat, LanguageModel, type Prompt, type Response, Tool, Toolkit } from "effect/ai"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestCodex from "../TestCodex.ts"
import * as PlainProvider from "./PlainProvider.ts"

const { deltas, functionCall, message, reasoning, reply } = ModelServer

const usage = { inputTokens: 10, cachedInputTokens: 4, outputTokens: 5, reasoningTokens: 2 }

const toolkit = Toolkit.make(
  Tool.make("weather", {
    description: "The weather at a place",
    parameters: Schema.Struct({ place: Schema.String }),
    success: Schema.Struct({ celsius: Schema.Number })
  }),
  Tool.make("remove", {
    parameters: Schema.Struct({ path: Schema.String }),
    success: Schema.String,
    failure: Schema.Struct({ reason: Schema.String }),
    failureMode: "return"
  }),
  Tool.make("deploy", { parameters: Schema.Struct({ to: Schema.String }), success: Schema.String, needsApproval: true })
)

const handlers = toolkit.toLayer({
  weather: ({ place }) => Effect.succeed({ celsius: place === "Oslo" ? -3 : 20 }),
  remove: ({ path }) => path === "/" ? Effect.fail({ reason: "no" }) : Effect.succeed("removed"),
  deploy: ({ to }) => Effect.succeed(`deployed to ${to}`)
})

/** The parts without what each provider has of its own: ids, times and metadata. */
const normalize = (parts: ReadonlyArray<Response.AnyPart>): ReadonlyArray<object> => {
  const ids = new Map<string, number>()
  const number = (id: string) => ids.get(id) ?? ids.set(id, ids.size).get(id)
  return parts.flatMap((part) => {
    if (part.type === "response-metadata") return []
    const { metadata: _, ...rest } = JSON.parse(JSON.stringify(part))
    if ("id" in rest && part.type !== "tool-call" && part.type !== "tool-result") rest.id = number(rest.id)
    if ("approvalId" in rest) rest.approvalId = number(rest.approvalId)
    return [rest]
  })
}

type Program = Effect.Effect<
  ReadonlyArray<Response.AnyPart>,
  unknown,
  LanguageModel.LanguageModel | Layer.Success<typeof handlers>
>

const text = (options: { readonly prompt: Prompt.RawInput }) =>
  Effect.map(LanguageModel.generateText(options), ({ content }) => content)

/** Runs the steps of a chat with tools until the model has no more calls. */
const loop = Effect.fnUntraced(function*(prompt: string) {
  const chat = yield* Chat.fromPrompt([{ role: "system", content: "You are terse." }])
  const parts: Array<Response.AnyPart> = []
  for (let input: Prompt.RawInput = prompt;; input = []) {
    const response = yield* chat.generateText({ prompt: input, toolkit })
    parts.push(...response.content)
    if (response.toolResults.length === 0) return parts
  }
})

const streamLoop = Effect.fnUntraced(function*(prompt: string) {
  const chat = yield* Chat.empty
  const parts: Array<Response.AnyPart> = []
  for (let input: Prompt.RawInput = prompt;; input = []) {
    const response = yield* Stream.runCollect(chat.streamText({ prompt: input, toolkit }))
    parts.push(...response)
    if (!response.some(({ type }) => type === "tool-result")) return parts
  }
})

const approve = Effect.fnUntraced(function*(approved: boolean) {
  const chat = yield* Chat.empty
  const { content } = yield* chat.generateText({ prompt: "Deploy", toolkit })
  const request = content.find((part) => part.type === "tool-approval-request")
  assert(request !== undefined)
  const response = yield* chat.generateText({
    prompt: [{
      role: "tool",
      content: [{ type: "tool-approval-response", approvalId: request.approvalId, approved, reason: "because" }]
    }],
    toolkit
  })
  return [...content, ...response.content]
})

const programs: Readonly<Record<string, readonly [ReadonlyArray<ModelServer.Reply>, Program]>> = {
  "a text": [[reply([message("42")], { usage })], text({ prompt: "6 * 7?" })],
  "a history": [
    [reply([message("Bob")], { usage })],
    text({
      prompt: [
        { role: "system", content: "Be brief." },
        { role: "user", content: "I am Bob." },
        { role: "assistant", content: "Hello." },
        { role: "user", content: "Who am I?" }
      ]
    })
  ],
  reasoning: [[reply([reasoning(["one", "two"]), message("done")], { usage })], text({ prompt: "Think" })],
  "several texts": [[reply([message("one"), message("two")], { usage })], text({ prompt: "Go" })],
  "a stream": [
    [reply([reasoning("hm"), deltas(["a", "b", "c"])], { usage })],
    Stream.runCollect(LanguageModel.streamText({ prompt: "abc" }))
  ],
  "an object": [
    [reply([message(JSON.stringify({ name: "Ada", nick: null }))], { usage })],
    Effect.map(
      LanguageModel.generateObject({
        prompt: "Who?",
        schema: Schema.Struct({ name: Schema.String, nick: Schema.optionalKey(Schema.String) })
      }),
      ({ content, value }) => {
        assert.deepStrictEqual(value, { name: "Ada" })
        return content
      }
    )
  ],
  "parallel calls": [
    [
      reply([
        message("I look it up."),
        functionCall("weather", { place: "Oslo" }, { callId: "c1" }),
        functionCall("weather", { place: "Rome" }, { callId: "c2" })
      ], { usage }),
      reply([message("cold and warm")], { usage })
    ],
    loop("weather?")
  ],
  "streamed calls": [
    [
      reply([functionCall("weather", { place: "Oslo" }, { callId: "c1" })], { usage }),
      reply([functionCall("weather", { place: "Rome" }, { callId: "c2" })], { usage }),
      reply([deltas(["cold ", "and warm"])], { usage })
    ],
    streamLoop("weather?")
  ],
  "a failure that is returned": [
    [
      reply([functionCall("remove", { path: "/" }, { callId: "c1" })], { usage }),
      reply([message("I may not")], { usage })
    ],
    loop("remove /")
  ],
  "arguments that do not decode, returned": [
    [
      reply([functionCall("remove", { file: "/" }, { callId: "c1" })], { usage }),
      reply([message("sorry")], { usage })
    ],
    loop("remove")
  ],
  "an approval": [
    [
      reply([functionCall("deploy", { to: "production" }, { callId: "c1" })], { usage }),
      reply([message("deployed")], { usage })
    ],
    approve(true)
  ],
  "a denial": [
    [
      reply([functionCall("deploy", { to: "production" }, { callId: "c1" })], { usage }),
      reply([message("not deployed")], { usage })
    ],
    approve(false)
  ],
  "calls that the program resolves itself": [
    [reply([functionCall("weather", { place: "Oslo" }, { callId: "c1" })], { usage })],
    Effect.map(
      LanguageModel.generateText({ prompt: "weather?", toolkit, disableToolCallResolution: true }),
      ({ content }) => content
    )
  ]
}

layer(TestCodex.layer(), { excludeTestServices: true })("Codex and a plain provider", (it) => {
  for (const [name, [replies, program]] of Object.entries(programs)) {
    it.effect(`give the same parts for ${name}`, () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const run = (provider: Layer.Layer<LanguageModel.LanguageModel, never, Layer.Services<typeof both>>) =>
          Effect.gen(function*() {
            yield* model.reset
            yield* model.enqueue(...replies)
            const parts = yield* program
            assert.lengthOf(yield* model.requests, replies.length)
            return normalize(parts)
          }).pipe(Effect.provide(handlers), Effect.provide(provider))
        const plain = yield* run(PlainProvider.layer)
        const codex = yield* run(CodexLanguageModel.layer())
        assert.deepStrictEqual(codex, plain)
        assert.isAbove(plain.length, 1)
      }))
  }
})

const both = Layer.merge(PlainProvider.layer, CodexLanguageModel.layer())
