/** Runs the programs of `docs/faq.md`. `docs.test.ts` compiles them. */
import { assert, layer } from "@effect/vitest"
import { type AppServer, Codex } from "effect-codex"
import { CodexEnvironment, ModelServer, TestCodex } from "effect-codex/testing"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import type * as Layer from "effect/Layer"
import * as Path from "effect/Path"
import * as Redacted from "effect/Redacted"
import { findExamples, makeFolder, root } from "./repository.ts"

/** The exports of the programs. */
interface Programs {
  readonly logIn: Effect.Effect<string, unknown, Codex.Codex | AppServer.AppServer>
  readonly review: Effect.Effect<unknown, unknown, Codex.Codex>
  readonly limited: Effect.Effect<unknown, unknown, Codex.Codex>
  readonly server: Effect.Effect<string, unknown, Codex.Codex>
  readonly pirate: Effect.Effect<unknown, unknown, Codex.Codex>
  readonly moved: Effect.Effect<unknown, unknown, Codex.Codex>
  readonly describe: (event: object) => unknown
  readonly respond: (input: string) => Promise<unknown>
  readonly stop: () => Promise<void>
  readonly layerOther: (url: string, key: Redacted.Redacted) => Layer.Layer<Codex.Codex>
}

/** Imports all programs of the page, and returns their exports by name. */
const importPrograms = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const page = yield* fs.readFileString(path.join(root, "docs/faq.md"))
  const folder = yield* makeFolder
  const programs = {}
  for (const [index, code] of findExamples(page).entries()) {
    const file = path.join(folder, `faq-${index + 1}.ts`)
    yield* fs.writeFileString(file, code)
    Object.assign(programs, yield* Effect.promise(() => import(file)))
  }
  return programs as Programs
})

/** Sets environment variables of this process, which its child processes inherit. */
const withEnvironment = (env: Readonly<Record<string, string | undefined>>) => {
  const assign = (values: Readonly<Record<string, string | undefined>>) => {
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  }
  return Effect.acquireRelease(
    Effect.sync(() => {
      const before = Object.fromEntries(Object.keys(env).map((name) => [name, process.env[name]]))
      assign(env)
      return before
    }),
    (before) => Effect.sync(() => assign(before))
  )
}

layer(TestCodex.layer(), { excludeTestServices: true })("Programs of the FAQ", (it) => {
  it.effect("return the results that the page describes", () =>
    Effect.scoped(Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const programs = yield* importPrograms
      assert.sameMembers(Object.keys(programs), [
        "logIn",
        "review",
        "limited",
        "server",
        "respond",
        "stop",
        "withTickets",
        "pirate",
        "layerOther",
        "viaOther",
        "Tenants",
        "describe",
        "moved"
      ])

      yield* model.enqueue(ModelServer.text("{\"risk\":\"low\",\"reasons\":[]}"))
      assert.deepStrictEqual(yield* programs.review, { risk: "low", reasons: [] })
      assert.include(JSON.stringify((yield* model.requests).at(-1)?.body["text"]), "json_schema")

      yield* model.enqueue(ModelServer.text("done"))
      assert.isDefined(yield* programs.limited)

      assert.match(yield* programs.server, /^Codex \d+\.\d+\.\d+ on \w+$/)

      yield* model.enqueue(ModelServer.text("Arr"))
      assert.strictEqual(yield* programs.pirate, "Arr")
      assert.include(JSON.stringify((yield* model.requests).at(-1)?.body), "Write like a pirate.")

      yield* model.enqueue(ModelServer.text("went on"))
      assert.strictEqual(yield* programs.moved, "went on")

      assert.strictEqual(programs.describe({ method: "item/agentMessage/delta", params: { delta: "text" } }), "text")
    })))

  it.effect("start processes, log in with a key, and use another provider", () =>
    Effect.scoped(Effect.gen(function*() {
      const model = yield* ModelServer.ModelServer
      const programs = yield* importPrograms
      const fs = yield* FileSystem.FileSystem
      const { codexHome, env } = yield* CodexEnvironment.CodexEnvironment
      yield* withEnvironment(env)
      assert.strictEqual(
        yield* programs.logIn.pipe(
          Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ OPENAI_API_KEY: "sk-test-not-real" })))
        ),
        "apiKey"
      )
      assert.include(yield* fs.readFileString(`${codexHome}/auth.json`), "sk-test-not-real")

      yield* model.enqueue(ModelServer.text("yes"))
      assert.strictEqual(yield* Effect.promise(() => programs.respond("Does it work?")), "yes")
      yield* Effect.promise(() => programs.stop())

      yield* model.enqueue(ModelServer.text("from theirs"))
      const theirs = programs.layerOther(model.url, Redacted.make("their-key"))
      const respond = Effect.gen(function*() {
        const thread = yield* (yield* Codex.Codex).startThread()
        return (yield* thread.run("Hello")).finalResponse
      })
      assert.strictEqual(yield* Effect.provide(respond, theirs), "from theirs")
      const request = (yield* model.requests).at(-1)
      assert.strictEqual(request?.header("authorization"), "Bearer their-key")
      assert.strictEqual(request?.body["model"], "their-model")
    })))
})
