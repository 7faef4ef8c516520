/* oxlint-disable no-control-regex */
import { assert, describe, it, layer } from "@effect/vitest"
import { ApprovalPolicy, type Approvals, TerminalView, type Turn, TurnView } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FileSystem from "effect/FileSystem"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import { redraw } from "../src/internal/terminal/frame.ts"
import { textWidth } from "./cellWidth.ts"
import * as FakeTerminal from "./FakeTerminal.ts"
import { poll } from "./poll.ts"
import * as TestCodex from "./TestCodex.ts"
import * as Events from "./turnEvents.ts"

const empty = TurnView.empty(Events.threadId, Events.turnId)

const fold = (events: ReadonlyArray<TurnView.Event>, view = empty): TurnView.TurnView =>
  events.reduce(TurnView.reduce, view)

const render = (events: ReadonlyArray<TurnView.Event>, columns = 40): string =>
  TerminalView.render(fold(events), { columns }).join("\n")

const { completed, delta, event, item, started } = Events

const message = (id: string, text: string) => completed(item("agentMessage", id, { text }), 2)

const run = (command: string, output: string, more = {}) =>
  item("commandExecution", "c", { command, aggregatedOutput: output, ...more })

/** Pieces of texts that terminals obey, show wide, combine or reorder. */
const pieces = [
  "word ",
  "x",
  "\n",
  "\t",
  "\r",
  "\u001b[31m",
  "\u001b[2J",
  "\u001b]0;title\u0007",
  "\u001b]8;;http://x\u001b\\",
  "\u001b[",
  "\u001b",
  "\u009b31m",
  "\u0007\b\u0000\u007f",
  "漢字",
  "한국어",
  "ｆｕｌｌ",
  "\u3000",
  "👩‍👩‍👧‍👦",
  "👍🏽",
  "🇪🇺",
  "⚠️",
  "1️⃣",
  "e\u0301",
  "\u0301".repeat(40),
  "क्षि",
  "שלום",
  "\u202e\u2066\u200f\u061c",
  "\u200b\u200d\ufeff\u00ad",
  "\ud83d",
  "\ue000",
  "\u2028",
  "averylongwordwithoutanyspace".repeat(4)
]

const anyText = (random: Events.Random): string =>
  Array.from({ length: random.below(12) }, () => random.pick(pieces)).join("")

/** Replaces the texts of a value. */
const withTexts = (random: Events.Random, value: unknown, key = ""): unknown => {
  if (typeof value === "string" && /text|command|output|step|path|message|query|tool|diff|explanation/i.test(key)) {
    return anyText(random)
  }
  if (Array.isArray(value)) return value.map((part) => withTexts(random, part, key))
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, withTexts(random, part, name)]))
}

