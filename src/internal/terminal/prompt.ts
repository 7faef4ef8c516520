/** Asks the user at the terminal. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as PlatformError from "effect/PlatformError"
import * as Semaphore from "effect/Semaphore"
import * as Terminal from "effect/Terminal"
import { terminalLine } from "./terminalText.ts"

/** The lock of the terminal. By default, all conversations of the process share one. */
export const TerminalLock = Context.Reference<{
  readonly semaphore: Semaphore.Semaphore
  /** The number of conversations so far. Each one moves what was drawn on the terminal. */
  conversations: number
}>("effect-codex/TerminalLock", {
  defaultValue: () => ({ semaphore: Semaphore.makeUnsafe(1), conversations: 0 })
})

/** Runs a conversation alone on the terminal. Other conversations, and what draws on the terminal, wait. */
export const withTerminalLock = <A, E, R>(conversation: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(TerminalLock, (lock) =>
    lock.semaphore.withPermit(Effect.suspend(() => {
      lock.conversations++
      return conversation
    })))

export const show = (text: string) => Effect.flatMap(Terminal.Terminal, (terminal) => terminal.display(text))

/** Shows that a question was canceled, so that the user does not type a response to it. */
export const notifyCancelled = <A, E>(
  conversation: Effect.Effect<A, E, Terminal.Terminal>
): Effect.Effect<A, E, Terminal.Terminal> =>
  Effect.onInterrupt(conversation, () => Effect.ignore(show("\n(The request was canceled.)\n")))

/** Reads a line. Returns none when the input has ended. */
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
 * Asks for the number of a choice, or for free text if `free` accepts it. Asks again after an invalid response. Returns none for an empty
 * line, or when the input has ended.
 */
export const choose = Effect.fnUntraced(function*<A>(
  choices: ReadonlyArray<Choice<A>>,
  free: ((text: string) => Option.Option<A>) | undefined
): Effect.fn.Return<Option.Option<A>, PlatformError.PlatformError, Terminal.Terminal> {
  for (const [index, { description, label }] of choices.entries()) {
    const more = description === undefined || description === "" ? "" : ` (${terminalLine(description)})`
    yield* show(`  ${index + 1}. ${terminalLine(label)}${more}\n`)
  }
  const prompt = choices.length === 0 ? "> " : free === undefined ? "A number: " : "A number, or other text: "
  while (true) {
    const response = Option.getOrElse(yield* ask(prompt), () => "").trim()
    if (response === "") return Option.none()
    if (choices.length > 0 && /^\d+$/.test(response)) {
      const chosen = choices[Number(response) - 1]
      if (chosen !== undefined) return Option.some(chosen.value)
      // An unknown number is a typing error, not free text.
      yield* show(`There is no choice ${response}.\n`)
      continue
    }
    const other = free?.(response) ?? Option.none()
    if (Option.isSome(other)) return other
  }
})
