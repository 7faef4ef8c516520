/** Typed handlers, one for each kind of request, as one policy. */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Approvals from "../../Approvals.ts"
import { asEffect } from "../handlers/handlerContext.ts"
import { assertOptions, func, type Kinds, optionIssue } from "../options.ts"

const kinds: Kinds<Approvals.Handlers> = { command: func, fileChange: func, permissions: func, mcpToolCall: func }

/** What is wrong with an approver, as plain JavaScript may give it. */
export const approverIssue = (approver: unknown): string | undefined =>
  Predicate.isFunction(approver) ? undefined : optionIssue(kinds, approver)

/** Throws for what is no approver: it would never decide. */
export const toPolicy = <R>(approver: Approvals.Approver<R>): Approvals.Policy<R> => {
  if (Predicate.isFunction(approver)) return approver as Approvals.Policy<R>
  assertOptions("approvals", kinds, approver ?? null)
  const { command, fileChange, mcpToolCall, permissions } = approver
  const decide = <Asked>(
    handler: ((request: Asked) => Effect.Effect<Approvals.Decision, unknown, R>) | undefined,
    request: Asked
  ): Effect.Effect<Option.Option<Approvals.Decision>, unknown, R> =>
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
