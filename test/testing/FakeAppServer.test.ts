import { assert, describe, it } from "@effect/vitest"
import { AppServer, Codex, Input, type Protocol, Sandbox, type Thread } from "effect-codex"
import { FakeAppServer } from "effect-codex/testing"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"

const layer = (script?: FakeAppServer.Script, options?: FakeAppServer.Options) =>
  Codex.layer.pipe(
    Layer.provideMerge(AppServer.layer()),
    Layer.provideMerge(FakeAppServer.layer(script, options))
  )

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
  it.effect("echoes without a script", () =>
    withThread((thread) =>
      Effect.gen(function*() {
        assert.strictEqual((yield* thread.run("hello")).finalResponse, "hello")
        assert.strictEqual((yield* thread.run([Input.text("one"), Input.text("two")])).finalResponse, "one\ntwo")
      })
    ).pipe(Effect.provide(layer())))

  it.effect("plays an Effect of steps, and says them in the protocol's order", () =>
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
        yield* FakeAppServer.reasoning(`Someone says ${turn.text}`)
        yield* FakeAppServer.plan([{ step: "greet", status: "inProgress" }])
        yield* FakeAppServer.deltas(["he", "llo"])
        yield* FakeAppServer.usage({ inputTokens: 3, outputTokens: 2 })
      })
    ))))

  it.effect("plays a Stream of steps", () =>
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

  it.effect("fails a turn with any error info", () =>
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

  it.effect("adds up the usage of requests, over turns and forks", () =>
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

  it.effect("is interrupted", () =>
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

  it.effect("hands steering to the script", () =>
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

  describe("asks the client", () => {
    const ask = (
      step: FakeAppServer.Action,
      register: (server: AppServer.AppServer["Service"]) => Effect.Effect<void, never, any>
    ) => {
      const heard = Deferred.makeUnsafe<unknown>()
      return Effect.gen(function*() {
        yield* register(yield* AppServer.AppServer)
        const result = yield* withThread((thread) => thread.run("hi"))
        return { heard: yield* Deferred.await(heard), status: result.status, items: result.items }
      }).pipe(
        Effect.scoped,
        Effect.provide(layer(() => step.pipe(Effect.tap((answer) => Deferred.succeed(heard, answer)))))
      ) as Effect.Effect<{ heard: unknown; status: string; items: ReadonlyArray<Protocol.ThreadItem> }, unknown>
    }
    const nobody = () => Effect.void

    it.effect("for approval of a command", () =>
      Effect.gen(function*() {
        const step = FakeAppServer.command("rm x", { approval: true, output: "gone" })
        const accepted = yield* ask(step, (server) =>
          server.handle("item/commandExecution/requestApproval", () =>
            Effect.succeed({ decision: "accept" } as const)))
        assert.strictEqual(accepted.heard, "accept")
        assert.deepInclude(accepted.items[1], {
          type: "commandExecution",
          status: "completed",
          aggregatedOutput: "gone"
        })
        const declined = yield* ask(step, nobody)
        assert.strictEqual(declined.heard, "decline")
        assert.deepInclude(declined.items[1], { type: "commandExecution", status: "declined" })
      }))

    it.effect("for approval of a file change, which may cancel the turn", () =>
      Effect.gen(function*() {
        const step = FakeAppServer.fileChange([{ path: "a.txt", kind: "add", diff: "+a" }], { approval: true })
        const declined = yield* ask(step, nobody)
        assert.strictEqual(declined.heard, "decline")
        const cancelled = yield* withThread((thread) =>
          Effect.gen(function*() {
            const server = yield* AppServer.AppServer
            yield* server.handle(
              "item/fileChange/requestApproval",
              () => Effect.succeed({ decision: "cancel" } as const)
            )
            return yield* thread.run("hi")
          })
        ).pipe(Effect.scoped, Effect.provide(layer(() => step)))
        assert.strictEqual(cancelled.status, "interrupted")
      }))

    it.effect("for the user's choice", () =>
      Effect.gen(function*() {
        const step = FakeAppServer.userInput([{ id: "q", question: "Which?", options: ["a", "b"] }])
        const { heard } = yield* ask(step, (server) =>
          server.handle("item/tool/requestUserInput", ({ questions }) =>
            Effect.succeed({ answers: { q: { answers: [questions[0]!.options![1]!.label] } } })))
        assert.deepStrictEqual(heard, { q: ["b"] })
      }))

    it.effect("to run a tool", () =>
      Effect.gen(function*() {
        const step = FakeAppServer.toolCall("weather", { city: "Oslo" })
        const { heard } = yield* ask(step, (server) =>
          server.handle("item/tool/call", ({ arguments: args }) =>
            Effect.succeed(
              { success: true, contentItems: [{ type: "inputText", text: JSON.stringify(args) }] } as const
            )))
        assert.deepStrictEqual(heard, {
          success: true,
          contentItems: [{ type: "inputText", text: "{\"city\":\"Oslo\"}" }]
        })
      }))

    it.effect("and fails the turn if the script needed an answer that it did not get", () =>
      Effect.gen(function*() {
        const failed = yield* Effect.flip(run(() => FakeAppServer.userInput([{ id: "q", question: "Which?" }])))
        assert(failed._tag === "TurnFailed")
        assert.include(failed.message, "does not handle item/tool/requestUserInput")
      }))
  })

  describe("keeps threads", () => {
    it.effect("as the real server does: stored once they have run a turn", () =>
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

    it.effect("with their rights, and ignores other rights for a loaded one", () =>
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

    it.effect("for the next connection", () =>
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

  describe("goes wrong on demand:", () => {
    it.effect("junk, half lines and unknown notifications between the events", () =>
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

    it.effect("each byte by itself", () =>
      Effect.gen(function*() {
        assert.strictEqual(
          (yield* run(() => FakeAppServer.text("é😀\u2028"), { splitAtEveryByte: true })).finalResponse,
          "é😀\u2028"
        )
      }))

    it.effect("each message twice", () =>
      Effect.gen(function*() {
        const { items } = yield* run(() => FakeAppServer.text("a"), { duplicateMessages: true })
        assert.deepStrictEqual(items.map(({ type }) => type), [
          "userMessage",
          "userMessage",
          "agentMessage",
          "agentMessage"
        ])
      }))

    it.effect("all events before the answer to turn/start", () =>
      Effect.gen(function*() {
        assert.strictEqual(
          (yield* run(() => FakeAppServer.text("early"), { eventsBeforeResponse: true })).finalResponse,
          "early"
        )
      }))

    it.effect("all events before the answer, also when the turn waits for the client", () =>
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

    it.effect("a scripted answer that throws is a refusal, and the fake goes on", () =>
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

    it.effect("an answer that never comes, in virtual time", () =>
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

    it.effect("overload that passes, and refusals", () =>
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

    it.effect("a result of a newer protocol", () =>
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

    it.effect("one odd entry in a list, and a cursor that leads nowhere", () =>
      Effect.gen(function*() {
        const fake = yield* FakeAppServer.FakeAppServer
        const codex = yield* Codex.Codex
        const [model] = yield* Stream.runCollect(codex.models())
        yield* fake.respond("model/list", FakeAppServer.result({ data: [{ id: "odd" }, model], nextCursor: "here" }))
        const models = yield* Stream.runCollect(codex.models())
        assert.deepStrictEqual(models.map(({ id }) => id), ["fake-model", "fake-model"])
      }).pipe(Effect.provide(layer())))

    it.effect("the end of the process in the middle of a line", () =>
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

    it.effect("a server that stops reading for a while", () =>
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

    it.effect("latency, in virtual time", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const opening = yield* Effect.forkChild(codex.startThread())
        yield* TestClock.adjust("99 millis")
        assert.strictEqual(opening.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(opening)
      }).pipe(Effect.provide(
        Codex.layer.pipe(
          Layer.provide(Layer.effect(
            AppServer.AppServer,
            Effect.gen(function*() {
              const building = yield* Effect.forkScoped(Layer.build(AppServer.layer()))
              yield* TestClock.adjust("1 second")
              const context = yield* Fiber.join(building)
              return yield* Effect.provideContext(AppServer.AppServer, context)
            })
          )),
          Layer.provide(FakeAppServer.layer(undefined, { latency: "100 millis" }))
        )
      )))
  })

  it.effect("records everything that the client sent", () =>
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

  it.effect("refuses what the protocol does not have, as the real server does", () =>
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

  it.effect("says how to script a method that it does not know", () =>
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
