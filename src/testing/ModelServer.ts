/**
 * A scripted model server: it implements OpenAI's Responses API on loopback, so that a test can run the real `codex app-server`.
 *
 * **When to use**
 *
 * To test your program with the real server, without an account, a network or a model. `TestCodex` sets it up.
 *
 * **Details**
 *
 * Replies are values. `enqueue` queues them, and each `POST /v1/responses` takes the next one. `respond` computes them from the
 * request. `requests` has all that Codex sent.
 *
 * **Example** (A whole turn)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Codex } from "effect-codex"
 * import { ModelServer } from "effect-codex/testing"
 *
 * export const listing = Effect.gen(function*() {
 *   const model = yield* ModelServer.ModelServer
 *   yield* model.enqueue(
 *     ModelServer.functionCall("exec_command", { cmd: "ls" }, { callId: "call_ls" }),
 *     ModelServer.reply([
 *       ModelServer.reasoning("Reading the listing"),
 *       ModelServer.deltas(["Two ", "files."], { phase: "final_answer" })
 *     ], { usage: { inputTokens: 120, outputTokens: 8 } })
 *   )
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread()
 *   yield* thread.run("What is here?")
 *   const [, second] = yield* model.requests
 *   return second?.functionCallOutput("call_ls")
 * })
 * ```
 *
 * @since 0.1.0
 */
import * as Array from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as HttpServer from "effect/http/HttpServer"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { assertOptions, boolean, duration, type Kind, object as objectKind, string } from "../internal/options.ts"
import { encodeOutput } from "../internal/testing/encodeOutput.ts"
import type * as Protocol from "../Protocol.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Items
// ---------------------------------------------------------------------------------------------------------------------

/**
 * One event of a response stream. Its `type` names the server-sent event, and the object is its data.
 *
 * @category models
 * @since 0.1.0
 */
export interface Event {
  readonly type: string
  readonly [key: string]: unknown
}

/**
 * One output item of a reply, as its events.
 *
 * **Details**
 *
 * `events` runs once per reply. `nextId("msg")` creates an id that is unique on this server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Item {
  readonly _tag: "Item"
  readonly events: (nextId: (prefix: string) => string) => Stream.Stream<Event>
}

/**
 * Whether a message is commentary, or the final answer that ends the turn.
 *
 * @category models
 * @since 0.1.0
 */
export type Phase = "commentary" | "final_answer"

const added = (item: object): Event => ({ type: "response.output_item.added", item })

const done = (item: object): Event => ({ type: "response.output_item.done", item })

const assistantMessage = (id: string, text: string, phase: Phase | undefined) => ({
  type: "message",
  role: "assistant",
  id,
  content: [{ type: "output_text", text }],
  ...(phase === undefined ? {} : { phase })
})

/** Checks the options of a constructor, and returns what it made. */
const checked = <A>(name: string, kinds: Readonly<Record<string, Kind>>, options: unknown, made: A): A => {
  assertOptions(`ModelServer.${name}`, kinds, options)
  return made
}

/**
 * An assistant message without deltas.
 *
 * @category items
 * @since 0.1.0
 */
export const message = (
  text: string,
  options?: { readonly id?: string | undefined; readonly phase?: Phase | undefined }
): Item =>
  checked("message", { id: string, phase: string }, options, {
    _tag: "Item",
    events: (nextId) => Stream.sync(() => done(assistantMessage(options?.id ?? nextId("msg"), text, options?.phase)))
  })

/**
 * An assistant message in parts, with one `output_text.delta` each.
 *
 * **Details**
 *
 * - `pace` sleeps before each part, on the `Clock` of the fiber that built the layer.
 * - A `Stream` of parts lets a test control the model: feed it from a queue, or end it with `Stream.never` for a message that stays
 *   incomplete.
 * - `unfinished` omits the event that completes the message.
 *
 * @category items
 * @since 0.1.0
 */
