/**
 * Codex as the tests of threads and turns have it: the real `codex app-server` in a hermetic home, with a scripted model,
 * and a record of the messages that went over the wire.
 */
import type * as NodeServices from "@effect/platform-node/NodeServices"
import { AppServer, AppServerError, Codex, Protocol, Transport } from "effect-codex"
import { type CodexEnvironment, ModelServer, TestCodex as Kit } from "effect-codex/testing"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import type * as PlatformError from "effect/PlatformError"
import type { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

/** The version of the binary that is tested: the pinned one, unless the suite runs on another (`npm run test:floor`). */
export const version = process.env["CODEX_TEST_VERSION"] ?? Protocol.version

/** The path of that other binary. */
export const codexPath = process.env["CODEX_TEST_PATH"]

/** A message as it was on the wire: a request or a notification has a method, an answer has none. */
const Message = Schema.Struct({
  id: Schema.optional(Schema.Union([Schema.String, Schema.Number])),
  method: Schema.optional(Schema.String),
  params: Schema.optional(Schema.Record(Schema.String, Schema.Unknown)),
  result: Schema.optional(Schema.Unknown),
  error: Schema.optional(Schema.Unknown)
})

export type Message = typeof Message.Type

const decodeMessage = Schema.decodeUnknownOption(Schema.fromJsonString(Message))

/** What the client and the server have said to each other so far. */
export class Wire extends Context.Service<Wire, {
  /** The client's messages. */
  readonly sent: Effect.Effect<ReadonlyArray<Message>>
  /** Waits until the client has sent such a message. */
  readonly awaitSent: (predicate: (message: Message) => boolean) => Effect.Effect<Message>
  /** Waits until the server has sent such a message. */
  readonly awaitReceived: (predicate: (message: Message) => boolean) => Effect.Effect<Message>
}>()("effect-codex/testing/Wire") {}

const firstOf = (
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

/** Puts a {@link Wire} on a transport. */
const recorded: Layer.Layer<Transport.Transport | Wire, never, Transport.Transport> = Layer.effectContext(
  Effect.gen(function*() {
    const transport = yield* Transport.Transport
    const sent = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
    const received = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
    const record = (messages: typeof sent, line: string) =>
      SubscriptionRef.update(messages, (seen) => [...seen, ...Option.toArray(decodeMessage(line))])
    return Context.make(Wire, {
      sent: SubscriptionRef.get(sent),
      awaitSent: (predicate) => firstOf(sent, predicate),
      awaitReceived: (predicate) => firstOf(received, predicate)
    }).pipe(Context.add(Transport.Transport, {
      connect: Effect.map(transport.connect, (connection) => ({
        redact: connection.redact,
        incoming: Stream.tap(connection.incoming, (line) => record(received, line)),
        send: (line: string) => Effect.andThen(record(sent, line), connection.send(line))
      }))
    }))
  })
)

/** A process in the environment at hand, in its workspace. Each use is a process of its own. */
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
      Layer.provideMerge(recorded),
      Layer.provide(Kit.layerTransport(options))
    )
  )

/** A home and a model for processes that a test starts itself, with {@link layerProcess}. */
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

/** The model requests of one thread. */
export const requestsOf = Effect.fnUntraced(function*(threadId: string) {
  const model = yield* ModelServer.ModelServer
  return (yield* model.requests).filter((request) => request.promptCacheKey === threadId)
})

/** What the model is asked next, by whichever thread: run it to start waiting, and run its result to have the request. */
export const nextRequest = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  const before = (yield* model.requests).length
  return Effect.flatMap(model.awaitRequests(before + 1), (requests) => Effect.fromNullishOr(requests[before]))
})

/** Has the model give these replies to one thread, and none to any other. */
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

/** A message that is said when the test says it. */
export const heldMessage = Effect.gen(function*() {
  const pieces = yield* Queue.unbounded<string, Cause.Done>()
  return {
    reply: ModelServer.deltas(Stream.fromQueue(pieces)),
    say: (text: string) => Queue.offer(pieces, text),
    finish: Queue.end(pieces)
  }
})

/** A message that is begun and never finished. */
export const halfMessage = ModelServer.hang([ModelServer.deltas(["half"], { unfinished: true })])

/** The approval and sandbox settings that the server reports for a loaded thread which has had a turn. */
export const settingsOf = Effect.fnUntraced(function*(threadId: string) {
  const server = yield* AppServer.AppServer
  const { approvalPolicy, approvalsReviewer, sandbox } = yield* server.request("thread/resume", {
    threadId,
    excludeTurns: true
  })
  return { approvalPolicy, approvalsReviewer, sandbox: sandbox.type }
})

/** The turns that the server has stored for a thread, oldest first. */
export const turnsOf = Effect.fnUntraced(function*(threadId: string) {
  const server = yield* AppServer.AppServer
  const { thread } = yield* server.request("thread/read", { threadId, includeTurns: true })
  return thread.turns
})

/** Why an effect failed that is to fail with an `AppServerError`. */
export const reasonOf = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<AppServerError.AppServerErrorReason, never, R> =>
  Effect.matchEffect(effect, {
    onFailure: (error) => AppServerError.isAppServerError(error) ? Effect.succeed(error.reason) : Effect.die(error),
    onSuccess: (value) => Effect.die(new Error(`expected an AppServerError, got ${JSON.stringify(value)}`))
  })
