/** Registers the tools of a thread with the server, and checks them when the thread is resumed or forked. */
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
import { provideHandlerContext } from "../../handlers/handlerContext.ts"
import { describe, duration, func, type Kinds, optionIssue, positive, string } from "../../options.ts"
import type { OpenMethod } from "../settings/resolveOptions.ts"
import type { ThreadOpened } from "../threads/responses.ts"
import { currentContext } from "./handlers.ts"
import { readStoredTools, type RegisteredTools } from "./storedTools.ts"

/** The options with the tools of a thread. This is an alias for the same reason as `HandlerOptions`. */
export type ToolOptions<T> = {
  /**
   * Tools of the program that the model may call; see `Tool`.
   *
   * @default none
   */
  readonly tools?: T | undefined
  /**
   * Maximum number of concurrent calls; more wait. Requires `tools`.
   *
   * @default 8
   */
  readonly toolConcurrency?: number | undefined
}

/** Tools that need no services. */
export interface ThreadTools {
  /** The tools of this program, by name. */
  readonly tools: ReadonlyMap<string, Tool.Tool>
  readonly semaphore: Semaphore.Semaphore
  readonly concurrency: number
  /** The tools that the thread was started with, if they are known. */
  readonly registered: RegisteredTools | undefined
}

/** The names of built-in tools of Codex, which would run in place of a tool with the same name. */
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

const optionKinds: Kinds<ToolOptions<unknown>> = {
  tools: { expected: "an array of tools", is: Array.isArray },
  toolConcurrency: positive
}

/** Checks a tool, because plain JavaScript may pass any value. */
const toolIssue = (tool: unknown): string | undefined => {
  if (!Predicate.isObject(tool)) return `\`tools\` contains ${describe(tool)}; expected what \`Tool.make\` returns`
  const issue = optionIssue(toolKinds, tool) ??
    Object.keys(toolKinds).filter((name) => name !== "timeout" && tool[name] === undefined).map((name) =>
      `\`${name}\` is missing`
    )[0]
  return issue === undefined
    ? undefined
    : `tool ${JSON.stringify(tool["name"])} is not valid: ${issue}. Make it with \`Tool.make\``
}

const isName = (name: string): boolean => /^[a-zA-Z0-9_-]+$/.test(name)

/** Resolves the root `$ref` of a schema, which a class or a struct with an identifier has. */
const dereference = (schema: Tool.Tool["inputSchema"]): Tool.Tool["inputSchema"] => {
  const { $ref, ...rest } = schema
  const name = Predicate.isString($ref) && $ref.startsWith("#/$defs/") ? $ref.slice("#/$defs/".length) : undefined
  if (name === undefined) return schema
  const definition = getOwn(schema["$defs"], name.replaceAll("~1", "/").replaceAll("~0", "~"))
  return Predicate.isObject(definition) ? { ...definition, ...rest } : schema
}

/** Converts a schema to one of an object. The schema of a struct without fields allows any value except null. */
const toObjectSchema = (given: Tool.Tool["inputSchema"]): Tool.Tool["inputSchema"] => {
  const schema = dereference(given)
  return Equal.equals(schema["not"], { type: "null" }) && schema["type"] === undefined
    ? { type: "object", properties: {}, additionalProperties: false }
    : schema
}

/** Checks the tools of options, and provides the current context to them. */
export const provideTools = Effect.fnUntraced(function*(
  server: ServerConnection,
  method: OpenMethod,
  { toolConcurrency, tools = [] }: ToolOptions<ReadonlyArray<Tool.Any>>
): Effect.fn.Return<ThreadTools | undefined, AppServerError> {
  const invalid = (description: string) => appServerError(new InvalidRequest({ method, description }))
  const issue = optionIssue(optionKinds, { tools, toolConcurrency })
  if (issue !== undefined) return yield* invalid(issue)
  if (tools.length === 0) {
    if (toolConcurrency !== undefined) {
      return yield* invalid("`toolConcurrency` requires `tools`. Pass tools, or omit the option")
    }
    return undefined
  }
  if (!server.experimentalApi) {
    return yield* invalid("`tools` require the experimental API. Connect without `experimentalApi: false`")
  }
  const context = yield* currentContext
  const named = new Map<string, Tool.Tool>()
  for (const tool of tools) {
    const wrong = toolIssue(tool)
    if (wrong !== undefined) return yield* invalid(wrong)
    if (!isName(tool.name)) {
      return yield* invalid(
        `the tool name ${JSON.stringify(tool.name)} is not valid. Use letters, digits, \`_\` and \`-\` only`
      )
    }
    if (builtIn.has(tool.name)) return yield* invalid(`Codex has a built-in tool \`${tool.name}\`. Rename your tool`)
    if (named.has(tool.name)) return yield* invalid(`two tools have the name \`${tool.name}\`. Rename one of them`)
    const inputSchema = toObjectSchema(tool.inputSchema)
    if (inputSchema["type"] !== "object") {
      return yield* invalid(`the parameters of tool \`${tool.name}\` are not an object. Use a \`Schema.Struct\``)
    }
    named.set(tool.name, {
      ...tool,
      inputSchema,
      run: (args, call) => provideHandlerContext(context, () => tool.run(args, call))
    })
  }
  const concurrency = toolConcurrency ?? 8
  return { tools: named, semaphore: Semaphore.makeUnsafe(concurrency), concurrency, registered: undefined }
})

/** Copies the tools for another thread. Each thread has its own semaphore, because calls of one may wait for calls of the other. */
export const copyForThread = (tools: ThreadTools): ThreadTools => ({
  ...tools,
  semaphore: Semaphore.makeUnsafe(tools.concurrency)
})

/** Converts the tools to the form that `thread/start` registers. */
export const toDynamicToolSpecs = ({ tools }: ThreadTools): ReadonlyArray<Protocol.DynamicToolSpec> =>
  [...tools.values()].map(({ description, inputSchema, name }) => ({
    type: "function",
    name,
    description,
    inputSchema
  }))

const toJson = (schema: Tool.Tool["inputSchema"]): unknown => JSON.parse(JSON.stringify(schema))

/** Adds the registered tools of a new thread: its tools, and the `dynamicTools` of the protocol. */
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
 * A thread keeps the tools that it was started with, and the protocol cannot add others. Each tool must therefore be one of those, with
 * the same JSON Schema of its arguments; others fail with `ToolsNotApplied`.
 */
export const mergeForReopen = Effect.fnUntraced(function*(
  server: ServerConnection,
  { before, given, id, method, opened }: {
    readonly method: OpenMethod
    readonly id: string
    readonly given: ThreadTools
    readonly before: ThreadTools | undefined
    readonly opened: ThreadOpened
  }
): Effect.fn.Return<ThreadTools, AppServerError> {
  const { thread } = opened
  const registered = before?.registered ?? (yield* readStoredTools(server, id, opened))
  const tools = new Map([...before?.tools ?? [], ...given.tools])
  if (registered === undefined) {
    yield* Effect.logWarning(
      `Cannot read the tools that thread \`${thread.id}\` was started with, so the tools of this program were not checked. ` +
        "The model can call only tools that the thread was started with"
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
