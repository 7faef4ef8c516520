/** Streams a chat with Codex, exports it as JSON, and continues it in a second process from that JSON. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { CodexLanguageModel, CodexTool } from "effect-codex/ai"
import { Chat, Toolkit } from "effect/ai"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { deltas, functionCall, layerOptions, layerProcess, reply } from "./support/codex.ts"

// With this tool, the responses contain the commands that Codex runs.
const toolkit = Toolkit.make(CodexTool.Command())

/** Sends a message, and prints the response while it arrives. */
const say = Effect.fnUntraced(function*(chat: Chat.Chat, prompt: string) {
  yield* Console.log(`> ${prompt}`)
  yield* chat.streamText({ prompt, toolkit }).pipe(
    Stream.runForEach((part) => {
      switch (part.type) {
        case "text-delta":
          return Effect.sync(() => process.stdout.write(part.delta))
        case "tool-result":
          return part.isFailure
            ? Effect.void
            : Console.log(`$ ${part.result.command}\n${part.result.output}(exit code ${part.result.exitCode})`)
        case "finish":
          return Console.log(`\n(${part.usage.outputTokens.total} tokens)\n`)
        default:
          return Effect.void
      }
    })
  )
})

const first = Effect.gen(function*() {
  const chat = yield* Chat.fromPrompt([{ role: "system", content: "Answer in one sentence." }])
  yield* say(chat, "How many files are here?")
  return yield* chat.exportJson
})

const second = Effect.fnUntraced(function*(json: string) {
  const chat = yield* Chat.fromJson(json)
  yield* say(chat, "And how did you count them?")
})

/** Codex as a language model, on a process of its own. */
const inOwnProcess = Effect.provide(Layer.provide(CodexLanguageModel.layer(), layerProcess), { local: true })

Effect.flatMap(inOwnProcess(first), (json) => inOwnProcess(second(json))).pipe(
  Effect.provide(layerOptions([
    functionCall("exec_command", { cmd: "ls | wc -l; sleep 0.3" }),
    reply([deltas(["There are ", "no files here."])], { usage: { inputTokens: 90, outputTokens: 8 } }),
    reply([deltas(["I listed them ", "with `ls`."])], { usage: { inputTokens: 120, outputTokens: 9 } })
  ])),
  NodeRuntime.runMain
)
