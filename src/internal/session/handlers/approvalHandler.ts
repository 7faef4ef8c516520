/** Decides about the approval requests of the server, and records the decisions. */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Attribute, Operation } from "../../../CodexTelemetry.ts"
import type * as Protocol from "../../../Protocol.ts"
import type * as Approvals from "../../approvals/model.ts"
import { NotHandled } from "../../connection/notHandled.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import type { SessionTelemetry } from "../telemetry/sessionTelemetry.ts"
import {
  type ApprovalRequest,
  decodeCommandApproval,
  decodeFileChangeApproval,
  decodeLegacyCommandApproval,
  decodeLegacyFileChangeApproval,
  decodeMcpToolCallApproval,
  decodePermissionsApproval
} from "./approvalRequests.ts"
import type { HandlerRegistry } from "./handlerRegistry.ts"
import { InProgressItems } from "./inProgressItems.ts"

const names = {
  Command: "a command",
  FileChange: "a file change",
  Permissions: "more permissions",
  McpToolCall: "a call of an MCP tool"
} as const

/** Names a request in the log by its ids, without its contents. */
const describeRequest = (request: Approvals.Request): string => {
  const item = "itemId" in request ? `, item \`${request.itemId}\`` : ""
  const turn = request.turnId === undefined ? "" : `, turn \`${request.turnId}\``
  return `${names[request._tag]} (thread \`${request.threadId}\`${turn}${item})`
}

/** Returns the reason to decline a request about which no handler has decided. */
const undecidedReason = (sources: ReadonlyArray<string>): string =>
  sources.length === 0
    ? "no handler is registered for approvals. Pass `approvals` to the thread or the turn, or provide `Approvals.layer`."
    : `the approvals of the ${
      sources.join(" and the ")
    } made no decision. Return a decision from one of them, or end ` +
      "`ApprovalPolicy.firstOf` with a policy that always decides."

class InvalidDecision extends Data.TaggedError("InvalidDecision")<{ readonly request: Approvals.Request["_tag"] }> {
  override get message(): string {
    return `The approval handler returned a decision that is not valid for ${names[this.request]}`
  }
}

const kinds = {
  Command: "command",
  FileChange: "file_change",
  Permissions: "permissions",
  McpToolCall: "mcp_tool_call"
} as const

/** Names a decision without its contents. */
const nameDecision = (decision: Approvals.Decision): string => {
  if (Predicate.isString(decision)) return decision
  return "permissions" in decision ? "grant" : Object.keys(decision)[0] ?? "unknown"
}

type DecidedBy = Extract<Approvals.AuditEntry, { _tag: "Decided" }>["by"]

type Method = keyof Protocol.ServerRequests

const elicitation = "mcpServer/elicitation/request"

type ElicitationResponse = Protocol.ServerRequests[typeof elicitation]["result"]

/** Records the decision about one request. */
type RecordDecision = (
  decision: Approvals.Decision,
  by: DecidedBy,
  cause?: Cause.Cause<unknown>
) => Effect.Effect<void>

/** What the handlers of all approval requests share. */
interface ApprovalContext {
  readonly server: ServerConnection
  readonly registry: HandlerRegistry
  readonly scope: Scope.Scope
  readonly entries: PubSub.PubSub<Approvals.AuditEntry>
  readonly telemetry: SessionTelemetry
}

const publish = (
  { entries }: ApprovalContext,
  entry: (at: DateTime.Utc) => Approvals.AuditEntry
): Effect.Effect<void> => Effect.flatMap(DateTime.now, (at) => Effect.asVoid(PubSub.publish(entries, entry(at))))

const interruptTurn = (
  { scope, server }: ApprovalContext,
  { threadId, turnId }: Approvals.Request
): Effect.Effect<void> =>
  turnId === undefined ? Effect.void : server.request("turn/interrupt", { threadId, turnId }).pipe(
    Effect.catch((error) =>
      Effect.logWarning(
        `Cannot interrupt turn \`${turnId}\` of thread \`${threadId}\` after the decision \`cancel\`: ${error.message}`
      )
    ),
    Effect.forkIn(scope),
    Effect.asVoid
  )

/** Runs the handlers of a request until one decides. */
const runHandlers = Effect.fnUntraced(function*<M extends Method, Request extends Approvals.Request>(
  context: ApprovalContext,
  { request, respond }: ApprovalRequest<M, Request>,
  record: RecordDecision
) {
  const policies = new Set<Approvals.Policy>()
  const sources: Array<string> = []
  for (const { by, handlers: { approvals } } of yield* context.registry.resolve(request.threadId, request.turnId)) {
    // A turn and its thread may have the same context.
    if (approvals === undefined || policies.has(approvals)) continue
    policies.add(approvals)
    sources.push(by)
    const exit = yield* Effect.exit(Effect.suspend(() => approvals(request)))
    // In plain JavaScript a policy may return another value than an Option.
    const returned = Exit.isSuccess(exit) && Option.isOption(exit.value) ? exit.value : undefined
    if (returned !== undefined && Option.isNone(returned)) continue
    const decision = returned && Option.getOrUndefined(returned)
    const response = decision === undefined ? undefined : respond(decision)
    if (decision === undefined || response === undefined) {
      const cause = Exit.isFailure(exit) ? exit.cause : Cause.die(new InvalidDecision({ request: request._tag }))
      yield* Effect.logError(`Declined ${describeRequest(request)}: the handler of the ${by} failed`, cause)
      yield* record("decline", "failure", cause)
      return respond("decline")!
    }
    yield* record(decision, by)
    // The responses to these requests cannot express `cancel`, which ends the turn.
    if (decision === "cancel" && (request._tag === "Permissions" || request._tag === "McpToolCall")) {
      yield* interruptTurn(context, request)
    }
    return response
  }
  yield* record("decline", "nobody")
  // A handler of forms must not decide about a call.
  if (request._tag === "McpToolCall") {
    yield* Effect.logWarning(`Declined ${describeRequest(request)}: ${undecidedReason(sources)}`)
    return respond("decline")!
  }
  return yield* new NotHandled({ why: undecidedReason(sources) })
})

