/** The real `codex app-server` in a hermetic home, with a scripted model and a record of the messages on the wire. */
import type * as NodeServices from "@effect/platform-node/NodeServices"
import { AppServer, AppServerError, Codex, Protocol, Transport } from "effect-codex"
import { type CodexEnvironment, ModelServer, TestCodex as Kit } from "effect-codex/testing"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

/** The version of the tested binary: the pinned one, unless `npm run test:floor` sets another. */
export const version = process.env["CODEX_TEST_VERSION"] ?? Protocol.version

/** The path of the other binary. */
export const codexPath = process.env["CODEX_TEST_PATH"]

/** A message on the wire. Requests and notifications have a method, responses have none. */
const Message = Schema.Struct({
  id: Schema.optional(Schema.Union([Schema.String, Schema.Number])),
  method: Schema.optional(Schema.String),
  params: Schema.optional(Schema.Record(Schema.String, Schema.Unknown)),
  result: Schema.optional(Schema.Unknown),
  error: Schema.optional(Schema.Struct({ code: Schema.Number, message: Schema.String }))
})

export type Message = typeof Message.Type

const decodeMessage = Schema.decodeUnknownOption(Schema.fromJsonString(Message))

/** The messages between the client and the server. */
export class Wire extends Context.Service<Wire, {
  /** The messages that the client has sent. */
  readonly sent: Effect.Effect<ReadonlyArray<Message>>
  /** Waits until the client has sent a message that satisfies a predicate. */
  readonly awaitSent: (predicate: (message: Message) => boolean) => Effect.Effect<Message>
  /** Waits until the server has sent a message that satisfies a predicate. */
  readonly awaitReceived: (predicate: (message: Message) => boolean) => Effect.Effect<Message>
}>()("effect-codex/testing/Wire") {}

const awaitFirst = (
  messages: SubscriptionRef.SubscriptionRef<ReadonlyArray<Message>>,
  predicate: (message: Message) => boolean
): Effect.Effect<Message> =>
  SubscriptionRef.changes(messages).pipe(
    Stream.map((seen) => Option.fromUndefinedOr(seen.find(predicate))),
    Stream.filter(Option.isSome),
    Stream.runHead,
    Effect.flatMap((found) => Option.isSome(found) ? Effect.fromOption(found.value) : Effect.never),
    Effect.orDie
  )

/** Records the messages of a transport in a {@link Wire}. */
const record: Layer.Layer<Transport.Transport | Wire, never, Transport.Transport> = Layer.effectContext(
  Effect.gen(function*() {
    const transport = yield* Transport.Transport
    const sent = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
    const received = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
    const append = (messages: typeof sent, line: string) =>
      SubscriptionRef.update(messages, (seen) => [...seen, ...Option.toArray(decodeMessage(line))])
    return Context.make(Wire, {
      sent: SubscriptionRef.get(sent),
      awaitSent: (predicate) => awaitFirst(sent, predicate),
      awaitReceived: (predicate) => awaitFirst(received, predicate)
    }).pipe(Context.add(Transport.Transport, {
      connect: Effect.map(transport.connect, (connection) => ({
        redact: connection.redact,
        incoming: Stream.tap(connection.incoming, (line) => append(received, line)),
        send: (line: string) => Effect.andThen(append(sent, line), connection.send(line))
      }))
    }))
  })
)

/** A process in the workspace of the environment. Each use starts a process of its own. */
export const layerProcess = (
  options?: Codex.StdioOptions
): Layer.Layer<
  Codex.Codex | AppServer.AppServer | AppServer.Session | Wire,
  AppServerError.AppServerError,
  CodexEnvironment.CodexEnvironment | ChildProcessSpawner | FileSystem.FileSystem | Path.Path
> =>
  Layer.fresh(
    Codex.layer.pipe(
      Layer.provideMerge(AppServer.layer(options)),
      Layer.provideMerge(record),
      Layer.provide(Kit.layerTransport(options))
    )
  )

/** A home and a model, for processes that a test starts with {@link layerProcess}. */
export const layerEnvironment = Kit.layerEnvironment

/** A process, a home and a model. */
export const layer = (
  options?: Codex.StdioOptions & { readonly home?: CodexEnvironment.Options | undefined }
): Layer.Layer<
  | Codex.Codex
  | AppServer.AppServer
  | AppServer.Session
  | Wire
  | CodexEnvironment.CodexEnvironment
  | ModelServer.ModelServer
  | NodeServices.NodeServices,
  AppServerError.AppServerError | PlatformError.PlatformError
> => {
  const { home, ...process } = options ?? {}
  return Layer.provideMerge(layerProcess(process), layerEnvironment(home))
}

/** Starts a thread. */
export const startThread = Effect.flatMap(Codex.Codex, (codex) => codex.startThread())

/** Starts a thread and runs a turn on it, so that the server stores it. */
export const startStoredThread = Effect.fnUntraced(function*(options?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const model = yield* ModelServer.ModelServer
  const thread = yield* codex.startThread(options)
  yield* model.enqueue(ModelServer.text("stored"))
  yield* thread.run("store me")
  return thread
})

