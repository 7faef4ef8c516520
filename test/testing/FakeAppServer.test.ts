import { assert, describe, it } from "@effect/vitest"
import { AppServer, AppServerError, Budget, Codex, Input, type Protocol, Sandbox, type Thread } from "effect-codex"
import { FakeAppServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { layerCodex } from "./layerCodex.ts"

const layer = (script?: FakeAppServer.Script, options?: FakeAppServer.Options) =>
  layerCodex(FakeAppServer.layer(script, options))

const withThread = <A, E, R>(
  use: (thread: Thread.Thread, codex: Codex.Codex["Service"]) => Effect.Effect<A, E, R>
) =>
  Effect.gen(function*() {
    const codex = yield* Codex.Codex
    return yield* use(yield* codex.startThread(), codex)
  })

const run = (script: FakeAppServer.Script, options?: FakeAppServer.Options) =>
  withThread((thread) => thread.run("hi")).pipe(Effect.provide(layer(script, options)))

const methods = (events: ReadonlyArray<{ readonly method: unknown }>) => events.map(({ method }) => method)

describe("FakeAppServer", () => {
  it.effect("echoes the input without a script", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* thread.run("hello")).finalResponse, "hello")
        assert.strictEqual((yield* thread.run([Input.text("one"), Input.text("two")])).finalResponse, "one\ntwo")
      })
    ).pipe(Effect.provide(layer())))

  it.effect("plays an Effect of actions, and sends events in the protocol's order", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        const events = yield* Stream.runCollect(thread.stream("hi"))
        assert.deepStrictEqual(methods(events), [
          "turn/started",
          "item/started",
          "item/completed",
          "item/started",
          "item/reasoning/summaryPartAdded",
          "item/reasoning/summaryTextDelta",
          "item/completed",
          "turn/plan/updated",
          "item/started",
          "item/agentMessage/delta",
          "item/agentMessage/delta",
          "item/completed",
          "thread/tokenUsage/updated",
          "turn/completed"
        ])
        assert.isFalse(events.some(({ method }) => method === "malformed"))
      })
    ).pipe(Effect.provide(layer((turn) =>
      Effect.gen(function*() {
        yield* FakeAppServer.reasoning(`The user wrote ${turn.text}`)
        yield* FakeAppServer.plan([{ step: "greet", status: "inProgress" }])
        yield* FakeAppServer.deltas(["he", "llo"])
        yield* FakeAppServer.usage({ inputTokens: 3, outputTokens: 2 })
      })
    ))))

  it.effect("plays a Stream of actions", () =>
    Effect.gen(function*() {
      const { finalResponse, items } = yield* run(() =>
        Stream.make(
          FakeAppServer.text("Let me see", { phase: "commentary" }),
          FakeAppServer.command("ls", { output: "a.txt\n" }),
          FakeAppServer.text("One file", { phase: "final_answer" })
        )
      )
      assert.strictEqual(finalResponse, "One file")
      assert.deepStrictEqual(items.map(({ type }) => type), [
        "userMessage",
        "agentMessage",
        "commandExecution",
        "agentMessage"
      ])
    }))

  it.effect("fails a turn with an error info or a defect", () =>
    Effect.gen(function*() {
      const failed = yield* Effect.flip(
        run(() => Effect.andThen(FakeAppServer.text("so far"), FakeAppServer.fail("no more", "usageLimitExceeded")))
      )
      assert(failed._tag === "TurnFailed")
      assert.strictEqual(failed.codexErrorInfo, "usageLimitExceeded")
      assert.strictEqual(failed.items.length, 2)
      const http = yield* Effect.flip(
        run(() => FakeAppServer.fail("x", { httpConnectionFailed: { httpStatusCode: 401 } }))
      )
      assert(http._tag === "TurnFailed")
      assert.deepStrictEqual(http.codexErrorInfo, { httpConnectionFailed: { httpStatusCode: 401 } })
      const bug = yield* Effect.flip(run(() => Effect.die(new Error("bug in the script"))))
      assert.include(bug.message, "bug in the script")
    }))

  it.effect("adds the usage of requests, over turns and forks", () =>
    withThread((thread, codex) =>
      Effect.gen(function*() {
        const reported = (thread: Thread.Thread) =>
          Effect.map(Stream.runCollect(thread.stream("hi")), (events) =>
            events.flatMap((event) =>
              event.method === "thread/tokenUsage/updated"
                ? [[event.params.tokenUsage.last.totalTokens, event.params.tokenUsage.total.totalTokens]]
                : []
            ))
        assert.deepStrictEqual(yield* reported(thread), [[5, 5], [2, 7]])
        assert.deepStrictEqual(yield* reported(thread), [[5, 12], [2, 14]])
        assert.deepStrictEqual(yield* reported(yield* codex.forkThread(thread.id)), [[5, 19], [2, 21]])
        assert.deepStrictEqual(yield* reported(yield* codex.startThread()), [[5, 5], [2, 7]])
      })
    ).pipe(Effect.provide(layer(() =>
      Stream.make(
        FakeAppServer.usage({ inputTokens: 3, outputTokens: 2 }),
        FakeAppServer.text("hello"),
        FakeAppServer.usage({ inputTokens: 1, outputTokens: 1 })
      )
    ))))

  it.effect("sends any notification and request of a script", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        yield* server.handle(
          "item/tool/call",
          ({ tool, turnId }) =>
            Effect.succeed(
              { success: true, contentItems: [{ type: "inputText", text: `${tool} in ${turnId}` }] } as const
            )
        )
        const turn = yield* thread.turn("hi")
        const events = yield* Stream.runCollect(turn.events)
        assert.includeMembers(methods(events), ["item/plan/delta", "turn/invented"])
        assert.strictEqual((yield* turn.result).finalResponse, `weather in ${turn.id}`)
      }).pipe(Effect.scoped)
    ).pipe(Effect.provide(layer((turn) =>
      Effect.gen(function*() {
        yield* turn.emit("item/plan/delta", { itemId: "p", delta: "first" })
        yield* turn.notify("turn/invented", {})
        const call = { callId: "c", tool: "weather", namespace: null, arguments: {} }
        const { contentItems: [content] } = yield* turn.request("item/tool/call", call)
        yield* FakeAppServer.text(content?.type === "inputText" ? content.text : "")
      })
    ))))

  it.effect("interrupts a turn", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const fiber = yield* Effect.forkChild(thread.run("hi"))
        yield* fake.awaitSent("turn/start")
        yield* Fiber.interrupt(fiber)
        const { turns } = yield* thread.read({ includeTurns: true })
        assert.deepStrictEqual(turns.map(({ status }) => status), ["interrupted"])
      })
    ).pipe(Effect.provide(layer(() => FakeAppServer.never))))

  it.effect("passes steering to the script", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        const turn = yield* thread.turn("hi")
        yield* turn.steer("more")
        const joined = yield* thread.turn("and more")
        assert.strictEqual(joined.id, turn.id)
        assert.strictEqual((yield* turn.result).finalResponse, "hi, more, and more")
      }).pipe(Effect.scoped)
    ).pipe(Effect.provide(layer((turn) =>
      Effect.gen(function*() {
        const [first] = yield* turn.nextSteer
        const [second] = yield* turn.nextSteer
        const texts = [first, second].map((item) => item?.type === "text" ? item.text : "?")
        yield* FakeAppServer.text([turn.text, ...texts].join(", "))
      })
    ))))

  describe("requests to the client", () => {
    /** Plays an action, and returns its result with the turn's items. */
    const play = Effect.fnUntraced(function*(
      action: FakeAppServer.Action,
      register: (server: AppServer.AppServer["Service"]) => Effect.Effect<void, never, Scope.Scope> = () => Effect.void
    ) {
      const returned = yield* Deferred.make<unknown>()
      const script = () => Effect.tap(action, (result) => Deferred.succeed(returned, result))
      const { items } = yield* Effect.gen(function*() {
        yield* register(yield* AppServer.AppServer)
        return yield* withThread((thread) => thread.run("hi"))
      }).pipe(Effect.scoped, Effect.provide(layer(script)))
      return { items, result: yield* Deferred.await(returned) }
    })

    it.effect("sends an approval request for a command", () =>
      Effect.gen(function*() {
        const action = FakeAppServer.command("rm x", { approval: true, output: "gone" })
        const accepted = yield* play(action, (server) =>
          server.handle("item/commandExecution/requestApproval", () =>
            Effect.succeed({ decision: "accept" } as const)))
        assert.strictEqual(accepted.result, "accept")
        assert.deepInclude(accepted.items[1], {
          type: "commandExecution",
          status: "completed",
          aggregatedOutput: "gone"
        })
        const declined = yield* play(action)
        assert.strictEqual(declined.result, "decline")
        assert.deepInclude(declined.items[1], { type: "commandExecution", status: "declined" })
      }))

    it.effect("sends an approval request for a file change, which may cancel the turn", () =>
      Effect.gen(function*() {
        const action = FakeAppServer.fileChange([{ path: "a.txt", kind: "add", diff: "+a" }], { approval: true })
        const declined = yield* play(action)
        assert.strictEqual(declined.result, "decline")
        const canceled = yield* withThread((thread) =>
          Effect.gen(function*() {
            const server = yield* AppServer.AppServer
            yield* server.handle(
              "item/fileChange/requestApproval",
              () => Effect.succeed({ decision: "cancel" } as const)
            )
            return yield* thread.run("hi")
          })
        ).pipe(Effect.scoped, Effect.provide(layer(() => action)))
        assert.strictEqual(canceled.status, "interrupted")
      }))

    it.effect("returns the labels that the user chose", () =>
      Effect.gen(function*() {
        const action = FakeAppServer.userInput([{ id: "q", question: "Which?", options: ["a", "b"] }])
        const { result } = yield* play(action, (server) =>
          server.handle("item/tool/requestUserInput", ({ questions }) =>
            Effect.succeed({ answers: { q: { answers: [questions[0]!.options![1]!.label] } } })))
        assert.deepStrictEqual(result, { q: ["b"] })
      }))

    it.effect("calls a tool of the client", () =>
      Effect.gen(function*() {
        const action = FakeAppServer.toolCall("weather", { city: "Oslo" })
        const { result } = yield* play(action, (server) =>
          server.handle("item/tool/call", ({ arguments: args }) =>
            Effect.succeed(
              { success: true, contentItems: [{ type: "inputText", text: JSON.stringify(args) }] } as const
            )))
        assert.deepStrictEqual(result, {
          success: true,
          contentItems: [{ type: "inputText", text: "{\"city\":\"Oslo\"}" }]
        })
      }))

    it.effect("fails the turn if the client rejects a request", () =>
      Effect.gen(function*() {
        const failed = yield* Effect.flip(run(() => FakeAppServer.userInput([{ id: "q", question: "Which?" }])))
        assert(failed._tag === "TurnFailed")
        assert.include(failed.message, "does not handle `item/tool/requestUserInput`")
      }))
  })

  describe("threads", () => {
    it.effect("stores a thread once it has run a turn, as the real server does", () =>
      withThread((thread, codex) =>
        Effect.gen(function*() {
          const ids = (options?: Codex.ListOptions) =>
            Effect.map(Stream.runCollect(codex.listThreads(options)), (threads) => threads.map(({ id }) => id))
          assert.deepStrictEqual(yield* ids(), [])
          assert.strictEqual((yield* Effect.flip(codex.forkThread(thread.id)))._tag, "AppServerError")
          yield* thread.run("first")
          yield* thread.setName("mine")
          const fork = yield* codex.forkThread(thread.id)
          yield* fork.run("second")
          assert.deepStrictEqual(yield* ids({ limit: 1 }), [fork.id, thread.id])
          const { name, turns } = yield* fork.read({ includeTurns: true })
          assert.strictEqual(name, "mine")
          assert.strictEqual(turns.length, 2)
          yield* codex.archiveThread(fork.id)
          assert.deepStrictEqual(yield* ids(), [thread.id])
          assert.deepStrictEqual(yield* ids({ archived: true }), [fork.id])
          yield* Effect.flip(codex.resumeThread(fork.id))
          yield* codex.unarchiveThread(fork.id)
          const resumed = yield* codex.resumeThread(fork.id, { approvalMode: "deny_all", sandbox: "workspace-write" })
          yield* resumed.compact
          assert.strictEqual((yield* resumed.read({ includeTurns: true })).turns.length, 3)
          assert.deepStrictEqual((yield* Stream.runCollect(codex.models())).map(({ id }) => id), ["fake-model"])
        })
      ).pipe(Effect.provide(layer())))

    it.effect("keeps permissions, and ignores other permissions for a loaded thread", () =>
      withThread((thread, codex) =>
        Effect.gen(function*() {
          yield* thread.run("hi", { approvalMode: "deny_all", sandboxPolicy: Sandbox.workspaceWrite() })
          const error = yield* Effect.flip(codex.resumeThread(thread.id, { approvalMode: "auto_review" }))
          assert(error._tag === "AppServerError" && error.reason._tag === "SettingsNotApplied")
          const server = yield* AppServer.AppServer
          const { approvalPolicy, sandbox } = yield* server.request("thread/resume", { threadId: thread.id })
          assert.strictEqual(approvalPolicy, "never")
          assert.strictEqual(sandbox.type, "workspaceWrite")
        })
      ).pipe(Effect.provide(layer())))

    it.effect("keeps a thread for the next connection", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const process = Codex.layer.pipe(Layer.provide(AppServer.layer()))
        const id = yield* withThread((thread) => Effect.as(thread.run("hi"), thread.id)).pipe(
          Effect.provide(process, { local: true })
        )
        yield* fake.exit()
        yield* Effect.flatMap(Codex.Codex, (codex) => codex.resumeThread(id, { approvalMode: "deny_all" })).pipe(
          Effect.provide(process, { local: true })
        )
      }).pipe(Effect.provide(FakeAppServer.layer())))
  })

  describe("faults", () => {
    it.effect("sends junk, partial lines and unknown notifications between events", () =>
      Effect.gen(function*() {
        const { finalResponse, items } = yield* run(() =>
          Stream.make(
            FakeAppServer.line("Warning: not json"),
            FakeAppServer.line("{\"method\":\"item/completed\",\"params\":"),
            FakeAppServer.notification("turn/dreamt", { of: "sheep" }),
            FakeAppServer.itemCompleted({ type: "hologram", id: "h", depth: 3 }),
            FakeAppServer.text("still here")
          )
        )
        assert.strictEqual(finalResponse, "still here")
        assert.deepStrictEqual<unknown>(items[1], { type: "hologram", id: "h", depth: 3 })
      }))

    it.effect("retracts a message when the server retries", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const turn = yield* thread.turn("hi")
          const messages = yield* Stream.runCollect(turn.messages)
          assert.deepStrictEqual(messages.map(({ _tag }) => _tag), [
            "Started",
            "Delta",
            "Retracted",
            "Started",
            "Delta",
            "Completed"
          ])
          assert.strictEqual((yield* turn.result).finalResponse, "The answer is 42")
        }).pipe(Effect.scoped)
      ).pipe(Effect.provide(layer(() =>
        Stream.make(
          FakeAppServer.deltas(["The ans"], { unfinished: true }),
          FakeAppServer.retry(),
          FakeAppServer.text("The answer is 42")
        )
      ))))

    it.effect("sends the messages of an action twice, and others once", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const events = yield* Stream.runCollect(thread.stream("hi"))
          assert.deepStrictEqual(methods(events), [
            "turn/started",
            "item/started",
            "item/completed",
            ...["item/started", "item/agentMessage/delta", "item/completed"].flatMap((method) => [method, method]),
            "thread/tokenUsage/updated",
            "thread/tokenUsage/updated",
            "turn/plan/updated",
            "turn/completed"
          ])
          const totals = events.flatMap((event) =>
            event.method === "thread/tokenUsage/updated" ? [event.params.tokenUsage.total.totalTokens] : []
          )
          assert.deepStrictEqual(totals, [3, 3])
        })
      ).pipe(Effect.provide(layer(() =>
        Stream.make(
          FakeAppServer.duplicate(
            Effect.andThen(FakeAppServer.text("once"), FakeAppServer.usage({ inputTokens: 3 }))
          ),
          FakeAppServer.plan([])
        )
      ))))

    it.effect("sends the messages of an action after the end of the turn", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const late = yield* server.notifications.pipe(
            Stream.dropUntil(({ method }) => method === "turn/completed"),
            Stream.filter(({ method }) => method === "item/completed"),
            Stream.runHead,
            Effect.forkChild({ startImmediately: true })
          )
          const { finalResponse, items } = yield* thread.run("hi")
          assert.strictEqual(finalResponse, "in time")
          assert.deepStrictEqual(items.map(({ type }) => type), ["userMessage", "agentMessage"])
          const event = Option.getOrThrow(yield* Fiber.join(late))
          assert(event.method === "item/completed" && event.params.item.type === "commandExecution")
        })
      ).pipe(
        Effect.provide(
          layer(() => Stream.make(FakeAppServer.late(FakeAppServer.command("sleep 60")), FakeAppServer.text("in time")))
        )
      ))

    it.effect("sends each byte alone", () =>
      Effect.gen(function*() {
        assert.strictEqual(
          (yield* run(() => FakeAppServer.text("é😀\u2028"), { splitAtEveryByte: true })).finalResponse,
          "é😀\u2028"
        )
      }))

    it.effect("sends each message twice", () =>
      Effect.gen(function*() {
        const { items } = yield* run(() => FakeAppServer.text("a"), { duplicateMessages: true })
        assert.deepStrictEqual(items.map(({ type }) => type), [
          "userMessage",
          "userMessage",
          "agentMessage",
          "agentMessage"
        ])
      }))

    it.effect("sends all events before the response to turn/start", () =>
      Effect.gen(function*() {
        assert.strictEqual(
          (yield* run(() => FakeAppServer.text("early"), { eventsBeforeResponse: true })).finalResponse,
          "early"
        )
      }))

    it.effect("sends all events before the response, also if the turn waits for the client", () =>
      Effect.gen(function*() {
        const options = { eventsBeforeResponse: true }
        const { items } = yield* run(() => FakeAppServer.command("ls", { approval: true }), options)
        assert.deepInclude(items[1], { type: "commandExecution", status: "declined" })
        yield* withThread((thread) =>
          Effect.gen(function*() {
            const fake = yield* FakeAppServer.FakeAppServer
            const running = yield* Effect.forkChild(thread.run("hi"))
            yield* fake.awaitSent("turn/start")
            const server = yield* AppServer.AppServer
            yield* server.request("turn/interrupt", { threadId: thread.id, turnId: "" })
            assert.strictEqual((yield* Fiber.join(running)).status, "interrupted")
          })
        ).pipe(Effect.provide(layer(() => FakeAppServer.never, options)))
      }))

    it.effect("rejects a request whose scripted response throws", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const server = yield* AppServer.AppServer
        yield* fake.respond("thread/list", () => {
          throw new Error("a bug in the test")
        })
        const { reason } = yield* Effect.flip(server.request("thread/list", {}))
        assert(reason._tag === "RequestRejected")
        assert.include(reason.detail, "a bug in the test")
        assert.strictEqual((yield* server.request("model/list")).data.length, 1)
      }).pipe(Effect.provide(layer())))

    it.effect("sends no response, in virtual time", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const server = yield* AppServer.AppServer
        yield* fake.respond("model/list", FakeAppServer.noResponse, { times: 1 })
        const failure = yield* Effect.forkChild(Effect.flip(server.request("model/list")))
        yield* fake.awaitSent("model/list")
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual((yield* Fiber.join(failure)).reason._tag, "RequestTimeout")
        assert.strictEqual((yield* server.request("model/list")).data.length, 1)
      }).pipe(Effect.provide(layer())))

    it.effect("rejects requests as overloaded a number of times, or with a message", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const server = yield* AppServer.AppServer
        yield* fake.respond("model/list", FakeAppServer.overloaded, { times: 2 })
        const models = yield* Effect.forkChild(server.request("model/list"))
        for (const attempt of [1, 2]) {
          yield* fake.awaitSent("model/list", attempt)
          yield* TestClock.adjust("10 seconds")
        }
        assert.strictEqual((yield* Fiber.join(models)).data.length, 1)
        assert.strictEqual((yield* fake.sent).filter(({ method }) => method === "model/list").length, 3)

        yield* fake.respond("thread/start", FakeAppServer.rejected("failed to load configuration"))
        const { reason } = yield* Effect.flip(server.request("thread/start", {}))
        assert(reason._tag === "RequestRejected")
        assert.strictEqual(reason.detail, "failed to load configuration")
      }).pipe(Effect.provide(layer())))

    it.effect("sends a result of a newer protocol", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const server = yield* AppServer.AppServer
        yield* fake.respond("model/list", FakeAppServer.result({ data: [], nextCursor: null, addedLater: 1 }))
        assert.deepStrictEqual<unknown>(yield* server.request("model/list"), {
          data: [],
          nextCursor: null,
          addedLater: 1
        })
      }).pipe(Effect.provide(layer())))

    it.effect("sends a malformed list entry, and a cursor without a page", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const codex = yield* Codex.Codex
        const [model] = yield* Stream.runCollect(codex.models())
        yield* fake.respond("model/list", FakeAppServer.result({ data: [{ id: "odd" }, model], nextCursor: "here" }))
        const models = yield* Stream.runCollect(codex.models())
        assert.deepStrictEqual(models.map(({ id }) => id), ["fake-model", "fake-model"])
      }).pipe(Effect.provide(layer())))

    it.effect("ends the process within a line", () =>
      Effect.gen(function*() {
        const failed = yield* Effect.flip(run(() =>
          Stream.make(
            FakeAppServer.text("a"),
            FakeAppServer.exit({ exitCode: 3, midLine: "{\"method\":", stderr: "boom" })
          )
        ))
        assert(failed._tag === "AppServerError" && failed.reason._tag === "ConnectionClosed")
        assert.deepInclude(failed.reason, { exitCode: 3, stderrTail: "boom" })
      }))

    it.effect("pauses reading", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const server = yield* AppServer.AppServer
        yield* fake.pause
        const models = yield* Effect.forkChild(server.request("model/list"))
        yield* TestClock.adjust("30 seconds")
        assert.isFalse((yield* fake.sent).some(({ method }) => method === "model/list"))
        yield* fake.resume
        assert.strictEqual((yield* Fiber.join(models)).data.length, 1)
      }).pipe(Effect.provide(layer())))

    it.effect("delays messages, in virtual time", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const opening = yield* Effect.forkChild(codex.startThread())
        yield* TestClock.adjust("99 millis")
        assert.strictEqual(opening.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(opening)
      }).pipe(Effect.provide(
        Codex.layer.pipe(
          Layer.provide(Layer.effectContext(
            Effect.gen(function*() {
              const building = yield* Effect.forkScoped(Layer.build(AppServer.layer()))
              yield* TestClock.adjust("1 second")
              return yield* Fiber.join(building)
            })
          )),
          Layer.provide(FakeAppServer.layer(undefined, { latency: "100 millis" }))
        )
      )))
  })

  describe("turns that the program did not start", () => {
    /** Runs an effect, and returns the methods, threads and turns of what the program receives meanwhile. */
    const record = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.gen(function*() {
        const server = yield* AppServer.AppServer
        const seen: Array<Protocol.ServerNotification> = []
        yield* server.notifications.pipe(
          Stream.runForEach((notification) => Effect.sync(() => seen.push(notification))),
          Effect.forkScoped({ startImmediately: true })
        )
        return [yield* effect, seen] as const
      })

    const turnsOf = (seen: ReadonlyArray<Protocol.ServerNotification>) =>
      seen.flatMap((notification) =>
        notification.method === "turn/started" || notification.method === "turn/completed"
          ? [[notification.method, notification.params.threadId, notification.params.turn.rootTurnId] as const]
          : []
      )

    const nextIdle = Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      return yield* server.notifications.pipe(
        Stream.filter(({ method }) => method === "turn/completed"),
        Stream.runHead,
        Effect.forkChild({ startImmediately: true })
      )
    })

    it.effect("start on the fake, with the input of another client or without input", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const fake = yield* FakeAppServer.FakeAppServer
          const [[first, second], seen] = yield* record(Effect.gen(function*() {
            const idle = yield* nextIdle
            const first = yield* fake.startTurn(thread.id, { input: "from elsewhere" })
            yield* Fiber.join(idle)
            const idleAgain = yield* nextIdle
            const second = yield* fake.startTurn(thread.id, { script: () => FakeAppServer.text("by itself") })
            yield* Fiber.join(idleAgain)
            return [first, second]
          }))
          assert.deepStrictEqual(turnsOf(seen), [
            ["turn/started", thread.id, first],
            ["turn/completed", thread.id, first],
            ["turn/started", thread.id, second],
            ["turn/completed", thread.id, second]
          ])
          const { turns } = yield* thread.read({ includeTurns: true })
          assert.deepStrictEqual(turns.map(({ items }) => items.map(({ type }) => type)), [
            ["userMessage", "agentMessage"],
            ["agentMessage"]
          ])
          assert.deepStrictEqual((yield* fake.sent).filter(({ method }) => method === "turn/start"), [])
        }).pipe(Effect.scoped)
      ).pipe(Effect.provide(layer())))

    it.effect("are joined by input, and need an open thread", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const fake = yield* FakeAppServer.FakeAppServer
          const id = yield* fake.startTurn(thread.id, { input: "one" })
          const turn = yield* thread.turn("two")
          assert.strictEqual(turn.id, id)
          assert.strictEqual(yield* fake.startTurn(thread.id, { input: "three" }), id)
          assert.strictEqual((yield* turn.result).finalResponse, "one two three")
          const defect = yield* Effect.exit(fake.startTurn("nowhere"))
          assert.include(String(defect), "Thread `nowhere` is not open")
        }).pipe(Effect.scoped)
      ).pipe(Effect.provide(layer((turn) =>
        Effect.gen(function*() {
          const texts = [turn.text]
          for (let more = 0; more < 2; more++) {
            texts.push(...(yield* turn.nextSteer).flatMap((input) => input.type === "text" ? [input.text] : []))
          }
          yield* FakeAppServer.text(texts.join(" "))
        })
      ))))

    it.effect("are continued by a goal in virtual time, one after the other", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const [, seen] = yield* record(Effect.gen(function*() {
            for (let turn = 0; turn < 3; turn++) {
              const idle = yield* nextIdle
              if (turn === 0) yield* server.request("thread/goal/set", { threadId: thread.id, objective: "count" })
              else yield* TestClock.adjust("10 millis")
              yield* Fiber.join(idle)
            }
            yield* server.request("thread/goal/clear", { threadId: thread.id })
            yield* TestClock.adjust("1 second")
          }))
          assert.deepStrictEqual(turnsOf(seen).map(([method]) => method), [
            "turn/started",
            "turn/completed",
            "turn/started",
            "turn/completed",
            "turn/started",
            "turn/completed"
          ])
        }).pipe(Effect.scoped)
      ).pipe(Effect.provide(layer(() => FakeAppServer.text("step")))))

    it.effect("are those of sub-agents, which may run on after the end of the turn", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const [{ usage }, seen] = yield* record(thread.run("hi"))
          assert.strictEqual(usage?.turn.totalTokens, 100)
          assert.strictEqual(usage?.subAgents.totalTokens, 10)
          const started = turnsOf(seen).filter(([method]) => method === "turn/started")
          const [parent, child, late] = started.map(([, threadId]) => threadId)
          assert.strictEqual(new Set([parent, child, late]).size, 3)
          assert.strictEqual(new Set(started.map(([, , rootTurnId]) => rootTurnId)).size, 1)
          const read = (threadId: string) =>
            Effect.map(server.request("thread/read", { threadId, includeTurns: true }), ({ thread }) => thread)
          assert.deepInclude(yield* read(child!), { parentThreadId: thread.id, model: "small-model" })
          const { turns: [running] } = yield* read(late!)
          assert.strictEqual(running?.status, "inProgress")
          yield* server.request("turn/interrupt", { threadId: late!, turnId: running!.id })
          assert.strictEqual((yield* read(late!)).turns[0]?.status, "interrupted")
        }).pipe(Effect.scoped)
      ).pipe(Effect.provide(layer(() =>
        Effect.gen(function*() {
          const script = () => Effect.andThen(FakeAppServer.usage({ inputTokens: 10 }), FakeAppServer.text("in test/"))
          const agent = yield* FakeAppServer.subAgent("Find the tests", script, { model: "small-model" })
          yield* FakeAppServer.subAgent("Take your time", () => FakeAppServer.never)
          yield* FakeAppServer.usage({ inputTokens: 100 })
          assert.deepStrictEqual(yield* agent.wait, { status: "completed", message: "in test/" })
        })
      ))))

    it.effect("wait 30 seconds for a sub-agent that is interrupted, as on the real server", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const turn = yield* thread.turn("hi")
          const child = yield* turn.events.pipe(
            Stream.filter((event) =>
              event.method === "item/started" && event.params.item.type === "collabAgentToolCall"
            ),
            Stream.drop(1),
            Stream.runHead
          )
          const event = Option.getOrThrow(child)
          assert(event.method === "item/started" && event.params.item.type === "collabAgentToolCall")
          const [threadId] = event.params.item.receiverThreadIds
          yield* server.request("turn/interrupt", { threadId: threadId!, turnId: "" })
          const result = yield* Effect.forkChild(turn.result)
          yield* TestClock.adjust("29 seconds")
          assert.isUndefined(result.pollUnsafe())
          yield* TestClock.adjust("1 second")
          assert.strictEqual((yield* Fiber.join(result)).finalResponse, "undefined")
        }).pipe(Effect.scoped)
      ).pipe(Effect.provide(layer(() =>
        Effect.gen(function*() {
          const agent = yield* FakeAppServer.subAgent("go", () => FakeAppServer.never)
          yield* FakeAppServer.text(String(yield* agent.wait))
        })
      ))))
  })

  describe("Budget", () => {
    const expectExceeded = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.map(Effect.flip(effect), (error) => {
        assert(AppServerError.isAppServerError(error), String(error))
        assert(error.reason._tag === "BudgetExceeded", error.message)
        return error.reason
      })

    it.effect("counts sub-agents, and interrupts one that exceeds it", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const fake = yield* FakeAppServer.FakeAppServer
          const { limit, used } = yield* expectExceeded(Budget.limit(thread.run("hi"), { tokens: 150 }))
          assert.deepStrictEqual(limit.tokens, 150)
          assert.strictEqual(used.tokens, 180)
          assert.strictEqual(used.turns, 3)
          const [parent, child, grandchild] = used.threads
          assert.deepStrictEqual([parent?.tokens, child?.tokens, grandchild?.tokens], [100, 20, 60])
          const interrupted = (yield* fake.sent).filter(({ method }) => method === "turn/interrupt")
          assert.deepStrictEqual(
            new Set(interrupted.map(({ params }) => params?.["threadId"])),
            new Set([parent, child, grandchild].map((thread) => thread?.threadId))
          )
        })
      ).pipe(Effect.provide(layer(() =>
        Effect.gen(function*() {
          const grandchild = () => Effect.andThen(FakeAppServer.usage({ inputTokens: 60 }), FakeAppServer.never)
          const agent = yield* FakeAppServer.subAgent("go", () =>
            Effect.gen(function*() {
              yield* FakeAppServer.usage({ inputTokens: 20 })
              const agent = yield* FakeAppServer.subAgent("go deeper", grandchild)
              yield* agent.wait
            }))
          yield* FakeAppServer.usage({ inputTokens: 100 })
          yield* agent.wait
        })
      ))))

    it.live("stops a goal", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const fake = yield* FakeAppServer.FakeAppServer
          const set = server.request("thread/goal/set", { threadId: thread.id, objective: "count" })
          const { used } = yield* expectExceeded(Budget.limit(Effect.andThen(set, Effect.never), { turns: 3 }))
          assert.strictEqual(used.turns, 4)
          yield* fake.awaitSent("turn/interrupt")
          const { turns } = yield* thread.read({ includeTurns: true })
          assert.deepStrictEqual(turns.map(({ status }) => status), [
            "completed",
            "completed",
            "completed",
            "interrupted"
          ])
        })
      ).pipe(Effect.provide(layer(() =>
        Effect.andThen(FakeAppServer.text("step"), Effect.delay(FakeAppServer.text("and another"), "50 millis"))
      ))))

    it.effect("counts a review when it has ended", () =>
      withThread((thread) =>
        Effect.gen(function*() {
          const server = yield* AppServer.AppServer
          const review = Effect.gen(function*() {
            const ended = yield* server.notifications.pipe(
              Stream.filter(({ method }) => method === "turn/completed"),
              Stream.runHead,
              Effect.forkChild({ startImmediately: true })
            )
            yield* server.request("review/start", { threadId: thread.id, target: { type: "uncommittedChanges" } })
            yield* Fiber.join(ended)
          })
          const used = yield* Effect.andThen(review, Budget.used).pipe(Budget.limit({ tokens: 1000 }))
          assert.strictEqual(used.tokens, 40)
          assert.strictEqual(used.turns, 1)
          const { used: { tokens } } = yield* expectExceeded(
            Effect.andThen(review, thread.run("hi")).pipe(Budget.limit({ tokens: 40 }))
          )
          assert.strictEqual(tokens, 40)
        })
      ).pipe(Effect.provide(layer(() =>
        Stream.make(
          FakeAppServer.usage({ inputTokens: 10 }),
          FakeAppServer.usage({ inputTokens: 30 }),
          FakeAppServer.text("fine")
        )
      ))))
  })

  it.effect("records all messages of the client", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        yield* thread.run("hello", { model: "m" })
        const fake = yield* FakeAppServer.FakeAppServer
        assert.deepStrictEqual((yield* fake.sent).map(({ method }) => method), [
          "initialize",
          "initialized",
          "thread/start",
          "turn/start"
        ])
        assert.deepStrictEqual((yield* fake.awaitSent("turn/start")).params, {
          threadId: thread.id,
          input: [{ type: "text", text: "hello" }],
          model: "m"
        })
      })
    ).pipe(Effect.provide(layer())))

  it.effect("sends notifications and requests outside of turns", () =>
    Effect.gen(function*() {
      const fake = yield* FakeAppServer.FakeAppServer
      const server = yield* AppServer.AppServer
      const seen = yield* Effect.forkChild(Stream.runHead(server.notifications))
      yield* Effect.yieldNow
      yield* fake.notify("skills/changed", {})
      assert.strictEqual(Option.getOrThrow(yield* Fiber.join(seen)).method, "skills/changed")
      const { error } = yield* fake.request("attestation/generate", {})
      assert.strictEqual(error?.code, -32601)
    }).pipe(Effect.provide(layer())))

  it.effect("rejects unknown methods and threads, as the real server does", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const refused = (request: Effect.Effect<unknown, { readonly reason: { readonly _tag: string } }>) =>
        Effect.map(Effect.result(request), (result) => Result.isFailure(result) ? result.failure.reason._tag : "ok")
      assert.strictEqual(yield* refused(server.requestRaw("thread/explode", {})), "RequestRejected")
      assert.strictEqual(
        yield* refused(server.request("initialize", { clientInfo: { name: "a", version: "1" } })),
        "RequestRejected"
      )
      assert.strictEqual(
        yield* refused(server.request("turn/start", { threadId: "none", input: [] })),
        "ThreadNotFound"
      )
    }).pipe(Effect.provide(layer())))

  it.effect("rejects a method that it does not implement, and names the remedy", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const fake = yield* FakeAppServer.FakeAppServer
      assert.notInclude(fake.methods, "skills/list")
      const { reason } = yield* Effect.flip(server.request("skills/list", {}))
      assert(reason._tag === "RequestRejected")
      assert.include(reason.detail, `fake.respond("skills/list", FakeAppServer.result(`)
      yield* fake.respond("skills/list", FakeAppServer.result({ data: [] }))
      assert.deepStrictEqual((yield* server.request("skills/list", {})).data, [])
    }).pipe(Effect.provide(layer())))
})
