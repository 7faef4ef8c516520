/** The real app-server behind a minimal client, to test the scripted model server without the SDK. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import { codexBinary } from "../../src/internal/stdio/codexBinary.ts"
import { CodexEnvironment } from "../../src/testing/CodexEnvironment.ts"
import { codexPath } from "../TestCodex.ts"
import { makeJsonClient } from "./jsonClient.ts"

/** Starts an initialized app-server in the {@link CodexEnvironment}. */
export const make = Effect.gen(function*() {
  const environment = yield* CodexEnvironment
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const process = yield* spawner.spawn(ChildProcess.make(codexPath ?? (yield* codexBinary), ["app-server"], {
    cwd: environment.workspace,
    env: environment.env,
    extendEnv: true,
    forceKillAfter: "2 seconds"
  }))
  const outgoing = yield* Queue.unbounded<string, Cause.Done>()
  yield* Stream.fromQueue(outgoing).pipe(Stream.encodeText, Stream.run(process.stdin), Effect.forkScoped)
  yield* Stream.runDrain(process.stderr).pipe(Effect.forkScoped)
  const { awaitMessage, call, received } = yield* makeJsonClient(
    process.stdout.pipe(Stream.decodeText(), Stream.splitLines),
    (line) => Queue.offer(outgoing, `${line}\n`)
  )

  /** Sends a request, and returns its result. */
  const request = (method: string, params: object) =>
    Effect.flatMap(
      call(method, params),
      ({ error, result }) => error === undefined ? Effect.succeed(result) : Effect.die(new Error(JSON.stringify(error)))
    )

  const startThread = (params?: object) =>
    Effect.map(
      request("thread/start", { cwd: environment.workspace, ...params }),
      ({ thread }): string => thread.id
    )

  /** Runs a turn to its end, and returns the turn in `turn/completed`. */
  const runTurn = Effect.fnUntraced(function*(threadId: string, text: string) {
    const { turn: { id } } = yield* request("turn/start", { threadId, input: [{ type: "text", text }] })
    const { params } = yield* awaitMessage(({ method, params }) => method === "turn/completed" && params.turn.id === id)
    return params.turn
  })

  /** Returns the params of all received notifications of a method. */
  const getParams = (method: string): Effect.Effect<ReadonlyArray<any>> =>
    Effect.map(
      received,
      (messages) =>
        messages.flatMap((message) => message.method === method && message.params !== undefined ? [message.params] : [])
    )

  /** The completed items. */
  const items = Effect.map(getParams("item/completed"), (all) => all.map(({ item }) => item))

  return { awaitMessage, getParams, items, request, runTurn, startThread }
})