describe("render", () => {
  it("shows the items, the plan, the requests and the status", () => {
    const events = [
      Events.turnStarted,
      completed(
        item("userMessage", "u", { content: [{ type: "text", text: "Fix it" }, { type: "image", url: "x" }] }),
        1
      ),
      completed(item("reasoning", "r", { summary: ["Look first."] }), 1),
      completed(
        item("commandExecution", "c", {
          command: "npm test",
          status: "failed",
          exitCode: 1,
          aggregatedOutput: Array.from({ length: 30 }, (_, index) => `line ${index}`).join("\n")
        }),
        2
      ),
      completed(
        item("fileChange", "f", {
          changes: [{ path: "src/a.ts", kind: { type: "update", move_path: null }, diff: "@@\n-old\n+new\n+more" }],
          status: "completed"
        }),
        3
      ),
      started(item("mcpToolCall", "m", { arguments: { name: "Ada" } }), 4),
      event("item/mcpToolCall/progress", { itemId: "m", message: "half done" }),
      started(item("agentMessage", "a"), 5),
      delta("item/agentMessage/delta", "a", "Almost "),
      event("turn/plan/updated", {
        explanation: null,
        plan: [{ step: "Look", status: "completed" }, { step: "Fix", status: "inProgress" }, {
          step: "Check",
          status: "pending"
        }]
      }),
      Events.usage(1200, 100),
      Events.commandRequest(1, "c2")
    ]
    assert.strictEqual(
      TerminalView.render(fold(events), { columns: 40, nowMs: 66_004 }).join("\n"),
      `› Fix it
  [image]
∴ Look first.
$ npm test
  …
${Array.from({ length: 9 }, (_, index) => `  line ${index + 21}`).join("\n")}
  exit code 1
± update src/a.ts (+2 -1)
→ people.find({"name":"Ada"}) (1m 06s)
  half done
• Almost
$ ls
✓ Look
▸ Fix
· Check
? Approve the command ls
■ Working 1m 05s · 100 tokens · 10% of
  context`
    )
  })

  it("leaves out what is retracted, and shows the retry", () => {
    const events = [
      started(item("agentMessage", "a"), 1),
      delta("item/agentMessage/delta", "a", "half"),
      Events.error(true)
    ]
    assert.strictEqual(render(events), "! Retry: Reconnecting... 1/5\n■ Working")
  })

  it("shows the error of a turn that failed", () => {
    const events = [Events.turnStarted, Events.turnCompleted("failed", { error: { message: "No more tokens" } })]
    assert.strictEqual(render(events), "! No more tokens\n■ Failed 1s")
  })

  it("removes escape sequences and what was overwritten from outputs, and keeps emoji and tabs", () => {
    const aggregatedOutput = "\u001b[32mok\u001b[0m\ta\u001b]0;title\u0007\n 10%\r 99%\r\n⚠️ 👩‍👩‍👧\u202e done\u200b"
    const command = item("commandExecution", "c", {
      command: "a\u001b[2J\u202e",
      status: "completed",
      exitCode: 0,
      aggregatedOutput
    })
    assert.strictEqual(
      render([completed(command, 1)]),
      "$ a\\u{1b}[2J\\u{202e}\n  ok      a\n   99%\n  ⚠️ 👩‍👩‍👧 done\n■ Working"
    )
  })

  it("breaks lines at words, and words that are too long", () => {
    assert.strictEqual(
      render([message("a", "漢字漢字漢字 and a word")], 10),
      "• 漢字漢字\n  漢字 and\n  a word\n■ Working"
    )
    assert.strictEqual(render([message("a", "abcdefghijkl mn")], 10), "• abcdefgh\n  ijkl mn\n■ Working")
    assert.strictEqual(render([message("a", "漢a")], 1), "?\na\nW\no\nr\nk\ni\nn\ng")
  })

  it("returns lines of the width, without control characters, of any view", () => {
    Events.forSeeds(100, (random) => {
      const events = Events.anyEvents(random, random.pick([0, 0.2])).map((event) =>
        withTexts(random, event) as TurnView.Event
      )
      const view = fold(events)
      for (const columns of [1, 2, 3, 4, 10, 37, 80]) {
        const lines = TerminalView.render(view, { columns })
        assert.isNotEmpty(lines)
        for (const line of lines) {
          assert.isAtMost(textWidth(line), columns, JSON.stringify(line))
          assert.notMatch(line, /(?!\u200d)[\p{C}\p{Zl}\p{Zp}]/u)
        }
        const end = TerminalView.render(view, { columns, rows: 3 })
        assert.isAtMost(end.length, 3)
        assert.strictEqual(end.at(-1), lines.at(-1))
      }
      TerminalView.render(view, { columns: Infinity })
    })
  })

  it("takes a time that does not grow faster than the text, also for texts that are made to slow it down", () => {
    const size = 200_000
    const slow = [
      "\u001b]",
      "\u001b[",
      "\u001b[0",
      "\u009d",
      "\r",
      "\ra",
      "字 ",
      "\u0301",
      "👩\u200d",
      "\t",
      "\n",
      "\u001bP\u0090"
    ]
    for (const piece of slow) {
      const text = `a${piece.repeat(size / piece.length)}b`
      const view = fold([
        message("a", text),
        completed(run(text, text, { status: "completed", exitCode: 0 }), 2),
        started(item("agentMessage", "b"), 1),
        delta("item/agentMessage/delta", "b", text)
      ])
      for (const columns of [10, Infinity]) {
        const start = performance.now()
        TerminalView.render(view, { columns, rows: 24 })
        assert.isBelow(performance.now() - start, 5000, `${JSON.stringify(piece)} in ${columns} columns`)
      }
    }
  })

  it("reads only the end of a text that is still incomplete", () => {
    const live = fold([
      started(item("agentMessage", "a"), 1),
      delta("item/agentMessage/delta", "a", "字".repeat(5_000_000))
    ])
    const start = performance.now()
    assert.lengthOf(TerminalView.render(live, { columns: 80, rows: 24 }), 24)
    assert.isBelow(performance.now() - start, 500)
  })
})

