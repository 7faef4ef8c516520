/**
 * Where the messages of the server go: notifications to whoever listens, requests to whoever answers. It outlives a connection,
 * so that a restarted server finds everybody where they were.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { NotificationListener } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import * as Protocol from "../../Protocol.ts"
import {
  type Cancellation,
  type IncomingNotification,
  type IncomingRequest,
  type ReadBatch,
  type Response,
  syncBatch
} from "../jsonrpc/messages.ts"
import { decodeNotification, decoderFor, getOwn, getSpec, getThreadId, getTurnId } from "./codec.ts"
import { DeltaParser, isDelta, type Listeners } from "./deltaParser.ts"
import { fallbackResponse } from "./fallbackResponse.ts"
import { Subscription } from "./subscription.ts"

/** Grants nothing, and says so in the log. */
const decline = (request: IncomingRequest, because: "unhandled" | "failed", why: string): Effect.Effect<Response> => {
  const threadId = getThreadId(request.params)
  const { answer, effect } = fallbackResponse(request.method, because)
  return Effect.as(
    Effect.logWarning(`${effect} ${request.method}${threadId === undefined ? "" : ` of thread ${threadId}`}: ${why}`),
    answer
  )
}

/** A listener that throws must not be felt by the others. */
const catchThrow = (tell: () => void, batch: ReadBatch): void => {
  try {
    tell()
  } catch (error) {
    batch.warn(`A listener to notifications has thrown: ${String(error)}`)
  }
}

type NotificationHandler = (event: Protocol.ServerNotification, batch: ReadBatch) => void

export type RequestHandler = (params: unknown) => Effect.Effect<unknown, unknown>

const isNotHandled = (error: unknown): error is { readonly why: string } =>
  Predicate.isTagged(error, "NotHandled") && Predicate.hasProperty(error, "why") && Predicate.isString(error.why)

/** These do not name their turn, which is the one that the thread is running. */
const legacyApprovals: ReadonlySet<string> = new Set(["applyPatchApproval", "execCommandApproval"])

const threadEndMethods: ReadonlySet<string> = new Set(["thread/closed", "thread/archived", "thread/deleted"])

/** A request ends when it is resolved elsewhere, and with its turn or thread; then nobody else will answer it. */
export const cancellationOf = ({ method, params }: IncomingNotification): Cancellation | undefined => {
  if (method === "serverRequest/resolved") {
    const id = getOwn(params, "requestId")
    return { matches: (request) => request.id === id, isResponded: true }
  }
  const threadId = getThreadId(params)
  if (method === "turn/completed") {
    const turnId = getTurnId(params)
    return {
      matches: (request) =>
        getThreadId(request.params) === threadId &&
        (getTurnId(request.params) === turnId || legacyApprovals.has(request.method)),
      isResponded: false
    }
  }
  return threadEndMethods.has(method)
    ? { matches: (request) => getThreadId(request.params) === threadId, isResponded: false }
    : undefined
}

export class Router {
  private readonly listeners = new Map<string, Listeners>()
  private readonly subscribers = new Set<Subscription<Protocol.ServerNotification>>()
  private readonly notificationHandlers = new Map<string, Set<NotificationHandler>>()
  private readonly requestHandlers = new Map<string, ReadonlyArray<RequestHandler>>()
  private readonly deltaParser = new DeltaParser()
  private ended: AppServerError | undefined

  addThreadListener(threadId: string, listener: NotificationListener): () => void {
    if (this.ended !== undefined) {
      listener.onClose(this.ended, syncBatch)
      return () => {}
    }
    const audience = this.listeners.get(threadId) ?? { listeners: [] }
    audience.listeners = [...audience.listeners, listener]
    this.listeners.set(threadId, audience)
    return () => {
      audience.listeners = audience.listeners.filter((other) => other !== listener)
      if (audience.listeners.length === 0 && this.listeners.get(threadId) === audience) this.listeners.delete(threadId)
    }
  }

  subscribe(): Subscription<Protocol.ServerNotification> {
    const buffer = new Subscription<Protocol.ServerNotification>()
    if (this.ended === undefined) this.subscribers.add(buffer)
    else buffer.close(this.ended)
    return buffer
  }

  unsubscribe(buffer: Subscription<Protocol.ServerNotification>): void {
    this.subscribers.delete(buffer)
  }

