/** The type of the fake's method table, and how a method rejects a request. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Protocol from "../../../Protocol.ts"
import type { Client } from "./clients.ts"

/** The JSON-RPC error that a request is rejected with. */
export class Rejection extends Data.TaggedError("Rejection")<{
  readonly message: string
  readonly code: number
}> {}

/** Rejects a request. The real server uses -32600 for nearly every error. */
export const reject = (message: string, code = -32600): Effect.Effect<never, Rejection> =>
  Effect.fail(new Rejection({ message, code }))

/** The result of a request, the effect that runs before the response, and the one that runs after it. */
export interface Outcome<A = unknown> {
  readonly result: A
  readonly before?: Effect.Effect<unknown>
  readonly after?: Effect.Effect<unknown>
}

/** The params of a method, after the check that the request has them. */
export type Params<M extends keyof Protocol.ClientRequests> = Exclude<Protocol.ClientRequests[M]["params"], undefined>

/** The methods that the fake implements. */
export type Methods = {
  readonly [M in keyof Protocol.ClientRequests]?: (
    params: Params<M>,
    client: Client
  ) => Effect.Effect<Outcome<Protocol.ClientRequests[M]["result"]>, Rejection>
}
