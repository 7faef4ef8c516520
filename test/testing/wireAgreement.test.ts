/**
 * Sends the same raw requests to the fake and to the real server. Each response and each notification of the fake is compared, member
 * by member, with that of the real server at the same position. Members that only the real server sends are not compared.
 */
import { assert, describe, it } from "@effect/vitest"
import { Protocol, Transport } from "effect-codex"
import { CodexEnvironment, FakeAppServer, ModelServer, TestCodex } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { version } from "../TestCodex.ts"
import { isThorough } from "../thorough.ts"
import { makeJsonClient, type Message } from "./jsonClient.ts"
import * as SocketAppServer from "./SocketAppServer.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Client
// ---------------------------------------------------------------------------------------------------------------------

/** Connects to a server with a working directory. */
const connect = Effect.fnUntraced(function*(workspace: string) {
  const transport = yield* Transport.Transport
  const connection = yield* transport.connect
  const client = yield* makeJsonClient(connection.incoming, connection.send)
  const { awaitMessage, received, send } = client

  /** Sends a request, waits for its response, and then for a notification if the request succeeds. */
  const call = Effect.fnUntraced(function*(method: string, params: object = {}, until?: string) {
    const from = (yield* received).length
    const response = yield* client.call(method, params)
    if (until !== undefined && response.error === undefined) {
      yield* awaitMessage((message) => message.method === until, from)
    }
    return response
  })

  const startThread = (params: object = {}) =>
    Effect.map(call("thread/start", params, "thread/started"), ({ result }): string => result.thread.id)

  const startTurn = (threadId: string, text: string, params: object = {}) =>
    Effect.map(
      call("turn/start", { threadId, input: [{ type: "text", text, text_elements: [] }], ...params }),
      ({ result }): string => result.turn.id
    )

  const completed = (turnId: string) =>
    awaitMessage(({ method, params }) => method === "turn/completed" && params.turn.id === turnId)

  const runTurn = (threadId: string, text: string, params?: object) =>
    Effect.flatMap(startTurn(threadId, text, params), completed)

  /** Responds to the next request of a method for a thread. */
  const respond = Effect.fnUntraced(function*(threadId: string, method: string, response: object) {
    const { id } = yield* awaitMessage((message) =>
      message.method === method && message.id !== undefined && message.params.threadId === threadId
    )
    yield* send({ id, ...response })
  })

  return {
    workspace,
    received,
    awaitMessage,
    call,
    startThread,
    startTurn,
    completed,
    runTurn,
    respond
  }
})

type Client = Effect.Success<ReturnType<typeof connect>>

interface Scenario {
  /** The replies of the real server's model. */
  readonly replies?: ReadonlyArray<ModelServer.Reply>
  /** The reply to each request of the real server's model, where the order of requests differs between runs. */
  readonly respond?: (request: ModelServer.ModelRequest) => ModelServer.Reply
  /** The scripts of the fake's turns, or that of all of them. */
  readonly script?: FakeAppServer.Script | ReadonlyArray<FakeAppServer.Script>
  /** Whether several threads run at once. The real server has no order between them. */
  readonly isConcurrent?: boolean
  /** The real server's home. */
  readonly home?: CodexEnvironment.Options
  /** Notifications that a script cannot send as the real server does. */
  readonly omit?: ReadonlyArray<string>
  readonly program: (client: Client) => Effect.Effect<unknown, unknown>
}

// ---------------------------------------------------------------------------------------------------------------------
// Comparison
// ---------------------------------------------------------------------------------------------------------------------

type Options = Pick<Scenario, "isConcurrent" | "omit">

/** The real server's names by those of the fake. */
type Names = Map<string, string>

/** Members whose values differ between runs. Only their presence is compared. */
const volatile = new Set([
  "createdAt",
  "updatedAt",
  "startedAt",
  "completedAt",
  "startedAtMs",
  "completedAtMs",
  "durationMs",
  "timeUsedSeconds",
  "path",
  "source",
  "userAgent",
  "codexHome",
  "platformFamily",
  "platformOs",
  "displayName",
  "description",
  "defaultReasoningEffort",
  "supportedReasoningEfforts",
  // The fake does not implement these.
  "cursor",
  "message",
  "additionalDetails"
])

/** Members with identifiers. The test maps those of the fake to those of the real server. */
const identifiers = new Set([
  "id",
  "itemId",
  "threadId",
  "turnId",
  "rootTurnId",
  "sessionId",
  "senderThreadId",
  "receiverThreadIds[0]",
  "parentThreadId",
  "reviewThreadId",
  "forkedFromId",
  "processId",
  "requestId",
  "revision",
  "nextCursor",
  "backwardsCursor"
])

const rename = (text: string, names: Names): string =>
  [...names].reduce((renamed, [fake, real]) => renamed.replaceAll(fake, real), text)

const differences = (fake: unknown, real: unknown, path: string, names: Names): ReadonlyArray<string> => {
  const key = path.slice(path.lastIndexOf(".") + 1)
  const differ = [`${path}: the fake has ${JSON.stringify(fake)}, the real server ${JSON.stringify(real)}`]
  if (fake === real) return []
  if (fake === null || real === null || typeof fake !== typeof real) return differ
  // The real server may have started a sub-agent before it reports that it has spawned it.
  if (volatile.has(key) || key === "status" && fake === "pendingInit" && real === "running") return []
  if (Array.isArray(fake)) {
    return Array.isArray(real) && fake.length === real.length
      ? fake.flatMap((item, index) => differences(item, real[index], `${path}[${index}]`, names))
      : differ
  }
  if (typeof fake === "object") {
    return Object.entries(fake).flatMap(([name, value]) =>
      differences(value, (real as Record<string, unknown>)[names.get(name) ?? name], `${path}.${name}`, names)
    )
  }
  if (identifiers.has(key) || key.startsWith("data[") && typeof fake === "string") {
    const known = names.get(String(fake))
    if (known === undefined && ![...names.values()].includes(String(real))) {
      names.set(String(fake), String(real))
      return []
    }
    return known === String(real) ? [] : differ
  }
  return typeof fake === "string" && rename(fake, names) === real ? [] : differ
}

/** Notifications that the fake does not implement, or whose number differs between runs. */
const ignored = new Set([
  "configWarning",
  "warning",
  "remoteControl/status/changed",
  "item/commandExecution/outputDelta",
  "turn/diff/updated"
])

/** Notifications without a fixed order: they may precede or follow their cause. */
const isUnordered = ({ method, params }: Message): boolean =>
  method === "thread/settings/updated" ||
  method === "thread/status/changed" && (params.status.type === "active" || params.status.type === "notLoaded")

/** The real server may send the response to `turn/start` after the first notifications of the turn. */
const isStart = ({ method, result }: Message) => method === undefined && result?.turn !== undefined

const isSame = (one: Message | undefined, other: Message): boolean =>
  JSON.stringify([one?.method, one?.params]) === JSON.stringify([other.method, other.params])