  addNotificationHandler(method: string, observer: NotificationHandler): () => void {
    const observing = this.notificationHandlers.get(method) ?? new Set()
    this.notificationHandlers.set(method, observing.add(observer))
    return () => {
      observing.delete(observer)
      if (observing.size === 0 && this.notificationHandlers.get(method) === observing) {
        this.notificationHandlers.delete(method)
      }
    }
  }

  addRequestHandler(method: string, handler: RequestHandler): () => void {
    this.requestHandlers.set(method, [...this.requestHandlers.get(method) ?? [], handler])
    return () => {
      const others = (this.requestHandlers.get(method) ?? []).filter((other) => other !== handler)
      if (others.length === 0) this.requestHandlers.delete(method)
      else this.requestHandlers.set(method, others)
    }
  }

  /** Most lines bring a piece of a text that is known already. */
  readonly takeLine = (line: string, batch: ReadBatch): boolean => {
    const delta = this.deltaParser.tryParse(line)
    if (delta === undefined) return false
    const { template } = delta
    const { method, params } = template.event
    if (this.subscribers.size > 0 || this.notificationHandlers.has(method)) this.publishAll(method, delta.event, batch)
    let audience = template.listeners
    if (audience === undefined || audience.listeners.length === 0) {
      audience = template.listeners = this.listeners.get(params.threadId)
    }
    if (audience === undefined) return true
    for (const listener of audience.listeners) {
      if (listener.onDelta !== undefined) listener.onDelta(delta, batch)
      else catchThrow(() => listener.onNotification(delta.event, params.turnId, batch), batch)
    }
    return true
  }

  readonly onNotification = (message: IncomingNotification, batch: ReadBatch, line: string): void => {
    const threadId = getThreadId(message.params)
    const audience = threadId === undefined ? undefined : this.listeners.get(threadId)
    if (audience === undefined && this.subscribers.size === 0 && !this.notificationHandlers.has(message.method)) return
    const event = decodeNotification(message, batch)
    if (event === message && isDelta(event)) this.deltaParser.register(line, event)
    this.publishAll(message.method, event, batch)
    if (audience === undefined) return
    const turnId = getTurnId(message.params)
    for (const listener of audience.listeners) catchThrow(() => listener.onNotification(event, turnId, batch), batch)
  }

  private publishAll(method: string, event: Protocol.ServerNotification, batch: ReadBatch): void {
    for (const observer of this.notificationHandlers.get(method) ?? []) catchThrow(() => observer(event, batch), batch)
    this.publish(event, batch)
  }

  /** Tells the subscribers of all notifications, and nobody else. */
  publish(event: Protocol.ServerNotification, batch: ReadBatch): void {
    for (const subscriber of this.subscribers) subscriber.offer(event, batch)
  }

  readonly onRequest = (request: IncomingRequest): Effect.Effect<Response> => {
    const registered = this.requestHandlers.get(request.method) ?? []
    const spec = getSpec(Protocol.serverRequests, request.method)
    const unhandled = "nobody handles it; answer it with AppServer.handle"
    if (registered.length === 0 || spec?.params === undefined) return decline(request, "unhandled", unhandled)
    const params = decoderFor(spec.params)(request.params)
    if (Result.isFailure(params)) {
      return decline(request, "failed", `it cannot be read: ${params.failure.message}`)
    }
    const encode = Schema.encodeUnknownEffect(spec.result as Schema.Codec<unknown>)
    const ask = (remaining: ReadonlyArray<RequestHandler>, why: string): Effect.Effect<Response> => {
      const handler = remaining.at(-1)
      if (handler === undefined) return decline(request, "unhandled", why)
      return Effect.suspend(() => handler(params.success)).pipe(
        Effect.flatMap((result) => encode(result)),
        Effect.map((result): Response => ({ result })),
        Effect.catchIf(isNotHandled, ({ why }) => ask(remaining.slice(0, -1), why)),
        Effect.catchCause((cause) =>
          Effect.andThen(
            Effect.logError(`The handler of ${request.method} failed`, cause),
            decline(request, "failed", "its handler failed")
          )
        )
      )
    }
    return ask(registered, unhandled)
  }

  /** There will be no connection any more. What was said before is heard first. */
  end(error: AppServerError, batch: ReadBatch): void {
    if (this.ended !== undefined) return
    this.ended = error
    for (const subscriber of this.subscribers) subscriber.close(error, batch)
    for (const audience of this.listeners.values()) {
      const { listeners } = audience
      audience.listeners = []
      for (const listener of listeners) catchThrow(() => listener.onClose(error, batch), batch)
    }
    this.subscribers.clear()
    this.listeners.clear()
  }
}
