import { assert, describe, it, layer } from "@effect/vitest"
import { Approvals, AppServer, AppServerError, Codex, Turn, TurnView, type Usage } from "effect-codex"
import { FakeAppServer, ModelServer } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { poll } from "./poll.ts"
import * as TestCodex from "./TestCodex.ts"

const Step = Schema.Struct({ title: Schema.String, minutes: Schema.Int })
const Plan = Schema.Struct({ goal: Schema.String, steps: Schema.Array(Step) })
const plan: typeof Plan.Type = {
  goal: "bread",
  steps: [{ title: "knead", minutes: 10 }, { title: "bake", minutes: 40 }]
}

const invalidPlan = ModelServer.text(JSON.stringify({ goal: 1, steps: [{ title: "knead", minutes: "ten" }] }))
const planIssues = ["`goal`: Expected string", "`steps[0].minutes`: Expected"]

/** A thread to which the model sends these replies. */
const scripted = Effect.fnUntraced(function*(...replies: ReadonlyArray<ModelServer.Reply>) {
  const thread = yield* TestCodex.startThread
  yield* TestCodex.script(thread, ...replies)
  return thread
})

/** Fails with `OutputInvalid`, and returns it. */
const expectInvalid = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert(error instanceof Turn.OutputInvalid, String(error))
    return error
  })

const isTurnStart = ({ method }: TestCodex.Message) => method === "turn/start"

const layerFake = (script: FakeAppServer.Script) =>
  Codex.layer.pipe(Layer.provide(AppServer.layer()), Layer.provideMerge(FakeAppServer.layer(script)))

/** The params of each `turn/start` of a thread. */
const getStarts = Effect.fnUntraced(function*(threadId: string) {
  const wire = yield* TestCodex.Wire
  return (yield* wire.sent).filter(isTurnStart).map(({ params }) => params ?? {})
    .filter((params) => params["threadId"] === threadId)
})

/** The text of the last input of the user in a model request. */
const lastInput = (request: ModelServer.ModelRequest | undefined): string => JSON.stringify(request?.body["input"])

/** Waits until the model has received this number of requests of a thread. */
const awaitRequests = (threadId: string, number: number) =>
  poll(TestCodex.getRequests(threadId), (requests) => requests.length === number, `request ${number}`)

const count = (usage: Usage.TurnUsage | undefined) => usage?.turn.totalTokens

const withUsage = (item: ModelServer.Item, inputTokens: number) =>
  ModelServer.reply([item], { usage: { inputTokens, outputTokens: 0 } })

class Person extends Schema.Class<Person>("Person")({ name: Schema.String, born: Schema.Date }) {}

interface Tree {
  readonly label: string
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  label: Schema.String,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
}).annotate({ identifier: "Tree" })

class Currency extends Context.Service<Currency, string>()("Currency") {}

/** An amount that is decoded with a service. */
const Amount = Schema.Struct({ cents: Schema.Int }).pipe(
  Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect(({ cents }) =>
      Effect.map(Currency, (currency) => `${cents / 100} ${currency}`)
    ),
    encode: SchemaGetter.transform((text) => ({ cents: Number.parseFloat(text) * 100 }))
  })
)

