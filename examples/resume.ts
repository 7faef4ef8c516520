/** A thread outlives the process: a second app-server goes on where the first one stopped. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { AppServer, Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { layerOptions, layerProcess, text } from "./support/codex.ts"

/** Each use starts a process of its own, and stops it. */
const inOwnProcess = Effect.provide(layerProcess, { local: true })

const processId = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const { process } = yield* server.request("server/diagnostics")
  return process.id
})

const first = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ sandbox: "read-only" })
  yield* thread.setName("Remember the word")
  const { finalResponse } = yield* thread.run("Remember the word: lighthouse")
  yield* Console.log(`Process ${yield* processId}: ${finalResponse}`)
  return thread.id
}).pipe(inOwnProcess)

const second = Effect.fn(function*(id: string) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.resumeThread(id)
  const { finalResponse } = yield* thread.run("Which word was it?")
  yield* Console.log(`Process ${yield* processId}: ${finalResponse}`)
  const { name, turns } = yield* thread.read({ includeTurns: true })
  yield* Console.log(`Thread "${name}" has ${turns.length} turns`)
}, inOwnProcess)

const model = layerOptions((request) => {
  const told = request.userTexts.find((said) => said.startsWith("Remember"))
  return text(told === request.lastUserText ? "I will remember it." : `You said: ${told}`)
})

first.pipe(Effect.flatMap(second), Effect.provide(model), NodeRuntime.runMain)
