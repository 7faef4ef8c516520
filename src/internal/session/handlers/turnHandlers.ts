/** The handlers of one turn, from before its start to its end. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { declineAll, type Handlers, isEmpty } from "./handlers.ts"

export class TurnHandlers {
  /** The handlers of the turn's options. */
  options: Handlers
  /** The handlers of the context in which the turn was started. Empty if they are those of the thread. */
  context: Handlers
  /** The turn id, once the server has named the turn. */
  turnId: string | undefined
  hasEnded = false
  /** Completed when a request need not wait for the turn id: the id is known, or the handlers are detached. */
  readonly resolved = Deferred.makeUnsafe<void>()
  private readonly remove: (turn: TurnHandlers) => void

  constructor(options: Handlers, context: Handlers, remove: (turn: TurnHandlers) => void) {
    this.options = options
    this.context = context
    this.remove = remove
  }

  setTurnId(turnId: string): void {
    this.turnId = turnId
    this.markResolved()
  }

  /** Declines from now on: the handle was released. The turn may still run, and its id may never arrive. */
  detach(): void {
    this.options = isEmpty(this.options) ? {} : declineAll
    this.context = isEmpty(this.context) ? {} : declineAll
    this.markResolved()
  }

  /** Removes the handlers of a turn that has ended, or that was not started. */
  end(): void {
    this.hasEnded = true
    this.remove(this)
    this.markResolved()
  }

  private markResolved(): void {
    Deferred.doneUnsafe(this.resolved, Effect.void)
  }
}
