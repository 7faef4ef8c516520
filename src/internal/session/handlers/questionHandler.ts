/** Handles the questions of the model and of MCP servers, and checks the responses of the handlers. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as JsonSchema from "effect/JsonSchema"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaParser from "effect/SchemaParser"
import * as SchemaRepresentation from "effect/SchemaRepresentation"
import type * as Scope from "effect/Scope"
import { Attribute, Operation } from "../../../CodexTelemetry.ts"
import type * as Protocol from "../../../Protocol.ts"
import { NotHandled } from "../../connection/notHandled.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn, getOwnString } from "../../getOwn.ts"
import type * as Questions from "../../questions/model.ts"
import { ownFields } from "../../tools/ownFields.ts"
import type { SessionTelemetry } from "../telemetry/sessionTelemetry.ts"
import { rawElicitation } from "./approvalRequests.ts"
import type { HandlerRegistry, HandlerSource } from "./handlerRegistry.ts"

/** The response of a handler does not fit the question. The message names the question, and does not contain the response. */
class InvalidResponse extends Data.TaggedError("InvalidResponse")<{ readonly message: string }> {}

/** Checks of the formats that a field of a form can have. */
const formats: Readonly<Record<string, (text: string) => boolean>> = {
  email: (text) => /^[^@\s]+@[^@\s]+$/.test(text),
  uri: (text) => /^[A-Za-z][A-Za-z0-9+.-]*:\S+$/.test(text),
  date: (text) => /^\d{4}-\d{2}-\d{2}$/.test(text) && isDay(text),
  "date-time": (text) =>
    /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/.test(text) &&
    isDay(text) && !Number.isNaN(Date.parse(text))
}

/** `Date.parse` accepts the 31st of any month. */
const isDay = (text: string): boolean => {
  const day = text.slice(0, 10)
  const time = Date.parse(`${day}T00:00:00Z`)
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(day)
}

/** The types of a field. A field of an unknown type must stay empty. */
const kinds: ReadonlySet<string> = new Set(["array", "boolean", "integer", "number", "object", "string"])

/** Describes an invalid value of a field, where its JSON Schema does not. */
const findIssue = (property: unknown, value: unknown): string | undefined => {
  const type = getOwn(property, "type")
  const format = getOwn(property, "format")
  if (Predicate.isString(type) && !kinds.has(type)) return `Expected no value, because the type \`${type}\` is unknown`
  if (!Predicate.isString(value) || !Predicate.isString(format) || !Object.hasOwn(formats, format)) return undefined
  return formats[format]!(value) ? undefined : `Expected text of the format \`${format}\``
}

/** Makes the schema of the content of a form. It ignores patterns: a regular expression of another server could block this process. */
const formSchema = (requested: Protocol.McpElicitationSchema): Schema.Codec<unknown> => {
  const document = JsonSchema.fromSchemaDraft2020_12(requested as unknown as JsonSchema.JsonSchema)
  const read = SchemaRepresentation.fromJsonSchemaDocument(document, { patterns: "ignore" }) as Schema.Codec<unknown>
  const prepare = ownFields(requested)
  const explain = SchemaParser.decodeUnknownEffect(read)
  const schema = prepare === identity ? read : Schema.declareConstructor<unknown>()(
    [read],
    () => (content, _, options) => Effect.as(explain(prepare(content), options), content)
  )
  const properties = Object.entries(requested.properties)
  return schema.check(
    Schema.makeFilter((content: unknown) =>
      properties.flatMap(([name, property]): ReadonlyArray<Schema.FilterIssue> => {
        const value = getOwn(content, name)
        const issue = value === undefined ? undefined : findIssue(property, value)
        return issue === undefined ? [] : [{ path: [name], issue }]
      })
    )
  )
}

