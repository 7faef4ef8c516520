import { assert, describe, it } from "@effect/vitest"
import type { Protocol } from "effect-codex"
import { ThreadEntity } from "effect-codex/cluster"
import { CodexEnvironment } from "effect-codex/testing"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { awaitExits, findProcesses } from "../processes.ts"
import * as TestCodex from "../TestCodex.ts"
import { awaitTrue, Cluster, layer, type Served } from "./cluster.ts"
import * as Postgres from "./Postgres.ts"

const runners = ["1", "2", "3"] as const

const conversations = Array.from({ length: 50 }, (_, index) => `conversation-${index}`)

/** An ask, and what it returned. */
interface Asked {
  readonly conversation: string
  readonly key: string
  readonly input: string
  readonly milliseconds: number
  readonly result: typeof ThreadEntity.RunResult.Type
}

/** The conversations that wait for a result. */
type Pending = Set<string>

const print = (figures: Record<string, string | number>) => {
  for (const [name, value] of Object.entries(figures)) {
    console.log(`${name}: ${typeof value === "number" ? Math.round(value * 100) / 100 : value}`)
  }
}

const percentile = (values: ReadonlyArray<number>, share: number) =>
  values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))] ?? Number.NaN

const makeAsk = Effect.map(
  ThreadEntity.client,
  (threadOf) =>
    Effect.fnUntraced(function*(conversation: string, number: number): Effect.fn.Return<Asked, unknown> {
      const key = `key-${number}`
      const input = `ask ${conversation} ${key}`
      const start = performance.now()
      const result = yield* threadOf(conversation).Run({ key, input })
      return { conversation, key, input, milliseconds: performance.now() - start, result }
    })
)

/** Asks in pairs, until `isDone`. The first of a pair is asked twice. */
const converse = Effect.fnUntraced(function*(
  ask: Effect.Success<typeof makeAsk>,
  conversation: string,
  pending: Pending,
  isDone: () => boolean
) {
  const asked: Array<Asked> = []
  for (let number = 0; number < 4 || !isDone(); number += 2) {
    pending.add(conversation)
    const [first, again, second] = yield* Effect.all(
      [ask(conversation, number), ask(conversation, number), ask(conversation, number + 1)],
      { concurrency: "unbounded" }
    )
    assert.deepStrictEqual(again.result, first.result)
    pending.delete(conversation)
    asked.push(first, second)
    yield* Effect.sleep("5 seconds")
  }
  return asked
})

/** The runner that served each conversation last. */
const lastRunners = (served: ReadonlyArray<Served>) =>
  new Map(served.map(({ conversation, runner }) => [conversation, runner]))

/** Measures from now on until other runners serve the conversations of a runner that wait for a result. */
const awaitMoves = Effect.fnUntraced(function*(cluster: Cluster["Service"], name: string, pending: Pending) {
  const start = performance.now()
  const before = cluster.served.length
  const waiting = [...lastRunners(cluster.served)].flatMap(([conversation, runner]) =>
    runner === name && pending.has(conversation) ? [conversation] : []
  )
  const moves = () => {
    const first = new Map<string, number>()
    for (const { at, conversation, runner } of cluster.served.slice(before)) {
      if (runner !== name && waiting.includes(conversation) && !first.has(conversation)) {
        first.set(conversation, at - start)
      }
    }
    return [...first.values()]
  }
  yield* awaitTrue(`the threads of runner ${name} on others`, Effect.sync(() => moves().length === waiting.length))
  return moves()
})

/** Waits until a runner serves a thread, and returns the duration. */
const awaitServing = Effect.fnUntraced(function*(cluster: Cluster["Service"], name: string) {
  const start = performance.now()
  const before = cluster.served.length
  yield* awaitTrue(
    `requests of runner ${name}`,
    Effect.sync(() => cluster.served.slice(before).some(({ runner }) => runner === name))
  )
  return performance.now() - start
})

