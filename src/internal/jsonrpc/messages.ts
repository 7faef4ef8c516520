/** The messages of the server as they come, and what the reader offers to those it hands them to. */

export type RequestId = string | number

/** A notification as it came, so whatever else it has stays with it. */
export interface IncomingNotification {
  readonly method: string
  readonly params?: unknown
}

export interface IncomingRequest {
  readonly id: RequestId
  readonly method: string
  readonly params: unknown
}

/** What the server is told when it asks: a result, or a JSON-RPC error. */
export type Answer =
  | { readonly result: unknown }
  | { readonly error: { readonly code: number; readonly message: string } }

/** What the reader's step offers to what it calls. */
export interface Step {
  /** Runs an action after the step, where it may wake fibers. */
  readonly defer: (action: () => void) => void
  /** The same, but in a flood after several steps. */
  readonly delay: (action: () => void) => void
  /** Has what was delayed not wait for another step. */
  readonly hurry: () => void
  /** Logs a warning after the step. */
  readonly report: (warning: string) => void
}

/** Which of the server's open requests a notification ends, and whether they still need an answer. */
export interface Withdrawal {
  readonly concerns: (request: IncomingRequest) => boolean
  readonly isAnswered: boolean
}

/** For what is done outside of the reader's step. */
export const immediately: Step = {
  defer: (action) => action(),
  delay: (action) => action(),
  hurry: () => {},
  report: () => {}
}
