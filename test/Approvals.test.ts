import { assert, describe, expectTypeOf, it, layer } from "@effect/vitest"
import { ApprovalPolicy, Approvals, Codex, Questions, type Thread } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import type * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import * as TestCodex from "./TestCodex.ts"

/** The server sends each approval to the client. */
const reviewedByUser = { approvalPolicy: "on-request", approvalsReviewer: "user" } as const

/** A call of the model that runs a command outside the sandbox, which needs approval. */
const escalated = (command: string, callId: string) =>
  ModelServer.functionCall("exec_command", {
    cmd: command,
    login: false,
    sandbox_permissions: "require_escalated",
    justification: "The test wants it."
  }, { callId })

/** A command that waits until a file exists in the workspace. */
const waitFor = (file: string) => `while ! test -e ${file}; do sleep 0.02; done`

const patch = (file: string, callId: string) =>
  ModelServer.customToolCall("apply_patch", `*** Begin Patch\n*** Add File: ${file}\n+hello\n*** End Patch`, { callId })

const done = ModelServer.text("done")

/** Runs a turn in which the model makes these calls, and returns the status of the turn and of its items. */
const runCalls = Effect.fnUntraced(function*(
  thread: Thread.Thread,
  ...calls: ReadonlyArray<ModelServer.Reply>
) {
  yield* TestCodex.script(thread, ...calls, done)
  const { items, status } = yield* thread.run("go")
  return {
    status,
    outcomes: items.flatMap((item) =>
      item.type === "commandExecution" || item.type === "fileChange" ? [item.status] : []
    )
  }
})

const exists = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { workspace } = yield* CodexEnvironment.CodexEnvironment
  return yield* fs.exists(path.join(workspace, file))
})

class Rules extends Context.Service<Rules, { readonly allows: (command: string) => boolean }>()("test/Rules") {}

const config = { ...TestCodex.mcpConfig, features: { request_permissions_tool: true } }

