/**
 * An app-server in memory: a `Transport` whose other end plays a script.
 *
 * **When to use**
 *
 * To test your own logic: each event and each failure, in any order. A test needs no process, no model and no network. Under
 * `TestClock` its delays are virtual.
 *
 * **Details**
 *
 * The fake stores threads and turns as `codex app-server` does. The script of a turn is an Effect or a Stream of the actions in
 * {@link TurnScript}, which this module exports, too.
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Layer } from "effect"
 * import { AppServer, Codex } from "effect-codex"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * const layer = Codex.layer.pipe(
 *   Layer.provide(AppServer.layer()),
 *   Layer.provideMerge(FakeAppServer.layer(() => FakeAppServer.deltas(["4", "2"])))
 * )
 *
 * it.effect("returns the final response", () =>
 *   Effect.gen(function*() {
 *     const codex = yield* Codex.Codex
 *     const thread = yield* codex.startThread()
 *     const { finalResponse } = yield* thread.run("What is six times seven?")
 *     assert.strictEqual(finalResponse, "42")
 *   }).pipe(Effect.provide(layer)))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { ConnectionClosed, make as appServerError } from "../AppServerError.ts"
import { decoderFor } from "../internal/connection/codec.ts"
import { isLoginCheck } from "../internal/connection/loginCheck.ts"
import { anything, assertOptions, boolean, duration, func, type Kinds, number, string } from "../internal/options.ts"
import { makeRedact } from "../internal/redact.ts"
import { describeIssue } from "../internal/schemaIssue.ts"
import { splitLines } from "../internal/stdio/framing.ts"
import { makeAccountLimits } from "../internal/testing/fake/accountLimits.ts"
import { type Client, type ClientMessage, type Clients, makeClients } from "../internal/testing/fake/clients.ts"
import { makeGoals } from "../internal/testing/fake/goals.ts"
import { type Methods, type Outcome, reject, type Rejection } from "../internal/testing/fake/methods.ts"
import { serverMethods } from "../internal/testing/fake/serverMethods.ts"
import { makeThreadEvents } from "../internal/testing/fake/threadEvents.ts"
import { fileMethods, openMethods, readMethods } from "../internal/testing/fake/threadMethods.ts"
import { makeThreadStore } from "../internal/testing/fake/threadStore.ts"
import { goalMethods, terminalMethods, turnMethods } from "../internal/testing/fake/turnMethods.ts"
import { makeTurnPlayer, type TurnPlayer } from "../internal/testing/fake/turnPlayer.ts"
import * as Protocol from "../Protocol.ts"
import { type Connection, Transport } from "../Transport.ts"
import { type ExitOptions, type Script, text } from "./TurnScript.ts"

export * from "./TurnScript.ts"

export type {
  /**
   * A message that a client sent: a request, a notification or a response.
   *
   * @category models
   * @since 0.1.0
   */
  ClientMessage
} from "../internal/testing/fake/clients.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Responses
// ---------------------------------------------------------------------------------------------------------------------

/**
 * How the fake responds to a request.
 *
 * @category models
 * @since 0.1.0
 */
export type Response = Data.TaggedEnum<{
  Default: {}
  Result: { readonly result: unknown }
  Rejected: { readonly code: number; readonly message: string; readonly data?: unknown }
  None: {}
}>

const Response = Data.taggedEnum<Response>()

/**
 * Responds as the fake does without a scripted response.
 *
 * @category responses
 * @since 0.1.0
 */
export const defaultResponse: Response = Response.Default()

/**
 * @deprecated Use {@link defaultResponse}.
 * @category responses
 * @since 0.1.0
 */
export const usual: Response = defaultResponse

/**
 * Responds with a result, which need not have the type of the method.
 *
 * @category responses
 * @since 0.1.0
 */
export const result = (result: unknown): Response => Response.Result({ result })

/**
 * Responds with an error. The default code is -32600, which the real server uses for nearly every error.
 *
 * @category responses
 * @since 0.1.0
 */
export const rejected = (
  message: string,
  options?: { readonly code?: number | undefined; readonly data?: unknown }
): Response => {
  assertOptions("FakeAppServer.rejected", { code: number, data: anything }, options)
  return Response.Rejected({ code: options?.code ?? -32600, message, data: options?.data })
}

/**
 * Responds as an overloaded server.
 *
 * @category responses
 * @since 0.1.0
 */
export const overloaded: Response = Response.Rejected({ code: -32001, message: "Server overloaded; retry later." })

/**
 * Sends no response.
 *
 * @category responses
 * @since 0.1.0
 */
