import { assert, describe, it } from "@effect/vitest"
import { AppServer, Codex } from "effect-codex"
import type * as StdioTransport from "effect-codex/StdioTransport"
import { ModelServer } from "effect-codex/testing"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { configTree } from "../../src/internal/configTree.ts"
import { tomlOverrides } from "../../src/internal/stdio/toml.ts"
import * as TestCodex from "../TestCodex.ts"

const plain = (tree: object): unknown => JSON.parse(JSON.stringify(tree))

const invalid: ReadonlyArray<readonly [name: string, config: { readonly [key: string]: unknown }, says: string]> = [
  ["`=` in a dotted key", { "shell_environment_policy.set.A=B": "2" }, "A=B"],
  ["`=` in a top-level key", { "model=x": "2" }, "model=x"],
  ["a quoted top-level key with a dot", { "\"a.b\".c": 1 }, "top-level"],
  ["a top-level key that is an option of the command line", { "--help": 1 }, "--help"],
  ["a top-level key with surrounding white space", { " model": "x" }, " model"],
  ["a control character in a dotted key", { "shell_environment_policy.set.A\nB": "2" }, "control character"],
  [
    "a control character in a nested key",
    { shell_environment_policy: { set: { "A\u0000B": "2" } } },
    "control character"
  ],
  ["a control character in a quoted segment", { "a.\"\\u0007\"": 1 }, "control character"],
  ["a lone surrogate in a key", { a: { "\ud800": 1 } }, "lone surrogate"],
  ["an empty key", { "": 1 }, "empty segment"],
  ["an empty segment", { "a..b": 1 }, "empty segment"],
  ["a trailing dot", { "a.": 1 }, "empty segment"],
  ["an open quote", { "a.\"b": 1 }, "close the quote"],
  ["text after a quoted segment", { "a.\"b\"c": 1 }, "close the quote"],
  ["an entry that is given twice", { "a.b": 1, a: { b: 2 } }, "`a.b` is given twice"],
  ["a value and a table under one name", { model: "x", "model.y": 1 }, "`model` is given twice"],
  ["null", { a: { b: null } }, "`a.b` cannot be written, because TOML has no null"],
  ["null in an array", { a: [1, null] }, "`a.1` cannot be written, because TOML has no null"],
  ["a hole in an array", { a: Array(1) }, "`a.0` cannot be written, because TOML has no undefined"],
  ["a Map, which would be an empty table", { a: new Map([["b", 1]]) }, "TOML has no Map"],
  ["a Date", { a: new Date(0) }, "TOML has no Date"],
  ["a function", { a: { b: () => 1 } }, "TOML has no function"]
]

describe("configTree", () => {
  it("merges nested and dotted entries of one table, in any order", () => {
    const merged = { a: { b: { c: 1, d: 2 }, e: [3] } }
    assert.deepStrictEqual(plain(configTree({ a: { b: { c: 1 } }, "a.b.d": 2, "a.e": [3] })), merged)
    assert.deepStrictEqual(plain(configTree({ "a.e": [3], "a.b.d": 2, a: { b: { c: 1 } } })), merged)
  })

  it("reads quoted segments as TOML does, and keeps nested keys unchanged", () => {
    const tree = { projects: { "/a b/c.d": { trust_level: "trusted" } } }
    assert.deepStrictEqual(plain(configTree({ "projects.\"/a b/c.d\".trust_level": "trusted" })), tree)
    assert.deepStrictEqual(plain(configTree({ "projects.'/a b/c.d'.trust_level": "trusted" })), tree)
    assert.deepStrictEqual(plain(configTree({ projects: { "/a b/c.d": { trust_level: "trusted" } } })), tree)
    assert.deepStrictEqual(plain(configTree({ "a.\"q\\\"\".it's.\"\"": 1 })), { a: { "q\"": { "it's": { "": 1 } } } })
  })

  it("treats names of inherited properties like other names", () => {
    const tree = configTree({ "__proto__.constructor": 1, toString: { valueOf: 2 } })
    assert.deepStrictEqual(Object.keys(tree).sort(), ["__proto__", "toString"])
    assert.deepStrictEqual(tomlOverrides({ "__proto__.constructor": 1, toString: { valueOf: 2 } }), [
      "__proto__.constructor=1",
      "toString.valueOf=2"
    ])
  })

  it("omits entries that are undefined", () => {
    assert.deepStrictEqual(tomlOverrides({ model: undefined, "a.b": undefined, a: { c: 1 } }), ["a.c=1"])
  })

  it.each(invalid)("refuses %s", (_, config, says) => {
    assert.throws(() => configTree(config), TypeError, says)
  })

  it("refuses a value that contains itself", () => {
    const loop: Record<string, unknown> = {}
    loop["loop"] = loop
    assert.throws(() => configTree({ a: loop }), TypeError, "`a.loop` contains itself")
  })
})

