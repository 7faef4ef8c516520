/** Limits the cost of a program: prints what it has used so far, and stops its turns when the budget is exceeded. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Budget, Codex } from "effect-codex"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { functionCall, layerScripted, reply, text } from "./support/codex.ts"

const prices: Budget.Prices = {
  "mock-model": { input: 1.25, cachedInput: 0.125, output: 10 }
}

const dollars = (usd = 0) => `$${usd.toFixed(2)}`

const program = Effect.gen(function*() {
  const codex = yield* Codex.Codex
  yield* Budget.changes.pipe(
    Stream.changesWith((a, b) => a.tokens === b.tokens),
    Stream.runForEach(({ tokens, turns, usd }) => Console.log(`  turn ${turns}: ${tokens} tokens, ${dollars(usd)}`)),
    Effect.forkChild
  )

  const thread = yield* codex.startThread({ sandbox: "read-only" })
  const { finalResponse } = yield* thread.run("What does this project do?")
  yield* Console.log(`\n${finalResponse}\n`)

  // A part of the program has a budget of its own, and a fallback.
  const fork = yield* codex.forkThread(thread.id)
  yield* fork.run("Find all possible bugs.").pipe(
    Budget.limit({ tokens: 100_000 }),
    Effect.catchReason(
      "AppServerError",
      "BudgetExceeded",
      ({ limit, used }) => Console.log(`\nStopped the search: ${used.tokens} of ${limit.tokens} tokens.\n`)
    )
  )

  yield* thread.run("Now fix them, one after the other.")
}).pipe(
  Budget.limit({ usd: 1, prices, turns: 10 }),
  Effect.catchReason("AppServerError", "BudgetExceeded", ({ used }) =>
    Effect.andThen(
      Console.log(`\nStopped the program at ${dollars(used.usd)}, in ${used.turns} turns.`),
      Effect.forEach(used.threads, ({ threadId, tokens, usd }) =>
        Console.log(`  thread ${threadId}: ${dollars(usd)}, ${tokens} tokens`))
    ))
)

const command = functionCall("exec_command", { cmd: "ls", login: false })

/** The scripted model answers one question. After that it calls commands, without end. */
const model = layerScripted(
  (request) =>
    request.lastUserText === "What does this project do?"
      ? text("It counts tokens.", { usage: { inputTokens: 12_000, outputTokens: 800 } })
      : reply([command], { usage: { inputTokens: 30_000, outputTokens: 10_000 } }),
  "has the prices of the scripted model"
)

program.pipe(Effect.provide(model), NodeRuntime.runMain)