/** Restarts after 20 milliseconds, at most 20 times. */
export const quickRestart = Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 20 }))

/** Kills the process of the server, and returns its pid. */
export const killServer = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const { process: { id } } = yield* server.request("server/diagnostics")
  process.kill(id, "SIGKILL")
  return id
})

/** Waits for the next restart. Run it to subscribe, and run its result to wait. */
export const nextRestart = Effect.gen(function*() {
  const server = yield* AppServer.AppServer
  const ready = yield* server.states.pipe(
    Stream.dropUntil(({ _tag }) => _tag === "Starting"),
    Stream.filter(({ _tag }) => _tag === "Ready"),
    Stream.runHead,
    Effect.forkChild({ startImmediately: true })
  )
  return Fiber.join(ready)
})

/** Kills the server, and waits until it has restarted. */
export const restartServer = Effect.gen(function*() {
  const restarted = yield* nextRestart
  yield* killServer
  yield* restarted
})

/** The configuration of a model provider with a limit on retries of a stream. */
export const retryConfig = (stream_max_retries: number) => ({
  model_providers: { mock_provider: { stream_max_retries } }
})

/** The configuration of the MCP server of `fixtures/mcp-server.mjs`. */
export const mcpConfig = {
  mcp_servers: { people: { command: process.execPath, args: [`${import.meta.dirname}/fixtures/mcp-server.mjs`] } }
}

/** Replies to the requests of a thread that spawns a sub-agent, waits for it, and completes. */
export const delegate = (
  request: ModelServer.ModelRequest,
  agent: { readonly message: string; readonly fork_context?: boolean; readonly model?: string },
  options?: { readonly usage: ModelServer.Usage }
): ModelServer.Reply => {
  const call = (callId: string, name: string, args: object) =>
    ModelServer.reply([ModelServer.functionCall(name, args, { callId, namespace: "multi_agent_v1" })], options)
  const spawned = request.functionCallOutput("spawn")
  if (spawned === undefined) return call("spawn", "spawn_agent", agent)
  return request.functionCallOutput("wait") === undefined
    ? call("wait", "wait_agent", { targets: [JSON.parse(spawned).agent_id] })
    : ModelServer.text("done", options)
}

/** Returns the model requests of a thread. */
export const getRequests = Effect.fnUntraced(function*(threadId: string) {
  const model = yield* ModelServer.ModelServer
  return (yield* model.requests).filter((request) => request.promptCacheKey === threadId)
})

/** Waits for the next model request of any thread. Run it to subscribe, and run its result to wait. */
export const nextRequest = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  const before = (yield* model.requests).length
  return Effect.flatMap(model.awaitRequests(before + 1), (requests) => Effect.fromNullishOr(requests[before]))
})

/** Scripts the replies of the model to one thread. Requests of other threads fail. */
export const script = Effect.fnUntraced(function*(
  thread: { readonly id: string },
  ...replies: ReadonlyArray<ModelServer.Reply>
) {
  const model = yield* ModelServer.ModelServer
  const rest = replies.slice()
  yield* model.respond((request) =>
    (request.promptCacheKey === thread.id ? rest.shift() : undefined) ?? ModelServer.httpError(500)
  )
})

/** A message whose deltas the test sends with `say`, until `finish`. */
export const heldMessage = Effect.gen(function*() {
  const deltas = yield* Queue.unbounded<string, Cause.Done>()
  return {
    reply: ModelServer.deltas(Stream.fromQueue(deltas)),
    say: (text: string) => Queue.offer(deltas, text),
    finish: Queue.end(deltas)
  }
})

/** A message that starts and never completes. */
export const halfMessage = ModelServer.hang([ModelServer.deltas(["half"], { unfinished: true })])

/** Reads the permissions of a loaded thread that has had a turn. */
export const readPermissions = Effect.fnUntraced(function*(threadId: string) {
  const server = yield* AppServer.AppServer
  const { approvalPolicy, approvalsReviewer, sandbox } = yield* server.request("thread/resume", {
    threadId,
    excludeTurns: true
  })
  return { approvalPolicy, approvalsReviewer, sandbox: sandbox.type }
})

/** Reads the stored turns of a thread, oldest first. */
export const readTurns = Effect.fnUntraced(function*(threadId: string) {
  const server = yield* AppServer.AppServer
  const { thread } = yield* server.request("thread/read", { threadId, includeTurns: true })
  return thread.turns
})

/** Runs an effect that fails with an `AppServerError`, and returns the reason. */
export const expectReason = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<AppServerError.AppServerErrorReason, never, R> =>
  Effect.matchEffect(effect, {
    onFailure: (error) => AppServerError.isAppServerError(error) ? Effect.succeed(error.reason) : Effect.die(error),
    onSuccess: (value) =>
      Effect.die(new Error(`Expected an AppServerError, but the effect succeeded with ${JSON.stringify(value)}.`))
  })
