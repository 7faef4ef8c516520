/** The handlers and tools with which a thread was opened. */
import { declineAll, type Handlers, isSame } from "./handlers.ts"
import type { ThreadTools } from "./threadTools.ts"

export interface ThreadHandlers {
  readonly options: Handlers
  /** The handlers of the context in which the thread was opened. */
  readonly context: Handlers
  /** The handlers of the context in which the `Codex` layer was built. */
  readonly layer: Handlers
  readonly tools: ThreadTools | undefined
  /** The id of the parent thread, if the thread is one of a sub-agent. */
  readonly parentId?: string | undefined
}

/** In place of the handlers of a thread that was closed or deleted: its sub-agents may still run. */
export const closedThread: ThreadHandlers = { options: declineAll, context: {}, layer: {}, tools: undefined }

export const hasSameHandlers = (a: ThreadHandlers, b: ThreadHandlers): boolean =>
  isSame(a.options, b.options) && isSame(a.context, b.context) && isSame(a.layer, b.layer)
