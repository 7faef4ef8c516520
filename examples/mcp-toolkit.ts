/**
 * Serves a Toolkit of `effect/ai` to Codex as an MCP server of this process. Codex calls a read-only tool at once, and requests
 * approval for the other one.
 */
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Approvals, Codex } from "effect-codex"
import { McpToolkit } from "effect-codex/ai"
import { Tool, Toolkit } from "effect/ai"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"
import * as Schema from "effect/Schema"
import { createServer } from "node:http"
import { functionCall, layerCodex, reply, text } from "./support/codex.ts"

const Id = Schema.Struct({ id: Schema.String })

class NoSuchTicket extends Schema.TaggedError<NoSuchTicket>()("NoSuchTicket", { id: Schema.String }) {}

const toolkit = Toolkit.make(
  Tool.make("find_ticket", {
    description: "Finds an open support ticket by its id",
    parameters: Id,
    success: Schema.Struct({ title: Schema.String }),
    failure: NoSuchTicket
  }).annotate(Tool.Readonly, true),
  Tool.make("close_ticket", {
    description: "Closes a support ticket",
    parameters: Id
  }).annotate(Tool.Destructive, false)
)

const handlers = toolkit.toLayer(Effect.gen(function*() {
  const open = yield* Ref.make<ReadonlyMap<string, string>>(new Map([["A-1", "The door does not close"]]))
  return {
    find_ticket: Effect.fn(function*({ id }) {
      const title = (yield* Ref.get(open)).get(id)
      return title === undefined ? yield* new NoSuchTicket({ id }) : { title }
    }),
    close_ticket: ({ id }) => Ref.update(open, (open) => new Map([...open].filter(([other]) => other !== id)))
  }
}))

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const tickets = yield* McpToolkit.serve("tickets", toolkit)
  const thread = yield* codex.startThread({
    config: tickets.config,
    approvalPolicy: "on-request",
    approvalsReviewer: "user",
    approvals: {
      mcpToolCall: ({ arguments: args, server, tool }) =>
        Effect.as(Console.log(`Approved: ${server}.${tool}(${JSON.stringify(args)})`), Approvals.accept)
    }
  })
  const { finalResponse, items } = yield* thread.run("Close ticket A-1, and check that it is closed")

  for (const item of items) {
    if (item.type !== "mcpToolCall") continue
    yield* Console.log(`${item.tool}: ${item.status} ${JSON.stringify(item.result?.content ?? item.error)}`)
  }
  yield* Console.log(`\n${finalResponse}`)
}).pipe(Effect.scoped)

const call = (name: string, id: string) =>
  reply([functionCall(name, { id: "A-1" }, { callId: id, namespace: "mcp__tickets" })])

const model = layerCodex((request) => {
  if (request.functionCallOutput("before") === undefined) return call("find_ticket", "before")
  if (request.functionCallOutput("close") === undefined) return call("close_ticket", "close")
  if (request.functionCallOutput("after") === undefined) return call("find_ticket", "after")
  return text("A-1 was about a door that does not close. It is closed now.")
})

program.pipe(
  Effect.provide(handlers),
  Effect.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: 0 })),
  Effect.provide(model),
  NodeRuntime.runMain
)
