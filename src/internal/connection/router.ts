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
  type Answer,
  immediately,
  type IncomingNotification,
  type IncomingRequest,
  type Step,
  type Withdrawal
} from "../jsonrpc/messages.ts"
import { decodeNotification, decoderOf, field, specOf, threadIdOf, turnIdOf } from "./codec.ts"
import { type Audience, DeltaLines, isDelta } from "./deltaParser.ts"
import { declineOf } from "./fallbackResponse.ts"
import { EventBuffer } from "./subscription.ts"

/** Grants nothing, and says so in the log. */
const decline = (request: IncomingRequest, because: "unhandled" | "failed", why: string): Effect.Effect<Answer> => {
  const threadId = threadIdOf(request.params)
  const { answer, effect } = declineOf(request.method, because)
  return Effect.as(
    Effect.logWarning(`${effect} ${request.method}${threadId === undefined ? "" : ` of thread ${threadId}`}: ${why}`),
    answer
  )
}

/** A listener that throws must not be felt by the others. */
const guarded = (tell: () => void, step: Step): void => {
  try {
    tell()
  } catch (error) {
    step.report(`A listener to notifications has thrown: ${String(error)}`)
  }
}

type Observer = (event: Protocol.ServerNotification, step: Step) => void

export type Handler = (params: unknown) => Effect.Effect<unknown, unknown>

const isNotHandled = (error: unknown): error is { readonly why: string } =>
  Predicate.isTagged(error, "NotHandled") && Predicate.hasProperty(error, "why") && Predicate.isString(error.why)

/** These do not name their turn, which is the one that the thread is running. */
const legacyApprovals: ReadonlySet<string> = new Set(["applyPatchApproval", "execCommandApproval"])

const endsOfThreads: ReadonlySet<string> = new Set(["thread/closed", "thread/archived", "thread/deleted"])

/** A request ends when it is resolved elsewhere, and with its turn or thread; then nobody else will answer it. */
export const withdraw = ({ method, params }: IncomingNotification): Withdrawal | undefined => {
  if (method === "serverRequest/resolved") {
    const id = field(params, "requestId")
    return { concerns: (request) => request.id === id, isAnswered: true }
  }
  const threadId = threadIdOf(params)
  if (method === "turn/completed") {
    const turnId = turnIdOf(params)
    return {
      concerns: (request) =>
        threadIdOf(request.params) === threadId &&
        (turnIdOf(request.params) === turnId || legacyApprovals.has(request.method)),
      isAnswered: false
    }
  }
  return endsOfThreads.has(method)
    ? { concerns: (request) => threadIdOf(request.params) === threadId, isAnswered: false }
    : undefined
}

export class Router {
  private readonly audiences = new Map<string, Audience>()
  private readonly subscribers = new Set<EventBuffer<Protocol.ServerNotification>>()
  private readonly observers = new Map<string, Set<Observer>>()
  private readonly handlers = new Map<string, ReadonlyArray<Handler>>()
  private readonly deltas = new DeltaLines()
  private ended: AppServerError | undefined

  listen(threadId: string, listener: NotificationListener): () => void {
    if (this.ended !== undefined) {
      listener.onEnd(this.ended, immediately)
      return () => {}
    }
    const audience = this.audiences.get(threadId) ?? { listeners: [] }
    audience.listeners = [...audience.listeners, listener]
    this.audiences.set(threadId, audience)
    return () => {
      audience.listeners = audience.listeners.filter((other) => other !== listener)
      if (audience.listeners.length === 0 && this.audiences.get(threadId) === audience) this.audiences.delete(threadId)
    }
  }

  subscribe(): EventBuffer<Protocol.ServerNotification> {
    const buffer = new EventBuffer<Protocol.ServerNotification>()
    if (this.ended === undefined) this.subscribers.add(buffer)
    else buffer.close(this.ended)
    return buffer
  }

  unsubscribe(buffer: EventBuffer<Protocol.ServerNotification>): void {
    this.subscribers.delete(buffer)
  }

