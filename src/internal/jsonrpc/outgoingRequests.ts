/**
 * The requests of this client on one connection. A request waits in a queue for a permit, because a server with too many requests drops
 * responses.
 *
 * For speed, the requests are kept in synchronous maps, and one fiber watches all deadlines. A fiber or a timer for each request would
 * cost more than the request.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberHandle from "effect/FiberHandle"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, RequestTimeout } from "../../AppServerError.ts"
import type { ReadBatch } from "./readBatch.ts"

export interface RequestOptions {
  readonly method: string
  /** The params as JSON, if there are any. */
  readonly params: string | undefined
  /** When the response must have arrived, in milliseconds of the connection's clock. */
  readonly deadline: number
  readonly timeoutMillis: number
  /** Whether the request needs no permit. An interrupt must not wait behind the request that it interrupts. */
  readonly bypassLimit: boolean
  /** The id of the request. By default, it is the next number. */
  readonly reservedId?: number | undefined
  /** The W3C trace context as JSON, if the caller is traced. */
  readonly trace?: string | undefined
  /** Called just before the transport gets the request. */
  readonly onSend: (() => void) | undefined
}

/** A request of this client, until it has a response or has failed. */
export class Request {
  readonly options: RequestOptions
  readonly method: string
  readonly deadline: number
  /** `undefined` until the request is sent. */
  id: number | undefined
  isSettled: boolean
  hasPermit: boolean
  /** When the permit is released without a response, in milliseconds of the clock. */
  permitUntil: number
  resume: ((outcome: Effect.Effect<unknown, AppServerError>) => void) | undefined
  onFailure: OnFailure | undefined

  // All fields are assigned here, so that V8 gives every request the same shape.
  constructor(options: RequestOptions) {
    this.options = options
    this.method = options.method
    this.deadline = options.deadline
    this.id = undefined
    this.isSettled = false
    this.hasPermit = false
    this.permitUntil = Infinity
    this.resume = undefined
    this.onFailure = undefined
  }

  get isSent(): boolean {
    return this.id !== undefined
  }

  /** A new request with the same options. */
  retry(): Request {
    return new Request(this.options)
  }
}

/** What a caller does when its request fails: it fails too, or retries. */
export type OnFailure = (error: AppServerError) => Effect.Effect<unknown, AppServerError>

export type Outcome = Exit.Exit<unknown, AppServerError>

export interface Limits {
  /** Maximum number of requests in flight. */
  readonly maxInFlight: number
  /** Maximum time, in milliseconds, for which a request without a response keeps its permit. */
  readonly maxPermitHold: number
}

type Send = (line: string, request: Request) => void

export class OutgoingRequests {
  private readonly limits: Limits
  private readonly send: Send
  private readonly clock: Clock.Clock
  private readonly runWatch: (watch: Effect.Effect<void>) => unknown
  /** The requests that wait for a permit, from `queueHead` on. Settled requests stay until `drainQueue` skips them. */
  private queue: Array<Request> = []
  private queueHead = 0
  private readonly pending = new Map<unknown, Request>()
  private inFlight = 0
  private nextId = 1
  private isDraining = false
  private closed: AppServerError | undefined
  /** When the fiber that watches deadlines wakes up. */
  private watchedUntil = Infinity

  private constructor(
    limits: Limits,
    send: Send,
    clock: Clock.Clock,
    runWatch: (watch: Effect.Effect<void>) => unknown
  ) {
    this.limits = limits
    this.send = send
    this.clock = clock
    this.runWatch = runWatch
  }

  /** `send` hands a line to the transport. */
  static readonly make = Effect.fnUntraced(function*(
    limits: Limits,
    send: Send
  ): Effect.fn.Return<OutgoingRequests, never, Scope.Scope> {
    const watcher = yield* FiberHandle.make<void>()
    return new OutgoingRequests(limits, send, yield* Clock.Clock, yield* FiberHandle.runtime(watcher)())
  })

  /** Sends a request when it has a permit, and waits for the response. `onFailure` decides what a failure means to the caller. */
  run(request: Request, onFailure: OnFailure = Effect.fail): Effect.Effect<unknown, AppServerError> {
    return Effect.callback((resume) => {
      if (this.closed !== undefined) return resume(onFailure(this.closed))
      request.resume = resume
      request.onFailure = onFailure
      if (request.options.bypassLimit || this.inFlight < this.limits.maxInFlight) this.start(request)
      else this.queue.push(request)
      if (request.deadline < this.watchedUntil) this.runWatch(this.watch)
      return Effect.sync(() => this.settle(request))
    })
  }

