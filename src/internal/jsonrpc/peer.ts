/**
 * The client's end of a connection, on any transport: JSON-RPC without the `jsonrpc` member, one message a line.
 *
 * `readBatch` reads a line, and this module parses and classifies it. A response completes a request of `outgoingRequests`. A request starts
 * a handler in `incomingRequests`. A notification goes to `onNotification`.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type AppServerError,
  isAppServerError,
  make as appServerError,
  Overloaded,
  RequestRejected
} from "../../AppServerError.ts"
import type { Connection } from "../../Transport.ts"
import { redactInJson } from "../redact.ts"
import { connectionClosed, scopeClosed } from "./connectionClosed.ts"
import { type IncomingHandlers, IncomingRequests } from "./incomingRequests.ts"
import { LineWriter } from "./lineWriter.ts"
import type { Cancellation, IncomingNotification, IncomingRequest, RequestId } from "./messages.ts"
import { type Limits, type OnFailure, type Outcome, OutgoingRequests, type Request } from "./outgoingRequests.ts"
import { BatchReader, type ReadBatch } from "./readBatch.ts"

export interface Peer {
  /** Sends a request and waits for the response. `onFailure` decides what a failure means to the caller. */
  readonly request: (request: Request, onFailure?: OnFailure) => Effect.Effect<unknown, AppServerError>
  readonly notify: (method: string, params?: unknown) => Effect.Effect<void, AppServerError>
  /** Why the connection has ended. `undefined` while it is open. */
  readonly closed: () => AppServerError | undefined
  /** Number of requests that were sent and have no response. */
  readonly requestsInFlight: () => number
  /** Number of read batches. */
  readonly batches: () => number
  /** Ends the connection. Does nothing if it has ended. */
  readonly close: (error: AppServerError) => void
  /** The requests of the server whose handlers can still respond. */
  readonly pendingServerRequests: () => ReadonlyArray<IncomingRequest>
}

export interface Options extends Limits, IncomingHandlers {
  /** Handles a line without parsing it, as `onNotification` would. Returns `false` if the line must be parsed. */
  readonly tryLine: (line: string, batch: ReadBatch) => boolean
  /** Called within a read batch: it must be quick and must not resume fibers itself. */
  readonly onNotification: (notification: IncomingNotification, batch: ReadBatch, line: string) => void
  /** The pending requests of the server that a notification cancels. */
  readonly cancellation: (notification: IncomingNotification) => Cancellation | undefined
  /** The method of the request that makes the server repeat its requests without a response. */
  readonly replayMethod: string
  readonly onClose: (error: AppServerError, batch: ReadBatch) => void
}

/** The server's code for a request that it refused because its queue is full. */
const overloadedCode = -32001

const toRejection = (method: string, error: unknown, redact: Connection["redact"]): AppServerError => {
  const code = Predicate.hasProperty(error, "code") && Predicate.isNumber(error.code) ? error.code : -32603
  if (code === overloadedCode) return appServerError(new Overloaded({ method }))
  const detail = Predicate.hasProperty(error, "message") && Predicate.isString(error.message)
    ? error.message
    : "the server gave no message"
  const data = Predicate.hasProperty(error, "data") ? error.data : undefined
  return appServerError(
    redact === undefined
      ? new RequestRejected({ method, code, detail, data })
      : new RequestRejected({ method, code, detail: redact(detail), data: redactInJson(data, redact) })
  )
}

const toOutcome = (message: object, method: string, redact: Connection["redact"]): Outcome => {
  if (!("error" in message) || message.error === undefined || message.error === null) {
    return Exit.succeed("result" in message ? message.result : undefined)
  }
  // The caller must not wait if `redact` of the transport throws.
  try {
    return Exit.fail(toRejection(method, message.error, redact))
  } catch (defect) {
    return Exit.die(defect)
  }
}

const isMethodMessage = (message: object): message is IncomingNotification =>
  "method" in message && Predicate.isString(message.method)

const isRequestId = (id: unknown): id is RequestId => Predicate.isString(id) || Predicate.isNumber(id)

/** The cause of the end of a connection, from the exit of the stream of its lines. */
const toCloseCause = (exit: Exit.Exit<unknown, unknown>): AppServerError => {
  const failure = Exit.isFailure(exit) ? exit.cause : undefined
  const error = failure && Option.getOrUndefined(Cause.findErrorOption(failure))
  if (isAppServerError(error)) return error
  return connectionClosed(
    "the transport ended",
    failure === undefined || Cause.hasInterruptsOnly(failure) ? {} : { cause: Cause.squash(failure) }
  )
}

