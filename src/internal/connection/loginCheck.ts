/** The request of `Codex.layer` that checks the login. Recordings leave it out. */
import { getOwn } from "../getOwn.ts"

/** The check is sent at most once, with an id that no other request has. */
export const loginCheck = { method: "account/read", id: 0 } as const

/** Whether a message of the client is the check. The method distinguishes it from a response of the client to a request of the server. */
export const isLoginCheck = (message: unknown): boolean =>
  getOwn(message, "id") === loginCheck.id && getOwn(message, "method") === loginCheck.method

/** Whether a message of the server is the response to the check. */
export const isLoginCheckResponse = (message: unknown): boolean =>
  getOwn(message, "id") === loginCheck.id && getOwn(message, "method") === undefined