  /** Number of requests that were sent and have no response. */
  get sentCount(): number {
    return this.pending.size
  }

  /** Whether a request with this id is pending. */
  has(id: unknown): boolean {
    return this.pending.has(id)
  }

  /** Removes and returns the pending request with this id, for the caller to complete. */
  take(id: unknown): Request | undefined {
    const request = this.pending.get(id)
    if (request === undefined) return undefined
    this.pending.delete(id)
    this.release(request)
    return request
  }

  /** Fails all requests, and all later ones. */
  close(error: AppServerError, batch: ReadBatch): void {
    this.closed = error
    const outcome = Exit.fail(error)
    for (const request of this.unsettled()) batch.afterBatch(() => this.complete(request, outcome))
    this.pending.clear()
    this.queue = []
    this.queueHead = 0
  }

  /** Resumes the caller of a request, unless the request is settled. */
  complete(request: Request, outcome: Outcome): void {
    if (request.isSettled) return
    this.settle(request)
    request.resume?.(Exit.isSuccess(outcome) ? outcome : Effect.catch(outcome, request.onFailure!))
  }

  private unsettled(): ReadonlyArray<Request> {
    return [...this.pending.values(), ...this.queue.slice(this.queueHead)]
  }

  private start(request: Request): void {
    const { bypassLimit, method, onSend, params, reservedId, trace } = request.options
    const id = reservedId ?? this.nextId++
    request.id = id
    this.pending.set(id, request)
    if (!bypassLimit) this.acquire(request)
    onSend?.()
    this.send(
      `{"id":${id},"method":${JSON.stringify(method)}${params === undefined ? "" : `,"params":${params}`}${
        trace === undefined ? "" : `,"trace":${trace}`
      }}`,
      request
    )
  }

  private settle(request: Request): void {
    if (request.isSettled) return
    request.isSettled = true
    if (request.id === undefined) return
    this.pending.delete(request.id)
    this.release(request)
  }

  private acquire(request: Request): void {
    const { maxPermitHold } = this.limits
    request.hasPermit = true
    this.inFlight++
    if (request.options.timeoutMillis <= maxPermitHold) return
    request.permitUntil = this.clock.currentTimeMillisUnsafe() + maxPermitHold
    if (request.permitUntil < this.watchedUntil) this.runWatch(this.watch)
  }

  private release(request: Request): void {
    if (!request.hasPermit) return
    request.hasPermit = false
    request.permitUntil = Infinity
    this.inFlight--
    if (this.queue.length > 0) this.drainQueue()
  }

  private drainQueue(): void {
    // A request that cannot be sent releases its permit at once, and so calls this method again.
    if (this.isDraining) return
    this.isDraining = true
    while (this.queueHead < this.queue.length && this.inFlight < this.limits.maxInFlight) {
      const next = this.queue[this.queueHead++]!
      if (!next.isSettled) this.start(next)
    }
    if (this.queueHead === this.queue.length) {
      this.queue = []
      this.queueHead = 0
    }
    this.isDraining = false
  }

  /** Fails requests at their deadline, releases permits at `permitUntil`, and sleeps until the next such time. */
  private readonly watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.clock.currentTimeMillisUnsafe()
    // A permit that is released here starts another request, whose deadline the second loop reads.
    this.watchedUntil = now
    for (const request of this.unsettled()) {
      const { deadline, method, options: { timeoutMillis }, permitUntil } = request
      if (deadline <= now) {
        this.complete(request, Exit.fail(appServerError(new RequestTimeout({ method, timeoutMillis }))))
      } else if (permitUntil <= now) this.release(request)
    }
    this.watchedUntil = Infinity
    for (const { deadline, isSettled, permitUntil } of this.unsettled()) {
      if (!isSettled) this.watchedUntil = Math.min(this.watchedUntil, deadline, permitUntil)
    }
    return this.watchedUntil === Infinity
      ? Effect.void
      : Effect.andThen(Effect.sleep(this.watchedUntil - now), this.watch)
  })
}