export const deltas = (
  parts: ReadonlyArray<string> | Stream.Stream<string>,
  options?: {
    readonly id?: string | undefined
    readonly phase?: Phase | undefined
    readonly pace?: Duration.Input | undefined
    readonly unfinished?: boolean | undefined
  }
): Item =>
  checked("deltas", { id: string, phase: string, pace: duration, unfinished: boolean }, options, {
    _tag: "Item",
    events: (nextId) =>
      Stream.suspend(() => {
        const id = options?.id ?? nextId("msg")
        const pace = options?.pace
        const deltas = Stream.isStream(parts) ? parts : Stream.fromIterable(parts)
        let text = ""
        return Stream.make(added(assistantMessage(id, "", options?.phase))).pipe(
          Stream.concat(
            (pace === undefined ? deltas : Stream.tap(deltas, () => Effect.sleep(pace))).pipe(
              Stream.map((delta): Event => {
                text += delta
                return { type: "response.output_text.delta", item_id: id, delta }
              })
            )
          ),
          Stream.concat(
            options?.unfinished === true
              ? Stream.empty
              : Stream.sync(() => done(assistantMessage(id, text, options?.phase)))
          )
        )
      })
  })

/**
 * A final response that is the JSON of a value, as the model writes it for the option `output` with the same schema.
 *
 * **Details**
 *
 * It is sent in deltas. Its phase is `final_answer` by default.
 *
 * **Gotchas**
 *
 * A value that the schema cannot encode is a defect of the test, and ends the response.
 *
 * **Example** (A typed output)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Codex } from "effect-codex"
 * import { ModelServer } from "effect-codex/testing"
 *
 * const Review = Schema.Struct({ verdict: Schema.Literals(["approve", "reject"]), comments: Schema.Array(Schema.String) })
 *
 * export const review = Effect.gen(function*() {
 *   const model = yield* ModelServer.ModelServer
 *   yield* model.enqueue(ModelServer.object(Review, { verdict: "approve", comments: [] }))
 *   const codex = yield* Codex.Codex
 *   const thread = yield* codex.startThread()
 *   const { output } = yield* thread.run("Review the diff", { output: Review })
 *   return output.verdict
 * })
 * ```
 *
 * @category items
 * @since 0.1.0
 */
export const object = <A, E, R>(
  schema: Schema.ConstraintCodec<A, E, R>,
  value: NoInfer<A>,
  options?: {
    readonly id?: string | undefined
    readonly phase?: Phase | undefined
    readonly pace?: Duration.Input | undefined
  }
): Item =>
  checked(
    "object",
    { id: string, phase: string, pace: duration },
    options,
    deltas(
      Stream.unwrap(Effect.map(encodeOutput(schema, value), (parts) => Stream.fromIterable(parts))),
      { phase: "final_answer", ...options }
    )
  )

/**
 * A reasoning item with one summary part per string, and optionally the raw reasoning text.
 *
 * @category items
 * @since 0.1.0
 */
export const reasoning = (
  summary: string | ReadonlyArray<string>,
  options?: { readonly id?: string | undefined; readonly content?: string | undefined }
): Item =>
  checked("reasoning", { id: string, content: string }, options, {
    _tag: "Item",
    events: (nextId) =>
      Stream.suspend(() => {
        const id = options?.id ?? nextId("rs")
        const parts = typeof summary === "string" ? [summary] : summary
        const content = options?.content
        return Stream.fromIterable<Event>([
          added({ type: "reasoning", id, summary: [] }),
          ...parts.flatMap((delta, index) => [
            { type: "response.reasoning_summary_part.added", item_id: id, summary_index: index },
            { type: "response.reasoning_summary_text.delta", item_id: id, summary_index: index, delta }
          ]),
          ...(content === undefined
            ? []
            : [{ type: "response.reasoning_text.delta", item_id: id, content_index: 0, delta: content }]),
          done({
            type: "reasoning",
            id,
            summary: parts.map((text) => ({ type: "summary_text", text })),
            ...(content === undefined ? {} : { content: [{ type: "reasoning_text", text: content }] }),
            encrypted_content: null
          })
        ])
      })
  })

