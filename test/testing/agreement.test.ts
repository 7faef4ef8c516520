/** Runs programs on the fake and on the real server, and compares what they observe. */
import { assert, layer } from "@effect/vitest"
import { AppServer, AppServerError, Codex, type Protocol, Sandbox, type Turn } from "effect-codex"
import { FakeAppServer, ModelServer, TestCodex } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { delegate, retryConfig } from "../TestCodex.ts"
import { layerCodex } from "./layerCodex.ts"

type Program = Effect.Effect<unknown, unknown, Codex.Codex | AppServer.AppServer | Scope.Scope>

interface Conversation {
  /** The replies of the real server's model, or the reply to each request if several threads send them. */
  readonly replies: ReadonlyArray<ModelServer.Reply> | ((request: ModelServer.ModelRequest) => ModelServer.Reply)
  /** The script of the fake. */
  readonly script: FakeAppServer.Script
  readonly program: Program
}

/** The members of an item that do not differ between runs, and that the fake implements. */
const normalizeItem = (item: Protocol.ThreadItem): unknown => {
  switch (item.type) {
    case "userMessage":
      return [item.type, item.content.map((input) => input.type === "text" ? input.text : input.type)]
    case "agentMessage":
      return [item.type, item.text, item.phase]
    case "reasoning":
      return [item.type, item.summary]
    case "commandExecution":
      return [item.type, item.status, item.exitCode ?? null, item.aggregatedOutput?.trim() ?? null]
    case "fileChange":
      return [item.type, item.status, item.changes.map(({ kind }) => kind.type)]
    case "collabAgentToolCall":
      return [item.type, item.tool, item.status, item.prompt ?? null, Object.values(item.agentsStates)]
    case "dynamicToolCall":
      return [item.type, item.status, item.tool, item.arguments, item.success ?? null, item.contentItems ?? null]
    default:
      return [item.type]
  }
}

const normalize = (event: Turn.TurnEvent): ReadonlyArray<unknown> => {
  switch (event.method) {
    case "turn/started":
      return [[event.method, event.params.turn.status]]
    case "turn/completed": {
      const { error, items, status } = event.params.turn
      return [[event.method, status, error?.codexErrorInfo ?? null, items.map(normalizeItem)]]
    }
    case "item/started":
    case "item/completed":
      return [[event.method, normalizeItem(event.params.item)]]
    case "item/agentMessage/delta":
    case "item/reasoning/summaryTextDelta":
      return [[event.method, event.params.delta]]
    case "error":
      return [[event.method, event.params.error.codexErrorInfo, event.params.willRetry]]
    case "thread/tokenUsage/updated":
      return [[event.method, event.params.tokenUsage]]
    // The real server sends the output of quick commands only with the item, and each diff three times.
    case "item/commandExecution/outputDelta":
    case "turn/diff/updated":
      return []
    default:
      return [[event.method]]
  }
}

const collectEvents = (options?: Codex.StartOptions) =>
  Effect.gen(function*() {
    const codex = yield* Codex.Codex
    const thread = yield* codex.startThread(options)
    const events = yield* Stream.runCollect(thread.stream("go"))
    return events.flatMap(normalize)
  })

/** The tag of the outcome. For an `AppServerError`, the tag of its reason. */
const getTag = (effect: Effect.Effect<unknown, { readonly _tag: string }>) =>
  Effect.match(effect, {
    onSuccess: () => "ok",
    onFailure: (error) => AppServerError.isAppServerError(error) ? error.reason._tag : error._tag
  })

const usage = { inputTokens: 7, outputTokens: 3 }