/** Whether a report of a goal only has another time. The number of these differs between runs. */
const isTick = ({ method, params }: Message, previous: Message | undefined): boolean => {
  if (method !== "thread/goal/updated" || params.turnId === null || previous === undefined) return false
  const withoutTimes = ({ objective, status, tokenBudget, tokensUsed }: Record<string, unknown>) =>
    JSON.stringify([objective, status, tokenBudget, tokensUsed])
  return withoutTimes(params.goal) === withoutTimes(previous.params.goal)
}

/** Sorts the messages by thread, and leaves those of each thread in order. */
const byThread = (messages: ReadonlyArray<Message>) => {
  const getThread = ({ params }: Message) => params?.threadId ?? params?.thread?.id
  // Responses are last, because they may name threads.
  const threads = [...new Set([...messages.map(getThread).filter((id) => id !== undefined), undefined])]
  return messages.toSorted((one, other) => threads.indexOf(getThread(one)) - threads.indexOf(getThread(other)))
}

const sequences = (messages: ReadonlyArray<Message>, { isConcurrent, omit = [] }: Options) => {
  const goals = messages.filter(({ method }) => method === "thread/goal/updated")
  const relevant = messages.filter((message) =>
    message.method === undefined || !ignored.has(message.method) && !omit.includes(message.method) &&
      !isTick(message, goals[goals.indexOf(message) - 1])
  )
  const main = relevant.filter((message) => !isUnordered(message) && !isStart(message))
  return {
    started: relevant.filter(isStart),
    // The real server reports once or twice that a thread is not loaded.
    unordered: relevant.filter(isUnordered).filter((message, index, all) => !isSame(all[index - 1], message)),
    main: isConcurrent === true ? byThread(main) : main
  }
}

const toTitle = ({ error, id, method, params }: Message): string =>
  method === undefined
    ? `response ${id}${error === undefined ? "" : ` ${error.code}`}`
    : `${method}${params?.item === undefined ? "" : ` ${params.item.type}`}${
      params?.status === undefined ? "" : ` ${JSON.stringify(params.status)}`
    }`

const errorDifferences = (fake: Message, real: Message, title: string, names: Names): ReadonlyArray<string> => {
  const fakeMessage = fake.error?.message
  const realMessage = real.error?.message
  if (fakeMessage === undefined || realMessage === undefined || rename(fakeMessage, names) === realMessage) {
    return []
  }
  // The two explain invalid params in other words.
  return [fakeMessage, realMessage].every((message) => message.startsWith("Invalid request:"))
    ? []
    : [`${title}: the fake sends ${JSON.stringify(fakeMessage)}, the real server ${JSON.stringify(realMessage)}`]
}

const compare = (
  fake: ReadonlyArray<Message>,
  real: ReadonlyArray<Message>,
  names: Names,
  options: Options
) => {
  const fakeSequences = sequences(fake, options)
  const realSequences = sequences(real, options)
  const kinds = ["main", "unordered", "started"] as const
  for (const sequence of kinds) {
    assert.deepStrictEqual(fakeSequences[sequence].map(toTitle), realSequences[sequence].map(toTitle))
  }
  const all = kinds.flatMap((sequence) =>
    fakeSequences[sequence].flatMap((message, index) => {
      const other = realSequences[sequence][index]!
      const title = toTitle(message).replaceAll(".", "_")
      return [
        differences(message.params ?? message.result, other.params ?? other.result, title, names),
        errorDifferences(message, other, title, names)
      ].flat()
    })
  )
  assert.deepStrictEqual(all, [])
}

// ---------------------------------------------------------------------------------------------------------------------
// Scenarios
// ---------------------------------------------------------------------------------------------------------------------

const nowhere = "00000000-0000-7000-8000-000000000000"

const usage = (inputTokens: number, outputTokens: number) => ({ inputTokens, outputTokens })

const says = (text: string, ...tokens: Parameters<typeof usage>) =>
  ModelServer.reply([ModelServer.deltas([text])], { usage: usage(...tokens) })

const calls = (item: ModelServer.Item) => ModelServer.reply([item], { usage: usage(5, 1) })

/** A message that never completes. Its delta shows that Codex reads the response of the model. */
const halfMessage = ModelServer.hang([ModelServer.deltas(["half"], { unfinished: true })])
const halfDelta = "item/agentMessage/delta"
const sendHalf = () => FakeAppServer.deltas(["half"], { unfinished: true })

/** One model request for each turn, of 7 and 3 tokens. */
const echo: FakeAppServer.Script = (turn) =>
  Effect.andThen(FakeAppServer.text(turn.text), FakeAppServer.usage(usage(7, 3)))

const reopen = Effect.fnUntraced(function*({ call }: Client, threadId: string, params: object = {}) {
  yield* call("thread/archive", { threadId }, "thread/archived")
  yield* call("thread/unarchive", { threadId }, "thread/unarchived")
  yield* call("thread/resume", { threadId, excludeTurns: true, ...params })
})

const tool = {
  type: "function",
  name: "lookup",
  description: "Looks up",
  inputSchema: { type: "object", properties: {} }
}

/** A turn that sends one request to the client, and the client's response. */
const requesting = (
  method: string,
  item: ModelServer.Item,
  action: FakeAppServer.Action,
  response: object,
  params: object = { approvalPolicy: "untrusted" }
): Scenario => ({
  replies: [calls(item), says("done", 7, 3)],
  script: () =>
    Effect.gen(function*() {
      yield* Effect.ensuring(
        action,
        // A turn that is canceled reports its request to the model, too.
        FakeAppServer.usage(usage(5, 1))
      )
      yield* FakeAppServer.text("done")
      yield* FakeAppServer.usage(usage(7, 3))
    }),
  program: Effect.fnUntraced(function*({ completed, respond, startThread, startTurn }) {
    const threadId = yield* startThread({ sandbox: "danger-full-access", ...params })
    const turnId = yield* startTurn(threadId, "go")
    yield* respond(threadId, method, response)
    yield* completed(turnId)
  })
})

/** The newest turn, with its commands and calls in progress. */
const initialTurnsPage = { limit: 1, itemsView: "full" }

const touch = ModelServer.functionCall("exec_command", { cmd: "touch x; sleep 0.4", login: false })
const touching = FakeAppServer.command("touch x; sleep 0.4", { approval: true })
const commandApproval = "item/commandExecution/requestApproval"
const patch = ModelServer.customToolCall("apply_patch", "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch")
const patching = FakeAppServer.fileChange([{ path: "new.txt", kind: "add", diff: "hello\n" }], { approval: true })
const patchApproval = "item/fileChange/requestApproval"
const refusal = { error: { code: -32000, message: "no" } }

const exceededLimit: Protocol.RateLimitSnapshot = {
  primary: { usedPercent: 100, windowDurationMins: 300, resetsAt: 1_900_000_000 },
  secondary: { usedPercent: 40, windowDurationMins: 10_080, resetsAt: 1_900_500_000 }
}

const isChild = (request: ModelServer.ModelRequest) => request.header("x-openai-subagent") === "collab_spawn"

const tools = (callId: string, name: string, args: object) =>
  ModelServer.functionCall(name, args, { callId, namespace: "multi_agent_v1" })

