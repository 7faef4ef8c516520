/** Converts handlers of single kinds of requests into one policy. */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { asEffect, provideHandlerContext } from "../handlers/handlerContext.ts"
import { assertOptions, func, type Kinds, optionIssue } from "../options.ts"
import type { Approver, Decision, Handlers, Policy } from "./model.ts"

const kinds: Kinds<Handlers> = { command: func, fileChange: func, permissions: func, mcpToolCall: func }

/** Describes an invalid approver, as plain JavaScript may pass it. */
export const approverIssue = (approver: unknown): string | undefined =>
  Predicate.isFunction(approver) ? undefined : optionIssue(kinds, approver)

/** Returns the policy of an approver. Throws for any other value, which would never decide. */
export const toPolicy = <R>(approver: Approver<R>): Policy<R> => {
  if (Predicate.isFunction(approver)) return approver as Policy<R>
  assertOptions("approvals", kinds, approver ?? null)
  const { command, fileChange, mcpToolCall, permissions } = approver
  const decide = <Request>(
    handler: ((request: Request) => Effect.Effect<Decision, unknown, R>) | undefined,
    request: Request
  ): Effect.Effect<Option.Option<Decision>, unknown, R> =>
    handler === undefined ? Effect.succeedNone : Effect.suspend(() => Effect.asSome(asEffect(handler(request))))
  return (request) => {
    switch (request._tag) {
      case "Command":
        return decide(command, request)
      case "FileChange":
        return decide(fileChange, request)
      case "Permissions":
        return decide(permissions, request)
      case "McpToolCall":
        return decide(mcpToolCall, request)
    }
  }
}

/** Returns the policy of an approver, with the services that it needs. */
export const providePolicy = <R>(approver: Approver<R>, context: Context.Context<R>): Policy => {
  const policy = toPolicy(approver)
  return (request) => provideHandlerContext(context, () => policy(request))
}