/** Decides about a request, and records exactly one outcome, also if the decision fails or is interrupted. */
const decide = <M extends Method, Request extends Approvals.Request>(
  context: ApprovalContext,
  approval: ApprovalRequest<M, Request>,
  itemId = "itemId" in approval.request ? approval.request.itemId : undefined
): Effect.Effect<Protocol.ServerRequests[M]["result"], NotHandled> =>
  Effect.gen(function*() {
    const { request } = approval
    const { threadId, turnId } = request
    const kind = kinds[request._tag]
    const recordWait = yield* context.telemetry.startApproval({ threadId, turnId }, kind)
    let isRecorded = false
    const recordOnce = (decision: string, entry: (at: DateTime.Utc) => Approvals.AuditEntry) =>
      Effect.suspend(() => {
        if (isRecorded) return Effect.void
        isRecorded = true
        return Effect.andThen(recordWait(decision), publish(context, entry))
      })
    const record: RecordDecision = (decision, by, cause) =>
      Effect.andThen(
        Effect.annotateCurrentSpan(Attribute.ApprovalBy, by),
        recordOnce(nameDecision(decision), (at) => ({ _tag: "Decided", at, request, decision, by, cause }))
      )
    const decided = publish(context, (at) => ({ _tag: "Requested", at, request })).pipe(
      Effect.andThen(runHandlers(context, approval, record)),
      Effect.onExit((exit) => {
        if (Exit.isSuccess(exit)) return Effect.void
        return Exit.hasInterrupts(exit)
          ? recordOnce("withdrawn", (at) => ({ _tag: "Withdrawn", at, request }))
          : record("decline", "failure", exit.cause)
      })
    )
    const span = { name: `${Operation.RequestApproval} ${kind}`, attributes: { [Attribute.RequestKind]: kind } }
    return yield* context.telemetry.withSpan({ threadId, turnId, itemId }, span, decided)
  })

/** Handles the approval requests of the server, and returns the record of them. */
export const handleApprovals = Effect.fnUntraced(function*(
  server: ServerConnection,
  registry: HandlerRegistry,
  telemetry: SessionTelemetry
): Effect.fn.Return<Stream.Stream<Approvals.AuditEntry>, never, Scope.Scope> {
  const entries = yield* Effect.acquireRelease(PubSub.unbounded<Approvals.AuditEntry>(), PubSub.shutdown)
  const context: ApprovalContext = { server, registry, scope: yield* Effect.scope, entries, telemetry }
  const items = yield* InProgressItems.make(server)
  yield* server.handle(
    "item/commandExecution/requestApproval",
    (params) => decide(context, decodeCommandApproval(params))
  )
  yield* server.handle(
    "item/fileChange/requestApproval",
    (params) => decide(context, decodeFileChangeApproval(params, items.getFileChanges(params.threadId, params.itemId)))
  )
  yield* server.handle(
    "item/permissions/requestApproval",
    (params) => decide(context, decodePermissionsApproval(params))
  )
  yield* server.handle("execCommandApproval", (params) => decide(context, decodeLegacyCommandApproval(params)))
  yield* server.handle("applyPatchApproval", (params) => decide(context, decodeLegacyFileChangeApproval(params)))
  yield* server.handle(
    elicitation,
    Effect.fnUntraced(function*(params): Effect.fn.Return<ElicitationResponse, NotHandled> {
      const approval = decodeMcpToolCallApproval(params)
      if (Option.isNone(approval)) return yield* new NotHandled({ why: "the elicitation is not an approval" })
      const { request, respond } = approval.value
      const call = yield* items.awaitMcpToolCall(request)
      if (Option.isSome(call)) {
        return yield* decide<typeof elicitation, Approvals.McpToolCallRequest>(context, {
          respond,
          request: { ...request, tool: call.value.tool }
        }, call.value.id)
      }
      // The form may come from the MCP server itself, and a handler of forms must not decide about a call.
      yield* Effect.logWarning(`Declined ${describeRequest(request)}: the turn makes no such call.`)
      return respond("decline")!
    })
  )
  return Stream.unwrap(Effect.map(PubSub.subscribe(entries), Stream.fromSubscription))
})
