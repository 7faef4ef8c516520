/** A transport in memory, whose server is the test. It responds to `initialize` and `account/read` by itself. */
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type * as AppServerError from "../src/AppServerError.ts"
import * as Transport from "../src/Transport.ts"

/** A message of the client. Its JSON is untyped: a test reads what it expects, and fails where it is missing. */
export interface Message {
  readonly id?: string | number
  readonly method?: string
  readonly params?: any
  readonly result?: any
  readonly error?: any
}

const userAgentOf = (version: string) => `fake-client/${version} (Test 1.0; x86_64) term (fake-client; 1.0.0)`

export const userAgent = userAgentOf("0.169.0")

export class FakeTransport extends Context.Service<FakeTransport, {
  /** All messages of the client, including `initialize`. */
  readonly sent: ReadonlyArray<Message>
  /** Takes the next message of the client after the handshake. */
  readonly take: Effect.Effect<Message>
  /** Takes the next message of the client with this method, and skips the messages before it. */
  readonly takeMethod: (method: string) => Effect.Effect<Message>
  /** Sends messages to the client, in one batch. */
  readonly emit: (...messages: ReadonlyArray<object>) => Effect.Effect<void>
  /** Sends lines to the client unchanged, in one batch. */
  readonly emitLines: (...lines: ReadonlyArray<string>) => Effect.Effect<void>
  /** Responds to a request of the client. */
  readonly reply: (request: Message, result: unknown) => Effect.Effect<void>
  /** Ends the connection. */
  readonly end: (error?: AppServerError.AppServerError) => Effect.Effect<void>
  /** Waits until the client has connected again. */
  readonly reconnected: Effect.Effect<void>
}>()("effect-codex/test/FakeTransport") {}

const makeToClient = Queue.unbounded<string, AppServerError.AppServerError | Cause.Done>()

/** Each connection reports the next of `versions`; the last one repeats. */
const make = Effect.fnUntraced(function*(versions: ReadonlyArray<string>) {
  const sent: Array<Message> = []
  const toServer = yield* Queue.unbounded<Message>()
  let toClient = yield* makeToClient
  const reconnections = yield* Queue.unbounded<void>()
  let connections = 0

  const emitLines = (...lines: ReadonlyArray<string>) => Effect.asVoid(Queue.offerAll(toClient, lines))
  const emit = (...messages: ReadonlyArray<object>) => emitLines(...messages.map((message) => JSON.stringify(message)))

  const send = (line: string) =>
    Effect.suspend(() => {
      const message = JSON.parse(line) as Message
      sent.push(message)
      switch (message.method) {
        case "initialize":
          return emit({
            id: message.id,
            result: {
              userAgent: userAgentOf(versions[Math.min(connections, versions.length) - 1]!),
              codexHome: "/codex",
              platformFamily: "unix",
              platformOs: "linux"
            }
          })
        // `Codex.layer` checks the login.
        case "account/read":
          return emit({ id: message.id, result: { account: null, requiresOpenaiAuth: false } })
        case "initialized":
          return Effect.void
        default:
          return Effect.asVoid(Queue.offer(toServer, message))
      }
    })

  const take = Queue.take(toServer)
  const takeMethod = (method: string): Effect.Effect<Message> =>
    Effect.flatMap(take, (message) => message.method === method ? Effect.succeed(message) : takeMethod(method))

  return Context.make(FakeTransport, {
    sent,
    take,
    takeMethod,
    emit,
    emitLines,
    reply: (request, result) => emit({ id: request.id, result }),
    end: (error) => Effect.asVoid(error === undefined ? Queue.end(toClient) : Queue.fail(toClient, error)),
    reconnected: Queue.take(reconnections)
  }).pipe(Context.add(Transport.Transport, {
    connect: Effect.gen(function*() {
      if (connections++ > 0) {
        toClient = yield* makeToClient
        yield* Queue.offer(reconnections, undefined)
      }
      return { incoming: Stream.fromQueue(toClient), send }
    })
  }))
})

/** A server that reports the next of these versions on each connection. */
export const layerOf = (...versions: ReadonlyArray<string>): Layer.Layer<FakeTransport | Transport.Transport> =>
  Layer.effectContext(make(versions))

export const layer = layerOf("0.169.0")

/** A transport that redacts a secret, the password `hunter2`. */
export const layerRedacting: Layer.Layer<Transport.Transport, never, Transport.Transport> = Layer.effect(
  Transport.Transport,
  Effect.map(Transport.Transport, ({ connect }) => ({
    connect: Effect.map(connect, (connection) => ({
      ...connection,
      redact: (text: string) => text.replaceAll("hunter2", "<redacted>")
    }))
  }))
)

/** The turn in a response to `turn/start`. */
export const turn = (id: string, status = "inProgress", more: object = {}) => ({
  id,
  rootTurnId: id,
  items: [],
  itemsView: "notLoaded",
  status,
  error: null,
  startedAt: null,
  completedAt: null,
  durationMs: null,
  ...more
})

export const turnStarted = (threadId: string, turnId: string) => ({
  method: "turn/started" as const,
  params: { threadId, turn: turn(turnId) },
  emittedAtMs: 1
})

/** A sub-agent starts a turn in its own thread, for the turn `rootTurnId`. */
export const subAgentStarted = (threadId: string, turnId: string, rootTurnId: string | null) => ({
  method: "turn/started" as const,
  params: { threadId, turn: turn(turnId, "inProgress", { rootTurnId }) },
  emittedAtMs: 1
})

export const turnCompleted = (threadId: string, turnId: string, status = "completed", more: object = {}) => ({
  method: "turn/completed" as const,
  params: { threadId, turn: turn(turnId, status, more) },
  emittedAtMs: 1
})

export const delta = (threadId: string, turnId: string, itemId: string, text: string) => ({
  method: "item/agentMessage/delta" as const,
  params: { threadId, turnId, itemId, delta: text },
  emittedAtMs: 1
})

export const messageCompleted = (
  threadId: string,
  turnId: string,
  itemId: string,
  text: string,
  phase: string | null = null
) => ({
  method: "item/completed" as const,
  params: { threadId, turnId, item: { type: "agentMessage" as const, id: itemId, text, phase }, completedAtMs: 1 },
  emittedAtMs: 1
})

/** A request of the server has its response from another client. */
export const requestResolved = (threadId: string, requestId: number) => ({
  method: "serverRequest/resolved" as const,
  params: { threadId, requestId },
  emittedAtMs: 1
})

/** The result of `thread/start`, `thread/resume` and `thread/fork`. */
export const threadResponse = (id: string, settings: object = {}) => ({
  thread: {
    id,
    sessionId: id,
    preview: "",
    ephemeral: false,
    modelProvider: "m",
    model: "m",
    createdAt: 1,
    updatedAt: 1,
    status: { type: "idle" },
    path: null,
    cwd: "/repo",
    cliVersion: "0.169.0",
    source: "appServer",
    threadSource: null,
    turns: [],
    historyMode: "paginated"
  },
  model: "m",
  modelProvider: "m",
  serviceTier: null,
  cwd: "/repo",
  instructionSources: [],
  approvalPolicy: "on-request",
  approvalsReviewer: "auto_review",
  sandbox: { type: "readOnly", networkAccess: false },
  reasoningEffort: null,
  ...settings
})
