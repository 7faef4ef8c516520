/**
 * The thinnest client of `codex app-server` that a test can be written with: lines in, lines out, everything received
 * is kept. It exists to test the scripted model server without the SDK.
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { codexBinary } from "../../src/internal/stdio/codexBinary.ts"
import { CodexEnvironment } from "../../src/testing/CodexEnvironment.ts"
import { codexPath } from "../TestCodex.ts"

const Message = Schema.Struct({
  id: Schema.optionalKey(Schema.Union([Schema.Number, Schema.String])),
  method: Schema.optionalKey(Schema.String),
  params: Schema.optionalKey(Schema.JsonObject),
  result: Schema.optionalKey(Schema.Json),
  error: Schema.optionalKey(Schema.JsonObject)
})

export type Message = typeof Message.Type

const decodeMessage = Schema.decodeUnknownEffect(Schema.fromJsonString(Message))

const turnOf = (payload: Schema.JsonObject) =>
  payload["turn"] as { readonly id: string; readonly status: string; readonly error: Schema.JsonObject | null }

/** Starts an initialized app-server in the environment at hand. */
export const make = Effect.gen(function*() {
  const environment = yield* CodexEnvironment
  const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
  const process = yield* spawner.spawn(ChildProcess.make(codexPath ?? (yield* codexBinary), ["app-server"], {
    cwd: environment.workspace,
    env: environment.env,
    extendEnv: true,
    forceKillAfter: "2 seconds"
  }))
  const received = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
  const outgoing = yield* Queue.unbounded<string, Cause.Done>()
  yield* Stream.fromQueue(outgoing).pipe(Stream.encodeText, Stream.run(process.stdin), Effect.forkScoped)
  yield* Stream.runDrain(process.stderr).pipe(Effect.forkScoped)
  yield* process.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.mapEffect((line) => decodeMessage(line)),
    Stream.runForEach((message) => SubscriptionRef.update(received, (all) => [...all, message])),
    Effect.forkScoped
  )

  const send = (message: object) => Queue.offer(outgoing, JSON.stringify(message) + "\n")

  /** Waits for the first message, of all received so far and from now on, that satisfies the predicate. */
  const awaitMessage = (predicate: (message: Message) => boolean) =>
    SubscriptionRef.changes(received).pipe(
      Stream.map((messages) => messages.find(predicate)),
      Stream.filter((message) => message !== undefined),
      Stream.runHead,
      Effect.map(Option.getOrThrow),
      Effect.timeout("10 seconds")
    )

  let lastId = 0
  const request = Effect.fnUntraced(function*(method: string, params: object) {
    const id = ++lastId
    yield* send({ id, method, params })
    const { error, result } = yield* awaitMessage((message) => message.id === id && message.method === undefined)
    return error === undefined ? (result as Schema.JsonObject) : yield* Effect.die(new Error(JSON.stringify(error)))
  })

  const startThread = Effect.fnUntraced(function*(params?: object) {
    const { thread } = yield* request("thread/start", { cwd: environment.workspace, ...params })
    return (thread as { readonly id: string }).id
  })

  const startTurn = (threadId: string, text: string) =>
    request("turn/start", { threadId, input: [{ type: "text", text }] })

  /** Runs a turn to its end, and returns what `turn/completed` says about it. */
  const runTurn = Effect.fnUntraced(function*(threadId: string, text: string) {
    const { id } = turnOf(yield* startTurn(threadId, text))
    const { params = {} } = yield* awaitMessage(({ method, params }) =>
      method === "turn/completed" && params !== undefined && turnOf(params).id === id
    )
    return turnOf(params)
  })

  /** The params of every notification of this method so far. */
  const paramsOf = (method: string) =>
    SubscriptionRef.get(received).pipe(
      Effect.map((messages) =>
        messages.flatMap((message) => message.method === method && message.params !== undefined ? [message.params] : [])
      )
    )

  /** The items completed so far. */
  const items = paramsOf("item/completed").pipe(
    Effect.map((all) => all.map((params) => params["item"] as Schema.JsonObject))
  )

  yield* request("initialize", {
    clientInfo: { name: "raw_app_server", title: null, version: "0.0.0" },
    capabilities: { experimentalApi: true }
  })
  yield* send({ method: "initialized" })

  return { awaitMessage, items, paramsOf, request, runTurn, send, startThread, startTurn }
})
