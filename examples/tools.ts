/** Gives the model a typed tool that uses a service, with a typed failure and with invalid arguments. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Codex, Tool } from "effect-codex"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { functionCall, layerCodex, reply, text } from "./support/codex.ts"

const Ticket = Schema.Struct({ id: Schema.String, title: Schema.String, openedAt: Schema.Date })

class NoSuchTicket extends Schema.TaggedError<NoSuchTicket>()("NoSuchTicket", { id: Schema.String }) {}

class Tickets extends Context.Service<Tickets, {
  readonly find: (id: string) => Effect.Effect<typeof Ticket.Type, NoSuchTicket>
}>()("examples/Tickets") {
  static readonly layer = Layer.succeed(this, {
    find: (id) =>
      id === "A-1"
        ? Effect.succeed({ id, title: "The door does not close", openedAt: new Date("2026-11-01") })
        : Effect.fail(new NoSuchTicket({ id }))
  })
}

const findTicket = Tool.make("find_ticket", {
  description: "Finds a support ticket by its id",
  parameters: Schema.Struct({ id: Schema.String }),
  success: Ticket,
  failure: NoSuchTicket,
  timeout: "10 seconds",
  handler: Effect.fn(function*({ id }) {
    const tickets = yield* Tickets
    return yield* tickets.find(id)
  })
})

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  const thread = yield* codex.startThread({ tools: [findTicket] })
  const { finalResponse, items } = yield* thread.run("What are tickets A-1 and A-2 about?")

  for (const item of items) {
    if (item.type !== "dynamicToolCall") continue
    yield* Console.log(`${item.tool}(${JSON.stringify(item.arguments)}): ${item.success ? "found" : "failed"}`)
    yield* Console.log(`  ${JSON.stringify(item.contentItems)}`)
  }
  yield* Console.log(`\n${finalResponse}`)
})

// Three calls in parallel: one succeeds, one fails, and one has invalid arguments.
const model = layerCodex((request) =>
  request.functionCallOutput("first") === undefined
    ? reply([
      functionCall("find_ticket", { id: "A-1" }, { callId: "first" }),
      functionCall("find_ticket", { id: "A-2" }, { callId: "second" }),
      functionCall("find_ticket", { number: 3 }, { callId: "third" })
    ])
    : text("A-1 is about a door that does not close. There is no A-2.")
)

program.pipe(
  Effect.provide(Tickets.layer),
  Effect.provide(model),
  NodeRuntime.runMain
)
