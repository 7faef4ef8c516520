/** The tools of threads: what the server is told of them, and who runs them. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Equal from "effect/Equal"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type AppServer, NotHandled } from "../../../AppServer.ts"
import {
  type AppServerError,
  InvalidRequest,
  make as appServerError,
  ToolsNotApplied
} from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type * as Tool from "../../../Tool.ts"
import { getOwn } from "../../connection/codec.ts"
import { handlerContext, provideHandlerContext } from "../../handlers/handlerContext.ts"
import { timeoutTo } from "../../handlers/timeoutTo.ts"
import { describe, duration, func, type Kinds, number, optionIssue, string } from "../../options.ts"
import type { ThreadOpened } from "../threads/responses.ts"
import type { HandlerRegistry } from "./handlerRegistry.ts"

type Method = "thread/start" | "thread/resume" | "thread/fork"

/** The options that give a thread tools. An alias for the reason that `HandlerOptions` is one. */
export type ToolOptions<T> = {
  /** Tools that the model may call; see `Tool`. */
  readonly tools?: T | undefined
  /** How many calls may run at once; more wait. Default: 8. */
  readonly toolConcurrency?: number | undefined
}

/** Tools that need nothing any more. */
export interface ThreadTools {
  /** Those that this program runs. */
  readonly tools: ReadonlyMap<string, Tool.Tool>
  readonly semaphore: Semaphore.Semaphore
  readonly concurrency: number
  /** What each tool takes that the thread was started with, if that is known. */
  readonly registered: KnownTools | undefined
}

type KnownTools = ReadonlyMap<string, unknown>

/** The tools that Codex has itself. It would run its own, and never ask for another of the name. */
const builtIn: ReadonlySet<string> = new Set([
  "apply_patch",
  "exec_command",
  "list_mcp_resource_templates",
  "list_mcp_resources",
  "multi_agent_v1",
  "read_mcp_resource",
  "request_permissions",
  "request_user_input",
  "view_image",
  "web_search",
  "write_stdin"
])

const toolKinds: Kinds<Tool.Tool> = {
  name: string,
  description: string,
  inputSchema: { expected: "JSON Schema", is: (value) => Predicate.isObject(value) && !Schema.isSchema(value) },
  timeout: duration,
  run: func
}

/** What is wrong with a tool, as plain JavaScript may give it. */
const toolIssue = (tool: unknown): string | undefined => {
  if (!Predicate.isObject(tool)) return `a tool is ${describe(tool)}; expected what \`Tool.make\` returns`
  const issue = optionIssue(toolKinds, tool) ??
    Object.keys(toolKinds).filter((name) => name !== "timeout" && tool[name] === undefined).map((name) =>
      `\`${name}\` is missing`
    )[0]
  return issue === undefined
    ? undefined
    : `tool ${JSON.stringify(tool["name"])} is not what \`Tool.make\` returns: ${issue}`
}

const isName = (name: string): boolean => /^[a-zA-Z0-9_-]+$/.test(name)

/** The definition that a schema refers to, as that of a class or a struct with an identifier does. */
const dereferenced = (schema: Tool.Tool["inputSchema"]): Tool.Tool["inputSchema"] => {
  const { $ref, ...rest } = schema
  const name = Predicate.isString($ref) && $ref.startsWith("#/$defs/") ? $ref.slice("#/$defs/".length) : undefined
  if (name === undefined) return schema
  const definition = getOwn(schema["$defs"], name.replaceAll("~1", "/").replaceAll("~0", "~"))
  return Predicate.isObject(definition) ? { ...definition, ...rest } : schema
}

/** A struct without fields takes anything but null. As arguments of a tool it is an object without properties. */
const toObjectSchema = (given: Tool.Tool["inputSchema"]): Tool.Tool["inputSchema"] => {
  const schema = dereferenced(given)
  return Equal.equals(schema["not"], { type: "null" }) && schema["type"] === undefined
    ? { type: "object", properties: {}, additionalProperties: false }
    : schema
}

