import { assert, describe, it } from "@effect/vitest"
import { assertFailure, assertSuccess } from "@effect/vitest/utils"
import { ApprovalMode, type AppServerError, Codex, Sandbox } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Fake from "./FakeTransport.ts"
import { layer, openThread } from "./scenario.ts"

const bypass = "dangerously_bypass_approvals_and_sandbox"

const resolveThread = (input: ApprovalMode.ThreadInput) => Effect.result(ApprovalMode.resolveThread(input))
const resolveTurn = (input: ApprovalMode.TurnInput) => Effect.result(ApprovalMode.resolveTurn(input))

const fakeLayer = layer()

describe("ApprovalMode", () => {
  it.effect("resolves the modes of a thread to the protocol's fields", () =>
    Effect.gen(function*() {
      assertSuccess(yield* resolveThread({ approvalMode: "deny_all" }), { approvalPolicy: "never" })
      assertSuccess(yield* resolveThread({ approvalMode: "auto_review" }), {
        approvalPolicy: "on-request",
        approvalsReviewer: "auto_review"
      })
      assertSuccess(yield* resolveThread({ approvalMode: bypass }), {
        approvalPolicy: "never",
        sandbox: "danger-full-access"
      })
      assertSuccess(yield* resolveThread({ approvalMode: "deny_all", sandbox: "read-only" }), {
        approvalPolicy: "never",
        sandbox: "read-only"
      })
      assertSuccess(yield* resolveThread({ sandbox: "workspace-write" }), { sandbox: "workspace-write" })
      assertSuccess(yield* resolveThread({}), {})
    }))

  it.effect("resolves the modes of a turn to the protocol's fields", () =>
    Effect.gen(function*() {
      assertSuccess(yield* resolveTurn({ approvalMode: "deny_all" }), { approvalPolicy: "never" })
      assertSuccess(yield* resolveTurn({ approvalMode: "auto_review", sandboxPolicy: Sandbox.readOnly() }), {
        approvalPolicy: "on-request",
        approvalsReviewer: "auto_review",
        sandboxPolicy: { type: "readOnly" }
      })
      assertSuccess(yield* resolveTurn({ approvalMode: bypass }), {
        approvalPolicy: "never",
        sandboxPolicy: { type: "dangerFullAccess" }
      })
      assertSuccess(yield* resolveTurn({}), {})
    }))

  it.effect("decodes and encodes synchronously and without services", () =>
    Effect.sync(() => {
      const fields = Schema.decodeSync(ApprovalMode.ThreadApproval)({ approvalMode: bypass })
      assert.deepStrictEqual(fields, { approvalPolicy: "never", sandbox: "danger-full-access" })
      assert.deepStrictEqual(Schema.encodeSync(ApprovalMode.ThreadApproval)(fields), { approvalMode: bypass })
    }))

  it.effect("fails with a SandboxConflictError that contains the mode and the sandbox", () =>
    Effect.gen(function*() {
      const thread = yield* Effect.flip(ApprovalMode.resolveThread({ approvalMode: bypass, sandbox: "read-only" }))
      assert(thread._tag === "SandboxConflictError")
      assert.deepInclude(thread, { approvalMode: bypass, field: "sandbox", sandbox: "read-only" })
      assert.match(thread.message, /cannot be combined with `sandbox` "read-only"/)

      const policy = Sandbox.workspaceWrite({ networkAccess: true })
      const turn = yield* Effect.flip(ApprovalMode.resolveTurn({ approvalMode: bypass, sandboxPolicy: policy }))
      assert(turn._tag === "SandboxConflictError")
      assert.deepInclude(turn, { approvalMode: bypass, field: "sandboxPolicy", sandbox: policy })
      assert.match(turn.message, /cannot be combined with `sandboxPolicy` \{.*workspaceWrite.*\}/)
    }))

  it.effect("fails with an error that `catchTag` handles", () =>
    ApprovalMode.resolveThread({ approvalMode: bypass, sandbox: "read-only" }).pipe(
      Effect.catchTag("SandboxConflictError", (conflict) => Effect.succeed(conflict.field)),
      Effect.map((field) => assert.strictEqual(field, "sandbox"))
    ))

  it.effect("finds the conflict of a schema inside other schemas", () =>
    Effect.gen(function*() {
      const Settings = Schema.Struct({ jobs: Schema.Array(Schema.Union([ApprovalMode.ThreadApproval, Schema.String])) })
      const error = yield* Effect.flip(
        Schema.decodeUnknownEffect(Settings)({
          jobs: ["ok", { approvalMode: bypass, sandbox: "workspace-write" }]
        })
      )
      const conflict = ApprovalMode.sandboxConflict(error)
      assert(conflict !== undefined)
      assert.strictEqual(conflict.sandbox, "workspace-write")
    }))

  it.effect("rejects an unknown mode with a list of the known modes", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(ApprovalMode.resolveThread({ approvalMode: "allow_all" as never }))
      assert(error._tag === "SchemaError")
      assert.include(error.message, "deny_all, auto_review, dangerously_bypass_approvals_and_sandbox")
      assert.strictEqual(ApprovalMode.sandboxConflict(error), undefined)
    }))

  it.effect("does not encode approval fields that no mode produces", () =>
    Effect.gen(function*() {
      const encode = Schema.encodeEffect(ApprovalMode.ThreadApproval)
      yield* Effect.flip(encode({ approvalPolicy: "on-request" }))
      yield* Effect.flip(encode({ approvalPolicy: "never", approvalsReviewer: "auto_review" }))
      yield* Effect.flip(encode({ approvalsReviewer: "auto_review" }))
    }))

  it.effect.prop("resolves each input of a thread to fields, or to a conflict where there is one", {
    input: Schema.toEncoded(ApprovalMode.ThreadApproval)
  }, ({ input }) =>
    Effect.gen(function*() {
      const resolved = yield* resolveThread(input)
      const conflicts = input.approvalMode === bypass && input.sandbox !== undefined
      assert.strictEqual(Result.isFailure(resolved), conflicts)
      if (Result.isFailure(resolved)) assert.strictEqual(resolved.failure._tag, "SandboxConflictError")
    }))

  it.effect.prop("encodes the fields of a thread to an input that resolves to the same fields", {
    input: Schema.toEncoded(ApprovalMode.ThreadApproval)
  }, ({ input }) =>
    Effect.gen(function*() {
      const resolved = yield* resolveThread(input)
      if (Result.isFailure(resolved)) return
      const back = yield* Schema.encodeEffect(ApprovalMode.ThreadApproval)(resolved.success)
      assertSuccess(yield* resolveThread(back), resolved.success)
    }))

  it.effect.prop("resolves each input of a turn to fields that encode back, or to a conflict where there is one", {
    input: Schema.toEncoded(ApprovalMode.TurnApproval)
  }, ({ input }) =>
    Effect.gen(function*() {
      const resolved = yield* resolveTurn(input)
      const conflicts = input.approvalMode === bypass && input.sandboxPolicy !== undefined
      assert.strictEqual(Result.isFailure(resolved), conflicts)
      if (Result.isFailure(resolved)) {
        assert.strictEqual(resolved.failure._tag, "SandboxConflictError")
        return
      }
      const back = yield* Schema.encodeEffect(ApprovalMode.TurnApproval)(resolved.success)
      assertSuccess(yield* resolveTurn(back), resolved.success)
    }))

  it.effect.prop("sends nothing when a mode and a sandbox conflict", {
    sandbox: Sandbox.Mode,
    sandboxPolicy: Sandbox.Policy
  }, ({ sandbox, sandboxPolicy }) =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const thread = yield* openThread("t")
      const before = fake.sent.length
      const conflicts: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>> = [
        codex.startThread({ approvalMode: bypass, sandbox }),
        codex.resumeThread("t", { approvalMode: bypass, sandbox }),
        codex.forkThread("t", { approvalMode: bypass, sandbox }),
        thread.run("hi", { approvalMode: bypass, sandboxPolicy })
      ]
      for (const conflict of conflicts) {
        assertFailure(
          yield* Effect.result(Effect.mapError(conflict, (error) => error._tag)),
          "SandboxConflictError"
        )
      }
      assert.strictEqual(fake.sent.length, before)
    }).pipe(Effect.provide(fakeLayer)), { arbitrary: { runs: 20 } })
})

