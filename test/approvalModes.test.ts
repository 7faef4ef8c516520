import { assert, layer } from "@effect/vitest"
import { type ApprovalMode, AppServer, Codex, type Protocol, Sandbox, type Thread } from "effect-codex"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Stream from "effect/Stream"
import * as CodexEnvironment from "../src/testing/CodexEnvironment.ts"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as TestCodex from "./TestCodex.ts"

const bypass = "dangerously_bypass_approvals_and_sandbox"

/** The permissions of a thread in bypass, without the reviewer, who has nothing to review. */
const bypassed = { approvalPolicy: "never", sandbox: "dangerFullAccess" } as const

/** Reads the permissions of a thread, without the reviewer. */
const readPermissions = Effect.fnUntraced(function*(threadId: string) {
  const { approvalPolicy, sandbox } = yield* TestCodex.readPermissions(threadId)
  return { approvalPolicy, sandbox }
})

const readPolicy = (threadId: string) => Effect.map(readPermissions(threadId), ({ approvalPolicy }) => approvalPolicy)

/** Replies with the thread and its input, which differ for concurrent threads. */
const echo = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  yield* model.respond((request) => ModelServer.text(`${request.promptCacheKey}: ${request.lastUserText}`))
})

/** Runs a scenario on several threads concurrently. */
const runConcurrently = <A, E, R>(scenario: Effect.Effect<A, E, R>) =>
  Effect.all(Array.from({ length: 4 }, () => scenario), { concurrency: "unbounded" })

const runAndExpect = Effect.fnUntraced(function*(thread: Thread.Thread, input: string, options?: Thread.TurnOptions) {
  const result = yield* thread.run(input, options)
  assert.strictEqual(result.finalResponse, `${thread.id}: ${input}`)
})

const bypassLifecycle = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const source = yield* codex.startThread({ approvalMode: bypass })
  yield* runAndExpect(source, "begin in bypass")
  assert.deepStrictEqual(yield* readPermissions(source.id), bypassed)

  const resumed = yield* codex.resumeThread(source.id, { approvalMode: bypass })
  assert.strictEqual(resumed.id, source.id)
  assert.deepStrictEqual(yield* readPermissions(resumed.id), bypassed)

  const forked = yield* codex.forkThread(source.id, { approvalMode: bypass })
  assert.notStrictEqual(forked.id, source.id)
  assert.deepStrictEqual(yield* readPermissions(forked.id), bypassed)
})

const bypassOfOneTurn = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ approvalMode: "auto_review" })
  yield* runAndExpect(thread, "review this turn")
  assert.deepStrictEqual(yield* readPermissions(thread.id), { approvalPolicy: "on-request", sandbox: "readOnly" })
  yield* runAndExpect(thread, "bypass this turn", { approvalMode: bypass })
  assert.deepStrictEqual(yield* readPermissions(thread.id), bypassed)
})

const modeUntilOverride = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread()
  yield* runAndExpect(thread, "deny this and later runs", { approvalMode: "deny_all" })
  assert.strictEqual(yield* readPolicy(thread.id), "never")
  yield* runAndExpect(thread, "inherit the mode")
  assert.strictEqual(yield* readPolicy(thread.id), "never")
  yield* runAndExpect(thread, "override the mode", { approvalMode: "auto_review" })
  assert.strictEqual(yield* readPolicy(thread.id), "on-request")
  yield* runAndExpect(thread, "inherit the other mode")
  assert.strictEqual(yield* readPolicy(thread.id), "on-request")
})