/** Tools as options have them, with the services that they need. */
export const provideTools = Effect.fnUntraced(function*(
  server: AppServer["Service"],
  method: Method,
  { toolConcurrency, tools = [] }: ToolOptions<ReadonlyArray<Tool.Tool>>
): Effect.fn.Return<ThreadTools | undefined, AppServerError> {
  const invalid = (description: string) => appServerError(new InvalidRequest({ method, description }))
  if (!Array.isArray(tools)) return yield* invalid(`\`tools\` is ${describe(tools)}; expected an array of tools`)
  const issue = optionIssue({ toolConcurrency: number }, { toolConcurrency })
  if (issue !== undefined) return yield* invalid(issue)
  if (tools.length === 0) {
    if (toolConcurrency !== undefined) return yield* invalid("toolConcurrency says nothing without tools")
    return undefined
  }
  if (!server.experimentalApi) {
    return yield* invalid("tools need the experimental API; connect without experimentalApi: false")
  }
  if (toolConcurrency !== undefined && !(toolConcurrency >= 1)) {
    return yield* invalid(`toolConcurrency is ${toolConcurrency}; it must be at least 1`)
  }
  const services = yield* handlerContext
  const named = new Map<string, Tool.Tool>()
  for (const tool of tools) {
    const wrong = toolIssue(tool)
    if (wrong !== undefined) return yield* invalid(wrong)
    if (!isName(tool.name)) {
      return yield* invalid(`a tool cannot be named ${JSON.stringify(tool.name)}: letters, digits, _ and - only`)
    }
    if (builtIn.has(tool.name)) return yield* invalid(`Codex has a tool of its own that is named ${tool.name}`)
    if (named.has(tool.name)) return yield* invalid(`there are two tools named ${tool.name}`)
    const inputSchema = toObjectSchema(tool.inputSchema)
    if (inputSchema["type"] !== "object") {
      return yield* invalid(`the parameters of tool ${tool.name} must be an object, as Schema.Struct makes it`)
    }
    named.set(tool.name, {
      ...tool,
      inputSchema,
      run: (args, call) => provideHandlerContext(services, () => tool.run(args, call))
    })
  }
  const concurrency = toolConcurrency ?? 8
  return { tools: named, semaphore: Semaphore.makeUnsafe(concurrency), concurrency, registered: undefined }
})

/** The same tools for another thread. Its calls have a window of their own, as a call of this one may wait for them. */
export const copyForThread = (tools: ThreadTools): ThreadTools => ({
  ...tools,
  semaphore: Semaphore.makeUnsafe(tools.concurrency)
})

/** What the server is told of tools. */
export const toDynamicToolSpecs = ({ tools }: ThreadTools): ReadonlyArray<Protocol.DynamicToolSpec> =>
  [...tools.values()].map(({ description, inputSchema, name }) => ({
    type: "function",
    name,
    description,
    inputSchema
  }))

/** The first line of a stored thread says which tools it was started with. */
const SessionMeta = Schema.fromJsonString(Schema.Struct({
  type: Schema.Literal("session_meta"),
  payload: Schema.Struct({
    dynamic_tools: Schema.optionalKey(Schema.NullOr(Schema.Array(Schema.Struct({
      name: Schema.String,
      inputSchema: Schema.optionalKey(Schema.Unknown)
    }))))
  })
}))

const decodeMeta = Schema.decodeUnknownOption(SessionMeta)

/** What the server would send of a long thread's file is all of it, so only its first line is asked for, where that can be. */
const firstLine = (server: AppServer["Service"], path: string): Effect.Effect<string, AppServerError> =>
  server.request("command/exec", {
    command: ["head", "-n", "1", path],
    sandboxPolicy: { type: "dangerFullAccess" },
    // Long instructions are on that line too.
    disableOutputCap: true
  })
    .pipe(
      Effect.flatMap(({ exitCode, stdout }) => exitCode === 0 ? Effect.succeed(stdout) : readFirstLine(server, path)),
      Effect.catchReason("AppServerError", "RequestRejected", () => readFirstLine(server, path))
    )

const readFirstLine = (server: AppServer["Service"], path: string): Effect.Effect<string, AppServerError> =>
  Effect.map(server.request("fs/readFile", { path }), ({ dataBase64 }) => {
    const text = Option.getOrElse(Result.getSuccess(Base64.decodeString(dataBase64)), () => "")
    return text.slice(0, Math.max(0, text.indexOf("\n")))
  })

/** The file of a thread. A fork that is not to be stored has none; its tools are those of the original. */
const getThreadPath = (
  server: AppServer["Service"],
  id: string,
  { thread }: ThreadOpened
): Effect.Effect<string | undefined, AppServerError> =>
  Predicate.isString(thread.path) ? Effect.succeed(thread.path) : Effect.map(
    server.requestRaw("thread/read", { threadId: id }),
    (answer) => {
      const path = getOwn(getOwn(answer, "thread"), "path")
      return Predicate.isString(path) ? path : undefined
    }
  )

