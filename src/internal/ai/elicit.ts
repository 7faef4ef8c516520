/** Sends the approvals and questions of a turn to an MCP client, as elicitations. */
import * as McpSchema from "effect/ai/McpSchema"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Approvals from "../approvals/model.ts"
import { getOwnString } from "../getOwn.ts"
import * as Questions from "../questions/model.ts"
import { describeRequest } from "../terminal/describeRequest.ts"
import { terminalText } from "../terminal/terminalText.ts"

type Client = McpSchema.McpServerClient["Service"]

/** Whether the client shows forms to its user. A client that names no mode supports forms. */
const supportsForms = ({ clientCapabilities: { elicitation } }: Client): boolean =>
  elicitation !== undefined && (elicitation.form !== undefined || elicitation.url === undefined)

const supportsPages = ({ clientCapabilities: { elicitation } }: Client): boolean => elicitation?.url !== undefined

/** Sends an elicitation. An interrupted fiber cancels it. */
const elicit = (client: Client, request: McpSchema.ElicitRequestParams) =>
  Effect.scoped(Effect.flatMap(client.getClient, (reverse) => reverse.elicit(request)))

type Form = McpSchema.ElicitRequestFormParams["requestedSchema"]

const elicitForm = (client: Client, message: string, requestedSchema: Form) =>
  elicit(client, new McpSchema.ElicitRequestFormParams({ mode: "form", message, requestedSchema }))

/** The field with which a user accepts equal requests, too. Without it, a client shows only the message. */
const remember = "remember"

const approvalForm: Form = {
  type: "object",
  properties: {
    [remember]: new McpSchema.ElicitationBoolean({
      title: "Remember",
      description: "Accept equal requests in this session, too",
      default: false
    })
  }
}

/** A policy that asks the user of the client about each request. */
const askUser = (client: Client): Approvals.Policy => (request) =>
  elicitForm(client, describeRequest(request), approvalForm).pipe(
    Effect.map((result): Option.Option<Approvals.Decision> => {
      if (result.action !== "accept") return Option.some(result.action)
      return Option.some(result.content?.[remember] === true ? "acceptForSession" : "accept")
    })
  )

const describeOptions = (options: ReadonlyArray<{ readonly label: string; readonly description?: unknown }>): string =>
  options.map(({ description, label }) =>
    Predicate.isString(description) && description !== "" ? `${label}: ${description}` : label
  ).join("\n")

type Question = Questions.UserInputRequest["questions"][number]

/** The field of a question. A question that accepts other texts, too, describes its options. */
const toField = ({ header, isOther, options, question }: Question): McpSchema.PrimitiveSchemaDefinition => {
  const choices = options ?? []
  const description = terminalText([question, describeOptions(choices)].filter((text) => text !== "").join("\n"))
  const title = Predicate.isString(header) ? terminalText(header) : undefined
  return choices.length === 0 || isOther === true
    ? new McpSchema.ElicitationString({ title, description })
    : new McpSchema.UntitledSingleSelectEnum({ title, description, enum: choices.map(({ label }) => label) })
}

const decodeForm = Schema.decodeUnknownEffect(McpSchema.ElicitRequestFormParams)

/** Handlers that pass questions on. Secret questions stay open, because MCP forbids forms with secrets. */
const passOn = (client: Client): Questions.Handlers => ({
  userInput: Effect.fnUntraced(function*({ questions }) {
    const open = questions.filter(({ isSecret }) => isSecret !== true)
    if (open.length === 0) return {}
    const properties = Object.fromEntries(open.map((each) => [each.id, toField(each)]))
    const result = yield* elicitForm(client, "Codex asks:", { type: "object", properties })
    const content = result.action === "accept" ? result.content : undefined
    // A client may send more than the form has.
    const answers = open.map(({ id }) => [id, getOwnString(content, id)] as const)
    return Object.fromEntries(answers.filter((entry): entry is [string, string] => entry[1] !== undefined))
  }),
  elicitation: Effect.fnUntraced(function*(request) {
    if (request._tag === "Other" || request._tag === "Url" && !supportsPages(client)) return Questions.decline
    const message = terminalText(`${request.server}: ${request.message}`)
    const result = yield* elicit(
      client,
      request._tag === "Form"
        ? yield* decodeForm({ mode: "form", message, requestedSchema: request.requestedSchema })
        : new McpSchema.ElicitRequestURLParams({
          mode: "url",
          message,
          url: request.url,
          elicitationId: request.elicitationId
        })
    )
    return result.action === "accept"
      ? Questions.accept(result.content ?? null)
      : result.action === "cancel"
      ? Questions.cancel
      : Questions.decline
  })
})

/** The handlers of a turn: none for a client without elicitations, so those of the context decide. */
export const clientHandlers = (
  client: Client
): { readonly approvals?: Approvals.Policy; readonly questions?: Questions.Handlers } =>
  supportsForms(client) ? { approvals: askUser(client), questions: passOn(client) } : {}
