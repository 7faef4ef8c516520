/** Turns of every kind on the real app-server. `npm run record` records them, and the tests of `TurnView` fold them. */
import { Approvals, AppServer, Codex, type Protocol, Questions, type Thread, Tool } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Cassette from "../../src/testing/Cassette.ts"
import * as ModelServer from "../../src/testing/ModelServer.ts"
import * as Kit from "../../src/testing/TestCodex.ts"
import * as TestCodex from "../TestCodex.ts"
import { layerCodex } from "./layerCodex.ts"

export const cassette = "test/cassettes/turns.jsonl"

const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="

const usage = { inputTokens: 120, cachedInputTokens: 40, outputTokens: 30, reasoningTokens: 12 }

const done = ModelServer.reply([ModelServer.deltas(["All ", "done."], { phase: "final_answer" })], { usage })

const half = ModelServer.deltas(["Half", " of it"], { unfinished: true })

let calls = 0

const call = (name: string, args: object, namespace?: string): ModelServer.Item =>
  ModelServer.functionCall(name, args, { callId: `call_${calls++}`, namespace })

const patch = (...lines: ReadonlyArray<string>): ModelServer.Item =>
  ModelServer.customToolCall("apply_patch", ["*** Begin Patch", ...lines, "*** End Patch"].join("\n"))

/** The replies of the model in each turn that runs to its end. */
const scripts: Readonly<Record<string, ReadonlyArray<ModelServer.Reply>>> = {
  "Think, then answer": [
    ModelServer.reply([
      ModelServer.reasoning(["Weighing", "Choosing"], { content: "raw thoughts" }),
      ModelServer.deltas(["I look", " first."], { phase: "commentary" }),
      ModelServer.deltas(["Forty", "-", "two."], { phase: "final_answer" })
    ], { usage })
  ],
  "Run a command": [
    call("exec_command", { cmd: "for i in 1 2 3; do echo line $i; sleep 0.3; done; exit 3", login: false }),
    done
  ],
  "Print a lot": [call("exec_command", { cmd: "sleep 0.4; seq 1 14000", login: false }), done],
  "Run two commands": [
    ModelServer.reply([
      call("exec_command", { cmd: "sleep 0.6; echo slow", login: false }),
      call("exec_command", { cmd: "sleep 0.4; echo fast", login: false })
    ]),
    done
  ],
  "Run a forbidden command": [call("exec_command", { cmd: "touch forbidden", login: false }), done],
  "Change files": [
    patch("*** Add File: new.txt", "+hello"),
    patch("*** Update File: new.txt", "@@", "-hello", "+bye"),
    patch("*** Update File: missing.txt", "@@", "-hello", "+bye"),
    done
  ],
  "Change a forbidden file": [patch("*** Add File: forbidden.txt", "+hello"), done],
  "Call a tool": [call("lookup", { id: "A" }), done],
  "Call MCP tools": [
    call("erase", { what: "it" }, "mcp__people"),
    call("introduce", {}, "mcp__people"),
    call("missing", {}, "mcp__people"),
    done
  ],
  "Update the plan": [
    call("update_plan", { explanation: "why", plan: [{ step: "one", status: "in_progress" }] }),
    done
  ],
  "Retry": [ModelServer.cut([ModelServer.reasoning("Half a thought"), half]), done],
  "Fail after a retry": [ModelServer.cut([half]), ModelServer.cut([half])],
  "Fail": [ModelServer.httpError(400)],
  "Search": [
    ModelServer.reply([
      ModelServer.events(
        { type: "response.output_item.added", item: { type: "web_search_call", id: "ws_1", status: "in_progress" } },
        {
          type: "response.output_item.done",
          item: {
            type: "web_search_call",
            id: "ws_1",
            status: "completed",
            action: { type: "search", query: "effect" }
          }
        }
      ),
      ModelServer.message("found")
    ], { usage })
  ],
  "Draw": [
    ModelServer.reply([
      ModelServer.events({
        type: "response.output_item.done",
        item: { type: "image_generation_call", id: "ig_1", status: "completed", revised_prompt: "a dot", result: png }
      }),
      ModelServer.message("drawn")
    ], { usage })
  ],
  "Ask": [
    call("request_user_input", {
      questions: [{
        id: "database",
        header: "Database",
        question: "Where shall the data live?",
        options: [{ label: "PostgreSQL", description: "A server" }, { label: "SQLite", description: "A file" }]
      }]
    }),
    done
  ],
  "Propose a plan": [
    ModelServer.reply([ModelServer.deltas(["Intro\n", "<proposed_plan>\n- a\n", "- b\n</proposed_plan>\n", "Outro"])], {
      usage
    })
  ]
}

/** The inputs for which the model is in plan mode. */
const planned: ReadonlySet<string> = new Set(["Ask", "Propose a plan"])

