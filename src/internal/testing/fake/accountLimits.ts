/** The rate limits of the fake's account. */
import * as Effect from "effect/Effect"
import type * as Protocol from "../../../Protocol.ts"
import * as RateLimits from "../../../RateLimits.ts"
import type { Clients } from "./clients.ts"
import { type Methods, reject } from "./methods.ts"

/** The update of a model request whose response has no limits. */
export const noLimits: Protocol.RateLimitSnapshot = {
  limitId: "codex",
  limitName: null,
  normalModelSlug: null,
  primary: null,
  secondary: null,
  credits: null,
  individualLimit: null,
  spendControlReached: null,
  planType: null,
  rateLimitReachedType: null
}

const addNulls = (limit: Protocol.RateLimitSnapshot) => ({ ...noLimits, ...limit })

export const makeAccountLimits = (clients: Clients) => {
  let current: RateLimits.RateLimits | undefined

  return {
    /** Changes a limit, and notifies every client, or those that are subscribed to a thread. */
    report: (limit: Protocol.RateLimitSnapshot, threadId?: string): Effect.Effect<void> =>
      Effect.suspend(() => {
        const rateLimits = addNulls(limit)
        current = RateLimits.merge(current ?? { limits: {} }, rateLimits)
        return clients.notify("account/rateLimits/updated", { rateLimits }, threadId)
      }),
    methods: {
      "account/rateLimits/read": () => {
        if (current === undefined) return reject("codex account authentication required to read rate limits")
        const limits = Object.values(current.limits).map(addNulls)
        return Effect.succeed({
          result: {
            ordinaryUsageAllowed: RateLimits.exceeded(current).length === 0,
            rateLimits: limits.find(({ limitId }) => limitId === noLimits.limitId) ?? limits[0]!,
            rateLimitsByLimitId: Object.fromEntries(limits.map((limit) => [limit.limitId, limit])),
            rateLimitResetCredits: null,
            accountId: null,
            rateLimitUpsell: null
          }
        })
      }
    } satisfies Methods
  }
}

export type AccountLimits = ReturnType<typeof makeAccountLimits>
