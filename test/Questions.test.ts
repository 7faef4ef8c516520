import { assert, describe, expectTypeOf, it, layer } from "@effect/vitest"
import { Codex, Questions, type Thread } from "effect-codex"
import { ModelServer } from "effect-codex/testing"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import type * as Terminal from "effect/Terminal"
import * as FakeTerminal from "./FakeTerminal.ts"
import * as Fake from "./FakeTransport.ts"
import { layer as layerFake, openThread } from "./scenario.ts"
import * as TestCodex from "./TestCodex.ts"

const planMode = { collaborationMode: { mode: "plan", settings: { model: "mock-model" } } } as const

const question = {
  id: "database",
  header: "Database",
  question: "Where shall the data live?",
  options: [{ label: "PostgreSQL", description: "A server" }, { label: "SQLite", description: "A file" }]
}

let calls = 0

/** Runs a turn in which the model asks in plan mode, and returns the answers that the model receives. */
const askInPlanMode = Effect.fnUntraced(function*(thread: Thread.Thread, options?: Thread.TurnOptions) {
  const callId = `ask${calls++}`
  yield* TestCodex.script(
    thread,
    ModelServer.functionCall("request_user_input", { questions: [question] }, { callId }),
    ModelServer.text("done")
  )
  yield* thread.run("plan", { ...planMode, ...options })
  return (yield* TestCodex.getRequests(thread.id)).at(-1)?.functionCallOutput(callId)
})

class Preferences extends Context.Service<Preferences, { readonly database: string }>()("test/Preferences") {}

