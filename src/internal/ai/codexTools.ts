/** The tools `codex` and `codex_reply` of an MCP server. */
import * as McpSchema from "effect/ai/McpSchema"
import * as McpServer from "effect/ai/McpServer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ApprovalPolicy from "../../ApprovalPolicy.ts"
import * as Approvals from "../../Approvals.ts"
import type * as Sandbox from "../../Sandbox.ts"
import { resolvePath } from "../approvals/resolvePath.ts"
import { handlerContext } from "../handlers/handlerContext.ts"
import { toInputSchema, toJsonCodec } from "../tools/toolParameters.ts"
import { withoutUndefined } from "../withoutUndefined.ts"
import { getSession, type SessionThread, type ThreadOptions, type Threads } from "./codexThreads.ts"
import { describeStep } from "./describeStep.ts"
import { clientHandlers } from "./elicit.ts"
import { getReport } from "./mcpTools.ts"

type Client = McpSchema.McpServerClient["Service"]

/** What a client may choose. */
export interface Limits {
  /** The sandbox of threads, and the widest that a client may choose. */
  readonly sandbox: Sandbox.Mode
  /** The directory of threads. A client may choose a directory in it. */
  readonly cwd: string
  readonly config: ThreadOptions["config"]
}

/** A request that the limits do not allow. Its message is for the client. */
class Refused extends Schema.TaggedError<Refused>()("Refused", { detail: Schema.String }) {
  override get message(): string {
    return this.detail
  }
}

/** From the narrowest to the widest. */
const sandboxes: ReadonlyArray<Sandbox.Mode> = ["read-only", "workspace-write", "danger-full-access"]

const described = <S extends Schema.Top>(schema: S, description: string) => schema.annotate({ description })

const Prompt = described(Schema.String, "What Codex should do")

/** The names are those of OpenAI's own MCP server of Codex. */
const startParams = ({ cwd, sandbox }: Limits) => {
  const allowed = sandboxes.slice(0, sandboxes.indexOf(sandbox) + 1)
  return Schema.Struct({
    prompt: Prompt,
    cwd: Schema.optionalKey(described(Schema.String, `The working directory: \`${cwd}\` or a directory in it`)),
    model: Schema.optionalKey(described(Schema.String, "The name of the model")),
    sandbox: Schema.optionalKey(described(
      Schema.Literals(sandboxes),
      `The sandbox of commands: ${allowed.map((mode) => `\`${mode}\``).join(" or ")}; \`${sandbox}\` by default`
    )),
    "approval-policy": Schema.optionalKey(described(
      Schema.Literals(["untrusted", "on-request", "never"]),
      "When Codex asks the user: before each command, when it needs more than the sandbox allows (the default), or never"
    )),
    "base-instructions": Schema.optionalKey(described(Schema.String, "Instructions in place of those of Codex")),
    "developer-instructions": Schema.optionalKey(described(Schema.String, "Further instructions"))
  })
}

type StartParams = ReturnType<typeof startParams>["Type"]

const ReplyParams = Schema.Struct({
  threadId: described(Schema.String, "The `threadId` of an earlier result in this session"),
  prompt: Prompt
})

const Output = Schema.Struct({
  threadId: described(Schema.String, "The thread, for `codex_reply`"),
  content: described(Schema.String, "The final response of Codex")
})

/** Resolves the directory that a client chose. A link cannot lead out of the directory of the limits. */
const resolveCwd = Effect.fnUntraced(function*(
  cwd: string | undefined,
  limit: string
): Effect.fn.Return<string, Refused, FileSystem.FileSystem | Path.Path> {
  if (cwd === undefined) return limit
  const path = yield* Path.Path
  const chosen = path.isAbsolute(cwd) ? cwd : path.join(limit, cwd)
  const [real, root] = yield* Effect.all([resolvePath(chosen), resolvePath(limit)])
  if (Option.isSome(real) && Option.isSome(root)) {
    const relative = path.relative(root.value, real.value)
    if (relative !== ".." && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative)) return real.value
  }
  return yield* new Refused({ detail: `The directory \`${cwd}\` is not in \`${limit}\`. Choose a directory in it` })
})

const resolveStart = Effect.fnUntraced(function*(params: StartParams, { config, cwd, sandbox: limit }: Limits) {
  const sandbox = params.sandbox ?? limit
  if (sandboxes.indexOf(sandbox) > sandboxes.indexOf(limit)) {
    return yield* new Refused({
      detail: `The sandbox \`${sandbox}\` is wider than this server allows. Choose \`${limit}\``
    })
  }
  return withoutUndefined({
    sandbox,
    config,
    cwd: yield* resolveCwd(params.cwd, cwd),
    model: params.model,
    approvalPolicy: params["approval-policy"] ?? "on-request",
    approvalsReviewer: "user",
    baseInstructions: params["base-instructions"],
    developerInstructions: params["developer-instructions"]
  }) satisfies ThreadOptions
})