layer(TestCodex.layer(), { excludeTestServices: true })("Approval modes", (it) => {
  it.effect("apply from the start of a thread, and keep the requested sandbox", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const settings = Effect.fnUntraced(function*(options?: Codex.StartOptions) {
        const thread = yield* codex.startThread(options)
        yield* runAndExpect(thread, "take effect")
        return yield* TestCodex.readPermissions(thread.id)
      })
      const reviewed = { approvalPolicy: "on-request", approvalsReviewer: "auto_review", sandbox: "readOnly" } as const
      const denied = { approvalPolicy: "never", approvalsReviewer: "user", sandbox: "readOnly" } as const

      assert.deepStrictEqual(yield* settings(), reviewed)
      assert.deepStrictEqual(yield* settings({ approvalMode: "auto_review" }), reviewed)
      assert.deepStrictEqual(yield* settings({ sandbox: "workspace-write" }), {
        ...reviewed,
        sandbox: "workspaceWrite"
      })
      assert.deepStrictEqual(yield* settings({ approvalMode: "deny_all" }), denied)
      assert.deepStrictEqual(yield* settings({ approvalMode: "deny_all", sandbox: "danger-full-access" }), {
        ...denied,
        sandbox: "dangerFullAccess"
      })
      assert.deepStrictEqual(yield* settings({ approvalMode: bypass }), { ...denied, sandbox: "dangerFullAccess" })
      assert.deepStrictEqual(
        yield* settings({ approvalPolicy: "untrusted", approvalsReviewer: "user", sandbox: "workspace-write" }),
        { approvalPolicy: "untrusted", approvalsReviewer: "user", sandbox: "workspaceWrite" }
      )
    }))

  it.effect("send a mode as fields of the protocol, and no mode as no fields", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      const names = new Set(["approvalMode", "approvalPolicy", "approvalsReviewer", "sandbox", "sandboxPolicy"])
      const lastSent = Effect.fnUntraced(function*(method: string) {
        const params = (yield* wire.sent).findLast((message) => message.method === method)?.params ?? {}
        return Object.fromEntries(Object.entries(params).filter(([name]) => names.has(name)))
      })
      const autoReview = { approvalPolicy: "on-request", approvalsReviewer: "auto_review" }

      const thread = yield* codex.startThread({ approvalMode: "auto_review" })
      assert.deepStrictEqual(yield* lastSent("thread/start"), autoReview)
      yield* codex.startThread()
      assert.deepStrictEqual(yield* lastSent("thread/start"), autoReview)
      yield* codex.startThread({ approvalMode: "deny_all", sandbox: "workspace-write" })
      assert.deepStrictEqual(yield* lastSent("thread/start"), { approvalPolicy: "never", sandbox: "workspace-write" })
      yield* codex.startThread({ approvalMode: bypass })
      assert.deepStrictEqual(yield* lastSent("thread/start"), {
        approvalPolicy: "never",
        sandbox: "danger-full-access"
      })

      yield* thread.run("no mode")
      assert.deepStrictEqual(yield* lastSent("turn/start"), {})
      yield* thread.run("reviewed", { approvalMode: "auto_review" })
      assert.deepStrictEqual(yield* lastSent("turn/start"), autoReview)
      yield* thread.run("denied", { approvalMode: "deny_all", sandboxPolicy: Sandbox.readOnly() })
      assert.deepStrictEqual(yield* lastSent("turn/start"), {
        approvalPolicy: "never",
        sandboxPolicy: { type: "readOnly" }
      })
      yield* thread.run("bypassed", { approvalMode: bypass })
      assert.deepStrictEqual(yield* lastSent("turn/start"), {
        approvalPolicy: "never",
        sandboxPolicy: { type: "dangerFullAccess" }
      })

      // The settings of a known thread are sent again.
      const kept = { approvalPolicy: "never", approvalsReviewer: "auto_review", sandbox: "danger-full-access" }
      yield* codex.resumeThread(thread.id)
      assert.deepStrictEqual(yield* lastSent("thread/resume"), kept)
      yield* codex.resumeThread(thread.id, { approvalMode: bypass })
      assert.deepStrictEqual(yield* lastSent("thread/resume"), kept)
      yield* codex.forkThread(thread.id)
      assert.deepStrictEqual(yield* lastSent("thread/fork"), kept)
      yield* codex.forkThread(thread.id, { approvalMode: "auto_review", sandbox: "read-only" })
      assert.deepStrictEqual(yield* lastSent("thread/fork"), { ...autoReview, sandbox: "read-only" })
    }))

  it.effect("keep the bypass of a thread that is started, resumed and forked", () =>
    Effect.andThen(echo, bypassLifecycle))

  it.effect("keep the bypass of each thread when several are started, resumed and forked concurrently", () =>
    Effect.andThen(echo, runConcurrently(bypassLifecycle)))

  it.effect("keep the bypass of one turn in the settings of its thread", () => Effect.andThen(echo, bypassOfOneTurn))

  it.effect("keep the bypass of each concurrent turn in the settings of its own thread", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const bystander = yield* codex.startThread({ approvalMode: "auto_review" })
      yield* runAndExpect(bystander, "stay out of it")
      yield* runConcurrently(bypassOfOneTurn)
      assert.deepStrictEqual(yield* readPermissions(bystander.id), {
        approvalPolicy: "on-request",
        sandbox: "readOnly"
      })
    }))

  it.effect("keep the mode of a turn until a turn overrides it", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const turn = (options?: Thread.TurnOptions) =>
        Effect.scoped(Effect.flatMap(thread.turn("another turn", options), (turn) => turn.result))
      yield* turn({ approvalMode: "deny_all" })
      assert.strictEqual(yield* readPolicy(thread.id), "never")
      yield* turn()
      assert.strictEqual(yield* readPolicy(thread.id), "never")
      yield* turn({ approvalMode: "auto_review" })
      assert.strictEqual(yield* readPolicy(thread.id), "on-request")
    }))

  it.effect("keep the mode of a run until a run overrides it", () => Effect.andThen(echo, modeUntilOverride))

  it.effect("keep the modes of concurrent runs, each on its own thread, until a run overrides them", () =>
    Effect.andThen(echo, runConcurrently(modeUntilOverride)))

  it.effect("inherit deny_all when a thread is resumed without a mode", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ approvalMode: "deny_all" })
      yield* runAndExpect(thread, "begin")
      const resumed = yield* codex.resumeThread(thread.id)
      yield* runAndExpect(resumed, "go on")
      assert.strictEqual(yield* readPolicy(resumed.id), "never")
    }))

  it.effect("inherit deny_all when a thread is forked without a mode", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const source = yield* codex.startThread({ approvalMode: "deny_all" })
      yield* runAndExpect(source, "begin")
      const forked = yield* codex.forkThread(source.id)
      assert.strictEqual(yield* readPolicy(forked.id), "never")
    }))

  it.effect("change the mode of a fork, and keep the mode of its source", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const source = yield* codex.startThread({ approvalMode: "deny_all" })
      yield* runAndExpect(source, "begin")
      const reviewed = yield* codex.forkThread(source.id, { approvalMode: "auto_review" })
      const bypassing = yield* codex.forkThread(source.id, { approvalMode: bypass })
      assert.strictEqual(yield* readPolicy(reviewed.id), "on-request")
      assert.deepStrictEqual(yield* readPermissions(bypassing.id), bypassed)
      assert.deepStrictEqual(yield* readPermissions(source.id), { approvalPolicy: "never", sandbox: "readOnly" })
    }))

  it.effect("fail to resume a loaded thread that does not have the requested permissions", () =>
    Effect.gen(function*() {
      yield* echo
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ approvalMode: "deny_all" })
      yield* runAndExpect(thread, "load me")
      const expectNotApplied = (options: Codex.ResumeOptions) =>
        codex.resumeThread(thread.id, options).pipe(
          Effect.as(undefined),
          Effect.catchReason("AppServerError", "SettingsNotApplied", (reason) => Effect.succeed(reason))
        )

      assert.deepInclude(yield* expectNotApplied({ approvalMode: "auto_review" }), {
        method: "thread/resume",
        threadId: thread.id,
        setting: "approvalPolicy",
        requested: "on-request",
        effective: "never"
      })
      assert.deepInclude(yield* expectNotApplied({ approvalMode: bypass }), {
        setting: "sandbox",
        requested: "danger-full-access",
        effective: { type: "readOnly", networkAccess: false }
      })
      assert.deepInclude(yield* expectNotApplied({ approvalPolicy: "never", approvalsReviewer: "auto_review" }), {
        setting: "approvalsReviewer",
        requested: "auto_review",
        effective: "user"
      })
      assert.deepInclude(yield* expectNotApplied({ sandbox: "workspace-write" }), { setting: "sandbox" })

      assert.deepStrictEqual(yield* readPermissions(thread.id), { approvalPolicy: "never", sandbox: "readOnly" })
      const same = yield* codex.resumeThread(thread.id, { approvalMode: "deny_all", sandbox: "read-only" })
      yield* runAndExpect(same, "equal permissions do not conflict")
    }))

  it.effect("reject an unknown mode with a list of the known modes, and send nothing", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const wire = yield* TestCodex.Wire
      const thread = yield* codex.startThread()
      const before = yield* wire.sent
      // @ts-expect-error: an unknown mode
      const unknown: { readonly approvalMode: ApprovalMode.ApprovalMode } = { approvalMode: "allow_all" }
      const description = Effect.fnUntraced(function*(effect: Effect.Effect<unknown, unknown>) {
        const reason = yield* TestCodex.expectReason(effect)
        return reason._tag === "InvalidRequest" ? reason.description : yield* Effect.die(reason)
      })

      for (
        const failure of [
          description(codex.startThread(unknown)),
          description(codex.resumeThread(thread.id, unknown)),
          description(codex.forkThread(thread.id, unknown)),
          description(thread.run("never sent", unknown)),
          description(Effect.scoped(thread.turn("never sent", unknown))),
          description(Stream.runDrain(thread.stream("never sent", unknown)))
        ]
      ) {
        assert.include(yield* failure, "deny_all, auto_review, dangerously_bypass_approvals_and_sandbox")
      }
      // @ts-expect-error: a mode with raw fields
      const both = codex.startThread({ approvalMode: "deny_all", approvalPolicy: "never" })
      assert.include(yield* description(both), "not both")
      assert.deepStrictEqual(yield* wire.sent, before)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Bypass with a sandbox", (it) => {
  it.effect("fails with SandboxConflictError, and starts, changes and sends nothing", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const server = yield* AppServer.AppServer
      const model = yield* ModelServer.ModelServer
      const wire = yield* TestCodex.Wire
      const initialized = yield* wire.sent

      const start = yield* Effect.flip(codex.startThread({ approvalMode: bypass, sandbox: "read-only" }))
      assert.strictEqual(start._tag, "SandboxConflictError")
      assert.deepInclude(start, { approvalMode: bypass, field: "sandbox", sandbox: "read-only" })
      assert.match(start.message, /combined with `sandbox`/)
      // Equal values conflict too.
      const agreeing = yield* Effect.flip(codex.startThread({ approvalMode: bypass, sandbox: "danger-full-access" }))
      assert.strictEqual(agreeing._tag, "SandboxConflictError")

      assert.deepStrictEqual(yield* wire.sent, initialized)
      assert.deepStrictEqual(yield* Stream.runCollect(codex.listThreads()), [])
      assert.deepStrictEqual((yield* server.request("thread/loaded/list", {})).data, [])

      const thread = yield* codex.startThread()
      const started = yield* wire.sent
      const conflict = { approvalMode: bypass, sandboxPolicy: Sandbox.readOnly() } as const
      for (
        const effect of [
          Effect.asVoid(thread.run("never sent", conflict)),
          Effect.asVoid(Effect.scoped(thread.turn("never sent", conflict))),
          Stream.runDrain(thread.stream("never sent", conflict))
        ]
      ) {
        const run = yield* Effect.flip(effect)
        assert.strictEqual(run._tag, "SandboxConflictError")
        assert.deepInclude(run, { approvalMode: bypass, field: "sandboxPolicy", sandbox: { type: "readOnly" } })
        assert.match(run.message, /combined with `sandboxPolicy`/)
      }
      for (const open of [codex.resumeThread, codex.forkThread]) {
        const caught = yield* open(thread.id, { approvalMode: bypass, sandbox: "read-only" }).pipe(
          Effect.map((thread) => thread.id),
          Effect.catchTag("SandboxConflictError", (error) => Effect.succeed(error.field))
        )
        assert.strictEqual(caught, "sandbox")
      }

      assert.deepStrictEqual(yield* wire.sent, started)
      assert.deepStrictEqual((yield* thread.read()).turns, [])
      assert.deepStrictEqual((yield* thread.read()).status, { type: "idle" })
      assert.deepStrictEqual(yield* model.requests, [])
    }))
})

