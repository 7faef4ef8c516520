/**
 * What Codex asks a person: questions of the model in plan mode, and what MCP servers want to know.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Questions } from "effect-codex"
 *
 * export const questions = Questions.layer({
 *   userInput: ({ questions }) =>
 *     Effect.succeed(Object.fromEntries(questions.map(({ id, options }) => [id, options?.[0]?.label ?? "I do not know"]))),
 *   elicitation: (request) =>
 *     Effect.succeed(request._tag === "Form" ? Questions.accept({ name: "Ada" }) : Questions.decline)
 * })
 * ```
 *
 * Answers are checked before they are sent: those to the model's questions against the options that it offered, those to a form
 * against the form's schema. Without a handler, or with one that fails or answers something else, the model's question is
 * answered with a JSON-RPC error and the MCP server's is declined. Whether an MCP tool may be called is asked of `Approvals`.
 *
 * A handler is interrupted when somebody else has answered, the turn ends or the connection closes.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Terminal from "effect/Terminal"
import * as Codex from "./Codex.ts"
import type { HandlerServices, Named } from "./internal/approvals/services.ts"
import { terminalText } from "./internal/approvals/terminalText.ts"
import { capturedServices } from "./internal/connection/services.ts"
import { providedQuestions } from "./internal/threads/handlers.ts"
import type * as Protocol from "./Protocol.ts"

/**
 * The model has questions for the user. It can ask in plan mode (`collaborationMode` of a turn).
 *
 * @category requests
 * @since 0.1.0
 */
export interface UserInputRequest {
  readonly threadId: string
  readonly turnId: string
  readonly itemId: string
  /**
   * Each has an `id`, the question, and mostly `options` to choose from; with `isOther` any other text is an answer too. What
   * is `isSecret` should not be shown as it is typed.
   */
  readonly questions: ReadonlyArray<Protocol.ToolRequestUserInputQuestion>
  /** Whether the turn waits for the answer. */
  readonly isBlocking: boolean
}

/**
 * The answers, by the `id` of the question. A question without an answer is left open.
 *
 * @category answers
 * @since 0.1.0
 */
export interface UserInputAnswers {
  readonly [questionId: string]: string | ReadonlyArray<string>
}

/**
 * What every question of an MCP server has.
 *
 * @category requests
 * @since 0.1.0
 */
export interface ElicitationBase {
  readonly threadId: string
  /** The turn that the server works for, if it is known. */
  readonly turnId: string | undefined
  /** The name of the MCP server. */
  readonly server: string
  /** The `_meta` of the request. */
  readonly meta: unknown
}

/**
 * An MCP server wants a form to be filled in.
 *
 * @category requests
 * @since 0.1.0
 */
export interface FormElicitation extends ElicitationBase {
  readonly _tag: "Form"
  readonly message: string
  /** The JSON Schema of the answer: an object with strings, numbers, booleans and choices. */
  readonly requestedSchema: Protocol.McpElicitationSchema
  /** The same as a schema: what it does not decode is not sent. */
  readonly schema: Schema.Codec<unknown>
}

/**
 * An MCP server wants the user to open a page.
 *
 * @category requests
 * @since 0.1.0
 */
export interface UrlElicitation extends ElicitationBase {
  readonly _tag: "Url"
  readonly message: string
  readonly url: string
  readonly elicitationId: string
}

/**
 * A question of another kind, as the server sent it: OpenAI's own forms, user verification, and what newer servers add.
 *
 * @category requests
 * @since 0.1.0
 */
export interface OtherElicitation extends ElicitationBase {
  readonly _tag: "Other"
  readonly mode: string
  readonly params: unknown
}

/**
 * A question of an MCP server, told apart by `_tag`.
 *
 * @category requests
 * @since 0.1.0
 */
export type ElicitationRequest = FormElicitation | UrlElicitation | OtherElicitation

/**
 * @category answers
 * @since 0.1.0
 */
export type ElicitationAnswer = Protocol.McpServerElicitationRequestResponse

/**
 * Yes, with this content; a question that is not a form needs none.
 *
 * @category answers
 * @since 0.1.0
 */
export const accept = (content: unknown = null): ElicitationAnswer => ({ action: "accept", content })

/**
 * No: the user does not want to.
 *
 * @category answers
 * @since 0.1.0
 */
export const decline: ElicitationAnswer = { action: "decline", content: null }

