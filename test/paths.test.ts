/** Invalid paths that the server would accept, and that would fail only in the model. */
import { assert, layer } from "@effect/vitest"
import { Codex, Input } from "effect-codex"
import { CodexEnvironment, ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as TestCodex from "./TestCodex.ts"

const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="

/** Makes a folder, a file and links in the workspace. */
const makeFiles = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const { workspace } = yield* CodexEnvironment.CodexEnvironment
  yield* fs.makeDirectory(`${workspace}/sub`, { recursive: true })
  yield* fs.writeFile(`${workspace}/sub/a.png`, Buffer.from(pixel, "base64"))
  yield* fs.remove(`${workspace}/link`, { force: true })
  yield* fs.symlink("sub", `${workspace}/link`)
  yield* fs.remove(`${workspace}/dangling`, { force: true })
  yield* fs.symlink("nowhere", `${workspace}/dangling`)
  return workspace
})

const assertInvalid = Effect.fnUntraced(function*<A, E, R>(
  effect: Effect.Effect<A, E, R>,
  method: string,
  ...parts: ReadonlyArray<string>
) {
  const reason = yield* TestCodex.expectReason(effect)
  assert.deepInclude(reason, { _tag: "InvalidRequest", method })
  for (const text of parts) assert.include(reason.message, text)
})

/** Counts the requests that open a thread, or start or steer a turn. */
const countStarts = Effect.gen(function*() {
  const wire = yield* TestCodex.Wire
  const methods = new Set(["thread/start", "thread/resume", "thread/fork", "turn/start", "turn/steer"])
  return (yield* wire.sent).filter(({ method }) => method !== undefined && methods.has(method)).length
})

layer(TestCodex.layer(), { excludeTestServices: true })("Working directory", (it) => {
  it.effect("fails with InvalidRequest if it is not a directory, before a thread or turn starts", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const workspace = yield* makeFiles
      const thread = yield* TestCodex.startStoredThread()
      const before = yield* countStarts
      const wrong = [
        ["/no/such/folder", "`/no/such/folder`", "No such file or directory"],
        [`${workspace}/sub/a.png`, "/sub/a.png` is a file, not a directory"],
        [`${workspace}/sub/a.png/x`, "Not a directory"],
        [`${workspace}/dangling`, "No such file or directory"],
        [`/${"x".repeat(300)}`, "too long"],
        ["no/such/folder", `\`${workspace}/no/such/folder\``, "No such file or directory"],
        ["/with\0nul", "NUL"]
      ] as const
      for (const [cwd, ...parts] of wrong) {
        yield* assertInvalid(codex.startThread({ cwd }), "thread/start", "`cwd`", ...parts)
        yield* assertInvalid(codex.resumeThread(thread.id, { cwd }), "thread/resume", "`cwd`", ...parts)
        yield* assertInvalid(codex.forkThread(thread.id, { cwd }), "thread/fork", "`cwd`", ...parts)
        yield* assertInvalid(thread.run("go", { cwd }), "turn/start", "`cwd`", ...parts)
      }
      assert.strictEqual(yield* countStarts, before)
    }))

  it.effect("may be a link, or a relative path that the server resolves", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const workspace = yield* makeFiles
      const startIn = (cwd: string) =>
        Effect.flatMap(codex.startThread({ cwd }), (thread) => Effect.map(thread.settings, (settings) => settings.cwd))
      assert.strictEqual(yield* startIn(`${workspace}/sub`), `${workspace}/sub`)
      assert.strictEqual(yield* startIn("sub"), `${workspace}/sub`)
      assert.include([`${workspace}/link`, `${workspace}/sub`], yield* startIn(`${workspace}/link`))
      assert.match((yield* startIn("~")) ?? "", /\/home$/)
    }))

  it.effect("costs no request without the option", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const wire = yield* TestCodex.Wire
      const before = (yield* wire.sent).length
      const thread = yield* codex.startThread({ sandbox: "read-only" })
      yield* model.enqueue(ModelServer.text("fine"))
      yield* thread.run([Input.text("go"), Input.image(`data:image/png;base64,${pixel}`)])
      assert.deepStrictEqual((yield* wire.sent).slice(before).map(({ method }) => method), [
        "thread/start",
        "turn/start"
      ])
    }))
})

layer(TestCodex.layer(), { excludeTestServices: true })("File of an input", (it) => {
  it.effect("fails with InvalidRequest if it does not exist or is no file, before a turn starts or is steered", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const workspace = yield* makeFiles
      const thread = yield* codex.startThread({ cwd: `${workspace}/sub` })
      yield* model.enqueue(TestCodex.halfMessage)
      const requested = yield* TestCodex.nextRequest
      const turn = yield* thread.turn("hang")
      yield* requested
      const before = yield* countStarts
      const wrong = [
        [Input.localImage("/no/such.png"), "`/no/such.png`", "No such file or directory"],
        [Input.localImage("missing.png"), `\`${workspace}/sub/missing.png\``, "No such file or directory"],
        [Input.localImage(workspace), "is a directory, not a file"],
        [Input.localImage(".."), "is a directory, not a file"],
        [{ type: "localAudio", path: "/no/such.mp3" } as const, "`/no/such.mp3`", "No such file or directory"],
        [Input.skill("x", "/no/SKILL.md"), "`/no/SKILL.md`", "No such file or directory"],
        [Input.image("shot.png"), "Input.localImage"],
        [Input.image("/tmp/shot.png"), "Input.localImage"],
        [Input.image("file:///tmp/shot.png"), "Input.localImage"]
      ] as const
      for (const [item, ...parts] of wrong) {
        const input = [Input.text("look"), item]
        yield* assertInvalid(thread.run(input), "turn/start", "`input[1].", ...parts)
        yield* assertInvalid(turn.steer(input), "turn/steer", "`input[1].", ...parts)
      }
      assert.strictEqual(yield* countStarts, before)
      yield* turn.interrupt
    }).pipe(Effect.scoped))

  it.effect("resolves a relative path in the working directory of the thread", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const model = yield* ModelServer.ModelServer
      const workspace = yield* makeFiles
      const thread = yield* codex.startThread({ cwd: `${workspace}/sub` })
      const sendImage = Effect.fnUntraced(function*(path: string, options?: { readonly cwd: string }) {
        yield* model.enqueue(ModelServer.text("seen"))
        const { items } = yield* thread.run([Input.text("look"), Input.localImage(path)], options)
        const [, item] = items[0]?.type === "userMessage" ? items[0].content : []
        const request = (yield* TestCodex.getRequests(thread.id)).at(-1)
        assert.include(JSON.stringify(request), pixel)
        return item?.type === "localImage" ? item.path : undefined
      })
      assert.strictEqual(yield* sendImage("a.png"), `${workspace}/sub/a.png`)
      assert.strictEqual(yield* sendImage("../sub/a.png"), `${workspace}/sub/../sub/a.png`)
      assert.strictEqual(yield* sendImage(`${workspace}/link/a.png`), `${workspace}/link/a.png`)
      assert.strictEqual(yield* sendImage("sub/a.png", { cwd: workspace }), `${workspace}/sub/a.png`)
      // The turn has changed the working directory of the thread.
      assert.strictEqual(yield* sendImage("sub/a.png"), `${workspace}/sub/a.png`)
    }))
})
