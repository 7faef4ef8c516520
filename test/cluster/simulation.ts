/**
 * A model of a large cluster: its runners, its shards and its storage of messages. Each turn is a fiber, and time is that of the `Clock`.
 *
 * The assignment of shards is that of Effect, and so is the shard of an entity. The runners, the locks and the messages are a model of
 * `effect/cluster`: what its runners do at which interval, and what they store.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HashRing from "effect/HashRing"
import * as PrimaryKey from "effect/PrimaryKey"

/** Number of queries, as `npm run test:cluster` has measured them. */
export interface Costs {
  /** Of a runner without work, per second. */
  readonly idle: number
  /** Of an ask: the request, its delivery, and its result, on both sides. */
  readonly ask: number
  /** Of a runner that acquires or releases shards. */
  readonly move: number
}

export interface Settings {
  readonly costs: Costs
  readonly shards: number
  /** How long a runner counts as alive after a heartbeat. It sends one three times in this duration. */
  readonly expiration: Duration.Duration
  /** How often a runner reads which runners there are. */
  readonly refresh: Duration.Duration
  readonly turn: Duration.Duration
}

/** A request that is stored until it has a result. */
export interface Message {
  readonly entity: number
  readonly shard: number
  readonly sentAt: number
  doneAt: number | undefined
  results: number
  attempts: number
}

class Member {
  readonly name: string
  /** The shards whose locks it has. */
  readonly shards = new Set<number>()
  readonly turns = new Set<Fiber.Fiber<unknown>>()
  /** When in its interval the runner reads the members. */
  readonly phase: number
  heartbeat: number
  constructor(name: string, phase: number, heartbeat: number) {
    this.name = name
    this.phase = phase
    this.heartbeat = heartbeat
  }
  [PrimaryKey.symbol]() {
    return this.name
  }
}

/** Number of points in time at which runners act, in their interval. */
const phases = 30

/** A cluster, its storage and its clients. */
export class Simulation {
  readonly settings: Settings
  readonly messages: Array<Message> = []
  /** Number of turns that started while another runner had a turn of the same entity. */
  overlaps = 0
  /** Number of shards that each change of the members moved. */
  readonly moves: Array<number> = []
  /** Number of queries in each second. */
  readonly queries: Array<number> = []

  private readonly ring = HashRing.make<Member>()
  private readonly members = new Map<string, Member>()
  /** The members in the storage, among them those that were killed and are not missed yet. */
  private registered: ReadonlyArray<Member> = []
  private assigned: ReadonlyArray<Member> = []
  private shardsOf = new Map<Member, Array<number>>()
  /** The members with the locks of the shards. */
  private readonly owners: Array<Member | undefined>
  private readonly unread: Array<Array<Message>>
  /** The turns that run, by entity and by shard. */
  private readonly entities = new Map<number, Member>()
  private readonly busy: Array<number>

  constructor(settings: Settings) {
    this.settings = settings
    this.owners = Array.from({ length: settings.shards })
    this.unread = Array.from({ length: settings.shards }, () => [])
    this.busy = Array.from({ length: settings.shards }, () => 0)
  }

  /** The number of shards of each runner. */
  get load(): ReadonlyArray<number> {
    return Array.from(this.members.values(), ({ shards }) => shards.size)
  }