const conversations: Record<string, Conversation> = {
  "a message in pieces": {
    replies: [ModelServer.reply([ModelServer.deltas(["he", "llo"])], { usage })],
    script: () => Effect.andThen(FakeAppServer.deltas(["he", "llo"]), FakeAppServer.usage(usage)),
    program: collectEvents()
  },
  "reasoning, commentary and a final answer": {
    replies: [
      ModelServer.reply([
        ModelServer.reasoning("why not"),
        ModelServer.deltas(["hm"], { phase: "commentary" }),
        ModelServer.deltas(["yes"], { phase: "final_answer" })
      ], { usage })
    ],
    script: () =>
      Stream.make(
        FakeAppServer.reasoning("why not"),
        FakeAppServer.text("hm", { phase: "commentary" }),
        FakeAppServer.text("yes", { phase: "final_answer" }),
        FakeAppServer.usage(usage)
      ),
    program: collectEvents()
  },
  "a turn that fails": {
    replies: [ModelServer.httpError(500)],
    script: () => Effect.andThen(FakeAppServer.retry(), FakeAppServer.fail("it broke", "internalServerError")),
    program: collectEvents()
  },
  "a turn that is interrupted after its start": {
    replies: [ModelServer.hang()],
    script: () => FakeAppServer.never,
    program: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const turn = yield* thread.turn("go")
      yield* Stream.runHead(Stream.filter(turn.events, ({ method }) => method === "item/completed"))
      yield* turn.interrupt
      const { status } = yield* turn.result
      return [status, (yield* Stream.runCollect(turn.events)).flatMap(normalize)]
    })
  },
  "a command with output": {
    replies: [
      ModelServer.functionCall("exec_command", { cmd: "sleep 0.4; echo hi", login: false }),
      ModelServer.reply([ModelServer.deltas(["done"])], { usage })
    ],
    script: () =>
      Stream.make(
        FakeAppServer.command("sleep 0.4; echo hi", { output: "hi" }),
        FakeAppServer.usage({ inputTokens: 1, outputTokens: 1 }),
        FakeAppServer.text("done"),
        FakeAppServer.usage(usage)
      ),
    program: collectEvents({ approvalMode: "dangerously_bypass_approvals_and_sandbox" })
  },
  "a command that is declined": {
    replies: [
      ModelServer.functionCall("exec_command", { cmd: "touch x", login: false }),
      ModelServer.reply([ModelServer.deltas(["well"])], { usage })
    ],
    script: () =>
      Stream.make(
        FakeAppServer.command("touch x", { approval: true }),
        FakeAppServer.usage({ inputTokens: 1, outputTokens: 1 }),
        FakeAppServer.text("well"),
        FakeAppServer.usage(usage)
      ),
    program: Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const asked: Array<unknown> = []
      yield* server.handle("item/commandExecution/requestApproval", ({ command, commandActions, kind }) => {
        asked.push([command, commandActions, kind])
        return Effect.succeed({ decision: "decline" } as const)
      })
      return [yield* collectEvents({ approvalPolicy: "untrusted", approvalsReviewer: "user" }), asked]
    })
  },
  "a tool of the client": {
    replies: [
      ModelServer.functionCall("lookup", { id: 1 }),
      ModelServer.reply([ModelServer.deltas(["open"])], { usage })
    ],
    script: () =>
      Stream.make(
        FakeAppServer.toolCall("lookup", { id: 1 }),
        FakeAppServer.usage({ inputTokens: 1, outputTokens: 1 }),
        FakeAppServer.text("open"),
        FakeAppServer.usage(usage)
      ),
    program: Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      yield* server.handle(
        "item/tool/call",
        () => Effect.succeed({ success: true, contentItems: [{ type: "inputText", text: "ticket is open" }] } as const)
      )
      return yield* collectEvents({
        dynamicTools: [{
          type: "function",
          name: "lookup",
          description: "Looks up",
          inputSchema: { type: "object", properties: {}, additionalProperties: true }
        }]
      })
    })
  },
  "a patch": {
    replies: [
      ModelServer.customToolCall("apply_patch", "*** Begin Patch\n*** Add File: new.txt\n+hello\n*** End Patch"),
      ModelServer.reply([ModelServer.deltas(["patched"])], { usage })
    ],
    script: () =>
      Stream.make(
        FakeAppServer.fileChange([{ path: "new.txt", kind: "add", diff: "+hello" }]),
        FakeAppServer.usage({ inputTokens: 1, outputTokens: 1 }),
        FakeAppServer.text("patched"),
        FakeAppServer.usage(usage)
      ),
    program: collectEvents({ approvalMode: "dangerously_bypass_approvals_and_sandbox" })
  },
  "a thread from start to archive": {
    replies: ["one", "two", "three", "four"].map((text) => ModelServer.text(text)),
    script: (turn) => FakeAppServer.text(turn.text),
    program: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ sandbox: "read-only" })
      const seen: Array<unknown> = [
        yield* getTag(codex.resumeThread(thread.id)),
        yield* getTag(codex.forkThread(thread.id)),
        yield* getTag(thread.read()),
        yield* getTag(thread.read({ includeTurns: true }))
      ]
      yield* thread.run("one")
      yield* thread.setName("mine")
      seen.push(
        (yield* thread.read()).name,
        (yield* thread.read({ includeTurns: true })).turns.map((
          { items, status }
        ) => [status, items.map(normalizeItem)]),
        yield* getTag(codex.resumeThread(thread.id, { approvalMode: "deny_all" }))
      )
      yield* thread.run("two", { approvalMode: "deny_all", sandboxPolicy: Sandbox.dangerFullAccess })
      const server = yield* AppServer.AppServer
      const { approvalPolicy, approvalsReviewer, sandbox } = yield* server.request("thread/resume", {
        threadId: thread.id,
        excludeTurns: true
      })
      const fork = yield* codex.forkThread(thread.id, { approvalMode: "auto_review" })
      yield* fork.run("three")
      seen.push(
        [approvalPolicy, approvalsReviewer, sandbox],
        (yield* fork.read({ includeTurns: true })).turns.length,
        fork.id !== thread.id
      )
      yield* codex.archiveThread(fork.id)
      seen.push(
        yield* getTag(codex.resumeThread(fork.id)),
        yield* getTag(fork.run("archived")),
        yield* getTag(codex.archiveThread("00000000-0000-7000-8000-000000000000"))
      )
      yield* codex.unarchiveThread(fork.id)
      const resumed = yield* codex.resumeThread(fork.id)
      yield* resumed.compact
      seen.push(
        (yield* resumed.read({ includeTurns: true })).turns.map(({ items }) => items.map(({ type }) => type)),
        yield* getTag(codex.resumeThread("00000000-0000-7000-8000-000000000000"))
      )
      return seen
    })
  },
  "steering and interrupting when there is no turn": {
    replies: [ModelServer.text("one")],
    script: () => FakeAppServer.text("one"),
    program: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const thread = yield* codex.startThread()
      const turn = yield* thread.turn("go")
      yield* turn.result
      return [
        yield* getTag(turn.steer("more")),
        yield* getTag(server.request("turn/interrupt", { threadId: thread.id, turnId: turn.id })),
        yield* getTag(server.request("turn/interrupt", { threadId: thread.id, turnId: "" })),
        yield* getTag(turn.interrupt)
      ]
    })
  },
  "a message that is retracted": {
    replies: [
      ModelServer.cut([ModelServer.deltas(["The ans"], { unfinished: true })]),
      ModelServer.reply([ModelServer.deltas(["The answer"])], { usage })
    ],
    script: () =>
      Stream.make(
        FakeAppServer.deltas(["The ans"], { unfinished: true }),
        FakeAppServer.retry(),
        FakeAppServer.text("The answer"),
        FakeAppServer.usage(usage)
      ),
    program: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const turn = yield* thread.turn("go")
      const messages = yield* Stream.runCollect(turn.messages)
      return [
        messages.map(({ _tag, phase }) => [_tag, phase]),
        (yield* Stream.runCollect(turn.events)).flatMap(normalize),
        (yield* turn.result).finalResponse
      ]
    })
  },
  "a sub-agent, in the view of its parent": {
    replies: (request) => {
      if (request.header("x-openai-subagent") === "collab_spawn") return ModelServer.text("in test/", { usage })
      return request.functionCallOutput("wait") === undefined
        ? delegate(request, { message: "look" }, { usage })
        : ModelServer.reply([ModelServer.deltas(["done"])], { usage })
    },
    script: () =>
      Effect.gen(function*() {
        const agent = yield* FakeAppServer.subAgent("look", () =>
          Effect.andThen(FakeAppServer.usage(usage), FakeAppServer.text("in test/")))
        yield* FakeAppServer.usage(usage)
        yield* agent.wait
        yield* FakeAppServer.usage(usage)
        yield* FakeAppServer.text("done")
        yield* FakeAppServer.usage(usage)
      }),
    program: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const turn = yield* thread.turn("go")
      const events = yield* Stream.runCollect(turn.events)
      return [events.flatMap(normalize), (yield* turn.result).usage]
    })
  },
  "joining a turn": {
    replies: [ModelServer.hang()],
    script: () => FakeAppServer.never,
    program: Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const turn = yield* thread.turn("go")
      yield* Stream.runHead(Stream.filter(turn.events, ({ method }) => method === "item/completed"))
      const joined = yield* thread.turn("and more")
      const results = yield* Effect.forkChild(Effect.all([turn.result, joined.result], { concurrency: 2 }))
      yield* turn.interrupt
      return [joined.id === turn.id, (yield* Fiber.join(results)).map(({ status }) => status)]
    })
  }
}

layer(TestCodex.layer({ home: { config: retryConfig(1) } }), { excludeTestServices: true })(
  "FakeAppServer and the real server agree on",
  (it) => {
    for (const [name, { program, replies, script }] of Object.entries(conversations)) {
      it.effect(name, () =>
        Effect.gen(function*() {
          const model = yield* ModelServer.ModelServer
          // Computed, because the reply of a turn that is interrupted early must not go to the next conversation.
          if (typeof replies === "function") {
            yield* model.respond(replies)
          } else {
            const rest = replies.slice()
            yield* model.respond(() => rest.shift() ?? ModelServer.httpError(500))
          }
          const real = yield* Effect.scoped(program)
          const fake = yield* program.pipe(Effect.scoped, Effect.provide(layerCodex(FakeAppServer.layer(script))))
          assert.deepStrictEqual(fake, real)
        }))
    }
  }
)