layer(TestCodex.layer(), { excludeTestServices: true })("Typed output", (it) => {
  it.effect("sends a strict JSON Schema to the model, and decodes the final response", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.object(Plan, plan))
      const { finalResponse, output, status } = yield* thread.run("plan", { output: Plan })
      assert.deepStrictEqual(output, plan)
      assert.strictEqual(status, "completed")
      assert.deepStrictEqual(JSON.parse(finalResponse ?? ""), plan)

      const [request] = yield* TestCodex.getRequests(thread.id)
      assert.deepNestedInclude(request?.body, {
        "text.format.strict": true,
        "text.format.schema.type": "object",
        "text.format.schema.required": ["goal", "steps"],
        "text.format.schema.additionalProperties": false
      })
    }))

  const values: Record<string, readonly [schema: Schema.Codec<any, any>, value: unknown]> = {
    "an array": [Schema.Array(Step), plan.steps],
    "a union": [Schema.Union([Step, Schema.Null]), null],
    "a literal": [Schema.Literals(["yes", "no"]), "yes"],
    "a string": [Schema.String, "text"],
    "a number": [Schema.Number, 1.5],
    "a date": [Schema.Date, new Date(0)],
    "a recursive schema": [Tree, { label: "a", children: [{ label: "b", children: [] }] }],
    "a class": [Person, new Person({ name: "Ada", born: new Date(0) })],
    "a record": [Schema.Record(Schema.String, Schema.Int), { a: 1, b: 2 }]
  }
  for (const [name, [schema, value]] of Object.entries(values)) {
    it.effect(`decodes ${name}`, () =>
      Effect.gen(function*() {
        const thread = yield* scripted(ModelServer.object(schema, value))
        const { output } = yield* thread.run("go", { output: schema })
        assert.deepStrictEqual(output, value)
      }))
  }

  it.effect("decodes with the services of the caller", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("{\"cents\":150}"), ModelServer.text("{\"cents\":250}"))
      const { output } = yield* thread.run("go", { output: Amount }).pipe(Effect.provideService(Currency, "EUR"))
      assert.strictEqual(output, "1.5 EUR")
      const turn = yield* thread.turn("go", { output: Amount })
      assert.strictEqual(yield* Effect.provideService(turn.output, Currency, "USD"), "2.5 USD")
    }))

  it.effect("parses only the final response, not commentary", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.reply([
        ModelServer.message("{\"goal\":\"none\",\"steps\":[]}", { phase: "commentary" }),
        ModelServer.object(Plan, plan)
      ]))
      const turn = yield* thread.turn("go", { output: Plan })
      const partials = yield* Stream.runCollect(turn.partialOutput)
      assert.isFalse(partials.some(({ goal }) => goal === "none"))
      assert.deepStrictEqual(yield* turn.output, plan)
    }))

  it.effect("is ThreadBusy on a thread with a running turn", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(TestCodex.halfMessage)
      yield* thread.turn("first")
      const reason = yield* TestCodex.expectReason(thread.run("second", { output: Plan }))
      assert(reason._tag === "ThreadBusy")
      assert.deepStrictEqual(reason.options, ["output"])
      assert.isFalse(reason.isSent)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Repair", (it) => {
  it.effect("reports every issue with its path to the model, in the same thread", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(invalidPlan, ModelServer.object(Plan, plan))
      const { output } = yield* thread.run("plan", { output: Plan })
      assert.deepStrictEqual(output, plan)
      const [, repair] = yield* TestCodex.getRequests(thread.id)
      for (const issue of planIssues) assert.include(lastInput(repair), issue)
      assert.lengthOf(yield* TestCodex.readTurns(thread.id), 2)
    }))

  it.effect("reports a response that is not JSON", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("Sure: {"), ModelServer.object(Plan, plan))
      assert.deepStrictEqual((yield* thread.run("plan", { output: Plan })).output, plan)
      const [, repair] = yield* TestCodex.getRequests(thread.id)
      assert.include(lastInput(repair), "The response is not JSON")
    }))

  it.effect("has the paths of the schema where the output is wrapped on the wire", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("{\"value\":[1,\"2\"]}"))
      const error = yield* expectInvalid(thread.run("go", { output: Schema.Array(Schema.Int), repairs: 0 }))
      assert.deepStrictEqual(error.issues.map(({ path }) => path), [[1]])
      assert.notInclude(error.message, "value")
    }))

  it.effect("keeps the options of the turn, except those of its input", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ approvalMode: "auto_review", approvalPolicy: undefined })
      yield* TestCodex.script(thread, invalidPlan, ModelServer.object(Plan, plan))
      yield* thread.run("plan", {
        output: Plan,
        effort: "low",
        serviceTierForTurn: "default",
        clientUserMessageId: "mine"
      })
      const [first, repair] = yield* getStarts(thread.id)
      for (const name of ["outputSchema", "effort", "serviceTierForTurn"]) {
        assert.isDefined(first?.[name], name)
        assert.deepStrictEqual(repair?.[name], first?.[name], name)
      }
      assert.strictEqual(first?.["clientUserMessageId"], "mine")
      assert.isUndefined(repair?.["clientUserMessageId"])
    }))

  it.effect("requests approvals from the handlers of the turn", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ sandbox: "read-only" })
      yield* TestCodex.script(
        thread,
        invalidPlan,
        ModelServer.functionCall("exec_command", { cmd: "true", sandbox_permissions: "require_escalated" }),
        ModelServer.object(Plan, plan)
      )
      const commands: Array<string | null | undefined> = []
      const { output } = yield* thread.run("plan", {
        output: Plan,
        approvalPolicy: "on-request",
        approvalsReviewer: "user",
        approvals: {
          command: ({ command }) => Effect.as(Effect.sync(() => commands.push(command)), Approvals.accept)
        }
      })
      assert.deepStrictEqual(output, plan)
      assert.lengthOf(commands, 1)
    }))

  it.effect("adds its items and its usage to those of the first turn", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(
        withUsage(ModelServer.message("no"), 10),
        withUsage(ModelServer.object(Plan, plan), 5)
      )
      const result = yield* thread.run("plan", { output: Plan })
      const texts = result.items.flatMap((item) => item.type === "agentMessage" ? [item.text] : [])
      assert.deepStrictEqual(texts, ["no", JSON.stringify(plan)])
      assert.strictEqual(count(result.usage), 15)
      assert.strictEqual(result.usage?.thread.totalTokens, 15)
      const turns = yield* TestCodex.readTurns(thread.id)
      assert.strictEqual(result.id, turns[1]?.id)
    }))

  it.effect("happens at most `repairs` times", () =>
    Effect.gen(function*() {
      for (const [repairs, attempts] of [[undefined, 2], [0, 1], [3, 4]] as const) {
        const thread = yield* scripted(...Array.from({ length: 9 }, () => withUsage(ModelServer.message("{}"), 10)))
        const error = yield* expectInvalid(thread.run("plan", { output: Plan, repairs }))
        assert.strictEqual(error.attempts, attempts)
        assert.lengthOf(yield* TestCodex.getRequests(thread.id), attempts)
        assert.strictEqual(count(error.usage), attempts * 10)
        assert.strictEqual(error.threadId, thread.id)
        assert.strictEqual(error.turnId, (yield* TestCodex.readTurns(thread.id)).at(-1)?.id)
      }
    }))

  it.effect("fails with the issues and the text, which is not in the message", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("{\"goal\":\"secret\",\"steps\":{}}"))
      const error = yield* expectInvalid(thread.run("plan", { output: Plan, repairs: 0 }))
      assert.strictEqual(error.reason, "invalid")
      assert.strictEqual(error.text, "{\"goal\":\"secret\",\"steps\":{}}")
      assert.deepStrictEqual(error.issues.map(({ path }) => path), [["steps"]])
      assert.include(error.message, error.issue)
      assert.notInclude(error.message, "secret")
    }))

  it.effect("that fails has the items and the usage of all attempts", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(
        withUsage(ModelServer.message("no"), 10),
        ModelServer.failed({ code: "insufficient_quota", message: "no" })
      )
      const error = yield* Effect.flip(thread.run("plan", { output: Plan }))
      assert(error instanceof Turn.TurnFailed)
      assert.strictEqual(count(error.usage), 10)
      assert.isTrue(error.items.some((item) => item.type === "agentMessage" && item.text === "no"))
      assert.strictEqual(error.turnId, (yield* TestCodex.readTurns(thread.id))[1]?.id)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("A turn without output", (it) => {
  const refusal = ModelServer.events({
    type: "response.output_item.done",
    item: { type: "message", role: "assistant", id: "refusal", content: [{ type: "refusal", refusal: "I refuse" }] }
  })
  const withoutMessage: Record<string, ModelServer.Reply> = {
    "a refusal": refusal,
    "commentary only": ModelServer.text("{}", { phase: "commentary" }),
    "no message": ModelServer.reply([])
  }
  for (const [name, reply] of Object.entries(withoutMessage)) {
    it.effect(`fails with noMessage after ${name}, and is not repaired`, () =>
      Effect.gen(function*() {
        const thread = yield* scripted(reply, reply)
        const error = yield* expectInvalid(thread.run("plan", { output: Plan }))
        assert.strictEqual(error.reason, "noMessage")
        assert.isUndefined(error.text)
        assert.strictEqual(error.attempts, 1)
      }))
  }

  it.effect("fails with notJson after an empty message", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text(""))
      const error = yield* expectInvalid(thread.run("plan", { output: Plan, repairs: 0 }))
      assert.strictEqual(error.reason, "notJson")
      assert.strictEqual(error.issue, "The response is empty")
    }))

  it.effect("fails with TurnFailed if the provider truncates the response", () =>
    Effect.gen(function*() {
      const truncated = ModelServer.events(
        {
          type: "response.output_item.done",
          item: { type: "message", role: "assistant", id: "m", content: [{ type: "output_text", text: "{\"goal\":" }] }
        },
        { type: "response.incomplete", response: { id: "r", incomplete_details: { reason: "max_output_tokens" } } }
      )
      const thread = yield* scripted(truncated, truncated)
      const error = yield* Effect.flip(thread.run("plan", { output: Plan }))
      assert(error instanceof Turn.TurnFailed)
      assert.include(error.message, "max_output_tokens")
      assert.lengthOf(yield* TestCodex.getRequests(thread.id), 1)
    }))

  it.effect("fails with interrupted, and is not repaired", () =>
    Effect.gen(function*() {
      const requested = yield* TestCodex.nextRequest
      const thread = yield* scripted(TestCodex.halfMessage, ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("plan", { output: Plan })
      yield* requested
      yield* turn.interrupt
      const error = yield* expectInvalid(turn.output)
      assert.strictEqual(error.reason, "interrupted")
      assert.lengthOf(yield* TestCodex.getRequests(thread.id), 1)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("Handle of a typed turn", (it) => {
  it.effect("emits the output as far as it has arrived, and at last the decoded one", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const thread = yield* scripted(message.reply)
      const turn = yield* thread.turn("go", {
        output: Schema.Array(Schema.Struct({ at: Schema.Date, name: Schema.String }))
      })
      const seen = yield* Effect.forkChild(Stream.runCollect(turn.partialOutput))
      const sent = ["{\"value\":[", "{\"at\":\"1970-01-01T00:00:00", ".000Z\",\"name\":\"a", "b\"}", "]}"]
      for (const part of sent) {
        // Waits for the part, so that no two are coalesced.
        const arrived = yield* turn.text.pipe(
          Stream.filter((text) => text.endsWith(part)),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        yield* message.say(part)
        yield* Fiber.join(arrived)
      }
      yield* message.finish
      assert.deepStrictEqual<ReadonlyArray<unknown>>(yield* Fiber.join(seen), [
        [],
        [{ at: "1970-01-01T00:00:00" }],
        [{ at: "1970-01-01T00:00:00.000Z", name: "a" }],
        [{ at: "1970-01-01T00:00:00.000Z", name: "ab" }],
        [{ at: "1970-01-01T00:00:00.000Z", name: "ab" }],
        [{ at: new Date(0), name: "ab" }]
      ])
    }))

  it.effect("starts the partial output again in a repair", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("{\"goal\":\"cake\"}"), ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan })
      const partials = yield* Stream.runCollect(turn.partialOutput)
      assert.deepStrictEqual(partials[0], { goal: "cake" })
      assert.isUndefined(partials.find(({ goal, steps }) => goal === "cake" && steps !== undefined))
      assert.deepStrictEqual(partials.at(-1), plan)
    }))

  it.effect("starts the partial output again after a retracted message", () =>
    Effect.gen(function*() {
      const cut = ModelServer.cut([ModelServer.deltas(["{\"goal\":\"cake\",\"steps\":[{"], { unfinished: true })])
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ config: TestCodex.retryConfig(1) })
      yield* TestCodex.script(thread, cut, ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan })
      const partials = yield* Stream.runCollect(turn.partialOutput)
      assert.deepStrictEqual(partials[0], { goal: "cake", steps: [{}] })
      assert.isFalse(partials.slice(1).some(({ goal }) => goal === "cake"))
      assert.deepStrictEqual(partials.at(-1), plan)
    }))

  it.effect("is ThreadBusy if another turn runs before a repair, which can be started later", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const thread = yield* scripted(ModelServer.text("no"), message.reply, ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan })
      yield* turn.result
      const other = yield* thread.turn("other")
      const reason = yield* TestCodex.expectReason(turn.output)
      assert(reason._tag === "ThreadBusy")
      assert.strictEqual(reason.turnId, other.id)
      yield* message.finish
      yield* other.result
      assert.deepStrictEqual(yield* turn.output, plan)
    }))

  it.effect("fails the partial output with OutputInvalid", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"))
      const turn = yield* thread.turn("go", { output: Plan, repairs: 0 })
      const error = yield* expectInvalid(Stream.runDrain(turn.partialOutput))
      assert.strictEqual(error.reason, "notJson")
    }))

  it.effect("shares the repairs between all callers", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"), ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan })
      const [a, b, partials] = yield* Effect.all([turn.output, turn.output, Stream.runCollect(turn.partialOutput)], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual([a, b, partials.at(-1)], [plan, plan, plan])
      assert.deepStrictEqual(yield* turn.output, plan)
      assert.lengthOf(yield* TestCodex.getRequests(thread.id), 2)
      assert.strictEqual((yield* turn.result).finalResponse, "no")
    }))

  it.effect("follows the view, the input and the usage of the attempt that runs", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const thread = yield* scripted(
        withUsage(ModelServer.message("no"), 10),
        message.reply,
        withUsage(ModelServer.object(Plan, plan), 5)
      )
      const turn = yield* thread.turn("go", { output: Plan })
      const output = yield* Effect.forkChild(turn.output)
      const views = yield* Effect.forkChild(Stream.runCollect(turn.view), { startImmediately: true })
      yield* awaitRequests(thread.id, 2)
      yield* message.say("half")
      const repairing = Option.getOrThrow(yield* Stream.runHead(turn.view))
      assert.notStrictEqual(repairing.turnId, turn.id)
      assert.strictEqual(count(yield* turn.usage), 10)
      yield* turn.steer("shorter")
      assert.deepStrictEqual(yield* Fiber.join(output), plan)
      assert.strictEqual(count(yield* turn.usage), 15)
      const ended = (yield* Fiber.join(views)).filter(TurnView.isEnded)
      assert.deepStrictEqual(ended.map(({ turnId }) => turnId), [turn.id, repairing.turnId])
      assert.deepStrictEqual(ended.map(({ status }) => status), ["completed", "completed"])
      assert.deepStrictEqual(yield* Stream.runCollect(turn.view), ended.slice(1))
    }))

  it.effect("ends the view after the first turn if no caller waits for the output", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"), ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan })
      assert.strictEqual((yield* Stream.runLast(turn.view)).pipe(Option.getOrThrow).turnId, turn.id)
      assert.deepStrictEqual(yield* turn.output, plan)
      assert.notStrictEqual((yield* Stream.runLast(turn.view)).pipe(Option.getOrThrow).turnId, turn.id)
    }))

  it.effect("ends the view when the output fails, or its caller stops to wait", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"), ModelServer.text("no"), TestCodex.halfMessage)
      const invalid = yield* thread.turn("go", { output: Plan, repairs: 1 })
      const failing = yield* Effect.forkChild(expectInvalid(invalid.output), { startImmediately: true })
      const ended = (yield* Stream.runCollect(invalid.view)).filter(TurnView.isEnded)
      assert.lengthOf(ended, 2)
      yield* Fiber.join(failing)
      const turn = yield* thread.turn("go", { output: Plan })
      const output = yield* Effect.forkChild(turn.output, { startImmediately: true })
      const view = yield* Effect.forkChild(Stream.runLast(turn.view), { startImmediately: true })
      yield* Fiber.interrupt(output)
      yield* turn.interrupt
      assert.strictEqual(Option.getOrThrow(yield* Fiber.join(view)).status, "interrupted")
    }))

  it.effect("continues a repair whose first caller is interrupted", () =>
    Effect.gen(function*() {
      const message = yield* TestCodex.heldMessage
      const thread = yield* scripted(ModelServer.text("no"), message.reply)
      const turn = yield* thread.turn("go", { output: Plan })
      const first = yield* Effect.forkChild(turn.output)
      yield* awaitRequests(thread.id, 2)
      yield* Fiber.interrupt(first)
      const second = yield* Effect.forkChild(turn.output)
      yield* message.say(JSON.stringify(plan))
      yield* message.finish
      assert.deepStrictEqual(yield* Fiber.join(second), plan)
      assert.lengthOf(yield* TestCodex.getRequests(thread.id), 2)
    }))

  it.effect("interrupts the repair that is running, and starts no other one", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"), TestCodex.halfMessage, ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan, repairs: 5 })
      const output = yield* Effect.forkChild(Effect.flip(turn.output))
      yield* awaitRequests(thread.id, 2)
      yield* turn.interrupt
      const error = yield* Fiber.join(output)
      assert(error instanceof Turn.OutputInvalid)
      assert.strictEqual(error.reason, "interrupted")
      assert.strictEqual(error.attempts, 2)
    }))

  it.effect("starts no repair after it was interrupted", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"), ModelServer.object(Plan, plan))
      const turn = yield* thread.turn("go", { output: Plan })
      yield* turn.result
      yield* turn.interrupt
      const error = yield* expectInvalid(turn.output)
      assert.strictEqual(error.reason, "notJson")
      assert.strictEqual(error.attempts, 1)
    }))

  it.effect("interrupts the repair when its scope closes", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(ModelServer.text("no"), TestCodex.halfMessage)
      const scope = yield* Scope.make()
      const turn = yield* Scope.provide(thread.turn("go", { output: Plan }), scope)
      const output = yield* Effect.forkChild(Effect.flip(turn.output))
      yield* awaitRequests(thread.id, 2)
      yield* Scope.close(scope, Exit.void)
      const [, repair] = yield* TestCodex.readTurns(thread.id)
      assert.strictEqual(repair?.status, "interrupted")
      const error = yield* Fiber.join(output)
      assert(error instanceof Turn.OutputInvalid)
      assert.strictEqual(error.reason, "interrupted")
    }))

  it.effect("has a deadline, also through Turn.withDeadline", () =>
    Effect.gen(function*() {
      const thread = yield* scripted(TestCodex.halfMessage)
      const turn = yield* thread.turn("go", { output: Plan })
      yield* Turn.withDeadline(turn, "50 millis")
      const reason = yield* TestCodex.expectReason(turn.output)
      assert.strictEqual(reason._tag, "TurnTimeout")
    }))
})