describe("Approval fields of an operation", () => {
  const sendFields = <A, E>(operation: (codex: Codex.Codex["Service"]) => Effect.Effect<A, E>, method: string) =>
    Effect.gen(function*() {
      const fake = yield* Fake.FakeTransport
      yield* Effect.forkChild(operation(yield* Codex.Codex))
      const { approvalPolicy, approvalsReviewer, sandbox } = (yield* fake.takeMethod(method)).params
      return { approvalPolicy, approvalsReviewer, sandbox }
    }).pipe(Effect.provide(fakeLayer, { local: true }))

  const autoReview = { approvalPolicy: "on-request", approvalsReviewer: "auto_review", sandbox: undefined }
  const nothing = { approvalPolicy: undefined, approvalsReviewer: undefined, sandbox: undefined }

  it.effect("sends the fields of auto_review when a thread starts without approval options", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* sendFields((codex) => codex.startThread(), "thread/start"), autoReview)
      assert.deepStrictEqual(
        yield* sendFields((codex) => codex.startThread({ model: "m" }), "thread/start"),
        autoReview
      )
    }))

  it.effect("sends no approval fields when a thread is resumed or forked without approval options", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* sendFields((codex) => codex.resumeThread("t"), "thread/resume"), nothing)
      assert.deepStrictEqual(yield* sendFields((codex) => codex.forkThread("t"), "thread/fork"), nothing)
    }))

  it.effect("sends raw approval fields unchanged", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(
        yield* sendFields((codex) => codex.startThread({ approvalPolicy: "on-request" }), "thread/start"),
        { ...nothing, approvalPolicy: "on-request" }
      )
      const granular = { granular: { mcp_elicitations: true, rules: true, sandbox_approval: false } }
      assert.deepStrictEqual(
        yield* sendFields(
          (codex) => codex.resumeThread("t", { approvalPolicy: granular, approvalsReviewer: "user" }),
          "thread/resume"
        ),
        { ...nothing, approvalPolicy: granular, approvalsReviewer: "user" }
      )
    }))

  it.effect("rejects a permission profile together with a sandbox", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const before = fake.sent.length
      for (const options of [{ approvalMode: bypass }, { sandbox: "read-only" }] as const) {
        const error = yield* Effect.flip(codex.startThread({ ...options, permissions: ":read-only" }))
        assert(error._tag === "AppServerError" && error.reason._tag === "InvalidRequest")
      }
      assert.strictEqual(fake.sent.length, before)
    }).pipe(Effect.provide(fakeLayer)))

  it.effect("rejects a mode together with raw approval fields", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const before = fake.sent.length
      // @ts-expect-error: a mode with raw fields
      const error = yield* Effect.flip(codex.startThread({ approvalMode: "deny_all", approvalPolicy: "never" }))
      assert(error._tag === "AppServerError" && error.reason._tag === "InvalidRequest")
      assert.strictEqual(fake.sent.length, before)
    }).pipe(Effect.provide(fakeLayer)))
})

