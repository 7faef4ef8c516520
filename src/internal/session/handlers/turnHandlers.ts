/** The handlers of one turn, from before its start to its end. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { declineAll, type Handlers, isEmpty } from "./handlers.ts"
import type { ThreadHandlers } from "./threadHandlers.ts"

/** The handlers of a turn, on each level of their precedence. */
export interface TurnSource {
  /** The handlers of the turn's options. */
  readonly options: Handlers
  /** The handlers of the context in which the turn was started. Empty if they are those of the thread. */
  readonly context: Handlers
  /** The handlers of the handle of the thread that started the turn. Another program may have resumed the thread since. */
  readonly thread: ThreadHandlers | undefined
}

/** Declines on the levels on which a turn had handlers of its own: broader handlers must not overrule those. */
export const toDeclining = ({ context, options, thread }: TurnSource): TurnSource => ({
  options: isEmpty(options) ? {} : declineAll,
  context: isEmpty(context) ? {} : declineAll,
  thread
})

export class TurnHandlers {
  private current: TurnSource
  /** The turn id, once the server has named the turn. */
  turnId: string | undefined
  hasEnded = false
  /** Completed when a request need not wait for the turn id: the id is known, or the handlers are detached. */
  readonly resolved = Deferred.makeUnsafe<void>()
  private readonly remove: (turn: TurnHandlers) => void

  constructor(source: TurnSource, remove: (turn: TurnHandlers) => void) {
    this.current = source
    this.remove = remove
  }

  get source(): TurnSource {
    return this.current
  }

  /** Whether the turn has handlers besides those of its thread. */
  get hasOwn(): boolean {
    return !isEmpty(this.current.options) || !isEmpty(this.current.context)
  }

  setTurnId(turnId: string): void {
    this.turnId = turnId
    this.markResolved()
  }

  /** Declines from now on: the handle was released, or the start has failed. The turn may still run, and its id may never arrive. */
  detach(): void {
    this.current = toDeclining(this.current)
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
