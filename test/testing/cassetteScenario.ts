/** A session with events of each kind. `npm run record` records it from the real app-server, and tests replay it. */
import { AppServer, Codex, type Thread } from "effect-codex"
import * as Array from "effect/Array"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as Cassette from "../../src/testing/Cassette.ts"
import * as CodexEnvironment from "../../src/testing/CodexEnvironment.ts"
import * as ModelServer from "../../src/testing/ModelServer.ts"
import * as TestCodex from "../../src/testing/TestCodex.ts"
import { layerCodex } from "./layerCodex.ts"

export const cassette = "test/cassettes/session.jsonl"

const usage = { inputTokens: 120, cachedInputTokens: 40, outputTokens: 30, reasoningTokens: 12 }

/** The model's reply to each prompt of the scenario. */
const script = (request: ModelServer.ModelRequest): ModelServer.Reply => {
  const after = (callId: string, call: ModelServer.Item, reply: ModelServer.Reply) =>
    request.functionCallOutput(callId) === undefined ? call : reply
  switch (request.lastUserText) {
    case "Think, then answer":
      return ModelServer.reply([
        ModelServer.reasoning(["Weighing the question", "Choosing words"]),
        ModelServer.deltas(["Forty", "-", "two."], { phase: "final_answer" })
      ], { usage })
    case "List the files":
      return after(
        "call_list",
        ModelServer.functionCall("exec_command", { cmd: "sleep 0.4; echo one; echo two" }, { callId: "call_list" }),
        ModelServer.reply([ModelServer.message("There are two.")], { usage })
      )
    case "Try something forbidden":
      return after(
        "call_forbidden",
        ModelServer.functionCall("exec_command", { cmd: "touch forbidden" }, { callId: "call_forbidden" }),
        ModelServer.text("You said no.")
      )
    case "Never finish":
      return ModelServer.hang([ModelServer.deltas(["Half of it"], { unfinished: true })])
    case "Fail":
      return ModelServer.failed({ code: "rate_limit_exceeded", message: "too many of them" })
    default:
      return ModelServer.text(`You said: ${request.lastUserText}`)
  }
}

const collectEvents = (thread: Thread.Thread, input: string) => Stream.runCollect(thread.stream(input))

/** Runs the session, and returns all that a program observes of it. */
export const scenario = Effect.fnUntraced(function*(cwd: string, names: readonly [string, string] = ["a", "b"]) {
  const codex = yield* Codex.Codex
  const server = yield* AppServer.AppServer
  const all = yield* Stream.runCollect(
    Stream.takeUntil(server.notifications, ({ method }) => method === "thread/name/updated")
  ).pipe(Effect.forkChild({ startImmediately: true }))

  const approvals: Array<unknown> = []
  yield* server.handle("item/commandExecution/requestApproval", (request) => {
    approvals.push(request)
    return Effect.succeed({ decision: request.command?.includes("forbidden") === true ? "decline" : "accept" })
  })

  const thread = yield* codex.startThread({
    cwd,
    sandbox: "danger-full-access",
    approvalPolicy: "untrusted",
    approvalsReviewer: "user"
  })
  const answered = yield* collectEvents(thread, "Think, then answer")
  const listed = yield* thread.run("List the files")
  const refused = yield* thread.run("Try something forbidden")

  const turn = yield* thread.turn("Never finish")
  yield* Stream.runHead(turn.text)
  yield* turn.interrupt
  const interrupted = yield* turn.result

  const abandoned = yield* thread.stream("Never finish").pipe(
    Stream.takeUntil(({ method }) => method === "item/agentMessage/delta"),
    Stream.runCollect
  )
  const failed = yield* Effect.result(thread.run("Fail"))

  const together = yield* Effect.forEach(
    names,
    (name) =>
      Effect.flatMap(
        codex.startThread({ cwd, sandbox: "read-only" }),
        (thread) => collectEvents(thread, `I am ${name}`)
      ),
    { concurrency: 2 }
  )

  const models = yield* Stream.runCollect(codex.models())
  const threads = yield* Stream.runCollect(codex.listThreads())
  const read = yield* thread.read({ includeTurns: true })
  const missing = yield* Effect.result(codex.resumeThread("00000000-0000-7000-8000-000000000000"))
  yield* thread.setName("Everything")
  const notifications = yield* Fiber.join(all)

  return {
    metadata: codex.metadata,
    answered,
    listed,
    refused,
    interrupted,
    abandoned,
    failed: Result.isFailure(failed) ? failed.failure.message : "it did not fail",
    together,
    models: Array.map(models, ({ id }) => id),
    threads,
    read,
    missing: Result.isFailure(missing) ? missing.failure.message : "it is not missing",
    approvals,
    notifications
  }
}, Effect.scoped)

/** Records the scenario from the real app-server with the scripted model, and returns what it observed. */
export const recordScenario = Effect.fnUntraced(function*(path: string) {
  const environment = yield* CodexEnvironment.CodexEnvironment
  const model = yield* ModelServer.ModelServer
  yield* model.respond(script)
  return yield* scenario(environment.workspace).pipe(
    Effect.provide(
      layerCodex(
        Cassette.record(path, { redact: { fields: ["installationId", "serverName"] } }).pipe(
          Layer.provide(TestCodex.layerTransport())
        )
      )
    )
  )
}, Effect.provide(TestCodex.layerEnvironment()))

/** Provides Codex on a recording. */
export const layerReplay = (path: string) => layerCodex(Cassette.replay(path))
