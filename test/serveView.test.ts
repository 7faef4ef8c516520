/** The example `serve-view` in a real browser. */
import { assert, describe, it, layer } from "@effect/vitest"
import { ThreadView } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { existsSync } from "node:fs"
import type { Page } from "puppeteer-core"
import * as Server from "../examples/serve-view/server.ts"
import { applyUpdate, toUpdates } from "../examples/serve-view/updates.ts"
import { Update } from "../examples/serve-view/ViewRpcs.ts"
import { findIssue, HeadlessBrowser } from "./HeadlessBrowser.ts"
import { root } from "./repository.ts"
import * as TestCodex from "./TestCodex.ts"
import * as Events from "./turnEvents.ts"
import { forSeeds } from "./turnEvents.ts"

/** Opens the page of a server. */
const openPage = Effect.gen(function*() {
  const browser = yield* HeadlessBrowser
  return yield* browser.open(yield* Server.PageAddress)
})

const evaluate = (page: Page, expression: string) => Effect.promise(() => page.evaluate(expression))

/** Waits until an expression of the page is true. */
const waitFor = (page: Page, expression: string) =>
  Effect.tryPromise(() => page.waitForFunction(expression, { timeout: 20_000 })).pipe(
    Effect.catch((cause) =>
      Effect.flatMap(
        evaluate(page, "document.body.innerText"),
        (text) =>
          Effect.die(new Error(`The page does not become as expected: ${expression}. It shows:\n${text}`, { cause }))
      )
    ),
    Effect.asVoid
  )

/** The text of the turns, without empty lines. */
const shownText = `document.querySelector("#turns").innerText.replace(/\\n+/g, "\\n").trim()`

/** Waits until the turns contain a text. */
const waitForText = (page: Page, text: string) => waitFor(page, `${shownText}.includes(${JSON.stringify(text)})`)

const click = (page: Page, selector: string) => Effect.promise(() => page.click(selector))

const send = (page: Page, prompt: string) =>
  Effect.promise(async () => {
    await page.type("input", prompt)
    await page.keyboard.press("Enter")
  })

interface Message {
  readonly values: ReadonlyArray<unknown>
}

/** Connects as a script of `origin` does. Fails if the server rejects the connection. */
const connect = Effect.fnUntraced(function*(origin: string | undefined) {
  const address = yield* Server.PageAddress
  const messages = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
  const socket = yield* Effect.acquireRelease(
    Effect.sync(() =>
      new WebSocket(`${address.replace("http", "ws")}rpc`, { headers: origin === undefined ? {} : { origin } })
    ),
    (socket) => Effect.sync(() => socket.close())
  )
  const run = Effect.runSyncWith(yield* Effect.context<never>())
  socket.addEventListener("message", ({ data }) => {
    const received = String(data).trim().split("\n").map((line) => JSON.parse(line))
    run(SubscriptionRef.update(messages, (before) => [...before, ...received]))
  })
  yield* Effect.callback<void, Error>((resume) => {
    socket.addEventListener("open", () => resume(Effect.void))
    socket.addEventListener("error", () => resume(Effect.fail(new Error("The server rejects the connection."))))
  })
  return {
    send: (message: object) => socket.send(`${JSON.stringify(message)}\n`),
    /** Waits for a number of messages. */
    receive: (count: number) =>
      SubscriptionRef.changes(messages).pipe(
        Stream.filter(({ length }) => length >= count),
        Stream.runHead,
        Effect.flatMap(Effect.fromOption)
      )
  }
})

const patch = (file: string) =>
  ModelServer.reply([
    ModelServer.customToolCall("apply_patch", `*** Begin Patch\n*** Add File: ${file}\n+hello\n*** End Patch`)
  ])

const command = (cmd: string) => ModelServer.reply([ModelServer.functionCall("exec_command", { cmd, login: false })])

const escalated = (cmd: string) =>
  ModelServer.functionCall("exec_command", {
    cmd,
    login: false,
    sandbox_permissions: "require_escalated",
    justification: "why"
  })