layer(TestCodex.layer({ home: { config: TestCodex.mcpConfig } }), { excludeTestServices: true })("Questions", (it) => {
  describe("user input", () => {
    it.effect("passes typed questions to a handler with services, and returns its answers", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const seen: Array<Questions.UserInputRequest> = []
        const thread = yield* codex.startThread({
          questions: {
            userInput: Effect.fn(function*(request) {
              seen.push(request)
              return { database: (yield* Preferences).database }
            })
          }
        }).pipe(Effect.provideService(Preferences, { database: "SQLite" }))
        assert.strictEqual(yield* askInPlanMode(thread), `{"answers":{"database":{"answers":["SQLite"]}}}`)
        assert.deepInclude(seen[0], { threadId: thread.id, isBlocking: true })
        assert.deepInclude(seen[0]!.questions[0], { id: "database", isOther: true, options: question.options })
      }))

    it.effect("responds with an error to a question without a valid answer, and the turn continues", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const wire = yield* TestCodex.Wire
        const handlers: ReadonlyArray<Questions.Handlers | undefined> = [
          undefined,
          { userInput: () => Effect.fail("no idea") },
          { userInput: () => Effect.die("bug") },
          { userInput: () => Effect.succeed({ nonsense: "a" }) },
          { userInput: () => Effect.succeed({ database: 7 } as never) }
        ]
        const codes: Array<unknown> = []
        for (const questions of handlers) {
          const thread = yield* codex.startThread({ questions })
          assert.strictEqual(yield* askInPlanMode(thread), `{"answers":{}}`)
          const { id } = yield* wire.awaitReceived(({ method, params }) =>
            method === "item/tool/requestUserInput" && params?.["threadId"] === thread.id
          )
          const responses = (yield* wire.sent).filter((message) => message.method === undefined && message.id === id)
          codes.push(...responses.map(({ error }) => error?.code))
        }
        assert.deepStrictEqual(codes, [-32601, -32603, -32603, -32603, -32603])
      }))

    it.effect("calls the handler of the turn, then of the thread, then of the layer", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const answerWith = (database: string): Questions.Handlers => ({ userInput: () => Effect.succeed({ database }) })
        const thread = yield* codex.startThread({ questions: answerWith("thread") })
        const bare = yield* codex.startThread()
        const outputs = yield* Effect.all([
          askInPlanMode(thread, { questions: answerWith("turn") }),
          askInPlanMode(thread),
          askInPlanMode(bare)
        ]).pipe(Effect.provide(Questions.layer(answerWith("layer"))))
        assert.deepStrictEqual(
          outputs.map((text) => JSON.parse(text!).answers.database.answers[0]),
          ["turn", "thread", "layer"]
        )
      }))
  })

  describe("elicitations", () => {
    /** Runs a turn in which the model calls a tool that asks, and returns the response that its server receives. */
    const elicit = Effect.fnUntraced(function*(tool: string, questions: Questions.Handlers | undefined) {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ approvalPolicy: "on-request", approvalsReviewer: "user", questions })
      const callId = `mcp${calls++}`
      yield* TestCodex.script(
        thread,
        ModelServer.functionCall(tool, {}, { callId, namespace: "mcp__people" }),
        ModelServer.text("done")
      )
      yield* thread.run("go")
      const output = (yield* TestCodex.getRequests(thread.id)).at(-1)?.functionCallOutput(callId) ?? ""
      return JSON.parse(output.slice(output.indexOf("{")))
    })

    const respondWith = (answer: Questions.ElicitationAnswer, seen: Array<Questions.ElicitationRequest> = []) => ({
      elicitation: (request: Questions.ElicitationRequest) => {
        seen.push(request)
        return Effect.succeed(answer)
      }
    })

    it.effect("checks the content of a form against its schema before it is sent", () =>
      Effect.gen(function*() {
        const seen: Array<Questions.ElicitationRequest> = []
        const valid = { name: "Ada", age: 36, email: "ada@example.com", color: "red" }
        assert.deepStrictEqual(yield* elicit("introduce", respondWith(Questions.accept(valid), seen)), {
          action: "accept",
          content: valid
        })
        const [form] = seen
        assert.deepInclude(form, { _tag: "Form", server: "people", message: "Who are you?" })
        if (form?._tag === "Form") {
          assert.isTrue(Schema.is(form.schema)(valid))
          assert.isFalse(Schema.is(form.schema)({}))
        }
        const invalid: ReadonlyArray<unknown> = [
          undefined,
          {},
          { name: "A" },
          { ...valid, age: 1.5 },
          { ...valid, age: -1 },
          { ...valid, email: "ada" },
          { ...valid, color: "blue" },
          "Ada"
        ]
        for (const content of invalid) {
          const response = yield* elicit("introduce", respondWith(Questions.accept(content)))
          assert.deepStrictEqual(response, { action: "decline" }, JSON.stringify(content))
        }
      }))

    it.effect("declines or cancels as the handler decides, and declines without a decision", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* elicit("introduce", respondWith(Questions.decline)), { action: "decline" })
        assert.deepStrictEqual(yield* elicit("introduce", respondWith(Questions.cancel)), { action: "cancel" })
        assert.deepStrictEqual(yield* elicit("introduce", undefined), { action: "decline" })
        assert.deepStrictEqual(yield* elicit("introduce", { elicitation: () => Effect.die("bug") }), {
          action: "decline"
        })
      }))

    it.effect("passes a page to open to the handler", () =>
      Effect.gen(function*() {
        const seen: Array<Questions.ElicitationRequest> = []
        const { action } = yield* elicit("login", respondWith(Questions.accept(), seen))
        assert.strictEqual(action, "accept")
        assert.deepInclude(seen[0], { _tag: "Url", url: "https://example.com/login", elicitationId: "e1" })
      }))

    it.effect("does not call the handler for the approval of a tool call", () =>
      Effect.gen(function*() {
        const codex = yield* Codex.Codex
        const seen: Array<Questions.ElicitationRequest> = []
        const thread = yield* codex.startThread({
          approvalPolicy: "on-request",
          approvalsReviewer: "user",
          questions: respondWith(Questions.accept({}), seen)
        })
        yield* TestCodex.script(
          thread,
          ModelServer.functionCall("erase", { what: "all" }, { callId: "erase", namespace: "mcp__people" }),
          ModelServer.text("done")
        )
        const { items } = yield* thread.run("go")
        assert.deepStrictEqual(
          items.flatMap((item) => item.type === "mcpToolCall" ? [item.status] : []),
          ["failed"]
        )
        assert.deepStrictEqual(seen, [])
      }))
  })
})

