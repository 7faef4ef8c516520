import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as ChildProcess from "effect/process/ChildProcess"
import { ChildProcessSpawner } from "effect/process/ChildProcessSpawner"
import { checkImports, type ImportRules } from "../scripts/checks/imports.ts"
import { checkWords } from "../scripts/checks/prose.ts"

const rules: ImportRules = {
  folder: "src",
  packageName: "effect-codex",
  layers: [
    { name: "low", modules: ["Low.ts", "internal/*.ts"] },
    { name: "high", modules: ["High.ts", "index.ts"] },
    { name: "area", modules: ["testing/**"] }
  ],
  node: ["testing/**"]
}

/** Checks one module of each layer, with the given modules added or replaced. */
const check = (files: Readonly<Record<string, string>>, changed?: Partial<ImportRules>) => {
  const modules = {
    "src/Low.ts": "",
    "src/internal/lowest.ts": "",
    "src/High.ts": "",
    "src/index.ts": "",
    "src/testing/Kit.ts": ""
  }
  return checkImports(new Map(Object.entries({ ...modules, ...files })), { ...rules, ...changed })
}

const upward = (line: number) => [
  `src/Low.ts:${line} imports \`High.ts\`: the layer "low" is below "high"`
]

describe("check:layers", () => {
  it.each([
    ["an import", `import { a } from "./High.ts"`],
    ["an import of types", `import type { A } from "./High.ts"`],
    ["an import of a type next to nothing else", `import { type A } from "./High.ts"`],
    ["an import without names", `import "./High.ts"`],
    ["a type that imports", `export type B = import("./High.ts").A`],
    ["a dynamic import", `export const load = () => import("./High.ts")`],
    ["a re-export", `export { a } from "./High.ts"`],
    ["a re-export of everything", `export * from "./High.ts"`],
    ["a re-export of types", `export type * as High from "./High.ts"`],
    ["an import by the name of the package", `import { a } from "effect-codex/High"`]
  ])("reports %s that points upwards", (_, code) => {
    assert.deepStrictEqual(check({ "src/Low.ts": `// Größe 🧵\n\n${code}\n` }), upward(3))
  })

  it("reports an upward import from a subfolder", () => {
    assert.deepStrictEqual(check({ "src/internal/lowest.ts": `import type { Kit } from "../testing/Kit.ts"` }), [
      `src/internal/lowest.ts:1 imports \`testing/Kit.ts\`: the layer "low" is below "area"`
    ])
  })

  it("accepts imports of the same layer and of lower layers", () => {
    assert.deepStrictEqual(
      check({
        "src/Low.ts": `import { a } from "./internal/lowest.ts"`,
        "src/High.ts": `import * as Low from "./Low.ts"\nimport * as Effect from "effect/Effect"`,
        "src/testing/Kit.ts": `import { High } from "../index.ts"\nimport { Low } from "effect-codex"`
      }),
      []
    )
  })

  it("reports a module that belongs to no layer, or to two", () => {
    assert.deepStrictEqual(check({ "src/New.ts": "" }), ["src/New.ts belongs to no layer"])
    const [low, ...others] = rules.layers
    const layers = [{ ...low!, modules: [...low!.modules, "High.ts"] }, ...others]
    assert.deepStrictEqual(check({}, { layers }), [`src/High.ts belongs to "low" and "high"`])
  })

  it("reports a pattern that matches no module", () => {
    const node = [...rules.node, "internal/testing/**"]
    assert.deepStrictEqual(check({}, { node }), ["`internal/testing/**` matches no module"])
  })

  it.each([
    `import * as Fs from "node:fs"`,
    `import * as Fs from "fs"`,
    `import type { Stats } from "node:fs"`,
    `export type S = import("node:fs").Stats`,
    `export const fs = () => import("node:fs")`,
    `import * as NodeServices from "@effect/platform-node/NodeServices"`
  ])("reports %s outside the testing kit", (code) => {
    assert.deepStrictEqual(check({ "src/testing/Kit.ts": code }), [])
    const [violation, ...others] = check({ "src/High.ts": code })
    assert.match(violation ?? "", /^src\/High\.ts:1 imports `.*`, which only testing\/\*\* may import$/)
    assert.lengthOf(others, 0)
  })
})

