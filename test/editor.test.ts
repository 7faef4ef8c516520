import { assert, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath, pathToFileURL } from "node:url"
import * as Rpc from "vscode-jsonrpc/node"
import { root } from "./repository.ts"
import { isThorough } from "./thorough.ts"

const tsc = fileURLToPath(new URL("../node_modules/typescript/bin/tsc", import.meta.url))

/** The language server of TypeScript, as an editor starts it. */
class Editor extends Context.Service<Editor, {
  readonly connection: Rpc.MessageConnection
  readonly child: ChildProcess
}>()("test/Editor") {
  static readonly layer = Layer.effect(Editor, Effect.suspend(() => start))
}

const start = Effect.acquireRelease(
  Effect.promise(async (): Promise<Editor["Service"]> => {
    const child = spawn(process.execPath, [tsc, "--lsp", "-stdio"], { cwd: root, stdio: ["pipe", "pipe", "ignore"] })
    const connection = Rpc.createMessageConnection(
      new Rpc.StreamMessageReader(child.stdout),
      new Rpc.StreamMessageWriter(child.stdin)
    )
    connection.onRequest("client/registerCapability", () => null)
    connection.onRequest(
      "workspace/configuration",
      ({ items }: { readonly items: ReadonlyArray<unknown> }) => items.map(() => null)
    )
    connection.listen()
    const rootUri = pathToFileURL(root).href
    await connection.sendRequest("initialize", {
      processId: process.pid,
      rootUri,
      capabilities: { textDocument: { hover: { contentFormat: ["markdown"] } } },
      workspaceFolders: [{ uri: rootUri, name: "effect-codex" }]
    })
    await connection.sendNotification("initialized", {})
    return { connection, child }
  }),
  ({ child, connection }) =>
    Effect.sync(() => {
      connection.dispose()
      child.kill()
    })
)

let files = 0

/** Requests a hover or completions at each `⌖` of a text, which the text omits. */
const requestAt = <A>({ connection }: Editor["Service"], method: "hover" | "completion", marked: string) =>
  Effect.gen(function*() {
    const lines = marked.split("\n")
    const uri = pathToFileURL(`${root}/test/editor${files++}.virtual.ts`).href
    const textDocument = { uri, languageId: "typescript", version: 1, text: marked.replaceAll("⌖", "") }
    yield* Effect.promise(() => connection.sendNotification("textDocument/didOpen", { textDocument }))
    const positions = lines.flatMap((line, number) =>
      line.includes("⌖") ? [{ line: number, character: line.indexOf("⌖") }] : []
    )
    return yield* Effect.forEach(
      positions,
      (position) =>
        Effect.promise(() => connection.sendRequest<A>(`textDocument/${method}`, { textDocument: { uri }, position }))
    )
  })

interface Completions {
  readonly items: ReadonlyArray<{ readonly label: string }>
}

interface Hover {
  readonly contents: { readonly value: string }
}

const preamble = `import type { Codex, Thread } from "effect-codex"
import { Sandbox } from "effect-codex"
import { isThorough } from "./thorough.ts"
declare const codex: Codex.Codex["Service"]
declare const thread: Thread.Thread
`

const calls: ReadonlyArray<readonly [call: string, options: (inner: string) => string]> = [
  ["startThread", (inner) => `codex.startThread({ ${inner} })`],
  ["resumeThread", (inner) => `codex.resumeThread("id", { ${inner} })`],
  ["forkThread", (inner) => `codex.forkThread("id", { ${inner} })`],
  ["listThreads", (inner) => `codex.listThreads({ ${inner} })`],
  ["models", (inner) => `codex.models({ ${inner} })`],
  ["run", (inner) => `thread.run("input", { ${inner} })`],
  ["read", (inner) => `thread.read({ ${inner} })`],
  ["Sandbox.workspaceWrite", (inner) => `Sandbox.workspaceWrite({ ${inner} })`]
]

/** Values by which the compiler selects one of several types of options. */
const samples: Readonly<Record<string, string>> = {
  approvalMode: "\"deny_all\"",
  approvalPolicy: "\"never\"",
  approvalsReviewer: "\"user\"",
  approvals: "{}",
  questions: "{}",
  toolConcurrency: "1",
  tools: "[]"
}

layer(Editor.layer, { excludeTestServices: true, timeout: "60 seconds" })("Editor", (it) => {
  it.effect.each(isThorough ? calls : calls.slice(0, 2))(
    "shows documentation for each option of %s",
    ([, options]) =>
      Effect.gen(function*() {
        const server = yield* Editor
        const [completions] = yield* requestAt<Completions>(server, "completion", `${preamble}${options("⌖")}`)
        const names = completions!.items.map(({ label }) => label.replace("?", ""))
        assert.isNotEmpty(names)
        const uses = names.map((name) => options(`⌖${name}: ${samples[name] ?? "undefined"}`)).join("\n")
        const hovers = yield* requestAt<Hover>(server, "hover", preamble + uses)
        assert.lengthOf(hovers, names.length)
        // The hover starts with the type as code.
        const documentation = hovers.map(({ contents }) => contents.value.replace(/^```[^]*?```\s*/, ""))
        const undocumented = names.filter((_, index) => documentation[index]!.length < 10)
        assert.deepStrictEqual(undocumented, [])
      })
  )

  it.effect("shows the effect of the bypass, and the method that lists the model ids", () =>
    Effect.gen(function*() {
      const server = yield* Editor
      const [mode, model] = yield* requestAt<Hover>(
        server,
        "hover",
        `${preamble}codex.startThread({ ⌖approvalMode: "deny_all" })\ncodex.startThread({ ⌖model: "x" })`
      )
      assert.include(mode!.contents.value, "no sandbox and no approvals")
      assert.include(model!.contents.value, "model/list")
    }))

  it.effect("completes the reasoning efforts", () =>
    Effect.gen(function*() {
      const server = yield* Editor
      const [efforts] = yield* requestAt<Completions>(
        server,
        "completion",
        `${preamble}thread.run("x", { effort: "⌖" })`
      )
      assert.includeMembers(efforts!.items.map(({ label }) => label), ["low", "medium", "high", "xhigh", "ultra"])
    }))
})
