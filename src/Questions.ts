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
 *     Effect.succeed(
 *       request._tag === "Form" && request.server === "people" ? Questions.accept({ name: "Ada" }) : Questions.decline
 *     )
 * })
 * ```
 *
 * Answers are checked before they are sent: those to the model's questions against the options that it offered, those to a form
 * against the form's schema. Without a handler, or with one that fails or answers something else, the model's question is
 * answered with a JSON-RPC error and the MCP server's is declined. Whether an MCP tool may be called is asked of `Approvals`.
 *
 * A handler is interrupted when somebody else has answered, the turn ends or the connection closes.
 *
 * What an MCP server asks as it starts, before `startThread` has its answer, goes to {@link layer}: nobody knows yet which
 * thread it is.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Terminal from "effect/Terminal"
import * as Codex from "./Codex.ts"
import { handlerContext } from "./internal/handlers/handlerContext.ts"
import type { HandlerServices, KnownServices, NoExcessProperties } from "./internal/handlers/handlerServices.ts"
import { assertQuestions, provideQuestions } from "./internal/session/handlers/handlerRegistry.ts"
import { type Choice, choose, notifyCancelled, show, withTerminalLock } from "./internal/terminal/prompt.ts"
import { terminalLine, terminalText } from "./internal/terminal/terminalText.ts"
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
export type Services<H> = KnownServices<HandlerServices<H>>

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
export const make = <const H extends Handlers<any>>(
  handlers: H & NoExcessProperties<H, Handlers>
): Effect.Effect<Questions["Service"], never, Codex.Codex | Services<H> | Scope.Scope> =>
  Effect.gen(function*() {
    const codex = yield* Codex.Codex
    assertQuestions(handlers)
    const services = (yield* handlerContext) as Context.Context<Services<H>>
    const questions = provideQuestions(handlers as Handlers<Services<H>>, services)
    yield* codex.handle({ questions })
    return questions
  })

/**
 * Has handlers answer the questions of all threads that have none of their own.
 *
 * **Gotchas**
 *
 * A handler under an unknown name is a defect: a `TypeError`. As the option of a thread or a turn it fails with `InvalidRequest`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const H extends Handlers<any>>(
  handlers: H & NoExcessProperties<H, Handlers>
): Layer.Layer<Questions, never, Codex.Codex | Services<H>> => Layer.effect(Questions, make<H>(handlers))

interface Selectable {
  readonly type?: unknown
  readonly enum?: ReadonlyArray<string>
  readonly enumNames?: ReadonlyArray<string> | null
  readonly oneOf?: ReadonlyArray<Protocol.McpElicitationConstOption>
  readonly anyOf?: ReadonlyArray<Protocol.McpElicitationConstOption>
}

/** The values that a field of a form may have, if there is a choice. */
const choicesOf = (field: unknown): ReadonlyArray<Choice<unknown>> => {
  const { anyOf, enum: values, enumNames, oneOf = anyOf, type } = field as Selectable
  if (oneOf !== undefined) return oneOf.map(({ const: value, title }) => ({ label: title, value }))
  if (values !== undefined) return values.map((value, index) => ({ label: enumNames?.[index] ?? value, value }))
  return type === "boolean" ? [{ label: "yes", value: true }, { label: "no", value: false }] : []
}

/** How what is typed becomes the value of a field. */
const readField = (field: Protocol.McpElicitationPrimitiveSchema) => (text: string): Option.Option<unknown> => {
  switch (field.type) {
    case "number":
    case "integer":
      return Number.isNaN(Number(text)) ? Option.none() : Option.some(Number(text))
    default:
      return Option.some(text)
  }
}

const askField = Effect.fnUntraced(function*(
  field: Protocol.McpElicitationPrimitiveSchema
): Effect.fn.Return<Option.Option<unknown>, unknown, Terminal.Terminal> {
  if (field.type !== "array") {
    const choices = choicesOf(field)
    return yield* choose(choices, choices.length === 0 ? readField(field) : undefined)
  }
  const choices = choicesOf((field as { readonly items?: unknown }).items)
  const chosen: Array<unknown> = []
  yield* show("(one after the other, and an empty line when there are no more)\n")
  while (true) {
    const value = yield* choose(choices, choices.length === 0 ? Option.some : undefined)
    if (Option.isNone(value)) return chosen.length === 0 ? Option.none() : Option.some(chosen)
    if (!chosen.includes(value.value)) chosen.push(value.value)
  }
})

const sendIt: ReadonlyArray<Choice<"send" | "again" | "decline">> = [
  { label: "Send it", value: "send" },
  { label: "Fill it in again", value: "again" },
  { label: "Decline", value: "decline" }
]

/** A form is sent only when the person says so at its end, be there something in it or not. */
const askForm = Effect.fnUntraced(function*(
  { message, requestedSchema, schema, server }: FormElicitation
): Effect.fn.Return<ElicitationAnswer, unknown, Terminal.Terminal> {
  while (true) {
    yield* show(`\n${terminalLine(server)} asks: ${terminalText(message)}\n`)
    const values: Array<readonly [name: string, value: unknown]> = []
    for (const [name, field] of Object.entries(requestedSchema.properties)) {
      const isRequired = requestedSchema.required?.includes(name) === true
      yield* show(
        `${terminalLine(field.title ?? name)}${isRequired ? "" : " (or nothing)"}${
          Predicate.isString(field.description) ? `: ${terminalLine(field.description)}` : ""
        }\n`
      )
      const value = yield* askField(field)
      if (Option.isSome(value)) values.push([name, value.value])
    }
    const content = Object.fromEntries(values)
    const decoded = Schema.decodeUnknownResult(schema)(content)
    if (Result.isFailure(decoded)) {
      yield* show(`That does not fit the form: ${terminalText(decoded.failure.message)}\n`)
    }
    const choices = Result.isSuccess(decoded) ? sendIt : sendIt.filter(({ value }) => value !== "send")
    const next = Option.getOrUndefined(yield* choose(choices, undefined))
    if (next === "send") return accept(content)
    if (next !== "again") return next === "decline" ? decline : cancel
  }
})

/**
 * Asks a person at the terminal: the model's questions, to be answered with the number of an option or, where the model allows
 * it, in one's own words; the forms of MCP servers, field by field; and whether a page was opened. An empty line leaves a
 * question open, and puts away a form that needs the field. What is secret is left open, because a terminal would show it.
 *
 * @category handlers
 * @since 0.1.0
 */
export const askTerminal: Handlers<Terminal.Terminal> = {
  userInput: Effect.fnUntraced(
    function*({ questions }) {
      const answers: Array<readonly [id: string, answer: string]> = []
      for (const { id, isOther, isSecret, options, question } of questions) {
        if (isSecret === true) continue
        yield* show(`\n${terminalText(question)}\n`)
        const choices = (options ?? []).map(({ description, label }) => ({ label, description, value: label }))
        const answer = yield* choose(choices, isOther === true || choices.length === 0 ? Option.some : undefined)
        if (Option.isSome(answer)) answers.push([id, answer.value])
      }
      return Object.fromEntries(answers)
    },
    notifyCancelled,
    withTerminalLock
  ),
  elicitation: Effect.fnUntraced(
    function*(request) {
      switch (request._tag) {
        case "Form":
          return yield* askForm(request)
        case "Url": {
          yield* show(`\n${terminalLine(request.server)} asks you to open ${terminalLine(request.url)}\n`)
          yield* show(`${terminalText(request.message)}\n`)
          const answers = [{ label: "I have", value: accept() }, { label: "I will not", value: decline }]
          return Option.getOrElse(yield* choose(answers, undefined), () => cancel)
        }
        case "Other":
          return decline
      }
    },
    notifyCancelled,
    withTerminalLock
  )
}
