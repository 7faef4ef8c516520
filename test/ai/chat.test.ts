/** Chats: which thread a prompt continues. */
import { assert, layer } from "@effect/vitest"
import { AppServer } from "effect-codex"
import { CodexLanguageModel } from "effect-codex/ai"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import { Chat, LanguageModel, Prompt, Tool, Toolkit } from "effect/ai"
import * as Effect from "effect/Effect"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestCodex from "../TestCodex.ts"
import { isThorough } from "../thorough.ts"

const { functionCall, text } = ModelServer

const fixture = `${import.meta.dirname}/../fixtures/chat.ts`

/** The texts of the conversation in the last request, without those of Codex. */
const conversation = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  const request = (yield* model.requests).at(-1)
  assert(request !== undefined)
  return request.input.flatMap((item) => {
    const { content, role } = item as { readonly role?: string; readonly content?: ReadonlyArray<{ text?: string }> }
    if (role !== "user" && role !== "assistant") return []
    return (content ?? []).flatMap(({ text = "" }) => text.startsWith("<") ? [] : [`${role}: ${text}`])
  })
})

/** The threads of all requests to the model. */
const threads = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  return (yield* model.requests).map(({ promptCacheKey }) => promptCacheKey)
})

const say = (...texts: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const model = yield* ModelServer.ModelServer
    yield* model.reset
    yield* model.enqueue(...texts.map((line) => text(line)))
  })

const methods = Effect.map(
  Effect.flatMap(TestCodex.Wire, ({ sent }) => sent),
  (messages) => messages.flatMap(({ method }) => method?.startsWith("thread/") === true ? [method] : [])
)

const openings = (sent: ReadonlyArray<string>) =>
  sent.filter((method) => ["thread/start", "thread/resume", "thread/fork", "thread/inject_items"].includes(method))

const deleteThread = (threadId: string) =>
  Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    yield* server.request("thread/delete", { threadId })
  })

