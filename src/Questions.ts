/**
 * Questions to a user: those of the model in plan mode, and elicitations of MCP servers.
 *
 * **When to use**
 *
 * Pass {@link Handlers} as the option `questions` of a thread or a turn, or provide them to a program with {@link layer}. Use `Approvals`
 * for requests to call an MCP tool.
 *
 * **Details**
 *
 * The handlers of the turn's option respond first, then those of the thread's option, then those that {@link layer} provides: in
 * the context where the turn is started, where the thread was opened, and where the `Codex` layer was built.
 *
 * Responses are checked before they are sent: the answers to questions of the model against their options, and the values of a form
 * against its schema.
 *
 * Questions fail closed. If no handler responds, a handler fails, or its response does not pass the check, an elicitation is declined.
 * The response to a question of the model is then a JSON-RPC error.
 *
 * A handler is interrupted when another client responds, when the turn ends, and when the connection closes.
 *
 * **Gotchas**
 *
 * An MCP server may send an elicitation while its thread starts, before the thread has an id. The handlers of that thread respond if no
 * other thread is starting. Otherwise the elicitation is declined.
 *
 * **Example** (Responding to both kinds of questions)
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
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Terminal from "effect/Terminal"
import { handlerContext } from "./internal/handlers/handlerContext.ts"
import type { NoExcessProperties } from "./internal/handlers/handlerServices.ts"
import { assertOptions } from "./internal/options.ts"
import {
  accept,
  cancel,
  decline,
  type ElicitationAnswer,
  type FormElicitation,
  type Handlers,
  Questions,
  type Services
} from "./internal/questions/model.ts"
import { provideQuestions, questionKinds } from "./internal/questions/provideQuestions.ts"
import { type Choice, choose, notifyCancelled, show, withTerminalLock } from "./internal/terminal/prompt.ts"
import { terminalLine, terminalText } from "./internal/terminal/terminalText.ts"
import type * as Protocol from "./Protocol.ts"

export type { NoExcessProperties } from "./internal/handlers/handlerServices.ts"
export * from "./internal/questions/model.ts"

/**
 * Makes handlers with the services of the current context.
 *
 * **When to use**
 *
 * Provide questions to one effect: `Effect.provideService(effect, Questions.Questions, handlers)`. Use {@link layer} for a whole program.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const H extends Handlers<unknown>>(
  handlers: H & NoExcessProperties<H, Handlers>
): Effect.Effect<Handlers, never, Services<H>> =>
  Effect.suspend(() => {
    assertOptions("questions", questionKinds, handlers ?? null)
    return Effect.map(handlerContext<Services<H>>(), (context) =>
      provideQuestions(handlers as Handlers<Services<H>>, context))
  })

/**
 * Provides handlers to a program. They respond to the questions of threads and turns that the program starts.
 *
 * **Details**
 *
 * The option `questions` of a thread or a turn responds first. If two of these layers are nested, a turn has the inner one.
 *
 * **Gotchas**
 *
 * A handler with an unknown name is a defect: a `TypeError`. As an option of a thread or a turn, it fails with `InvalidRequest`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const H extends Handlers<unknown>>(
  handlers: H & NoExcessProperties<H, Handlers>
): Layer.Layer<never, never, Services<H>> => Layer.effect(Questions, make<H>(handlers))

interface Selectable {
  readonly type?: unknown
  readonly enum?: ReadonlyArray<string>
  readonly enumNames?: ReadonlyArray<string> | null
  readonly oneOf?: ReadonlyArray<Protocol.McpElicitationConstOption>
  readonly anyOf?: ReadonlyArray<Protocol.McpElicitationConstOption>
}

/** The possible values of a field of a form, or none if the input is free text. */
const getChoices = (field: unknown): ReadonlyArray<Choice<unknown>> => {
  const { anyOf, enum: values, enumNames, oneOf = anyOf, type } = field as Selectable
  if (oneOf !== undefined) return oneOf.map(({ const: value, title }) => ({ label: title, value }))
  if (values !== undefined) return values.map((value, index) => ({ label: enumNames?.[index] ?? value, value }))
  return type === "boolean" ? [{ label: "yes", value: true }, { label: "no", value: false }] : []
}

/** Parses the input of a field. */
const parseField = (field: Protocol.McpElicitationPrimitiveSchema) => (text: string): Option.Option<unknown> => {
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
    const choices = getChoices(field)
    return yield* choose(choices, choices.length === 0 ? parseField(field) : undefined)
  }
  const choices = getChoices((field as { readonly items?: unknown }).items)
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

/** Prompts for the values of a form, and sends them only after a confirmation. */
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
    const decoded = Schema.decodeResult(schema)(content)
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
 * Prompts for the responses on the terminal.
 *
 * **Details**
 *
 * - A question of the model accepts the number of an option and, if the model allows it, free text. An empty line gives no answer.
 * - A form of an MCP server is filled in field by field, and sent after a confirmation. A form without a required value cannot be sent.
 * - A page of an MCP server needs a confirmation that it was opened.
 *
 * **Gotchas**
 *
 * Secret questions get no answer, because a terminal would echo it.
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