export const noResponse: Response = Response.None()

/**
 * @deprecated Use {@link noResponse}.
 * @category responses
 * @since 0.1.0
 */
export const silent: Response = noResponse

// ---------------------------------------------------------------------------------------------------------------------
// Service
// ---------------------------------------------------------------------------------------------------------------------

/**
 * The faults of the connection to a {@link FakeAppServer}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * The time that each message of the server takes, one after the other.
   *
   * @default none
   */
  readonly latency?: Duration.Input | undefined
  /**
   * Whether the response to `turn/start` follows the whole turn.
   *
   * @default false
   */
  readonly eventsBeforeResponse?: boolean | undefined
  /**
   * Whether each byte arrives alone.
   *
   * @default false
   */
  readonly splitAtEveryByte?: boolean | undefined
  /**
   * Whether the server sends each message twice.
   *
   * @default false
   */
  readonly duplicateMessages?: boolean | undefined
  /**
   * The beginning of the ids of threads. Several fakes in one program, as in a `CodexPool`, need different ones.
   *
   * @default "thread"
   */
  readonly threadIds?: string | undefined
}

/**
 * The options of a turn that the program under test did not start.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { FakeAppServer } from "effect-codex/testing"
 *
 * export const fromAnotherClient = (threadId: string) =>
 *   Effect.gen(function*() {
 *     const fake = yield* FakeAppServer.FakeAppServer
 *     return yield* fake.startTurn(threadId, {
 *       input: "Fix the failing tests",
 *       script: () => FakeAppServer.text("Fixed")
 *     })
 *   })
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface StartTurnOptions {
  /** The text of the input. */
  readonly input?: string | undefined
  /** @default the script of the fake */
  readonly script?: Script | undefined
}

/**
 * Controls the fake: scripts turns and responses, sends messages, and reads what clients sent.
 *
 * @category services
 * @since 0.1.0
 */
export class FakeAppServer extends Context.Service<FakeAppServer, {
  /** The methods that the fake implements. It rejects the others unless a test scripts a response. */
  readonly methods: ReadonlyArray<string>
  /** All messages that clients sent, in order, without the login check of `Codex.layer`. */
  readonly sent: Effect.Effect<ReadonlyArray<ClientMessage>>
  /** Waits until clients have sent a method `count` times, by default once, and returns the last of those messages. */
  readonly awaitSent: (method: string, count?: number) => Effect.Effect<ClientMessage>
  /** Sets the script of the turns that start from now on. */
  readonly onTurn: (script: Script) => Effect.Effect<void>
  /**
   * Starts a turn that this program did not start, and returns its id. With `input`, it is the turn of another client. Without it, it is
   * a turn that the server continues by itself. Its script is by default that of `onTurn`.
   *
   * As on the real server, the input joins a turn that runs.
   */
  readonly startTurn: (threadId: string, options?: StartTurnOptions) => Effect.Effect<string>
  /** Sets the response to the requests of a method that arrive from now on, or to the next `times` of them. */
  readonly respond: (
    method: string,
    response: Response | ((request: ClientMessage) => Response),
    options?: { readonly times?: number | undefined }
  ) => Effect.Effect<void>
  /** @deprecated Use `respond`. */
  readonly answer: (
    method: string,
    response: Response | ((request: ClientMessage) => Response),
    options?: { readonly times?: number | undefined }
  ) => Effect.Effect<void>
  /**
   * Reports a rate limit of the account to every client. `account/rateLimits/read` then responds with the limits that were reported; see
   * the action `rateLimits`.
   */
  readonly rateLimits: (limit: Protocol.RateLimitSnapshot) => Effect.Effect<void>
  /** Sends a notification to every client. */
  readonly notify: (method: string, params: object) => Effect.Effect<void>
  /** Sends a request to every client and waits for the first response, a result or an error. */
  readonly request: (method: string, params: object) => Effect.Effect<ClientMessage>
  /** @deprecated Use `request`. */
  readonly ask: (method: string, params: object) => Effect.Effect<ClientMessage>
  /** Sends a line unchanged to every client. */
  readonly line: (text: string) => Effect.Effect<void>
  /** Stops reading messages until `resume`. */
  readonly pause: Effect.Effect<void>
  /** @deprecated Use `pause`. */
  readonly stall: Effect.Effect<void>
  /** Reads messages again after `pause`. */
  readonly resume: Effect.Effect<void>
  /** Ends every connection, as the end of the process does. The next connection finds the stored threads. */
  readonly exit: (options?: ExitOptions) => Effect.Effect<void>
}>()("effect-codex/testing/FakeAppServer") {}

