import { assert, describe, it } from "@effect/vitest"
import { AppServer, Transport } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"

interface Sent {
  readonly id?: number
  readonly method?: string
}

/** A transport that takes lines at once, and a server that answers when it is told to. */
const makeServer = () => {
  let onLines: (lines: ReadonlyArray<string>) => void = () => {}
  /** What was sent, by the call that sent it. */
  const calls: Array<ReadonlyArray<Sent>> = []
  const hear = (...messages: ReadonlyArray<object>) => onLines(messages.map((message) => JSON.stringify(message)))
  const answer = (requests: ReadonlyArray<Sent>) => hear(...requests.map(({ id }) => ({ id, result: { data: [] } })))
  let isBroken = false
  const send = (lines: ReadonlyArray<string>) => {
    if (isBroken) throw new Error("the pipe is broken")
    const sent = lines.map((line) => JSON.parse(line) as Sent)
    calls.push(sent)
    const initialize = sent.find(({ method }) => method === "initialize")
    if (initialize === undefined) return
    const result = { userAgent: "test/0.169.0", codexHome: "/", platformFamily: "unix", platformOs: "linux" }
    queueMicrotask(() => hear({ id: initialize.id, result }))
  }
  const layer = AppServer.layer({ maxInFlight: 2 }).pipe(Layer.provide(Layer.succeed(Transport.Transport, {
    connect: Effect.succeed({
      incoming: Stream.never,
      send: (line: string) => Effect.sync(() => send([line])),
      direct: {
        receive: (listener: (lines: ReadonlyArray<string>) => void) =>
          Effect.suspend(() => {
            onLines = listener
            return Effect.never
          }),
        send
      }
    })
  })))
  const breakDown = () => {
    isBroken = true
  }
  return { answer, breakDown, calls, hear, layer }
}

const ask = AppServer.AppServer.use((server) => server.request("thread/loaded/list"))

const methods = (calls: ReadonlyArray<ReadonlyArray<Sent>>) => calls.map((sent) => sent.map(({ method }) => method))

describe("requests on a transport that takes lines at once", () => {
  it.live("are sent in one go when they are made in one go", () => {
    const { calls, layer } = makeServer()
    return Effect.gen(function*() {
      calls.length = 0
      yield* Effect.forkChild(ask, { startImmediately: true })
      yield* Effect.forkChild(ask, { startImmediately: true })
      assert.isEmpty(calls)
      yield* Effect.promise(() => Promise.resolve())
      assert.deepStrictEqual(methods(calls), [["thread/loaded/list", "thread/loaded/list"]])
    }).pipe(Effect.provide(layer))
  })

  it.live("that wait for a place are sent before those who have their answer are woken", () => {
    const { answer, calls, layer } = makeServer()
    return Effect.gen(function*() {
      calls.length = 0
      const sentWhenWoken: Array<number> = []
      const asking = yield* Effect.forkChild(
        Effect.all(
          Array.from(
            { length: 4 },
            () => Effect.tap(ask, () => Effect.sync(() => sentWhenWoken.push(calls.flat().length)))
          ),
          { concurrency: "unbounded" }
        ),
        { startImmediately: true }
      )
      yield* Effect.promise(() => Promise.resolve())
      assert.lengthOf(calls.flat(), 2)
      answer(calls.flat())
      assert.deepStrictEqual(sentWhenWoken, [4, 4])
      answer(calls.flat().slice(2))
      assert.deepStrictEqual(sentWhenWoken, [4, 4, 4, 4])
      assert.isDefined(asking.pollUnsafe())
    }).pipe(Effect.provide(layer))
  })

  it.live("come before an answer that is given after them, and are sent although the connection closes", () => {
    const { calls, hear, layer } = makeServer()
    return Effect.gen(function*() {
      yield* Effect.gen(function*() {
        calls.length = 0
        yield* Effect.forkChild(ask, { startImmediately: true })
        hear({ id: "s1", method: "item/tool/call", params: {} })
        assert.deepStrictEqual(methods(calls), [["thread/loaded/list"], [undefined]])
        yield* Effect.forkChild(ask, { startImmediately: true })
        assert.lengthOf(calls, 2)
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(methods(calls), [["thread/loaded/list"], [undefined], ["thread/loaded/list"]])
    })
  })

  it.live("fail with why when the transport throws, and those that were answered before have their answers", () => {
    const { answer, breakDown, calls, layer } = makeServer()
    return Effect.gen(function*() {
      calls.length = 0
      const asking = yield* Effect.forEach(
        Array.from({ length: 3 }),
        () => Effect.forkChild(Effect.result(ask), { startImmediately: true })
      )
      yield* Effect.promise(() => Promise.resolve())
      breakDown()
      answer(calls.flat())
      const [first, second, third] = yield* Effect.forEach(asking, Fiber.join)
      assert.deepStrictEqual([first?._tag, second?._tag], ["Success", "Success"])
      assert(third?._tag === "Failure")
      assert.include(third.failure.message, "the pipe is broken")
    }).pipe(Effect.provide(layer))
  })
})
