/** Questions of the model and of MCP servers, and handlers. The public module `Questions` exports all of it. */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Protocol from "../../Protocol.ts"
import type { HandlerServices, KnownServices } from "../handlers/handlerServices.ts"

/**
 * Questions of the model, which it can send in plan mode (`collaborationMode` of a turn).
 *
 * @category requests
 * @since 0.1.0
 */
export interface UserInputRequest {
  readonly threadId: string
  readonly turnId: string
  readonly itemId: string
  /**
   * The questions, each with an `id` and usually with `options`. With `isOther`, any other text is an answer too. Do not echo the
   * input for a question with `isSecret`.
   */
  readonly questions: ReadonlyArray<Protocol.ToolRequestUserInputQuestion>
  /** Whether the turn waits for the response. */
  readonly isBlocking: boolean
}

/**
 * The answers, by the `id` of the question. A question may have no answer.
 *
 * @category answers
 * @since 0.1.0
 */
export interface UserInputAnswers {
  readonly [questionId: string]: string | ReadonlyArray<string>
}

/**
 * The fields of every elicitation of an MCP server.
 *
 * @category requests
 * @since 0.1.0
 */
export interface ElicitationBase {
  readonly threadId: string
  /** The id of the turn that the MCP server works for, if it is known. */
  readonly turnId: string | undefined
  /** The name of the MCP server. */
  readonly server: string
  /** The `_meta` of the request. */
  readonly meta: unknown
}

/**
 * An elicitation of the values of a form.
 *
 * @category requests
 * @since 0.1.0
 */
export interface FormElicitation extends ElicitationBase {
  readonly _tag: "Form"
  /** The message of the MCP server to the user. */
  readonly message: string
  /** The JSON Schema of the values: an object with strings, numbers, booleans and choices. */
  readonly requestedSchema: Protocol.McpElicitationSchema
  /** The schema of the values. Values that it does not decode are not sent. */
  readonly schema: Schema.Codec<unknown>
}

/**
 * An elicitation to open a page.
 *
 * @category requests
 * @since 0.1.0
 */
export interface UrlElicitation extends ElicitationBase {
  readonly _tag: "Url"
  /** The message of the MCP server to the user. */
  readonly message: string
  /** The URL of the page. */
  readonly url: string
  readonly elicitationId: string
}

/**
 * An elicitation of another kind, as the server sent it: forms of OpenAI, user verification, and additions of newer servers.
 *
 * @category requests
 * @since 0.1.0
 */
export interface OtherElicitation extends ElicitationBase {
  readonly _tag: "Other"
  /** The kind of elicitation, as in the protocol. */
  readonly mode: string
  /** The params as the server sent them. */
  readonly params: unknown
}

/**
 * An elicitation of an MCP server. `_tag` is its kind.
 *
 * @category requests
 * @since 0.1.0
 */
export type ElicitationRequest = FormElicitation | UrlElicitation | OtherElicitation

/**
 * The response to an elicitation.
 *
 * @category answers
 * @since 0.1.0
 */
export type ElicitationAnswer = Protocol.McpServerElicitationRequestResponse

/**
 * Accepts an elicitation with this content. Only a form needs content.
 *
 * @category answers
 * @since 0.1.0
 */
export const accept = (content: unknown = null): ElicitationAnswer => ({ action: "accept", content })

/**
 * Declines an elicitation: the user refused.
 *
 * @category answers
 * @since 0.1.0
 */
export const decline: ElicitationAnswer = { action: "decline", content: null }

/**
 * Cancels an elicitation: the user dismissed it without a response.
 *
 * @category answers
 * @since 0.1.0
 */
export const cancel: ElicitationAnswer = { action: "cancel", content: null }

/**
 * The handlers of a program, one for each kind of question.
 *
 * **Details**
 *
 * A question without a handler passes to the next handlers: first those of the turn, then those of the thread, then those of the
 * context.
 *
 * @category models
 * @since 0.1.0
 */
export interface Handlers<out R = never> {
  /** Responds to questions of the model. */
  readonly userInput?: ((request: UserInputRequest) => Effect.Effect<UserInputAnswers, unknown, R>) | undefined
  /** Responds to elicitations of MCP servers. */
  readonly elicitation?: ((request: ElicitationRequest) => Effect.Effect<ElicitationAnswer, unknown, R>) | undefined
}

/**
 * The services that {@link Handlers} need.
 *
 * @category models
 * @since 0.1.0
 */
export type Services<H> = KnownServices<HandlerServices<H>>

/**
 * Context reference for the handlers that respond to the questions of threads and turns started in that context.
 *
 * **When to use**
 *
 * Provide it with `Questions.layer` to a program. Provide it to one effect with `Effect.provideService` and `Questions.make`.
 *
 * **Details**
 *
 * Because it is a `Context.Reference`, programs without questions need no service. The default is `undefined`: no handlers.
 *
 * @category references
 * @since 0.1.0
 */
export const Questions: Context.Reference<Handlers | undefined> = Context.Reference<Handlers | undefined>(
  "effect-codex/Questions",
  { defaultValue: () => undefined }
)
