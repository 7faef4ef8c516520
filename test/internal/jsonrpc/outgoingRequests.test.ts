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

/** A transport that sends and receives synchronously, and a server that responds when the test says so. */
const makeServer = () => {
  let onLines: (lines: ReadonlyArray<string>) => void = () => {}
  /** The messages of each call of `send`. */
  const calls: Array<ReadonlyArray<Sent>> = []
  const receive = (...messages: ReadonlyArray<object>) => onLines(messages.map((message) => JSON.stringify(message)))
  const respond = (requests: ReadonlyArray<Sent>) =>
    receive(...requests.map(({ id }) => ({ id, result: { data: [] } })))
  let isBroken = false
  const send = (lines: ReadonlyArray<string>) => {
    if (isBroken) throw new Error("the pipe is broken")
    const sent = lines.map((line) => JSON.parse(line) as Sent)
    calls.push(sent)
    const initialize = sent.find(({ method }) => method === "initialize")
    if (initialize === undefined) return
    const result = { userAgent: "test/0.169.0", codexHome: "/", platformFamily: "unix", platformOs: "linux" }
    queueMicrotask(() => receive({ id: initialize.id, result }))
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
  return { respond, breakDown, calls, receive, layer }
}

const list = AppServer.AppServer.use((server) => server.request("thread/loaded/list"))

const methods = (calls: ReadonlyArray<ReadonlyArray<Sent>>) => calls.map((sent) => sent.map(({ method }) => method))

describe("OutgoingRequests on a synchronous transport", () => {
  it.live("sends the requests of one step in one call", () => {
    const { calls, layer } = makeServer()
    return Effect.gen(function*() {
      calls.length = 0
      yield* Effect.forkChild(list, { startImmediately: true })
      yield* Effect.forkChild(list, { startImmediately: true })
      assert.isEmpty(calls)
      yield* Effect.promise(() => Promise.resolve())
      assert.deepStrictEqual(methods(calls), [["thread/loaded/list", "thread/loaded/list"]])
    }).pipe(Effect.provide(layer))
  })

  it.live("sends waiting requests before it resumes the callers of responses", () => {
    const { respond, calls, layer } = makeServer()
    return Effect.gen(function*() {
      calls.length = 0
      const sentWhenResumed: Array<number> = []
      const requesting = yield* Effect.forkChild(
        Effect.all(
          Array.from(
            { length: 4 },
            () => Effect.tap(list, () => Effect.sync(() => sentWhenResumed.push(calls.flat().length)))
          ),
          { concurrency: "unbounded" }
        ),
        { startImmediately: true }
      )
      yield* Effect.promise(() => Promise.resolve())
      assert.lengthOf(calls.flat(), 2)
      respond(calls.flat())
      assert.deepStrictEqual(sentWhenResumed, [4, 4])
      respond(calls.flat().slice(2))
      assert.deepStrictEqual(sentWhenResumed, [4, 4, 4, 4])
      assert.isDefined(requesting.pollUnsafe())
    }).pipe(Effect.provide(layer))
  })

  it.live("sends requests before a later response, and before the connection closes", () => {
    const { calls, receive, layer } = makeServer()
    return Effect.gen(function*() {
      yield* Effect.gen(function*() {
        calls.length = 0
        yield* Effect.forkChild(list, { startImmediately: true })
        receive({ id: "s1", method: "item/tool/call", params: {} })
        assert.deepStrictEqual(methods(calls), [["thread/loaded/list"], [undefined]])
        yield* Effect.forkChild(list, { startImmediately: true })
        assert.lengthOf(calls, 2)
      }).pipe(Effect.provide(layer))
      assert.deepStrictEqual(methods(calls), [["thread/loaded/list"], [undefined], ["thread/loaded/list"]])
    })
  })

  it.live("fails requests with the cause when the transport throws, after it delivers earlier responses", () => {
    const { respond, breakDown, calls, layer } = makeServer()
    return Effect.gen(function*() {
      calls.length = 0
      const requesting = yield* Effect.forEach(
        Array.from({ length: 3 }),
        () => Effect.forkChild(Effect.result(list), { startImmediately: true })
      )
      yield* Effect.promise(() => Promise.resolve())
      breakDown()
      respond(calls.flat())
      const [first, second, third] = yield* Effect.forEach(requesting, Fiber.join)
      assert.deepStrictEqual([first?._tag, second?._tag], ["Success", "Success"])
      assert(third?._tag === "Failure")
      assert.include(third.failure.message, "the pipe is broken")
    }).pipe(Effect.provide(layer))
  })
})
