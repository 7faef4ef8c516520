/** Questions to the person at the terminal. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Semaphore from "effect/Semaphore"
import * as Terminal from "effect/Terminal"
import { terminalLine } from "./terminalText.ts"

const turn = Semaphore.makeUnsafe(1)

/** There is one terminal, so one conversation at a time. */
export const withTerminalLock: <A, E, R>(conversation: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R> =
  turn.withPermit

export const show = (text: string) => Effect.flatMap(Terminal.Terminal, (terminal) => terminal.display(text))

/** Tells the person when a question needs no answer any more, so that what they type next is for another. */
export const notifyCancelled = <A, E>(
  conversation: Effect.Effect<A, E, Terminal.Terminal>
): Effect.Effect<A, E, Terminal.Terminal> =>
  Effect.onInterrupt(conversation, () => Effect.ignore(show("\n(No answer is needed any more.)\n")))

/** What is typed; nothing when the input has ended. */
export const ask = Effect.fnUntraced(function*(prompt: string) {
  const terminal = yield* Terminal.Terminal
  yield* terminal.display(prompt)
  return yield* Effect.option(terminal.readLine)
})

export interface Choice<A> {
  readonly label: string
  readonly description?: string | undefined
  readonly value: A
}

/**
 * Asks for one of several choices by its number, or for free text if that makes an answer; a number that is none of them is
 * asked for again. An empty line, or the end of the input, gives none.
 */
export const choose = Effect.fnUntraced(function*<A>(
  choices: ReadonlyArray<Choice<A>>,
  free: ((text: string) => Option.Option<A>) | undefined
): Effect.fn.Return<Option.Option<A>, unknown, Terminal.Terminal> {
  for (const [index, { description, label }] of choices.entries()) {
    const more = description === undefined || description === "" ? "" : ` (${terminalLine(description)})`
    yield* show(`  ${index + 1}. ${terminalLine(label)}${more}\n`)
  }
  const prompt = choices.length === 0 ? "> " : free === undefined ? "A number: " : "A number, or your own words: "
  while (true) {
    const answer = Option.getOrElse(yield* ask(prompt), () => "").trim()
    if (answer === "") return Option.none()
    if (choices.length > 0 && /^\d+$/.test(answer)) {
      const chosen = choices[Number(answer) - 1]
      if (chosen !== undefined) return Option.some(chosen.value)
      // A slip of the finger is nobody's own words.
      yield* show(`There is no ${answer}.\n`)
      continue
    }
    const other = free?.(answer) ?? Option.none()
    if (Option.isSome(other)) return other
  }
})