const echo: Script = (turn) => text(turn.text)

const kinds: Kinds<Options> = {
  threadIds: string,
  latency: duration,
  eventsBeforeResponse: boolean,
  splitAtEveryByte: boolean,
  duplicateMessages: boolean
}

const startTurnKinds: Kinds<StartTurnOptions> = { input: string, script: func }

const toClosed = (exit: ExitOptions) => {
  const { exitCode = exit.signal === undefined ? 0 : undefined, signal } = exit
  return appServerError(
    new ConnectionClosed({
      description: signal === undefined
        ? `the server exited with code ${exitCode}`
        : `the server was killed by ${signal}`,
      exitCode,
      signal,
      stderrTail: makeRedact([])(exit.stderr ?? "")
    })
  )
}

/** Responses that a test scripted, by method. */
const makeScriptedResponses = () => {
  const responses = new Map<string, { readonly respond: (request: ClientMessage) => Response; times: number }>()
  return {
    set: (method: string, response: Response | ((request: ClientMessage) => Response), times = Infinity) => {
      responses.set(method, { respond: typeof response === "function" ? response : () => response, times })
    },
    take: (method: string, request: ClientMessage): Response => {
      const entry = responses.get(method)
      if (entry === undefined || entry.times === 0) return defaultResponse
      entry.times--
      return Result.getOrElse(
        Result.try(() => entry.respond(request)),
        (error) =>
          rejected(`The function that was passed to \`fake.respond\` for \`${method}\` threw: ${String(error)}`)
      )
    }
  }
}

type ScriptedResponses = ReturnType<typeof makeScriptedResponses>

/** Runs a method of the fake, after a check of its params that is as strict as the encoding of the SDK. */
const runMethod = (
  methods: Methods,
  client: Client,
  method: string,
  params: unknown
): Effect.Effect<Outcome, Rejection> => {
  if (!Object.hasOwn(Protocol.clientRequests, method)) return reject(`Invalid request: unknown variant \`${method}\``)
  const known = method as keyof Protocol.ClientRequests
  if (known !== "initialize" && !client.initialized) return reject("Not initialized")
  const schema = Protocol.clientRequests[known].params
  if (schema !== undefined) {
    const decoded = decoderFor(schema)(params)
    if (Result.isFailure(decoded)) return reject(`Invalid request: ${describeIssue(decoded.failure, params)}`)
  }
  const run = methods[known] as ((params: unknown, client: Client) => Effect.Effect<Outcome, Rejection>) | undefined
  return run === undefined
    ? reject(
      `The fake does not implement \`${method}\`. Script its response before the program sends it: ` +
        `fake.respond("${method}", FakeAppServer.result(…)), where fake is the service FakeAppServer.FakeAppServer`
    )
    : run(params ?? {}, client)
}

/** Sends the scripted response to a request, or else that of the fake. */
const respond = Effect.fnUntraced(function*(
  fake: {
    readonly clients: Clients
    readonly player: TurnPlayer
    readonly methods: Methods
    readonly responses: ScriptedResponses
  },
  client: Client,
  method: string,
  request: ClientMessage
) {
  const { clients, methods, player, responses } = fake
  const { id, params } = request
  const sendError = (code: number, message: string, data?: unknown) =>
    clients.send(client, { error: data === undefined ? { code, message } : { code, message, data }, id })
  yield* Response.$match(responses.take(method, request), {
    Default: () =>
      Effect.matchEffect(runMethod(methods, client, method, params), {
        onFailure: ({ code, message }) => sendError(code, message),
        onSuccess: ({ after, before, result }) => {
          const send = Effect.andThen(clients.send(client, { id, result }), after ?? Effect.void)
          // `before` may wait for this client, so it must not keep the server from reading.
          return before === undefined ? send : Effect.sync(() => player.fork(Effect.andThen(before, send)))
        }
      }),
    Result: ({ result }) => clients.send(client, { id, result }),
    Rejected: ({ code, data, message }) => sendError(code, message, data),
    None: () => Effect.void
  })
})

const awaitMessages = (
  sent: SubscriptionRef.SubscriptionRef<ReadonlyArray<ClientMessage>>,
  method: string,
  count: number
): Effect.Effect<ClientMessage> =>
  SubscriptionRef.changes(sent).pipe(
    Stream.map((messages) => messages.filter((message) => message.method === method)),
    Stream.filter((messages) => messages.length >= count),
    Stream.runHead,
    Effect.flatMap(
      Option.match({ onNone: () => Effect.never, onSome: (messages) => Effect.succeed(messages[count - 1]!) })
    )
  )

