import { assert, it, layer } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import { CodexWorkflow } from "effect-codex/cluster"
import { FakeAppServer, ModelServer } from "effect-codex/testing"
import * as ClusterWorkflowEngine from "effect/cluster/ClusterWorkflowEngine"
import * as TestRunner from "effect/cluster/TestRunner"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Workflow from "effect/workflow/Workflow"
import * as WorkflowEngine from "effect/workflow/WorkflowEngine"
import * as TestCodex from "../TestCodex.ts"

const Plan = Schema.Struct({ steps: Schema.Array(Schema.String) })

const Refactor = Workflow.make("Refactor", {
  payload: { job: Schema.String },
  success: Schema.UndefinedOr(Schema.String),
  error: CodexWorkflow.StepError,
  idempotencyKey: ({ job }) => job
})

const layerRefactor = Refactor.toLayer(Effect.fnUntraced(function*() {
  const thread = yield* CodexWorkflow.thread("refactoring", { sandbox: "read-only", approvalMode: "deny_all" })
  const { output } = yield* thread.turn("plan", "Plan", { output: Plan })
  const { finalResponse } = yield* thread.turn("do", `Do ${output.steps.join(", ")}`)
  return finalResponse
}))

layer(TestCodex.layer(), { excludeTestServices: true })("CodexWorkflow", (it) => {
  it.effect("runs each turn once, and returns the stored result when it is executed again", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond(({ lastUserText }) =>
        ModelServer.text(lastUserText === "Plan" ? `{"steps":["a","b"]}` : `did: ${lastUserText}`)
      )
      const before = (yield* model.requests).length
      assert.strictEqual(yield* Refactor.execute({ job: "1" }), "did: Do a, b")
      assert.strictEqual(yield* Refactor.execute({ job: "1" }), "did: Do a, b")
      assert.strictEqual((yield* model.requests).length - before, 2)
    }).pipe(Effect.provide(Layer.provideMerge(layerRefactor, WorkflowEngine.layerMemory))))

  it.effect("fails with the typed error of a turn", () =>
    Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      yield* model.respond(() => ModelServer.failed({ code: "insufficient_quota", message: "no quota" }))
      const error = yield* Effect.flip(Refactor.execute({ job: "2" }))
      assert.strictEqual(error._tag, "TurnFailed")
    }).pipe(Effect.provide(Layer.provideMerge(layerRefactor, WorkflowEngine.layerMemory))))
})

const Greet = Workflow.make("Greet", {
  payload: { name: Schema.String },
  success: Schema.UndefinedOr(Schema.String),
  error: CodexWorkflow.StepError,
  idempotencyKey: ({ name }) => name
})

/** A workflow on the fake, without a process. */
const layerGreet = Greet.toLayer(Effect.fnUntraced(function*({ name }) {
  const thread = yield* CodexWorkflow.thread("greeting")
  return (yield* thread.turn("greet", `Greet ${name}`)).finalResponse
})).pipe(
  Layer.provideMerge(WorkflowEngine.layerMemory),
  Layer.provide(Codex.layer),
  Layer.provide(AppServer.layer()),
  Layer.provide(FakeAppServer.layer((turn) => FakeAppServer.text(`re: ${turn.text}`)))
)

it.effect("CodexWorkflow runs a turn on the fake", () =>
  Effect.gen(function*() {
    assert.strictEqual(yield* Greet.execute({ name: "Ada" }), "re: Greet Ada")
  }).pipe(Effect.provide(layerGreet)))

const Deploy = Workflow.make("Deploy", {
  payload: { job: Schema.String },
  success: CodexWorkflow.StepResult,
  error: CodexWorkflow.StepError,
  idempotencyKey: ({ job }) => job
})

/** Runs a command that needs an approval. After an interruption, the model runs it again. */
const touch = (request: ModelServer.ModelRequest) => {
  const callId = request.lastUserText?.includes("Continue") === true ? "again" : "first"
  const output = request.functionCallOutput(callId)
  if (output !== undefined) return ModelServer.text(output.includes("code 0") ? "deployed" : "declined")
  const args = {
    cmd: "touch deployed",
    login: false,
    sandbox_permissions: "require_escalated",
    justification: "May I?"
  }
  return ModelServer.functionCall("exec_command", args, { callId })
}

const engines = {
  "in memory": WorkflowEngine.layerMemory,
  "in a cluster": ClusterWorkflowEngine.layer.pipe(Layer.provideMerge(TestRunner.layer))
}

for (const [name, engine] of Object.entries(engines)) {
  layer(TestCodex.layer(), { excludeTestServices: true })(`Decision of a person, with the engine ${name}`, (it) => {
    const makeLayer = (pending: Queue.Queue<CodexWorkflow.Pending>, patience: string) =>
      Layer.provideMerge(
        Deploy.toLayer(Effect.fnUntraced(function*() {
          const thread = yield* CodexWorkflow.thread("deployment", {
            sandbox: "read-only",
            approvalPolicy: "on-request",
            approvalsReviewer: "user"
          })
          return yield* thread.turn("deploy", "Deploy", {
            ask: (request) => Queue.offer(pending, request),
            patience: patience as "1 second"
          })
        })),
        engine
      )

    it.effect("continues the turn that waits", () =>
      Effect.gen(function*() {
        const pending = yield* Queue.unbounded<CodexWorkflow.Pending>()
        const model = yield* ModelServer.ModelServer
        yield* model.respond(touch)
        yield* Effect.gen(function*() {
          const run = yield* Effect.forkChild(Deploy.execute({ job: "1" }))
          const { request, token } = yield* Queue.take(pending)
          assert.deepInclude(request, { _tag: "Command", reason: "May I?" })
          yield* CodexWorkflow.decide(token, "accept")
          assert.deepInclude(yield* Fiber.join(run), { origin: "sent", finalResponse: "deployed" })
          const declined = yield* Effect.forkChild(Deploy.execute({ job: "declined" }))
          yield* CodexWorkflow.decide((yield* Queue.take(pending)).token, "decline")
          assert.deepInclude(yield* Fiber.join(declined), { origin: "sent", finalResponse: "declined" })
        }).pipe(Effect.provide(makeLayer(pending, "1 minute")))
      }))

    it.effect("resumes a workflow that waits without a turn", () =>
      Effect.gen(function*() {
        const pending = yield* Queue.unbounded<CodexWorkflow.Pending>()
        const model = yield* ModelServer.ModelServer
        yield* model.respond(touch)
        yield* Effect.gen(function*() {
          const id = yield* Deploy.execute({ job: "2" }, { discard: true })
          const { token } = yield* Queue.take(pending)
          yield* Effect.repeat(Deploy.poll(id), {
            until: (result) => Option.isSome(result) && result.value._tag === "Suspended",
            schedule: Schedule.spaced("20 millis")
          })
          yield* CodexWorkflow.decide(token, "accept")
          const run = yield* Deploy.execute({ job: "2" })
          assert.deepInclude(run, { origin: "continued", finalResponse: "deployed" })
          assert.strictEqual(yield* Queue.size(pending), 0)
        }).pipe(Effect.provide(makeLayer(pending, "100 millis")))
      }))
  })
}
