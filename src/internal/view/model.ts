/** The types and schemas of the view of a turn. */
import * as Schema from "effect/Schema"
import * as Protocol from "../../Protocol.ts"
import * as Usage from "../../Usage.ts"

/**
 * The state of an item.
 *
 * **Details**
 *
 * - `"inProgress"`: the server has started the item.
 * - `"completed"`: the item is complete and does not change any more.
 * - `"retracted"`: a message, a plan or a reasoning that will probably not complete; do not show its text. The server interrupted it to
 *   retry the model request, started another message instead, or ended the turn.
 * - `"unfinished"`: another item that had not completed when the turn ended. A command that outlives its turn completes later.
 *
 * @category models
 * @since 0.1.0
 */
export type ItemState = "inProgress" | "completed" | "retracted" | "unfinished"

/**
 * The schema of {@link ItemState}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ItemState: Schema.Codec<ItemState> = Schema.Literals([
  "inProgress",
  "completed",
  "retracted",
  "unfinished"
])

/**
 * An item of a turn: the item of the protocol as far as it has arrived, and its state.
 *
 * @category models
 * @since 0.1.0
 */
export interface ItemView {
  readonly id: string
  readonly state: ItemState
  /** Unix time in milliseconds, or `null` if the server did not report it. */
  readonly startedAtMs: number | null
  /** Unix time in milliseconds, or `null` if the item has not completed. */
  readonly completedAtMs: number | null
  /**
   * The item, with the texts and diffs that have arrived. Switch on its `type`.
   *
   * **Details**
   *
   * - `aggregatedOutput` of a command is the end of its output; see `omittedOutput`.
   * - An item whose start did not arrive has empty fields until it completes.
   * - A type that this version does not know is the raw JSON. A known type of the wrong shape is a `MalformedVariant`, whose `raw` is the
   *   JSON.
   */
  readonly item: Protocol.ThreadItem
  /** The last progress message of an MCP tool call, while it is in progress. */
  readonly progress: string | null
  /** The number of characters that were removed from the beginning of the output of a command. */
  readonly omittedOutput: number
}

/**
 * The schema of {@link ItemView}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const ItemView: Schema.Codec<ItemView> = Schema.Struct({
  id: Schema.String,
  state: ItemState,
  startedAtMs: Schema.NullOr(Schema.Number),
  completedAtMs: Schema.NullOr(Schema.Number),
  item: Protocol.ThreadItem,
  progress: Schema.NullOr(Schema.String),
  omittedOutput: Schema.Number
})

/**
 * The plan of a turn, which the model updates while it works.
 *
 * @category models
 * @since 0.1.0
 */
export interface Plan {
  readonly explanation: string | null
  readonly steps: ReadonlyArray<Protocol.TurnPlanStep>
}

/**
 * The schema of {@link Plan}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const Plan: Schema.Codec<Plan> = Schema.Struct({
  explanation: Schema.NullOr(Schema.String),
  steps: Schema.Array(Protocol.TurnPlanStep)
})

/**
 * The usage of a turn, as its events report it.
 *
 * **Gotchas**
 *
 * The server reports totals of the thread. If the totals before the turn are unknown, the first report counts as one model request.
 *
 * @category models
 * @since 0.1.0
 */
export interface UsageView {
  /** The tokens of this turn: the increase of the totals since it started. */
  readonly turn: Usage.Tokens
  /** The totals of the thread. */
  readonly thread: Usage.Tokens
  /** The last model request. */
  readonly lastRequest: Usage.Tokens
  /** The size of the model's context window in tokens, or `null` if the server does not know it. */
  readonly contextWindow: number | null
  /** The number of reports of the server, with the one before the turn if it is known. */
  readonly reports: number
  /** When the server emitted the last report, as Unix time in milliseconds. */
  readonly reportedAtMs: number | null
}

/**
 * The schema of {@link UsageView}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const UsageView: Schema.Codec<UsageView> = Schema.Struct({
  turn: Usage.Tokens,
  thread: Usage.Tokens,
  lastRequest: Usage.Tokens,
  contextWindow: Schema.NullOr(Schema.Number),
  reports: Schema.Number,
  reportedAtMs: Schema.NullOr(Schema.Number)
})

/** The methods of the requests that a person or a handler responds to. */
const requestMethods = [
  "item/commandExecution/requestApproval",
  "item/fileChange/requestApproval",
  "item/permissions/requestApproval",
  "item/tool/requestUserInput",
  "mcpServer/elicitation/request"
] as const

