/**
 * Two programs on one app-server. The worker runs a turn and leaves its approvals to others. The supervisor attaches to the thread of the
 * worker, follows its turn, and decides.
 *
 * In production the server runs on its own, for example as a service, and each program is a process.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as NodeWS from "@effect/platform-node/NodeWS"
import { Approvals, AppServer, Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { deltas, functionCall, layerOptions, text } from "./support/codex.ts"
import { startServer } from "./support/server.ts"

/** Codex on the server. Each program has a connection of its own, and reconnects if it is lost. */
const attach = (url: string) =>
  Layer.fresh(Codex.layerWebSocket(url)).pipe(Layer.provide(NodeWS.layerWebSocketConstructor))

const worker = Effect.fn(function*(started: Deferred.Deferred<string>, supervised: Deferred.Deferred<void>) {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({
    approvalPolicy: "untrusted",
    approvalsReviewer: "user",
    // Without a handler, this program would decline before the supervisor can decide.
    approvals: { command: () => Effect.never }
  })
  // The server stores a thread with its first turn. Then other programs can open it.
  yield* thread.run("Hello", { approvals: { command: () => Effect.succeed(Approvals.decline) } })
  yield* Deferred.succeed(started, thread.id)
  yield* Deferred.await(supervised)
  const { finalResponse, items } = yield* thread.run("Write a greeting")
  for (const item of items) {
    if (item.type === "commandExecution") yield* Console.log(`Worker: the command is ${item.status}`)
  }
  yield* Console.log(`Worker: ${finalResponse ?? "no response"}`)
})

const supervisor = Effect.fn(function*(started: Deferred.Deferred<string>, supervised: Deferred.Deferred<void>) {
  const codex = yield* Codex.Codex
  const server = yield* AppServer.AppServer
  const thread = yield* codex.resumeThread(yield* Deferred.await(started), {
    approvals: {
      command: ({ command, script }) =>
        Effect.as(Console.log(`Supervisor: accept ${script ?? command ?? "the command"}`), Approvals.accept)
    }
  })
  const reading = yield* server.notifications.pipe(
    Stream.takeUntil(({ method }) => method === "turn/completed"),
    Stream.runForEach((event) =>
      event.method === "item/agentMessage/delta" && event.params.threadId === thread.id
        ? Console.log(`Supervisor: the model writes "${event.params.delta}"`)
        : Effect.void
    ),
    Effect.forkChild({ startImmediately: true })
  )
  yield* Deferred.succeed(supervised, undefined)
  yield* Fiber.join(reading)
})

const program = Effect.gen(function*() {
  const url = yield* startServer
  const started = yield* Deferred.make<string>()
  const supervised = yield* Deferred.make<void>()
  yield* Effect.all([
    Effect.provide(worker(started, supervised), attach(url)),
    Effect.provide(supervisor(started, supervised), attach(url))
  ], { concurrency: "unbounded" })
}).pipe(Effect.scoped)

const model = layerOptions((request) =>
  !JSON.stringify(request.body).includes("Write a greeting")
    ? text("Hello.")
    : request.functionCallOutput("command") === undefined
    ? functionCall("exec_command", { cmd: "echo hello", login: false }, { callId: "command" })
    : deltas(["The greeting ", "is written."])
)

program.pipe(
  Effect.provide(model),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
