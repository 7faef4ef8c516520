/** The handlers of one turn, from before it is started until it has ended. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { declineAll, type Handlers, isEmpty } from "./handlers.ts"

export class TurnHandlers {
  /** The handlers of the turn's options. */
  options: Handlers
  /** The handlers of the context in which the turn was started, if these are not the thread's. */
  context: Handlers
  /** The turn id, once the server has named the turn. */
  turnId: string | undefined
  hasEnded = false
  /** Completed when a request need not wait for the turn id: it is known, or it makes no difference any more. */
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

  /** Declines from now on: the handle was released. The turn may still be running, and its id may never arrive. */
  detach(): void {
    this.options = isEmpty(this.options) ? {} : declineAll
    this.context = isEmpty(this.context) ? {} : declineAll
    this.markResolved()
  }

  /** The turn has ended, or was never started. */
  end(): void {
    this.hasEnded = true
    this.remove(this)
    this.markResolved()
  }

  private markResolved(): void {
    Deferred.doneUnsafe(this.resolved, Effect.void)
  }
}
