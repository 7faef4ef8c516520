import { assert, describe, it, layer } from "@effect/vitest"
import { Codex, Turn } from "effect-codex"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as ModelServer from "../src/testing/ModelServer.ts"
import * as Fake from "./FakeTransport.ts"
import * as TestCodex from "./TestCodex.ts"

const { Completed, Delta, Retracted, Started } = Turn.MessageEvent

/** Runs a turn with these replies of the model, and returns its text and its messages. */
const read = (...replies: ReadonlyArray<ModelServer.Reply>) =>
  Effect.gen(function*() {
    const model = yield* ModelServer.ModelServer
    const codex = yield* Codex.Codex
    const thread = yield* codex.startThread()
    yield* model.enqueue(...replies)
    const turn = yield* thread.turn("go")
    return { text: yield* Stream.mkString(turn.text), messages: yield* Stream.runCollect(turn.messages) }
  }).pipe(Effect.scoped)

/** Replaces the ids of the messages with numbers, in the order of their starts. */
const numberIds = (events: ReadonlyArray<Turn.MessageEvent>) => {
  const ids: Array<string> = []
  return events.map((event) => {
    if (!ids.includes(event.itemId)) ids.push(event.itemId)
    return { ...event, itemId: String(ids.indexOf(event.itemId)) }
  })
}

layer(TestCodex.layer({ home: { config: TestCodex.retryConfig(1) } }), { excludeTestServices: true })(
  "Messages of a turn",
  (it) => {
    it.effect("start, arrive in deltas and complete, with a blank line between them in the text", () =>
      Effect.gen(function*() {
        const { messages, text } = yield* read(
          ModelServer.reply([
            ModelServer.deltas(["I look", " first."], { phase: "commentary" }),
            ModelServer.functionCall("exec_command", { cmd: "true", login: false }, { callId: "x" })
          ]),
          ModelServer.reply([ModelServer.message(""), ModelServer.message("A library.", { phase: "final_answer" })])
        )
        assert.strictEqual(text, "I look first.\n\nA library.")
        assert.deepStrictEqual(numberIds(messages), [
          Started({ itemId: "0", phase: "commentary" }),
          Delta({ itemId: "0", phase: "commentary", delta: "I look" }),
          Delta({ itemId: "0", phase: "commentary", delta: " first." }),
          Completed({ itemId: "0", phase: "commentary", text: "I look first." }),
          Started({ itemId: "1", phase: undefined }),
          Completed({ itemId: "1", phase: undefined, text: "" }),
          Started({ itemId: "2", phase: "final_answer" }),
          Delta({ itemId: "2", phase: "final_answer", delta: "A library." }),
          Completed({ itemId: "2", phase: "final_answer", text: "A library." })
        ])
      }))

    it.effect("are retracted when the server retries their stream, and start a new paragraph of the text", () =>
      Effect.gen(function*() {
        const phase = "final_answer"
        const { messages, text } = yield* read(
          ModelServer.cut([ModelServer.deltas(["The answer", " is"], { unfinished: true, phase })]),
          ModelServer.reply([ModelServer.deltas(["The answer is", " 42."], { phase })])
        )
        assert.strictEqual(text, "The answer is\n\nThe answer is 42.")
        assert.deepStrictEqual(numberIds(messages), [
          Started({ itemId: "0", phase }),
          Delta({ itemId: "0", phase, delta: "The answer" }),
          Delta({ itemId: "0", phase, delta: " is" }),
          Retracted({ itemId: "0", phase }),
          Started({ itemId: "1", phase }),
          Delta({ itemId: "1", phase, delta: "The answer is" }),
          Delta({ itemId: "1", phase, delta: " 42." }),
          Completed({ itemId: "1", phase, text: "The answer is 42." })
        ])
      }))

    it.effect("are retracted when the turn fails or is interrupted before they complete", () =>
      Effect.gen(function*() {
        const half = ModelServer.deltas(["half"], { unfinished: true })
        const failed = yield* read(ModelServer.cut([half]), ModelServer.cut([half]))
        assert.strictEqual(failed.text, "half\n\nhalf")
        assert.deepStrictEqual(failed.messages.map(({ _tag }) => _tag), [
          "Started",
          "Delta",
          "Retracted",
          "Started",
          "Delta",
          "Retracted"
        ])

        const model = yield* ModelServer.ModelServer
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* model.enqueue(ModelServer.hang([half]))
        const turn = yield* thread.turn("go")
        yield* Stream.runHead(turn.text)
        yield* turn.interrupt
        const messages = yield* Stream.runCollect(turn.messages)
        assert.deepStrictEqual(messages.map(({ _tag }) => _tag), ["Started", "Delta", "Retracted"])
      }).pipe(Effect.scoped))

    it.effect("are retracted when the server drops their stream for a steer", () =>
      Effect.gen(function*() {
        const model = yield* ModelServer.ModelServer
        const codex = yield* Codex.Codex
        const thread = yield* codex.startThread()
        yield* model.enqueue(TestCodex.halfMessage, ModelServer.text("both"))
        const turn = yield* thread.turn("go")
        const text = yield* Effect.forkChild(Stream.mkString(turn.text))
        yield* Stream.runHead(turn.text)
        yield* turn.steer("more")
        assert.strictEqual(yield* Fiber.join(text), "half\n\nboth")
        const messages = yield* Stream.runCollect(turn.messages)
        assert.deepStrictEqual(messages.map(({ _tag }) => _tag), [
          "Started",
          "Delta",
          "Retracted",
          "Started",
          "Delta",
          "Completed"
        ])
      }).pipe(Effect.scoped))
  }
)

// ---------------------------------------------------------------------------------------------------------------------
// Properties
// ---------------------------------------------------------------------------------------------------------------------

