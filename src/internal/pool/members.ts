/** The members of a pool: which servers run, and which threads are open on them. */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Hash from "effect/Hash"
import * as Layer from "effect/Layer"
import type * as LayerMap from "effect/LayerMap"
import * as Metric from "effect/Metric"
import * as Order from "effect/Order"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { AppServer, ConnectionState } from "../../AppServer.ts"
import type { AppServerError } from "../../AppServerError.ts"
import { Codex } from "../../Codex.ts"
import type { Thread } from "../../Thread.ts"
import { canonicalId } from "../session/threads/threadId.ts"

type Services = Codex | AppServer

/** A thread that is open on a member. Its scope keeps the member running. */
interface OpenThread {
  readonly member: number
  readonly scope: Scope.Closeable
}

/** Adds a member to the attributes of the metrics. */
const addMember = (member: number) => (attributes: Readonly<Record<string, string>>) => ({
  ...attributes,
  "codex.pool.member": String(member)
})

/** Adds a member to the metrics of the turns of its threads. */
const withMember = (thread: Thread, member: number): Thread => {
  const tag = Effect.updateService(Metric.CurrentMetricAttributes, addMember(member))
  const tagged = <F extends (...args: Array<never>) => unknown>(f: F): F =>
    ((...args: Array<never>) => tag(f(...args) as Effect.Effect<unknown>)) as unknown as F
  return {
    ...thread,
    run: tagged(thread.run),
    runOnce: tagged(thread.runOnce),
    turn: tagged(thread.turn),
    stream: (input, options) =>
      Stream.updateService(thread.stream(input, options), Metric.CurrentMetricAttributes, addMember(member)),
    compact: tag(thread.compact)
  }
}

/** Adds a member to the metrics of its connection. */
export const layerMember = (member: number): Layer.Layer<never> =>
  Layer.effect(
    Metric.CurrentMetricAttributes,
    Effect.map(Metric.CurrentMetricAttributes, addMember(member))
  )

export interface Options {
  readonly size: number
  /** Maximum number of open threads of a member. */
  readonly threadsPerMember: number
}

export class Members {
  /** The connections of the members that run. */
  readonly running = new Map<number, AppServer["Service"]>()
  private readonly open = new Map<string, OpenThread>()
  /** The members on which threads were opened, also after they were closed. */
  private readonly homes = new Map<string, number>()
  /** The number of threads that are about to be opened, by member. */
  private readonly opening: Array<number>
  private readonly waiting = new Set<() => void>()
  private readonly servers: LayerMap.LayerMap<number, Services, AppServerError>
  private readonly options: Options

  constructor(servers: LayerMap.LayerMap<number, Services, AppServerError>, options: Options) {
    this.servers = servers
    this.options = options
    this.opening = Array.from({ length: options.size }, () => 0)
  }

  /** All members, those that run first, and of these the least busy ones first. */
  get byLoad(): ReadonlyArray<number> {
    return Arr.sort(
      Arr.range(0, this.options.size - 1),
      Order.combine(
        Order.mapInput(Order.Boolean, (member: number) => !this.running.has(member)),
        Order.mapInput(Order.Number, (member: number) => this.count(member))
      )
    )
  }

  /** The member with the fewest open threads. */
  get leastBusy(): number {
    return Arr.min(
      Arr.range(0, this.options.size - 1),
      Order.mapInput(Order.Number, (member: number) => this.count(member))
    )
  }

  /** The state of the connection of a member. */
  getState(member: number): Effect.Effect<ConnectionState["_tag"] | "Stopped"> {
    const server = this.running.get(member)
    return server === undefined ? Effect.succeed("Stopped") : Effect.map(server.state, ({ _tag }) => _tag)
  }

  /** The member of a key. */
  hashed(key: string): number {
    return Math.abs(Hash.string(key)) % this.options.size
  }

  /** The number of open threads of a member. */
  count(member: number): number {
    const open = [...this.open.values()].filter((thread) => thread.member === member)
    return open.length + this.opening[member]!
  }

  /** The member that has opened a thread, while it runs. */
  homeOf(id: string): number | undefined {
    return this.homes.get(canonicalId(id))
  }

  /** Acquires a member, and starts it if it does not run. */
  acquire(member: number): Effect.Effect<Context.Context<Services>, AppServerError, Scope.Scope> {
    return Effect.tapError(this.servers.contextEffect(member), () => this.servers.invalidate(member))
  }

  /** Uses a member for one operation. */
  use<A, E, R>(
    member: number,
    f: (codex: Codex["Service"]) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E | AppServerError, R> {
    return Effect.scoped(
      Effect.flatMap(this.acquire(member), (context) => f(Context.get(context, Codex)))
    ) as Effect.Effect<
      A,
      E | AppServerError,
      R
    >
  }

  /** Opens a thread on a member, as soon as the member has room for it. */
  openThread<E, R>(
    choose: () => number,
    f: (codex: Codex["Service"]) => Effect.Effect<Thread, E, R>
  ): Effect.Effect<Thread, E | AppServerError, R> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function*() {
        const member = yield* restore(this.reserve(choose))
        const scope = yield* Scope.make()
        const opened = restore(
          Effect.flatMap(Scope.provide(this.acquire(member), scope), (context) => f(Context.get(context, Codex)))
        )
        const thread = yield* opened.pipe(
          Effect.onError(() => Scope.close(scope, Exit.void)),
          Effect.ensuring(Effect.sync(() => {
            this.opening[member]!--
            this.wake()
          }))
        )
        yield* this.add(thread.id, { member, scope })
        return { ...withMember(thread, member), close: Effect.andThen(thread.close, this.release(thread.id)) }
      })
    )
  }

  /** Notes that a thread is closed. Its member may leave when it has no other thread. */
  release(id: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      const thread = this.open.get(canonicalId(id))
      if (thread === undefined) return Effect.void
      this.open.delete(canonicalId(id))
      this.wake()
      return Scope.close(thread.scope, Exit.void)
    })
  }

  /** Notes that the server of a member has ended. The next use starts another one. */
  end(member: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const threads = [...this.open].filter(([, thread]) => thread.member === member)
      return Effect.andThen(
        this.servers.invalidate(member),
        Effect.forEach(threads, ([id]) => this.release(id), { discard: true })
      )
    })
  }

  /** Notes that a member has left. */
  leave(member: number): void {
    this.running.delete(member)
    for (const [id, home] of this.homes) {
      if (home === member) this.homes.delete(id)
    }
  }

  /** Ends the leases of all threads. */
  get releaseAll(): Effect.Effect<void> {
    return Effect.suspend(() => Effect.forEach([...this.open.keys()], (id) => this.release(id), { discard: true }))
  }

  private add(id: string, thread: OpenThread): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.homes.set(id, thread.member)
      const before = this.open.get(id)
      this.open.set(id, thread)
      return before === undefined ? Effect.void : Scope.close(before.scope, Exit.void)
    })
  }

  /** Waits until the member of choice has room. */
  private reserve(choose: () => number): Effect.Effect<number> {
    return Effect.suspend(() => {
      const member = choose()
      if (this.count(member) < this.options.threadsPerMember) {
        this.opening[member]!++
        return Effect.succeed(member)
      }
      return Effect.andThen(this.change, this.reserve(choose))
    })
  }

  private readonly change = Effect.callback<void>((resume) => {
    const wake = () => resume(Effect.void)
    this.waiting.add(wake)
    return Effect.sync(() => this.waiting.delete(wake))
  })

  private wake(): void {
    const waiting = [...this.waiting]
    this.waiting.clear()
    for (const wake of waiting) wake()
  }
}
