/** The handlers of threads and turns, from their options and from the context of the fiber that opens or starts them. */
import * as Effect from "effect/Effect"
import { type AppServerError, InvalidRequest, make as appServerError } from "../../../AppServerError.ts"
import * as Approvals from "../../approvals/model.ts"
import { approverIssue, providePolicy } from "../../approvals/toPolicy.ts"
import { handlerContext } from "../../handlers/handlerContext.ts"
import type { NoExcessProperties } from "../../handlers/handlerServices.ts"
import { optionIssue } from "../../options.ts"
import * as Questions from "../../questions/model.ts"
import { provideQuestions, questionKinds } from "../../questions/provideQuestions.ts"

/** Handlers that need no services. */
export interface Handlers {
  readonly approvals?: Approvals.Policy | undefined
  readonly questions?: Questions.Handlers | undefined
}

/**
 * The options with the handlers of a thread or a turn. An alias, because editors find no documentation of a generic
 * interface within the two alternatives of `ApprovalOptions`.
 */
export type HandlerOptions<A, Q> = {
  /** Decides about the approval requests of this thread or turn; see `Approvals`. */
  readonly approvals?: A & NoExcessProperties<A, Approvals.Handlers> | undefined
  /** Responds to the questions of this thread or turn; see `Questions`. */
  readonly questions?: Q & NoExcessProperties<Q, Questions.Handlers> | undefined
}

/** The handlers of options, with the context of the current fiber. */
export const provideHandlers = (
  { approvals, questions }: HandlerOptions<Approvals.Approver, Questions.Handlers>,
  method: string
): Effect.Effect<Handlers, AppServerError> =>
  Effect.flatMap(handlerContext<never>(), (context) => {
    const issues = [
      ["approvals", approverIssue(approvals)],
      ["questions", optionIssue(questionKinds, questions)]
    ] as const
    for (const [name, issue] of issues) {
      if (issue !== undefined) {
        return Effect.fail(appServerError(new InvalidRequest({ method, description: `\`${name}\`: ${issue}` })))
      }
    }
    return Effect.succeed({
      approvals: approvals && providePolicy(approvals, context),
      questions: questions && provideQuestions(questions, context)
    })
  })

/** The handlers that `Approvals.layer` and `Questions.layer` provide to the current fiber. */
export const contextHandlers: Effect.Effect<Handlers> = Effect.all({
  approvals: Approvals.Approvals,
  questions: Questions.Questions
})

export const isEmpty = ({ approvals, questions }: Handlers): boolean =>
  approvals === undefined && questions === undefined

export const isSame = (a: Handlers, b: Handlers): boolean => a.approvals === b.approvals && a.questions === b.questions

/** The handlers in place of those that are no longer available: broader handlers must not overrule these. */
export const declineAll: Handlers = {
  approvals: () => Effect.succeedSome("decline"),
  questions: {
    userInput: () => Effect.fail(new Error("The handler for this request is no longer available")),
    elicitation: () => Effect.succeed({ action: "decline", content: null })
  }
}
