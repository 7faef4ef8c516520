/** The questions of the model and of MCP servers, and the handlers that respond to them. `Questions` exports all of it. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Protocol from "../../Protocol.ts"
import type { HandlerServices, KnownServices } from "../handlers/handlerServices.ts"

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
 * The questions in a context: the handlers that respond to the questions of the threads and turns that are started in it.
 *
 * `undefined`, the default, responds to nothing. `Questions.layer` provides it.
 *
 * @category services
 * @since 0.1.0
 */
export const Questions: Context.Reference<Handlers | undefined> = Context.Reference<Handlers | undefined>(
  "effect-codex/Questions",
  { defaultValue: () => undefined }
)