/**
 * A call of a function that Codex offers, such as `exec_command`, a dynamic tool or an MCP tool.
 *
 * **Details**
 *
 * - The arguments are sent as JSON. A string is sent unchanged, so that a test can send malformed arguments.
 * - Codex sends the output in a second request (see {@link ModelRequest.functionCallOutput}), which needs a reply, too.
 *
 * @category items
 * @since 0.1.0
 */
export const functionCall = (
  name: string,
  args: object | string,
  options?: { readonly callId?: string | undefined; readonly namespace?: string | undefined }
): Item =>
  checked("functionCall", { callId: string, namespace: string }, options, {
    _tag: "Item",
    events: (nextId) =>
      Stream.sync(() =>
        done({
          type: "function_call",
          call_id: options?.callId ?? nextId("call"),
          name,
          arguments: typeof args === "string" ? args : JSON.stringify(args),
          ...(options?.namespace === undefined ? {} : { namespace: options.namespace })
        })
      )
  })

/**
 * A call of a custom (freeform) tool with plain text as input, such as `apply_patch`.
 *
 * @category items
 * @since 0.1.0
 */
export const customToolCall = (
  name: string,
  input: string,
  options?: { readonly callId?: string | undefined }
): Item =>
  checked("customToolCall", { callId: string }, options, {
    _tag: "Item",
    events: (nextId) =>
      Stream.sync(() => done({ type: "custom_tool_call", call_id: options?.callId ?? nextId("call"), name, input }))
  })

/**
 * An item of arbitrary events, for the cases that the other constructors do not cover.
 *
 * @category items
 * @since 0.1.0
 */
export const events = (...events: ReadonlyArray<Event>): Item => ({
  _tag: "Item",
  events: () => Stream.fromIterable(events)
})

// ---------------------------------------------------------------------------------------------------------------------
// Replies
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Token counts of one response.
 *
 * **Details**
 *
 * `totalTokens` is by default the sum of input and output. Other counts default to 0. A reply without usage has one input token and
 * one output token.
 *
 * @category models
 * @since 0.1.0
 */
export interface Usage {
  readonly inputTokens?: number | undefined
  readonly cachedInputTokens?: number | undefined
  readonly cacheWriteInputTokens?: number | undefined
  readonly outputTokens?: number | undefined
  readonly reasoningTokens?: number | undefined
  readonly totalTokens?: number | undefined
}

/**
 * How a streamed response ends after its items.
 *
 * @category models
 * @since 0.1.0
 */
export type Ending = Data.TaggedEnum<{
  Completed: { readonly usage: Usage | undefined }
  Failed: { readonly code: string; readonly message: string }
  Cut: {}
  Hang: {}
}>

const Ending = Data.taggedEnum<Ending>()

/**
 * The response to one `POST /v1/responses`. An item alone is a completed response with this item.
 *
 * @category models
 * @since 0.1.0
 */
export type Reply =
  | Item
  | {
    readonly _tag: "Response"
    readonly items: ReadonlyArray<Item>
    readonly ending: Ending
    readonly headers?: Headers | undefined
  }
  | {
    readonly _tag: "HttpError"
    readonly status: number
    readonly body: Schema.Json
    readonly headers?: Headers | undefined
  }

/**
 * HTTP headers of a reply, by name.
 *
 * @category models
 * @since 0.1.0
 */
export interface Headers {
  readonly [name: string]: string
}

/**
 * A completed response with these items, in order.
 *
 * @category replies
 * @since 0.1.0
 */
