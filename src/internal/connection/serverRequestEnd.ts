/** Recognizes the notifications that end pending requests of the server. */
import { getOwn } from "../getOwn.ts"
import type { Cancellation, IncomingNotification } from "../jsonrpc/messages.ts"
import { getThreadId, getTurnId } from "./codec.ts"

/** Approvals that do not name their turn. It is the turn that the thread runs. */
const legacyApprovals: ReadonlySet<string> = new Set(["applyPatchApproval", "execCommandApproval"])

const threadEndMethods: ReadonlySet<string> = new Set(["thread/closed", "thread/archived", "thread/deleted"])

/**
 * Returns which requests a notification cancels. A request ends when another client responds to it. It also ends with its turn or thread,
 * and then still needs a response.
 */
export const cancellation = ({ method, params }: IncomingNotification): Cancellation | undefined => {
  if (method === "serverRequest/resolved") {
    const id = getOwn(params, "requestId")
    return { matches: (request) => request.id === id, isResponded: true }
  }
  const threadId = getThreadId(params)
  if (method === "turn/completed") {
    const turnId = getTurnId(params)
    return {
      matches: (request) =>
        getThreadId(request.params) === threadId &&
        (getTurnId(request.params) === turnId || legacyApprovals.has(request.method)),
      isResponded: false
    }
  }
  return threadEndMethods.has(method)
    ? { matches: (request) => getThreadId(request.params) === threadId, isResponded: false }
    : undefined
}