layer(TestCodex.layerEnvironment(), { excludeTestServices: true })("Approval modes in a second process", (it) => {
  it.effect("apply to a resumed thread that is not loaded", () =>
    Effect.gen(function*() {
      yield* echo
      const inProcess = Effect.provide(TestCodex.layerProcess(), { local: true })
      const id = yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread({ approvalMode: "deny_all" })
        yield* runAndExpect(thread, "begin")
        return thread.id
      }).pipe(inProcess)

      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const resumed = yield* codex.resumeThread(id, { approvalMode: bypass })
        assert.deepStrictEqual(yield* readPermissions(resumed.id), bypassed)
        yield* runAndExpect(resumed, "go on without a sandbox")
      }).pipe(inProcess)

      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        yield* codex.resumeThread(id)
        assert.deepStrictEqual(yield* readPermissions(id), bypassed)
      }).pipe(inProcess)

      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        yield* codex.resumeThread(id, { approvalMode: "auto_review", sandbox: "workspace-write" })
        assert.deepStrictEqual(yield* TestCodex.readPermissions(id), {
          approvalPolicy: "on-request",
          approvalsReviewer: "auto_review",
          sandbox: "workspaceWrite"
        })
      }).pipe(inProcess)
    }))

  it.effect("keep the bypass of one turn", () =>
    Effect.gen(function*() {
      yield* echo
      const inProcess = Effect.provide(TestCodex.layerProcess(), { local: true })
      const id = yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* runAndExpect(thread, "bypass", { approvalMode: bypass })
        return thread.id
      }).pipe(inProcess)
      yield* Effect.gen(function*() {
        const codex = yield* Codex.Codex
        yield* codex.resumeThread(id)
        assert.deepStrictEqual(yield* readPermissions(id), bypassed)
      }).pipe(inProcess)
    }))
})