layer(TestCodex.layer({ home: { config } }), { excludeTestServices: true })("Approvals", (it) => {
  describe("commands", () => {
    it.effect("passes the command and its details to the handler", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const seen: Array<Approvals.CommandRequest> = []
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            command: (request) => {
              seen.push(request)
              return Effect.succeed(Approvals.decline)
            }
          }
        })
        yield* runCalls(thread, escalated("touch 'a b'", "plain"), escalated("touch a && rm -rf b", "compound"))
        const { workspace } = yield* CodexEnvironment.CodexEnvironment
        assert.deepInclude(seen[0], {
          _tag: "Command",
          threadId: thread.id,
          itemId: "plain",
          kind: "command",
          reason: "The test wants it.",
          script: "touch 'a b'",
          argv: ["touch", "a b"],
          cwd: workspace,
          proposedExecpolicyAmendment: ["touch", "a b"]
        })
        assert.include(seen[0]!.availableDecisions, "accept")
        assert.deepInclude(seen[1], { script: "touch a && rm -rf b", argv: undefined })
      }))

    it.effect("provides argv only if the words are what runs", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const seen: Array<Approvals.CommandRequest> = []
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            command: (request) => {
              seen.push(request)
              return Effect.succeed(Approvals.decline)
            }
          }
        })
        const none = [
          "bash -c ls",
          "./bash -c ls",
          "env ls",
          "sudo -n ls",
          "pwsh.exe -NoProfile -Command 'ls; ls'",
          "echo a=~/x",
          "time ls",
          "eval 'ls; ls'",
          String.raw`C:\dir\x.exe`
        ]
        const words = [String.raw`'C:\dir\x.exe' "it's ^ \b" a\ b`]
        yield* runCalls(thread, ...[...none, ...words].map((script, index) => escalated(script, `argv${index}`)))
        assert.deepStrictEqual(seen.map(({ script }) => script), [...none, ...words])
        assert.deepStrictEqual(seen.map(({ argv }) => argv), [
          ...none.map(() => undefined),
          [String.raw`C:\dir\x.exe`, String.raw`it's ^ \b`, "a b"]
        ])
      }))

    it.effect("leaves a command of a login shell open under readOnlyCommands", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const { workspace } = yield* CodexEnvironment.CodexEnvironment
        const run = Effect.fnUntraced(function*(login: boolean, approvals: Approvals.Policy) {
          const seen: Array<Approvals.CommandRequest> = []
          const thread = yield* codex.startThread({
            ...reviewedByUser,
            config: { allow_login_shell: true },
            approvals: (request) => {
              if (request._tag === "Command") seen.push(request)
              return approvals(request)
            }
          })
          const { outcomes } = yield* runCalls(
            thread,
            ModelServer.functionCall("exec_command", {
              cmd: "ls",
              ...(login ? {} : { login }),
              sandbox_permissions: "require_escalated",
              justification: "The test wants it."
            }, { callId: "login" })
          )
          return { outcomes, ...seen[0]! }
        })
        const expected = { script: "ls", argv: ["ls"], cwd: workspace }
        // A login shell is the default of Codex.
        const login = yield* run(true, ApprovalPolicy.readOnlyCommands)
        assert.match(login.command!, /-lc ls$/)
        assert.deepInclude(login, { ...expected, outcomes: ["declined"] })
        const plain = yield* run(false, ApprovalPolicy.readOnlyCommands)
        assert.match(plain.command!, / -c ls$/)
        assert.deepInclude(plain, { ...expected, outcomes: ["completed"] })
        const named = yield* run(true, ApprovalPolicy.acceptCommands((argv) => argv.join(" ") === "ls"))
        assert.deepInclude(named, { ...expected, outcomes: ["completed"] })
      }))

    it.effect("runs the command, declines it or ends the turn, as the handler decides", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const decide = Effect.fnUntraced(function*(decision: Approvals.CommandDecision) {
          const thread = yield* codex.startThread({
            ...reviewedByUser,
            approvals: { command: () => Effect.succeed(decision) }
          })
          const file = `run-${JSON.stringify(decision).length}-${String(decision)}.txt`
          const outcome = yield* runCalls(thread, escalated(`touch ${file}`, "call"))
          return { ...outcome, exists: yield* exists(file) }
        })
        assert.deepStrictEqual(yield* decide("accept"), { status: "completed", outcomes: ["completed"], exists: true })
        assert.deepStrictEqual(yield* decide("decline"), { status: "completed", outcomes: ["declined"], exists: false })
        assert.deepStrictEqual(yield* decide("cancel"), {
          status: "interrupted",
          outcomes: ["declined"],
          exists: false
        })
      }))

    it.effect("applies a decision to the session, or to commands with the same prefix", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const decide = Effect.fnUntraced(function*(
          decision: Approvals.CommandDecision,
          ...commands: ReadonlyArray<string>
        ) {
          let times = 0
          const thread = yield* codex.startThread({
            ...reviewedByUser,
            approvals: {
              command: () => {
                times++
                return Effect.succeed(decision)
              }
            }
          })
          const { outcomes } = yield* runCalls(thread, ...commands.map((command, i) => escalated(command, `call${i}`)))
          return { times, outcomes }
        })
        assert.deepStrictEqual(
          yield* decide(Approvals.acceptForSession, "touch again.txt", "touch again.txt", "touch other.txt"),
          { times: 2, outcomes: ["completed", "completed", "completed"] }
        )
        assert.deepStrictEqual(
          yield* decide(Approvals.acceptWithExecpolicyAmendment(["mkdir", "-p"]), "mkdir -p one", "mkdir -p two"),
          { times: 1, outcomes: ["completed", "completed"] }
        )
        const fs = yield* FileSystem.FileSystem
        const { codexHome } = yield* CodexEnvironment.CodexEnvironment
        assert.include(yield* fs.readFileString(`${codexHome}/rules/default.rules`), "mkdir")
      }))

    it.effect("runs a handler that uses services and Codex itself", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            command: Effect.fn(function*({ argv, threadId }) {
              const rules = yield* Rules
              const inner = yield* Codex.Codex
              const models = yield* Stream.runCollect(inner.models())
              const other = yield* inner.startThread()
              return rules.allows(argv?.[0] ?? "") && models.length > 0 && other.id !== threadId
                ? Approvals.accept
                : Approvals.decline
            })
          }
        }).pipe(Effect.provideService(Rules, { allows: (command) => command === "touch" }))
        const { outcomes } = yield* runCalls(thread, escalated("touch nested.txt", "yes"), escalated("rm x", "no"))
        assert.deepStrictEqual(outcomes, ["completed", "declined"])
      }))

    it.effect("declines when the handler fails, dies, throws or returns no decision", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const broken: ReadonlyArray<() => any> = [
          () => Effect.fail("no idea"),
          () => Effect.die(new Error("bug")),
          () => {
            throw new Error("thrown")
          },
          () => Effect.succeed("sure"),
          () => Effect.succeed(undefined),
          () => "accept",
          () => Effect.interrupt
        ]
        for (const [index, command] of broken.entries()) {
          const outcome = yield* Effect.gen(function*() {
            const thread = yield* codex.startThread({ ...reviewedByUser, approvals: { command } })
            return yield* runCalls(thread, escalated("touch broken.txt", "call"))
          })
          assert.deepStrictEqual(outcome, { status: "completed", outcomes: ["declined"] }, `handler ${index}`)
        }
        assert.isFalse(yield* exists("broken.txt"))
      }))

    it.effect("interrupts the handler when the turn ends, and sends at most one response", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const wire = yield* TestCodex.Wire
        const waiting = yield* Deferred.make<void>()
        const interrupted = yield* Deferred.make<void>()
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            command: () =>
              Deferred.succeed(waiting, undefined).pipe(
                Effect.andThen(Effect.never),
                Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
              )
          }
        })
        yield* TestCodex.script(thread, escalated("touch late.txt", "late"))
        yield* Effect.scoped(Effect.gen(function*() {
          const turn = yield* thread.turn("go")
          yield* Deferred.await(waiting)
          yield* turn.interrupt
          assert.strictEqual((yield* turn.result).status, "interrupted")
        }))
        yield* Deferred.await(interrupted)
        const request = yield* wire.awaitReceived((message) =>
          message.params?.["itemId"] === "late" && message.id !== undefined
        )
        const responses = (yield* wire.sent).filter((message) =>
          message.method === undefined && message.id === request.id
        )
        assert.isAtMost(responses.length, 1)
        assert.isFalse(yield* exists("late.txt"))
      }))

    it.effect("calls the handler once when a resume makes the server repeat the request", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const wire = yield* TestCodex.Wire
        const waiting = yield* Deferred.make<void>()
        const decision = yield* Deferred.make<Approvals.CommandDecision>()
        let times = 0
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            command: () => {
              times++
              return Effect.andThen(Deferred.succeed(waiting, undefined), Deferred.await(decision))
            }
          }
        })
        yield* TestCodex.script(thread, escalated("touch replayed.txt", "replayed"), done)
        const running = yield* Effect.forkChild(thread.run("go"))
        yield* Deferred.await(waiting)
        yield* codex.resumeThread(thread.id)
        yield* codex.resumeThread(thread.id)
        yield* Deferred.succeed(decision, "accept")
        yield* Fiber.join(running)
        assert.isTrue(yield* exists("replayed.txt"))
        assert.strictEqual(times, 1)
        const { id } = yield* wire.awaitReceived((message) =>
          message.params?.["itemId"] === "replayed" && message.id !== undefined
        )
        assert.lengthOf((yield* wire.sent).filter((message) => message.method === undefined && message.id === id), 1)
      }))

    it.effect("streams another thread and interrupts the turn while a handler waits", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const waiting = yield* Deferred.make<void>()
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: { command: () => Effect.andThen(Deferred.succeed(waiting, undefined), Effect.never) }
        })
        const other = yield* codex.startThread()
        yield* model.respond((request) =>
          request.promptCacheKey === thread.id
            ? escalated("touch blocked.txt", "blocked")
            : ModelServer.deltas(["a", "b", "c"])
        )
        yield* Effect.scoped(Effect.gen(function*() {
          const turn = yield* thread.turn("go")
          yield* Deferred.await(waiting)
          assert.strictEqual((yield* other.run("stream")).finalResponse, "abc")
          yield* turn.interrupt
          assert.strictEqual((yield* turn.result).status, "interrupted")
        }))
      }))
  })

  it.effect("passes the diff of a file change, and writes it only if the handler accepts", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const { workspace } = yield* CodexEnvironment.CodexEnvironment
      const seen: Array<Approvals.FileChangeRequest> = []
      const decide = Effect.fnUntraced(function*(decision: Approvals.FileChangeDecision, file: string) {
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          sandbox: "read-only",
          approvals: {
            fileChange: (request) => {
              seen.push(request)
              return Effect.succeed(decision)
            }
          }
        })
        const outcome = yield* runCalls(thread, patch(file, "patch"))
        return { ...outcome, exists: yield* exists(file) }
      })
      assert.deepStrictEqual(yield* decide("accept", "yes.txt"), {
        status: "completed",
        outcomes: ["completed"],
        exists: true
      })
      assert.deepStrictEqual(yield* decide("decline", "no.txt"), {
        status: "completed",
        outcomes: ["declined"],
        exists: false
      })
      assert.deepInclude(yield* decide("cancel", "never.txt"), { status: "interrupted", exists: false })
      assert.deepStrictEqual(seen[0]!.changes, [{
        path: `${workspace}/yes.txt`,
        kind: { type: "add" },
        diff: "hello\n"
      }])
    }))

  it.effect("writes nothing for a file change through a link into a protected folder", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const folder = path.join(root, "linked")
      for (const name of [".git/hooks", ".codex", "src"]) {
        yield* fs.makeDirectory(path.join(folder, name), { recursive: true })
      }
      yield* fs.makeDirectory(path.join(root, "elsewhere"))
      yield* fs.symlink(".git/hooks", path.join(folder, "hooks"))
      yield* fs.symlink(".codex", path.join(folder, "conf"))
      yield* fs.symlink("src", path.join(folder, "plain"))
      yield* fs.symlink(path.join(root, "elsewhere"), path.join(folder, "out"))
      yield* fs.symlink("missing", path.join(folder, "dangling"))
      yield* fs.writeFileString(path.join(folder, "src/a.txt"), "a\n")
      const thread = yield* codex.startThread({
        ...reviewedByUser,
        sandbox: "read-only",
        cwd: folder,
        approvals: ApprovalPolicy.onlyInside(ApprovalPolicy.acceptFileChanges, folder)
      })
      const move = ModelServer.customToolCall(
        "apply_patch",
        "*** Begin Patch\n*** Update File: src/a.txt\n*** Move to: hooks/post-commit\n@@\n-a\n+b\n*** End Patch",
        { callId: "move" }
      )
      const { outcomes } = yield* runCalls(
        thread,
        patch("hooks/pre-commit", "hooks"),
        patch("src/../hooks/pre-push", "dots"),
        patch("conf/config.toml", "conf"),
        patch("out/x.txt", "out"),
        patch("dangling", "dangling"),
        move,
        patch("plain/yes.txt", "plain")
      )
      assert.deepStrictEqual(outcomes, [...Array.from({ length: 6 }, () => "declined"), "completed"])
      const read = (name: string) => fs.readDirectory(path.join(folder, name))
      assert.deepStrictEqual(yield* read(".git/hooks"), [])
      assert.deepStrictEqual(yield* read(".codex"), [])
      assert.deepStrictEqual(yield* read("out"), [])
      assert.sameMembers([...yield* read("src")], ["a.txt", "yes.txt"])
      assert.isFalse(yield* fs.exists(path.join(folder, "missing")))
    }))

  it.effect("grants the permissions that the handler grants, and no others", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const { root } = yield* CodexEnvironment.CodexEnvironment
      const ask = Effect.fnUntraced(function*(decision: Approvals.PermissionsDecision) {
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: { permissions: () => Effect.succeed(decision) }
        })
        const permissions = { file_system: { write: [`${root}/extra`, `${root}/more`] } }
        yield* TestCodex.script(
          thread,
          ModelServer.functionCall("request_permissions", { reason: "for a test", permissions }, {
            callId: "permissions"
          }),
          done
        )
        const { status } = yield* thread.run("go")
        const output = (yield* model.requests).at(-1)?.functionCallOutput("permissions") ?? ""
        return { status, output }
      })
      assert.include((yield* ask("accept")).output, `${root}/more`)
      assert.include((yield* ask("acceptForSession")).output, `"scope":"session"`)
      const some = yield* ask(Approvals.grant({ fileSystem: { write: [`${root}/extra`] } }))
      assert.include(some.output, `${root}/extra`)
      assert.notInclude(some.output, `${root}/more`)
      assert.notInclude((yield* ask("decline")).output, root)
      assert.strictEqual((yield* ask("cancel")).status, "interrupted")
    }))

  it.effect("calls an MCP tool or declines, once or for the session", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const seen: Array<Approvals.McpToolCallRequest> = []
      const ask = Effect.fnUntraced(function*(decision: Approvals.McpToolCallDecision, times = 1) {
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            mcpToolCall: (request) => {
              seen.push(request)
              return Effect.succeed(decision)
            }
          }
        })
        const calls = Array.from({ length: times }, (_, i) =>
          ModelServer.functionCall("erase", { what: "it" }, { callId: `erase${i}`, namespace: "mcp__people" }))
        yield* TestCodex.script(thread, ...calls, done)
        const { items, status } = yield* thread.run("go")
        return {
          status,
          outcomes: items.flatMap((item) =>
            item.type === "mcpToolCall" ? [item.status] : []
          )
        }
      })
      assert.deepStrictEqual(yield* ask("accept"), { status: "completed", outcomes: ["completed"] })
      assert.deepStrictEqual(yield* ask("decline"), { status: "completed", outcomes: ["failed"] })
      assert.strictEqual((yield* ask("cancel")).status, "interrupted")
      assert.deepInclude(seen[0], {
        _tag: "McpToolCall",
        server: "people",
        tool: "erase",
        arguments: { what: "it" }
      })
      const before = seen.length
      assert.deepStrictEqual((yield* ask("acceptForSession", 2)).outcomes, ["completed", "completed"])
      assert.lengthOf(seen.slice(before), 1)
    }))

  it.effect("passes the annotations of an MCP tool to the handler", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const seen: Array<Approvals.McpToolCallRequest> = []
      const thread = yield* codex.startThread({
        ...reviewedByUser,
        approvals: {
          mcpToolCall: (request) => {
            seen.push(request)
            return Effect.succeed("decline")
          }
        }
      })
      yield* TestCodex.script(
        thread,
        ModelServer.functionCall("erase", { what: "it" }, { callId: "annotated", namespace: "mcp__people" }),
        done
      )
      yield* thread.run("go")
      assert.deepStrictEqual(seen.map(({ annotations }) => annotations), [
        { readOnlyHint: false, destructiveHint: true }
      ])
    }))

  it.effect("does not treat a form of an MCP server as an approval of Codex", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const approvals: Array<Approvals.McpToolCallRequest> = []
      const forms: Array<Questions.ElicitationRequest> = []
      const thread = yield* codex.startThread({
        ...reviewedByUser,
        approvals: {
          mcpToolCall: (request) => {
            approvals.push(request)
            return Effect.succeed(Approvals.accept)
          }
        },
        questions: {
          elicitation: (request) => {
            forms.push(request)
            return Effect.succeed(Questions.accept({ name: "Ada" }))
          }
        }
      })
      const callId = "pretend"
      yield* TestCodex.script(
        thread,
        ModelServer.functionCall("pretend", {}, { callId, namespace: "mcp__people" }),
        done
      )
      yield* thread.run("go")
      assert.deepStrictEqual(approvals, [])
      // The client declines a form that Codex could have sent. A form with fields is the server's own.
      assert.lengthOf(forms, 1)
      assert.include(
        (yield* TestCodex.getRequests(thread.id)).at(-1)?.functionCallOutput(callId),
        `[{"action":"decline"},{"action":"accept","content":{"name":"Ada"}}]`
      )
    }))

  describe("precedence", () => {
    const recordCall = (source: string, calls: Array<string>): Approvals.Handlers => ({
      command: () =>
        Effect.sync(() => {
          calls.push(source)
          return Approvals.decline
        })
    })

    it.effect("calls the handlers of the turn, then of the thread, then of the innermost layer", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const calls: Array<string> = []
        const thread = yield* codex.startThread({ ...reviewedByUser, approvals: recordCall("thread", calls) })
        const bare = yield* codex.startThread(reviewedByUser)
        const ask = Effect.fnUntraced(function*(thread: Thread.Thread, options?: Thread.TurnOptions) {
          yield* TestCodex.script(thread, escalated("touch x", "call"), done)
          yield* thread.run("go", options)
        })
        yield* Effect.gen(function*() {
          yield* ask(thread, { approvals: recordCall("turn", calls) })
          yield* ask(thread)
          yield* ask(bare)
          yield* Effect.provide(ask(bare), Approvals.layer(recordCall("inner layer", calls)))
          yield* ask(bare)
          // A request that a handler leaves open goes to the next one.
          yield* ask(thread, { approvals: { fileChange: () => Effect.succeed("accept") } })
          yield* ask(thread, { approvals: () => Effect.succeedNone })
        }).pipe(Effect.provide(Approvals.layer(recordCall("layer", calls))))
        assert.deepStrictEqual(calls, ["turn", "thread", "layer", "inner layer", "layer", "thread", "thread"])
        const outcome = yield* runCalls(bare, escalated("touch undecided.txt", "call"))
        assert.deepStrictEqual(outcome.outcomes, ["declined"])
        assert.lengthOf(calls, 7)
      }))

    it.effect("keeps the handlers of a resumed or forked thread, unless it gets new ones", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const calls: Array<string> = []
        const thread = yield* codex.startThread({ ...reviewedByUser, approvals: recordCall("first", calls) })
        yield* runCalls(thread, escalated("touch x", "one"))
        yield* runCalls(yield* codex.resumeThread(thread.id), escalated("touch x", "two"))
        yield* runCalls(yield* codex.forkThread(thread.id), escalated("touch x", "three"))
        yield* runCalls(
          yield* codex.forkThread(thread.id, { approvals: recordCall("second", calls) }),
          escalated("touch x", "four")
        )
        yield* runCalls(
          yield* codex.resumeThread(thread.id, { approvals: recordCall("third", calls) }),
          escalated("touch x", "five")
        )
        assert.deepStrictEqual(calls, ["first", "first", "first", "second", "third"])
      }))

    it.effect("calls the handlers of the thread for which a sub-agent works", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const asking: Array<string> = []
        const thread = yield* codex.startThread({
          ...reviewedByUser,
          approvals: {
            command: ({ threadId }) => {
              asking.push(threadId)
              return Effect.succeed(Approvals.accept)
            }
          }
        })
        yield* model.respond((request) => {
          if (request.header("thread-id") === thread.id) return TestCodex.delegate(request, { message: "write a file" })
          return request.functionCallOutput("sub") === undefined ? escalated("touch sub.txt", "sub") : done
        })
        const lenient = Approvals.layer(() => Effect.succeedSome(Approvals.decline))
        yield* Effect.provide(thread.run("go"), lenient)
        assert.lengthOf(asking, 1)
        assert.notStrictEqual(asking[0], thread.id)
        assert.isTrue(yield* exists("sub.txt"))
      }))

    it.effect("calls no handler of a later turn for a sub-agent of an earlier turn", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const model = yield* ModelServer.ModelServer
        const fs = yield* FileSystem.FileSystem
        const { workspace } = yield* CodexEnvironment.CodexEnvironment
        /** Runs a turn that ends while its sub-agent waits, and another turn in which the sub-agent continues. */
        const outlive = Effect.fnUntraced(function*(name: string, calls: Array<string>, first: Thread.TurnOptions) {
          const thread = yield* codex.startThread({ ...reviewedByUser, approvals: recordCall("thread", calls) })
          const subRequested = yield* Deferred.make<void>()
          let turns = 1
          yield* model.respond((request) => {
            if (request.header("thread-id") === thread.id) {
              return request.functionCallOutput("spawn") === undefined
                ? TestCodex.delegate(request, { message: "write a file" })
                : turns === 2 && request.functionCallOutput("wait") === undefined
                ? ModelServer.functionCall("exec_command", { cmd: waitFor(`${name}-requested`), login: false }, {
                  callId: "wait"
                })
                : done
            }
            if (request.functionCallOutput("wait") === undefined) {
              return ModelServer.functionCall("exec_command", { cmd: waitFor(`${name}-go`), login: false }, {
                callId: "wait"
              })
            }
            if (request.functionCallOutput("sub") === undefined) return escalated(`touch ${name}.txt`, "sub")
            Deferred.doneUnsafe(subRequested, Effect.void)
            return done
          })
          yield* thread.run("one", first)
          turns = 2
          const second = yield* Effect.forkChild(
            thread.run("two", { approvals: { command: () => Effect.sync(() => (calls.push("later"), "accept")) } })
          )
          yield* fs.writeFileString(`${workspace}/${name}-go`, "")
          yield* Deferred.await(subRequested)
          yield* fs.writeFileString(`${workspace}/${name}-requested`, "")
          yield* Fiber.join(second)
          assert.isFalse(yield* exists(`${name}.txt`))
        })
        const calls: Array<string> = []
        yield* Effect.gen(function*() {
          yield* outlive("bare", calls, {})
          assert.deepStrictEqual(calls, ["thread"])
          yield* outlive("own", calls, { approvals: recordCall("turn", calls) })
          assert.deepStrictEqual(calls, ["thread"])
        }).pipe(Effect.provide(Approvals.layer(() => Effect.succeedSome(Approvals.accept))))
      }))
  })

  it.effect("reports each request and decision, with the source of the decision", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const record = yield* Effect.forkChild(Stream.runCollect(Stream.take(Approvals.audit, 8)), {
        startImmediately: true
      })
      const thread = yield* codex.startThread({
        ...reviewedByUser,
        approvals: ApprovalPolicy.firstOf(
          ApprovalPolicy.acceptCommands(([program]) => program === "touch"),
          (request) =>
            request._tag === "Command" && request.argv?.[0] === "die" ? Effect.die("bug") : Effect.succeedNone
        )
      })
      yield* runCalls(thread, escalated("touch x", "a"), escalated("rm x", "b"), escalated("die x", "c")).pipe(
        Effect.provide(Approvals.layer(() => Effect.succeedSome("decline")))
      )
      yield* runCalls(thread, escalated("rm x", "d"))
      const entries = yield* Fiber.join(record)
      assert.deepStrictEqual(
        entries.map((entry) =>
          entry._tag === "Decided" ? [entry.decision, entry.by, entry.cause === undefined] : entry._tag
        ),
        [
          "Requested",
          ["accept", "thread", true],
          "Requested",
          ["decline", "layer", true],
          "Requested",
          ["decline", "failure", false],
          "Requested",
          ["decline", "nobody", true]
        ]
      )
    }))
})

