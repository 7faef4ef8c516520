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
export type Response =
  | { readonly result: unknown }
  | { readonly error: { readonly code: number; readonly message: string } }

/** What the reader's step offers to what it calls. */
export interface ReadBatch {
  /** Runs an action after the batch, where it may wake fibers. */
  readonly afterBatch: (action: () => void) => void
  /** The same, but in a flood after several steps. */
  readonly whenIdle: (action: () => void) => void
  /** Has what was delayed not wait for another batch. */
  readonly flush: () => void
  /** Logs a warning after the batch. */
  readonly warn: (warning: string) => void
}

/** Which of the server's open requests a notification ends, and whether they still need an answer. */
export interface Cancellation {
  readonly matches: (request: IncomingRequest) => boolean
  readonly isResponded: boolean
}

/** For what is done outside of the reader's batch. */
export const syncBatch: ReadBatch = {
  afterBatch: (action) => action(),
  whenIdle: (action) => action(),
  flush: () => {},
  warn: () => {}
}
