/** A second app-server process resumes a thread of the first one. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { AppServer, Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { layerOptions, layerProcess, text } from "./support/codex.ts"

/** Each use starts a separate process, and stops it. */
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
  const reminder = request.userTexts.find((input) => input.startsWith("Remember"))
  return text(reminder === request.lastUserText ? "I will remember it." : `You said: ${reminder}`)
})

first.pipe(Effect.flatMap(second), Effect.provide(model), NodeRuntime.runMain)
