/**
 * All that is known of one turn, folded from its notifications in the reader's batch.
 *
 * It listens to its thread from before `turn/start` is sent, so nothing can be missed: until the answer has named the
 * turn, whatever is said of any turn of the thread is kept, and then sorted.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type AppServerError, DecodeFailed, make as appServerError } from "../../../AppServerError.ts"
import * as Protocol from "../../../Protocol.ts"
import type * as Usage from "../../../Usage.ts"
import { CoalescingBuffer } from "../../connection/coalescingBuffer.ts"
import type { NotificationListener } from "../../connection/delta.ts"
import type { Delta, DeltaTemplate } from "../../connection/delta.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { Subscription } from "../../connection/subscription.ts"
import { getOwn } from "../../getOwn.ts"
import { type ReadBatch, syncBatch } from "../../jsonrpc/readBatch.ts"
import { findMismatch, fromUpdate, type Requested } from "../settings/threadSettings.ts"
import { notApplied } from "../threads/keptSettings.ts"
import type { ThreadUsages } from "../threads/threadUsage.ts"

/** Who subscribes so late lags. Each turn that runs has such a log, so it is short. */
const coalesceAfter = 128

const toError = (outcome: Result.Result<Protocol.Turn, AppServerError>): AppServerError | undefined =>
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

const isItemCompleted = Schema.is(Schema.Struct({
  method: Schema.Literal("item/completed"),
  params: Schema.Struct({ item: Protocol.ThreadItem })
}))

const itemId = (item: Protocol.ThreadItem): unknown => Predicate.hasProperty(item, "id") ? item.id : item

const isCodexErrorInfo = Schema.is(Protocol.CodexErrorInfo)

/** What can be read of a turn's error. */
const readError = (error: unknown): Protocol.TurnError | undefined => {
  if (!Predicate.isObject(error)) return undefined
  const { additionalDetails, codexErrorInfo, message } = error as Readonly<Record<string, unknown>>
  return {
    message: Predicate.isString(message) ? message : "the server gave no reason",
    ...(isCodexErrorInfo(codexErrorInfo) ? { codexErrorInfo } : {}),
    ...(Predicate.isString(additionalDetails) ? { additionalDetails } : {})
  }
}

/** Whether the server tries something again. Nothing was achieved then, so the turn is as silent as before. */
const isRetry = (event: Protocol.TurnNotification): boolean => {
  switch (event.method) {
    case "error":
      return event.params.willRetry
    case "modelProvider/authRecoveryStarted":
      return true
    case "malformed":
      return getOwn(getOwn(event.raw, "params"), "willRetry") === true
    default:
      return false
  }
}

/** Maximum number of starts and ends of turns that are kept for a response that no caller waits for. */
const maxReleasedEvents = 64

/** The texts of an input, as the server repeats them. `undefined` if there are none to tell it by. */
const inputText = (input: ReadonlyArray<unknown>): string | undefined => {
  const texts = input.map((part) => getOwn(part, "text")).filter(Predicate.isString)
  return texts.length === 0 ? undefined : texts.join("\n").toWellFormed()
}

/** What is received before the turn has its id: an event of a turn, or a change of `endedBecause`. */
type Unassigned =
  | readonly [turnId: string, event: Protocol.TurnNotification]
  | readonly [turnId: undefined, endedBecause: string | undefined]

export class TurnState implements NotificationListener {
  readonly threadId: string
  /** Removes secrets from the server's words. */
  readonly redact: (text: string) => string
  /** Adds the versions of both sides to an error. */
  readonly withVersions: (error: AppServerError) => AppServerError
  items: Array<Protocol.ThreadItem> = []
  /** The items of the commands that the turn has started. */
  readonly commands = new Set<string>()
  /** What the turn has used, once it has ended. */
  usage: Usage.TurnUsage | undefined
  /** The last error that the server has reported, with secrets. */
  private reportedError: Protocol.TurnError | undefined
  /** The server has said that the turn runs; before that it cannot be interrupted by its id. */
  started = false
  readonly exitDeferred = Deferred.makeUnsafe<Protocol.Turn, AppServerError>()
  /** Completed with the turn: one for each of its handles. */
  private exitDeferreds: Array<Deferred.Deferred<Protocol.Turn, AppServerError>> = []
  /** How the turn ended, once it has. */
  exit: Result.Result<Protocol.Turn, AppServerError> | undefined

