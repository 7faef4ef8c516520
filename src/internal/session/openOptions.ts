/** Resolves the options of a thread that is started, resumed or forked. */
import * as Effect from "effect/Effect"
import type { ApprovalOptions, SandboxConflictError } from "../../ApprovalMode.ts"
import type { AppServerError } from "../../AppServerError.ts"
import type * as Protocol from "../../Protocol.ts"
import type * as Sandbox from "../../Sandbox.ts"
import type * as Tool from "../../Tool.ts"
import type * as Approvals from "../approvals/model.ts"
import type { ServerConnection } from "../connection/serverConnection.ts"
import type * as Questions from "../questions/model.ts"
import { type HandlerOptions, type Handlers, provideHandlers } from "./handlers/handlers.ts"
import { provideTools, type ThreadTools, type ToolOptions } from "./handlers/threadTools.ts"
import { type OpenMethod, requireOptions, resolveThreadOptions } from "./settings/resolveOptions.ts"
import { requireCwd } from "./settings/serverPaths.ts"

/**
 * The options of every operation that opens a thread: permissions, handlers and tools.
 *
 * @category models
 * @since 0.1.0
 */
export type OpenOptions<A, Q, T> =
  & ApprovalOptions
  & Sandbox.ThreadOptions
  & HandlerOptions<A, Q>
  & ToolOptions<T>

type AnyOpenOptions = OpenOptions<Approvals.Approver<unknown>, Questions.Handlers<unknown>, ReadonlyArray<Tool.Any>>

/** The params of each method that a program may set. */
interface ParamsByMethod {
  readonly "thread/start": Protocol.ThreadStartOptions
  readonly "thread/resume": Protocol.ThreadResumeOptions
  readonly "thread/fork": Protocol.ThreadForkOptions
}

export type Options<M extends OpenMethod> = ParamsByMethod[M] & AnyOpenOptions

/** Resolved options: the fields of the request, and the handlers and tools of the program. */
export interface Resolved<Fields> {
  readonly fields: Fields
  readonly handlers: Handlers
  readonly tools: ThreadTools | undefined
}

/** Adds `auto_review` to the options of a new thread that set no approval option. */
const withDefaultMode = <O extends AnyOpenOptions>(options: O): O =>
  options.approvalMode === undefined && options.approvalPolicy === undefined && options.approvalsReviewer === undefined
    ? { ...options, approvalMode: "auto_review" }
    : options

/** Checks options and splits them into the fields of the request, the handlers and the tools. */
export const resolveOpenOptions = Effect.fnUntraced(function*<M extends OpenMethod>(
  server: ServerConnection,
  method: M,
  options: Options<M>
): Effect.fn.Return<Resolved<ParamsByMethod[M]>, AppServerError | SandboxConflictError> {
  yield* requireOptions(method, options)
  const { approvals, questions, toolConcurrency, tools, ...rest } = options
  const handlers = yield* provideHandlers({ approvals, questions }, method)
  const provided = yield* provideTools(server, method, { toolConcurrency, tools })
  const fields = yield* resolveThreadOptions(method, method === "thread/start" ? withDefaultMode(rest) : rest)
  yield* requireCwd(server, method, fields.cwd)
  return { fields, handlers, tools: provided }
})