/** The replies to a turn that spawns a sub-agent and waits for it. */
const spawns = (message: string, model?: string) => (request: ModelServer.ModelRequest): ModelServer.Reply => {
  const spawned = request.functionCallOutput(`spawn ${message}`)
  if (spawned === undefined) {
    const spawn = tools(`spawn ${message}`, "spawn_agent", { message, ...(model === undefined ? {} : { model }) })
    return ModelServer.reply([spawn], { usage: usage(5, 1) })
  }
  if (request.functionCallOutput(`wait ${message}`) !== undefined) return says("done", 7, 3)
  const wait = tools(`wait ${message}`, "wait_agent", { targets: [JSON.parse(spawned).agent_id] })
  return ModelServer.reply([wait], { usage: usage(6, 1) })
}

/** Spawns a sub-agent and waits for it, as {@link spawns} does. */
const spawning = (message: string, script: FakeAppServer.Script, model?: string) =>
  Effect.gen(function*() {
    const agent = yield* FakeAppServer.subAgent(message, script, { model })
    yield* FakeAppServer.usage(usage(5, 1))
    yield* agent.wait
    yield* FakeAppServer.usage(usage(6, 1))
    yield* FakeAppServer.text("done")
    yield* FakeAppServer.usage(usage(7, 3))
  })

/** A request that ends while other threads send messages. */
/** The server mostly repeats its last report when it interrupts a model request. */
const repeatedReports = ["thread/tokenUsage/updated", "account/rateLimits/updated"]

const concurrent = { isConcurrent: true, omit: ["account/rateLimits/updated"] }

const subAgentOf = ({ awaitMessage }: Client, threadId: string) =>
  Effect.map(
    awaitMessage(({ method, params }) => method === "turn/started" && params.threadId !== threadId),
    ({ params }): { readonly threadId: string; readonly turnId: string } => ({
      threadId: params.threadId,
      turnId: params.turn.id
    })
  )

const awaitHalf = ({ awaitMessage }: Client, threadId: string, from = 0) =>
  Effect.map(
    awaitMessage(
      ({ method, params }) => method === halfDelta && params.threadId === threadId && params.delta === "half",
      from
    ),
    ({ params }): string => params.turnId
  )

const withGoals = { config: { features: { goals: true } } }

const step = says("step", 10, 1)
const stepping: FakeAppServer.Script = () =>
  Effect.andThen(FakeAppServer.text("step"), FakeAppServer.usage(usage(10, 1)))
const halting: FakeAppServer.Script = () => Effect.andThen(sendHalf(), FakeAppServer.never)
const failing: FakeAppServer.Script = () => FakeAppServer.fail("it broke", "internalServerError")

const custom = (instructions: string) => ({ type: "custom", instructions })

