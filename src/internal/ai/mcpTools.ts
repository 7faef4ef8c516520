/** Registers a Toolkit of `effect/ai` with an MCP server. */
import * as McpSchema from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import type * as Prompt from "effect/ai/Prompt"
import type * as AiTool from "effect/ai/Tool"
import type * as AiToolkit from "effect/ai/Toolkit"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Base64 from "effect/encoding/Base64"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import { provideHandlerContext } from "../handlers/handlerContext.ts"
import { timeoutTo } from "../handlers/timeoutTo.ts"
import { ownFields } from "../tools/ownFields.ts"
import { callTool, failed, type Toolkit, type ToolOutput } from "./callTool.ts"

/** Sends a message about the progress of a call to its client. */
export type Report = (message: string) => Effect.Effect<void>

/** The metadata of the current request, such as its progress token. */
const requestMetadata = Effect.gen(function*() {
  const client = yield* Effect.serviceOption(McpSchema.McpServerClient)
  // A protocol without sessions has its metadata in the context.
  const metadata = Option.isSome(client)
    ? client.value.requestMetadata
    : Option.getOrUndefined(yield* Effect.serviceOption(McpSchema.McpRequestContext))?.requestMetadata
  return (metadata ?? {}) as Readonly<Record<string, unknown>>
})

/** Returns a function that reports the progress of the current call, or `undefined` if the client does not want it. */
export const getReport: Effect.Effect<Report | undefined, never, McpServer.McpServer> = Effect.gen(function*() {
  const { notifications } = yield* McpServer.McpServer
  const { progressToken } = yield* requestMetadata
  if (!Predicate.isString(progressToken) && !Predicate.isNumber(progressToken)) return undefined
  let progress = 0
  return (message) =>
    Effect.suspend(() => notifications["notifications/progress"]({ progressToken, progress: ++progress, message }))
})

/** The id of the call, which Codex sends. */
const getCallId = Effect.map(requestMetadata, ({ callId }) => Predicate.isString(callId) ? callId : undefined)

/** Returns the bytes of a file, or none if it is at a URL. */
const toBytes = ({ data }: Prompt.FilePart): Option.Option<Uint8Array> => {
  if (data instanceof Uint8Array) return Option.some(data)
  const text = data instanceof URL ? data.href : data
  return Result.getSuccess(Base64.decode(text.startsWith("data:") ? text.slice(text.indexOf(",") + 1) : text))
}

/** Converts content for the model. The protocol has no images at a URL, so these are links. */
const toBlock = (part: Prompt.ToolModelOutputPart): McpSchema.ContentBlock => {
  if (part.type === "text") return McpSchema.TextContent.make({ text: part.text })
  const { fileName, mediaType } = part
  const bytes = toBytes(part)
  if (Option.isNone(bytes)) {
    const uri = String(part.data)
    return McpSchema.ResourceLink.make({ uri, name: fileName ?? uri, mimeType: mediaType })
  }
  if (mediaType.startsWith("image/")) return McpSchema.ImageContent.make({ data: bytes.value, mimeType: mediaType })
  if (mediaType.startsWith("audio/")) return McpSchema.AudioContent.make({ data: bytes.value, mimeType: mediaType })
  return McpSchema.TextContent.make({ text: `[${mediaType}${fileName === undefined ? "" : ` ${fileName}`} omitted]` })
}

const toResult = ({ content, success, value }: ToolOutput): McpSchema.CallToolResult =>
  new McpSchema.CallToolResult({
    isError: !success,
    content: content.map(toBlock),
    structuredContent: Option.getOrUndefined(value)
  })

/** The options of a registration. */
interface Options {
  /** The services of the handlers. */
  readonly context: Context.Context<any>
  /** Maximum duration of a call. */
  readonly timeout: Duration.Input | undefined
}

/** Runs one call. The model receives no details of a defect. */
const run = Effect.fnUntraced(function*(toolkit: Toolkit, tool: AiTool.Any, args: unknown, options: Options) {
  const onPreliminary = yield* getReport
  const callId = yield* getCallId
  const call = provideHandlerContext(
    options.context,
    () => callTool(toolkit, tool, { args, callId, onPreliminary })
  )
  const { timeout } = options
  const withTimeout = timeout === undefined ? call : timeoutTo(
    call,
    timeout,
    () => failed(`${tool.name} did not finish within ${Duration.format(Duration.fromInputUnsafe(timeout))}`)
  )
  return yield* withTimeout.pipe(
    Effect.catchCause((cause) =>
      Cause.hasInterrupts(cause)
        ? Effect.failCause(cause)
        : Effect.as(
          Effect.logError(`Tool \`${tool.name}\` failed`, cause),
          failed(`${tool.name} failed unexpectedly`)
        )
    ),
    Effect.map(toResult),
    Effect.withSpan(`Tool.${tool.name}`)
  )
})

/** Adapts the description of a tool to what Codex does with it. */
const describe = (described: McpSchema.Tool, tool: AiTool.Any): McpSchema.Tool => {
  // Codex requests approval for a tool that is destructive, or not read-only and of an open world. Up to 0.166 the first holds for
  // read-only tools, too, and destructive is Effect's default.
  const needsApproval = tool.needsApproval !== undefined && tool.needsApproval !== false
  const readOnlyHint = !needsApproval && described.annotations?.readOnlyHint === true
  const destructiveHint = needsApproval || (!readOnlyHint && described.annotations?.destructiveHint !== false)
  return new McpSchema.Tool({
    ...described,
    description: described.description ?? described.annotations?.title,
    // A tool that maps its success to other content returns no value that fits its schema.
    outputSchema: tool.toModelOutput === undefined ? described.outputSchema : undefined,
    annotations: McpSchema.ToolAnnotations.make({ ...described.annotations, readOnlyHint, destructiveHint })
  })
}

/**
 * Registers the tools of a Toolkit. `McpServer.registerToolkit` describes them; the calls return images, sounds and preliminary results,
 * which it leaves out.
 */
export const registerTools = <Tools extends Record<string, AiTool.Any>>(
  toolkit: AiToolkit.Toolkit<Tools>,
  options: Options
): Effect.Effect<void, never, McpServer.McpServer> =>
  Effect.gen(function*() {
    const server = yield* McpServer.McpServer
    const withHandlers = (yield* toolkit) as unknown as Toolkit
    const registry: typeof server = {
      ...server,
      addTool: (registration) => {
        const tool = withHandlers.tools[registration.tool.name]!
        const prepare = ownFields(registration.tool.inputSchema)
        return server.addTool({
          ...registration,
          tool: describe(registration.tool, tool),
          handle: (args) =>
            Effect.provideService(run(withHandlers, tool, prepare(args ?? {}), options), McpServer.McpServer, server)
        })
      }
    }
    yield* Effect.provideService(McpServer.registerToolkit(toolkit), McpServer.McpServer, registry)
  }).pipe(Effect.provideContext(options.context))