export const reply = (items: ReadonlyArray<Item>, options?: { readonly usage?: Usage | undefined }): Reply =>
  checked("reply", { usage: objectKind }, options, {
    _tag: "Response",
    items,
    ending: Ending.Completed({ usage: options?.usage })
  })

/**
 * A completed response with one message: `reply([message(text)])`.
 *
 * @category replies
 * @since 0.1.0
 */
export const text = (
  text: string,
  options?: { readonly phase?: Phase | undefined; readonly usage?: Usage | undefined }
): Reply => {
  const { phase, ...rest } = options ?? {}
  return reply([message(text, { phase })], rest)
}

/**
 * A response that ends with `response.failed` after these items.
 *
 * **Details**
 *
 * Codex maps the code to its own error. Examples are `rate_limit_exceeded`, `context_length_exceeded`, `insufficient_quota` and
 * `server_error`.
 *
 * @category replies
 * @since 0.1.0
 */
export const failed = (
  error: { readonly code: string; readonly message: string },
  items: ReadonlyArray<Item> = []
): Reply => ({ _tag: "Response", items, ending: Ending.Failed(error) })

/**
 * A response whose stream ends after these items without `response.completed`.
 *
 * @category replies
 * @since 0.1.0
 */
export const cut = (items: ReadonlyArray<Item> = []): Reply => ({ _tag: "Response", items, ending: Ending.Cut() })

/**
 * A response that stays open after these items, until the client disconnects or the server closes.
 *
 * @category replies
 * @since 0.1.0
 */
export const hang = (items: ReadonlyArray<Item> = []): Reply => ({ _tag: "Response", items, ending: Ending.Hang() })

/**
 * An HTTP error instead of a stream. The default body is an error object with the status.
 *
 * @category replies
 * @since 0.1.0
 */
export const httpError = (status: number, body?: Schema.Json): Reply => ({
  _tag: "HttpError",
  status,
  body: body ?? { error: { type: "error", code: null, message: `HTTP ${status}` } }
})

/**
 * Adds HTTP headers to a reply.
 *
 * @category combinators
 * @since 0.1.0
 */
export const withHeaders: {
  (headers: Headers): (self: Reply) => Reply
  (self: Reply, headers: Headers): Reply
} = dual(2, (self: Reply, headers: Headers): Reply => {
  const reply: Exclude<Reply, Item> = self._tag === "Item"
    ? { _tag: "Response", items: [self], ending: Ending.Completed({ usage: undefined }) }
    : self
  return { ...reply, headers: { ...reply.headers, ...headers } }
})

const windowHeaders = (limitId: string, name: string, window: Protocol.RateLimitWindow | null | undefined): Headers => {
  if (Predicate.isNullish(window)) return {}
  const prefix = `x-${limitId.replaceAll("_", "-")}-${name}`
  const { resetsAt, usedPercent, windowDurationMins } = window
  return {
    [`${prefix}-used-percent`]: String(usedPercent),
    ...(Predicate.isNullish(windowDurationMins) ? {} : { [`${prefix}-window-minutes`]: String(windowDurationMins) }),
    ...(Predicate.isNullish(resetsAt) ? {} : { [`${prefix}-reset-at`]: String(resetsAt) })
  }
}

