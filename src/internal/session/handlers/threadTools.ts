/** The tools of threads: how the server is told about them, and what becomes of them when a thread is opened again. */
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import {
  type AppServerError,
  InvalidRequest,
  make as appServerError,
  ToolsNotApplied
} from "../../../AppServerError.ts"
import type * as Protocol from "../../../Protocol.ts"
import type * as Tool from "../../../Tool.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { getOwn } from "../../getOwn.ts"
import { handlerContext, provideHandlerContext } from "../../handlers/handlerContext.ts"
import { describe, duration, func, type Kinds, number, optionIssue, string } from "../../options.ts"
import type { ThreadOpened } from "../threads/responses.ts"
import { readStoredTools, type RegisteredTools } from "./storedTools.ts"

type Method = "thread/start" | "thread/resume" | "thread/fork"

/** The options with the tools of a thread. An alias for the same reason as `HandlerOptions`. */
export type ToolOptions<T> = {
  /** Tools that the model may call; see `Tool`. */
  readonly tools?: T | undefined
  /**
   * Maximum number of calls that run at once; more wait.
   *
   * @default 8
   */
  readonly toolConcurrency?: number | undefined
}

/** Tools that need no services. */
export interface ThreadTools {
  /** The tools that this program runs, by name. */
  readonly tools: ReadonlyMap<string, Tool.Tool>
  readonly semaphore: Semaphore.Semaphore
  readonly concurrency: number
  /** The tools that the thread was started with, if the server or this program knows them. */
  readonly registered: RegisteredTools | undefined
}

/** The names of the tools of Codex. It would run its own tool and never call another with its name. */
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

/** Describes what is wrong with a tool, as plain JavaScript may pass it. */
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

/** Resolves the root `$ref` of a schema, which a class or a struct with an identifier has. */
const dereferenced = (schema: Tool.Tool["inputSchema"]): Tool.Tool["inputSchema"] => {
  const { $ref, ...rest } = schema
  const name = Predicate.isString($ref) && $ref.startsWith("#/$defs/") ? $ref.slice("#/$defs/".length) : undefined
  if (name === undefined) return schema
  const definition = getOwn(schema["$defs"], name.replaceAll("~1", "/").replaceAll("~0", "~"))
  return Predicate.isObject(definition) ? { ...definition, ...rest } : schema
}

/** The schema of a struct without fields allows any value but null. As arguments of a tool it is an object without properties. */
const toObjectSchema = (given: Tool.Tool["inputSchema"]): Tool.Tool["inputSchema"] => {
  const schema = dereferenced(given)
  return Equal.equals(schema["not"], { type: "null" }) && schema["type"] === undefined
    ? { type: "object", properties: {}, additionalProperties: false }
    : schema
}

/** The tools of options, with the context of the current fiber. */
export const provideTools = Effect.fnUntraced(function*(
  server: ServerConnection,
  method: Method,
  { toolConcurrency, tools = [] }: ToolOptions<ReadonlyArray<Tool.Tool>>
): Effect.fn.Return<ThreadTools | undefined, AppServerError> {
  const invalid = (description: string) => appServerError(new InvalidRequest({ method, description }))
  if (!Array.isArray(tools)) return yield* invalid(`\`tools\` is ${describe(tools)}; expected an array of tools`)
  const issue = optionIssue({ toolConcurrency: number }, { toolConcurrency })
  if (issue !== undefined) return yield* invalid(issue)
  if (tools.length === 0) {
    if (toolConcurrency !== undefined) return yield* invalid("`toolConcurrency` requires `tools`")
    return undefined
  }
  if (!server.experimentalApi) {
    return yield* invalid("`tools` require the experimental API; connect without `experimentalApi: false`")
  }
  if (toolConcurrency !== undefined && !(toolConcurrency >= 1)) {
    return yield* invalid(`\`toolConcurrency\` is ${toolConcurrency}; it must be at least 1`)
  }
  const services = yield* handlerContext<never>()
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

/** The same tools for another thread, with a semaphore of its own: a call of this thread may wait for a call of the other. */
export const copyForThread = (tools: ThreadTools): ThreadTools => ({
  ...tools,
  semaphore: Semaphore.makeUnsafe(tools.concurrency)
})

/** The tools as `thread/start` registers them. */
export const toDynamicToolSpecs = ({ tools }: ThreadTools): ReadonlyArray<Protocol.DynamicToolSpec> =>
  [...tools.values()].map(({ description, inputSchema, name }) => ({
    type: "function",
    name,
    description,
    inputSchema
  }))

const toJson = (schema: Tool.Tool["inputSchema"]): unknown => JSON.parse(JSON.stringify(schema))

/** The tools of a thread that is started with them and with the `dynamicTools` of the protocol. */
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
 * Merges the tools for a thread that is resumed or forked with those that the program passed before.
 *
 * A thread keeps the tools that it was started with, and the protocol cannot add others. So each tool must be one of those, with the
 * same JSON Schema of its arguments; others fail with `ToolsNotApplied`.
 */
export const mergeForReopen = (
  server: ServerConnection,
  method: Method,
  id: string,
  given: ThreadTools,
  before: ThreadTools | undefined,
  opened: ThreadOpened
): Effect.Effect<ThreadTools, AppServerError> =>
  Effect.gen(function*() {
    const { thread } = opened
    const registered = before?.registered ?? (yield* readStoredTools(server, id, opened))
    const tools = new Map([...before?.tools ?? [], ...given.tools])
    if (registered === undefined) {
      yield* Effect.logWarning(
        `Cannot read which tools thread ${thread.id} was started with; the model can call no other tools`
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
