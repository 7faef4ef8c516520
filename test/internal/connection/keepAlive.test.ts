import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import type { AppServerError } from "../../../src/AppServerError.ts"
import { keepAlive } from "../../../src/internal/connection/keepAlive.ts"
import type { Peer } from "../../../src/internal/jsonrpc/peer.ts"

/** A peer whose requests time out, unless the test has it read a batch. */
const makePeer = Effect.gen(function*() {
  let batches = 0
  let closed: AppServerError | undefined
  const requests: Array<string> = []
  const peer: Peer = {
    batches: () => batches,
    requestsInFlight: () => 0,
    close: (error) => {
      closed = error
    },
    closed: () => closed,
    notify: () => Effect.void,
    pendingServerRequests: () => [],
    request: ({ method, options }) => {
      requests.push(method)
      return Effect.sleep(options.timeoutMillis)
    }
  }
  yield* Effect.forkScoped(keepAlive(peer, Duration.seconds(10)))
  return { peer, requests, read: () => batches++ }
})

describe("keepAlive", () => {
  it.effect("sends nothing while messages arrive", () =>
    Effect.gen(function*() {
      const { peer, read, requests } = yield* makePeer
      for (let i = 0; i < 10; i++) {
        read()
        yield* TestClock.adjust("9 seconds")
      }
      assert.deepStrictEqual(requests, [])
      assert.isUndefined(peer.closed())
    }))

  it.effect("sends a request to a silent server, and ends the connection after twice the time", () =>
    Effect.gen(function*() {
      const { peer, requests } = yield* makePeer
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(requests, ["thread/loaded/list"])
      yield* TestClock.adjust("10 seconds")
      assert.isUndefined(peer.closed())
      yield* TestClock.adjust("100 millis")
      assert.include(peer.closed()?.message, "the server sent nothing for 20s")
    }))

  it.effect("keeps a connection whose messages are read late, because the program blocked the event loop", () =>
    Effect.gen(function*() {
      const { peer, read } = yield* makePeer
      yield* TestClock.adjust("20 seconds")
      read()
      yield* TestClock.adjust("100 millis")
      assert.isUndefined(peer.closed())
    }))

  it.effect("accepts any message in place of the response", () =>
    Effect.gen(function*() {
      const { peer, read, requests } = yield* makePeer
      yield* TestClock.adjust("15 seconds")
      read()
      yield* TestClock.adjust("6 seconds")
      assert.isUndefined(peer.closed())
      assert.lengthOf(requests, 1)
      yield* TestClock.adjust("30 seconds")
      assert.isDefined(peer.closed())
    }))
})
