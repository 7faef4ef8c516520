/** Reads the rate limits of the account, and follows their changes. */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import * as RateLimits from "../../RateLimits.ts"
import type { ServerConnection } from "../connection/serverConnection.ts"

/**
 * Makes a stream of the rate limits: the current ones, and then each change. Each run subscribes before it reads, and reads again after a
 * restart of the server and after a change of the login.
 */
export const watchRateLimits = (server: ServerConnection): Stream.Stream<RateLimits.RateLimits, AppServerError> =>
  Stream.callback<RateLimits.RateLimits, AppServerError>(
    Effect.fnUntraced(function*(output) {
      const stale = yield* Queue.sliding<void>(1)
      let current: RateLimits.RateLimits | undefined
      /** The updates that arrived since the limits became stale. */
      let updates: ReadonlyArray<Protocol.RateLimitSnapshot> = []
      let published: RateLimits.RateLimits | undefined
      let generation = 0

      const publish = (next: RateLimits.RateLimits): void => {
        current = next
        if (Equal.equals(next, published)) return
        published = next
        Queue.offerUnsafe(output, next)
      }
      const invalidate = (): void => {
        generation++
        current = undefined
        updates = []
        Queue.offerUnsafe(stale, undefined)
      }
      const read = Effect.suspend(() => {
        const before = generation
        return server.request("account/rateLimits/read").pipe(
          Effect.map((response) => {
            if (generation !== before) return
            publish(updates.reduce(RateLimits.merge, RateLimits.fromResponse(response)))
            updates = []
          }),
          // The outcome is that of a connection or a login that has ended meanwhile. The limits are about to be read again.
          Effect.catchIf(() => generation !== before, () => Effect.void)
        )
      })

      yield* server.addNotificationHandler("account/rateLimits/updated", ({ rateLimits }) => {
        if (current === undefined) updates = [...updates, rateLimits]
        else publish(RateLimits.merge(current, rateLimits))
      })
      yield* server.addNotificationHandler("account/updated", invalidate)
      const followConnection = Stream.runForEach(server.states, (state) => {
        switch (state._tag) {
          case "Ready":
            return Effect.sync(invalidate)
          case "Starting":
            return Effect.void
          case "Closed":
            return Effect.fail(state.cause)
        }
      })
      const readWhenStale = Effect.forever(Effect.andThen(Queue.take(stale), read))
      yield* Effect.all([followConnection, readWhenStale], { concurrency: "unbounded", discard: true })
    }),
    // A slow subscriber skips to the newest limits.
    { bufferSize: 1, strategy: "sliding" }
  )
