/**
 * The telemetry of the turns that a program starts, and of the turns of their sub-agents. It also finds the span below which a handler runs.
 *
 * Turns that a goal or another client starts have none: this program does not invoke them.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { type AppServerError, make as appServerError, TurnLost } from "../../../AppServerError.ts"
import * as CodexMetrics from "../../../CodexMetrics.ts"
import { agentName, Attribute, CaptureContent, Operation, providerName } from "../../../CodexTelemetry.ts"
import type * as Protocol from "../../../Protocol.ts"
import type { ServerConnection } from "../../connection/serverConnection.ts"
import { isTraced } from "../../telemetry/tracing.ts"
import type { SubAgents } from "../threads/subAgents.ts"
import type { ThreadUsages } from "../threads/threadUsage.ts"
import { TurnTelemetry } from "./turnTelemetry.ts"

/** The turn and the item that a request of the server is about. */
export interface Origin {
  readonly threadId: string
  readonly turnId: string | undefined
  readonly itemId: string | undefined
}

/** The name and the attributes of a span. */
export interface SpanOptions {
  readonly name: string
  readonly attributes: Readonly<Record<string, unknown>>
}

const spanName = `${Operation.InvokeAgent} ${agentName}`

const toAttributes = (
  { metadata }: ServerConnection,
  threadId: string,
  model: string | undefined
): Readonly<Record<string, unknown>> => ({
  [Attribute.OperationName]: Operation.InvokeAgent,
  [Attribute.ProviderName]: providerName,
  [Attribute.AgentName]: agentName,
  [Attribute.ConversationId]: threadId,
  [Attribute.AgentVersion]: metadata.serverVersion,
  ...(model === undefined ? {} : { [Attribute.RequestModel]: model })
})

/** Describes the input of a turn as the conventions do. Images and files are only named by their type. */
const toInputMessages = (input: Protocol.TurnStartParams["input"], redact: (text: string) => string): string =>
  JSON.stringify([{
    role: "user",
    parts: input.map((part) =>
      part.type === "text" ? { type: "text", content: redact(part.text) } : { type: part.type }
    )
  }])

export class SessionTelemetry {
  private readonly server: ServerConnection
  private readonly subAgents: SubAgents
  private readonly usages: ThreadUsages
  /** The running turns, by id. */
  private readonly turns = new Map<string, TurnTelemetry>()
  /** The turns whose `turn/start` has no response yet. */
  private readonly starting = new Set<TurnTelemetry>()
  /** The functions that end the turns of sub-agents. */
  private readonly agentTurns = new Set<(error: AppServerError) => void>()

  constructor(server: ServerConnection, subAgents: SubAgents, usages: ThreadUsages) {
    this.server = server
    this.subAgents = subAgents
    this.usages = usages
  }

