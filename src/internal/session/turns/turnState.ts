/**
 * The state of one turn, folded from its notifications within the read batch.
 *
 * It listens to its thread from before `turn/start` is sent, so it misses no event. Until the response names the turn, it buffers the events
 * of all turns of the thread.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { type AppServerError, DecodeFailed, make as appServerError } from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import * as TurnView from "../../../TurnView.ts"
import type * as Usage from "../../../Usage.ts"
import { CoalescingBuffer } from "../../connection/coalescingBuffer.ts"
import { type Delta, type DeltaTemplate, isTextDelta, type NotificationListener } from "../../connection/delta.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { Subscription } from "../../connection/subscription.ts"
import { getOwn } from "../../getOwn.ts"
import { type ReadBatch, syncBatch } from "../../jsonrpc/readBatch.ts"
import { fromUpdate } from "../../threadSettings.ts"
import { readError, readItem } from "../../view/readEvent.ts"
import { findMismatch, type Requested } from "../settings/threadSettings.ts"
import type { TurnTelemetry } from "../telemetry/turnTelemetry.ts"
import { notApplied } from "../threads/keptSettings.ts"
import type { ThreadUsages } from "../threads/threadUsage.ts"
import { correctUsage } from "../views/correctView.ts"
import { LiveView } from "../views/liveView.ts"
import { redactError } from "./redactError.ts"

/** Number of buffered events from which deltas are coalesced. It is low, because each running turn has a buffer. */
const coalesceAfter = 128

type TurnExit = Result.Result<Protocol.Turn, AppServerError>

const toError = (exit: TurnExit): AppServerError | undefined => Result.isFailure(exit) ? exit.failure : undefined

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

const itemId = (item: Protocol.ThreadItem): unknown => Predicate.hasProperty(item, "id") ? item.id : item

const getTimes = (item: Protocol.ThreadItem) => {
  const getTime = (name: string) => {
    const time = getOwn(item, name)
    return Predicate.isNumber(time) ? time : undefined
  }
  return { completedAtMs: getTime("completedAtMs"), startedAtMs: getTime("startedAtMs") }
}

/** Whether the server retries an operation. A retry is no progress, so it does not restart the idle timeout. */
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

/** Maximum number of events that are buffered for the response to a `turn/start` whose caller does not wait. */
const maxReleasedEvents = 64

/** Returns the texts of an input, as the server repeats them. `undefined` if the input has no text. */
const toText = (input: ReadonlyArray<unknown>): string | undefined => {
  const texts = input.map((part) => getOwn(part, "text")).filter(Predicate.isString)
  return texts.length === 0 ? undefined : texts.join("\n").toWellFormed()
}

/** An entry that is buffered before the turn has its id: an event of a turn, or a change of `endedBecause`. */
type Unassigned =
  | readonly [turnId: string, event: Protocol.TurnNotification]
  | readonly [turnId: undefined, endedBecause: string | undefined]

export class TurnState implements NotificationListener {
  readonly threadId: string
  /** Removes secrets from text of the server. */
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
  /** Whether the server has sent `turn/started`. Before that, it refuses an interrupt with the turn id. */
  started = false
  /** The id in the `turn/started` of a review, which is not its turn id. The server accepts an interrupt with this id only. */
  startedAs: string | undefined
  readonly exitDeferred = Deferred.makeUnsafe<Protocol.Turn, AppServerError>()
  /** The deferreds of the handles, which are completed with the turn. */
  private exitDeferreds: Array<Deferred.Deferred<Protocol.Turn, AppServerError>> = []
  /** The result of the turn. `undefined` until it ends. */
  exit: TurnExit | undefined