/** Handles the parsed messages of one connection. */
class Dispatcher {
  private readonly options: Options
  private readonly incoming: IncomingRequests
  private readonly outgoing: OutgoingRequests
  private readonly redact: Connection["redact"]

  constructor(options: Options, incoming: IncomingRequests, outgoing: OutgoingRequests, redact: Connection["redact"]) {
    this.options = options
    this.incoming = incoming
    this.outgoing = outgoing
    this.redact = redact
  }

  readonly receive = (line: string, batch: ReadBatch): void => {
    if (this.options.tryLine(line, batch) || line.trim() === "") return
    let message: unknown
    try {
      message = JSON.parse(line)
    } catch {
      return batch.warn(`Skipped a line that is not JSON (${line.length} characters)`)
    }
    if (!Predicate.isObject(message)) {
      return batch.warn(`Skipped a line that is not a message (${line.length} characters)`)
    }
    const { id } = message
    if (isMethodMessage(message)) {
      const { method, params } = message
      return isRequestId(id)
        ? this.incoming.receive({ id, method, params }, batch)
        : this.receiveNotification(message, batch, line)
    }
    if (isRequestId(id) && ("result" in message || "error" in message || this.outgoing.has(id))) {
      return this.receiveResponse(id, message, batch)
    }
    batch.warn(`Skipped a message of unknown kind (${line.length} characters)`)
  }

  private receiveNotification(notification: IncomingNotification, batch: ReadBatch, line: string): void {
    const cancellation = this.incoming.isEmpty ? undefined : this.options.cancellation(notification)
    if (cancellation !== undefined) this.incoming.cancel(cancellation, batch)
    this.options.onNotification(notification, batch, line)
  }

  private receiveResponse(id: RequestId, message: object, batch: ReadBatch): void {
    const request = this.outgoing.take(id)
    if (request === undefined) {
      return batch.warn(`Ignored a response with the id \`${id}\`, which no pending request has`)
    }
    const outcome = toOutcome(message, request.method, this.redact)
    batch.afterBatch(() => this.outgoing.complete(request, outcome))
  }
}

export const makePeer = Effect.fnUntraced(function*(
  connection: Connection,
  options: Options
): Effect.fn.Return<Peer, never, Scope.Scope> {
  const { direct } = connection
  const runFork = yield* FiberSet.runtime(yield* FiberSet.make<void>())()
  const scheduler = yield* Effect.withFiberSucceed((fiber) => fiber.currentDispatcher)
  let closed: AppServerError | undefined

  const writer = new LineWriter(connection, (error) => close(error))
  const incoming = yield* IncomingRequests.make(options, writer)
  const outgoing = yield* OutgoingRequests.make(options, (line, request) => {
    if (request.method === options.replayMethod) incoming.startReplay()
    const issue = writer.sizeIssue(line, request.method)
    if (issue !== undefined) return outgoing.complete(request, Exit.fail(issue))
    if (direct !== undefined) return writer.buffer(line)
    runFork(connection.send(line)).addObserver((exit) => {
      if (Exit.isFailure(exit)) outgoing.complete(request, exit)
    })
  })
  const dispatcher = new Dispatcher(options, incoming, outgoing, connection.redact)
  const reader = new BatchReader({
    receive: dispatcher.receive,
    flushWrites: () => writer.flush(),
    schedule: (task) => scheduler.scheduleTask(task, 0),
    runFork
  })

  const close = (error: AppServerError) => {
    if (closed !== undefined) return
    closed = error
    outgoing.close(error, reader)
    incoming.clear()
    options.onClose(error, reader)
    reader.runActions()
  }

  const received = direct === undefined
    ? Stream.runForEachArray(connection.incoming, (lines) => Effect.sync(() => reader.read(lines)))
    : direct.receive((lines) => reader.read(lines))
  yield* received.pipe(
    Effect.onExit((exit) => Effect.andThen(Effect.sync(() => close(toCloseCause(exit))), incoming.interrupt)),
    Effect.exit,
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      writer.flush()
      close(scopeClosed())
    })
  )

  return {
    closed: () => closed,
    requestsInFlight: () => outgoing.sentCount,
    batches: () => reader.batches,
    close,
    pendingServerRequests: () => incoming.list(),
    notify: (method, params) =>
      Effect.suspend(() => closed === undefined ? writer.write({ method, params }, method) : Effect.fail(closed)),
    request: (request, onFailure) => {
      const response = outgoing.run(request, onFailure)
      return request.method !== options.replayMethod
        ? response
        : Effect.ensuring(response, Effect.sync(() => request.isSent && incoming.endReplay()))
    }
  }
})
