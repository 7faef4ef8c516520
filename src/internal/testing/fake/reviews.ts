/** Reviews: a turn whose script runs in a hidden thread. The turn starts with another id than it ends with. */
import * as Effect from "effect/Effect"
import type * as Protocol from "../../../Protocol.ts"
import { recordUsage } from "./threadEvents.ts"
import type { StoredThread, StoredTurn } from "./threadStore.ts"
import { emit, emitItem, type Fake, getItem, type Reports, type ScriptedTurn } from "./turnContext.ts"

/** What a review shows as its target, and what the reviewer gets as input. */
export const describeTarget = (target: Protocol.ReviewTarget): { readonly title: string; readonly prompt: string } => {
  switch (target.type) {
    case "uncommittedChanges":
      return {
        title: "current changes",
        prompt:
          "Review the current code changes (staged, unstaged, and untracked files) and provide prioritized findings."
      }
    case "baseBranch":
      return {
        title: `changes against '${target.branch}'`,
        prompt:
          `Review the code changes against the base branch '${target.branch}'. Provide prioritized, actionable findings.`
      }
    case "commit": {
      const { sha, title } = target
      const quoted = title === null || title === undefined ? "" : ` ("${title}")`
      return {
        title: `commit ${sha.slice(0, 7)}${quoted === "" ? "" : `: ${title}`}`,
        prompt:
          `Review the code changes introduced by commit ${sha}${quoted}. Provide prioritized, actionable findings.`
      }
    }
    case "custom":
      return { title: target.instructions.trim(), prompt: target.instructions.trim() }
  }
}

const isMessage = (item: Protocol.ThreadItem | undefined): item is Protocol.ThreadItem & { type: "agentMessage" } =>
  item?.type === "agentMessage"

/** Makes the hidden thread of a review, and what the client receives of it. */
export const makeReview = Effect.fnUntraced(function*(
  fake: Fake,
  { active, thread }: Pick<ScriptedTurn, "active" | "thread">,
  title: string,
  prompt: string
) {
  const { store } = fake
  const { started, stored } = active
  const hiddenTurn: StoredTurn = { ...started, items: [] }
  const hidden: StoredThread = yield* store.createChild({ thread, kind: "review" }, {
    settings: { ...thread.settings, approvalPolicy: "never" },
    loaded: false,
    preview: prompt,
    turns: [hiddenTurn]
  })
  const reports: Reports = {
    notify: (method, params) => {
      const item = getItem(params)
      if (method === "item/completed" && item !== undefined) hiddenTurn.items.push(item)
      // Of the reviewer's messages, the client receives only that they start.
      const isHidden = method.startsWith("item/agentMessage/") || isMessage(item) && method === "item/completed"
      return isHidden ? Effect.void : emit(fake, thread, active, method, params, started)
    },
    addUsage: (tokens) => Effect.sync(() => recordUsage(hidden, started.id, tokens)),
    cutRequest: Effect.void
  }
  const review: Pick<Reports, "notify"> = { notify: (method, params) => emit(fake, thread, active, method, params) }
  return {
    reports,
    enter: emitItem(review, { type: "enteredReviewMode", id: store.newId("entered"), review: title }),
    exit: Effect.suspend(() => {
      const last = stored.status === "completed" ? hiddenTurn.items.findLast(isMessage) : undefined
      hiddenTurn.status = stored.status
      hiddenTurn.completedAt = stored.completedAt
      // The real server stores the review apart from the turn that it started, and no end of the latter.
      thread.turns.push(stored)
      const text = last?.text ?? "Review was interrupted. Please re-run /review and wait for it to complete."
      return Effect.andThen(
        emitItem(review, {
          type: "exitedReviewMode",
          id: store.newId("exited"),
          review: last?.text ?? "Reviewer failed to output a response."
        }),
        emitItem(review, { type: "agentMessage", id: store.newId("message"), text, phase: null })
      )
    })
  }
})