/** Valid and invalid keys, with characters that TOML, dotted paths or the command line interpret. */
const Key = Schema.Union([
  Schema.String,
  Schema.Literals([
    "",
    ".",
    "a.b",
    "a=b",
    "=",
    "\"",
    "'",
    "\"a\"",
    "a b",
    " a",
    "é",
    "#",
    "[a]",
    "{",
    "-",
    "--",
    "__proto__",
    "\\"
  ])
]).pipe(Schema.check(Schema.makeFilter((key: string) => !/[\p{Cc}\p{Cs}]/u.test(key))))

/** Reads the configuration back from a real server. */
const readBack = (config: StdioTransport.Options["config"]) =>
  Effect.gen(function*() {
    const server = yield* AppServer.AppServer
    const read = yield* server.request("config/read", { includeLayers: true })
    const layers = read.layers ?? []
    return layers.find((layer) => layer.name.type === "sessionFlags")?.config
  }).pipe(Effect.provide(TestCodex.layerProcess({ config })))

describe("StdioTransport config", () => {
  it.live("fails for a key that cannot be sent before it starts the server", () =>
    Effect.gen(function*() {
      const reason = yield* TestCodex.expectReason(readBack({ "shell_environment_policy.set.A=B": "2" }))
      assert(reason._tag === "SpawnFailed")
      assert.include(reason.message, "shell_environment_policy.set.A=B")
      assert.include(reason.message, "`config`")
    }).pipe(Effect.provide(TestCodex.layerEnvironment())))

  it.live("keeps an entry of the same table in the configuration file", () =>
    Effect.gen(function*() {
      const server = yield* AppServer.AppServer
      const { config } = yield* server.request("config/read", {})
      const policy: unknown = config["shell_environment_policy" as never]
      assert.deepInclude(policy, { set: { FROM_FILE: "1", "A.B": "2", C: "3" } })
    }).pipe(Effect.provide(
      TestCodex.layer({
        home: { config: { shell_environment_policy: { set: { FROM_FILE: "1" } } } },
        config: { shell_environment_policy: { set: { "A.B": "2" } }, "shell_environment_policy.set.C": "3" }
      })
    )))

  it.live.prop(
    "sends every key, nested or as a quoted segment",
    { nested: Schema.Record(Key, Schema.String), dotted: Schema.Record(Key, Schema.String) },
    ({ dotted, nested }) =>
      Effect.gen(function*() {
        const config = {
          shell_environment_policy: { set: nested },
          ...Object.fromEntries(
            Object.entries(dotted).filter(([key]) => !Object.hasOwn(nested, key)).map((
              [key, value]
            ) => [`shell_environment_policy.set.${JSON.stringify(key)}`, value])
          )
        }
        const expected = Object.entries({ ...dotted, ...nested })
        const read = yield* readBack(config)
        const { set } = (read as { shell_environment_policy: { set: Record<string, string> } }).shell_environment_policy
        assert.sameDeepMembers(
          Object.entries(set),
          expected.map(([key, value]) => [key, value.toWellFormed()])
        )
      }).pipe(Effect.provide(TestCodex.layerEnvironment())),
    { arbitrary: { runs: 5 } }
  )
})

describe("Thread config", () => {
  const workspaceWrite = (config: { readonly [key: string]: unknown }) =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const thread = yield* codex.startThread({ config: { sandbox_mode: "workspace-write", ...config } })
      const model = yield* ModelServer.ModelServer
      yield* model.enqueue(ModelServer.text("stored"))
      yield* thread.run("store me")
      const server = yield* AppServer.AppServer
      return (yield* server.request("thread/resume", { threadId: thread.id })).sandbox
    })

  it.live("merges nested and dotted entries of one table on the server", () =>
    Effect.gen(function*() {
      // Without the merge the server keeps one of the entries at random.
      for (let i = 0; i < 8; i++) {
        assert.deepInclude(
          yield* workspaceWrite({
            sandbox_workspace_write: { network_access: true },
            "sandbox_workspace_write.exclude_slash_tmp": true
          }),
          { networkAccess: true, excludeSlashTmp: true }
        )
      }
      assert.deepInclude(yield* workspaceWrite({ "sandbox_workspace_write.\"network_access\"": true }), {
        networkAccess: true
      })
    }).pipe(Effect.provide(TestCodex.layer())))

  it.live("fails for a key or value that cannot be sent when a thread is started, resumed or forked", () =>
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const config = { "sandbox_workspace_write.network=access": true }
      for (
        const opened of [
          codex.startThread({ config }),
          codex.resumeThread("id", { config }),
          codex.forkThread("id", { config }),
          codex.startThread({ config: { model: null } })
        ]
      ) {
        const reason = yield* TestCodex.expectReason(opened)
        assert(reason._tag === "InvalidRequest")
        assert.include(reason.message, "`config`")
      }
    }).pipe(Effect.provide(TestCodex.layer())))
})
