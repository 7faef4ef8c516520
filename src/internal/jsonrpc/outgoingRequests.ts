/**
 * Our requests on one connection: those that wait for a place, because the server drops answers when it has too many requests,
 * and those that wait for their answer. One fiber watches the deadlines of all of them.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberHandle from "effect/FiberHandle"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, RequestTimeout } from "../../AppServerError.ts"
import { loginCheck } from "../connection/loginCheck.ts"
import type { ReadBatch } from "./messages.ts"

/** A request of ours, from the moment it is made until it is over. */
export class Request {
  readonly method: string
  /** Its params as JSON, if it has any. */
  readonly params: string | undefined
  /** When it must have its answer, in milliseconds of the connection's clock, and how long that was from its start. */
  readonly deadline: number
  readonly timeoutMillis: number
  /** It needs no place, as an interrupt, which must not wait behind what it interrupts, and the check of the login. */
  readonly bypassLimit: boolean
  /** Called just before the transport is given it. */
  readonly onSend: (() => void) | undefined
  /** It has one when it was sent. */
  id: number | undefined
  isSettled: boolean
  /** Whether it has one of the places, and until when it may keep it. */
  hasPermit: boolean
  permitUntil: number
  resume: ((outcome: Effect.Effect<unknown, AppServerError>) => void) | undefined
  onFailure: OnFailure | undefined

  /** Whether the transport was given it. */
  get isSent(): boolean {
    return this.id !== undefined
  }

  /** The same once more. */
  retry(): Request {
    return new Request(this.method, this.params, this.deadline, this.timeoutMillis, this.bypassLimit, this.onSend)
  }

  constructor(
    method: string,
    params: string | undefined,
    deadline: number,
    timeoutMillis: number,
    isUrgent: boolean,
    onSend: (() => void) | undefined
  ) {
    this.method = method
    this.params = params
    this.deadline = deadline
    this.timeoutMillis = timeoutMillis
    this.bypassLimit = isUrgent
    this.onSend = onSend
    this.id = undefined
    this.isSettled = false
    this.hasPermit = false
    this.permitUntil = Infinity
    this.resume = undefined
    this.onFailure = undefined
  }
}

export type OnFailure = (error: AppServerError) => Effect.Effect<unknown, AppServerError>

export type Outcome = Exit.Exit<unknown, AppServerError>

export class OutgoingRequests {
  private readonly maxInFlight: number
  private readonly maxPermitHold: number
  private readonly clock: Clock.Clock
  private readonly runWatch: (watch: Effect.Effect<void>) => unknown
  private readonly send: (line: string, request: Request) => void
  /** Those that are over are left out when it is their turn. */
  private queue: Array<Request> = []
  private queueHead = 0
  private readonly pending = new Map<unknown, Request>()
  private inFlight = 0
  private nextId = loginCheck.id + 1
  private isDraining = false
  private ended: AppServerError | undefined
  /** Until when the watcher sleeps. */
  private watchedUntil = Infinity

  private constructor(
    places: number,
    placeMillis: number,
    send: (line: string, request: Request) => void,
    clock: Clock.Clock,
    runWatch: (watch: Effect.Effect<void>) => unknown
  ) {
    this.maxInFlight = places
    this.maxPermitHold = placeMillis
    this.send = send
    this.clock = clock
    this.runWatch = runWatch
  }

  /**
   * `places` is how many requests may be unanswered at once; `send` hands a line to the transport. A request that is patient keeps
   * its place for `placeMillis`: what is not answered by then may never be, and others could not ask any more.
   */
  static make(
    places: number,
    placeMillis: number,
    send: (line: string, request: Request) => void
  ): Effect.Effect<OutgoingRequests, never, Scope.Scope> {
    return Effect.gen(function*() {
      const watcher = yield* FiberHandle.make<void>()
      return new OutgoingRequests(places, placeMillis, send, yield* Clock.Clock, yield* FiberHandle.runtime(watcher)())
    })
  }

  /** Sends a request when it has a place, and waits for its answer, or for what is done when it fails. */
  run(request: Request, onFailure: OnFailure = Effect.fail): Effect.Effect<unknown, AppServerError> {
    return Effect.callback((resume) => {
      if (this.ended !== undefined) return resume(onFailure(this.ended))
      request.resume = resume
      request.onFailure = onFailure
      if (request.bypassLimit || this.inFlight < this.maxInFlight) this.start(request)
      else this.queue.push(request)
      if (request.deadline < this.watchedUntil) this.runWatch(this.watch)
      return Effect.sync(() => this.settle(request))
    })
  }

  /** Whether a request waits for an answer with this id. */
  has(id: unknown): boolean {
    return this.pending.has(id)
  }

  /** Takes out the request that waits for an answer with this id, if one does. It is to be completed with that. */
  take(id: unknown): Request | undefined {
    const request = this.pending.get(id)
    if (request === undefined) return undefined
    this.pending.delete(id)
    this.release(request)
    return request
  }

  /** Fails all that wait, and all that come later. */
  end(error: AppServerError, batch: ReadBatch): void {
    this.ended = error
    const outcome = Exit.fail(error)
    for (const request of this.open()) batch.afterBatch(() => this.complete(request, outcome))
    this.pending.clear()
    this.queue = []
    this.queueHead = 0
  }

  complete(request: Request, outcome: Outcome): void {
    if (request.isSettled) return
    this.settle(request)
    request.resume?.(Exit.isSuccess(outcome) ? outcome : Effect.catch(outcome, request.onFailure!))
  }

  private open(): ReadonlyArray<Request> {
    return [...this.pending.values(), ...this.queue.slice(this.queueHead)]
  }

  private start(request: Request): void {
    const id = request.bypassLimit && request.method === loginCheck.method ? loginCheck.id : this.nextId++
    request.id = id
    this.pending.set(id, request)
    if (!request.bypassLimit) this.acquire(request)
    request.onSend?.()
    const { method, params } = request
    this.send(
      `{"id":${id},"method":${JSON.stringify(method)}${params === undefined ? "" : `,"params":${params}`}}`,
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
    request.hasPermit = true
    this.inFlight++
    if (request.timeoutMillis <= this.maxPermitHold) return
    request.permitUntil = this.clock.currentTimeMillisUnsafe() + this.maxPermitHold
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
    // One that cannot be sent leaves at once.
    if (this.isDraining) return
    this.isDraining = true
    while (this.queueHead < this.queue.length && this.inFlight < this.maxInFlight) {
      const next = this.queue[this.queueHead++]!
      if (!next.isSettled) this.start(next)
    }
    if (this.queueHead === this.queue.length) {
      this.queue = []
      this.queueHead = 0
    }
    this.isDraining = false
  }

  /** Fails what has waited too long, takes back places, and sleeps until there is something to do again, if that is ever. */
  private readonly watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = this.clock.currentTimeMillisUnsafe()
    // What is sent meanwhile is seen below.
    this.watchedUntil = now
    for (const request of this.open()) {
      const { deadline, method, permitUntil, timeoutMillis } = request
      if (deadline <= now) {
        this.complete(request, Exit.fail(appServerError(new RequestTimeout({ method, timeoutMillis }))))
      } else if (permitUntil <= now) this.release(request)
    }
    this.watchedUntil = Infinity
    for (const { deadline, isSettled, permitUntil } of this.open()) {
      if (!isSettled) this.watchedUntil = Math.min(this.watchedUntil, deadline, permitUntil)
    }
    return this.watchedUntil === Infinity
      ? Effect.void
      : Effect.andThen(Effect.sleep(this.watchedUntil - now), this.watch)
  })
}