/**
 * Adds the headers of a rate limit to a reply, as OpenAI sends them for a ChatGPT login. Codex reports them as
 * `account/rateLimits/updated`.
 *
 * **Details**
 *
 * The default of `limitId` is `codex`. Of the limit only the windows are sent, and `rateLimitReachedType`, which Codex reads from HTTP
 * errors only.
 *
 * **Example** (A turn that exceeds a limit)
 *
 * ```ts
 * import { ModelServer } from "effect-codex/testing"
 *
 * export const exceeded = (resetsAt: number) =>
 *   ModelServer.withRateLimit(
 *     ModelServer.httpError(429, { error: { type: "usage_limit_reached", message: "Limit reached", resets_at: resetsAt } }),
 *     { primary: { usedPercent: 100, windowDurationMins: 300, resetsAt } }
 *   )
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const withRateLimit: {
  (limit: Protocol.RateLimitSnapshot): (self: Reply) => Reply
  (self: Reply, limit: Protocol.RateLimitSnapshot): Reply
} = dual(2, (self: Reply, limit: Protocol.RateLimitSnapshot): Reply => {
  const limitId = limit.limitId ?? "codex"
  return withHeaders(self, {
    "x-codex-active-limit": limitId,
    ...windowHeaders(limitId, "primary", limit.primary),
    ...windowHeaders(limitId, "secondary", limit.secondary),
    ...(Predicate.isNullish(limit.rateLimitReachedType)
      ? {}
      : { "x-codex-rate-limit-reached-type": limit.rateLimitReachedType })
  })
})

// ---------------------------------------------------------------------------------------------------------------------
// Requests
// ---------------------------------------------------------------------------------------------------------------------

const ContentItem = Schema.Struct({
  type: Schema.String,
  text: Schema.optionalKey(Schema.String),
  image_url: Schema.optionalKey(Schema.String)
})

const MessageItem = Schema.Struct({
  type: Schema.Literal("message"),
  role: Schema.String,
  content: Schema.Array(ContentItem)
})

const OutputItem = Schema.Struct({
  type: Schema.Literals(["function_call_output", "custom_tool_call_output"]),
  call_id: Schema.String,
  output: Schema.Union([Schema.String, Schema.Array(ContentItem)])
})

const decodeInput = Schema.decodeUnknownOption(Schema.Array(Schema.Json))
const decodeMessage = Schema.decodeUnknownOption(MessageItem)
const decodeOutput = Schema.decodeUnknownOption(OutputItem)

const texts = (content: ReadonlyArray<typeof ContentItem.Type>): ReadonlyArray<string> =>
  content.flatMap((item) => item.text === undefined ? [] : [item.text])

/**
 * A request of Codex to the model.
 *
 * @category models
 * @since 0.1.0
 */