describe("Deadline of a typed turn", () => {
  it.effect("limits the first turn and its repairs together", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const fake = yield* FakeAppServer.FakeAppServer
      const thread = yield* codex.startThread()
      const run = yield* Effect.forkChild(
        Effect.flip(thread.run("go", { output: Plan, repairs: 5, deadline: "10 seconds" }))
      )
      yield* fake.awaitSent("turn/start", 1)
      yield* TestClock.adjust("4 seconds")
      yield* fake.awaitSent("turn/start", 2)
      yield* TestClock.adjust("4 seconds")
      yield* fake.awaitSent("turn/start", 3)
      yield* TestClock.adjust("2 seconds")
      const error = yield* Fiber.join(run)
      assert(AppServerError.isAppServerError(error))
      assert(error.reason._tag === "TurnTimeout")
      assert.strictEqual(error.reason.kind, "deadline")
      assert.strictEqual(error.reason.timeoutMillis, 10_000)
    }).pipe(Effect.provide(layerFake(() => Effect.andThen(Effect.sleep("4 seconds"), FakeAppServer.text("no"))))))

  it.effect("refuses a repair after it has passed", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const turn = yield* thread.turn("go", { output: Plan, deadline: "10 seconds" })
      yield* turn.result
      yield* TestClock.adjust("11 seconds")
      const reason = yield* TestCodex.expectReason(turn.output)
      assert(reason._tag === "TurnTimeout")
      assert.strictEqual(reason.timeoutMillis, 10_000)
    }).pipe(Effect.provide(layerFake(() => FakeAppServer.text("no")))))
})

describe("FakeAppServer.object", () => {
  it.effect("is the final response for its schema", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread()
      const { output } = yield* thread.run("go", { output: Schema.Option(Plan) })
      assert.deepStrictEqual(output, Option.some(plan))
    }).pipe(Effect.provide(layerFake(() => FakeAppServer.object(Schema.Option(Plan), Option.some(plan))))))
})