/** Kills or stops a runner, waits until its conversations are served by others, and starts it again. */
const replace = Effect.fnUntraced(function*(
  cluster: Cluster["Service"],
  name: string,
  signal: "SIGKILL" | "SIGTERM",
  pending: Pending
) {
  yield* cluster.signal(name, signal)
  const moves = yield* awaitMoves(cluster, name, pending)
  yield* cluster.start(name)
  yield* awaitServing(cluster, name)
  return moves
})

/** Kills the runners in turn and starts them again, at once or after their conversations have moved. */
const killAll = Effect.fnUntraced(function*(cluster: Cluster["Service"], pending: Pending) {
  const killed = yield* Effect.forEach(runners, (name) => replace(cluster, name, "SIGKILL", pending))
  yield* cluster.signal("1", "SIGKILL")
  yield* cluster.start("1")
  const restarted = yield* awaitServing(cluster, "1")
  const stopped = yield* replace(cluster, "2", "SIGTERM", pending)
  print({
    "SIGKILL, conversation served elsewhere, ms, median": percentile(killed.flat(), 0.5),
    "SIGKILL, conversation served elsewhere, ms, max": percentile(killed.flat(), 1),
    "SIGTERM, conversation served elsewhere after the exit, ms, max": percentile(stopped, 1),
    "restarted at once, serves again after, ms": restarted
  })
})

/** The keys of the inputs in a turn. */
const keysOf = (turn: Protocol.Turn): ReadonlyArray<string> =>
  turn.items.flatMap((item) => item.type === "userMessage" && typeof item.clientId === "string" ? [item.clientId] : [])

/** Compares the results with what the model received, and with the history on disk. */
const check = Effect.fnUntraced(function*(cluster: Cluster["Service"], asked: ReadonlyArray<Asked>) {
  const byConversation = Map.groupBy(asked, ({ conversation }) => conversation)
  assert.strictEqual(byConversation.size, conversations.length)
  for (const { input, result } of asked) {
    assert.strictEqual(result.status, "completed", input)
    assert.strictEqual(result.finalResponse, `re: ${input}`, input)
  }
  // The model never receives an input twice in a history.
  for (const { inputs } of cluster.served) assert.strictEqual(new Set(inputs).size, inputs.length, inputs.join())
  yield* Effect.forEach(byConversation.values(), (own) =>
    Effect.gen(function*() {
      assert.strictEqual(new Set(own.map(({ result }) => result.threadId)).size, 1)
      const turns = yield* TestCodex.readTurns(own[0]!.result.threadId)
      const completed = turns.filter(({ status }) => status === "completed")
      for (const { key, result } of own) {
        assert.lengthOf(turns.filter((turn) => keysOf(turn).includes(key)), 1, key)
        const attempts = completed.filter((turn) => keysOf(turn).some((id) => id === key || id.startsWith(`${key}#`)))
        assert.deepStrictEqual(attempts.map(({ id }) => id), [result.id], key)
      }
    }), { discard: true }).pipe(Effect.provide(TestCodex.layerProcess()))
})

