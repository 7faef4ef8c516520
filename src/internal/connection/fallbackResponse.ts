/** The answers that grant nothing, for the server's requests that nobody handles, or not in time. */
import type * as Protocol from "../../Protocol.ts"
import type { Response } from "../jsonrpc/messages.ts"

type Declines = { readonly [M in keyof Protocol.ServerRequests]?: Protocol.ServerRequests[M]["result"] }

const denied = { denied: { rejection: "The client does not answer approval requests." } }

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

/** JSON-RPC's codes for a method that is not there, and for one that failed. */
const methodNotFound = -32601
const internalError = -32603

/** What to answer, and what that does to the request, for the log. */
export const fallbackResponse = (
  method: string,
  because: "unhandled" | "failed" | "withdrawn"
): { readonly answer: Response; readonly effect: string } => {
  if (Object.hasOwn(declines, method)) {
    return { answer: { result: declines[method as keyof Declines] }, effect: "Declined" }
  }
  const error = because === "unhandled"
    ? { code: methodNotFound, message: `The client does not handle ${method}` }
    : {
      code: internalError,
      message: because === "failed" ? `The client failed to handle ${method}` : `Nobody needs the answer to ${method}`
    }
  return { answer: { error }, effect: "Answered with an error:" }
}