const scenarios: Record<string, Scenario> = {
  "a sub-agent that the turn waits for": {
    ...concurrent,
    home: { models: ["mock-model", "mini-model"] },
    respond: (request) => isChild(request) ? says("child", 10, 1) : spawns("go", "mini-model")(request),
    script: (turn) =>
      turn.text === "hi"
        ? spawning("go", () =>
          Effect.andThen(FakeAppServer.text("child"), FakeAppServer.usage(usage(10, 1))), "mini-model")
        : Effect.andThen(FakeAppServer.text("child"), FakeAppServer.usage(usage(10, 1))),
    program: Effect.fnUntraced(function*(client) {
      const { call, runTurn, startThread } = client
      const threadId = yield* startThread()
      yield* runTurn(threadId, "hi")
      const agent = yield* subAgentOf(client, threadId)
      for (
        const sourceKinds of [undefined, [], ["subAgent"], ["subAgentReview"], ["subAgentThreadSpawn"], ["vscode"]]
      ) {
        yield* call("thread/list", { sourceKinds })
      }
      yield* call("thread/loaded/list")
      for (const id of [threadId, agent.threadId]) {
        yield* call("thread/turns/list", { threadId: id, itemsView: "full" })
        yield* call("thread/read", { threadId: id })
      }
      yield* call("thread/resume", { threadId: agent.threadId, excludeTurns: true })
      yield* runTurn(agent.threadId, "direct")
    })
  },
  "a sub-agent that fails": {
    ...concurrent,
    respond: (request) => isChild(request) ? ModelServer.httpError(500) : spawns("go")(request),
    script: () => spawning("go", failing),
    program: Effect.fnUntraced(function*({ runTurn, startThread }) {
      yield* runTurn(yield* startThread(), "hi")
    })
  },
  "a sub-agent of a sub-agent": {
    ...concurrent,
    home: { config: { agents: { max_depth: 3 } } },
    respond: (request) => {
      if (!isChild(request)) return spawns("child")(request)
      return request.userTexts.includes("child") ? spawns("grandchild")(request) : says("grand", 10, 1)
    },
    script: () =>
      spawning(
        "child",
        () =>
          spawning("grandchild", () => Effect.andThen(FakeAppServer.text("grand"), FakeAppServer.usage(usage(10, 1))))
      ),
    program: Effect.fnUntraced(function*({ call, received, runTurn, startThread }) {
      yield* runTurn(yield* startThread(), "hi")
      for (const { method, params } of yield* received) {
        if (method === "turn/started") yield* call("thread/read", { threadId: params.threadId })
      }
    })
  },
  "a sub-agent that outlives its turn, and is interrupted": {
    ...concurrent,
    respond: (request) => {
      if (isChild(request)) return halfMessage
      return request.functionCallOutput("spawn go") === undefined ? spawns("go")(request) : says("done", 7, 3)
    },
    script: () =>
      Effect.gen(function*() {
        yield* FakeAppServer.subAgent("go", halting)
        yield* FakeAppServer.usage(usage(5, 1))
        yield* FakeAppServer.text("done")
        yield* FakeAppServer.usage(usage(7, 3))
      }),
    program: Effect.fnUntraced(function*(client) {
      const { call, runTurn, startThread } = client
      const threadId = yield* startThread()
      const { params } = yield* runTurn(threadId, "hi")
      const agent = yield* subAgentOf(client, threadId)
      yield* awaitHalf(client, agent.threadId)
      yield* call("turn/interrupt", { threadId: agent.threadId, turnId: params.turn.id })
      yield* call("turn/interrupt", agent, "turn/completed")
      yield* call("thread/turns/list", { threadId: agent.threadId, itemsView: "full" })
    })
  },
  "a turn that is interrupted while it waits for a sub-agent": {
    isConcurrent: true,
    // The script does not report the usage of the request that waits.
    omit: ["account/rateLimits/updated", "thread/tokenUsage/updated"],
    respond: (request) => {
      if (!isChild(request)) return spawns("go")(request)
      return request.lastUserText === "more" ? says("late", 10, 1) : halfMessage
    },
    script: () =>
      spawning("go", (turn) => Effect.andThen(Effect.andThen(sendHalf(), turn.nextSteer), FakeAppServer.text("late"))),
    program: Effect.fnUntraced(function*(client) {
      const { awaitMessage, call, completed, startThread, startTurn } = client
      const threadId = yield* startThread()
      const turnId = yield* startTurn(threadId, "hi")
      const agent = yield* subAgentOf(client, threadId)
      yield* awaitHalf(client, agent.threadId)
      yield* awaitMessage(({ method, params }) => method === "item/started" && params.item.tool === "wait")
      yield* call("turn/interrupt", { threadId, turnId }, "turn/completed")
      // The sub-agent still runs.
      yield* startTurn(agent.threadId, "more")
      yield* completed(agent.turnId)
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
    })
  },
  "a goal that is interrupted, continued, paused and cleared": {
    omit: repeatedReports,
    home: withGoals,
    replies: [
      ModelServer.reply([ModelServer.deltas(["step"])], { usage: { ...usage(10, 1), cachedInputTokens: 4 } }),
      step,
      halfMessage,
      step,
      halfMessage,
      step
    ],
    script: [
      () => Effect.andThen(FakeAppServer.text("step"), FakeAppServer.usage({ ...usage(10, 1), cachedInputTokens: 4 })),
      stepping,
      halting,
      stepping,
      halting,
      stepping
    ],
    program: Effect.fnUntraced(function*(client) {
      const { call, received, runTurn, startThread } = client
      const threadId = yield* startThread()
      const set = (params: object, until = "thread/goal/updated") =>
        call("thread/goal/set", { threadId, ...params }, until)
      yield* call("thread/goal/get", { threadId })
      yield* call("thread/goal/clear", { threadId })
      yield* set({ status: "active" })
      yield* set({ objective: " " })
      yield* set({ objective: "count", tokenBudget: 0 })
      yield* set({ objective: "count" })
      const third = yield* awaitHalf(client, threadId)
      yield* call("turn/interrupt", { threadId, turnId: third }, "turn/completed")
      // A turn that follows by itself would start within 20 ms.
      yield* Effect.sleep("200 millis")
      yield* call("thread/goal/get", { threadId })
      const from = (yield* received).length
      yield* runTurn(threadId, "user")
      const last = yield* awaitHalf(client, threadId, from)
      yield* set({ status: "paused" })
      yield* call("turn/interrupt", { threadId, turnId: last }, "turn/completed")
      yield* runTurn(threadId, "alone")
      yield* set({ objective: "another", tokenBudget: 100 })
      yield* set({ tokenBudget: null })
      yield* call("thread/goal/clear", { threadId }, "thread/goal/cleared")
      yield* call("thread/goal/get", { threadId })
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
    })
  },
  "a goal with a budget, and one that its turn completes": {
    home: withGoals,
    // The real server reports a request whose tool completes the goal after the tool.
    omit: ["thread/tokenUsage/updated", "account/rateLimits/updated"],
    replies: [
      step,
      step,
      // The real server may complete the goal before or after it counts the tokens of the request.
      ModelServer.reply([ModelServer.functionCall("update_goal", { status: "complete" })], { usage: usage(0, 0) }),
      step
    ],
    script: [
      stepping,
      stepping,
      () =>
        Effect.gen(function*() {
          yield* FakeAppServer.updateGoal("complete")
          yield* FakeAppServer.text("step")
          yield* FakeAppServer.usage(usage(10, 1))
        })
    ],
    program: Effect.fnUntraced(function*({ awaitMessage, call, received, startThread }) {
      const threadId = yield* startThread()
      const idle = Effect.fnUntraced(function*(status: string, from: number) {
        yield* awaitMessage(
          ({ method, params }) => method === "thread/goal/updated" && params.goal.status === status,
          from
        )
        yield* awaitMessage(({ method }) => method === "turn/completed", (yield* received).length - 1)
      })
      yield* call("thread/goal/set", { threadId, objective: "count", tokenBudget: 20 })
      yield* idle("budgetLimited", 0)
      yield* call("thread/goal/set", { threadId, status: "active" }, "thread/goal/updated")
      const from = (yield* received).length
      yield* call("thread/goal/set", { threadId, status: "active", tokenBudget: 100 })
      yield* idle("complete", from)
      yield* call("thread/goal/set", { threadId, objective: "another" }, "thread/goal/updated")
    })
  },
  "a goal whose turns fail": {
    home: withGoals,
    // The real server reports the rate limits of a request that exceeds them.
    omit: ["account/rateLimits/updated", "thread/tokenUsage/updated"],
    replies: [
      step,
      ModelServer.httpError(500),
      ModelServer.httpError(429, { error: { type: "usage_limit_reached", message: "no" } })
    ],
    script: [stepping, failing, () => FakeAppServer.fail("no", "usageLimitExceeded")],
    program: Effect.fnUntraced(function*({ awaitMessage, call, received, startThread }) {
      const threadId = yield* startThread()
      const failed = (from: number) =>
        awaitMessage(({ method, params }) => method === "turn/completed" && params.turn.status === "failed", from)
      yield* call("thread/goal/set", { threadId, objective: "count" })
      yield* failed(0)
      yield* call("thread/goal/get", { threadId })
      const from = (yield* received).length
      yield* call("thread/goal/set", { threadId, status: "active" })
      yield* failed(from)
      yield* call("thread/goal/get", { threadId })
    })
  },
  "a goal of a thread that is resumed": {
    omit: repeatedReports,
    home: withGoals,
    replies: [step, halfMessage, halfMessage],
    script: [stepping, halting, halting],
    program: Effect.fnUntraced(function*(client) {
      const { call, received, startThread } = client
      for (const method of ["set", "get", "clear"]) yield* call(`thread/goal/${method}`, { threadId: nowhere })
      const ephemeral = yield* startThread({ ephemeral: true })
      yield* call("thread/goal/set", { threadId: ephemeral, objective: "count" })
      yield* call("thread/goal/get", { threadId: ephemeral })
      const threadId = yield* startThread()
      yield* call("thread/goal/set", { threadId, objective: "count" })
      const turnId = yield* awaitHalf(client, threadId)
      yield* call("turn/interrupt", { threadId, turnId }, "turn/completed")
      const from = (yield* received).length
      yield* reopen(client, threadId)
      const resumed = yield* awaitHalf(client, threadId, from)
      yield* call("thread/goal/clear", { threadId }, "thread/goal/cleared")
      yield* call("turn/interrupt", { threadId, turnId: resumed }, "turn/completed")
    })
  },
  "a review": {
    replies: [
      says("one", 7, 3),
      calls(ModelServer.functionCall("exec_command", { cmd: "sleep 0.4", login: false })),
      says("fine", 20, 2),
      says("two", 7, 3)
    ],
    script: (turn) =>
      turn.text === "look"
        ? Stream.make(
          FakeAppServer.command("sleep 0.4"),
          FakeAppServer.usage(usage(5, 1)),
          FakeAppServer.text("fine"),
          FakeAppServer.usage(usage(20, 2))
        )
        : echo(turn),
    program: Effect.fnUntraced(function*({ call, runTurn, startThread }) {
      const threadId = yield* startThread()
      yield* runTurn(threadId, "one")
      yield* call("review/start", { threadId, target: custom("look") }, "turn/completed")
      yield* call("thread/list", {})
      yield* call("thread/list", { sourceKinds: ["subAgent"] })
      const { result } = yield* call("thread/list", { sourceKinds: ["subAgentReview"] })
      const reviewId = result.data[0].id
      yield* call("thread/loaded/list")
      yield* call("thread/read", { threadId: reviewId })
      yield* call("thread/resume", { threadId: reviewId, excludeTurns: true }, "thread/tokenUsage/updated")
      yield* call("thread/turns/list", { threadId: reviewId, itemsView: "full" })
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
      yield* call("thread/unsubscribe", { threadId: reviewId })
      yield* runTurn(threadId, "two")
    })
  },
  "reviews that replace a turn, are interrupted, and fail": {
    omit: repeatedReports,
    replies: [halfMessage, halfMessage, halfMessage, ModelServer.httpError(500), step, step, step],
    script: [halting, halting, halting, failing, stepping, stepping, stepping],
    program: Effect.fnUntraced(function*(client) {
      const { awaitMessage, call, received, startThread, startTurn } = client
      /** Starts a review, and returns both its ids. */
      const review = Effect.fnUntraced(function*(threadId: string, instructions: string) {
        const from = (yield* received).length
        const { result } = yield* call("review/start", { threadId, target: custom(instructions) })
        const { params } = yield* awaitMessage(({ method }) => method === "turn/started", from)
        yield* awaitMessage(
          ({ method, params }) =>
            method === "item/started" && params.item.type === "agentMessage" && params.turnId === result.turn.id,
          from
        )
        return { startedId: params.turn.id, turnId: result.turn.id }
      })
      yield* call("review/start", { threadId: nowhere, target: custom("look") })
      const threadId = yield* startThread()
      yield* startTurn(threadId, "hi")
      yield* awaitHalf(client, threadId)
      yield* review(threadId, "look")
      const { startedId, turnId } = yield* review(threadId, "again")
      const input = [{ type: "text", text: "more", text_elements: [] }]
      yield* call("turn/steer", { threadId, input, expectedTurnId: startedId })
      yield* call("turn/steer", { threadId, input, expectedTurnId: turnId })
      yield* call("turn/start", { threadId, input })
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
      yield* call("turn/interrupt", { threadId, turnId })
      yield* call("turn/interrupt", { threadId, turnId: startedId }, "turn/completed")
      for (
        const target of [
          custom("look"),
          custom(" "),
          { type: "uncommittedChanges" },
          { type: "commit", sha: "abcdef1234", title: "Fix" },
          { type: "commit", sha: "abcdef1234" }
        ]
      ) yield* call("review/start", { threadId, target }, "turn/completed")
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
    })
  },
  "a message that is retracted": {
    home: { config: { model_providers: { mock_provider: { stream_max_retries: 1 } } } },
    replies: [
      says("one", 7, 3),
      ModelServer.cut([ModelServer.deltas(["The ans", "wer"], { unfinished: true })]),
      says("42", 7, 3)
    ],
    script: (turn) =>
      turn.text === "one" ? echo(turn) : Stream.make(
        FakeAppServer.deltas(["The ans", "wer"], { unfinished: true }),
        FakeAppServer.retry("Reconnecting... 1/1"),
        FakeAppServer.text("42"),
        FakeAppServer.usage(usage(7, 3))
      ),
    program: Effect.fnUntraced(function*({ call, runTurn, startThread }) {
      const threadId = yield* startThread()
      yield* runTurn(threadId, "one")
      yield* runTurn(threadId, "two")
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
    })
  },
  "the methods of the server itself": {
    program: Effect.fnUntraced(function*({ call }) {
      yield* call("initialize", { clientInfo: { name: "again", version: "1" } })
      yield* call("model/list", {})
      yield* call("model/list", { cursor: "junk" })
      yield* call("account/read", {})
      yield* call("account/rateLimits/read", {})
      yield* call("config/read", {})
      yield* call("thread/list", {})
      yield* call("thread/list", { cursor: "junk" })
      yield* call("thread/loaded/list", { cursor: "junk" })
      yield* call("thread/explode", {})
      yield* call("thread/read", {})
      yield* call("turn/start", { threadId: 5 })
    })
  },
  "an unknown thread": {
    program: Effect.fnUntraced(function*({ call }) {
      for (
        const [method, params] of Object.entries({
          "thread/read": {},
          "thread/turns/list": {},
          "thread/resume": {},
          "thread/fork": {},
          "thread/name/set": { name: "mine" },
          "thread/archive": {},
          "thread/unarchive": {},
          "thread/unsubscribe": {},
          "thread/settings/update": {},
          "thread/compact/start": {},
          "thread/backgroundTerminals/list": {},
          "thread/backgroundTerminals/clean": {},
          "thread/backgroundTerminals/terminate": { processId: "1" },
          "turn/start": { input: [] },
          "turn/steer": { input: [], expectedTurnId: "none" },
          "turn/interrupt": { turnId: "" }
        })
      ) yield* call(method, { threadId: nowhere, ...params })
    })
  },
  "a thread that never ran": {
    program: Effect.fnUntraced(function*({ call, startThread }) {
      const threadId = yield* startThread()
      yield* call("thread/turns/list", { threadId })
      yield* call("thread/fork", { threadId })
      yield* call("thread/resume", { threadId })
      yield* call("thread/read", { threadId })
      yield* call("thread/settings/update", { threadId })
      yield* call("thread/backgroundTerminals/list", { threadId })
      yield* call("thread/backgroundTerminals/clean", { threadId })
      yield* call("thread/backgroundTerminals/terminate", { threadId, processId: "1" })
      yield* call("turn/steer", { threadId, input: [], expectedTurnId: "none" })
      yield* call("turn/interrupt", { threadId, turnId: "" })
      yield* call("turn/interrupt", { threadId, turnId: "none" })
      yield* call("thread/list", {})
      yield* call("thread/read", { threadId, includeTurns: true })
      yield* call("thread/turns/list", { threadId })
      yield* call("thread/unarchive", { threadId })
      yield* call("thread/archive", { threadId }, "thread/archived")
      yield* call("thread/archive", { threadId })
      yield* call("thread/resume", { threadId })
      yield* call("thread/fork", { threadId })
      yield* call("thread/name/set", { threadId, name: "mine" })
      yield* call("thread/read", { threadId, includeTurns: true })
      yield* call("thread/turns/list", { threadId })
      yield* call("turn/start", { threadId, input: [] })
      yield* call("thread/unarchive", { threadId }, "thread/unarchived")
      yield* call("thread/unarchive", { threadId })
      yield* call("turn/start", { threadId, input: [] })
      yield* call("thread/resume", { threadId, excludeTurns: true })
      yield* call("thread/turns/list", { threadId })
      yield* call("thread/list", {})
      const named = yield* startThread()
      yield* call("thread/name/set", { threadId: named, name: "mine" }, "thread/name/updated")
      yield* call("thread/fork", { threadId: named, excludeTurns: true }, "thread/started")
      const archived = yield* startThread()
      yield* call("thread/archive", { threadId: archived }, "thread/archived")
    })
  },
  "items that are injected": {
    replies: [says("one", 7, 3)],
    script: echo,
    program: Effect.fnUntraced(function*({ call, runTurn, startThread }) {
      const items = [{ type: "message", role: "user", content: [{ type: "input_text", text: "before" }] }]
      yield* call("thread/inject_items", { threadId: "00000000-0000-7000-8000-000000000000", items })
      const ephemeral = yield* startThread({ ephemeral: true })
      yield* call("thread/inject_items", { threadId: ephemeral, items })
      const threadId = yield* startThread()
      yield* call("thread/inject_items", { threadId, items })
      yield* call("thread/fork", { threadId, excludeTurns: true }, "thread/started")
      yield* runTurn(threadId, "one")
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
    })
  },
  "a fork that ends with an earlier turn": {
    replies: [says("one", 7, 3), says("two", 7, 3)],
    script: echo,
    program: Effect.fnUntraced(function*({ call, completed, runTurn, startThread, startTurn }) {
      const threadId = yield* startThread()
      const lastTurnId = yield* startTurn(threadId, "one")
      yield* completed(lastTurnId)
      yield* runTurn(threadId, "two")
      yield* call("thread/fork", { threadId, lastTurnId, excludeTurns: true }, "thread/started")
      yield* call("thread/fork", { threadId, lastTurnId: "none", excludeTurns: true })
    })
  },
  "an ephemeral thread": {
    replies: [says("one", 7, 3)],
    script: echo,
    program: Effect.fnUntraced(function*({ call, runTurn, startThread }) {
      const threadId = yield* startThread({ ephemeral: true })
      yield* runTurn(threadId, "one")
      yield* call("thread/read", { threadId })
      yield* call("thread/read", { threadId, includeTurns: true })
      yield* call("thread/turns/list", { threadId })
      yield* call("thread/name/set", { threadId, name: "mine" })
      yield* call("thread/archive", { threadId })
      yield* call("thread/unarchive", { threadId })
      yield* call("thread/resume", { threadId })
      yield* call("thread/fork", { threadId })
      yield* call("thread/unsubscribe", { threadId })
      yield* call("thread/unsubscribe", { threadId })
    })
  },
  "turns that complete, fail and are interrupted, in pages": {
    replies: [says("one", 7, 3), says("two", 9, 2), ModelServer.httpError(500), halfMessage, says("five", 1, 1)],
    script: (turn) => {
      switch (turn.text) {
        case "three":
          return FakeAppServer.fail("it broke", "internalServerError")
        case "four":
          return Effect.andThen(sendHalf(), FakeAppServer.never)
        default:
          return Effect.andThen(
            FakeAppServer.text(turn.text),
            FakeAppServer.usage({ one: usage(7, 3), two: usage(9, 2) }[turn.text] ?? usage(1, 1))
          )
      }
    },
    program: Effect.fnUntraced(function*({ awaitMessage, call, completed, runTurn, startThread, startTurn }) {
      const threadId = yield* startThread()
      for (const text of ["one", "two", "three"]) yield* runTurn(threadId, text)
      yield* call("thread/read", { threadId })
      const turnId = yield* startTurn(threadId, "four")
      yield* awaitMessage(({ method, params }) => method === halfDelta && params.turnId === turnId)
      yield* call("turn/interrupt", { threadId, turnId: "none" })
      yield* call("turn/steer", { threadId, input: [], expectedTurnId: "none" })
      yield* call("turn/interrupt", { threadId, turnId })
      yield* completed(turnId)
      yield* runTurn(threadId, "five")
      for (const itemsView of [undefined, "full", "summary", "notLoaded"]) {
        yield* call("thread/turns/list", { threadId, itemsView })
      }
      const first = yield* call("thread/turns/list", { threadId, limit: 2 })
      const second = yield* call("thread/turns/list", { threadId, limit: 2, cursor: first.result.nextCursor })
      yield* call("thread/turns/list", { threadId, limit: 2, cursor: second.result.nextCursor })
      yield* call("thread/turns/list", { threadId, sortDirection: "asc", limit: 3 })
      yield* call("thread/turns/list", { threadId, sortDirection: "asc", cursor: second.result.backwardsCursor })
      yield* call("thread/turns/list", { threadId, limit: 0 })
      yield* call("thread/turns/list", { threadId, cursor: "junk" })
      yield* call("thread/read", { threadId, includeTurns: true })
    })
  },
  "settings that turns and updates change": {
    replies: Array.from({ length: 7 }, () => says("x", 7, 3)),
    script: () => Effect.andThen(FakeAppServer.text("x"), FakeAppServer.usage(usage(7, 3))),
    program: Effect.fnUntraced(function*(client) {
      const { call, runTurn, startThread, workspace } = client
      const threadId = yield* startThread()
      yield* runTurn(threadId, "x", { approvalPolicy: "on-request" })
      yield* runTurn(threadId, "x", { approvalPolicy: "never" })
      yield* runTurn(threadId, "x", { sandboxPolicy: { type: "workspaceWrite" } })
      yield* runTurn(threadId, "x", {
        sandboxPolicy: { type: "workspaceWrite", writableRoots: ["/a"], networkAccess: true },
        runtimeWorkspaceRoots: [workspace, "/b"]
      })
      yield* runTurn(threadId, "x", { model: "another", effort: "high", summary: "concise" })
      yield* runTurn(threadId, "x", { model: "yet-another", serviceTier: "flex" })
      yield* call("thread/settings/update", { threadId, approvalPolicy: "never" })
      const changed = "thread/settings/updated"
      yield* call("thread/settings/update", { threadId, approvalPolicy: "untrusted", cwd: "/" }, changed)
      yield* call("thread/settings/update", {
        threadId,
        sandboxPolicy: { type: "dangerFullAccess" },
        approvalsReviewer: "guardian_subagent"
      }, changed)
      yield* call("thread/resume", { threadId, excludeTurns: true, approvalPolicy: "never", model: "ignored" })
      yield* call("thread/fork", { threadId, excludeTurns: true }, "thread/started")
      yield* reopen(client, threadId)
      yield* reopen(client, threadId, { model: "given" })
      yield* reopen(client, threadId, { sandbox: "read-only", approvalPolicy: "never", cwd: workspace })
      yield* reopen(client, threadId, { config: { model_reasoning_effort: "low" } })
    })
  },
  "settings that a thread is opened with": {
    replies: [says("x", 7, 3)],
    script: () => Effect.andThen(FakeAppServer.text("x"), FakeAppServer.usage(usage(7, 3))),
    program: Effect.fnUntraced(function*(client) {
      const { call, runTurn, startThread, workspace } = client
      yield* startThread({
        config: {
          model: "configured",
          model_reasoning_effort: "low",
          approval_policy: "never",
          approvals_reviewer: "auto_review",
          sandbox_mode: "workspace-write",
          "sandbox_workspace_write.network_access": true
        }
      })
      yield* startThread({ sandbox: "workspace-write", cwd: "/" })
      const threadId = yield* startThread({
        sandbox: "workspace-write",
        approvalPolicy: "never",
        model: "given",
        runtimeWorkspaceRoots: [workspace, "/b"]
      })
      yield* runTurn(threadId, "x")
      // Forks and resumes take `workspace-write` and the model from the configuration.
      yield* call("thread/fork", { threadId, excludeTurns: true }, "thread/started")
      yield* call("thread/fork", {
        threadId,
        excludeTurns: true,
        sandbox: "workspace-write",
        model: "given",
        config: { sandbox_workspace_write: { writable_roots: ["/z"], exclude_slash_tmp: true } }
      }, "thread/started")
      yield* reopen(client, threadId, {
        config: { "sandbox_workspace_write.writable_roots": ["/z"], sandbox_mode: "workspace-write" }
      })
      yield* reopen(client, threadId)
    })
  },
  "a thread that is unsubscribed and resumed": {
    replies: ["one", "two", "three", "four", "five"].map((text) => says(text, 7, 3)),
    script: echo,
    program: Effect.fnUntraced(function*(client) {
      const { awaitMessage, call, runTurn, startThread, startTurn } = client
      const threadId = yield* startThread()
      yield* runTurn(threadId, "one")
      yield* call("thread/unsubscribe", { threadId })
      yield* call("thread/unsubscribe", { threadId })
      const from = (yield* client.received).length
      yield* startTurn(threadId, "two")
      // The server reports only the status of a thread without a subscription.
      yield* awaitMessage(
        ({ method, params }) => method === "thread/status/changed" && params.status.type === "idle",
        from
      )
      yield* call("thread/resume", { threadId, excludeTurns: true })
      yield* runTurn(threadId, "three")
      yield* call("thread/resume", { threadId }, "thread/tokenUsage/updated")
      // Threads are sorted by their creation time in seconds.
      yield* Effect.sleep("1.1 seconds")
      const { result } = yield* call("thread/fork", { threadId }, "thread/started")
      yield* runTurn(result.thread.id, "four")
      yield* call("thread/archive", { threadId }, "thread/archived")
      yield* call("thread/unsubscribe", { threadId })
      yield* call("thread/unarchive", { threadId }, "thread/unarchived")
      yield* call("thread/resume", { threadId, excludeTurns: true }, "thread/tokenUsage/updated")
      yield* call("thread/loaded/list", {})
      yield* call("thread/list", { limit: 10 })
      yield* call("thread/list", { sortDirection: "asc" })
      yield* Effect.sleep("1.1 seconds")
      yield* runTurn(threadId, "five")
      yield* call("thread/list", { sortKey: "updated_at" })
      yield* call("thread/list", { archived: true })
    })
  },
  "a turn that gets more input": {
    replies: [says("one", 7, 3), halfMessage, says("done", 7, 3)],
    script: (turn) =>
      turn.text === "one"
        ? Effect.andThen(FakeAppServer.text("one"), FakeAppServer.usage(usage(7, 3)))
        : Effect.gen(function*() {
          yield* sendHalf()
          yield* turn.nextSteer
          yield* FakeAppServer.text("done")
          yield* FakeAppServer.usage(usage(7, 3))
        }),
    program: Effect.fnUntraced(function*({ awaitMessage, completed, runTurn, startThread, startTurn }) {
      const threadId = yield* startThread()
      yield* runTurn(threadId, "one")
      const turnId = yield* startTurn(threadId, "two")
      yield* awaitMessage(({ method, params }) => method === halfDelta && params.turnId === turnId)
      yield* startTurn(threadId, "more")
      yield* completed(turnId)
    })
  },
  "a turn that is interrupted while it waits for the client": {
    // The script does not report the usage of the request that calls the command.
    omit: ["thread/tokenUsage/updated"],
    replies: [says("one", 5, 1), calls(touch)],
    script: (turn) =>
      turn.text === "one" ? Effect.andThen(FakeAppServer.text("one"), FakeAppServer.usage(usage(5, 1))) : touching,
    program: Effect.fnUntraced(function*({ awaitMessage, call, runTurn, startThread, startTurn }) {
      const threadId = yield* startThread({ approvalPolicy: "untrusted" })
      yield* runTurn(threadId, "one")
      const turnId = yield* startTurn(threadId, "two")
      yield* awaitMessage(({ method }) => method === commandApproval)
      yield* call("turn/interrupt", { threadId, turnId }, "serverRequest/resolved")
    })
  },
  "a command that is accepted": requesting(commandApproval, touch, touching, { result: { decision: "accept" } }),
  "a command that is declined": requesting(commandApproval, touch, touching, { result: { decision: "decline" } }),
  "a command whose approval fails": requesting(commandApproval, touch, touching, refusal),
  "a patch that is declined": requesting(patchApproval, patch, patching, { result: { decision: "decline" } }),
  "a patch whose approval fails": requesting(patchApproval, patch, patching, refusal),
  "a tool call": requesting(
    "item/tool/call",
    ModelServer.functionCall("lookup", { id: 1 }),
    FakeAppServer.toolCall("lookup", { id: 1 }),
    { result: { success: true, contentItems: [{ type: "inputText", text: "open" }] } },
    { dynamicTools: [tool] }
  ),
  "a tool call that is rejected": requesting(
    "item/tool/call",
    ModelServer.functionCall("lookup", { id: 1 }),
    Effect.ignore(FakeAppServer.toolCall("lookup", { id: 1 })),
    refusal,
    { dynamicTools: [tool] }
  ),
  "a tool call with an invalid result": requesting(
    "item/tool/call",
    ModelServer.functionCall("lookup", { id: 1 }),
    Effect.ignore(FakeAppServer.toolCall("lookup", { id: 1 })),
    { result: { success: "yes" } },
    { dynamicTools: [tool] }
  ),
  "a command that cancels the turn": requesting(commandApproval, touch, touching, { result: { decision: "cancel" } }),
  "a patch that cancels the turn": requesting(patchApproval, patch, patching, { result: { decision: "cancel" } }),
  "a command that outlives its turn": {
    // The script does not report the usage of the request that calls the command.
    omit: ["thread/tokenUsage/updated"],
    replies: [says("one", 5, 1), calls(ModelServer.functionCall("exec_command", { cmd: "sleep 60", login: false }))],
    script: (turn) =>
      turn.text === "one"
        ? Effect.andThen(FakeAppServer.text("one"), FakeAppServer.usage(usage(5, 1)))
        : Effect.andThen(
          FakeAppServer.itemStarted({
            type: "commandExecution",
            id: turn.newId("command"),
            command: "/bin/bash -c 'sleep 60'",
            cwd: "/workspace",
            processId: turn.newId("process"),
            status: "inProgress",
            commandActions: [{ type: "unknown", command: "sleep 60" }]
          }),
          FakeAppServer.never
        ),
    program: Effect.fnUntraced(function*({ awaitMessage, call, runTurn, startThread, startTurn }) {
      const threadId = yield* startThread({ sandbox: "danger-full-access" })
      yield* runTurn(threadId, "one")
      const turnId = yield* startTurn(threadId, "two")
      yield* awaitMessage(({ method, params }) => method === "item/started" && params.item.type === "commandExecution")
      yield* Effect.sleep("500 millis")
      yield* call("thread/resume", { threadId, excludeTurns: true, initialTurnsPage })
      const { result } = yield* call("thread/backgroundTerminals/list", { threadId })
      yield* call("turn/interrupt", { threadId, turnId }, "turn/completed")
      yield* call("thread/backgroundTerminals/list", { threadId })
      const { processId } = result.data[0]
      yield* call("thread/backgroundTerminals/terminate", { threadId, processId }, "item/completed")
      yield* call("thread/backgroundTerminals/terminate", { threadId, processId })
      yield* call("thread/backgroundTerminals/list", { threadId })
      yield* call("thread/backgroundTerminals/clean", { threadId })
    })
  },
  "a turn that reports rate limits": {
    // The fake reports the limits with an action of their own.
    omit: ["thread/tokenUsage/updated"],
    replies: [
      ModelServer.withRateLimit(ModelServer.deltas(["hi"]), exceededLimit),
      ModelServer.withRateLimit(
        ModelServer.httpError(429, { error: { type: "usage_limit_reached", message: "no", plan_type: "pro" } }),
        { limitId: "codex_spark", primary: { usedPercent: 3 }, rateLimitReachedType: "rate_limit_reached" }
      )
    ],
    script: ({ text }) =>
      text === "one"
        ? Effect.andThen(FakeAppServer.text("hi"), FakeAppServer.rateLimits(exceededLimit))
        : Effect.andThen(
          FakeAppServer.rateLimits({
            limitId: "codex_spark",
            primary: { usedPercent: 3, windowDurationMins: null, resetsAt: null },
            rateLimitReachedType: "rate_limit_reached"
          }),
          FakeAppServer.fail(
            "You\u2019ve hit your usage limit. Visit https://chatgpt.com/settings/usage to purchase more credits or try again later.",
            "usageLimitExceeded"
          )
        ),
    program: Effect.fnUntraced(function*({ runTurn, startThread }) {
      const threadId = yield* startThread()
      yield* runTurn(threadId, "one")
      yield* runTurn(threadId, "two")
    })
  },
  "a thread that is compacted": {
    // The fake sends no request to a model for the summary.
    omit: ["thread/tokenUsage/updated", "account/rateLimits/updated"],
    replies: [says("one", 7, 3), says("summary", 7, 3)],
    script: echo,
    program: Effect.fnUntraced(function*({ awaitMessage, call, received, runTurn, startThread }) {
      const threadId = yield* startThread()
      yield* runTurn(threadId, "one")
      const from = (yield* received).length
      yield* call("thread/compact/start", { threadId })
      yield* awaitMessage(({ method }) => method === "turn/completed", from)
      yield* call("thread/turns/list", { threadId, itemsView: "full" })
    })
  }
}

