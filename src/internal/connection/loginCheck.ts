/** The request with which `Codex.layer` checks whether the server is logged in. Recordings leave it out. */
import { getOwn } from "../getOwn.ts"

/** The id is reserved for the check, which is sent at most once. */
export const loginCheck = { method: "account/read", id: 0 } as const

/** Whether a message of the client is the check. The client responds to requests of the server with ids of the server. */
export const isLoginCheck = (message: unknown): boolean =>
  getOwn(message, "id") === loginCheck.id && getOwn(message, "method") === loginCheck.method

/** Whether a message of the server is the response to the check. */
export const isLoginCheckResponse = (message: unknown): boolean =>
  getOwn(message, "id") === loginCheck.id && getOwn(message, "method") === undefined
