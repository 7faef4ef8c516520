/** Views without secrets in the errors of the server. */
import type { ThreadView } from "../../../ThreadView.ts"
import type { TurnView } from "../../../TurnView.ts"
import { redactError } from "../turns/redactError.ts"

const hasError = ({ error, retry }: TurnView): boolean => error !== null || retry !== null

/** Removes the secrets from the errors in the view of a turn. */
export const redactTurnView = (view: TurnView, redact: (text: string) => string): TurnView => {
  if (!hasError(view)) return view
  const { error, retry } = view
  return { ...view, error: error && redactError(error, redact), retry: retry && redactError(retry, redact) }
}

/** Makes a function that removes the secrets from the errors in the views of a thread. A turn that did not change stays the same object. */
export const makeRedactThreadView = (redact: (text: string) => string): (view: ThreadView) => ThreadView => {
  const redacted = new WeakMap<TurnView, TurnView>()
  const redactTurn = (turn: TurnView): TurnView => {
    const known = redacted.get(turn)
    if (known !== undefined) return known
    const next = redactTurnView(turn, redact)
    redacted.set(turn, next)
    return next
  }
  return (view) => view.turns.some(hasError) ? { ...view, turns: view.turns.map(redactTurn) } : view
}