const collectMessages = ({ program }: Scenario, workspace: string) =>
  Effect.gen(function*() {
    const client = yield* connect(workspace)
    yield* program(client)
    return yield* client.received
  }).pipe(Effect.scoped)

const layerFake = ({ script }: Scenario) => {
  if (script === undefined || typeof script === "function") return FakeAppServer.layer(script)
  const rest = script.slice()
  return FakeAppServer.layer((turn) => rest.shift()!(turn))
}

const onFake = (scenario: Scenario) => collectMessages(scenario, "/workspace").pipe(Effect.provide(layerFake(scenario)))

/** The fake keeps a thread without a subscriber loaded, as the server does for half an hour by default. */
const keepLoaded = { thread_unload_delay_secs: 1800 }

// The fake implements the pinned version.
describe.skipIf(version !== Protocol.version)("FakeAppServer sends only what the real server sends:", () => {
  // Each scenario takes a second and more.
  const sampled = Object.entries(scenarios).filter((_, index) => isThorough || index % 5 === 0)
  for (const [name, scenario] of sampled) {
    it.live(name, () =>
      Effect.gen(function*() {
        const { workspace } = yield* CodexEnvironment.CodexEnvironment
        const model = yield* ModelServer.ModelServer
        yield* model.enqueue(...scenario.replies ?? [])
        if (scenario.respond !== undefined) yield* model.respond(scenario.respond)
        const real = yield* collectMessages(scenario, workspace).pipe(
          Effect.provide(TestCodex.layerTransport({ config: keepLoaded }))
        )
        const fake = yield* onFake(scenario)
        const names = new Map([["/workspace", workspace], ["fake-model", "mock-model"], ["fake", "mock_provider"]])
        compare(fake, real, names, scenario)
      }).pipe(Effect.provide(TestCodex.layerEnvironment({
        ...scenario.home,
        config: { approval_policy: "on-request", ...scenario.home?.config }
      }))))
  }
})

