/**
 * All that is known of one turn, folded from its notifications in the reader's step.
 *
 * It listens to its thread from before `turn/start` is sent, so nothing can be missed: until the answer has named the
 * turn, whatever is said of any turn of the thread is kept, and then sorted.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type { NotificationListener } from "../../AppServer.ts"
import { type AppServerError, DecodeFailed, make as appServerError } from "../../AppServerError.ts"
import * as Protocol from "../../Protocol.ts"
import { append, EventBuffer } from "../connection/eventBuffer.ts"
import type { Step } from "../connection/jsonRpcPeer.ts"
import { mergeDeltas } from "../connection/mergeDeltas.ts"

const errorOf = (outcome: Result.Result<Protocol.Turn, AppServerError>): AppServerError | undefined =>
  Result.isFailure(outcome) ? outcome.failure : undefined

const isEnd = Schema.is(Schema.Struct({
  method: Schema.Literal("turn/completed"),
  params: Schema.Struct({
    turn: Schema.Struct({
      id: Schema.String,
      status: Schema.optionalKey(Schema.Unknown),
      error: Schema.optionalKey(Schema.Unknown)
    })
  })
}))

const isTurnError = Schema.is(Protocol.TurnError)

export class TurnState implements NotificationListener {
  readonly threadId: string
  readonly items: Array<Protocol.ThreadItem> = []
  usage: Protocol.ThreadTokenUsage | undefined
  /** The server has said that the turn runs; before that it cannot be interrupted by its id. */
  started = false
  readonly completion = Deferred.makeUnsafe<Protocol.Turn, AppServerError>()
  /** How the turn ended, once it has. */
  outcome: Result.Result<Protocol.Turn, AppServerError> | undefined

  private turnId: string | undefined
  private early: Array<readonly [turnId: string, event: Protocol.TurnNotification]> = []
  /** All events, for subscribers that come late. */
  private readonly log: Array<Protocol.TurnNotification> = []
  private readonly subscribers = new Set<EventBuffer<Protocol.TurnNotification>>()

  constructor(threadId: string) {
    this.threadId = threadId
  }

  onNotification(event: Protocol.ServerNotification, turnId: string | undefined, step: Step): void {
    if (turnId === undefined || this.outcome !== undefined) return
    if (this.turnId === undefined) this.early.push([turnId, event as Protocol.TurnNotification])
    else if (this.turnId === turnId) this.add(event as Protocol.TurnNotification, step)
  }

  onEnd(error: AppServerError, step: Step): void {
    this.finish(Result.fail(error), step)
  }

  /** Names the turn. */
  bind(turnId: string, step: Step): void {
    this.turnId = turnId
    const early = this.early
    this.early = []
    for (const [id, event] of early) {
      if (id === turnId && this.outcome === undefined) this.add(event, step)
    }
  }

  subscribe(): EventBuffer<Protocol.TurnNotification> {
    const buffer = new EventBuffer<Protocol.TurnNotification>(mergeDeltas, this.log)
    if (this.outcome === undefined) this.subscribers.add(buffer)
    else buffer.close(errorOf(this.outcome))
    return buffer
  }

  unsubscribe(buffer: EventBuffer<Protocol.TurnNotification>): void {
    this.subscribers.delete(buffer)
  }

  private add(event: Protocol.TurnNotification, step: Step): void {
    append(this.log, event, mergeDeltas)
    for (const subscriber of this.subscribers) subscriber.offer(event, step)
    switch (event.method) {
      case "turn/started":
        this.started = true
        return
      case "item/completed":
        this.items.push(event.params.item)
        return
      case "thread/tokenUsage/updated":
        this.usage = event.params.tokenUsage
        return
      case "turn/completed":
        this.finish(Result.succeed(event.params.turn), step)
        return
      case "malformed":
        this.finishUnread(event.raw, step)
    }
  }

  /** A `turn/completed` that cannot be read ends the turn all the same, with what can be read of it. */
  private finishUnread(message: unknown, step: Step): void {
    if (!isEnd(message)) return
    const { error, id, status } = message.params.turn
    this.finish(
      Predicate.isString(status)
        ? Result.succeed({ id, status, items: [], ...(isTurnError(error) ? { error } : {}) })
        : Result.fail(appServerError(
          new DecodeFailed({
            method: "turn/completed",
            issue: `it does not say how turn ${id} of thread ${this.threadId} ended`
          })
        )),
      step
    )
  }

  private finish(outcome: Result.Result<Protocol.Turn, AppServerError>, step: Step): void {
    if (this.outcome !== undefined) return
    this.outcome = outcome
    for (const subscriber of this.subscribers) {
      subscriber.close(errorOf(outcome), step)
    }
    this.subscribers.clear()
    step.defer(() => Deferred.doneUnsafe(this.completion, Effect.fromResult(outcome)))
  }
}
