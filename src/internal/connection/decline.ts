/** The answers that grant nothing, for the server's requests that nobody handles. */
import type * as Protocol from "../../Protocol.ts"
import type { Answer } from "./jsonRpcPeer.ts"

type Declines = { readonly [M in keyof Protocol.ServerRequests]?: Protocol.ServerRequests[M]["result"] }

const denied = { denied: { rejection: "The client does not answer approval requests." } }

const declines: Declines = {
  "item/commandExecution/requestApproval": { decision: "decline" },
  "item/fileChange/requestApproval": { decision: "decline" },
  "item/permissions/requestApproval": { permissions: {}, scope: "turn" },
  "mcpServer/elicitation/request": { action: "decline", content: null },
  "item/tool/call": {
    success: false,
    contentItems: [{ type: "inputText", text: "The client has no handler for this tool." }]
  },
  applyPatchApproval: { decision: denied },
  execCommandApproval: { decision: denied }
}

/** JSON-RPC's code for a method that is not there. */
const methodNotFound = -32601

/** What to answer, and what that does to the request, for the log. */
export const declineOf = (method: string): { readonly answer: Answer; readonly effect: string } =>
  Object.hasOwn(declines, method)
    ? { answer: { result: declines[method as keyof Declines] }, effect: "Declined" }
    : {
      answer: { error: { code: methodNotFound, message: `The client does not handle ${method}` } },
      effect: "Answered with an error:"
    }