describe("Question", () => {
  const open = Effect.fnUntraced(function*(questions: Questions.Handlers) {
    yield* openThread("t", { questions })
    return yield* Fake.FakeTransport
  })

  const userInput = (id: number, more: object) => ({
    method: "item/tool/requestUserInput",
    id,
    params: { threadId: "t", turnId: "u", itemId: "i", isBlocking: true, questions: [{ ...question, ...more }] }
  })

  it.effect("accepts only options of a fixed choice", () =>
    Effect.gen(function*() {
      const answers: Array<Questions.UserInputAnswers> = [
        { database: "MySQL" },
        { database: ["SQLite", "MySQL"] },
        { database: ["PostgreSQL", "SQLite"] }
      ]
      let next = 0
      const transport = yield* open({ userInput: () => Effect.sync(() => answers[next++]!) })
      for (const id of [0, 1, 2]) {
        yield* transport.emit(userInput(id, { isOther: false }))
        const { error, result } = yield* transport.take
        if (id < 2) assert.strictEqual(error.code, -32603)
        else assert.deepStrictEqual(result, { answers: { database: { answers: ["PostgreSQL", "SQLite"] } } })
      }
    }).pipe(Effect.provide(layerFake())))

  it.effect("interrupts the handler when the turn ends", () =>
    Effect.gen(function*() {
      const began = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const transport = yield* open({
        userInput: () =>
          Deferred.succeed(began, undefined).pipe(
            Effect.andThen(Effect.never),
            Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
          )
      })
      yield* transport.emit(userInput(0, {}))
      yield* Deferred.await(began)
      yield* transport.emit(Fake.turnCompleted("t", "u", "interrupted"))
      yield* Deferred.await(interrupted)
      assert.strictEqual((yield* transport.take).error.code, -32603)
    }).pipe(Effect.provide(layerFake())))

  it.effect("sends only content that fits the form, for fields of each kind", () =>
    Effect.gen(function*() {
      const fields: ReadonlyArray<[property: object, wrong: unknown, right: unknown]> = [
        [{ type: "string", format: "date" }, "2024-02-31", "2024-02-29"],
        [{ type: "string", format: "date-time" }, "2023-02-29T12:00:00Z", "2023-02-28T12:00:00Z"],
        [{ enum: ["a"] }, "b", "a"],
        [{ oneOf: [{ const: "a", title: "A" }] }, "b", "a"],
        [{ type: "hologram" }, "anything", undefined]
      ]
      let content: unknown
      const transport = yield* open({ elicitation: () => Effect.sync(() => Questions.accept(content)) })
      const elicitField = Effect.fnUntraced(function*(id: number, property: object, value: unknown) {
        content = value === undefined ? {} : { field: value }
        yield* transport.emit({
          method: "mcpServer/elicitation/request",
          id,
          params: {
            threadId: "t",
            turnId: "u",
            serverName: "s",
            mode: "form",
            message: "m",
            requestedSchema: { type: "object", properties: { field: property } }
          }
        })
        return (yield* transport.take).result.action
      })
      for (const [index, [property, wrong, right]] of fields.entries()) {
        assert.strictEqual(yield* elicitField(2 * index, property, wrong), "decline", JSON.stringify(property))
        assert.strictEqual(yield* elicitField(2 * index + 1, property, right), "accept", JSON.stringify(property))
      }
    }).pipe(Effect.provide(layerFake())))

  it.effect.each(Object.getOwnPropertyNames(Object.prototype))(
    "sends the content of a form with and without a field named %s",
    (name) =>
      Effect.gen(function*() {
        let content: unknown
        let schema: Schema.Codec<unknown> = Schema.Never
        const transport = yield* open({
          elicitation: (request) => {
            if (request._tag === "Form") schema = request.schema
            return Effect.sync(() => Questions.accept(content))
          }
        })
        let id = 0
        const elicitField = Effect.fnUntraced(function*(json: string, required: boolean) {
          content = JSON.parse(json)
          yield* transport.emit({
            method: "mcpServer/elicitation/request",
            id: id++,
            params: {
              threadId: "t",
              turnId: "u",
              serverName: "s",
              mode: "form",
              message: "m",
              requestedSchema: {
                type: "object",
                properties: Object.fromEntries([[name, { type: "string" }], ["other", { type: "string" }]]),
                required: required ? [name] : []
              }
            }
          })
          const { result } = yield* transport.take
          assert.strictEqual(Schema.is(schema)(content), result.action === "accept")
          return JSON.stringify(result.content)
        })
        const filled = `{"${name}":"x","other":"y"}`
        assert.strictEqual(yield* elicitField(filled, true), filled)
        assert.strictEqual(yield* elicitField(`{"other":"y"}`, false), `{"other":"y"}`)
        assert.strictEqual(yield* elicitField(`{"other":"y"}`, true), "null")
        assert.strictEqual(yield* elicitField(`{"${name}":1}`, false), "null")
      }).pipe(Effect.provide(layerFake()))
  )

  it.effect("passes an elicitation of an unknown mode to the handler unchanged", () =>
    Effect.gen(function*() {
      const seen: Array<Questions.ElicitationRequest> = []
      const transport = yield* open({
        elicitation: (request) => {
          seen.push(request)
          return Effect.succeed(Questions.decline)
        }
      })
      const params = { threadId: "t", turnId: null, serverName: "s", mode: "hologram", anything: 1 }
      yield* transport.emit({ method: "mcpServer/elicitation/request", id: 0, params })
      assert.strictEqual((yield* transport.take).result.action, "decline")
      assert.deepStrictEqual(seen, [{
        _tag: "Other",
        threadId: "t",
        turnId: undefined,
        server: "s",
        meta: undefined,
        mode: "hologram",
        params
      }])
    }).pipe(Effect.provide(layerFake())))
})