/** The approvals of a turn: those of the context decide first, then the user of the client. */
const withContext = ({ approvals, ...handlers }: ReturnType<typeof clientHandlers>) =>
  Effect.map(Approvals.Approvals, (policy) => ({
    ...handlers,
    approvals: approvals !== undefined && policy !== undefined ? ApprovalPolicy.firstOf(policy, approvals) : approvals
  }))

const result = (content: string, threadId: string | undefined, isError: boolean) =>
  new McpSchema.CallToolResult({
    content: [McpSchema.TextContent.make({ text: content })],
    structuredContent: threadId === undefined ? undefined : { threadId, content },
    isError
  })

/** Runs a turn to its end, and reports its steps to the client. The result of a turn that fails names the thread, too. */
const runTurn = ({ thread, withPermit }: SessionThread, prompt: string, client: Client) =>
  Effect.gen(function*() {
    const report = yield* getReport
    const turn = yield* thread.turn(prompt, yield* withContext(clientHandlers(client)))
    if (report !== undefined) {
      yield* Effect.forkScoped(Stream.runForEach(turn.events, (event) => {
        const step = describeStep(event)
        return step === undefined ? Effect.void : report(step)
      }))
    }
    const { finalResponse, status } = yield* turn.result
    return status === "interrupted"
      ? result("The turn was interrupted", thread.id, true)
      : result(finalResponse ?? "", thread.id, false)
  }).pipe(
    Effect.catch((error) => Effect.succeed(result(error.message, thread.id, true))),
    withPermit
  )

type Services = FileSystem.FileSystem | Path.Path | McpServer.McpServer

interface CodexTool<P> {
  readonly name: string
  readonly title: string
  readonly description: string
  readonly parameters: Schema.Codec<P>
  readonly run: (
    params: P,
    client: Client
  ) => Effect.Effect<McpSchema.CallToolResult, { readonly message: string }, Services>
}

const makeTools = (
  threads: Threads,
  limits: Limits
): readonly [CodexTool<StartParams>, CodexTool<typeof ReplyParams.Type>] => [
  {
    name: "codex",
    title: "Codex",
    description: "Starts a thread of Codex, a coding agent, and runs it on a prompt until it responds",
    parameters: startParams(limits),
    run: Effect.fnUntraced(function*(params, client) {
      const options = yield* resolveStart(params, limits)
      return yield* runTurn(yield* threads.start(yield* getSession(client), options), params.prompt, client)
    }, Effect.scoped)
  },
  {
    name: "codex_reply",
    title: "Codex reply",
    description: "Continues a thread of Codex with another prompt",
    parameters: ReplyParams,
    run: Effect.fnUntraced(function*({ prompt, threadId }, client) {
      const thread = yield* threads.get(yield* getSession(client), threadId)
      if (Option.isSome(thread)) return yield* runTurn(thread.value, prompt, client)
      return yield* new Refused({ detail: `This session has no thread \`${threadId}\`. Start one with \`codex\`` })
    }, Effect.scoped)
  }
]

/** Runs one call. A failure is a result whose text is the error message, without the details of a defect. */
const call = <P>(tool: CodexTool<P>, args: unknown) =>
  Effect.gen(function*() {
    const params = yield* Schema.decodeUnknownEffect(tool.parameters)(args, {
      errors: "all",
      onExcessProperty: "error"
    })
    return yield* tool.run(params, yield* McpSchema.McpServerClient)
  }).pipe(
    Effect.catch((error) => Effect.succeed(result(error.message, undefined, true))),
    Effect.catchDefect((defect) =>
      Effect.as(
        Effect.logError(`Tool \`${tool.name}\` failed`, Cause.die(defect)),
        result(`${tool.name} failed unexpectedly`, undefined, true)
      )
    ),
    Effect.withSpan(`CodexMcpServer.${tool.name}`)
  )

/** Registers the tools. `context` has the services of the calls. */
export const registerCodex = Effect.fnUntraced(
  function*(threads: Threads, limits: Limits): Effect.fn.Return<void, never, Services> {
    const server = yield* McpServer.McpServer
    const context = yield* handlerContext<Services>()
    for (const tool of makeTools(threads, limits) as ReadonlyArray<CodexTool<any>>) {
      yield* server.addTool({
        tool: new McpSchema.Tool({
          name: tool.name,
          title: tool.title,
          description: tool.description,
          inputSchema: toInputSchema(toJsonCodec(tool.parameters)) as McpSchema.ToolJson,
          outputSchema: toInputSchema(toJsonCodec(Output)),
          annotations: McpSchema.ToolAnnotations.make({
            title: tool.title,
            destructiveHint: limits.sandbox !== "read-only"
          })
        }),
        annotations: Context.empty(),
        handle: (args) =>
          Effect.provideContext(call(tool, args ?? {}), context) as Effect.Effect<McpSchema.CallToolResult>
      })
    }
  }
)