  /** Whether the last status of the thread is active. */
  private isActive = false
  /** Whether the server has unloaded the thread, so that the turn cannot be running. */
  isUnloaded = false
  /** Why the turn has probably ended, although its `turn/completed` was not received. */
  endedBecause: string | undefined
  private onDoubt: (() => void) | undefined
  /** The view, which is folded once a caller has read it. */
  private live: LiveView<TurnView.TurnView, TurnView.Event> | undefined
  /** The clock of the idle timeout, in milliseconds. `undefined` if the turn has no idle timeout. */
  now: (() => number) | undefined
  /** When the last event arrived, by that clock. */
  lastEventAt = 0

  /** Why this program interrupts the turn. It is the error of a turn that then ends as interrupted. */
  private expired: AppServerError | undefined
  /** The settings that the turn was started with. They are compared with those that the server reports. */
  private requested: Requested | undefined
  /** The text of the input that the turn was started with, until the server repeats it as an item. */
  private input: string | undefined
  /** Whether an item with another input came before it. */
  private hasOtherInput = false
  private isJoined = false
  private onJoin: (() => void) | undefined
  /** Why the turn must not run: the server has reported other settings than those it was started with. */
  rejected: AppServerError | undefined
  private onReject: ((error: AppServerError) => void) | undefined
  /** Whether the server has reported the settings of the thread since `turn/start` was sent. */
  hasSettings = false

  /** The telemetry of the turn, if this program started it. */
  telemetry: TurnTelemetry | undefined
  /** Number of deltas that were coalesced for subscribers that have left, and at the end of the turn for all. */
  coalesced = 0

  /** Called within the read batch in which the turn ends. */
  private readonly completeCallbacks: Array<() => void> = []
  private turnId: string | undefined
  /** Whether no caller waits for the turn any more. Only its start and its end are buffered then. */
  isReleased = false
  private unassigned: Array<Unassigned> = []
  /** All events, for later subscribers. */
  private buffer = new CoalescingBuffer<Protocol.TurnNotification>(coalesceAfter)
  private subscribers: ReadonlyArray<Subscription<Protocol.TurnNotification>> = []
  /** The template of the last delta of this turn. */
  private template: DeltaTemplate | undefined
  /** The items that have started since events were lost. `undefined` if none were lost. */
  private startedSinceGap: Set<unknown> | undefined
  /** The events that have arrived since a gap, until the lost ones are replayed. */
  private waiting: Array<Protocol.TurnNotification> | undefined
  /** The items that were replayed after a gap. The server may report their end again. */
  private readonly replayed = new Set<unknown>()
  /** The items in progress that were replayed after a gap. The server may report their start again. */
  private readonly replayedStarts = new Set<unknown>()

  private readonly usages: ThreadUsages
  private removeListener = (): void => {}

  /** The turn id, once a response or an event has named it. */
  get id(): string | undefined {
    return this.turnId
  }

  /** Listens to the thread until the turn ends. */
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

  /** Stops listening to the thread. */
  unsubscribeThread(): void {
    this.removeListener()
  }

