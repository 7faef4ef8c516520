/** A language for tests of threads and turns on the fake transport: what the server sends, and what the program sees. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import * as Approvals from "../src/Approvals.ts"
import * as AppServer from "../src/AppServer.ts"
import * as AppServerError from "../src/AppServerError.ts"
import * as Codex from "../src/Codex.ts"
import * as Fake from "./FakeTransport.ts"

/** Codex on a {@link Fake.FakeTransport}. */
export const layer = (options?: AppServer.Options) =>
  Codex.layer.pipe(Layer.provideMerge(AppServer.layer(options)), Layer.provideMerge(Fake.layer))

/** The error of a connection whose server was killed. */
export const killed = AppServerError.make(
  new AppServerError.ConnectionClosed({
    description: "the server was killed by SIGKILL",
    exitCode: undefined,
    signal: "SIGKILL",
    stderrTail: ""
  })
)

// -----------------------------------------------------------------------------
// The server
// -----------------------------------------------------------------------------

/** Sends messages to the client, in one batch. */
export const emit = (...messages: ReadonlyArray<object>) => Fake.FakeTransport.use((fake) => fake.emit(...messages))

/** Takes the next message of the client with this method. */
export const receive = (method: string) => Fake.FakeTransport.use((fake) => fake.takeMethod(method))

/** Responds to a request, or to the next request with this method. */
export const respond = Effect.fnUntraced(function*(request: Fake.Message | string, result: object) {
  const received = typeof request === "string" ? yield* receive(request) : request
  yield* emit({ id: received.id, result })
  return received
})

/** Rejects a request, or the next request with this method. */
export const reject = Effect.fnUntraced(function*(
  request: Fake.Message | string,
  error = { code: -32600, message: "Rejected." }
) {
  const { id } = typeof request === "string" ? yield* receive(request) : request
  yield* emit({ id, error })
})

/** Responds to the next `turn/interrupt`, and ends the turn. */
export const interruptTurn = Effect.fnUntraced(function*(threadId: string, turnId: string) {
  const { params } = yield* respond("turn/interrupt", {})
  yield* emit(Fake.turnCompleted(threadId, turnId, "interrupted"))
  return params
})

/** Ends the connection. */
export const end = (error: AppServerError.AppServerError) => Fake.FakeTransport.use((fake) => fake.end(error))

/** Waits for the connection that follows one second after the end of another. */
export const reconnect = Effect.andThen(
  TestClock.adjust("1 second"),
  Fake.FakeTransport.use((fake) => fake.reconnected)
)

/** Kills the server, and waits for the next connection. */
export const restart = Effect.andThen(end(killed), reconnect)

/** Lets the client process what it has received. */
export const settle = TestClock.adjust(0)

/** The requests and notifications of the client with this method. */
export const getSent = (method: string) =>
  Fake.FakeTransport.useSync((fake) => fake.sent.filter((message) => message.method === method))

/** The responses of the client to a request of the server. */
export const getResponses = (id: number) =>
  Fake.FakeTransport.useSync((fake) => fake.sent.filter((message) => message.method === undefined && message.id === id))

// -----------------------------------------------------------------------------
// The program
// -----------------------------------------------------------------------------

/** Opens a thread, to which the server gives this id. */
export const openThread = Effect.fnUntraced(function*(id: string, options?: Codex.StartOptions) {
  const codex = yield* Codex.Codex
  const opening = yield* Effect.forkChild(codex.startThread(options))
  yield* respond("thread/start", Fake.threadResponse(id))
  return yield* Fiber.join(opening)
})

/** Forks an effect that starts a turn, and binds the turn to this id. */
export const startTurn = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>, turnId: string) {
  const fiber = yield* Effect.forkChild(effect)
  yield* respond("turn/start", { turn: Fake.turn(turnId) })
  yield* settle
  return fiber
})

/** Runs an effect that fails with an `AppServerError`, and returns the reason. */
export const expectReason = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(AppServerError.isAppServerError(error))
    return error.reason
  })

// -----------------------------------------------------------------------------
// Approvals
// -----------------------------------------------------------------------------

/** The request to approve a command of turn `u` in thread `t`. */
export const commandRequest = (id: number, params: object = {}) => ({
  method: "item/commandExecution/requestApproval",
  id,
  params: {
    threadId: "t",
    turnId: "u",
    itemId: `item${id}`,
    startedAtMs: 1,
    command: "/bin/bash -c 'touch x'",
    cwd: "/repo",
    ...params
  }
})

/** Takes the next message of the client, which responds to this request, and returns the decision. */
export const receiveDecision = Effect.fnUntraced(function*(id: number) {
  const fake = yield* Fake.FakeTransport
  const response = yield* fake.take
  const decision: unknown = response.result?.decision
  assert.deepStrictEqual(response, { id, result: { decision } })
  return decision
})

/** Requests the approval of a command, and returns the decision. */
export const requestApproval = (id: number, params?: object) =>
  Effect.andThen(emit(commandRequest(id, params)), receiveDecision(id))

/** Approvals that make the same decision about each command. */
export const decideCommands = (decision: Approvals.CommandDecision): Approvals.Handlers => ({
  command: () => Effect.succeed(decision)
})

/** Approvals whose handler waits for the test. */
export const heldApprovals = Effect.gen(function*() {
  const started = yield* Deferred.make<void>()
  const interrupted = yield* Deferred.make<void>()
  const decision = yield* Deferred.make<Approvals.CommandDecision>()
  const approvals: Approvals.Handlers = {
    command: () =>
      Deferred.succeed(started, undefined).pipe(
        Effect.andThen(Deferred.await(decision)),
        Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
      )
  }
  return {
    approvals,
    started: Deferred.await(started),
    interrupted: Deferred.await(interrupted),
    accept: Deferred.succeed(decision, Approvals.accept)
  }
})