/** Scripts the replies of the model to one test. */
const script = Effect.fnUntraced(function*(...replies: ReadonlyArray<ModelServer.Reply>) {
  const model = yield* ModelServer.ModelServer
  const rest = replies.slice()
  yield* model.respond(() => rest.shift() ?? ModelServer.httpError(500))
})

const serve = Effect.provide(Layer.fresh(Server.layer))

const decodeUpdate = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.toCodecJson(Update)))
const encodeUpdate = Schema.encodeSync(Schema.fromJsonString(Schema.toCodecJson(Update)))

/** The view without what the page does not show. */
const toPageView = (view: ThreadView.ThreadView): ThreadView.ThreadView => ({
  ...view,
  settings: null,
  goal: null,
  turns: view.turns.map((turn) => ({ ...turn, diff: null, settledRequests: [] }))
})

describe("Updates of serve-view", () => {
  it.effect("add up to the newest view, also if views are skipped and reloaded", () =>
    Effect.gen(function*() {
      const updates = { whole: 0, parts: 0 }
      forSeeds(300, (random) => {
        const views: Array<ThreadView.ThreadView> = []
        let view = ThreadView.empty(Events.threadId)
        for (const event of Events.anyEvents(random, 0.2)) {
          view = ThreadView.reduce(view, event as ThreadView.Event)
          // After a revert, the thread has fewer turns.
          if (random.chance(0.01)) view = { ...view, turns: view.turns.slice(1) }
          if (random.chance(0.3)) views.push(view)
        }
        const sent = Effect.runSync(Stream.runCollect(toUpdates(Stream.fromIterable(views))))
        let page: ThreadView.ThreadView | undefined
        for (const [index, update] of sent.entries()) {
          updates[update.isWhole ? "whole" : "parts"]++
          page = applyUpdate(page, decodeUpdate(encodeUpdate(update)))
          assert.deepStrictEqual(page, toPageView(views[index]!))
        }
      })
      assert.isAbove(updates.whole, 300)
      assert.isAbove(updates.parts, 1000)
    }))

  it.effect("contain one item after a delta", () =>
    Effect.gen(function*() {
      const delta = (itemId: string) =>
        Events.delta("item/commandExecution/outputDelta", itemId, "x") as ThreadView.Event
      const before = Array.from({ length: 100 }, (_, index) => delta(`item_${index}`))
        .reduce(ThreadView.reduce, ThreadView.empty(Events.threadId))
      const views = Stream.make(before, ThreadView.reduce(before, delta("item_7")))
      const [, update] = yield* Stream.runCollect(toUpdates(views))
      assert.isFalse(update!.isWhole)
      assert.deepStrictEqual(update!.thread.turns.map(({ items }) => items.map(({ id }) => id)), [["item_7"]])
    }))
})

/** Why the tests cannot run: a machine may lack the libraries of a browser. CI has them. */
const issue = process.env["CI"] === undefined ? await findIssue() : undefined

if (issue !== undefined) console.warn(`Skipped the tests in a browser. ${issue}`)