/** Runs oxlint with the configuration of this repository on two modules. */
const lint = Effect.fnUntraced(function*(a: string, b: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const spawner = yield* ChildProcessSpawner
  const root = path.join(import.meta.dirname, "..")
  const folder = yield* fs.makeTempDirectoryScoped()
  yield* fs.writeFileString(path.join(folder, "a.ts"), a)
  yield* fs.writeFileString(path.join(folder, "b.ts"), b)
  const oxlint = path.join(root, "node_modules", "oxlint", "bin", "oxlint")
  const args = [oxlint, "--config", path.join(root, ".oxlintrc.json"), "--format=unix", folder]
  const output = yield* spawner.string(ChildProcess.make(process.execPath, args))
  return [...output.matchAll(/(\w\.ts):(\d+).*\((.*)\)/g)].map(([, file, line, rule]) => `${file}:${line} ${rule}`)
    .sort()
}, Effect.scoped)

describe("oxlint", () => {
  it.live.each([
    [
      "imports of types",
      `import type { B } from "./b.ts"\nexport type A = B | 1\n`,
      `import type { A } from "./a.ts"\nexport type B = A | 2\n`
    ],
    [
      "re-exports of types",
      `export type * from "./b.ts"\nexport type A = 1\n`,
      `import { type A } from "./a.ts"\nexport type B = A\n`
    ]
  ])("reports a cycle of %s", ([, a, b]) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* lint(a!, b!), ["a.ts:1 no-cycle", "b.ts:1 no-cycle"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("rejects types that import, whose cycles it does not find", () =>
    Effect.gen(function*() {
      const types = yield* lint(`export type A = import("./b.ts").B\n`, "export type B = 1\n")
      assert.deepStrictEqual(types, ["a.ts:1 consistent-type-imports"])
    }).pipe(Effect.provide(NodeServices.layer)))
})

describe("check:words", () => {
  const words = [{ pattern: "(?:red|blue)bird", advice: "name the species" }, {
    pattern: "in hand",
    advice: "say where"
  }]
  const checkText = (file: string, text: string) => checkWords(new Map([[file, text]]), words, [])

  it("finds words in comments, strings and templates of a program, and not in its names", () => {
    const code = [
      "/** Größe 🧵: Redbird. */",
      "const redbird = \"bluebird\" // redbird",
      "const bluebird = `to ${redbird} and ${`redbird`} in hand` + /redbird/.source"
    ].join("\n")
    assert.deepStrictEqual(checkText("src/A.ts", code), [
      "src/A.ts:1:redbird: name the species",
      "src/A.ts:2:bluebird: name the species",
      "src/A.ts:2:redbird: name the species",
      "src/A.ts:3:redbird: name the species",
      "src/A.ts:3:in hand: say where"
    ])
  })

  it("finds a phrase across the lines of a comment", () => {
    assert.deepStrictEqual(checkText("src/A.ts", "/**\n * Read in\n * hand lines.\n */"), [
      "src/A.ts:2:in hand: say where"
    ])
    assert.deepStrictEqual(checkText("src/A.ts", "// Read in\n// hand lines."), ["src/A.ts:1:in hand: say where"])
  })

  it("finds words anywhere in a document, but no parts of words", () => {
    assert.deepStrictEqual(checkText("README.md", "# Title\n\n```ts\nredbird()\n```\n\nredbirds"), [
      "README.md:4:redbird: name the species"
    ])
  })

  it("accepts an allowed word in its file, and reports a row that is not needed", () => {
    const allowed = [{ file: "a.md", word: "redbird", reason: "a proper name" }]
    assert.deepStrictEqual(checkWords(new Map([["a.md", "Redbird, redbird"]]), words, allowed), [])
    assert.deepStrictEqual(checkWords(new Map([["b.md", "redbird"]]), words, allowed), [
      "b.md:1:redbird: name the species",
      "a.md no longer contains `redbird`; remove it from the allowed occurrences"
    ])
  })
})
