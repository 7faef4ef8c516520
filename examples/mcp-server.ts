/**
 * Serves Codex to MCP clients, and is a client of itself: it lists the tools, starts a thread, and continues it.
 *
 * An editor or another agent starts such a server as a process: see `CodexMcpServer.layerStdio`.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { CodexMcpServer } from "effect-codex/ai"
import { McpClient, McpProtocol } from "effect/ai"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import { FetchHttpClient, HttpRouter, HttpServer } from "effect/http"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { createServer } from "node:http"
import { layerCodex, text } from "./support/codex.ts"

const layerServer = HttpRouter.serve(CodexMcpServer.layerHttp({ path: "/mcp" }), {
  disableLogger: true,
  disableListenLog: true
}).pipe(Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })))

const layerClient = Layer.unwrap(HttpServer.addressFormattedWith((url) =>
  Effect.succeed(McpClient.layerHttp({
    name: "example",
    version: "1.0.0",
    protocol: McpProtocol.v2025_11_25,
    url: `${url}/mcp`
  }))
)).pipe(Layer.provide(FetchHttpClient.layer))

const Output = Schema.Struct({ threadId: Schema.String, content: Schema.String })

const program = Effect.gen(function*() {
  const client = yield* McpClient.McpClient
  const tools = yield* client.listTools()
  for (const { description, name } of tools) yield* Console.log(`${name}: ${description}`)

  const [codex, reply] = tools
  if (codex === undefined || reply === undefined) return
  const first = yield* client.callTool({
    tool: codex,
    arguments: { prompt: "What is in this directory?" },
    schema: Output
  })
  yield* Console.log(`\n${first.content}`)
  const second = yield* client.callTool({
    tool: reply,
    arguments: { threadId: first.threadId, prompt: "Are you sure?" },
    schema: Output
  })
  yield* Console.log(second.content)
})

const model = layerCodex([text("Nothing at all."), text("Yes, it is empty.")])

program.pipe(
  Effect.provide(Layer.provide(layerClient, layerServer)),
  Effect.provide(model),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
