/** Reads the handlers of threads and turns, from options and from the context of the current fiber. */
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
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
 * The options with the handlers of a thread or a turn.
 *
 * This is an alias, because editors show no documentation of a generic interface within the alternatives of `ApprovalOptions`.
 */
export type HandlerOptions<A, Q> = {
  /**
   * Decides about the requests for approval of this thread or turn; see `Approvals`.
   *
   * @default the approvals of the context, see `Approvals.layer`
   */
  readonly approvals?: A & NoExcessProperties<A, Approvals.Handlers> | undefined
  /**
   * Responds to the questions of this thread or turn; see `Questions`.
   *
   * @default the questions of the context, see `Questions.layer`
   */
  readonly questions?: Q & NoExcessProperties<Q, Questions.Handlers> | undefined
}

/** The context of the current fiber. It has the services of all handlers, because the public operations require them. */
export const currentContext = handlerContext<never>() as Effect.Effect<Context.Context<unknown>>

/** Checks the handlers of options, and provides the current context to them. */
export const provideHandlers = (
  { approvals, questions }: HandlerOptions<Approvals.Approver<unknown>, Questions.Handlers<unknown>>,
  method: string
): Effect.Effect<Handlers, AppServerError> =>
  Effect.flatMap(currentContext, (context) => {
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

/** The handlers in the context of the current fiber, which `Approvals.layer` and `Questions.layer` provide. */
export const contextHandlers: Effect.Effect<Handlers> = Effect.all({
  approvals: Approvals.Approvals,
  questions: Questions.Questions
})

export const isEmpty = ({ approvals, questions }: Handlers): boolean =>
  approvals === undefined && questions === undefined

export const isSame = (a: Handlers, b: Handlers): boolean => a.approvals === b.approvals && a.questions === b.questions

class HandlerUnavailable extends Data.TaggedError("HandlerUnavailable") {
  override readonly message = "The handler for this question is no longer available"
}

/** Handlers in place of those that are no longer available, because broader handlers must not decide then. */
export const declineAll: Handlers = {
  approvals: () => Effect.succeedSome("decline"),
  questions: {
    userInput: () => Effect.fail(new HandlerUnavailable()),
    elicitation: () => Effect.succeed({ action: "decline", content: null })
  }
}