layer(TestCodex.layer(), { excludeTestServices: true })("A chat", (it) => {
  const run = <A, E, R>(effect: Effect.Effect<A, E, R>, options?: CodexLanguageModel.Options) =>
    Effect.provide(effect, CodexLanguageModel.layer(options))

  it.effect("stays on one thread, and sends only what is new", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three")
      const before = (yield* methods).length
      const chat = yield* Chat.fromPrompt([{ role: "system", content: "Be brief." }])
      yield* chat.generateText({ prompt: "1" })
      yield* Stream.runDrain(chat.streamText({ prompt: "2" }))
      yield* chat.generateText({ prompt: "3" })
      assert.lengthOf(new Set(yield* threads), 1)
      assert.deepStrictEqual(yield* conversation, [
        "user: 1",
        "assistant: one",
        "user: 2",
        "assistant: two",
        "user: 3"
      ])
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/start"])
    }).pipe(run))

  it.effect("continues on a fork where its history branches", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three")
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      const history = yield* Ref.get(chat.history)
      yield* chat.generateText({ prompt: "2" })
      const before = (yield* methods).length
      const branch = yield* Chat.fromPrompt(history)
      yield* branch.generateText({ prompt: "other" })
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/fork"])
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: other"])
      const [first, second, third] = yield* threads
      assert.strictEqual(first, second)
      assert.notStrictEqual(third, first)
      // Both continue where they are.
      yield* say("four", "five")
      yield* chat.generateText({ prompt: "3" })
      yield* branch.generateText({ prompt: "more" })
      assert.deepStrictEqual(yield* threads, [first, third])
    }).pipe(run))

  it.effect("serves two requests on the same history at once", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three")
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      const history = yield* Ref.get(chat.history)
      const ask = (prompt: string) => LanguageModel.generateText({ prompt: Prompt.concat(history, prompt) })
      const responses = yield* Effect.all([ask("a"), ask("b")], { concurrency: 2 })
      assert.sameMembers(responses.map(({ text }) => text), ["two", "three"])
      const [first, ...rest] = yield* threads
      assert.lengthOf(new Set(rest), 2)
      assert.include(rest, first)
    }).pipe(run))

  it.effect("starts a thread with its messages if they were changed", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three", "four")
      const chat = yield* Chat.fromPrompt([{ role: "system", content: "Be brief." }])
      yield* chat.generateText({ prompt: "1" })
      const [system, question, answer] = (yield* Ref.get(chat.history)).content
      assert(system?.role === "system" && question?.role === "user" && answer?.role === "assistant")
      const [part] = answer.content
      assert(part?.type === "text")
      const changes = [
        [{ ...system, content: "Be kind." }, question, answer],
        [system, { ...question, content: [Prompt.textPart({ text: "0" })] }, answer],
        [system, question, { ...answer, content: [{ ...part, text: "ONE" }] }]
      ]
      for (const messages of changes) {
        const before = (yield* methods).length
        yield* LanguageModel.generateText({ prompt: Prompt.concat(Prompt.fromMessages(messages), "2") })
        assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/start", "thread/inject_items"])
      }
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: ONE", "user: 2"])
      assert.lengthOf(new Set(yield* threads), 4)
    }).pipe(run))

  it.effect("continues on a fork with other options, and in a thread with other tools", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three")
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      let before = (yield* methods).length
      yield* chat.generateText({ prompt: "2" }).pipe(
        CodexLanguageModel.withConfigOverride({ sandbox: "workspace-write" })
      )
      const sent = (yield* methods).slice(before)
      assert.deepStrictEqual(openings(sent), ["thread/fork"])
      before = (yield* methods).length
      const toolkit = Toolkit.make(Tool.make("noop"))
      yield* chat.generateText({ prompt: "3", toolkit }).pipe(
        Effect.provide(toolkit.toLayer({ noop: () => Effect.void }))
      )
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/start", "thread/inject_items"])
      assert.deepStrictEqual(yield* conversation, [
        "user: 1",
        "assistant: one",
        "user: 2",
        "assistant: two",
        "user: 3"
      ])
    }).pipe(run))

  it.effect("repeats no message of a request that failed", () =>
    Effect.gen(function*() {
      yield* say("one")
      const model = yield* ModelServer.ModelServer
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      yield* model.enqueue(ModelServer.httpError(500), text("two"))
      yield* Effect.flip(chat.generateText({ prompt: "2" }))
      assert.strictEqual((yield* chat.generateText({ prompt: "2" })).text, "two")
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: 2"])
    }).pipe(run))

  it.effect("of an ephemeral thread continues on it, and then in another", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three")
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      const history = yield* Ref.get(chat.history)
      yield* chat.generateText({ prompt: "2" })
      const before = (yield* methods).length
      // A fork is not possible.
      yield* LanguageModel.generateText({ prompt: Prompt.concat(history, "3") })
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/start", "thread/inject_items"])
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: 3"])
      const [first, second] = yield* threads
      assert.strictEqual(first, second)
    }).pipe((effect) => run(effect, { ephemeral: true })))

  it.effect("resumes its thread in another language model, also from JSON with other order of properties", () =>
    Effect.gen(function*() {
      yield* say("one", "two")
      const json = yield* Effect.gen(function*() {
        const chat = yield* Chat.fromPrompt([{ role: "system", content: "Be brief." }])
        yield* chat.generateText({ prompt: "1" })
        return yield* chat.exportJson
      }).pipe(run)
      const reverse = (value: unknown): unknown =>
        Array.isArray(value)
          ? value.map(reverse)
          : typeof value === "object" && value !== null
          ? Object.fromEntries(Object.entries(value).reverse().map(([key, value]) => [key, reverse(value)]))
          : value
      const before = (yield* methods).length
      yield* Effect.gen(function*() {
        const chat = yield* Chat.fromExport(reverse(JSON.parse(json)))
        assert.strictEqual((yield* chat.generateText({ prompt: "2" })).text, "two")
      }).pipe(run)
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/resume"])
      const [first, second] = yield* threads
      assert.strictEqual(first, second)
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: 2"])
    }))

  it.effect("continues on a fork if another program has continued its thread", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three")
      const chat = yield* Chat.empty
      yield* chat.generateText({ prompt: "1" })
      const json = yield* chat.exportJson
      const other = yield* Chat.fromJson(json)
      // Another language model on the same server opens the same thread.
      yield* run(other.generateText({ prompt: "other" }))
      yield* chat.generateText({ prompt: "2" })
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: 2"])
      const [first, second, third] = yield* threads
      assert.deepStrictEqual([second === first, third === first], [true, false])
    }).pipe(run))

  it.effect("stays on one thread for many turns", () =>
    Effect.gen(function*() {
      const turns = Array.from({ length: isThorough ? 40 : 8 }, (_, index) => String(index))
      yield* say(...turns)
      const chat = yield* Chat.empty
      for (const turn of turns) yield* chat.generateText({ prompt: turn })
      assert.lengthOf(new Set(yield* threads), 1)
    }).pipe(run))

  it.effect("starts a thread with its messages if its thread was deleted", () =>
    Effect.gen(function*() {
      yield* say("one", "two")
      const chat = yield* Chat.empty
      yield* run(chat.generateText({ prompt: "1" }))
      const [thread] = yield* threads
      yield* deleteThread(thread!)
      const before = (yield* methods).length
      yield* run(chat.generateText({ prompt: "2" }))
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/start", "thread/inject_items"])
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: 2"])
    }))

  it.effect("continues with tools after a restart of the language model", () =>
    Effect.gen(function*() {
      yield* say()
      const model = yield* ModelServer.ModelServer
      const toolkit = Toolkit.make(
        Tool.make("add", { parameters: Schema.Struct({ a: Schema.Finite, b: Schema.Finite }), success: Schema.Finite })
      )
      const handlers = toolkit.toLayer({ add: ({ a, b }) => Effect.succeed(a + b) })
      const chat = yield* Chat.empty
      const loop = Effect.fnUntraced(function*(prompt: string) {
        let response = yield* chat.generateText({ prompt, toolkit })
        while (response.finishReason === "tool-calls") response = yield* chat.generateText({ prompt: [], toolkit })
        return response.text
      }, Effect.provide(handlers))
      const call = (id: string) => functionCall("add", { a: 1, b: 2 }, { callId: id })
      yield* model.enqueue(call("c1"), text("three"))
      assert.strictEqual(yield* run(loop("Add")), "three")
      // A thread that is resumed does not report the end of a model's response.
      yield* model.enqueue(ModelServer.reply([call("c2"), call("c3")]), text("again"))
      const before = (yield* methods).length
      assert.strictEqual(yield* run(loop("Again")), "again")
      assert.deepStrictEqual(openings((yield* methods).slice(before)), ["thread/resume"])
      const request = (yield* model.requests).at(-1)
      assert.deepStrictEqual(["c1", "c2", "c3"].map((id) => request?.functionCallOutput(id)), ["3", "3", "3"])
      assert.lengthOf(new Set(yield* threads), 1)
    }))

  it.effect("continues in another process, while this one has its thread open and later", () =>
    Effect.gen(function*() {
      yield* say("one", "two", "three", "four")
      const spawner = yield* ChildProcessSpawner
      const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
      const other = Effect.fnUntraced(function*(prompt: string, json: string) {
        const child = yield* spawner.spawn(
          ChildProcess.make(process.execPath, ["--conditions=@effect-codex/source", fixture, prompt], {
            cwd: workspace,
            env: env as Record<string, string>,
            extendEnv: true,
            stdin: Stream.make(new TextEncoder().encode(json))
          })
        )
        return yield* Stream.mkString(Stream.decodeText(child.stdout))
      }, Effect.scoped)
      const first = yield* other("1", "")
      const second = yield* other("2", first)
      assert.deepStrictEqual(yield* conversation, ["user: 1", "assistant: one", "user: 2"])
      const [one, two] = yield* threads
      assert.strictEqual(one, two)
      yield* Effect.gen(function*() {
        const chat = yield* Chat.fromJson(second)
        yield* chat.generateText({ prompt: "3" })
        // This process has the thread open, so the other one continues on a fork.
        yield* other("4", yield* chat.exportJson)
      }).pipe(run)
      const all = yield* threads
      assert.strictEqual(all[2], one)
      assert.notStrictEqual(all[3], one)
      assert.deepStrictEqual(yield* conversation, [
        "user: 1",
        "assistant: one",
        "user: 2",
        "assistant: two",
        "user: 3",
        "assistant: three",
        "user: 4"
      ])
    }), 60_000)
})