describe("Verification of permissions", () => {
  const open = (options: Codex.StartOptions, effective: object) =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* Fake.FakeTransport
      const opening = yield* Effect.forkChild(Effect.result(codex.startThread(options)))
      yield* fake.reply(yield* fake.takeMethod("thread/start"), Fake.threadResponse("t", effective))
      return yield* Fiber.join(opening)
    }).pipe(Effect.provide(fakeLayer, { local: true }))

  const assertNotApplied = Effect.fnUntraced(
    function*(options: Codex.StartOptions, effective: object, setting: AppServerError.SettingsNotApplied["setting"]) {
      const result = yield* open(options, effective)
      assert(Result.isFailure(result) && result.failure._tag === "AppServerError")
      assert(result.failure.reason._tag === "SettingsNotApplied")
      assert.deepInclude(result.failure.reason, { method: "thread/start", threadId: "t", setting })
    }
  )

  it.effect("fails when a started thread has other permissions than requested", () =>
    Effect.gen(function*() {
      yield* assertNotApplied({ approvalMode: "deny_all" }, { approvalPolicy: "on-request" }, "approvalPolicy")
      yield* assertNotApplied({ approvalMode: "auto_review" }, { approvalsReviewer: "user" }, "approvalsReviewer")
      yield* assertNotApplied({ sandbox: "read-only" }, { sandbox: { type: "dangerFullAccess" } }, "sandbox")
      yield* assertNotApplied({ sandbox: "read-only" }, { sandbox: undefined }, "sandbox")
      yield* assertNotApplied({ permissions: ":read-only" }, { activePermissionProfile: null }, "permissions")
      yield* assertNotApplied(
        { permissions: ":read-only" },
        { activePermissionProfile: { id: ":workspace" } },
        "permissions"
      )
      yield* assertNotApplied(
        { approvalPolicy: { granular: { mcp_elicitations: true, rules: true, sandbox_approval: true } } },
        { approvalPolicy: { granular: { mcp_elicitations: true, rules: false, sandbox_approval: true } } },
        "approvalPolicy"
      )
    }))

  it.effect("accepts permissions that the server reports in an equivalent form", () =>
    Effect.gen(function*() {
      assert.isTrue(Result.isSuccess(
        yield* open({
          approvalPolicy: "on-request",
          approvalsReviewer: "guardian_subagent",
          sandbox: "workspace-write"
        }, {
          approvalsReviewer: "auto_review",
          sandbox: { type: "workspaceWrite", writableRoots: ["/extra"], networkAccess: true }
        })
      ))
      assert.isTrue(Result.isSuccess(
        yield* open(
          { approvalPolicy: { granular: { mcp_elicitations: true, rules: true, sandbox_approval: false } } },
          {
            approvalPolicy: {
              granular: { mcp_elicitations: true, rules: true, sandbox_approval: false, request_permissions: false }
            }
          }
        )
      ))
    }))
})
