/** Folds the approvals and questions of the server. */
import type * as Protocol from "../../Protocol.ts"
import { getOwn, getOwnString } from "../getOwn.ts"
import { addCommand, findItem } from "./items.ts"
import { isEnded, PendingRequest, type TurnView } from "./model.ts"
import { decoder } from "./readEvent.ts"

type CommandParams = Protocol.ServerRequests["item/commandExecution/requestApproval"]["params"]

const decodeRequest = decoder(PendingRequest)

const itemIdOf = ({ params }: PendingRequest): string | undefined => getOwnString(params, "itemId")

/** Whether an approval is about a command as a whole, not about a part of it: a subcommand, its input or its network access. */
const isWhole = ({ approvalId = null, kind = "command", networkApprovalContext = null }: CommandParams): boolean =>
  kind === "command" && approvalId === null && networkApprovalContext === null

/** Adds a request that waits for its response. */
export const addRequest = (view: TurnView, message: unknown): TurnView => {
  const request = decodeRequest(message)
  if (request === undefined || isEnded(view) || view.settledRequests.includes(request.id)) return view
  if (view.requests.some(({ id }) => id === request.id)) return view
  const itemId = itemIdOf(request)
  if (itemId !== undefined && view.items[findItem(view.items, itemId)]?.state === "completed") return view
  const next = { ...view, requests: [...view.requests, request] }
  return request.method === "item/commandExecution/requestApproval" && isWhole(request.params)
    ? addCommand(next, request.params)
    : next
}

const settle = (view: TurnView, isSettled: (request: PendingRequest) => boolean): TurnView => {
  const settled = view.requests.filter(isSettled)
  if (settled.length === 0) return view
  return {
    ...view,
    requests: view.requests.filter((request) => !settled.includes(request)),
    settledRequests: [...view.settledRequests, ...settled.map(({ id }) => id)]
  }
}

/** Folds `serverRequest/resolved`. */
export const resolveRequest = (view: TurnView, params: unknown): TurnView => {
  const requestId = getOwn(params, "requestId")
  return settle(view, ({ id }) => id === requestId)
}

/** Removes the requests about the items that have completed, or all requests of a turn that has ended. */
export const settleRequests = (view: TurnView): TurnView =>
  view.requests.length === 0 ? view : settle(view, (request) => {
    const itemId = itemIdOf(request)
    return isEnded(view) ||
      itemId !== undefined && view.items[findItem(view.items, itemId)]?.state === "completed"
  })