describe.skipIf(issue !== undefined)("Example", () =>
  layer(
    Layer.merge(TestCodex.layer({ home: { config: TestCodex.retryConfig(1) } }), HeadlessBrowser.layer),
    { excludeTestServices: true, timeout: "60 seconds" }
  )(
    "serve-view",
    (it) => {
      it.effect("shows live text, and the whole thread on a late page and after a reload", () =>
        Effect.gen(function*() {
          const message = yield* TestCodex.heldMessage
          yield* script(
            ModelServer.reply([
              ModelServer.reasoning("thinking"),
              ModelServer.functionCall("update_plan", {
                explanation: "why",
                plan: [{ step: "one", status: "in_progress" }]
              })
            ]),
            command("echo out; exit 3"),
            ModelServer.reply([message.reply])
          )
          const page = yield* openPage
          yield* send(page, "go")
          yield* message.say("Hel")
          yield* waitForText(page, "Hel")
          yield* message.say("lo")
          yield* waitForText(page, "Hello")
          const shown = yield* evaluate(page, shownText)
          assert.strictEqual(
            shown,
            [
              "You",
              "go",
              "Reasoning",
              "thinking",
              "Command, failed, exit code 3",
              "$ /bin/bash -c 'echo out; exit 3'",
              "out",
              "Codex",
              "Hello",
              "inProgress: one",
              "inProgress, 4 tokens"
            ].join("\n")
          )
          const late = yield* openPage
          yield* waitForText(late, "Hello")
          assert.strictEqual(yield* evaluate(late, shownText), shown)
          yield* Effect.promise(() => page.reload())
          yield* waitForText(page, "Hello")
          assert.strictEqual(yield* evaluate(page, shownText), shown)
          yield* message.say(" again")
          yield* message.finish
          yield* Effect.forEach([page, late], (page) => waitForText(page, "Hello again\ninProgress: one\ncompleted"))
        }).pipe(Effect.scoped, serve))

      it.effect("interrupts the turn on the server with the Stop button, and does not with a closed page", () =>
        Effect.gen(function*() {
          yield* script(TestCodex.halfMessage)
          const closed = yield* openPage
          yield* send(closed, "go")
          yield* waitForText(closed, "half")
          yield* Effect.promise(() => closed.close())
          const page = yield* openPage
          yield* waitForText(page, "half")
          yield* click(page, "#stop:enabled")
          yield* waitForText(page, "Codex, retracted\ninterrupted")
          yield* waitFor(page, `document.querySelector("#stop").disabled`)
          assert.notInclude(yield* evaluate(page, shownText), "half")
          const model = yield* ModelServer.ModelServer
          const threadId = (yield* model.requests).at(-1)!.promptCacheKey!
          assert.strictEqual((yield* TestCodex.readTurns(threadId))[0]?.status, "interrupted")
        }).pipe(Effect.scoped, serve))

      it.effect("shows a retry, and removes the text that it retracts", () =>
        Effect.gen(function*() {
          yield* script(
            ModelServer.cut([ModelServer.deltas(["half"], { unfinished: true })]),
            ModelServer.hang()
          )
          const model = yield* ModelServer.ModelServer
          const before = (yield* model.requests).length
          const page = yield* openPage
          yield* send(page, "go")
          yield* waitForText(page, "Codex, retracted\nRetries: Reconnecting")
          assert.notInclude(yield* evaluate(page, shownText), "half")
          yield* model.awaitRequests(before + 2)
        }).pipe(Effect.scoped, serve))

      it.effect("shows an approval, and sends the decision of the person", () =>
        Effect.gen(function*() {
          const { workspace } = yield* CodexEnvironment.CodexEnvironment
          yield* script(
            ModelServer.reply([escalated("touch allowed")]),
            ModelServer.reply([escalated("touch declined")]),
            ModelServer.text("done")
          )
          const page = yield* openPage
          yield* send(page, "go")
          yield* waitForText(page, "requestApproval\n$ /bin/bash -c 'touch allowed'")
          yield* click(page, "::-p-text(Allow)")
          yield* waitForText(page, "requestApproval\n$ /bin/bash -c 'touch declined'")
          yield* click(page, "::-p-text(Decline)")
          yield* waitForText(page, "done\ncompleted")
          assert.notInclude(yield* evaluate(page, shownText), "requestApproval")
          assert.isTrue(existsSync(`${workspace}/allowed`))
          assert.isFalse(existsSync(`${workspace}/declined`))
        }).pipe(Effect.scoped, serve))

      it.effect("inserts text as text", () =>
        Effect.gen(function*() {
          const hostile = (name: string) => `<img src=x onerror=alert(1) id=${name}><script>alert(1)</script>`
          const file = "<img src=x onerror=alert(1) id=file>"
          yield* script(
            ModelServer.reply([
              ModelServer.reasoning(hostile("reasoning")),
              ModelServer.functionCall("update_plan", {
                explanation: "why",
                plan: [{ step: hostile("plan"), status: "pending" }]
              })
            ]),
            command(`echo '${hostile("output")}'`),
            patch(file),
            ModelServer.text(hostile("message"))
          )
          const page = yield* openPage
          yield* send(page, hostile("prompt"))
          yield* waitForText(page, "fileChange/requestApproval")
          yield* click(page, "::-p-text(Allow)")
          yield* waitForText(page, hostile("message"))
          const text = String(yield* evaluate(page, shownText))
          for (const name of ["prompt", "reasoning", "output", "plan", "message"]) assert.include(text, hostile(name))
          assert.include(text, `/${file}\n`)
          assert.strictEqual(yield* evaluate(page, `document.querySelectorAll("#turns :is(img, script)").length`), 0)
        }).pipe(Effect.scoped, serve))

      it.effect("sends a page that does not read one update, and then the newest", () =>
        Effect.gen(function*() {
          const message = yield* TestCodex.heldMessage
          yield* script(message.reply)
          const page = yield* openPage
          yield* send(page, "go")
          yield* message.say("0")
          yield* waitForText(page, "0")
          // This page reads only what it acknowledges.
          const slow = yield* connect(new URL(yield* Server.PageAddress).origin)
          slow.send({ _tag: "Request", id: "1", tag: "Watch", payload: null, headers: [] })
          yield* slow.receive(1)
          for (let i = 1; i <= 40; i++) {
            yield* message.say(`,${i}`)
            yield* waitForText(page, `,${i}`)
          }
          assert.lengthOf(yield* slow.receive(1), 1)
          slow.send({ _tag: "Ack", requestId: "1" })
          const [, newest] = yield* slow.receive(2)
          assert.lengthOf(newest!.values, 1)
          assert.include(JSON.stringify(newest), ",40")
        }).pipe(Effect.scoped, serve))

      it.effect("serves only its own page", () =>
        Effect.gen(function*() {
          const address = yield* Server.PageAddress
          const { origin } = new URL(address)
          const getStatus = (url: string, headers: Record<string, string> = {}) =>
            Effect.promise(() => fetch(url, { headers }).then(({ status }) => status))
          assert.strictEqual(new URL(address).hostname, "127.0.0.1")
          assert.strictEqual(yield* getStatus(address), 200)
          assert.strictEqual(yield* getStatus(`${origin}/`), 404)
          assert.strictEqual(yield* getStatus(`${address}page.js`, { origin: "http://127.0.0.1:1" }), 403)
          for (const other of ["http://127.0.0.1:1", "null", undefined]) {
            assert.strictEqual((yield* Effect.exit(connect(other)))._tag, "Failure")
          }
          yield* connect(origin)
          const browser = yield* HeadlessBrowser
          const page = yield* browser.open("about:blank")
          const opened = yield* evaluate(
            page,
            `new Promise((resolve) => {
            const socket = new WebSocket(${JSON.stringify(`${address}rpc`.replace("http", "ws"))})
            socket.onopen = () => resolve(true)
            socket.onerror = () => resolve(false)
          })`
          )
          assert.isFalse(opened)
        }).pipe(Effect.scoped, serve))

      it.effect("runs by `npm run example`, and ends with Ctrl-C while a page is open", () =>
        Effect.gen(function*() {
          const spawner = yield* ChildProcessSpawner
          const child = yield* spawner.spawn(
            ChildProcess.make(
              process.execPath,
              ["--conditions=@effect-codex/source", `${root}scripts/example.ts`, "serve-view"],
              { cwd: root, env: { CODEX_LIVE: undefined }, extendEnv: true }
            )
          )
          const [, address] = yield* Stream.decodeText(child.stdout).pipe(
            Stream.splitLines,
            Stream.map((line) => /^Open (.*)$/.exec(line)),
            Stream.filter((match) => match !== null),
            Stream.runHead,
            Effect.flatMap(Effect.fromOption)
          )
          const browser = yield* HeadlessBrowser
          const page = yield* browser.open(address!)
          yield* send(page, "go")
          yield* waitForText(page, "requestApproval")
          yield* click(page, "::-p-text(Allow)")
          yield* waitForText(page, "one\ntwo\nthree")
          yield* waitForText(page, "pending: Report")
          yield* waitForText(page, "The note is there.")
          yield* Effect.timeout(child.kill({ killSignal: "SIGINT" }), "10 seconds")
          assert.strictEqual(yield* child.exitCode, 130)
          yield* waitFor(page, `document.querySelector("#connection").textContent.startsWith("Disconnected")`)
        }).pipe(Effect.scoped))
    }
  ))
