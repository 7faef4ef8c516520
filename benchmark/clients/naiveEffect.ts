/**
 * A first attempt with Effect: a stream of lines, an effect for each line, a decoder for the union of all notifications, and a queue
 * for each turn.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Protocol } from "effect-codex"
import type * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { begin, end, plan, server, Totals } from "../plan.ts"

const decode = Schema.decodeUnknownEffect(Protocol.ServerNotification)

const program = Effect.gen(function*() {
  const spawner = yield* ChildProcessSpawner
  const child = yield* spawner.spawn(ChildProcess.make(server.command, ["app-server"], { env: server.env() }))
  const outgoing = yield* Queue.unbounded<string, Cause.Done>()
  yield* Stream.fromQueue(outgoing).pipe(Stream.encodeText, Stream.run(child.stdin), Effect.forkScoped)
  const pending = new Map<number, Deferred.Deferred<any>>()
  const turns = new Map<string, Queue.Queue<Protocol.ServerNotification, Cause.Done>>()

  const receive = Effect.fnUntraced(function*(line: string) {
    const message = JSON.parse(line)
    if (message.method === undefined) {
      yield* Deferred.succeed(pending.get(message.id)!, message.result)
      return
    }
    const event = yield* decode(message)
    const queue = turns.get(message.params.threadId)
    if (queue === undefined) return
    yield* Queue.offer(queue, event)
    if (event.method === "turn/completed") yield* Queue.end(queue)
  })
  yield* child.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.mapEffect(receive),
    Stream.runDrain,
    Effect.forkScoped
  )

  let id = 0
  const request = Effect.fnUntraced(function*(method: string, params: unknown) {
    const response = yield* Deferred.make<any>()
    pending.set(++id, response)
    yield* Queue.offer(outgoing, JSON.stringify({ id, method, params }) + "\n")
    return yield* Deferred.await(response)
  })
  yield* request("initialize", { clientInfo: { name: "benchmark", title: null, version: "1.0.0" } })
  const threads: ReadonlyArray<string> = yield* Effect.forEach(
    Array.from({ length: plan.turns }),
    () => Effect.map(request("thread/start", {}), ({ thread }) => thread.id),
    { concurrency: "unbounded" }
  )
  const totals = new Totals()
  begin()
  yield* Effect.forEach(
    threads,
    Effect.fnUntraced(function*(threadId) {
      const queue = yield* Queue.unbounded<Protocol.ServerNotification, Cause.Done>()
      turns.set(threadId, queue)
      yield* request("turn/start", { threadId, input: [{ type: "text", text: "go" }] })
      yield* Stream.runForEach(Stream.fromQueue(queue), (event) =>
        Effect.sync(() => {
          if (event.method === "item/agentMessage/delta") totals.add(event.params.delta)
        }))
    }),
    { concurrency: "unbounded", discard: true }
  )
  end(totals.check())
})

void Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(NodeServices.layer)))