/** Opens a connection, whose messages are received one after the other. */
const connect = (
  clients: Clients,
  receive: (client: Client, message: ClientMessage) => Effect.Effect<void>
) =>
  Effect.gen(function*() {
    const incoming = yield* Queue.unbounded<ClientMessage>()
    const client = yield* clients.open
    yield* Queue.take(incoming).pipe(
      Effect.flatMap((message) => receive(client, message)),
      Effect.catchCause((cause) => Effect.logError("The fake failed to handle a message", cause)),
      Effect.forever,
      Effect.forkScoped
    )
    return {
      incoming: splitLines(Stream.fromQueue(client.outgoing)),
      send: (line) => {
        const message = JSON.parse(line)
        // The fake needs no login, and the check of the login is not a request of the program.
        return isLoginCheck(message) ? Effect.void : Effect.asVoid(Queue.offer(incoming, message))
      }
    } satisfies Connection
  })

const makeServer = Effect.fnUntraced(function*(initialScript: Script, options: Options) {
  assertOptions("FakeAppServer.layer", kinds, options)
  const clients = makeClients(options)
  const store = makeThreadStore(options.threadIds)
  const events = makeThreadEvents(clients)
  const limits = makeAccountLimits(clients)
  const exit = (options: ExitOptions = {}): Effect.Effect<void> =>
    clients.failAll(toClosed(options), options.midLine).pipe(
      Effect.andThen(Effect.sync(() => store.unloadAll())),
      Effect.andThen(Effect.suspend(() => player.stopAll))
    )
  let script = initialScript
  const parts = { clients, store, events, goals: makeGoals({ events, store }), limits, exit, script: () => script }
  const player: TurnPlayer = yield* makeTurnPlayer(parts, options.eventsBeforeResponse === true)
  const fake = { ...parts, player }
  const methods: Methods = {
    ...serverMethods,
    ...limits.methods,
    ...openMethods(fake),
    ...fileMethods(fake),
    ...readMethods(fake),
    ...turnMethods(fake),
    ...goalMethods(fake),
    ...terminalMethods(fake)
  }
  const responses = makeScriptedResponses()
  const sent = yield* SubscriptionRef.make<ReadonlyArray<ClientMessage>>([])
  const reading = yield* Latch.make(true)

  const setResponse: FakeAppServer["Service"]["respond"] = (method, response, options) =>
    Effect.sync(() => responses.set(method, response, options?.times))

  const server: FakeAppServer["Service"] = {
    methods: Object.keys(methods),
    sent: SubscriptionRef.get(sent),
    awaitSent: (method, count = 1) => awaitMessages(sent, method, count),
    onTurn: (next) =>
      Effect.sync(() => {
        script = next
      }),
    startTurn: Effect.fnUntraced(function*(threadId, options = {}) {
      assertOptions("FakeAppServer.startTurn", startTurnKinds, options)
      const thread = store.find(threadId)
      if (thread?.loaded !== true) {
        return yield* Effect.die(new Error(`Thread \`${threadId}\` is not open. Open it before \`fake.startTurn\``))
      }
      return yield* player.startTurn(thread, options.input, options.script ?? script)
    }),
    respond: setResponse,
    answer: setResponse,
    rateLimits: (limit) => limits.report(limit),
    notify: clients.notify,
    request: clients.request,
    ask: clients.request,
    line: clients.writeLine,
    pause: Effect.asVoid(reading.close),
    stall: Effect.asVoid(reading.close),
    resume: Effect.asVoid(reading.open),
    exit
  }

  const receive = Effect.fnUntraced(function*(client: Client, message: ClientMessage) {
    yield* reading.await
    yield* SubscriptionRef.update(sent, (messages) => [...messages, message])
    if (message.method === undefined) yield* clients.settle(message)
    else if (message.id !== undefined) yield* respond({ ...fake, methods, responses }, client, message.method, message)
  })

  return { server, connect: connect(clients, receive) }
})

/**
 * Provides a {@link FakeAppServer} and the transport to it. Without a script, turns echo their input.
 *
 * **Details**
 *
 * The layer stores threads until its scope closes, so that a second connection finds the threads of the first.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (script: Script = echo, options: Options = {}): Layer.Layer<FakeAppServer | Transport> =>
  Layer.effectContext(
    Effect.map(
      makeServer(script, options),
      ({ connect, server }) => Context.make(FakeAppServer, server).pipe(Context.add(Transport, { connect }))
    )
  )
