/** A view that is folded from events as they arrive, and its subscribers. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../../AppServerError.ts"
import { type ReadBatch, syncBatch } from "../../jsonrpc/readBatch.ts"
import { SyncQueue } from "../../syncQueue.ts"

/** A subscriber to a view. It reads the newest view, and skips those before. */
export class ViewSubscription<View> {
  private unread: ReadonlyArray<View>
  private isNotifying = false
  readonly queue = new SyncQueue<View, AppServerError>(() => {
    const { unread } = this
    this.unread = []
    return unread
  })

  constructor(view: View) {
    this.unread = [view]
  }

  offer(view: View, batch: ReadBatch): void {
    this.unread = [view]
    this.notifyIn(batch)
  }

  end(error: AppServerError | undefined, batch: ReadBatch): void {
    this.queue.end(error)
    this.notifyIn(batch)
  }

  private notifyIn(batch: ReadBatch): void {
    if (this.isNotifying || !this.queue.hasTaker) return
    this.isNotifying = true
    batch.whenIdle(() => {
      this.isNotifying = false
      this.queue.notify()
    })
    batch.flush()
  }
}

/** Events of several kinds are folded by one function, which returns the same view for an event that changes nothing. */
export class LiveView<View, Event> {
  private current: View
  private readonly reduce: (view: View, event: Event) => View
  private readonly subscriptions = new Set<ViewSubscription<View>>()
  private ended: { readonly error: AppServerError | undefined } | undefined

  constructor(initial: View, reduce: (view: View, event: Event) => View) {
    this.current = initial
    this.reduce = reduce
  }

  get view(): View {
    return this.current
  }

  fold(event: Event, batch: ReadBatch): void {
    this.set(this.reduce(this.current, event), batch)
  }

  set(view: View, batch: ReadBatch): void {
    if (view === this.current) return
    this.current = view
    for (const subscription of this.subscriptions) subscription.offer(view, batch)
  }

  /** Ends the subscriptions after the newest view. */
  end(error: AppServerError | undefined, batch: ReadBatch): void {
    this.ended ??= { error }
    for (const subscription of this.subscriptions) subscription.end(error, batch)
    this.subscriptions.clear()
  }

  subscribe(): ViewSubscription<View> {
    const subscription = new ViewSubscription(this.current)
    if (this.ended === undefined) this.subscriptions.add(subscription)
    else subscription.end(this.ended.error, syncBatch)
    return subscription
  }

  unsubscribe(subscription: ViewSubscription<View>): void {
    this.subscriptions.delete(subscription)
  }
}

/** Makes a stream that subscribes for each run: the current view, and then each change. A slow subscriber skips to the newest. */
export const fromViewSubscription = <View>(
  subscribe: () => ViewSubscription<View>,
  unsubscribe: (subscription: ViewSubscription<View>) => void
): Stream.Stream<View, AppServerError> =>
  Stream.unwrap(
    Effect.acquireRelease(Effect.sync(subscribe), (subscription) => Effect.sync(() => unsubscribe(subscription))).pipe(
      Effect.map(({ queue }) => queue.stream)
    )
  )
