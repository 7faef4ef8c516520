/**
 * Routes the messages of the server: notifications to listeners and subscribers, requests to handlers. The router outlives a connection, so
 * they stay registered across restarts. For speed, its maps are synchronous: the reader uses them for every line.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { AppServerError } from "../../AppServerError.ts"
import * as Protocol from "../../Protocol.ts"
import type { IncomingNotification, IncomingRequest, Response } from "../jsonrpc/messages.ts"
import { type ReadBatch, syncBatch } from "../jsonrpc/readBatch.ts"
import { decodeNotification, decoderFor, getSpec, getThreadId, getTurnId } from "./codec.ts"
import { isDelta, type Listeners, type NotificationListener } from "./delta.ts"
import { DeltaParser } from "./deltaParser.ts"
import { type FallbackCause, fallbackResponse } from "./fallbackResponse.ts"
import { type NotHandled } from "./notHandled.ts"
import { Subscription } from "./subscription.ts"

/** Declines a request, and logs the reason. */
const decline = (request: IncomingRequest, cause: FallbackCause, reason: string): Effect.Effect<Response> => {
  const threadId = getThreadId(request.params)
  const { response, verb } = fallbackResponse(request.method, cause)
  return Effect.as(
    Effect.logWarning(
      `${verb} \`${request.method}\`${threadId === undefined ? "" : ` of thread \`${threadId}\``}: ${reason}`
    ),
    response
  )
}

/** Keeps a listener that throws from affecting the next one. */
const catchThrow = (notify: () => void, batch: ReadBatch): void => {
  try {
    notify()
  } catch (error) {
    batch.warn(`A notification listener threw: ${String(error)}`)
  }
}

type NotificationHandler = (event: Protocol.ServerNotification, batch: ReadBatch) => void

type RequestHandler = (params: unknown) => Effect.Effect<unknown, unknown>

const isNotHandled = (error: unknown): error is NotHandled =>
  Predicate.isTagged(error, "NotHandled") && Predicate.hasProperty(error, "why") && Predicate.isString(error.why)

export class Router {
  private readonly threadListeners = new Map<string, Listeners>()
  private readonly subscriptions = new Set<Subscription<Protocol.ServerNotification>>()
  private readonly notificationHandlers = new Map<string, Set<NotificationHandler>>()
  private readonly requestHandlers = new Map<string, ReadonlyArray<RequestHandler>>()
  private readonly deltaParser = new DeltaParser()
  private closed: AppServerError | undefined

  /** Adds a listener to the notifications of a thread and returns the function that removes it. */
  addThreadListener(threadId: string, listener: NotificationListener): () => void {
    if (this.closed !== undefined) {
      listener.onClose(this.closed, syncBatch)
      return () => {}
    }
    const listeners = this.threadListeners.get(threadId) ?? { all: [] }
    listeners.all = [...listeners.all, listener]
    this.threadListeners.set(threadId, listeners)
    return () => {
      listeners.all = listeners.all.filter((other) => other !== listener)
      if (listeners.all.length === 0 && this.threadListeners.get(threadId) === listeners) {
        this.threadListeners.delete(threadId)
      }
    }
  }

  subscribe(): Subscription<Protocol.ServerNotification> {
    const subscription = new Subscription<Protocol.ServerNotification>()
    if (this.closed === undefined) this.subscriptions.add(subscription)
    else subscription.close(this.closed)
    return subscription
  }

  unsubscribe(subscription: Subscription<Protocol.ServerNotification>): void {
    this.subscriptions.delete(subscription)
  }

  /** Adds a handler of the notifications of one method, of any thread, and returns the function that removes it. */
  addNotificationHandler(method: string, handler: NotificationHandler): () => void {
    const handlers = this.notificationHandlers.get(method) ?? new Set()
    this.notificationHandlers.set(method, handlers.add(handler))
    return () => {
      handlers.delete(handler)
      if (handlers.size === 0 && this.notificationHandlers.get(method) === handlers) {
        this.notificationHandlers.delete(method)
      }
    }
  }

  /** Adds a handler of the requests of one method and returns the function that removes it. The last handler is called first. */
  addRequestHandler(method: string, handler: RequestHandler): () => void {
    this.requestHandlers.set(method, [...this.requestHandlers.get(method) ?? [], handler])
    return () => {
      const others = (this.requestHandlers.get(method) ?? []).filter((other) => other !== handler)
      if (others.length === 0) this.requestHandlers.delete(method)
      else this.requestHandlers.set(method, others)
    }
  }

  /** Routes a line that the delta parser can parse, as most lines. Returns `false` for any other line. */
  readonly tryLine = (line: string, batch: ReadBatch): boolean => {
    const delta = this.deltaParser.tryParse(line)
    if (delta === undefined) return false
    const { template } = delta
    const { method, params } = template.event
    if (this.subscriptions.size > 0 || this.notificationHandlers.has(method)) {
      this.publishAll(method, delta.event, batch)
    }
    let { listeners } = template
    if (listeners === undefined || listeners.all.length === 0) {
      listeners = template.listeners = this.threadListeners.get(params.threadId)
    }
    if (listeners === undefined) return true
    for (const listener of listeners.all) {
      if (listener.onDelta !== undefined) listener.onDelta(delta, batch)
      else catchThrow(() => listener.onNotification(delta.event, params.turnId, batch), batch)
    }
    return true
  }

  readonly onNotification = (message: IncomingNotification, batch: ReadBatch, line: string): void => {
    const threadId = getThreadId(message.params)
    const listeners = threadId === undefined ? undefined : this.threadListeners.get(threadId)
    if (
      listeners === undefined && this.subscriptions.size === 0 && !this.notificationHandlers.has(message.method)
    ) return
    const event = decodeNotification(message, batch)
    if (event === message && isDelta(event)) this.deltaParser.register(line, event)
    this.publishAll(message.method, event, batch)
    if (listeners === undefined) return
    const turnId = getTurnId(message.params)
    for (const listener of listeners.all) catchThrow(() => listener.onNotification(event, turnId, batch), batch)
  }

  private publishAll(method: string, event: Protocol.ServerNotification, batch: ReadBatch): void {
    for (const handler of this.notificationHandlers.get(method) ?? []) catchThrow(() => handler(event, batch), batch)
    this.publish(event, batch)
  }

  /** Publishes an event to the subscribers of all notifications only. */
  publish(event: Protocol.ServerNotification, batch: ReadBatch): void {
    for (const subscription of this.subscriptions) subscription.offer(event, batch)
  }

  /** Runs the handlers of a request until one responds. */
  readonly onRequest = (request: IncomingRequest): Effect.Effect<Response> => {
    const handlers = this.requestHandlers.get(request.method) ?? []
    const spec = getSpec(Protocol.serverRequests, request.method)
    const unhandled = "no handler is registered. Add one with `AppServer.handle`."
    if (handlers.length === 0 || spec?.params === undefined) return decline(request, "unhandled", unhandled)
    const params = decoderFor(spec.params)(request.params)
    if (Result.isFailure(params)) {
      return decline(request, "failed", `its params do not decode: ${params.failure.message}`)
    }
    const encode = Schema.encodeUnknownEffect(spec.result as Schema.Codec<unknown>)
    const runLast = (remaining: ReadonlyArray<RequestHandler>, reason: string): Effect.Effect<Response> => {
      const handler = remaining.at(-1)
      if (handler === undefined) return decline(request, "unhandled", reason)
      return Effect.suspend(() => handler(params.success)).pipe(
        Effect.flatMap((result) => encode(result)),
        Effect.map((result): Response => ({ result })),
        Effect.catchIf(isNotHandled, ({ why }) => runLast(remaining.slice(0, -1), why)),
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logError(`The handler of \`${request.method}\` failed`, cause),
            decline(request, "failed", "its handler failed.")
          )
        )
      )
    }
    return runLast(handlers, unhandled)
  }

  /** Ends all listeners and subscriptions after their unread events. */
  close(error: AppServerError, batch: ReadBatch): void {
    if (this.closed !== undefined) return
    this.closed = error
    for (const subscription of this.subscriptions) subscription.close(error, batch)
    for (const listeners of this.threadListeners.values()) {
      const { all } = listeners
      listeners.all = []
      for (const listener of all) catchThrow(() => listener.onClose(error, batch), batch)
    }
    this.subscriptions.clear()
    this.threadListeners.clear()
  }
}