// The compiler checks these tests.
describe("Approvals.layer", () => {
  const accept = () => Effect.succeed(Approvals.accept)
  const withRules = () => Effect.as(Rules, Approvals.accept)
  const withWire = () => Effect.as(TestCodex.Wire, Approvals.accept)

  it("requires the services of its handlers", () => {
    expectTypeOf(Approvals.layer({ command: accept })).toEqualTypeOf<Layer.Layer<never>>()
    expectTypeOf(Approvals.layer({ command: withRules })).toEqualTypeOf<Layer.Layer<never, never, Rules>>()
    expectTypeOf(Approvals.layer({ command: withRules, fileChange: withWire, permissions: accept }))
      .toEqualTypeOf<Layer.Layer<never, never, Rules | TestCodex.Wire>>()
  })

  it("requires the services of a policy", () => {
    expectTypeOf(Approvals.layer(() => Effect.asSome(withRules()))).toEqualTypeOf<Layer.Layer<never, never, Rules>>()
    expectTypeOf(Approvals.layer(ApprovalPolicy.acceptFileChanges))
      .toEqualTypeOf<Layer.Layer<never, never, FileSystem.FileSystem | Path.Path>>()
    expectTypeOf(Approvals.layer(ApprovalPolicy.firstOf({ command: withRules }, ApprovalPolicy.readOnlyCommands)))
      .toEqualTypeOf<Layer.Layer<never, never, Rules>>()
  })

  it("does not accept a misspelled handler or a decision of another request", () => {
    // @ts-expect-error: fileChnage
    Approvals.layer({ command: accept, fileChnage: accept })
    // @ts-expect-error: a file change has no `acceptAlways`
    Approvals.layer({ fileChange: () => Effect.succeed(Approvals.acceptAlways) })
    // @ts-expect-error: no Effect
    Approvals.layer({ command: () => Approvals.accept })
  })
})
