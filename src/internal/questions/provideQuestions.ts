/** Provides handlers of questions with the services that they need. */
import type * as Context from "effect/Context"
import { provideHandlerContext } from "../handlers/handlerContext.ts"
import { func, type Kinds } from "../options.ts"
import type { Handlers } from "./model.ts"

export const questionKinds: Kinds<Handlers> = { userInput: func, elicitation: func }

export const provideQuestions = <R>(
  { elicitation, userInput }: Handlers<R>,
  context: Context.Context<R>
): Handlers => ({
  userInput: userInput && ((request) => provideHandlerContext(context, () => userInput(request))),
  elicitation: elicitation && ((request) => provideHandlerContext(context, () => elicitation(request)))
})