// By default commands can write in temporary directories, which contain the workspace.
const excludeTemporary = { sandbox_workspace_write: { exclude_slash_tmp: true, exclude_tmpdir_env_var: true } }

layer(TestCodex.layer({ home: { config: excludeTemporary } }), { excludeTestServices: true })("Commands", (it) => {
  /** Returns whether this machine can sandbox commands. Linux needs user namespaces for that. */
  const canSandbox = Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    return yield* server.request("command/exec", { command: ["true"], sandboxPolicy: Sandbox.readOnly() }).pipe(
      Effect.map(({ exitCode }) => exitCode === 0),
      Effect.catchReason("AppServerError", "RequestRejected", () => Effect.succeed(false))
    )
  })

  /** Runs a turn in which the model writes a file in the workspace and one outside, and returns the outcome. */
  const writeFiles = Effect.fnUntraced(function*(name: string, thread: Thread.Thread, options?: Thread.TurnOptions) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const model = yield* ModelServer.ModelServer
    const { root, workspace } = yield* CodexEnvironment.CodexEnvironment
    const inside = path.join(workspace, `${name}.txt`)
    const outside = path.join(root, `${name}.txt`)
    const cmd = [inside, outside].map((file) => `printf %s ${name} > '${file}'; echo "exit $?"`).join("; ")
    yield* model.enqueue(
      ModelServer.functionCall("exec_command", { cmd, login: false }, { callId: name }),
      ModelServer.text(`${name}: done`)
    )
    const result = yield* thread.run("write the files", options)
    assert.strictEqual(result.finalResponse, `${name}: done`)
    const read = (file: string) =>
      Effect.catchReason(fs.readFileString(file), "PlatformError", "NotFound", () => Effect.succeed("missing"))
    const output = (yield* TestCodex.getRequests(thread.id)).at(-1)?.functionCallOutput(name) ?? "nothing"
    return {
      inside: yield* read(inside),
      outside: yield* read(outside),
      exits: Array.from(output.matchAll(/^exit (\d+)$/gm), ([, code]) => code),
      refusals: Array.from(
        output.matchAll(/(\S+): (?:Read-only file system|Permission denied|Operation not permitted)/g)
      )
        .map(([, file]) => file)
    }
  })

  it.effect("write only in the workspace under deny_all, and nowhere in a read-only sandbox", (context) =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const path = yield* Path.Path
      const { root, workspace } = yield* CodexEnvironment.CodexEnvironment
      if (!(yield* canSandbox)) return context.skip("this machine cannot sandbox commands")

      const writing = yield* codex.startThread({ approvalMode: "deny_all", sandbox: "workspace-write" })
      assert.deepStrictEqual(yield* writeFiles("denied", writing), {
        inside: "denied",
        outside: "missing",
        exits: ["0", "1"],
        refusals: [path.join(root, "denied.txt")]
      })

      const reading = yield* codex.startThread({ approvalMode: "deny_all" })
      assert.deepStrictEqual(yield* writeFiles("all-denied", reading), {
        inside: "missing",
        outside: "missing",
        exits: ["1", "1"],
        refusals: [path.join(workspace, "all-denied.txt"), path.join(root, "all-denied.txt")]
      })
    }))

  it.effect("write outside the workspace under bypass, from the start or from the turn that sets it", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const allowed = (name: string) => ({ inside: name, outside: name, exits: ["0", "0"], refusals: [] })

      const started = yield* codex.startThread({ approvalMode: bypass })
      assert.deepStrictEqual(yield* writeFiles("dangerous", started), allowed("dangerous"))

      const denying = yield* codex.startThread({ approvalMode: "deny_all" })
      assert.deepStrictEqual(
        yield* writeFiles("overridden", denying, { approvalMode: bypass }),
        allowed("overridden")
      )
      assert.deepStrictEqual(yield* writeFiles("inherited", denying), allowed("inherited"))
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Command that requests to leave the sandbox", (it) => {
  /** Runs a turn in which the model requests to leave the sandbox, and returns the outcome. `review` is the reply of the reviewing model. */
  const escalate = Effect.fnUntraced(function*(
    name: string,
    options: Codex.StartOptions,
    review?: { readonly outcome: "allow" | "deny" }
  ) {
    const codex = yield* Codex.Codex
    const model = yield* ModelServer.ModelServer
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const { root } = yield* CodexEnvironment.CodexEnvironment
    const file = path.join(root, `${name}.txt`)
    const thread = yield* codex.startThread(options)
    const escalation = ModelServer.functionCall("exec_command", {
      cmd: `printf %s ${name} > '${file}'`,
      login: false,
      sandbox_permissions: "require_escalated",
      justification: "It is outside the workspace."
    }, { callId: name })
    const verdict = { risk_level: "low", user_authorization: "high", rationale: "A test.", ...review }
    yield* model.respond((request) => {
      if (request.promptCacheKey !== thread.id) return ModelServer.text(JSON.stringify(verdict))
      return request.functionCallOutput(name) === undefined ? escalation : ModelServer.text("done")
    })
    const before = (yield* model.requests).length
    const result = yield* thread.run("write the file")
    assert.strictEqual(result.finalResponse, "done")
    const reviews = (yield* model.requests).slice(before).filter(({ promptCacheKey }) => promptCacheKey !== thread.id)
    return {
      written: yield* fs.exists(file),
      reviews: reviews.length,
      items: result.items.flatMap((item) => item.type === "commandExecution" ? [item.status] : []),
      output: (yield* TestCodex.getRequests(thread.id)).at(-1)?.functionCallOutput(name) ?? ""
    }
  })

  /** Responds to approval requests, and collects them. */
  const handleApprovals = Effect.fnUntraced(function*(
    response: Effect.Effect<Protocol.CommandExecutionRequestApprovalResponse, unknown>
  ) {
    const server = yield* AppServer.AppServer
    const requests: Array<Protocol.CommandExecutionRequestApprovalParams> = []
    yield* server.handle("item/commandExecution/requestApproval", (params) => {
      requests.push(params)
      return response
    })
    return requests
  })

  const byUser = { approvalPolicy: "on-request", approvalsReviewer: "user" } as const

  it.effect("is rejected under deny_all and under bypass, without a request to the program", () =>
    Effect.gen(function*() {
      const requests = yield* handleApprovals(Effect.succeed({ decision: "accept" }))
      for (const approvalMode of ["deny_all", bypass] as const) {
        const { items, reviews, output, written } = yield* escalate(approvalMode, { approvalMode })
        assert.deepStrictEqual({ items, reviews, written }, { items: [], reviews: 0, written: false })
        assert.match(output, /approval policy is Never/i)
      }
      assert.deepStrictEqual(requests, [])
    }))

  it.effect("runs under auto_review only if the reviewing model allows it", () =>
    Effect.gen(function*() {
      const requests = yield* handleApprovals(Effect.succeed({ decision: "accept" }))
      const allowed = yield* escalate("reviewed", { approvalMode: "auto_review" }, { outcome: "allow" })
      assert.deepInclude(allowed, { reviews: 1, written: true, items: ["completed"] })
      const denied = yield* escalate("denied-by-review", { approvalMode: "auto_review" }, { outcome: "deny" })
      assert.deepInclude(denied, { reviews: 1, written: false })
      assert.deepStrictEqual(requests, [])
    }))

  it.effect("runs only if the program accepts it, and not if the handler declines, fails, dies or is missing", () =>
    Effect.gen(function*() {
      const responses = {
        accept: Effect.succeed({ decision: "accept" } as const),
        decline: Effect.succeed({ decision: "decline" } as const),
        fail: Effect.fail("no idea"),
        die: Effect.die("no idea")
      }
      for (const [name, response] of Object.entries(responses)) {
        const { requests, ...outcome } = yield* Effect.scoped(Effect.gen(function*() {
          const requests = yield* handleApprovals(response)
          return { ...yield* escalate(name, byUser), requests }
        }))
        const accepted = name === "accept"
        assert.deepInclude(outcome, { written: accepted, items: [accepted ? "completed" : "declined"] }, name)
        assert.lengthOf(requests, 1)
        assert.deepInclude(requests[0], { itemId: name, reason: "It is outside the workspace." })
      }
      const unhandled = yield* escalate("unhandled", byUser)
      assert.deepInclude(unhandled, { written: false, items: ["declined"] })
      assert.match(unhandled.output, /rejected by user/)
    }))
})