export class ModelRequest extends Data.Class<{
  readonly method: string
  readonly path: string
  /** Headers by name in lower case. */
  readonly headers: { readonly [name: string]: string | undefined }
  readonly body: Schema.JsonObject
}> {
  /** The items of the conversation: messages, tool calls and their outputs. */
  get input(): ReadonlyArray<Schema.Json> {
    return Option.getOrElse(decodeInput(this.body["input"]), () => [])
  }

  /** The texts of all messages with this role (`user`, `developer`, `assistant`), in order. */
  messageTexts(role: string): ReadonlyArray<string> {
    return this.content(role).flatMap(texts)
  }

  /** The URLs of all images in messages with this role. Local images are `data:` URLs. */
  imageUrls(role: string): ReadonlyArray<string> {
    return this.content(role).flat().flatMap((item) => item.image_url === undefined ? [] : [item.image_url])
  }

  /** The texts of user messages. Codex's own context, such as `<environment_context>`, is first. */
  get userTexts(): ReadonlyArray<string> {
    return this.messageTexts("user")
  }

  /** The text of the last user message. */
  get lastUserText(): string | undefined {
    return this.userTexts.at(-1)
  }

  /** The output text of a function call or custom tool call. */
  functionCallOutput(callId: string): string | undefined {
    for (const item of this.input) {
      const decoded = decodeOutput(item)
      if (Option.isSome(decoded) && decoded.value.call_id === callId) {
        const output = decoded.value.output
        return typeof output === "string" ? output : texts(output).join("\n")
      }
    }
    return undefined
  }

  /** The value of a header. The case of the name does not matter. */
  header(name: string): string | undefined {
    return this.headers[name.toLowerCase()]
  }

  /** The id of the thread that sent the request. */
  get promptCacheKey(): string | undefined {
    const key = this.body["prompt_cache_key"]
    return typeof key === "string" ? key : undefined
  }

  private content(role: string): ReadonlyArray<ReadonlyArray<typeof ContentItem.Type>> {
    return this.input.flatMap((item) => {
      const decoded = decodeMessage(item)
      return Option.isSome(decoded) && decoded.value.role === role ? [decoded.value.content] : []
    })
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Server
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Scripts the model's replies, and reads the requests of Codex.
 *
 * @category services
 * @since 0.1.0
 */
export class ModelServer extends Context.Service<ModelServer, {
  /** The base URL for a Codex model provider: `http://127.0.0.1:PORT/v1`. */
  readonly url: string

  /** Queues replies. Each request takes the next one. */
  readonly enqueue: (...replies: ReadonlyArray<Reply>) => Effect.Effect<void>

  /**
   * Computes the reply to every request that finds the queue empty.
   *
   * **Details**
   *
   * Without it, such a request gets HTTP 400 with a message that names the remedy. The turn fails with that message. A function that
   * throws fails the turn, too.
   */
  readonly respond: (f: (request: ModelRequest) => Reply | Effect.Effect<Reply>) => Effect.Effect<void>

  /**
   * Sets the rate limits of the account that `TestCodex.logIn` logs in to. `account/rateLimits/read` returns them.
   *
   * **Details**
   *
   * The default of `limitId` is `codex`. Of a limit only its name, its windows, and the plan, credits and `rateLimitReachedType` of the
   * account are sent. Without limits, the request is rejected. {@link withRateLimit} changes a limit with the response to a request.
   */
  readonly setRateLimits: (...limits: ReadonlyArray<Protocol.RateLimitSnapshot>) => Effect.Effect<void>

  /** Clears replies, `respond`, requests and rate limits, for tests that share a server. */
  readonly reset: Effect.Effect<void>

  /** All requests, oldest first. */
  readonly requests: Effect.Effect<ReadonlyArray<ModelRequest>>

  /** Waits for `n` requests, and returns all requests. */
  readonly awaitRequests: (n: number) => Effect.Effect<ReadonlyArray<ModelRequest>>

  /**
   * Waits until every response has ended or its client has disconnected.
   *
   * **Details**
   *
   * After `awaitRequests` it shows that a client disconnected. Before the first request it returns at once.
   */
  readonly awaitIdle: Effect.Effect<void>
}>()("effect-codex/testing/ModelServer") {}

/** Codex shows the body of a 400. For a 500 it has its own message. */
const badRequest = (message: string): Reply => httpError(400, { error: { type: "error", code: null, message } })

const unscripted = (number: number): Reply =>
  badRequest(
    `The scripted model has no reply to request ${number}. Add one with \`ModelServer.enqueue\`, or compute replies with \`respond\`. ` +
      "Codex sends one request for a turn, and one more after each round of tool calls."
  )

/** The defect of a test's function. Codex would show its own message instead of another status. */
const defectReply = (defect: unknown): Reply =>
  badRequest(`The function that was passed to \`ModelServer.respond\` died: ${Cause.pretty(Cause.die(defect))}`)

type Responder = (request: ModelRequest) => Reply | Effect.Effect<Reply>

/** Runs the function of a test. */
const computeReply = (respond: Responder, request: ModelRequest): Effect.Effect<Reply> =>
  Effect.suspend(() => {
    const reply = respond(request)
    return Effect.isEffect(reply) ? reply : Effect.succeed(reply)
  }).pipe(Effect.catchDefect((defect) => Effect.succeed(defectReply(defect))))

/**
 * Serves a {@link ModelServer} on the `HttpServer` of the environment.
 *
 * **Details**
 *
 * The `HttpServer` must listen on loopback. `TestCodex.layerModelServer` provides Node's, on a free port.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ModelServer, never, HttpServer.HttpServer> = Layer.effect(
  ModelServer,
  Effect.gen(function*() {
    const httpServer = yield* HttpServer.HttpServer
    const queue = yield* Ref.make<ReadonlyArray<Reply>>([])
    const responder = yield* Ref.make<Responder | undefined>(undefined)
    const rateLimits = yield* Ref.make<ReadonlyArray<Protocol.RateLimitSnapshot>>([])
    const requests = yield* SubscriptionRef.make<ReadonlyArray<ModelRequest>>([])
    const inFlight = yield* SubscriptionRef.make(0)

    let lastId = 0
    const nextId = (prefix: string) => `${prefix}_${++lastId}`

    const respond = Effect.fnUntraced(function*(incoming: HttpServerRequest.HttpServerRequest) {
      const body = yield* HttpServerRequest.schemaBodyJson(Schema.JsonObject)
      const request = new ModelRequest({
        method: incoming.method,
        path: incoming.url,
        headers: { ...incoming.headers },
        body
      })
      yield* Effect.acquireRelease(
        SubscriptionRef.update(inFlight, (n) => n + 1),
        () => SubscriptionRef.update(inFlight, (n) => n - 1)
      )
      const queued = yield* Ref.modify(queue, (replies) => [replies[0], replies.slice(1)])
      const compute = yield* Ref.get(responder)
      const { length } = yield* SubscriptionRef.updateAndGet(requests, Array.append(request))
      const reply = queued ?? (compute === undefined ? unscripted(length) : yield* computeReply(compute, request))
      return toResponse(reply, nextId)
    })

    yield* httpServer.serve(Effect.gen(function*() {
      const incoming = yield* HttpServerRequest.HttpServerRequest
      // `CodexEnvironment` names this server as the proxy of all other hosts.
      const host = incoming.headers["host"] ?? ""
      if (!/^(?:127\.0\.0\.1|localhost)(?::|$)/.test(host)) {
        return toResponse(badRequest(`A test connects to loopback only, not to \`${host}\``), nextId)
      }
      const [path] = incoming.url.split("?", 1)
      switch (`${incoming.method} ${path}`) {
        case "POST /v1/responses":
          return yield* respond(incoming)
        case "GET /v1/models":
          return HttpServerResponse.jsonUnsafe({ object: "list", data: [] })
        case "GET /v1/api/codex/usage":
          return HttpServerResponse.jsonUnsafe(toAccountUsage(yield* Ref.get(rateLimits)))
        default:
          return HttpServerResponse.empty({ status: 404 })
      }
    }))

    return ModelServer.of({
      url: `${HttpServer.formatAddress(httpServer.address)}/v1`,
      enqueue: (...replies) => Ref.update(queue, Array.appendAll(replies)),
      respond: (f) => Ref.set(responder, f),
      setRateLimits: (...limits) => Ref.set(rateLimits, limits),
      reset: Ref.set(queue, []).pipe(
        Effect.andThen(Ref.set(responder, undefined)),
        Effect.andThen(Ref.set(rateLimits, [])),
        Effect.andThen(SubscriptionRef.set(requests, []))
      ),
      requests: SubscriptionRef.get(requests),
      awaitRequests: (n) => first(requests, (seen) => seen.length >= n),
      awaitIdle: Effect.asVoid(first(inFlight, (n) => n === 0))
    })
  })
)

// ---------------------------------------------------------------------------------------------------------------------
// Internal
// ---------------------------------------------------------------------------------------------------------------------

const first = <A>(ref: SubscriptionRef.SubscriptionRef<A>, predicate: (a: A) => boolean): Effect.Effect<A> =>
  SubscriptionRef.changes(ref).pipe(
    Stream.filter(predicate),
    Stream.runHead,
    // The stream of changes never ends.
    Effect.flatMap(Option.match({ onNone: () => Effect.never, onSome: Effect.succeed }))
  )

const toResponse = (
  reply: Reply,
  nextId: (prefix: string) => string
): HttpServerResponse.HttpServerResponse => {
  switch (reply._tag) {
    case "HttpError":
      return HttpServerResponse.jsonUnsafe(reply.body, { status: reply.status, headers: reply.headers })
    case "Item":
      return streamResponse([reply], Ending.Completed({ usage: undefined }), nextId)
    case "Response":
      return streamResponse(reply.items, reply.ending, nextId, reply.headers)
  }
}

const toUsageWindow = (window: Protocol.RateLimitWindow | null | undefined): Schema.Json =>
  Predicate.isNullish(window) ? null : {
    used_percent: window.usedPercent,
    limit_window_seconds: (window.windowDurationMins ?? 0) * 60,
    reset_after_seconds: 0,
    reset_at: window.resetsAt ?? 0
  }

const toUsageLimit = ({ primary, secondary }: Protocol.RateLimitSnapshot) => {
  const reached = [primary, secondary].some((window) => Predicate.isNotNullish(window) && window.usedPercent >= 100)
  return {
    allowed: !reached,
    limit_reached: reached,
    primary_window: toUsageWindow(primary),
    secondary_window: toUsageWindow(secondary)
  }
}

const isGeneral = ({ limitId }: Protocol.RateLimitSnapshot): boolean => (limitId ?? "codex") === "codex"

/** Encodes the limits as the backend of a ChatGPT account does. */
const toAccountUsage = (limits: ReadonlyArray<Protocol.RateLimitSnapshot>): Schema.Json => {
  const { credits = null, planType, rateLimitReachedType = null, ...general } = limits.find(isGeneral) ?? {}
  return {
    user_id: "user",
    account_id: "account",
    plan_type: planType ?? "pro",
    rate_limit: toUsageLimit(general),
    credits: credits === null
      ? null
      : { has_credits: credits.hasCredits, unlimited: credits.unlimited, balance: credits.balance ?? null },
    rate_limit_reached_type: rateLimitReachedType === null ? null : { type: rateLimitReachedType },
    additional_rate_limits: limits.filter((limit) => !isGeneral(limit)).map((limit) => ({
      limit_name: limit.limitName ?? limit.limitId ?? "",
      metered_feature: limit.limitId ?? "",
      rate_limit: toUsageLimit(limit)
    }))
  }
}

const streamResponse = (
  items: ReadonlyArray<Item>,
  ending: Ending,
  nextId: (prefix: string) => string,
  headers?: Headers
) => {
  const id = nextId("resp")
  return HttpServerResponse.stream(
    Stream.make<[Event]>({ type: "response.created", response: { id } }).pipe(
      Stream.concat(Stream.flatMap(Stream.fromIterable(items), (item) => item.events(nextId))),
      Stream.concat(endingEvents(id, ending)),
      Stream.map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`),
      Stream.encodeText
    ),
    { contentType: "text/event-stream", headers }
  )
}

const endingEvents = (id: string, ending: Ending): Stream.Stream<Event> =>
  Ending.$match(ending, {
    Completed: ({ usage }) =>
      Stream.make({ type: "response.completed", response: { id, usage: toWireUsage(usage ?? oneToken) } }),
    Failed: ({ code, message }) => Stream.make({ type: "response.failed", response: { id, error: { code, message } } }),
    Cut: () => Stream.empty,
    Hang: () => Stream.never
  })

const oneToken: Usage = { inputTokens: 1, outputTokens: 1 }

const toWireUsage = (usage: Usage) => {
  const input = usage.inputTokens ?? 0
  const output = usage.outputTokens ?? 0
  return {
    input_tokens: input,
    input_tokens_details: {
      cached_tokens: usage.cachedInputTokens ?? 0,
      cache_write_tokens: usage.cacheWriteInputTokens ?? 0
    },
    output_tokens: output,
    output_tokens_details: { reasoning_tokens: usage.reasoningTokens ?? 0 },
    total_tokens: usage.totalTokens ?? input + output
  }
}
