/**
 * The requests of the server that have no response yet. Each is handled in a fiber of its own and gets exactly one response.
 *
 * The server repeats requests without a response, with the same ids, when the client resumes a thread. Such a replay can cross a
 * response that is on its way, so the last responses are remembered.
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberMap from "effect/FiberMap"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import { getOwn } from "../getOwn.ts"
import type { LineWriter } from "./lineWriter.ts"
import type { Cancellation, IncomingRequest, RequestId, Response } from "./messages.ts"
import type { ReadBatch } from "./readBatch.ts"

/** Maximum number of requests that are remembered after their response, to recognize their replay. */
const maxRemembered = 256

const internalError = -32603

/** Identifies a request. A server counts its ids from 0, so its other fields distinguish it from one of another server. */
export const toIdentity = ({ id, method, params }: IncomingRequest): string =>
  JSON.stringify([
    id,
    method,
    ...["threadId", "turnId", "itemId", "callId", "approvalId", "startedAtMs"].map((name) => {
      const value = getOwn(params, name)
      return Predicate.isString(value) || Predicate.isNumber(value) ? value : null
    })
  ])

export interface IncomingHandlers {
  /** Runs in a fiber of its own, which is interrupted when the connection ends or the server cancels the request. */
  readonly onRequest: (request: IncomingRequest) => Effect.Effect<Response>
  /** Called within the read batch with each request, before its handler runs. */
  readonly onReceived: (request: IncomingRequest, batch: ReadBatch) => void
  /** Called with each request that has a response, from this client or from another one. */
  readonly onSettled: (request: IncomingRequest) => void
  /** The response to a request whose handler was interrupted. */
  readonly canceledResponse: (request: IncomingRequest) => Response
}

type RunFork = (id: RequestId, effect: Effect.Effect<void>) => Fiber.Fiber<void, unknown>

export class IncomingRequests {
  /**
   * Synchronous, because the reader uses it. The code that removes a request from this map sends its response, so there is only one.
   */
  private readonly pending = new Map<RequestId, IncomingRequest>()
  /** The pending requests whose handlers were interrupted. Each is declined when its handler has ended. */
  private readonly canceled = new WeakSet<IncomingRequest>()
  /** Number of requests for a replay that were sent, and of those that have no response yet. */
  private replays = 0
  private pendingReplays = 0
  /** Number of replays that had ended when a request was received. */
  private readonly replaysBefore = new WeakMap<IncomingRequest, number>()
  private readonly remembered = new Set<string>()
  private readonly handlers: IncomingHandlers
  private readonly writer: LineWriter
  private readonly runFork: RunFork
  /** Interrupts all handlers. */
  readonly interrupt: Effect.Effect<void>

  private constructor(
    handlers: IncomingHandlers,
    writer: LineWriter,
    fibers: FiberMap.FiberMap<RequestId>,
    runFork: RunFork
  ) {
    this.handlers = handlers
    this.writer = writer
    this.runFork = runFork
    this.interrupt = FiberMap.clear(fibers)
  }

  static readonly make = Effect.fnUntraced(function*(
    handlers: IncomingHandlers,
    writer: LineWriter
  ): Effect.fn.Return<IncomingRequests, never, Scope.Scope> {
    const fibers = yield* FiberMap.make<RequestId>()
    const runFork = yield* FiberMap.runtime(fibers)()
    return new IncomingRequests(handlers, writer, fibers, (id, effect) => runFork(id, effect))
  })

  get isEmpty(): boolean {
    return this.pending.size === 0
  }

  /** The requests whose handlers can still respond. */
  list(): ReadonlyArray<IncomingRequest> {
    return [...this.pending.values()].filter((request) => !this.canceled.has(request))
  }

  /** Starts the handler of a request after the batch. Ignores a replay of a request that is pending or has a response. */
  receive(request: IncomingRequest, batch: ReadBatch): void {
    if (this.pending.has(request.id)) return
    if (this.remembered.size > 0 && this.remembered.has(toIdentity(request))) return
    this.pending.set(request.id, request)
    this.replaysBefore.set(request, this.replays - this.pendingReplays)
    this.handlers.onReceived(request, batch)
    batch.afterBatch(() =>
      this.run(request, Effect.flatMap(this.handlers.onRequest(request), (response) => this.respond(request, response)))
    )
  }

  /** Interrupts the handlers of the requests that a notification cancels. */
  cancel({ isResponded, matches }: Cancellation, batch: ReadBatch): void {
    for (const request of this.pending.values()) {
      if (!matches(request)) continue
      if (isResponded) this.settle(request)
      else this.canceled.add(request)
      // A new fiber with the key of the handler interrupts the handler.
      batch.afterBatch(() => this.runFork(request.id, Effect.void))
    }
  }

  /** Counts a request for a replay when it is sent. */
  startReplay(): void {
    this.replays++
    this.pendingReplays++
  }

  endReplay(): void {
    this.pendingReplays--
  }

  /** Forgets all requests: the connection has ended. */
  clear(): void {
    this.pending.clear()
  }

  /** Runs a handler. If the handler is interrupted or dies, declines the request. */
  private run(request: IncomingRequest, handler: Effect.Effect<void>): void {
    this.runFork(request.id, handler).addObserver((exit) => {
      if (this.pending.get(request.id) !== request) return
      const decline = this.respond(request, this.handlers.canceledResponse(request))
      const hasDefect = Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
      this.runFork(
        request.id,
        hasDefect
          ? Effect.andThen(
            Effect.ignoreCause(
              Effect.logError(`The handler of \`${request.method}\` died, so the request is declined`, exit.cause)
            ),
            decline
          )
          : decline
      )
    })
  }

  /** Sends the response, or an error if the response is not JSON: without one the server would wait. */
  private respond(request: IncomingRequest, response: Response): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.pending.get(request.id) !== request) return Effect.void
      this.settle(request)
      this.remember(request)
      return this.writer.write({ id: request.id, ...response }, request.method).pipe(
        Effect.catch(({ message }) =>
          this.writer.write({ id: request.id, error: { code: internalError, message } }, request.method)
        ),
        Effect.ignore
      )
    }).pipe(Effect.uninterruptible)
  }

  private settle(request: IncomingRequest): void {
    this.pending.delete(request.id)
    this.handlers.onSettled(request)
  }

  private remember(request: IncomingRequest): void {
    if (this.replaysBefore.get(request) === this.replays) return
    this.remembered.add(toIdentity(request))
    if (this.remembered.size > maxRemembered) this.remembered.delete(this.remembered.keys().next().value!)
  }
}