const planMode = {
  collaborationMode: { mode: "plan", settings: { model: "mock-model", developer_instructions: "Be short." } }
} as const
const defaultMode = {
  collaborationMode: { mode: "default", settings: { model: "mock-model", developer_instructions: "Be short." } }
} as const

const approvals: Approvals.Handlers = {
  command: ({ command }) =>
    Effect.succeed(command?.includes("forbidden") === true ? Approvals.decline : Approvals.accept),
  fileChange: ({ changes }) =>
    Effect.succeed(
      changes?.some(({ path }) => path.includes("forbidden")) === true ? Approvals.decline : Approvals.accept
    ),
  mcpToolCall: () => Effect.succeed(Approvals.accept)
}

const questions: Questions.Handlers = {
  userInput: () => Effect.succeed({ database: "SQLite" }),
  elicitation: () => Effect.succeed(Questions.decline)
}

const lookup = Tool.make("lookup", {
  description: "Looks up a ticket",
  parameters: Schema.Struct({ id: Schema.String }),
  handler: ({ id }) => Effect.succeed(`ticket ${id} is open`)
})

/** Waits for the next notification that satisfies a predicate. Run it to subscribe, and run its result to wait. */
const next = Effect.fnUntraced(function*(predicate: (event: Protocol.ServerNotification) => boolean) {
  const server = yield* AppServer.AppServer
  const fiber = yield* server.notifications.pipe(
    Stream.filter(predicate),
    Stream.runHead,
    Effect.forkChild({ startImmediately: true })
  )
  return Fiber.join(fiber)
})

/** Starts a turn whose message does not complete, and interrupts it as soon as the message has text. */
const interrupt = Effect.fnUntraced(function*(thread: Thread.Thread, input: string) {
  const turn = yield* thread.turn(input)
  yield* Stream.runHead(turn.text)
  yield* turn.interrupt
  yield* turn.result
}, Effect.scoped)

const steer = Effect.fnUntraced(function*(thread: Thread.Thread) {
  const turn = yield* thread.turn("Begin")
  yield* Stream.runHead(turn.text)
  yield* turn.steer("more")
  yield* turn.result
}, Effect.scoped)

/** Runs a turn of each kind, and reads the stored turns. */
export const scenario = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const server = yield* AppServer.AppServer
  const model = yield* ModelServer.ModelServer
  const thread = yield* codex.startThread({
    sandbox: "danger-full-access",
    approvalPolicy: "untrusted",
    approvalsReviewer: "user",
    tools: [lookup],
    approvals,
    questions
  })
  for (const [input, replies] of Object.entries(scripts)) {
    yield* model.enqueue(...replies)
    yield* Effect.exit(thread.run(input, planned.has(input) ? planMode : defaultMode))
  }

  yield* model.enqueue(ModelServer.hang([half]))
  yield* interrupt(thread, "Never finish")
  const finished = yield* next((event) =>
    event.method === "item/completed" && event.params.item.type === "commandExecution"
  )
  yield* model.enqueue(
    call("exec_command", { cmd: "echo early; sleep 1; echo late", login: false, yield_time_ms: 300 }),
    ModelServer.hang([half])
  )
  yield* interrupt(thread, "Leave a command running")
  yield* finished

  yield* model.enqueue(ModelServer.hang([half]), ModelServer.text("both"))
  yield* steer(thread)
  yield* model.enqueue(ModelServer.text("a summary"))
  yield* thread.compact
  yield* model.enqueue(ModelServer.text("it is fine"))
  const reviewed = yield* next((event) => event.method === "turn/completed")
  yield* server.request("review/start", { threadId: thread.id, target: { type: "custom", instructions: "look" } })
  yield* reviewed
  yield* model.respond((request) =>
    request.header("thread-id") === thread.id
      ? TestCodex.delegate(request, { message: "sub task" })
      : ModelServer.text("from the sub-agent")
  )
  const { items } = yield* thread.run("Delegate", defaultMode)
  const agents = items.flatMap((item) => item.type === "collabAgentToolCall" ? item.receiverThreadIds : [])
  for (const threadId of new Set([thread.id, ...agents])) {
    yield* server.request("thread/turns/list", { threadId, itemsView: "full", sortDirection: "asc", limit: 100 })
  }
}).pipe(Effect.scoped)

/** Runs the scenario on the real app-server, and records its messages to a file. */
export const recordTurns = (path: string) =>
  scenario.pipe(
    Effect.provide(
      layerCodex(
        Cassette.record(path, {
          redact: { fields: ["installationId", "serverName", "mcpServers", "layers", "origins"] }
        }).pipe(Layer.provide(Kit.layerTransport()))
      )
    ),
    Effect.provide(TestCodex.layerEnvironment({
      config: { ...TestCodex.mcpConfig, ...TestCodex.retryConfig(1), tools: { update_plan: { enabled: true } } }
    }))
  )