/**
 * The user has put the question away without an answer.
 *
 * @category answers
 * @since 0.1.0
 */
export const cancel: ElicitationAnswer = { action: "cancel", content: null }

/**
 * One typed handler for each kind of question. A kind without a handler is left to whoever comes next: the turn's handlers
 * come first, then the thread's, then those of {@link layer}.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handlers<out R = never> {
  readonly userInput?: ((request: UserInputRequest) => Effect.Effect<UserInputAnswers, unknown, R>) | undefined
  readonly elicitation?: ((request: ElicitationRequest) => Effect.Effect<ElicitationAnswer, unknown, R>) | undefined
}

/**
 * The services that handlers need.
 *
 * @category models
 * @since 0.1.0
 */
export type Services<H> = Named<HandlerServices<H>>

/**
 * Who answers the questions of all threads.
 *
 * @category services
 * @since 0.1.0
 */
export class Questions extends Context.Service<Questions, Handlers>()("effect-codex/Questions") {}

/**
 * Has handlers answer the questions of all threads that have none of their own, for as long as the scope lives. Of several
 * the latest answer.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <R>(
  handlers: Handlers<R>
): Effect.Effect<Questions["Service"], never, Codex.Codex | R | Scope.Scope> =>
  Effect.gen(function*() {
    const codex = yield* Codex.Codex
    const questions = providedQuestions(handlers, (yield* capturedServices) as Context.Context<R>)
    yield* codex.handle({ questions })
    return questions
  })

/**
 * Has handlers answer the questions of all threads that have none of their own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const H extends Handlers<any>>(
  handlers: H
): Layer.Layer<Questions, never, Codex.Codex | Services<H>> =>
  Layer.effect(Questions, make(handlers as Handlers<Services<H>>))

/** There is one terminal, so one question at a time. */
const terminalTurn = Semaphore.makeUnsafe(1)

/** Asks one question; an empty line, or the end of the input, leaves it open. */
const askOne = Effect.fnUntraced(function*(question: {
  readonly text: string
  readonly options: ReadonlyArray<{ readonly label: string; readonly description?: string }>
  readonly isFree: boolean
}): Effect.fn.Return<string | undefined, unknown, Terminal.Terminal> {
  const terminal = yield* Terminal.Terminal
  const { isFree, options, text } = question
  yield* terminal.display(`\n${terminalText(text)}\n`)
  for (const [index, { description, label }] of options.entries()) {
    yield* terminal.display(
      `  ${index + 1}. ${terminalText(label)}${
        description === undefined || description === "" ? "" : ` (${terminalText(description)})`
      }\n`
    )
  }
  const prompt = options.length === 0 ? "> " : isFree ? "A number, or your own words: " : "A number: "
  while (true) {
    yield* terminal.display(prompt)
    const line = yield* Effect.option(terminal.readLine)
    const answer = Option.getOrElse(line, () => "").trim()
    if (answer === "") return undefined
    const chosen = /^\d+$/.test(answer) ? options[Number(answer) - 1] : undefined
    if (chosen !== undefined) return chosen.label
    if (isFree) return answer
  }
})

/**
 * Asks a person at the terminal: the model's questions with their options, to be answered by number or, where the model allows
 * it, in one's own words; of MCP servers the pages to open. An empty line leaves a question open. Secrets cannot be hidden as
 * they are typed, so what is secret is left open, and so are forms, which are declined.
 *
 * @category handlers
 * @since 0.1.0
 */
export const askTerminal: Handlers<Terminal.Terminal> = {
  userInput: Effect.fnUntraced(function*({ questions }) {
    const answers: Record<string, string> = {}
    for (const { id, isOther, isSecret, options, question } of questions) {
      if (isSecret === true) continue
      const answer = yield* askOne({
        text: question,
        options: options ?? [],
        isFree: isOther === true || (options ?? []).length === 0
      })
      if (answer !== undefined) answers[id] = answer
    }
    return answers
  }, terminalTurn.withPermit),
  elicitation: Effect.fnUntraced(function*(request) {
    if (request._tag !== "Url") return decline
    const opened = yield* askOne({
      text: `${request.server} asks you to open ${request.url}\n${request.message}`,
      options: [{ label: "I have" }, { label: "I will not" }],
      isFree: false
    })
    return opened === "I have" ? accept() : decline
  }, terminalTurn.withPermit)
}