/** What a client receives of a turn that another client starts. */
const observe = <E>(
  client: Client,
  startTurn: (threadId: string, input: string) => Effect.Effect<unknown, E>
) =>
  Effect.gen(function*() {
    const threadId = yield* client.startThread()
    yield* client.runTurn(threadId, "one")
    const from = (yield* client.received).length
    yield* startTurn(threadId, "two")
    yield* client.awaitMessage(({ method }) => method === "turn/completed", from)
    yield* client.call("thread/turns/list", { threadId, itemsView: "full" })
    return yield* client.received
  })

describe.skipIf(version !== Protocol.version)("FakeAppServer", () => {
  it.live("sends what the real server sends of another client's turn", () =>
    Effect.gen(function*() {
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(says("one", 7, 3), says("two", 7, 3))
      const real = yield* Effect.gen(function*() {
        const client = yield* connect(workspace)
        const other = yield* connect(workspace)
        return yield* observe(client, other.startTurn)
      }).pipe(Effect.provideServiceEffect(Transport.Transport, SocketAppServer.make), Effect.scoped)
      const fake = yield* Effect.gen(function*() {
        const server = yield* FakeAppServer.FakeAppServer
        const client = yield* connect("/workspace")
        return yield* observe(client, (threadId, input) => server.startTurn(threadId, { input }))
      }).pipe(Effect.scoped, Effect.provide(FakeAppServer.layer(echo)))
      const names = new Map([["/workspace", workspace], ["fake-model", "mock-model"], ["fake", "mock_provider"]])
      compare(fake, real, names, {})
    }).pipe(Effect.provide(TestCodex.layerEnvironment({ config: { approval_policy: "on-request" } }))))
})

describe("the scenarios of wireAgreement", () => {
  it.live("call every method that the fake implements", () =>
    Effect.gen(function*() {
      const called = new Set<string>()
      let known: ReadonlyArray<string> = []
      for (const scenario of Object.values(scenarios)) {
        yield* Effect.gen(function*() {
          yield* collectMessages(scenario, "/workspace")
          const fake = yield* FakeAppServer.FakeAppServer
          known = fake.methods
          for (const { id, method } of yield* fake.sent) {
            if (id !== undefined && method !== undefined) called.add(method)
          }
        }).pipe(Effect.provide(layerFake(scenario)))
      }
      assert.deepStrictEqual(known.filter((method) => !called.has(method)), [])
      assert.isAbove(known.length, 20)
    }))
})