  observe(method: string, observer: Observer): () => void {
    const observing = this.observers.get(method) ?? new Set()
    this.observers.set(method, observing.add(observer))
    return () => {
      observing.delete(observer)
      if (observing.size === 0 && this.observers.get(method) === observing) this.observers.delete(method)
    }
  }

  handle(method: string, handler: Handler): () => void {
    this.handlers.set(method, [...this.handlers.get(method) ?? [], handler])
    return () => {
      const others = (this.handlers.get(method) ?? []).filter((other) => other !== handler)
      if (others.length === 0) this.handlers.delete(method)
      else this.handlers.set(method, others)
    }
  }

  /** Most lines bring a piece of a text that is known already. */
  readonly takeLine = (line: string, step: Step): boolean => {
    const delta = this.deltas.read(line)
    if (delta === undefined) return false
    const { family } = delta
    const { method, params } = family.event
    if (this.subscribers.size > 0 || this.observers.has(method)) this.tellAll(method, delta.event, step)
    let audience = family.audience
    if (audience === undefined || audience.listeners.length === 0) {
      audience = family.audience = this.audiences.get(params.threadId)
    }
    if (audience === undefined) return true
    for (const listener of audience.listeners) {
      if (listener.onDelta !== undefined) listener.onDelta(delta, step)
      else guarded(() => listener.onNotification(delta.event, params.turnId, step), step)
    }
    return true
  }

  readonly onNotification = (message: IncomingNotification, step: Step, line: string): void => {
    const threadId = threadIdOf(message.params)
    const audience = threadId === undefined ? undefined : this.audiences.get(threadId)
    if (audience === undefined && this.subscribers.size === 0 && !this.observers.has(message.method)) return
    const event = decodeNotification(message, step)
    if (event === message && isDelta(event)) this.deltas.learn(line, event)
    this.tellAll(message.method, event, step)
    if (audience === undefined) return
    const turnId = turnIdOf(message.params)
    for (const listener of audience.listeners) guarded(() => listener.onNotification(event, turnId, step), step)
  }

  private tellAll(method: string, event: Protocol.ServerNotification, step: Step): void {
    for (const observer of this.observers.get(method) ?? []) guarded(() => observer(event, step), step)
    this.tell(event, step)
  }

  /** Tells the subscribers of all notifications, and nobody else. */
  tell(event: Protocol.ServerNotification, step: Step): void {
    for (const subscriber of this.subscribers) subscriber.offer(event, step)
  }

  readonly onRequest = (request: IncomingRequest): Effect.Effect<Answer> => {
    const registered = this.handlers.get(request.method) ?? []
    const spec = specOf(Protocol.serverRequests, request.method)
    const unhandled = "nobody handles it; answer it with AppServer.handle"
    if (registered.length === 0 || spec?.params === undefined) return decline(request, "unhandled", unhandled)
    const params = decoderOf(spec.params)(request.params)
    if (Result.isFailure(params)) {
      return decline(request, "failed", `it cannot be read: ${params.failure.message}`)
    }
    const encode = Schema.encodeUnknownEffect(spec.result as Schema.Codec<unknown>)
    const ask = (remaining: ReadonlyArray<Handler>, why: string): Effect.Effect<Answer> => {
      const handler = remaining.at(-1)
      if (handler === undefined) return decline(request, "unhandled", why)
      return Effect.suspend(() => handler(params.success)).pipe(
        Effect.flatMap((result) => encode(result)),
        Effect.map((result): Answer => ({ result })),
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
  end(error: AppServerError, step: Step): void {
    if (this.ended !== undefined) return
    this.ended = error
    for (const subscriber of this.subscribers) subscriber.close(error, step)
    for (const audience of this.audiences.values()) {
      const { listeners } = audience
      audience.listeners = []
      for (const listener of listeners) guarded(() => listener.onEnd(error, step), step)
    }
    this.subscribers.clear()
    this.audiences.clear()
  }
}