describe.skipIf(Postgres.missing !== undefined)(`Three runners on PostgreSQL. ${Postgres.missing ?? ""}`, () => {
  it.live("lose, repeat and block no ask while they are killed in turn", () =>
    Effect.gen(function*() {
      const { root } = yield* CodexEnvironment.CodexEnvironment
      yield* Effect.gen(function*() {
        const cluster = yield* Cluster
        yield* Effect.forEach(runners, cluster.start, { concurrency: "unbounded" })
        const ask = yield* makeAsk
        const pending: Pending = new Set()
        let isKilled = false
        const run = yield* Effect.forkChild(
          Effect.forEach(conversations, (id) => converse(ask, id, pending, () => isKilled), {
            concurrency: "unbounded"
          })
        )
        yield* awaitTrue(
          "a request of each thread",
          Effect.sync(() => lastRunners(cluster.served).size === conversations.length)
        )
        yield* Effect.raceFirst(killAll(cluster, pending), Effect.andThen(Fiber.join(run), Effect.never))
        isKilled = true
        const asked = (yield* Effect.timeout(Fiber.join(run), "2 minutes")).flat()
        yield* Effect.forEach(runners, (name) => cluster.signal(name, "SIGTERM"), { discard: true })
        yield* check(cluster, asked)
        const origins = Object.entries(Object.groupBy(asked, ({ result }) => result.origin))
        print({
          asks: asked.length,
          "requests of the model": cluster.served.length,
          origins: origins.map(([origin, asks]) => `${origin} ${asks?.length}`).join(", "),
          "longest ask, ms": Math.max(...asked.map(({ milliseconds }) => milliseconds))
        })
      }).pipe(Effect.scoped)
      yield* awaitExits(root)
      assert.deepStrictEqual(findProcesses(root), [])
    }).pipe(Effect.provide(layer())))

  it.live("store as many rows as asks, and few queries", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster
      yield* Effect.forEach(runners, cluster.start, { concurrency: "unbounded" })
      const seconds = 10
      yield* cluster.resetStatistics
      yield* Effect.sleep(seconds * 1000)
      const idle = yield* cluster.statistics
      const usage = () => runners.map(cluster.usage)
      const before = usage()
      const ask = yield* makeAsk
      const round = (number: number) =>
        Effect.forEach(conversations, (conversation) => ask(conversation, number), { concurrency: "unbounded" })
      yield* round(0)
      const open = usage()
      yield* cluster.resetStatistics
      const [duration, rounds] = yield* Effect.timed(Effect.forEach([1, 2, 3, 4, 5, 6], round))
      const { clientQueries, milliseconds, runnerQueries } = yield* cluster.statistics
      const after = usage()
      const asks = rounds.flat().length
      const elapsed = Duration.toSeconds(duration)
      const sum = (usages: ReturnType<typeof usage>, f: (usage: (typeof usages)[number]) => number) =>
        usages.reduce((total, one) => total + f(one), 0)
      const idleRate = idle.runnerQueries / seconds / runners.length
      const perAsk = (runnerQueries - idleRate * runners.length * elapsed + clientQueries) / asks
      const rows = yield* cluster.rows
      print({
        "queries of an idle runner, per second": idleRate,
        "queries of an idle client, per second": idle.clientQueries / seconds,
        "asks per second": asks / elapsed,
        "ask, ms, median": percentile(rounds.flat().map(({ milliseconds }) => milliseconds), 0.5),
        "queries per ask": perAsk,
        "queries of the client per ask": clientQueries / asks,
        "database, ms per ask": milliseconds / asks,
        "CPU of runners, ms per ask": (sum(after, (one) =>
          one.runner.cpuSeconds) - sum(open, (one) => one.runner.cpuSeconds)) * 1000 / asks,
        "CPU of app-servers, ms per ask": (sum(after, (one) =>
          one.appServer.cpuSeconds) - sum(open, (one) => one.appServer.cpuSeconds)) * 1000 / asks,
        "runner, MB": sum(before, (one) => one.runner.memoryMb) / runners.length,
        "app-server, MB": sum(before, (one) => one.appServer.memoryMb) / runners.length,
        "runner, MB per open thread": sum(open, (one) => one.runner.memoryMb) / conversations.length -
          sum(before, (one) => one.runner.memoryMb) / conversations.length,
        "app-server, MB per open thread": sum(open, (one) => one.appServer.memoryMb) / conversations.length -
          sum(before, (one) => one.appServer.memoryMb) / conversations.length
      })
      assert.deepStrictEqual(rows, {
        messages: asks + conversations.length,
        replies: asks + conversations.length,
        threads: conversations.length
      })
      assert.isBelow(perAsk, 60)
    }).pipe(Effect.provide(layer())))
})
