/** This package, through its public API. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as NodeWS from "@effect/platform-node/NodeWS"
import { AppServer, Codex, CodexPool, type Thread, TurnView } from "effect-codex"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import { existsSync } from "node:fs"
import { tmpdir } from "node:os"
import { begin, end, heapMb, plan, server, Totals } from "../plan.ts"

const totals = new Totals()

const add = (event: { readonly method: string; readonly params?: any }): void => {
  if (event.method === "item/agentMessage/delta") totals.add(event.params.delta)
  else if (event.method === "item/completed" && plan.kind === "big") totals.add(event.params.item.text)
}

const consume = Effect.fnUntraced(function*(thread: Thread.Thread) {
  switch (plan.mode) {
    case "run":
      yield* thread.run("go")
      return
    case "text": {
      const turn = yield* thread.turn("go")
      return yield* Stream.runForEachArray(turn.text, (texts) =>
        Effect.sync(() => {
          for (const text of texts) totals.addText(text)
        }))
    }
    case "view": {
      const turn = yield* thread.turn("go")
      let view = TurnView.empty(turn.threadId, turn.id)
      yield* Stream.runForEachArray(turn.events, (events) =>
        Effect.sync(() => {
          view = events.reduce(TurnView.reduce, view)
        }))
      for (const { item } of view.items) if (item.type === "agentMessage") totals.addText(item.text)
      return
    }
    case "each":
      return yield* Stream.runForEach(thread.stream("go"), (event) => Effect.sync(() => add(event)))
    case "slow":
      // Each event replaces the previous one, and takes a hundred times as long as its arrival.
      return yield* Stream.runForEachArray(
        thread.stream("go"),
        (events) => Effect.andThen(Effect.sync(() => events.forEach(add)), Effect.sleep(events.length / 10))
      )
    default:
      return yield* Stream.runForEachArray(thread.stream("go"), (events) =>
        Effect.sync(() => {
          for (const event of events) add(event)
        }))
  }
}, Effect.scoped)

const runTurns = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const start = Effect.all(Array.from({ length: plan.turns }, () => codex.startThread()), { concurrency: "unbounded" })
  const first = yield* start
  const before = globalThis.gc === undefined ? 0 : heapMb()
  begin()
  if (plan.kind === "real") {
    yield* Effect.forEach(
      first,
      (thread) => Effect.forEach(Array.from({ length: plan.messages }), () => consume(thread), { discard: true }),
      { concurrency: "unbounded", discard: true }
    )
    return end()
  }
  yield* Effect.forEach(first, consume, { concurrency: "unbounded", discard: true })
  for (let i = 1; i < (plan.rounds ?? 1); i++) {
    yield* Effect.forEach(yield* start, consume, { concurrency: "unbounded", discard: true })
  }
  if (globalThis.gc !== undefined) return end({ heapGrowthMb: heapMb() - before })
  end(plan.mode === "run" ? {} : totals.check())
})

const runRequests = Effect.gen(function*() {
  const appServer = yield* AppServer.AppServer
  const list = appServer.request("model/list", {})
  for (let i = 0; i < 200; i++) yield* list
  begin()
  if (plan.mode === "sequential") {
    for (let i = 0; i < plan.messages; i++) yield* list
  } else {
    const many = Array.from({ length: 1000 }, () => list)
    for (let i = 0; i < plan.messages; i += 1000) {
      yield* Effect.all(many, { concurrency: "unbounded", discard: true })
    }
  }
  end()
})

const firstAnswer = AppServer.AppServer.use((appServer) => Effect.asVoid(appServer.request("model/list", {})))

const program: Effect.Effect<void, unknown, AppServer.AppServer | Codex.Codex> = plan.first
  ? firstAnswer
  : plan.mode === "sequential" || plan.mode === "concurrent"
  ? runRequests
  : runTurns

/** Starts the server, and attaches to it. */
const layerSocket = Layer.unwrap(Effect.gen(function*() {
  const path = `${tmpdir()}/effect-codex-benchmark-${process.pid}.sock`
  const spawner = yield* ChildProcessSpawner
  const listen = plan.socket === "WebSocket" ? "ws://127.0.0.1:0" : `unix://${path}`
  const child = yield* spawner.spawn(ChildProcess.make(server.command, ["app-server", "--listen", listen]))
  const url = yield* Deferred.make<string>()
  yield* Effect.forkScoped(Stream.runForEach(Stream.splitLines(Stream.decodeText(child.stderr)), (line) => {
    const found = /listening on: (\S+)/.exec(line)?.[1]
    return found === undefined ? Effect.void : Deferred.succeed(url, found)
  }))
  if (plan.socket === "WebSocket") return Codex.layerWebSocket(yield* Deferred.await(url))
  while (!existsSync(path)) yield* Effect.sleep("5 millis")
  return Codex.layerUnixSocket(path)
})).pipe(Layer.provide(NodeWS.layerWebSocketConstructor))

const layerProcess = () => Codex.layerStdio({ codexPath: server.command, env: server.env() })

/** Runs the program of the plan on its servers. */
const provided = plan.members === undefined
  ? Effect.provide(program, plan.socket === undefined ? layerProcess() : layerSocket)
  : Effect.provide(runTurns, CodexPool.layer({ size: plan.members, codex: layerProcess }))

const tracer = Tracer.make({ span: (options) => new Tracer.NativeSpan(options) })

// The measurement is the only output. The server may warn about its configuration.
void Effect.runPromise(provided.pipe(
  Effect.provide(NodeServices.layer),
  Effect.provide(Logger.layer([])),
  plan.traced === true ? Effect.withTracer(tracer) : identity
))