/**
 * The method of an approval or a question.
 *
 * @category models
 * @since 0.1.0
 */
export type RequestMethod = typeof requestMethods[number]

/**
 * An approval or a question of the server: its request, as it arrives on the connection.
 *
 * @category models
 * @since 0.1.0
 */
export type PendingRequest = {
  readonly [M in RequestMethod]: {
    readonly id: Protocol.RequestId
    readonly method: M
    readonly params: Protocol.ServerRequests[M]["params"]
  }
}[RequestMethod]

/**
 * The schema of {@link PendingRequest}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const PendingRequest: Schema.Codec<PendingRequest> = Schema.Union(
  requestMethods.map((method) =>
    Schema.Struct({
      id: Protocol.RequestId,
      method: Schema.Literal(method),
      params: Protocol.serverRequests[method].params as Schema.Codec<unknown>
    })
  )
) as Schema.Codec<unknown> as Schema.Codec<PendingRequest>

/**
 * The state of a turn: all that a page needs to show it.
 *
 * **Details**
 *
 * A view is plain JSON. `JSON.stringify` encodes it, and the schema checks it after `JSON.parse`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TurnView {
  /** The thread of the turn. Empty if `fromTurn` did not receive it, until the first event. */
  readonly threadId: string
  readonly turnId: string
  /** The first turn of the work that led to this turn, or `null` if it is unknown. A turn of a sub-agent has another root. */
  readonly rootTurnId: string | null
  /** `"inProgress"` until the turn ends. */
  readonly status: Protocol.TurnStatus
  /** The items, in the order of their starts. */
  readonly items: ReadonlyArray<ItemView>
  readonly plan: Plan | null
  /** The merged diff of all file changes of the turn. */
  readonly diff: string | null
  readonly usage: UsageView | null
  /** Why the server retries a model request right now. `null` as soon as the turn continues. */
  readonly retry: Protocol.TurnError | null
  /** The approvals and questions without a response. */
  readonly requests: ReadonlyArray<PendingRequest>
  /** The ids of the requests that have a response, or do not need one any more. A repeated request with such an id is ignored. */
  readonly settledRequests: ReadonlyArray<Protocol.RequestId>
  /** The error that ended the turn, or the last one that the server reported without a retry. */
  readonly error: Protocol.TurnError | null
  /** Start of the turn, as Unix time in seconds. */
  readonly startedAt: number | null
  /** End of the turn, as Unix time in seconds. */
  readonly completedAt: number | null
  /** Duration of the turn in milliseconds. */
  readonly durationMs: number | null
  /** When the server emitted the last event that changed the view, as Unix time in milliseconds. */
  readonly updatedAtMs: number | null
}

/**
 * The schema of {@link TurnView}.
 *
 * @category schemas
 * @since 0.1.0
 */
export const TurnView: Schema.Codec<TurnView> = Schema.Struct({
  threadId: Schema.String,
  turnId: Schema.String,
  rootTurnId: Schema.NullOr(Schema.String),
  status: Protocol.TurnStatus,
  items: Schema.Array(ItemView),
  plan: Schema.NullOr(Plan),
  diff: Schema.NullOr(Schema.String),
  usage: Schema.NullOr(UsageView),
  retry: Schema.NullOr(Protocol.TurnError),
  requests: Schema.Array(PendingRequest),
  settledRequests: Schema.Array(Protocol.RequestId),
  error: Schema.NullOr(Protocol.TurnError),
  startedAt: Schema.NullOr(Schema.Number),
  completedAt: Schema.NullOr(Schema.Number),
  durationMs: Schema.NullOr(Schema.Number),
  updatedAtMs: Schema.NullOr(Schema.Number)
})

/**
 * An event that changes a view: a notification about a turn, an approval or a question, or the notification that one of these has its
 * response.
 *
 * @category models
 * @since 0.1.0
 */
export type Event = Protocol.TurnNotification | PendingRequest | Protocol.Notification<"serverRequest/resolved">

/**
 * Whether the turn has ended: completed, interrupted, failed, or with a status of a newer server.
 *
 * @category guards
 * @since 0.1.0
 */
export const isEnded = (view: TurnView): boolean => view.status !== "inProgress"
