/** Reads what a review has used. The server does not report it, but stores it with the hidden thread in which the review ran. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Protocol from "../../../Protocol.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn, getOwnString } from "../../getOwn.ts"

/** Number of reviews that are listed, newest first. Other threads may have been reviewed since. */
const lastReviews = 20

/** Maximum time from the response to `thread/resume` to the report that it replays. A review without a response has none. */
const replayTimeout = Duration.seconds(1)

export interface ReviewUsage {
  readonly model: string | undefined
  readonly tokens: Protocol.TokenUsageBreakdown
}

/** Finds the last review of a thread. A list of threads does not name their parents. */
const findReview = Effect.fnUntraced(function*(server: ServerConnection, threadId: string) {
  const params = { sourceKinds: ["subAgentReview"], modelProviders: [], limit: lastReviews }
  const data = getOwn(yield* server.requestRaw("thread/list", params), "data")
  for (const thread of Array.isArray(data) ? data : []) {
    const id = getOwnString(thread, "id")
    if (id === undefined) continue
    const response = yield* server.requestRaw("thread/read", { threadId: id })
    if (getOwn(getOwn(response, "thread"), "parentThreadId") === threadId) return id
  }
  return undefined
})

/** Reads the usage of the last review of a thread, which has ended. */
export const readReviewUsage = Effect.fnUntraced(function*(server: ServerConnection, threadId: string) {
  const reviewId = yield* findReview(server, threadId)
  if (reviewId === undefined) return undefined
  const replayed = yield* Deferred.make<Protocol.TokenUsageBreakdown>()
  yield* server.addNotificationHandler("thread/tokenUsage/updated", ({ threadId, tokenUsage }, batch) => {
    if (threadId === reviewId) batch.afterBatch(() => Deferred.doneUnsafe(replayed, Effect.succeed(tokenUsage.total)))
  })
  const opened = yield* server.requestRaw("thread/resume", { threadId: reviewId, excludeTurns: true })
  const tokens = yield* Effect.timeoutOption(Deferred.await(replayed), replayTimeout)
  yield* server.requestRaw("thread/unsubscribe", { threadId: reviewId })
  return Option.getOrUndefined(
    Option.map(tokens, (tokens): ReviewUsage => ({ model: getOwnString(opened, "model"), tokens }))
  )
}, Effect.scoped)