  /** Whether the thread was said to be active, and is. */
  private isActive = false
  /** Whether the server has unloaded the thread, so that the turn cannot be running. */
  isUnloaded = false
  /** Why the turn has probably ended, though its end was not read. */
  endedBecause: string | undefined
  private onDoubt: (() => void) | undefined
  /** Tells the time of the last event, for whoever watches for silence. */
  now: (() => number) | undefined
  lastEventAt = 0

  /** Why the turn is being interrupted, if that is for taking too long. */
  private expired: AppServerError | undefined
  /** The settings that the turn was started with, to be compared with those that the server reports. */
  private requested: Requested | undefined
  /** The text of the input that the turn was started with, until the turn has shown it. */
  private input: string | undefined
  /** Whether the turn has shown another input before that. */
  private hasOtherInput = false
  private isJoined = false
  private onJoin: (() => void) | undefined
  /** Why the turn must not run: the server has reported other settings than it was started with. */
  rejected: AppServerError | undefined
  private onReject: ((error: AppServerError) => void) | undefined
  /** Whether the server has reported the settings of the thread since `turn/start` was sent. */
  hasSettings = false

  /** Called when the turn has ended. */
  private readonly completeCallbacks: Array<() => void> = []
  private turnId: string | undefined
  /** No caller waits for the turn any more, so only its start and its end are kept. */
  isReleased = false
  private unassigned: Array<Unassigned> = []
  /** All events, for subscribers that come late. */
  private buffer = new CoalescingBuffer<Protocol.TurnNotification>(coalesceAfter)
  private subscribers: ReadonlyArray<Subscription<Protocol.TurnNotification>> = []
  /** A text that is known to be of this turn. */
  private template: DeltaTemplate | undefined

  private readonly usages: ThreadUsages
  private removeListener = (): void => {}

  /** Listens from now on, until the turn has ended. */
  constructor(
    server: ServerConnection,
    usages: ThreadUsages,
    threadId: string,
    listener: (state: TurnState) => NotificationListener = (state) => state
  ) {
    this.usages = usages
    this.threadId = threadId
    this.redact = server.redact
    this.withVersions = server.withVersions
    this.removeListener = server.addThreadListener(threadId, listener(this))
  }

  /** Hears nothing any more: what it was to hear is heard by another, or was never begun. */
  unsubscribeThread(): void {
    this.removeListener()
  }

  onNotification(event: Protocol.ServerNotification, turnId: string | undefined, batch: ReadBatch): void {
    if (this.exit !== undefined) return
    if (turnId === undefined) {
      if (event.method === "thread/settings/updated") this.compareSettings(event.params.threadSettings, batch)
      if (event.method === "thread/status/changed") this.changeActivity(event.params.status.type, batch)
      return
    }
    if (this.turnId === undefined) this.bufferUnassigned(turnId, event as Protocol.TurnNotification)
    else if (this.turnId === turnId) this.add(event as Protocol.TurnNotification, batch)
  }

  private changeActivity(status: string, batch: ReadBatch): void {
    const wasActive = this.isActive
    this.isActive = status === "active"
    this.isUnloaded = status === "notLoaded"
    if (this.isActive) this.setEndedBecause(undefined)
    else if (this.isUnloaded) this.doubt("its thread was unloaded", batch)
    else if (wasActive) this.doubt("its thread does nothing any more", batch)
  }

  /**
   * Compares what the turn was started with with what the server reports: the settings until the turn has started, and its first input.
   */
  expect(params: Protocol.TurnStartParams): void {
    this.requested = params
    this.input = inputText(params.input)
  }

  /** Calls a function when the turn turns out to be one that was running already, as another input comes before the one it was started with. */
  whenJoined(onJoin: () => void): void {
    if (this.isJoined) onJoin()
    else this.onJoin = onJoin
  }

  private compareInput(content: ReadonlyArray<unknown>, batch: ReadBatch): void {
    if (this.input === undefined) return
    if (inputText(content) !== this.input) {
      this.hasOtherInput = true
      return
    }
    this.input = undefined
    if (!this.hasOtherInput) return
    this.isJoined = true
    if (this.onJoin !== undefined) batch.afterBatch(this.onJoin)
  }

