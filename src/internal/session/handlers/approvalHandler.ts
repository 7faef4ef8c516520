/** Asks the program about what the server wants approved, and tells the record. */
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Approvals from "../../../Approvals.ts"
import { type AppServer, NotHandled } from "../../../AppServer.ts"
import type * as Protocol from "../../../Protocol.ts"
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
import { inProgressItems } from "./inProgressItems.ts"

const names = {
  Command: "a command",
  FileChange: "a file change",
  Permissions: "more rights",
  McpToolCall: "a call of an MCP tool"
} as const

/** The request as a log names it: ids, and nothing of what is in it. */
const nameOf = (request: Approvals.Request): string => {
  const item = "itemId" in request ? `, item ${request.itemId}` : ""
  const turn = request.turnId === undefined ? "" : `, turn ${request.turnId}`
  return `${names[request._tag]} (thread ${request.threadId}${turn}${item})`
}

/** Why a request is declined that no handler has decided. */
const undecided = (asked: ReadonlyArray<string>): string =>
  asked.length === 0
    ? "there are no approvals to ask; give approvals to the thread or the turn, or provide Approvals.layer"
    : `the approvals of the ${
      asked.join(" and the ")
    } left it open; return a decision from one of them, or put a policy that ` +
      "decides last in ApprovalPolicy.firstOf"

class InvalidDecision extends Error {
  constructor(request: Approvals.Request) {
    super(`the handler gave a decision that is none about ${names[request._tag]}`)
    this.name = "InvalidDecision"
  }
}

/** Records the decision about a request. */
type Decided = (
  decision: Approvals.Decision,
  by: Extract<Approvals.AuditEntry, { _tag: "Decided" }>["by"],
  cause?: Cause.Cause<unknown>
) => Effect.Effect<void>

/** Answers the server's requests for approval, and gives the record of them. */
export const approvalHandler = (
  server: AppServer["Service"],
  registry: HandlerRegistry
): Effect.Effect<Stream.Stream<Approvals.AuditEntry>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    const entries = yield* Effect.acquireRelease(PubSub.unbounded<Approvals.AuditEntry>(), PubSub.shutdown)
    const publish = (entry: (at: DateTime.Utc) => Approvals.AuditEntry) =>
      Effect.flatMap(DateTime.now, (at) => Effect.asVoid(PubSub.publish(entries, entry(at))))

    const interruptTurn = ({ threadId, turnId }: Approvals.Request): Effect.Effect<void> =>
      turnId === undefined ? Effect.void : server.request("turn/interrupt", { threadId, turnId }).pipe(
        Effect.catch((error) => Effect.logWarning(`Cannot interrupt turn ${turnId}: ${error.message}`)),
        Effect.forkIn(scope),
        Effect.asVoid
      )

    const askHandlers = Effect.fnUntraced(function*<
      M extends keyof Protocol.ServerRequests,
      Request extends Approvals.Request
    >({ respond, request }: ApprovalRequest<M, Request>, decided: Decided) {
      const asked: Array<string> = []
      for (const { by, handlers } of yield* registry.resolve(request.threadId, request.turnId)) {
        if (handlers.approvals === undefined) continue
        asked.push(by)
        const opinion = yield* Effect.exit(Effect.suspend(() => handlers.approvals!(request)))
        if (Exit.isSuccess(opinion) && Option.isNone(opinion.value)) continue
        const decision = Exit.isSuccess(opinion) ? Option.getOrUndefined(opinion.value) : undefined
        const answered = decision === undefined ? undefined : respond(decision)
        if (decision === undefined || answered === undefined) {
          const cause = Exit.isFailure(opinion) ? opinion.cause : Cause.die(new InvalidDecision(request))
          yield* Effect.logError(`Declined ${nameOf(request)}, because the handler of the ${by} failed`, cause)
          yield* decided("decline", "failure", cause)
          return respond("decline")!
        }
        yield* decided(decision, by)
        // These know no answer that also ends the turn.
        if (decision === "cancel" && (request._tag === "Permissions" || request._tag === "McpToolCall")) {
          yield* interruptTurn(request)
        }
        return answered
      }
      yield* decided("decline", "nobody")
      // Whoever fills in forms is not to be asked this as if it were one.
      if (request._tag === "McpToolCall") {
        yield* Effect.logWarning(`Declined ${nameOf(request)}: ${undecided(asked)}`)
        return respond("decline")!
      }
      return yield* new NotHandled({ why: undecided(asked) })
    })

    /** Decides about a request, and records one outcome of it, however the decision ends. */
    const decide = <M extends keyof Protocol.ServerRequests, Request extends Approvals.Request>(
      ask: ApprovalRequest<M, Request>
    ): Effect.Effect<Protocol.ServerRequests[M]["result"], NotHandled> =>
      Effect.suspend(() => {
        const { request } = ask
        let isRecorded = false
        const record = (entry: (at: DateTime.Utc) => Approvals.AuditEntry) =>
          Effect.suspend(() => {
            if (isRecorded) return Effect.void
            isRecorded = true
            return publish(entry)
          })
        const decided: Decided = (decision, by, cause) =>
          record((at) => ({ _tag: "Decided", at, request, decision, by, cause }))
        return publish((at) => ({ _tag: "Requested", at, request })).pipe(
          Effect.andThen(askHandlers(ask, decided)),
          Effect.onExit((exit) => {
            if (Exit.isSuccess(exit)) return Effect.void
            return Exit.hasInterrupts(exit)
              ? record((at) => ({ _tag: "Withdrawn", at, request }))
              : decided("decline", "failure", exit.cause)
          })
        )
      })

    const { callOf, changesOf } = yield* inProgressItems(server)
    yield* server.handle("item/commandExecution/requestApproval", (params) => decide(decodeCommandApproval(params)))
    yield* server.handle("item/fileChange/requestApproval", (params) =>
      decide(decodeFileChangeApproval(params, changesOf(params.threadId, params.itemId))))
    yield* server.handle("item/permissions/requestApproval", (params) =>
      decide(decodePermissionsApproval(params)))
    yield* server.handle("execCommandApproval", (params) => decide(decodeLegacyCommandApproval(params)))
    yield* server.handle("applyPatchApproval", (params) => decide(decodeLegacyFileChangeApproval(params)))
    yield* server.handle("mcpServer/elicitation/request", (params) =>
      Effect.gen(function*() {
        const asked = decodeMcpToolCallApproval(params)
        if (Option.isNone(asked)) return yield* new NotHandled({ why: "it is no approval" })
        const { respond, request } = asked.value
        const call = yield* callOf(request)
        if (Option.isSome(call)) {
          const named: typeof asked.value = { respond, request: { ...request, tool: call.value.tool } }
          return yield* decide(named)
        }
        // What a form says of itself may be the MCP server's own words, and one who fills in forms is not to approve a call.
        yield* Effect.logWarning(`Declined ${nameOf(request)}: the turn makes no such call`)
        return respond("decline")!
      }))

    return Stream.unwrap(Effect.map(PubSub.subscribe(entries), Stream.fromSubscription))
  })
