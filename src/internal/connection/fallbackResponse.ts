/** The responses to requests of the server without a handler that responds. They grant nothing. */
import type * as Protocol from "../../Protocol.ts"
import { getOwn } from "../getOwn.ts"
import type { Response } from "../jsonrpc/messages.ts"

type Declines = { readonly [M in keyof Protocol.ServerRequests]?: Protocol.ServerRequests[M]["result"] }

const denied = { denied: { rejection: "The client does not handle approval requests." } }

const declines: Declines = {
  "item/commandExecution/requestApproval": { decision: "decline" },
  "item/fileChange/requestApproval": { decision: "decline" },
  "item/permissions/requestApproval": { permissions: {}, scope: "turn" },
  "mcpServer/elicitation/request": { action: "decline", content: null },
  "item/tool/call": {
    success: false,
    contentItems: [{ type: "inputText", text: "The client could not run this tool." }]
  },
  applyPatchApproval: { decision: denied },
  execCommandApproval: { decision: denied }
}

/** Why no handler has responded: none is registered, it failed, or it was interrupted. */
export type FallbackCause = "unhandled" | "failed" | "canceled"

/** The JSON-RPC codes for a method that does not exist, and for one that failed. */
const methodNotFound = -32601
const internalError = -32603

const errors: Record<FallbackCause, (method: string) => { readonly code: number; readonly message: string }> = {
  unhandled: (method) => ({ code: methodNotFound, message: `The client does not handle \`${method}\`` }),
  failed: (method) => ({ code: internalError, message: `The client failed to handle \`${method}\`` }),
  canceled: (method) => ({ code: internalError, message: `\`${method}\` was canceled` })
}

/** Returns the response to a request, and a verb for the log. */
export const fallbackResponse = (
  method: string,
  cause: FallbackCause
): { readonly response: Response; readonly verb: string } => {
  const result = getOwn(declines, method)
  return result === undefined
    ? { response: { error: errors[cause](method) }, verb: "Responded with an error to" }
    : { response: { result }, verb: "Declined" }
}