describe("redraw", () => {
  it("turns any rows into any other rows, below what was there", () => {
    Events.forSeeds(150, (random) => {
      const rows = 2 + random.below(8)
      const screen = new FakeTerminal.Screen(12, rows)
      const anyRows = (max: number) =>
        Array.from(
          { length: random.below(max + 1) },
          () => random.pick(["", "a", "b", "漢字", "\u001b[1mbold\u001b[0m", "full width"])
        )
      const written = ["above"]
      screen.write("above\n")
      let previous: ReadonlyArray<string> = []
      for (let frame = 0; frame < 6; frame++) {
        const above = anyRows(random.pick([0, 12]))
        const next = anyRows(rows - 1)
        screen.write(redraw(previous, [...above, ...next], frame === 5))
        written.push(...above)
        previous = next
        const expected = [...written, ...next].map((line) => line.replace(/\u001b\[\d+m/g, ""))
        assert.strictEqual(screen.text, expected.join("\n").trimEnd())
        assert.deepStrictEqual(screen.cursor, [expected.length, 0])
        assert.strictEqual(redraw(next, next), "")
      }
    })
  })
})

/** Shows views that the test emits. */
const follow = Effect.fnUntraced(function*(
  terminal: Effect.Success<ReturnType<typeof FakeTerminal.makeScreen>>,
  env: Record<string, string> = {}
) {
  const views = yield* Queue.unbounded<TurnView.TurnView, Error | Cause.Done>()
  let view = fold([Events.turnStarted])
  const offer = (...events: ReadonlyArray<TurnView.Event>) =>
    Effect.suspend(() => {
      view = fold(events, view)
      return Queue.offer(views, view)
    })
  const fiber = yield* TerminalView.show(Stream.fromQueue(views)).pipe(
    Effect.provide(terminal.layer),
    Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env })),
    Effect.forkChild({ startImmediately: true })
  )
  const frame = TestClock.adjust("50 millis")
  return {
    emit: (...events: ReadonlyArray<TurnView.Event>) => Effect.andThen(offer(...events), frame),
    view: () => view,
    offer,
    frame,
    fiber,
    fail: Queue.fail(views, new Error("lost")),
    end: Effect.andThen(Queue.end(views), Effect.andThen(frame, Fiber.join(fiber)))
  }
})