  /** Follows the turns of sub-agents, until the scope closes. */
  readonly listen: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.all([
      this.server.addNotificationHandler("turn/started", ({ threadId, turn: { id, rootTurnId } }) => {
        if (Predicate.isString(rootTurnId) && rootTurnId !== id) this.startAgentTurn(threadId, id, rootTurnId)
      }),
      this.server.addRestartHandler(() =>
        Effect.sync(() => {
          // Their events are lost with the connection, also if a shared server continues them.
          const description = "the connection was lost"
          const error = appServerError(
            new TurnLost({ threadId: "", turnId: "", resumable: false, description, lastError: undefined })
          )
          for (const end of this.agentTurns) end(error)
        })
      )
    ], { discard: true })
  )

  /** Starts the telemetry of a turn, in the fiber that starts the turn. */
  readonly start = Effect.fnUntraced(function*(
    this: SessionTelemetry,
    { input, model, outputSchema, threadId }: Protocol.TurnStartParams,
    threadModel: string | undefined
  ): Effect.fn.Return<TurnTelemetry> {
    const context = yield* Effect.context<never>()
    const capture = yield* CaptureContent
    const { redact } = this.server
    const used = model ?? threadModel
    const attributes = () => ({
      ...toAttributes(this.server, threadId, used),
      ...(outputSchema == null ? {} : { [Attribute.OutputType]: "json" }),
      ...(capture ? { [Attribute.InputMessages]: toInputMessages(input, redact) } : {})
    })
    const span = (yield* Effect.withFiberSucceed(isTraced))
      ? yield* Effect.makeSpan(spanName, { kind: "client", attributes: attributes() })
      : undefined
    const turn = new TurnTelemetry({ threadId, context, span, model: used, capture, redact })
    this.starting.add(turn)
    return turn
  })

  /** Notes the id of a turn that was started, or that this program joined. */
  setTurnId(turn: TurnTelemetry, turnId: string): void {
    this.starting.delete(turn)
    turn.setTurnId(turnId)
    const running = this.turns.get(turnId)
    if (running === undefined) this.turns.set(turnId, turn)
    else if (running.span !== undefined) turn.span?.addLinks([{ span: running.span, attributes: {} }])
  }

  /** Removes a turn that has ended. */
  remove(turn: TurnTelemetry): void {
    this.starting.delete(turn)
    if (turn.turnId !== undefined && this.turns.get(turn.turnId) === turn) this.turns.delete(turn.turnId)
  }

  /** Finds the turn of a request. A request may arrive before the response to `turn/start` names its turn. */
  find({ threadId, turnId }: Omit<Origin, "itemId">): TurnTelemetry | undefined {
    const named = turnId === undefined ? undefined : this.turns.get(turnId)
    if (named !== undefined) return named
    for (const turn of this.starting) if (turn.threadId === threadId) return turn
    if (turnId !== undefined) return undefined
    for (const turn of this.turns.values()) if (turn.threadId === threadId) return turn
    return undefined
  }

  /** Runs a handler in a span below the item or the turn that it works for. */
  withSpan<A, E, R>(
    origin: Origin,
    { attributes, name }: SpanOptions,
    handler: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      const turn = this.find(origin)
      const parent = turn?.spanOf(origin.itemId)
      const ids = {
        [Attribute.ConversationId]: origin.threadId,
        ...(origin.turnId === undefined ? {} : { [Attribute.TurnId]: origin.turnId }),
        ...(origin.itemId === undefined ? {} : { [Attribute.ToolCallId]: origin.itemId })
      }
      return this.trace(
        turn,
        Effect.withSpan(handler, name, {
          attributes: { ...ids, ...attributes },
          captureStackTrace: false,
          ...(parent === undefined ? {} : { parent })
        })
      )
    }) as Effect.Effect<A, E, R>
  }

  /** Runs a tool of the program in the span of its item, or else in a span of its own. */
  withToolSpan<A, E, R>(
    origin: Origin & { readonly itemId: string },
    tool: string,
    run: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> {
    return Effect.suspend(() => {
      const turn = this.find(origin)
      const span = turn?.itemSpan(origin.itemId)
      if (span !== undefined) return this.trace(turn, Effect.withParentSpan(run, span, { captureStackTrace: false }))
      return this.withSpan(origin, {
        name: `${Operation.ExecuteTool} ${tool}`,
        attributes: {
          [Attribute.OperationName]: Operation.ExecuteTool,
          [Attribute.ToolName]: tool,
          [Attribute.ToolType]: "function",
          [Attribute.AgentName]: agentName
        }
      }, run)
    }) as Effect.Effect<A, E, R>
  }

  /** Starts to measure an approval. The effect of a decision adds it to the current span and to the metrics. */
  startApproval(
    origin: Omit<Origin, "itemId">,
    kind: string
  ): Effect.Effect<(decision: string) => Effect.Effect<void>> {
    return Effect.map(Clock.currentTimeNanos, (startedAt) => (decision) =>
      Effect.gen({ self: this }, function*() {
        yield* Effect.annotateCurrentSpan(Attribute.ApprovalDecision, decision)
        const context = this.find(origin)?.context ?? (yield* Effect.context<never>())
        const wait = Number((yield* Clock.currentTimeNanos) - startedAt) / 1e9
        Metric.withAttributes(CodexMetrics.approvalWait, {
          [Attribute.RequestKind]: kind,
          [Attribute.ApprovalDecision]: decision
        }).updateUnsafe(wait, context)
      }))
  }

  /** Uses the tracer of a turn, which its caller may have and the connection may not. */
  private trace<A, E, R>(turn: TurnTelemetry | undefined, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return turn?.span === undefined ? effect : Effect.withTracer(effect, turn.tracer)
  }

  private startAgentTurn(threadId: string, turnId: string, rootTurnId: string): void {
    const root = this.turns.get(rootTurnId)
    // A review starts a turn of its own thread with another id.
    if (root === undefined || root.threadId === threadId || this.turns.has(turnId)) return
    const model = this.subAgents.getModel(threadId)
    const turn = this.parentOf(threadId, root).startAgent(spanName, {
      threadId,
      model,
      attributes: toAttributes(this.server, threadId, model)
    })
    this.setTurnId(turn, turnId)
    // A closed connection calls the listener at once.
    let stop: (() => void) | undefined
    const end = (exit: Result.Result<Protocol.Turn, AppServerError>) => {
      stop?.()
      this.agentTurns.delete(lose)
      turn.end(exit, { usage: this.usages.get(threadId, turnId), coalesced: 0, isJoined: false })
      this.remove(turn)
    }
    const lose = (error: AppServerError) => end(Result.fail(error))
    this.agentTurns.add(lose)
    stop = this.server.addThreadListener(threadId, {
      onNotification: (event, id) => {
        if (id !== turnId) return
        turn.onEvent(event as Protocol.TurnNotification)
        if (event.method === "turn/completed") end(Result.succeed(event.params.turn))
      },
      onDelta: () => {},
      onClose: lose
    })
  }

  /** Finds the turn that gave work to a sub-agent. A sub-agent may have sub-agents. */
  private parentOf(threadId: string, root: TurnTelemetry): TurnTelemetry {
    const parentId = this.subAgents.getParent(threadId)
    if (parentId === undefined || parentId === root.threadId) return root
    for (const turn of this.turns.values()) if (turn.threadId === parentId) return turn
    return root
  }
}
