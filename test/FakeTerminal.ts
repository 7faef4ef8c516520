/** A terminal whose input is the test. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Terminal from "effect/Terminal"

export const make = Effect.gen(function*() {
  const lines = yield* Queue.unbounded<string, Terminal.QuitError>()
  const shown: Array<string> = []
  const terminal = Terminal.make({
    columns: Effect.succeed(80),
    rows: Effect.succeed(24),
    size: Effect.die("unused"),
    readInput: Effect.die("unused"),
    readLine: Queue.take(lines),
    display: (text) => Effect.sync(() => void shown.push(text))
  })
  return {
    layer: Layer.succeed(Terminal.Terminal, terminal),
    type: (...typed: ReadonlyArray<string>) => Queue.offerAll(lines, typed),
    /** Ends the input after the lines that are already typed. */
    quit: Queue.fail(lines, new Terminal.QuitError({})),
    /** Returns all text that the terminal shows. */
    shown: () => shown.join("")
  }
})
