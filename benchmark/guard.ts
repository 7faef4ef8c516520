/**
 * Measures the ratios that `npm test` guards: the CPU time of this package relative to the hand-written loop. Both run in one process
 * without a server, and take turns. The minimum of several rounds hardly depends on the load of the machine.
 */
import { AppServer, Codex, Transport } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { makeLineSplitter } from "../src/internal/stdio/framing.ts"
import { texts } from "./texts.ts"

const deltas = 60_000
const rounds = 5

interface Message {
  readonly id?: number
  readonly method: string
  readonly params?: { readonly threadId?: string }
}

/** A server in memory that delivers prepared bytes as a flood. */
class Server {
  private threads = 0
  private onLines: (lines: ReadonlyArray<string>) => void = () => {}
  private readonly splitter = makeLineSplitter()
  /** The started turns. */
  readonly turns: Array<{ readonly threadId: string; readonly turnId: string }> = []

  readonly layer = Layer.succeed(Transport.Transport, {
    connect: Effect.succeed({
      incoming: Stream.never,
      send: (line: string) => Effect.sync(() => this.respond(line)),
      direct: {
        receive: (onLines: (lines: ReadonlyArray<string>) => void) =>
          Effect.suspend(() => {
            this.onLines = onLines
            return Effect.never
          }),
        send: (lines: ReadonlyArray<string>) => lines.forEach((line) => this.respond(line))
      }
    })
  })

  private respond(line: string): void {
    const { id, method, params } = JSON.parse(line) as Message
    if (id === undefined) return
    const result = this.resultOf(method, params?.threadId ?? "")
    queueMicrotask(() => this.onLines([JSON.stringify({ id, result })]))
  }

  private resultOf(method: string, threadId: string): object {
    switch (method) {
      case "initialize":
        return { userAgent: "guard/0.169.0", codexHome: "/", platformFamily: "unix", platformOs: "linux" }
      case "thread/start":
        return {
          thread: { id: `thread-${this.threads++}` },
          approvalPolicy: "on-request",
          approvalsReviewer: "auto_review"
        }
      case "turn/start": {
        const turnId = `turn-${String(this.turns.length).padStart(12, "0")}`
        this.turns.push({ threadId, turnId })
        return { turn: { id: turnId } }
      }
      default:
        return { data: [], nextCursor: null }
    }
  }

  /** The interleaved deltas of the last `count` turns, in chunks as a pipe delivers them. */
  flood(count: number): ReadonlyArray<Uint8Array> {
    const running = this.turns.slice(-count)
    const lines = Array.from({ length: deltas }, (_, i) =>
      JSON.stringify({
        method: "item/agentMessage/delta",
        params: { ...running[i % count], itemId: "msg_0123456789abcdef", delta: texts[i % texts.length] },
        emittedAtMs: 1_795_358_196_797 + Math.floor(i / 100)
      }))
    const bytes = Buffer.from(`${lines.join("\n")}\n`)
    return Array.from(
      { length: Math.ceil(bytes.length / 65_536) },
      (_, i) => bytes.subarray(i * 65_536, (i + 1) * 65_536)
    )
  }

  /** Delivers a chunk and yields to the event loop, as between two reads. */
  readonly play = Effect.fnUntraced(function*(this: Server, chunks: ReadonlyArray<Uint8Array>) {
    for (const chunk of chunks) {
      this.onLines(this.splitter.push(chunk))
      yield* Effect.yieldNow
    }
  })

  end(count: number): void {
    this.onLines(
      this.turns.slice(-count).map(({ threadId, turnId }) =>
        JSON.stringify({
          method: "turn/completed",
          params: { threadId, turn: { id: turnId, items: [], status: "completed" } }
        })
      )
    )
  }
}

const cpuMs = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

/** The CPU time of an effect, in milliseconds. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const before = cpuMs()
    yield* effect
    return cpuMs() - before
  })

/** The hand-written loop: splits chunks, parses each line, and counts its text for its turn. */
const byHand = Effect.fnUntraced(function*(chunks: ReadonlyArray<Uint8Array>) {
  const splitter = makeLineSplitter()
  const characters = new Map<string, number>()
  for (const chunk of chunks) {
    for (const line of splitter.push(chunk)) {
      const { params } = JSON.parse(line)
      characters.set(params.turnId, (characters.get(params.turnId) ?? 0) + params.delta.length)
    }
    yield* Effect.yieldNow
  }
})

const ratioOf = Effect.fnUntraced(function*(server: Server, turns: number, isRead: boolean) {
  const codex = yield* Codex.Codex
  const least = { ours: Infinity, hand: Infinity }
  for (let round = 0; round < rounds; round++) {
    const handles = yield* Effect.forEach(
      Array.from({ length: turns }),
      () => Effect.flatMap(codex.startThread(), (thread) => thread.turn("go"))
    )
    const chunks = server.flood(turns)
    let seen = 0
    const readers = yield* Effect.forkChild(Effect.forEach(
      isRead ? handles : [],
      ({ events }) =>
        Stream.runForEachArray(events, (events) =>
          Effect.sync(() => {
            seen += events.length
          })),
      { concurrency: "unbounded", discard: true }
    ))
    yield* Effect.yieldNow
    least.ours = Math.min(least.ours, yield* timed(server.play(chunks)))
    least.hand = Math.min(least.hand, yield* timed(byHand(chunks)))
    server.end(turns)
    yield* Effect.forEach(handles, ({ result }) => result, { discard: true })
    if (isRead) {
      yield* Effect.yieldNow
      readers.interruptUnsafe()
      if (seen < deltas) return yield* Effect.die(new Error(`${seen} of ${deltas} events were read`))
    }
  }
  return least.ours / least.hand
}, Effect.scoped)

/** The cost of a request and its response, relative to a table of promises. */
const requestRatio = Effect.fnUntraced(function*() {
  const server = yield* AppServer.AppServer
  const list = server.request("model/list", {})
  const many = Array.from({ length: 1000 }, () => list)
  const pending = new Map<number, (result: unknown) => void>()
  let id = 0
  const listByHand = () =>
    new Promise((resolve) => {
      pending.set(++id, resolve)
      const response = JSON.stringify({
        id: JSON.parse(JSON.stringify({ id, method: "model/list", params: {} })).id,
        result: {}
      })
      queueMicrotask(() => {
        const message = JSON.parse(response)
        pending.get(message.id)!(message.result)
        pending.delete(message.id)
      })
    })
  const least = { ours: Infinity, hand: Infinity }
  for (let round = 0; round < rounds; round++) {
    const ours = yield* timed(
      Effect.forEach(Array.from({ length: 10 }), () => Effect.all(many, { concurrency: "unbounded", discard: true }), {
        discard: true
      })
    )
    const hand = yield* timed(
      Effect.forEach(
        Array.from({ length: 10 }),
        () => Effect.promise(() => Promise.all(Array.from({ length: 1000 }, listByHand))),
        { discard: true }
      )
    )
    least.ours = Math.min(least.ours, ours)
    least.hand = Math.min(least.hand, hand)
  }
  return least.ours / least.hand
})

const server = new Server()

const program = Effect.gen(function*() {
  return {
    stream: yield* ratioOf(server, 1, true),
    interleaved: yield* ratioOf(server, 100, true),
    run: yield* ratioOf(server, 1, false),
    requests: yield* requestRatio()
  }
})

const ratios = await Effect.runPromise(program.pipe(
  Effect.provide(Codex.layer.pipe(Layer.provideMerge(AppServer.layer()), Layer.provide(server.layer)))
))
process.stdout.write(JSON.stringify(ratios))
process.exit()
