/** The JSON-RPC messages of a server, as they were received. */

export type RequestId = string | number

/** A notification as it was received, with all of its members. */
export interface IncomingNotification {
  readonly method: string
  readonly params?: unknown
}

export interface IncomingRequest {
  readonly id: RequestId
  readonly method: string
  readonly params: unknown
}

/** The response to a request of the server: a result, or a JSON-RPC error. */
export type Response =
  | { readonly result: unknown }
  | { readonly error: { readonly code: number; readonly message: string } }

/** The pending requests of the server that a notification cancels. */
export interface Cancellation {
  readonly matches: (request: IncomingRequest) => boolean
  /** Whether the server has a response to them already. If it has none, the client still sends one. */
  readonly isResponded: boolean
}