  private compareSettings(reported: Protocol.ThreadSettings, batch: ReadBatch): void {
    if (this.started || this.requested === undefined) return
    this.hasSettings = true
    const difference = findMismatch(this.requested, fromUpdate(reported))
    this.rejected = difference && notApplied("turn/start", this.threadId, difference)
    const { onReject, rejected } = this
    if (rejected !== undefined && onReject !== undefined) batch.afterBatch(() => onReject(rejected))
  }

  /** Calls a function when the server has reported other settings than the turn was started with. */
  whenRejected(onReject: (error: AppServerError) => void): void {
    this.onReject = onReject
  }

  onDelta(delta: Delta, batch: ReadBatch): void {
    if (delta.template !== this.template) {
      const { turnId } = delta.template.event.params
      if (this.turnId !== turnId) return this.onNotification(delta.event, turnId, batch)
      this.template = delta.template
    }
    if (this.exit !== undefined || this.isReleased) return
    if (this.now !== undefined) this.lastEventAt = this.now()
    this.buffer.pushDelta(delta)
    for (const subscriber of this.subscribers) subscriber.offerDelta(delta, batch)
  }

  onClose(error: AppServerError, batch: ReadBatch): void {
    this.complete(Result.fail(error), batch)
  }

  /**
   * Releases what is known of the turn, for which no caller waits any more. Until it ends, which may be never, only its start and
   * its end are kept; before the response to `turn/start` has named it, those of all turns of the thread.
   */
  release(): void {
    this.isReleased = true
    this.buffer = new CoalescingBuffer(coalesceAfter)
    this.items = []
    const early = this.unassigned
    this.unassigned = []
    for (const [id, event] of early) {
      if (id !== undefined) this.bufferUnassigned(id, event)
    }
  }

  private bufferUnassigned(turnId: string, event: Protocol.TurnNotification): void {
    if (this.isReleased) {
      if (event.method !== "turn/started" && event.method !== "turn/completed") return
      if (this.unassigned.length >= maxReleasedEvents) {
        this.unassigned.shift()
        // Its start may have been among what is forgotten. It is interrupted by its id then, and not whatever the thread does.
        this.started = true
      }
    }
    this.unassigned.push([turnId, event])
  }

  /** Names the turn. */
  setTurnId(turnId: string, batch: ReadBatch): void {
    this.turnId = turnId
    const { unassigned } = this
    this.unassigned = []
    this.endedBecause = undefined
    for (const [id, event] of unassigned) {
      if (this.exit !== undefined) return
      if (id === undefined) this.endedBecause = event
      else if (id === turnId) this.add(event, batch)
    }
  }

  /** Completes a deferred with the turn. */
  completeWith(deferred: Deferred.Deferred<Protocol.Turn, AppServerError>): void {
    if (this.exit === undefined) this.exitDeferreds.push(deferred)
    else Deferred.doneUnsafe(deferred, Effect.fromResult(this.exit))
  }

  /** Calls a function in the reader's step when the turn has ended, or now if it has. */
  onComplete(tell: () => void): void {
    if (this.exit === undefined) this.completeCallbacks.push(tell)
    else tell()
  }

  /** Calls a function each time that there is a new reason to think that the turn has ended. */
  whenInDoubt(tell: () => void): void {
    this.onDoubt = tell
    if (this.endedBecause !== undefined && this.exit === undefined) tell()
  }

  /** Something else than its end says that the turn has ended. That it is started, or its thread active, says the contrary. */
  doubt(because: string, batch: ReadBatch): void {
    if (this.exit !== undefined) return
    this.setEndedBecause(because)
    if (this.onDoubt !== undefined) batch.afterBatch(this.onDoubt)
  }

  private setEndedBecause(because: string | undefined): void {
    this.endedBecause = because
    // Whether that was before or after the turn was started is seen when it has its name.
    if (this.turnId === undefined && !this.isReleased) this.unassigned.push([undefined, because])
  }