  /** Runs the cluster. */
  get run(): Effect.Effect<never> {
    const { refresh } = this.settings
    return Effect.forEach(
      Array.from({ length: phases }, (_, phase) => phase),
      (phase) =>
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const members = [...this.members.values()].filter((member) => member.phase === phase)
          return Effect.andThen(
            Effect.forEach(members, (member) => this.act(member, now), { discard: true }),
            Effect.sleep(Duration.toMillis(refresh) / phases)
          )
        }),
      { discard: true }
    ).pipe(Effect.forever)
  }

  join(names: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.map(Clock.currentTimeMillis, (now) => {
      const joined = names.map((name, index) => new Member(name, index % phases, now))
      this.register([...this.registered, ...joined])
      for (const member of joined) this.members.set(member.name, member)
    })
  }

  /** Kills runners. Their locks are free at once, as they belong to connections. The others miss the runners later. */
  kill(names: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.forEach(names, (name) => {
      const member = this.members.get(name)!
      this.members.delete(name)
      return Effect.andThen(
        Fiber.interruptAll(member.turns),
        Effect.sync(() => {
          for (const shard of member.shards) this.release(member, shard)
        })
      )
    }, { discard: true })
  }

  /** Stops runners, which unregister. Their turns are interrupted. */
  leave(names: ReadonlyArray<string>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.register(this.registered.filter(({ name }) => !names.includes(name)))
      return this.kill(names)
    })
  }

  /** Stores a request, and delivers it to the runner of its shard. */
  send(entity: number, shard: number): Effect.Effect<void> {
    return Effect.flatMap(Clock.currentTimeMillis, (sentAt) => {
      const message: Message = { entity, shard, sentAt, doneAt: undefined, results: 0, attempts: 0 }
      this.messages.push(message)
      this.unread[shard]!.push(message)
      this.count(sentAt, this.settings.costs.ask)
      const owner = this.owners[shard]
      return owner === undefined ? Effect.void : this.deliver(owner, shard)
    })
  }

  private count(now: number, queries: number): void {
    const second = Math.floor(now / 1000)
    this.queries[second] = (this.queries[second] ?? 0) + queries
  }

  /** Each runner computes the assignment from the members, with the same result. */
  private register(members: ReadonlyArray<Member>): void {
    this.registered = members
    const before = this.assigned
    const gone = Array.from(this.ring).filter((member) => !members.includes(member))
    for (const member of gone) HashRing.remove(this.ring, member)
    HashRing.addMany(this.ring, members.filter((member) => !HashRing.has(this.ring, member)))
    this.assigned = HashRing.getShards(this.ring, this.settings.shards) ?? []
    this.shardsOf = new Map(members.map((member) => [member, []]))
    this.assigned.forEach((member, shard) => this.shardsOf.get(member)?.push(shard))
    if (before.length > 0) this.moves.push(this.assigned.filter((member, shard) => member !== before[shard]).length)
  }

  private release(member: Member, shard: number): void {
    member.shards.delete(shard)
    this.owners[shard] = undefined
  }

  /** What a runner does at each interval: it reads the members, and its locks follow their assignment. */
  private act(member: Member, now: number): Effect.Effect<void> {
    const { costs, refresh } = this.settings
    const expiration = Duration.toMillis(this.settings.expiration)
    this.count(now, costs.idle * Duration.toSeconds(refresh))
    if (now - member.heartbeat >= expiration / 3) member.heartbeat = now
    const isExpired = (other: Member) => now - other.heartbeat > expiration
    if (this.registered.some(isExpired)) this.register(this.registered.filter((other) => !isExpired(other)))
    return this.sync(member, now)
  }

  /** Releases the locks of shards of other runners, acquires those that are free, and reads the stored requests. */
  private sync(member: Member, now: number): Effect.Effect<void> {
    const acquired = (this.shardsOf.get(member) ?? []).filter((shard) => this.owners[shard] === undefined)
    const released = [...member.shards].filter((shard) => this.assigned[shard] !== member && this.busy[shard] === 0)
    for (const shard of released) this.release(member, shard)
    for (const shard of acquired) {
      this.owners[shard] = member
      member.shards.add(shard)
    }
    if (released.length + acquired.length > 0) this.count(now, this.settings.costs.move)
    // Also for shards that it had before: a shard may be assigned back before it has moved.
    const unread = [...member.shards].filter((shard) => this.unread[shard]!.length > 0)
    return Effect.forEach(unread, (shard) => this.deliver(member, shard), { discard: true })
  }

  /** Starts the turns of the stored requests, one at a time for each entity. None while the shard is to move. */
  private deliver(member: Member, shard: number): Effect.Effect<void> {
    const messages = this.assigned[shard] === member ? this.unread[shard]! : []
    const entities = new Set<number>()
    const next = messages.filter(({ entity }) => {
      const isNext = this.entities.get(entity) !== member && !entities.has(entity)
      entities.add(entity)
      return isNext
    })
    this.unread[shard] = this.unread[shard]!.filter((message) => !next.includes(message))
    return Effect.forEach(
      next,
      (message) =>
        Effect.map(Effect.forkDetach(this.turn(member, message), { startImmediately: true }), (fiber) => {
          member.turns.add(fiber)
          fiber.addObserver(() => member.turns.delete(fiber))
        }),
      { discard: true }
    )
  }

  private turn(member: Member, message: Message): Effect.Effect<void> {
    const { entity, shard } = message
    return Effect.suspend(() => {
      if (this.entities.has(entity)) this.overlaps++
      this.entities.set(entity, member)
      this.busy[shard]!++
      message.attempts++
      return Effect.sleep(this.settings.turn)
    }).pipe(
      Effect.ensuring(Effect.sync(() => {
        this.entities.delete(entity)
        this.busy[shard]!--
      })),
      // Without a result, the request stays in the storage.
      Effect.onInterrupt(() => Effect.sync(() => this.unread[shard]!.unshift(message))),
      Effect.andThen(Clock.currentTimeMillis),
      Effect.flatMap((now) => {
        message.results++
        message.doneAt = now
        return this.deliver(member, shard)
      })
    )
  }
}