/** The tools of the stored thread that was opened by an id, by name, if they can be told. */
const storedTools = (
  server: AppServer["Service"],
  id: string,
  opened: ThreadOpened
): Effect.Effect<KnownTools | undefined> =>
  getThreadPath(server, id, opened).pipe(
    Effect.flatMap((path) => path === undefined ? Effect.succeed("") : firstLine(server, path)),
    Effect.map((line) =>
      Option.getOrUndefined(Option.map(
        decodeMeta(line.trim()),
        ({ payload }) => new Map((payload.dynamic_tools ?? []).map(({ inputSchema, name }) => [name, inputSchema]))
      ))
    ),
    Effect.catch(() => Effect.succeed(undefined))
  )

const toJson = (schema: Tool.Tool["inputSchema"]): unknown => JSON.parse(JSON.stringify(schema))

/** The tools of a thread that is started with them, and with others that the program gave in the protocol's own way. */
export const withRegisteredTools = (
  tools: ThreadTools,
  others: ReadonlyArray<Protocol.DynamicToolSpec>
): ThreadTools => ({
  ...tools,
  registered: new Map([
    ...others.map((tool): [string, unknown] => [tool.name, "inputSchema" in tool ? tool.inputSchema : undefined]),
    ...[...tools.tools.values()].map((tool): [string, unknown] => [tool.name, toJson(tool.inputSchema)])
  ])
})

/**
 * A thread has the tools that it was started with; the protocol has no way to give it others later. So the tools that a
 * program gives to a thread that it resumes or forks must be among those, and what they take must be the same. Those that
 * it gave before and does not give anew stay.
 */
export const mergeForReopen = (
  server: AppServer["Service"],
  method: Method,
  id: string,
  given: ThreadTools,
  before: ThreadTools | undefined,
  opened: ThreadOpened
): Effect.Effect<ThreadTools, AppServerError> =>
  Effect.gen(function*() {
    const { thread } = opened
    const registered = before?.registered ?? (yield* storedTools(server, id, opened))
    const tools = new Map([...before?.tools ?? [], ...given.tools])
    if (registered === undefined) {
      yield* Effect.logWarning(
        `Cannot tell which tools thread ${thread.id} was started with; the model knows no others than those`
      )
      return { ...given, tools }
    }
    const missing: Array<string> = []
    const changed: Array<string> = []
    for (const { inputSchema, name } of given.tools.values()) {
      if (!registered.has(name)) missing.push(name)
      else if (!Equal.equals(registered.get(name), toJson(inputSchema))) changed.push(name)
    }
    if (missing.length > 0 || changed.length > 0) {
      return yield* appServerError(new ToolsNotApplied({ method, threadId: thread.id, missing, changed }))
    }
    return { ...given, tools, registered }
  })

const failed = (text: string): Protocol.DynamicToolCallResponse => ({
  success: false,
  contentItems: [{ type: "inputText", text }]
})

const runTool = (
  { tools, semaphore }: ThreadTools,
  { arguments: args, callId, threadId, tool: name, turnId }: Protocol.DynamicToolCallParams
): Effect.Effect<Protocol.DynamicToolCallResponse, NotHandled> => {
  const tool = tools.get(name)
  if (tool === undefined) return Effect.fail(new NotHandled({ why: `the thread has no handler for tool ${name}` }))
  const { timeout } = tool
  const run = Effect.map(tool.run(args, { threadId, turnId, callId }), ({ content, success }) => ({
    success,
    contentItems: content
  }))
  const limited = timeout === undefined ? run : timeoutTo(
    run,
    timeout,
    () => failed(`${name} did not finish within ${Duration.format(Duration.fromInputUnsafe(timeout))}`)
  )
  return limited.pipe(
    Effect.catchCause((cause) =>
      Effect.as(
        Effect.logError(`Tool ${name} failed (thread ${threadId}, turn ${turnId}, call ${callId})`, cause),
        failed(`${name} failed unexpectedly`)
      )
    ),
    Effect.withSpan(`Tool.${name}`, { attributes: { threadId, turnId, callId } }),
    semaphore.withPermit
  )
}

/** Runs the tools that the model calls. */
export const toolCallHandler = (
  server: AppServer["Service"],
  registry: HandlerRegistry
): Effect.Effect<void, never, Scope.Scope> =>
  server.handle(
    "item/tool/call",
    (params) =>
      Effect.flatMap(registry.getTools(params.threadId), (tools) =>
        tools === undefined
          ? Effect.fail(new NotHandled({ why: `nobody runs tool ${params.tool}; give tools to the thread` }))
          : runTool(tools, params))
  )