/** Streams messages of the server as events of a turn. */
const toEvents = (messages: ReadonlyArray<object>): Stream.Stream<Turn.TurnEvent> =>
  Stream.fromIterable(messages as ReadonlyArray<Turn.TurnEvent>)

const started = (itemId: string, phase: string | null = null) => ({
  method: "item/started",
  params: { threadId: "t", turnId: "u", item: { type: "agentMessage", id: itemId, text: "", phase }, startedAtMs: 1 }
})

const delta = (itemId: string, text: string) => Fake.delta("t", "u", itemId, text)

const completed = (itemId: string, text: string, phase: string | null = null) =>
  Fake.messageCompleted("t", "u", itemId, text, phase)

const willRetry = {
  method: "error",
  params: { threadId: "t", turnId: "u", willRetry: true, error: { message: "Reconnecting... 1/5" } }
}

/** Folds events into the texts of the messages that were not retracted, as a program would show them. */
const foldTexts = (all: ReadonlyArray<Turn.MessageEvent>) => {
  const texts = new Map<string, string>()
  for (const event of all) {
    switch (event._tag) {
      case "Started":
        assert.isFalse(texts.has(event.itemId), "a message starts once")
        texts.set(event.itemId, "")
        break
      case "Delta":
        assert.isTrue(texts.has(event.itemId), "a delta belongs to a started message")
        texts.set(event.itemId, texts.get(event.itemId) + event.delta)
        break
      case "Completed":
        assert.strictEqual(texts.get(event.itemId), event.text)
        break
      case "Retracted":
        assert.isTrue(texts.delete(event.itemId))
    }
  }
  return [...texts]
}

const Message = Schema.Struct({
  deltas: Schema.Array(Schema.Literals(["a", "b\n", "", "\n\n", "😀", "\ud83d"])).check(Schema.isMaxLength(5)),
  /** The number of deltas that arrive. */
  streamed: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 5 })),
  isStarted: Schema.Boolean,
  phase: Schema.NullOr(Schema.Literals(["commentary", "final_answer"])),
  end: Schema.Literals(["completed", "retried", "dropped", "again"])
})

describe("Messages of a turn", () => {
  it.effect.prop(
    "have deltas that make up the completed text, all of which are in the text of the turn",
    { messages: Schema.Array(Message).check(Schema.isMaxLength(6)) },
    ({ messages }) =>
      Effect.gen(function*() {
        const sent: Array<object> = [Fake.turnStarted("t", "u")]
        const complete: Array<readonly [string, string]> = []
        const paragraphs: Array<string> = []
        for (const [index, { end, isStarted, phase, deltas, streamed }] of messages.entries()) {
          const itemId = `item-${index}`
          const whole = deltas.join("")
          const part = deltas.slice(0, streamed)
          const partly = () => {
            if (isStarted || end === "again") sent.push(started(itemId, phase))
            sent.push(...part.map((text) => delta(itemId, text)))
          }
          partly()
          switch (end) {
            case "completed":
              sent.push(completed(itemId, whole, phase))
              complete.push([itemId, whole])
              paragraphs.push(whole)
              break
            case "again":
              // The server retries with the same id.
              sent.push(willRetry)
              partly()
              sent.push(completed(itemId, whole, phase))
              complete.push([itemId, whole])
              paragraphs.push(part.join(""), whole)
              break
            case "retried":
              sent.push(willRetry)
              paragraphs.push(part.join(""))
              break
            case "dropped":
              paragraphs.push(part.join(""))
          }
        }
        sent.push(Fake.turnCompleted("t", "u"))
        const all = yield* Stream.runCollect(Turn.toMessages(toEvents(sent)))
        assert.deepStrictEqual(foldTexts(all), complete)
        const open = new Set<string>()
        for (const { _tag, itemId } of all) {
          if (_tag === "Started") open.add(itemId)
          else if (_tag !== "Delta") open.delete(itemId)
        }
        assert.strictEqual(open.size, 0, "each message completes or is retracted")
        assert.strictEqual(
          yield* Stream.mkString(Turn.toText(toEvents(sent))),
          paragraphs.filter((text) => text !== "").join("\n\n")
        )
      }),
    { arbitrary: { runs: Number(process.env["FAULT_RUNS"] ?? 500) } }
  )

  it.effect("complete with their own text when the server interleaves them, or with a different final text", () =>
    Effect.gen(function*() {
      const interleaved = [
        started("a"),
        delta("a", "A1"),
        started("b"),
        delta("b", "B1"),
        delta("a", "A2"),
        completed("a", "A1A2A3"),
        delta("b", "B2"),
        completed("b", "B1B2"),
        delta("c", "draft"),
        completed("c", "final")
      ]
      const all = yield* Stream.runCollect(Turn.toMessages(toEvents(interleaved)))
      assert.deepStrictEqual(foldTexts(all), [["b", "B1B2"], ["a", "A1A2A3"], ["c", "final"]])
      // No text is lost. Interleaved messages have more than one paragraph each.
      assert.strictEqual(
        yield* Stream.mkString(Turn.toText(toEvents(interleaved.slice(0, -2)))),
        "A1\n\nB1\n\nA2A3\n\nB2"
      )
    }))

  it.effect("fail with the error of the events, and are not retracted", () =>
    Effect.gen(function*() {
      const lost = Stream.concat(toEvents([started("a"), delta("a", "A")]), Stream.fail("lost"))
      const seen: Array<string> = []
      const failure = yield* Effect.flip(
        Stream.runForEach(Turn.toMessages(lost), ({ _tag }) => Effect.sync(() => seen.push(_tag)))
      )
      assert.strictEqual(failure, "lost")
      assert.deepStrictEqual(seen, ["Started", "Delta"])
    }))
})
