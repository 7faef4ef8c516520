/** Requests of a program that make the server start turns, within a budget. */
import * as Effect from "effect/Effect"
import type { AppServerError } from "../../../AppServerError.ts"
import { getThreadId } from "../../connection/codec.ts"
import type { PublicConnection } from "../../connection/serverConnection.ts"
import { getOwn, getOwnString } from "../../getOwn.ts"
import type { Session } from "../session.ts"
import { canonicalId } from "../threads/threadId.ts"
import { CurrentBudget } from "./budgetState.ts"

const startsTurns: ReadonlySet<string> = new Set([
  "turn/start",
  "review/start",
  "thread/compact/start",
  "thread/goal/set"
])

/** Whether a request makes the server start turns. A goal that is not active starts none. */
const startsTurn = (method: string, params: unknown): boolean => {
  if (!startsTurns.has(method)) return false
  const status = method === "thread/goal/set" ? getOwn(params, "status") : undefined
  return status === undefined || status === null || status === "active"
}

/** Fails if the budget of the caller does not allow the turns that a request starts, and enrolls the thread otherwise. */
const enroll = Effect.fnUntraced(
  function*({ state }: Pick<PublicConnection, "state">, session: Session["Service"], params: unknown) {
    const budget = yield* CurrentBudget
    const threadId = getThreadId(params)
    if (budget === undefined || threadId === undefined) return
    // The request then fails with the cause, and a closed connection has no session.
    if ((yield* state)._tag === "Closed") return
    const { budgets } = yield* session.acquire
    const id = canonicalId(threadId)
    yield* budgets.check(budget, id, getOwnString(params, "model"))
    budgets.enroll(budget, id)
  },
  Effect.scoped
)

/** The requests of a connection, which the budget of the caller limits. */
export const withBudget = (
  connection: Pick<PublicConnection, "request" | "requestRaw" | "state">,
  session: Session["Service"]
): Pick<PublicConnection, "request" | "requestRaw"> => {
  const { request, requestRaw } = connection
  const limit = <A>(method: string, params: unknown, send: Effect.Effect<A, AppServerError>) =>
    startsTurn(method, params) ? Effect.andThen(enroll(connection, session, params), send) : send
  return {
    request: (method, ...args) => limit(method, args[0], request(method, ...args)),
    requestRaw: (method, params, options) => limit(method, params, requestRaw(method, params, options))
  }
}