  /** The last error that the server has reported in the turn, without secrets. */
  get lastError(): Protocol.TurnError | undefined {
    if (this.reportedError === undefined) return undefined
    const { additionalDetails, codexErrorInfo, message } = this.reportedError
    return {
      message: this.redact(message),
      codexErrorInfo: codexErrorInfo ?? null,
      additionalDetails: additionalDetails == null ? null : this.redact(additionalDetails)
    }
  }

  subscribe(): Subscription<Protocol.TurnNotification> {
    const buffer = new Subscription(this.buffer.copy())
    if (this.exit === undefined) this.subscribers = [...this.subscribers, buffer]
    else buffer.close(toError(this.exit))
    return buffer
  }

  unsubscribe(buffer: Subscription<Protocol.TurnNotification>): void {
    this.subscribers = this.subscribers.filter((other) => other !== buffer)
  }

  /** The turn is about to be interrupted, and that is why. If it ends otherwise all the same, it has not failed. */
  expire(error: AppServerError): void {
    this.expired ??= error
  }

  /** The server has not ended the turn. */
  failIfExpired(): void {
    if (this.expired !== undefined) this.complete(Result.fail(this.expired), syncBatch)
  }

  private add(event: Protocol.TurnNotification, batch: ReadBatch): void {
    if (this.isReleased && event.method !== "turn/started" && event.method !== "turn/completed") return
    if (this.now !== undefined && !isRetry(event)) this.lastEventAt = this.now()
    this.buffer.push(event)
    for (const subscriber of this.subscribers) subscriber.offer(event, batch)
    switch (event.method) {
      case "turn/started":
        this.started = true
        this.endedBecause = undefined
        return
      case "item/started":
        this.addStarted(event.params.item, batch)
        return
      case "item/completed":
        this.items.push(event.params.item)
        return
      case "turn/completed": {
        const { turn } = event.params
        // The server lists the last message here again. One that was not heard of before is not lost.
        this.items.push(...turn.items.filter((item) => !this.items.some((known) => itemId(known) === itemId(item))))
        this.complete(Result.succeed(turn), batch)
        return
      }
      case "error":
        this.reportedError = event.params.error
        return
      case "malformed":
        this.addUnread(event.raw, batch)
    }
  }

  private addStarted(item: Protocol.ThreadItem, batch: ReadBatch): void {
    if (item.type === "commandExecution") this.commands.add(item.id)
    else if (item.type === "userMessage") this.compareInput(item.content, batch)
  }

  /** What cannot be read whole counts with what can be read of it: an item, or the end of the turn. */
  private addUnread(message: unknown, batch: ReadBatch): void {
    if (isItemCompleted(message)) this.items.push(message.params.item)
    if (getOwn(message, "method") === "error") {
      this.reportedError = readError(getOwn(getOwn(message, "params"), "error"))
    }
    if (!isEnd(message)) {
      if (getOwn(message, "method") === "turn/completed") this.doubt("its turn/completed has no turn", batch)
      return
    }
    const { error, id, status } = message.params.turn
    this.complete(
      Predicate.isString(status)
        ? Result.succeed({ id, status, items: [], error: readError(error) ?? null })
        : Result.fail(appServerError(
          new DecodeFailed({
            method: "turn/completed",
            issue: `it does not say how turn ${id} of thread ${this.threadId} ended`
          })
        )),
      batch
    )
  }

  private complete(ended: Result.Result<Protocol.Turn, AppServerError>, batch: ReadBatch): void {
    if (this.exit !== undefined) return
    const outcome = this.expired !== undefined && Result.isSuccess(ended) && ended.success.status === "interrupted"
      ? Result.fail(this.expired)
      : Result.mapError(ended, this.withVersions)
    this.exit = outcome
    if (this.turnId !== undefined) this.usage = this.usages.of(this.threadId, this.turnId)
    for (const subscriber of this.subscribers) {
      subscriber.close(toError(outcome), batch)
    }
    this.subscribers = []
    this.unassigned = []
    for (const tell of this.completeCallbacks.splice(0)) tell()
    this.unsubscribeThread()
    const { exitDeferreds } = this
    this.exitDeferreds = []
    batch.afterBatch(() => {
      const completed = Effect.fromResult(outcome)
      Deferred.doneUnsafe(this.exitDeferred, completed)
      for (const completion of exitDeferreds) Deferred.doneUnsafe(completion, completed)
    })
  }
}