const toElicitation = (
  params: Protocol.McpServerElicitationRequestParams
): Effect.Effect<Questions.ElicitationRequest, InvalidResponse> =>
  Effect.try({
    try: (): Questions.ElicitationRequest => {
      const sent = rawElicitation(params)
      const base = {
        threadId: getOwnString(sent, "threadId") ?? "",
        turnId: getOwnString(sent, "turnId"),
        server: getOwnString(sent, "serverName") ?? "",
        meta: getOwn(sent, "_meta")
      }
      const mode = getOwnString(sent, "mode") ?? "unknown"
      const message = getOwnString(sent, "message") ?? ""
      if (mode === "form") {
        const requestedSchema = getOwn(sent, "requestedSchema") as Protocol.McpElicitationSchema
        return { _tag: "Form", ...base, message, requestedSchema, schema: formSchema(requestedSchema) }
      }
      return params.mode === "url"
        ? { _tag: "Url", ...base, message, url: params.url, elicitationId: params.elicitationId }
        : { _tag: "Other", ...base, mode, params: sent }
    },
    catch: (cause) => new InvalidResponse({ message: `The schema of the form is not valid: ${String(cause)}` })
  })

const checkElicitation = (
  request: Questions.ElicitationRequest,
  answer: Questions.ElicitationAnswer
): Effect.Effect<Questions.ElicitationAnswer, InvalidResponse> =>
  request._tag !== "Form" || answer.action !== "accept" ? Effect.succeed(answer) : Effect.mapBoth(
    Schema.decodeEffect(request.schema)(answer.content ?? {}),
    {
      onFailure: ({ message }) => new InvalidResponse({ message: `The response does not fit the form: ${message}` }),
      onSuccess: () => answer
    }
  )

const checkUserInput = Effect.fnUntraced(function*(
  { questions }: Questions.UserInputRequest,
  answers: Questions.UserInputAnswers
): Effect.fn.Return<Protocol.ToolRequestUserInputResponse, InvalidResponse> {
  const checked: Array<readonly [id: string, answer: Protocol.ToolRequestUserInputAnswer]> = []
  for (const [id, given] of Object.entries(answers)) {
    const question = questions.find((question) => question.id === id)
    if (question === undefined) return yield* new InvalidResponse({ message: `There is no question \`${id}\`` })
    const texts = Predicate.isString(given) ? [given] : given
    const labels = question.options?.map(({ label }) => label) ?? []
    if (labels.length > 0 && question.isOther !== true && !texts.every((text) => labels.includes(text))) {
      return yield* new InvalidResponse({ message: `The response to question \`${id}\` is not one of its options` })
    }
    checked.push([id, { answers: texts }])
  }
  return { answers: Object.fromEntries(checked) }
})

/** Handles the questions of the model and of MCP servers, until the scope closes. */
export const handleQuestions = Effect.fnUntraced(function*(
  server: ServerConnection,
  registry: HandlerRegistry,
  telemetry: SessionTelemetry
): Effect.fn.Return<void, never, Scope.Scope> {
  const find = Effect.fnUntraced(function*<K extends keyof Questions.Handlers>(
    kind: K,
    sources: Effect.Effect<ReadonlyArray<HandlerSource>>
  ): Effect.fn.Return<NonNullable<Questions.Handlers[K]>, NotHandled> {
    for (const { handlers } of yield* sources) {
      const handler = handlers.questions?.[kind]
      if (handler !== undefined) return handler
    }
    return yield* new NotHandled({
      why:
        "no handler is registered for questions. Pass `questions` to the thread or the turn, or provide `Questions.layer`."
    })
  })

  yield* server.handle(
    "mcpServer/elicitation/request",
    Effect.fnUntraced(function*(params) {
      const request = yield* toElicitation(params)
      const { threadId, turnId } = request
      const sources = turnId === undefined ? registry.resolveStarting(threadId) : registry.resolve(threadId, turnId)
      const handler = yield* find("elicitation", sources)
      const span = {
        name: `${Operation.RequestInput} elicitation`,
        attributes: { [Attribute.McpServer]: request.server }
      }
      const itemId = telemetry.find(request)?.findMcpCall(request.server)
      const answer = yield* telemetry.withSpan({ threadId, turnId, itemId }, span, handler(request))
      return yield* checkElicitation(request, answer)
    })
  )
  yield* server.handle(
    "item/tool/requestUserInput",
    // A server that leaves out `isBlocking` waits for the response.
    Effect.fnUntraced(function*({ isBlocking = true, itemId, questions, threadId, turnId }) {
      const request = { threadId, turnId, itemId, questions, isBlocking }
      const handler = yield* find("userInput", registry.resolve(threadId, turnId))
      const span = { name: `${Operation.RequestInput} user_input`, attributes: {} }
      return yield* checkUserInput(request, yield* telemetry.withSpan(request, span, handler(request)))
    })
  )
})