  onNotification(event: Protocol.ServerNotification, turnId: string | undefined, batch: ReadBatch): void {
    if (this.exit !== undefined) return
    if (turnId === undefined) {
      if (event.method === "serverRequest/resolved") this.live?.fold(event, batch)
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
    else if (wasActive) this.doubt("its thread is no longer active", batch)
  }

  /**
   * Notes that events were lost. Later events wait for `endGap`, so that the lost ones can be replayed before. Text deltas of items that have
   * started before are skipped from now on: their text arrives whole when they complete.
   */
  startGap(): void {
    this.startedSinceGap = new Set()
    this.waiting ??= []
  }

  /** Adds the events that have arrived since `startGap`. */
  endGap(): void {
    const waiting = this.waiting ?? []
    this.waiting = undefined
    for (const event of waiting) {
      if (this.exit === undefined) this.add(event, syncBatch)
    }
  }

  /** Replays what a stored turn contains and the events did not: its start, and its items. Ends the gap. */
  replay(turn: Protocol.Turn): void {
    if (this.exit !== undefined) return
    const { threadId } = this
    if (!this.started) {
      const started = { ...turn, items: [], itemsView: "notLoaded" as const }
      this.apply({ method: "turn/started", params: { threadId, turn: started } }, syncBatch)
    }
    const completed = new Set(this.items.map(itemId))
    const started = new Set(
      this.buffer.copy().flatMap((event) => event.method === "item/started" ? [itemId(event.params.item)] : [])
    )
    for (const item of turn.items) {
      const id = itemId(item)
      const { completedAtMs, startedAtMs } = getTimes(item)
      const isCompleted = turn.status !== "inProgress" || completedAtMs !== undefined
      const params = { threadId, turnId: turn.id, item }
      if (isCompleted && !completed.has(id)) {
        const at = completedAtMs ?? (turn.completedAt ?? 0) * 1000
        this.apply({ method: "item/completed", params: { ...params, completedAtMs: at } }, syncBatch)
        this.replayed.add(id)
      } else if (!isCompleted && !started.has(id)) {
        const at = startedAtMs ?? (turn.startedAt ?? 0) * 1000
        this.apply({ method: "item/started", params: { ...params, startedAtMs: at } }, syncBatch)
        this.replayedStarts.add(id)
      }
    }
    this.endGap()
  }

  /** Whether an event is older than what was replayed: the server may have stored an item before it sends the events of the item. */
  private isRepeated(event: Protocol.TurnNotification): boolean {
    if (this.startedSinceGap === undefined) return false
    if (event.method === "turn/started") return this.started
    const params = getOwn(event, "params")
    const id = getOwn(params, "itemId") ?? getOwn(getOwn(params, "item"), "id")
    return this.replayed.has(id) || event.method === "item/started" && this.replayedStarts.delete(id)
  }

  private isAfterGap(event: Protocol.TurnNotification): boolean {
    return this.startedSinceGap !== undefined && isTextDelta(event) && !this.startedSinceGap.has(event.params.itemId)
  }

  /** Sets the params that are compared with the reports of the server: the settings until `turn/started`, and the first input. */
  expect(params: Protocol.TurnStartParams): void {
    this.requested = params
    this.input = toText(params.input)
  }

  /** Whether it has all events of the turn. */
  get isWhole(): boolean {
    return !this.isReleased && this.startedSinceGap === undefined
  }

  /** Calls a function if the turn was running before: another input then precedes the one that it was started with. */
  whenJoined(onJoin: () => void): void {
    if (this.isJoined) onJoin()
    else this.onJoin = onJoin
  }

  private compareInput(content: ReadonlyArray<unknown>, batch: ReadBatch): void {
    if (this.input === undefined) return
    if (toText(content) !== this.input) {
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

  /** Calls a function if the server reports other settings than those that the turn was started with. */
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
    if (this.startedSinceGap !== undefined) {
      if (this.waiting !== undefined) return this.add(delta.event, batch)
      if (this.isAfterGap(delta.event)) return
    }
    this.buffer.pushDelta(delta)
    for (const subscriber of this.subscribers) subscriber.offerDelta(delta, batch)
    this.live?.fold(delta.event, batch)
  }

  onClose(error: AppServerError, batch: ReadBatch): void {
    this.complete(Result.fail(error), batch)
  }

  /**
   * Releases the buffers of a turn that no caller waits for any more. Until it ends, only its start and its end are buffered. Before the
   * turn id arrives, those of all turns of the thread are buffered.
   */
  release(): void {
    this.isReleased = true
    this.buffer = new CoalescingBuffer(coalesceAfter)
    this.items = []
    const { unassigned } = this
    this.unassigned = []
    for (const [id, event] of unassigned) {
      if (id !== undefined) this.bufferUnassigned(id, event)
    }
  }

  private bufferUnassigned(turnId: string, event: Protocol.TurnNotification): void {
    if (this.isReleased) {
      if (event.method !== "turn/started" && event.method !== "turn/completed") return
      if (this.unassigned.length >= maxReleasedEvents) {
        this.unassigned.shift()
        // The dropped event may be the start of this turn. With `started`, an interrupt names this turn and ends no other one.
        this.started = true
      }
    }
    this.unassigned.push([turnId, event])
  }

  /** Whether the events before the turn has its id begin with its start. */
  hasStart(turnId: string): boolean {
    return this.unassigned.some(([id, event]) => id === turnId && getOwn(event, "method") === "turn/started")
  }

  /** Sets the turn id, and adds the buffered events of the turn. */
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

  /** Calls a function within the read batch in which the turn ends, or at once if it has ended. */
  onComplete(callback: () => void): void {
    if (this.exit === undefined) this.completeCallbacks.push(callback)
    else callback()
  }

  /** Calls a function each time that `doubt` is called, and at once if it was called before. */
  whenInDoubt(onDoubt: () => void): void {
    this.onDoubt = onDoubt
    if (this.endedBecause !== undefined && this.exit === undefined) onDoubt()
  }

  /** Notes a sign that the turn has ended without its `turn/completed`. An active thread or `turn/started` removes the doubt. */
  doubt(because: string, batch: ReadBatch): void {
    if (this.exit !== undefined) return
    this.setEndedBecause(because)
    if (this.onDoubt !== undefined) batch.afterBatch(this.onDoubt)
  }

  private setEndedBecause(because: string | undefined): void {
    this.endedBecause = because
    // The order relative to `turn/started` matters, which is known only once the turn has its id.
    if (this.turnId === undefined && !this.isReleased) this.unassigned.push([undefined, because])
  }

  /** The last error that the server reported in the turn, without secrets. */
  get lastError(): Protocol.TurnError | undefined {
    return this.reportedError && redactError(this.reportedError, this.redact)
  }

  subscribe(): Subscription<Protocol.TurnNotification> {
    const subscription = new Subscription(this.buffer.copy())
    if (this.exit === undefined) this.subscribers = [...this.subscribers, subscription]
    else subscription.close(toError(this.exit))
    return subscription
  }

  /** Returns the view, and folds it from now on. `pending` are the requests of the turn that wait for a response. */
  getLive(pending: ReadonlyArray<TurnView.PendingRequest>): LiveView<TurnView.TurnView, TurnView.Event> {
    if (this.live !== undefined) return this.live
    const { exit, threadId, turnId = "" } = this
    const events = [...this.buffer.copy(), ...pending]
    const view = events.reduce<TurnView.TurnView>(TurnView.reduce, TurnView.empty(threadId, turnId))
    this.live = new LiveView<TurnView.TurnView, TurnView.Event>(this.withUsage(view), (view, event) => {
      const next = TurnView.reduce(view, event)
      return next.usage === view.usage ? next : this.withUsage(next)
    })
    if (exit !== undefined) this.live.end(toError(exit), syncBatch)
    return this.live
  }

  /** Returns what the turn has used so far. */
  getUsage(): Usage.TurnUsage | undefined {
    return this.exit === undefined && this.turnId !== undefined
      ? this.usages.get(this.threadId, this.turnId)
      : this.usage
  }

  /** Corrects the usage of a view. */
  private withUsage(view: TurnView.TurnView): TurnView.TurnView {
    return correctUsage(view, this.getUsage())
  }

  /** Folds a request of the server, or its end, which is no event of the turn. */
  foldRequest(event: TurnView.Event, batch: ReadBatch): void {
    this.live?.fold(event, batch)
  }

  unsubscribe(subscription: Subscription<Protocol.TurnNotification>): void {
    if (!this.subscribers.includes(subscription)) return
    this.coalesced += subscription.coalesced
    this.subscribers = this.subscribers.filter((other) => other !== subscription)
  }

  /** Sets the error of a turn that is about to be interrupted. If the turn still ends in another way, it does not fail with it. */
  expire(error: AppServerError): void {
    this.expired ??= error
  }

  /** Whether this program interrupts the turn with an error. */
  get isExpired(): boolean {
    return this.expired !== undefined
  }

  /** Fails an expired turn that the server has not ended. */
  failIfExpired(): void {
    if (this.expired !== undefined) this.complete(Result.fail(this.expired), syncBatch)
  }

  private add(event: Protocol.TurnNotification, batch: ReadBatch): void {
    if (this.waiting === undefined) this.apply(event, batch)
    else this.waiting.push(event)
  }

  private apply(event: Protocol.TurnNotification, batch: ReadBatch): void {
    if (this.isReleased && event.method !== "turn/started" && event.method !== "turn/completed") {
      this.telemetry?.onEvent(event)
      return
    }
    if (this.now !== undefined && !isRetry(event)) this.lastEventAt = this.now()
    if (this.isAfterGap(event) || this.isRepeated(event)) return
    this.telemetry?.onEvent(event)
    this.buffer.push(event)
    for (const subscriber of this.subscribers) subscriber.offer(event, batch)
    this.live?.fold(event, batch)
    switch (event.method) {
      case "turn/started":
        this.started = true
        this.endedBecause = undefined
        return
      case "item/started":
        this.startedSinceGap?.add(itemId(event.params.item))
        this.addStarted(event.params.item, batch)
        return
      case "item/completed":
        this.items.push(event.params.item)
        return
      case "turn/completed": {
        const { turn } = event.params
        // The server repeats the last message here. Its `item/completed` may be missing.
        this.items.push(...turn.items.filter((item) => !this.items.some((known) => itemId(known) === itemId(item))))
        this.complete(Result.succeed(turn), batch)
        return
      }
      case "error":
        this.reportedError = event.params.error
        return
      case "malformed":
        this.addMalformed(event.raw, batch)
    }
  }

  private addStarted(item: Protocol.ThreadItem, batch: ReadBatch): void {
    if (item.type === "commandExecution") this.commands.add(item.id)
    else if (item.type === "userMessage") this.compareInput(item.content, batch)
  }

  /** Salvages the item, the error or the completion from a notification that failed to decode. */
  private addMalformed(message: unknown, batch: ReadBatch): void {
    const method = getOwn(message, "method")
    const params = getOwn(message, "params")
    const item = method === "item/completed" ? readItem(getOwn(params, "item")) : undefined
    if (item !== undefined) this.items.push(item.item)
    if (method === "error") this.reportedError = readError(getOwn(params, "error")) ?? undefined
    if (!isEnd(message)) {
      if (getOwn(message, "method") === "turn/completed") this.doubt("its `turn/completed` has no turn", batch)
      return
    }
    const { error, id, status } = message.params.turn
    this.complete(
      Predicate.isString(status)
        ? Result.succeed({ id, status, items: [], error: readError(error) })
        : Result.fail(appServerError(
          new DecodeFailed({
            method: "turn/completed",
            issue: `turn \`${id}\` of thread \`${this.threadId}\` has no status`
          })
        )),
      batch
    )
  }

  private complete(ended: TurnExit, batch: ReadBatch): void {
    if (this.exit !== undefined) return
    const exit = this.expired !== undefined && Result.isSuccess(ended) && ended.success.status === "interrupted"
      ? Result.fail(this.expired)
      : Result.mapError(ended, this.withVersions)
    this.exit = exit
    if (this.turnId !== undefined) this.usage = this.usages.get(this.threadId, this.turnId)
    for (const subscriber of this.subscribers) {
      this.coalesced += subscriber.coalesced
      subscriber.close(toError(exit), batch)
    }
    this.subscribers = []
    this.live?.end(toError(exit), batch)
    this.unassigned = []
    this.waiting = undefined
    for (const callback of this.completeCallbacks.splice(0)) callback()
    this.unsubscribeThread()
    const { exitDeferreds } = this
    this.exitDeferreds = []
    batch.afterBatch(() => {
      for (const deferred of [this.exitDeferred, ...exitDeferreds]) {
        Deferred.doneUnsafe(deferred, Effect.fromResult(exit))
      }
    })
  }
}
