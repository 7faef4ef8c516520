/** Asks the program what the model and MCP servers want to know, and checks the answers. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as JsonSchema from "effect/JsonSchema"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as SchemaParser from "effect/SchemaParser"
import * as SchemaRepresentation from "effect/SchemaRepresentation"
import type * as Scope from "effect/Scope"
import { type AppServer, NotHandled } from "../../../AppServer.ts"
import type * as Protocol from "../../../Protocol.ts"
import type * as Questions from "../../../Questions.ts"
import { getOwn } from "../../connection/codec.ts"
import { ownFields } from "../../tools/ownFields.ts"
import { rawElicitation } from "./approvalRequests.ts"
import type { HandlerRegistry } from "./handlerRegistry.ts"

/** The handler's answer is none to the question. It names the question, and never what was answered. */
class InvalidAnswer extends Data.TaggedError("InvalidAnswer")<{ readonly message: string }> {}

/** The texts that each format of a form's field allows, as far as that is worth checking. */
const formats: Readonly<Record<string, (text: string) => boolean>> = {
  email: (text) => /^[^@\s]+@[^@\s]+$/.test(text),
  uri: (text) => /^[A-Za-z][A-Za-z0-9+.-]*:\S+$/.test(text),
  date: (text) => /^\d{4}-\d{2}-\d{2}$/.test(text) && isDay(text),
  "date-time": (text) =>
    /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})$/.test(text) &&
    isDay(text) && !Number.isNaN(Date.parse(text))
}

/** `Date.parse` takes the 31st of any month. */
const isDay = (text: string): boolean => {
  const day = text.slice(0, 10)
  const time = Date.parse(`${day}T00:00:00Z`)
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(day)
}

/** What the values of a form's fields can be. A field of another kind cannot be filled in by anybody who does not know it. */
const kinds: ReadonlySet<string> = new Set(["array", "boolean", "integer", "number", "object", "string"])

/** What is wrong with the value of a field that its JSON Schema does not say. */
const issueOf = (property: unknown, value: unknown): string | undefined => {
  const type = getOwn(property, "type")
  const format = getOwn(property, "format")
  if (Predicate.isString(type) && !kinds.has(type)) return `Expected no value, because the type ${type} is not known`
  if (!Predicate.isString(value) || !Predicate.isString(format) || !Object.hasOwn(formats, format)) return undefined
  return formats[format]!(value) ? undefined : `Expected a text of the format ${format}`
}

/** The schema of a form's answer. A regular expression of a stranger could keep this process busy, so those are left out. */
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
        const issue = value === undefined ? undefined : issueOf(property, value)
        return issue === undefined ? [] : [{ path: [name], issue }]
      })
    )
  )
}

const text = (value: unknown): string | undefined => Predicate.isString(value) ? value : undefined

const elicitationOf = (
  params: Protocol.McpServerElicitationRequestParams
): Effect.Effect<Questions.ElicitationRequest, InvalidAnswer> =>
  Effect.try({
    try: (): Questions.ElicitationRequest => {
      const sent = rawElicitation(params)
      const base = {
        threadId: text(getOwn(sent, "threadId")) ?? "",
        turnId: text(getOwn(sent, "turnId")),
        server: text(getOwn(sent, "serverName")) ?? "",
        meta: getOwn(sent, "_meta")
      }
      const mode = text(getOwn(sent, "mode")) ?? "unknown"
      const message = text(getOwn(sent, "message")) ?? ""
      if (mode === "form") {
        const requestedSchema = getOwn(sent, "requestedSchema") as Protocol.McpElicitationSchema
        return { _tag: "Form", ...base, message, requestedSchema, schema: formSchema(requestedSchema) }
      }
      return params.mode === "url"
        ? { _tag: "Url", ...base, message, url: params.url, elicitationId: params.elicitationId }
        : { _tag: "Other", ...base, mode, params: sent }
    },
    catch: (cause) => new InvalidAnswer({ message: `the form has a schema that cannot be read: ${String(cause)}` })
  })

const checkElicitation = (
  request: Questions.ElicitationRequest,
  answer: Questions.ElicitationAnswer
): Effect.Effect<Questions.ElicitationAnswer, InvalidAnswer> =>
  request._tag !== "Form" || answer.action !== "accept" ? Effect.succeed(answer) : Effect.matchEffect(
    Schema.decodeUnknownEffect(request.schema)(answer.content ?? {}),
    {
      onFailure: ({ message }) =>
        Effect.fail(new InvalidAnswer({ message: `the answer does not fit the form: ${message}` })),
      onSuccess: () => Effect.succeed(answer)
    }
  )

const checkUserInput = (
  { questions }: Questions.UserInputRequest,
  answers: Questions.UserInputAnswers
): Effect.Effect<Protocol.ToolRequestUserInputResponse, InvalidAnswer> =>
  Effect.gen(function*() {
    const checked: Array<readonly [id: string, answer: Protocol.ToolRequestUserInputAnswer]> = []
    for (const [id, given] of Object.entries(answers)) {
      const question = questions.find((question) => question.id === id)
      if (question === undefined) return yield* new InvalidAnswer({ message: `there is no question ${id}` })
      const texts = Predicate.isString(given) ? [given] : given
      const labels = question.options?.map(({ label }) => label) ?? []
      if (labels.length > 0 && question.isOther !== true && !texts.every((text) => labels.includes(text))) {
        return yield* new InvalidAnswer({ message: `the answer to question ${id} is none of its options` })
      }
      checked.push([id, { answers: texts }])
    }
    return { answers: Object.fromEntries(checked) }
  })

/** Answers the questions of the model and of MCP servers. */
export const questionHandler = (
  server: AppServer["Service"],
  registry: HandlerRegistry
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.gen(function*() {
    const handlerOf = Effect.fnUntraced(function*<K extends keyof Questions.Handlers>(
      kind: K,
      threadId: string,
      turnId: string | undefined
    ): Effect.fn.Return<NonNullable<Questions.Handlers[K]>, NotHandled> {
      for (const { handlers } of yield* registry.resolve(threadId, turnId)) {
        const handler = handlers.questions?.[kind]
        if (handler !== undefined) return handler
      }
      return yield* new NotHandled({
        why: "nobody answers it; give questions to the thread or the turn, or provide Questions.layer"
      })
    })

    yield* server.handle("mcpServer/elicitation/request", (params) =>
      Effect.gen(function*() {
        const request = yield* elicitationOf(params)
        const handler = yield* handlerOf("elicitation", request.threadId, request.turnId)
        return yield* checkElicitation(request, yield* handler(request))
      }))
    // A server that does not say so waits for the answer.
    yield* server.handle("item/tool/requestUserInput", ({ isBlocking = true, itemId, questions, threadId, turnId }) =>
      Effect.gen(function*() {
        const request = { threadId, turnId, itemId, questions, isBlocking }
        const handler = yield* handlerOf("userInput", threadId, turnId)
        return yield* checkUserInput(request, yield* handler(request))
      }))
  })
