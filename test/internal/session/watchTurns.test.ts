/** Orders of messages that the server sends rarely, about turns that the program watches. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Fake from "../../FakeTransport.ts"
import { emit, expectReason, layer, openThread, respond, settle } from "../../scenario.ts"

describe("Thread.turns", () => {
  it.effect("fails the handles of a thread that is closed", () =>
    Effect.gen(function*() {
      const thread = yield* openThread("t")
      const next = yield* Effect.forkChild(Stream.runHead(thread.turns), { startImmediately: true })
      yield* settle
      yield* emit(Fake.turnStarted("t", "x"))
      const turn = Option.getOrThrow(yield* Fiber.join(next))
      const closing = yield* Effect.forkChild(thread.close)
      yield* respond("thread/unsubscribe", { status: "unsubscribed" })
      yield* Fiber.join(closing)
      const reason = yield* expectReason(turn.result)
      assert(reason._tag === "TurnLost")
      assert.include(reason.description, "closed")
    }).pipe(Effect.provide(layer())))
})