describe("show", () => {
  it.effect("writes items once, and redraws what changes below them", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(30, 10)
      terminal.screen().write("$ program\n")
      const { emit, end } = yield* follow(terminal)
      yield* emit(message("a", "I look."), started(run("make", ""), 0))
      yield* emit(delta("item/commandExecution/outputDelta", "c", "\u001b[31mone\ntwo\n"))
      yield* TestClock.adjust("65 seconds")
      assert.strictEqual(
        terminal.screen().text,
        "$ program\n• I look.\n$ make (1m 05s)\n  one\n  two\n■ Working 1m 04s"
      )
      yield* emit(
        completed(run("make", "one\ntwo\nthree", { status: "completed", exitCode: 0 }), 9),
        Events.turnCompleted()
      )
      yield* end
      assert.strictEqual(
        terminal.screen().text,
        "$ program\n• I look.\n$ make\n  one\n  two\n  three\n■ Completed 1s"
      )
      assert.deepStrictEqual(terminal.screen().cursor, [7, 0])
    }))

  it.effect("writes 20 frames in a second, with the row that changed, at 60 deltas a second", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(100, 40)
      const { emit, end, offer } = yield* follow(terminal)
      yield* emit(
        ...Array.from({ length: 10 }, (_, index) => started(run(`command ${index}`, "output", { id: `c${index}` }), 0)),
        started(item("agentMessage", "a"), 1)
      )
      const { bytes, frames } = terminal.screen()
      for (let index = 0; index < 300; index++) {
        yield* offer(delta("item/agentMessage/delta", "a", "word "))
        yield* TestClock.adjust(1000 / 60)
      }
      const written = terminal.screen().frames - frames
      assert.isAtLeast(written, 75)
      assert.isAtMost(written, 101)
      // Once a second, the times of all commands change too.
      assert.isBelow((terminal.screen().bytes - bytes) / written, 200)
      yield* end
    }))

  it.effect("leaves each line of any turn once", () =>
    Effect.gen(function*() {
      const compare = Effect.fnUntraced(function*(random: Events.Random) {
        const [columns, rows] = [2 + random.below(40), 1 + random.below(12)]
        const terminal = yield* FakeTerminal.makeScreen(columns, rows)
        const { emit, end, view } = yield* follow(terminal)
        yield* emit()
        for (const event of Events.anyEvents(random, 0)) yield* emit(withTexts(random, event) as TurnView.Event)
        // The end takes some milliseconds, in which no second ends.
        yield* TestClock.adjust(1500 - (yield* Clock.currentTimeMillis) % 1000)
        const nowMs = yield* Clock.currentTimeMillis
        yield* end
        // A mark without a letter before it is not shown.
        const lines = TerminalView.render(view(), { columns: columns - 1, nowMs }).map((line) =>
          line.replace(/^\p{Mn}+/u, "").trimEnd()
        )
        const isText = (line: string) => line !== ""
        assert.deepStrictEqual(
          terminal.screen().text.split("\n").filter(isText).toSorted(),
          lines.filter(isText).toSorted()
        )
      })
      for (let seed = 0; seed < 150; seed++) {
        yield* Effect.catchDefect(compare(Events.makeRandom(seed)), (defect) =>
          Effect.die(new Error(`The check fails with the seed ${seed}`, { cause: defect })))
      }
    }))

  it.effect("cuts what changes to the height of the terminal, and writes it whole at the end", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(10, 4)
      const { emit, end } = yield* follow(terminal)
      yield* emit(started(item("agentMessage", "a"), 1))
      for (let index = 0; index < 20; index++) yield* emit(delta("item/agentMessage/delta", "a", `word${index}\n`))
      assert.strictEqual(terminal.screen().text, "  word19\n■ Working\n  0s")
      const text = Array.from({ length: 20 }, (_, index) => `word${index}`).join("\n")
      yield* emit(message("a", text), Events.turnCompleted())
      yield* end
      assert.strictEqual(
        terminal.screen().text,
        `• ${text.replaceAll("\n", "\n  ")}\n■ Complet\n  ed 1s`
      )
    }))

  it.effect("shows the plan while it changes, and whole at the end", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(30, 5)
      const { emit, end } = yield* follow(terminal)
      const steps = Array.from({ length: 8 }, (_, index) => ({
        step: `step ${index}`,
        status: index < 4 ? "completed" : index === 4 ? "inProgress" : "pending"
      }))
      yield* emit(event("turn/plan/updated", { plan: steps }))
      assert.strictEqual(terminal.screen().text, "▸ step 4\n· step 5\n· step 6\n■ Working 0s")
      yield* emit(Events.turnCompleted())
      yield* end
      const plan = steps.map(({ status, step }) => `${{ completed: "✓", inProgress: "▸" }[status] ?? "·"} ${step}`)
      assert.strictEqual(terminal.screen().text, `${plan.join("\n")}\n■ Completed 1s`)
    }))

  it.effect("continues after the terminal was resized", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(40, 10)
      terminal.screen().write("$ program\n")
      const { emit, end, frame } = yield* follow(terminal)
      yield* emit(
        started(item("agentMessage", "a"), 1),
        delta("item/agentMessage/delta", "a", "The quick brown fox jumps.")
      )
      yield* terminal.resize(16, 10)
      yield* frame
      assert.strictEqual(terminal.screen().text, "$ program\n• The quick\n  brown fox\n  jumps.\n■ Working 0s")
      yield* terminal.resize(40, 3)
      yield* frame
      assert.match(terminal.screen().text, /• The quick brown fox jumps\.\n■ Working 0s$/)
      yield* end
    }))

  it.effect("appends completed items when the output is no terminal, and in CI", () =>
    Effect.gen(function*() {
      const isPipe = { canColor: false, canAnimate: false, canPrompt: false }
      for (
        const [capabilities, env] of [[isPipe, {}], [undefined, { CI: "true" }], [undefined, {
          CI: "woodpecker"
        }]] as const
      ) {
        const terminal = yield* FakeTerminal.makeScreen(300, 10, capabilities)
        const { emit, end } = yield* follow(terminal, env)
        const long = "word ".repeat(50).trim()
        yield* emit(started(item("agentMessage", "a"), 1), delta("item/agentMessage/delta", "a", "half"))
        assert.strictEqual(terminal.screen().text, "")
        yield* emit(message("a", long), started(run("make", "one"), 3))
        assert.strictEqual(terminal.screen().text, `• ${long}`)
        yield* emit(completed(run("make", "one", { status: "completed", exitCode: 0 }), 9), Events.turnCompleted())
        yield* end
        assert.strictEqual(terminal.screen().text, `• ${long}\n$ make\n  one\n■ Completed 1s`)
        assert.strictEqual(terminal.screen().frames, 0)
      }
    }))

  it.effect("leaves the last state and the start of a line when it is interrupted or fails", () =>
    Effect.gen(function*() {
      for (const isInterrupted of [true, false]) {
        const terminal = yield* FakeTerminal.makeScreen(30, 10)
        const { emit, fail, fiber } = yield* follow(terminal)
        yield* emit(started(item("agentMessage", "a"), 1))
        yield* emit(delta("item/agentMessage/delta", "a", "half"))
        terminal.screen().write("^C")
        yield* isInterrupted ? Fiber.interrupt(fiber) : fail
        yield* TestClock.adjust("50 millis")
        const exit = yield* Fiber.await(fiber)
        assert.isTrue(Exit.isFailure(exit))
        assert.strictEqual(terminal.screen().text, "• half\n■ Working 0s")
        assert.deepStrictEqual(terminal.screen().cursor, [2, 0])
      }
    }))

  it.effect("waits for a prompt on the terminal, and continues below it", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(60, 20)
      const { emit, end, frame } = yield* follow(terminal)
      yield* emit(Events.commandRequest(1, "c"))
      const request = { _tag: "Command", kind: "command", command: "ls" } as unknown as Approvals.Request
      const decision = yield* ApprovalPolicy.askTerminal(request).pipe(
        Effect.provide(terminal.layer),
        Effect.forkChild({ startImmediately: true })
      )
      const asked = terminal.screen().text
      assert.match(asked, /Working 0s\n\nCodex wants[^]*ancel the turn:$/)
      yield* emit(message("a", "meanwhile"))
      assert.strictEqual(terminal.screen().text, asked)
      yield* terminal.type("y")
      yield* Fiber.join(decision)
      yield* emit(Events.resolved(1))
      yield* frame
      assert.strictEqual(terminal.screen().text, `${asked} y\n• meanwhile\n$ ls\n■ Working 0s`)
      yield* end
    }))

  it.effect("ends with Ctrl-C during a prompt", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(60, 20)
      const { emit, fiber } = yield* follow(terminal)
      yield* emit(Events.commandRequest(1, "c"))
      const request = { _tag: "Command", kind: "command", command: "ls" } as unknown as Approvals.Request
      const prompt = yield* ApprovalPolicy.askTerminal(request).pipe(
        Effect.provide(terminal.layer),
        Effect.forkChild({ startImmediately: true })
      )
      yield* emit(message("a", "meanwhile"))
      yield* Fiber.interrupt(fiber)
      yield* Fiber.interrupt(prompt)
      assert.isTrue(terminal.screen().text.endsWith("(The request was canceled.)"))
      assert.strictEqual(terminal.screen().cursor[1], 0)
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("show with the real server", (it) => {
  it.effect("follows a turn to its end", () =>
    Effect.gen(function*() {
      const terminal = yield* FakeTerminal.makeScreen(60, 20)
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      const output = "printf '\\033[31mred\\033[0m\\n漢字\\n'; exit 3"
      yield* model.enqueue(
        ModelServer.functionCall("exec_command", { cmd: output, login: false }),
        message.reply
      )
      const turn = yield* thread.turn("go")
      const shown = yield* TerminalView.show(turn.view).pipe(
        Effect.provide(terminal.layer),
        // The test may run in CI, where nothing is drawn.
        Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: {} })),
        Effect.forkChild
      )
      yield* message.say("Done 👋")
      yield* poll(
        Effect.sync(() => terminal.screen().text),
        (text) => text.includes("• Done 👋\n■ Working"),
        "the message"
      )
      yield* message.finish
      yield* Fiber.join(shown)
      assert.match(
        terminal.screen().text,
        /^› go\n\$ printf '.*; exit 3\n  red\n  漢字\n  exit code 3\n• Done 👋\n■ Completed \d+s · [\d,]+ tokens · \d+% of context$/s
      )
      yield* turn.result
    }).pipe(Effect.scoped))

  const showScreen = Effect.fnUntraced(function*(turn: Turn.Turn) {
    const terminal = yield* FakeTerminal.makeScreen(60, 20)
    const shown = yield* TerminalView.show(turn.view, { subAgents: turn.subAgents }).pipe(
      Effect.provide(terminal.layer),
      Effect.provideService(ConfigProvider.ConfigProvider, ConfigProvider.fromEnv({ env: {} })),
      Effect.forkChild
    )
    const until = (expected: RegExp) =>
      poll(Effect.sync(() => terminal.screen().text), (text) => expected.test(text), String(expected))
    return { terminal, shown, until }
  })

  const touch = Effect.fnUntraced(function*(file: string) {
    const fs = yield* FileSystem.FileSystem
    const { workspace } = yield* CodexEnvironment.CodexEnvironment
    yield* fs.writeFileString(`${workspace}/${file}`, "")
  })

  it.effect("shows the output of a command as it comes", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      const cmd =
        "for file in a b; do until [ -e $file ]; do sleep 0.02; done; echo has $file; done; until [ -e c ]; do sleep 0.02; done"
      yield* model.enqueue(ModelServer.functionCall("exec_command", { cmd, login: false }), ModelServer.text("done"))
      const turn = yield* thread.turn("go")
      const { shown, until } = yield* showScreen(turn)
      yield* until(/\$ for file/)
      yield* touch("a")
      yield* until(/\n {2}has a\n■ Working/)
      yield* touch("b")
      yield* until(/\n {2}has a\n {2}has b\n■ Working/)
      yield* touch("c")
      yield* Fiber.join(shown)
    }).pipe(Effect.scoped))

  it.effect("shows what a sub-agent does while it works", () =>
    Effect.gen(function*() {
      const thread = yield* TestCodex.startThread
      const model = yield* ModelServer.ModelServer
      const message = yield* TestCodex.heldMessage
      yield* model.respond((request) => {
        if (request.header("thread-id") === thread.id) return TestCodex.delegate(request, { message: "count" })
        return request.functionCallOutput("count") === undefined
          ? ModelServer.functionCall("exec_command", { cmd: "until [ -e d ]; do sleep 0.02; done", login: false }, {
            callId: "count"
          })
          : message.reply
      })
      const turn = yield* thread.turn("go")
      const { shown, terminal, until } = yield* showScreen(turn)
      yield* until(/◇ wait.*\n {2}\S+ \$ until \[ -e d \]; do sleep 0\.02; done \(\ds\)\n■ Working/)
      yield* touch("d")
      yield* message.say("There are ")
      yield* message.say("seven files.")
      yield* until(/◇ wait.*\n {2}\S+ • There are seven files\.\n■ Working/)
      yield* message.finish
      yield* Fiber.join(shown)
      assert.notInclude(terminal.screen().text, "$ until")
    }).pipe(Effect.scoped))
})
