/** The one request that is not the program's: `Codex.layer` checks whether the server is logged in. */
import { getOwn } from "./codec.ts"

/** Its method, and its id, which no request of the program has. It is sent once at most. */
export const loginCheck = { method: "account/read", id: 0 } as const

/** Whether a message of the client is the check. The client responds to requests of the server with ids of the server. */
export const isLoginCheck = (message: unknown): boolean =>
  getOwn(message, "id") === loginCheck.id && getOwn(message, "method") === loginCheck.method

/** Whether a message of the server is the response to the check. */
export const isLoginCheckResponse = (message: unknown): boolean =>
  getOwn(message, "id") === loginCheck.id && getOwn(message, "method") === undefined
