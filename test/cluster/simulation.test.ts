import { assert, it } from "@effect/vitest"
import * as EntityId from "effect/cluster/EntityId"
import * as MessageStorage from "effect/cluster/MessageStorage"
import * as RunnerHealth from "effect/cluster/RunnerHealth"
import * as Runners from "effect/cluster/Runners"
import * as RunnerStorage from "effect/cluster/RunnerStorage"
import * as Sharding from "effect/cluster/Sharding"
import * as ShardingConfig from "effect/cluster/ShardingConfig"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { Simulation } from "./simulation.ts"

const runners = Array.from({ length: 1000 }, (_, index) => `runner-${index}:34431`)

/** Runners that read the members at the same time, so that the others miss them together. */
const killed = runners.filter((_, index) => index % 30 === 0)
const left = runners.filter((_, index) => index % 30 === 1)

/** Ten shards for each runner, and a hundred open threads. */
const shards = 10_000
const entities = 100_000

const asksPerSecond = 20

/** As `npm run test:cluster` has measured them. `move` is an estimate: the members, the locks, and the reset of the shards. */
const costs = { idle: 1.5, ask: 5.4, move: 4 }

/** The function of Effect that returns the shard of an entity. */
const shardOf = Sharding.Sharding.pipe(
  Effect.map(({ getShardId }) => (entity: number) =>
    getShardId(EntityId.make(`conversation-${entity}`), "default").id - 1
  ),
  Effect.provide(Sharding.layer.pipe(
    Layer.provide(Runners.layerNoop),
    Layer.provide([MessageStorage.layerNoop, RunnerStorage.layerMemory, RunnerHealth.layerNoop]),
    Layer.provide(ShardingConfig.layer({ shardsPerGroup: shards }))
  ))
)

it.effect(
  "a model of 1,000 runners loses, repeats and blocks no request while runners leave and join",
  () =>
    Effect.gen(function*() {
      const toShard = yield* shardOf
      const simulation = new Simulation({
        costs,
        shards,
        expiration: Duration.seconds(35),
        refresh: Duration.seconds(3),
        turn: Duration.seconds(20)
      })
      yield* simulation.join(runners)
      yield* Effect.forkChild(simulation.run)
      yield* TestClock.adjust("6 seconds")
      let asks = 0
      const run = Effect.fnUntraced(function*(seconds: number) {
        for (let second = 0; second < seconds; second++) {
          for (let ask = 0; ask < asksPerSecond / 2; ask++) {
            // The step is prime, so each entity has its turn, in no order.
            const entity = asks++ * 7919 % entities
            // The second request waits for the turn of the first.
            yield* simulation.send(entity, toShard(entity))
            yield* simulation.send(entity, toShard(entity))
          }
          yield* TestClock.adjust("1 second")
        }
      })
      yield* run(20)
      const movesBefore = simulation.moves.length
      yield* simulation.kill(killed)
      yield* run(50)
      const movesAfter = simulation.moves.length
      yield* simulation.leave(left)
      yield* simulation.join(killed)
      yield* run(30)
      yield* TestClock.adjust("60 seconds")

      const { load, messages, moves, overlaps, queries } = simulation
      assert.lengthOf(messages, 100 * asksPerSecond)
      assert.isTrue(messages.every(({ results }) => results === 1))
      assert.strictEqual(overlaps, 0)
      // Those of the runners that were killed, or that left, ran again.
      assert.isAbove(messages.filter(({ attempts }) => attempts > 1).length, 0)
      const delays = messages.map(({ doneAt, sentAt }) => doneAt! - sentAt)
      // Two turns, the time until the runner is missed and its shards are acquired, and a turn again after each interruption.
      assert.isBelow(Math.max(...delays), 40_000 + 35_000 + 3_000 + 6_000 + 40_000)

      // Each shard has a runner. A runner that has left moves a few more shards than its own.
      assert.strictEqual(load.reduce((sum, size) => sum + size, 0), shards)
      const mean = shards / load.length
      assert.isAtMost(Math.max(...load), 2 * mean)
      assert.isAtLeast(Math.min(...load), Math.floor(mean))
      const own = killed.length * shards / runners.length
      const afterKill = moves.slice(movesBefore, movesAfter).reduce((sum, moved) => sum + moved, 0)
      assert.isAtLeast(afterKill, own)
      assert.isAtMost(afterKill, 6 * own)

      const steady = queries.slice(10, 20)
      const expected = runners.length * costs.idle + asksPerSecond * costs.ask
      for (const count of steady) assert.closeTo(count, expected, expected / 10)
      assert.isBelow(Math.max(...queries), 2 * expected)
    }),
  60_000
)