describe("Questions.askTerminal", () => {
  const makeTerminal = Effect.fnUntraced(function*(...typed: ReadonlyArray<string>) {
    const terminal = yield* FakeTerminal.make
    yield* terminal.type(...typed)
    yield* terminal.quit
    return terminal
  })

  const answer = Effect.fnUntraced(function*(more: object, ...typed: ReadonlyArray<string>) {
    const { layer } = yield* makeTerminal(...typed)
    return yield* Questions.askTerminal.userInput!({
      threadId: "t",
      turnId: "u",
      itemId: "i",
      isBlocking: true,
      questions: [{ ...question, ...more }]
    }).pipe(Effect.provide(layer))
  })

  it.effect("returns an answer by number, in words, or no answer", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* answer({}, "2"), { database: "SQLite" })
      assert.deepStrictEqual(yield* answer({}, "9", "1"), { database: "PostgreSQL" })
      assert.deepStrictEqual(yield* answer({ isOther: true }, "on paper"), { database: "on paper" })
      // A number without an option is asked again, also if a free answer is allowed.
      assert.deepStrictEqual(yield* answer({ isOther: true }, "9", "2"), { database: "SQLite" })
      assert.deepStrictEqual(yield* answer({ options: null }, "9"), { database: "9" })
      assert.deepStrictEqual(yield* answer({}, "on paper", "1"), { database: "PostgreSQL" })
      assert.deepStrictEqual(yield* answer({ options: null }, "anything"), { database: "anything" })
      assert.deepStrictEqual(yield* answer({}, ""), {})
      assert.deepStrictEqual(yield* answer({}), {})
      assert.deepStrictEqual(yield* answer({ isSecret: true }, "1"), {})
    }))

  const form: Questions.FormElicitation = {
    _tag: "Form",
    threadId: "t",
    turnId: undefined,
    server: "people",
    meta: null,
    message: "Who are you?",
    requestedSchema: {
      type: "object",
      properties: {
        name: { type: "string", title: "Your name" },
        age: { type: "integer", description: "in years" },
        color: { type: "string", oneOf: [{ const: "r", title: "Red" }, { const: "g", title: "Green" }] },
        member: { type: "boolean" },
        tags: { type: "array", items: { anyOf: [{ const: "x", title: "Ex" }, { const: "y", title: "Ypsilon" }] } }
      },
      required: ["name"]
    },
    schema: Schema.Struct({
      name: Schema.String,
      age: Schema.optionalKey(Schema.Int),
      color: Schema.optionalKey(Schema.Literals(["r", "g"])),
      member: Schema.optionalKey(Schema.Boolean),
      tags: Schema.optionalKey(Schema.Array(Schema.Literals(["x", "y"])))
    })
  }

  const elicit = Effect.fnUntraced(function*(
    request: Questions.ElicitationRequest,
    ...typed: ReadonlyArray<string>
  ) {
    const { layer, shown } = yield* makeTerminal(...typed)
    const answer = yield* Effect.provide(Questions.askTerminal.elicitation!(request), layer)
    return { answer, shown: shown() }
  })

  it.effect("fills in a form with a field named __proto__", () =>
    Effect.gen(function*() {
      const properties = JSON.parse(`{"__proto__":{"type":"string"}}`)
      const odd = { ...form, requestedSchema: { type: "object" as const, properties }, schema: Schema.Unknown }
      const { answer } = yield* elicit(odd, "Ada", "1")
      assert.strictEqual(JSON.stringify(answer.content), `{"__proto__":"Ada"}`)
    }))

  it.effect("fills in forms, and returns whether the person opened a page", () =>
    Effect.gen(function*() {
      const filled = yield* elicit(form, "Ada", "36", "2", "1", "2", "", "1")
      assert.deepStrictEqual(
        filled.answer,
        Questions.accept({ name: "Ada", age: 36, color: "g", member: true, tags: ["y"] })
      )
      assert.include(filled.shown, "people asks: Who are you?")
      assert.include(filled.shown, "age (or nothing): in years")
      assert.include(filled.shown, "2. Ypsilon")
      const little = yield* elicit(form, "Ada", "", "", "", "", "1")
      assert.deepStrictEqual(little.answer, Questions.accept({ name: "Ada" }))
      // Invalid content is not sent, and the form is filled in again.
      const again = yield* elicit(form, "Ada", "1.5", "", "", "", "1", "Ada", "1", "", "", "", "1")
      assert.deepStrictEqual(again.answer, Questions.accept({ name: "Ada", age: 1 }))
      assert.deepStrictEqual((yield* elicit(form, "Ada", "", "", "", "", "3")).answer, Questions.decline)
      // The end of the input and empty lines cancel, also if the form has no required field.
      const nothing: Questions.FormElicitation = {
        ...form,
        requestedSchema: { type: "object", properties: {}, required: [] },
        schema: Schema.Struct({})
      }
      for (const request of [form, nothing]) {
        assert.deepStrictEqual((yield* elicit(request)).answer, Questions.cancel)
        assert.deepStrictEqual((yield* elicit(request, "", "", "", "", "", "", "")).answer, Questions.cancel)
      }
      const url: Questions.UrlElicitation = {
        _tag: "Url",
        threadId: "t",
        turnId: undefined,
        server: "people",
        meta: null,
        message: "m",
        url: "https://example.com",
        elicitationId: "e"
      }
      assert.deepStrictEqual((yield* elicit(url, "1")).answer, Questions.accept())
      assert.deepStrictEqual((yield* elicit(url, "2")).answer, Questions.decline)
      assert.deepStrictEqual((yield* elicit(url)).answer, Questions.cancel)
    }))
})

// The compiler checks these tests.
describe("Questions.layer", () => {
  const answer = () => Effect.succeed({ database: "SQLite" })
  const withPreferences = () => Effect.map(Preferences, ({ database }) => ({ database }))
  const withWire = () => Effect.as(TestCodex.Wire, Questions.decline)

  it("requires the services of its handlers", () => {
    expectTypeOf(Questions.layer({ userInput: answer })).toEqualTypeOf<Layer.Layer<never>>()
    expectTypeOf(Questions.layer({ userInput: withPreferences })).toEqualTypeOf<
      Layer.Layer<never, never, Preferences>
    >()
    expectTypeOf(Questions.layer({ userInput: withPreferences, elicitation: withWire }))
      .toEqualTypeOf<Layer.Layer<never, never, Preferences | TestCodex.Wire>>()
    expectTypeOf(Questions.layer(Questions.askTerminal)).toEqualTypeOf<Layer.Layer<never, never, Terminal.Terminal>>()
  })

  it("does not accept a misspelled handler or an answer of another question", () => {
    // @ts-expect-error: elicitatoin
    Questions.layer({ userInput: answer, elicitatoin: withWire })
    // @ts-expect-error: an elicitation has no answers by id
    Questions.layer({ elicitation: answer })
  })
})
